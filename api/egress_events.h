/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what was judged, told to who wants to know
 *
 * Takes each event from the manager's hook into the journal; the journal tells it on: to the streams (server-sent events in
 * pipes that the gateway copies to its clients), to the sandbox's own log, to the webhook.  A reader that is behind loses
 * events and is told how many; nothing here ever waits.
 */
#ifndef API_EGRESS_EVENTS_H
#define API_EGRESS_EVENTS_H

#include "base/err.h"
#include "base/http_server.h"
#include "base/loop.h"
#include "netpolicy/journal.h"

struct deny_hook_counts;
struct deny_hook_secret;
struct egress_event;
struct fetch_starter;
struct policy;
struct sandbox;
struct sandbox_manager;
struct settings;

struct egress_events;

/** egress_events_new() - Begin; @settings is borrowed, @secret signs the webhook's events; Return: NULL with @err set */
struct egress_events *egress_events_new(struct loop *loop, const struct settings *settings, const struct deny_hook_secret *secret,
					struct sbx_err *err) SBX_WUR;
/** egress_events_free() - End all streams; NULL is fine */
void egress_events_free(struct egress_events *ev);
/** egress_events_set_manager() - Where the logs of sandboxes are written through; @m is borrowed, NULL: no longer */
void egress_events_set_manager(struct egress_events *ev, struct sandbox_manager *m);
/** egress_events_add() - sandbox_hooks.egress with @ev as its argument; NULL is fine */
void egress_events_add(struct egress_events *ev, const struct sandbox *sandbox, const struct policy *policy, const struct egress_event *event);
/** egress_events_gone() - @sandbox was removed: its streams end, its events are forgotten */
void egress_events_gone(struct egress_events *ev, const struct sandbox *sandbox);
/** egress_events_set_starter() - How the webhook's process is started; until then its events wait */
void egress_events_set_starter(struct egress_events *ev, const struct fetch_starter *starter);
/** egress_events_hook() - What became of the webhook's events */
const struct deny_hook_counts *egress_events_hook(const struct egress_events *ev);
/** egress_events_journal() - To read from */
const struct journal *egress_events_journal(const struct egress_events *ev);
/**
 * egress_events_stream() - Open a stream of what is judged for a sandbox
 * @ev:		The events
 * @id:		The sandbox
 * @after:	Events with a higher number that are still known come first; UINT64_MAX: none
 * @err:	Filled on failure: OVERLOADED, SYSTEM, NO_MEMORY
 *
 * Return: read end of a pipe, the caller's to close; -1 with @err set
 */
int egress_events_stream(struct egress_events *ev, const uint8_t id[16], uint64_t after, struct sbx_err *err) SBX_WUR;

struct api_answer;
struct api_request;
struct buf;

/**
 * egress_events_answer() - The answer to GET .../events, of both APIs
 * @ev:		The events
 * @sandbox:	Whose
 * @request:	Accept: text/event-stream makes it a stream, which goes on behind Last-Event-ID
 * @query:	follow=true and after=NUMBER say the same
 * @body:	Empty; lives as long as *@ret is used
 * @ret:	Filled; its stream_fd, when there is one, is the caller's to close
 * @err:	Filled on failure
 *
 * Return: 0, or -1 with @err set: SCHEMA, OVERLOADED, SYSTEM, NO_MEMORY
 */
int egress_events_answer(struct egress_events *ev, const struct sandbox *sandbox, const struct api_request *request, struct http_text query,
			 struct buf *body, struct api_answer *ret, struct sbx_err *err) SBX_WUR;

#endif
