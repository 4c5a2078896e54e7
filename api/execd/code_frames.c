// SPDX-License-Identifier: Apache-2.0
#include "api/execd/code_frames.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* 0: no such type. */
static uint32_t largest(uint8_t type)
{
	switch (type) {
	case 'B':
	case 'H':
	case 'F':
		return CODE_HELLO_MAX;
	case 'O':
	case 'E':
		return CODE_OUTPUT_MAX;
	case 'R':
	case 'D':
	case 'Z':
		return CODE_LIST_MAX;
	default:
		return 0;
	}
}

/* Takes whole frames off the front.  Return: bytes used, or negative. */
static ssize_t take(const uint8_t *data, size_t n, code_frame_sink *sink, void *arg)
{
	size_t used = 0;

	while (n - used >= CODE_FRAME_HEAD) {
		const uint8_t *head = data + used;
		uint32_t size = get32(head + 1);

		if (!largest(head[0]) || size > largest(head[0]))
			return -EPROTO;
		if (n - used - CODE_FRAME_HEAD < size)
			break;
		int r = sink(arg, (char)head[0], head + CODE_FRAME_HEAD, size);
		if (r)
			return r < 0 ? r : -ECANCELED;
		used += CODE_FRAME_HEAD + size;
	}
	/* a type that cannot be is not waited for */
	if (used < n && !largest(data[used]))
		return -EPROTO;
	return (ssize_t)used;
}

int code_frames_feed(struct code_frames *f, const uint8_t *data, size_t n, code_frame_sink *sink, void *arg)
{
	ssize_t used;

	if (!buf_used(&f->held)) {
		used = take(data, n, sink, arg);
		if (used < 0)
			return (int)used;
		return (size_t)used < n ? buf_append(&f->held, data + used, n - (size_t)used) : 0;
	}
	if (buf_append(&f->held, data, n) < 0)
		return -ENOMEM;
	used = take((const uint8_t *)buf_peek(&f->held), buf_used(&f->held), sink, arg);
	if (used < 0)
		return (int)used;
	buf_consume(&f->held, (size_t)used);
	if (!buf_used(&f->held))
		buf_free(&f->held); /* an idle context holds no memory here */
	return 0;
}

void code_frames_clear(struct code_frames *f)
{
	buf_free(&f->held);
}

int code_frames_cell(struct buf *out, uint32_t number, const char *code)
{
	uint8_t head[CODE_FRAME_HEAD + 4] = {'X'};
	size_t n = strlen(code);

	put32(head + 1, (uint32_t)n + 4);
	put32(head + CODE_FRAME_HEAD, number);
	buf_append(out, head, sizeof(head));
	return buf_append(out, code, n);
}

int code_frames_interrupt(struct buf *out, uint32_t number)
{
	uint8_t frame[CODE_FRAME_HEAD + 4] = {'I'};

	put32(frame + 1, 4);
	put32(frame + CODE_FRAME_HEAD, number);
	return buf_append(out, frame, sizeof(frame));
}

bool code_list_next(struct code_list *list, const char **ret, size_t *ret_n)
{
	size_t left = (size_t)(list->end - list->at);

	if (left < 4 || get32(list->at) > left - 4)
		return false;
	*ret_n = get32(list->at);
	*ret = (const char *)list->at + 4;
	list->at += 4 + *ret_n;
	return true;
}

bool code_list_check(struct code_list list)
{
	const char *text;
	size_t n;

	while (code_list_next(&list, &text, &n))
		;
	return list.at == list.end;
}
