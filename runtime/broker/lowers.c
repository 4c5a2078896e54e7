// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/lowers.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "runtime/broker/broker_int.h"
#include "runtime/broker/rootfs_mount.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define KEPT_MOST    2048u /* descriptors of all slots together */
#define LIMIT_SHARE  16u   /* and no larger part of what the broker may have open */
#define STALE_MOST   64u   /* sets that wait for their end; above, one is ended at once */

struct lowers_set {
	struct lowers_set *next; /* in the list of stale ones */
	uint32_t n;
	struct timespec as_of; /* change of the directory of layers */
	uint8_t key[LOWERS_MOST][BROKER_KEY_BYTES];
	int fd[LOWERS_MOST];
};

static uint32_t most(struct lowers_store *l)
{
	struct rlimit limit;

	if (!l->most) {
		l->most = KEPT_MOST;
		if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / LIMIT_SHARE < KEPT_MOST)
			l->most = (uint32_t)(limit.rlim_cur / LIMIT_SHARE);
	}
	return l->most;
}

/* Not a slot's any more; ended later. */
static void retire(struct broker *b, struct slot *s)
{
	struct lowers_store *l = &b->lowers;
	struct lowers_set *set = s->lowers;

	if (!set)
		return;
	s->lowers = NULL;
	set->next = l->stale;
	l->stale = set;
	if (++l->n_stale > STALE_MOST)
		lowers_tidy(b);
}

bool lowers_stale(const struct broker *b)
{
	return b->lowers.stale;
}

void lowers_tidy(struct broker *b)
{
	struct lowers_store *l = &b->lowers;
	struct lowers_set *set = l->stale;

	if (!set)
		return;
	l->stale = set->next;
	l->n_stale--;
	l->n_open -= set->n;
	for (uint32_t i = 0; i < set->n; i++)
		close(set->fd[i]);
	free(set);
}

void lowers_refuse(struct broker *b)
{
	b->lowers.refused = true;
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++)
		retire(b, &b->slot[i]);
	log_info("layers are attached for each root: this kernel takes no detached ones");
}

/* Room for @n more; who has some and is next in turn loses them, which helps the next one. */
static bool room(struct broker *b, uint32_t n)
{
	struct lowers_store *l = &b->lowers;

	if (n > LOWERS_MOST || n > most(l))
		return false;
	if (l->n_open + n <= most(l))
		return true;
	for (uint32_t i = 0; i < LIMIT_SANDBOXES; i++) {
		struct slot *s = &b->slot[l->turn++ % LIMIT_SANDBOXES];

		if (s->lowers) {
			retire(b, s);
			break;
		}
	}
	return false;
}

static bool is_of(const struct lowers_set *set, const struct broker_image *image, const struct timespec *as_of)
{
	return set->n == image->n_layers && set->as_of.tv_sec == as_of->tv_sec && set->as_of.tv_nsec == as_of->tv_nsec &&
	       !memcmp(set->key, image->layer, sizeof(set->key[0]) * set->n);
}

static struct lowers_set *make(struct broker *b, struct slot *s, const struct broker_image *image, struct sbx_err *err)
{
	struct lowers_set *set = calloc(1, sizeof(*set));

	if (!set) {
		sbx_err_set(err, SBX_E_NO_MEMORY, 0, "layers of slot %u", s->number);
		return NULL;
	}
	for (; set->n < image->n_layers; set->n++) {
		memcpy(set->key[set->n], image->layer[set->n], sizeof(set->key[0]));
		set->fd[set->n] = rootfs_layer(b, s, image->layer[set->n], err);
		if (set->fd[set->n] < 0)
			break;
	}
	if (set->n == image->n_layers)
		return set;
	while (set->n)
		close(set->fd[--set->n]);
	free(set);
	return NULL;
}

int lowers_get(struct broker *b, struct slot *s, const struct broker_image *image, const int **ret_fd, struct sbx_err *err)
{
	struct stat st;

	if (b->lowers.refused)
		return 0;
	/* before they are opened: what changes meanwhile makes them stale */
	if (fstat(b->layers_fd, &st) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "directory of the layers");
	if (!s->lowers || !is_of(s->lowers, image, &st.st_mtim)) {
		retire(b, s);
		if (!room(b, image->n_layers))
			return 0;
		s->lowers = make(b, s, image, err);
		if (!s->lowers)
			return -1;
		s->lowers->as_of = st.st_mtim;
		b->lowers.n_open += s->lowers->n;
	}
	*ret_fd = s->lowers->fd;
	return 1;
}
