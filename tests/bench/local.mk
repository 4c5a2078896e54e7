# tests/bench/: `make bench` measures; it is never a test.
EXTRA_PROGRAMS += tests/bench/bench tests/bench/bench_streams tests/bench/floor
EXTRA_DIST += tests/bench/run.sh tests/bench/pull.sh tests/bench/images.sh
CLEANFILES += tests/bench/bench tests/bench/bench_streams tests/bench/floor
tests_bench_bench_SOURCES = tests/bench/bench.c tests/bench/bench_http.c tests/bench/bench_http.h \
	tests/bench/bench_peer.c tests/bench/bench_peer.h
tests_bench_bench_LDADD = libbase.a $(CJSON_LIBS)

tests_bench_bench_streams_SOURCES = tests/bench/bench_streams.c tests/bench/bench_http.c tests/bench/bench_http.h
tests_bench_bench_streams_LDADD = libbase.a $(CJSON_LIBS)
tests_bench_floor_SOURCES = tests/bench/floor.c
tests_bench_floor_LDFLAGS = -static
tests_bench_floor_LDADD = libbase.a

bench: all tests/bench/bench tests/bench/bench_streams tests/bench/floor
	$(SHELL) $(srcdir)/tests/bench/run.sh
	top_srcdir=$(abs_top_srcdir) top_builddir=$(abs_top_builddir) $(top_srcdir)/tests/bench/images.sh
.PHONY: bench
# A registry, 300 MB, and who else pulls them; takes minutes.
bench-pull: all
	top_srcdir=$(abs_top_srcdir) top_builddir=$(abs_top_builddir) $(top_srcdir)/tests/bench/pull.sh
.PHONY: bench-pull

# What egress policies cost in packets, leases and changes; a router and a broker of its own.
EXTRA_PROGRAMS += tests/bench/bench_egress
CLEANFILES += tests/bench/bench_egress
tests_bench_bench_egress_CPPFLAGS = $(AM_CPPFLAGS) $(NFTABLES_CFLAGS)
tests_bench_bench_egress_SOURCES = tests/bench/bench_egress.c
tests_bench_bench_egress_LDADD = libworld.a libbtc.a libhostside.a libbase.a $(NLROUTE_LIBS) $(NFTABLES_LIBS) $(MNL_LIBS)
bench-egress: all tests/bench/bench_egress
	top_builddir=$(abs_top_builddir) ./tests/bench/bench_egress
	EGRESS_BENCH=1 top_srcdir=$(abs_top_srcdir) top_builddir=$(abs_top_builddir) $(top_srcdir)/tests/system/egress_gate.sh
.PHONY: bench-egress

# Figures of sandbox-dnsd beside other name servers.
EXTRA_PROGRAMS += tests/bench/dns_peer
EXTRA_DIST += tests/bench/dns.py
CLEANFILES += tests/bench/dns_peer
tests_bench_dns_peer_SOURCES = tests/bench/dns_peer.c
tests_bench_dns_peer_LDADD = libbase.a
bench-dns: all tests/bench/dns_peer
	top_builddir=. python3 $(srcdir)/tests/bench/dns.py
.PHONY: bench-dns
