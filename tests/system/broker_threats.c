// SPDX-License-Identifier: Apache-2.0
/*
 * Attacks on what the broker sets up, one per row, seen from inside a sandbox and from the host.  SBX_FAULT=NAME:fail in the
 * environment takes a guard away, so that each row can be seen red: launch-owner, layer-unmapped, volume-unmapped,
 * child-attributes, drain-conntrack.
 */
#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/wallclock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT_SIZE 65536
#define MOUNTS_MAX 256

static struct btc t;
static char volume_dir[80];

struct box {
	struct broker_create_reply made;
	int fds[2];
	char out[OUT_SIZE];
};

static void read_file(int dir_fd, const char *path, char *out, size_t size)
{
	auto_fd fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n = 0;

	while (fd >= 0 && used < size - 1 && (n = read(fd, out + used, size - 1 - used)) > 0)
		used += (size_t)n;
	out[used] = '\0';
}

static void read_proc(const struct box *box, const char *name, char *out, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/%s", box->made.pid, name);
	read_file(AT_FDCWD, path, out, size);
}

static bool box_make(struct box *box, const struct broker_volume *volume)
{
	static struct broker_create create;

	box->fds[0] = box->fds[1] = -1;
	box->out[0] = '\0';
	btc_host_create(&t, &create);
	if (volume) {
		create.n_volumes = 1;
		create.volume[0] = *volume;
	}
	int r = btc_create(&t, &create, &box->made, box->fds);
	if (r)
		ok(false, "a sandbox is made: %d %s", r, box->made.text);
	return r == 0;
}

/* Runs a shell script as the entrypoint; its output is in box->out. */
static int box_run(struct box *box, const char *script)
{
	char wrapped[2048];
	const char *argv[] = {"/bin/sh", "-c", wrapped, NULL};
	struct agent_status status = {0};

	snprintf(wrapped, sizeof(wrapped), "exec >/out 2>&1; %s", script);
	if (btc_run(box->fds, argv, &status) < 0)
		return -1;
	auto_fd root = btc_root(box->made.pid);
	read_file(root, "out", box->out, sizeof(box->out));
	return status.exit_code;
}

static void box_end(struct box *box)
{
	btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, box->made.ref, 0, NULL, NULL);
	close_keep_errno(box->fds[0]);
	close_keep_errno(box->fds[1]);
}

static uint32_t base_of(const struct box *box)
{
	return t.id_base + box->made.ref.slot * 65536;
}

/* ---- 9: who owns the namespaces ---- */

