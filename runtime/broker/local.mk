# runtime/broker/

# Groups, links, packet filter and host probes, as an archive: the broker and the root tests link it (before libbase.a, with
# $(NLROUTE_LIBS) $(NFTABLES_LIBS)).  Part of the broker's audit list.
noinst_LIBRARIES += libhostside.a
libhostside_a_CPPFLAGS = $(AM_CPPFLAGS) $(NLROUTE_CFLAGS) $(NFTABLES_CFLAGS)
libhostside_a_SOURCES = runtime/broker/cgroup.c runtime/broker/cgroup.h runtime/broker/cgroup_int.h \
	runtime/broker/cgroup_detect.c runtime/broker/cgroup_v1.c runtime/broker/cgroup_v2.c runtime/broker/cgroup_knobs.def
