// SPDX-License-Identifier: Apache-2.0
/*
 * The attacker is sandboxd itself: every request in every wrong state with every wrong argument, from it, from dnsd, and from
 * nobody we know.  The broker has to refuse, stay alive, and leave the host as it was.
 */
#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fdpass.h"
#include "base/num.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 3000

static struct btc t;
static struct broker_create create;

static const size_t op_size[BROKER_OP_COUNT] = {
	[BROKER_OP_HELLO] = sizeof(struct broker_hello),
	[BROKER_OP_SANDBOX_CREATE] = sizeof(struct broker_create),
	[BROKER_OP_CHANNEL_OPEN] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_KILL] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_FREEZE] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_THAW] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_STAT] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_LIST] = sizeof(struct broker_plain_req),
	[BROKER_OP_SOCKET_OPEN] = sizeof(struct broker_slot_req),
	[BROKER_OP_LAYER_UNPACK] = sizeof(struct broker_layer_req),
	[BROKER_OP_LAYER_STAT] = sizeof(struct broker_layer_req),
	[BROKER_OP_LAYER_DROP] = sizeof(struct broker_layer_req),
	[BROKER_OP_LAYER_LIST] = sizeof(struct broker_layers_req),
	[BROKER_OP_LAYER_SWEEP] = sizeof(struct broker_plain_req),
	[BROKER_OP_LAYER_CAPTURE] = sizeof(struct broker_capture_req),
	[BROKER_OP_LAYER_VERIFY] = sizeof(struct broker_layer_req),
	[BROKER_OP_SANDBOX_LAYERS] = sizeof(struct broker_slot_req),
	[BROKER_OP_SANDBOX_CAPTURE] = sizeof(struct broker_capture_req),
	[BROKER_OP_ARCHIVE_INDEX] = sizeof(struct broker_capture_req),
	[BROKER_OP_VOLUME_MAKE] = sizeof(struct broker_volume_req),
	[BROKER_OP_VOLUME_DROP] = sizeof(struct broker_volume_req),
	[BROKER_OP_HOST_ROW] = sizeof(struct broker_plain_req),
	[BROKER_OP_FILES_DROP] = sizeof(struct broker_slot_req),
	[BROKER_OP_DNS_SOCKETS] = sizeof(struct broker_plain_req),
	[BROKER_OP_POLICY] = sizeof(struct broker_policy),
	[BROKER_OP_PIN] = sizeof(struct broker_pin),
	[BROKER_OP_UNPIN] = sizeof(struct broker_pin),
	[BROKER_OP_LOG_SOCKET] = sizeof(struct broker_plain_req),
	[BROKER_OP_FLOWS] = sizeof(struct broker_plain_req),
	[BROKER_OP_GATE] = sizeof(struct broker_plain_req),
};

static bool carries_file(uint32_t op)
{
	return op == BROKER_OP_LAYER_UNPACK || op == BROKER_OP_LAYER_CAPTURE || op == BROKER_OP_SANDBOX_CAPTURE || op == BROKER_OP_ARCHIVE_INDEX;
}

/* What sandbox-dnsd may send besides HELLO, and sandboxd may not. */
static const uint32_t dnsd_ops[] = {BROKER_OP_DNS_SOCKETS, BROKER_OP_PIN, BROKER_OP_UNPIN, BROKER_OP_LOG_SOCKET, BROKER_OP_FLOWS, BROKER_OP_GATE};

static bool is_dnsd_op(uint32_t op)
{
	for (size_t i = 0; i < ARRAY_SIZE(dnsd_ops); i++)
		if (dnsd_ops[i] == op)
			return true;
	return false;
}

/* A message of @op that the decoder lets through. */
static void fill_valid(union broker_any *any, uint32_t op)
{
	memset(any, 0, sizeof(*any));
	if (op == BROKER_OP_PIN || op == BROKER_OP_UNPIN) {
		any->pin.n_addrs = 1;
		any->pin.addr[0] = 0xc633640a;
		any->pin.lease_ms = op == BROKER_OP_PIN ? 60000 : 0;
	}
}