static void owner_of_namespaces(void)
{
	static struct box box;
	uid_t owner = 0;
	char path[64];

	if (!box_make(&box, NULL))
		return;
	snprintf(path, sizeof(path), "/proc/%u/ns/user", box.made.pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ok(ioctl(fd, NS_GET_OWNER_UID, &owner) == 0 && owner == base_of(&box), "9: the user namespace belongs to the slot's own id %u (%u)",
	   base_of(&box), owner);
	box_end(&box);
}

/* ---- 3: ids ---- */

static void ids(void)
{
	static struct box a, b;
	struct stat sa = {0}, sb = {0}, layer = {0};
	char command[256], text[256] = "";

	if (!box_make(&a, NULL) || !box_make(&b, NULL))
		return;
	box_run(&a, "touch /mine; stat -c %u /etc/passwd /mine; cp /etc/passwd /etc/passwd.copy && echo x >> /etc/passwd && echo copied-up");
	box_run(&b, "touch /mine");
	is_str(a.out, "0\n0\ncopied-up\n", "3: files of a layer and own files belong to root inside, copy-up works");
	auto_fd root_a = btc_root(a.made.pid);
	auto_fd root_b = btc_root(b.made.pid);
	ok(fstatat(root_a, "mine", &sa, 0) == 0 && sa.st_uid == base_of(&a), "3: root of one is %u outside (%u)", base_of(&a), sa.st_uid);
	ok(fstatat(root_b, "mine", &sb, 0) == 0 && sb.st_uid == base_of(&b) && sa.st_uid != sb.st_uid, "3: and of the other another");
	ok(fstatat(root_a, "etc/group", &layer, 0) == 0 && layer.st_uid == base_of(&a), "3: the shared layer shows the own id in each");
	snprintf(command, sizeof(command), "find %s/state/layers %s/state/sandboxes -uid 0 -perm /6000 | head -3", t.dir, t.dir);
	FILE *f = popen(command, "re");
	ok(f && !fgets(text, sizeof(text), f), "3: no file of host root with a setuid bit in the store %s", text);
	if (f)
		pclose(f);
	box_end(&a);
	box_end(&b);
}

/* ---- 6, 10, 15: what is inherited; pooled and in line ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void fingerprint(struct box *box, char *out, size_t size)
{
	static const char *const status_keys[] = {"Umask", "Groups", "NSpid", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
						  "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed", "THP_enabled"};
	static char text[OUT_SIZE];
	size_t used = 0;
	char path[64];
	char *save = NULL;

	box_run(box, ":"); /* the agent serves: what it sets up for itself is done */
	read_proc(box, "status", text, sizeof(text));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_SIZE(status_keys); i++) {
			size_t n = strlen(status_keys[i]);

			if (strncmp(line, status_keys[i], n) != 0 || line[n] != ':')
				continue;
			/* NSpid shows the host's pid first */
			used += (size_t)snprintf(out + used, size - used, "%s\n", strcmp(status_keys[i], "NSpid") ? line : strrchr(line, '\t'));
		}
	read_proc(box, "limits", text, sizeof(text));
	used += (size_t)snprintf(out + used, size - used, "%s", text);
	read_proc(box, "oom_score_adj", text, sizeof(text));
	used += (size_t)snprintf(out + used, size - used, "oom %s", text);
	read_proc(box, "personality", text, sizeof(text));
	used += (size_t)snprintf(out + used, size - used, "personality %s", text);
	errno = 0;
	used += (size_t)snprintf(out + used, size - used, "nice %d policy %d\n", getpriority(PRIO_PROCESS, (id_t)box->made.pid), sched_getscheduler((pid_t)box->made.pid));
	/* ids of the slot are its own: only how far they are from its base counts */
	read_proc(box, "mounts", text, sizeof(text));
	for (char *at = text; (at = strstr(at, "id=")) != NULL; at += 3) {
		unsigned long id = strtoul(at + 3, NULL, 10);
		size_t digits = strspn(at + 3, "0123456789");
		char relative[24];

		if (id < base_of(box) || digits < 4)
			continue;
		snprintf(relative, sizeof(relative), "%0*lu", (int)digits, id - base_of(box));
		memcpy(at + 3, relative, digits);
	}
	/* The file lists them by age, and a root is made while its shell is: what there is counts. */
	char *line[MOUNTS_MAX];
	size_t n_lines = 0;
	for (char *at = strtok_r(text, "\n", &save); at && n_lines < MOUNTS_MAX; at = strtok_r(NULL, "\n", &save))
		line[n_lines++] = at;
	qsort(line, n_lines, sizeof(*line), by_text);
	for (size_t i = 0; i < n_lines; i++)
		used += (size_t)snprintf(out + used, size - used, "%s\n", line[i]);
	snprintf(path, sizeof(path), "/proc/%u/fd", box->made.pid);
	/* what its descriptors lead to on the host's side: nothing but the devices, and FIFOs that have no name in there */
	DIR *dir = opendir(path);
	int named = 0;
	for (struct dirent *e; dir && (e = readdir(dir));) {
		char target[256];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		if (target[0] == '/' && !strstr(target, "control.") && !strstr(target, "exec.") && strcmp(target, "/dev/null") != 0 &&
		    strncmp(target, "/memfd:", 7) != 0 && !strstr(target, "(deleted)"))
			named += printf("# descriptor %s: %s\n", e->d_name, target) > 0;
	}
	if (dir)
		closedir(dir);
	snprintf(out + used, size - used, "descriptors of named files %d\n", named);
}

