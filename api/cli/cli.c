// SPDX-License-Identifier: Apache-2.0
#include "api/cli/cli.h"

#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cli_say(const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* what a sandbox or a server says must not steer the terminal */
	for (char *c = text; *c; c++)
		if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "sandboxctl: %s\n", text);
}

int cli_fail(const struct cli *cli, const struct sbx_err *err)
{
	cli_say("%s", err->msg);
	if (err->code == SBX_E_MISSING_API_KEY || err->code == SBX_E_INVALID_API_KEY)
		cli_say("give the key: --key KEY or OPEN_SANDBOX_API_KEY=KEY (it is in <run dir>/key of the daemon)");
	else if (err->code == SBX_E_SANDBOX_NOT_FOUND)
		cli_say("list them: sandboxctl ls");
	else if (err->code == SBX_E_PEER_GONE && !cli->url)
		cli_say("start a daemon: sudo ./setup, or: sandboxd --standalone; or name one: --url http://HOST:PORT");
	else if (err->code == SBX_E_IMAGE_PULL_FAILED)
		cli_say("credentials: sandboxctl pull -u USER IMAGE; an archive instead: sandboxctl image import FILE NAME");
	else if (err->code == SBX_E_HOST_LACKS)
		cli_say("what this host lacks, and how to mend it: sandboxctl doctor");
	return CLI_EXIT_FAILURE;
}

/* --- values --- */

const char *cli_next(const struct cli_args *args, const char *name, size_t *at)
{
	while (*at < args->n_values) {
		const struct cli_value *v = &args->values[(*at)++];

		if (!strcmp(v->option->name, name))
			return v->text;
	}
	return NULL;
}

const char *cli_text(const struct cli_args *args, const char *name)
{
	const char *last = NULL;
	const char *text;
	size_t at = 0;

	while ((text = cli_next(args, name, &at)))
		last = text;
	return last;
}

bool cli_flag(const struct cli_args *args, const char *name)
{
	return cli_text(args, name) != NULL;
}

/* --- help --- */

static void print_command_name(const struct cli_command *c)
{
	printf("sandboxctl %s%s%s", c->group ? c->group : "", c->group ? " " : "", c->name);
}

#define HELP_COLUMN 27
#define HELP_WIDTH  79

/* Words of @text from HELP_COLUMN on. */
static void print_wrapped(const char *text)
{
	size_t column = HELP_COLUMN;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
			printf("\n%*s", HELP_COLUMN, "");
			column = HELP_COLUMN;
		}
		column += (size_t)printf("%s%.*s", column > HELP_COLUMN ? " " : "", (int)n, text);
		text += n + (text[n] == ' ');
	}
}

static void print_options(const struct cli_option *o)
{
	for (; o->name; o++) {
		char left[64];
		int n = snprintf(left, sizeof(left), "  %c%c%c --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
				 o->letter ? ',' : ' ', o->name, o->arg ? " " : "", o->arg ? o->arg : "");

		if (n > HELP_COLUMN - 2)
			printf("%s\n%*s", left, HELP_COLUMN, "");
		else
			printf("%-*s", HELP_COLUMN, left);
		print_wrapped(o->help);
		putchar('\n');
	}
}

static void print_summary(const struct cli_command *c)
{
	int n = printf("  %s%s%s", c->group ? c->group : "", c->group ? " " : "", c->name);

	printf("%*s%s\n", n < 18 ? 18 - n : 1, "", c->summary);
}

static void help_program(void)
{
	puts("usage: sandboxctl [OPTION]... COMMAND [OPTION]... [ARGUMENT]...\n"
	     "\n"
	     "Runs commands in sandboxes of this host, and manages them.\n");
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		if (cli_group_is_first(c))
			putchar('\n');
		print_summary(c);
		if (c->group && (!c[1].name || !c[1].group))
			putchar('\n');
	}
	puts("\nOptions, before or behind the command:");
	print_options(cli_global_options);
	puts("\nMore: sandboxctl COMMAND --help, man sandboxctl");
}

