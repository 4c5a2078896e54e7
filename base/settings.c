// SPDX-License-Identifier: Apache-2.0
#include "base/settings.h"

#include "base/cleanup.h"
#include "base/config_file.h"
#include "base/log.h"
#include "base/num.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <string.h>

enum setting_type { TYPE_TEXT = 1, TYPE_COUNT, TYPE_REAL, TYPE_SWITCH, TYPE_TEXTS, TYPE_ANY };
enum setting_effect { EFFECT_USED = 1, EFFECT_SAME, EFFECT_UNLIKE };

struct row {
	const char *section, *key;
	enum setting_type type;
	enum setting_effect effect;
	size_t offset;
	const char *def;
	int64_t min, max;
	const char *unit, *text;
};

static const struct row rows[] = {
#define SETTING(section, key, field, type, def, min, max, unit, effect, text) \
	{section, key, TYPE_##type, EFFECT_##effect, offsetof(struct settings, field), def, min, max, unit, text},
#include "base/settings.def"
#undef SETTING
};

#define TEXT_ITEM_MAX 1024u

static char **text_of(const struct settings *s, const struct row *row)
{
	return (char **)((uintptr_t)s + row->offset);
}

static int64_t *count_of(const struct settings *s, const struct row *row)
{
	return (int64_t *)((uintptr_t)s + row->offset);
}

static double *real_of(const struct settings *s, const struct row *row)
{
	return (double *)((uintptr_t)s + row->offset);
}

static bool *switch_of(const struct settings *s, const struct row *row)
{
	return (bool *)((uintptr_t)s + row->offset);
}

static struct settings_texts *texts_of(const struct settings *s, const struct row *row)
{
	return (struct settings_texts *)((uintptr_t)s + row->offset);
}

static void texts_clear(struct settings_texts *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->item[i]);
	free(t->item);
	*t = (struct settings_texts){0};
}

void settings_free(struct settings *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].type == TYPE_TEXT)
			free(*text_of(s, &rows[i]));
		else if (rows[i].type == TYPE_TEXTS)
			texts_clear(texts_of(s, &rows[i]));
	}
	free(s->path);
	*s = (struct settings){0};
}

/* ---- checks of single values: each returns NULL or what is wrong ---- */

static bool same_word(const char *a, const char *b)
{
	return !strcasecmp(a, b);
}

static const char *check_level(const char *v)
{
	if (!*v || same_word(v, "critical") || log_level_from_name(v) >= 0)
		return NULL;
	return "is not one of error, warning, info, debug";
}

static const char *check_absolute(const char *v)
{
	return !*v || *v == '/' ? NULL : "is not an absolute path";
}

static bool parse_ipv4_range(const char *v, uint32_t *addr, uint32_t *prefix)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr in;
	const char *slash = strchrnul(v, '/');

	*prefix = 32;
	if ((size_t)(slash - v) >= sizeof(text) || (*slash && num_u32(slash + 1, strlen(slash + 1), 32, prefix) < 0))
		return false;
	memcpy(text, v, (size_t)(slash - v));
	text[slash - v] = '\0';
	if (inet_pton(AF_INET, text, &in) != 1)
		return false;
	*addr = ntohl(in.s_addr);
	uint32_t host_bits = *prefix == 32 ? 0 : UINT32_MAX >> *prefix;
	return !(*addr & host_bits);
}

static const char *check_subnet(const char *v)
{
	uint32_t addr, prefix;

	if (!*v)
		return NULL;
	if (!parse_ipv4_range(v, &addr, &prefix))
		return "is not an IPv4 range such as 10.213.0.0/16 (bits behind the prefix must be 0)";
	return prefix >= 8 && prefix <= 28 ? NULL : "needs a prefix of 8 to 28 bits";
}

static const char *check_range(const char *v)
{
	uint32_t addr, prefix;
	struct ip6_prefix six;

	return parse_ipv4_range(v, &addr, &prefix) || !ip6_parse(v, &six) ?
		       NULL :
		       "is not an address or range (bits behind the prefix must be 0)";
}

