// SPDX-License-Identifier: Apache-2.0
#include "images/image_ref.h"

#include "images/digest.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_word(char c)
{
	return is_lower(c) || is_upper(c) || is_digit(c) || c == '_';
}

/* One part of a path: lower-case letters and digits, joined by ".", "_", "__" or any number of "-". */
static bool part_is_good(const char *s, size_t n)
{
	size_t i = 0;

	if (n == 0)
		return false;
	for (;;) {
		if (i == n || !(is_lower(s[i]) || is_digit(s[i])))
			return false;
		while (i < n && (is_lower(s[i]) || is_digit(s[i])))
			i++;
		if (i == n)
			return true;
		if (s[i] == '.') {
			i++;
		} else if (s[i] == '_') {
			i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
		} else if (s[i] == '-') {
			while (i < n && s[i] == '-')
				i++;
		} else {
			return false;
		}
	}
}

static bool path_is_good(const char *s, size_t n)
{
	size_t from = 0;

	for (;;) {
		const char *slash = memchr(s + from, '/', n - from);
		size_t len = slash ? (size_t)(slash - s) - from : n - from;

		if (!part_is_good(s + from, len))
			return false;
		if (!slash)
			return true;
		from += len + 1;
	}
}

/* A registry: host name, IPv4 or [IPv6], and perhaps a port. */
static bool registry_is_good(const char *s, size_t n)
{
	const char *colon = NULL;
	size_t host;

	if (n > 0 && s[0] == '[') {
		const char *close = memchr(s, ']', n);

		if (!close || close == s + 1)
			return false;
		for (const char *c = s + 1; c < close; c++)
			if (!(is_digit(*c) || (*c >= 'a' && *c <= 'f') || (*c >= 'A' && *c <= 'F') || *c == ':'))
				return false;
		host = (size_t)(close - s) + 1;
		if (host < n && s[host] != ':')
			return false;
		colon = host < n ? s + host : NULL;
	} else {
		colon = memchr(s, ':', n);
		host = colon ? (size_t)(colon - s) : n;
		for (size_t i = 0; i < host; i++) {
			bool joint = s[i] == '.' || s[i] == '-';

			if (!joint && !(is_lower(s[i]) || is_upper(s[i]) || is_digit(s[i])))
				return false;
			if (joint && (i == 0 || i + 1 == host || s[i - 1] == '.' || s[i + 1] == '.'))
				return false;
		}
		if (host == 0)
			return false;
	}
	if (!colon)
		return true;
	size_t digits = n - host - 1;
	if (digits == 0 || digits > 5)
		return false;
	for (size_t i = host + 1; i < n; i++)
		if (!is_digit(s[i]))
			return false;
	return true;
}

