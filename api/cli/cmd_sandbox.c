// SPDX-License-Identifier: Apache-2.0
/* create, ls, inspect, logs, pause, resume, renew, endpoint, rm */
#include "api/cli/client.h"
#include "api/cli/out.h"
#include "api/cli/spec.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <stdio.h>
#include <string.h>

int cmd_create(struct cli *cli, const struct cli_args *args)
{
	static const char *const wait[] = {SPEC_WAIT, NULL};
	const char *image_command[256];
	const char *const *entrypoint = args->operands;
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct jv *keep = NULL;
	struct jv *answer = NULL;

	if (args->n_operands == 0) {
		/* the image's own command is not known before the image is here */
		if (pull_for(cli, args, &err) < 0)
			return cli_fail(cli, &err);
		int n = spec_image_command(cli, cli_text(args, "image"), image_command, ARRAY_SIZE(image_command), &keep, &err);

		if (n < 0)
			return cli_fail(cli, &err);
		entrypoint = n > 0 ? image_command : wait;
	}
	const struct spec_extra extra = {.entrypoint = entrypoint};
	int rc = spec_create(args, &extra, &body, &err);
	jv_free(keep);
	if (rc < 0 || client_create(cli, &body, &answer, &err) < 0)
		return cli_fail(cli, &err);
	const char *id = jv_str(jv_get(answer, "id"));
	const char *state = jv_str(jv_get(jv_get(answer, "status"), "state"));
	if (cli->format != CLI_TABLE)
		out_value(cli->format, answer);
	else if (cli_flag(args, "quiet"))
		printf("%s\n", id ? id : "");
	else
		printf("%.8s  %s   (sandboxctl exec -it %.8s sh)\n", id ? id : "", state ? state : "", id ? id : "");
	jv_free(answer);
	return 0;
}

/* --- ls --- */

struct listing {
	struct cli *cli;
	struct out_table *table;
	bool quiet;
	struct jw *w; /* json, yaml: the items again, as one array */
};

static void command_text(const struct jv *item, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (const struct jv *v = jv_first(jv_get(item, "entrypoint")); v; v = jv_next(v)) {
		int n = snprintf(out + used, size - used, "%s%s", used ? " " : "", jv_str(v) ? jv_str(v) : "");

		if (n < 0 || (size_t)n >= size - used) {
			memcpy(out + size - 4, "...", 4);
			return;
		}
		used += (size_t)n;
	}
}

static int list_one(void *arg, const struct jv *item)
{
	struct listing *l = arg;
	const char *id = jv_str(jv_get(item, "id"));
	char text[41];
	char short_id[9];

	if (!id)
		return 0;
	if (l->quiet) {
		printf("%s\n", id);
		return 0;
	}
	if (l->w) {
		jw_value(l->w, item);
		return 0;
	}
	snprintf(short_id, sizeof(short_id), "%s", id);
	out_table_cell(l->table, short_id);
	out_table_cell(l->table, jv_str(jv_get(jv_get(item, "metadata"), "name")));
	out_table_cell(l->table, jv_str(jv_get(jv_get(item, "image"), "uri")));
	out_table_cell(l->table, jv_str(jv_get(jv_get(item, "status"), "state")));
	out_age_text(jv_str(jv_get(item, "createdAt")), text, sizeof(text));
	out_table_cell(l->table, text);
	out_age_text(jv_str(jv_get(item, "expiresAt")), text, sizeof(text));
	out_table_cell(l->table, jv_get(item, "expiresAt") ? text : "never");
	command_text(item, text, sizeof(text));
	out_table_cell(l->table, text);
	return 0;
}

static int list_filter(const struct cli_args *args, struct buf *filter, struct sbx_err *err)
{
	auto_buf pairs = {0};
	const char *text;
	size_t at = 0;

	while ((text = cli_next(args, "state", &at))) {
		buf_puts(filter, "&state=");
		client_escape(filter, text);
	}
	at = 0;
	while ((text = cli_next(args, "metadata", &at))) {
		auto_buf value = {0};
		size_t n = strcspn(text, "=");

		if (!text[n])
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "\"%.60s\" is no KEY=VALUE", text);
		/* the pairs are decoded twice: as the query's value and then as a form */
		buf_printf(&pairs, "%s%.*s=", buf_used(&pairs) ? "&" : "", (int)n, text);
		client_escape(&value, text + n + 1);
		buf_puts(&pairs, buf_str(&value) ? buf_str(&value) : "");
	}
	if (buf_used(&pairs)) {
		buf_puts(filter, "&metadata=");
		client_escape(filter, buf_str(&pairs) ? buf_str(&pairs) : "");
	}
	return filter->failed || pairs.failed ? sbx_err_set(err, SBX_E_NO_MEMORY, 0, "filter") : 0;
}

