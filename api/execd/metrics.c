// SPDX-License-Identifier: Apache-2.0
/*
 * GET /metrics and /metrics/watch: figures of the sandbox's cgroup.  Processor use is a difference of two readings; the
 * last reading of the box serves as the first one when it is fresh, so a client that polls is answered at once.
 */
#include "api/execd/event_stream.h"
#include "api/execd/execd_int.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/wallclock.h"

#include <string.h>

#define WATCH_MS	   1000u
#define BETWEEN_MS	   100u
#define FRESH_MIN_USEC	   50000
#define FRESH_MAX_USEC	   5000000
#define MIB		   (1024.0 * 1024.0)
#define USEC_PER_MILLICORE 1000.0

struct meter {
	struct execd_box *box;
	struct http_request *req; /* NULL: answered or gone, while a reading is still on its way */
	struct loop_timer *timer;
	bool watch, reading;
};

static void meter_free(struct meter *m)
{
	loop_timer_free(m->timer);
	execd_box_unref(m->box);
	free(m);
}

/* The request is over; the memory goes when no reading will call back. */
static void meter_over(struct meter *m)
{
	m->req = NULL;
	loop_timer_disarm(m->timer);
	if (!m->reading)
		meter_free(m);
}

static double percent_used(const struct gw_stat_reply *before, const struct gw_stat_reply *now)
{
	double wall_usec_passed = (double)(now->mono_usec - before->mono_usec);
	double capacity = wall_usec_passed * now->cpu_millicores / USEC_PER_MILLICORE;
	double pct = capacity > 0 && now->cpu_usec > before->cpu_usec ?
			     100.0 * (double)(now->cpu_usec - before->cpu_usec) / capacity :
			     0;

	return pct < 100 ? (double)(int64_t)(pct * 100 + 0.5) / 100 : 100;
}

static void write_figures(struct buf *out, const struct gw_stat_reply *before, const struct gw_stat_reply *now, bool both_names)
{
	struct jw w = {.out = out};
	double pct = percent_used(before, now);
	double total = (double)now->memory_limit_bytes / MIB, used = (double)now->memory_bytes / MIB;
	uint32_t cpus = now->cpu_millicores / 1000;

	used = used < total ? used : total;
	jw_object(&w);
	jw_key_u64(&w, "cpu_count", cpus ? cpus : 1);
	jw_key(&w, "cpu_used_pct");
	jw_double(&w, pct);
	jw_key(&w, "mem_total_mib");
	jw_double(&w, total);
	jw_key(&w, "mem_used_mib");
	jw_double(&w, used);
	if (both_names) { /* the published command line reads these from a watch */
		jw_key(&w, "cpu_used_percentage");
		jw_double(&w, pct);
		jw_key(&w, "memory_total_in_mib");
		jw_double(&w, total);
		jw_key(&w, "memory_used_in_mib");
		jw_double(&w, used);
	}
	if (now->disk_limit_bytes) { /* ours, and only where there is a limit: the host's disk is nobody's business inside */
		jw_key(&w, "disk_total_mib");
		jw_double(&w, (double)now->disk_limit_bytes / MIB);
		jw_key(&w, "disk_used_mib");
		jw_double(&w, (double)now->disk_used_bytes / MIB);
	}
	jw_key_i64(&w, "timestamp", wall_usec() / 1000);
	jw_object_end(&w);
}

static void meter_answer(struct meter *m, const struct gw_stat_reply *before, const struct gw_stat_reply *now)
{
	auto_buf body = {0};

	write_figures(&body, before, now, m->watch);
	if (!m->watch) {
		execd_respond_json(m->req, &body);
		meter_over(m);
		return;
	}
	buf_append(&body, "\n\n", 2);
	if (!http_response_begun(m->req)) {
		http_response_by_event(m->req);
		http_response_begin(m->req, 200, EVENT_STREAM_CONTENT_TYPE, HTTP_TEXT(EVENT_STREAM_HEADERS), -1);
	}
	if (!body.failed && http_response_queued(m->req) <= HTTP_QUEUE_HIGH_BYTES)
		http_response_write(m->req, buf_peek(&body), buf_used(&body));
	loop_timer_arm(m->timer, WATCH_MS);
}

static void meter_failed(struct meter *m, const struct sbx_err *err)
{
	auto_buf line = {0};
	struct jw w = {.out = &line};

	if (!http_response_begun(m->req)) {
		execd_respond_err(m->req, err);
	} else {
		jw_object(&w);
		jw_key_str(&w, "error", err->msg);
		jw_object_end(&w);
		buf_append(&line, "\n\n", 2);
		if (!line.failed)
			http_response_write(m->req, buf_peek(&line), buf_used(&line));
		http_response_end(m->req);
	}
	meter_over(m);
}

static void meter_read(void *arg, const struct gw_stat_reply *stat, const struct sbx_err *err)
{
	struct meter *m = arg;

	m->reading = false;
	if (!m->req) {
		meter_free(m);
		return;
	}
	if (err) {
		meter_failed(m, err);
		return;
	}
	struct gw_stat_reply before = m->box->sample;
	int64_t passed = stat->mono_usec - before.mono_usec;
	m->box->sample = *stat;
	if (before.mono_usec && passed >= FRESH_MIN_USEC && passed <= FRESH_MAX_USEC)
		meter_answer(m, &before, stat);
	else
		loop_timer_arm(m->timer, BETWEEN_MS);
}

static void meter_ask(void *arg)
{
	struct meter *m = arg;
	struct execd *x = m->box->x;

	m->reading = true;
	x->hooks.stat(x->hooks.arg, m->box->sandbox_id, meter_read, m);
}

static void meter_abort(void *user, struct http_request *req)
{
	(void)req;
	meter_over(user);
}

static void start(const struct execd_match *match, bool watch)
{
	static const struct http_request_ops ops = {.flags = HTTP_KEEP_ON_HALF_CLOSE, .abort = meter_abort};
	struct meter *m = calloc(1, sizeof(*m));

	if (m)
		m->timer = loop_timer_new(match->box->x->loop, meter_ask, m);
	if (!m || !m->timer) {
		free(m);
		http_respond_code(match->call->req, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	m->box = execd_box_ref(match->box);
	m->req = match->call->req;
	m->watch = watch;
	http_request_accept(m->req, &ops, m);
	meter_ask(m);
}

void metrics_get(const struct execd_match *match)
{
	start(match, false);
}

void metrics_watch(const struct execd_match *match)
{
	start(match, true);
}
