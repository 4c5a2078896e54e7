// SPDX-License-Identifier: Apache-2.0
#include "base/ws.h"

#include "base/num.h"

#include <errno.h>
#include <string.h>

/* ---- SHA-1, for the handshake only: the protocol asks for it, nothing depends on its strength ---- */

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t block[64])
{
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
		       block[4 * i + 3];
	for (unsigned i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (unsigned i = 0; i < 80; i++) {
		uint32_t f, k;

		if (i < 20) {
			f = (b & c) | (~b & d);
			k = 0x5a827999;
		} else if (i < 40) {
			f = b ^ c ^ d;
			k = 0x6ed9eba1;
		} else if (i < 60) {
			f = (b & c) | (b & d) | (c & d);
			k = 0x8f1bbcdc;
		} else {
			f = b ^ c ^ d;
			k = 0xca62c1d6;
		}
		uint32_t t = rotate(a, 5) + f + e + k + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = t;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

/* Of fewer than 120 bytes: two blocks. */
static void sha1_short(const void *data, size_t n, uint8_t out[20])
{
	uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	uint8_t blocks[128] = {0};
	size_t total = n < 56 ? 64 : 128;

	memcpy(blocks, data, n);
	blocks[n] = 0x80;
	blocks[total - 2] = (uint8_t)(n * 8 >> 8);
	blocks[total - 1] = (uint8_t)(n * 8);
	for (size_t at = 0; at < total; at += 64)
		sha1_block(h, blocks + at);
	for (unsigned i = 0; i < 5; i++)
		for (unsigned k = 0; k < 4; k++)
			out[4 * i + k] = (uint8_t)(h[i] >> (24 - 8 * k));
}

/* ---- base64 ---- */

static const char base64_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void base64(const uint8_t *data, size_t n, char *out)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)data[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)data[i + 1] << 8;
		if (i + 2 < n)
			v |= data[i + 2];
		out[at++] = base64_chars[v >> 18 & 63];
		out[at++] = base64_chars[v >> 12 & 63];
		out[at++] = i + 1 < n ? base64_chars[v >> 6 & 63] : '=';
		out[at++] = i + 2 < n ? base64_chars[v & 63] : '=';
	}
	out[at] = '\0';
}

void ws_accept_key(const char *key, char out[WS_ACCEPT_SIZE])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	char text[WS_KEY_CHARS + sizeof(guid)];
	uint8_t digest[20];

	memcpy(text, key, WS_KEY_CHARS);
	memcpy(text + WS_KEY_CHARS, guid, sizeof(guid));
	sha1_short(text, WS_KEY_CHARS + sizeof(guid) - 1, digest);
	base64(digest, sizeof(digest), out);
}

bool ws_key_is_valid(const char *key, size_t n)
{
	if (n != WS_KEY_CHARS || key[22] != '=' || key[23] != '=')
		return false;
	for (size_t i = 0; i < 22; i++)
		if (!key[i] || !strchr(base64_chars, key[i]))
			return false;
	return true;
}

void ws_make_key(char out[WS_KEY_CHARS + 1])
{
	uint8_t raw[16];

	random_bytes(raw, sizeof(raw));
	base64(raw, sizeof(raw), out);
}

/* ---- reading ---- */

void ws_reader_init(struct ws_reader *r, bool server, uint64_t message_max)
{
	*r = (struct ws_reader){.server = server, .message_max = message_max};
}

static bool is_control(uint8_t opcode)
{
	return opcode & 8;
}

static enum ws_event bad(struct ws_piece *ret, uint16_t code)
{
	*ret = (struct ws_piece){.close_code = code};
	return WS_BAD;
}

/* Bytes of the frame head, as far as its first two say. */
static uint32_t head_size(const struct ws_reader *r)
{
	uint32_t n = 2;

	if (r->head_len < 2)
		return 2;
	uint8_t len = r->head[1] & 0x7f;
	if (len == 126)
		n += 2;
	else if (len == 127)
		n += 8;
	return n + (r->head[1] & 0x80 ? 4 : 0);
}

/* The head is complete.  Returns WS_MORE when it is acceptable. */
static enum ws_event frame_begins(struct ws_reader *r, struct ws_piece *ret)
{
	uint8_t len = r->head[1] & 0x7f, opcode = r->head[0] & 0x0f;
	bool masked = r->head[1] & 0x80;
	uint32_t at = 2, bytes = len == 127 ? 8 : len == 126 ? 2 : 0;
	uint64_t left = bytes ? 0 : len;

