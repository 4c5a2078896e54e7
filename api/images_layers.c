// SPDX-License-Identifier: Apache-2.0
#include "api/images_layers.h"

#include "base/cleanup.h"
#include "runtime/broker_client.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct images_layers {
	struct broker_client *broker;
	images_layers_done *done; /* NULL: it was given up, the answer under way frees it */
	void *arg;
	struct digest_map layers;
	uint64_t n_strays;
};

static void on_part(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err);

static int ask(struct images_layers *l, uint64_t cursor, struct sbx_err *err)
{
	const struct broker_layers_req req = {.head = {.op = BROKER_OP_LAYER_LIST, .size = sizeof(req)}, .cursor = cursor};

	return broker_client_call(l->broker, &req, -1, on_part, l, err);
}

static void listing_end(struct images_layers *l, const struct sbx_err *err)
{
	if (err->code)
		digest_map_clear(&l->layers);
	if (l->done)
		l->done(l->arg, &l->layers, l->n_strays, err);
	digest_map_clear(&l->layers);
	free(l);
}

static void on_part(void *arg, const union broker_any *reply, const int *fds, size_t n_fds, const struct sbx_err *err)
{
	struct images_layers *l = arg;
	struct sbx_err mine = *err;

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!mine.code && !l->done)
		sbx_err_set(&mine, SBX_E_PEER_GONE, 0, "given up");
	for (uint32_t i = 0; !mine.code && i < reply->layers_reply.n && i < BROKER_LAYER_ROWS; i++) {
		const struct broker_layer_row *row = &reply->layers_reply.row[i];
		struct digest_entry *e = digest_map_add(&l->layers, row->key);

		if (e) {
			e->flags = row->flags;
			e->value = row->made_wall_s > 0 ? (uint64_t)row->made_wall_s : 0;
		} else {
			sbx_err_set(&mine, SBX_E_NO_MEMORY, 0, "list of layers");
		}
	}
	if (!mine.code) {
		l->n_strays += reply->layers_reply.n_strays;
		if (!reply->layers_reply.last && ask(l, reply->layers_reply.cursor, &mine) == 0)
			return;
	}
	listing_end(l, &mine);
}

struct images_layers *images_layers_list(struct broker_client *broker, images_layers_done *done, void *arg, struct sbx_err *err)
{
	struct images_layers *l = broker ? calloc(1, sizeof(*l)) : NULL;

	if (!l) {
		sbx_err_set(err, broker ? SBX_E_NO_MEMORY : SBX_E_OVERLOADED, 0, "list of layers");
		return NULL;
	}
	*l = (struct images_layers){.broker = broker, .done = done, .arg = arg};
	if (ask(l, 0, err) < 0) {
		free(l);
		return NULL;
	}
	return l;
}

void images_layers_free(struct images_layers *listing)
{
	if (listing)
		listing->done = NULL;
}
