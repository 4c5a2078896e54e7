/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: egress policies on the command line: what run and create share with the egress commands
 */
#ifndef API_CLI_EGRESS_H
#define API_CLI_EGRESS_H

#include "api/cli/cli.h"
#include "base/jv.h"

/** egress_write_policy() - Write the member networkPolicy that --egress, --allow and --deny of @args say, if they do; Return: 0 or -1 with @err */
int egress_write_policy(const struct cli_args *args, struct jw *w, struct sbx_err *err) SBX_WUR;
/** egress_note() - After run: say which names were denied to the sandbox @id, when @args gave it a policy */
void egress_note(struct cli *cli, const struct cli_args *args, const char *id);

#endif