static const char *check_subnet6(const char *v)
{
	struct ip6_prefix six;

	if (!*v)
		return NULL;
	if (ip6_parse(v, &six) < 0)
		return "is not an IPv6 range such as fd12:3456:789a:1::/64 (bits behind the prefix must be 0)";
	if (six.prefix < 48 || six.prefix > 96)
		return "needs a prefix of 48 to 96 bits";
	return ip6_never(six.addr) ? "cannot be given to anybody" : NULL;
}

static const char *check_upstream(const char *v)
{
	static const char wrong[] = "is not an address or address:port of a name server";
	char text[INET6_ADDRSTRLEN];
	struct in6_addr six;
	struct in_addr four;
	uint32_t port = 53;

	if (inet_pton(AF_INET6, v, &six) == 1)
		return NULL;
	const char *colon = strrchr(v, ':');
	size_t n = colon ? (size_t)(colon - v) : strlen(v);
	if (colon && (num_u32(colon + 1, strlen(colon + 1), 65535, &port) < 0 || !port))
		return wrong;
	bool bracketed = n > 2 && v[0] == '[' && v[n - 1] == ']';
	if (bracketed) {
		v++;
		n -= 2;
	}
	if (n >= sizeof(text))
		return wrong;
	memcpy(text, v, n);
	text[n] = '\0';
	return inet_pton(bracketed ? AF_INET6 : AF_INET, text, bracketed ? (void *)&six : (void *)&four) == 1 ? NULL : wrong;
}

static const char *check_listen_host(const char *v)
{
	struct in6_addr any;

	if (!*v || !strcmp(v, "localhost") || inet_pton(AF_INET, v, &any) == 1 || inet_pton(AF_INET6, v, &any) == 1)
		return NULL;
	return "is not an IP address or \"localhost\"";
}

static const char *check_lack(const char *v)
{
	static const char *const lacks[] = {"memory", "swap", "cpu", "pids"};

	for (size_t i = 0; i < ARRAY_SIZE(lacks); i++)
		if (!strcmp(v, lacks[i]))
			return NULL;
	return "is not one of memory, swap, cpu, pids";
}

static const char *check_host_name(const char *v)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";

	return strspn(v, good) == strlen(v) ? NULL : "holds a character that no host name has";
}

static const char *check_runtime(const char *v)
{
	if (same_word(v, "docker") || same_word(v, "native"))
		return NULL;
	return "is not offered: this daemon makes sandboxes itself; write \"docker\" or leave it out";
}

static const char *check_sqlite(const char *v)
{
	return same_word(v, "sqlite") ? NULL : "is not offered: the state is kept in sqlite";
}

static const char *check_direct(const char *v)
{
	return same_word(v, "direct") ? NULL : "is not offered: only \"direct\" is";
}

static const char *check_backend(const char *v)
{
	if (same_word(v, "auto") || same_word(v, "native") || same_word(v, "jupyter"))
		return NULL;
	return "is not one of auto, native, jupyter";
}

static const char *check_no_runtime(const char *v)
{
	return !*v ? NULL : "is not offered, and weaker isolation is not put in its place: leave it out";
}

static const char *check_key(const char *v)
{
	for (; *v; v++)
		if (*v <= ' ' || *v > '~')
			return "may hold printable ASCII without blanks only, as it travels in a header";
	return NULL;
}

static const struct {
	const char *section, *key;
	const char *(*check)(const char *value);
} text_checks[] = {
	{"", "state_dir", check_absolute},
	{"", "run_dir", check_absolute},
	{"server", "host", check_listen_host},
	{"server", "api_key", check_key},
	{"server", "public_host", check_host_name},
	{"server", "eip", check_host_name},
	{"server", "hostnames", check_host_name},
	{"server", "log_level", check_level},
	{"log", "level", check_level},
	{"network", "subnet", check_subnet},
	{"network", "allow_private", check_range},
	{"network", "subnet_v6", check_subnet6},
	{"dns", "upstreams", check_upstream},
	{"limits", "allow_missing", check_lack},
	{"storage", "allowed_host_paths", check_absolute},
	{"runtime", "type", check_runtime},
	{"docker", "host_ip", check_host_name},
	{"store", "type", check_sqlite},
	{"ingress", "mode", check_direct},
	{"code", "backend", check_backend},
	{"secure_runtime", "type", check_no_runtime},
};

