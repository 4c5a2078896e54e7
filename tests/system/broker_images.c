// SPDX-License-Identifier: Apache-2.0
/* Layers: unpacked by the worker, shared, stacked, published once; a waiting shell whose root was foreseen for another image. */
#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/num.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 8 /* few, so that each comes back soon */

static struct btc t;
static struct broker_create create;

static int run(const char *command)
{
	FILE *f = popen(command, "re");
	int c;

	if (!f)
		return -1;
	while ((c = fgetc(f)) != EOF)
		;
	return pclose(f);
}

static int unpack_on(const char *file, uint8_t key[BROKER_KEY_BYTES], uint64_t max_entries, uint8_t (*lower)[BROKER_KEY_BYTES],
		     uint32_t n_lower)
{
	struct broker_layer_req req = {.form = BROKER_FORM_TAR_GZIP, .max_bytes = 64u << 20, .max_entries = max_entries};
	char path[256];
	union broker_any any;

	memcpy(req.key, key, BROKER_KEY_BYTES);
	req.n_lower = n_lower;
	if (n_lower)
		memcpy(req.lower, lower, n_lower * BROKER_KEY_BYTES);
	snprintf(path, sizeof(path), "%s/%s", t.dir, file);
	auto_fd blob = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = btc_call(&t, &req, sizeof(req), BROKER_OP_LAYER_UNPACK, blob, &any, NULL);
	if (n > 0 && any.layer_reply.status)
		printf("# unpack %s: %s\n", file, any.layer_reply.text);
	return n > 0 ? any.layer_reply.status : -1;
}

static int unpack(const char *file, uint8_t key[BROKER_KEY_BYTES], uint64_t max_entries)
{
	return unpack_on(file, key, max_entries, NULL, 0);
}

static int layer_call(uint32_t op, const uint8_t key[BROKER_KEY_BYTES], uint32_t *present)
{
	struct broker_layer_req req = {0};
	union broker_any any;

	memcpy(req.key, key, BROKER_KEY_BYTES);
	ssize_t n = btc_call(&t, &req, sizeof(req), op, -1, &any, NULL);
	if (present)
		*present = any.layer_reply.present;
	return n > 0 ? any.layer_reply.status : -1;
}

static int directories(const char *name)
{
	char path[256];
	int n = 0;

	snprintf(path, sizeof(path), "%s/state/%s", t.dir, name);
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));)
		n += e->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

/* Makes a sandbox of these layers and runs @script; its output goes to @out. */
static int sandbox(uint8_t (*layer)[BROKER_KEY_BYTES], uint32_t n, const char *shell, const char *script, char *out, size_t size,
		   struct broker_slot_ref *keep)
{
	struct broker_create_reply made = {0};
	struct agent_status status = {0};
	const char *argv[] = {shell, "sh", "-c", script, NULL};
	int fds[2] = {-1, -1};

	memset(&create, 0, sizeof(create));
	uuid_random(create.sandbox_id);
	create.n_layers = n;
	memcpy(create.layer, layer, n * BROKER_KEY_BYTES);
	int r = btc_create(&t, &create, &made, fds);
	for (int i = 0; i < 300 && r == SBX_E_LIMIT; i++) { /* the slots of the last ones are on their way back */
		poll(NULL, 0, 100);
		r = btc_create(&t, &create, &made, fds);
	}
	if (r)
		printf("# create: %s\n", made.text);
	out[0] = '\0';
	if (r == 0 && btc_run(fds, argv, &status) == 0) {
		auto_fd root = btc_root(made.pid);
		auto_fd fd = openat(root, "out", O_RDONLY | O_CLOEXEC);
		ssize_t got = read(fd, out, size - 1);
		out[got > 0 ? got : 0] = '\0';
	}
	close_keep_errno(fds[0]);
	close_keep_errno(fds[1]);
	if (keep)
		*keep = made.ref;
	else if (r == 0)
		btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, made.ref, 0, NULL, NULL);
	return r;
}

