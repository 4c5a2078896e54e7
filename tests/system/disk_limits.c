// SPDX-License-Identifier: Apache-2.0
/*
 * A disk limit holds against what fills disks, costs nobody else anything, and leaves nothing.  DISK_BACKEND in the environment
 * is limits.disk_backend (auto); DISK_QUICK leaves out what takes long where the machine is emulated.
 */
#include "config.h"

#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/num.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB	   (UINT64_C(1) << 20)
#define LIMIT_MIB  64u
#define WAIT_STEPS 300 /* of 100 ms: what is waited for comes within one on a quiet machine */

struct box {
	struct broker_create_reply made;
	int fds[2];
	int status;
};

static struct btc t;
static struct broker_create create;
static bool quick; /* DISK_QUICK: no restarts, some fills only */
static bool loops; /* limits are kept by loop images, not by quotas */

static struct box make(uint32_t disk_mib)
{
	struct box box = {.fds = {-1, -1}};

	btc_host_create(&t, &create);
	create.disk_mib = disk_mib;
	box.status = btc_create(&t, &create, &box.made, box.fds);
	if (box.status)
		printf("# create with %u MiB: %s\n", disk_mib, box.made.text);
	return box;
}

static void end(struct box *box)
{
	close_keep_errno(box->fds[0]);
	close_keep_errno(box->fds[1]);
	if (!box->status)
		btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, box->made.ref, 0, NULL, NULL);
}

