// SPDX-License-Identifier: Apache-2.0
/*
 * DOC: messages and answers of a Jupyter server, read and written
 */
#include "tests/tap.h"

#include "api/execd/code_frames.h"
#include "api/execd/jupyter_msg.h"
#include "base/cleanup.h"
#include "base/jv.h"

#include <stdlib.h>

/* The payload: a list as "a|b|", else as it is. */
static const char *shown(enum jupyter_kind kind, const struct buf *payload, struct buf *out)
{
	struct code_list list = {(const uint8_t *)buf_peek(payload), (const uint8_t *)buf_peek(payload) + buf_used(payload)};
	const char *text;
	size_t n;

	buf_clear(out);
	buf_printf(out, "%s:", jupyter_kind_name(kind));
	if (kind == JUPYTER_RESULT || kind == JUPYTER_DISPLAY || kind == JUPYTER_ERROR || kind == JUPYTER_REPLY_ERROR)
		while (code_list_next(&list, &text, &n))
			buf_printf(out, "%.*s|", (int)n, text);
	else if (kind != JUPYTER_BAD)
		buf_append(out, buf_peek(payload), buf_used(payload));
	return buf_str(out);
}

#define MSG(type, channel, parent, content) \
	"{\"header\":{\"msg_type\":\"" type "\"},\"channel\":\"" channel "\",\"parent_header\":" parent ",\"content\":" content "}"
#define OURS   "{\"msg_id\":\"p\"}"
#define THEIRS "{\"msg_id\":\"q\"}"

static void test_messages(void)
{
	static const struct {
		const char *why, *text, *want;
	} cases[] = {
		{"standard output", MSG("stream", "iopub", OURS, "{\"name\":\"stdout\",\"text\":\"a\\n\"}"), "stdout:a\n"},
		{"standard error", MSG("stream", "iopub", OURS, "{\"name\":\"stderr\",\"text\":\"e\"}"), "stderr:e"},
		{"output without text", MSG("stream", "iopub", OURS, "{\"text\":{}}"), "stdout:"},
		{"of another request", MSG("stream", "iopub", THEIRS, "{\"text\":\"x\"}"), "nothing:"},
		{"of no request", MSG("stream", "iopub", "{}", "{\"text\":\"x\"}"), "nothing:"},
		{"on a channel that is not for it", MSG("stream", "shell", OURS, "{\"text\":\"x\"}"), "nothing:"},
		{"a reply where output comes", MSG("execute_reply", "iopub", OURS, "{}"), "nothing:"},
		{"NUL", MSG("stream", "iopub", OURS, "{\"text\":\"a\\u0000b\"}"), "stdout:a\357\277\275b"},
		{"half a pair", MSG("stream", "iopub", OURS, "{\"text\":\"\\ud83dx\\ude00\"}"), "stdout:\357\277\275x\357\277\275"},
		{"a pair", MSG("stream", "iopub", OURS, "{\"text\":\"\\ud83d\\ude00\"}"), "stdout:\360\237\230\200"},
		{"what only looks like NUL", MSG("stream", "iopub", OURS, "{\"text\":\"\\\\u0000\"}"), "stdout:\\u0000"},
		{"a value", MSG("execute_result", "iopub", OURS, "{\"data\":{\"text/plain\":\"4\",\"text/html\":\"<b>\"}}"),
		 "result:text/plain|4|text/html|<b>|"},
		{"JSON becomes text", MSG("execute_result", "iopub", OURS, "{\"data\":{\"application/json\":{\"a\":[1,null,true,0.5,\"x\"]}}}"),
		 "result:application/json|{\"a\":[1,null,true,0.5,\"x\"]}|"},
		{"no data", MSG("execute_result", "iopub", OURS, "{\"data\":[1]}"), "result:|1|"},
		{"a figure", MSG("display_data", "iopub", OURS, "{\"data\":{\"image/png\":\"iVB\"}}"), "display:image/png|iVB|"},
		{"a figure again", MSG("update_display_data", "iopub", OURS, "{\"data\":{\"image/png\":\"iVB\"}}"), "display:image/png|iVB|"},
		{"an error", MSG("error", "iopub", OURS, "{\"ename\":\"E\",\"evalue\":\"v\",\"traceback\":[\"l\",1,\"m\"]}"), "error:E|v|l|m|"},
		{"an error that says nothing", MSG("error", "iopub", OURS, "{\"traceback\":5}"), "error:Error||"},
		{"done", MSG("execute_reply", "shell", OURS, "{\"status\":\"ok\"}"), "reply:"},
		{"failed", MSG("execute_reply", "shell", OURS, "{\"status\":\"error\",\"ename\":\"E\"}"), "reply with an error:E||"},
		{"not done at all", MSG("execute_reply", "shell", OURS, "{\"status\":\"aborted\"}"), "reply with an error:Aborted||"},
		{"idle", MSG("status", "iopub", OURS, "{\"execution_state\":\"idle\"}"), "idle:"},
		{"busy", MSG("status", "iopub", OURS, "{\"execution_state\":\"busy\"}"), "nothing:"},
		{"idle after another request", MSG("status", "iopub", THEIRS, "{\"execution_state\":\"idle\"}"), "nothing:"},
		{"dead, whoever asked", MSG("status", "iopub", "{}", "{\"execution_state\":\"dead\"}"), "dead:dead"},
		{"restarting", MSG("status", "iopub", THEIRS, "{\"execution_state\":\"restarting\"}"), "dead:restarting"},
		{"the kernel answers", MSG("kernel_info_reply", "shell", OURS, "{}"), "info:"},
		{"a widget", MSG("comm_open", "iopub", OURS, "{}"), "nothing:"},
		{"no JSON", "{", "bad:"},
		{"no object", "[1]", "bad:"},
		{"nothing", "", "bad:"},
		{"no members", "{}", "nothing:"},
		{"members of other types", "{\"header\":5,\"channel\":[],\"parent_header\":\"p\",\"content\":null}", "nothing:"},
		{"a member twice", "{\"channel\":\"a\",\"channel\":\"b\"}", "bad:"},
	};
	auto_buf out = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		auto_free char *text = strdup(cases[i].text);
		auto_buf payload = {0};
		enum jupyter_kind kind = jupyter_msg_read(text, strlen(text), "p", &payload);

		is_str(shown(kind, &payload, &out), cases[i].want, "%s", cases[i].why);
	}
}