static void images(void)
{
	uint8_t key[3][BROKER_KEY_BYTES];
	char out[512];
	uint32_t present = 0;
	struct broker_slot_ref keep;

	for (size_t i = 0; i < 3; i++)
		random_bytes(key[i], sizeof(key[i]));
	ok(unpack("base.tgz", key[0], 10000) == 0, "a layer is unpacked");
	ok(unpack("top.tgz", key[1], 10000) == 0, "a second one");
	ok(unpack("base.tgz", key[0], 10000) == 0, "the same again is there already");
	ok(layer_call(BROKER_OP_LAYER_STAT, key[0], &present) == 0 && present == 1, "it is known");
	ok(unpack("base.tgz", key[2], 3) == SBX_E_LIMIT, "more entries than allowed are refused");
	ok(layer_call(BROKER_OP_LAYER_STAT, key[2], &present) == 0 && present == 0, "and nothing of it is published");
	/* the pool's roots were foreseen for the host image: this one needs another mount */
	ok(sandbox(key, 1, "/bin/busybox", "id -u > /out; ls /added >> /out 2>/dev/null || echo none >> /out; cat /text >> /out", out, sizeof(out), NULL) == 0,
	   "a sandbox of one layer where the pool foresaw the host image");
	is_str(out, "0\nnone\nbase\n", "it sees that layer");
	poll(NULL, 0, 300);
	ok(sandbox(key, 1, "/bin/busybox", "cat /text > /out", out, sizeof(out), NULL) == 0, "and one that was foreseen right");
	is_str(out, "base\n", "sees the same");
	ok(sandbox(key, 2, "/bin/busybox", "ls /added > /out; cat /text >> /out; ls /gone 2>/dev/null >> /out; stat -c %u:%g /added >> /out", out, sizeof(out), &keep) == 0,
	   "two layers on each other");
	is_str(out, "/added\ntop\n1000:1001\n", "the upper one wins, owners are those of the archive");
	ok(layer_call(BROKER_OP_LAYER_DROP, key[1], NULL) == SBX_E_IMAGE_IN_USE, "a layer in use is not dropped");
	ok(btc_restart(&t) == 0, "the broker is killed and starts again");
	ok(layer_call(BROKER_OP_LAYER_DROP, key[1], NULL) == SBX_E_IMAGE_IN_USE, "it still knows what is in use");
	btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, keep, 0, NULL, NULL);
	poll(NULL, 0, 300);
	ok(layer_call(BROKER_OP_LAYER_DROP, key[1], NULL) == 0, "afterwards it is, although a waiting shell may have foreseen it");
	ok(layer_call(BROKER_OP_LAYER_DROP, key[0], NULL) == 0, "and the other");
	ok(directories("layers") == 1, "only the host image's skeleton is left: %d", directories("layers"));
}

/* What the layers hide from each other is what OCI says, although the unpacker may not write the overlay's own mark. */
static void opaque(void)
{
	uint8_t key[4][BROKER_KEY_BYTES];
	char out[512];

	random_bytes(key, sizeof(key));
	ok(unpack("base.tgz", key[0], 10000) == 0 && unpack_on("low.tgz", key[1], 10000, key, 1) == 0, "two layers");
	ok(unpack_on("opq.tgz", key[2], 10000, key, 2) == 0, "a third with opaque directories");
	ok(unpack_on("opq.tgz", key[3], 10, key, 2) == SBX_E_LIMIT, "what it hides counts as entries");
	ok(sandbox(key, 3, "/bin/busybox", "cd / && find d e f | sort > /out; cat e/n >> /out", out, sizeof(out), NULL) == 0, "a sandbox of the three");
	is_str(out, "d\nd/new\nd/sub\nd/sub/y\ne\ne/n\nf\nf/low\nopq\n",
	       "opaque d and e show only their own, also below; f, which has a marker of AUFS alone, shows the lower one");
	ok(sandbox(key, 2, "/bin/busybox", "cd / && find d e f | sort | tr '\\n' ' ' > /out", out, sizeof(out), NULL) == 0, "a sandbox of the two");
	is_str(out, "d d/a d/b d/b/c d/sub d/sub/x e e/n e/o f f/low ", "still sees all of them");
	random_bytes(key[3], sizeof(key[3]));
	ok(unpack_on("opq.tgz", key[3], 10000, key + 3, 1) == SBX_E_IMAGE_NOT_FOUND, "a lower layer that is not there is named");
}

