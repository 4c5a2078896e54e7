// SPDX-License-Identifier: Apache-2.0
#include "api/monitor_int.h"

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM		  "sandbox-fetch"
#define ENVIRONMENT_MAX	  12
#define MESSAGES_PER_TURN 8u

/* Where proxies are named; libcurl reads them by itself. */
static const char *const passed_names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
					   "SSL_CERT_DIR"};

__attribute__((noreturn)) static void be_fetcher(const struct monitor_fetchers *f, int program_fd, int socket_fd, pid_t parent)
{
	char name[] = PROGRAM, flag[] = "--config", config[] = "/proc/self/fd/3", path[] = "PATH=/usr/bin:/bin";
	char *argv[] = {name, flag, config, NULL}, *envp[ENVIRONMENT_MAX] = {path};
	struct fd_move moves[] = {{f->config_fd, MONITOR_FD_CONFIG}, {socket_fd, MONITOR_FD_FETCHER}};
	size_t n_env = 1;
	sigset_t none;

	_Static_assert(ARRAY_SIZE(passed_names) + 2 <= ENVIRONMENT_MAX, "room for the environment");
	for (size_t i = 0; i < ARRAY_SIZE(passed_names); i++) {
		const char *value = getenv(passed_names[i]);

		if (value && asprintf(&envp[n_env], "%s=%s", passed_names[i], value) > 0)
			n_env++;
	}
	envp[n_env] = NULL;
	sigemptyset(&none);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	int exec_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, FIRST_SPARE_FD);
	const char *broken = monitor_move_fds(moves, ARRAY_SIZE(moves));
	if (!broken && (!freopen("/dev/null", "r", stdin) || chdir("/") < 0))
		broken = "standard input";
	if (!broken) {
		syscall(SYS_execveat, exec_fd, "", argv, envp, AT_EMPTY_PATH);
		broken = "execute it";
	}
	log_error("start " PROGRAM ": %s: %s", broken, strerrordesc_np(errno));
	_exit(127);
}

/* Return: 0 or -errno */
static int start_fetcher(struct monitor_fetchers *f, int socket_fd)
{
	pid_t *place = NULL, parent = getpid();

	for (size_t i = 0; i < MONITOR_FETCH_MAX && !place; i++)
		if (!f->pid[i])
			place = &f->pid[i];
	if (!place)
		return -EAGAIN;
	auto_fd program_fd = monitor_open_program(f->self_fd, PROGRAM);
	if (program_fd < 0)
		return program_fd;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		be_fetcher(f, program_fd, socket_fd, parent);
	if (pid < 0)
		return -errno;
	*place = pid;
	return 0;
}

/* The operator's credentials are root's: sandboxd gets this one descriptor of them, and hands each child its own entry only. */
static int open_auth_file(const struct settings *s)
{
	if (!*s->images_auth_file)
		return -1;
	auto_fd fd = open(s->images_auth_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			log_warn("images.auth_file %s: %s", s->images_auth_file, strerrordesc_np(errno));
		return -1;
	}
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? take_fd(&fd) : -1;
}

static void on_request(void *arg, int fd, uint32_t events)
{
	struct monitor_fetchers *f = arg;

	(void)events;
	for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
		struct monitor_fetch message = {0};
		int fds[1];
		size_t n_fds = 0;
		ssize_t n = fdpass_recv(fd, &message, sizeof(message), fds, 1, &n_fds);

		if (n == -EAGAIN || n == 0)
			return;
		auto_fd socket_fd = n_fds ? fds[0] : -1;
		if (n != (ssize_t)sizeof(message) || message.magic != MONITOR_FETCH_MAGIC || socket_fd < 0)
			continue; /* not of sandboxd's making: nothing to answer */
		int r = start_fetcher(f, socket_fd);
		auto_fd auth = r == 0 ? open_auth_file(f->settings) : -1;
		const struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};

		message.sys = -r;
		if (r < 0)
			log_warn("start " PROGRAM ": %s", strerrordesc_np(-r));
		int sent = fdpass_send(fd, &iov, 1, &auth, auth >= 0 ? 1 : 0);
		if (sent < 0)
			log_warn(PROGRAM ": answer sandboxd: %s", strerrordesc_np(-sent));
	}
}

void monitor_fetchers_init(struct monitor_fetchers *f)
{
	*f = (struct monitor_fetchers){.fd = -1, .daemon_fd = -1, .self_fd = -1, .config_fd = -1};
}

int monitor_fetchers_open(struct monitor_fetchers *f, struct loop *loop, const struct settings *settings, int self_fd, int config_fd,
			  struct sbx_err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return sbx_err_set(err, SBX_E_SYSTEM, errno, "socket for " PROGRAM);
	f->fd = pair[0];
	f->daemon_fd = pair[1];
	f->loop = loop;
	f->settings = settings;
	f->self_fd = self_fd;
	f->config_fd = config_fd;
	f->source = loop_fd_add(loop, f->fd, EPOLLIN, on_request, f);
	return f->source ? 0 : sbx_err_set(err, SBX_E_NO_MEMORY, 0, "monitor");
}

void monitor_fetchers_ended(struct monitor_fetchers *f, pid_t pid, int status)
{
	for (size_t i = 0; i < MONITOR_FETCH_MAX; i++) {
		if (f->pid[i] != pid)
			continue;
		f->pid[i] = 0;
		if (WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM)
			log_warn(PROGRAM " was ended by signal %d", WTERMSIG(status));
	}
}

void monitor_fetchers_clear(struct monitor_fetchers *f)
{
	loop_fd_remove(f->source);
	f->source = NULL;
	close_keep_errno(take_fd(&f->fd));
	close_keep_errno(take_fd(&f->daemon_fd));
}
