// SPDX-License-Identifier: Apache-2.0
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/jv.h"
#include "base/limits.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define TEXT(s) (s), sizeof(s) - 1

static void test_refusals(void)
{
	static const struct {
		const char *why, *text;
		size_t len;
		bool good;
	} cases[] = {
		{"an object", TEXT("{\"a\":1}"), true},
		{"space around", TEXT(" \r\n\t[ 1 , 2 ] \n"), true},
		{"a bare scalar", TEXT("\"x\""), true},
		{"empty containers", TEXT("{\"a\":[],\"b\":{}}"), true},
		{"a pair of surrogates", TEXT("\"\\ud83d\\ude00\""), true},
		{"raw UTF-8", TEXT("\"\xc3\xa9\xf0\x9f\x98\x80\""), true},
		{"exponents", TEXT("[-0,0.5,1e3,1E-3,1.25e+2]"), true},
		{"nothing", TEXT(""), false},
		{"only space", TEXT("  "), false},
		{"an escaped NUL", TEXT("\"ok.test\\u0000.evil\""), false},
		{"a raw NUL in a string", TEXT("\"a\0b\""), false},
		{"a NUL behind the value", TEXT("{}\0"), false},
		{"a lone high surrogate", TEXT("\"\\ud83d\""), false},
		{"a high surrogate and a letter", TEXT("\"\\ud83d\\u0041\""), false},
		{"a lone low surrogate", TEXT("\"\\ude00\""), false},
		{"an overlong sequence", TEXT("\"\xc0\xaf\""), false},
		{"a surrogate in UTF-8", TEXT("\"\xed\xa0\x80\""), false},
		{"past U+10FFFF", TEXT("\"\xf4\x90\x80\x80\""), false},
		{"a cut sequence", TEXT("\"\xe2\x82\""), false},
		{"Latin-1", TEXT("\"\xe9\""), false},
		{"a byte order mark", TEXT("\xef\xbb\xbf{}"), false},
		{"a control character", TEXT("\"a\tb\""), false},
		{"an unknown escape", TEXT("\"\\x41\""), false},
		{"an open string", TEXT("\"abc"), false},
		{"an escape at the end", TEXT("\"abc\\"), false},
		{"trailing bytes", TEXT("{} x"), false},
		{"two values", TEXT("{}{}"), false},
		{"a leading zero", TEXT("[010]"), false},
		{"a negative leading zero", TEXT("[-01]"), false},
		{"a plus", TEXT("[+1]"), false},
		{"a bare minus", TEXT("[-]"), false},
		{"no digit behind the point", TEXT("[1.]"), false},
		{"no digit before the point", TEXT("[.5]"), false},
		{"an empty exponent", TEXT("[1e]"), false},
		{"past any double", TEXT("[1e999]"), false},
		{"NaN", TEXT("[NaN]"), false},
		{"Infinity", TEXT("[-Infinity]"), false},
		{"hex", TEXT("[0x10]"), false},
		{"a number past cJSON's buffer", TEXT("[1234567890123456789012345678901234567890123456789012345678901]"), false},
		{"a comma at the end of an array", TEXT("[1,]"), false},
		{"a comma at the end of an object", TEXT("{\"a\":1,}"), false},
		{"a comma first", TEXT("[,1]"), false},
		{"no comma", TEXT("[1 2]"), false},
		{"no colon", TEXT("{\"a\" 1}"), false},
		{"a bare name", TEXT("{a:1}"), false},
		{"single quotes", TEXT("{'a':1}"), false},
		{"a comment", TEXT("{}/*x*/"), false},
		{"brackets that do not match", TEXT("[}"), false},
		{"an open array", TEXT("[1"), false},
		{"capital True", TEXT("True"), false},
		{"a cut word", TEXT("tru"), false},
		{"a member twice", TEXT("{\"a\":1,\"b\":2,\"a\":3}"), false},
		{"a member twice, once escaped", TEXT("{\"a\":1,\"\\u0061\":3}"), false},
		{"a member twice, deep", TEXT("[{\"x\":{\"k\":1,\"k\":1}}]"), false},
		{"the same name in two cases", TEXT("{\"a\":1,\"A\":2}"), true},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sbx_err err = {0};
		auto_jv root = jv_parse(cases[i].text, cases[i].len, &err);

		ok(!!root == cases[i].good && (root || err.code == SBX_E_MALFORMED), "%s: %s (%s)",
		   cases[i].good ? "read" : "refused", cases[i].why, err.msg);
	}
}

