/* SPDX-License-Identifier: Apache-2.0 */
/* Port 18080 against a fake manager: the rows 1 to 21 of the contract's first table that need no kernel. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "api/egress_api.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/settings.h"
#include "netpolicy/policy_json.h"
#include "tests/tap.h"
#include "tests/unit/fake_manager.h"

#define TOKEN "egress-token-1"
#define KEY   "the-key"

static struct settings settings;
static struct api_context context = {.settings = &settings, .api_key = KEY};
static char id[64];

static struct {
	unsigned n;
	uint32_t status;
	char type[64], headers[128], body[8192];
} got;

static void on_answer(void *arg, const struct api_answer *a)
{
	(void)arg;
	got.n++;
	got.status = a->status;
	snprintf(got.type, sizeof(got.type), "%s", a->content_type);
	snprintf(got.headers, sizeof(got.headers), "%s", a->headers);
	snprintf(got.body, sizeof(got.body), "%.*s", (int)a->body_len, a->body);
}

static struct http_text text_of(const char *s)
{
	return (struct http_text){s, strlen(s)};
}

static void ask_as(const char *method, const char *target, const char *body, const char *token, const char *key)
{
	const struct api_request request = {
		.method = text_of(method),
		.target = text_of(target),
		.body = text_of(body),
		.sandbox = text_of(id),
		.egress_token = text_of(token),
		.api_key = text_of(key),
		.has_api_key = *key,
	};
	unsigned before = got.n;

	egress_api(&context, &request, on_answer, NULL);
	if (got.n != before + 1)
		ok(false, "%s %s: %u answers", method, target, got.n - before);
}

static void ask(const char *method, const char *body)
{
	ask_as(method, "/policy", body, TOKEN, "");
}

#define D_OK	 "{\"defaultAction\":\"deny\",\"egress\":[{\"action\":\"allow\",\"target\":\"ok.test\"}]}"
#define D_OK_OTH "{\"egress\":[{\"action\":\"allow\",\"target\":\"ok.test\"},{\"action\":\"allow\",\"target\":\"oth.test\"}]}"
#define STATUS(mode, policy)		 "{\"status\":\"ok\",\"mode\":\"" mode "\",\"enforcementMode\":\"dns+nft\",\"policy\":" policy "}"
#define STATUS_WHY(mode, reason, policy) \
	"{\"status\":\"ok\",\"mode\":\"" mode "\",\"enforcementMode\":\"dns+nft\",\"reason\":\"" reason "\",\"policy\":" policy "}"
#define DENY_ALL "{\"defaultAction\":\"deny\",\"egress\":[]}"
#define RESET_TO "the policy was reset to default deny"

static const struct {
	unsigned row;
	const char *why, *start, *method, *body;
	uint32_t status;
	const char *want; /* begins with '{': the whole body; else part of the text, and the policy must be as it was */
} rows[] = {
	{3, "GET of deny-all", DENY_ALL, "GET", "", 200, STATUS("deny_all", DENY_ALL)},
	{3, "GET without a policy", NULL, "GET", "", 200, STATUS("allow_all", "{\"defaultAction\":\"allow\",\"egress\":[]}")},
	{4, "POST allow", D_OK, "POST", "{\"defaultAction\":\"allow\"}", 200, STATUS("allow_all", "{\"defaultAction\":\"allow\",\"egress\":[]}")},
	{5, "POST one rule", NULL, "POST", "{\"egress\":[{\"action\":\"allow\",\"target\":\"ok.test\"}]}", 200, STATUS("enforcing", D_OK)},
	{6, "POST nothing", D_OK, "POST", "", 200, STATUS_WHY("deny_all", RESET_TO, DENY_ALL)},
	{6, "POST blanks", D_OK, "POST", " \r\n\t", 200, STATUS_WHY("deny_all", RESET_TO, DENY_ALL)},
	{6, "PUT nothing", NULL, "PUT", "", 200, STATUS_WHY("deny_all", RESET_TO, DENY_ALL)},
	{7, "POST null", D_OK, "POST", "null", 200, STATUS("deny_all", DENY_ALL)},
	{7, "POST {}", D_OK, "POST", "{}", 200, STATUS("deny_all", DENY_ALL)},
	{8, "POST []", D_OK, "POST", "[]", 400, "invalid policy: "},
	{8, "POST x", D_OK, "POST", "x", 400, "invalid policy: "},
	{8, "POST with bytes behind", D_OK, "POST", "{} {}", 400, "invalid policy: "},
	{9, "unknown word", D_OK, "POST", "{\"defaultAction\":\"block\"}", 400, "\"block\""},
	{10, "unknown action", D_OK, "POST", "{\"egress\":[{\"action\":\"permit\",\"target\":\"a.test\"}]}", 400, "egress[0]: action"},
	{10, "empty target", D_OK, "POST", "{\"egress\":[{\"action\":\"allow\",\"target\":\"\"}]}", 400, "egress[0]: the target is empty"},
	{11, "prefix of 33", D_OK, "POST", "{\"egress\":[{\"target\":\"10.0.0.0/33\"}]}", 400, "egress[0]: target \"10.0.0.0/33\""},
	{11, "a blank", D_OK, "POST", "{\"egress\":[{\"target\":\"ok.test\"},{\"target\":\"a b\"}]}", 400, "egress[1]: target \"a b\""},
	{11, "a star", D_OK, "POST", "{\"egress\":[{\"target\":\"*\"}]}", 400, "egress[0]: target \"*\""},
	{11, "a star in a label", D_OK, "POST", "{\"egress\":[{\"target\":\"*foo.test\"}]}", 400, "egress[0]: target \"*foo.test\""},
	{12, "PUT one rule", NULL, "PUT", "{\"egress\":[{\"action\":\"allow\",\"target\":\"ok.test\"}]}", 200, STATUS("enforcing", D_OK)},
	{13, "PATCH", "{\"egress\":[{\"action\":\"deny\",\"target\":\"*.a.test\"},{\"action\":\"allow\",\"target\":\"b.test\"}]}", "PATCH",
	 "[{\"action\":\"allow\",\"target\":\"x.a.test\"},{\"action\":\"deny\",\"target\":\"B.test\"},{\"action\":\"allow\",\"target\":\"b.test\"}]", 200,
	 STATUS("enforcing", "{\"defaultAction\":\"deny\",\"egress\":[{\"action\":\"allow\",\"target\":\"x.a.test\"},"
			     "{\"action\":\"deny\",\"target\":\"B.test\"},{\"action\":\"deny\",\"target\":\"*.a.test\"}]}")},
	{14, "PATCH []", D_OK, "PATCH", "[]", 400, "non-empty array"},
	{14, "PATCH {}", D_OK, "PATCH", "{}", 400, "non-empty array"},
	{14, "PATCH nothing", D_OK, "PATCH", "", 400, "non-empty array"},
	{14, "PATCH null", D_OK, "PATCH", "null", 400, "non-empty array"},
	{14, "PATCH a bad rule", D_OK, "PATCH", "[{\"target\":\"a.test\"},{\"target\":\"1.2.3\"}]", 400, "invalid merged policy: egress[1]: target \"1.2.3\""},
	{15, "PATCH a fourth of three", D_OK_OTH, "PATCH", "[{\"target\":\"c.test\"},{\"target\":\"d.test\"}]", 413, "egress.max_rules"},
	{15, "POST four of three", D_OK, "POST", "{\"egress\":[{\"target\":\"a.test\"},{\"target\":\"d.test\"},{\"target\":\"b.test\"},{\"target\":\"c.test\"}]}", 413, "egress.max_rules"},
	{16, "DELETE one", D_OK_OTH, "DELETE", "[\"OTH.test\",\"nope.test\"]", 200, STATUS("enforcing", D_OK)},
	{16, "DELETE the last", D_OK, "DELETE", "[\"ok.test.\"]", 200, STATUS("deny_all", DENY_ALL)},
	{17, "DELETE none", D_OK, "DELETE", "[\"nope.test\"]", 200, STATUS_WHY("enforcing", "no matching targets found", D_OK)},
	{18, "DELETE nothing", D_OK, "DELETE", "", 400, "non-empty array"},
	{18, "DELETE []", D_OK, "DELETE", "[]", 400, "non-empty array"},
	{18, "DELETE x", D_OK, "DELETE", "x", 400, "invalid policy: "},
};

