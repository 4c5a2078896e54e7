# api/execd/
noinst_LIBRARIES += libexecd.a
libexecd_a_SOURCES = api/execd/execd.c api/execd/execd.h api/execd/execd_int.h \
	api/execd/command.c api/execd/command_spec.c api/execd/command_spec.h \
	api/execd/event_stream.c api/execd/event_stream.h api/execd/line_split.c api/execd/line_split.h \
	api/execd/files.c api/execd/replace.c api/execd/members.c api/execd/members.h api/execd/fs_call.c api/execd/fs_call.h api/execd/file_info.c api/execd/file_info.h \
	api/execd/upload.c api/execd/multipart.c api/execd/multipart.h \
	api/execd/download.c api/execd/range.c api/execd/range.h api/execd/escape.c api/execd/escape.h \
	api/execd/metrics.c api/execd/request_log.c api/execd/pty.c \
	api/execd/run_stream.c api/execd/run_stream.h api/execd/shell_state.c api/execd/shell_state.h api/execd/session.c \
	api/execd/code.c api/execd/code_context.c api/execd/code_int.h api/execd/code_frames.c api/execd/code_frames.h \
	api/execd/code_events.c api/execd/code_events.h \
	api/execd/jupyter.h api/execd/jupyter_int.h api/execd/jupyter_site.c api/execd/jupyter_kernel.c \
	api/execd/jupyter_conn.c api/execd/jupyter_conn.h api/execd/jupyter_msg.c api/execd/jupyter_msg.h
# The drivers go to the interpreters from the gateway's memory: no file of an image, and none of the host, is trusted for them.
CODE_DRIVERS = api/execd/code_drivers/python.py api/execd/code_drivers/javascript.js \
	api/execd/code_drivers/java.java api/execd/code_drivers/go.go
nodist_libexecd_a_SOURCES = api/execd/code_drivers.h
BUILT_SOURCES += api/execd/code_drivers.h
CLEANFILES += api/execd/code_drivers.h
EXTRA_DIST += $(CODE_DRIVERS) api/execd/code_drivers/embed.sh
api/execd/code_drivers.h: $(CODE_DRIVERS) api/execd/code_drivers/embed.sh
	$(AM_V_GEN)$(MKDIR_P) api/execd && cd $(srcdir) && $(SHELL) api/execd/code_drivers/embed.sh $(CODE_DRIVERS) \
		>$(abs_builddir)/$@.tmp && mv $(abs_builddir)/$@.tmp $(abs_builddir)/$@

