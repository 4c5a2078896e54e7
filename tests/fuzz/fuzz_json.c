// SPDX-License-Identifier: Apache-2.0
/*
 * What the checking pass lets through, cJSON must build, and what the writer makes of it must pass the check again and
 * come out the same: the two readers may not disagree about one byte.
 */
#include "base/buf.h"
#include "base/jv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_document(struct buf *out, const struct jv *v)
{
	struct jw w = {.out = out};

	jw_value(&w, v);
	if (out->failed)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sbx_err err = {0};
	struct buf first = {0}, second = {0};
	struct jv *root, *again;

	if (jv_check(data, size, &err) < 0)
		return 0;
	root = jv_parse(data, size, &err);
	if (!root) {
		/* only what the bytes alone do not show may be refused here: a member twice, a number past any double */
		if (err.code != SBX_E_MALFORMED)
			abort();
		return 0;
	}
	write_document(&first, root);
	again = jv_parse(buf_peek(&first), buf_used(&first), &err);
	if (!again)
		abort();
	write_document(&second, again);
	if (buf_used(&first) != buf_used(&second) || memcmp(buf_peek(&first), buf_peek(&second), buf_used(&first)) != 0)
		abort();
	jv_free(root);
	jv_free(again);
	buf_free(&first);
	buf_free(&second);
	return 0;
}
