// SPDX-License-Identifier: Apache-2.0
/* image inspect, tag, prune, gc, fsck, df */
#include "api/cli/client.h"
#include "api/cli/out.h"
#include "api/cli/spec.h"

#include "base/cleanup.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t number(const struct jv *object, const char *name)
{
	int64_t n = 0;

	return jv_i64(jv_get(object, name), &n) == 0 && n > 0 ? (uint64_t)n : 0;
}

int cmd_image_inspect(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	auto_jv root = NULL;

	if (client_image(cli, args->operands[0], &root, &err) < 0)
		return cli_fail(cli, &err);
	out_value(cli->format == CLI_TABLE ? CLI_JSON : cli->format, root);
	return 0;
}

int cmd_image_tag(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	auto_jv root = NULL;
	auto_buf target = {0};

	buf_puts(&target, "/v1/images/");
	client_escape(&target, args->operands[0]);
	buf_puts(&target, "/tag?name=");
	client_escape(&target, args->operands[1]);
	const char *text = buf_str(&target);
	if (!text)
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "request");
	if (!text || client_call(cli, "POST", text, NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE)
		out_value(cli->format, root);
	else
		printf("%s\n", jv_str(jv_get(root, "name")) ? jv_str(jv_get(root, "name")) : "");
	return 0;
}

