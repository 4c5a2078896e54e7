// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/wallclock.h"
#include "runtime/expiry.h"
#include "runtime/lifecycle.h"
#include "runtime/resources.h"
#include "runtime/sandbox_int.h"
#include "runtime/state_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

/* ---- lifecycle: the table again, from outside ---- */

static void test_lifecycle(void)
{
	/* For each state the events that are taken and where they lead; all others must be refused. */
	static const struct {
		enum sandbox_state from;
		enum lifecycle_event event;
		enum sandbox_state to;
	} taken[] = {
		{SANDBOX_PENDING, LIFECYCLE_STARTED, SANDBOX_RUNNING},
		{SANDBOX_PENDING, LIFECYCLE_NOT_MADE, SANDBOX_FAILED},
		{SANDBOX_PENDING, LIFECYCLE_DIED, SANDBOX_FAILED},
		{SANDBOX_PENDING, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_RUNNING, LIFECYCLE_PAUSE, SANDBOX_PAUSING},
		{SANDBOX_RUNNING, LIFECYCLE_FINISHED, SANDBOX_TERMINATED},
		{SANDBOX_RUNNING, LIFECYCLE_DIED, SANDBOX_FAILED},
		{SANDBOX_RUNNING, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_PAUSING, LIFECYCLE_FROZEN, SANDBOX_PAUSED},
		{SANDBOX_PAUSING, LIFECYCLE_NOT_FROZEN, SANDBOX_RUNNING},
		{SANDBOX_PAUSING, LIFECYCLE_FINISHED, SANDBOX_TERMINATED},
		{SANDBOX_PAUSING, LIFECYCLE_DIED, SANDBOX_FAILED},
		{SANDBOX_PAUSING, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_PAUSED, LIFECYCLE_RESUME, SANDBOX_RESUMING},
		{SANDBOX_PAUSED, LIFECYCLE_FINISHED, SANDBOX_TERMINATED},
		{SANDBOX_PAUSED, LIFECYCLE_DIED, SANDBOX_FAILED},
		{SANDBOX_PAUSED, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_RESUMING, LIFECYCLE_THAWED, SANDBOX_RUNNING},
		{SANDBOX_RESUMING, LIFECYCLE_NOT_THAWED, SANDBOX_PAUSED},
		{SANDBOX_RESUMING, LIFECYCLE_FINISHED, SANDBOX_TERMINATED},
		{SANDBOX_RESUMING, LIFECYCLE_DIED, SANDBOX_FAILED},
		{SANDBOX_RESUMING, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_STOPPING, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_TERMINATED, LIFECYCLE_DELETE, SANDBOX_STOPPING},
		{SANDBOX_FAILED, LIFECYCLE_DELETE, SANDBOX_STOPPING},
	};

	for (unsigned s = 0; s < SANDBOX_STATE_COUNT; s++) {
		unsigned wrong = 0;

		for (unsigned e = 0; e < LIFECYCLE_EVENT_COUNT; e++) {
			enum sandbox_state want = SANDBOX_NONE;
			for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
				if (taken[i].from == s && taken[i].event == e)
					want = taken[i].to;
			enum sandbox_state got = lifecycle_next((enum sandbox_state)s, (enum lifecycle_event)e);
			if (got != want) {
				wrong++;
				printf("# %s + %s: %s, want %s\n", sandbox_state_name((enum sandbox_state)s),
				       lifecycle_event_name((enum lifecycle_event)e), sandbox_state_name(got), sandbox_state_name(want));
			}
		}
		ok(!wrong, "every event in %s", sandbox_state_name((enum sandbox_state)s));
		if (s)
			is_int(lifecycle_state_from_name(sandbox_state_name((enum sandbox_state)s)), s, "its name both ways");
	}
	is_int(lifecycle_state_from_name("Unheard"), SANDBOX_NONE, "an unknown name");
	is_int(lifecycle_next(SANDBOX_STATE_COUNT, LIFECYCLE_DELETE), SANDBOX_NONE, "a state past the end");
}

/* ---- resources ---- */

