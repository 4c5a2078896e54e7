# api/, sandboxd's half: what it answers through the gateway.  libapi.a is linked into sandboxd only.
noinst_LIBRARIES += libapi.a
libapi_a_SOURCES = api/api_server.c api/api_server.h api/auth.c api/auth.h api/call.c api/call.h api/dispatch.c \
	api/dispatch.h api/endpoint.c api/endpoint.h api/gw_msg.h api/gw_server.c api/gw_server.h api/images_api.c \
	api/images_api.h api/images_import.c api/images_import.h api/images_prune.c api/images_gc.c api/images_gc.h api/images_layers.c api/images_layers.h api/images_events.c api/images_events.h api/images_export.c api/images_export.h api/images_pull.c api/images_pull.h api/images_int.h api/render.c api/render.h \
	api/routes_api.def api/schema.c api/schema.h api/volumes_request.c api/volumes_request.h \
	api/lifecycle/change.c api/lifecycle/common.c api/lifecycle/create.c api/lifecycle/create_request.c \
	api/lifecycle/create_request.h api/lifecycle/diagnostics.c api/lifecycle/endpoints.c api/lifecycle/labels.c \
	api/lifecycle/labels.h api/lifecycle/lifecycle_api.h api/lifecycle/lifecycle_int.h api/lifecycle/misc.c \
	api/lifecycle/read.c api/lifecycle/word_split.c api/lifecycle/word_split.h
# Collections and commits.
libapi_a_SOURCES += api/images_commit.c api/images_commit.h api/images_fsck.c api/images_fsck.h
# Port 18080, and what the lifecycle API says about egress.
libapi_a_SOURCES += api/egress_api.c api/egress_api.h api/egress_events.c api/egress_events.h api/lifecycle/egress.c api/lifecycle/egress_metrics.c \
	api/deny_hook.c api/deny_hook.h

# The API against a fake manager and a fake broker: both stand in front of libruntime.a, so its own are not taken.
API_TEST_LIBS = libapi.a libruntime.a libimages.a libnetpolicy.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS) $(IDN2_LIBS) -lm
check_PROGRAMS += tests/unit/test_lifecycle_api
UNIT_TESTS += tests/unit/test_lifecycle_api
tests_unit_test_lifecycle_api_SOURCES = tests/unit/test_lifecycle_api.c tests/unit/fake_manager.c tests/unit/fake_manager.h runtime/sandbox_spec.c
tests_unit_test_lifecycle_api_LDADD = $(API_TEST_LIBS)
check_PROGRAMS += tests/unit/test_gw_server
UNIT_TESTS += tests/unit/test_gw_server
tests_unit_test_gw_server_SOURCES = tests/unit/test_gw_server.c tests/unit/fake_manager.c tests/unit/fake_manager.h runtime/sandbox_spec.c
tests_unit_test_gw_server_LDADD = $(API_TEST_LIBS)

check_PROGRAMS += tests/unit/test_egress_api
UNIT_TESTS += tests/unit/test_egress_api
tests_unit_test_egress_api_SOURCES = tests/unit/test_egress_api.c tests/unit/fake_manager.c tests/unit/fake_manager.h runtime/sandbox_spec.c
tests_unit_test_egress_api_LDADD = $(API_TEST_LIBS)
check_PROGRAMS += tests/fuzz/fuzz_api
UNIT_TESTS += tests/fuzz/fuzz_api
tests_fuzz_fuzz_api_SOURCES = tests/fuzz/fuzz_api.c tests/fuzz/run_corpus.c tests/unit/fake_manager.c tests/unit/fake_manager.h runtime/sandbox_spec.c
tests_fuzz_fuzz_api_LDADD = $(API_TEST_LIBS)
EXTRA_DIST += tests/fuzz/corpus/api

ROOT_TESTS += tests/system/sys_api.sh
