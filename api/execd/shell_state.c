// SPDX-License-Identifier: Apache-2.0
/*
 * bash reads the file that BASH_ENV names before its -c text, so the command itself is what the client wrote, to the byte:
 * its line numbers and messages are those of a plain `bash -c`.
 *
 * The order within the state: the directory first (a `cd` changes OLDPWD and PWD, which the variables then set right),
 * functions while extglob is on and aliases are not expanded yet, options behind them, and the trap on ERR when nothing
 * of ours can fail any more.  All of it runs with its output thrown away, because variables that bash itself keeps
 * read-only say so.
 */
#include "api/execd/shell_state.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/num.h"

#include <string.h>

#define BEGIN_MARK "#S"
#define END_MARK   "#OK"

/*
 * A function that calls `exit` is still being executed when the trap runs: its locals hide the session's variables, and its arguments
 * "$@".  Which variables are local: those whose export attribute does not change when that of the global one of their name does (in
 * a subshell; __osb_t shows that this bash can be asked so).  Unset from a function further in, a local uncovers what it hid.
 * The positional parameters are then those from before the run, which __osb_set tells.
 */
#define OWN \
	"__osb_own() {\n" \
	"(builtin declare -g __osb_t=1; builtin compgen -v | while IFS= builtin read -r __osb_n; do\n" \
	"case $__osb_n in __osb_[nail]|BASH*|FUNCNAME|RANDOM|SRANDOM|SECONDS|LINENO|EPOCH*|HISTCMD|DIRSTACK|GROUPS|PIPESTATUS|COMP_*|_) " \
	"builtin continue;; esac\n" \
	"[[ ${!__osb_n+x}${!__osb_n@a} ]] || builtin continue\n" \
	"__osb_a=${!__osb_n@a}\n" \
	"if [[ $__osb_a == *x* ]]; then builtin declare -g +x \"$__osb_n\"; else builtin declare -g -x \"$__osb_n\"; fi || builtin continue\n" \
	"[[ ${!__osb_n@a} != \"$__osb_a\" ]] || builtin printf '%%s\\n' \"$__osb_n\"\n" \
	"done)\n" \
	"}\n" \
	"__osb_vars() {\n" \
	"builtin local __osb_i __osb_l; IFS=$' \\n'; builtin set +eu -f; builtin shopt -u localvar_unset\n" \
	"for __osb_i in \"${FUNCNAME[@]}\"; do\n" \
	"__osb_l=$(__osb_own); [[ $__osb_l && $'\\n'$__osb_l$'\\n' != *$'\\n__osb_t\\n'* ]] || builtin break; builtin unset -v $__osb_l\n" \
	"done\n" \
	"builtin unset -v __osb_i __osb_l; builtin declare -p\n" \
	"}\n"

/* %s is the nonce.  In a function, because only there is "$@" free for the exit code and the positional parameters. */
#define PREAMBLE \
	"builtin unset -v BASH_ENV\n" \
	"builtin exec 197<&- 198<&-\n" \
	OWN \
	"__osb_dump() {\n" \
	"{\n" \
	"builtin unset -v BASH_EXECUTION_STRING\n" \
	"((${#2} < 4096)) || builtin set -- \"$1\" ''\n" \
	"builtin printf '" BEGIN_MARK "%s\\n__osb_last=%%q\\n' \"$2\"\n" \
	"builtin printf '__osb_cd %%q\\nbuiltin unset -f __osb_cd\\n' \"$PWD\"\n" \
	"if [[ ${FUNCNAME[1]-main} == main ]]; then builtin declare -p; else (__osb_vars); fi\n" \
	"builtin printf '__osb_dirs'\n" \
	"((${#DIRSTACK[@]} < 2)) || builtin printf ' %%q' \"${DIRSTACK[@]:1}\"\n" \
	"builtin printf '\\n'\n" \
	"(builtin unset -f __osb_dump __osb_end __osb_own __osb_vars __osb_set; builtin declare -f; builtin declare -F)\n" \
	"builtin alias -p\n" \
	"builtin trap -p HUP INT QUIT TERM USR1 USR2 PIPE ALRM CHLD WINCH\n" \
	"builtin shopt -p\n" \
	"builtin set +o\n" \
	"builtin umask -p\n" \
	"} >&199\n" \
	"__osb_code=$1 __osb_arg=$2\n" \
	"builtin return 0\n" \
	"}\n" \
	"__osb_end() {\n" \
	"builtin set -- \"$__osb_code\" \"${@:1:$#-1}\"\n" \
	"builtin unset -v __osb_code __osb_arg\n" \
	"{\n" \
	"if [[ ${FUNCNAME[1]-main} == main ]]; then\n" \
	"builtin printf 'builtin set --'\n" \
	"(($# < 2)) || builtin printf ' %%q' \"${@:2}\"\n" \
	"else __osb_set; fi\n" \
	"builtin printf '\\n" END_MARK "%s\\n'\n" \
	"} >&199\n" \
	"builtin return \"$1\"\n" \
	"}\n"