/* Runs @script as the sandbox's entrypoint; Return: its exit code, or -1; *out holds what it wrote to /dev/shm/out. */
static int run(struct box *box, const char *script, char *out, size_t size)
{
	const char *argv[] = {"/bin/bash", "-c", script, NULL};
	struct agent_status status = {0};

	out[0] = '\0';
	if (box->status || btc_run(box->fds, argv, &status) < 0)
		return -1;
	auto_fd root = btc_root(box->made.pid);
	auto_fd fd = openat(root, "dev/shm/out", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
	out[n > 0 ? n : 0] = '\0';
	return status.exit_signal ? 128 + status.exit_signal : status.exit_code;
}

/* The number that @command prints, -1 when it prints none; %s in it is the test's directory. */
static long count(const char *format)
{
	char command[256], text[32] = "";
	uint32_t n = 0;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(command, sizeof(command), format, t.dir);
#pragma GCC diagnostic pop
	FILE *f = popen(command, "re");
	bool good = f && fgets(text, sizeof(text), f) && num_u32(text, strcspn(text, "\n"), UINT32_MAX, &n) == 0;
	if (f)
		pclose(f);
	return good ? (long)n : -1;
}

/* Loop devices on files of this test. */
static long devices(void)
{
	return count("cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c '^%s/'");
}

static long devices_become(long want)
{
	long n = -1;

	for (int i = 0; i < WAIT_STEPS && (n = devices()) != want; i++)
		poll(NULL, 0, 100);
	return n;
}

/* ---- the limit ---- */

struct fill {
	const char *what, *script;
	bool quick;
};

/* Each prints nothing when it was held: what it was told stands in /dev/shm/out. */
static const struct fill fills[] = {
	{"one file", "dd if=/dev/zero of=/f bs=1M count=200 2>/dev/null && echo unbounded; rm -f /f", true},
	{"many places", "for d in / /tmp /root /etc /var/tmp; do dd if=/dev/zero of=$d/f bs=1M count=40 2>/dev/null; done; "
			"s=0; for d in / /tmp /root /etc /var/tmp; do s=$((s + $(stat -c %s $d/f 2>/dev/null || echo 0))); done; "
			"[ $s -le 67108864 ] || echo $s bytes; rm -f /f /tmp/f /root/f /etc/f /var/tmp/f", false},
	{"fallocate", "fallocate -l 200M /f 2>/dev/null && echo unbounded; rm -f /f", false},
	{"a file of 1 TB that is a hole", "truncate -s 1T /f || echo no hole; dd if=/dev/zero of=/f bs=1M seek=900000 count=200 conv=notrunc 2>/dev/null && echo "
					  "unbounded; rm -f /f", false},
	{"small files", "mkdir /d; cd /d; python3 - <<'E'\nimport os\nn=0\ntry:\n for i in range(20000):\n  os.close(os.open(str(i),os.O_CREAT|os.O_WRONLY)); "
			"n+=1\nexcept OSError as e:\n assert e.errno in (28,122),e\nif n > 64*64: print('made', n)\nE\ncd /; rm -rf /d", true},
	{"a deep tree", "python3 - <<'E'\nimport os\nos.mkdir('/t'); os.chdir('/t'); n=0\ntry:\n for i in range(20000):\n  os.mkdir('d'); os.chdir('d'); n+=1\nexcept "
			"OSError as e:\n assert e.errno in (28,122),e\nif n > 64*64: print('depth', n)\nE\ncd /; rm -rf /t", false},
	{"files without a name", "python3 - <<'E'\nimport os\nfds=[]; n=0\ntry:\n for i in range(40):\n  fd=os.open('/var/tmp',os.O_TMPFILE|os.O_RDWR); fds.append(fd)\n  "
				 "for k in range(8): n+=os.write(fd,b'x'*(1<<20))\nexcept OSError as e:\n assert e.errno in (28,122,95),e\nif n > 64<<20: print(n)\nE", false},
	{"mapped pages", "python3 - <<'E'\nimport os,mmap,signal,sys\npid=os.fork()\nif pid==0:\n fd=os.open('/m',os.O_CREAT|os.O_RDWR); "
			 "os.ftruncate(fd,200<<20)\n m=mmap.mmap(fd,200<<20)\n for i in range(0,200<<20,4096): m[i]=1\n m.flush(); os._exit(0)\n"
			 "s=os.waitpid(pid,0)[1]\nif s==0 and os.stat('/m').st_blocks*512 > 64<<20: print('unbounded', os.stat('/m').st_blocks)\nE\nrm -f /m", false},
	{"extended attributes", "python3 - <<'E'\nimport os\nn=0\ntry:\n for i in range(20000):\n  p='/var/tmp/x%d'%i; open(p,'w').close(); os.setxattr(p,'user.a',os.urandom(2000)); "
				"os.setxattr(p,'user.b',os.urandom(1500)); n+=1\nexcept OSError as e:\n assert e.errno in (28,122),e\nif n*4096 > 64<<20: print(n)\nE\n"
				"find /var/tmp -name 'x*' -delete", false},
	/* FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR: another project, or none to inherit; FS_IOC_SETFLAGS: the same by its other name */
	{"another project", "mkdir /p; python3 - <<'E'\nimport fcntl,os,struct\nfor path in ('/p','/'):\n fd=os.open(path,os.O_RDONLY)\n for proj in (0,4711):\n"
			    "  for flags in (0,0x200):\n   try:\n    b=bytearray(28); fcntl.ioctl(fd,0x801c581f,b); x=struct.unpack('IIIII8s',bytes(b))\n"
			    "    fcntl.ioctl(fd,0x401c5820,struct.pack('IIIII8s',x[0]&~0x200|flags,x[1],x[2],proj,x[4],x[5]))\n   except OSError: pass\n"
			    " try: fcntl.ioctl(fd,0x40086602,struct.pack('Q',0))\n except OSError: pass\nE\n"
			    "for d in /p /; do dd if=/dev/zero of=$d/f bs=1M count=100 2>/dev/null && echo unbounded; done; [ $(($(stat -c %s /p/f 2>/dev/null || echo 0) + $(stat -c %s /f 2>/dev/null || "
			    "echo 0))) -le "
			    "67108864 ] || echo too much; rm -rf /p /f", true},
	{"a hard link game", "echo a > /h; python3 - <<'E'\nimport os\nn=0\nos.mkdir('/hl')\ntry:\n for i in range(4000):\n  os.link('/h','/hl/%d'%i+'x'*200); n+=1\nexcept OSError "
			     "as e:\n assert e.errno in (28,31,122),e\nE\nrm -rf /hl /h; echo fine > /after || echo no room after", false},
};

static void the_limit(void)
{
	char out[256];

	for (size_t i = 0; i < ARRAY_SIZE(fills); i++) {
		char script[2048];

		if (quick && !fills[i].quick)
			continue;
		struct box box = make(LIMIT_MIB);

		snprintf(script, sizeof(script), "{ %s\n} >/dev/shm/out 2>/dev/shm/err; cat /dev/shm/err >>/dev/shm/out; exit 0", fills[i].script);
		int r = run(&box, script, out, sizeof(out));
		ok(r == 0 && !out[0], "held: %s", fills[i].what);
		if (r || out[0])
			printf("# %d: %s\n", r, out);
		end(&box);
	}
}

static uint64_t figure(const struct box *box, union broker_any *any)
{
	return btc_slot_call(&t, BROKER_OP_SANDBOX_STAT, box->made.ref, 0, any, NULL) == 0 ? any->stat_reply.disk_limit_bytes : 0;
}

static void told(void)
{
	union broker_any any = {0};
	char out[256];
	struct box free_box = make(0), box = make(LIMIT_MIB);

	ok(!free_box.status && figure(&free_box, &any) == 0, "a sandbox without a limit has none");
	ok(run(&free_box, "dd if=/dev/zero of=/f bs=1M count=100 2>/dev/null; stat -c %s /f >/dev/shm/out", out, sizeof(out)) == 0, "it writes 100 MiB");
	is_str(out, "104857600\n", "all of them");
	end(&free_box);
	uint64_t limit = figure(&box, &any);
	ok(limit == LIMIT_MIB * MIB && any.stat_reply.disk_used_bytes < 8 * MIB && any.stat_reply.disk_limit_inodes == LIMIT_MIB * 64,
	   "STAT tells the limit: %llu bytes, %llu used, %llu inodes", (unsigned long long)any.stat_reply.disk_limit_bytes,
	   (unsigned long long)any.stat_reply.disk_used_bytes, (unsigned long long)any.stat_reply.disk_limit_inodes);
	ok(run(&box, "dd if=/dev/zero of=/f bs=1M count=20 2>/dev/null; sync -f /f; df --output=size -B1 / | tail -1 >/dev/shm/out", out, sizeof(out)) == 0, "20 MiB");
	uint64_t shown = 0;
	out[strcspn(out, "\n")] = '\0';
	const char *digits = out + strspn(out, " ");
	ok(num_u64(digits, strlen(digits), UINT64_MAX, &shown) == 0 && shown > 48 * MIB && shown <= LIMIT_MIB * MIB, "df inside shows the limit: %s", out);
	limit = figure(&box, &any);
	ok(limit && any.stat_reply.disk_used_bytes >= 20 * MIB && any.stat_reply.disk_used_bytes < 30 * MIB, "and STAT what is used: %llu",
	   (unsigned long long)any.stat_reply.disk_used_bytes);
	ok(quick || btc_restart(&t) == 0, "the broker is killed and starts again");
	ok(figure(&box, &any) == LIMIT_MIB * MIB && any.stat_reply.disk_used_bytes >= 20 * MIB, "it still tells both");
	end(&box);
}

static void refused(void)
{
	struct box box = make(8);

	ok(box.status == SBX_E_INVALID_REQUEST && strstr(box.made.text, "16 MiB"), "less than the least: %s", box.made.text);
	box = make(UINT32_MAX);
	ok(box.status == SBX_E_INVALID_REQUEST && strstr(box.made.text, "state directory has"), "more than the host has: %s", box.made.text);
	if (quick)
		return;
	box = make(65 * 1024); /* made beside the others */
	ok(!box.status || ((box.status == SBX_E_INVALID_REQUEST || box.status == SBX_E_STATE_FULL) && strstr(box.made.text, "state directory")),
	   "a huge one is made where there is room: %s", box.made.text);
	end(&box);
}

/* ---- volumes ---- */

static int volume(uint32_t op, const char *claim, uint32_t mib, uint32_t at_least, int *ret_sys)
{
	struct broker_volume_req req = {.size_mib = mib, .at_least = at_least};
	union broker_any any;

	snprintf(req.claim, sizeof(req.claim), "%s", claim);
	ssize_t n = btc_call(&t, &req, sizeof(req), op, -1, &any, NULL);
	if (n > 0 && any.reply.status)
		printf("# volume %s: %s\n", claim, any.reply.text);
	if (ret_sys)
		*ret_sys = n > 0 ? any.reply.sys : 0;
	return n > 0 ? any.reply.status : -1;
}

static struct box with_volume(const char *claim)
{
	struct box box = {.fds = {-1, -1}};

	btc_host_create(&t, &create);
	create.n_volumes = 1;
	create.volume[0].kind = BROKER_VOLUME_NAMED;
	snprintf(create.volume[0].claim, sizeof(create.volume[0].claim), "%s", claim);
	snprintf(create.volume[0].mount_path, sizeof(create.volume[0].mount_path), "/data");
	box.status = btc_create(&t, &create, &box.made, box.fds);
	if (box.status)
		printf("# create with volume %s: %s\n", claim, box.made.text);
	return box;
}

/* Whether the broker, which has what we have, may make a mounted ext4 larger. */
static bool has_resource(void)
{
	return count("grep -c '^CapEff:.*[13579bdf]......$' /proc/self/status # %s") == 1;
}

/* What the sandbox wrote into /data/out of the volume is read back by the next one as its exit code: 0. */
static void volumes(void)
{
	char out[256];
	int sys = 0;

	ok(volume(BROKER_OP_VOLUME_MAKE, "sized", 32, 0, &sys) == 0 && sys == 0, "a volume of 32 MiB is made");
	ok(volume(BROKER_OP_VOLUME_MAKE, "sized", 32, 1, &sys) == 0 && sys == EEXIST, "it is there");
	ok(volume(BROKER_OP_VOLUME_MAKE, "small", 8, 0, NULL) == SBX_E_INVALID_REQUEST, "less than the least is refused");
	bool grows = !loops || has_resource();
	int larger = volume(BROKER_OP_VOLUME_MAKE, "sized", 48, 1, &sys);
	ok(grows ? larger == 0 && sys == EEXIST : larger == SBX_E_VOLUME_SIZE, "larger than it is: %s", grows ? "it grows" : "refused, since ext4 wants CAP_SYS_RESOURCE");
	struct box one = with_volume("sized"), two = with_volume("sized");
	larger = volume(BROKER_OP_VOLUME_MAKE, "sized", 200, 1, &sys);
	ok(grows ? larger == 0 && sys == EEXIST : larger == SBX_E_VOLUME_SIZE, "and again, in use");
	ok(volume(BROKER_OP_VOLUME_MAKE, "sized", 16, 1, &sys) == 0 && sys == EEXIST, "smaller: it stays as it is");
	uint64_t most = (grows ? 200 : 32) * MIB, least = grows ? 150000000 : 10000000;
	ok(run(&one, "dd if=/dev/zero of=/data/f bs=1M count=300 2>/dev/null && exit 1; echo kept >/root/x; rm -f /data/f; echo kept >/data/kept; stat -c %u:%g /data >/dev/shm/out; "
		     "dd if=/dev/zero of=/data/g bs=1M count=300 2>/dev/null; exit 0", out, sizeof(out)) == 0, "it is full where its size says");
	is_str(out, "0:0\n", "and belongs to root inside");
	char script[256];
	snprintf(script, sizeof(script), "[ $(stat -c %%s /data/g) -gt %llu ] && [ $(stat -c %%s /data/g) -le %llu ] && cat /data/kept >/dev/shm/out && ls -A /data >>/dev/shm/out",
		 (unsigned long long)least, (unsigned long long)most);
	ok(run(&two, script, out, sizeof(out)) == 0, "another sandbox at the same time sees the same");
	is_str(out, "kept\ng\nkept\n", "its files and nothing else");
	ok(volume(BROKER_OP_VOLUME_DROP, "sized", 0, 0, NULL) == SBX_E_IMAGE_IN_USE, "in use it is not dropped");
	end(&one);
	end(&two);
	ok(quick || btc_restart(&t) == 0, "the broker is killed and starts again");
	struct box three = with_volume("sized");
	ok(run(&three, "rm /data/g && cat /data/kept >/dev/shm/out", out, sizeof(out)) == 0, "a later sandbox");
	is_str(out, "kept\n", "finds what was written");
	end(&three);
	int dropped = -1;
	/* the slot is drained a moment after the kill was answered */
	for (int i = 0; i < WAIT_STEPS && (dropped = volume(BROKER_OP_VOLUME_DROP, "sized", 0, 0, NULL)) == SBX_E_IMAGE_IN_USE; i++)
		poll(NULL, 0, 100);
	ok(dropped == 0, "it is dropped");
	ok(with_volume("sized").status == SBX_E_VOLUME_NOT_FOUND, "and gone");
}

/* The drop comes right behind a create that has yet to wait for its disk. */
static void volume_of_a_waiting_create(void)
{
	struct broker_volume_req drop = {.size_mib = 0};
	union broker_any any;
	struct box box = {.fds = {-1, -1}, .status = -1};
	int dropped = -1;

	ok(volume(BROKER_OP_VOLUME_MAKE, "waited", 32, 0, NULL) == 0, "another volume");
	btc_host_create(&t, &create);
	create.disk_mib = LIMIT_MIB + 16; /* of which the pool has none */
	create.n_volumes = 1;
	create.volume[0].kind = BROKER_VOLUME_NAMED;
	snprintf(create.volume[0].claim, sizeof(create.volume[0].claim), "waited");
	snprintf(create.volume[0].mount_path, sizeof(create.volume[0].mount_path), "/data");
	snprintf(drop.claim, sizeof(drop.claim), "waited");
	uint64_t first = btc_send(&t, t.fd, &create, sizeof(create), BROKER_OP_SANDBOX_CREATE, -1);
	uint64_t second = btc_send(&t, t.fd, &drop, sizeof(drop), BROKER_OP_VOLUME_DROP, -1);
	for (int seen = 0; first && second && seen < 2;) {
		int fds[2] = {-1, -1};

		if (btc_recv(t.fd, &any, fds, WAIT_STEPS * 100) <= 0)
			break;
		seen += any.head.tag == first || any.head.tag == second;
		if (any.head.tag == second)
			dropped = any.reply.status;
		if (any.head.tag == first) {
			box = (struct box){.made = any.create_reply, .fds = {fds[0], fds[1]}, .status = any.create_reply.status};
			continue;
		}
		close_keep_errno(fds[0]);
		close_keep_errno(fds[1]);
	}
	ok(dropped == SBX_E_IMAGE_IN_USE, "what a create waits to use is not dropped (%d)", dropped);
	ok(box.status == 0, "and the create has it (%d %s)", box.status, box.made.text);
	end(&box);
	for (int i = 0; i < WAIT_STEPS && (dropped = volume(BROKER_OP_VOLUME_DROP, "waited", 0, 0, NULL)) == SBX_E_IMAGE_IN_USE; i++)
		poll(NULL, 0, 100);
	ok(dropped == 0, "when it has ended, it is dropped");
	ok(count("find %s/state/trash -mindepth 1 -maxdepth 1 -uid 0 | grep -c waited") == 0, "and the trash may empty it");
}

/* ---- the worker ends ---- */

/* The process that makes disks has their directory as its descriptor 4. */
static pid_t disk_worker(void)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "for p in $(cat /proc/%d/task/*/children); do [ \"$(readlink /proc/$p/fd/4)\" = %%s/state/disks ] && echo $p; done", (int)t.pid);
	return (pid_t)count(command);
}

