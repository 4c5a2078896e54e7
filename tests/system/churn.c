// SPDX-License-Identifier: Apache-2.0
/*
 * Threat 8: a slot's next tenant must not hear the peers of the last one.  Four slots take turns; each tenant talks to a peer
 * outside from ports that are always the same, by UDP and by TCP, and the peer goes on sending to everybody whom it ever heard
 * of.  What a tenant hears must be meant for it.  Each tenant has a peer address of its own (8.8.0.0/16): with one for all, the
 * masquerade would lead the peer's old messages to whoever talks to it now, slots or not.  CHURN_CREATES in the environment is the number of sandboxes (default 500);
 * SBX_FAULT=drain-conntrack:fail,fw-... shows what happens without the guard.
 */
#include "tests/system/broker_test_client.h"
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/num.h"
#include "base/wallclock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS	    4
#define PEERS	    256 /* the last so many tenants are not forgotten: 64 lives of each slot */
#define SEND_MS	    4
#define ID_BYTES    8
#define DEFAULT_RUN 500u

static struct btc t;

/*
 * The tenant: hello to the peer by both protocols, then listens a while.  Prints the id of each message by UDP and of each by
 * TCP.  Perl, since it starts in few milliseconds and can bind a port.
 */
static const char tenant[] =
	"use Socket; my ($id, $ms) = @ARGV; my $peer = sockaddr_in(7, pack('C4', 8, 8, $id >> 8 & 255, $id & 255));"
	"socket(U, PF_INET, SOCK_DGRAM, 0); bind(U, sockaddr_in(4444, INADDR_ANY)) or die 'bind';"
	"socket(T, PF_INET, SOCK_STREAM, 0); setsockopt(T, SOL_SOCKET, SO_REUSEADDR, 1); bind(T, sockaddr_in(4445, INADDR_ANY)) or die 'bind';"
	"my $r = ''; my %heard; my $end = 0; use Time::HiRes 'time'; $end = time + $ms / 1000;"
	"vec($r, fileno(U), 1) = 1;"
	/* half of the time first listen: what comes then can only be another's */
	"my $quiet = time + $ms / 2000; my $said = 0;"
	/* and on a loaded machine until its own peer was heard */
	"while (time < $end || (time < $end + 2 && !($heard{\"u$id\"} && $heard{\"t$id\"}))) { if (!$said && time > $quiet) { send(U, $id, 0, $peer); connect(T, $peer) or die \"connect $!\";"
	" syswrite(T, $id); vec($r, fileno(T), 1) = 1; $said = 1 }"
	" my $n = select(my $got = $r, undef, undef, 0.003); next unless $n > 0;"
	" if (vec($got, fileno(U), 1)) { my $x; recv(U, $x, 100, 0); $heard{\"u$x\"}++ }"
	" if ($said && vec($got, fileno(T), 1)) { my $x; sysread(T, $x, 8) or last; $heard{\"t$x\"}++ } }"
	"print join(' ', sort keys %heard), \"\\n\";";

/* ---- the peer, a process in a network namespace of its own ---- */

struct known {
	struct sockaddr_in at;
	struct in_addr own; /* the address that it talks to */
	char id[ID_BYTES];
	int tcp; /* -1: by UDP */
};

static void remember(struct known *list, uint32_t *n, const struct known *one)
{
	struct known *place = &list[(*n)++ % PEERS];

	if (*n > PEERS && place->tcp >= 0)
		close(place->tcp);
	*place = *one;
}

/* By UDP, with the address that the other side knows. */
static ssize_t udp_take(int fd, struct known *one)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct iovec iov = {.iov_base = one->id, .iov_len = ID_BYTES};
	struct msghdr msg = {.msg_name = &one->at, .msg_namelen = sizeof(one->at), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct in_pktinfo info = {0};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);

	if (n > 0 && CMSG_FIRSTHDR(&msg))
		memcpy(&info, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(info));
	one->own = info.ipi_addr;
	return n;
}

static void udp_send(int fd, const struct known *one)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in_pktinfo))] = {0};
	struct known copy = *one;
	struct iovec iov = {.iov_base = copy.id, .iov_len = ID_BYTES};
	struct msghdr msg = {.msg_name = &copy.at, .msg_namelen = sizeof(copy.at), .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control)};
	const struct in_pktinfo info = {.ipi_spec_dst = one->own};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = IPPROTO_IP;
	c->cmsg_type = IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(c), &info, sizeof(info));
	ignore_result(sendmsg(fd, &msg, MSG_DONTWAIT));
}

