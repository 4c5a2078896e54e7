# tests/: how tests are found and run.  Unit tests and corpora need no root; ROOT_TESTS make real sandboxes.
EXTRA_DIST += tests/tap.h tests/fuzz/run_corpus.c $(LINT_TESTS) $(ROOT_TESTS)
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
SH_LOG_DRIVER = $(LOG_DRIVER)
TEST_EXTENSIONS = .sh
AM_TESTS_ENVIRONMENT = top_builddir='$(abs_top_builddir)'; top_srcdir='$(abs_top_srcdir)'; export top_builddir top_srcdir;

check_PROGRAMS += tests/unit/test_base
UNIT_TESTS += tests/unit/test_base
tests_unit_test_base_SOURCES = tests/unit/test_base.c
tests_unit_test_base_LDADD = libbase.a

# A fuzz target x is listed by its owner as:
#   check_PROGRAMS += tests/fuzz/fuzz_x
#   UNIT_TESTS += tests/fuzz/fuzz_x
#   tests_fuzz_fuzz_x_SOURCES = tests/fuzz/fuzz_x.c tests/fuzz/run_corpus.c
# and built with an engine by `make fuzz-x CC=clang`.
TESTS = $(UNIT_TESTS) $(LINT_TESTS)

# Needs root and a machine that may be changed: namespaces, cgroups, nftables.  Runs beside an installed daemon.
check-root: all $(check_PROGRAMS)
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(ROOT_TESTS)'
.PHONY: check-root