static bool tag_is_good(const char *s, size_t n)
{
	if (n == 0 || n >= IMAGE_REF_TAG_BYTES || !is_word(s[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!is_word(s[i]) && s[i] != '.' && s[i] != '-')
			return false;
	return true;
}

static int refuse(struct sbx_err *err, const char *text, size_t n, const char *why)
{
	char shown[81];

	sbx_printable(text, n, shown, sizeof(shown));
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "image reference \"%s\": %s", shown, why);
}

static void copy_text(char *to, const char *from, size_t n)
{
	memcpy(to, from, n);
	to[n] = '\0';
}

/* Whether the first part of a name is a registry: as Docker decides it. */
static bool looks_like_registry(const char *s, size_t n)
{
	if (n == 9 && !memcmp(s, "localhost", 9))
		return true;
	for (size_t i = 0; i < n; i++)
		if (s[i] == '.' || s[i] == ':' || s[i] == '[' || is_upper(s[i]))
			return true;
	return false;
}

static int parse_name(const char *text, size_t n, const char *name, size_t n_name, struct image_ref *ref, struct sbx_err *err)
{
	const char *slash = memchr(name, '/', n_name);
	const char *path = name;
	size_t n_path = n_name;

	if (n_name == 0)
		return refuse(err, text, n, "no name");
	if (n_name >= IMAGE_REF_NAME_BYTES)
		return refuse(err, text, n, "name too long");
	if (slash && looks_like_registry(name, (size_t)(slash - name))) {
		size_t n_registry = (size_t)(slash - name);

		if (!registry_is_good(name, n_registry))
			return refuse(err, text, n, "bad registry name");
		path = slash + 1;
		n_path = n_name - n_registry - 1;
		/* an old name of the same registry */
		if (n_registry == 15 && !memcmp(name, "index.docker.io", 15))
			copy_text(ref->registry, "docker.io", 9);
		else
			copy_text(ref->registry, name, n_registry);
	} else {
		copy_text(ref->registry, "docker.io", 9);
	}
	if (n_path == 0 || !path_is_good(path, n_path))
		return refuse(err, text, n, "a name is lower-case letters, digits, and . _ - between them");
	bool library = !strcmp(ref->registry, "docker.io") && !memchr(path, '/', n_path);
	/* the bound is on the canonical form, so that it always reads back */
	if (strlen(ref->registry) + 1 + n_path + (library ? 8 : 0) >= IMAGE_REF_NAME_BYTES)
		return refuse(err, text, n, "name too long");
	if (library)
		snprintf(ref->path, sizeof(ref->path), "library/%.*s", (int)n_path, path);
	else
		copy_text(ref->path, path, n_path);
	return 0;
}

int image_ref_parse(const char *text, size_t n, struct image_ref *ret, struct sbx_err *err)
{
	struct image_ref ref = {0};
	uint8_t digest[DIGEST_BYTES];

	if (n == 4 && !memcmp(text, "host", 4)) {
		ref.host = true;
		*ret = ref;
		return 0;
	}
	if (n >= IMAGE_REF_TEXT_BYTES || memchr(text, '\0', n))
		return refuse(err, text, n, "too long, or not text");
	const char *at = memchr(text, '@', n);
	size_t n_named = at ? (size_t)(at - text) : n;
	if (at) {
		size_t n_digest = n - n_named - 1;

		if (digest_parse(at + 1, n_digest, digest) < 0)
			return refuse(err, text, n, "what follows @ is not sha256: and 64 hex digits");
		copy_text(ref.digest, at + 1, n_digest);
	}
	/* the tag's colon stands behind the last slash; one before it is a port's */
	size_t n_name = n_named;
	for (size_t i = n_named; i > 0 && text[i - 1] != '/'; i--)
		if (text[i - 1] == ':')
			n_name = i - 1;
	if (n_name < n_named) {
		if (!tag_is_good(text + n_name + 1, n_named - n_name - 1))
			return refuse(err, text, n, "bad tag");
		copy_text(ref.tag, text + n_name + 1, n_named - n_name - 1);
	}
	if (parse_name(text, n, text, n_name, &ref, err) < 0)
		return -1;
	if (!*ref.tag && !*ref.digest)
		copy_text(ref.tag, "latest", 6);
	*ret = ref;
	return 0;
}

static void join(const struct image_ref *ref, const char *name, char out[IMAGE_REF_TEXT_BYTES])
{
	int n = snprintf(out, IMAGE_REF_TEXT_BYTES, "%s%s%s%s%s", name, *ref->tag ? ":" : "", ref->tag, *ref->digest ? "@" : "",
			 ref->digest);

	assert(n > 0 && n < IMAGE_REF_TEXT_BYTES);
}

void image_ref_canonical(const struct image_ref *ref, char out[IMAGE_REF_TEXT_BYTES])
{
	char name[2 * IMAGE_REF_NAME_BYTES];

	if (ref->host) {
		copy_text(out, "host", 4);
		return;
	}
	snprintf(name, sizeof(name), "%s/%s", ref->registry, ref->path);
	join(ref, name, out);
}

void image_ref_familiar(const struct image_ref *ref, char out[IMAGE_REF_TEXT_BYTES])
{
	char name[2 * IMAGE_REF_NAME_BYTES];
	const char *slash = strchr(ref->path, '/');
	bool docker = !strcmp(ref->registry, "docker.io");

	if (ref->host) {
		copy_text(out, "host", 4);
		return;
	}
	/* what is left must not begin with something that would be taken for a registry */
	if (docker && !strncmp(ref->path, "library/", 8) && !strchr(ref->path + 8, '/'))
		snprintf(name, sizeof(name), "%s", ref->path + 8);
	else if (docker && slash && !looks_like_registry(ref->path, (size_t)(slash - ref->path)))
		snprintf(name, sizeof(name), "%s", ref->path);
	else
		snprintf(name, sizeof(name), "%s/%s", ref->registry, ref->path);
	join(ref, name, out);
}
