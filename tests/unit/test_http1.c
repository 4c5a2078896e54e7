// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/http1.h"

#define GET  "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

static enum http1_result read_request(const char *text, size_t n, struct http1_head *head)
{
	struct http1_scan scan = {0};
	enum http1_result r = http1_scan(&scan, text, n);

	return r == HTTP1_OK ? http1_request(head, text, scan.head_bytes) : r;
}

static void test_requests(void)
{
	static const struct {
		const char *why, *text;
		enum http1_result want;
	} cases[] = {
		{"plain", GET "Host: a\r\n\r\n", HTTP1_OK},
		{"port, query and several headers", "GET /x?y=1 HTTP/1.1\r\nHost: a:80\r\nA: b\r\na: c\r\n\r\n", HTTP1_OK},
		{"IPv6 host", GET "Host: [::1]:80\r\n\r\n", HTTP1_OK},
		{"1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", HTTP1_OK},
		{"empty value", GET "Host: a\r\nX:\r\n\r\n", HTTP1_OK},
		{"tab and space around a value", GET "Host:\t a \r\n\r\n", HTTP1_OK},
		{"extension method", "X-Y!z / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_OK},
		{"star target", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_OK},
		{"UTF-8 in a value", GET "Host: a\r\nX: \xc3\xa9\r\n\r\n", HTTP1_OK},
		{"length", POST "Content-Length: 3\r\n\r\n", HTTP1_OK},
		{"chunked in any case", POST "Transfer-Encoding: Chunked\r\n\r\n", HTTP1_OK},
		{"not complete", GET "Host: a\r\n", HTTP1_MORE},

		{"bare LF ends the first line", "GET / HTTP/1.1\nHost: a\r\n\r\n", HTTP1_BARE_LF},
		{"bare LF ends a header", GET "Host: a\nX: y\r\n\r\n", HTTP1_BARE_LF},
		{"bare LF ends the head", GET "Host: a\r\n\n", HTTP1_BARE_LF},
		{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_EMPTY_LINE},
		{"CR in a value", GET "Host: a\r\nX: a\rb\r\n\r\n", HTTP1_VALUE},
		{"DEL in a value", GET "Host: a\r\nX: a\x7f\r\n\r\n", HTTP1_VALUE},
		{"folded with space", GET "Host: a\r\nX: a\r\n b\r\n\r\n", HTTP1_FOLDED},
		{"folded with tab", GET "Host: a\r\nX: a\r\n\tb\r\n\r\n", HTTP1_FOLDED},
		{"folded first header", GET " Host: a\r\n\r\n", HTTP1_FOLDED},
		{"space before the colon", GET "Host : a\r\n\r\n", HTTP1_NAME},
		{"tab before the colon", GET "Host\t: a\r\n\r\n", HTTP1_NAME},
		{"no colon", GET "Host\r\n\r\n", HTTP1_NAME},
		{"empty name", GET ": a\r\n\r\n", HTTP1_NAME},
		{"name with a control", GET "Ho\x01st: a\r\n\r\n", HTTP1_NAME},
		{"name with UTF-8", GET "H\xc3\xb6st: a\r\n\r\n", HTTP1_NAME},
		{"no Host", GET "X: a\r\n\r\n", HTTP1_HOST_MISSING},
		{"two Hosts", GET "Host: a\r\nHost: b\r\n\r\n", HTTP1_HOST_TWICE},
		{"two equal Hosts", GET "Host: a\r\nhost: a\r\n\r\n", HTTP1_HOST_TWICE},
		{"Host list", GET "Host: a,b\r\n\r\n", HTTP1_HOST_VALUE},
		{"Host with user", GET "Host: u@a\r\n\r\n", HTTP1_HOST_VALUE},
		{"Host with path", GET "Host: a/b\r\n\r\n", HTTP1_HOST_VALUE},
		{"Host with space", GET "Host: a b\r\n\r\n", HTTP1_HOST_VALUE},
		{"length and chunked", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_CODING_AND_LENGTH},
		{"chunked and length", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", HTTP1_CODING_AND_LENGTH},
		{"two lengths", POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", HTTP1_LENGTH_TWICE},
		{"two equal lengths", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", HTTP1_LENGTH_TWICE},
		{"length list", POST "Content-Length: 3, 3\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"length sign", POST "Content-Length: +3\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"negative length", POST "Content-Length: -3\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"hex length", POST "Content-Length: 0x3\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"empty length", POST "Content-Length:\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"length past 2^64", POST "Content-Length: 18446744073709551619\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"length past 2^53", POST "Content-Length: 9007199254740993\r\n\r\n", HTTP1_LENGTH_VALUE},
		{"coding list", POST "Transfer-Encoding: gzip, chunked\r\n\r\n", HTTP1_CODING_VALUE},
		{"coding identity", POST "Transfer-Encoding: identity\r\n\r\n", HTTP1_CODING_VALUE},
		{"coding with vertical tab", POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n", HTTP1_VALUE},
		{"quoted coding", POST "Transfer-Encoding: \"chunked\"\r\n\r\n", HTTP1_CODING_VALUE},
		{"coding twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_CODING_TWICE},
		{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_CODING_OLD},
		{"unknown expectation", POST "Expect: 200-maybe\r\n\r\n", HTTP1_EXPECT},
		{"absolute form", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET},
		{"authority form", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET},
		{"fragment", "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET},
		{"control in target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET},
		{"tab in target", "GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_START_LINE},
		{"space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_START_LINE},
		{"no version", "GET /\r\nHost: a\r\n\r\n", HTTP1_START_LINE},
		{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", HTTP1_START_LINE},
		{"trailing space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", HTTP1_START_LINE},
		{"version 2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", HTTP1_VERSION},
		{"version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", HTTP1_VERSION},
		{"method no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_METHOD},
		{"empty method", " / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_METHOD},
		{"one word", "GET\r\n\r\n", HTTP1_START_LINE},
	};
	struct http1_head head;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum http1_result r = read_request(cases[i].text, strlen(cases[i].text), &head);
		if (!ok(r == cases[i].want, "request: %s", cases[i].why))
			printf("# got %s, want %s\n", http1_result_name(r), http1_result_name(cases[i].want));
	}
	static const char nul[] = GET "Host: a\r\nX: a\0b\r\n\r\n", nul_target[] = "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n";
	ok(read_request(nul, sizeof(nul) - 1, &head) == HTTP1_VALUE, "request: NUL in a value");
	ok(read_request(nul_target, sizeof(nul_target) - 1, &head) == HTTP1_TARGET, "request: NUL in the target");
}

static void test_bounds(void)
{
	struct http1_scan scan = {0};
	auto_free char *big = malloc(20u << 20);
	size_t n = (size_t)snprintf(big, 100, GET "Host: a\r\n");
	enum http1_result r = HTTP1_MORE;

	for (int i = 0; i < 1000000 && r == HTTP1_MORE; i++) {
		memcpy(big + n, "X: y\r\n", 6);
		n += 6;
		r = http1_scan(&scan, big, n);
	}
	ok(r == HTTP1_TOO_MANY_HEADERS && n < 2000, "a million headers are refused after %zu bytes", n);

	scan = (struct http1_scan){0};
	memset(big, 'a', 1 << 20);
	ok(http1_scan(&scan, big, 1 << 20) == HTTP1_TARGET_TOO_LONG, "a first line without end is refused");
	scan = (struct http1_scan){0};
	memcpy(big, GET "X: ", sizeof(GET "X: ") - 1);
	ok(http1_scan(&scan, big, 1 << 20) == HTTP1_HEAD_TOO_LARGE, "a header line without end is refused");
	scan = (struct http1_scan){0};
	r = HTTP1_MORE;
	for (n = 0; r == HTTP1_MORE; n++)
		r = http1_scan(&scan, big, n);
	ok(r == HTTP1_HEAD_TOO_LARGE && n <= LIMIT_HTTP_HEAD_BYTES + 2, "byte by byte it is refused at the bound");

	struct http1_head head;
	n = (size_t)snprintf(big, 100, GET "Host: a\r\n");
	for (unsigned i = 1; i < LIMIT_HTTP_HEADERS; i++)
		n += (size_t)snprintf(big + n, 100, "X-%u: y\r\n", i);
	memcpy(big + n, "\r\n", 3);
	ok(read_request(big, n + 2, &head) == HTTP1_OK && head.n_headers == LIMIT_HTTP_HEADERS, "exactly the limit of headers");
	memcpy(big + n, "Y: z\r\n\r\n", 9);
	ok(read_request(big, n + 8, &head) == HTTP1_TOO_MANY_HEADERS, "one header more");
}

static void test_split(void)
{
	static const char text[] = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nhi";
	struct http1_scan scan = {0};
	struct http1_head head;
	size_t n = 0;

	while (http1_scan(&scan, text, n) == HTTP1_MORE)
		n++;
	is_int(scan.head_bytes, sizeof(text) - 3, "the head's end is found byte by byte");
	is_int(http1_request(&head, text, scan.head_bytes), HTTP1_OK, "and read");
	ok(head.length == 2 && (head.flags & HTTP1_CLOSE) && head.minor == 1, "length, close and version");
	ok(head.host.len == 1 && text[head.host.off] == 'h', "the host's place");
	is_int(http1_header(&head, text, "CONTENT-LENGTH", 0), 1, "a header is found in any case");
	ok(http1_connection_names(&head, text, "X", 1) && !http1_connection_names(&head, text, "clos", 4), "connection list");
}

static void test_responses(void)
{
	static const struct {
		const char *why, *text;
		enum http1_result want;
		enum http1_body_kind kind;
	} cases[] = {
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP1_OK, HTTP1_BODY_LENGTH},
		{"zero", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP1_OK, HTTP1_BODY_NONE},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_OK, HTTP1_BODY_CHUNKED},
		{"until close", "HTTP/1.0 200 OK\r\n\r\n", HTTP1_OK, HTTP1_BODY_UNTIL_CLOSE},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", HTTP1_OK, HTTP1_BODY_LENGTH},
		{"empty reason", "HTTP/1.1 200 \r\n\r\n", HTTP1_OK, HTTP1_BODY_UNTIL_CLOSE},
		{"204 has none", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", HTTP1_OK, HTTP1_BODY_NONE},
		{"304 has none", "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", HTTP1_OK, HTTP1_BODY_NONE},
		{"100 has none", "HTTP/1.1 100 Continue\r\n\r\n", HTTP1_OK, HTTP1_BODY_NONE},
		{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		 HTTP1_CODING_AND_LENGTH, 0},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", HTTP1_LENGTH_TWICE, 0},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", HTTP1_STATUS, 0},
		{"status 999", "HTTP/1.1 999 OK\r\n\r\n", HTTP1_STATUS, 0},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", HTTP1_STATUS, 0},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", HTTP1_VERSION, 0},
		{"other protocol", "SSH-2.0-OpenSSH_9\r\n\r\n", HTTP1_START_LINE, 0},
		{"fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HTTP1_FOLDED, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct http1_scan scan = {0};
		struct http1_head head;
		struct http1_body body = {0};
		enum http1_result r = http1_scan(&scan, cases[i].text, strlen(cases[i].text));
		if (r == HTTP1_OK)
			r = http1_response(&head, cases[i].text, scan.head_bytes);
		if (r == HTTP1_OK)
			http1_body_of_response(&body, &head, false);
		if (!ok(r == cases[i].want && body.kind == cases[i].kind, "response: %s", cases[i].why))
			printf("# got %s, kind %d\n", http1_result_name(r), (int)body.kind);
	}
}

/* Decodes with `step` bytes at a time, or past the decoder where it lets; returns the end and appends the content. */
static enum http1_result dechunk(const char *text, size_t step, bool direct, char *out, size_t *ret_used)
{
	struct http1_body body = {.kind = HTTP1_BODY_CHUNKED};
	size_t at = 0, n = strlen(text), end = 0, w = 0;
	enum http1_result r = HTTP1_MORE;

	while (r == HTTP1_OK || (r == HTTP1_MORE && end < n)) {
		size_t used;
		struct http1_span piece;

		uint64_t past = direct && at == end ? http1_body_direct(&body) : 0;
		if (past > n - at)
			past = n - at;
		memcpy(out + w, text + at, past);
		w += past;
		at += past;
		end += past;
		http1_body_skip(&body, past);
		if (r == HTTP1_MORE)
			end = end + step > n ? n : end + step;
		r = http1_body_next(&body, text + at, end - at, &used, &piece);
		memcpy(out + w, text + at + piece.off, piece.len);
		w += piece.len;
		at += used;
	}
	out[w] = '\0';
	*ret_used = at;
	return r;
}

static void test_chunks(void)
{
	static const struct {
		const char *why, *text;
		enum http1_result want;
		const char *content;
		size_t behind;
	} cases[] = {
		{"two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", HTTP1_DONE, "abcde", 0},
		{"nothing is used behind the end", "1\r\na\r\n0\r\n\r\nGET ", HTTP1_DONE, "a", 4},
		{"extension", "1;x=y\r\na\r\n0;z\r\n\r\n", HTTP1_DONE, "a", 0},
		{"trailer", "1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\n", HTTP1_DONE, "a", 0},
		{"upper-case and leading zeros", "000A\r\n0123456789\r\n00\r\n\r\n", HTTP1_DONE, "0123456789", 0},
		{"cut", "3\r\nab", HTTP1_MORE, "ab", 0},
		{"bare LF after the size", "1\na\r\n0\r\n\r\n", HTTP1_CHUNK_SIZE, "", 0},
		{"LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n", HTTP1_CHUNK_LINE, "", 0},
		{"no size", "\r\na", HTTP1_CHUNK_SIZE, "", 0},
		{"0x", "0x1\r\na\r\n", HTTP1_CHUNK_SIZE, "", 0},
		{"sign", "-1\r\na\r\n", HTTP1_CHUNK_SIZE, "", 0},
		{"size past 60 bits", "1000000000000000\r\n", HTTP1_CHUNK_SIZE, "", 0},
		{"chunk longer than said", "1\r\nab\r\n0\r\n\r\n", HTTP1_CHUNK_END, "a", 0},
		{"bare LF after a chunk", "1\r\na\n0\r\n\r\n", HTTP1_CHUNK_END, "a", 0},
		{"folded trailer", "0\r\n X: y\r\n\r\n", HTTP1_CHUNK_LINE, "", 0},
		{"trailer with bare LF", "0\r\nX: y\n\r\n", HTTP1_CHUNK_LINE, "", 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t step = 0; step <= 64; step += step ? 63 : 1) {
			char out[64];
			size_t used;
			enum http1_result r = dechunk(cases[i].text, step ? step : 1, !step, out, &used);
			bool good = r == cases[i].want && !strcmp(out, cases[i].content) &&
				    (r != HTTP1_DONE || used == strlen(cases[i].text) - cases[i].behind);
			if (!ok(good, "chunked by %zu: %s", step, cases[i].why))
				printf("# got %s '%s' used %zu\n", http1_result_name(r), out, used);
		}
}

static void test_table(void)
{
	for (int r = HTTP1_MORE; r < HTTP1_RESULT_COUNT; r++) {
		struct sbx_err err = {0};
		if (r == HTTP1_DONE)
			continue;
		ok(http1_error(&err, (enum http1_result)r) == -1 && err.code && err.msg[0], "refusal %s has a text",
		   http1_result_name((enum http1_result)r));
	}
}

int main(void)
{
	test_requests();
	test_bounds();
	test_split();
	test_responses();
	test_chunks();
	test_table();
	return tap_done();
}