static void differences(const char *a, const char *b)
{
	while (*a || *b) {
		size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");

		if (na != nb || strncmp(a, b, na) != 0)
			printf("#  first: %.*s\n# second: %.*s\n", (int)na, a, (int)nb, b);
		a += na + (a[na] != '\0');
		b += nb + (b[nb] != '\0');
	}
}

static void wait_pool(void)
{
	for (int i = 0; i < 60; i++)
		poll(NULL, 0, 10); /* the pool fills when it is quiet; there is no message that says so */
}

static int restart_odd(bool odd, const char *extra)
{
	char path[128], sock[128];

	kill(t.pid, SIGTERM);
	btc_wait_end(&t);
	close_keep_errno(t.fd);
	t.fd = -1;
	snprintf(sock, sizeof(sock), "%s/run/broker.sock", t.dir);
	unlink(sock);
	snprintf(path, sizeof(path), "%s/config", t.dir);
	FILE *f = fopen(path, "ae");
	if (!f)
		return -1;
	fputs(extra, f);
	fclose(f);
	struct rlimit files = {0}, core = {0}, stack = {0}, keep_files, keep_core, keep_stack;
	mode_t mask = umask(0);
	getrlimit(RLIMIT_NOFILE, &keep_files);
	getrlimit(RLIMIT_CORE, &keep_core);
	getrlimit(RLIMIT_STACK, &keep_stack);
	files = keep_files;
	core = keep_core;
	stack = keep_stack;
	umask(mask);
	if (odd) {
		cpu_set_t one;

		umask(0);
		signal(SIGPIPE, SIG_IGN);
		signal(SIGUSR1, SIG_IGN);
		files.rlim_cur = 7;
		core.rlim_cur = 0;
		stack.rlim_cur = 1 << 20;
		setrlimit(RLIMIT_NOFILE, &files);
		setrlimit(RLIMIT_CORE, &core);
		setrlimit(RLIMIT_STACK, &stack);
		ignore_result(setpriority(PRIO_PROCESS, 0, -5));
		CPU_ZERO(&one);
		CPU_SET(0, &one);
		sched_setaffinity(0, sizeof(one), &one);
		personality(ADDR_NO_RANDOMIZE);
	}
	int r = btc_spawn(&t, getenv("SBX_FAULT_SAVED"));
	if (odd) {
		cpu_set_t all;

		setrlimit(RLIMIT_NOFILE, &keep_files);
		setrlimit(RLIMIT_CORE, &keep_core);
		setrlimit(RLIMIT_STACK, &keep_stack);
		umask(mask);
		signal(SIGPIPE, SIG_DFL);
		signal(SIGUSR1, SIG_DFL);
		ignore_result(setpriority(PRIO_PROCESS, 0, 0));
		memset(&all, 0xff, sizeof(all));
		sched_setaffinity(0, sizeof(all), &all);
		personality(0);
	}
	return r < 0 ? r : btc_hello(&t);
}

