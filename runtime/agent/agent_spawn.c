// SPDX-License-Identifier: Apache-2.0
#include "runtime/agent/agent_spawn.h"

#include "runtime/agent/agent_env.h"
#include "runtime/agent/agent_proc.h"
#include "runtime/agent/agent_sys.h"
#include "runtime/agent/agent_words.h"

#include "base/cleanup.h"
#include "base/limits.h"

#include <grp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define REPORT_FD    3

/*
 * What root inside keeps: the usual container set less NET_RAW, MKNOD, AUDIT_WRITE, NET_ADMIN and SETFCAP.  All of it is over
 * the inner user namespace only, so over files and processes of this sandbox.
 */
static const uint8_t kept_caps[] = {
	CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,	  CAP_KILL,
	CAP_SETGID, CAP_SETUID,	      CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT,
};

int spawn_cgroup(const struct agent *a)
{
	return a->cgroup_version == 2 && a->n_cgroup_fds ? a->cgroup_fd[0] : -1;
}

int spawn_enter(const struct agent *a, enum agent_stage *ret_stage)
{
	*ret_stage = AGENT_STAGE_CGROUP;
	/* `tasks`, not `cgroup.procs`: moving a single task spares the kernel's wait of some 7 ms */
	if (a->cgroup_version == 1)
		for (uint32_t i = 0; i < a->n_cgroup_fds; i++)
			if (write(a->cgroup_fd[i], "0", 1) != 1)
				return -errno;
	*ret_stage = AGENT_STAGE_IDENTITY;
	if (setns(a->userns_fd, CLONE_NEWUSER) < 0)
		return -errno;
	/*
	 * What is the group now is what the tenant sees as "/".  Not done once in the agent: version 2 lets nobody place
	 * a child outside the root of its own cgroup namespace, and the tenants' leaf is beside the agent's.
	 */
	*ret_stage = AGENT_STAGE_CGROUP;
	if (unshare(CLONE_NEWCGROUP) < 0)
		return -errno;
	*ret_stage = AGENT_STAGE_IDENTITY;
	return 0;
}

static uint64_t cap_mask(uint32_t uid)
{
	uint64_t mask = 0;

	for (size_t i = 0; uid == 0 && i < ARRAY_SIZE(kept_caps); i++)
		mask |= 1ull << kept_caps[i];
	return mask;
}

static uint64_t cut_before; /* what is not in the bounding set of this process any more */
static uint64_t kept_before = ~0ull; /* its capabilities, when they are fewer than all */
static const struct users_identity *groups_before; /* whose groups it has already; NULL: nobody's */

static int cut_bounding_set(uint64_t keep)
{
	for (unsigned cap = 0; cap < 64; cap++) {
		if ((keep | cut_before) & (1ull << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return errno == EINVAL && cap > CAP_AUDIT_READ ? 0 : -errno; /* past the kernel's last one */
	}
	return 0;
}

static int set_caps(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)keep, .permitted = (uint32_t)keep},
		{.effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32)},
	};

	return sysx_ret(syscall(SYS_capset, &head, data));
}

static int set_groups(const struct users_identity *who)
{
	gid_t groups[USERS_GROUPS];

	for (uint32_t i = 0; i < who->n_groups; i++)
		groups[i] = who->groups[i];
	/* the bare calls: a libc keeps threads in step, of which there are none, and looks for them in memory that a child shares */
	if (syscall(SYS_setgroups, (size_t)who->n_groups, groups) < 0 || syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0)
		return -errno;
	return 0;
}

static bool has_groups(const struct users_identity *who)
{
	const struct users_identity *had = groups_before;

	return had && had->gid == who->gid && had->n_groups == who->n_groups &&
	       !memcmp(had->groups, who->groups, who->n_groups * sizeof(who->groups[0]));
}