static void done_nothing(void *arg, const struct sandbox *sandbox, const struct sbx_err *err)
{
	(void)arg, (void)err;
	snprintf(id, sizeof(id), "%s", sandbox ? sandbox->id_text : "");
}

static void begin(const char *policy)
{
	struct sbx_err err = {0};
	struct sandbox_spec spec = {.timeout_s = 60, .image_uri = strdup("host"), .entrypoint = calloc(2, sizeof(char *))};
	auto_jv v = policy ? jv_parse(policy, strlen(policy), &err) : NULL;

	fake_manager_reset();
	spec.entrypoint[0] = strdup("true");
	spec.policy = policy ? policy_json_read(v, 0, &err) : NULL;
	sandbox_create(context.manager, &spec, done_nothing, NULL);
}

static char *policy_now(void)
{
	auto_buf out = {0};
	struct jw w = {.out = &out};

	policy_json_write(fake_newest()->spec.policy, &w);
	return strdup(buf_str(&out));
}

static void test_rows(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		begin(rows[i].start);
		auto_free char *before = policy_now();
		ask(rows[i].method, rows[i].body);
		is_int(got.status, rows[i].status, "row %u: %s", rows[i].row, rows[i].why);
		if (*rows[i].want == '{') {
			is_str(got.body, rows[i].want, "and the answer");
			is_str(got.type, "application/json", "as JSON");
			continue;
		}
		auto_free char *after = policy_now();
		if (!ok(strstr(got.body, rows[i].want) && got.body[strlen(got.body) - 1] == '\n', "with the reason"))
			printf("#   got: %s\n", got.body);
		is_str(got.type, "text/plain; charset=utf-8", "as text");
		is_str(after, before, "and nothing has changed");
	}
}

