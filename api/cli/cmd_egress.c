// SPDX-License-Identifier: Apache-2.0
/* egress get, set, allow, deny, rm, watch, explain; and what run says about names that were denied */
#include "api/cli/client.h"
#include "api/cli/egress.h"
#include "api/cli/out.h"
#include "api/cli/stream.h"

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/jv.h"
#include "base/num.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POLICY_BYTES_MAX (1u << 20)
#define NOTE_NAMES_MAX	 8u

/* ---- rules as they are typed: TARGET, or TARGET:PORT[,PORT]... ---- */

static bool are_ports(const char *text)
{
	return *text && !text[strspn(text, "0123456789,-")];
}

static void write_ports(struct jw *w, const char *list)
{
	jw_key(w, "ports");
	jw_array(w);
	while (*list) {
		char text[24];
		size_t n = strcspn(list, ",");

		snprintf(text, sizeof(text), "%.*s", (int)(n < sizeof(text) ? n : sizeof(text) - 1), list);
		jw_str(w, text);
		list += n + (list[n] == ',');
	}
	jw_array_end(w);
}

static int write_rule(struct jw *w, const char *action, const char *typed, const char *ports, struct sbx_err *err)
{
	auto_free char *target = strdup(typed);
	char *colon;

	if (!target)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "rule");
	colon = strrchr(target, ':');
	if (!ports && colon && colon == strchr(target, ':') && are_ports(colon + 1)) {
		*colon = '\0';
		ports = typed + (colon - target) + 1;
	}
	jw_object(w);
	jw_key_str(w, "action", action);
	jw_key_str(w, "target", target);
	if (ports)
		write_ports(w, ports);
	jw_object_end(w);
	return 0;
}

int egress_write_policy(const struct cli_args *args, struct jw *w, struct sbx_err *err)
{
	static const char *const actions[] = {"deny", "allow"};
	const char *standard = cli_text(args, "egress");

	if (!standard && !cli_flag(args, "allow") && !cli_flag(args, "deny"))
		return 0;
	if (standard && strcmp(standard, "deny") != 0 && strcmp(standard, "allow") != 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "--egress %.40s: must be deny or allow", standard);
	jw_key(w, "networkPolicy");
	jw_object(w);
	/* who names what is allowed means that the rest is not */
	jw_key_str(w, "defaultAction", standard ? standard : cli_flag(args, "allow") ? "deny" : "allow");
	jw_key(w, "egress");
	jw_array(w);
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		const char *typed;
		size_t at = 0;

		while ((typed = cli_next(args, actions[i], &at)))
			if (write_rule(w, actions[i], typed, NULL, err) < 0)
				return -1;
	}
	jw_array_end(w);
	jw_object_end(w);
	return 0;
}

/* ---- policies ---- */

static void show_warnings(const struct jv *status)
{
	for (const struct jv *v = jv_first(jv_get(status, "warnings")); v; v = jv_next(v))
		if (jv_str(v))
			cli_say("note: %s", jv_str(v));
}

static void ports_text(const struct jv *rule, char *out, size_t size)
{
	size_t used = 0;

	snprintf(out, size, "all but 853");
	for (const struct jv *p = jv_first(jv_get(rule, "ports")); p; p = jv_next(p)) {
		int64_t number = 0;
		int n;

		if (jv_str(p))
			n = snprintf(out + used, size - used, "%s%s", used ? ", " : "", jv_str(p));
		else
			n = snprintf(out + used, size - used, "%s%lld", used ? ", " : "", jv_i64(p, &number) ? 0 : (long long)number);
		if (n < 0 || (size_t)n >= size - used)
			return;
		used += (size_t)n;
	}
}

static int show_policy(struct cli *cli, const struct jv *status)
{
	static const char *const heads[] = {"RULE", "ACTION", "TARGET", "PORTS", NULL};
	const struct jv *policy = jv_get(status, "policy"), *rules = jv_get(policy, "egress");
	const char *standard = jv_str(jv_get(policy, "defaultAction"));
	struct out_table *table;
	char text[128];
	unsigned i = 0;

	if (cli->format != CLI_TABLE) {
		out_value(cli->format, status);
		return 0;
	}
	table = out_table_new(heads);
	if (!table)
		return CLI_EXIT_FAILURE;
	for (const struct jv *r = jv_first(rules); r; r = jv_next(r), i++) {
		const char *action = jv_str(jv_get(r, "action"));

		snprintf(text, sizeof(text), "%u", i);
		out_table_cell(table, text);
		out_table_cell(table, action);
		out_table_cell(table, jv_str(jv_get(r, "target")));
		ports_text(r, text, sizeof(text));
		out_table_cell(table, action && !strcmp(action, "allow") ? text : "all");
	}
	out_table_cell(table, "else");
	out_table_cell(table, standard);
	out_table_cell(table, "everything");
	out_table_cell(table, standard && !strcmp(standard, "allow") ? "all" : "-");
	show_warnings(status);
	return out_table_print(table) < 0 ? CLI_EXIT_FAILURE : 0;
}

