// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-agent, pid 1 of a sandbox
 *
 * Static, no library, no argument, no environment: executed by the broker's child from a sealed memory file.  First the
 * shell stage with all powers over its namespaces, then, with none, the wait for its sandbox and the service.
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
	if (shell_root(&agent) < 0)
		return 1;
	/* whatever does not depend on the sandbox comes before it is known */
	struct service *service = service_new(&agent);
	return !service || shell_arm() < 0 || service_run(service) < 0;
}
