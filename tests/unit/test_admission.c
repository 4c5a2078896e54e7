// SPDX-License-Identifier: Apache-2.0
/* Sums over all sandboxes: what is refused, with which words, and that the defaults let a thousand live. */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/settings.h"
#include "runtime/admission.h"

#include <string.h>

#define GIB (UINT64_C(1) << 30)

static void test_defaults(struct settings *s)
{
	static const struct {
		const char *why;
		struct admission_host host;
		uint32_t pids;
	} rows[] = {
		{"Debian's pid_max of old on 24 GiB", {32768, 24 * GIB}, 448},
		{"systemd's pid_max, threads of 24 GiB", {192730, 24 * GIB}, 2947},
		{"a large machine", {4194304, 512 * GIB}, 4096},
		{"a small machine of 2 GiB", {15700, 2 * GIB}, 183},
		{"a tiny one", {4000, GIB / 2}, 64},
	};
	struct sbx_err err;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct admission_host *host = &rows[i].host;
		struct admission_use live = {0}, more = {.pids = admission_default_pids(s, host), .memory_bytes = 2 * GIB};
		uint32_t n = 0;

		is_int(more.pids, rows[i].pids, "%s: processes of one by default", rows[i].why);
		ok(admission_pids(s, host) + 900 < host->tasks && admission_memory(s, host) < host->memory_bytes, "%s: the host keeps its share",
		   rows[i].why);
		while (n < 2000 && admission_check(s, host, &live, &more, &err) == 0) {
			live.pids += more.pids;
			live.memory_bytes += more.memory_bytes;
			n++;
		}
		ok(n >= 1000 || host->tasks < 8192, "%s: %u fit with the defaults, each with the 2 GiB that clients ask for", rows[i].why, n);
		ok(8 * more.pids < admission_pids(s, host), "%s: eight fork bombs fit into what sandboxes may take", rows[i].why);
	}
}

static void test_refusals(struct settings *s)
{
	const struct admission_host host = {32768, 8 * GIB};
	struct admission_use live = {0}, more = {.pids = 1000, .memory_bytes = GIB};
	struct sbx_err err = {0};

	ok(settings_set(s, "limits.pids_overcommit", "1", &err) == 0 && settings_set(s, "limits.reserve_pids", "768", &err) == 0, "no overcommit");
	live.pids = 31000;
	is_int(admission_check(s, &host, &live, &more, &err), 0, "exactly as many as there are");
	live.pids = 31001;
	err = (struct sbx_err){0};
	is_int(admission_check(s, &host, &live, &more, &err), -1, "one more");
	ok(err.code == SBX_E_HOST_FULL && strstr(err.msg, "32001 of 32000") && strstr(err.msg, "limits.pids_overcommit") &&
	   strstr(err.msg, "limits.reserve_pids") && strstr(err.msg, "resourceLimits.pids"), "the words: %s", err.msg);
	ok(settings_set(s, "limits.pids_overcommit", "0", &err) == 0 && admission_check(s, &host, &live, &more, &err) == 0, "0: no bound");
	live = (struct admission_use){.memory_bytes = 6 * GIB};
	is_int(admission_check(s, &host, &live, &more, &err), 0, "memory has no sum by default");
	ok(settings_set(s, "limits.memory_overcommit", "1", &err) == 0 && settings_set(s, "limits.reserve_memory", "1Gi", &err) == 0, "one is set");
	is_int(admission_check(s, &host, &live, &more, &err), 0, "exactly what there is");
	live.memory_bytes++;
	is_int(admission_check(s, &host, &live, &more, &err), -1, "a byte more");
	ok(strstr(err.msg, "memory") && strstr(err.msg, "limits.memory_overcommit"), "the words: %s", err.msg);
	more.memory_bytes = 0;
	is_int(admission_check(s, &host, &live, &more, &err), 0, "who has no limit asks for nothing");
	more.memory_bytes = UINT64_MAX;
	is_int(admission_check(s, &host, &live, &more, &err), -1, "sums do not wrap");
	ok(settings_set(s, "limits.reserve_pids", "40000", &err) == 0 && settings_set(s, "limits.pids_overcommit", "2", &err) == 0, "a reserve above all");
	more = (struct admission_use){.pids = 1};
	live = (struct admission_use){0};
	is_int(admission_check(s, &host, &live, &more, &err), -1, "nothing is left");
}

int main(void)
{
	struct settings s;
	struct sbx_err err = {0};

	if (settings_load("/dev/null", &s, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		return 1;
	}
	test_defaults(&s);
	test_refusals(&s);
	settings_free(&s);
	return tap_done();
}
