// SPDX-License-Identifier: Apache-2.0
/* doctor, config, version, completion; volumes and images but for import */
#include "config.h"

#include "api/cli/client.h"
#include "api/cli/out.h"
#include "api/cli/spec.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* One document: what /v1/host says, and the store's report as one more member. */
static void print_doctor(const struct cli *cli, const struct jv *host, const struct jv *report)
{
	auto_buf json = {0};
	struct jw w = {.out = &json};
	struct sbx_err err;

	jw_object(&w);
	for (const struct jv *m = jv_first(host); m; m = jv_next(m)) {
		jw_key(&w, jv_name(m));
		jw_value(&w, m);
	}
	if (report) {
		jw_key(&w, "store");
		jw_value(&w, report);
	}
	jw_object_end(&w);
	auto_jv root = jv_parse(buf_peek(&json), buf_used(&json), &err);
	if (root)
		out_value(cli->format, root);
	else
		cli_say("%s", err.msg);
}

int cmd_doctor(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	struct jv *root = NULL;
	auto_jv report = NULL;
	unsigned int n_fail = 0;
	unsigned int n_warn = 0;

	if (client_call(cli, "GET", "/v1/host", NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli_flag(args, "verify") && client_check(cli, false, false, &report, &err) < 0) {
		jv_free(root);
		return cli_fail(cli, &err);
	}
	for (const struct jv *row = jv_first(jv_get(root, "rows")); row; row = jv_next(row)) {
		const char *verdict = jv_str(jv_get(row, "verdict"));
		const char *found = jv_str(jv_get(row, "found"));
		const char *costs = jv_str(jv_get(row, "costs"));
		const char *mend = jv_str(jv_get(row, "mend"));
		const char *name = jv_str(jv_get(row, "name"));

		n_fail += verdict && !strcmp(verdict, "fail");
		n_warn += verdict && !strcmp(verdict, "warn");
		if (cli->format != CLI_TABLE)
			continue;
		printf("  %-5s %-22s %s\n", verdict ? verdict : "?", name ? name : "", found ? found : "");
		if (costs && *costs)
			printf("        costs: %s\n", costs);
		if (mend && *mend)
			printf("        mend:  %s\n", mend);
	}
	if (cli->format != CLI_TABLE)
		print_doctor(cli, root, jv_get(report, "report"));
	else
		printf("%u failure%s, %u warning%s.%s\n", n_fail, n_fail == 1 ? "" : "s", n_warn, n_warn == 1 ? "" : "s",
		       n_fail ? "  Creates that need what failed say so." : "  Sandboxes start.");
	jv_free(root);
	bool wrong = report && client_show_check(cli, jv_get(report, "report")) != 0;
	return n_fail || wrong ? CLI_EXIT_FAILURE : 0;
}

static void print_object(const struct cli *cli, struct buf *json)
{
	struct sbx_err err;
	auto_jv root = jv_parse(buf_peek(json), buf_used(json), &err);

	if (!root)
		return;
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		return;
	}
	for (const struct jv *m = jv_first(root); m; m = jv_next(m))
		printf("%-10s %s\n", jv_name(m), jv_str(m) ? jv_str(m) : "");
}

int cmd_config(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	struct jv *root = NULL;
	auto_buf json = {0};
	struct jw w = {.out = &json};

	(void)args;
	int rc = client_call(cli, "GET", "/v1/version", NULL, &root, &err);
	jw_object(&w);
	jw_key_str(&w, "daemon", cli->url ? cli->url : cli->socket);
	jw_key_str(&w, "reached", cli->url ? "TCP" : "Unix socket, no key needed");
	jw_key_str(&w, "key", cli->key ? "set" : "none");
	jw_key_str(&w, "answers", rc == 0 ? "yes" : err.msg);
	jw_key_str(&w, "version", jv_str(jv_get(root, "version")));
	jw_object_end(&w);
	print_object(cli, &json);
	jv_free(root);
	return rc < 0 ? CLI_EXIT_FAILURE : 0;
}

int cmd_version(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	struct jv *root = NULL;
	auto_buf json = {0};
	struct jw w = {.out = &json};
	int rc = client_call(cli, "GET", "/v1/version", NULL, &root, &err);

	(void)args;
	jw_object(&w);
	jw_key_str(&w, "client", PACKAGE_VERSION);
	jw_key_str(&w, "daemon", rc == 0 ? jv_str(jv_get(root, "version")) : NULL);
	jw_key_str(&w, "api", rc == 0 ? jv_str(jv_get(root, "api")) : NULL);
	jw_object_end(&w);
	print_object(cli, &json);
	jv_free(root);
	return rc < 0 ? cli_fail(cli, &err) : 0;
}

