// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/bench_peer.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEER_ARGS_MAX 16

struct peer_row {
	const char *name;
	const char *program;
	bool needs_bundle;	 /* an OCI bundle in the working directory */
	bool hide_unified;	 /* refuses a hybrid cgroup tree: hide the v2 part from it */
	const char *needs_path; /* a socket that must be there; NULL: nothing */
	const char *argv[PEER_ARGS_MAX]; /* "@id" becomes a fresh name */
};

static const struct peer_row peers[BENCH_PEER_COUNT] = {
	[BENCH_PEER_BWRAP] = {"bwrap --unshare-all true", "bwrap", false, false, NULL,
			      {"bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"}},
	[BENCH_PEER_CRUN] = {"crun run true", "crun", true, true, NULL, {"crun", "run", "@id"}},
	[BENCH_PEER_RUNC] = {"runc run true", "runc", true, true, NULL, {"runc", "run", "@id"}},
	[BENCH_PEER_PODMAN] = {"podman run --rootfs true", "podman", true, false, NULL,
			       {"podman", "run", "--rm", "--network=none", "--rootfs", "rootfs", "/bin/true"}},
	[BENCH_PEER_DOCKER] = {"docker run true", "docker", false, false, "/var/run/docker.sock",
			       {"docker", "run", "--rm", "busybox", "true"}},
};

static const char *why_not[BENCH_PEER_COUNT];
static char bundle_dir[] = "/tmp/bench-peer-XXXXXX";
static bool bundle_made, bundle_tried;

static bool in_path(const char *program)
{
	static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", dirs[i], program);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

static pid_t spawn(const struct peer_row *row, const char *id)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null_fd, STDIN_FILENO);
	dup2(null_fd, STDOUT_FILENO);
	dup2(null_fd, STDERR_FILENO);
	if (row->needs_bundle && chdir(bundle_dir) < 0)
		_exit(127);
	if (row->hide_unified && access("/sys/fs/cgroup/unified", F_OK) == 0 &&
	    (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	     umount2("/sys/fs/cgroup/unified", MNT_DETACH) < 0))
		_exit(127);
	char *argv[PEER_ARGS_MAX + 1] = {NULL};
	for (size_t i = 0; i < PEER_ARGS_MAX && row->argv[i]; i++)
		argv[i] = strdup(strcmp(row->argv[i], "@id") ? row->argv[i] : id);
	execvp(argv[0], argv);
	_exit(127);
}

static bool run_shell(const char *script)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (!pid) {
		execl("/bin/sh", "sh", "-ec", script, "sh", bundle_dir, (char *)NULL);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A bundle with busybox alone; the runtime's own default configuration, only the command and the terminal changed. */
static bool bundle_ready(void)
{
	static const char script[] =
		"mkdir -p \"$1/rootfs/bin\" \"$1/rootfs/proc\" \"$1/rootfs/dev\" \"$1/rootfs/sys\"; cp /bin/busybox \"$1/rootfs/bin/\";"
		"ln -s busybox \"$1/rootfs/bin/sh\"; ln -s busybox \"$1/rootfs/bin/true\"; cd \"$1\";"
		"if command -v runc >/dev/null; then runc spec; else crun spec; fi;"
		"sed -i -e 's/\"terminal\": true/\"terminal\": false/' -e 's#\"sh\"#\"/bin/true\"#' config.json";

	if (!bundle_tried) {
		bundle_tried = true;
		bundle_made = mkdtemp(bundle_dir) && run_shell(script);
	}
	return bundle_made;
}

const char *bench_peer_name(enum bench_peer peer)
{
	return peers[peer].name;
}

const char *bench_peer_why_not(enum bench_peer peer)
{
	return why_not[peer] ? why_not[peer] : "was not tried";
}

double bench_peer_run(enum bench_peer peer)
{
	const struct peer_row *row = &peers[peer];
	static unsigned counter;
	char id[64];
	int status = 0;

	if (why_not[peer])
		return -1;
	if (!in_path(row->program))
		why_not[peer] = "not installed";
	else if (row->needs_path && access(row->needs_path, F_OK) < 0)
		why_not[peer] = "its daemon does not run";
	else if (row->needs_bundle && !bundle_ready())
		why_not[peer] = "no bundle could be made (busybox-static and runc or crun are needed)";
	if (why_not[peer])
		return -1;
	snprintf(id, sizeof(id), "bench-%ld-%u", (long)getpid(), counter++);
	uint64_t start = mono_usec();
	pid_t pid = spawn(row, id);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status)) {
		why_not[peer] = "it failed on this host";
		return -1;
	}
	return (double)(mono_usec() - start) / 1000.0;
}
