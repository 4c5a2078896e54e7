// SPDX-License-Identifier: Apache-2.0
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"
#include "base/settings.h"
#include "images/image_store.h"
#include "runtime/resources.h"

#include <string.h>

#define DOCKER_PATH   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define EXECD_ENVS    "/opt/opensandbox/.env"
#define HOST_IMAGE    "host"
#define HOSTNAME_BYTES 4 /* of the id, in hexadecimal: what the broker names the sandbox */

void start_plan_clear(struct start_plan *plan)
{
	for (char **s = plan->args; s && *s; s++)
		free(*s);
	for (char **s = plan->env; s && *s; s++)
		free(*s);
	free(plan->args);
	free(plan->env);
	free(plan->cwd);
	free(plan->user);
	*plan = (struct start_plan){0};
}

static int no_memory(struct sbx_err *err)
{
	return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "create a sandbox");
}

/* ---- environment: image < defaults that it does not set < ours < request ---- */

struct env {
	char **item; /* owned, NULL-terminated "NAME=value", owned */
	size_t n, cap;
	bool failed;
};

static size_t name_length(const char *item)
{
	return strcspn(item, "=");
}

static char **env_find(const struct env *env, const char *name, size_t n)
{
	for (size_t i = 0; i < env->n; i++)
		if (name_length(env->item[i]) == n && !memcmp(env->item[i], name, n))
			return &env->item[i];
	return NULL;
}

static const char *env_value(const struct env *env, const char *name)
{
	char **item = env_find(env, name, strlen(name));

	return item && (*item)[strlen(name)] ? *item + strlen(name) + 1 : NULL;
}

static void env_set(struct env *env, const char *name, size_t name_bytes, const char *value)
{
	char *item = NULL;

	if (env->failed || asprintf(&item, "%.*s=%s", (int)name_bytes, name, value) < 0) {
		env->failed = true;
		return;
	}
	char **old = env_find(env, name, name_bytes);
	if (old) {
		free(*old);
		*old = item;
		return;
	}
	if (env->n + 1 >= env->cap) {
		size_t cap = env->cap ? env->cap * 2 : 32;
		char **more = reallocarray(env->item, cap, sizeof(*more));
		if (!more) {
			free(item);
			env->failed = true;
			return;
		}
		env->item = more;
		env->cap = cap;
	}
	env->item[env->n++] = item;
	env->item[env->n] = NULL;
}

static void env_default(struct env *env, const char *name, const char *value)
{
	if (!env_find(env, name, strlen(name)))
		env_set(env, name, strlen(name), value);
}

static void env_free(struct env *env)
{
	for (size_t i = 0; i < env->n; i++)
		free(env->item[i]);
	free(env->item);
}

static int build_env(const struct sandbox *s, const struct image *image, struct env *env, struct sbx_err *err)
{
	char hostname[2 * HOSTNAME_BYTES + 1];

	for (char **item = image ? image->env : NULL; item && *item; item++) {
		const char *value = strchr(*item, '=');
		if (value && value != *item)
			env_set(env, *item, (size_t)(value - *item), value + 1);
	}
	env_default(env, "PATH", DOCKER_PATH);
	hex_encode(s->id, HOSTNAME_BYTES, hostname);
	env_set(env, "HOSTNAME", strlen("HOSTNAME"), hostname);
	env_set(env, "OPENSANDBOX_ID", strlen("OPENSANDBOX_ID"), s->id_text);
	env_set(env, "SANDBOX_DENIED_LOG", strlen("SANDBOX_DENIED_LOG"), AGENT_DENIED_LOG);
	env_default(env, "EXECD_ENVS", EXECD_ENVS);
	for (size_t i = 0; i < s->spec.n_env; i++) {
		const struct sandbox_pair *p = &s->spec.env[i];
		if (!*p->key || strchr(p->key, '='))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "env: \"%.80s\" is not a name", p->key);
		env_set(env, p->key, strlen(p->key), p->value);
	}
	return env->failed ? no_memory(err) : 0;
}