/*
 * Its messages, and the trace of `set -x`, are not the command's.  The trap on ERR is asked for here, because a function
 * does not see it.  Status and "$_" are those of the command; that the status is not 0 must not be an error in its turn.
 */
#define CALL_DUMP "{ __osb_dump \"$?\" \"$_\"; builtin trap -p ERR >&199; __osb_end \"$@\" \"$__osb_arg\"; } 2>/dev/null || "
#define AT_EXIT	  CALL_DUMP "builtin :"
#define AT_END	  CALL_DUMP "builtin exit \"$?\""

/* "$_" is the last argument of the last command, so the last command of ours has to have it. */
#define RESTORED \
	"__osb_dirs() { builtin local i; for ((i = $#; i; i--)); do builtin pushd -n \"${!i}\"; done; builtin unset -f __osb_dirs; }\n" \
	"__osb_done() { builtin set -- \"$?\"; builtin unset -v __osb_last; builtin unset -f __osb_done; builtin return \"$1\"; }\n"

static void put_quoted(struct buf *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] == '\'')
			buf_append(out, "'\\''", 4);
		else
			buf_append(out, text + i, 1);
}

/* The last line of a state sets the positional parameters; %q writes a newline as $'\n'. */
static void put_arguments(struct buf *out, const struct shell_state *state)
{
	static const char none[] = "builtin set --";
	const char *text = buf_peek(&state->text), *line = NULL;
	size_t n = state->known ? buf_used(&state->text) : 0;

	while (n && text[n - 1] == '\n')
		n--;
	line = n ? memrchr(text, '\n', n) : NULL;
	if (line && n - (size_t)(line + 1 - text) >= strlen(none) && !memcmp(line + 1, none, strlen(none)))
		put_quoted(out, line + 1, n - (size_t)(line + 1 - text));
	else
		buf_puts(out, none);
}

static void put_boot(struct buf *out, const struct shell_state *state, const struct shell_run *run, const char *nonce)
{
	buf_printf(out, PREAMBLE, nonce, nonce);
	buf_puts(out, "__osb_set() { builtin printf %s '");
	put_arguments(out, state);
	buf_puts(out, "'; }\n");
	buf_puts(out, "builtin trap '" AT_EXIT "' EXIT\n");
	if (!state->known)
		return;
	buf_puts(out, RESTORED);
	/* a directory that the client names now wins over the session's, and becomes it */
	buf_puts(out, run->cwd ? "__osb_cd() { :; }\n" : "__osb_cd() { builtin cd -- \"$1\"; }\n");
	buf_puts(out, "builtin eval 'builtin shopt -s extglob\n");
	put_quoted(out, buf_peek(&state->text), buf_used(&state->text));
	if (run->cwd)
		buf_puts(out, "builtin cd -P .\n");
	/* the status of the last command here is $? for the first one of the run */
	if (state->last_code > 0 && state->last_code < 256)
		buf_printf(out, "[[ $- == *e* || $(builtin trap -p ERR) ]] || (builtin exit %d)\n", state->last_code);
	buf_puts(out, "' >/dev/null 2>&1\n"
		      "{ __osb_done \"${__osb_last-}\"; } 2>/dev/null\n");
}

/* What the kernel takes as no argument is found in a variable, which is gone before the first of it runs. */
#define LONG_COMMAND "builtin eval \"builtin unset -v __osb_long; $__osb_long\""

static void put_long_command(struct buf *out, const struct buf *command)
{
	buf_puts(out, "__osb_long='");
	put_quoted(out, buf_peek(command), buf_used(command));
	buf_puts(out, "'\n");
}

static int put_strings(struct buf *out, const char *const *strings, size_t n, struct sbx_err *err)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(strings[i]) + 1;

		if (len > LIMIT_SPAWN_STRING_BYTES)
			return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "a string has %zu bytes, the kernel takes %u", len - 1,
					   LIMIT_SPAWN_STRING_BYTES - 1);
		buf_append(out, strings[i], len);
	}
	return 0;
}

int shell_state_payload(const struct shell_state *state, const struct shell_run *run, const uint8_t id[AGENT_ID_BYTES],
			struct shell_dump *dump, struct buf *out, struct sbx_err *err)
{
	auto_buf command = {0}, strings = {0}, boot = {0};
	uint8_t random[8];