/* Slots keep the layers of their last life mounted: what is under a key now counts, not what was there then. */
static void made_again(void)
{
	uint8_t key[2][BROKER_KEY_BYTES];
	char out[64];
	int dropped = -1, tops = 0, bases = 0;

	random_bytes(key, sizeof(key));
	ok(unpack("base.tgz", key[0], 10000) == 0 && unpack("top.tgz", key[1], 10000) == 0, "two layers again");
	for (int i = 0; i < 2 * SLOTS; i++)
		tops += sandbox(key, 2, "/bin/busybox", "cat /text > /out", out, sizeof(out), NULL) == 0 && !strcmp(out, "top\n");
	ok(tops == 2 * SLOTS, "every slot has had a sandbox of them, some two: %d", tops);
	for (int i = 0; i < 300 && (dropped = layer_call(BROKER_OP_LAYER_DROP, key[1], NULL)) == SBX_E_IMAGE_IN_USE; i++)
		poll(NULL, 0, 100);
	ok(dropped == 0, "the upper one is dropped");
	ok(sandbox(key, 2, "/bin/busybox", "true", out, sizeof(out), NULL) == SBX_E_IMAGE_NOT_FOUND, "and missed at once");
	ok(unpack("low.tgz", key[1], 10000) == 0, "its key is given to another one");
	for (int i = 0; i < 2 * SLOTS; i++)
		bases += sandbox(key, 2, "/bin/busybox", "cat /text > /out; ls /f >> /out", out, sizeof(out), NULL) == 0 && !strcmp(out, "base\nlow\n");
	ok(bases == 2 * SLOTS, "which every slot shows: %d", bases);
	for (size_t i = 0; i < 2; i++) {
		for (int k = 0; k < 300 && (dropped = layer_call(BROKER_OP_LAYER_DROP, key[i], NULL)) == SBX_E_IMAGE_IN_USE; k++)
			poll(NULL, 0, 100);
		ok(dropped == 0, "dropped");
	}
}

static int capture(uint32_t op, const uint8_t *key, const char *file, int flags, uint64_t max_bytes, union broker_any *any)
{
	struct broker_capture_req req = {.form = BROKER_FORM_TAR, .max_bytes = max_bytes, .max_entries = 10000};
	char path[256];

	if (key)
		memcpy(req.key, key, sizeof(req.key));
	snprintf(path, sizeof(path), "%s/%s", t.dir, file);
	auto_fd fd = open(path, flags | O_CLOEXEC, 0600);
	ssize_t n = btc_call(&t, &req, sizeof(req), op, fd, any, NULL);
	/* what is refused at once is a plain reply */
	return n > 0 ? any->reply.status : -1;
}

static void captures(void)
{
	struct broker_capture_req capture_req = {.form = BROKER_FORM_TAR, .max_bytes = 64u << 20, .max_entries = 10000};
	struct broker_layer_req drop_req = {0};
	uint8_t key[2][BROKER_KEY_BYTES];
	union broker_any any;
	char path[256], head[512] = "";
	struct stat st;

	random_bytes(key, sizeof(key));
	ok(unpack("base.tgz", key[0], 10000) == 0, "a layer to capture");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], "out", O_WRONLY | O_CREAT, 64u << 20, &any) == 0, "is captured");
	snprintf(path, sizeof(path), "%s/out", t.dir);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ok(fstat(fd, &st) == 0 && any.capture_reply.packed_bytes == (uint64_t)st.st_size && read(fd, head, sizeof(head)) == sizeof(head) &&
	   !memcmp(head + 257, "ustar", 5), "into a tar of the length that is said");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], "out", O_RDONLY, 64u << 20, &any) == SBX_E_IMAGE_INVALID, "not into a file opened for reading");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], "out", O_RDWR, 64u << 20, &any) == SBX_E_IMAGE_INVALID, "nor for both");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], ".", O_RDONLY, 64u << 20, &any) == SBX_E_IMAGE_INVALID, "nor into a directory");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[1], "out", O_WRONLY, 64u << 20, &any) == SBX_E_IMAGE_NOT_FOUND, "a layer that is not there");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], "out", O_WRONLY, 1, &any) == SBX_E_LIMIT, "more bytes than allowed");
	ok(capture(BROKER_OP_LAYER_CAPTURE, key[0], "out", O_WRONLY, UINT64_MAX, &any) == SBX_E_LIMIT, "bounds beyond the configuration's");
	ok(capture(BROKER_OP_ARCHIVE_INDEX, NULL, "out", O_WRONLY, 64u << 20, &any) == SBX_E_IMAGE_INVALID, "an archive that cannot be read");
	ok(capture(BROKER_OP_ARCHIVE_INDEX, NULL, "base.tgz", O_RDWR, 64u << 20, &any) == SBX_E_IMAGE_INVALID, "an archive packed otherwise than said");
	/* both messages are there before it looks */
	memcpy(capture_req.key, key[0], sizeof(key[0]));
	memcpy(drop_req.key, key[0], sizeof(key[0]));
	replace_fd(&fd, open(path, O_WRONLY | O_CLOEXEC));
	kill(t.pid, SIGSTOP);
	uint64_t tag = btc_send(&t, t.fd, &capture_req, sizeof(capture_req), BROKER_OP_LAYER_CAPTURE, fd);
	uint64_t drop = btc_send(&t, t.fd, &drop_req, sizeof(drop_req), BROKER_OP_LAYER_DROP, -1);
	kill(t.pid, SIGCONT);
	int captured = -1, dropped = -1, fds[2];
	for (int i = 0; i < 10 && (captured < 0 || dropped < 0) && btc_recv(t.fd, &any, fds, 20000) > 0; i++) {
		if (any.head.tag == tag)
			captured = any.capture_reply.status;
		if (any.head.tag == drop)
			dropped = any.layer_reply.status;
	}
	ok(captured == 0 && dropped == SBX_E_IMAGE_IN_USE, "a layer that is captured is not dropped: %d, %d", captured, dropped);
	ok(layer_call(BROKER_OP_LAYER_DROP, key[0], NULL) == 0, "afterwards it is");
}