/* ---- entrypoint: the rules of the published bootstrap script ---- */

static char *join_words(char *const *words)
{
	auto_buf out = {0};

	for (size_t i = 0; words[i]; i++) {
		if (i)
			buf_puts(&out, " ");
		buf_puts(&out, words[i]);
	}
	return out.failed ? NULL : strdup(buf_str(&out));
}

#define SOURCE_PRE_SCRIPT \
	"if [ -r \"$EXECD_BOOTSTRAP_PRE_SCRIPT\" ]; then . \"$EXECD_BOOTSTRAP_PRE_SCRIPT\" 9>&-; else " \
	"echo \"$EXECD_BOOTSTRAP_PRE_SCRIPT: not readable\" >&2; fi\n" \
	"env -0 >&9 2>/dev/null\nexec 9>&-\n" /* AGENT_ENV_FD: what it exported reaches commands as well */

static int set_args(struct start_plan *plan, const char *const *words, size_t n, struct sbx_err *err)
{
	plan->args = calloc(n + 1, sizeof(*plan->args));
	if (!plan->args)
		return no_memory(err);
	for (size_t i = 0; i < n; i++) {
		plan->args[i] = strdup(words[i]);
		if (!plan->args[i])
			return no_memory(err);
	}
	return 0;
}

/* One text for a shell: BOOTSTRAP_SHELL when it is set, else bash or sh, whichever the agent finds inside. */
static int shell_args(struct start_plan *plan, const struct env *env, const char *text, struct sbx_err *err)
{
	const char *shell = env_value(env, "BOOTSTRAP_SHELL");
	const char *pre = env_value(env, "EXECD_BOOTSTRAP_PRE_SCRIPT");
	auto_free char *whole = NULL;

	plan->flags |= pre && *pre ? AGENT_SPEC_TELLS_ENV : 0u;
	if (asprintf(&whole, "%s%s", pre && *pre ? SOURCE_PRE_SCRIPT : "", text) < 0) {
		whole = NULL;
		return no_memory(err);
	}
	if (shell && *shell) {
		const char *const words[] = {shell, "-c", whole};
		return set_args(plan, words, ARRAY_SIZE(words), err);
	}
	plan->flags |= AGENT_SPEC_SHELL;
	const char *const one[] = {whole};
	return set_args(plan, one, 1, err);
}

static int plain_args(struct start_plan *plan, const struct env *env, char *const *entrypoint, struct sbx_err *err)
{
	const char *shell = env_value(env, "BOOTSTRAP_SHELL");
	const char *pre = env_value(env, "EXECD_BOOTSTRAP_PRE_SCRIPT");
	size_t n = 0, at = 0;

	while (entrypoint[n])
		n++;
	auto_free const char **words = calloc(n + 4, sizeof(*words));
	if (!words)
		return no_memory(err);
	if (pre && *pre) {
		plan->flags |= AGENT_SPEC_TELLS_ENV;
		words[at++] = shell && *shell ? shell : "sh";
		words[at++] = "-c";
		words[at++] = SOURCE_PRE_SCRIPT "exec \"$@\"";
		words[at++] = "entrypoint";
	}
	for (size_t i = 0; i < n; i++)
		words[at++] = entrypoint[i];
	return set_args(plan, words, at, err);
}

static int build_args(struct start_plan *plan, const struct env *env, char *const *entrypoint, struct sbx_err *err)
{
	const char *command = env_value(env, "BOOTSTRAP_CMD");

	if (!strcmp(entrypoint[0], SANDBOX_ENTRYPOINT_IDLE) && !entrypoint[1])
		return set_args(plan, NULL, 0, err);
	if (command && *command)
		return shell_args(plan, env, command, err);
	if (!strcmp(entrypoint[0], "-c")) {
		if (!entrypoint[1])
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: nothing stands behind -c");
		auto_free char *text = join_words(entrypoint + 1);
		return text ? shell_args(plan, env, text, err) : no_memory(err);
	}
	return plain_args(plan, env, entrypoint, err);
}

