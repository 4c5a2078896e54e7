// SPDX-License-Identifier: Apache-2.0
#include "api/cli/spec.h"

#include "api/cli/client.h"
#include "api/cli/egress.h"
#include "base/jv.h"
#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_TIMEOUT_S 60u /* the API's */

int spec_seconds(const char *text, uint64_t *ret, struct sbx_err *err)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	size_t n = strlen(text);
	uint64_t factor = 1;
	uint64_t number;

	for (size_t i = 0; n > 1 && i < sizeof(units) / sizeof(units[0]); i++)
		if (text[n - 1] == units[i].unit) {
			factor = units[i].seconds;
			n--;
			break;
		}
	if (num_u64(text, n, UINT32_MAX, &number) < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.40s\" is no time like 90s, 30m, 2h or 1d", text);
	*ret = number * factor;
	return 0;
}

int spec_size(const char *text, char out[32], struct sbx_err *err)
{
	static const struct {
		const char *typed, *api;
	} units[] = {{"", ""}, {"b", ""}, {"k", "Ki"}, {"ki", "Ki"}, {"kib", "Ki"}, {"m", "Mi"}, {"mi", "Mi"}, {"mib", "Mi"},
		     {"g", "Gi"}, {"gi", "Gi"}, {"gib", "Gi"}, {"t", "Ti"}, {"ti", "Ti"}, {"tib", "Ti"}};
	size_t digits = strspn(text, "0123456789");
	char unit[8] = "";
	uint64_t number;
	size_t n = strlen(text + digits);

	for (size_t i = 0; n < sizeof(unit) && i <= n; i++) {
		char c = text[digits + i];

		unit[i] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
	}
	for (size_t i = 0; n < sizeof(unit) && i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(unit, units[i].typed) && num_u64(text, digits, UINT64_MAX >> 20, &number) == 0 && number > 0) {
			snprintf(out, 32, "%llu%s", (unsigned long long)number, units[i].api);
			return 0;
		}
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.40s\" is no size like 512m or 2g", text);
}

int spec_env(const char *text, char name[256], const char **ret_value, struct sbx_err *err)
{
	size_t n = strcspn(text, "=");

	if (n == 0 || n >= 256)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.60s\" is no NAME=VALUE", text);
	memcpy(name, text, n);
	name[n] = '\0';
	*ret_value = text[n] ? text + n + 1 : getenv(name);
	return 0;
}

static int write_env(const struct cli_args *args, struct jw *w, struct sbx_err *err)
{
	const char *text;
	const char *value;
	char name[256];
	size_t at = 0;

	if (!cli_flag(args, "env"))
		return 0;
	jw_key(w, "env");
	jw_object(w);
	while ((text = cli_next(args, "env", &at))) {
		if (spec_env(text, name, &value, err) < 0)
			return -1;
		if (value)
			jw_key_str(w, name, value);
	}
	jw_object_end(w);
	return 0;
}

static int write_metadata(const struct cli_args *args, const char *run_label, struct jw *w, struct sbx_err *err)
{
	const char *name = cli_text(args, "name");
	const char *text;
	size_t at = 0;

	if (!name && !run_label && !cli_flag(args, "metadata"))
		return 0;
	jw_key(w, "metadata");
	jw_object(w);
	jw_key_str(w, "name", name);
	jw_key_str(w, SPEC_RUN_LABEL, run_label);
	while ((text = cli_next(args, "metadata", &at))) {
		char key[320];
		size_t n = strcspn(text, "=");

		if (n == 0 || n >= sizeof(key) || !text[n])
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.60s\" is no KEY=VALUE", text);
		memcpy(key, text, n);
		key[n] = '\0';
		if (name && !strcmp(key, "name"))
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "--name and --metadata name= are the same thing");
		jw_key_str(w, key, text + n + 1);
	}
	jw_object_end(w);
	return 0;
}

/* SRC:DST[:OPTS] */
static int write_volume(struct jw *w, unsigned int number, const char *text, struct sbx_err *err)
{
	char source[4096];
	char target[4096];
	char name[16];
	char *options;
	const char *sub = NULL;
	bool read_only = false;
	size_t n = strcspn(text, ":");

	if (n == 0 || n >= sizeof(source) || text[n] != ':' || text[n + 1] != '/' || strlen(text + n + 1) >= sizeof(target))
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-v %.100s: not SRC:DST with an absolute DST", text);
	memcpy(source, text, n);
	source[n] = '\0';
	snprintf(target, sizeof(target), "%s", text + n + 1);
	options = strchr(target, ':');
	if (options) {
		*options++ = '\0';
		while (*options) {
			size_t len = strcspn(options, ",");
			char *next = options + len + (options[len] == ',');

			options[len] = '\0';
			if (!strcmp(options, "ro"))
				read_only = true;
			else if (!strncmp(options, "sub=", 4))
				sub = options + 4;
			else if (strcmp(options, "rw") != 0)
				return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-v: unknown option \"%.40s\"; known: ro, rw, sub=PATH",
						   options);
			options = next;
		}
	}
	snprintf(name, sizeof(name), "v%u", number);
	jw_object(w);
	jw_key_str(w, "name", name);
	jw_key(w, source[0] == '/' || source[0] == '.' ? "host" : "pvc");
	jw_object(w);
	if (source[0] == '/') {
		jw_key_str(w, "path", source);
	} else if (source[0] == '.') {
		char *absolute = realpath(source, NULL);

		if (!absolute)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "-v: no directory %.200s", source);
		jw_key_str(w, "path", absolute);
		free(absolute);
	} else {
		jw_key_str(w, "claimName", source);
	}
	jw_object_end(w);
	jw_key_str(w, "mountPath", target);
	if (read_only)
		jw_key_bool(w, "readOnly", true);
	jw_key_str(w, "subPath", sub);
	jw_object_end(w);
	return 0;
}

