// SPDX-License-Identifier: Apache-2.0
#include "api/links.h"

#include "api/execd/execd.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"
#include "runtime/agent_msg.h"

#include <assert.h>
#include <string.h>

#define BUCKETS	    1024u
#define KNOWN	    4u /* a client, an operator's key, the command line, one to spare */
#define CREDENTIAL  1024u

static_assert(GW_CLIENT_FDS == AGENT_CHANNEL_FDS, "descriptors that did not come are -1");

struct known {
	size_t n;
	char bytes[CREDENTIAL];
};

struct entry {
	struct link link; /* first: the two are cast */
	struct links *links;
	struct entry *next;
	unsigned turn;
	struct known *known[KNOWN]; /* owned */
};

struct links {
	struct execd *execd;
	struct entry *bucket[BUCKETS];
};

/* One text of both secrets and the way the request came; false when they are longer than any of ours. */
static bool credential_text(const struct link_credential *who, struct known *out)
{
	size_t n = who->api_key.len + who->execd_token.len + 2;

	if (n > sizeof(out->bytes))
		return false;
	out->n = n;
	out->bytes[0] = (char)(who->flags & GW_HTTP_UNIX_PEER);
	if (who->api_key.len)
		memcpy(out->bytes + 1, who->api_key.data, who->api_key.len);
	out->bytes[1 + who->api_key.len] = '\0'; /* no header value holds one */
	if (who->execd_token.len)
		memcpy(out->bytes + 2 + who->api_key.len, who->execd_token.data, who->execd_token.len);
	return true;
}

static struct entry **slot_of(struct links *links, const uint8_t id[16])
{
	uint32_t hash;

	memcpy(&hash, id, sizeof(hash)); /* ids are random */
	struct entry **at = &links->bucket[hash % BUCKETS];
	while (*at && memcmp((*at)->link.id, id, 16) != 0)
		at = &(*at)->next;
	return at;
}

static void forget(struct entry *e)
{
	for (size_t i = 0; i < KNOWN; i++) {
		if (e->known[i])
			explicit_bzero(e->known[i], sizeof(*e->known[i]));
		free(e->known[i]);
		e->known[i] = NULL;
	}
}

static void drop_box(struct entry *e, const struct sbx_err *why)
{
	struct execd_box *box = e->link.box;

	e->link.box = NULL;
	execd_box_free(box, why);
}

static void remove_entry(struct links *links, struct entry **at, const struct sbx_err *why)
{
	struct entry *e = *at;

	(void)links;
	*at = e->next;
	drop_box(e, why);
	forget(e);
	free(e);
}

struct links *links_new(struct execd *execd, struct sbx_err *err)
{
	struct links *links = calloc(1, sizeof(*links));

	if (!links) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "links");
		return NULL;
	}
	links->execd = execd;
	return links;
}

void links_free(struct links *links)
{
	struct sbx_err why = {0};

	if (!links)
		return;
	sbx_err_set(&why, SBX_E_PEER_GONE, 0, "the gateway is being restarted; try again");
	for (size_t i = 0; i < BUCKETS; i++)
		while (links->bucket[i])
			remove_entry(links, &links->bucket[i], &why);
	free(links);
}

struct link *links_find(struct links *links, const uint8_t id[16])
{
	struct entry *e = *slot_of(links, id);

	return e ? &e->link : NULL;
}

bool links_knows(const struct link *link, const struct link_credential *who)
{
	const struct entry *e = (const struct entry *)(const void *)link;
	struct known text;
	bool known = false;

	if (!credential_text(who, &text))
		return false;
	for (size_t i = 0; i < KNOWN; i++)
		if (e->known[i] && e->known[i]->n == text.n && same_secret(e->known[i]->bytes, text.bytes, text.n))
			known = true;
	explicit_bzero(&text, sizeof(text));
	return known;
}

static void remember(struct entry *e, const struct link_credential *who)
{
	struct known *text;

	if (links_knows(&e->link, who))
		return;
	text = malloc(sizeof(*text));
	if (!text || !credential_text(who, text)) {
		free(text); /* only asked for again */
		return;
	}
	unsigned i = e->turn++ % KNOWN;
	free(e->known[i]);
	e->known[i] = text;
}

static void box_broken(void *arg, const struct sbx_err *why)
{
	struct entry *e = arg;

	log_info("attachment to a sandbox: %s", why->msg);
	drop_box(e, why);
	forget(e); /* so that the next request opens anew */
}

/* Another life of the sandbox: nothing of the one before counts. */
static void set_generation(struct entry *e, uint32_t generation)
{
	if (e->link.generation == generation)
		return;
	drop_box(e, NULL);
	forget(e);
	e->link.generation = generation;
}

struct link *links_opened(struct links *links, struct gw_reply *reply, const struct link_credential *who, struct sbx_err *err)
{
	struct gw_open_reply open;

	memcpy(&open, reply->head, sizeof(open));
	struct entry **at = slot_of(links, open.sandbox_id), *e = *at;
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e) {
			sbx_err_set(err, SBX_E_NO_MEMORY, 0, "link");
			return NULL;
		}
		e->links = links;
		e->link.generation = open.generation;
		memcpy(e->link.id, open.sandbox_id, sizeof(e->link.id));
		*at = e;
	}
	set_generation(e, open.generation);
	e->link.state = (enum gw_sandbox_state)open.state;
	if (!e->link.box && (open.state == GW_SANDBOX_RUNNING || (!who && open.state == GW_SANDBOX_ENDED))) {
		auto_free char *log_file = http_text_dup(reply->strings[GW_OPENED_LOG_FILE]);

		if (reply->n_fds != 2 && reply->n_fds != AGENT_CHANNEL_FDS) {
			sbx_err_set(err, SBX_E_PROTOCOL, 0, "open: %zu descriptors", reply->n_fds);
			return NULL;
		}
		e->link.box = execd_box_new(links->execd, e->link.id, reply->fds, log_file ? log_file : "", box_broken, e, err);
		if (!e->link.box)
			return NULL;
		for (size_t i = 0; i < reply->n_fds; i++)
			reply->fds[i] = -1;
	}
	if (who)
		remember(e, who);
	return &e->link;
}

void links_changed(struct links *links, const struct gw_state *state)
{
	struct entry **at = slot_of(links, state->sandbox_id);

	if (!*at)
		return;
	if (state->state == GW_SANDBOX_GONE) {
		remove_entry(links, at, NULL);
		return;
	}
	set_generation(*at, state->generation);
	(*at)->link.state = (enum gw_sandbox_state)state->state;
	if (state->state == GW_SANDBOX_ENDED)
		drop_box(*at, NULL);
	else if (state->state == GW_SANDBOX_RUNNING && !(*at)->link.box)
		forget(*at); /* a box has to be opened first */
}

void links_forget_credentials(struct links *links)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct entry *e = links->bucket[i]; e; e = e->next)
			forget(e);
}