static void test_resources(void)
{
	static const struct {
		const char *text;
		int want;
		uint64_t bytes;
	} memory[] = {
		{"0", 0, 0}, {"1", 0, 1}, {"1048576", 0, 1048576}, {"512Mi", 0, 512u << 20}, {"512mi", 0, 512u << 20},
		{"1k", 0, 1000}, {"1K", 0, 1000}, {"1kb", 0, 1000}, {"1Ki", 0, 1024}, {"1KiB", 0, 1024}, {"2M", 0, 2000000},
		{"1g", 0, 1000000000}, {"1Gi", 0, 1u << 30}, {"1.5Gi", 0, 3u << 29}, {"0.5k", 0, 500}, {"100b", 0, 100},
		{"1Ti", 0, UINT64_C(1) << 40}, {"1Pi", 0, UINT64_C(1) << 50}, {"1Ei", 0, UINT64_C(1) << 60},
		{"512 Mi", 0, 512u << 20}, {"0.0001", 0, 1}, {"99999Ei", 0, UINT64_C(1) << 62}, {" 1 ", 0, 1},
		{"", -EINVAL, 0}, {"Mi", -EINVAL, 0}, {"-1", -EINVAL, 0}, {"+1", -EINVAL, 0}, {"1x", -EINVAL, 0}, {"1Mii", -EINVAL, 0},
		{"1 2", -EINVAL, 0}, {"0x10", -EINVAL, 0}, {"inf", -EINVAL, 0}, {"nan", -EINVAL, 0}, {"1e3", -EINVAL, 0},
		{"1..5", -EINVAL, 0}, {".", -EINVAL, 0}, {"1  Mi", -EINVAL, 0},
		{"111111111111111111111111111111111111111111111", -EINVAL, 0},
	};
	static const struct {
		const char *text;
		int want;
		uint32_t millicores;
	} cpu[] = {
		{"1", 0, 1000}, {"0.5", 0, 500}, {"500m", 0, 500}, {"10m", 0, 10}, {"1.5", 0, 1500}, {"0.0001", 0, 1}, {"0.5m", 0, 1},
		{"1e9", -EINVAL, 0}, {"99999999999", 0, 1000000000}, {"0", -EINVAL, 0}, {"0m", -EINVAL, 0}, {"-1", -EINVAL, 0},
		{"nan", -EINVAL, 0}, {"inf", -EINVAL, 0}, {"", -EINVAL, 0}, {"m", -EINVAL, 0}, {"1mm", -EINVAL, 0}, {"one", -EINVAL, 0},
	};
	static const struct {
		const char *text;
		int want;
		uint32_t value;
	} counts[] = {{"64", 0, 64}, {" 64 ", 0, 64}, {"0", -EINVAL, 0}, {"-1", -EINVAL, 0}, {"1.5", -EINVAL, 0}, {"", -EINVAL, 0},
		      {"4294967296", -EINVAL, 0}, {"1 2", -EINVAL, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(memory); i++) {
		uint64_t v = 0;
		int r = resources_memory(memory[i].text, &v);
		ok(r == memory[i].want && v == memory[i].bytes, "memory \"%s\": %d, %llu", memory[i].text, r, (unsigned long long)v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cpu); i++) {
		uint32_t v = 0;
		int r = resources_cpu(cpu[i].text, &v);
		ok(r == cpu[i].want && v == cpu[i].millicores, "cpu \"%s\": %d, %u", cpu[i].text, r, v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		uint32_t v = 0;
		int r = resources_count(counts[i].text, &v);
		ok(r == counts[i].want && v == counts[i].value, "count \"%s\": %d, %u", counts[i].text, r, v);
	}
}

/* ---- deadlines ---- */

#define NODES 200

struct due {
	struct expiry_node node;
	int fired;
};

static int64_t last_due;
static int n_fired, n_disorder, n_early;

static void on_due(void *arg, struct expiry_node *node)
{
	struct due *d = (struct due *)((uintptr_t)node - offsetof(struct due, node));

	(void)arg;
	d->fired++;
	n_fired++;
	n_disorder += node->due_wall_usec < last_due;
	n_early += node->due_wall_usec > wall_usec();
	last_due = node->due_wall_usec;
}

static void test_expiry(void)
{
	static struct due due[NODES];
	struct sbx_err err;
	struct loop *loop = loop_new(&err);
	struct expiry *e = loop ? expiry_new(loop, on_due, NULL, &err) : NULL;
	int64_t now = wall_usec();
	int wrong = 0;

	if (!ok(e != NULL, "deadlines"))
		return;
	for (int i = 0; i < NODES; i++) {
		/* Scattered over 50 ms, some of them past already, some never. */
		int64_t at = i % 10 == 9 ? 0 : now + (i * 7919) % 50000 - 5000;
		if (expiry_set(e, &due[i].node, at) < 0)
			abort();
	}
	ok(expiry_first(e)->due_wall_usec < now, "the first is one that is past");
	for (int i = 0; i < NODES; i += 10)
		expiry_clear(e, &due[i].node); /* 20 taken away */
	if (expiry_set(e, &due[1].node, now + 3600 * INT64_C(1000000)) < 0 || expiry_set(e, &due[10].node, now - 1) < 0)
		abort(); /* one moved away, one set again */
	for (int64_t until = now + 2000000; n_fired < NODES - 20 - 20 - 1 + 1 && wall_usec() < until;)
		if (loop_once(loop, 100) < 0)
			break;
	for (int i = 0; i < NODES; i++) {
		bool want = i % 10 != 9 && (i % 10 != 0 || i == 10) && i != 1;
		wrong += due[i].fired != want;
	}
	ok(!wrong, "those that are due fire once, the others do not (%d wrong)", wrong);
	ok(!n_disorder && !n_early, "in order and not early");
	ok(expiry_first(e) == &due[1].node, "the one that was moved is left");
	expiry_clear(e, &due[1].node);
	expiry_clear(e, &due[1].node);
	ok(!expiry_first(e), "taken away twice is fine");
	expiry_free(e);
	loop_free(loop);
}

/* ---- state store ---- */

static char seen[512];

static int collect(void *arg, const struct state_row *row, struct sbx_err *err)
{
	size_t n = strlen(seen);

	(void)arg, (void)err;
	snprintf(seen + n, sizeof(seen) - n, "%s/%s/%lld/%lld/%d ", row->id, row->state, (long long)row->slot,
		 (long long)row->expires_wall_usec, row->deleting);
	return 0;
}

static void test_store(void)
{
	char dir[] = "/tmp/sbx-store-XXXXXX", path[64];
	struct sbx_err err = {0};
	struct stat st;
	struct state_row row = {
		.id = "b", .state = "Pending", .reason = "r", .message = "m'; DROP TABLE sandbox; --", .boot_id = "boot",
		.spec = "{}", .metadata = "{}", .execd_token = "t", .egress_token = "u", .slot = -1, .created_wall_usec = 5,
	};

	if (!mkdtemp(dir))
		abort();
	struct state_store *s = state_store_open(dir, &err);
	if (!ok(s != NULL, "a new database: %s", err.msg))
		return;
	snprintf(path, sizeof(path), "%s/sandboxd.db", dir);
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "its file is private");
	ok(state_store_insert(s, &row, &err) == 0, "insert");
	ok(state_store_insert(s, &row, &err) < 0 && err.code == SBX_E_SYSTEM, "the same id again is refused");
	row.id = "a";
	row.created_wall_usec = 4;
	row.expires_wall_usec = INT64_MAX;
	ok(state_store_insert(s, &row, &err) == 0, "another");
	row.state = "Running";
	row.slot = 1999;
	row.deleting = true;
	ok(state_store_update(s, &row, &err) == 0, "update");
	ok(state_store_each(s, collect, NULL, &err) == 0, "walk");
	is_str(seen, "a/Running/1999/9223372036854775807/1 b/Pending/-1/0/0 ", "oldest first, only that one is changed");
	ok(state_store_log_pages(s) > 0, "commits stay in the log");
	ok(state_store_checkpoint(dir, &err) == 0, "a checkpoint beside the open database: %s", err.msg);
	ok(state_store_remove(s, "b", &err) == 0 && state_store_remove(s, "b", &err) == 0, "remove, twice");
	state_store_close(s);
	s = state_store_open(dir, &err);
	seen[0] = '\0';
	ok(s && state_store_each(s, collect, NULL, &err) == 0, "opened again");
	is_str(seen, "a/Running/1999/9223372036854775807/1 ", "what was committed is there");
	state_store_close(s);

	/* user_version lies at offset 60 of the file, big-endian (SQLite "Database File Format" 1.3) */
	int fd = open(path, O_RDWR);
	ok(fd >= 0 && pwrite(fd, "\0\0\0\x63", 4, 60) == 4, "pretend a newer version wrote it");
	close(fd);
	s = state_store_open(dir, &err);
	ok(!s && err.code == SBX_E_INVALID_REQUEST && strstr(err.msg, "newer"), "then it is refused: %s", err.msg);
	state_store_close(s);
	fd = open(path, O_RDWR | O_TRUNC);
	ok(fd >= 0 && write(fd, "not a database at all, but long enough to look at", 50) == 50, "destroy it");
	close(fd);
	s = state_store_open(dir, &err);
	ok(!s && err.code == SBX_E_SYSTEM, "then it is refused: %s", err.msg);
	state_store_close(s);
	static const char *const names[] = {"sandboxd.db", "sandboxd.db-wal", "sandboxd.db-shm"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* ---- a spec as a row and back ---- */

static void test_rows(void)
{
	static char image[] = "host", word[] = "sh \"x\"\n\xc3\xa4", key[] = "K", value[] = "v=\\1", name[] = "data", source[] = "/srv/x",
		    sub[] = "a/b", mount_path[] = "/mnt", arch[] = "amd64";
	char *entrypoint[] = {word, word, NULL};
	struct sandbox_pair pair = {key, value};
	struct sandbox_volume volume = {SANDBOX_VOLUME_HOST, name, source, sub, mount_path, true, false, true, 99, true};
	const struct sandbox_spec spec = {
		.image_uri = image, .entrypoint = entrypoint, .env = &pair, .n_env = 1, .metadata = &pair, .n_metadata = 1,
		.volumes = &volume, .n_volumes = 1, .platform_arch = arch, .timeout_s = -1, .memory_bytes = UINT64_C(1) << 62,
		.cpu_millicores = 10, .pids_max = 64, .disk_mib = 77, .renew_extend_s = 5, .image_entrypoint = true,
	};
	auto_buf text = {0};
	auto_buf metadata = {0};
	struct sandbox_spec back = {0};
	struct sbx_err err = {0};

	row_write_spec(&spec, &text);
	row_write_metadata(&spec, &metadata);
	if (!ok(row_read_spec(buf_str(&text), buf_str(&metadata), &back, &err) == 0, "a spec is read back: %s", err.msg))
		return;
	ok(!strcmp(back.image_uri, image) && !strcmp(back.entrypoint[1], word) && !back.entrypoint[2], "image, entrypoint");
	ok(back.n_env == 1 && !strcmp(back.env[0].value, value) && back.n_metadata == 1 && !strcmp(back.metadata[0].key, key), "pairs");
	ok(back.n_volumes == 1 && back.volumes[0].kind == SANDBOX_VOLUME_HOST && back.volumes[0].read_only &&
		   !back.volumes[0].create && back.volumes[0].remove_at_end && !strcmp(back.volumes[0].sub_path, sub) &&
		   back.volumes[0].size_mib == 99 && back.volumes[0].size_asked,
	   "volumes");
	ok(!back.platform_os && !strcmp(back.platform_arch, arch) && back.timeout_s == -1, "platform, timeout");
	ok(back.memory_bytes == UINT64_C(1) << 62 && back.cpu_millicores == 10 && back.pids_max == 64 && back.disk_mib == 77, "limits beyond 2^53 too");
	ok(back.renew_extend_s == 5 && back.image_entrypoint, "the rest");
	sandbox_spec_free(&back);
	sandbox_spec_free(&back);
	static const char *const broken[] = {"", "{", "[]", "{\"entrypoint\":[1]}", "{\"env\":[]}", "{\"memory_bytes\":\"x\",\"env\":{}}"};
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
		ok(row_read_spec(broken[i], "{}", &back, &err) < 0, "refused: '%s'", broken[i]);
}

int main(void)
{
	test_lifecycle();
	test_resources();
	test_expiry();
	test_store();
	test_rows();
	return tap_done();
}