static void inherited(void)
{
	static struct box box;
	static char inline_text[OUT_SIZE], pooled[OUT_SIZE], odd[OUT_SIZE], mispredicted[OUT_SIZE];

	if (!box_make(&box, NULL))
		return;
	fingerprint(&box, inline_text, sizeof(inline_text));
	ok(strstr(inline_text, "Max core file size        1                    1") != NULL, "10: core limit is 1, 1");
	ok(strstr(inline_text, "CapEff:\t0000000000000000") && strstr(inline_text, "CapBnd:\t0000000000000000"), "1: pid 1 has no capability, nor can get one");
	ok(strstr(inline_text, "NoNewPrivs:\t1") && strstr(inline_text, "Seccomp:\t2"), "1: pid 1 has no_new_privs and a filter");
	ok(strstr(inline_text, "redirect_dir=nofollow") && !strstr(inline_text, "metacopy=on") && !strstr(inline_text, "userxattr") &&
		   strstr(inline_text, "overlay / overlay rw,nosuid,nodev"), "26: the root is an overlay with the options that an image cannot abuse");
	ok(!strstr(inline_text, t.dir), "nothing in the mounts tells where the host keeps the files");
	box_end(&box);
	ok(restart_odd(true, "") == 0, "broker with odd groups of attributes starts");
	if (box_make(&box, NULL)) {
		fingerprint(&box, odd, sizeof(odd));
		ok(!strcmp(inline_text, odd), "6: signals, limits, nice, umask, affinity, personality of the broker do not reach a sandbox");
		differences(inline_text, odd);
		box_end(&box);
	}
	ok(restart_odd(false, "\n[pool]\ntarget = 3\n") == 0, "broker with a pool starts");
	wait_pool();
	if (box_make(&box, NULL)) {
		fingerprint(&box, pooled, sizeof(pooled));
		ok(!strcmp(inline_text, pooled), "15: a pooled shell and one made in line give the same sandbox");
		differences(inline_text, pooled);
		box_end(&box);
	}
	(void)mispredicted;
}

/* ---- 25, 35, 37: the host image, cgroups, the agent's program ---- */