static bool has_ended(pid_t pid)
{
	char command[64];

	snprintf(command, sizeof(command), "grep -c '^State:.Z' /proc/%d/status # %%s", (int)pid);
	for (int i = 0; i < WAIT_STEPS; i++) {
		if (count(command) == 1)
			return true;
		poll(NULL, 0, 100);
	}
	return false;
}

/* The broker sleeps meanwhile, so that it reads the request before it hears of the end. */
static void create_beside_the_end(void)
{
	union broker_any any = {0};
	struct box box = {.fds = {-1, -1}, .status = -1};

	if (!loops) {
		tap_skip("a create beside the worker's end", "project quotas have no worker");
		return;
	}
	pid_t worker = disk_worker();
	ok(worker > 0, "the process that makes disks is found (%d)", (int)worker);
	btc_host_create(&t, &create);
	create.disk_mib = LIMIT_MIB + 40; /* of which the pool has none */
	ok(kill(t.pid, SIGSTOP) == 0, "the broker sleeps");
	uint64_t tag = btc_send(&t, t.fd, &create, sizeof(create), BROKER_OP_SANDBOX_CREATE, -1);
	ok(tag && worker > 0 && kill(worker, SIGKILL) == 0 && has_ended(worker), "the other ends after a create was sent");
	ok(kill(t.pid, SIGCONT) == 0, "the broker goes on");
	for (bool seen = false; tag && !seen;) {
		int fds[2] = {-1, -1};

		if (btc_recv(t.fd, &any, fds, WAIT_STEPS * 100) <= 0)
			break;
		seen = any.head.tag == tag;
		if (seen) {
			box = (struct box){.made = any.create_reply, .fds = {fds[0], fds[1]}, .status = any.create_reply.status};
			continue;
		}
		close_keep_errno(fds[0]);
		close_keep_errno(fds[1]);
	}
	ok(box.status == 0, "the create has its disk from the next one (%d %s)", box.status, box.made.text);
	pid_t next = disk_worker();
	ok(next > 0 && next != worker, "there is a next one (%d)", (int)next);
	end(&box);
}