/* sandboxctl without a command: the image's ENTRYPOINT and CMD become the sandbox's entrypoint, and are shown as such. */
static int take_image_entrypoint(struct sandbox_spec *spec, const struct image *image, struct sbx_err *err)
{
	static char *const fallback[] = {(char *)(uintptr_t)"tail", (char *)(uintptr_t)"-f", (char *)(uintptr_t)"/dev/null", NULL};
	char *const *parts[2] = {image ? image->entrypoint : NULL, image ? image->cmd : NULL};
	size_t n = 0;

	for (size_t p = 0; p < ARRAY_SIZE(parts); p++)
		for (char *const *w = parts[p]; w && *w; w++)
			n++;
	if (!n) {
		parts[0] = fallback;
		n = ARRAY_SIZE(fallback) - 1;
	}
	char **words = calloc(n + 1, sizeof(*words));
	if (!words)
		return no_memory(err);
	size_t at = 0;
	for (size_t p = 0; p < ARRAY_SIZE(parts); p++)
		for (char *const *w = parts[p]; w && *w; w++) {
			words[at] = strdup(*w);
			at += words[at] != NULL;
		}
	for (char **w = spec->entrypoint; w && *w; w++)
		free(*w);
	free(spec->entrypoint);
	spec->entrypoint = words;
	return at == n ? 0 : no_memory(err);
}

static int build_start(struct sandbox_entry *e, const struct image *image, struct sbx_err *err)
{
	struct sandbox_spec *spec = &e->pub.spec;
	struct env env = {0};

	if (spec->image_entrypoint && (!spec->entrypoint || !spec->entrypoint[0]) && take_image_entrypoint(spec, image, err) < 0)
		return -1;
	if (!spec->entrypoint || !spec->entrypoint[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "entrypoint: empty");
	if (build_env(&e->pub, image, &env, err) < 0 || build_args(&e->start, &env, spec->entrypoint, err) < 0) {
		env_free(&env);
		return -1;
	}
	e->start.env = env.item;
	e->start.cwd = strdup(image ? image->workdir : "");
	e->start.user = strdup(image ? image->user : "");
	if (!e->start.cwd || !e->start.user)
		return no_memory(err);
	const struct agent_start start = {
		.cwd = e->start.cwd,
		.user = e->start.user,
		.args = (const char *const *)e->start.args,
		.env = (const char *const *)e->start.env,
	};
	return agent_control_check(&start, err);
}

/* ---- tokens ---- */

static void random_token(char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint8_t raw[43]; /* one for each character: 43 * 6 bits */

	random_bytes(raw, sizeof(raw));
	for (size_t i = 0; i < sizeof(raw); i++)
		out[i] = digits[raw[i] & 63];
	out[sizeof(raw)] = '\0';
}

static int build_tokens(const struct sandbox_manager *m, struct sandbox *s, struct sbx_err *err)
{
	_Static_assert(sizeof(s->egress_token) >= 44 && sizeof(s->execd_token) >= 44, "room for a token");

	if (*s->egress_token)
		return 0; /* planned before: the row has them already */
	random_token(s->egress_token);
	for (size_t i = 0; i < s->spec.n_env; i++) {
		const struct sandbox_pair *p = &s->spec.env[i];
		if (strcmp(p->key, "EXECD_ACCESS_TOKEN") != 0 || !*p->value)
			continue;
		if (strlen(p->value) >= sizeof(s->execd_token))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "env: EXECD_ACCESS_TOKEN has more than %zu characters",
					   sizeof(s->execd_token) - 1);
		memcpy(s->execd_token, p->value, strlen(p->value) + 1);
		return 0;
	}
	if (*m->settings->server_api_key)
		random_token(s->execd_token);
	return 0;
}

/* ---- the broker's message ---- */

