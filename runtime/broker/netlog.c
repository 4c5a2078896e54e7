// SPDX-License-Identifier: Apache-2.0
#include "runtime/broker/netlog.h"

#include "base/cleanup.h"
#include "runtime/broker/broker_msg.h"
#include "runtime/broker/links.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#define QUEUE_BYTES (1 << 20)

struct config_request {
	struct nlmsghdr head;
	struct nfgenmsg gen;
	struct nlattr cmd_head;
	struct nfulnl_msg_config_cmd cmd;
	uint8_t cmd_pad[3];
	struct nlattr mode_head;
	struct nfulnl_msg_config_mode mode;
	uint8_t mode_pad[2];
	struct nlattr threshold_head;
	uint32_t threshold;
};
_Static_assert(sizeof(struct config_request) == 20 + 8 + 12 + 8, "attributes are aligned to 4 bytes");

/* Bind the group, heads only, each packet at once: an agent reads the reason right after its connection failed. */
static int configure(int fd)
{
	struct config_request req = {
		.head = {.nlmsg_len = sizeof(req),
			 .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
			 .nlmsg_seq = 1},
		.gen = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(BROKER_LOG_GROUP)},
		.cmd_head = {.nla_len = sizeof(struct nlattr) + sizeof(req.cmd), .nla_type = NFULA_CFG_CMD},
		.cmd = {.command = NFULNL_CFG_CMD_BIND},
		.mode_head = {.nla_len = sizeof(struct nlattr) + sizeof(req.mode), .nla_type = NFULA_CFG_MODE},
		.mode = {.copy_range = htonl(BROKER_LOG_BYTES), .copy_mode = NFULNL_COPY_PACKET},
		.threshold_head = {.nla_len = sizeof(struct nlattr) + sizeof(req.threshold), .nla_type = NFULA_CFG_QTHRESH},
		.threshold = htonl(1),
	};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr err;
		uint8_t rest[128];
	} answer;

	if (sendto(fd, &req, sizeof(req), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	/* The answer is there when sendto() returns; a packet may have been logged before it is read. */
	for (;;) {
		ssize_t n = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n >= (ssize_t)(sizeof(answer.head) + sizeof(answer.err)) && answer.head.nlmsg_type == NLMSG_ERROR && answer.head.nlmsg_seq == 1)
			return answer.err.error;
	}
}

int netlog_open(int router_fd, struct sbx_err *err)
{
	auto_fd fd = links_netns_socket(router_fd, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	struct sockaddr_nl at = {.nl_family = AF_NETLINK};
	int bytes = QUEUE_BYTES, on = 1;

	if (fd < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -fd, "socket of the packet log");
	/* A flood that overruns the queue loses notices, not the socket. */
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "prepare the packet log");
	int r = configure(fd);
	if (r < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, -r, r == -EBUSY ? "the packet log is read by another process" : "bind the packet log");
	return take_fd(&fd);
}