static int call_policy(struct cli *cli, const char *typed_id, const char *method, struct buf *body)
{
	char id[UUID_SIZE], target[160];
	struct sbx_err err = {0};
	struct jv *status = NULL;
	int code;

	if (client_find(cli, typed_id, id, &err) < 0)
		return cli_fail(cli, &err);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/proxy/18080/policy", id);
	if (client_call(cli, method, target, body, &status, &err) < 0)
		return cli_fail(cli, &err);
	if (jv_str(jv_get(status, "reason")))
		cli_say("%s", jv_str(jv_get(status, "reason")));
	code = show_policy(cli, status);
	jv_free(status);
	return code;
}

int cmd_egress_get(struct cli *cli, const struct cli_args *args)
{
	return call_policy(cli, args->operands[0], "GET", NULL);
}

static int read_file(const char *path, struct buf *out, struct sbx_err *err)
{
	bool in = !strcmp(path, "-");
	auto_fd fd = in ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "%.200s", path);
	out->max = POLICY_BYTES_MAX;
	do {
		char *room = buf_reserve(out, 4096);

		if (!room)
			return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "%.200s: more than 1 MiB", path);
		n = read(fd, room, 4096);
		if (n > 0)
			buf_commit(out, (size_t)n);
	} while (n > 0);
	return n < 0 ? sbx_err_set(err, SBX_E_INVALID_REQUEST, errno, "%.200s", path) : 0;
}

int cmd_egress_set(struct cli *cli, const struct cli_args *args)
{
	bool by_options = cli_flag(args, "egress") || cli_flag(args, "allow") || cli_flag(args, "deny");
	struct sbx_err err = {0};
	auto_buf body = {0};

	if (by_options == (args->n_operands == 2)) {
		cli_say("egress set: either FILE or --egress, --allow and --deny");
		return CLI_EXIT_USAGE;
	}
	if (!by_options) {
		if (read_file(args->operands[1], &body, &err) < 0)
			return cli_fail(cli, &err);
		return call_policy(cli, args->operands[0], "PUT", &body);
	}
	auto_buf whole = {0};
	struct jw w = {.out = &whole};
	jw_object(&w);
	if (egress_write_policy(args, &w, &err) < 0)
		return cli_fail(cli, &err);
	jw_object_end(&w);
	/* {"networkPolicy":{...}}: what is wanted is the inner one */
	const char *text = buf_str(&whole), *from = text ? strchr(text + 1, '{') : NULL;
	if (from)
		buf_append(&body, from, strlen(from) - 1);
	return call_policy(cli, args->operands[0], "PUT", &body);
}

static int patch(struct cli *cli, const struct cli_args *args, const char *action)
{
	const char *ports = cli_text(args, "port");
	struct sbx_err err = {0};
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_array(&w);
	for (int i = 1; i < args->n_operands; i++)
		if (write_rule(&w, action, args->operands[i], ports, &err) < 0)
			return cli_fail(cli, &err);
	jw_array_end(&w);
	return call_policy(cli, args->operands[0], "PATCH", &body);
}

int cmd_egress_allow(struct cli *cli, const struct cli_args *args)
{
	return patch(cli, args, "allow");
}

int cmd_egress_deny(struct cli *cli, const struct cli_args *args)
{
	return patch(cli, args, "deny");
}

int cmd_egress_rm(struct cli *cli, const struct cli_args *args)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_array(&w);
	for (int i = 1; i < args->n_operands; i++)
		jw_str(&w, args->operands[i]);
	jw_array_end(&w);
	return call_policy(cli, args->operands[0], "DELETE", &body);
}

/* ---- watch ---- */

static const char *text_of(const struct jv *v, const char *key)
{
	const char *text = jv_str(jv_get(v, key));

	return text ? text : "";
}