	shell_dump_clear(dump);
	random_bytes(random, sizeof(random));
	hex_encode(random, sizeof(random), dump->nonce);
	buf_puts(&command, run->command);
	/* a command that sets a trap on EXIT replaces ours: its state is then told at its normal end */
	if (strstr(run->command, "trap"))
		buf_puts(&command, "\n" AT_END);
	bool is_long = buf_used(&command) >= LIMIT_SPAWN_STRING_BYTES;
	const char *text = is_long ? LONG_COMMAND : buf_str(&command);
	const char *cwd = run->cwd ? run->cwd : state->known ? "" : run->first_cwd;
	const char *const all[] = {cwd ? cwd : "", "bash", "--noprofile", "--norc", "-c", text, "BASH_ENV=/proc/self/fd/197"};

	if (!text)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "session");
	if (put_strings(&strings, all, sizeof(all) / sizeof(all[0]), err) < 0)
		return -1;
	put_boot(&boot, state, run, dump->nonce);
	if (is_long)
		put_long_command(&boot, &command);
	if (buf_used(&boot) > AGENT_DRIVER_TEXT_MAX)
		return sbx_err_set(err, SBX_E_EXECD_BODY, 0, "the command is too long: with the state of the shell it has %zu bytes, of %u at most",
				   buf_used(&boot), AGENT_DRIVER_TEXT_MAX);
	struct agent_exec exec;
	struct agent_spec spec = {
		.n_args = 5,
		.n_env = 1,
		.flags = AGENT_SPEC_DRIVER | (run->merge ? AGENT_SPEC_MERGE : 0u) | (state->known ? AGENT_SPEC_BARE_ENV : 0u),
		.timeout_ms = run->timeout_ms,
		.string_bytes = (uint32_t)buf_used(&strings),
	};
	memcpy(exec.id, id, sizeof(exec.id));
	buf_append(out, &exec, sizeof(exec));
	buf_append(out, &spec, sizeof(spec));
	buf_append(out, buf_peek(&strings), buf_used(&strings));
	buf_append(out, buf_peek(&boot), buf_used(&boot));
	if (out->failed || boot.failed || strings.failed)
		return sbx_err_set(err, SBX_E_NO_MEMORY, 0, "session");
	return 0;
}

void shell_dump_add(struct shell_dump *dump, const uint8_t *data, size_t n)
{
	/* twice: the last whole one counts, and one may have been told before */
	dump->text.max = 2 * SHELL_STATE_BYTES;
	if (buf_append(&dump->text, data, n) < 0)
		dump->too_large = true;
}

void shell_dump_clear(struct shell_dump *dump)
{
	buf_free(&dump->text);
	dump->too_large = false;
}

static size_t quoted_bytes(const char *text, size_t n)
{
	size_t sum = n;

	for (size_t i = 0; i < n; i++)
		sum += text[i] == '\'' ? 3 : 0;
	return sum;
}

/* The text between the last begin mark and the end mark that ends everything; NULL when there is none. */
static const char *find_state(const struct shell_dump *dump, size_t *ret_n)
{
	char begin[32], end[32];
	size_t n_begin = (size_t)snprintf(begin, sizeof(begin), BEGIN_MARK "%s\n", dump->nonce);
	size_t n_end = (size_t)snprintf(end, sizeof(end), END_MARK "%s\n", dump->nonce);
	const char *text = buf_peek(&dump->text), *found = NULL;
	size_t n = buf_used(&dump->text);

	if (n < n_begin + n_end || memcmp(text + n - n_end, end, n_end))
		return NULL;
	const char *stop = text + n - n_end;
	for (const char *at = text; (at = memmem(at, (size_t)(stop - at), begin, n_begin));)
		found = at += n_begin;
	if (found && memchr(found, 0, (size_t)(stop - found)))
		return NULL; /* bash has no NUL to tell */
	*ret_n = found ? (size_t)(stop - found) : 0;
	return found;
}

bool shell_state_take(struct shell_state *state, struct shell_dump *dump, int code)
{
	size_t n = 0;
	const char *text = dump->too_large ? NULL : find_state(dump, &n);
	bool fits = !dump->too_large && (!text || quoted_bytes(text, n) <= 2 * SHELL_STATE_BYTES) && n <= SHELL_STATE_BYTES;

	if (text && fits) {
		buf_free(&state->text);
		if (buf_append(&state->text, text, n) < 0) {
			buf_free(&state->text);
			fits = false;
		}
		state->known = fits;
	}
	state->last_code = code;
	shell_dump_clear(dump);
	return fits;
}

void shell_state_clear(struct shell_state *state)
{
	buf_free(&state->text);
	state->known = false;
}
