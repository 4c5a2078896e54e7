# api/
# sandboxd: monitor, daemon and the commands that print
sbin_PROGRAMS += sandboxd
sandboxd_SOURCES = api/sandboxd_main.c api/monitor.c api/monitor_fetch.c api/monitor.h api/monitor_int.h \
	api/fetch_channel.c api/fetch_channel.h
sandboxd_LDADD = libapi.a libruntime.a libimages.a libnetpolicy.a libbase.a $(SQLITE_LIBS) $(CJSON_LIBS) $(CRYPTO_LIBS) $(IDN2_LIBS)

# sandbox-gateway: everything that reads a stranger's bytes
pkglibexec_PROGRAMS += sandbox-gateway
GATEWAY_SOURCES = api/gateway.c api/gateway.h api/access.c api/access.h api/routes.c api/routes.h api/routes.def \
	api/gw_client.c api/gw_client.h api/pass.c api/pass_pull.c api/links.c api/links.h api/proxy.c \
	api/services.c api/services.h api/upstream.c api/upstream.h api/upstream_head.c
sandbox_gateway_SOURCES = api/gateway_main.c $(GATEWAY_SOURCES)
sandbox_gateway_LDADD = libexecd.a libruntime.a libbase.a $(CJSON_LIBS) $(CRYPTO_LIBS)
check_PROGRAMS += tests/unit/test_routes
UNIT_TESTS += tests/unit/test_routes
tests_unit_test_routes_SOURCES = tests/unit/test_routes.c api/routes.c api/access.c
tests_unit_test_routes_LDADD = libbase.a
check_PROGRAMS += tests/unit/test_gateway
UNIT_TESTS += tests/unit/test_gateway
tests_unit_test_gateway_SOURCES = tests/unit/test_gateway.c $(GATEWAY_SOURCES)
tests_unit_test_gateway_LDADD = libexecd.a libruntime.a libbase.a $(CJSON_LIBS) $(CRYPTO_LIBS)
ROOT_TESTS += tests/system/gateway.sh tests/system/fair.sh
EXTRA_DIST += tests/system/fair.py
