/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of the name servers, from the configuration or resolv.conf(5). */
#include "config.h"

#include "netpolicy/dns_upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/num.h"

#define RESOLV_CONF_MAX 65536u

static int set_v4(const char *host, uint32_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &a, sizeof(a));
	return 0;
}

/* A link-local server needs its interface: "fe80::1%eth0". */
static int set_v6(char *host, uint32_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	char *zone = strchr(host, '%');

	if (zone) {
		*zone = '\0';
		a.sin6_scope_id = if_nametoindex(zone + 1);
		if (!a.sin6_scope_id)
			return -EINVAL;
	}
	if (inet_pton(AF_INET6, host, &a.sin6_addr) != 1)
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &a, sizeof(a));
	return 0;
}

int dns_upstream_parse(const char *text, struct sockaddr_storage *ret)
{
	char host[INET6_ADDRSTRLEN + IFNAMSIZ + 1];
	const char *port_text = NULL, *colon = strchr(text, ':');
	uint32_t port = 53;
	size_t n = strlen(text);
	bool v6 = colon && strchr(colon + 1, ':');

	if (*text == '[') {
		const char *end = strchr(text, ']');

		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		port_text = end[1] ? end + 2 : NULL;
		text++;
		n = (size_t)(end - text);
		v6 = true;
	} else if (colon && !v6) {
		port_text = colon + 1;
		n = (size_t)(colon - text);
	}
	if (n >= sizeof(host) || (port_text && (num_u32(port_text, strlen(port_text), 65535, &port) < 0 || !port)))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	return v6 ? set_v6(host, port, ret) : set_v4(host, port, ret);
}

static bool is_own(const struct dns_upstreams *u, const struct sockaddr_storage *to)
{
	struct sockaddr_in a;

	memcpy(&a, to, sizeof(a));
	return u->own_addr && to->ss_family == AF_INET && ntohl(a.sin_addr.s_addr) == u->own_addr;
}

size_t dns_upstreams_resolv(struct dns_upstreams *u, const char *text, size_t len)
{
	const char *end = text + len;

	u->n = 0;
	while (text < end && u->n < DNS_UPSTREAMS_MAX) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((eol ? eol : end) - text);
		char word[128];

		if (n > 11 && n < sizeof(word) && !memcmp(text, "nameserver", 10) && (text[10] == ' ' || text[10] == '\t')) {
			memcpy(word, text + 10, n - 10);
			word[n - 10] = '\0';
			char *addr = word + strspn(word, " \t");

			addr[strcspn(addr, " \t\r#;")] = '\0';
			if (!dns_upstream_parse(addr, &u->addr[u->n]) && !is_own(u, &u->addr[u->n]))
				u->n++;
		}
		text += n + 1;
	}
	return u->n;
}

int dns_upstreams_refresh(struct dns_upstreams *u)
{
	auto_fd fd = -1;
	auto_free char *text = NULL;
	struct dns_upstreams now = *u;
	struct stat st;
	ssize_t n;

	if (u->configured)
		return 0;
	fd = open(u->resolv_conf, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (u->n && st.st_ino == u->inode && st.st_mtim.tv_sec == u->changed.tv_sec && st.st_mtim.tv_nsec == u->changed.tv_nsec)
		return 0;
	text = malloc(RESOLV_CONF_MAX);
	n = text ? read(fd, text, RESOLV_CONF_MAX) : -1;
	if (n < 0)
		return text ? -errno : -ENOMEM;
	/* A file that is being written has no servers yet: keep the old ones. */
	if (!dns_upstreams_resolv(&now, text, (size_t)n) && u->n)
		return 0;
	now.inode = st.st_ino;
	now.changed = st.st_mtim;
	if (now.n == u->n && !memcmp(now.addr, u->addr, now.n * sizeof(now.addr[0]))) {
		u->inode = now.inode;
		u->changed = now.changed;
		return 0;
	}
	memset(now.state, 0, sizeof(now.state));
	*u = now;
	return 1;
}

int dns_upstreams_choose(const struct dns_upstreams *u, uint32_t used)
{
	int last = -ENOENT;

	for (size_t i = u->n; i-- > 0;)
		if (!(used & 1u << i) && (last < 0 || !u->state[i].down || u->state[last].down))
			last = (int)i;
	return last;
}

void dns_upstreams_heard(struct dns_upstreams *u, unsigned upstream)
{
	u->state[upstream].strikes = 0;
	u->state[upstream].down = false;
}

bool dns_upstreams_silent(struct dns_upstreams *u, unsigned upstream, bool refused)
{
	struct dns_upstream_state *s = &u->state[upstream];

	s->strikes++;
	if (refused || s->strikes >= DNS_STRIKES_DOWN)
		s->down = true;
	return s->strikes == 1 || s->down;
}
