// SPDX-License-Identifier: Apache-2.0
/*
 * The API against a fake manager: one row for each refusal of a bad request, golden bodies for success.
 */
#include "tests/tap.h"

#include "api/dispatch.h"
#include "api/lifecycle/word_split.h"
#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/settings.h"
#include "tests/unit/fake_manager.h"

#include <stdlib.h>

#define KEY  "secret-key"
#define HOST "api.example:8080"
#define ID1  "00000000-0000-4000-8000-000000000001"
#define NOID "00000000-0000-4000-8000-0000000000ff"

static struct settings settings;
static struct api_context context;

struct got {
	unsigned answers;
	unsigned status;
	char type[64];
	char headers[256];
	char *body; /* owned */
};

static void on_answer(void *arg, const struct api_answer *a)
{
	struct got *g = arg;

	g->answers++;
	g->status = a->status;
	snprintf(g->type, sizeof(g->type), "%s", a->content_type);
	snprintf(g->headers, sizeof(g->headers), "%s", a->headers);
	free(g->body);
	g->body = strndup(a->body, a->body_len);
	if (!g->body)
		abort();
}

struct ask {
	const char *method, *target, *body, *type, *key, *origin, *host;
	size_t body_len;
	bool no_key, unix_peer;
};

static struct http_text text_of(const char *s)
{
	return s ? (struct http_text){s, strlen(s)} : HTTP_NO_TEXT;
}

static void send_ask(const struct ask *q, struct got *g)
{
	const struct api_request r = {
		.method = text_of(q->method),
		.target = text_of(q->target),
		.host = text_of(q->host ? q->host : HOST),
		.origin = text_of(q->origin),
		.api_key = text_of(q->no_key ? NULL : q->key ? q->key : KEY),
		.content_type = text_of(q->type ? q->type : "application/json"),
		.request_id = text_of("test"),
		.client = text_of("127.0.0.1:1"),
		.body = q->body ? (struct http_text){q->body, q->body_len ? q->body_len : strlen(q->body)} : HTTP_NO_TEXT,
		.has_api_key = !q->no_key,
		.unix_peer = q->unix_peer,
	};

	g->answers = 0;
	dispatch(&context, &r, on_answer, g);
}

static void call(const char *method, const char *target, const char *body, struct got *g)
{
	const struct ask q = {.method = method, .target = target, .body = body};

	send_ask(&q, g);
}

/* No answer may hold a null, and every error has both members. */
static bool well_formed(const struct got *g)
{
	struct sbx_err err = {0};

	if (g->answers != 1)
		return false;
	if (strcmp(g->type, "application/json") != 0)
		return g->status < 400;
	auto_jv root = jv_parse(g->body, strlen(g->body), &err);
	if (!root || strstr(g->body, ":null") || strstr(g->body, "[null") || strstr(g->body, ",null"))
		return false;
	return g->status < 400 || (jv_str(jv_get(root, "code")) && jv_str(jv_get(root, "message")) && jv_str(jv_get(root, "message"))[0]);
}

static const char *code_of(const struct got *g, char out[64])
{
	struct sbx_err err = {0};
	auto_jv root = jv_parse(g->body, strlen(g->body), &err);

	snprintf(out, 64, "%s", jv_str(jv_get(root, "code")) ? jv_str(jv_get(root, "code")) : "");
	return out;
}

static void check_error(const struct got *g, unsigned status, const char *code, const char *part, const char *why)
{
	char text[64];
	bool good = well_formed(g) && g->status == status && !strcmp(code_of(g, text), code) && (!part || strstr(g->body, part));

	if (!ok(good, "%u %s: %s", status, code, why))
		printf("#  got: %u %s (%u answers)\n# want: %u %s with \"%s\"\n", g->status, g->body, g->answers, status, code,
		       part ? part : "");
}

/* ---- refusals of a create request ---- */

#define PARAM  "SANDBOX::INVALID_PARAMETER"
#define LABEL  "SANDBOX::INVALID_METADATA_LABEL"
#define BASE   "\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"true\"],\"resourceLimits\":{}"
#define VOLUME "\"name\":\"v\",\"mountPath\":\"/work\""
#define LONG63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

