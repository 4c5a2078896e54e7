// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandboxctl: reads the environment and the command line, runs one command
 */
#include "api/cli/cli.h"
#include "api/cli/client.h"

#include "base/cleanup.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *environment(const char *name)
{
	const char *text = getenv(name);

	return text && *text ? text : NULL;
}

int main(int argc, char **argv)
{
	struct cli_args args;
	struct cli cli = {.socket = "/run/sandboxd/0/api.sock"};
	auto_free const char **operands = calloc((size_t)argc + 1, sizeof(*operands));

	if (!operands)
		return CLI_EXIT_FAILURE;
	cli.url = environment("OPEN_SANDBOX_DOMAIN");
	cli.key = environment("OPEN_SANDBOX_API_KEY");
	if (environment("SANDBOXD_SOCKET"))
		cli.socket = environment("SANDBOXD_SOCKET");
	/* a reader that has seen enough (| head) is a write error, not a death in the middle of a delete */
	signal(SIGPIPE, SIG_IGN);
	int rc = cli_parse(argc, argv, &cli, &args, operands);
	if (rc != 0)
		return rc > 0 ? 0 : CLI_EXIT_USAGE;
	int code = args.command->run(&cli, &args);
	client_free(&cli);
	if (fflush(stdout) != 0 && code == 0)
		code = CLI_EXIT_FAILURE;
	return code;
}