static const uint32_t slot_ops[] = {BROKER_OP_CHANNEL_OPEN, BROKER_OP_SANDBOX_KILL, BROKER_OP_SANDBOX_FREEZE, BROKER_OP_SANDBOX_THAW,
				    BROKER_OP_SANDBOX_STAT, BROKER_OP_SOCKET_OPEN, BROKER_OP_SANDBOX_LAYERS};

/* A new connection as @uid, with HELLO said when @greet. */
static int connection(uint32_t uid, bool greet)
{
	struct broker_hello hello = {.version = BROKER_VERSION};
	union broker_any any;
	int fd = btc_connect(&t, uid);

	if (fd >= 0 && greet) {
		btc_send(&t, fd, &hello, sizeof(hello), BROKER_OP_HELLO, -1);
		if (btc_recv(fd, &any, NULL, WAIT_MS) <= 0) {
			close(fd);
			return -1;
		}
	}
	return fd;
}

/* Whether the broker hangs up on @fd without a word. */
static bool hung_up(int fd)
{
	union broker_any any;
	int fds[2];
	ssize_t n = btc_recv(fd, &any, fds, WAIT_MS);

	return n == 0 || n == -ECONNRESET || n == -EPIPE;
}

static bool alive(void)
{
	union broker_any any;
	struct broker_plain_req req = {0};

	return btc_call(&t, &req, sizeof(req), BROKER_OP_HOST_ROW, -1, &any, NULL) == sizeof(any.host_reply) && kill(t.pid, 0) == 0;
}

static void strangers(void)
{
	static const uint32_t uids[] = {0, 1, 1000, 65534, 0x20000000 - 0x40000 - 5};
	union broker_any any;

	for (size_t i = 0; i < ARRAY_SIZE(uids); i++) {
		struct broker_hello hello = {.version = BROKER_VERSION};
		auto_fd fd = btc_connect(&t, uids[i]);

		btc_send(&t, fd, &hello, sizeof(hello), BROKER_OP_HELLO, -1);
		ok(hung_up(fd), "uid %u is nobody to the broker", uids[i]);
	}
	for (uint32_t op = BROKER_OP_HELLO; op < BROKER_OP_COUNT; op++) {
		auto_fd fd = connection(t.dnsd_uid, true);

		memset(&any, 0, sizeof(any));
		if (op == BROKER_OP_HELLO || is_dnsd_op(op))
			continue;
		btc_send(&t, fd, &any, op_size[op], op, carries_file(op) ? 0 : -1);
		ok(hung_up(fd), "dnsd may not send request %u", op);
	}
	for (size_t i = 0; i < ARRAY_SIZE(dnsd_ops); i++) {
		fill_valid(&any, dnsd_ops[i]);
		btc_send(&t, t.fd, &any, op_size[dnsd_ops[i]], dnsd_ops[i], -1);
		ok(hung_up(t.fd), "sandboxd may not send dnsd's request %u", dnsd_ops[i]);
		close(t.fd);
		ok(btc_hello(&t) == 0, "it may come back");
	}
}

static void malformed(void)
{
	for (uint32_t op = 0; op < BROKER_OP_COUNT + 2; op++) {
		size_t size = op < BROKER_OP_COUNT && op_size[op] ? op_size[op] : 64;
		static const char *const how[] = {"before HELLO", "too short", "too long", "wrong size field", "wrong magic", "reserved head field", "a descriptor too many"};

		for (size_t k = 0; k < ARRAY_SIZE(how); k++) {
			static unsigned char bytes[sizeof(union broker_any) + 64];
			struct broker_head *head = (struct broker_head *)(void *)bytes;
			auto_fd fd = connection(t.sandboxd_uid, k != 0);
			size_t n = k == 1 ? sizeof(*head) + 1 : k == 2 ? size + 8 : size;

			if (k == 0 && op == BROKER_OP_HELLO)
				continue;
			memset(bytes, 0, sizeof(bytes));
			*head = (struct broker_head){.magic = BROKER_MAGIC, .op = op, .tag = 1, .size = (uint32_t)n};
			head->size += k == 3;
			head->magic ^= k == 4;
			head->zero = k == 5;
			struct iovec iov = {.iov_base = bytes, .iov_len = n};
			int extra[2] = {0, 0};
			if (fdpass_send(fd, &iov, 1, extra, k == 6 ? 2 : carries_file(op) ? 1 : 0) < 0 || !hung_up(fd)) {
				ok(false, "request %u, %s: hung up", op, how[k]);
				return;
			}
		}
	}
	ok(alive(), "every request malformed in %d ways: the connection ends, the broker goes on", 7);
}

