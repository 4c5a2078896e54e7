# SPDX-License-Identifier: Apache-2.0
# The instance number of a test's daemon, out of 1 to 12; 0 is for the installed one.  Sourced by bash.

# Sets `instance` to a number that no daemon of this host has, now or by what it left, and that no other test has taken.  It is
# this test's until this shell and all that it started have ended.
take_instance() {
	local n at
	mkdir -p /run/sandboxd /run/lock
	for n in $(seq 12); do
		at=$(((n + $$) % 12 + 1))
		exec {instance_held}>"/run/lock/sandboxd-test-$at"
		if flock -n "$instance_held" && flock -n "/run/sandboxd/instance-$at.lock" true && [ ! -e "/run/sandboxd/$at" ] &&
			! compgen -G "/sys/fs/cgroup/*/sandboxd-$at" >/dev/null && [ ! -e "/sys/fs/cgroup/sandboxd-$at" ]; then
			instance=$at
			return 0
		fi
		exec {instance_held}>&-
	done
	echo "# no instance number is free" >&2
	return 1
}