void cli_help(const struct cli_command *command)
{
	if (!command) {
		help_program();
		return;
	}
	printf("usage: ");
	print_command_name(command);
	printf("%s%s%s\n\n%c%s.\n\n%s", command->options->name ? " [OPTION]..." : "", *command->operands ? " " : "", command->operands,
	       command->summary[0] - ('a' - 'A'), command->summary + 1, command->text);
	if (command->options->name) {
		puts("\nOptions:");
		print_options(command->options);
	}
	puts("\nOptions of every command:");
	print_options(cli_global_options);
}

/* --- parsing --- */

static int usage_error(const struct cli_command *command, const char *fmt, ...) SBX_PRINTF(2, 3);

static int usage_error(const struct cli_command *command, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_say("%s", text);
	if (command)
		cli_say("usage: sandboxctl %s%s%s%s%s%s   (sandboxctl %s%s%s --help)", command->group ? command->group : "",
			command->group ? " " : "", command->name, command->options->name ? " [OPTION]..." : "",
			*command->operands ? " " : "", command->operands, command->group ? command->group : "",
			command->group ? " " : "", command->name);
	else
		cli_say("see: sandboxctl --help");
	return -1;
}

static const struct cli_option *find_option(const struct cli_option *table, const char *name, size_t n, char letter)
{
	for (; table && table->name; table++)
		if (letter ? table->letter == letter : strlen(table->name) == n && !strncmp(table->name, name, n))
			return table;
	return NULL;
}

static const struct cli_option *lookup(const struct cli_command *command, const char *name, size_t n, char letter)
{
	const struct cli_option *o = command ? find_option(command->options, name, n, letter) : NULL;

	return o ? o : find_option(cli_global_options, name, n, letter);
}

static int set_format(struct cli *cli, const char *text)
{
	if (!strcmp(text, "table"))
		cli->format = CLI_TABLE;
	else if (!strcmp(text, "json"))
		cli->format = CLI_JSON;
	else if (!strcmp(text, "yaml"))
		cli->format = CLI_YAML;
	else
		return -1;
	return 0;
}

struct parse {
	struct cli *cli;
	struct cli_args *args;
	const struct cli_command *command; /* NULL: not known yet */
	bool help;
};

static int take_value(struct parse *p, const struct cli_option *o, const char *text)
{
	if (find_option(cli_global_options, o->name, strlen(o->name), 0) == o) {
		if (!strcmp(o->name, "help"))
			p->help = true;
		else if (!strcmp(o->name, "url"))
			p->cli->url = text;
		else if (!strcmp(o->name, "key"))
			p->cli->key = text;
		else if (!strcmp(o->name, "socket")) {
			p->cli->socket = text;
			p->cli->url = NULL; /* what was typed beats the environment */
		} else if (set_format(p->cli, text) < 0)
			return usage_error(p->command, "-o %s: not table, json or yaml", text);
		return 0;
	}
	if (p->args->n_values == CLI_MAX_VALUES)
		return usage_error(p->command, "more than %d options", CLI_MAX_VALUES);
	if (!(o->flags & CLI_REPEAT) && o->arg && cli_flag(p->args, o->name))
		return usage_error(p->command, "--%s is given twice", o->name);
	p->args->values[p->args->n_values++] = (struct cli_value){.option = o, .text = text};
	return 0;
}

/* Reads argv[i], which begins with "--"; Return: arguments used, or -1. */
static int long_option(struct parse *p, int argc, char **argv, int i)
{
	const char *name = argv[i] + 2;
	size_t n = strcspn(name, "=");
	const struct cli_option *o = lookup(p->command, name, n, 0);

	if (!o)
		return usage_error(p->command, "unknown option --%.*s", (int)n, name);
	if (!o->arg)
		return name[n] ? usage_error(p->command, "--%s takes no value", o->name) : take_value(p, o, "") < 0 ? -1 : 1;
	if (name[n])
		return take_value(p, o, name + n + 1) < 0 ? -1 : 1;
	if (i + 1 >= argc)
		return usage_error(p->command, "--%s needs a value: %s", o->name, o->arg);
	return take_value(p, o, argv[i + 1]) < 0 ? -1 : 2;
}