static int write_volumes(const struct cli_args *args, struct jw *w, struct sbx_err *err)
{
	const char *text;
	size_t at = 0;
	unsigned int number = 0;

	if (!cli_flag(args, "volume"))
		return 0;
	jw_key(w, "volumes");
	jw_array(w);
	while ((text = cli_next(args, "volume", &at)))
		if (write_volume(w, number++, text, err) < 0)
			return -1;
	jw_array_end(w);
	return 0;
}

static int write_limits(const struct cli_args *args, struct jw *w, struct sbx_err *err)
{
	const char *memory = cli_text(args, "memory");
	const char *cpu = cli_text(args, "cpu");
	const char *disk = cli_text(args, "disk");
	char size[32], disk_size[32];

	if ((memory && spec_size(memory, size, err) < 0) || (disk && spec_size(disk, disk_size, err) < 0))
		return -1;
	jw_key(w, "resourceLimits");
	jw_object(w);
	jw_key_str(w, "cpu", cpu);
	jw_key_str(w, "memory", memory ? size : NULL);
	jw_key_str(w, "disk", disk ? disk_size : NULL);
	jw_object_end(w);
	return 0;
}

int spec_create(const struct cli_args *args, const struct spec_extra *extra, struct buf *out, struct sbx_err *err)
{
	struct jw w = {.out = out};
	const char *image = cli_text(args, "image");
	const char *timeout = cli_text(args, "timeout");
	uint64_t seconds = extra->default_timeout_s;

	if (timeout && !strcmp(timeout, "never"))
		seconds = 0;
	else if (timeout && spec_seconds(timeout, &seconds, err) < 0)
		return -1;
	if (timeout && seconds > 0 && seconds < MIN_TIMEOUT_S)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "--timeout %.40s: the shortest is %us", timeout, MIN_TIMEOUT_S);
	jw_object(&w);
	jw_key(&w, "image");
	jw_object(&w);
	jw_key_str(&w, "uri", image ? image : "host");
	jw_object_end(&w);
	jw_key(&w, "entrypoint");
	jw_array(&w);
	for (const char *const *arg = extra->entrypoint; *arg; arg++)
		jw_str(&w, *arg);
	jw_array_end(&w);
	if (cli_text(args, "pull")) {
		jw_key(&w, "extensions");
		jw_object(&w);
		jw_key_str(&w, "image.pull", cli_text(args, "pull"));
		jw_object_end(&w);
	}
	if (seconds > 0)
		jw_key_u64(&w, "timeout", seconds);
	if (write_limits(args, &w, err) < 0 || write_env(args, &w, err) < 0 || write_metadata(args, extra->run_label, &w, err) < 0 ||
	    write_volumes(args, &w, err) < 0 || egress_write_policy(args, &w, err) < 0)
		return -1;
	jw_object_end(&w);
	return out->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request") : 0;
}

int spec_image_command(struct cli *cli, const char *image, const char **room, size_t n, struct jv **ret_keep, struct sbx_err *err)
{
	static const char *const lists[] = {"entrypoint", "cmd"};
	struct jv *root = NULL;
	size_t used = 0;

	*ret_keep = NULL;
	room[0] = NULL;
	if (!image || !strcmp(image, "host"))
		return 0;
	if (client_image(cli, image, &root, err) < 0)
		return -1;
	for (size_t i = 0; i < 2; i++)
		for (const struct jv *v = jv_first(jv_get(root, lists[i])); v && used + 1 < n; v = jv_next(v))
			if (jv_str(v))
				room[used++] = jv_str(v);
	room[used] = NULL;
	*ret_keep = root;
	return (int)used;
}

void spec_quote(struct buf *out, const char *const *words)
{
	for (size_t i = 0; words[i]; i++) {
		if (i)
			buf_puts(out, " ");
		if (*words[i] &&
		    !words[i][strspn(words[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:,@%=")] &&
		    !(i == 0 && strchr(words[i], '='))) {
			buf_puts(out, words[i]);
			continue;
		}
		buf_puts(out, "'");
		for (const char *c = words[i]; *c; c++)
			if (*c == '\'')
				buf_puts(out, "'\\''");
			else
				buf_append(out, c, 1);
		buf_puts(out, "'");
	}
}
