// SPDX-License-Identifier: Apache-2.0
/* commit: options and Dockerfile instructions become one request */
#include "api/cli/client.h"
#include "api/cli/out.h"

#include "base/cleanup.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHANGES_MAX 256u

/* What the image is to be started with; texts are borrowed from the arguments. */
struct changes {
	char *env[CHANGES_MAX]; /* owned */
	size_t n_env;
	const char *entrypoint, *cmd, *workdir, *user; /* the first two: JSON list, or text */
	bool entrypoint_shell; /* its text is for a shell, not one program */
};

static int add_env(struct changes *c, const char *text, struct sbx_err *err)
{
	const char *value = strchr(text, '=') ? NULL : getenv(text);

	if (text[0] == '=' || !text[0])
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.60s\" is no NAME=VALUE", text);
	if (!strchr(text, '=') && !value)
		return 0; /* as run and exec do: what the caller has not is not passed on */
	if (c->n_env == CHANGES_MAX)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "more than %u variables", CHANGES_MAX);
	if (asprintf(&c->env[c->n_env], "%s%s%s", text, value ? "=" : "", value ? value : "") < 0)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	c->n_env++;
	return 0;
}

/* "ENV A=b" or "ENV A b": one variable an instruction. */
static int add_env_line(struct changes *c, const char *text, struct sbx_err *err)
{
	auto_free char *copy = strdup(text);

	if (!copy)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
	char *space = strpbrk(copy, " \t=");
	if (!space)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "ENV %.60s: no value", text);
	*space = '=';
	return add_env(c, copy, err);
}

static int add_change(struct changes *c, const char *text, struct sbx_err *err)
{
	size_t n = strcspn(text, " \t");
	const char *rest = text + n + strspn(text + n, " \t");
	const struct {
		const char *word;
		const char **to;
	} words[] = {{"ENTRYPOINT", &c->entrypoint}, {"CMD", &c->cmd}, {"WORKDIR", &c->workdir}, {"USER", &c->user}};

	if (n == strlen("ENV") && !strncasecmp(text, "ENV", n))
		return add_env_line(c, rest, err);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (n != strlen(words[i].word) || strncasecmp(text, words[i].word, n) != 0)
			continue;
		*words[i].to = rest;
		c->entrypoint_shell |= i == 0;
		return 0;
	}
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "--change \"%.60s\": only ENV, ENTRYPOINT, CMD, USER and WORKDIR are offered", text);
}

static int read_changes(const struct cli_args *args, struct changes *c, struct sbx_err *err)
{
	const char *text;
	size_t at = 0;

	while ((text = cli_next(args, "change", &at)))
		if (add_change(c, text, err) < 0)
			return -1;
	at = 0;
	while ((text = cli_next(args, "env", &at)))
		if (add_env(c, text, err) < 0)
			return -1;
	if (cli_text(args, "entrypoint")) {
		c->entrypoint = cli_text(args, "entrypoint");
		c->entrypoint_shell = false;
	}
	if (cli_text(args, "cmd"))
		c->cmd = cli_text(args, "cmd");
	if (cli_text(args, "workdir"))
		c->workdir = cli_text(args, "workdir");
	if (cli_text(args, "user"))
		c->user = cli_text(args, "user");
	return 0;
}

/* A JSON list is taken as it is; other text is for a shell, or one program. */
static int write_command(struct jw *w, const char *key, const char *text, bool shell, struct sbx_err *err)
{
	if (!text)
		return 0;
	jw_key(w, key);
	if (*text == '[') {
		auto_jv list = jv_parse(text, strlen(text), err);

		if (!list || jv_type(list) != JV_ARRAY)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%s: \"%.60s\" is no JSON list", key, text);
		jw_raw(w, text, strlen(text));
		return 0;
	}
	jw_array(w);
	if (shell) {
		jw_str(w, "/bin/sh");
		jw_str(w, "-c");
	}
	if (*text)
		jw_str(w, text);
	jw_array_end(w);
	return 0;
}

static int write_request(const struct cli_args *args, const struct changes *c, struct buf *out, struct sbx_err *err)
{
	struct jw w = {.out = out};

	jw_object(&w);
	jw_key_str(&w, "name", args->operands[1]);
	jw_key_bool(&w, "pause", !cli_flag(args, "no-pause"));
	jw_key_bool(&w, "flatten", cli_flag(args, "flatten"));
	jw_key_str(&w, "message", cli_text(args, "message"));
	jw_key_str(&w, "author", cli_text(args, "author"));
	jw_key(&w, "config");
	jw_object(&w);
	if (c->n_env) {
		jw_key(&w, "env");
		jw_array(&w);
		for (size_t i = 0; i < c->n_env; i++)
			jw_str(&w, c->env[i]);
		jw_array_end(&w);
	}
	if (write_command(&w, "entrypoint", c->entrypoint, c->entrypoint_shell, err) < 0 || write_command(&w, "cmd", c->cmd, true, err) < 0)
		return -1;
	jw_key_str(&w, "workdir", c->workdir);
	jw_key_str(&w, "user", c->user);
	jw_object_end(&w);
	jw_object_end(&w);
	return out->failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request") : 0;
}

static int commit(struct cli *cli, const struct cli_args *args, struct changes *c, struct jv **ret, struct sbx_err *err)
{
	struct http_client *http = client_http(cli, err);
	auto_buf target = {0}, body = {0};
	char id[UUID_SIZE];

	if (!http || read_changes(args, c, err) < 0 || write_request(args, c, &body, err) < 0 ||
	    client_find(cli, args->operands[0], id, err) < 0)
		return -1;
	buf_printf(&target, "/v1/sandboxes/%s/commit", id);
	/* reading a few gigabytes takes longer than any other call */
	http = client_http(cli, err);
	if (!http)
		return -1;
	http_client_timeout(http, 0);
	const char *path = buf_str(&target);
	return path ? client_call(cli, "POST", path, &body, ret, err) : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "request");
}

int cmd_commit(struct cli *cli, const struct cli_args *args)
{
	struct changes changes = {0};
	struct sbx_err err = {0};
	auto_jv root = NULL;
	char size[32];
	int64_t bytes = 0;
	int rc = commit(cli, args, &changes, &root, &err);

	for (size_t i = 0; i < changes.n_env; i++)
		free(changes.env[i]);
	if (rc < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		return 0;
	}
	const char *name = jv_str(jv_get(root, "name"));
	if (jv_i64(jv_get(root, "bytes"), &bytes) < 0)
		bytes = 0;
	out_bytes((uint64_t)bytes, size, sizeof(size));
	printf("%s  %s, %zu layers   (sandboxctl run --image %s -it)\n", name ? name : "", size, jv_count(jv_get(root, "layers")), name ? name : "NAME");
	return 0;
}