static int copy_field(char *out, size_t size, const char *text, const char *what, enum sbx_err_code code, struct sbx_err *err)
{
	size_t n = strlen(text);

	if (n >= size)
		return sbx_err_set(err, code, 0, "%s: \"%.60s\" has more than %zu characters", what, text, size - 1);
	memcpy(out, text, n + 1);
	return 0;
}

/* The allowed host path that is @path or its nearest parent; the broker has the same list and takes only its index. */
static int host_root_of(const struct settings *settings, const char *path, uint32_t *ret_index, const char **ret_rel,
			struct sbx_err *err)
{
	size_t best = 0;
	bool found = false;

	for (size_t i = 0; i < settings->storage_allowed_host_paths.n; i++) {
		const char *root = settings->storage_allowed_host_paths.item[i];
		size_t n = strlen(root);

		while (n > 1 && root[n - 1] == '/')
			n--;
		size_t cut = n == 1 ? 0 : n; /* "/" is the parent of all */
		if (strncmp(path, root, cut) != 0 || (path[cut] && path[cut] != '/') || (found && n <= best))
			continue;
		found = true;
		best = n;
		*ret_index = (uint32_t)i;
		*ret_rel = path + cut + strspn(path + cut, "/");
	}
	return found ? 0 : sbx_err_set(err, SBX_E_VOLUME_NOT_ALLOWED, 0, "host path \"%.120s\" is outside storage.allowed_host_paths",
				       path);
}

static int plan_volume(const struct settings *settings, const struct sandbox_volume *v, struct broker_volume *out,
		       struct sbx_err *err)
{
	out->flags = (v->read_only ? (uint32_t)BROKER_VOLUME_READ_ONLY : 0) | (v->create && !v->size_mib ? (uint32_t)BROKER_VOLUME_MAKE : 0); /* one with a size is made before, or not at all */
	if (v->kind == SANDBOX_VOLUME_NAMED) {
		out->kind = BROKER_VOLUME_NAMED;
		if (copy_field(out->claim, sizeof(out->claim), v->source, "volume name", SBX_E_INVALID_REQUEST, err) < 0)
			return -1;
	} else {
		const char *rel = "";
		out->kind = BROKER_VOLUME_HOST;
		if (host_root_of(settings, v->source, &out->host_root, &rel, err) < 0 ||
		    copy_field(out->rel, sizeof(out->rel), rel, "host path", SBX_E_VOLUME_HOST_PATH, err) < 0)
			return -1;
	}
	if (copy_field(out->sub, sizeof(out->sub), v->sub_path, "subPath", SBX_E_VOLUME_SUB_PATH, err) < 0 ||
	    copy_field(out->mount_path, sizeof(out->mount_path), v->mount_path, "mountPath", SBX_E_INVALID_REQUEST, err) < 0)
		return -1;
	return 0;
}

static int plan_image(struct sandbox_manager *m, const struct sandbox_spec *spec, struct broker_create *msg,
		      const struct image **ret, struct sbx_err *err)
{
	static const uint8_t none[BROKER_KEY_BYTES];
	const struct broker_hello_reply *hello = broker_client_hello(m->broker);

	if (!strcmp(spec->image_uri, HOST_IMAGE)) {
		if (!m->settings->images_host || (hello && !memcmp(hello->host_image_key, none, sizeof(none))))
			return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "the image \"host\" is switched off (images.host)");
		msg->flags |= BROKER_CREATE_HOST_USR;
		msg->n_layers = 1;
		/* While there is no broker the request is only checked; it is planned again for the next one, which has another key. */
		memcpy(msg->layer[0], hello ? hello->host_image_key : none, BROKER_KEY_BYTES);
		*ret = NULL;
		return 0;
	}
	if (!m->images)
		return sbx_err_set(err, SBX_E_IMAGE_NOT_FOUND, 0, "image \"%.120s\" is not here", spec->image_uri);
	const struct image *image = image_store_usable(m->images, spec->image_uri, err);
	if (!image)
		return -1;
	if (!image->n_layers || image->n_layers > BROKER_MAX_LAYERS)
		return sbx_err_set(err, SBX_E_IMAGE_INVALID, 0, "image \"%.120s\" has %zu layers", spec->image_uri, image->n_layers);
	_Static_assert(DIGEST_BYTES == BROKER_KEY_BYTES, "a layer's key is a digest");
	msg->n_layers = (uint32_t)image->n_layers;
	memcpy(msg->layer, image->layers, image->n_layers * BROKER_KEY_BYTES);
	*ret = image;
	return 0;
}