static void test_requests(void)
{
	auto_buf out = {0};
	struct sbx_err err;

	ok(jupyter_msg_execute(&out, "s", "m", "print(\"a\")\n") == 0, "a request");
	auto_jv root = jv_parse(buf_peek(&out), buf_used(&out), &err);
	is_str(jv_str(jv_get(jv_get(root, "header"), "msg_id")), "m", "with its id");
	is_str(jv_str(jv_get(jv_get(root, "header"), "msg_type")), "execute_request", "its type");
	is_str(jv_str(jv_get(root, "channel")), "shell", "its channel");
	is_str(jv_str(jv_get(jv_get(root, "content"), "code")), "print(\"a\")\n", "and the code");
}

static void test_answers(void)
{
	static const struct {
		const char *why, *language, *body, *want;
	} kernels[] = {
		{"the one", "python", "{\"kernelspecs\":{\"py\":{\"spec\":{\"language\":\"python\"}}}}", "py"},
		{"in any case", "R", "{\"kernelspecs\":{\"ir\":{\"spec\":{\"language\":\"r\"}}}}", "ir"},
		{"python3 when there is no other", "python", "{\"kernelspecs\":{\"python3\":{\"spec\":{\"language\":\"python\"}}}}", "python3"},
		{"another one in front of it", "python",
		 "{\"kernelspecs\":{\"python3\":{\"spec\":{\"language\":\"python\"}},\"mine\":{\"spec\":{\"language\":\"python\"}}}}", "mine"},
		{"another one, also behind it", "python",
		 "{\"kernelspecs\":{\"mine\":{\"spec\":{\"language\":\"python\"}},\"python3\":{\"spec\":{\"language\":\"python\"}}}}", "mine"},
		{"another language", "go", "{\"kernelspecs\":{\"py\":{\"spec\":{\"language\":\"python\"}}}}", NULL},
		{"a name that leads elsewhere", "r", "{\"kernelspecs\":{\"../r\":{\"spec\":{\"language\":\"r\"}}}}", NULL},
		{"no list", "r", "{\"kernelspecs\":[]}", NULL},
		{"no JSON", "r", "<html>", NULL},
	};
	static const struct {
		const char *why, *body;
		bool good;
	} sessions[] = {
		{"a session", "{\"id\":\"aa-1\",\"kernel\":{\"id\":\"bb-2\"}}", true},
		{"an id that leads elsewhere", "{\"id\":\"aa\",\"kernel\":{\"id\":\"../b\"}}", false},
		{"an id that ends the head", "{\"id\":\"a\\r\\nb\",\"kernel\":{\"id\":\"b\"}}", false},
		{"an empty id", "{\"id\":\"\",\"kernel\":{\"id\":\"b\"}}", false},
		{"a number", "{\"id\":5,\"kernel\":{\"id\":\"b\"}}", false},
		{"no kernel", "{\"id\":\"aa\"}", false},
	};
	char name[JUPYTER_NAME_SIZE], session[JUPYTER_ID_SIZE], kernel[JUPYTER_ID_SIZE], long_id[256];
	struct sbx_err err;

	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
		auto_free char *body = strdup(kernels[i].body);
		int r = jupyter_kernel_choose(body, strlen(body), kernels[i].language, name, &err);

		ok(kernels[i].want ? !r && !strcmp(name, kernels[i].want) : r < 0, "kernel: %s", kernels[i].why);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++) {
		auto_free char *body = strdup(sessions[i].body);

		ok((jupyter_session_ids(body, strlen(body), session, kernel, &err) == 0) == sessions[i].good, "session: %s", sessions[i].why);
	}
	snprintf(long_id, sizeof(long_id), "{\"id\":\"%0*d\",\"kernel\":{\"id\":\"b\"}}", JUPYTER_ID_SIZE, 1);
	ok(jupyter_session_ids(long_id, strlen(long_id), session, kernel, &err) < 0, "session: an id that is too long");
}

