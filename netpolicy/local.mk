# netpolicy/: what a sandbox may reach by name: codec, forwarder, sandbox-dnsd.
noinst_LIBRARIES += libnetpolicy.a
libnetpolicy_a_SOURCES = netpolicy/dns_msg.c netpolicy/dns_msg.h netpolicy/dns_msg_int.h netpolicy/dns_answer.c netpolicy/dns_answer.h \
	netpolicy/dns_upstream.c netpolicy/dns_upstream.h netpolicy/dns_random.c netpolicy/dns_random.h \
	netpolicy/dns_exchange.c netpolicy/dns_exchange.h netpolicy/dns_guard.c netpolicy/dns_guard.h \
	netpolicy/dns_limits.c netpolicy/dns_limits.h netpolicy/dns_sandbox.c netpolicy/dns_sandbox.h \
	netpolicy/dns_cache.c netpolicy/dns_cache.h netpolicy/dns_lease.c netpolicy/dns_lease.h \
	netpolicy/dns_nflog.c netpolicy/dns_nflog.h netpolicy/egress_msg.h \
	netpolicy/tls_hello.c netpolicy/tls_hello.h netpolicy/gate_flow.c netpolicy/gate_flow.h \
	netpolicy/gate_packet.c netpolicy/gate_packet.h netpolicy/gate_table.c netpolicy/gate_table.h \
	netpolicy/dns_judge.c netpolicy/dns_judge.h netpolicy/gate_mode.c netpolicy/gate_mode.h netpolicy/dns_doh.c netpolicy/doh_endpoints.def netpolicy/dns_hosts.c
# The rules and what they say.  Who links netpolicy/idn.o (by target_parse()) adds $(IDN2_LIBS).
libnetpolicy_a_SOURCES += netpolicy/fqdn.c netpolicy/fqdn.h netpolicy/idn.c netpolicy/idn.h netpolicy/target.c netpolicy/target.h \
	netpolicy/policy.c netpolicy/policy_addr.c netpolicy/policy.h netpolicy/policy_int.h \
	netpolicy/policy_wire.c netpolicy/policy_wire.h netpolicy/policy_json.c netpolicy/policy_json.h
# sandboxd's end of policy.sock
libnetpolicy_a_SOURCES += netpolicy/policy_link.c netpolicy/policy_link.h netpolicy/overlay.c netpolicy/overlay.h netpolicy/journal.c netpolicy/journal.h

check_PROGRAMS += tests/unit/test_policy
UNIT_TESTS += tests/unit/test_policy
tests_unit_test_policy_SOURCES = tests/unit/test_policy.c
tests_unit_test_policy_LDADD = libnetpolicy.a libbase.a $(IDN2_LIBS)
check_PROGRAMS += tests/unit/test_policy_json tests/fuzz/fuzz_policy_json
UNIT_TESTS += tests/unit/test_policy_json tests/fuzz/fuzz_policy_json
tests_unit_test_policy_json_SOURCES = tests/unit/test_policy_json.c
tests_unit_test_policy_json_LDADD = libnetpolicy.a libbase.a $(CJSON_LIBS) $(IDN2_LIBS)
tests_fuzz_fuzz_policy_json_SOURCES = tests/fuzz/fuzz_policy_json.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_policy_json_LDADD = libnetpolicy.a libbase.a $(CJSON_LIBS) $(IDN2_LIBS)
EXTRA_DIST += tests/fuzz/corpus/policy_json

pkglibexec_PROGRAMS += sandbox-dnsd
sandbox_dnsd_SOURCES = netpolicy/dnsd_main.c netpolicy/dnsd_int.h netpolicy/dns_proxy.c netpolicy/dns_tcp.c netpolicy/dns_question.c \
	netpolicy/dns_lookup.c netpolicy/dnsd_broker.c \
	netpolicy/dnsd_policy.c netpolicy/dnsd_event.c netpolicy/dnsd_log.c netpolicy/dnsd_gate.c
sandbox_dnsd_LDADD = libnetpolicy.a libbase.a

check_PROGRAMS += tests/unit/test_dns tests/fuzz/fuzz_dns_msg
UNIT_TESTS += tests/unit/test_dns tests/fuzz/fuzz_dns_msg
tests_unit_test_dns_SOURCES = tests/unit/test_dns.c
tests_unit_test_dns_LDADD = libnetpolicy.a libbase.a
tests_fuzz_fuzz_dns_msg_SOURCES = tests/fuzz/fuzz_dns_msg.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_dns_msg_LDADD = libnetpolicy.a libbase.a
EXTRA_DIST += tests/fuzz/corpus/dns_msg
check_PROGRAMS += tests/fuzz/fuzz_nflog tests/fuzz/fuzz_policy_wire
UNIT_TESTS += tests/fuzz/fuzz_nflog tests/fuzz/fuzz_policy_wire
tests_fuzz_fuzz_nflog_SOURCES = tests/fuzz/fuzz_nflog.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_nflog_LDADD = libnetpolicy.a libbase.a
tests_fuzz_fuzz_policy_wire_SOURCES = tests/fuzz/fuzz_policy_wire.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_policy_wire_LDADD = libnetpolicy.a libbase.a
EXTRA_DIST += tests/fuzz/corpus/nflog tests/fuzz/corpus/policy_wire
# The gate of TLS names
check_PROGRAMS += tests/unit/test_gate tests/fuzz/fuzz_tls_hello
UNIT_TESTS += tests/unit/test_gate tests/fuzz/fuzz_tls_hello
tests_unit_test_gate_SOURCES = tests/unit/test_gate.c
tests_unit_test_gate_LDADD = libnetpolicy.a libbase.a
tests_fuzz_fuzz_tls_hello_SOURCES = tests/fuzz/fuzz_tls_hello.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_tls_hello_LDADD = libnetpolicy.a libbase.a
EXTRA_DIST += tests/fuzz/corpus/tls_hello tests/fuzz/corpus/gate_packet tests/system/egress_gate.py
ROOT_TESTS += tests/system/egress_gate.sh
check_PROGRAMS += tests/fuzz/fuzz_gate_packet
UNIT_TESTS += tests/fuzz/fuzz_gate_packet
tests_fuzz_fuzz_gate_packet_SOURCES = tests/fuzz/fuzz_gate_packet.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_gate_packet_LDADD = libnetpolicy.a libbase.a
ROOT_TESTS += tests/system/dnsd.sh
EXTRA_DIST += tests/system/dnsd.py
ROOT_TESTS += tests/system/dnsd_rows.sh tests/system/dnsd_tunnel.sh tests/system/egress_names.sh tests/system/ipv6.sh
ROOT_TESTS += tests/system/dnsd_hostile.sh tests/system/egress_explain.sh tests/system/egress_holes.sh
EXTRA_DIST += tests/system/dnsd_hostile.py tests/system/ipv6.py
EXTRA_DIST += tests/system/tap_lib.py tests/system/egress_lib.sh tests/system/egress_lib.py tests/system/egress_explain.py tests/system/egress_holes.py
EXTRA_DIST += tests/system/dnsd_rows.py tests/system/dnsd_tunnel.py tests/system/dnsd_lib.py
check_PROGRAMS += tests/unit/test_policy_link
UNIT_TESTS += tests/unit/test_policy_link
tests_unit_test_policy_link_SOURCES = tests/unit/test_policy_link.c
tests_unit_test_policy_link_LDADD = libnetpolicy.a libbase.a $(IDN2_LIBS)
# Which test shows which row of a contract; the lint reads doc/execd-rows.md, too.
LINT_TESTS += tests/lint/rows
EXTRA_DIST += doc/egress-rows.md doc/egress.md
