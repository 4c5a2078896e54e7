// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/create_request.h"

#include "api/lifecycle/labels.h"
#include "api/lifecycle/word_split.h"
#include "api/volumes_request.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/num.h"
#include "base/settings.h"
#include "base/wallclock.h"
#include "netpolicy/policy_json.h"
#include "runtime/resources.h"
#include "runtime/sandbox.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MIN_S	60
/* of struct registry_credentials */
#define AUTH_USER_BYTES	    256u
#define AUTH_PASSWORD_BYTES 8192u
#define RENEW_EXTEND_MIN 300u
#define RENEW_EXTEND_MAX 86400u
/* 9999-12-31T23:59:59Z: later instants have no RFC 3339 form */
#define LAST_WALL_S INT64_C(253402300799)

#define EXT_RENEW "access.renew.extend.seconds"
#define EXT_POOL  "poolRef"
#define EXT_PULL  "image.pull"

static bool is_blank(const char *s)
{
	return !s || !s[strspn(s, " \t\r\n\v\f")];
}

/* ---- shape ---- */

enum map_flags { MAP_NULL_VALUES = 1u << 0 };

static void map_schema(struct schema *s, const struct schema_at *root, const struct jv *body, const char *name, unsigned flags)
{
	const struct jv *map = schema_object(s, root, body, name);
	const struct schema_at map_at = {.up = root, .name = name};

	for (const struct jv *m = jv_first(map); m; m = jv_next(m)) {
		const struct schema_at here = {.up = &map_at, .name = jv_name(m)};

		if (jv_type(m) != JV_STRING && !((flags & MAP_NULL_VALUES) && jv_type(m) == JV_NULL))
			schema_fault(s, &here, "string_type", "must be of type string, not %s", jv_type_name(jv_type(m)));
	}
}

/* Integers, integral floats, and strings of digits.  Return: 0, -EINVAL, -ERANGE */
static int read_timeout(const struct jv *v, int64_t *ret)
{
	const char *text = jv_str(v);

	if (text)
		return num_i64(text, strlen(text), ret);
	return jv_i64(v, ret);
}

static void timeout_schema(struct schema *s, const struct schema_at *root, const struct jv *body)
{
	const struct schema_at at = {.up = root, .name = "timeout"};
	const struct jv *v = jv_get(body, "timeout");
	int64_t seconds = 0;

	if (!jv_is_set(v))
		return;
	int r = read_timeout(v, &seconds);
	double d = 0;
	/* too large is a matter of value, answered 400; too large a negative number is below the least one */
	if (r == -ERANGE) {
		const char *text = jv_str(v);

		if (text ? text[0] == '-' : (!jv_double(v, &d) && d < 0))
			schema_fault(s, &at, "greater_than_equal", "must be at least %d seconds", TIMEOUT_MIN_S);
		return;
	}
	if (r < 0)
		schema_fault(s, &at, "int_type", "must be a whole number of seconds");
	else if (seconds < TIMEOUT_MIN_S)
		schema_fault(s, &at, "greater_than_equal", "must be at least %d seconds", TIMEOUT_MIN_S);
}

static void entrypoint_schema(struct schema *s, const struct schema_at *root, const struct jv *body)
{
	const struct schema_at at = {.up = root, .name = "entrypoint"};
	const struct jv *list = schema_array(s, root, body, "entrypoint");
	size_t i = 0;

	if (list && !jv_first(list))
		schema_fault(s, &at, "too_short", "must have at least one element");
	for (const struct jv *v = jv_first(list); v; v = jv_next(v), i++) {
		const struct schema_at here = {.up = &at, .index = i};

		if (jv_type(v) != JV_STRING)
			schema_fault(s, &here, "string_type", "must be of type string, not %s", jv_type_name(jv_type(v)));
	}
}

static void image_schema(struct schema *s, const struct schema_at *root, const struct jv *body)
{
	const struct schema_at at = {.up = root, .name = "image"};
	const struct jv *image = schema_object(s, root, body, "image");

	if (!image)
		return;
	schema_str_needed(s, &at, image, "uri");
	const struct jv *auth = schema_object(s, &at, image, "auth");
	const struct schema_at auth_at = {.up = &at, .name = "auth"};
	if (auth) {
		schema_str_needed(s, &auth_at, auth, "username");
		schema_str_needed(s, &auth_at, auth, "password");
	}
}