int cmd_ls(struct cli *cli, const struct cli_args *args)
{
	static const char *const heads[] = {"ID", "NAME", "IMAGE", "STATE", "AGE", "EXPIRES", "COMMAND", NULL};
	struct listing l = {.cli = cli, .quiet = cli_flag(args, "quiet")};
	auto_buf filter = {0};
	auto_buf all = {0};
	struct jw w = {.out = &all};
	struct sbx_err err = {0};

	if (list_filter(args, &filter, &err) < 0)
		return cli_fail(cli, &err);
	if (!l.quiet && cli->format == CLI_TABLE)
		l.table = out_table_new(heads);
	else if (!l.quiet)
		l.w = &w;
	jw_array(&w);
	int rc = client_walk(cli, buf_str(&filter) ? buf_str(&filter) : "", list_one, &l, &err);
	jw_array_end(&w);
	if (rc < 0)
		out_table_drop(l.table);
	else if (l.table && out_table_print(l.table) < 0)
		rc = sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "table");
	if (rc == 0 && l.w) {
		auto_jv root = jv_parse(buf_peek(&all), buf_used(&all), &err);

		if (!root)
			return cli_fail(cli, &err);
		out_value(cli->format, root);
	}
	return rc < 0 ? cli_fail(cli, &err) : 0;
}

/* --- one sandbox --- */

/* Text of the daemon about a sandbox; the daemon has cleaned it. */
static int print_text(struct cli *cli, const char *target, struct sbx_err *err)
{
	struct http_client *http = client_http(cli, err);
	const struct http_client_request request = {.method = "GET", .target = target};
	struct http_client_response response;
	char block[16384];
	ssize_t n;

	if (!http || client_begin(cli, http, &request, &response, err) < 0)
		return -1;
	while ((n = http_client_read(http, block, sizeof(block), err)) > 0)
		if (fwrite(block, 1, (size_t)n, stdout) != (size_t)n)
			return sbx_err_set(err, SBX_E_SYSTEM, errno, "write to stdout");
	return n < 0 ? -1 : 0;
}