static void wrong_slots(struct broker_slot_ref live)
{
	const struct broker_slot_ref refs[] = {
		{.slot = live.slot, .generation = 0},
		{.slot = live.slot, .generation = live.generation + 1},
		{.slot = live.slot, .generation = live.generation - 1},
		{.slot = live.slot + 1, .generation = live.generation},
		{.slot = 1999, .generation = 1},
		{.slot = 2000, .generation = live.generation},
		{.slot = UINT32_MAX, .generation = live.generation},
		{.slot = 0x80000000u + live.slot, .generation = live.generation},
	};

	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		for (size_t k = 0; k < ARRAY_SIZE(slot_ops); k++) {
			int r = btc_slot_call(&t, slot_ops[k], refs[i], BROKER_CHANNEL_EXEC, NULL, NULL);

			if (r <= 0)
				ok(false, "request %u on slot %u.%u: %d", slot_ops[k], refs[i].slot, refs[i].generation, r);
		}
	ok(alive(), "no request acts on a slot that is not named exactly");
	ok(btc_slot_call(&t, BROKER_OP_FILES_DROP, live, 0, NULL, NULL) > 0, "the files of a life are no left-over");
	char upper[128];
	snprintf(upper, sizeof(upper), "%s/state/sandboxes/%u.%u/upper", t.dir, live.slot, live.generation);
	ok(access(upper, F_OK) == 0, "and stay");
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		ignore_result(btc_slot_call(&t, BROKER_OP_FILES_DROP, refs[i], 0, NULL, NULL));
	ok(access(upper, F_OK) == 0, "whatever other life is named");
	static const uint32_t args[] = {0, 3, 17, 38, 40, UINT32_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(args); i++) {
		ok(btc_slot_call(&t, BROKER_OP_SOCKET_OPEN, live, args[i], NULL, NULL) > 0, "no socket of family %u", args[i]);
		ok(btc_slot_call(&t, BROKER_OP_CHANNEL_OPEN, live, args[i], NULL, NULL) > 0, "no channel %u", args[i]);
	}
}

static int try_create(void)
{
	struct broker_create_reply made = {0};
	int fds[2] = {-1, -1};
	int r = btc_create(&t, &create, &made, fds);

	if (r == 0)
		btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	return r;
}

static struct broker_volume *one_volume(uint32_t kind, const char *claim, const char *rel, const char *sub, const char *mount)
{
	struct broker_volume *v = &create.volume[0];

	btc_host_create(&t, &create);
	create.n_volumes = 1;
	v->kind = kind;
	snprintf(v->claim, sizeof(v->claim), "%s", claim);
	snprintf(v->rel, sizeof(v->rel), "%s", rel);
	snprintf(v->sub, sizeof(v->sub), "%s", sub);
	snprintf(v->mount_path, sizeof(v->mount_path), "%s", mount);
	return v;
}