static void policy_schema(struct schema *s, const struct schema_at *root, const struct jv *body)
{
	const struct schema_at at = {.up = root, .name = "networkPolicy"};
	const struct jv *policy = schema_object(s, root, body, "networkPolicy");

	if (!policy)
		return;
	schema_str(s, &at, policy, "defaultAction");
	const struct jv *egress = schema_array(s, &at, policy, "egress");
	const struct schema_at list_at = {.up = &at, .name = "egress"};
	size_t i = 0;
	for (const struct jv *rule = jv_first(egress); rule; rule = jv_next(rule), i++) {
		const struct schema_at here = {.up = &list_at, .index = i};
		const struct schema_at target_at = {.up = &here, .name = "target"};

		if (jv_type(rule) != JV_OBJECT) {
			schema_fault(s, &here, "model_type", "must be an object");
			continue;
		}
		schema_str_needed(s, &here, rule, "action");
		const char *target = schema_str_needed(s, &here, rule, "target");
		if (target && !target[0])
			schema_fault(s, &target_at, "string_too_short", "must not be empty");
	}
}

static const char *extension(const struct jv *body, const char *name)
{
	return jv_str(jv_get(schema_member(body, "extensions"), name));
}

static bool proxy_enabled(const struct jv *body)
{
	bool enabled = false;

	jv_bool(schema_member(schema_member(body, "credentialProxy"), "enabled"), &enabled);
	return enabled;
}

/* Between members; only when each by itself is right.  The first that fails is the only one told. */
static void cross_schema(struct schema *s, const struct schema_at *root, const struct jv *body)
{
	bool image = !is_blank(jv_str(schema_member(schema_member(body, "image"), "uri")));
	bool snapshot = !is_blank(jv_str(schema_member(body, "snapshotId")));

	if (!is_blank(extension(body, EXT_POOL))) {
		if (snapshot)
			schema_fault(s, root, "value_error", "snapshotId cannot be combined with extensions.poolRef");
		else if (proxy_enabled(body))
			schema_fault(s, root, "value_error", "credentialProxy cannot be combined with extensions.poolRef");
		return;
	}
	if (proxy_enabled(body) && !jv_is_set(schema_member(body, "networkPolicy")))
		schema_fault(s, root, "value_error", "credentialProxy needs networkPolicy");
	else if (image == snapshot)
		schema_fault(s, root, "value_error", "exactly one of image and snapshotId must be given");
	else if (image && !jv_is_set(jv_get(body, "entrypoint")))
		schema_fault(s, root, "value_error", "entrypoint is required with image");
	else if (!jv_is_set(schema_member(body, "resourceLimits")))
		schema_fault(s, root, "value_error", "resourceLimits is required, it may be {}");
}

void create_request_schema(struct schema *s, const struct jv *body)
{
	const struct schema_at root = {.name = "body"};

	if (jv_type(body) != JV_OBJECT) {
		schema_fault(s, &root, "model_type", "must be an object");
		return;
	}
	image_schema(s, &root, body);
	schema_str(s, &root, body, "snapshotId");
	const struct schema_at platform_at = {.up = &root, .name = "platform"};
	const struct jv *platform = schema_object(s, &root, body, "platform");
	if (platform) {
		schema_str_needed(s, &platform_at, platform, "os");
		schema_str_needed(s, &platform_at, platform, "arch");
	}
	timeout_schema(s, &root, body);
	map_schema(s, &root, body, "resourceLimits", 0);
	map_schema(s, &root, body, "env", MAP_NULL_VALUES);
	map_schema(s, &root, body, "metadata", 0);
	entrypoint_schema(s, &root, body);
	policy_schema(s, &root, body);
	const struct schema_at proxy_at = {.up = &root, .name = "credentialProxy"};
	const struct jv *proxy = schema_object(s, &root, body, "credentialProxy");
	if (proxy)
		schema_bool(s, &proxy_at, proxy, "enabled", false);
	schema_bool(s, &root, body, "secureAccess", false);
	const struct schema_at volumes_at = {.up = &root, .name = "volumes"};
	volumes_request_schema(s, &volumes_at, schema_array(s, &root, body, "volumes"));
	map_schema(s, &root, body, "extensions", 0);
	if (!s->n)
		cross_schema(s, &root, body);
}

