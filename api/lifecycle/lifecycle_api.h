/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: handlers of the lifecycle routes
 *
 * Each answers its call exactly once, now or later.  Which route leads to which handler stands in api/routes_api.def.
 */
#ifndef API_LIFECYCLE_LIFECYCLE_API_H
#define API_LIFECYCLE_LIFECYCLE_API_H

struct api_call;

/** lifecycle_api_create() - POST /sandboxes: 202 with the sandbox of @call */
void lifecycle_api_create(struct api_call *call);
/** lifecycle_api_list() - GET /sandboxes: filters, pages, newest first; answers @call */
void lifecycle_api_list(struct api_call *call);
/** lifecycle_api_get() - GET /sandboxes/{id}; answers @call */
void lifecycle_api_get(struct api_call *call);
/** lifecycle_api_delete() - DELETE /sandboxes/{id}: 204 when it is gone; answers @call */
void lifecycle_api_delete(struct api_call *call);
/** lifecycle_api_patch() - PATCH /sandboxes/{id}/metadata: merge patch, the whole sandbox back; answers @call */
void lifecycle_api_patch(struct api_call *call);
/** lifecycle_api_pause() - POST /sandboxes/{id}/pause: 202 when it is frozen; answers @call */
void lifecycle_api_pause(struct api_call *call);
/** lifecycle_api_resume() - POST /sandboxes/{id}/resume: 202 when it runs; answers @call */
void lifecycle_api_resume(struct api_call *call);
/** lifecycle_api_renew() - POST /sandboxes/{id}/renew-expiration: any future instant; answers @call */
void lifecycle_api_renew(struct api_call *call);
/** lifecycle_api_egress_events() - GET /sandboxes/{id}/egress/events: the journal, or a stream of server-sent events */
void lifecycle_api_egress_events(struct api_call *call);
/** lifecycle_api_egress_explain() - GET /sandboxes/{id}/egress/explain?target=NAME[:PORT]: would it be reached, and by which rule */
void lifecycle_api_egress_explain(struct api_call *call);
/** lifecycle_api_egress_metrics() - GET /egress/metrics: figures of dnsd and of the journal */
void lifecycle_api_egress_metrics(struct api_call *call);
/** lifecycle_api_endpoint() - GET /sandboxes/{id}/endpoints/{port}; answers @call in any state of the sandbox */
void lifecycle_api_endpoint(struct api_call *call);
/** lifecycle_api_logs() - GET .../diagnostics/logs as JSON by scope: refused; the text form is the gateway's; answers @call */
void lifecycle_api_logs(struct api_call *call);
/** lifecycle_api_inspect() - GET .../diagnostics/inspect: text; answers @call */
void lifecycle_api_inspect(struct api_call *call);
/** lifecycle_api_events() - GET .../diagnostics/events: text; answers @call */
void lifecycle_api_events(struct api_call *call);
/** lifecycle_api_summary() - GET .../diagnostics/summary: text; answers @call */
void lifecycle_api_summary(struct api_call *call);
/** lifecycle_api_no_snapshots() - Every snapshot route: 501; answers @call */
void lifecycle_api_no_snapshots(struct api_call *call);
/** lifecycle_api_no_pools() - Every pool route: 501; answers @call */
void lifecycle_api_no_pools(struct api_call *call);
/** lifecycle_api_health() - GET /health; answers @call */
void lifecycle_api_health(struct api_call *call);
/** lifecycle_api_telemetry() - POST /metrics/events: 204, nothing is kept; answers @call */
void lifecycle_api_telemetry(struct api_call *call);

#endif
