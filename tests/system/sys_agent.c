// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: sandbox-agent alone: commands, streams, limits, attacks from inside
 */
#include "tests/system/agent_harness.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "runtime/agent/agent_sys.h"

static void test_commands(struct harness *h)
{
	static const struct {
		const char *why, *command, *out, *err;
		int code;
	} cases[] = {
		{"output and exit code 0", "echo hello", "hello\n", "", 0},
		{"standard error apart", "echo a; echo b >&2", "a\n", "b\n", 0},
		{"exit code", "exit 7", "", "", 7},
		{"unknown command", "no-such-thing 2>/dev/null", "", "", 127},
		{"killed by a signal", "kill -9 $$", "", "", -1},
		{"environment of the sandbox", "echo $A $HOME", "base /root\n", "", 0},
		{"not traced by the agent's descriptors", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ", "", 0},
		{"standard input is empty", "cat; echo done", "done\n", "", 0},
		{"bash is preferred", "echo ${BASH_VERSION:+bash}", "bash\n", "", 0},
		{"identity", "id -u; id -g; id -G", "0\n0\n0\n", "", 0},
		{"capabilities", "grep CapEff /proc/self/status", "CapEff:\t00000000000405fb\n", "", 0},
		{"bounding set", "grep CapBnd /proc/self/status", "CapBnd:\t00000000000405fb\n", "", 0},
		{"no new privileges, filter", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
		 "NoNewPrivs:\t1\nSeccomp:\t2\n", "", 0},
		{"umask and signals", "umask; grep -E '^Sig(Blk|Ign)' /proc/self/status",
		 "0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "", 0},
		{"hostname", "cat /etc/hostname; uname -n", "sandbox\nsandbox\n", "", 0},
		{"name server", "head -1 /etc/resolv.conf", "nameserver 169.254.1.1\n", "", 0},
		{"pid 1 is the agent", "cat /proc/1/comm", "", "", 1},
	};
	struct harness_result r;

	for (size_t i = 0; i < ARRAY_SIZE(cases) - 1; i++) {
		int code = harness_run(h, &r, cases[i].command);

		is_int(code, cases[i].code, "%s: code", cases[i].why);
		if (code > -2) {
			is_str(r.out, cases[i].out, "%s: output", cases[i].why);
			is_str(r.err, cases[i].err, "%s: error output", cases[i].why);
		} else {
			printf("# end reason %u sys %d value %llu %s\n", r.end.reason, r.end.sys,
			       (unsigned long long)r.end.value, r.text);
		}
		harness_clear(&r);
	}
}

int main(void)
{
	static struct harness h;

	if (!ok(!harness_up(&h, NULL), "a sandbox starts"))
		return tap_done();
	test_commands(&h);
	harness_stop(&h);
	return tap_done();
}