static void test_depth(void)
{
	for (size_t depth = LIMIT_JSON_DEPTH; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
		char text[2 * (LIMIT_JSON_DEPTH + 1) + 1];
		struct sbx_err err = {0};

		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		auto_jv root = jv_parse(text, 2 * depth, &err);
		ok(!!root == (depth <= LIMIT_JSON_DEPTH), "nesting of %zu is %s", depth, root ? "read" : "refused");
	}
	size_t n = 2 * (size_t)JV_VALUES_MAX + 1;
	auto_free char *many = malloc(n + 2);
	struct sbx_err err = {0};
	if (!ok(many, "memory"))
		return;
	many[0] = '[';
	for (size_t i = 1; i < n; i += 2) {
		many[i] = '1';
		many[i + 1] = ',';
	}
	many[n - 1] = ']';
	ok(jv_check(many, n, &err) < 0 && strstr(err.msg, "too many"), "a million values are refused");
}

/* The bodies of the execd API: how a number is written counts, and only the first value. */
static void test_first(void)
{
	static const char text[] = "{\"a\":60.0,\"e\":\"1.5\\\"-2e1\",\"b\":[-7,6e1,-0.0,{\"x-1\":3}],\"c\":8E0,\"d\":0,\"1.5\":-12} 1.5 {";
	struct sbx_err err = {0};
	auto_jv root = jv_parse_first(text, sizeof(text) - 1, &err);
	const struct jv *item = jv_first(jv_get(root, "b"));
	int64_t i = 1;

	is_int(jv_i64(jv_get(root, "a"), &i), -EINVAL, "60.0 is no integer");
	is_int(jv_i64(jv_get(root, "c"), &i), -EINVAL, "nor 8E0");
	ok(!jv_i64(jv_get(root, "d"), &i) && i == 0, "0 is");
	ok(!jv_i64(jv_get(root, "1.5"), &i) && i == -12, "and what a name with digits has");
	ok(!jv_i64(item, &i) && i == -7, "in a list");
	item = jv_next(item);
	is_int(jv_i64(item, &i), -EINVAL, "6e1 there is none");
	item = jv_next(item);
	is_int(jv_i64(item, &i), -EINVAL, "nor -0.0");
	ok(!jv_i64(jv_get(jv_next(item), "x-1"), &i) && i == 3, "deeper");
	is_str(jv_str(jv_get(root, "e")), "1.5\"-2e1", "numbers in a string are none");
}