/* ---- values, in the order in which clients know them to be checked ---- */

static int no_memory(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "create");
}

static int take_extensions(const struct jv *body, struct sandbox_spec *spec, struct sbx_err *err)
{
	const char *renew = extension(body, EXT_RENEW);
	uint32_t seconds;

	if (renew) {
		size_t from = strspn(renew, " \t"), n = strlen(renew + from);

		while (n && isspace((unsigned char)renew[from + n - 1]))
			n--;
		if (num_u32(renew + from, n, RENEW_EXTEND_MAX, &seconds) < 0 || seconds < RENEW_EXTEND_MIN)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "extensions: " EXT_RENEW " must be %u to %u, not \"%.32s\"",
					   RENEW_EXTEND_MIN, RENEW_EXTEND_MAX, renew);
		spec->renew_extend_s = seconds;
	}
	static const char *const policies[] = {
		[SANDBOX_PULL_MISSING] = "missing", [SANDBOX_PULL_ALWAYS] = "always", [SANDBOX_PULL_NEVER] = "never"};
	const char *pull = extension(body, EXT_PULL);
	for (size_t i = 1; pull && i < ARRAY_SIZE(policies); i++)
		if (!strcmp(pull, policies[i]))
			spec->pull = (enum sandbox_pull)i;
	if (pull && spec->pull == SANDBOX_PULL_DEFAULT)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "extensions: " EXT_PULL " must be missing, always or never, not \"%.32s\"",
				   pull);
	if (!is_blank(extension(body, EXT_POOL)))
		return sbx_err_set(err, SBX_E_POOL_UNSUPPORTED, 0, "extensions.poolRef: warm pools by reference are not offered");
	return 0;
}

static int take_metadata(const struct jv *body, struct sandbox_spec *spec, struct sbx_err *err)
{
	const struct jv *map = jv_get(body, "metadata");
	size_t n = jv_count(map);

	if (n > LIMIT_METADATA)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "metadata: %zu entries are more than %u", n, LIMIT_METADATA);
	for (const struct jv *m = jv_first(map); m; m = jv_next(m)) {
		if (labels_is_reserved(jv_name(m)))
			return sbx_err_set(err, SBX_E_METADATA_LABEL, 0, "metadata: the key \"%.80s\" has the reserved prefix", jv_name(m));
		if (labels_check(jv_name(m), jv_str(m), err) < 0)
			return -1;
	}
	if (!n)
		return 0;
	spec->metadata = calloc(n, sizeof(*spec->metadata));
	if (!spec->metadata)
		return no_memory(err);
	for (const struct jv *m = jv_first(map); m; m = jv_next(m)) {
		struct sandbox_pair *pair = &spec->metadata[spec->n_metadata++];

		pair->key = strdup(jv_name(m));
		pair->value = strdup(jv_str(m));
		if (!pair->key || !pair->value)
			return no_memory(err);
	}
	return 0;
}

/* Trimmed and lower-case into @out.  Return: whether it fits. */
static bool normalise(const char *text, char *out, size_t size)
{
	size_t n;

	text += strspn(text, " \t\r\n");
	n = strlen(text);
	while (n && isspace((unsigned char)text[n - 1]))
		n--;
	if (n >= size)
		return false;
	for (size_t i = 0; i < n; i++)
		out[i] = (char)tolower((unsigned char)text[i]);
	out[n] = '\0';
	return true;
}

#if defined(__x86_64__)
#define OWN_ARCH "amd64"
#elif defined(__aarch64__)
#define OWN_ARCH "arm64"
#else
#define OWN_ARCH "other"
#endif

static int take_platform(const struct jv *body, struct sandbox_spec *spec, struct sbx_err *err)
{
	const struct jv *platform = jv_get(body, "platform");
	char os[16], arch[16];

	if (!jv_is_set(platform))
		return 0;
	if (!normalise(jv_str(jv_get(platform, "os")), os, sizeof(os)) || strcmp(os, "linux") != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "platform.os: only linux is offered");
	if (!normalise(jv_str(jv_get(platform, "arch")), arch, sizeof(arch)) || strcmp(arch, OWN_ARCH) != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "platform.arch: this host runs " OWN_ARCH " only");
	spec->platform_os = strdup(os);
	spec->platform_arch = strdup(arch);
	return spec->platform_os && spec->platform_arch ? 0 : no_memory(err);
}

