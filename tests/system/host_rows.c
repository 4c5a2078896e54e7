/* SPDX-License-Identifier: Apache-2.0 */
/* Prints every row of the host's feature table, probed on this host: a root test (each needed row must hold) and a look. */
#include "config.h"

#include <string.h>
#include <errno.h>
#include <unistd.h>

#include "base/wallclock.h"
#include "runtime/broker/cgroup.h"
#include "runtime/broker/host_check.h"
#include "tests/tap.h"

int main(int argc, char **argv)
{
	struct sbx_err err = {0};
	struct host_check_context context = {.state_dir = argc > 1 ? argv[1] : "/tmp", .gate = true};
	struct cgroup *cg;
	uint32_t mask = 0;
	struct host_row row;

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	cg = cgroup_open("hostrows", &err);
	ok(cg != NULL, "cgroups open: %s", cg ? cgroup_root_path(cg) : err.msg);
	context.cg = cg;
	for (uint32_t i = 0; i < HOST_CHECK_COUNT; i++) {
		uint64_t from = mono_usec();
		is_int(host_check_row(i, &context, &row), 0, "row %u can be asked", i);
		if (mono_usec() - from > 1000)
			printf("# %s took %llu us\n", row.name, (unsigned long long)(mono_usec() - from));
		ok(*row.found && *row.name && *row.use, "%s: %s", row.name, row.found);
		ok(!row.needed || row.verdict != HOST_FAIL, "%s: needed and there", row.name);
		if (row.verdict != HOST_OK)
			printf("# %s %s: costs: %s; mend: %s\n", row.verdict == HOST_WARN ? "warn" : "fail", row.name, row.costs, row.mend);
	}
	is_int(host_check_row(HOST_CHECK_COUNT, &context, &row), -EINVAL, "no row behind the last");
	is_int(host_check_start(&context, &mask, &err), 0, "this host can run sandboxes");
	ok(mask & (1u << HOST_CHECK_USERNS), "and user namespaces are among its features");
	context.cg = NULL;
	is_int(host_check_start(&context, &mask, &err), -1, "not without cgroups");
	ok(strstr(err.msg, "cgroup.freeze") != NULL, "and the text names the row: %s", err.msg);
	if (cg)
		is_int(cgroup_purge(cg, &err), 0, "cgroups are removed again: %s", err.msg);
	cgroup_free(cg);
	return tap_done();
}
