# base/: no knowledge of sandboxes.  One archive; a program links only the members that it uses.
noinst_LIBRARIES += libbase.a
libbase_a_SOURCES = base/cleanup.h base/limits.h base/errors.def \
	base/err.c base/err.h base/log.c base/log.h base/buf.c base/buf.h base/loop.c base/loop.h \
	base/wallclock.c base/wallclock.h base/fdpass.c base/fdpass.h base/num.c base/num.h base/fault.c base/fault.h
