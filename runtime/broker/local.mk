# runtime/broker/

# Groups, links, packet filter and host probes, as an archive: the broker and the root tests link it (before libbase.a, with
# $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)).  Part of the broker's audit list.
noinst_LIBRARIES += libhostside.a
libhostside_a_CPPFLAGS = $(AM_CPPFLAGS) $(NLROUTE_CFLAGS) $(NFTABLES_CFLAGS) $(MNL_CFLAGS)
libhostside_a_SOURCES = runtime/broker/cgroup.c runtime/broker/cgroup.h runtime/broker/cgroup_int.h \
	runtime/broker/cgroup_detect.c runtime/broker/cgroup_v1.c runtime/broker/cgroup_v2.c runtime/broker/cgroup_knobs.def \
	runtime/broker/links.c runtime/broker/links.h runtime/broker/links_conntrack.c \
	runtime/broker/egress_plan.c runtime/broker/egress_plan.h runtime/broker/fwset.c runtime/broker/fwset.h \
	runtime/broker/netlog.c runtime/broker/netlog.h runtime/broker/sockcut.c runtime/broker/sockcut.h \
	runtime/broker/fw_rules.c runtime/broker/fw_rules6.c runtime/broker/fw_rules_chains.c runtime/broker/fw_rules_gate.c runtime/broker/fw_rules.h runtime/broker/fw_rules_int.h runtime/broker/netwatch.c runtime/broker/netwatch.h \
	runtime/broker/sysctl_record.c runtime/broker/sysctl_record.h \
	runtime/broker/disk_quota.c runtime/broker/disk_quota.h runtime/broker/disk_loop.c runtime/broker/disk_loop.h \
	runtime/broker/disk_format.c runtime/broker/disk_format.h \
	runtime/broker/host_check.c runtime/broker/host_check.h runtime/broker/host_check.def \
	runtime/broker/host_purge.c runtime/broker/host_purge.h

check_PROGRAMS += tests/system/net_driver
tests_system_net_driver_SOURCES = tests/system/net_driver.c
tests_system_net_driver_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
check_PROGRAMS += tests/unit/test_hostside tests/system/host_rows
UNIT_TESTS += tests/unit/test_hostside
ROOT_TESTS += tests/system/host_rows
tests_unit_test_hostside_SOURCES = tests/unit/test_hostside.c
tests_unit_test_hostside_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
tests_system_host_rows_SOURCES = tests/system/host_rows.c
tests_system_host_rows_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)

# sandbox-broker: with libhostside.a the list of everything that runs as root.  Archive and program apart, so that tests can link it.
noinst_LIBRARIES += libbroker.a
libbroker_a_CPPFLAGS = $(AM_CPPFLAGS) $(LIBCAP_CFLAGS) $(SECCOMP_CFLAGS)
libbroker_a_SOURCES = runtime/broker/broker_msg.h runtime/broker/launch_sync.h runtime/broker/broker_int.h \
	runtime/broker/broker_decode.c runtime/broker/broker_decode.h runtime/broker/broker_ops.c \
	runtime/broker/egress.c runtime/broker/egress.h runtime/broker/egress_walk.c runtime/broker/egress_walk.h \
	runtime/broker/slot.c runtime/broker/slot.h runtime/broker/shells.c runtime/broker/shells.h runtime/broker/launch.c runtime/broker/launch.h \
	runtime/broker/launch_child.c runtime/broker/launch_child.h \
	runtime/broker/rootfs_mount.c runtime/broker/rootfs_mount.h runtime/broker/lowers.c runtime/broker/lowers.h runtime/broker/root_ahead.c runtime/broker/root_ahead.h runtime/broker/idmap.c runtime/broker/idmap.h \
	runtime/broker/disk.c runtime/broker/disk.h runtime/broker/disk_worker.c runtime/broker/disk_worker.h \
	runtime/broker/layers.c runtime/broker/layers.h runtime/broker/capture.c runtime/broker/capture.h runtime/broker/unpacker.c runtime/broker/unpacker.h runtime/broker/volumes.c runtime/broker/volumes.h \
	runtime/broker/freezer.c runtime/broker/freezer.h runtime/broker/host_probe.c runtime/broker/host_probe.h runtime/broker/trash.c runtime/broker/trash.h runtime/broker/flows.c runtime/broker/flows.h runtime/broker/profile.c runtime/broker/profile.h runtime/broker/profile.def \
	runtime/broker/capset.c runtime/broker/capset.h runtime/admission.c runtime/admission.h runtime/resources.c runtime/resources.h