/* ---- after a kill ---- */

#ifdef SBX_FAULT_POINTS

/* A process that sleeps with the image of the broken create's volume: a child of the one that makes disks. */
static pid_t closer(void)
{
	char command[256];

	snprintf(command, sizeof(command), "for p in $(cat /proc/%d/task/*/children); do grep -q '^State:.T' /proc/$p/status && echo $p; done # %%s", (int)disk_worker());
	for (int i = 0; i < WAIT_STEPS; i++) {
		pid_t pid = (pid_t)count(command);

		if (pid > 0)
			return pid;
		poll(NULL, 0, 100);
	}
	return -1;
}

static void end_broker(void)
{
	char path[128];

	if (t.pid > 0)
		kill(t.pid, SIGKILL);
	btc_wait_end(&t);
	close_keep_errno(t.fd);
	t.fd = -1;
	snprintf(path, sizeof(path), "%s/run/broker.sock", t.dir);
	unlink(path);
}

static void killed_at(const char *point, bool worker)
{
	char wish[64];

	snprintf(wish, sizeof(wish), "SBX_FAULT=%s:kill", point);
	if (btc_spawn(&t, wish) < 0 || btc_hello(&t) < 0) {
		ok(false, "%s: the broker starts", point);
		return;
	}
	btc_host_create(&t, &create);
	create.disk_mib = LIMIT_MIB;
	struct broker_create_reply made = {0};
	int fds[2] = {-1, -1};
	int status = btc_create(&t, &create, &made, fds);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	/* the worker's end is an answer, the broker's own the end of the connection */
	ok(worker ? status == SBX_E_START_FAILED : status < 0, "%s: the create fails (%d)", point, status);
	end_broker();
	ok(btc_spawn(&t, NULL) == 0 && btc_hello(&t) == 0, "%s: the broker starts again", point);
	struct box box = make(LIMIT_MIB);
	ok(box.status == 0, "%s: and makes a sandbox with a limit", point);
	end(&box);
	end_broker();
	ok(devices_become(0) == 0, "%s: no loop device stays", point);
}