static const char *check_text(const struct row *row, const char *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(text_checks); i++)
		if (!strcmp(row->section, text_checks[i].section) && !strcmp(row->key, text_checks[i].key))
			return text_checks[i].check(value);
	return NULL;
}

/* ---- one value into its field ---- */

struct place { /* for messages */
	const char *file;
	unsigned line;
	struct sbx_err *err;
};

static const char *full_name(const struct row *row, char *out, size_t size)
{
	snprintf(out, size, "%s%s%s", row->section, *row->section ? "." : "", row->key);
	return out;
}

SBX_PRINTF(3, 4) static int refuse(const struct place *at, const struct row *row, const char *fmt, ...)
{
	char name[80], what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	full_name(row, name, sizeof(name));
	if (at->line)
		return sbx_err_set(at->err, SBX_E_INVALID_REQUEST, 0, "%s:%u: %s %s", at->file, at->line, name, what);
	return sbx_err_set(at->err, SBX_E_INVALID_REQUEST, 0, "%s: %s %s", at->file, name, what);
}

static int put_text(struct settings *s, const struct row *row, const struct config_value *v, const struct place *at)
{
	size_t n = strlen(v->text);

	if (n < (size_t)row->min || n > (size_t)row->max)
		return refuse(at, row, "needs %lld to %lld characters", (long long)row->min, (long long)row->max);
	const char *wrong = check_text(row, v->text);
	if (wrong)
		return strcmp(row->key, "api_key") ? refuse(at, row, "\"%.60s\" %s", v->text, wrong) : refuse(at, row, "%s", wrong);
	char *copy = strdup(v->text);
	if (!copy)
		return sbx_err_set(at->err, SBX_E_NO_MEMORY, 0, "configuration");
	free(*text_of(s, row));
	*text_of(s, row) = copy;
	return 0;
}

static int put_texts(struct settings *s, const struct row *row, const struct config_value *v, const struct place *at)
{
	struct settings_texts list = {0};

	if (v->n_members > (size_t)row->max)
		return refuse(at, row, "takes at most %lld members", (long long)row->max);
	list.item = calloc(v->n_members ? v->n_members : 1, sizeof(*list.item));
	for (size_t i = 0; list.item && i < v->n_members; i++) {
		const struct config_value *m = v->member[i];
		const struct place there = {at->file, at->line ? m->line : 0, at->err};
		const char *wrong = m->type != CONFIG_TEXT ? "is not a string" : check_text(row, m->text);

		if (!wrong && strlen(m->text) > TEXT_ITEM_MAX)
			wrong = "is too long";
		if (wrong) {
			texts_clear(&list);
			return refuse(&there, row, "member %zu \"%.60s\" %s", i + 1, m->text ? m->text : "", wrong);
		}
		list.item[i] = strdup(m->text);
		if (!list.item[i])
			break;
		list.n++;
	}
	if (!list.item || list.n < v->n_members) {
		texts_clear(&list);
		return sbx_err_set(at->err, SBX_E_NO_MEMORY, 0, "configuration");
	}
	texts_clear(texts_of(s, row));
	*texts_of(s, row) = list;
	return 0;
}

static int put_count(struct settings *s, const struct row *row, const struct config_value *v, const struct place *at)
{
	if (v->integer < row->min || v->integer > row->max)
		return refuse(at, row, "is %lld, needs %lld to %lld", (long long)v->integer, (long long)row->min,
			      (long long)row->max);
	if (!strcmp(row->key, "max_sandbox_timeout_seconds") && v->integer && v->integer < 60)
		return refuse(at, row, "is %lld, needs 0 or at least 60", (long long)v->integer);
	if (!strcmp(row->key, "id_base") && v->integer % 65536)
		return refuse(at, row, "is %lld, needs a multiple of 65536", (long long)v->integer);
	if (!strcmp(row->key, "id_base") && v->integer && v->integer < 0x100000)
		return refuse(at, row, "is %lld, needs at least 1048576", (long long)v->integer);
	*count_of(s, row) = v->integer;
	return 0;
}

