// SPDX-License-Identifier: Apache-2.0
/* First byte: how many bytes come at once.  The rest is a body: its members must be those that the reader of whole texts finds. */
#include "api/execd/members.h"
#include "base/cleanup.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int note(void *arg, const struct jv *member, struct sbx_err *err)
{
	(void)err;
	buf_append(arg, jv_name(member), strlen(jv_name(member)) + 1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf names = {0}, want = {0};
	struct members m = {.each = note, .arg = &names, .text_max = 65536};
	struct sbx_err err, why = {0};
	int r = 0;

	if (!size)
		return 0;
	for (size_t at = 1, step = data[0] + 1u; at < size && !r; at += step) {
		size_t n = size - at < step ? size - at : step;
		/* an exact copy, so that a read behind it is seen */
		char *copy = malloc(n);
		if (!copy)
			abort();
		memcpy(copy, data + at, n);
		r = members_feed(&m, copy, n, &err);
		free(copy);
	}
	if (!r)
		r = members_end(&m, &err);
	members_clear(&m);
	auto_jv root = jv_parse_first(data + 1, size - 1, &why);
	if (root && (jv_type(root) == JV_OBJECT || jv_type(root) == JV_NULL)) {
		for (const struct jv *v = jv_first(root); v; v = jv_next(v))
			note(&want, v, &err);
		assert(r == 0 || err.code == SBX_E_TOO_LARGE);
		assert(r || (buf_used(&want) == buf_used(&names) &&
			     (!buf_used(&want) || !memcmp(buf_peek(&want), buf_peek(&names), buf_used(&want)))));
	} else {
		/* only what is in two members is not seen in one */
		assert(r < 0 || strstr(why.msg, "occurs twice") || strstr(why.msg, "too many"));
	}
	return 0;
}