/* The first volume is mounted when the second one turns out not to be a file system. */
static void closed_elsewhere(void)
{
	static const char *const claims[] = {"whole", "broken"};
	const char *held = "cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c '^%s/state/volumes/whole/'";
	long n = -1;

	ok(btc_spawn(&t, "SBX_FAULT=disk-close:stop") == 0 && btc_hello(&t) == 0, "a broker whose volumes are closed by one who sleeps");
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++)
		ok(volume(BROKER_OP_VOLUME_MAKE, claims[i], 32, 0, NULL) == 0, "volume %s", claims[i]);
	ok(count("dd if=/dev/zero of=%s/state/volumes/broken/disk bs=4096 count=1 conv=notrunc 2>/dev/null && echo 1") == 1, "one of them is none any more");
	btc_host_create(&t, &create);
	create.n_volumes = ARRAY_SIZE(claims);
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		create.volume[i].kind = BROKER_VOLUME_NAMED;
		snprintf(create.volume[i].claim, sizeof(create.volume[i].claim), "%s", claims[i]);
		snprintf(create.volume[i].mount_path, sizeof(create.volume[i].mount_path), "/v%zu", i);
	}
	struct box box = {.fds = {-1, -1}};
	box.status = btc_create(&t, &create, &box.made, box.fds);
	ok(box.status == SBX_E_SYSTEM, "the create fails (%d %s)", box.status, box.made.text);
	end(&box);
	pid_t pid = closer();
	ok(pid > 0, "another process than the broker closes the volume that was mounted (%d)", (int)pid);
	ok(count(held) == 1, "while it does not, it is held");
	struct box next = make(0);
	ok(next.status == 0, "the broker makes sandboxes meanwhile");
	end(&next);
	ok(pid > 0 && kill(pid, SIGCONT) == 0, "it goes on");
	for (int i = 0; i < WAIT_STEPS && (n = count(held)) != 0; i++)
		poll(NULL, 0, 100);
	ok(n == 0, "and nobody holds the volume");
	end_broker();
}

