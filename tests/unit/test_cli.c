// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "api/cli/cli.h"
#include "api/cli/out.h"
#include "api/cli/spec.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_seconds(void)
{
	static const struct {
		const char *text;
		long long want; /* -1: refused */
	} rows[] = {{"90", 90}, {"90s", 90}, {"30m", 1800}, {"2h", 7200}, {"1d", 86400}, {"0", 0}, {"", -1}, {"s", -1}, {"-1", -1},
		    {"1.5h", -1}, {"1w", -1}, {"99999999999999999999", -1}, {" 1", -1}, {"1 m", -1}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct sbx_err err = {0};
		uint64_t seconds = 0;
		int rc = spec_seconds(rows[i].text, &seconds, &err);

		is_int(rc < 0 ? -1 : (long long)seconds, rows[i].want, "time \"%s\"", rows[i].text);
	}
}

static void test_sizes(void)
{
	static const struct {
		const char *text, *want; /* NULL: refused */
	} rows[] = {{"64m", "64Mi"}, {"64M", "64Mi"}, {"2g", "2Gi"}, {"512Mi", "512Mi"}, {"1KiB", "1Ki"}, {"1048576", "1048576"},
		    {"5b", "5"}, {"0", NULL}, {"m", NULL}, {"", NULL}, {"-1m", NULL}, {"1.5g", NULL}, {"64mm", NULL}, {"64 m", NULL},
		    {"99999999999999999999m", NULL}, {"64megabytes", NULL}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct sbx_err err = {0};
		char out[32] = "(refused)";

		if (spec_size(rows[i].text, out, &err) < 0)
			ok(!rows[i].want && err.code == SBX_E_INVALID_REQUEST, "size \"%s\" is refused", rows[i].text);
		else
			is_str(out, rows[i].want, "size \"%s\"", rows[i].text);
	}
}

