# runtime/agent/: pid 1 inside.  Static and without any library, so compiled by $(AGENT_CC) and not as one of automake's
# programs; agent_files is the audit list.
agent_files = \
	runtime/agent/agent_denied.c runtime/agent/agent_denied.h runtime/agent/agent_main.c runtime/agent/agent_shell.c runtime/agent/agent_net.c runtime/agent/agent_root.c \
	runtime/agent/agent_service.c runtime/agent/agent_cmd.c runtime/agent/agent_launch.c runtime/agent/agent_spawn.c runtime/agent/agent_spool.c \
	runtime/agent/agent_proc.c runtime/agent/agent_fs.c runtime/agent/agent_files.c runtime/agent/agent_walk.c \
	runtime/agent/agent_glob.c runtime/agent/agent_users.c runtime/agent/agent_env.c \
	runtime/agent/agent_spec.c runtime/agent/agent_words.c
agent_headers = \
	runtime/agent/agent.h runtime/agent/agent_sys.h runtime/agent/agent_shell.h runtime/agent/agent_net.h \
	runtime/agent/agent_root.h runtime/agent/agent_service.h runtime/agent/agent_int.h runtime/agent/agent_spawn.h \
	runtime/agent/agent_spool.h runtime/agent/agent_proc.h runtime/agent/agent_users.h runtime/agent/agent_env.h \
	runtime/agent/agent_spec.h runtime/agent/agent_words.h runtime/agent/agent_files.h runtime/agent/agent_glob.h runtime/agent_msg.h runtime/broker/launch_sync.h base/limits.h base/cleanup.h
EXTRA_DIST += $(agent_files) $(agent_headers)

# Never sanitized: it runs where no runtime library is.
# What only clang knows is left out: musl-gcc is gcc.
AGENT_WARN = $(filter-out -Wcomma -Wassign-enum -Wimplicit-int-conversion,$(WARN_CFLAGS))
sandbox-agent$(EXEEXT): $(agent_files) $(agent_headers)
	$(AM_V_CCLD)$(AGENT_CC) -std=gnu17 -D_GNU_SOURCE -I$(top_srcdir) $(AGENT_CPPFLAGS) $(AGENT_WARN) -Os -g0 \
		-fno-strict-aliasing -fno-common -fvisibility=hidden -ffunction-sections -fdata-sections \
		-ftrivial-auto-var-init=zero -fno-asynchronous-unwind-tables -static -Wl,--gc-sections -Wl,-z,noexecstack \
		-Wl,-z,norelro -s -o $@ $(agent_files:%=$(top_srcdir)/%)
pkglibexec_SCRIPTS = sandbox-agent$(EXEEXT)
CLEANFILES += sandbox-agent$(EXEEXT)

tests/system/agent_inside: tests/system/agent_inside.c
	$(AM_V_CCLD)$(MKDIR_P) tests/system && $(AGENT_CC) -std=gnu17 -D_GNU_SOURCE $(AGENT_CPPFLAGS) -Wall -Wextra -Os -static -s -o $@ \
		$(top_srcdir)/tests/system/agent_inside.c
EXTRA_DIST += tests/system/agent_inside.c
CLEANFILES += tests/system/agent_inside

# The harness plays broker and gateway around the real program.
check_PROGRAMS += tests/system/sys_agent
ROOT_TESTS += tests/system/sys_agent tests/vm/agent.sh
tests_system_sys_agent_SOURCES = tests/system/sys_agent.c tests/system/agent_harness.c tests/system/agent_harness.h \
	runtime/broker/profile.c
EXTRA_tests_system_sys_agent_DEPENDENCIES = tests/system/agent_inside sandbox-agent$(EXEEXT)
tests_system_sys_agent_CPPFLAGS = $(AM_CPPFLAGS) $(SECCOMP_CFLAGS)
tests_system_sys_agent_LDADD = libbase.a $(SECCOMP_LIBS)

# The parts that need no sandbox, for the host.
check_PROGRAMS += tests/unit/test_agent tests/unit/test_agent_launch tests/fuzz/fuzz_agent_request tests/fuzz/fuzz_passwd tests/fuzz/fuzz_glob
UNIT_TESTS += tests/unit/test_agent tests/unit/test_agent_launch tests/fuzz/fuzz_agent_request tests/fuzz/fuzz_passwd tests/fuzz/fuzz_glob
tests_unit_test_agent_SOURCES = tests/unit/test_agent.c runtime/agent/agent_spec.c runtime/agent/agent_words.c runtime/agent/agent_users.c \
	runtime/agent/agent_env.c runtime/agent/agent_glob.c runtime/agent/agent_spool.c
tests_unit_test_agent_launch_SOURCES = tests/unit/test_agent_launch.c runtime/agent/agent_launch.c runtime/agent/agent_proc.c \
	runtime/agent/agent_users.c
tests_fuzz_fuzz_agent_request_SOURCES = tests/fuzz/fuzz_agent_request.c runtime/agent/agent_spec.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_passwd_SOURCES = tests/fuzz/fuzz_passwd.c runtime/agent/agent_users.c runtime/agent/agent_env.c \
	tests/fuzz/run_corpus.c
tests_fuzz_fuzz_glob_SOURCES = tests/fuzz/fuzz_glob.c runtime/agent/agent_glob.c tests/fuzz/run_corpus.c
EXTRA_DIST += tests/fuzz/corpus/agent_request tests/fuzz/corpus/passwd tests/fuzz/corpus/glob
