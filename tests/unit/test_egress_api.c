/* SPDX-License-Identifier: Apache-2.0 */
/* Port 18080 against a fake manager: the rows 1 to 21 of the contract's first table that need no kernel. */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/deny_hook.h"
#include "api/dispatch.h"
#include "api/egress_api.h"
#include "api/egress_events.h"
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
	int stream_fd;
} got = {.stream_fd = -1};

static void on_answer(void *arg, const struct api_answer *a)
{
	(void)arg;
	got.n++;
	got.status = a->status;
	snprintf(got.type, sizeof(got.type), "%s", a->content_type);
	snprintf(got.headers, sizeof(got.headers), "%s", a->headers);
	if (got.stream_fd >= 0)
		close(got.stream_fd);
	got.stream_fd = a->stream_fd > 0 ? fcntl(a->stream_fd, F_DUPFD_CLOEXEC, 3) : -1;
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

/* ---- events: dnsd's word into journal, stream, the sandbox's own log, and explain ---- */

static struct loop *loop;

static void happens(uint32_t kind, uint32_t reason, uint32_t rule, const char *name, uint16_t port)
{
	const struct sandbox *s = fake_newest();
	struct egress_event e = {.kind = kind, .reason = reason, .rule_index = rule, .count = 1, .port = port, .wall_usec = 1700000000123456, .qtype = 1};

	memcpy(e.sandbox_id, s->id, 16);
	snprintf(e.name, sizeof(e.name), "%s", name);
	egress_events_add(context.events, s, s->spec.policy, &e);
}

static void ask_api(const char *target)
{
	const struct api_request request = {.method = text_of("GET"), .target = text_of(target), .api_key = text_of(KEY), .has_api_key = true};
	unsigned before = got.n;

	dispatch(&context, &request, on_answer, NULL);
	if (got.n != before + 1)
		ok(false, "%s: %u answers", target, got.n - before);
}

static void read_stream(char *out, size_t size)
{
	ssize_t n = got.stream_fd >= 0 ? read(got.stream_fd, out, size - 1) : -1;

	out[n > 0 ? n : 0] = '\0';
}

static void test_events(void)
{
	char text[8192], target[256];

	begin(D_OK);
	loop_once(loop, 0);
	happens(EGRESS_EVENT_DNS_DENIED, EGRESS_REASON_DEFAULT, EGRESS_NO_RULE, "first.test", 0);
	ok(fake.n_denied == 1 && strstr(fake.denied, "\"name\":\"first.test\"") && fake.denied[strlen(fake.denied) - 1] == '\n',
	   "the sandbox's own log gets a line");
	ok(!strstr(fake.denied, "sandboxId"), "which does not repeat whose it is");
	happens(EGRESS_EVENT_DNS_ALLOWED, EGRESS_REASON_RULE, 0, "ok.test", 0);
	is_int(fake.n_denied, 1, "what was allowed is no denial");
	ask_as("GET", "/events", "", TOKEN, "");
	ok(got.status == 200 && strstr(got.body, "\"items\":[{\"id\":") && strstr(got.body, "first.test") && strstr(got.body, "\"time\":\"2023-11-14T22:13:20.123Z\""),
	   "the journal as a list");
	ok(strstr(got.body, "\"rule\":{\"index\":0,\"action\":\"allow\",\"target\":\"ok.test\"}"), "an event names its rule");
	ask_as("GET", "/events?follow=true&after=0", "", TOKEN, "");
	read_stream(text, sizeof(text));
	ok(got.status == 200 && !strcmp(got.type, "text/event-stream") && strstr(text, "event: dns_denied\ndata: {") && strstr(text, "event: dns_allowed\n"),
	   "the stream begins with what is known");
	for (int i = 0; i < 3; i++)
		happens(EGRESS_EVENT_DNS_DENIED, EGRESS_REASON_DEFAULT, EGRESS_NO_RULE, "second.test", 0);
	read_stream(text, sizeof(text));
	const char *first = strstr(text, "second.test");
	ok(first && !strstr(first + 1, "second.test"), "repeats within a second are told once");
	is_int(fake.n_denied, 2, "also to the sandbox");
	for (int i = 0; i < 150 && !strstr(text, "\"count\":2"); i++) {
		loop_once(loop, 10);
		read_stream(text, sizeof(text));
	}
	ok(strstr(text, "\"count\":2"), "and then how many they were");
	const uint64_t last = journal_last(egress_events_journal(context.events));
	snprintf(target, sizeof(target), "/events?after=%llu", (unsigned long long)last);
	ask_as("GET", target, "", TOKEN, "");
	is_str(got.body, "{\"items\":[]}", "nothing behind the last");
	ask_as("GET", "/events?after=x", "", TOKEN, "");
	is_int(got.status, 422, "a number that is none");
	ask_as("POST", "/events", "", TOKEN, "");
	ok(got.status == 405 && !strcmp(got.headers, "Allow: GET\r\n"), "only GET");
	ask_as("GET", "/events", "", "", "");
	is_int(got.status, 401, "not without a token");
	for (int i = 0; i < 5000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "n%d.test", i);
		happens(EGRESS_EVENT_DNS_DENIED, EGRESS_REASON_DEFAULT, EGRESS_NO_RULE, name, 0);
	}
	is_int(journal_counts(egress_events_journal(context.events))->kept, JOURNAL_SANDBOX_MAX, "5,000 names later the journal is as long as it may be");
	egress_events_gone(context.events, fake_newest());
	is_int(journal_counts(egress_events_journal(context.events))->kept, 0, "and empty when the sandbox is gone");
}