static void inside(void)
{
	static struct box box;
	static const struct {
		const char *why, *script, *want;
	} rows[] = {
		{"25: /usr/local of the host is not there", "ls -A /usr/local | wc -l", "0\n"},
		{"25: /usr cannot be written", "touch /usr/bin/x 2>/dev/null && echo written || echo no", "no\n"},
		{"25: a file of /usr that only root may read stays unreadable",
		 "n=0; for f in $(find /usr -xdev -type f ! -perm -004 2>/dev/null | head -5); do head -c1 $f >/dev/null 2>&1 && n=$((n+1)); done; echo $n", "0\n"},
		{"25: awk, python3 work", "awk 'BEGIN{print 1}'; python3 -c 'print(2)'", "1\n2\n"},
		{"35: no cgroup file system inside", "awk '$3 ~ /^cgroup/' /proc/mounts", ""},
		{"35: and none can be mounted", "mkdir -p /m; mount -t cgroup -o memory none /m 2>/dev/null && echo yes || echo no; unshare -m true 2>/dev/null && echo yes || echo no",
		 "no\nno\n"},
		{"37: pid 1's program can be neither read nor written", "cat /proc/1/exe >/dev/null 2>&1 && echo yes || echo no; (: > /proc/1/exe) 2>/dev/null && echo yes || echo no", "no\nno\n"},
		{"1: pid 1 cannot be signalled, traced or limited",
		 "kill -9 1 2>/dev/null && echo yes || echo no; prlimit --pid 1 --nofile=8 2>/dev/null && echo yes || echo no; ls /proc/1/fd >/dev/null 2>&1 && echo yes || echo no", "no\nno\nno\n"},
		{"device nodes cannot be made", "mknod /sda b 8 0 2>/dev/null && echo yes || echo no", "no\n"},
		{"27: /proc/sys and /sys cannot be written", "(echo 1 > /proc/sys/kernel/shmmax) 2>/dev/null && echo yes || echo no; grep -c '^sysfs.* rw' /proc/mounts", "no\n0\n"},
		{"its network: ports from 0 and ping for all its groups, no IPv6 on eth0",
		 "cd /proc/sys/net; cat ipv4/ip_unprivileged_port_start ipv4/ping_group_range; [ ! -e ipv6 ] && echo 1 || cat ipv6/conf/eth0/disable_ipv6",
		 "0\n0\t65535\n1\n"},
		{"tenant capabilities are the table's", "grep CapEff /proc/self/status", "CapEff:\t00000000000405fb\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!box_make(&box, NULL))
			return;
		box_run(&box, rows[i].script);
		is_str(box.out, rows[i].want, "%s", rows[i].why);
		box_end(&box);
	}
}

/* ---- 24: volumes ---- */

static void volumes(void)
{
	static struct box box;
	struct broker_volume v = {.kind = BROKER_VOLUME_HOST, .mount_path = "/data"};
	struct stat st;
	char path[128];

	mkdir(volume_dir, 0755);
	ignore_result(chown(volume_dir, 1234, 1235)); /* the rows below look */
	snprintf(path, sizeof(path), "%s/other", volume_dir);
	close_keep_errno(open(path, O_CREAT | O_WRONLY, 0600)); /* root's: nobody's inside */
	if (box_make(&box, &v)) {
		box_run(&box, "stat -c %u:%g /data /data/other; touch /data/new; cat /data/other 2>/dev/null && echo read; chown 5 /data/new 2>/dev/null || echo refused; chmod 4755 /data/new");
		is_str(box.out, "0:0\n65534:65534\nrefused\n", "24: the owner of a host directory is root inside, nobody else is anybody");
		snprintf(path, sizeof(path), "%s/new", volume_dir);
		ok(stat(path, &st) == 0 && st.st_uid == 1234 && st.st_gid == 1235, "24: what is made there belongs to that owner (%u:%u)", st.st_uid, st.st_gid);
		box_end(&box);
	}
	v.flags = BROKER_VOLUME_READ_ONLY;
	if (box_make(&box, &v)) {
		box_run(&box, "touch /data/x 2>/dev/null && echo yes || echo no; mount -o remount,rw /data 2>/dev/null && echo yes || echo no");
		is_str(box.out, "no\nno\n", "24: read-only is");
		box_end(&box);
	}
	v = (struct broker_volume){.kind = BROKER_VOLUME_NAMED, .flags = BROKER_VOLUME_MAKE, .claim = "shared", .mount_path = "/data", .sub = "a/b"};
	if (box_make(&box, &v)) {
		box_run(&box, "touch /data/f; chown 1000:1000 /data/f; grep -c ' /data .*nosuid.*nodev\\| /data .*nodev.*nosuid' /proc/mounts");
		is_str(box.out, "1\n", "24: a volume is nosuid and nodev");
		box_end(&box);
	}
	if (box_make(&box, &v)) {
		box_run(&box, "stat -c %u:%g /data/f");
		is_str(box.out, "1000:1000\n", "24: two sandboxes of other ids agree on the owners in a named volume");
		struct broker_volume_req req = {.claim = "shared"};
		union broker_any any;
		btc_call(&t, &req, sizeof(req), BROKER_OP_VOLUME_DROP, -1, &any, NULL);
		ok(any.reply.status != 0, "24: a volume in use is not dropped");
		box_end(&box);
		btc_call(&t, &req, sizeof(req), BROKER_OP_VOLUME_DROP, -1, &any, NULL);
		ok(any.reply.status == 0, "24: it is afterwards: %s", any.reply.text);
	}
	unlink(path);
	snprintf(path, sizeof(path), "%s/other", volume_dir);
	unlink(path);
	rmdir(volume_dir);
}

/* ---- 8: flows ---- */

static void flows(void)
{
	static struct box box;
	char command[256], line[256] = "";

	if (!box_make(&box, NULL))
		return;
	box_run(&box, "python3 -c \"import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.7', 9999)); print('sent')\"");
	is_str(box.out, "sent\n", "8: a packet was sent");
	uint32_t a = box.made.addr;
	snprintf(command, sizeof(command), "nsenter --net=%s/run/router grep -c %u.%u.%u.%u /proc/net/nf_conntrack", t.dir, a >> 24, a >> 16 & 255,
		 a >> 8 & 255, a & 255);
	FILE *f = popen(command, "re");
	ok(f && fgets(line, sizeof(line), f) && strtol(line, NULL, 10) > 0, "8: it made a connection entry: %s", line);
	if (f)
		pclose(f);
	box_end(&box);
	for (int i = 0; i < 40; i++) {
		if (btc_count_leftovers(&t, line, sizeof(line)) == 0)
			break;
		poll(NULL, 0, 50);
	}
	snprintf(command, sizeof(command), "nsenter --net=%s/run/router cat /proc/net/nf_conntrack 2>&1 | grep %u.%u.%u.%u", t.dir, a >> 24, a >> 16 & 255,
		 a >> 8 & 255, a & 255);
	f = popen(command, "re");
	ok(f && !fgets(line, sizeof(line), f), "8: no connection entry of its address outlives the slot %s", line);
	if (f)
		pclose(f);
}

/* ---- 18: bombs ---- */

/* Reads events until one of @op; Return: whether it came. */
static bool event(uint32_t op, struct broker_slot_ref ref)
{
	union broker_any any;

	for (int i = 0; i < 20; i++)
		if (btc_recv(t.fd, &any, NULL, 1000) == sizeof(any.event) && any.head.op == op && any.event.ref.generation == ref.generation)
			return true;
	return false;
}

static void bombs(void)
{
	static struct broker_create create;
	static struct box box;
	struct agent_status status = {0};
	union broker_any any;
	static const char *const memory[] = {"/usr/bin/python3", "-c", "x = 'a' * 10**9", NULL};
	static const char *const forks[] = {"/bin/sh", "-c", "b() { b | b & }; b; sleep 60", NULL};

	btc_host_create(&t, &create);
	create.memory_bytes = 64u << 20;
	create.pids_max = 64;
	if (!ok(btc_create(&t, &create, &box.made, box.fds) == 0, "18: a small sandbox: %s", box.made.text))
		return;
	int r = btc_run(box.fds, memory, &status);
	ok(r == 0 && status.exit_signal == SIGKILL, "18: a memory bomb is killed (state %u, signal %d)", status.state,
	   status.exit_signal);
	ok(event(BROKER_EVENT_OOM, box.made.ref), "18: and the event says why");
	ok(btc_slot_call(&t, BROKER_OP_SANDBOX_STAT, box.made.ref, 0, &any, NULL) == 0 && any.stat_reply.oom_kills > 0 &&
		   any.stat_reply.memory_limit_bytes == 64u << 20 && any.stat_reply.pids_max == 64, "18: so do the figures");
	box_end(&box);
	if (!ok(btc_create(&t, &create, &box.made, box.fds) == 0, "18: another"))
		return;
	struct {
		struct agent_frame head;
		struct agent_spec spec;
		char text[128];
	} start = {.head = {.type = AGENT_START}, .spec = {.n_args = 3}};
	size_t at = 2;
	for (size_t i = 0; forks[i]; i++)
		at += (size_t)snprintf(start.text + at, sizeof(start.text) - at, "%s", forks[i]) + 1;
	start.spec.string_bytes = (uint32_t)at;
	start.head.size = start.head.value = (uint32_t)(sizeof(start.spec) + at);
	ok(write(box.fds[0], &start, sizeof(start.head) + start.head.size) > 0, "18: a fork bomb starts");
	uint64_t until = mono_ms() + 5000;
	do
		btc_slot_call(&t, BROKER_OP_SANDBOX_STAT, box.made.ref, 0, &any, NULL);
	while (any.stat_reply.pids < 60 && mono_ms() < until);
	ok(any.stat_reply.pids >= 60 && any.stat_reply.pids <= 64, "18: it is contained: %u processes", any.stat_reply.pids);
	struct agent_frame query = {.type = AGENT_QUERY};
	while (read(box.fds[1], &status, sizeof(status)) > 0)
		;
	uint64_t asked = mono_usec();
	struct pollfd p = {.fd = box.fds[1], .events = POLLIN};
	bool answered = write(box.fds[0], &query, sizeof(query)) == sizeof(query) && poll(&p, 1, 5000) == 1;
	uint64_t took = mono_usec() - asked;
	ok(answered, "18: the agent still answers, after %llu us", (unsigned long long)took);
	uint64_t killed = mono_usec();
	box_end(&box);
	printf("# the bombed sandbox was gone after %llu us\n", (unsigned long long)(mono_usec() - killed));
}

/* ---- 23: the id range ---- */

static void overlap(void)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "unshare -m sh -c 'echo other:%u:65536 > %s/subuid && mount --bind %s/subuid /etc/subuid && exec %s/sandbox-broker --config %s/config "
		 "--instance %s' 2>&1 | grep -c subuid; ", t.id_base + 65536, t.dir, t.dir, t.build_dir, t.dir, t.instance);
	FILE *f = popen(command, "re");
	char line[64] = "";
	ok(f && fgets(line, sizeof(line), f) && strtol(line, NULL, 10) == 1, "23: an id range that belongs to somebody else is refused by name");
	if (f)
		pclose(f);
}