static const struct {
	const char *why, *body;
	unsigned status;
	const char *code, *part;
} bad_creates[] = {
	/* not JSON */
	{"no body", NULL, 422, PARAM, "required"},
	{"an array", "[]", 422, PARAM, "\"loc\":[\"body\"]"},
	{"a string", "\"x\"", 422, PARAM, NULL},
	{"cut short", "{\"image\":", 400, "GENERAL::MALFORMED_REQUEST", "byte 9"},
	{"trailing bytes", "{" BASE "} x", 400, "GENERAL::MALFORMED_REQUEST", "follows"},
	{"a member twice", "{" BASE ",\"timeout\":60,\"timeout\":70}", 400, "GENERAL::MALFORMED_REQUEST", "timeout"},
	{"a NUL in the entrypoint", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"a\\u0000b\"],\"resourceLimits\":{}}", 400,
	 "GENERAL::MALFORMED_REQUEST", "NUL"},
	{"not UTF-8", "{" BASE ",\"env\":{\"A\":\"\xff\"}}", 400, "GENERAL::MALFORMED_REQUEST", "UTF-8"},
	/* shape: 422, with the place */
	{"image is a string", "{\"image\":\"host\",\"entrypoint\":[\"x\"],\"resourceLimits\":{}}", 422, PARAM, "\"loc\":[\"body\",\"image\"]"},
	{"image without uri", "{\"image\":{},\"entrypoint\":[\"x\"],\"resourceLimits\":{}}", 422, PARAM, "[\"body\",\"image\",\"uri\"]"},
	{"uri is a number", "{\"image\":{\"uri\":1},\"entrypoint\":[\"x\"],\"resourceLimits\":{}}", 422, PARAM, "image.uri"},
	{"auth without password", "{\"image\":{\"uri\":\"host\",\"auth\":{\"username\":\"u\"}},\"entrypoint\":[\"x\"],\"resourceLimits\":{}}",
	 422, PARAM, "image.auth.password"},
	{"neither image nor snapshot", "{\"entrypoint\":[\"x\"],\"resourceLimits\":{}}", 422, PARAM, "exactly one"},
	{"a blank image", "{\"image\":{\"uri\":\"  \"},\"entrypoint\":[\"x\"],\"resourceLimits\":{}}", 422, PARAM, "exactly one"},
	{"image and snapshot", "{" BASE ",\"snapshotId\":\"s\"}", 422, PARAM, "exactly one"},
	{"snapshotId is a number", "{" BASE ",\"snapshotId\":5}", 422, PARAM, "snapshotId"},
	{"no entrypoint", "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{}}", 422, PARAM, "entrypoint is required"},
	{"entrypoint is null", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":null,\"resourceLimits\":{}}", 422, PARAM, "entrypoint is required"},
	{"entrypoint is a string", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":\"x\",\"resourceLimits\":{}}", 422, PARAM, "entrypoint"},
	{"entrypoint is empty", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[],\"resourceLimits\":{}}", 422, PARAM, "too_short"},
	{"a number in the entrypoint", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\",1],\"resourceLimits\":{}}", 422, PARAM,
	 "[\"body\",\"entrypoint\",1]"},
	{"no resourceLimits", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"]}", 422, PARAM, "resourceLimits is required"},
	{"resourceLimits is null", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"],\"resourceLimits\":null}", 422, PARAM, "resourceLimits"},
	{"a limit is a number", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"],\"resourceLimits\":{\"cpu\":1}}", 422, PARAM,
	 "resourceLimits.cpu"},
	{"timeout below 60", "{" BASE ",\"timeout\":59}", 422, PARAM, "at least 60"},
	{"timeout negative", "{" BASE ",\"timeout\":-1}", 422, PARAM, "at least 60"},
	{"timeout far below", "{" BASE ",\"timeout\":-1e30}", 422, PARAM, "at least 60"},
	{"timeout is a fraction", "{" BASE ",\"timeout\":60.5}", 422, PARAM, "whole number"},
	{"timeout is a word", "{" BASE ",\"timeout\":\"soon\"}", 422, PARAM, "whole number"},
	{"timeout is a boolean", "{" BASE ",\"timeout\":true}", 422, PARAM, "timeout"},
	{"env is a list", "{" BASE ",\"env\":[]}", 422, PARAM, "env"},
	{"an env value is a number", "{" BASE ",\"env\":{\"A\":1}}", 422, PARAM, "env.A"},
	{"a metadata value is null", "{" BASE ",\"metadata\":{\"a\":null}}", 422, PARAM, "metadata.a"},
	{"a metadata value is a number", "{" BASE ",\"metadata\":{\"a\":1}}", 422, PARAM, "metadata.a"},
	{"secureAccess is a string", "{" BASE ",\"secureAccess\":\"no\"}", 422, PARAM, "secureAccess"},
	{"networkPolicy is a list", "{" BASE ",\"networkPolicy\":[]}", 422, PARAM, "networkPolicy"},
	{"a rule without target", "{" BASE ",\"networkPolicy\":{\"egress\":[{\"action\":\"allow\"}]}}", 422, PARAM, "egress.0.target"},
	{"a rule with an empty target", "{" BASE ",\"networkPolicy\":{\"egress\":[{\"action\":\"allow\",\"target\":\"\"}]}}", 422, PARAM,
	 "egress.0.target"},
	{"credentialProxy without policy", "{" BASE ",\"credentialProxy\":{\"enabled\":true}}", 422, PARAM, "networkPolicy"},
	{"platform without arch", "{" BASE ",\"platform\":{\"os\":\"linux\"}}", 422, PARAM, "platform.arch"},
	{"volumes is an object", "{" BASE ",\"volumes\":{}}", 422, PARAM, "volumes"},
	{"a volume is a string", "{" BASE ",\"volumes\":[\"x\"]}", 422, PARAM, "volumes.0"},
	{"a volume without name", "{" BASE ",\"volumes\":[{\"mountPath\":\"/w\",\"host\":{\"path\":\"/srv\"}}]}", 422, PARAM, "volumes.0.name"},
	{"a volume name with capitals", "{" BASE ",\"volumes\":[{\"name\":\"Ab\",\"mountPath\":\"/w\",\"host\":{\"path\":\"/srv\"}}]}", 422,
	 PARAM, "DNS label"},
	{"a relative mountPath", "{" BASE ",\"volumes\":[{\"name\":\"a\",\"mountPath\":\"w\",\"host\":{\"path\":\"/srv\"}}]}", 422, PARAM,
	 "volumes.0.mountPath"},
	{"no backend", "{" BASE ",\"volumes\":[{" VOLUME "}]}", 422, PARAM, "exactly one of"},
	{"two backends", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv\"},\"pvc\":{\"claimName\":\"c\"}}]}", 422, PARAM,
	 "exactly one of"},
	{"a relative host path", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"srv\"}}]}", 422, PARAM, "host.path"},
	{"pvc without claim", "{" BASE ",\"volumes\":[{" VOLUME ",\"pvc\":{}}]}", 422, PARAM, "pvc.claimName"},
	{"readOnly is a number", "{" BASE ",\"volumes\":[{" VOLUME ",\"readOnly\":1,\"pvc\":{\"claimName\":\"c\"}}]}", 422, PARAM, "readOnly"},
	{"extensions holds a number", "{" BASE ",\"extensions\":{\"a\":1}}", 422, PARAM, "extensions.a"},
	{"poolRef and snapshot", "{\"snapshotId\":\"s\",\"extensions\":{\"poolRef\":\"p\"}}", 422, PARAM, "poolRef"},
	{"several faults, the first is the message", "{\"image\":{},\"timeout\":1}", 422, PARAM, "\"message\":\"image.uri: is required\""},
	/* values: 400, in their order */
	{"renew extension too short", "{" BASE ",\"extensions\":{\"access.renew.extend.seconds\":\"299\"}}", 400, PARAM, "300 to 86400"},
	{"renew extension too long", "{" BASE ",\"extensions\":{\"access.renew.extend.seconds\":\"86401\"}}", 400, PARAM, "300 to 86400"},
	{"renew extension empty", "{" BASE ",\"extensions\":{\"access.renew.extend.seconds\":\"\"}}", 400, PARAM, "300 to 86400"},
	{"renew extension is a word", "{" BASE ",\"extensions\":{\"access.renew.extend.seconds\":\"1h\"}}", 400, PARAM, "300 to 86400"},
	{"poolRef", "{" BASE ",\"extensions\":{\"poolRef\":\"p\"}}", 400, "SANDBOX::UNSUPPORTED_POOL_REF", "poolRef"},
	{"poolRef alone", "{\"extensions\":{\"poolRef\":\"p\"}}", 400, "SANDBOX::UNSUPPORTED_POOL_REF", "poolRef"},
	{"snapshotId", "{\"snapshotId\":\"s\",\"resourceLimits\":{}}", 501, "SNAPSHOT::NOT_IMPLEMENTED", "snapshotId"},
	{"reserved metadata", "{" BASE ",\"metadata\":{\"opensandbox.io/x\":\"1\"}}", 400, LABEL, "opensandbox.io/x"},
	{"a metadata key with a space", "{" BASE ",\"metadata\":{\"a b\":\"1\"}}", 400, LABEL, "a b"},
	{"a metadata key of 64", "{" BASE ",\"metadata\":{\"" LONG63 "x\":\"1\"}}", 400, LABEL, "63"},
	{"an empty metadata key", "{" BASE ",\"metadata\":{\"\":\"1\"}}", 400, LABEL, "key"},
	{"a prefix with capitals", "{" BASE ",\"metadata\":{\"Ex.com/a\":\"1\"}}", 400, LABEL, "prefix"},
	{"a prefix with a dot at its end", "{" BASE ",\"metadata\":{\"ex./a\":\"1\"}}", 400, LABEL, "prefix"},
	{"a metadata value with a space", "{" BASE ",\"metadata\":{\"a\":\"b c\"}}", 400, LABEL, "b c"},
	{"a metadata value that ends in a dot", "{" BASE ",\"metadata\":{\"a\":\"b.\"}}", 400, LABEL, "b."},
	{"windows", "{" BASE ",\"platform\":{\"os\":\"windows\",\"arch\":\"amd64\"}}", 400, PARAM, "platform.os"},
	{"another processor", "{" BASE ",\"platform\":{\"os\":\"linux\",\"arch\":\"s390x\"}}", 400, PARAM, "platform.arch"},
	{"timeout 2^63", "{" BASE ",\"timeout\":9223372036854775808}", 400, PARAM, "later than any date"},
	{"timeout 2^63 as a string", "{" BASE ",\"timeout\":\"9223372036854775808\"}", 400, PARAM, "later than any date"},
	{"timeout past the year 9999", "{" BASE ",\"timeout\":253402300799}", 400, PARAM, "later than any date"},
	{"timeout above the configured bound", "{" BASE ",\"timeout\":86401}", 400, PARAM, "max_sandbox_timeout_seconds"},
	{"secureAccess", "{" BASE ",\"secureAccess\":true}", 400, "SANDBOX::API_NOT_SUPPORTED", "secureAccess"},
	{"networkPolicy with a bad rule", "{" BASE ",\"networkPolicy\":{\"egress\":[{\"action\":\"allow\",\"target\":\"a b\"}]}}", 400, PARAM,
	 "networkPolicy: egress[0]: target"},
	{"networkPolicy with an unknown word", "{" BASE ",\"networkPolicy\":{\"defaultAction\":\"block\"}}", 400, PARAM, "block"},
	{"networkPolicy with an unknown key", "{" BASE ",\"networkPolicy\":{\"rules\":[]}}", 400, PARAM, "rules"},
	{"credentialProxy", "{" BASE ",\"networkPolicy\":{},\"credentialProxy\":{\"enabled\":true}}", 400, "SANDBOX::API_NOT_SUPPORTED",
	 "credentialProxy"},
	{"a blank entrypoint", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"  \"],\"resourceLimits\":{}}", 400, PARAM, "no word"},
	{"an empty program", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"\",\"x\"],\"resourceLimits\":{}}", 400, PARAM, "empty"},
	{"an open quote", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"echo 'a\"],\"resourceLimits\":{}}", 400, PARAM, "open"},
	{"an env name with =", "{" BASE ",\"env\":{\"A=B\":\"1\"}}", 400, PARAM, "A=B"},
	{"an empty env name", "{" BASE ",\"env\":{\"\":\"1\"}}", 400, PARAM, "empty"},
	{"a null env value with a bad name", "{" BASE ",\"env\":{\"A=B\":null}}", 400, PARAM, "A=B"},
	{"memory is a word", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"],\"resourceLimits\":{\"memory\":\"much\"}}", 400, PARAM,
	 "resourceLimits.memory"},
	{"cpu is negative", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"],\"resourceLimits\":{\"cpu\":\"-1\"}}", 400, PARAM,
	 "resourceLimits.cpu"},
	{"cpu is nan", "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"x\"],\"resourceLimits\":{\"cpu\":\"nan\"}}", 400, PARAM,
	 "resourceLimits.cpu"},
	/* volumes */
	{"two volumes of one name",
	 "{" BASE ",\"volumes\":[{" VOLUME ",\"pvc\":{\"claimName\":\"c\"}},{\"name\":\"v\",\"mountPath\":\"/x\",\"pvc\":{\"claimName\":\"c\"}}]}",
	 400, "VOLUME::DUPLICATE_NAME", "occurs twice"},
	{"two volumes on one path",
	 "{" BASE ",\"volumes\":[{" VOLUME ",\"pvc\":{\"claimName\":\"c\"}},{\"name\":\"w\",\"mountPath\":\"/work\",\"pvc\":{\"claimName\":\"c\"}}]}",
	 400, PARAM, "/work"},
	{"the first volume's fault comes first",
	 "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/etc\"}},{\"name\":\"v\",\"mountPath\":\"/x\",\"pvc\":{\"claimName\":\"c\"}}]}",
	 400, "VOLUME::HOST_PATH_NOT_ALLOWED", "/etc"},
	{"mountPath is the root", "{" BASE ",\"volumes\":[{\"name\":\"v\",\"mountPath\":\"/\",\"pvc\":{\"claimName\":\"c\"}}]}", 400, PARAM,
	 "root"},
	{"mountPath with ..", "{" BASE ",\"volumes\":[{\"name\":\"v\",\"mountPath\":\"/a/../etc\",\"pvc\":{\"claimName\":\"c\"}}]}", 400, PARAM,
	 "mountPath"},
	{"mountPath in /proc", "{" BASE ",\"volumes\":[{\"name\":\"v\",\"mountPath\":\"/proc/x\",\"pvc\":{\"claimName\":\"c\"}}]}", 400, PARAM,
	 "/proc"},
	{"mountPath on our own files",
	 "{" BASE ",\"volumes\":[{\"name\":\"v\",\"mountPath\":\"/opt/opensandbox\",\"pvc\":{\"claimName\":\"c\"}}]}", 400, PARAM,
	 "/opt/opensandbox"},
	{"an absolute subPath", "{" BASE ",\"volumes\":[{" VOLUME ",\"subPath\":\"/x\",\"pvc\":{\"claimName\":\"c\"}}]}", 400,
	 "VOLUME::INVALID_SUB_PATH", "relative"},
	{"a subPath that climbs", "{" BASE ",\"volumes\":[{" VOLUME ",\"subPath\":\"a/../../b\",\"pvc\":{\"claimName\":\"c\"}}]}", 400,
	 "VOLUME::INVALID_SUB_PATH", "leaves"},
	{"ossfs", "{" BASE ",\"volumes\":[{" VOLUME ",\"ossfs\":{\"bucket\":\"b\"}}]}", 400, "VOLUME::UNSUPPORTED_BACKEND", "ossfs"},
	{"a claim with a slash", "{" BASE ",\"volumes\":[{" VOLUME ",\"pvc\":{\"claimName\":\"a/b\"}}]}", 400, PARAM, "claimName"},
	{"a claim that climbs", "{" BASE ",\"volumes\":[{" VOLUME ",\"pvc\":{\"claimName\":\"..\"}}]}", 400, PARAM, "claimName"},
	{"a host path beside the allowed one", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv/osbx\"}}]}", 400,
	 "VOLUME::HOST_PATH_NOT_ALLOWED", "/srv/osbx"},
	{"a host path above the allowed one", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv\"}}]}", 400,
	 "VOLUME::HOST_PATH_NOT_ALLOWED", "/srv"},
	{"a host path that climbs", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv/osb/../../etc\"}}]}", 400,
	 "VOLUME::INVALID_HOST_PATH", "plain form"},
	{"a host path with two slashes", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv//osb\"}}]}", 400,
	 "VOLUME::INVALID_HOST_PATH", "plain form"},
	{"a host path with a slash at its end", "{" BASE ",\"volumes\":[{" VOLUME ",\"host\":{\"path\":\"/srv/osb/\"}}]}", 400,
	 "VOLUME::INVALID_HOST_PATH", "plain form"},
};