int cmd_inspect(struct cli *cli, const struct cli_args *args)
{
	char id[UUID_SIZE];
	char target[160];
	struct sbx_err err = {0};
	struct jv *root = NULL;

	if (client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format == CLI_TABLE) {
		snprintf(target, sizeof(target), "/v1/sandboxes/%s/diagnostics/inspect", id);
		return print_text(cli, target, &err) < 0 ? cli_fail(cli, &err) : 0;
	}
	snprintf(target, sizeof(target), "/v1/sandboxes/%s", id);
	if (client_call(cli, "GET", target, NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	out_value(cli->format, root);
	jv_free(root);
	return 0;
}

int cmd_logs(struct cli *cli, const struct cli_args *args)
{
	const char *tail = cli_text(args, "tail");
	const char *since = cli_text(args, "since");
	const char *command = cli_text(args, "command");
	char id[UUID_SIZE];
	struct sbx_err err = {0};
	auto_buf target = {0};

	if (client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	if (command) {
		if (tail || since) {
			cli_say("--command prints all; leave out --tail and --since");
			return CLI_EXIT_USAGE;
		}
		buf_printf(&target, "/sandboxes/%s/proxy/44772/command/", id);
		client_escape(&target, command);
		buf_puts(&target, "/logs");
	} else {
		buf_printf(&target, "/v1/sandboxes/%s/diagnostics/logs?tail=", id);
		client_escape(&target, tail ? tail : "100");
		if (since) {
			buf_puts(&target, "&since=");
			client_escape(&target, since);
		}
	}
	const char *text = buf_str(&target);
	if (!text)
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "request");
	return !text || print_text(cli, text, &err) < 0 ? cli_fail(cli, &err) : 0;
}

/* One request for each operand; goes on after a failure. */
static int for_each(struct cli *cli, const struct cli_args *args, const char *method, const char *suffix)
{
	struct out_done done;
	int exit_code = 0;

	out_done_begin(&done, cli);
	for (int i = 0; i < args->n_operands; i++) {
		char id[UUID_SIZE];
		char short_id[9];
		char target[160];
		struct sbx_err err = {0};

		if (client_find(cli, args->operands[i], id, &err) == 0) {
			snprintf(target, sizeof(target), "/v1/sandboxes/%s%s", id, suffix);
			if (client_call(cli, method, target, NULL, NULL, &err) == 0) {
				snprintf(short_id, sizeof(short_id), "%.8s", id);
				out_done_add(&done, id, short_id);
				continue;
			}
		}
		exit_code = cli_fail(cli, &err);
	}
	out_done_end(&done);
	return exit_code;
}

int cmd_pause(struct cli *cli, const struct cli_args *args)
{
	return for_each(cli, args, "POST", "/pause");
}

int cmd_resume(struct cli *cli, const struct cli_args *args)
{
	return for_each(cli, args, "POST", "/resume");
}

struct ids {
	char (*id)[UUID_SIZE]; /* owned */
	size_t n, cap;
};

static int collect(void *arg, const struct jv *item)
{
	struct ids *ids = arg;
	const char *id = jv_str(jv_get(item, "id"));

	if (ids->n == ids->cap) {
		size_t cap = ids->cap ? ids->cap * 2 : 64;
		char(*more)[UUID_SIZE] = realloc(ids->id, cap * sizeof(*more));

		if (!more)
			return 1;
		ids->id = more;
		ids->cap = cap;
	}
	if (id)
		snprintf(ids->id[ids->n++], UUID_SIZE, "%s", id);
	return 0;
}

int cmd_rm(struct cli *cli, const struct cli_args *args)
{
	struct ids ids = {0};
	struct sbx_err err = {0};
	struct out_done done;
	int exit_code = 0;

	if (!cli_flag(args, "all")) {
		if (args->n_operands > 0)
			return for_each(cli, args, "DELETE", "");
		cli_say("which?  sandboxctl rm ID..., or: sandboxctl rm --all");
		return CLI_EXIT_USAGE;
	}
	if (args->n_operands > 0) {
		cli_say("--all and ids do not go together");
		return CLI_EXIT_USAGE;
	}
	int rc = client_walk(cli, "", collect, &ids, &err);
	if (rc != 0)
		exit_code = rc < 0 ? cli_fail(cli, &err) : CLI_EXIT_FAILURE;
	out_done_begin(&done, cli);
	for (size_t i = 0; rc == 0 && i < ids.n; i++) {
		char target[160];
		char short_id[9];

		snprintf(target, sizeof(target), "/v1/sandboxes/%s", ids.id[i]);
		/* one that ended by itself meanwhile is as gone as it should be */
		if (client_call(cli, "DELETE", target, NULL, NULL, &err) < 0 && err.code != SBX_E_SANDBOX_NOT_FOUND)
			exit_code = cli_fail(cli, &err);
		snprintf(short_id, sizeof(short_id), "%.8s", ids.id[i]);
		if (!err.code || err.code == SBX_E_SANDBOX_NOT_FOUND)
			out_done_add(&done, ids.id[i], short_id);
		err = (struct sbx_err){0};
	}
	out_done_end(&done);
	free(ids.id);
	return exit_code;
}

int cmd_renew(struct cli *cli, const struct cli_args *args)
{
	char id[UUID_SIZE];
	char target[160];
	char when[RFC3339_SIZE];
	char age[32];
	uint64_t seconds;
	auto_buf body = {0};
	struct jw w = {.out = &body};
	struct jv *answer = NULL;
	struct sbx_err err = {0};

	if (spec_seconds(args->operands[1], &seconds, &err) < 0 || client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	rfc3339_format(wall_usec() + (int64_t)seconds * 1000000, when);
	jw_object(&w);
	jw_key_str(&w, "expiresAt", when);
	jw_object_end(&w);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/renew-expiration", id);
	if (client_call(cli, "POST", target, &body, &answer, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, answer);
	} else {
		const char *at = jv_str(jv_get(answer, "expiresAt"));

		out_age_text(at, age, sizeof(age));
		printf("%.8s  ends %s (%s)\n", id, age, at ? at : "");
	}
	jv_free(answer);
	return 0;
}

int cmd_endpoint(struct cli *cli, const struct cli_args *args)
{
	char id[UUID_SIZE];
	char target[200];
	uint32_t port;
	struct jv *answer = NULL;
	struct sbx_err err = {0};

	if (num_u32(args->operands[1], strlen(args->operands[1]), 65535, &port) < 0 || port == 0) {
		cli_say("\"%s\" is no port between 1 and 65535", args->operands[1]);
		return CLI_EXIT_USAGE;
	}
	if (client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/endpoints/%u%s", id, port,
		 cli_flag(args, "proxy") ? "?use_server_proxy=true" : "");
	if (client_call(cli, "GET", target, NULL, &answer, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, answer);
	} else {
		const char *endpoint = jv_str(jv_get(answer, "endpoint"));

		printf("%s\n", endpoint ? endpoint : "");
		fflush(stdout);
		for (const struct jv *h = jv_first(jv_get(answer, "headers")); h; h = jv_next(h))
			cli_say("send with each request: %s: %s", jv_name(h), jv_str(h) ? jv_str(h) : "");
	}
	jv_free(answer);
	return 0;
}
