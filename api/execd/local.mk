# api/execd/
noinst_LIBRARIES += libexecd.a
libexecd_a_SOURCES = api/execd/execd.c api/execd/execd.h api/execd/execd_int.h \
	api/execd/command.c api/execd/command_spec.c api/execd/command_spec.h \
	api/execd/event_stream.c api/execd/event_stream.h api/execd/line_split.c api/execd/line_split.h \
	api/execd/files.c api/execd/fs_call.c api/execd/fs_call.h api/execd/file_info.c api/execd/file_info.h \
	api/execd/upload.c api/execd/multipart.c api/execd/multipart.h \
	api/execd/download.c api/execd/range.c api/execd/range.h api/execd/escape.c api/execd/escape.h \
	api/execd/metrics.c api/execd/request_log.c