static int put_value(struct settings *s, const struct row *row, const struct config_value *v, const struct place *at)
{
	static const enum config_type wanted[] = {
		[TYPE_TEXT] = CONFIG_TEXT,	 [TYPE_COUNT] = CONFIG_INTEGER, [TYPE_REAL] = CONFIG_FLOAT,
		[TYPE_SWITCH] = CONFIG_BOOL, [TYPE_TEXTS] = CONFIG_ARRAY,	[TYPE_ANY] = CONFIG_NONE,
	};
	bool whole_real = row->type == TYPE_REAL && v->type == CONFIG_INTEGER;

	if (row->type != TYPE_ANY && v->type != wanted[row->type] && !whole_real)
		return refuse(at, row, "needs %s, not %s", config_type_name(wanted[row->type]), config_type_name(v->type));
	switch (row->type) {
	case TYPE_TEXT:
		return put_text(s, row, v, at);
	case TYPE_TEXTS:
		return put_texts(s, row, v, at);
	case TYPE_COUNT:
		return put_count(s, row, v, at);
	case TYPE_REAL:
		if (v->real < (double)row->min || v->real > (double)row->max)
			return refuse(at, row, "is %g, needs %lld to %lld", v->real, (long long)row->min, (long long)row->max);
		*real_of(s, row) = v->real;
		return 0;
	case TYPE_SWITCH:
		*switch_of(s, row) = v->boolean;
		return 0;
	case TYPE_ANY:
		*switch_of(s, row) = true;
		return 0;
	}
	return 0;
}

/* "key = value" as text, into the field: defaults and settings_set(). */
static int put_assignment(struct settings *s, const struct row *row, const char *value, const struct place *at)
{
	char line[1400];

	if (snprintf(line, sizeof(line), "v = %s", value) >= (int)sizeof(line))
		return refuse(at, row, "is too long");
	auto_config tree = config_parse(at->file, line, strlen(line), at->err);
	if (!tree)
		return -1;
	const struct config_value *v = config_get(tree, "v");
	return v && tree->n_members == 1 ? put_value(s, row, v, at) : refuse(at, row, "is not one value");
}

/* ---- unknown keys ---- */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Edit distance; names are short, so two rows on the stack suffice. */
static size_t distance(const char *a, const char *b)
{
	size_t row[96], n = strlen(b);

	if (n + 1 > ARRAY_SIZE(row))
		return SIZE_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t above = row[j];
			row[j] = least(least(above, row[j - 1]) + 1, corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[n];
}

static void warn_unknown(struct settings *s, const struct place *at, const char *section, const char *key)
{
	char given[160], name[80], best[80] = "";
	size_t nearest = SIZE_MAX;

	snprintf(given, sizeof(given), "%s%s%.64s", section, *section ? "." : "", key);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		/* The right key in the wrong section is as likely a slip as a typing error. */
		size_t d = least(distance(given, full_name(&rows[i], name, sizeof(name))), distance(key, rows[i].key) + 2);
		if (d < nearest && strcmp(rows[i].key, "*") != 0) {
			nearest = d;
			snprintf(best, sizeof(best), "%s", name);
		}
	}
	s->n_warnings++;
	if (nearest <= least(strlen(given) / 2, 8))
		log_warn("%s:%u: unknown key %s is ignored; did you mean %s?", at->file, at->line, given, best);
	else
		log_warn("%s:%u: unknown key %s is ignored", at->file, at->line, given);
}

/* ---- the file ---- */

static const struct row *find_row(const char *section, const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strcmp(rows[i].section, section) && !strcmp(rows[i].key, key))
			return &rows[i];
	return NULL;
}

