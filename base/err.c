// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
	const char *name;
	int status;
	const char *api;
	const char *meaning;
};

static const struct err_row rows[SBX_E_COUNT] = {
	[SBX_E_NONE] = {"NONE", 200, "", "no error"},
#define SBX_ERR(name, status, api, meaning) [SBX_E_##name] = {#name, status, api, meaning},
#include "base/errors.def"
#undef SBX_ERR
};

static const struct err_row *row_of(enum sbx_err_code code)
{
	static const struct err_row unknown = {"UNKNOWN", 500, "GENERAL::UNKNOWN_ERROR", "unknown error"};

	return (unsigned)code < SBX_E_COUNT ? &rows[code] : &unknown;
}

int sbx_err_set(struct sbx_err *err, enum sbx_err_code code, int sys, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -1;
	err->code = code;
	err->sys = sys < 0 ? -sys : sys;
	va_start(ap, fmt);
	int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (err->sys && n >= 0 && (size_t)n < sizeof(err->msg))
		snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", strerrordesc_np(err->sys));
	return -1;
}

int sbx_err_wrap(struct sbx_err *err, const char *fmt, ...)
{
	char inner[SBX_ERR_MSG_SIZE];
	va_list ap;

	if (!err)
		return -1;
	memcpy(inner, err->msg, sizeof(inner));
	va_start(ap, fmt);
	int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(err->msg))
		snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", inner);
	return -1;
}

const char *sbx_err_name(enum sbx_err_code code)
{
	return row_of(code)->name;
}

const char *sbx_err_api_code(enum sbx_err_code code)
{
	return row_of(code)->api;
}

int sbx_err_status(enum sbx_err_code code)
{
	return row_of(code)->status;
}

const char *sbx_err_meaning(enum sbx_err_code code)
{
	return row_of(code)->meaning;
}

void sbx_printable(const char *text, size_t n, char *out, size_t size)
{
	size_t i = 0;

	for (; i < n && i + 1 < size && text[i]; i++)
		out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	out[i] = '\0';
}
