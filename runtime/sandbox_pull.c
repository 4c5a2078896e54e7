// SPDX-License-Identifier: Apache-2.0
/*
 * A create whose image has to come first: its row says Pending meanwhile, deletion and expiry leave the pull, and the end of the
 * pull goes on as if the create had been asked for then.
 */
#include "runtime/sandbox_int.h"

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/settings.h"
#include "images/image_ref.h"
#include "images/image_store.h"
#include "images/pull.h"

#include <string.h>

static enum sandbox_pull policy_of(const struct sandbox_entry *e)
{
	const char *configured = e->manager->settings->images_pull_policy;

	if (e->pub.spec.pull != SANDBOX_PULL_DEFAULT)
		return e->pub.spec.pull;
	return !strcmp(configured, "always") ? SANDBOX_PULL_ALWAYS : !strcmp(configured, "never") ? SANDBOX_PULL_NEVER : SANDBOX_PULL_MISSING;
}

bool pull_wanted(const struct sandbox_entry *e)
{
	struct sandbox_manager *m = e->manager;
	enum sandbox_pull policy = policy_of(e);
	const char *uri = e->pub.spec.image_uri;
	struct image_ref ref;
	struct sbx_err err = {0};

	/* what is no reference is said to be none by launch_plan() */
	if (!m->pulls || !m->images || policy == SANDBOX_PULL_NEVER || image_ref_parse(uri, strlen(uri), &ref, &err) < 0 || ref.host)
		return false;
	return policy == SANDBOX_PULL_ALWAYS || !image_store_usable(m->images, uri, &err);
}

/* The spec may have changed: without an entrypoint of the request the image's own is known now, and the row has to have it. */
static int rewrite_row(struct sandbox_entry *e, struct sbx_err *err)
{
	if (state_store_remove(e->manager->store, e->pub.id_text, err) < 0)
		return -1;
	return entry_insert(e, err);
}

static void on_pulled(void *arg, const char *name, const struct sbx_err *err)
{
	struct sandbox_entry *e = arg;
	auto_free struct broker_create *msg = malloc(sizeof(*msg));
	struct sbx_err mine = *err;

	(void)name;
	e->ticket = NULL;
	e->wants_pull = false;
	ignore_result(FAULT_POINT("create-pulled"));
	if (!mine.code && !msg)
		sbx_err_set(&mine, SBX_E_NO_MEMORY, 0, "create a sandbox");
	/* an image that cannot be started with is found out now, and before the row is written again */
	if (mine.code || launch_plan(e->manager, e, msg, &mine) < 0 || rewrite_row(e, &mine) < 0) {
		entry_fail(e, &mine);
		return;
	}
	snprintf(e->pub.message, sizeof(e->pub.message), "the sandbox is being made");
	if (broker_client_hello(e->manager->broker))
		entry_ask_again(e);
	/* else recover.c asks when the broker is back */
}

void pull_begin(struct sandbox_entry *e)
{
	const struct sandbox_spec *spec = &e->pub.spec;
	struct registry_credentials credentials = {0};
	struct sbx_err err = {0};
	const struct image_pull_request request = {
		.ref = spec->image_uri,
		.credentials = spec->image_user ? &credentials : NULL,
		.arg = e,
		.done = on_pulled,
	};

	if (spec->image_user) {
		snprintf(credentials.user, sizeof(credentials.user), "%s", spec->image_user);
		snprintf(credentials.password, sizeof(credentials.password), "%s", spec->image_password);
	}
	e->ticket = image_pull(e->manager->pulls, &request, &err);
	explicit_bzero(&credentials, sizeof(credentials));
	if (!e->ticket)
		entry_fail(e, &err);
}

void pull_leave(struct sandbox_entry *e)
{
	if (e->ticket)
		image_pull_leave(e->ticket);
	e->ticket = NULL;
}