/* Whether @section, or one below it, has keys. */
static bool known_section(const char *section)
{
	size_t n = strlen(section);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!strncmp(rows[i].section, section, n) && (!rows[i].section[n] || rows[i].section[n] == '.'))
			return true;
	return false;
}

static bool is_default(const struct row *row, const struct config_value *v)
{
	char line[512];

	snprintf(line, sizeof(line), "v = %s", row->def);
	auto_config tree = config_parse("default", line, strlen(line), NULL);
	const struct config_value *d = config_get(tree, "v");
	if (!d || d->type != v->type)
		return false;
	if (d->type == CONFIG_TEXT)
		return same_word(d->text, v->text);
	return d->integer == v->integer && d->boolean == v->boolean;
}

static int apply_member(struct settings *s, const char *section, const struct config_value *v, const char *file,
			struct sbx_err *err);

static int apply_table(struct settings *s, const char *section, const struct config_value *table, const char *file,
		       struct sbx_err *err)
{
	for (size_t i = 0; i < table->n_members; i++)
		if (apply_member(s, section, table->member[i], file, err) < 0)
			return -1;
	return 0;
}

static int apply_member(struct settings *s, const char *section, const struct config_value *v, const char *file,
			struct sbx_err *err)
{
	const struct place at = {file, v->line, err};
	const struct row *row = find_row(section, v->key);
	char below[160];

	if (!row && v->type == CONFIG_TABLE) {
		snprintf(below, sizeof(below), "%.80s%s%.64s", section, *section ? "." : "", v->key);
		row = find_row(below, "*");
		if (!row && known_section(below))
			return apply_table(s, below, v, file, err);
	}
	if (!row) {
		warn_unknown(s, &at, section, v->key);
		return 0;
	}
	if (put_value(s, row, v, &at) < 0)
		return -1;
	if (row->effect == EFFECT_UNLIKE && !is_default(row, v)) {
		char name[80];
		s->n_warnings++;
		log_warn("%s:%u: %s has no effect: %s", file, v->line, full_name(row, name, sizeof(name)), row->text);
	}
	return 0;
}

/* ---- what follows from other values ---- */

enum derived {
	DERIVED_RUN_DIR = 1u << 0,
	DERIVED_SUBNET = 1u << 1,
	DERIVED_ID_BASE = 1u << 2,
	DERIVED_SANDBOXD = 1u << 3,
	DERIVED_GATEWAY = 1u << 4,
	DERIVED_DNSD = 1u << 5,
	DERIVED_ENDPOINT = 1u << 6,
	DERIVED_FETCH = 1u << 7,
	DERIVED_SUBNET6 = 1u << 8,
};

static int derive_text(struct settings *s, char **field, enum derived bit, const char *value, struct sbx_err *err)
{
	if (**field && !(s->derived & bit))
		return 0;
	char *copy = strdup(value);
	if (!copy)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
	free(*field);
	*field = copy;
	s->derived |= bit;
	return 0;
}

static void derive_count(struct settings *s, int64_t *field, int64_t unset, enum derived bit, int64_t value)
{
	if (*field != unset && !(s->derived & bit))
		return;
	*field = value;
	s->derived |= bit;
}