int spawn_identity(const struct users_identity *who)
{
	uint64_t keep = cap_mask(who->uid);
	int r = has_groups(who) ? 0 : set_groups(who);

	if (r)
		return r;
	r = cut_bounding_set(keep); /* needs SETPCAP, so before the ids and sets go */
	if (r)
		return r;
	if (syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0)
		return -errno;
	/* from one id to another that are both not 0, none is lost; to 0, the effective ones become the permitted */
	r = keep == kept_before ? 0 : set_caps(keep);
	/* changing ids has set the flag to the host's default for such a process, which may be 2: never dumpable here */
	if (!r && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = -errno;
	return r;
}

/* ---- the child of spawn_process() ---- */

static struct spawn_slot *told_by_slot; /* a launcher's child: where it says what went wrong */

__attribute__((noreturn)) static void fail(enum agent_stage stage, int sys)
{
	struct spawn_report rep = {.stage = stage, .sys = sys < 0 ? -sys : sys};

	if (told_by_slot) {
		told_by_slot->sys = rep.sys;
		told_by_slot->stage = rep.stage;
		_exit(127);
	}
	ignore_result(write(REPORT_FD, &rep, sizeof(rep))); /* the agent then reads EOF from a process that died */
	_exit(127);
}

static bool is_driver(const struct spawn_req *req)
{
	return req->view->spec.flags & AGENT_SPEC_DRIVER;
}

static void place_fds(const struct spawn_req *req)
{
	bool driver = is_driver(req);
	int fd[6] = {req->stdin_fd, req->stdout_fd, req->stderr_fd, req->report_fd, driver ? req->told_fd : -1,
		     driver ? req->tells_fd : -1};

	/* above the targets first, so that no dup2 overwrites one that is still needed */
	for (int i = 0; i < 6; i++)
		if (fd[i] >= 0 && (fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, driver ? AGENT_DRIVER_OUT_FD + 1 : 16)) < 0)
			_exit(127);
	/* the descriptors of the agent that the child still needs were opened first and have low numbers */
	if (driver && (dup2(fd[4], AGENT_DRIVER_IN_FD) < 0 || dup2(fd[5], AGENT_DRIVER_OUT_FD) < 0))
		_exit(127);
	for (int i = 0; i < 3; i++) {
		/* 0, 1 and 2 of the agent are /dev/null */
		if (fd[i] >= 0 && dup2(fd[i], i) < 0)
			_exit(127);
	}
	if (dup3(fd[3], REPORT_FD, O_CLOEXEC) < 0)
		_exit(127);
}

static int send_fd(int sock, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 'T';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control.room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sysx_ret(sendmsg(sock, &msg, MSG_NOSIGNAL));
}

/*
 * The terminal is opened with the tenant's identity, so that it belongs to the tenant, and through the devpts that we
 * mounted, so that no path of the image is involved.
 */
