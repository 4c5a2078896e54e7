// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/capset.h"

#include "base/cleanup.h"

#include <errno.h>
#include <linux/securebits.h>
#include <stdbool.h>
#include <sys/capability.h>
#include <sys/prctl.h>

/* clang-format off */
static const struct {
	cap_value_t cap;
	bool needed;
	const char *why;
} kept[] = {
	{CAP_SYS_ADMIN,	   true,  "namespaces, mounts, id maps"},
	{CAP_SETUID,	   true,  "id maps, owner of a new namespace"},
	{CAP_SETGID,	   true,  "id maps"},
	{CAP_SETPCAP,	   true,  "shrinking the bounding set, securebits"},
	{CAP_SETFCAP,	   true,  "maps that contain the owner of a host directory"},
	{CAP_CHOWN,	   true,  "uppers belong to the slot"},
	{CAP_FOWNER,	   true,  "modes of directories that belong to a slot"},
	{CAP_FSETID,	   true,  "modes with setgid of directories that belong to a slot"},
	{CAP_DAC_OVERRIDE, true,  "moving directories that belong to a slot"},
	{CAP_DAC_READ_SEARCH, false, "volumes below directories of others"},
	{CAP_KILL,	   true,  "ending sandboxes"},
	{CAP_NET_ADMIN,	   true,  "links, rules"},
	{CAP_NET_RAW,	   false, "libnftables on old kernels"},
	{CAP_NET_BIND_SERVICE, true, "the name server's port in the router namespace"},
	{CAP_SYS_PTRACE,   true,  "entering the namespaces of another user's process"},
	{CAP_SYS_CHROOT,   true,  "setns of a mount namespace"},
	{CAP_MKNOD,	   true,  "the six devices of /dev"},
	{CAP_SYS_NICE,	   false, "resetting the priority of a shell when ours was changed"},
	{CAP_SYS_RESOURCE, false, "limits above those we were started with; volumes that grow"},
};
/* clang-format on */

static void free_caps(cap_t *caps)
{
	if (*caps)
		cap_free(*caps);
}

static bool keeps(cap_value_t cap)
{
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (kept[i].cap == cap)
			return true;
	return false;
}

static int set_sets(bool keep)
{
	__attribute__((cleanup(free_caps))) cap_t now = cap_get_proc();
	__attribute__((cleanup(free_caps))) cap_t want = cap_init();

	if (!now || !want)
		return -ENOMEM;
	for (size_t i = 0; keep && i < ARRAY_SIZE(kept); i++) {
		cap_flag_value_t have = CAP_CLEAR;

		if (cap_get_flag(now, kept[i].cap, CAP_PERMITTED, &have) < 0 || have != CAP_SET)
			continue;
		if (cap_set_flag(want, CAP_PERMITTED, 1, &kept[i].cap, CAP_SET) < 0 ||
		    cap_set_flag(want, CAP_EFFECTIVE, 1, &kept[i].cap, CAP_SET) < 0)
			return -errno;
	}
	return cap_set_proc(want) < 0 ? -errno : 0;
}

static int shrink_bounding(bool keep)
{
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++)
		if (cap_get_bound(cap) == CAP_SET && !(keep && keeps(cap)) && cap_drop_bound(cap) < 0)
			return -errno;
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ? -errno : 0;
}

int capset_keep_broker(struct sbx_err *err)
{
	__attribute__((cleanup(free_caps))) cap_t now = cap_get_proc();

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		cap_flag_value_t have = CAP_CLEAR;

		if (kept[i].needed && (!now || cap_get_flag(now, kept[i].cap, CAP_EFFECTIVE, &have) < 0 || have != CAP_SET)) {
			char *name = cap_to_name(kept[i].cap);

			sbx_err_set(err, SBX_E_HOST_LACKS, 0, "the broker needs %s for: %s", name ? name : "a capability", kept[i].why);
			cap_free(name);
			return -1;
		}
	}
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED, 0, 0, 0) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "securebits");
	int r = shrink_bounding(true);
	if (r == 0)
		r = set_sets(true);
	return r < 0 ? sbx_err_set(err, SBX_E_SYSTEM, -r, "drop capabilities") : 0;
}

int capset_drop_all(void)
{
	int r = shrink_bounding(false);

	return r < 0 ? r : set_sets(false);
}

bool capset_has_resource(void)
{
	__attribute__((cleanup(free_caps))) cap_t now = cap_get_proc();
	cap_flag_value_t have = CAP_CLEAR;

	return now && cap_get_flag(now, CAP_SYS_RESOURCE, CAP_EFFECTIVE, &have) == 0 && have == CAP_SET;
}