static void test_bad_creates(void)
{
	struct got g = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad_creates); i++) {
		call("POST", "/v1/sandboxes", bad_creates[i].body, &g);
		check_error(&g, bad_creates[i].status, bad_creates[i].code, bad_creates[i].part, bad_creates[i].why);
	}
	is_int(fake.created, 0, "none of them made a sandbox");
	const struct ask plain = {.method = "POST", .target = "/sandboxes", .body = "{" BASE "}", .type = "text/plain"};
	send_ask(&plain, &g);
	check_error(&g, 422, PARAM, "Content-Type", "text/plain");
	free(g.body);
}

static char *repeat_body(const char *head, const char *unit, size_t n, const char *tail)
{
	struct buf b = {0};

	buf_puts(&b, head);
	for (size_t i = 0; i < n; i++)
		buf_puts(&b, unit);
	buf_puts(&b, tail);
	return (char *)(uintptr_t)buf_str(&b);
}

static void test_large_creates(void)
{
	static const struct {
		const char *why, *head, *unit, *tail;
		size_t n;
		const char *part;
	} cases[] = {
		{"an entrypoint of 2 MiB", "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{},\"entrypoint\":[\"x\",\"", "xxxxxxxx",
		 "\"]}", 262144, "the kernel takes"},
		{"an entrypoint of 100,000 arguments", "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{},\"entrypoint\":[\"x\"",
		 ",\"x\"", "]}", 99999, "100000 arguments are more than"},
		{"600 KiB in arguments that each fit", "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{},\"entrypoint\":[\"x\"",
		 ",\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"", "]}",
		 6000, "together are more than"},
		{"one string of 10,000 words", "{\"image\":{\"uri\":\"host\"},\"resourceLimits\":{},\"entrypoint\":[\"x", " x", "\"]}",
		 10000, "more than 8192"},
		{"a variable of 200 KiB", "{" BASE ",\"env\":{\"A\":\"", "xxxxxxxx", "\"}}", 25600, "the kernel takes"},
	};
	struct got g = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_free char *body = repeat_body(cases[i].head, cases[i].unit, cases[i].n, cases[i].tail);

		call("POST", "/v1/sandboxes", body, &g);
		check_error(&g, 400, PARAM, cases[i].part, cases[i].why);
	}
	free(g.body);
}