static int open_terminal(int devpts_fd, const struct agent_spec *spec)
{
	struct winsize size = {.ws_row = spec->rows ? spec->rows : 24, .ws_col = spec->cols ? spec->cols : 80};
	int unlock = 0;
	auto_fd master = openat(devpts_fd, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	auto_fd slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || ioctl(master, TIOCSWINSZ, &size) < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return -errno;
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return -errno;
	return send_fd(REPORT_FD, master);
}

/* Made here and not by the agent: its pages then count as the tenants' memory. */
static int place_text(const struct spec_view *v)
{
	const uint8_t *from = v->text;
	int fd = memfd_create("driver", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	for (uint32_t left = v->text_bytes; left;) {
		ssize_t n = write(fd, from, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		from += n;
		left -= (uint32_t)n;
	}
	if (lseek(fd, 0, SEEK_SET) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0 ||
	    dup2(fd, AGENT_DRIVER_TEXT_FD) < 0)
		return -errno;
	close(fd);
	return 0;
}

static int load_filter(const struct agent *a)
{
	struct sock_fprog prog = {.len = (unsigned short)a->payload_filter_len, .filter = a->payload_filter};

	if (!a->payload_filter)
		return 0;
	return sysx_ret(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0));
}

static int resolve_user(const struct spawn_req *req, struct users_identity *ret)
{
	const struct agent_spec *s = &req->view->spec;

	if (s->flags & AGENT_SPEC_UID)
		return users_resolve_uid(s->uid, s->flags & AGENT_SPEC_GID ? &s->gid : NULL, ret);
	if (req->entrypoint)
		return users_resolve(req->view->user, ret);
	*ret = req->agent->default_user;
	return 0;
}

static int add_env_file(struct env_set *set)
{
	struct env_set base = {0};
	const char *path = env_get(set, "EXECD_ENVS", 10);
	struct stat st;
	char *text;
	size_t n;

	/* an empty one is what most sandboxes have: a look is less than an open */
	if (!path || *path != '/' || lstat(path, &st) < 0 || !st.st_size)
		return 0;
	int r = users_load(path, &text, &n);
	if (r || !text)
		return r;
	for (size_t i = 0; i < set->n && !r; i++)
		r = env_put(&base, set->at[i]);
	return r ? r : env_file(set, &base, text, n < ENV_FILE_BYTES ? n : ENV_FILE_BYTES);
}

/* The order of decisions: image Env < defaults < request env (all three in START) < the env file. */
static int build_base_env(const struct spawn_req *req, const char *home, struct env_set *set)
{
	static char home_entry[USERS_HOME_BYTES + 8];
	const struct agent *a = req->agent;
	const struct spec_view *v = req->view;
	int r = 0;

	if (!req->entrypoint)
		r = env_put_row(set, a->base_env, a->n_base_env);
	else
		r = env_put_row(set, v->env, v->spec.n_env);
	if (!r && !env_get(set, "HOME", 4)) {
		snprintf(home_entry, sizeof(home_entry), "HOME=%s", *home ? home : "/");
		r = env_put(set, home_entry);
	}
	if (!r && !env_get(set, "PATH", 4))
		r = env_put(set, "PATH=" DEFAULT_PATH);
	if (!r && !req->entrypoint)
		r = add_env_file(set);
	return r;
}

/* EXEC's own variables win over all of these, or are all there are. */
static int build_env(const struct spawn_req *req, const char *home, struct env_set *set)
{
	const struct spec_view *v = req->view;
	int r = v->spec.flags & AGENT_SPEC_BARE_ENV ? 0 : build_base_env(req, home, set);

	if (!r && !req->entrypoint)
		r = env_put_row(set, v->env, v->spec.n_env);
	if (!r && (v->spec.flags & AGENT_SPEC_PTY) && !env_get(set, "TERM", 4))
		r = env_put(set, "TERM=xterm-256color");
	return r;
}

static int enter_cwd(const struct spawn_req *req, const char *home, const struct env_set *set)
{
	struct env_set base_set = {0};
	const char *base = req->entrypoint ? req->view->cwd : req->agent->base_cwd;
	char *path;

	/* a relative cwd is beneath the sandbox's own; with neither, / */
	if (chdir(base && *base ? base : "/") < 0) {
		if (!*req->view->cwd || req->view->cwd[0] != '/')
			return -errno;
	}
	if (req->entrypoint || !*req->view->cwd)
		return 0;
	int r = 0;
	if (req->view->spec.flags & AGENT_SPEC_BARE_ENV) { /* then $NAME and ~ are those of the sandbox */
		r = build_base_env(req, home, &base_set);
		set = &base_set;
	}
	if (!r)
		r = env_path(set, req->view->cwd, &path);
	return r ? r : sysx_ret(chdir(path));
}

/* Tries @name in each directory of @path as execvp does: a later hit wins over an earlier EACCES, nothing over ENOENT. */
static int try_path(const char *name, const char *path, char *const argv[], char *const envp[])
{
	char file[4096];
	int result = -ENOENT;
	size_t len = strlen(name);

	if (strchr(name, '/')) {
		execve(name, argv, envp);
		return -errno;
	}
	for (const char *p = path; p;) {
		const char *colon = strchr(p, ':');
		size_t dir = colon ? (size_t)(colon - p) : strlen(p);

		if (dir + len + 2 <= sizeof(file)) {
			memcpy(file, p, dir);
			file[dir] = '/';
			memcpy(file + dir + !!dir, name, len + 1);
			execve(file, argv, envp);
			if (errno != ENOENT && errno != ENOTDIR)
				result = -errno;
			if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
				return result;
		}
		p = colon ? colon + 1 : NULL;
	}
	return result;
}

static volatile bool at_exec; /* nothing is being allocated: written by a child that shares its memory with who reads it */

static int exec_on_path(const char *name, const char *path, char *const argv[], char *const envp[])
{
	at_exec = true;
	int r = try_path(name, path, argv, envp);
	at_exec = false;
	return r;
}

static int exec_argv(const struct spec_view *v, const char *name, const char *path, char *const *envp)
{
	const char **argv = calloc(v->spec.n_args + 1, sizeof(*argv));
	const char *s = v->args;

	if (!argv)
		return -ENOMEM;
	for (uint32_t i = 0; i < v->spec.n_args; i++, s = spec_next(s))
		argv[i] = s;
	argv[0] = name;
	return exec_on_path(name, path, (char *const *)(uintptr_t)argv, envp);
}

/* The first of the named programs that is there; a later hit wins over an earlier EACCES. */
static int exec_driver(const struct spawn_req *req, const struct env_set *set)
{
	const char *path = env_get(set, "PATH", 4);
	char *names = strdup(req->view->args), *rest = names;
	struct env_set base = {0};
	int result = -ENOENT;

	if (!names || (req->view->spec.flags & AGENT_SPEC_BARE_ENV &&
		       env_put_row(&base, req->agent->base_env, req->agent->n_base_env)))
		return -ENOMEM;
	if (req->view->spec.flags & AGENT_SPEC_BARE_ENV)
		path = env_get(&base, "PATH", 4);
	for (char *name; (name = strsep(&rest, "\n"));) {
		const char *program = *name == '$' ? env_get(set, name + 1, strlen(name + 1)) : name;

		if (!program || !*program)
			continue;
		int r = exec_argv(req->view, program, path ? path : DEFAULT_PATH, (char *const *)(uintptr_t)set->at);
		if (r != -ENOENT)
			result = r;
	}
	return result;
}

/* An image without any shell: plain words are run as they are, what needs a shell stays ENOENT. */
static int exec_words(const char *text, const char *path, char *const *envp)
{
	static const char no_input[] = " </dev/null";
	/* "exec WORDS" and "WORDS </dev/null" mean the same without a shell, and are what command lines send */
	char *copy = strdup(text + (strncmp(text, "exec ", 5) ? 0 : 5));
	const char **argv = calloc(LIMIT_SPAWN_STRINGS, sizeof(*argv));

	if (!copy || !argv)
		return -ENOMEM;
	size_t n = strlen(copy), suffix = sizeof(no_input) - 1;
	if (n > suffix && !strcmp(copy + n - suffix, no_input)) {
		int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		if (null_fd < 0 || dup2(null_fd, 0) < 0)
			return -errno;
		copy[n - suffix] = '\0';
	}
	if (words_split(copy, argv, LIMIT_SPAWN_STRINGS) < 0)
		return -ENOENT;
	return exec_on_path(argv[0], path, (char *const *)(uintptr_t)argv, envp);
}

static int exec_program(const struct spawn_req *req, const struct env_set *set)
{
	static const char *const shells[] = {"bash", "sh"};
	const struct spec_view *v = req->view;
	char *const *envp = (char *const *)(uintptr_t)set->at;
	const char *path = env_get(set, "PATH", 4);

	if (v->spec.flags & AGENT_SPEC_SHELL) {
		/* the shell itself is found on the sandbox's PATH: a PATH of this command alone does not hide it */
		struct env_set base = {0};
		int r = env_put_row(&base, req->entrypoint ? v->env : req->agent->base_env,
				    req->entrypoint ? v->spec.n_env : req->agent->n_base_env);

		if (!r)
			path = env_get(&base, "PATH", 4);
		for (size_t i = 0; !r && i < ARRAY_SIZE(shells); i++) {
			const char *argv[] = {shells[i], "-c", v->args, NULL};

			r = exec_on_path(shells[i], path ? path : DEFAULT_PATH, (char *const *)(uintptr_t)argv, envp);
			if (r == -ENOENT && i + 1 < ARRAY_SIZE(shells))
				r = 0;
		}
		return r == -ENOENT ? exec_words(v->args, path ? path : DEFAULT_PATH, envp) : r;
	}
	if (is_driver(req))
		return exec_driver(req, set);
	return exec_argv(v, v->args, path ? path : DEFAULT_PATH, envp);
}

/* What every child does first: nothing of the agent but descriptors and memory is left behind it. */
static void leave_agent(const struct agent *a)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL); /* the only disposition that the agent changes */
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	if (setrlimit(RLIMIT_NOFILE, &a->nofile) < 0 || setrlimit(RLIMIT_DATA, &a->data) < 0)
		_exit(127);
}