static bool loopback_host(const char *host)
{
	return !*host || !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

static int derive(struct settings *s, struct sbx_err *err)
{
	const char *file = *s->path ? s->path : "configuration";
	char text[64];

	snprintf(text, sizeof(text), "/run/sandboxd/%d", (int)s->instance);
	if (derive_text(s, &s->run_dir, DERIVED_RUN_DIR, text, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "10.%d.0.0/16", 213 + (int)s->instance);
	if (derive_text(s, &s->network_subnet, DERIVED_SUBNET, text, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "fd53:4258:0:%x::/64", 213u + (unsigned)s->instance);
	if (derive_text(s, &s->network_subnet_v6, DERIVED_SUBNET6, text, err) < 0)
		return -1;
	derive_count(s, &s->isolation_id_base, 0, DERIVED_ID_BASE, 0x78000000 - s->instance * 0x8000000);
	derive_count(s, &s->isolation_sandboxd_uid, 0, DERIVED_SANDBOXD, s->isolation_id_base - 0x40000);
	derive_count(s, &s->isolation_gateway_uid, 0, DERIVED_GATEWAY, s->isolation_id_base - 0x3ffff);
	derive_count(s, &s->isolation_dnsd_uid, 0, DERIVED_DNSD, s->isolation_id_base - 0x3fffe);
	derive_count(s, &s->isolation_fetch_uid, 0, DERIVED_FETCH, s->isolation_id_base - 0x3fff0);
	derive_count(s, &s->server_endpoint_port, -1, DERIVED_ENDPOINT,
		     s->server_port && s->server_port < 65535 ? s->server_port + 1 : 0);
	s->gateway_addr = 0xa9fe0101; /* 169.254.1.1 */
	if (!parse_ipv4_range(s->network_subnet, &s->subnet_addr, &s->subnet_prefix))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: network.subnet \"%s\"", file, s->network_subnet);
	if (ip6_parse(s->network_subnet_v6, &s->subnet6) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: network.subnet_v6 \"%s\"", file, s->network_subnet_v6);
	if (s->server_insecure && !loopback_host(s->server_host))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
				   "%s: server.insecure needs a loopback address in server.host, not \"%s\"", file, s->server_host);
	if (s->isolation_id_base + s->isolation_slots * 65536 > 0xffff0000LL)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: isolation.id_base + slots * 65536 passes 2^32", file);
	if (s->isolation_slots > (1LL << (32 - s->subnet_prefix)) - 8)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: network.subnet %s has fewer addresses than isolation.slots %lld",
				   file, s->network_subnet, (long long)s->isolation_slots);
	int64_t a = s->isolation_sandboxd_uid, b = s->isolation_gateway_uid, c = s->isolation_dnsd_uid, d = s->isolation_fetch_uid;
	if (a == b || b == c || a == c || d == a || d == b || d == c)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0,
				   "%s: isolation.sandboxd_uid, gateway_uid, dnsd_uid and fetch_uid must differ", file);
	static const char *const policies[] = {"missing", "always", "never"};
	bool known = false;
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		known |= !strcmp(s->images_pull_policy, policies[i]);
	if (!known)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: images.pull_policy \"%s\" is none of missing, always, never", file,
				   s->images_pull_policy);
	for (size_t i = 0; i < s->images_mirrors.n; i++)
		if (!strchr(s->images_mirrors.item[i], '=') || strstr(s->images_mirrors.item[i], "://"))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: images.mirrors \"%s\" is not REGISTRY=HOST or REGISTRY=HOST:PORT",
					   file, s->images_mirrors.item[i]);
	return 0;
}

/* ---- environment ---- */

static int apply_environment(struct settings *s, struct sbx_err *err)
{
	const char *key = getenv("OPENSANDBOX_SERVER_API_KEY");
	const char *ttl = getenv("PENDING_FAILURE_TTL");
	const char *insecure = getenv("OPENSANDBOX_INSECURE_SERVER");

	if (key && *key && settings_set(s, "server.api_key", key, err) < 0)
		return sbx_err_wrap(err, "OPENSANDBOX_SERVER_API_KEY");
	if (ttl && *ttl && settings_set(s, "lifecycle.failure_ttl_seconds", ttl, err) < 0)
		return sbx_err_wrap(err, "PENDING_FAILURE_TTL");
	if (insecure && !strcmp(insecure, "YES") && !*s->server_api_key && loopback_host(s->server_host))
		s->server_insecure = true;
	return 0;
}

/* An empty key that the operator wrote down means "none wanted" (published test set-ups do so), on loopback only. */
static void apply_written_empty_key(struct settings *s, const struct config_value *tree)
{
	const struct config_value *key = config_get(config_get(tree, "server"), "api_key");

	if (!key || *s->server_api_key)
		return;
	if (loopback_host(s->server_host)) {
		s->server_insecure = true;
		return;
	}
	s->n_warnings++;
	log_warn("%s:%u: server.api_key is empty, but server.host \"%s\" is not loopback: a key is generated and required", s->path,
		 key->line, s->server_host);
}