/* ---- refusals of other requests ---- */

static const struct {
	const char *why, *method, *target, *body;
	unsigned status;
	const char *code, *part;
} bad_calls[] = {
	{"an unknown path", "GET", "/v1/nothing", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"the root", "GET", "/", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"/v1/health is not there", "GET", "/v1/health", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"/v1sandboxes is no prefix", "GET", "/v1sandboxes", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"two slashes at the end", "GET", "/v1/sandboxes//", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"an encoded slash makes no segment", "GET", "/v1/sandboxes/x%2Fendpoints%2F1", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"an encoded NUL", "GET", "/v1/sandboxes/x%00", NULL, 404, "GENERAL::NOT_FOUND", NULL},
	{"a wrong method", "PUT", "/v1/sandboxes", "{}", 405, "GENERAL::METHOD_NOT_ALLOWED", NULL},
	{"a wrong method below an id", "GET", "/sandboxes/" ID1 "/pause", NULL, 405, "GENERAL::METHOD_NOT_ALLOWED", NULL},
	{"get an unknown id", "GET", "/v1/sandboxes/" NOID, NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"get what is no id", "GET", "/v1/sandboxes/..", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"delete an unknown id", "DELETE", "/v1/sandboxes/" NOID, NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"pause an unknown id", "POST", "/v1/sandboxes/" NOID "/pause", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"resume an unknown id", "POST", "/v1/sandboxes/x/resume", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"resume a running one", "POST", "/v1/sandboxes/" ID1 "/resume", NULL, 409, "DOCKER::SANDBOX_NOT_PAUSED", NULL},
	{"renew an unknown id", "POST", "/v1/sandboxes/" NOID "/renew-expiration", "{\"expiresAt\":\"2100-01-01T00:00:00Z\"}", 404,
	 "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"renew without a body", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", NULL, 422, PARAM, NULL},
	{"renew without expiresAt", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{}", 422, PARAM, "expiresAt"},
	{"renew to null", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":null}", 422, PARAM, "expiresAt"},
	{"renew to a word", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":\"tomorrow\"}", 422, PARAM, "instant"},
	{"renew to a huge number", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":1e300}", 422, PARAM, "instant"},
	{"renew to a list", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "[]", 422, PARAM, NULL},
	{"renew to the past", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":\"2001-01-01T00:00:00Z\"}", 400,
	 "DOCKER::INVALID_EXPIRATION", NULL},
	{"renew what never expires", "POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":\"2100-01-01T00:00:00Z\"}", 409,
	 "DOCKER::INVALID_EXPIRATION", NULL},
	{"patch an unknown id", "PATCH", "/v1/sandboxes/" NOID "/metadata", "{}", 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"patch without a body", "PATCH", "/v1/sandboxes/" ID1 "/metadata", NULL, 422, PARAM, NULL},
	{"patch with a list", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "[]", 422, PARAM, NULL},
	{"patch with a number", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"a\":1}", 422, PARAM, "[\"body\",\"a\"]"},
	{"patch a reserved key", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"opensandbox.io/x\":\"1\"}", 400, "INVALID_METADATA_LABEL", NULL},
	{"remove a reserved key", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"opensandbox.io/x\":null}", 400, "INVALID_METADATA_LABEL", NULL},
	{"patch a bad key", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"a b\":\"1\"}", 400, LABEL, NULL},
	{"patch a bad value", "PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"a\":\"b c\"}", 400, LABEL, NULL},
	{"list: a filter without =", "GET", "/v1/sandboxes?metadata=a%3D1%26broken", NULL, 400, "INVALID_METADATA_FORMAT", "bad query field"},
	{"list: an empty part", "GET", "/v1/sandboxes?metadata=a%3D1%26%26b%3D2", NULL, 400, "INVALID_METADATA_FORMAT", "bad query field"},
	{"list: a bare word", "GET", "/v1/sandboxes?metadata=a", NULL, 400, "INVALID_METADATA_FORMAT", "bad query field"},
	{"list: a part at the end is empty", "GET", "/v1/sandboxes?metadata=a%3D1%26", NULL, 400, "INVALID_METADATA_FORMAT", NULL},
	{"list: page 0", "GET", "/v1/sandboxes?page=0", NULL, 422, PARAM, "[\"query\",\"page\"]"},
	{"list: page is a word", "GET", "/v1/sandboxes?page=x", NULL, 422, PARAM, "page"},
	{"list: pageSize 201", "GET", "/v1/sandboxes?pageSize=201", NULL, 422, PARAM, "1 to 200"},
	{"list: pageSize 0", "GET", "/v1/sandboxes?pageSize=0", NULL, 422, PARAM, "pageSize"},
	{"list: a page past any number", "GET", "/v1/sandboxes?page=99999999999999999999", NULL, 422, PARAM, "page"},
	{"endpoint: a word as port", "GET", "/v1/sandboxes/" ID1 "/endpoints/http", NULL, 422, PARAM, "port"},
	{"endpoint: port 0", "GET", "/v1/sandboxes/" ID1 "/endpoints/0", NULL, 400, "DOCKER::INVALID_PORT", NULL},
	{"endpoint: port 65536", "GET", "/v1/sandboxes/" ID1 "/endpoints/65536", NULL, 400, "DOCKER::INVALID_PORT", NULL},
	{"endpoint: port -1", "GET", "/v1/sandboxes/" ID1 "/endpoints/-1", NULL, 400, "DOCKER::INVALID_PORT", NULL},
	{"endpoint: port 2^70", "GET", "/v1/sandboxes/" ID1 "/endpoints/1180591620717411303424", NULL, 400, "DOCKER::INVALID_PORT", NULL},
	{"endpoint: the port comes before the id", "GET", "/v1/sandboxes/" NOID "/endpoints/0", NULL, 400, "DOCKER::INVALID_PORT", NULL},
	{"endpoint: an unknown id", "GET", "/v1/sandboxes/" NOID "/endpoints/8080", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"endpoint: no boolean", "GET", "/v1/sandboxes/" ID1 "/endpoints/8080?use_server_proxy=maybe", NULL, 422, PARAM, "use_server_proxy"},
	{"endpoint: expires", "GET", "/v1/sandboxes/" ID1 "/endpoints/8080?expires=1", NULL, 400, "SANDBOX::API_NOT_SUPPORTED", "expires"},
	{"endpoint: expires and proxy", "GET", "/v1/sandboxes/" ID1 "/endpoints/8080?expires=1&use_server_proxy=true", NULL, 400, PARAM,
	 "expires"},
	{"snapshots: create", "POST", "/v1/sandboxes/" ID1 "/snapshots", "{}", 501, "SNAPSHOT::NOT_IMPLEMENTED", NULL},
	{"snapshots: list", "GET", "/v1/snapshots", NULL, 501, "SNAPSHOT::NOT_IMPLEMENTED", NULL},
	{"snapshots: get", "GET", "/v1/snapshots/x", NULL, 501, "SNAPSHOT::NOT_IMPLEMENTED", NULL},
	{"snapshots: delete", "DELETE", "/snapshots/x", NULL, 501, "SNAPSHOT::NOT_IMPLEMENTED", NULL},
	{"pools: create", "POST", "/v1/pools", "{}", 501, "KUBERNETES::POOL_NOT_SUPPORTED", NULL},
	{"pools: list", "GET", "/v1/pools", NULL, 501, "KUBERNETES::POOL_NOT_SUPPORTED", NULL},
	{"pools: change", "PUT", "/v1/pools/x", "{}", 501, "KUBERNETES::POOL_NOT_SUPPORTED", NULL},
	{"pools: get", "GET", "/pools/x", NULL, 501, "KUBERNETES::POOL_NOT_SUPPORTED", NULL},
	{"pools: delete", "DELETE", "/pools/x", NULL, 501, "KUBERNETES::POOL_NOT_SUPPORTED", NULL},
	{"logs by scope", "GET", "/v1/sandboxes/" ID1 "/diagnostics/logs?scope=all", NULL, 501, "DIAGNOSTICS_NOT_IMPLEMENTED", NULL},
	{"events of an unknown scope", "GET", "/v1/sandboxes/" ID1 "/diagnostics/events?scope=x", NULL, 400, PARAM, "scope"},
	{"events: limit 501", "GET", "/v1/sandboxes/" ID1 "/diagnostics/events?limit=501", NULL, 422, PARAM, "limit"},
	{"inspect an unknown id", "GET", "/v1/sandboxes/" NOID "/diagnostics/inspect", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"summary of an unknown id", "GET", "/v1/sandboxes/" NOID "/diagnostics/summary", NULL, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL},
	{"a broken escape in the query", "GET", "/v1/sandboxes?page=%zz", NULL, 422, PARAM, "percent"},
	{"a volume's name that climbs", "POST", "/v1/volumes?name=..", NULL, 400, PARAM, "name"},
	{"a volume without name", "POST", "/v1/volumes", NULL, 400, PARAM, "name"},
	{"images without a store", "GET", "/v1/images", NULL, 503, "GENERAL::OVERLOADED", NULL},
};

static void create_one(const char *extra, struct got *g)
{
	auto_buf body = {0};

	buf_printf(&body, "{" BASE "%s}", extra);
	call("POST", "/v1/sandboxes", buf_str(&body), g);
}

static void test_bad_calls(void)
{
	struct got g = {0};

	fake_manager_reset();
	create_one("", &g);
	is_int(g.status, 202, "a sandbox to call");
	for (size_t i = 0; i < ARRAY_SIZE(bad_calls); i++) {
		call(bad_calls[i].method, bad_calls[i].target, bad_calls[i].body, &g);
		check_error(&g, bad_calls[i].status, bad_calls[i].code, bad_calls[i].part, bad_calls[i].why);
	}
	call("PUT", "/v1/sandboxes/", NULL, &g);
	is_str(g.headers, "Allow: POST, GET\r\n", "405 says what the path takes");
	free(g.body);
}

/* ---- who may ---- */

static void test_auth(void)
{
	static const struct {
		const char *why, *method, *target, *key, *origin;
		bool no_key, unix_peer, keyless, insecure;
		unsigned status;
		const char *code;
	} cases[] = {
		{.why = "the key", .target = "/v1/sandboxes", .key = KEY, .status = 200},
		{.why = "no header", .target = "/v1/sandboxes", .no_key = true, .status = 401, .code = "MISSING_API_KEY"},
		{.why = "an empty header", .target = "/v1/sandboxes", .key = "", .status = 401, .code = "MISSING_API_KEY"},
		{.why = "a wrong key", .target = "/v1/sandboxes", .key = "x", .status = 401, .code = "INVALID_API_KEY"},
		{.why = "a key that starts right", .target = "/v1/sandboxes", .key = KEY "x", .status = 401, .code = "INVALID_API_KEY"},
		{.why = "a key cut short", .target = "/v1/sandboxes", .key = "secret-ke", .status = 401, .code = "INVALID_API_KEY"},
		{.why = "an unknown path says nothing without a key", .target = "/nothing", .no_key = true, .status = 401,
		 .code = "MISSING_API_KEY"},
		{.why = "/v1/health is an unknown path", .target = "/v1/health", .no_key = true, .status = 401, .code = "MISSING_API_KEY"},
		{.why = "/healthz is not exempt", .target = "/healthz", .no_key = true, .status = 401, .code = "MISSING_API_KEY"},
		{.why = "/health is open", .target = "/health", .no_key = true, .status = 200},
		{.why = "the Unix socket needs no key", .target = "/v1/sandboxes", .no_key = true, .unix_peer = true, .status = 200},
		{.why = "a page with the key", .target = "/v1/sandboxes", .key = KEY, .origin = "https://a.example", .status = 200},
		{.why = "no key anywhere, not written down", .target = "/v1/sandboxes", .no_key = true, .keyless = true, .status = 401,
		 .code = "MISSING_API_KEY"},
		{.why = "no key, as the operator wrote", .target = "/v1/sandboxes", .no_key = true, .keyless = true, .insecure = true,
		 .status = 200},
		{.why = "keyless: a sent key does not matter", .target = "/v1/sandboxes", .key = "x", .keyless = true, .insecure = true,
		 .status = 200},
		{.why = "keyless: a web page is refused", .target = "/v1/sandboxes", .no_key = true, .keyless = true, .insecure = true,
		 .origin = "http://evil.example", .status = 403, .code = "GENERAL::FORBIDDEN_ORIGIN"},
		{.why = "keyless: cross-site without Origin is refused", .target = "/v1/sandboxes", .no_key = true, .keyless = true,
		 .insecure = true, .origin = "!", .status = 403, .code = "GENERAL::FORBIDDEN_ORIGIN"},
	};
	struct got g = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct ask q = {.method = "GET", .target = cases[i].target, .key = cases[i].key, .no_key = cases[i].no_key,
				      .origin = cases[i].origin, .unix_peer = cases[i].unix_peer};

		context.api_key = cases[i].keyless ? "" : KEY;
		context.insecure = cases[i].insecure;
		send_ask(&q, &g);
		if (cases[i].code)
			check_error(&g, cases[i].status, cases[i].code, NULL, cases[i].why);
		else
			is_int(g.status, cases[i].status, "%s", cases[i].why);
	}
	context.api_key = KEY;
	context.insecure = false;
	free(g.body);
}