/* A volume whose growth is killed: for a sandbox that has it and for one that comes later it is what it was asked to be. */
static void growth_killed_at(const char *point)
{
	static const char more[] = "dd if=/dev/zero of=/data/f bs=1M count=80 2>/dev/null && cat /data/kept >/dev/shm/out && rm /data/f";
	char wish[64], out[64];
	int sys = 0;

	snprintf(wish, sizeof(wish), "SBX_FAULT=%s:kill", point);
	ok(btc_spawn(&t, wish) == 0 && btc_hello(&t) == 0, "%s: the broker starts", point);
	ok(volume(BROKER_OP_VOLUME_MAKE, "asked", 32, 0, NULL) == 0 && volume(BROKER_OP_VOLUME_MAKE, "left", 32, 0, NULL) == 0, "%s: two volumes", point);
	struct box writer = with_volume("left"), other = with_volume("asked"), has = with_volume("asked");
	ok(run(&writer, "echo kept >/data/kept; sync", out, sizeof(out)) == 0 && run(&other, "echo kept >/data/kept; sync", out, sizeof(out)) == 0,
	   "%s: written to", point);
	end(&writer);
	end(&other);
	ok(volume(BROKER_OP_VOLUME_MAKE, "asked", 128, 1, NULL) == SBX_E_START_FAILED && volume(BROKER_OP_VOLUME_MAKE, "left", 128, 1, NULL) == SBX_E_START_FAILED,
	   "%s: who makes them larger is killed: that is answered", point);
	end_broker();
	ok(btc_spawn(&t, NULL) == 0 && btc_hello(&t) == 0, "%s: the broker starts again", point);
	ok(volume(BROKER_OP_VOLUME_MAKE, "asked", 128, 1, &sys) == 0 && sys == EEXIST, "%s: one is asked for again", point);
	ok(run(&has, more, out, sizeof(out)) == 0, "%s: who had it before has the room", point);
	is_str(out, "kept\n", "%s: and what was there", point);
	end(&has);
	struct box late = with_volume("left");
	ok(run(&late, more, out, sizeof(out)) == 0, "%s: who gets the other one has it, too", point);
	is_str(out, "kept\n", "%s: and what was there", point);
	end(&late);
	for (size_t i = 0; i < 2; i++) {
		int dropped = -1;

		for (int k = 0; k < WAIT_STEPS && (dropped = volume(BROKER_OP_VOLUME_DROP, i ? "left" : "asked", 0, 0, NULL)) == SBX_E_IMAGE_IN_USE; k++)
			poll(NULL, 0, 100);
		ok(dropped == 0, "%s: it is dropped", point);
	}
	end_broker();
}

