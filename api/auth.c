// SPDX-License-Identifier: Apache-2.0
#include "api/auth.h"

#include "api/call.h"
#include "base/num.h"
#include "runtime/sandbox.h"

#include <string.h>

/* The length of a secret may be learned from the time, its bytes may not. */
static bool matches(struct http_text shown, const char *secret)
{
	size_t n = secret ? strlen(secret) : 0;

	return n && shown.len == n && same_secret(shown.data, secret, n);
}

static bool has_key(const struct api_context *context)
{
	return context->api_key[0] != '\0';
}

static bool shows_key(const struct api_context *context, const struct auth_credentials *who)
{
	return has_key(context) && matches(who->api_key, context->api_key);
}

int auth_lifecycle(const struct api_context *context, const struct auth_credentials *who, bool *ret_by_key, struct sbx_err *err)
{
	bool by_key = shows_key(context, who);

	if (ret_by_key)
		*ret_by_key = by_key;
	if (by_key || who->unix_peer)
		return 0;
	if (has_key(context)) {
		if (!who->has_api_key || !who->api_key.len)
			return sbx_err_set(err, SBX_E_MISSING_API_KEY, 0, "the header OPEN-SANDBOX-API-KEY is required");
		return sbx_err_set(err, SBX_E_INVALID_API_KEY, 0, "the value of OPEN-SANDBOX-API-KEY is not the configured key");
	}
	/* no key, and nobody wrote down that none is wanted: closed */
	if (!context->insecure)
		return sbx_err_set(err, SBX_E_MISSING_API_KEY, 0, "no API key is configured: use the Unix socket");
	if (who->origin.len)
		return sbx_err_set(err, SBX_E_FORBIDDEN_ORIGIN, 0, "a web page may not call this API without a key");
	return 0;
}

static const char *env_token(const struct sandbox *sandbox)
{
	for (size_t i = 0; i < sandbox->spec.n_env; i++)
		if (!strcmp(sandbox->spec.env[i].key, "EXECD_ACCESS_TOKEN") && sandbox->spec.env[i].value[0])
			return sandbox->spec.env[i].value;
	return NULL;
}

const char *auth_exec_token(const struct api_context *context, const struct sandbox *sandbox)
{
	const char *own = env_token(sandbox);

	if (own)
		return own;
	return has_key(context) && sandbox->execd_token[0] ? sandbox->execd_token : NULL;
}

int auth_exec(const struct api_context *context, const struct sandbox *sandbox, const struct auth_credentials *who,
	      struct sbx_err *err)
{
	const char *own = env_token(sandbox);

	if (who->unix_peer || shows_key(context, who))
		return 0;
	/* The Go SDK sends the API key in the token's header when it has no token. */
	if (has_key(context) && matches(who->execd_token, context->api_key))
		return 0;
	if (own ? matches(who->execd_token, own) : matches(who->execd_token, sandbox->execd_token))
		return 0;
	if (!own && !has_key(context) && context->insecure)
		return 0;
	return sbx_err_set(err, SBX_E_UNAUTHORIZED, 0, "Unauthorized: invalid or missing header X-EXECD-ACCESS-TOKEN");
}

int auth_egress(const struct api_context *context, const struct sandbox *sandbox, const struct auth_credentials *who,
		struct sbx_err *err)
{
	if (who->unix_peer || shows_key(context, who) || matches(who->egress_token, sandbox->egress_token))
		return 0;
	if (has_key(context) && matches(who->egress_token, context->api_key))
		return 0;
	return sbx_err_set(err, SBX_E_UNAUTHORIZED, 0, "port 18080 needs the OPENSANDBOX-EGRESS-AUTH of its endpoint headers");
}
