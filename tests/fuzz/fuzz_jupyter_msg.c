// SPDX-License-Identifier: Apache-2.0
/*
 * What a Jupyter server says: whatever its bytes are, a message becomes one of our kinds with a payload that is what a driver's
 * frame would be, and names out of its answers can stand in a path.
 */
#include "api/execd/code_events.h"
#include "api/execd/jupyter_msg.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_list(const struct buf *payload)
{
	if (!buf_used(payload))
		return;
	struct code_list list = {(const uint8_t *)buf_peek(payload), (const uint8_t *)buf_peek(payload) + buf_used(payload)};
	auto_buf event = {0};

	assert(code_list_check(list));
	code_event_result(&event, list, 1);
	assert(!event.failed);
}

static void is_name(const char *name, size_t size)
{
	assert(*name && strlen(name) < size && !strpbrk(name, "/?#% \r\n\"\\"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char name[JUPYTER_NAME_SIZE], session[JUPYTER_ID_SIZE], kernel[JUPYTER_ID_SIZE];
	auto_buf payload = {0};
	struct sbx_err err;
	char *copy = malloc(size + 1);

	memcpy(copy, data, size);
	enum jupyter_kind kind = jupyter_msg_read(copy, size, "p", &payload);
	assert(kind < JUPYTER_KIND_COUNT && *jupyter_kind_name(kind));
	if (kind == JUPYTER_RESULT || kind == JUPYTER_DISPLAY || kind == JUPYTER_ERROR || kind == JUPYTER_REPLY_ERROR)
		is_list(&payload);
	memcpy(copy, data, size);
	if (jupyter_kernel_choose(copy, size, "python", name, &err) == 0)
		is_name(name, sizeof(name));
	memcpy(copy, data, size);
	if (jupyter_session_ids(copy, size, session, kernel, &err) == 0) {
		is_name(session, sizeof(session));
		is_name(kernel, sizeof(kernel));
	}
	struct jupyter_ours ours[4];
	memcpy(copy, data, size);
	for (size_t i = 0, n_ours = jupyter_sessions_ours(copy, size, ours, 4); i < n_ours; i++) {
		is_name(ours[i].session, sizeof(ours[i].session));
		is_name(ours[i].context, sizeof(ours[i].context));
	}
	free(copy);
	return 0;
}
