# api/cli/: sandboxctl.  base/ and itself only.
bin_PROGRAMS += sandboxctl
sandboxctl_SOURCES = api/cli/sandboxctl_main.c api/cli/cli.c api/cli/cli.h api/cli/commands.c api/cli/completion.c api/cli/client.c api/cli/client.h \
	api/cli/out.c api/cli/out.h api/cli/spec.c api/cli/spec.h api/cli/stream.c api/cli/stream.h api/cli/cmd_sandbox.c \
	api/cli/cmd_run.c api/cli/cmd_cp.c api/cli/cmd_image.c api/cli/cmd_image_export.c api/cli/cmd_pull.c api/cli/cmd_store.c api/cli/cmd_host.c
# egress
sandboxctl_SOURCES += api/cli/cmd_egress.c api/cli/egress.h
sandboxctl_SOURCES += api/cli/cmd_commit.c
sandboxctl_LDADD = libbase.a $(CJSON_LIBS)
ROOT_TESTS += tests/system/cli.sh
check_PROGRAMS += tests/unit/test_cli
UNIT_TESTS += tests/unit/test_cli
tests_unit_test_cli_SOURCES = tests/unit/test_cli.c api/cli/cli.c api/cli/commands.c api/cli/completion.c api/cli/client.c api/cli/out.c api/cli/spec.c \
	api/cli/stream.c api/cli/cmd_sandbox.c api/cli/cmd_run.c api/cli/cmd_cp.c api/cli/cmd_image.c api/cli/cmd_image_export.c api/cli/cmd_pull.c api/cli/cmd_store.c api/cli/cmd_host.c
tests_unit_test_cli_SOURCES += api/cli/cmd_egress.c api/cli/cmd_commit.c
tests_unit_test_cli_LDADD = libbase.a $(CJSON_LIBS)
