/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "netpolicy/idn.h"
#include "netpolicy/target.h"

static int refuse(struct sbx_err *err, const char *text, const char *why)
{
	return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target \"%.100s\": %s", text, why);
}

static void mask6(uint8_t addr[16], unsigned bits)
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits >= 8 * (i + 1) ? 8 : bits > 8 * i ? bits - 8 * i : 0;

		addr[i] &= (uint8_t)(0xff00u >> keep);
	}
}

/* ::ffff:a.b.c.d is what a socket calls an IPv4 peer; the packets are IPv4. */
static bool is_mapped(const uint8_t addr[16])
{
	static const uint8_t front[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(addr, front, sizeof(front));
}

static int parse_ip(const char *text, const char *addr_text, const char *prefix_text, struct target *ret, struct sbx_err *err)
{
	char shown[INET6_ADDRSTRLEN];
	struct in_addr v4;
	uint32_t bits, max = 32;
	uint8_t v6[16];

	if (inet_pton(AF_INET, addr_text, &v4) == 1) {
		ret->kind = EGRESS_RULE_IPV4;
	} else if (inet_pton(AF_INET6, addr_text, v6) == 1) {
		ret->kind = EGRESS_RULE_IPV6;
		max = 128;
	} else {
		return refuse(err, text, "no address stands before the slash");
	}
	bits = max;
	if (prefix_text && num_u32(prefix_text, strlen(prefix_text), max, &bits))
		return refuse(err, text, max == 32 ? "the prefix is not 0 to 32" : "the prefix is not 0 to 128");
	if (ret->kind == EGRESS_RULE_IPV6 && bits >= 96 && is_mapped(v6)) {
		ret->kind = EGRESS_RULE_IPV4;
		memcpy(&v4, v6 + 12, sizeof(v4));
		bits -= 96;
	}
	ret->prefix = (uint8_t)bits;
	if (ret->kind == EGRESS_RULE_IPV4) {
		ret->addr = ntohl(v4.s_addr) & (bits ? ~0u << (32 - bits) : 0);
		v4.s_addr = htonl(ret->addr);
		inet_ntop(AF_INET, &v4, shown, sizeof(shown));
	} else {
		mask6(v6, bits);
		memcpy(ret->addr6, v6, sizeof(v6));
		inet_ntop(AF_INET6, v6, shown, sizeof(shown));
	}
	if (prefix_text)
		snprintf(ret->key, sizeof(ret->key), "%s/%u", shown, bits);
	else
		snprintf(ret->key, sizeof(ret->key), "%s", shown);
	return 0;
}

static int parse_name(const char *text, const char *name, struct target *ret, struct sbx_err *err)
{
	char ascii[4 * FQDN_BYTES];
	bool wild = !strncmp(name, "*.", 2);
	int r = 0;

	if (!strcmp(name, "*") || !strcmp(name, "*."))
		return refuse(err, text, "every name is what defaultAction is for");
	if (wild)
		name += 2;
	if (strchr(name, '*'))
		return refuse(err, text, "\"*\" may only stand as the first label, as in *.example.com");
	if (strstr(name, "://"))
		return refuse(err, text, "a URL; only the host name belongs here");
	for (const char *c = name; *c && !r; c++)
		r = (unsigned char)*c >= 0x80;
	if (r) {
		r = idn_to_ascii(name, ascii, sizeof(ascii));
		if (r == -ENOMEM)
			return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "read target");
		if (r == -EINVAL)
			return refuse(err, text, "not an international name");
		name = ascii;
	}
	if (r != -ENAMETOOLONG)
		r = fqdn_canonical(name, strlen(name), ret->name);
	if (r == -ENAMETOOLONG)
		return refuse(err, text, "a label is longer than 63 bytes or the name than 253");
	if (r < 0)
		return refuse(err, text, strchr(name, ':') ? "neither an address nor a name; a port goes into \"ports\""
							   : "neither an address nor a name of letters, digits, \"-\" and \"_\"");
	if (fqdn_is_numeric(ret->name))
		return refuse(err, text, "not a full IPv4 address, and no name ends in a number");
	ret->kind = wild ? EGRESS_RULE_WILDCARD : EGRESS_RULE_DOMAIN;
	snprintf(ret->key, sizeof(ret->key), "%s%s", wild ? "*." : "", ret->name);
	return 0;
}

int target_parse(const char *text, struct target *ret, struct sbx_err *err)
{
	static const char blanks[] = " \t\r\n\v\f";
	struct target t = {.addr = 0};
	char copy[TARGET_TEXT_MAX + 1], *slash;
	uint8_t v6[16];
	size_t n;

	text += strspn(text, blanks);
	n = strlen(text);
	while (n && strchr(blanks, text[n - 1]))
		n--;
	if (!n)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "the target is empty");
	if (n > TARGET_TEXT_MAX)
		return sbx_err_set(err, SBX_E_INVALID_REQUEST, 0, "target \"%.40s...\": longer than %u bytes", text, TARGET_TEXT_MAX);
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (strchr(copy, '%'))
		return refuse(err, copy, "an address with a zone, or percent signs; neither is offered");
	slash = strchr(copy, '/');
	if (slash && !strstr(copy, "://")) {
		char addr[TARGET_TEXT_MAX + 1];

		memcpy(addr, copy, n + 1);
		addr[slash - copy] = '\0';
		if (parse_ip(copy, addr, slash + 1, &t, err))
			return -1;
	} else if (inet_pton(AF_INET, copy, v6) == 1 || inet_pton(AF_INET6, copy, v6) == 1) {
		if (parse_ip(copy, copy, NULL, &t, err))
			return -1;
	} else if (parse_name(copy, copy, &t, err)) {
		return -1;
	}
	*ret = t;
	return 0;
}