/* ---- what is right ---- */

static void check_body(const struct got *g, unsigned status, const char *body, const char *why)
{
	if (!ok(well_formed(g) && g->status == status, "%u: %s", status, why))
		printf("# got %u, %u answers: %s\n", g->status, g->answers, g->body);
	is_str(g->body, body, "body: %s", why);
}

#define STATUS "\"status\":{\"state\":\"Running\",\"reason\":\"CONTAINER_RUNNING\",\"lastTransitionAt\":\"2031-05-10T03:02:01.123457Z\"}"

static void test_golden(void)
{
	struct got g = {0};

	fake_manager_reset();
	call("POST", "/v1/sandboxes",
	     "{\"image\":{\"uri\":\"host\",\"auth\":null},\"entrypoint\":[\"tail -f '/dev/null'\"],\"timeout\":\"600\","
	     "\"resource_limits\":{\"cpu\":\"500m\",\"memory\":\"64Mi\",\"pids\":\"50\",\"disk\":\"1.5Gi\",\"gpu\":\"all\"},\"env\":{\"A\":\"1\",\"B\":null,\"C\":\"\"},"
	     "\"metadata\":{\"team\":\"core\",\"ex.com/stage\":\"\"},\"secureAccess\":false,\"networkPolicy\":null,\"volumes\":null,"
	     "\"platform\":{\"os\":\" Linux \",\"arch\":\"" "AMD64" "\"},\"credentialProxy\":{\"enabled\":false},\"unknown\":[1,{}],"
	     "\"extensions\":{\"access.renew.extend.seconds\":\" 600 \",\"poolRef\":\"  \",\"other\":\"x\"}}",
	     &g);
	check_body(&g, 202,
		   "{\"id\":\"" ID1 "\"," STATUS ",\"platform\":{\"os\":\"linux\",\"arch\":\"amd64\"},"
		   "\"metadata\":{\"team\":\"core\",\"ex.com/stage\":\"\"},\"entrypoint\":[\"tail\",\"-f\",\"/dev/null\"],"
		   "\"expiresAt\":\"2031-05-10T03:12:01.123457Z\",\"createdAt\":\"2031-05-10T03:02:01.123457Z\"}",
		   "create with everything");
	is_str(g.headers, "Location: /v1/sandboxes/" ID1 "\r\n", "Location");
	if (fake.last) {
		is_int(fake.last->cpu_millicores, 500, "cpu");
		is_int((long long)fake.last->memory_bytes, 64 << 20, "memory");
		is_int(fake.last->pids_max, 50, "pids");
		is_int(fake.last->disk_mib, 1536, "disk");
		is_int(fake.last->renew_extend_s, 600, "renew extension");
		ok(fake.last->n_env == 2 && !strcmp(fake.last->env[1].key, "C") && !fake.last->env[1].value[0],
		   "null variables are dropped, empty ones kept");
	}
	call("GET", "/v1/sandboxes/" ID1, NULL, &g);
	check_body(&g, 200,
		   "{\"id\":\"" ID1 "\",\"image\":{\"uri\":\"host\"}," STATUS ",\"platform\":{\"os\":\"linux\",\"arch\":\"amd64\"},"
		   "\"metadata\":{\"team\":\"core\",\"ex.com/stage\":\"\"},\"entrypoint\":[\"tail\",\"-f\",\"/dev/null\"],"
		   "\"expiresAt\":\"2031-05-10T03:12:01.123457Z\",\"createdAt\":\"2031-05-10T03:02:01.123457Z\"}",
		   "get: the same, with the image");
	call("GET", "/sandboxes/?page=3&pageSize=5", NULL, &g);
	check_body(&g, 200,
		   "{\"items\":[],\"pagination\":{\"page\":3,\"pageSize\":5,\"totalItems\":1,\"totalPages\":1,\"hasNextPage\":false}}",
		   "a page past the end, without /v1, with a slash");
	call("POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":\"2031-05-04T12:00:00+08:00\"}", &g);
	check_body(&g, 200, "{\"expiresAt\":\"2031-05-04T04:00:00Z\"}", "renew, shorter, with an offset");
	call("POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expires_at\":1936148521}", &g);
	check_body(&g, 200, "{\"expiresAt\":\"2031-05-10T03:02:01Z\"}", "renew by seconds since 1970");
	call("POST", "/v1/sandboxes/" ID1 "/renew-expiration", "{\"expiresAt\":1936148521500}", &g);
	check_body(&g, 200, "{\"expiresAt\":\"2031-05-10T03:02:01.500000Z\"}", "renew by milliseconds since 1970");
	call("PATCH", "/v1/sandboxes/" ID1 "/metadata", "{\"stage\":\"blue\",\"team\":null,\"no such key!\":null}", &g);
	ok(g.status == 200 && strstr(g.body, "\"metadata\":{\"ex.com/stage\":\"\",\"stage\":\"blue\"}"), "patch: set and remove");
	call("PATCH", "/v1/sandboxes/" ID1 "/metadata", "{}", &g);
	ok(g.status == 200 && strstr(g.body, "\"stage\":\"blue\""), "an empty patch");
	call("POST", "/v1/sandboxes/" ID1 "/pause", NULL, &g);
	ok(g.status == 202 && !g.body[0] && !g.type[0] && g.answers == 1, "pause has no body");
	call("GET", "/v1/sandboxes/" ID1, NULL, &g);
	ok(strstr(g.body, "\"state\":\"Paused\""), "and the next get says Paused");
	call("POST", "/v1/sandboxes/" ID1 "/pause", NULL, &g);
	check_error(&g, 409, "DOCKER::SANDBOX_NOT_RUNNING", NULL, "pause twice");
	call("POST", "/v1/sandboxes/" ID1 "/resume", "ignored", &g);
	ok(g.status == 202 && !g.body[0], "resume reads no body");
	call("POST", "/v1/metrics/events", "{\"eventType\":\"sandbox.create\"}", &g);
	ok(g.status == 204 && !g.body[0], "telemetry");
	call("GET", "/health", NULL, &g);
	check_body(&g, 200, "{\"status\":\"healthy\"}", "health");
	call("HEAD", "/v1/sandboxes/" ID1, NULL, &g);
	is_int(g.status, 200, "HEAD is as GET");
	call("DELETE", "/v1/sandboxes/" ID1, NULL, &g);
	ok(g.status == 204 && !g.body[0], "delete");
	call("DELETE", "/v1/sandboxes/" ID1, NULL, &g);
	check_error(&g, 404, "DOCKER::SANDBOX_NOT_FOUND", NULL, "delete twice");
	call("POST", "/v1/sandboxes", "{" BASE ",\"timeout\":null}", &g);
	ok(g.status == 202 && !strstr(g.body, "expiresAt") && !strstr(g.body, "metadata") && !strstr(g.body, "image"),
	   "what is absent is not written");
	free(g.body);
}