int cmd_image_prune(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	auto_jv root = NULL;
	char freed[32];

	if (client_call(cli, "POST", cli_flag(args, "all") ? "/v1/images/prune?all=true" : "/v1/images/prune", NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		return 0;
	}
	for (const struct jv *v = jv_first(jv_get(root, "images")); v; v = jv_next(v))
		printf("%s\n", jv_str(v) ? jv_str(v) : "");
	out_bytes(number(root, "bytes"), freed, sizeof(freed));
	printf("%llu blobs (%s) and %llu layers removed\n", (unsigned long long)number(root, "blobs"), freed,
	       (unsigned long long)number(root, "layers"));
	return 0;
}

int cmd_image_gc(struct cli *cli, const struct cli_args *args)
{
	static const char *const heads[] = {"IMAGE", "LAST USED", "SIZE", "WHY", NULL};
	const char *wanted = cli_text(args, "free");
	bool dry = cli_flag(args, "dry-run");
	struct sbx_err err = {0};
	auto_jv root = NULL;
	auto_buf target = {0};
	char text[32];

	if (wanted && spec_size(wanted, text, &err) < 0)
		return cli_fail(cli, &err);
	buf_printf(&target, "/v1/images/gc?dryRun=%s", dry ? "true" : "false");
	if (wanted)
		buf_printf(&target, "&free=%s", text);
	const char *path = buf_str(&target);
	if (!path)
		sbx_err_set(&err, SBX_E_NO_MEMORY, 0, "request");
	if (!path || client_call(cli, "POST", path, NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		return 0;
	}
	const struct jv *images = jv_get(root, "images"), *disk = jv_get(root, "disk");
	struct out_table *t = jv_first(images) ? out_table_new(heads) : NULL;
	for (const struct jv *v = t ? jv_first(images) : NULL; v; v = jv_next(v)) {
		out_table_cell(t, jv_str(jv_get(v, "name")));
		out_table_cell(t, jv_str(jv_get(v, "lastUsedAt")));
		out_bytes(number(v, "bytes"), text, sizeof(text));
		out_table_cell(t, text);
		out_table_cell(t, jv_str(jv_get(v, "reason")));
	}
	if (t && out_table_print(t) < 0)
		return CLI_EXIT_FAILURE;
	out_bytes(number(root, "bytes") + number(root, "imageBytes"), text, sizeof(text));
	printf("%llu images, %llu layers and %llu blobs (%s) %s; the disk is %llu %% full\n",
	       (unsigned long long)jv_count(images), (unsigned long long)number(root, "layers"), (unsigned long long)number(root, "blobs"),
	       text, dry ? "would be removed" : "removed", (unsigned long long)number(disk, "usedPercent"));
	return 0;
}

int client_check(struct cli *cli, bool repair, bool quick, struct jv **ret, struct sbx_err *err)
{
	struct http_client *http = client_http(cli, err);
	struct http_client_response response;
	char target[96];

	if (!http)
		return -1;
	snprintf(target, sizeof(target), "/v1/images/fsck?events=true&repair=%s&quick=%s", repair ? "true" : "false", quick ? "true" : "false");
	const struct http_client_request request = {.method = "POST", .target = target, .headers = "Accept: text/event-stream\r\n"};
	http_client_timeout(http, 0); /* it reads all that is stored */
	int rc = client_begin(cli, http, &request, &response, err);
	if (rc == 0)
		rc = client_events(http, false, ret, err);
	http_client_timeout(http, CLIENT_TIMEOUT_MS);
	return rc;
}

int client_show_check(const struct cli *cli, const struct jv *report)
{
	static const char *const heads[] = {"KIND", "WHAT", "DETAIL", "REPAIRED", NULL};
	const struct jv *problems = jv_get(report, "problems");
	struct out_table *t = cli->format == CLI_TABLE && jv_first(problems) ? out_table_new(heads) : NULL;
	unsigned errors = 0;
	char blobs[32], layers[32];

	for (const struct jv *v = jv_first(problems); v; v = jv_next(v)) {
		const char *level = jv_str(jv_get(v, "level"));
		bool repaired = false;

		if (jv_bool(jv_get(v, "repaired"), &repaired) < 0)
			repaired = false;
		errors += !repaired && level && !strcmp(level, "error");
		if (!t)
			continue;
		out_table_cell(t, jv_str(jv_get(v, "kind")));
		out_table_cell(t, jv_str(jv_get(v, "what")));
		out_table_cell(t, jv_str(jv_get(v, "detail")));
		out_table_cell(t, repaired ? "yes" : level && !strcmp(level, "note") ? "-" : "no");
	}
	if (cli->format == CLI_TABLE) {
		if (t && out_table_print(t) < 0)
			return CLI_EXIT_FAILURE;
		out_bytes(number(report, "blobBytes"), blobs, sizeof(blobs));
		out_bytes(number(report, "layerBytes"), layers, sizeof(layers));
		printf("%llu images, %llu layers (%llu compared, %s), %llu blobs (%s) checked, %u errors left\n",
		       (unsigned long long)number(report, "images"), (unsigned long long)number(report, "layers"),
		       (unsigned long long)number(report, "layersCompared"), layers, (unsigned long long)number(report, "blobs"), blobs, errors);
	}
	return errors ? CLI_EXIT_FAILURE : 0;
}

int cmd_image_fsck(struct cli *cli, const struct cli_args *args)
{
	struct sbx_err err = {0};
	auto_jv root = NULL;

	if (client_check(cli, cli_flag(args, "repair"), cli_flag(args, "quick"), &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE)
		out_value(cli->format, jv_get(root, "report"));
	return client_show_check(cli, jv_get(root, "report"));
}

int cmd_image_df(struct cli *cli, const struct cli_args *args)
{
	static const char *const heads[] = {"WHAT", "COUNT", "SIZE", "UNUSED", NULL};
	static const struct {
		const char *what, *count, *bytes, *unused;
	} rows[] = {
		{"layers, unpacked", "layers", "unpackedBytes", "unusedUnpackedBytes"},
		{"blobs, packed", "blobs", "packedBytes", "unusedPackedBytes"},
		{"begun pulls", NULL, "partialBytes", "partialBytes"},
	};
	struct sbx_err err = {0};
	auto_jv root = NULL;

	(void)args;
	if (client_call(cli, "GET", "/v1/usage", NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		return 0;
	}
	struct out_table *t = out_table_new(heads);
	for (size_t i = 0; t && i < ARRAY_SIZE(rows); i++) {
		char text[32];

		out_table_cell(t, rows[i].what);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)(rows[i].count ? number(root, rows[i].count) : 0));
		out_table_cell(t, rows[i].count ? text : NULL);
		out_bytes(number(root, rows[i].bytes), text, sizeof(text));
		out_table_cell(t, text);
		out_bytes(number(root, rows[i].unused), text, sizeof(text));
		out_table_cell(t, text);
	}
	return !t || out_table_print(t) < 0 ? CLI_EXIT_FAILURE : 0;
}
