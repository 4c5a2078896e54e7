// SPDX-License-Identifier: Apache-2.0
/*
 * Whole requests against the fake manager.  Input: "METHOD target\n" and then the body.  Whatever comes, there is exactly one
 * answer, an error has its JSON body, and no answer holds a null.
 */
#include "api/dispatch.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/log.h"
#include "base/settings.h"
#include "tests/unit/fake_manager.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_null(const struct jv *v)
{
	if (jv_type(v) == JV_NULL)
		return true;
	for (const struct jv *m = jv_first(v); m; m = jv_next(m))
		if (has_null(m))
			return true;
	return false;
}

static void on_answer(void *arg, const struct api_answer *a)
{
	unsigned *answers = arg;
	struct sbx_err err = {0};

	++*answers;
	if (a->status < 200 || a->status > 599)
		abort();
	if (strcmp(a->content_type, "application/json") != 0) {
		if (a->status >= 400)
			abort();
		return;
	}
	auto_jv root = jv_parse(a->body, a->body_len, &err);
	if (!root || has_null(root))
		abort();
	if (a->status >= 400 && (!jv_str(jv_get(root, "code")) || !jv_str(jv_get(root, "message"))))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sandbox_hooks none;
	static struct settings settings;
	static struct api_context context;
	struct sbx_err err = {0};
	unsigned answers = 0;

	if (!context.settings) {
		log_init("fuzz", (enum log_level)0);
		if (settings_defaults(&settings, &err) < 0 || settings_set(&settings, "storage.allowed_host_paths", "[\"/srv\"]", &err) < 0)
			abort();
		context = (struct api_context){.settings = &settings, .manager = fake_manager_new(&none), .api_key = "k", .state_dir_fd = -1};
	}
	const char *text = (const char *)data;
	const char *line = memchr(text, '\n', size);
	const char *space = line ? memchr(text, ' ', (size_t)(line - text)) : NULL;
	if (!space)
		return 0;
	const struct api_request request = {
		.method = {text, (size_t)(space - text)},
		.target = {space + 1, (size_t)(line - space - 1)},
		.host = HTTP_TEXT("localhost:8080"),
		.api_key = HTTP_TEXT("k"),
		.has_api_key = true,
		.content_type = HTTP_TEXT("application/json"),
		.body = {line + 1, size - (size_t)(line + 1 - text)},
	};
	/* one to find, made anew for each input so that inputs do not depend on each other */
	fake_manager_reset();
	unsigned ignored = 0;
	struct api_request make = request;
	make.method = HTTP_TEXT("POST");
	make.target = HTTP_TEXT("/sandboxes");
	make.body = HTTP_TEXT("{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"true\"],\"resourceLimits\":{},\"timeout\":600}");
	dispatch(&context, &make, on_answer, &ignored);
	dispatch(&context, &request, on_answer, &answers);
	if (answers != 1)
		abort();
	fake_manager_reset();
	return 0;
}