static void test_failures(void)
{
	struct got g = {0};

	fake_manager_reset();
	sbx_err_set(&fake.fail_next, SBX_E_START_FAILED, 0, "entrypoint: no such file");
	create_one("", &g);
	check_error(&g, 500, "DOCKER::SANDBOX_START_FAILED", "no such file", "a start that failed says why");
	sbx_err_set(&fake.fail_next, SBX_E_SYSTEM, 0, "open /var/lib/secret/place");
	create_one("", &g);
	check_error(&g, 500, "GENERAL::UNKNOWN_ERROR", NULL, "a failed system call is an error");
	ok(!strstr(g.body, "secret"), "and tells nothing of our files");
	sbx_err_set(&fake.fail_next, SBX_E_LIMIT, 0, "no slot is free");
	create_one("", &g);
	check_error(&g, 503, "GENERAL::OVERLOADED", "no slot", "full");
	is_str(g.headers, "Retry-After: 1\r\n", "with Retry-After");
	create_one("", &g);
	fake_set_state(SANDBOX_FAILED, "CONTAINER_EXITED_ERROR");
	call("GET", "/v1/sandboxes/" ID1 "/endpoints/44772", NULL, &g);
	is_int(g.status, 200, "a failed sandbox has endpoints");
	call("POST", "/v1/sandboxes/" ID1 "/pause", NULL, &g);
	check_error(&g, 409, "DOCKER::SANDBOX_NOT_RUNNING", NULL, "but cannot be paused");
	call("DELETE", "/v1/sandboxes/" ID1, NULL, &g);
	is_int(g.status, 204, "and can be removed");
	/* an answer that comes later */
	struct got later = {0};
	fake.hold = true;
	create_one("", &later);
	is_int(later.answers, 0, "a create that takes long is not answered yet");
	call("GET", "/v1/sandboxes", NULL, &g);
	is_int(g.answers, 1, "others are");
	is_int(fake_release(), 1, "it goes on");
	ok(later.answers == 1 && later.status == 202, "and is answered once");
	free(later.body);
	free(g.body);
}