	for (uint32_t i = 0; i < bytes; i++)
		left = left << 8 | r->head[at++];
	/* no extension, a mask exactly from clients, the shortest form of the length */
	if ((r->head[0] & 0x70) || masked != r->server || (len == 126 && left < 126) || (len == 127 && left < 65536) || left >> 63)
		return bad(ret, WS_CLOSE_PROTOCOL);
	r->fin = r->head[0] & 0x80;
	if (is_control(opcode)) {
		if (opcode > WS_PONG || !r->fin || left > WS_CONTROL_MAX)
			return bad(ret, WS_CLOSE_PROTOCOL);
	} else {
		if (opcode > WS_BINARY || (opcode == WS_CONTINUATION) != r->in_message)
			return bad(ret, WS_CLOSE_PROTOCOL);
		if (opcode != WS_CONTINUATION) {
			r->message_opcode = opcode;
			r->message_bytes = 0;
		}
		r->message_bytes += left;
		if (r->message_max && (left > r->message_max || r->message_bytes > r->message_max))
			return bad(ret, WS_CLOSE_TOO_BIG);
		r->in_message = !r->fin;
	}
	if (masked)
		memcpy(r->mask, r->head + at, 4);
	r->mask_at = 0;
	r->opcode = opcode;
	r->left = left;
	r->control_len = 0;
	r->in_frame = true;
	return WS_MORE;
}

static void unmask(struct ws_reader *r, uint8_t *data, size_t n)
{
	if (!r->server)
		return;
	for (size_t i = 0; i < n; i++)
		data[i] ^= r->mask[(r->mask_at + i) & 3];
	r->mask_at = (r->mask_at + n) & 3;
}

/* Codes that may stand in a frame: RFC 6455 7.4. */
static bool close_code_is_valid(uint16_t code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static enum ws_event control_ends(struct ws_reader *r, struct ws_piece *ret)
{
	r->in_frame = false;
	*ret = (struct ws_piece){.opcode = (enum ws_opcode)r->opcode, .data = r->control, .n = r->control_len, .last = true};
	if (r->opcode != WS_CLOSE)
		return WS_CONTROL;
	ret->close_code = 1005;
	if (r->control_len == 1)
		return bad(ret, WS_CLOSE_PROTOCOL);
	if (r->control_len >= 2) {
		ret->close_code = (uint16_t)(r->control[0] << 8 | r->control[1]);
		if (!close_code_is_valid(ret->close_code))
			return bad(ret, WS_CLOSE_PROTOCOL);
	}
	return WS_CONTROL;
}

enum ws_event ws_read(struct ws_reader *r, uint8_t *data, size_t n, size_t *ret_used, struct ws_piece *ret)
{
	size_t at = 0;

	*ret_used = 0;
	if (!r->in_frame) {
		while (at < n && r->head_len < head_size(r))
			r->head[r->head_len++] = data[at++];
		*ret_used = at;
		if (r->head_len < 2 || r->head_len < head_size(r))
			return WS_MORE;
		enum ws_event e = frame_begins(r, ret);
		if (e != WS_MORE)
			return e;
		r->head_len = 0;
	}
	size_t take = r->left < n - at ? (size_t)r->left : n - at;
	unmask(r, data + at, take);
	r->left -= take;
	*ret_used = at + take;
	if (is_control(r->opcode)) {
		if (take)
			memcpy(r->control + r->control_len, data + at, take);
		r->control_len += (uint32_t)take;
		return r->left ? WS_MORE : control_ends(r, ret);
	}
	if (!take && r->left)
		return WS_MORE;
	r->in_frame = r->left > 0;
	*ret = (struct ws_piece){
		.opcode = (enum ws_opcode)r->message_opcode, .data = data + at, .n = take, .last = !r->left && r->fin};
	return WS_DATA;
}

/* ---- writing ---- */

int ws_write(struct buf *out, bool server, enum ws_opcode opcode, bool fin, const void *data, size_t n)
{
	uint8_t head[WS_HEADER_MAX], mask[4];
	size_t at = 2;

	if (is_control((uint8_t)opcode) && (n > WS_CONTROL_MAX || !fin))
		return -EINVAL;
	head[0] = (uint8_t)((fin ? 0x80 : 0) | opcode);
	head[1] = server ? 0 : 0x80;
	if (n < 126) {
		head[1] |= (uint8_t)n;
	} else if (n < 65536) {
		head[1] |= 126;
		head[at++] = (uint8_t)(n >> 8);
		head[at++] = (uint8_t)n;
	} else {
		head[1] |= 127;
		for (int shift = 56; shift >= 0; shift -= 8)
			head[at++] = (uint8_t)((uint64_t)n >> shift);
	}
	if (!server) {
		random_bytes(mask, sizeof(mask));
		memcpy(head + at, mask, 4);
		at += 4;
	}
	buf_append(out, head, at);
	char *room = n ? buf_reserve(out, n) : NULL;
	if (room) {
		memcpy(room, data, n);
		for (size_t i = 0; !server && i < n; i++)
			room[i] = (char)(room[i] ^ mask[i & 3]);
		buf_commit(out, n);
	}
	return out->failed ? -ENOMEM : 0;
}

int ws_write_close(struct buf *out, bool server, uint16_t code, const char *reason)
{
	uint8_t payload[WS_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
	size_t n = strlen(reason);

	if (n > WS_CONTROL_MAX - 2)
		for (n = WS_CONTROL_MAX - 2; n && ((unsigned char)reason[n] & 0xc0) == 0x80; n--) {
		}
	memcpy(payload + 2, reason, n);
	return ws_write(out, server, WS_CLOSE, true, payload, n + 2);
}
