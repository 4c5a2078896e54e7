# images/: reference -> directory tree.  libimages.a is for sandboxd; the archive reader is in sandbox-unpack alone.
pkglibexec_PROGRAMS += sandbox-unpack
sandbox_unpack_SOURCES = images/unpack_main.c images/unpack_result.h images/unpack_filter.c images/unpack_filter.h \
	images/layer.c images/layer.h images/tree_writer.c images/tree_writer.h images/host_image.c images/host_image.h
sandbox_unpack_CFLAGS = $(AM_CFLAGS) $(LIBARCHIVE_CFLAGS)
sandbox_unpack_LDADD = libbase.a $(LIBARCHIVE_LIBS)

check_PROGRAMS += tests/system/unpack_run
tests_system_unpack_run_SOURCES = tests/system/unpack_run.c
tests_system_unpack_run_LDADD = libbase.a
ROOT_TESTS += tests/system/unpack_hostile.sh
EXTRA_DIST += tests/images/make_hostile.py