static void growth_kills(void)
{
	if (!loops || !has_resource()) {
		tap_skip("kills of a growth", loops ? "no CAP_SYS_RESOURCE" : "project quotas have no steps in between");
		return;
	}
	end_broker();
	growth_killed_at("volume-longer");
	growth_killed_at("disk-longer");
	ok(btc_spawn(&t, NULL) == 0 && btc_hello(&t) == 0, "the broker starts again");
}

static void kills(void)
{
	static const struct {
		const char *point;
		bool worker;
	} points[] = {{"disk-copied", true}, {"disk-attached", true}, {"disk-made", true}, {"disk-taken", false}};

	if (!loops) {
		tap_skip("kills", "project quotas have no steps in between");
		return;
	}
	end_broker();
	closed_elsewhere();
	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		killed_at(points[i].point, points[i].worker);
	ok(btc_spawn(&t, "SBX_FAULT=disk-volume:kill") == 0 && btc_hello(&t) == 0, "a broker whose volume is cut off");
	ok(volume(BROKER_OP_VOLUME_MAKE, "cut", 32, 0, NULL) == SBX_E_START_FAILED, "its maker is killed: that is answered");
	end_broker();
	/* a volume with an image whose broker was killed before it gave it to the trash's worker */
	ok(count("mkdir -m 700 %s/state/trash/half.1 && echo 1") == 1, "half put away");
	ok(btc_spawn(&t, NULL) == 0 && btc_hello(&t) == 0, "a broker to look at what is left");
	long half = 1;
	for (int i = 0; i < WAIT_STEPS && (half = count("ls %s/state/trash | grep -c half")) != 0; i++)
		poll(NULL, 0, 100);
	ok(half == 0, "it is emptied");
	ok(count("ls %s/state/volumes | grep -c cut") == 0 && count("ls %s/state/disks | grep -c '^t'") == 0, "nothing of the volume is left");
	ok(volume(BROKER_OP_VOLUME_MAKE, "cut", 32, 0, NULL) == 0, "and it can be made");
	end_broker();
	ok(btc_spawn(&t, "SBX_FAULT=disk-published:fail") == 0 && btc_hello(&t) == 0, "a broker that cannot write a name to the disk");
	ok(volume(BROKER_OP_VOLUME_MAKE, "unsaid", 32, 0, NULL) == SBX_E_SYSTEM, "the volume is not made");
	ok(count("ls %s/state/volumes | grep -c unsaid") == 0 && count("ls %s/state/disks | grep -c '^t'") == 0, "and nothing of it is there");
	ok(with_volume("unsaid").status == SBX_E_VOLUME_NOT_FOUND, "for sandboxes too");
}

