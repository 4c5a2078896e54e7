// SPDX-License-Identifier: Apache-2.0
/*
 * The completion script for bash, made from the tables of commands and options.  What a word may be is read from how the tables
 * name it: ID is a sandbox, IMAGE an image, `a|b` one of these.
 */
#include "api/cli/cli.h"

#include <stdio.h>
#include <string.h>

/* bash expands the words that it is given once more, and clients choose names: those with anything but plain characters are left out. */
#define PLAIN_WORDS " | grep -x '[A-Za-z0-9_./:@][A-Za-z0-9_./:@-]*'"

static const char head[] =
	"# bash completion for sandboxctl; made by: sandboxctl completion bash\n"
	"_sandboxctl_sandboxes()\n"
	"{\n"
	"\tsandboxctl ls 2>/dev/null | awk -F '  +' 'NR > 1 {print $1; print $2}'" PLAIN_WORDS "\n"
	"}\n"
	"_sandboxctl_images()\n"
	"{\n"
	"\tsandboxctl image ls -q 2>/dev/null" PLAIN_WORDS "\n"
	"}\n"
	"_sandboxctl_volumes()\n"
	"{\n"
	"\tsandboxctl volume ls 2>/dev/null | awk 'NR > 1 {print $1}'" PLAIN_WORDS "\n"
	"}\n"
	"_sandboxctl()\n"
	"{\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} w cmd= words= n=0\n"
	"\tfor w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	"\t\tcase $cmd$w in\n"
	"\t\t-*) ;;\n";

static const struct {
	const char *operand, *group, *function;
} kinds[] = {
	{"ID", NULL, "sandboxes"},
	{"NAME", "image", "images"},
	{"NAME", "volume", "volumes"},
};

static const char *group_of(const struct cli_command *c)
{
	return c->group ? c->group : "";
}

static void print_command_words(void)
{
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		if (cli_group_is_first(c))
			printf("\t\t%s) cmd='%s ' ;;\n", c->group, c->group);
		printf("\t\t'%s%s%s') cmd=%s%s ;;\n", group_of(c), c->group ? " " : "", c->name, group_of(c), c->name);
	}
	puts("\t\t*) [[ $w == -* ]] || n=$((n + 1)) ;;\n"
	     "\t\tesac\n"
	     "\tdone");
}

static void print_choices(const struct cli_command *c)
{
	for (const struct cli_option *o = c->options; o->name; o++) {
		if (!o->arg || !strchr(o->arg, '|'))
			continue;
		printf("\t'%s%s --%s') COMPREPLY=($(compgen -W '", group_of(c), c->name, o->name);
		for (const char *at = o->arg; *at; at++)
			putchar(*at == '|' ? ' ' : *at);
		puts("' -- \"$cur\")); return ;;");
	}
}

static void print_values(void)
{
	puts("\tcase $prev in\n"
	     "\t-o|--output) COMPREPLY=($(compgen -W 'table json yaml' -- \"$cur\")); return ;;\n"
	     "\t--image) COMPREPLY=($(compgen -W \"$(_sandboxctl_images)\" -- \"$cur\")); return ;;\n"
	     "\tesac\n"
	     "\tcase \"$cmd $prev\" in");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		print_choices(c);
	puts("\tesac");
}

static void print_options(const struct cli_option *o)
{
	for (; o->name; o++) {
		printf("--%s ", o->name);
		if (o->letter)
			printf("-%c ", o->letter);
	}
}

static void print_members(const char *group)
{
	printf("\t'%s ') words='", group);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (c->group && !strcmp(c->group, group))
			printf("%s ", c->name);
	puts("' ;;");
}

/* What may stand where no value of an option is asked for. */
static void print_words(void)
{
	puts("\tcase $cmd in");
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		printf("\t%s%s) words='", group_of(c), c->name);
		print_options(c->options);
		print_options(cli_global_options);
		puts("' ;;");
		if (cli_group_is_first(c))
			print_members(c->group);
	}
	printf("\t'') words='");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!c->group || cli_group_is_first(c))
			printf("%s ", c->group ? c->group : c->name);
	print_options(cli_global_options);
	puts("' ;;\n"
	     "\tesac");
}

/* An operand of which there may be many is one anywhere, another one only when it is the first. */
static void print_operands(const struct cli_command *c)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t len = strlen(kinds[i].operand);

		if (strncmp(c->operands, kinds[i].operand, len) != 0 || (c->operands[len] && !strchr(" .", c->operands[len])) ||
		    (kinds[i].group && (!c->group || strcmp(c->group, kinds[i].group) != 0)))
			continue;
		if (strcmp(c->operands + len, "...") != 0)
			printf("\t\t%s%s) [[ $n != 0 ]] || words=$(_sandboxctl_%s) ;;\n", group_of(c), c->name, kinds[i].function);
		else
			printf("\t\t%s%s) words=$(_sandboxctl_%s) ;;\n", group_of(c), c->name, kinds[i].function);
		return;
	}
}

void cli_completion_bash(void)
{
	fputs(head, stdout);
	print_command_words();
	print_values();
	print_words();
	puts("\tif [[ $cur != -* ]]; then\n"
	     "\t\tcase $cmd in\n"
	     "\t\tcp|imageimport) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		print_operands(c);
	puts("\t\tesac\n"
	     "\tfi\n"
	     "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	     "}\n"
	     "complete -F _sandboxctl sandboxctl");
}