static int take_timeout(const struct jv *body, const struct settings *settings, struct sandbox_spec *spec, struct sbx_err *err)
{
	const struct jv *v = jv_get(body, "timeout");
	int64_t seconds = 0, most = settings->server_max_sandbox_timeout_seconds;

	spec->timeout_s = -1;
	if (!jv_is_set(v))
		return 0;
	if (read_timeout(v, &seconds) < 0 || seconds > LAST_WALL_S - wall_usec() / 1000000)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "timeout: the expiry would be later than any date that can be written");
	if (most && seconds > most)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "timeout: %lld s is more than server.max_sandbox_timeout_seconds (%lld)",
				   (long long)seconds, (long long)most);
	spec->timeout_s = seconds;
	return 0;
}

static int take_features(const struct jv *body, const struct settings *settings, struct sandbox_spec *spec, struct sbx_err *err)
{
	bool secure = false;

	jv_bool(schema_member(body, "secureAccess"), &secure);
	if (secure)
		return sbx_err_set(err, SBX_E_API_NOT_SUPPORTED, 0, "secureAccess is not offered by this server");
	if (proxy_enabled(body))
		return sbx_err_set(err, SBX_E_API_NOT_SUPPORTED, 0, "credentialProxy is not offered by this server");
	const struct jv *policy = schema_member(body, "networkPolicy");
	/* an empty object means deny-all, so it counts as asked for */
	if (!jv_is_set(policy))
		return 0;
	spec->policy = policy_json_read(policy, (uint32_t)settings->egress_max_rules, err);
	return spec->policy ? 0 : sbx_err_wrap(err, "networkPolicy");
}

static int take_env(const struct jv *body, struct sandbox_spec *spec, size_t *bytes, struct sbx_err *err)
{
	const struct jv *map = jv_get(body, "env");
	size_t n = jv_count(map);

	if (n > LIMIT_SPAWN_STRINGS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "env: %zu variables are more than %u", n, LIMIT_SPAWN_STRINGS);
	if (!n)
		return 0;
	spec->env = calloc(n, sizeof(*spec->env));
	if (!spec->env)
		return no_memory(err);
	for (const struct jv *m = jv_first(map); m; m = jv_next(m)) {
		const char *name = jv_name(m), *value = jv_str(m);

		if (!name[0] || strchr(name, '='))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "env: \"%.64s\" is no name of a variable (%s)", name,
					   name[0] ? "it has a \"=\"" : "it is empty");
		if (!value) /* null: as if it were not there */
			continue;
		size_t len = strlen(name) + strlen(value) + 2;
		if (len > LIMIT_SPAWN_STRING_BYTES)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "env: \"%.64s\" has %zu bytes, the kernel takes %u", name, len,
					   LIMIT_SPAWN_STRING_BYTES);
		*bytes += len;
		struct sandbox_pair *pair = &spec->env[spec->n_env++];
		pair->key = strdup(name);
		pair->value = strdup(value);
		if (!pair->key || !pair->value)
			return no_memory(err);
	}
	return 0;
}

