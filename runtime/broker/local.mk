# runtime/broker/

# Groups, links, packet filter and host probes, as an archive: the broker and the root tests link it (before libbase.a, with
# $(NLROUTE_LIBS) $(NFTABLES_LIBS)).  Part of the broker's audit list.
noinst_LIBRARIES += libhostside.a
libhostside_a_CPPFLAGS = $(AM_CPPFLAGS) $(NLROUTE_CFLAGS) $(NFTABLES_CFLAGS)
libhostside_a_SOURCES = runtime/broker/cgroup.c runtime/broker/cgroup.h runtime/broker/cgroup_int.h \
	runtime/broker/cgroup_detect.c runtime/broker/cgroup_v1.c runtime/broker/cgroup_v2.c runtime/broker/cgroup_knobs.def \
	runtime/broker/links.c runtime/broker/links.h runtime/broker/links_conntrack.c \
	runtime/broker/fw_rules.c runtime/broker/fw_rules.h runtime/broker/netwatch.c runtime/broker/netwatch.h \
	runtime/broker/sysctl_record.c runtime/broker/sysctl_record.h \
	runtime/broker/host_check.c runtime/broker/host_check.h runtime/broker/host_check.def

check_PROGRAMS += tests/system/net_driver
tests_system_net_driver_SOURCES = tests/system/net_driver.c
tests_system_net_driver_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS)
check_PROGRAMS += tests/unit/test_hostside tests/system/host_rows
UNIT_TESTS += tests/unit/test_hostside
ROOT_TESTS += tests/system/host_rows
tests_unit_test_hostside_SOURCES = tests/unit/test_hostside.c
tests_unit_test_hostside_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS)
tests_system_host_rows_SOURCES = tests/system/host_rows.c
tests_system_host_rows_LDADD = libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS)
