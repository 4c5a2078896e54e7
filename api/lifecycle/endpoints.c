// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_api.h"

#include "api/auth.h"
#include "api/endpoint.h"
#include "api/lifecycle/lifecycle_int.h"
#include "api/schema.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/num.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <string.h>

/* Return: 0, or -1 after having answered.  No integer is 422, one outside of the range 400, as clients know it. */
static int read_port(struct api_call *call, uint32_t *ret)
{
	const struct schema_at root = {.name = "path"}, at = {.up = &root, .name = "port"};
	const char *text = call->param[1];
	int64_t port = 0;
	int r = num_i64(text, strlen(text), &port);

	if (r == -EINVAL) {
		auto_schema s;

		schema_init(&s);
		schema_fault(&s, &at, "int_parsing", "must be an integer");
		schema_reply(&s, call);
		return -1;
	}
	if (r < 0 || port < 1 || port > UINT16_MAX) {
		api_reply_code(call, SBX_E_INVALID_PORT, "the port %.32s is outside of 1 to 65535", text);
		return -1;
	}
	*ret = (uint32_t)port;
	return 0;
}

static void write_token(struct jw *w, const char *header, const char *token)
{
	jw_key(w, "headers");
	jw_object(w);
	jw_key_str(w, header, token);
	jw_object_end(w);
}

void lifecycle_api_endpoint(struct api_call *call)
{
	const struct api_context *context = call->context;
	auto_free char *expires = NULL;
	auto_buf body = {0}, endpoint = {0};
	struct jw w = {.out = &body};
	bool server_proxy = false;
	uint32_t port;

	if (lifecycle_query_bool(call, "use_server_proxy", &server_proxy) < 0 ||
	    lifecycle_query_text(call, "expires", &expires) < 0)
		return;
	if (expires) {
		if (server_proxy)
			api_reply_code(call, SBX_E_INVALID_REQUEST, "expires cannot be combined with use_server_proxy");
		else
			api_reply_code(call, SBX_E_API_NOT_SUPPORTED, "expires: signed endpoints are not offered by this server");
		return;
	}
	if (read_port(call, &port) < 0)
		return;
	const struct sandbox *sandbox = lifecycle_find(call);
	if (!sandbox)
		return;
	/* the gateway's Unix socket has no address that another program could use */
	endpoint_text(&endpoint, context->settings, call->request->unix_peer ? HTTP_NO_TEXT : call->request->host,
		      sandbox->id_text, port, server_proxy);
	const char *text = buf_str(&endpoint), *token = NULL;
	if (!text) {
		api_reply_code(call, SBX_E_NO_MEMORY, "out of memory");
		return;
	}
	jw_object(&w);
	jw_key_str(&w, "endpoint", text);
	if (port == ENDPOINT_PORT_EXEC && (token = auth_exec_token(context, sandbox)))
		write_token(&w, "X-EXECD-ACCESS-TOKEN", token);
	if (port == ENDPOINT_PORT_EGRESS && sandbox->egress_token[0])
		write_token(&w, "OPENSANDBOX-EGRESS-AUTH", sandbox->egress_token);
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}