/* ---- whole ---- */

static int fill_defaults(struct settings *s, struct sbx_err *err)
{
	const struct place at = {"default", 0, err};

	*s = (struct settings){.path = strdup("")};
	if (!s->path)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].type != TYPE_ANY && put_assignment(s, &rows[i], rows[i].def, &at) < 0)
			return -1;
	return 0;
}

int settings_defaults(struct settings *ret, struct sbx_err *err)
{
	if (fill_defaults(ret, err) < 0 || derive(ret, err) < 0) {
		settings_free(ret);
		return -1;
	}
	return 0;
}

/* The file to read: *ret is NULL when there is none and none was named. */
static int choose_path(const char *path, char **ret, struct sbx_err *err)
{
	const char *from_env = getenv("SANDBOX_CONFIG_PATH");
	const char *home = getenv("HOME");
	char *chosen = NULL;

	if (path || (from_env && *from_env)) {
		chosen = strdup(path ? path : from_env);
		if (!chosen)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
	} else if (home && *home) {
		if (asprintf(&chosen, "%s/.sandbox.toml", home) < 0)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
		if (access(chosen, F_OK) < 0) {
			free(chosen);
			chosen = NULL;
		}
	}
	*ret = chosen;
	return 0;
}

static int load_into(struct settings *s, const char *path, struct sbx_err *err)
{
	auto_free char *chosen = NULL;

	if (fill_defaults(s, err) < 0 || choose_path(path, &chosen, err) < 0)
		return -1;
	if (chosen) {
		auto_config tree = config_read(chosen, err);
		if (!tree)
			return -1;
		free(s->path);
		s->path = take_ptr(chosen);
		if (apply_table(s, "", tree, s->path, err) < 0)
			return -1;
		apply_written_empty_key(s, tree);
	}
	if (*s->server_log_level && !strcmp(s->log_level, "info")) {
		free(s->log_level);
		s->log_level = strdup(s->server_log_level);
		if (!s->log_level)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
	}
	if (derive(s, err) < 0 || apply_environment(s, err) < 0)
		return -1;
	if (*s->server_api_key)
		s->server_insecure = false;
	return 0;
}

int settings_load(const char *path, struct settings *ret, struct sbx_err *err)
{
	struct settings s = {0};

	if (load_into(&s, path, err) < 0) {
		settings_free(&s);
		return -1;
	}
	*ret = s;
	return 0;
}

static void write_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(out, "\\u%04x", (unsigned)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

/* A derived value is given up once its key is set by hand. */
static void forget_derived(struct settings *s, const struct row *row)
{
	static const struct {
		size_t offset;
		enum derived bit;
	} map[] = {
		{offsetof(struct settings, run_dir), DERIVED_RUN_DIR},
		{offsetof(struct settings, network_subnet), DERIVED_SUBNET},
		{offsetof(struct settings, network_subnet_v6), DERIVED_SUBNET6},
		{offsetof(struct settings, isolation_id_base), DERIVED_ID_BASE},
		{offsetof(struct settings, isolation_sandboxd_uid), DERIVED_SANDBOXD},
		{offsetof(struct settings, isolation_gateway_uid), DERIVED_GATEWAY},
		{offsetof(struct settings, isolation_dnsd_uid), DERIVED_DNSD},
		{offsetof(struct settings, server_endpoint_port), DERIVED_ENDPOINT},
		{offsetof(struct settings, isolation_fetch_uid), DERIVED_FETCH},
	};

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (map[i].offset == row->offset)
			s->derived &= ~(unsigned)map[i].bit;
}

int settings_set(struct settings *s, const char *name, const char *value, struct sbx_err *err)
{
	const struct place at = {"setting", 0, err};
	const char *dot = strrchr(name, '.');
	char section[80] = "";

	if (dot && (size_t)(dot - name) < sizeof(section))
		memcpy(section, name, (size_t)(dot - name));
	const struct row *row = find_row(section, dot ? dot + 1 : name);
	if (!row || row->type == TYPE_ANY)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "no such configuration key: %.80s", name);
	forget_derived(s, row);
	if (row->type == TYPE_TEXT) {
		auto_free char *copy = strdup(value);
		if (!copy)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "configuration");
		const struct config_value v = {.type = CONFIG_TEXT, .text = copy};
		if (put_value(s, row, &v, &at) < 0)
			return -1;
	} else if (put_assignment(s, row, value, &at) < 0) {
		return -1;
	}
	return derive(s, err);
}