/* For people: time, verdict, what, why.  Names inside a sandbox are hostile: no control character passes. */
static void print_event(const struct jv *e)
{
	const char *when = strchr(text_of(e, "time"), 'T'), *name = text_of(e, "name"), *addr = text_of(e, "address");
	int64_t port = 0, count = 1;
	auto_buf line = {0};

	buf_printf(&line, "%.12s  %-9s %s", when ? when + 1 : "-", text_of(e, "verdict"), *name ? name : addr);
	if (!jv_i64(jv_get(e, "port"), &port))
		buf_printf(&line, ":%lld", (long long)port);
	if (*text_of(e, "protocol"))
		buf_printf(&line, "/%s", text_of(e, "protocol"));
	if (*name && *addr)
		buf_printf(&line, " (%s)", addr);
	if (*text_of(e, "qtype"))
		buf_printf(&line, " %s", text_of(e, "qtype"));
	if (!jv_i64(jv_get(e, "count"), &count) && count > 1)
		buf_printf(&line, " x%lld", (long long)count);
	buf_printf(&line, "   %s", *text_of(e, "message") ? text_of(e, "message") : text_of(e, "kind"));
	if (*text_of(e, "detail"))
		buf_printf(&line, " (%s)", text_of(e, "detail"));
	for (const char *c = buf_str(&line); c && *c; c++)
		putchar((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c);
	putchar('\n');
	fflush(stdout);
}

static void take_line(struct cli *cli, const char *line, size_t n)
{
	struct sbx_err ignored;

	if (n < 6 || memcmp(line, "data: ", 6) != 0)
		return;
	auto_jv event = jv_parse(line + 6, n - 6, &ignored);
	if (!event)
		return;
	if (cli->format == CLI_TABLE) {
		print_event(event);
	} else {
		printf("%.*s\n", (int)(n - 6), line + 6); /* one JSON document a line */
		fflush(stdout);
	}
}

int cmd_egress_watch(struct cli *cli, const struct cli_args *args)
{
	char id[UUID_SIZE], target[192];
	const struct http_client_request request = {.method = "GET", .target = target, .headers = "Accept: text/event-stream\r\n"};
	struct http_client_response response;
	struct http_client *http;
	struct sbx_err err = {0};
	auto_buf in = {.max = 1u << 20};
	ssize_t n = 0;

	if (client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/egress/events?after=%s", id, cli_flag(args, "new") ? "18446744073709551614" : "0");
	http = client_connect(cli, &err);
	if (!http || client_begin(cli, http, &request, &response, &err) < 0) {
		http_client_free(http);
		return cli_fail(cli, &err);
	}
	http_client_timeout(http, 0);
	for (char *room; (room = buf_reserve(&in, 8192)) && (n = http_client_read(http, room, 8192, &err)) > 0;) {
		const char *end;

		buf_commit(&in, (size_t)n);
		while ((end = memchr(buf_peek(&in), '\n', buf_used(&in)))) {
			size_t len = (size_t)(end - buf_peek(&in));

			take_line(cli, buf_peek(&in), len);
			buf_consume(&in, len + 1);
			if (!buf_used(&in))
				break;
		}
	}
	http_client_free(http);
	return n < 0 ? cli_fail(cli, &err) : 0;
}

/* ---- explain ---- */

static void print_last(const struct jv *root)
{
	const struct jv *newest = jv_first(jv_get(root, "last"));
	const char *when = strchr(text_of(newest, "time"), 'T');
	int64_t tries = 0;

	if (!newest || jv_i64(jv_get(root, "tries"), &tries))
		return;
	printf("  last   %lld %s, newest %.8s: %s\n", (long long)tries, tries == 1 ? "try" : "tries", when ? when + 1 : "-",
	       text_of(newest, "message"));
}

static void print_remedy(const struct jv *root, const char *typed_id)
{
	const struct jv *remedy = jv_get(root, "remedy");
	const char *allow = jv_str(jv_get(remedy, "allow")), *remove = jv_str(jv_get(remedy, "remove"));
	int64_t port = 0;

	if (remove)
		printf("  to allow: sandboxctl egress rm %s '%s'\n", typed_id, remove);
	else if (allow && !jv_i64(jv_get(remedy, "port"), &port))
		printf("  to allow: sandboxctl egress allow %s '%s' --port %lld\n", typed_id, allow, (long long)port);
	else if (allow)
		printf("  to allow: sandboxctl egress allow %s '%s'\n", typed_id, allow);
}

static void print_rule(const struct jv *root)
{
	const struct jv *about = jv_get(root, "rule"), *rule = jv_get(about, "rule");
	bool operator= false;
	char ports[128];
	int64_t index = 0;

	if (!about || jv_i64(jv_get(about, "index"), &index))
		return;
	jv_bool(jv_get(about, "operator"), &operator);
	printf("  rule   %s%lld \"%s %s\"", operator? "operator's " : "", (long long)index, text_of(rule, "action"), text_of(rule, "target"));
	if (jv_first(jv_get(rule, "ports"))) {
		ports_text(rule, ports, sizeof(ports));
		printf(", ports %s", ports);
	}
	printf("%s\n", strcmp(text_of(root, "reason"), "rule") ? "" : "   <- decides");
}

int cmd_egress_explain(struct cli *cli, const struct cli_args *args)
{
	char id[UUID_SIZE];
	struct sbx_err err = {0};
	struct jv *root = NULL;
	auto_buf target = {0};
	int64_t port = 0;

	if (client_find(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err);
	buf_printf(&target, "/v1/sandboxes/%s/egress/explain?target=", id);
	client_escape(&target, args->operands[1]);
	const char *path = buf_str(&target);
	if (!path || client_call(cli, "GET", path, NULL, &root, &err) < 0)
		return cli_fail(cli, &err);
	bool denied = strcmp(text_of(root, "verdict"), "allowed") != 0;
	if (cli->format != CLI_TABLE) {
		out_value(cli->format, root);
		jv_free(root);
		return denied ? CLI_EXIT_FAILURE : 0;
	}
	printf("%-8s %.8s -> %s", text_of(root, "verdict"), id, text_of(root, "target"));
	if (!jv_i64(jv_get(root, "port"), &port))
		printf(":%lld", (long long)port);
	printf("/%s\n", text_of(root, "protocol"));
	print_rule(root);
	if (strcmp(text_of(root, "reason"), "rule") != 0 || !jv_get(root, "rule"))
		printf("  %-6s %s   <- decides\n", text_of(root, "reason"), text_of(root, "message"));
	if (jv_str(jv_get(root, "note")))
		printf("  note   %s\n", text_of(root, "note"));
	for (const struct jv *o = jv_first(jv_get(root, "open")); o; o = jv_next(o))
		printf("  open   %s (%s)\n", text_of(o, "address"), text_of(o, "name"));
	print_last(root);
	print_remedy(root, args->operands[0]);
	jv_free(root);
	return denied ? CLI_EXIT_FAILURE : 0;
}

/* ---- run's closing note ---- */

struct denied_names {
	char name[NOTE_NAMES_MAX][256];
	char why[160];
	unsigned n, more;
};

static void collect(struct denied_names *d, const struct jv *e)
{
	const char *what = *text_of(e, "name") ? text_of(e, "name") : text_of(e, "address");

	if (strcmp(text_of(e, "verdict"), "denied") != 0 || !*what)
		return;
	for (unsigned i = 0; i < d->n; i++)
		if (!strcmp(d->name[i], what))
			return;
	if (d->n == NOTE_NAMES_MAX) {
		d->more++;
		return;
	}
	snprintf(d->name[d->n++], sizeof(d->name[0]), "%s", what);
	if (!*d->why)
		snprintf(d->why, sizeof(d->why), "%s", text_of(e, "message"));
}

void egress_note(struct cli *cli, const struct cli_args *args, const char *id)
{
	struct denied_names d = {0};
	struct sbx_err ignored;
	struct jv *root = NULL;
	auto_buf names = {0};
	char target[160];

	if (!cli_flag(args, "egress") && !cli_flag(args, "allow") && !cli_flag(args, "deny"))
		return;
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/egress/events", id);
	if (client_call(cli, "GET", target, NULL, &root, &ignored) < 0)
		return; /* a note, nothing that the command needs */
	for (const struct jv *e = jv_first(jv_get(root, "items")); e; e = jv_next(e))
		collect(&d, e);
	jv_free(root);
	for (unsigned i = 0; i < d.n; i++)
		buf_printf(&names, "%s%s", i ? ", " : "", d.name[i]);
	const char *text = buf_str(&names);
	if (d.n && text)
		cli_say("note: %u denied: %s%s (%s); to allow: --allow %s", d.n + d.more, text, d.more ? ", ..." : "", d.why, d.name[0]);
}