static void test_access(void)
{
	begin(D_OK);
	ask_as("GET", "/policy", "", "", "");
	ok(got.status == 401 && !strcmp(got.type, "text/plain; charset=utf-8"), "row 1: without a token");
	ask_as("GET", "/policy", "", "egress-token-2", "");
	is_int(got.status, 401, "row 2: the token of another sandbox");
	ask_as("GET", "/policy", "", "", KEY);
	is_int(got.status, 200, "the API key opens it");
	ask_as("GET", "/policy", "", KEY, "");
	is_int(got.status, 200, "also in the token's place, as one client sends it");
	ask_as("GET", "/policy", "", "", "x" KEY);
	is_int(got.status, 401, "a wrong one does not");
	for (size_t i = 0; i < 2; i++) {
		ask_as(i ? "OPTIONS" : "HEAD", "/policy", "", TOKEN, "");
		ok(got.status == 405 && !strcmp(got.headers, "Allow: GET, POST, PUT, PATCH, DELETE\r\n"), "row 19: %s", i ? "OPTIONS" : "HEAD");
	}
	ask_as("GET", "/healthz", "", "", "");
	ok(got.status == 200 && !strcmp(got.body, "ok"), "/healthz needs no token");
	ask_as("POST", "/healthz", "", "", "");
	is_int(got.status, 200, "whatever the method");
	ask_as("GET", "/nothing", "", TOKEN, "");
	is_int(got.status, 404, "another path");
	ask_as("GET", "/nothing", "", "", "");
	is_int(got.status, 401, "of which nothing is said without a token");
	ask_as("GET", "/policy?x=1", "", TOKEN, "");
	is_int(got.status, 200, "a query does not matter");
	snprintf(id, sizeof(id), "00000000-0000-4000-8000-0000000000ff");
	ask_as("GET", "/policy", "", TOKEN, "");
	is_int(got.status, 404, "no such sandbox");
	snprintf(id, sizeof(id), "../../etc");
	ask_as("GET", "/policy", "", TOKEN, "");
	is_int(got.status, 404, "no id at all");
}