static void test_quote(void)
{
	static const struct {
		const char *words[4];
		const char *want;
	} rows[] = {
		{{"ls", "-la", "/tmp"}, "ls -la /tmp"},
		{{"echo", "a b"}, "echo 'a b'"},
		{{"echo", ""}, "echo ''"},
		{{"echo", "it's"}, "echo 'it'\\''s'"},
		{{"echo", "$HOME", "`id`"}, "echo '$HOME' '`id`'"},
		{{"echo", "A=b"}, "echo A=b"},
		{{"A=b"}, "'A=b'"}, /* as a first word it would be an assignment */
		{{"a\nb"}, "'a\nb'"},
		{{"~root"}, "'~root'"},
		{{"echo", "*"}, "echo '*'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		auto_buf out = {0};

		spec_quote(&out, rows[i].words);
		is_str(buf_str(&out), rows[i].want, "quoting gives %s", rows[i].want);
	}
}

static int parse(struct cli *cli, struct cli_args *args, const char **operands, const char *const *words)
{
	/* operands point into argv: it must outlive this call */
	static char copy[16][64];
	static char *argv[17];
	int argc = 0;

	for (; words[argc]; argc++) {
		snprintf(copy[argc], sizeof(copy[argc]), "%s", words[argc]);
		argv[argc] = copy[argc];
	}
	argv[argc] = NULL;
	*cli = (struct cli){0};
	return cli_parse(argc, argv, cli, args, operands);
}

static void test_parse(void)
{
	static const struct {
		const char *why;
		const char *words[8];
		int rc;
		const char *command;
		int n_operands;
		const char *last;
	} rows[] = {
		{"command behind --", {"c", "run", "--", "ls", "-l"}, 0, "run", 2, "-l"},
		{"command without --", {"c", "run", "ls", "-l"}, 0, "run", 2, "-l"},
		{"options before it", {"c", "run", "-m", "64m", "-it", "ls"}, 0, "run", 1, "ls"},
		{"value in the same word", {"c", "run", "-m64m", "--cpu=2", "ls"}, 0, "run", 1, "ls"},
		{"global option first", {"c", "-o", "json", "ls"}, 0, "ls", 0, NULL},
		{"exec takes options behind the id", {"c", "exec", "7f", "-it", "sh", "-c"}, 0, "exec", 3, "-c"},
		{"a group", {"c", "image", "rm", "a", "b"}, 0, "rm", 2, "b"},
		{"options anywhere", {"c", "logs", "7f", "-n", "5"}, 0, "logs", 1, "7f"},
		{"a lone dash is an operand", {"c", "image", "import", "-", "a"}, 0, "import", 2, "a"},
		{"unknown option", {"c", "run", "--no-such", "ls"}, -1, NULL, 0, NULL},
		{"missing value", {"c", "run", "-m"}, -1, NULL, 0, NULL},
		{"value for a switch", {"c", "run", "--tty=1", "ls"}, -1, NULL, 0, NULL},
		{"given twice", {"c", "run", "-m", "1m", "-m", "2m", "ls"}, -1, NULL, 0, NULL},
		{"unknown command", {"c", "bogus"}, -1, NULL, 0, NULL},
		{"group alone", {"c", "image"}, -1, NULL, 0, NULL},
		{"too few operands", {"c", "inspect"}, -1, NULL, 0, NULL},
		{"too many operands", {"c", "inspect", "a", "b"}, -1, NULL, 0, NULL},
		{"unknown format", {"c", "-o", "xml", "ls"}, -1, NULL, 0, NULL},
		{"nothing", {"c"}, -1, NULL, 0, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct cli cli;
		struct cli_args args;
		const char *operands[16];
		int rc = parse(&cli, &args, operands, rows[i].words);

		is_int(rc, rows[i].rc, "parse: %s", rows[i].why);
		if (rc != 0 || rows[i].rc != 0)
			continue;
		is_str(args.command->name, rows[i].command, "parse: %s: the command", rows[i].why);
		is_int(args.n_operands, rows[i].n_operands, "parse: %s: its operands", rows[i].why);
		if (rows[i].last)
			is_str(operands[args.n_operands - 1], rows[i].last, "parse: %s: the last", rows[i].why);
	}
}

static void test_table(void)
{
	unsigned int n = 0;

	for (const struct cli_command *c = cli_commands; c->name; c++, n++) {
		bool unique = true;

		for (const struct cli_option *o = c->options; o->name; o++)
			for (const struct cli_option *p = o + 1; p->name; p++)
				unique &= strcmp(o->name, p->name) != 0 && (!o->letter || o->letter != p->letter);
		for (const struct cli_option *o = c->options; o->name; o++)
			for (const struct cli_option *g = cli_global_options; g->name; g++)
				unique &= strcmp(o->name, g->name) != 0 && (!o->letter || o->letter != g->letter);
		ok(unique && c->run && c->summary && c->text[0], "%s %s: options differ, help is there", c->group ? c->group : "",
		   c->name);
	}
	ok(n > 20, "%u commands", n);
}

static void test_figures(void)
{
	char out[32];
	static const struct {
		uint64_t bytes;
		const char *want;
	} sizes[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {10ull << 20, "10 MiB"}, {1536ull << 20, "1.5 GiB"}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		out_bytes(sizes[i].bytes, out, sizeof(out));
		is_str(out, sizes[i].want, "%llu bytes", (unsigned long long)sizes[i].bytes);
	}
	out_age(wall_usec() - 5 * 60 * 1000000ll, out, sizeof(out));
	is_str(out, "5m", "five minutes ago");
	out_age(wall_usec() + 3 * 3600 * 1000000ll + 1000000, out, sizeof(out));
	is_str(out, "in 3h", "in three hours");
	out_age_text("no instant", out, sizeof(out));
	is_str(out, "-", "what is no instant");
}

/* Prints the value into a file and compares. */
static void check_value(enum cli_format format, const char *json, const char *want)
{
	struct sbx_err err;
	auto_jv root = jv_parse(json, strlen(json), &err);
	char got[1024] = "";
	char path[] = "/tmp/test_cli.XXXXXX";
	int saved = dup(STDOUT_FILENO);
	auto_fd fd = mkstemp(path);

	fflush(stdout);
	if (root && fd >= 0 && saved >= 0 && dup2(fd, STDOUT_FILENO) >= 0) {
		out_value(format, root);
		fflush(stdout);
		dup2(saved, STDOUT_FILENO);
		ssize_t n = pread(fd, got, sizeof(got) - 1, 0);
		got[n > 0 ? n : 0] = '\0';
	}
	close_keep_errno(saved);
	unlink(path);
	is_str(got, want, "%s of %s", format == CLI_YAML ? "yaml" : "json", json);
}

static void test_values(void)
{
	check_value(CLI_JSON, "{\"a\":[1,true,\"x\"],\"b\":{}}",
		    "{\n  \"a\": [\n    1,\n    true,\n    \"x\"\n  ],\n  \"b\": {}\n}\n");
	check_value(CLI_YAML, "{\"a\":[1,true,\"x\"],\"b\":{},\"no\":\"y\"}", "a:\n  - 1\n  - true\n  - \"x\"\nb: {}\n\"no\": \"y\"\n");
	check_value(CLI_YAML, "[{\"a\":1,\"b\":{\"c\":2}},{\"a\":3}]", "- a: 1\n  b:\n    c: 2\n- a: 3\n");
	check_value(CLI_YAML, "[]", "[]\n");
	check_value(CLI_YAML, "{\"a\":\"x\\ny\\u001b[0m\"}", "a: \"x\\ny\\u001b[0m\"\n");
	check_value(CLI_YAML, "[[1,2],[3]]", "- - 1\n  - 2\n- - 3\n");
}

int main(void)
{
	test_seconds();
	test_sizes();
	test_quote();
	test_parse();
	test_table();
	test_figures();
	test_values();
	return tap_done();
}
