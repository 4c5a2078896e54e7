/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "netpolicy/gate_flow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

#define ROOM_FIRST 2048u

static void enter(struct gate_flow *f, enum gate_state state, uint64_t now_ms)
{
	f->state = state;
	f->since_ms = now_ms;
}

void gate_flow_clear(struct gate_flow *f)
{
	free(f->bytes);
	f->bytes = NULL;
	f->n = f->room = 0;
}

void gate_flow_begin(struct gate_flow *f, uint32_t seq, uint64_t now_ms)
{
	gate_flow_clear(f);
	memset(f, 0, sizeof(*f));
	f->first_seq = seq + 1;
	enter(f, GATE_SILENT, now_ms);
}

void gate_flow_deny(struct gate_flow *f)
{
	gate_flow_clear(f);
	f->state = GATE_DENIED;
}

static enum gate_said deny(struct gate_flow *f, const char *wrong)
{
	gate_flow_deny(f);
	f->hello.found = TLS_HELLO_BAD;
	f->hello.wrong = wrong;
	return GATE_DENY;
}

static bool keep(struct gate_flow *f, const uint8_t *data, size_t len, size_t max_bytes)
{
	size_t want = f->n + len, room = f->room;
	uint8_t *more;

	if (want > LIMIT_GATE_STREAM)
		return false;
	if (want > room) {
		for (room = room ? room : ROOM_FIRST; room < want;)
			room *= 2;
		if (room > max_bytes)
			return false;
		more = realloc(f->bytes, room);
		if (!more)
			return false;
		f->bytes = more;
		f->room = room;
	}
	memcpy(f->bytes + f->n, data, len);
	f->n += len;
	return true;
}

/* After an allowed hello: is there another one, or can the kernel have the flow? */
static enum gate_said follow(struct gate_flow *f, uint64_t now_ms)
{
	const size_t from = f->hello_at + f->hello.used;
	size_t at = 0;
	enum tls_after after = tls_hello_after(f->bytes + from, f->n - from, f->hello.early_data && !f->again, &at);

	if (after == TLS_AFTER_BAD)
		return deny(f, "neither data nor a handshake behind the hello");
	if (after == TLS_AFTER_HELLO) {
		if (f->again)
			return deny(f, "a third hello");
		f->again = true;
		f->hello_at = from + at;
		enter(f, GATE_HELLO, now_ms);
		return GATE_PASS;
	}
	/* Early data hides what comes behind it.  A server reads some KiB of it and waits for some seconds, not longer. */
	if (after == TLS_AFTER_MORE && f->hello.early_data && f->answered && (f->full || now_ms - f->since_ms > LIMIT_GATE_ANSWER_MS))
		after = TLS_AFTER_DONE;
	return after == TLS_AFTER_DONE && f->answered ? GATE_RELEASE : GATE_PASS;
}

static enum gate_said read_hello(struct gate_flow *f, uint64_t now_ms)
{
	switch (tls_hello_read(f->bytes + f->hello_at, f->n - f->hello_at, &f->hello)) {
	case TLS_HELLO_MORE:
		return GATE_PASS;
	case TLS_HELLO_NAME:
	case TLS_HELLO_NO_NAME:
	case TLS_HELLO_OTHER:
	case TLS_HELLO_BAD:
		enter(f, GATE_ASKED, now_ms);
		return GATE_JUDGE;
	case TLS_HELLO_NONE:
	case TLS_HELLO_COUNT:
		break;
	}
	assert(false);
	return GATE_DENY;
}

static void note_ack(struct gate_flow *f, const struct gate_segment *seg)
{
	if (!(seg->flags & GATE_ACK) || (f->acked && (int32_t)(seg->ack - f->first_ack) <= 0))
		return;
	/* Only what comes behind the hello answers it; connection tracking drops acknowledgements of what was never sent. */
	if (f->acked && f->state == GATE_ANSWER) {
		f->answered = true;
	} else {
		f->acked = true;
		f->first_ack = seg->ack;
	}
}

/* Return: JUDGE when there are new bytes, else what becomes of the packet */
static enum gate_said take_data(struct gate_flow *f, const struct gate_segment *seg, size_t max_bytes)
{
	const int32_t at = (int32_t)(seg->seq - f->first_seq);
	size_t known, fresh, fits;

	/* Out of band bytes are in the stream for one reader and not for another. */
	if (seg->flags & GATE_URG)
		return deny(f, "urgent data");
	if (at < 0 || (size_t)at > f->n)
		return GATE_DROP;
	known = f->n - (size_t)at < seg->len ? f->n - (size_t)at : seg->len;
	fresh = seg->len - known;
	if (memcmp(f->bytes ? f->bytes + at : seg->data, seg->data, known) != 0)
		return deny(f, "bytes were sent again as others");
	if (!fresh)
		return GATE_PASS;
	fits = LIMIT_GATE_STREAM - f->n;
	/* What does not fit is sent again; what is read of it by then decides whether it is needed. */
	if (fresh > fits) {
		f->full = true;
		return GATE_DROP;
	}
	return keep(f, seg->data + known, fresh, max_bytes) ? GATE_JUDGE : GATE_DROP;
}

enum gate_said gate_flow_segment(struct gate_flow *f, const struct gate_segment *seg, size_t max_bytes)
{
	enum gate_said said = GATE_PASS;

	if (f->state == GATE_DENIED || f->state == GATE_ASKED)
		return GATE_DENY;
	note_ack(f, seg);
	if (seg->flags & GATE_RST)
		return GATE_PASS;
	if (seg->len)
		said = take_data(f, seg, max_bytes);
	if (said == GATE_DENY || (said == GATE_DROP && !f->answered))
		return said;
	if (said == GATE_JUDGE && f->state == GATE_SILENT)
		enter(f, GATE_HELLO, seg->now_ms);
	if (f->state == GATE_ANSWER) {
		enum gate_said then = follow(f, seg->now_ms);

		if (then != GATE_PASS || f->state != GATE_HELLO)
			return then == GATE_PASS && said == GATE_DROP ? GATE_DROP : then;
		said = GATE_JUDGE;
	}
	return said == GATE_JUDGE && f->state == GATE_HELLO ? read_hello(f, seg->now_ms) : said;
}

enum gate_said gate_flow_allowed(struct gate_flow *f, bool watch, uint64_t now_ms)
{
	if (!watch) {
		gate_flow_clear(f);
		return GATE_RELEASE;
	}
	/* The second hello's answer counts from here again. */
	f->answered = false;
	enter(f, GATE_ANSWER, now_ms);
	return follow(f, now_ms);
}

bool gate_flow_over(const struct gate_flow *f, uint64_t now_ms)
{
	static const uint32_t most_ms[GATE_STATE_COUNT] = {[GATE_SILENT] = LIMIT_GATE_IDLE_MS, [GATE_HELLO] = LIMIT_GATE_HELLO_MS,
							    [GATE_ASKED] = LIMIT_GATE_HELLO_MS, [GATE_ANSWER] = LIMIT_GATE_ANSWER_MS,
							    [GATE_DENIED] = LIMIT_GATE_HELLO_MS};

	/* An answered one waits for the client to say more. */
	return now_ms - f->since_ms > (f->state == GATE_ANSWER && f->answered ? LIMIT_GATE_IDLE_MS : most_ms[f->state]);
}
