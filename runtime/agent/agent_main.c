// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-agent, pid 1 of a sandbox
 *
 * Static, no library, no argument, no environment: executed by the broker's child from a sealed memory file.  First the
 * shell stage with all powers over its namespaces, then the service with none.
 */
#include "runtime/agent/agent_service.h"
#include "runtime/agent/agent_shell.h"

#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
	/* the little that both stages share; everything else is allocated when it is needed */
	static struct agent agent;

	if (getpid() != 1) {
		static const char text[] = "sandbox-agent: only the broker starts this program, as pid 1 of a sandbox\n";

		return write(2, text, sizeof(text) - 1) < 0 ? 2 : 1;
	}
	/* executed by descriptor, so the kernel named it after the memfd: ps on the host is to say what it is */
	prctl(PR_SET_NAME, "sandbox-agent", 0, 0, 0);
	return shell_run(&agent) < 0 || service_run(&agent) < 0;
}