ROOT_TESTS += tests/system/root_ahead.sh tests/system/shells_preload.sh
pkglibexec_PROGRAMS += sandbox-broker
sandbox_broker_SOURCES = runtime/broker/broker_main.c
sandbox_broker_LDADD = libbroker.a libhostside.a libbase.a $(LIBCAP_LIBS) $(SECCOMP_LIBS) $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)

# A broker of one's own for root tests.
noinst_LIBRARIES += libbtc.a
libbtc_a_SOURCES = tests/system/broker_test_client.c tests/system/broker_test_client.h
# The same with a world beside it, for what passes the packet filter.
noinst_LIBRARIES += libworld.a
libworld_a_SOURCES = tests/system/egress_world.c tests/system/egress_world.h
check_PROGRAMS += tests/system/net_egress
ROOT_TESTS += tests/system/net_egress
tests_system_net_egress_SOURCES = tests/system/net_egress.c
tests_system_net_egress_LDADD = libworld.a libbtc.a libbase.a
check_PROGRAMS += tests/system/net_egress_life
ROOT_TESTS += tests/system/net_egress_life
tests_system_net_egress_life_SOURCES = tests/system/net_egress_life.c
tests_system_net_egress_life_LDADD = libworld.a libbtc.a libbase.a
check_PROGRAMS += tests/system/broker_basic
ROOT_TESTS += tests/system/broker_basic
tests_system_broker_basic_SOURCES = tests/system/broker_basic.c
tests_system_broker_basic_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/broker_speed
tests_system_broker_speed_SOURCES = tests/system/broker_speed.c
tests_system_broker_speed_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/cgroup_limits
ROOT_TESTS += tests/system/cgroup_limits
tests_system_cgroup_limits_SOURCES = tests/system/cgroup_limits.c
tests_system_cgroup_limits_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
ROOT_TESTS += tests/system/net_daemon.sh tests/system/net_isolation.sh tests/system/net_guard.sh tests/system/net_allow.sh tests/vm/run.sh \
	tests/system/net_neigh.sh tests/system/net_locks.sh tests/system/net_legacy.sh tests/vm/hard.sh
EXTRA_DIST += tests/system/net_lib.sh tests/vm/vm.sh tests/vm/daemon.sh tests/vm/outer_lib.sh tests/vm/guest_lib.sh tests/vm/core.sh tests/vm/ipv6.sh \
	tests/vm/state.sh tests/vm/reboot.sh tests/vm/disks.sh tests/vm/old_clock.sh
check_PROGRAMS += tests/system/churn
ROOT_TESTS += tests/system/churn
tests_system_churn_SOURCES = tests/system/churn.c
tests_system_churn_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/broker_recover
ROOT_TESTS += tests/system/broker_recover
tests_system_broker_recover_SOURCES = tests/system/broker_recover.c
tests_system_broker_recover_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/hostile_sandboxd
ROOT_TESTS += tests/system/hostile_sandboxd
tests_system_hostile_sandboxd_SOURCES = tests/system/hostile_sandboxd.c
tests_system_hostile_sandboxd_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/unit/test_broker tests/fuzz/fuzz_broker_msg
UNIT_TESTS += tests/unit/test_broker tests/fuzz/fuzz_broker_msg
tests_unit_test_broker_SOURCES = tests/unit/test_broker.c
tests_unit_test_broker_LDADD = libbroker.a libbase.a $(SECCOMP_LIBS)
check_PROGRAMS += tests/unit/test_egress_plan
UNIT_TESTS += tests/unit/test_egress_plan
tests_unit_test_egress_plan_SOURCES = tests/unit/test_egress_plan.c
tests_unit_test_egress_plan_LDADD = libbroker.a libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
tests_fuzz_fuzz_broker_msg_SOURCES = tests/fuzz/fuzz_broker_msg.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_broker_msg_LDADD = libbroker.a libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
EXTRA_DIST += tests/fuzz/corpus/broker_msg
check_PROGRAMS += tests/system/broker_threats
ROOT_TESTS += tests/system/broker_threats
tests_system_broker_threats_SOURCES = tests/system/broker_threats.c
tests_system_broker_threats_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/disk_limits
ROOT_TESTS += tests/system/disk_limits
tests_system_disk_limits_SOURCES = tests/system/disk_limits.c
tests_system_disk_limits_LDADD = libbtc.a libbase.a
check_PROGRAMS += tests/system/broker_images
ROOT_TESTS += tests/system/broker_images
tests_system_broker_images_SOURCES = tests/system/broker_images.c
tests_system_broker_images_LDADD = libbtc.a libbase.a
