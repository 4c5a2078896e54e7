/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: sandboxctl: commands, their options and what they share
 *
 * Commands stand in one table (commands.c), each with a table of its options; the parser, --help, the manual's check and
 * the shell completion all read those tables.  A command gets a struct cli and parsed arguments and returns the exit code.
 * The program talks HTTP to one daemon and treats every answer, and every name inside a sandbox, as hostile.
 */
#ifndef API_CLI_CLI_H
#define API_CLI_CLI_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define CLI_EXIT_FAILURE 1
#define CLI_EXIT_USAGE	 2
#define CLI_EXIT_DAEMON	 125 /* run, exec: what failed is ours, not the command's */
#define CLI_MAX_OPTIONS	 24
#define CLI_MAX_VALUES	 256

enum cli_format { CLI_TABLE = 0, CLI_JSON, CLI_YAML };

enum cli_option_flags { CLI_REPEAT = 1u << 0 };

/* A table of options ends with an entry without a name. */
struct cli_option {
	const char *name;
	char letter;	 /* 0: none */
	const char *arg; /* NULL: a switch */
	const char *help;
	unsigned int flags;
};

struct cli;
struct cli_args;

struct cli_command {
	const char *group; /* "image" of "image ls", or NULL */
	const char *name;
	const char *operands; /* as the usage line shows them */
	const char *summary;  /* one line */
	const char *text;     /* further help, 80 columns, with examples */
	const struct cli_option *options;
	int stop_after; /* operands after which everything is the command to run; -1: options anywhere */
	int min_operands, max_operands; /* max -1: any number */
	int (*run)(struct cli *cli, const struct cli_args *args);
};

struct cli_value {
	const struct cli_option *option;
	const char *text; /* "" for a switch */
};

struct cli_args {
	const struct cli_command *command;
	struct cli_value values[CLI_MAX_VALUES];
	size_t n_values;
	const char *const *operands; /* NULL-terminated */
	int n_operands;
};

struct client;

struct cli {
	enum cli_format format;
	const char *url;    /* NULL: the Unix socket */
	const char *key;    /* NULL: none */
	const char *socket; /* path of api.sock */
	struct client *client; /* owned; made at first use */
};

extern const struct cli_command cli_commands[];
extern const struct cli_option cli_global_options[];

/** cli_flag() - Whether the switch or option @name was given in @args */
bool cli_flag(const struct cli_args *args, const char *name);
/** cli_text() - Last value of option @name in @args; NULL when it was not given */
const char *cli_text(const struct cli_args *args, const char *name);
/** cli_next() - Walk the values of option @name in @args: *@at starts as 0; Return: NULL at the end */
const char *cli_next(const struct cli_args *args, const char *name, size_t *at);

/**
 * cli_parse() - Read a command line
 * @argc:	As main() got it
 * @argv:	Not changed; operands point into it
 * @cli:	Gets the global options
 * @ret:	Written on success
 * @operands:	Room for @argc + 1 pointers
 *
 * Prints help, version or what is wrong by itself.
 *
 * Return: 0 to go on, 1 to end with success (help was asked for), -1 to end with CLI_EXIT_USAGE
 */
int cli_parse(int argc, char **argv, struct cli *cli, struct cli_args *ret, const char **operands) SBX_WUR;
/** cli_help() - Print the help of @command, or of the program when it is NULL, to stdout */
void cli_help(const struct cli_command *command);
/** cli_group_is_first() - Whether @c, of the table, is the first command of a group */
bool cli_group_is_first(const struct cli_command *c);
/** cli_completion_bash() - Print a completion script derived from the tables */
void cli_completion_bash(void);

/** cli_say() - Print "sandboxctl: ..." to stderr; control characters in the text are replaced */
void cli_say(const char *fmt, ...) SBX_PRINTF(1, 2);
/** cli_fail() - Print an error with what to type next, as far as its code tells; Return: CLI_EXIT_FAILURE */
int cli_fail(const struct cli *cli, const struct sbx_err *err);

