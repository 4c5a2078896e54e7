// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/profile.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/sysfilter.h"
#include "runtime/broker/launch_sync.h"

#include <errno.h>

enum profile_who { WHO_TENANT = 1, WHO_ALL };
enum profile_kind { KIND_BOTH = 0, KIND_AGENT, KIND_REFUSED, KIND_BROKER, KIND_ABSENT, KIND_AGENT_ABSENT, KIND_WHEN };

static const struct profile_row {
	const char *name;
	enum profile_kind kind;
	enum profile_who who;
	int sys;
	int number; /* NEWER */
	struct sysfilter_argument argument[2];
} rows[] = {
#define BOTH(call)	   {.name = #call, .kind = KIND_BOTH},
#define NEWER(call, nr)	   {.name = #call, .kind = KIND_BOTH, .number = nr},
#define AGENT(call)	   {.name = #call, .kind = KIND_AGENT},
#define REFUSED(call)	   {.name = #call, .kind = KIND_REFUSED},
#define BROKER(call)	   {.name = #call, .kind = KIND_BROKER},
#define ABSENT(call)	   {.name = #call, .kind = KIND_ABSENT},
#define AGENT_ABSENT(call) {.name = #call, .kind = KIND_AGENT_ABSENT},
#define WHEN(w, call, e, i, cmp, value, datum) \
	{.name = #call, .kind = KIND_WHEN, .who = WHO_##w, .sys = e, .argument = {{i, SYSFILTER_##cmp, value, datum}}},
#define WHEN2(w, call, e, i, cmp, value, datum, i2, cmp2, value2, datum2) \
	{.name = #call, \
	 .kind = KIND_WHEN, \
	 .who = WHO_##w, \
	 .sys = e, \
	 .argument = {{i, SYSFILTER_##cmp, value, datum}, {i2, SYSFILTER_##cmp2, value2, datum2}}},
#include "runtime/broker/profile.def"
#undef BOTH
#undef NEWER
#undef AGENT
#undef REFUSED
#undef BROKER
#undef ABSENT
#undef AGENT_ABSENT
#undef WHEN
#undef WHEN2
};

/* What @program says to @row; false: nothing, the program's default holds. */
static bool row_for(enum profile_program program, const struct profile_row *row, struct sysfilter_row *out)
{
	bool agent = program == PROFILE_AGENT;

	*out = (struct sysfilter_row){.name = row->name, .number = row->number, .action = SYSFILTER_ERRNO, .sys = EPERM};
	if (program == PROFILE_BROKER)
		return row->kind == KIND_BROKER;
	switch (row->kind) {
	case KIND_BOTH:
		out->action = SYSFILTER_ALLOW;
		return true;
	case KIND_AGENT:
		out->action = agent ? SYSFILTER_ALLOW : SYSFILTER_ERRNO;
		return true;
	case KIND_REFUSED:
	case KIND_BROKER:
		return true;
	case KIND_AGENT_ABSENT:
		out->action = SYSFILTER_ALLOW;
		return agent;
	case KIND_ABSENT:
		return false;
	case KIND_WHEN:
		if (row->sys == 0 && FAULT_POINT("core-filter")) /* only the rows of RLIMIT_CORE pretend */
			return false;
		out->sys = row->sys;
		out->argument[0] = row->argument[0];
		out->argument[1] = row->argument[1];
		return !agent || row->who == WHO_ALL;
	}
	return false;
}

int profile_compile(enum profile_program program, uint32_t *ret_len, struct sbx_err *err)
{
	struct sysfilter_row row[ARRAY_SIZE(rows)];
	struct sysfilter filter = {.otherwise = SYSFILTER_ERRNO, .otherwise_sys = ENOSYS, .row = row};

	if (program == PROFILE_BROKER)
		filter.otherwise = SYSFILTER_ALLOW;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (row_for(program, &rows[i], &row[filter.n_rows]))
			filter.n_rows++;
	auto_fd fd = sysfilter_compile(&filter, ret_len, err);
	if (fd >= 0 && *ret_len > LAUNCH_MAX_FILTER)
		return sbx_err_set(err, SBX_E_LIMIT, 0, "seccomp program %d has %u instructions, more than %u", (int)program, *ret_len,
				   LAUNCH_MAX_FILTER);
	return take_fd(&fd);
}