static void write_value(const struct settings *s, const struct row *row, FILE *out)
{
	switch (row->type) {
	case TYPE_TEXT:
		write_text(out, *text_of(s, row));
		break;
	case TYPE_COUNT:
		fprintf(out, "%lld", (long long)*count_of(s, row));
		break;
	case TYPE_REAL:
		fprintf(out, "%.17g", *real_of(s, row));
		break;
	case TYPE_SWITCH:
		fputs(*switch_of(s, row) ? "true" : "false", out);
		break;
	case TYPE_TEXTS:
		fputc('[', out);
		for (size_t i = 0; i < texts_of(s, row)->n; i++) {
			fputs(i ? ", " : "", out);
			write_text(out, texts_of(s, row)->item[i]);
		}
		fputc(']', out);
		break;
	case TYPE_ANY:
		break;
	}
}

void settings_write(const struct settings *s, FILE *out, unsigned flags)
{
	const char *section = "";

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];

		/* Keys without effect are left out: they were warned about once, where the operator's file was read. */
		if (row->effect != EFFECT_USED || row->type == TYPE_ANY)
			continue;
		bool secret = !strcmp(row->key, "api_key");
		/* Written empty, the key would mean that none is wanted. */
		if (secret && ((flags & SETTINGS_WITHOUT_KEY) || !*s->server_api_key))
			continue;
		if (strcmp(section, row->section) != 0) {
			section = row->section;
			fprintf(out, "[%s]\n", section);
		}
		fprintf(out, "%s = ", row->key);
		write_value(s, row, out);
		fputc('\n', out);
	}
}

/* ---- for people ---- */

static const char *const type_names[] = {
	[TYPE_TEXT] = "string", [TYPE_COUNT] = "integer", [TYPE_REAL] = "number",
	[TYPE_SWITCH] = "true or false", [TYPE_TEXTS] = "array of strings", [TYPE_ANY] = "anything",
};

void settings_print_reference(FILE *out)
{
	static const char *const effects[] = {
		[EFFECT_USED] = "", [EFFECT_SAME] = "accepted, no effect: ", [EFFECT_UNLIKE] = "accepted with a warning: "};
	char name[80];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];

		fprintf(out, "%s\n    %s", full_name(row, name, sizeof(name)), type_names[row->type]);
		if (row->type == TYPE_COUNT || row->type == TYPE_REAL)
			fprintf(out, ", %lld to %lld%s%s", (long long)row->min, (long long)row->max, *row->unit ? " " : "", row->unit);
		if (*row->def)
			fprintf(out, ", default %s", row->def);
		fprintf(out, "\n    %s%s\n", effects[row->effect], row->text);
	}
}

void settings_print_example(FILE *out)
{
	const char *section = "";

	fputs("# sandboxd: every key is optional; what stands here are the defaults.\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];

		if (row->effect != EFFECT_USED || row->type == TYPE_ANY)
			continue;
		if (strcmp(section, row->section) != 0) {
			section = row->section;
			fprintf(out, "\n[%s]\n", section);
		}
		fprintf(out, "# %s\n# %s = %s\n", row->text, row->key, row->def);
	}
}

bool settings_lack_allowed(const struct settings *s, const char *name)
{
	for (size_t i = 0; i < s->limits_allow_missing.n; i++)
		if (!strcmp(s->limits_allow_missing.item[i], name))
			return true;
	return false;
}
