# runtime/: a sandbox from request to exit.  libruntime.a is linked into sandboxd only.
noinst_LIBRARIES += libruntime.a
libruntime_a_CFLAGS = $(AM_CFLAGS) $(SQLITE_CFLAGS)
libruntime_a_SOURCES = runtime/sandbox.h runtime/agent_msg.h \
	runtime/broker_client.c runtime/broker_client.h runtime/lifecycle.c runtime/lifecycle.h \
	runtime/expiry.c runtime/expiry.h runtime/resources.c runtime/resources.h