static void wrong_creates(void)
{
	static const char *const out[] = {"..", "/etc", "a/../..", "./a", "a//b", "a/", "link", "link/passwd", "dir/up/etc", "\001"};
	static const char *const claims[] = {"../x", "A", "", "a/b", ".", "-a", "a-", "a b"};

	btc_host_create(&t, &create);
	random_bytes(create.layer[0], BROKER_KEY_BYTES);
	ok(try_create() == SBX_E_IMAGE_NOT_FOUND, "a layer that is not in the store");
	btc_host_create(&t, &create);
	create.n_layers = 2;
	random_bytes(create.layer[1], BROKER_KEY_BYTES);
	ok(try_create() == SBX_E_IMAGE_NOT_FOUND, "the host's /usr for another image");
	for (size_t i = 0; i < ARRAY_SIZE(out); i++) {
		one_volume(BROKER_VOLUME_HOST, "", out[i], "", "/mnt");
		ok(try_create() > 0, "host volume with path %zu that leaves it", i);
		one_volume(BROKER_VOLUME_HOST, "", "", out[i], "/mnt")->flags = BROKER_VOLUME_MAKE;
		ok(try_create() > 0, "subPath %zu that leaves it", i);
		one_volume(BROKER_VOLUME_NAMED, "vol", "", out[i][0] == 'l' || out[i][0] == 'd' ? ".." : out[i], "/mnt");
		ok(try_create() > 0, "subPath %zu of a named volume", i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		one_volume(BROKER_VOLUME_NAMED, claims[i], "", "", "/mnt")->flags = BROKER_VOLUME_MAKE;
		ok(try_create() > 0, "volume name \"%s\"", claims[i]);
		struct broker_volume_req req = {0};
		union broker_any any;
		snprintf(req.claim, sizeof(req.claim), "%s", claims[i]);
		ok(btc_call(&t, &req, sizeof(req), BROKER_OP_VOLUME_MAKE, -1, &any, NULL) > 0 && any.reply.status > 0, "made by name \"%s\"", claims[i]);
		ok(btc_call(&t, &req, sizeof(req), BROKER_OP_VOLUME_DROP, -1, &any, NULL) > 0 && any.reply.status > 0, "dropped by name \"%s\"", claims[i]);
	}
	one_volume(BROKER_VOLUME_HOST, "", "", "", "/mnt")->host_root = 1;
	ok(try_create() == SBX_E_VOLUME_NOT_ALLOWED, "an index behind the list of allowed paths");
	one_volume(BROKER_VOLUME_HOST, "", "fifo", "", "/mnt");
	ok(try_create() == SBX_E_VOLUME_HOST_PATH, "a FIFO as a volume");
	one_volume(BROKER_VOLUME_HOST, "", "dir", "", "mnt");
	ok(try_create() > 0, "a relative mount path");
	one_volume(BROKER_VOLUME_HOST, "", "dir", "", "/../../../../proc/1/root");
	ok(try_create() > 0, "a mount path with dots is refused inside");
	one_volume(7, "", "dir", "", "/mnt");
	ok(try_create() > 0, "a volume of an unknown kind");
	btc_host_create(&t, &create);
	create.memory_bytes = UINT64_MAX;
	ok(try_create() > 0, "a memory limit of 2^64");
	one_volume(BROKER_VOLUME_HOST, "", "dir", "", "/mnt");
	int r = try_create();
	ok(r == 0, "and the same with nothing wrong is made: %d", r);
}

static int unpack(int fd, uint64_t bytes)
{
	struct broker_layer_req req = {.form = BROKER_FORM_TAR, .max_bytes = bytes, .max_entries = 100};
	union broker_any any;

	random_bytes(req.key, sizeof(req.key));
	ssize_t n = btc_call(&t, &req, sizeof(req), BROKER_OP_LAYER_UNPACK, fd, &any, NULL);
	return n > 0 ? any.layer_reply.status : (int)n;
}

static void wrong_blobs(const char *dir)
{
	char path[256];
	int pipe_fd[2], pair[2];
	struct broker_layer_req req = {0};
	union broker_any any;

	snprintf(path, sizeof(path), "%s/garbage", dir);
	auto_fd rw = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	ignore_result(write(rw, "this is not a tar", 17) != 17); /* the next line would fail */
	auto_fd ro = open(path, O_RDONLY | O_CLOEXEC);
	auto_fd path_fd = open("/", O_PATH | O_CLOEXEC);
	auto_fd dir_fd = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_fd null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	auto_fd memory = memfd_create("x", MFD_CLOEXEC);
	if (pipe2(pipe_fd, O_CLOEXEC) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return;
	const struct {
		const char *what;
		int fd;
	} blobs[] = {{"O_PATH of /", path_fd}, {"a directory", dir_fd}, {"a device", null_fd}, {"a file open for writing", rw},
		     {"a memory file open for writing", memory}, {"a pipe", pipe_fd[0]}, {"a socket", pair[0]}};
	for (size_t i = 0; i < ARRAY_SIZE(blobs); i++)
		ok(unpack(blobs[i].fd, 1000) == SBX_E_IMAGE_INVALID, "%s is no blob", blobs[i].what);
	ok(unpack(ro, UINT64_MAX) == SBX_E_LIMIT, "bounds above the configured ones");
	ok(unpack(ro, 1000) == SBX_E_IMAGE_INVALID, "a blob that is no archive");
	memcpy(req.key, t.hello.host_image_key, sizeof(req.key));
	ok(btc_call(&t, &req, sizeof(req), BROKER_OP_LAYER_DROP, -1, &any, NULL) > 0 && any.layer_reply.status == SBX_E_IMAGE_IN_USE,
	   "the host image is not dropped");
	memset(req.key, 1, sizeof(req.key));
	ok(btc_call(&t, &req, sizeof(req), BROKER_OP_LAYER_DROP, -1, &any, NULL) > 0 && any.layer_reply.status == SBX_E_IMAGE_NOT_FOUND,
	   "nor one that is not there");
	for (int i = 0; i < 2; i++) {
		close(pipe_fd[i]);
		close(pair[i]);
	}
}

/* A child swaps a directory of the volume with a link to /etc as fast as it can while sandboxes are made with subPath through it. */
static void rename_race(const char *dir)
{
	char a[256], b[256];
	int escaped = 0, made_n = 0;

	snprintf(a, sizeof(a), "%s/race", dir);
	snprintf(b, sizeof(b), "%s/race.link", dir);
	if (mkdir(a, 0755) < 0 || symlink("/etc", b) < 0)
		return;
	pid_t child = fork();
	if (child == 0)
		for (;;)
			renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
	for (int i = 0; i < 30; i++) {
		struct broker_create_reply made = {0};
		int fds[2] = {-1, -1};
		struct stat st;

		one_volume(BROKER_VOLUME_HOST, "", i % 2 ? "race" : "", i % 2 ? "" : "race", "/mnt");
		if (btc_create(&t, &create, &made, fds) == 0) {
			auto_fd root = btc_root(made.pid);

			made_n++;
			escaped += fstatat(root, "mnt/passwd", &st, 0) == 0;
			btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
		}
		close_keep_errno(fds[0]);
		close_keep_errno(fds[1]);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	ok(escaped == 0, "a directory swapped with a link never leads out (%d of 30 found the directory)", made_n);
}

/* Valid messages with random bytes changed: the decoder and every handler behind it. */
static void random_bytes_of_requests(struct broker_slot_ref live)
{
	int by_role[2] = {-1, -1}; /* connections as sandboxd and as dnsd */
	int sent = 0;

	for (int i = 0; i < 3000; i++) {
		static union broker_any any;
		uint32_t r[8];

		random_bytes(r, sizeof(r));
		uint32_t op = 1 + r[0] % (BROKER_OP_COUNT - 1);
		if (!op_size[op])
			continue; /* not served yet */
		bool dnsd = is_dnsd_op(op);
		int fd = by_role[dnsd];
		if (fd < 0)
			fd = connection(dnsd ? t.dnsd_uid : t.sandboxd_uid, true);
		by_role[dnsd] = fd;
		fill_valid(&any, op);
		if (op == BROKER_OP_POLICY || op == BROKER_OP_PIN || op == BROKER_OP_UNPIN)
			any.slot_req.ref = live;
		if (op == BROKER_OP_POLICY) {
			any.policy.n_rules = r[1] % 4;
			any.policy.flags = r[5] % 8;
			for (uint32_t k = 0; k < any.policy.n_rules; k++)
				any.policy.rule[k] = (struct broker_ip_rule){.addr = r[5] & 0xffffff00, .prefix = 24 + (r[6] & 7), .flags = r[7] % 4};
		}
		if (op == BROKER_OP_PIN)
			any.pin.addr[0] = r[5] | 1;
		if (op == BROKER_OP_SANDBOX_CREATE) {
			btc_host_create(&t, &create);
			memcpy(&any, &create, sizeof(create));
			any.create.n_layers = 1 + r[1] % 3; /* never valid: no such layers */
			any.create.layer[0][0] ^= 1;
			any.create.n_volumes = r[5] % 20;
		}
		for (unsigned k = 0; k < r[2] % 4; k++)
			((unsigned char *)&any)[sizeof(struct broker_head) + (r[3] + k * r[4]) % (op_size[op] - sizeof(struct broker_head) + 1)] ^=
				(unsigned char)(r[6] >> k);
		if (op == BROKER_OP_SANDBOX_KILL || !btc_send(&t, fd, &any, op_size[op], op, carries_file(op) ? 0 : -1)) {
			close_keep_errno(fd);
			by_role[dnsd] = -1;
			continue;
		}
		sent++;
		int fds[2];
		while (btc_recv(fd, &any, fds, 0) > 0)
			for (int k = 0; k < 2; k++)
				close_keep_errno(fds[k]);
	}
	close_keep_errno(by_role[0]);
	close_keep_errno(by_role[1]);
	ok(alive(), "%d requests with random bytes changed", sent);
}

static int connections(void)
{
	int fd[80];
	int refused = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = connection(t.sandboxd_uid, false);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
		struct pollfd p = {.fd = fd[i], .events = POLLIN};

		refused += fd[i] < 0 || (poll(&p, 1, 50) == 1 && (p.revents & POLLHUP));
	}
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close_keep_errno(fd[i]);
	return refused;
}

static void make_tree(const char *dir)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/dir", dir);
	mkdir(dir, 0755);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/link", dir);
	ignore_result(symlink("/etc", path)); /* the rows that need it would be green by accident only if it is not there */
	snprintf(path, sizeof(path), "%s/dir/up", dir);
	ignore_result(symlink("../../../../../..", path));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	ignore_result(mkfifo(path, 0644));
}

static void remove_tree(const char *dir)
{
	static const char *const names[] = {"dir/up", "dir", "link", "fifo", "race", "race.link", "garbage"};
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		ignore_result(remove(path)); /* whichever of race and race.link is the directory now */
	}
	ignore_result(remove(dir));
}