static int take_entrypoint(const struct jv *body, struct sandbox_spec *spec, size_t *bytes, struct sbx_err *err)
{
	const struct jv *list = jv_get(body, "entrypoint");
	size_t n = jv_count(list), i = 0;

	if (n > LIMIT_SPAWN_STRINGS)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: %zu arguments are more than %u", n, LIMIT_SPAWN_STRINGS);
	if (n == 1 && strchr(jv_str(jv_first(list)), ' ')) {
		int words = word_split(jv_str(jv_first(list)), LIMIT_SPAWN_STRINGS, &spec->entrypoint, err);

		if (words < 0)
			return -1;
	} else {
		spec->entrypoint = calloc(n + 1, sizeof(*spec->entrypoint));
		if (!spec->entrypoint)
			return no_memory(err);
		for (const struct jv *v = jv_first(list); v; v = jv_next(v), i++) {
			spec->entrypoint[i] = strdup(jv_str(v));
			if (!spec->entrypoint[i])
				return no_memory(err);
		}
	}
	if (!spec->entrypoint[0][0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: the program's name is empty");
	for (char **arg = spec->entrypoint; *arg; arg++) {
		size_t len = strlen(*arg) + 1;

		if (len > LIMIT_SPAWN_STRING_BYTES)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: an argument has %zu bytes, the kernel takes %u", len,
					   LIMIT_SPAWN_STRING_BYTES);
		*bytes += len;
	}
	return 0;
}

static int take_image(const struct jv *body, struct sandbox_spec *spec, struct sbx_err *err)
{
	const char *uri = jv_str(jv_get(jv_get(body, "image"), "uri"));
	size_t n;

	uri += strspn(uri, " \t\r\n");
	n = strlen(uri);
	while (n && isspace((unsigned char)uri[n - 1]))
		n--;
	spec->image_uri = strndup(uri, n);
	if (!spec->image_uri)
		return no_memory(err);
	const struct jv *auth = jv_get(jv_get(body, "image"), "auth");
	if (!jv_is_set(auth))
		return 0;
	const char *user = jv_str(jv_get(auth, "username")), *password = jv_str(jv_get(auth, "password"));
	if (strlen(user) >= AUTH_USER_BYTES || strlen(password) >= AUTH_PASSWORD_BYTES || strchr(user, ':'))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "image.auth: at most %u and %u characters, no colon in the username",
				   AUTH_USER_BYTES - 1, AUTH_PASSWORD_BYTES - 1);
	spec->image_user = strdup(user);
	spec->image_password = strdup(password);
	return spec->image_user && spec->image_password ? 0 : no_memory(err);
}

/* An unreadable value must not silently mean "no limit"; "0" says so on purpose. */
static int take_limit(const char *key, const char *text, struct sandbox_spec *spec, struct sbx_err *err)
{
	int r = 0;

	if (!strcmp(key, "memory"))
		r = resources_memory(text, &spec->memory_bytes);
	else if (!strcmp(key, "cpu"))
		r = !strcmp(text, "0") ? 0 : resources_cpu(text, &spec->cpu_millicores);
	else if (!strcmp(key, "pids"))
		r = resources_count(text, &spec->pids_max);
	else if (!strcmp(key, "disk") || !strcmp(key, "ephemeral-storage"))
		r = resources_disk(text, &spec->disk_mib);
	else
		log_info("create: resourceLimits.%.32s is not known here and has no effect", key);
	if (r == -ERANGE)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "resourceLimits.%s: \"%.32s\" is not between %uMi and what a file system can be",
				   key, text, LIMIT_DISK_MIN_MIB);
	if (r < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "resourceLimits.%s: \"%.32s\" is not a quantity", key, text);
	return 0;
}

int create_request_take(const struct jv *body, const struct settings *settings, struct sandbox_spec *spec, struct sbx_err *err)
{
	size_t bytes = 0;

	if (take_extensions(body, spec, err) < 0)
		return -1;
	if (!is_blank(jv_str(schema_member(body, "snapshotId"))))
		return sbx_err_set(err, SBX_E_SNAPSHOT_UNSUPPORTED, 0, "snapshotId: snapshots are not offered by this server");
	if (take_metadata(body, spec, err) < 0 || take_platform(body, spec, err) < 0 ||
	    take_timeout(body, settings, spec, err) < 0 || take_features(body, settings, spec, err) < 0)
		return -1;
	if (volumes_request_take(jv_get(body, "volumes"), settings, spec, err) < 0)
		return -1;
	if (take_entrypoint(body, spec, &bytes, err) < 0 || take_env(body, spec, &bytes, err) < 0)
		return -1;
	if (bytes > LIMIT_SPAWN_BYTES)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint and env: %zu bytes together are more than %u", bytes,
				   LIMIT_SPAWN_BYTES);
	if (take_image(body, spec, err) < 0)
		return -1;
	const struct jv *limits = schema_member(body, "resourceLimits");
	for (const struct jv *m = jv_first(limits); m; m = jv_next(m))
		if (take_limit(jv_name(m), jv_str(m), spec, err) < 0)
			return -1;
	return 0;
}