#endif

int main(void)
{
	const char *backend = getenv("DISK_BACKEND");
	char extra[256];

	quick = getenv("DISK_QUICK") != NULL;

	snprintf(extra, sizeof(extra), "[pool]\ntarget = 2\ndisks = 2\n[limits]\ndisk_reserve = false\ndisk_backend = \"%s\"\n", backend ? backend : "auto");
	if (!ok(btc_start(&t, "disk", extra) == 0, "the broker starts")) {
		btc_stop(&t, true);
		return tap_done();
	}
	struct box probe = make(LIMIT_MIB);
	if (probe.status == SBX_E_HOST_LACKS) {
		tap_skip("disk limits", probe.made.text);
		btc_stop(&t, false);
		return tap_done();
	}
	loops = devices() > 0;
	ok(probe.status == 0, "a sandbox with a limit is made (%s)", loops ? "loop images" : "project quotas");
	end(&probe);
	the_limit();
	told();
	refused();
	volumes();
	volume_of_a_waiting_create();
	create_beside_the_end();
#ifdef SBX_FAULT_POINTS
	growth_kills();
	if (!quick)
		kills();
#endif
	btc_stop(&t, tap_failed > 0);
	ok(devices_become(0) == 0, "no loop device stays when the broker has ended");
	return tap_done();
}
