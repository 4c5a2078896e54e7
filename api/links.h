/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: what the gateway knows of the sandboxes in use
 *
 * One link per sandbox: its last state, its execd box (the attachment to its agent) and the credentials that sandboxd
 * accepted for it.  A link is a cache: sandboxd's GW_STATE messages keep it true while the channel is up, and after a
 * restart of sandboxd every credential is asked for again.  A box lives as long as one life (generation) of the sandbox.
 */
#ifndef API_LINKS_H
#define API_LINKS_H

#include "api/gw_client.h"
#include "base/http_server.h"

struct execd;
struct links;

struct link {
	uint8_t id[16];
	uint32_t generation;
	enum gw_sandbox_state state;
	struct execd_box *box; /* NULL until somebody used port 44772 */
	uint64_t noted_ms;     /* monotonic; when sandboxd was last told of an access that it was not asked about */
};

/* What a request shows for port 44772. */
struct link_credential {
	struct http_text api_key, execd_token;
	uint32_t flags; /* enum gw_http_flags */
};

/** links_new() - An empty set whose boxes belong to @execd; Return: it, or NULL with @err set */
struct links *links_new(struct execd *execd, struct sbx_err *err) SBX_WUR;
/** links_free() - Release all links and their boxes; NULL is fine */
void links_free(struct links *links);
/** links_find() - The link of @id, or NULL */
struct link *links_find(struct links *links, const uint8_t id[16]);
/** links_knows() - Whether sandboxd accepted @who for @link since the last restart; compared in constant time */
bool links_knows(const struct link *link, const struct link_credential *who);
/**
 * links_opened() - Take in an answer to GW_OPEN of what EXEC
 * @links:	The set
 * @reply:	The answer; its descriptors are taken when a box is made of them
 * @who:	What was accepted; NULL: not for commands, only for the entrypoint's output, and also when that has ended
 * @err:	Filled on failure: PROTOCOL, SYSTEM, NO_MEMORY
 *
 * Return: the link, with a box when it runs, or NULL with @err set
 */
struct link *links_opened(struct links *links, struct gw_reply *reply, const struct link_credential *who,
			  struct sbx_err *err) SBX_WUR;
/** links_changed() - Take in what sandboxd says of a sandbox; unknown ones are not kept */
void links_changed(struct links *links, const struct gw_state *state);
/** links_forget_credentials() - sandboxd was restarted: nobody is known any more, boxes stay */
void links_forget_credentials(struct links *links);

#endif