static int short_options(struct parse *p, int argc, char **argv, int i)
{
	for (const char *c = argv[i] + 1; *c; c++) {
		const struct cli_option *o = lookup(p->command, NULL, 0, *c);

		if (!o)
			return usage_error(p->command, "unknown option -%c", *c);
		if (!o->arg) {
			if (take_value(p, o, "") < 0)
				return -1;
			continue;
		}
		if (c[1])
			return take_value(p, o, c + 1) < 0 ? -1 : 1;
		if (i + 1 >= argc)
			return usage_error(p->command, "-%c needs a value: %s", *c, o->arg);
		return take_value(p, o, argv[i + 1]) < 0 ? -1 : 2;
	}
	return 1;
}

/* Finds the command in one or two words; Return: words used, 0 when there is none. */
static int find_command(int argc, char **argv, int i, const struct cli_command **ret)
{
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		if (!c->group && !strcmp(argv[i], c->name)) {
			*ret = c;
			return 1;
		}
		if (c->group && !strcmp(argv[i], c->group) && i + 1 < argc && !strcmp(argv[i + 1], c->name)) {
			*ret = c;
			return 2;
		}
	}
	return 0;
}

static bool has_group(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (c->group && !strcmp(c->group, name))
			return true;
	return false;
}

static void help_group(const char *group)
{
	printf("usage: sandboxctl %s COMMAND [OPTION]... [ARGUMENT]...\n\n", group);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (c->group && !strcmp(c->group, group))
			print_summary(c);
	printf("\nMore: sandboxctl %s COMMAND --help, man sandboxctl\n", group);
}

/* The word at @i begins no command; Return: 1 when help was asked for, else -1 with the error told. */
static int no_command(int argc, char **argv, int i)
{
	if (!has_group(argv[i]))
		return usage_error(NULL, "no command \"%s\"", argv[i]);
	if (i + 1 < argc && (!strcmp(argv[i + 1], "--help") || !strcmp(argv[i + 1], "-h"))) {
		help_group(argv[i]);
		return 1;
	}
	fprintf(stderr, "sandboxctl: %s needs one of:", argv[i]);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (c->group && !strcmp(c->group, argv[i]))
			fprintf(stderr, " %s", c->name);
	fputc('\n', stderr);
	return -1;
}

int cli_parse(int argc, char **argv, struct cli *cli, struct cli_args *ret, const char **operands)
{
	struct parse p = {.cli = cli, .args = ret};
	bool only_operands = false;

	*ret = (struct cli_args){.operands = operands};
	for (int i = 1; i < argc;) {
		int used = 1;

		/* behind the operands that name a sandbox, everything belongs to the command inside */
		if (p.command && p.command->stop_after >= 0 && ret->n_operands > p.command->stop_after)
			only_operands = true;
		if (!only_operands && !strcmp(argv[i], "--"))
			only_operands = true;
		else if (!only_operands && argv[i][0] == '-' && argv[i][1] == '-')
			used = long_option(&p, argc, argv, i);
		else if (!only_operands && argv[i][0] == '-' && argv[i][1])
			used = short_options(&p, argc, argv, i);
		else if (p.command)
			operands[ret->n_operands++] = argv[i];
		else if ((used = find_command(argc, argv, i, &p.command)) == 0)
			return no_command(argc, argv, i);
		if (used < 0)
			return -1;
		i += used;
	}
	operands[ret->n_operands] = NULL;
	ret->command = p.command;
	if (p.help) {
		cli_help(p.command);
		return 1;
	}
	if (!p.command) {
		usage_error(NULL, "no command given");
		return -1;
	}
	if (ret->n_operands < p.command->min_operands)
		return usage_error(p.command, "too few arguments");
	if (p.command->max_operands >= 0 && ret->n_operands > p.command->max_operands)
		return usage_error(p.command, "too many arguments: \"%s\"", operands[p.command->max_operands]);
	return 0;
}