EXECD_TEST_LIBS = libexecd.a libruntime.a libbase.a $(CJSON_LIBS) $(CRYPTO_LIBS)
check_PROGRAMS += tests/unit/test_execd_text tests/unit/test_execd_input tests/fuzz/fuzz_multipart tests/fuzz/fuzz_range tests/fuzz/fuzz_members
UNIT_TESTS += tests/unit/test_execd_text tests/unit/test_execd_input tests/fuzz/fuzz_multipart tests/fuzz/fuzz_range tests/fuzz/fuzz_members
tests_unit_test_execd_text_SOURCES = tests/unit/test_execd_text.c
tests_unit_test_execd_text_LDADD = $(EXECD_TEST_LIBS)
tests_unit_test_execd_input_SOURCES = tests/unit/test_execd_input.c
tests_unit_test_execd_input_LDADD = $(EXECD_TEST_LIBS)
tests_fuzz_fuzz_multipart_SOURCES = tests/fuzz/fuzz_multipart.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_multipart_LDADD = $(EXECD_TEST_LIBS)
tests_fuzz_fuzz_members_SOURCES = tests/fuzz/fuzz_members.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_members_LDADD = $(EXECD_TEST_LIBS)
tests_fuzz_fuzz_range_SOURCES = tests/fuzz/fuzz_range.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_range_LDADD = $(EXECD_TEST_LIBS)
EXTRA_DIST += doc/execd.md tests/fuzz/corpus/multipart tests/fuzz/corpus/range tests/fuzz/corpus/members
check_PROGRAMS += tests/unit/test_agent_client
UNIT_TESTS += tests/unit/test_agent_client
tests_unit_test_agent_client_SOURCES = tests/unit/test_agent_client.c tests/unit/fake_agent.c tests/unit/fake_agent.h
tests_unit_test_agent_client_LDADD = $(EXECD_TEST_LIBS)
check_PROGRAMS += tests/unit/test_execd_wire
UNIT_TESTS += tests/unit/test_execd_wire
tests_unit_test_execd_wire_SOURCES = tests/unit/test_execd_wire.c tests/unit/fake_agent.c tests/unit/fake_agent.h
tests_unit_test_execd_wire_LDADD = $(EXECD_TEST_LIBS)
tests_unit_test_execd_wire_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=mono_ms -Wl,--wrap=mono_usec
check_PROGRAMS += tests/fuzz/fuzz_agent_frames
UNIT_TESTS += tests/fuzz/fuzz_agent_frames
tests_fuzz_fuzz_agent_frames_SOURCES = tests/fuzz/fuzz_agent_frames.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_agent_frames_LDADD = $(EXECD_TEST_LIBS)
EXTRA_DIST += tests/fuzz/corpus/agent_frames
# sessions and code against a whole daemon
ROOT_TESTS += tests/system/sessions.sh tests/system/code.sh
EXTRA_DIST += tests/system/sessions.sh tests/system/sessions.py tests/system/execd_client.py tests/system/code.sh tests/system/code.py

# a Jupyter server inside
check_PROGRAMS += tests/unit/test_jupyter tests/fuzz/fuzz_jupyter_msg
UNIT_TESTS += tests/unit/test_jupyter tests/fuzz/fuzz_jupyter_msg
tests_unit_test_jupyter_SOURCES = tests/unit/test_jupyter.c
tests_unit_test_jupyter_LDADD = $(EXECD_TEST_LIBS)
tests_fuzz_fuzz_jupyter_msg_SOURCES = tests/fuzz/fuzz_jupyter_msg.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_jupyter_msg_LDADD = $(EXECD_TEST_LIBS)
ROOT_TESTS += tests/system/jupyter.sh
EXTRA_DIST += tests/fuzz/corpus/jupyter_msg tests/system/jupyter.sh tests/system/jupyter.py tests/system/jupyter_fake.py

# streams, files, terminals against a whole daemon
ROOT_TESTS += tests/system/streams.sh
EXTRA_DIST += tests/system/streams.sh tests/system/streams.py
check_PROGRAMS += tests/unit/test_execd_code tests/fuzz/fuzz_code_frames
UNIT_TESTS += tests/unit/test_execd_code tests/fuzz/fuzz_code_frames
tests_unit_test_execd_code_SOURCES = tests/unit/test_execd_code.c
tests_unit_test_execd_code_LDADD = $(EXECD_TEST_LIBS)
tests_fuzz_fuzz_code_frames_SOURCES = tests/fuzz/fuzz_code_frames.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_code_frames_LDADD = $(EXECD_TEST_LIBS)
EXTRA_DIST += tests/fuzz/corpus/code_frames
check_PROGRAMS += tests/fuzz/fuzz_query
UNIT_TESTS += tests/fuzz/fuzz_query
tests_fuzz_fuzz_query_SOURCES = tests/fuzz/fuzz_query.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_query_LDADD = $(EXECD_TEST_LIBS)
EXTRA_DIST += tests/fuzz/corpus/query
EXTRA_DIST += tests/images/make_code_interpreter.sh
EXTRA_DIST += doc/execd-rows.md
# rows of the contract, to the byte, against a whole daemon
ROOT_TESTS += tests/system/execd_rows.sh tests/system/execd_files.sh
EXTRA_DIST += tests/system/execd_rows.sh tests/system/execd_rows.py tests/system/execd_files.sh tests/system/execd_files.py