/** cmd_run() - sandboxctl run; Return: exit code */
int cmd_run(struct cli *cli, const struct cli_args *args);
/** cmd_exec() - sandboxctl exec; Return: exit code */
int cmd_exec(struct cli *cli, const struct cli_args *args);
/** cmd_create() - sandboxctl create; Return: exit code */
int cmd_create(struct cli *cli, const struct cli_args *args);
/** cmd_ls() - sandboxctl ls; Return: exit code */
int cmd_ls(struct cli *cli, const struct cli_args *args);
/** cmd_inspect() - sandboxctl inspect; Return: exit code */
int cmd_inspect(struct cli *cli, const struct cli_args *args);
/** cmd_logs() - sandboxctl logs; Return: exit code */
int cmd_logs(struct cli *cli, const struct cli_args *args);
/** cmd_pause() - sandboxctl pause; Return: exit code */
int cmd_pause(struct cli *cli, const struct cli_args *args);
/** cmd_resume() - sandboxctl resume; Return: exit code */
int cmd_resume(struct cli *cli, const struct cli_args *args);
/** cmd_renew() - sandboxctl renew; Return: exit code */
int cmd_renew(struct cli *cli, const struct cli_args *args);
/** cmd_endpoint() - sandboxctl endpoint; Return: exit code */
int cmd_endpoint(struct cli *cli, const struct cli_args *args);
/** cmd_rm() - sandboxctl rm; Return: exit code */
int cmd_rm(struct cli *cli, const struct cli_args *args);
/** cmd_cp() - sandboxctl cp; Return: exit code */
int cmd_cp(struct cli *cli, const struct cli_args *args);
/** cmd_pull() - sandboxctl pull; Return: exit code */
int cmd_pull(struct cli *cli, const struct cli_args *args);
/** cmd_image_inspect() - sandboxctl image inspect; Return: exit code */
int cmd_image_inspect(struct cli *cli, const struct cli_args *args);
/** cmd_image_tag() - sandboxctl image tag; Return: exit code */
int cmd_image_tag(struct cli *cli, const struct cli_args *args);
/** cmd_image_prune() - sandboxctl image prune; Return: exit code */
int cmd_image_prune(struct cli *cli, const struct cli_args *args);
/** cmd_image_gc() - sandboxctl image gc; Return: exit code */
int cmd_image_gc(struct cli *cli, const struct cli_args *args);
/** cmd_commit() - sandboxctl commit; Return: exit code */
int cmd_commit(struct cli *cli, const struct cli_args *args);
/** cmd_image_fsck() - sandboxctl image fsck; Return: exit code, 1 while errors are left */
int cmd_image_fsck(struct cli *cli, const struct cli_args *args);
/** cmd_image_df() - sandboxctl image df; Return: exit code */
int cmd_image_df(struct cli *cli, const struct cli_args *args);
/** cmd_image_ls() - sandboxctl image ls; Return: exit code */
int cmd_image_ls(struct cli *cli, const struct cli_args *args);
/** cmd_image_export() - sandboxctl image export; Return: exit code */
int cmd_image_export(struct cli *cli, const struct cli_args *args);
/** cmd_image_import() - sandboxctl image import; Return: exit code */
int cmd_image_import(struct cli *cli, const struct cli_args *args);
/** cmd_image_rm() - sandboxctl image rm; Return: exit code */
int cmd_image_rm(struct cli *cli, const struct cli_args *args);
/** cmd_egress_get() - sandboxctl egress get; Return: exit code */
int cmd_egress_get(struct cli *cli, const struct cli_args *args);
/** cmd_egress_set() - sandboxctl egress set; Return: exit code */
int cmd_egress_set(struct cli *cli, const struct cli_args *args);
/** cmd_egress_allow() - sandboxctl egress allow; Return: exit code */
int cmd_egress_allow(struct cli *cli, const struct cli_args *args);
/** cmd_egress_deny() - sandboxctl egress deny; Return: exit code */
int cmd_egress_deny(struct cli *cli, const struct cli_args *args);
/** cmd_egress_rm() - sandboxctl egress rm; Return: exit code */
int cmd_egress_rm(struct cli *cli, const struct cli_args *args);
/** cmd_egress_watch() - sandboxctl egress watch; Return: exit code */
int cmd_egress_watch(struct cli *cli, const struct cli_args *args);
/** cmd_egress_explain() - sandboxctl egress explain; Return: exit code */
int cmd_egress_explain(struct cli *cli, const struct cli_args *args);
/** cmd_volume_ls() - sandboxctl volume ls; Return: exit code */
int cmd_volume_ls(struct cli *cli, const struct cli_args *args);
/** cmd_volume_create() - sandboxctl volume create; Return: exit code */
int cmd_volume_create(struct cli *cli, const struct cli_args *args);
/** cmd_volume_rm() - sandboxctl volume rm; Return: exit code */
int cmd_volume_rm(struct cli *cli, const struct cli_args *args);
/** cmd_doctor() - sandboxctl doctor; Return: exit code */
int cmd_doctor(struct cli *cli, const struct cli_args *args);
/** cmd_config() - sandboxctl config; Return: exit code */
int cmd_config(struct cli *cli, const struct cli_args *args);
/** cmd_version() - sandboxctl version; Return: exit code */
int cmd_version(struct cli *cli, const struct cli_args *args);
/** cmd_completion() - sandboxctl completion; Return: exit code */
int cmd_completion(struct cli *cli, const struct cli_args *args);

#endif
