# base/: no knowledge of sandboxes.  One archive; a program links only the members that it uses.
noinst_LIBRARIES += libbase.a
libbase_a_SOURCES = base/cleanup.h base/limits.h base/errors.def \
	base/err.c base/err.h base/log.c base/log.h base/buf.c base/buf.h base/loop.c base/loop.h \
	base/wallclock.c base/wallclock.h base/fdpass.c base/fdpass.h base/num.c base/num.h base/fault.c base/fault.h base/ip6.c base/ip6.h \
	base/reaper.c base/reaper.h base/pidfd.c base/pidfd.h
# HTTP and WebSocket.
libbase_a_SOURCES += base/http1.c base/http1.h base/http1.def base/http_server.c base/http_peers.c base/http_peers.h base/options.c base/options.h base/http_request.c base/http_server.h base/http_server_int.h \
	base/http_response.c base/http_text.c base/http_client.c base/http_client.h base/ws.c base/ws.h
# The only user of cJSON; who links base/jv.o, which the HTTP server's errors are written with, adds $(CJSON_LIBS).
libbase_a_SOURCES += base/jv.c base/jv.h

check_PROGRAMS += tests/unit/test_jv tests/fuzz/fuzz_json
UNIT_TESTS += tests/unit/test_jv tests/fuzz/fuzz_json
tests_unit_test_jv_SOURCES = tests/unit/test_jv.c
tests_unit_test_jv_LDADD = libbase.a $(CJSON_LIBS)
tests_fuzz_fuzz_json_SOURCES = tests/fuzz/fuzz_json.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_json_LDADD = libbase.a $(CJSON_LIBS)
EXTRA_DIST += tests/fuzz/corpus/json
libbase_a_SOURCES += base/config_file.c base/config_file.h base/settings.c base/settings.h base/settings.def

# For root's part and its tests: names beneath directories, and the only user of libseccomp.
libbase_a_SOURCES += base/path.c base/path.h base/sysfilter.c base/sysfilter.h base/sysfilter_ranges.c base/sysfilter_ranges.h

check_PROGRAMS += tests/unit/test_http1 tests/fuzz/fuzz_http1
UNIT_TESTS += tests/unit/test_http1 tests/fuzz/fuzz_http1
tests_unit_test_http1_SOURCES = tests/unit/test_http1.c
tests_unit_test_http1_LDADD = libbase.a
tests_fuzz_fuzz_http1_SOURCES = tests/fuzz/fuzz_http1.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_http1_LDADD = libbase.a
EXTRA_DIST += tests/fuzz/corpus/http1
check_PROGRAMS += tests/unit/test_http_server
UNIT_TESTS += tests/unit/test_http_server
tests_unit_test_http_server_SOURCES = tests/unit/test_http_server.c
tests_unit_test_http_server_LDADD = libbase.a $(CJSON_LIBS)
libbase_a_SOURCES += base/isolate.c base/isolate.h
check_PROGRAMS += tests/unit/test_config tests/fuzz/fuzz_toml
UNIT_TESTS += tests/unit/test_config tests/fuzz/fuzz_toml
tests_unit_test_config_SOURCES = tests/unit/test_config.c
tests_unit_test_config_LDADD = libbase.a
tests_fuzz_fuzz_toml_SOURCES = tests/fuzz/fuzz_toml.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_toml_LDADD = libbase.a
EXTRA_DIST += tests/fuzz/corpus/toml
check_PROGRAMS += tests/unit/test_ws tests/fuzz/fuzz_ws
UNIT_TESTS += tests/unit/test_ws tests/fuzz/fuzz_ws
tests_unit_test_ws_SOURCES = tests/unit/test_ws.c
tests_unit_test_ws_LDADD = libbase.a
tests_fuzz_fuzz_ws_SOURCES = tests/fuzz/fuzz_ws.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_ws_LDADD = libbase.a
EXTRA_DIST += tests/fuzz/corpus/ws
check_PROGRAMS += tests/unit/test_isolate
UNIT_TESTS += tests/unit/test_isolate
tests_unit_test_isolate_SOURCES = tests/unit/test_isolate.c
tests_unit_test_isolate_LDADD = libbase.a
check_PROGRAMS += tests/unit/test_http_client
UNIT_TESTS += tests/unit/test_http_client
tests_unit_test_http_client_SOURCES = tests/unit/test_http_client.c
tests_unit_test_http_client_LDADD = libbase.a $(CJSON_LIBS)