static void plan_limits(const struct settings *settings, const struct sandbox_spec *spec, struct broker_create *msg)
{
	static const struct {
		const char *name;
		uint32_t flag;
	} lacks[] = {
		{"memory", BROKER_CREATE_NO_MEMORY_LIMIT},
		{"pids", BROKER_CREATE_NO_PIDS_LIMIT},
		{"cpu", BROKER_CREATE_NO_CPU_LIMIT},
		{"swap", BROKER_CREATE_NO_SWAP_LIMIT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lacks); i++)
		if (settings_lack_allowed(settings, lacks[i].name))
			msg->flags |= lacks[i].flag;
	msg->memory_bytes = spec->memory_bytes;
	msg->cpu_millicores = spec->cpu_millicores;
	msg->pids_max = spec->pids_max;
	msg->disk_mib = spec->disk_mib;
}

/* What the request leaves open comes from the configuration, and is then part of what the sandbox is shown with. */
static void default_limits(const struct settings *settings, const struct admission_host *host, struct sandbox_spec *spec)
{
	uint64_t memory = 0;
	uint32_t cpu = 0, disk = 0;

	/* All texts were checked when the daemon started. */
	if (!spec->memory_bytes && resources_memory(settings->limits_default_memory, &memory) == 0)
		spec->memory_bytes = memory;
	if (!spec->cpu_millicores && resources_cpu(settings->limits_default_cpu, &cpu) == 0)
		spec->cpu_millicores = cpu;
	if (!spec->disk_mib && resources_disk(settings->limits_default_disk, &disk) == 0)
		spec->disk_mib = disk;
	if (!spec->pids_max)
		spec->pids_max = settings->limits_default_pids ? (uint32_t)settings->limits_default_pids : admission_default_pids(settings, host);
}

int launch_plan(struct sandbox_manager *m, struct sandbox_entry *e, struct broker_create *msg, struct sbx_err *err)
{
	struct sandbox_spec *spec = &e->pub.spec;
	const struct image *image = NULL;

	start_plan_clear(&e->start);
	memset(msg, 0, sizeof(*msg));
	msg->head = (struct broker_head){.op = BROKER_OP_SANDBOX_CREATE, .size = sizeof(*msg)};
	memcpy(msg->sandbox_id, e->pub.id, sizeof(msg->sandbox_id));
	if (spec->n_volumes > BROKER_MAX_VOLUMES)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "volumes: more than %u", BROKER_MAX_VOLUMES);
	default_limits(m->settings, &m->host, spec);
	if (!e->wants_pull && plan_image(m, spec, msg, &image, err) < 0)
		return -1;
	if (msg->n_layers)
		memcpy(e->pub.image_key, msg->layer[msg->n_layers - 1], sizeof(e->pub.image_key));
	if (image)
		image_store_touch(m->images, image);
	/* the image's own entrypoint is not known yet; all else of a start can be looked at without it */
	bool later = e->wants_pull && spec->image_entrypoint && (!spec->entrypoint || !spec->entrypoint[0]);
	if ((!later && build_start(e, image, err) < 0) || build_tokens(m, &e->pub, err) < 0)
		return -1;
	plan_limits(m->settings, spec, msg);
	if (egress_is_open(e))
		msg->flags |= BROKER_CREATE_EGRESS_OPEN;
	for (size_t i = 0; i < spec->n_volumes; i++)
		if (plan_volume(m->settings, &spec->volumes[i], &msg->volume[i], err) < 0)
			return -1;
	msg->n_volumes = (uint32_t)spec->n_volumes;
	return 0;
}