static const struct {
	const char *why, *policy, *target, *want[4];
} explained[] = {
	{"an allowed name", D_OK, "ok.test:443", {"\"verdict\":\"allowed\"", "\"reason\":\"rule\"", "\"rule\":{\"index\":0", NULL}},
	{"default deny", D_OK, "oth.test", {"\"verdict\":\"denied\"", "\"reason\":\"default\"", "\"remedy\":{\"allow\":\"oth.test\"}", NULL}},
	{"a port", "{\"egress\":[{\"action\":\"allow\",\"target\":\"*.a.test\",\"ports\":[80,443]}]}", "x.a.test:22",
	 {"\"verdict\":\"denied\"", "\"reason\":\"port\"", "\"remedy\":{\"allow\":\"*.a.test\",\"port\":22}", NULL}},
	{"no policy", NULL, "any.test", {"\"verdict\":\"allowed\"", "\"reason\":\"default\"", NULL, NULL}},
	{"a private address", NULL, "10.0.0.8:5432", {"\"verdict\":\"denied\"", "\"reason\":\"private\"", "\"remedy\":{\"allow\":\"10.0.0.8\"}", NULL}},
	{"metadata has no remedy", NULL, "169.254.169.254", {"\"verdict\":\"denied\"", "\"reason\":\"metadata\"", NULL, NULL}},
	{"a denied range", "{\"defaultAction\":\"allow\",\"egress\":[{\"target\":\"198.51.100.0/24\"}]}", "198.51.100.7:80",
	 {"\"verdict\":\"denied\"", "\"reason\":\"rule\"", "\"remedy\":{\"remove\":\"198.51.100.0/24\"}", NULL}},
	{"a bad target", NULL, "*.a.test", {"one name or address", NULL, NULL, NULL}},
	{"a bad port", NULL, "a.test:99999", {"is no port", NULL, NULL, NULL}},
};

static void test_explain(void)
{
	char target[300];

	for (size_t i = 0; i < ARRAY_SIZE(explained); i++) {
		bool good = true;

		begin(explained[i].policy);
		snprintf(target, sizeof(target), "/v1/sandboxes/%s/egress/explain?target=%s", id, explained[i].target);
		ask_api(target);
		for (size_t k = 0; k < 4 && explained[i].want[k]; k++)
			good = good && strstr(got.body, explained[i].want[k]);
		if (!ok(good, "explain: %s", explained[i].why))
			printf("#   got: %s\n", got.body);
	}
	ok(!strstr(got.body, "remedy"), "no remedy for what is no target");
	begin(D_OK);
	happens(EGRESS_EVENT_DNS_DENIED, EGRESS_REASON_DEFAULT, EGRESS_NO_RULE, "oth.test", 0);
	snprintf(target, sizeof(target), "/v1/sandboxes/%s/egress/explain?target=oth.test:443", id);
	ask_api(target);
	ok(strstr(got.body, "\"tries\":1,\"last\":[{\"id\":"), "the last denials are shown");
	ask_api("/v1/egress/metrics");
	ok(got.status == 200 && strstr(got.body, "\"egress.denied.reason\":{"), "figures");
}

