// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include "base/options.h"

#include "base/num.h"

#include <assert.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ROWS_MAX 16u
#define FD_MAX	 (1u << 20)

static int take(const struct option_row *row, const char *text)
{
	switch (row->kind) {
	case OPTION_TEXT:
		*(const char **)row->target = text;
		return 0;
	case OPTION_FD:
		return num_u32(text, strlen(text), FD_MAX, row->target);
	case OPTION_SWITCH:
		*(bool *)row->target = true;
		return 0;
	}
	return -1;
}

int options_read(int argc, char **argv, const struct option_row *rows, size_t n, const char *help)
{
	struct option longs[ROWS_MAX + 3] = {0};
	int c, r = 0;

	assert(n <= ROWS_MAX);
	for (size_t i = 0; i < n; i++)
		longs[i] = (struct option){rows[i].name, rows[i].kind == OPTION_SWITCH ? no_argument : required_argument, NULL, 256 + (int)i};
	longs[n] = (struct option){"help", no_argument, NULL, 'h'};
	longs[n + 1] = (struct option){"version", no_argument, NULL, 'V'};
	while (r == 0 && (c = getopt_long(argc, argv, "hV", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(help, stdout);
			return 0;
		}
		if (c == 'V') {
			const char *slash = strrchr(argv[0], '/');

			printf("%s %s\n", slash ? slash + 1 : argv[0], PACKAGE_VERSION);
			return 0;
		}
		r = c >= 256 && c < 256 + (int)n ? take(&rows[c - 256], optarg) : -1;
	}
	if (r == 0 && optind == argc)
		return OPTIONS_GO_ON;
	fputs(help, stderr);
	return 2;
}