int cmd_completion(struct cli *cli, const struct cli_args *args)
{
	(void)cli;
	if (strcmp(args->operands[0], "bash") != 0) {
		cli_say("no completion for \"%s\"; known: bash", args->operands[0]);
		return CLI_EXIT_USAGE;
	}
	cli_completion_bash();
	return 0;
}

/* --- images --- */

static void image_row(struct out_table *t, const struct jv *item)
{
	char text[64];
	int64_t bytes = 0;

	out_table_cell(t, jv_str(jv_get(item, "name")));
	snprintf(text, sizeof(text), "%zu", jv_count(jv_get(item, "layers")));
	out_table_cell(t, text);
	if (jv_i64(jv_get(item, "bytes"), &bytes) == 0 && bytes > 0)
		out_bytes((uint64_t)bytes, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "-");
	out_table_cell(t, text);
	out_age_text(jv_str(jv_get(item, "createdAt")), text, sizeof(text));
	out_table_cell(t, text);
}

int cmd_image_ls(struct cli *cli, const struct cli_args *args)
{
	static const char *const heads[] = {"NAME", "LAYERS", "SIZE", "AGE", NULL};
	struct sbx_err err = {0};
	struct jv *root = NULL;
	bool quiet = cli_flag(args, "quiet");
	int rc = 0;

	if (client_call(cli, "GET", "/v1/images", NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	const struct jv *items = jv_get(root, "items");
	if (cli->format != CLI_TABLE && !quiet) {
		out_value(cli->format, items);
	} else {
		struct out_table *t = quiet ? NULL : out_table_new(heads);

		for (const struct jv *item = jv_first(items); item; item = jv_next(item)) {
			if (t)
				image_row(t, item);
			else
				printf("%s\n", jv_str(jv_get(item, "name")) ? jv_str(jv_get(item, "name")) : "");
		}
		if (t)
			rc = out_table_print(t);
	}
	jv_free(root);
	return rc < 0 ? CLI_EXIT_FAILURE : 0;
}

static int delete_each(struct cli *cli, const struct cli_args *args, const char *prefix)
{
	struct out_done done;
	int exit_code = 0;

	out_done_begin(&done, cli);
	for (int i = 0; i < args->n_operands; i++) {
		struct sbx_err err = {0};
		auto_buf target = {0};

		buf_puts(&target, prefix);
		client_escape(&target, args->operands[i]);
		const char *text = buf_str(&target);
		if (text && client_call(cli, "DELETE", text, NULL, NULL, &err) == 0)
			out_done_add(&done, args->operands[i], args->operands[i]);
		else
			exit_code = cli_fail(cli, &err);
	}
	out_done_end(&done);
	return exit_code;
}

int cmd_image_rm(struct cli *cli, const struct cli_args *args)
{
	return delete_each(cli, args, "/v1/images/");
}

/* --- volumes --- */

int cmd_volume_ls(struct cli *cli, const struct cli_args *args)
{
	static const char *const heads[] = {"NAME", "IN USE", NULL};
	struct sbx_err err = {0};
	struct jv *root = NULL;
	int rc = 0;

	(void)args;
	if (client_call(cli, "GET", "/v1/volumes", NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	const struct jv *items = jv_get(root, "items");
	struct out_table *t = cli->format == CLI_TABLE ? out_table_new(heads) : NULL;
	for (const struct jv *item = jv_first(items); t && item; item = jv_next(item)) {
		bool used = false;

		if (jv_bool(jv_get(item, "inUse"), &used) < 0)
			used = false;
		out_table_cell(t, jv_str(jv_get(item, "name")));
		out_table_cell(t, used ? "yes" : "no");
	}
	if (t)
		rc = out_table_print(t);
	else
		out_value(cli->format, items);
	jv_free(root);
	return rc < 0 ? CLI_EXIT_FAILURE : 0;
}

int cmd_volume_create(struct cli *cli, const struct cli_args *args)
{
	struct out_done done;
	struct sbx_err err = {0};
	auto_buf target = {0};

	buf_puts(&target, "/v1/volumes?name=");
	client_escape(&target, args->operands[0]);
	if (cli_text(args, "size")) {
		char size[32];

		if (spec_size(cli_text(args, "size"), size, &err) < 0)
			return cli_fail(cli, &err);
		buf_printf(&target, "&size=%s", size);
	}
	const char *text = buf_str(&target);
	if (!text || client_call(cli, "POST", text, NULL, NULL, &err) < 0)
		return cli_fail(cli, &err);
	out_done_begin(&done, cli);
	out_done_add(&done, args->operands[0], args->operands[0]);
	out_done_end(&done);
	return 0;
}

int cmd_volume_rm(struct cli *cli, const struct cli_args *args)
{
	return delete_each(cli, args, "/v1/volumes/");
}