#define MY_ID "01234567-89ab-4cde-8fab-0123456789ab"

static void test_ours(void)
{
	static const struct {
		const char *why, *body;
		size_t want;
	} lists[] = {
		{"one of ours", "[{\"id\":\"aa-1\",\"name\":\"sandboxd-" MY_ID "\"}]", 1},
		{"among others", "[{\"id\":\"b\",\"name\":\"a.ipynb\"},{\"id\":\"c\"},5,{\"id\":\"aa-1\",\"name\":\"sandboxd-" MY_ID "\"}]", 1},
		{"a name that is longer", "[{\"id\":\"a\",\"name\":\"sandboxd-" MY_ID "0\"}]", 0},
		{"a name without an id of ours", "[{\"id\":\"a\",\"name\":\"sandboxd-notebook\"}]", 0},
		{"an id that leads elsewhere", "[{\"id\":\"../kernels\",\"name\":\"sandboxd-" MY_ID "\"}]", 0},
		{"no more than wanted",
		 "[{\"id\":\"a\",\"name\":\"sandboxd-" MY_ID "\"},{\"id\":\"b\",\"name\":\"sandboxd-" MY_ID "\"},{\"id\":\"c\",\"name\":\"sandboxd-" MY_ID "\"}]", 2},
		{"no list", "{\"id\":\"a\",\"name\":\"sandboxd-" MY_ID "\"}", 0},
		{"no JSON", "<html>", 0},
	};
	struct jupyter_ours ours[2];
	auto_buf out = {0};
	struct sbx_err err;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		auto_free char *body = strdup(lists[i].body);
		size_t n = jupyter_sessions_ours(body, strlen(body), ours, 2);

		is_int(n, lists[i].want, "sessions: %s", lists[i].why);
		ok(!n || !strcmp(ours[0].context, MY_ID), "sessions: %s: whose", lists[i].why);
	}
	ok(jupyter_msg_session(&out, "k", "w/x.ipynb", MY_ID) == 0, "the request for a session");
	auto_jv root = jv_parse(buf_peek(&out), buf_used(&out), &err);
	is_str(jv_str(jv_get(root, "name")), "sandboxd-" MY_ID, "gives it the name that it is known by");
	is_str(jv_str(jv_get(root, "path")), "w/x.ipynb", "at its path");
}

int main(void)
{
	test_ours();
	test_messages();
	test_requests();
	test_answers();
	return tap_done();
}