static _Noreturn void peer(int udp, int listener, int ready)
{
	static struct known list[PEERS];
	uint32_t n = 0;
	uint64_t next_ms = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	ignore_result(write(ready, "x", 1));
	for (;;) {
		struct pollfd p[] = {{.fd = udp, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
		struct known one = {.tcp = -1};

		poll(p, 2, SEND_MS);
		if (p[0].revents && udp_take(udp, &one) == ID_BYTES)
			remember(list, &n, &one);
		if (p[1].revents) {
			one.tcp = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			struct timeval wait = {.tv_usec = 50000};

			setsockopt(one.tcp, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
			if (recv(one.tcp, one.id, ID_BYTES, MSG_WAITALL) == ID_BYTES)
				remember(list, &n, &one);
			else
				close_keep_errno(one.tcp);
		}
		if (mono_ms() < next_ms)
			continue;
		next_ms = mono_ms() + SEND_MS;
		for (uint32_t i = 0; i < (n < PEERS ? n : PEERS); i++) {
			const struct known *k = &list[i];

			if (k->tcp >= 0)
				ignore_result(send(k->tcp, k->id, ID_BYTES, MSG_DONTWAIT));
			else
				udp_send(udp, k);
		}
	}
}

static bool shell(const char *command)
{
	FILE *f = popen(command, "re");

	return f && pclose(f) == 0;
}

static int bound(int type)
{
	const struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = INADDR_ANY};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	return bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 || (type == SOCK_STREAM && listen(fd, 64) < 0) ? -1 : fd;
}

/* A world at the other end of a veth, with the peer in it. */
static bool world_up(void)
{
	char command[512], byte;
	int ready[2];

	if (pipe(ready) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNET) < 0)
			_exit(1);
		ignore_result(write(ready[1], "n", 1));
		int udp = bound(SOCK_DGRAM), tcp = bound(SOCK_STREAM);
		if (udp < 0 || tcp < 0)
			_exit(1);
		peer(udp, tcp, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		return false;
	snprintf(command, sizeof(command),
		 "ip link add out type veth peer name w0 netns %d && ip addr add 198.51.100.1/24 dev out && ip link set out up && "
		 "nsenter -t %d -n sh -c 'ip link set lo up; ip addr add 198.51.100.10/24 dev w0; ip link set w0 up; ip route add local 8.8.0.0/16 dev lo' && "
		 "ip route add default via 198.51.100.10", (int)pid, (int)pid);
	return shell(command) && read(ready[0], &byte, 1) == 1;
}

/* ---- tenants ---- */

struct tenant {
	struct broker_create_reply made;
	int fds[2];
	char id[ID_BYTES + 1];
};

static uint32_t n_made, n_heard[2], n_foreign, n_slots[SLOTS + 1];
static char first_foreign[256];

static bool start(struct tenant *one)
{
	static struct broker_create create;
	const char *argv[] = {"/bin/sh", "-c", "exec perl -e \"$0\" \"$1\" 40 >/out 2>&1", tenant, one->id, NULL};

	one->fds[0] = one->fds[1] = -1;
	btc_host_create(&t, &create);
	/* a slot is free again when its connections are deleted: that may take a moment */
	for (int i = 0; i < 200; i++) {
		int r = btc_create(&t, &create, &one->made, one->fds);

		if (r == 0)
			break;
		if (r != SBX_E_LIMIT) {
			printf("# create: %d %s\n", r, one->made.text);
			return false;
		}
		poll(NULL, 0, 20);
	}
	if (one->fds[0] < 0)
		return false;
	n_slots[one->made.ref.slot < SLOTS ? one->made.ref.slot : SLOTS]++;
	snprintf(one->id, sizeof(one->id), "%08u", n_made++);
	return btc_run_begin(one->fds, argv) == 0;
}

static void look(struct tenant *one)
{
	struct agent_status status = {0};
	char text[4096] = "", *save = NULL;

	if (btc_run_end(one->fds, &status) == 0) {
		auto_fd root = btc_root(one->made.pid);
		auto_fd out = openat(root, "out", O_RDONLY | O_CLOEXEC);
		ssize_t n = out < 0 ? 0 : read(out, text, sizeof(text) - 1);

		text[n > 0 ? n : 0] = '\0';
	}
	if (status.exit_code)
		printf("# tenant %s: exit code %d %s\n", one->id, status.exit_code, text);
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		if (!strcmp(w + 1, one->id))
			n_heard[*w == 't']++;
		else if (!n_foreign++)
			snprintf(first_foreign, sizeof(first_foreign), "tenant %s of slot %u heard %s", one->id, one->made.ref.slot, w);
	}
	btc_slot_call(&t, BROKER_OP_SANDBOX_KILL, one->made.ref, 0, NULL, NULL);
	close_keep_errno(one->fds[0]);
	close_keep_errno(one->fds[1]);
}

int main(void)
{
	const char *wish = getenv("CHURN_CREATES");
	uint32_t want = DEFAULT_RUN;
	bool good = true;

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	if (access("/usr/bin/perl", X_OK) < 0) {
		printf("1..0 # SKIP no perl (apt-get install perl-base)\n");
		return 0;
	}
	if (wish && num_u32(wish, strlen(wish), 1000000, &want) < 0)
		return 2;
	setenv("BTC_SLOTS", "4", 1);
	setenv("BTC_DIR", "/var/tmp", 0);
	if (ok(btc_start(&t, "churn", "\n") == 0, "broker with %d slots starts", SLOTS) && ok(world_up(), "a world with a peer")) {
		/* the address of the outgoing interface came after the broker: it follows by itself */
		uint64_t from = mono_ms();

		while (good && n_made < want) {
			struct tenant tenants[SLOTS] = {0};
			size_t n = 0;

			while (good && n < SLOTS && n_made < want)
				if ((good = start(&tenants[n])))
					n++;
			for (size_t i = 0; i < n; i++)
				look(&tenants[i]);
		}
		ok(n_made >= want, "%u sandboxes were made, in %llu s", n_made, (unsigned long long)(mono_ms() - from) / 1000);
		ok(n_slots[SLOTS] == 0 && n_slots[0] > want / 8 && n_slots[3] > want / 8, "in four slots: %u, %u, %u, %u", n_slots[0],
		   n_slots[1], n_slots[2], n_slots[3]);
		/* TCP: a port that the last tenant had may be refused for a moment by the peer, which still knows the connection */
		ok(n_heard[0] > n_made / 10 * 8 && n_heard[1] > n_made / 10 * 8, "they heard their own peers: %u by UDP, %u by TCP", n_heard[0],
		   n_heard[1]);
		ok(n_foreign == 0, "nobody heard another's: %u did; %s", n_foreign, n_foreign ? first_foreign : "none");
	}
	btc_stop(&t, !good);
	return tap_done();
}