/* More lowers than one string of fsconfig(2) holds: the other way to mount. */
static void many_layers(void)
{
	static uint8_t key[95][BROKER_KEY_BYTES];
	char out[64];
	int unpacked = 0;

	for (size_t i = 0; i < ARRAY_SIZE(key); i++) {
		random_bytes(key[i], sizeof(key[i]));
		unpacked += unpack(i ? "top.tgz" : "base.tgz", key[i], 10000) == 0;
	}
	ok(unpacked == ARRAY_SIZE(key), "%d layers", unpacked);
	ok(sandbox(key, ARRAY_SIZE(key), "/bin/busybox", "cat /text > /out", out, sizeof(out), NULL) == 0, "a sandbox of all of them");
	is_str(out, "top\n", "sees the uppermost");
}

/* The worker itself: two keys with the same bytes are two directories; it can write nowhere else. */
static void poisoning(void)
{
	uint8_t key[2][BROKER_KEY_BYTES];
	char path[256];
	struct stat st;

	random_bytes(key, sizeof(key));
	ok(unpack("base.tgz", key[0], 10000) == 0 && unpack("base.tgz", key[1], 10000) == 0, "5: the same content under two keys");
	ok(directories("layers") == 6, "5: is two directories: no content fills another's place");
	random_bytes(key[1], sizeof(key[1]));
	unpack("evil.tgz", key[1], 10000);
	snprintf(path, sizeof(path), "%s/state/layers/escaped", t.dir);
	ok(stat(path, &st) < 0 && stat("/tmp/sbx-escaped", &st) < 0, "5: an archive with ../ and absolute names reaches nothing else");
}

int main(void)
{
	char command[2048];

	setenv("BTC_SLOTS", "8", 1);
	if (ok(btc_start(&t, "images", "[pool]\ntarget = 2\n") == 0, "broker starts")) {
		snprintf(command, sizeof(command),
			 "cd %s && mkdir -p base/bin base/etc base/dev base/proc base/sys base/tmp top && cp $(command -v busybox) base/bin/busybox && echo base > base/text "
			 "&& for a in id cat ls stat sh; do ln -s busybox base/bin/$a; done && tar czf base.tgz --owner=0 --group=0 -C base . "
			 "&& echo top > top/text && touch top/added && tar czf top.tgz --owner=1000 --group=1001 -C top added text "
			 "&& mkdir -p low/d/b low/d/sub low/e low/f opq/d/sub opq/e opq/f && touch low/d/a low/d/b/c low/d/sub/x low/e/n low/e/o low/f/low "
			 "opq/d/.wh..wh..opq opq/d/new opq/d/sub/y opq/.wh.e opq/f/.wh..wh.aufs && echo opq > opq/e/n "
			 "&& tar czf low.tgz -C low . && tar czf opq.tgz -C opq . "
			 "&& touch x && tar czf evil.tgz -P --transform 's,^x$,../escaped,' x && chmod 644 *.tgz", t.dir);
		if (run("command -v busybox") != 0)
			tap_skip("images", "no busybox");
		else if (ok(run(command) == 0, "archives")) {
			images();
			made_again();
			opaque();
			captures();
			poisoning();
			many_layers();
		}
	}
	btc_stop(&t, tap_failed > 0);
	return tap_done();
}