static void lead(int session)
{
	if (session)
		setsid();
	else
		setpgid(0, 0);
}

/* The rest, once it is known what to run; @filtered: the payload's filter is loaded already. */
__attribute__((noreturn)) static void run(const struct spawn_req *req, int devpts_fd, int filtered)
{
	struct rlimit tag = {req->tag, req->tag};
	struct users_identity who;
	struct env_set env = {0};

	/* a hard limit below the tag leaves descent by parent as the only mark of the command; see agent_proc.h */
	ignore_result(setrlimit(RLIMIT_RTTIME, &tag));
	/* the image's passwd is read with all powers over the sandbox: its mode must not decide who runs */
	int r = resolve_user(req, &who);
	if (r)
		fail(AGENT_STAGE_USER, r);
	r = spawn_identity(&who);
	if (r)
		fail(AGENT_STAGE_IDENTITY, r);
	if (devpts_fd >= 0 && (r = open_terminal(devpts_fd, &req->view->spec)) < 0)
		fail(AGENT_STAGE_IDENTITY, r);
	const char *home = req->entrypoint ? who.home : req->agent->default_user.home;
	r = build_env(req, home, &env);
	if (r)
		fail(AGENT_STAGE_SPEC, r);
	r = enter_cwd(req, home, &env);
	if (r)
		fail(AGENT_STAGE_CWD, r);
	if (req->entrypoint) {
		struct spawn_report rep = {.who = who};

		if (write(REPORT_FD, &rep, sizeof(rep)) != (ssize_t)sizeof(rep))
			_exit(127);
	}
	r = filtered ? 0 : load_filter(req->agent);
	if (r)
		fail(AGENT_STAGE_FILTER, r);
	fail(AGENT_STAGE_EXEC, exec_program(req, &env));
}