/* ---- 32: what a dead sandbox leaves ---- */

static int trash_entries(void)
{
	char path[128];
	int n = -2;

	snprintf(path, sizeof(path), "%s/state/trash", t.dir);
	DIR *dir = opendir(path);
	for (; dir && readdir(dir); n++)
		;
	if (dir)
		closedir(dir);
	return n;
}

static void trash(void)
{
	static struct box box;

	if (!box_make(&box, NULL))
		return;
	box_run(&box, "python3 -c \"\nimport os\nos.chdir('/root')\nfor i in range(3000):\n os.mkdir('d'); os.chdir('d')\n\n\"; "
		      "mkdir /many; cd /many; for i in $(seq 20); do mkdir $i; touch $i/1 $i/2; chmod 0 $i; done; mkdir -m 1777 /sticky; rm /etc/group; "
		      "mkfifo /f; ln -s /etc /l; mkdir /imm; touch /imm/x; chown 77 /imm /imm/x; chmod 1700 /imm; echo done");
	is_str(box.out, "done\n", "32: a deep, odd tree was made");
	box_end(&box);
	uint64_t start = mono_ms();
	while (trash_entries() > 0 && mono_ms() - start < 60000)
		poll(NULL, 0, 50);
	ok(trash_entries() == 0, "32: the worker emptied it in %llu ms", (unsigned long long)(mono_ms() - start));
}

