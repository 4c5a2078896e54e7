# tests/: how tests are found and run.  Unit tests and corpora need no root; ROOT_TESTS make real sandboxes.
EXTRA_DIST += tests/tap.h tests/fuzz/run_corpus.c tests/fuzz/run.sh $(LINT_TESTS) $(filter %.sh,$(ROOT_TESTS) $(E2E_TESTS) $(VM_TESTS)) \
	setup run-tests .ci/run build-aux/common.sh
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
check-root: all
	$(MAKE) $(AM_MAKEFLAGS) $(check_PROGRAMS)
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(ROOT_TESTS)'
.PHONY: check-root

LINT_TESTS += tests/lint/includes tests/lint/headers tests/lint/banned

# What run-tests asks for, and its way to build tests without running them.
FUZZ_TARGETS = $(filter tests/fuzz/fuzz_%,$(check_PROGRAMS))
print-%:
	@echo $($*)
# One after the other: `all` is a make of its own, and two at once would write the same archives.
check-programs: all
	$(MAKE) $(AM_MAKEFLAGS) $(check_PROGRAMS)
.PHONY: check-programs

# The same tests under ASan and UBSan, in a build of their own.
check-asan:
	$(MKDIR_P) _asan && cd _asan && { test -e Makefile || $(abs_srcdir)/configure --silent --enable-sanitizers --enable-fault-points; }
	$(MAKE) $(AM_MAKEFLAGS) -C _asan check
# gcc's analyzer over everything; slow, and read by people.
analyze:
	$(MKDIR_P) _analyze && cd _analyze && { test -e Makefile || $(abs_srcdir)/configure --silent CC=gcc CFLAGS='-g -O1 -fanalyzer'; }
	$(MAKE) $(AM_MAKEFLAGS) -C _analyze all
# Sizes of functions: the ten longest.
sizes:
	@cd $(srcdir) && awk '/^[a-z].*\(/ {name = $$0} /^{$$/ {start = FNR} /^}$$/ {print FNR - start, FILENAME ": " name}' \
		$$(find base images netpolicy runtime api -name '*.c') | sort -rn | head -n 10
distclean-local:
	rm -rf _asan _analyze
.PHONY: check-asan analyze sizes