static unsigned long long fingerprint(void)
{
	char command[256];

	/* of the mounts only ours: other tests may run on this host */
	snprintf(command, sizeof(command), "grep %s /proc/self/mounts; ls -lR /etc; cat /etc/passwd; ls -1 / /dev", t.dir);
	FILE *f = popen(command, "re");
	unsigned long long h = 14695981039346656037ull;

	for (int c; f && (c = fgetc(f)) != EOF;)
		h = (h ^ (unsigned char)c) * 1099511628211ull;
	if (f)
		pclose(f);
	return h;
}

int main(void)
{
	static const char dir[] = "/tmp/sbx-hostile-volume";
	char text[256] = "", extra[256];
	struct broker_create_reply made = {0};
	int fds[2] = {-1, -1};

	make_tree(dir);
	snprintf(extra, sizeof(extra), "[pool]\ntarget = 2\n[storage]\nallowed_host_paths = [\"%s\"]\n", dir);
	if (!ok(btc_start(&t, "hostile", extra) == 0, "broker starts")) {
		btc_stop(&t, true);
		return tap_done();
	}
	unsigned long long before = fingerprint();
	pid_t pid = t.pid;
	strangers();
	malformed();
	wrong_creates();
	wrong_blobs(dir);
	btc_host_create(&t, &create);
	ok(btc_create(&t, &create, &made, fds) == 0, "a sandbox lives beside the attack: %s", made.text);
	wrong_slots(made.ref);
	random_bytes_of_requests(made.ref);
	rename_race(dir);
	ok(connections() > 0, "connections are bounded");
	ok(btc_slot_call(&t, BROKER_OP_SANDBOX_STAT, made.ref, 0, NULL, NULL) == 0, "the sandbox still lives");
	ok(btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL) == 0, "and ends when it is named");
	for (size_t i = 0; i < ARRAY_SIZE(slot_ops); i++)
		ok(btc_slot_call(&t, slot_ops[i], made.ref, BROKER_CHANNEL_EXEC, NULL, NULL) > 0, "request %u on the dead one is refused", slot_ops[i]);
	ok(t.pid == pid && kill(pid, 0) == 0, "it is the same broker");
	ok(fingerprint() == before, "mounts, /etc, / and /dev of the host are as before");
	int left = 99;
	for (int i = 0; i < 60 && left > 6; i++) { /* 3 for each shell of the pool: directory, record, groups */
		left = btc_count_leftovers(&t, text, sizeof(text));
		poll(NULL, 0, 50);
	}
	printf("# pool of 2: %s\n", text);
	btc_stop(&t, tap_failed > 0);
	remove_tree(dir);
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	return tap_done();
}