int main(void)
{
	char extra[256];
	char *fault = getenv("SBX_FAULT");

	if (fault) { /* for restarts: btc_spawn() puts it into the child's environment */
		static char saved[160];

		snprintf(saved, sizeof(saved), "SBX_FAULT=%s", fault);
		setenv("SBX_FAULT_SAVED", saved, 1);
	}
	const char *base = getenv("BTC_DIR");
	snprintf(volume_dir, sizeof(volume_dir), "%.30s/sbx-threats-volume.%d", base ? base : "/tmp", (int)getpid());
	snprintf(extra, sizeof(extra), "[storage]\nallowed_host_paths = [\"%s\"]\n", volume_dir);
	mkdir(volume_dir, 0755);
	if (ok(btc_start(&t, "threats", extra) == 0, "broker starts")) {
		ok(restart_odd(false, "\n") == 0, "and again");
		owner_of_namespaces();
		ids();
		inside();
		volumes();
		flows();
		bombs();
		trash();
		inherited();
	}
	if (t.pid > 0)
		ignore_result(kill(t.pid, SIGTERM) < 0 || btc_wait_end(&t) < 0); /* the next row starts another on its directories */
	close_keep_errno(t.fd);
	t.fd = -1;
	overlap();
	btc_stop(&t, tap_failed > 0);
	return tap_done();
}