static void test_endpoints(void)
{
	static const struct {
		const char *why, *target, *host, *eip, *public_host;
		const char *want;
	} cases[] = {
		{"user port, direct", "8000", NULL, "", "", "{\"endpoint\":\"api.example:8081/" ID1 "/8000\"}"},
		{"user port, proxy", "8000?use_server_proxy=true", NULL, "", "",
		 "{\"endpoint\":\"api.example:8080/sandboxes/" ID1 "/proxy/8000\"}"},
		{"44772 with its token", "44772?use_server_proxy=false", NULL, "", "",
		 "{\"endpoint\":\"api.example:8081/" ID1 "/44772\",\"headers\":{\"X-EXECD-ACCESS-TOKEN\":\"exec-token-1\"}}"},
		{"44772 by proxy", "44772?use_server_proxy=YES", NULL, "", "",
		 "{\"endpoint\":\"api.example:8080/sandboxes/" ID1
		 "/proxy/44772\",\"headers\":{\"X-EXECD-ACCESS-TOKEN\":\"exec-token-1\"}}"},
		{"18080 without any policy", "18080", NULL, "", "",
		 "{\"endpoint\":\"api.example:8081/" ID1 "/18080\",\"headers\":{\"OPENSANDBOX-EGRESS-AUTH\":\"egress-token-1\"}}"},
		{"no port in Host", "80", "localhost", "", "", "{\"endpoint\":\"localhost:8081/" ID1 "/80\"}"},
		{"no port in Host, proxy", "80?use_server_proxy=1", "localhost", "", "",
		 "{\"endpoint\":\"localhost/sandboxes/" ID1 "/proxy/80\"}"},
		{"IPv6 literal", "80", "[::1]:8080", "", "", "{\"endpoint\":\"[::1]:8081/" ID1 "/80\"}"},
		{"eip with path, proxy", "80?use_server_proxy=1", NULL, "https://gw.example/osb/", "",
		 "{\"endpoint\":\"gw.example/osb/sandboxes/" ID1 "/proxy/80\"}"},
		{"eip with port and path, direct", "80", NULL, "gw.example:99/osb", "", "{\"endpoint\":\"gw.example:8081/" ID1 "/80\"}"},
		{"public_host, direct", "80", NULL, "", "box.example", "{\"endpoint\":\"box.example:8081/" ID1 "/80\"}"},
		{"public_host, proxy", "80?use_server_proxy=1", NULL, "", "box.example",
		 "{\"endpoint\":\"box.example:8080/sandboxes/" ID1 "/proxy/80\"}"},
	};
	struct got g = {0};

	fake_manager_reset();
	create_one("", &g);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_buf target = {0};
		char *eip = settings.server_eip, *public_host = settings.server_public_host;

		buf_printf(&target, "/v1/sandboxes/" ID1 "/endpoints/%s", cases[i].target);
		settings.server_eip = (char *)(uintptr_t)cases[i].eip;
		settings.server_public_host = (char *)(uintptr_t)cases[i].public_host;
		const struct ask q = {.method = "GET", .target = buf_str(&target), .host = cases[i].host};
		send_ask(&q, &g);
		check_body(&g, 200, cases[i].want, cases[i].why);
		settings.server_eip = eip;
		settings.server_public_host = public_host;
	}
	const struct ask local = {.method = "GET", .target = "/v1/sandboxes/" ID1 "/endpoints/80", .no_key = true, .unix_peer = true,
				  .host = "sandboxctl"};
	send_ask(&local, &g);
	check_body(&g, 200, "{\"endpoint\":\"127.0.0.1:8081/" ID1 "/80\"}", "a Unix peer gets an address");
	fake_set_state(SANDBOX_PENDING, "SANDBOX_SCHEDULED");
	call("GET", "/v1/sandboxes/" ID1 "/endpoints/44772", NULL, &g);
	is_int(g.status, 200, "also while Pending");
	create_one(",\"env\":{\"EXECD_ACCESS_TOKEN\":\"mine\"}", &g);
	call("GET", "/v1/sandboxes/00000000-0000-4000-8000-000000000002/endpoints/44772", NULL, &g);
	ok(strstr(g.body, "\"X-EXECD-ACCESS-TOKEN\":\"mine\""), "the token of the request's environment is the token");
	context.api_key = "";
	context.insecure = true;
	call("GET", "/v1/sandboxes/" ID1 "/endpoints/44772", NULL, &g);
	ok(!strstr(g.body, "headers"), "without a key there is no token");
	context.api_key = KEY;
	context.insecure = false;
	free(g.body);
}

static void test_lists(void)
{
	static const struct {
		const char *why, *query;
		int total;
	} cases[] = {
		{"all", "", 3},
		{"by state", "?state=Running", 2},
		{"any case", "?state=rUNNING", 2},
		{"either", "?state=Running&state=paused", 3},
		{"a state that nobody knows", "?state=Sleeping", 0},
		{"a known and an unknown one", "?state=Sleeping&state=Paused", 1},
		{"by metadata, raw", "?metadata=team%3Dcore", 2},
		{"all pairs must match", "?metadata=team%3Dcore%26n%3D2", 1},
		{"metadata and state", "?metadata=team%3Dcore&state=Paused", 0},
		{"no such value", "?metadata=team%3Dother", 0},
		{"encoded twice, as Go does", "?metadata=ex.com%252Fa%3Db-c", 1},
		{"encoded three times", "?metadata=ex.com%25252Fa%3Db-c", 1},
		{"a blank filter", "?metadata=", 3},
		{"a blank value", "?metadata=empty%3D", 1},
		{"the last of a key wins", "?metadata=n%3D9%26n%3D2", 1},
		{"; is no separator", "?metadata=team%3Dcore;n%3D2", 0},
		{"unknown parameters", "?foo=bar&baz", 3},
	};
	struct got g = {0};

	fake_manager_reset();
	create_one(",\"metadata\":{\"team\":\"core\",\"n\":\"1\",\"empty\":\"\"}", &g);
	create_one(",\"metadata\":{\"team\":\"core\",\"n\":\"2\"}", &g);
	create_one(",\"metadata\":{\"team\":\"web\",\"ex.com/a\":\"b-c\"}", &g);
	fake_set_state(SANDBOX_PAUSED, "CONTAINER_PAUSED");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_buf target = {0};
		char want[32];

		buf_printf(&target, "/v1/sandboxes%s", cases[i].query);
		call("GET", buf_str(&target), NULL, &g);
		snprintf(want, sizeof(want), "\"totalItems\":%d,", cases[i].total);
		if (!ok(g.status == 200 && well_formed(&g) && strstr(g.body, want), "list: %s", cases[i].why))
			printf("# %u %s\n", g.status, g.body);
	}
	call("GET", "/v1/sandboxes?pageSize=2", NULL, &g);
	const char *first = strstr(g.body, "000003"), *second = strstr(g.body, "000002");
	ok(first && second && first < second && !strstr(g.body, "000001") && strstr(g.body, "\"totalPages\":2,\"hasNextPage\":true"),
	   "newest first, two a page");
	free(g.body);
}

