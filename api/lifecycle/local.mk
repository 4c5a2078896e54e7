# api/, sandboxd's half: what it answers through the gateway.  libapi.a is linked into sandboxd only.
noinst_LIBRARIES += libapi.a
libapi_a_SOURCES = api/api_server.c api/api_server.h api/auth.c api/auth.h api/call.c api/call.h api/dispatch.c \
	api/dispatch.h api/endpoint.c api/endpoint.h api/gw_msg.h api/gw_server.c api/gw_server.h api/images_api.c \
	api/images_api.h api/images_import.c api/images_import.h api/images_int.h api/render.c api/render.h \
	api/routes_api.def api/schema.c api/schema.h api/volumes_request.c api/volumes_request.h \
	api/lifecycle/change.c api/lifecycle/common.c api/lifecycle/create.c api/lifecycle/create_request.c \
	api/lifecycle/create_request.h api/lifecycle/diagnostics.c api/lifecycle/endpoints.c api/lifecycle/labels.c \
	api/lifecycle/labels.h api/lifecycle/lifecycle_api.h api/lifecycle/lifecycle_int.h api/lifecycle/misc.c \
	api/lifecycle/read.c api/lifecycle/word_split.c api/lifecycle/word_split.h