__attribute__((noreturn)) static void child(const struct spawn_req *req)
{
	const struct agent_spec *spec = &req->view->spec;
	enum agent_stage stage;

	/* its number is taken later: until then a descriptor of the agent may have it */
	bool tells_env = req->entrypoint && (spec->flags & AGENT_SPEC_TELLS_ENV);
	int env_fd = tells_env ? fcntl(req->tells_fd, F_DUPFD_CLOEXEC, 16) : -1;
	place_fds(req);
	leave_agent(req->agent);
	lead(req->entrypoint || (spec->flags & (AGENT_SPEC_PTY | AGENT_SPEC_DRIVER)));
	int r = spawn_enter(req->agent, &stage);
	if (r)
		fail(stage, r);
	int devpts_fd = spec->flags & AGENT_SPEC_PTY ? req->agent->devpts_fd : -1;
	if (devpts_fd >= 0 && (devpts_fd = dup3(devpts_fd, REPORT_FD + 1, O_CLOEXEC)) < 0)
		fail(AGENT_STAGE_IDENTITY, -errno);
	if (is_driver(req)) {
		sysx_close_range(REPORT_FD + 1, AGENT_DRIVER_TEXT_FD);
		sysx_close_range(AGENT_DRIVER_OUT_FD + 1, ~0u);
		r = place_text(req->view);
		if (r)
			fail(AGENT_STAGE_FORK, r);
	} else if (tells_env) {
		if (env_fd < 0 || dup2(env_fd, AGENT_ENV_FD) < 0)
			fail(AGENT_STAGE_FORK, -errno);
		sysx_close_range(REPORT_FD + 1, AGENT_ENV_FD - 1);
		sysx_close_range(AGENT_ENV_FD + 1, ~0u);
	} else {
		sysx_close_range(REPORT_FD + (devpts_fd >= 0 ? 2 : 1), ~0u);
	}
	run(req, devpts_fd, 0);
}

pid_t spawn_process(const struct spawn_req *req)
{
	pid_t pid = sysx_fork(spawn_cgroup(req->agent));

	if (pid == 0)
		child(req);
	return pid;
}

/* ---- a child made in advance ---- */

struct order { /* what goes to it, then `bytes` of a struct agent_spec with its strings */
	uint32_t bytes;
	uint16_t entrypoint;
	uint16_t merge; /* standard error is standard output */
	uint64_t tag;
};

static int read_all(int fd, void *data, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t r = read(fd, (uint8_t *)data + have, n - have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		have += (size_t)r;
	}
	return 0;
}