static void test_diagnostics(void)
{
	struct got g = {0};

	fake_manager_reset();
	create_one(",\"env\":{\"API_TOKEN\":\"hide-me\",\"PLAIN\":\"line\\u001b[31m\\nForged: yes\"},\"metadata\":{\"a\":\"b\"}", &g);
	call("GET", "/v1/sandboxes/" ID1 "/diagnostics/inspect", NULL, &g);
	is_str(g.type, "text/plain; charset=utf-8", "inspect is text");
	ok(strstr(g.body, "API_TOKEN=***") && !strstr(g.body, "hide-me"), "secrets are masked");
	ok(!strstr(g.body, "egress-token") && !strstr(g.body, "exec-token"), "no token of ours");
	ok(!strstr(g.body, "\nForged") && !strchr(g.body, 27), "no client can forge a line");
	call("GET", "/v1/sandboxes/" ID1 "/diagnostics/events", NULL, &g);
	ok(g.status == 200 && strstr(g.body, "CONTAINER_RUNNING") && strstr(g.headers, "Deprecation"), "events");
	call("GET", "/v1/sandboxes/" ID1 "/diagnostics/events?scope=lifecycle", NULL, &g);
	ok(well_formed(&g) && g.status == 200 && strstr(g.body, "\"kind\":\"events\",\"scope\":\"lifecycle\",\"delivery\":\"inline\""),
	   "events by scope");
	call("GET", "/v1/sandboxes/" ID1 "/diagnostics/summary", NULL, &g);
	ok(strstr(g.body, "INSPECT") && strstr(g.body, "EVENTS") && strstr(g.body, "LOGS"), "summary");
	free(g.body);
}

static void test_volumes_taken(void)
{
	struct got g = {0};

	fake_manager_reset();
	create_one(",\"volumes\":[{\"name\":\"a\",\"mountPath\":\"/a\",\"host\":{\"path\":\"/srv/osb/u1\"},\"subPath\":\"job7\",\"readOnly\":true},"
		   "{\"name\":\"b\",\"mountPath\":\"/b\",\"pvc\":{\"claimName\":\"models\",\"createIfNotExists\":false,"
		   "\"deleteOnSandboxTermination\":true,\"storageClass\":null,\"storage\":null,\"accessModes\":null},\"subPath\":\"\"}]",
		   &g);
	is_int(g.status, 202, "volumes are accepted");
	if (!fake.last || !ok(fake.last->n_volumes == 2, "both"))
		return;
	const struct sandbox_volume *v = fake.last->volumes;
	ok(v[0].kind == SANDBOX_VOLUME_HOST && !strcmp(v[0].source, "/srv/osb/u1") && !strcmp(v[0].sub_path, "job7") && v[0].read_only,
	   "the host path");
	ok(v[1].kind == SANDBOX_VOLUME_NAMED && !strcmp(v[1].source, "models") && !v[1].create && v[1].remove_at_end &&
		   !v[1].sub_path[0] && !v[1].read_only,
	   "the named volume");
	static struct broker_client *const some = (struct broker_client *)&fake;
	context.broker = some;
	call("GET", "/v1/volumes", NULL, &g);
	check_body(&g, 200, "{\"items\":[{\"name\":\"models\",\"inUse\":true}]}", "volumes in use");
	call("DELETE", "/v1/volumes/models", NULL, &g);
	check_error(&g, 409, "VOLUME::IN_USE", "models", "a volume in use stays");
	call("POST", "/v1/volumes?name=other", NULL, &g);
	check_body(&g, 201, "{\"name\":\"other\"}", "make a volume");
	is_str(fake.last_request.volume_req.claim, "other", "the broker was asked");
	call("DELETE", "/v1/volumes/other", NULL, &g);
	is_int(g.status, 204, "remove it");
	call("GET", "/v1/host", NULL, &g);
	check_body(&g, 200,
		   "{\"ok\":false,\"rows\":[{\"name\":\"row.0\",\"verdict\":\"ok\",\"found\":\"seen\"},"
		   "{\"name\":\"row.1\",\"verdict\":\"fail\",\"found\":\"seen\",\"costs\":\"much\"}]}",
		   "the host's table");
	context.broker = NULL;
	call("GET", "/v1/version", NULL, &g);
	ok(g.status == 200 && strstr(g.body, "\"version\":\""), "version");
	free(g.body);
}

static void test_word_split(void)
{
	static const struct {
		const char *why, *text, *want; /* words joined by '|'; NULL: refused */
	} cases[] = {
		{"plain", "tail -f /dev/null", "tail|-f|/dev/null"},
		{"space around", "  a\t b \n", "a|b"},
		{"single quotes", "echo 'a  b' c", "echo|a  b|c"},
		{"double quotes", "sh -c \"echo \\\"x\\\" \\$Y \\n\"", "sh|-c|echo \"x\" $Y \\n"},
		{"a backslash", "a\\ b c\\\\", "a b|c\\"},
		{"a quoted empty word", "a '' \"\"", "a||"},
		{"quotes inside a word", "--x='a b'c", "--x=a bc"},
		{"a continued line", "a\\\nb", "ab"},
		{"no expansion, no operator", "echo $HOME ; ls | wc > x # y", "echo|$HOME|;|ls|||wc|>|x|#|y"},
		{"an open single quote", "a 'b", NULL},
		{"an open double quote", "a \"b", NULL},
		{"a backslash at the end", "a \\", NULL},
		{"nothing", "", NULL},
		{"only space", " \t", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sbx_err err = {0};
		char **words = NULL;
		auto_buf joined = {0};
		int n = word_split(cases[i].text, 100, &words, &err);

		for (int k = 0; k < n; k++)
			buf_printf(&joined, "%s%s", k ? "|" : "", words[k]);
		if (cases[i].want)
			is_str(buf_str(&joined), cases[i].want, "split: %s", cases[i].why);
		else
			ok(n == -1 && err.code == SBX_E_INVALID_REQUEST && !words, "split refused: %s", cases[i].why);
		word_list_free(words);
	}
	char **words = NULL;
	struct sbx_err err = {0};
	is_int(word_split("a b c", 2, &words, &err), -1, "more words than allowed");
}

int main(void)
{
	static const struct sandbox_hooks none;
	struct sbx_err err = {0};

	log_init("test", LOG_LEVEL_ERROR);
	if (settings_defaults(&settings, &err) < 0 ||
	    settings_set(&settings, "storage.allowed_host_paths", "[\"/srv/osb\"]", &err) < 0 ||
	    settings_set(&settings, "server.max_sandbox_timeout_seconds", "86400", &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		return 1;
	}
	context = (struct api_context){.settings = &settings, .manager = fake_manager_new(&none), .api_key = KEY, .state_dir_fd = -1};
	test_bad_creates();
	test_large_creates();
	test_bad_calls();
	test_auth();
	test_golden();
	test_failures();
	test_endpoints();
	test_lists();
	test_diagnostics();
	test_volumes_taken();
	test_word_split();
	fake_manager_reset();
	settings_free(&settings);
	return tap_done();
}