static void test_getters(void)
{
	static const char text[] = "{\"s\":\"x\",\"n\":null,\"i\":60.0,\"f\":1.5,\"big\":9007199254740993,\"neg\":-3,"
				   "\"b\":true,\"o\":{\"k\":\"v\"},\"a\":[1,2,3],\"huge\":9223372036854775808}";
	struct sbx_err err = {0};
	auto_jv root = jv_parse(text, sizeof(text) - 1, &err);
	int64_t i = 0;
	bool b = false;

	is_str(jv_str(jv_get(root, "s")), "x", "a string");
	ok(!jv_str(jv_get(root, "i")), "a number is no string");
	ok(!jv_get(root, "S"), "look-up is case-sensitive");
	ok(jv_type(jv_get(root, "n")) == JV_NULL && !jv_is_set(jv_get(root, "n")), "null is there and not set");
	ok(jv_type(jv_get(root, "none")) == JV_ABSENT && !jv_is_set(jv_get(root, "none")), "absent");
	ok(!jv_i64(jv_get(root, "i"), &i) && i == 60, "an integral float is an integer");
	ok(!jv_i64(jv_get(root, "neg"), &i) && i == -3, "a negative number");
	is_int(jv_i64(jv_get(root, "f"), &i), -EINVAL, "a fraction is no integer");
	is_int(jv_i64(jv_get(root, "big"), &i), -ERANGE, "2^53 + 1 is refused, not rounded");
	is_int(jv_i64(jv_get(root, "huge"), &i), -ERANGE, "2^63 is refused");
	ok(!jv_bool(jv_get(root, "b"), &b) && b, "a boolean");
	is_int(jv_bool(jv_get(root, "s"), &b), -EINVAL, "a string is no boolean");
	is_str(jv_str(jv_get(jv_get(root, "o"), "k")), "v", "a chained look-up");
	ok(!jv_get(jv_get(root, "none"), "k"), "a chain over nothing");
	is_int(jv_count(jv_get(root, "a")), 3, "elements");
	is_str(jv_name(jv_first(root)), "s", "name of a member");
}

static void test_writer(void)
{
	auto_buf out = {0};
	struct jw w = {.out = &out};

	jw_object(&w);
	jw_key_str(&w, "none", NULL);
	jw_key_str(&w, "s", "a\"\\\n\x01<&>\x7f");
	jw_key(&w, "bad");
	jw_strn(&w, "\xff\xe2\x80\xa8\xc3\xa9", 6);
	jw_key_i64(&w, "i", INT64_MIN);
	jw_key_u64(&w, "u", UINT64_MAX);
	jw_key_bool(&w, "t", true);
	jw_key(&w, "a");
	jw_array(&w);
	jw_array(&w);
	jw_array_end(&w);
	jw_object(&w);
	jw_object_end(&w);
	jw_double(&w, 0.1);
	jw_double(&w, 3.0);
	jw_double(&w, (double)NAN);
	jw_double(&w, 100.0 / 3);
	jw_array_end(&w);
	jw_object_end(&w);
	is_str(buf_str(&out),
	       "{\"s\":\"a\\\"\\\\\\n\\u0001\\u003c\\u0026\\u003e\x7f\",\"bad\":\"\\ufffd\\u2028\xc3\xa9\","
	       "\"i\":-9223372036854775808,\"u\":18446744073709551615,\"t\":true,\"a\":[[],{},0.1,3,0,33.333333333333336]}",
	       "what the writer makes");
}

static void test_copy(void)
{
	static const struct {
		const char *why, *in, *out;
	} rows[] = {
		{"null stays, as a member and in an array", "{\"a\": null, \"b\": [null, {}]}", "{\"a\":null,\"b\":[null,{}]}"},
		{"null alone", " null ", "null"},
		{"members keep their order", "{\"z\":1,\"a\":{\"y\":[],\"b\":\"\"}}", "{\"z\":1,\"a\":{\"y\":[],\"b\":\"\"}}"},
		{"whole numbers stay whole", "[1e15,-0,9007199254740991,3.0]", "[1000000000000000,0,9007199254740991,3]"},
		{"others keep all their digits", "[0.1,1e300,-2.5]", "[0.1,1e+300,-2.5]"},
		{"booleans and text", "[true,false,\"\\u00e9<\"]", "[true,false,\"\xc3\xa9\\u003c\"]"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sbx_err err = {0};
		auto_buf out = {0};
		struct jw w = {.out = &out};
		auto_jv root = jv_parse(rows[i].in, strlen(rows[i].in), &err);

		jw_value(&w, root);
		is_str(buf_str(&out), rows[i].out, "%s", rows[i].why);
	}
}

int main(void)
{
	test_copy();
	test_refusals();
	test_depth();
	test_first();
	test_getters();
	test_writer();
	return tap_done();
}