static char *secret_file(const char *text, size_t n, mode_t mode)
{
	static char path[] = "/tmp/test_egress_api.XXXXXX";

	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	auto_fd fd = mkstemp(path);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n || fchmod(fd, mode) < 0)
		path[0] = '\0';
	return path;
}

static void test_signature(void)
{
	static char none[] = "", device[] = "/dev/zero";
	static char big[DENY_HOOK_SECRET_MAX + 2];
	static const struct {
		const char *text;
		size_t n, takes;
		mode_t mode;
		const char *why;
	} files[] = {
		{"0123456789abcdef", 16, 16, 0400, "16 bytes"},
		{"0123456789abcdef\n", 17, 16, 0600, "a newline at the end is no part of it"},
		{"0123456789\0bcdef\n\n", 18, 17, 0600, "one newline, and any byte"},
		{big, DENY_HOOK_SECRET_MAX, DENY_HOOK_SECRET_MAX, 0600, "the longest"},
		{"0123456789abcde\n", 16, 0, 0600, "too short"},
		{"", 0, 0, 0600, "empty"},
		{big, DENY_HOOK_SECRET_MAX + 1, 0, 0600, "too long"},
		{"0123456789abcdef", 16, 0, 0640, "readable for a group"},
		{"0123456789abcdef", 16, 0, 0604, "readable for all"},
	};
	struct settings s = {0};
	struct deny_hook_secret secret = {.n = 1};
	char value[FETCH_SIGNATURE_BYTES] = "";
	struct sbx_err err = {0};

	memset(big, 'x', sizeof(big));
	s.egress_deny_webhook_secret_file = none;
	ok(deny_hook_read_secret(&s, &secret, &err) == 0 && !secret.n, "no file, no signature");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char *path = secret_file(files[i].text, files[i].n, files[i].mode);

		s.egress_deny_webhook_secret_file = path;
		is_int(deny_hook_read_secret(&s, &secret, &err), files[i].takes ? 0 : -1, "secret: %s", files[i].why);
		ok(secret.n == files[i].takes && (!secret.n || !memcmp(secret.data, files[i].text, secret.n)), "secret: %s: its bytes", files[i].why);
		unlink(path);
	}
	ok(deny_hook_read_secret(&s, &secret, &err) < 0 && err.code == SBX_E_INVALID_REQUEST, "secret: a file that is not there");
	s.egress_deny_webhook_secret_file = device;
	ok(deny_hook_read_secret(&s, &secret, &err) < 0, "secret: no regular file");
	secret = (struct deny_hook_secret){.n = 16, .data = "0123456789abcdef"};
	is_int(deny_hook_sign(&secret, 1700000000, "{}", 2, value, &err), 0, "signed");
	/* printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef */
	is_str(value, "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e", "the time and the HMAC of it and the body");
}

int main(void)
{
	static const struct sandbox_hooks hooks;
	static const struct deny_hook_secret unsigned_hook;
	struct sbx_err err = {0};

	signal(SIGPIPE, SIG_IGN); /* sandboxd has it in its loop */
	context.manager = fake_manager_new(&hooks);
	if (settings_load("/dev/null", &settings, &err) < 0)
		printf("# %s\n", err.msg);
	settings.egress_max_rules = 3;
	test_access();
	test_vault();
	test_failures();
	test_warnings();
	test_rows();
	test_signature();
	loop = loop_new(&err);
	context.events = loop ? egress_events_new(loop, &settings, &unsigned_hook, &err) : NULL;
	egress_events_set_manager(context.events, context.manager);
	test_events();
	test_explain();
	egress_events_free(context.events);
	loop_free(loop);
	return tap_done();
}