static void test_vault(void)
{
	static const struct {
		const char *method, *path, *token;
		uint32_t status;
	} asked[] = {
		{"POST", "/credential-vault", TOKEN, 412}, {"GET", "/credential-vault", TOKEN, 412}, {"DELETE", "/credential-vault", TOKEN, 412},
		{"PUT", "/credential-vault", TOKEN, 405}, {"GET", "/credential-vault/credentials/a%2Fb", TOKEN, 412},
		{"POST", "/credential-vault/bindings", TOKEN, 405}, {"GET", "/credential-vault/_active", TOKEN, 403},
		{"GET", "/credential-vault/_active", "", 403}, {"POST", "/credential-vault/_active", TOKEN, 405},
		{"POST", "/credential-vault", "", 401}, {"GET", "/credential-vaults", TOKEN, 404},
	};

	begin(D_OK);
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		ask_as(asked[i].method, asked[i].path, "{\"credentials\":[{\"name\":\"t\",\"source\":{\"value\":\"s3cr3t\"}}]}", asked[i].token, "");
		ok(got.status == asked[i].status && !strstr(got.body, "s3cr3t"), "vault: %s %s is %u", asked[i].method, asked[i].path, asked[i].status);
	}
}

static void test_failures(void)
{
	begin(D_OK);
	sbx_err_set(&fake.fail_next, SBX_E_SYSTEM, 0, "nft said no at 0xdeadbeef");
	ask("POST", "{\"defaultAction\":\"allow\"}");
	ok(got.status == 500 && !strstr(got.body, "deadbeef"), "row 22: the kernel refuses, and the answer does not tell our insides");
	ask("GET", "");
	is_str(got.body, STATUS("enforcing", D_OK), "the old policy is shown");
	begin(D_OK);
	fake.hold = true;
	ask_as("GET", "/policy", "", TOKEN, "");
	unsigned before = got.n;
	const struct api_request request = {.method = text_of("PATCH"), .target = text_of("/policy"), .sandbox = text_of(id), .egress_token = text_of(TOKEN),
					    .body = text_of("[{\"action\":\"allow\",\"target\":\"new.test\"}]")};
	egress_api(&context, &request, on_answer, NULL);
	is_int(got.n, before, "no answer before the change is in force");
	fake_release();
	fake.hold = false;
	ok(got.n == before + 1 && got.status == 200 && strstr(got.body, "new.test"), "and then one");
}

static void test_warnings(void)
{
	begin(NULL);
	ask("POST", "{\"egress\":[{\"action\":\"allow\",\"target\":\"*.com\"},{\"action\":\"allow\",\"target\":\"2001:db8::1\"}]}");
	ok(got.status == 200 && strstr(got.body, "\"warnings\":[\"egress[0]: *.com covers") && strstr(got.body, "egress[1]: 2001:db8::1 opens nothing"),
	   "what is taken but may surprise is said");
	ask("POST", "{\"egress\":[{\"target\":\"*.com\"},{\"target\":\"2001:db8::1\"}]}");
	ok(got.status == 200 && !strstr(got.body, "warnings"), "a deny of the same does not surprise");
}

int main(void)
{
	static const struct sandbox_hooks hooks;
	struct sbx_err err = {0};

	context.manager = fake_manager_new(&hooks);
	if (settings_load("/dev/null", &settings, &err) < 0)
		printf("# %s\n", err.msg);
	settings.egress_max_rules = 3;
	test_access();
	test_vault();
	test_failures();
	test_warnings();
	test_rows();
	return tap_done();
}
