# api/
# sandboxd: monitor, daemon and the commands that print
sbin_PROGRAMS += sandboxd
sandboxd_SOURCES = api/sandboxd_main.c api/monitor.c api/monitor.h
sandboxd_LDADD = libapi.a libruntime.a libimages.a libbase.a $(SQLITE_LIBS) $(CJSON_LIBS) $(CRYPTO_LIBS)
