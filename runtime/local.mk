# runtime/: a sandbox from request to exit.  libruntime.a is linked into sandboxd only.
noinst_LIBRARIES += libruntime.a
libruntime_a_CFLAGS = $(AM_CFLAGS) $(SQLITE_CFLAGS)
libruntime_a_SOURCES = runtime/sandbox.h runtime/agent_msg.h \
	runtime/broker_client.c runtime/broker_client.h runtime/lifecycle.c runtime/lifecycle.h \
	runtime/expiry.c runtime/expiry.h runtime/admission.c runtime/admission.h runtime/resources.c runtime/resources.h
libruntime_a_SOURCES += runtime/state_store.c runtime/state_store.h
nodist_libruntime_a_SOURCES = runtime/state_schema.h
SCHEMA_FILES = runtime/schema/0001.sql runtime/schema/0002.sql
EXTRA_DIST += $(SCHEMA_FILES) runtime/embed_schema.sh
BUILT_SOURCES += runtime/state_schema.h
CLEANFILES += runtime/state_schema.h
runtime/state_schema.h: $(SCHEMA_FILES) runtime/embed_schema.sh
	$(AM_V_GEN)$(MKDIR_P) runtime && cd $(srcdir) && $(SHELL) runtime/embed_schema.sh $(SCHEMA_FILES) >$(abs_builddir)/$@.tmp && \
		mv $(abs_builddir)/$@.tmp $(abs_builddir)/$@
# the gateway's side of the exec channel
libruntime_a_SOURCES += runtime/agent_client.c runtime/agent_client.h
libruntime_a_SOURCES += runtime/sandbox.c runtime/sandbox_entry.c runtime/sandbox_spec.c runtime/sandbox_pull.c runtime/sandbox_query.c runtime/sandbox_int.h runtime/sandbox_row.c runtime/launch_plan.c runtime/recover.c \
	runtime/agent_control.c runtime/agent_control.h runtime/sandbox_egress.c runtime/sandbox_egress.h
check_PROGRAMS += tests/unit/test_manager
UNIT_TESTS += tests/unit/test_manager
tests_unit_test_manager_SOURCES = tests/unit/test_manager.c
tests_unit_test_manager_LDADD = libruntime.a libimages.a libnetpolicy.a libbase.a $(SQLITE_LIBS) $(CJSON_LIBS) $(CRYPTO_LIBS) $(IDN2_LIBS)
ROOT_TESTS += tests/system/restart.sh tests/system/images.sh
EXTRA_DIST += tests/system/daemon_lib.sh tests/system/instance_lib.sh tests/system/busybox_lib.sh tests/system/tap_lib.sh
# BUILT_SOURCES are made by `make all` only; this also serves `make sandboxd`.
runtime/libruntime_a-state_store.$(OBJEXT): runtime/state_schema.h
ROOT_TESTS += tests/system/start_refused.sh
ROOT_TESTS += tests/system/ends.sh
ROOT_TESTS += tests/system/two_instances.sh
ROOT_TESTS += tests/system/attack.sh
EXTRA_DIST += tests/system/attack_inside.py tests/system/attack_service.py tests/system/attack_http.py
# Policies from the request to the packet.
ROOT_TESTS += tests/system/egress.sh
EXTRA_DIST += tests/system/egress.py
check_PROGRAMS += tests/unit/test_admission
UNIT_TESTS += tests/unit/test_admission
tests_unit_test_admission_SOURCES = tests/unit/test_admission.c
tests_unit_test_admission_LDADD = libruntime.a libbase.a
# What a sandbox and a volume may write.
ROOT_TESTS += tests/system/disk.sh tests/system/disk_fs.sh tests/system/disk_full.sh
ROOT_TESTS += tests/system/admission.sh tests/system/bad_inputs.sh