__attribute__((noreturn)) static void spare_child(const struct spawn_req *req, int order_fd)
{
	struct spawn_req mine = *req;
	struct spec_view view;
	struct order order;
	enum agent_stage stage;

	int at = fcntl(order_fd, F_DUPFD_CLOEXEC, 32);
	place_fds(req);
	if (at < 0)
		_exit(127);
	leave_agent(req->agent);
	/*
	 * Before it knows whom it serves it is in the inner namespace under the agent's id.  There is no tenant yet.
	 */
	int r = spawn_enter(req->agent, &stage);
	if (!r) {
		stage = AGENT_STAGE_FILTER;
		r = load_filter(req->agent);
	}
	if (dup3(at, REPORT_FD + 1, O_CLOEXEC) < 0)
		_exit(127);
	sysx_close_range(REPORT_FD + 2, ~0u);
	if (read_all(REPORT_FD + 1, &order, sizeof(order)) || order.bytes > SPAWN_SPARE_BYTES)
		_exit(0); /* not needed any more */
	uint8_t *bytes = malloc(order.bytes);
	if (!bytes || read_all(REPORT_FD + 1, bytes, order.bytes))
		_exit(127);
	close(REPORT_FD + 1);
	lead(order.entrypoint);
	if (r)
		fail(stage, r);
	if (spec_read(bytes, order.bytes, order.entrypoint, &view))
		fail(AGENT_STAGE_SPEC, -EPROTO);
	if (order.merge && dup2(1, 2) < 0)
		fail(AGENT_STAGE_SPEC, -errno);
	mine.view = &view;
	mine.entrypoint = order.entrypoint;
	mine.tag = order.tag;
	run(&mine, -1, 1);
}

pid_t spawn_spare(const struct spawn_req *req, int order_fd)
{
	pid_t pid = sysx_fork(spawn_cgroup(req->agent));

	if (pid == 0)
		spare_child(req, order_fd);
	return pid;
}

int spawn_order(int order_fd, uint64_t tag, int entrypoint, int merge, const uint8_t *spec, uint32_t n)
{
	struct order order = {.bytes = n, .entrypoint = entrypoint != 0, .merge = merge != 0, .tag = tag};
	struct iovec iov[2] = {{&order, sizeof(order)}, {(void *)(uintptr_t)spec, n}};

	if (n > SPAWN_SPARE_BYTES)
		return -E2BIG;
	/* an empty pipe takes it whole */
	ssize_t r = writev(order_fd, iov, 2);
	return r == (ssize_t)(sizeof(order) + n) ? 0 : r < 0 ? -errno : -EIO;
}

/* ---- the launcher ---- */

#define LAUNCHER_FD    3
#define LAUNCHER_STACK (256u * 1024)
/* What its children allocate stays with it, since the memory is one: it ends when that is much, and the agent makes another. */
#define LAUNCHER_GROWS_KIB 2048
#define NO_ORDER UINT32_MAX

struct launch {
	const struct agent *agent;
	struct spawn_board *board;
	struct spawn_order order; /* slot NO_ORDER: the child has taken none */
	struct spec_view view;
	int out_fd, err_fd;
	bool over; /* there will be no order any more */
	bool has_order; /* taken by the launcher: there was no child that could wait for it */
};

/* Return: whether there is one, in @l. */
static bool next_order(struct launch *l)
{
	static uint8_t bytes[SPAWN_SPARE_BYTES];
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov[2] = {{&l->order, sizeof(l->order)}, {bytes, sizeof(bytes)}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control.room)};
	ssize_t n;

	do
		n = recvmsg(LAUNCHER_FD, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	size_t n_fds = l->order.merge ? 1 : 2;
	int fd[2] = {-1, -1};
	if (n <= (ssize_t)sizeof(l->order) || !head || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(n_fds * sizeof(int)) ||
	    l->order.slot >= SPAWN_SLOTS || spec_read(bytes, (size_t)n - sizeof(l->order), 0, &l->view)) {
		l->order.slot = NO_ORDER;
		l->over = true;
		return false;
	}
	memcpy(fd, CMSG_DATA(head), n_fds * sizeof(int));
	l->out_fd = fd[0];
	l->err_fd = fd[1];
	return true;
}

/* Shares the launcher's memory, and nothing else of it; the launcher stands still until it has executed or is dead. */
static int launched(void *arg)
{
	struct launch *l = arg;
	struct spawn_req req = {.agent = l->agent, .view = &l->view};

	told_by_slot = NULL;
	at_exec = false;
	lead(0);
	if (!l->has_order && !next_order(l))
		_exit(0);
	struct spawn_slot *slot = &l->board->slots[l->order.slot];
	uint64_t free_to_take = SPAWN_TAKEN(l->order.serial, 0);
	if (!atomic_compare_exchange_strong(&slot->taken, &free_to_take, SPAWN_TAKEN(l->order.serial, getpid()))) {
		l->order.slot = NO_ORDER; /* the agent has it done without us */
		_exit(0);
	}
	told_by_slot = slot;
	req.tag = l->order.tag;
	if (dup2(l->out_fd, 1) < 0 || dup2(l->order.merge ? l->out_fd : l->err_fd, 2) < 0)
		fail(AGENT_STAGE_SPEC, -errno);
	run(&req, -1, 1);
}

/*
 * As clone(2) with CLONE_VFORK, but for how the launcher waits: for as long as it may take to the next order, so not in a state
 * that counts as load, and so that it can be stopped.  Nothing here writes memory that the child may be using.
 */
static int make_child(struct launch *l, char *stack_end)
{
	static _Atomic int32_t in_use; /* cleared by the kernel when the child leaves this memory, by exec or by death */

	in_use = 1;
	int r = clone(launched, stack_end, CLONE_VM | CLONE_PARENT | CLONE_CHILD_CLEARTID | SIGCHLD, l, NULL, NULL,
		      (void *)(uintptr_t)&in_use);

	if (r < 0)
		return -errno;
	l->board->waits = r;
	while (in_use)
		syscall(SYS_futex, &in_use, FUTEX_WAIT, 1, NULL, NULL, 0);
	return r;
}

/* Makes the child that waits for an order; where there is no room for one, takes the order and tries again.  Return: as clone(2) */
static int serve_order(struct launch *l, char *stack_end)
{
	l->order.slot = NO_ORDER;
	l->has_order = false;
	int r = make_child(l, stack_end);
	if (r >= 0 || !next_order(l))
		return r;
	l->has_order = true;
	r = make_child(l, stack_end);
	close(l->out_fd);
	if (l->err_fd >= 0)
		close(l->err_fd);
	return r;
}

static bool has_grown(long from_kib)
{
	struct rusage use;

	return getrusage(RUSAGE_SELF, &use) < 0 || use.ru_maxrss > from_kib + LAUNCHER_GROWS_KIB;
}

__attribute__((noreturn)) static void launcher(const struct agent *a, int sock, struct spawn_board *board)
{
	struct launch l = {.agent = a, .board = board};
	enum agent_stage stage;
	struct rusage use;

	leave_agent(a);
	/* whatever fails here fails again, and is told, when the first command is started without a launcher */
	if (spawn_enter(a, &stage) || load_filter(a) || cut_bounding_set(cap_mask(0)) || set_groups(&a->default_user) ||
	    set_caps(cap_mask(0)) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		_exit(1);
	cut_before = ~cap_mask(0);
	kept_before = cap_mask(0);
	groups_before = &a->default_user;
	if (dup3(sock, LAUNCHER_FD, O_CLOEXEC) < 0)
		_exit(1);
	sysx_close_range(LAUNCHER_FD + 1, ~0u);
	char *stack = mmap(NULL, LAUNCHER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED || getrusage(RUSAGE_SELF, &use) < 0)
		_exit(1);
	board->slots[0].tell |= 0; /* the page is there: no child dies of its first word */
	while (!l.over) {
		int r = serve_order(&l, stack + LAUNCHER_STACK);

		if (l.order.slot == NO_ORDER)
			continue; /* there is none any more, or a tenant has killed who waited for it */
		struct spawn_slot *slot = &board->slots[l.order.slot];
		if (r < 0) {
			slot->sys = -r;
			slot->stage = AGENT_STAGE_FORK;
		}
		/* in the middle of malloc(), perhaps: the next one would have a heap that hands out the same bytes twice */
		bool killed = r >= 0 && !at_exec && !slot->stage;
		slot->done = 1;
		if (r < 0 || slot->tell)
			ignore_result(send(LAUNCHER_FD, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL)); /* full: it is told already */
		if (killed || has_grown(use.ru_maxrss))
			break;
	}
	_exit(0);
}

pid_t spawn_launcher(const struct agent *a, int sock, struct spawn_board *board)
{
	pid_t pid = sysx_fork(spawn_cgroup(a));

	if (pid == 0)
		launcher(a, sock, board);
	return pid;
}
