// SPDX-License-Identifier: Apache-2.0
/*
 * bash reads the file that BASH_ENV names before its -c text, so the command itself is what the client wrote, to the byte:
 * its line numbers and messages are those of a plain `bash -c`.
 *
 * The order within the state: the directory first (a `cd` changes OLDPWD and PWD, which the variables then set right), then what
 * bash tells in commands that a function of the user's could hide (aliases, traps, umask), functions while extglob is on and
 * aliases are not expanded yet, options behind them, and the traps on ERR, RETURN and DEBUG when nothing of ours can fail any more.
 * What would change how the rest is read comes from __osb_done: aliases, POSIX mode, a function `builtin`, disabled builtins.  All
 * of it runs with its output thrown away, because variables that bash itself keeps read-only say so.
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
	"[[ ${!__osb_n@a} != \"$__osb_a\" ]] || builtin printf '%s\\n' \"$__osb_n\"\n" \
	"done)\n" \
	"}\n" \
	"__osb_vars() {\n" \
	"builtin local __osb_i __osb_l; IFS=$' \\n'; builtin set +eu -f; builtin shopt -u localvar_unset\n" \
	"for __osb_i in \"${FUNCNAME[@]}\"; do\n" \
	"__osb_l=$(__osb_own); [[ $__osb_l && $'\\n'$__osb_l$'\\n' != *$'\\n__osb_t\\n'* ]] || builtin break; builtin unset -v $__osb_l\n" \
	"done\n" \
	"builtin unset -v __osb_i __osb_l; builtin declare -p\n" \
	"}\n"

/*
 * What stands between us and the builtins: a user's function `builtin`, and `enable -n`.  POSIX mode, which an assignment begins,
 * puts the special builtins (export, unset) before functions; with these the function goes, and `builtin` is itself for all the
 * others.  The functions that the text of a state would call by their bare names are kept for its end as well.  What is disabled is
 * told before the mark that begins a state.
 */
#define BASE \
	"__osb_base() {\n" \
	"__osb_late= __osb_self=\n" \
	"if \\export -nf builtin; then __osb_self=$(\\unset -f declare; \\declare -f builtin); \\unset -f builtin; fi\n" \
	"\\builtin enable -n >&199 || {\n" \
	"if \\export -nf enable; then __osb_late=$(\\unset -f declare; \\declare -f enable); \\unset -f enable; fi\n" \
	"\\enable -n >&199; \\enable builtin\n" \
	"}\n" \
	"\\builtin enable alias break builtin compgen complete continue declare eval export local printf read return set shopt trap ulimit umask unset\n" \
	"if builtin declare -F declare; then __osb_late+=$'\\n'$(builtin declare -f declare); builtin unset -f declare; fi\n" \
	"if builtin declare -F trap; then __osb_late+=$'\\n'$(builtin declare -f trap); builtin unset -f trap; fi\n" \
	"builtin return 0\n" \
	"}\n"

/* The variable is the mode: both come last, and are not there while the rest is told.  The mode turns aliases on by itself. */
#define POSIX \
	"__osb_posix() {\n" \
	"builtin set -- \"$(builtin declare -p POSIXLY_CORRECT)\"\n" \
	"__osb_late+=$'\\nbuiltin set -o posix\\n'${1:+\"builtin declare -g ${1#declare }\"}\n" \
	"if builtin shopt -q expand_aliases; then __osb_late+=$'\\nbuiltin shopt -s expand_aliases'; else __osb_late+=$'\\nbuiltin shopt -u expand_aliases'; fi\n" \
	"builtin unset -v POSIXLY_CORRECT; builtin set +o posix\n" \
	"}\n"

/* A command at a time, but only for who uses them. */
#define LIMITS \
	"__osb_limits() {\n" \
	"builtin local k l\n" \
	"for l in c d e f i l m n q r s t u v x; do for k in S H; do\n" \
	"builtin printf 'builtin ulimit -%s %s\\n' $k$l \"$(IFS=; builtin ulimit -$k$l)\"\n" \
	"done; done\n" \
	"}\n"

#define SIGNALS \
	"HUP INT QUIT TRAP ABRT TERM USR1 USR2 PIPE ALRM CHLD CONT TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"

/*
 * %s is the nonce, and the call of __osb_limits.  In a function, because only there is "$@" free: for the exit code, "$_", and the
 * options as they are before POSIX mode changes some.  Names of our own are gone before the variables are told.
 */
#define PREAMBLE \
	"__osb_dump() {\n" \
	"BASH_XTRACEFD=\n" \
	"if [[ -o posix ]]; then __osb_base; else POSIXLY_CORRECT=y; __osb_base; \\unset -v POSIXLY_CORRECT; fi\n" \
	"[[ ! ${__osb_traced+x} ]] || builtin declare +ft \"${__osb_traced[@]}\"\n" \
	"{\n" \
	"builtin unset -v BASH_EXECUTION_STRING BASH_XTRACEFD __osb_trap __osb_traced __osb_code\n" \
	"((${#2} < 4096)) || builtin set -- \"$1\" '' \"$3\" \"$4\"\n" \
	"if [[ :$3: == *:posix:* ]]; then __osb_posix\n" \
	"elif [[ :$4: == *:expand_aliases:* ]]; then __osb_late+=$'\\nbuiltin shopt -s expand_aliases'; fi\n" \
	"[[ :$3: != *:verbose:* ]] || __osb_late+=$'\\nbuiltin set -v'\n" \
	"builtin printf '" BEGIN_MARK "%s\\n__osb_last=%%q\\n__osb_late=%%q\\n__osb_self=%%q\\n' \"$2\" \"$__osb_late\" \"$__osb_self\"\n" \
	"builtin unset -v __osb_late __osb_self\n" \
	"builtin printf '__osb_cd %%q\\nbuiltin unset -f __osb_cd\\n' \"${DIRSTACK[0]-${PWD-}}\"\n" \
	"if [[ ${FUNCNAME[1]-main} == main ]]; then builtin declare -p; else (__osb_vars); fi\n" \
	"builtin printf '__osb_dirs'\n" \
	"((${#DIRSTACK[@]} < 2)) || builtin printf ' %%q' \"${DIRSTACK[@]:1}\"\n" \
	"builtin printf '\\n'\n" \
	"builtin alias -p\n" \
	"builtin complete -p\n" \
	"builtin trap -p " SIGNALS "\n" \
	"builtin umask -p\n" \
	"%s\n" \
	"builtin printf 'builtin shopt -s extglob\\n'\n" \
	"(builtin unset -f __osb_dump __osb_end __osb_own __osb_vars __osb_set __osb_base __osb_posix __osb_limits __osb_wrap __osb_follow; builtin declare -f; builtin declare -F)\n" \
	"builtin set -- \"$1\" \"$2\" \":$3:\" \":$4:\"\n" \
	"builtin set -- \"$1\" \"$2\" \"${3/:posix:/:}\" \"${4/:expand_aliases:/:}\"\n" \
	"builtin set -- \"$1\" \"$2\" \"${3/:verbose:/:}\" \"${4/:extdebug:/:}\"\n" \
	"builtin printf 'builtin shopt -u extglob\\nbuiltin shopt -s %%s\\n' \"${4//:/ }\"\n" \
	"builtin set -- \"$1\" \"$2\" \"${3%%:}\"\n" \
	"builtin printf 'builtin set +o braceexpand +o hashall +o interactive-comments%%s\\n' \"${3//:/ -o }\"\n" \
	"} >&199\n" \
	"__osb_code=$1\n" \
	"builtin return 0\n" \
	"}\n" \
	"__osb_end() {\n" \
	"builtin trap - CHLD\n" \
	"builtin set -- \"$__osb_code\" \"$@\"\n" \
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
 * Its messages, and the trace of `set -x`, are not the command's.  The traps that a function does not see are asked for here.
 * Status and "$_" are those of the command; that the status is not 0 must not be an error in its turn.  No alias changes a word
 * of it, and no name in it but those that __osb_dump has made sure of.
 */
#define CALLS(traps) "\\__osb_dump \"$?\" \"$_\" \"$SHELLOPTS\" \"$BASHOPTS\"; " traps " >&199; \\__osb_end \"$@\""
#define PLAIN_TRAPS  "\\trap -p ERR RETURN DEBUG"
#define WATCH_TRAPS  "{ \\trap -p ERR RETURN; [[ $(\\trap -p DEBUG) == *__osb_* ]] || \\trap -p DEBUG; }"
#define HIDDEN(what) "{ " what "; } >/dev/null 2>&1 || "
#define AT_EXIT	     HIDDEN(CALLS(PLAIN_TRAPS)) "[[ 1 ]]"
#define AT_EXIT_OF_WATCHED HIDDEN(CALLS(WATCH_TRAPS)) "[[ 1 ]]"
/* in a subshell, as a trap of the command's own is still to run */
#define AT_END HIDDEN("( " CALLS(WATCH_TRAPS) " )") "\\builtin exit \"$?\""

/*
 * Two things would lose what a run did, and are watched for by a trap on DEBUG in the runs whose text may do them: `exec` of a
 * program, before which the state is told (as before `exit`, which a trap may call), and an EXIT trap of the command's own, which
 * gets ours behind it.  Functions that are called get the trace attribute, so that the trap is theirs too, until the state is told.
 */
#define WATCH \
	HIDDEN("[[ $BASH_COMMAND != @(exec\\ [!0-9\\<\\>\\&\\{]*|exit|exit\\ *) ]] || ( " CALLS(WATCH_TRAPS) " ); " \
	       "[[ ${__osb_trap-} != 1 ]] || __osb_wrap; " \
	       "! \\declare -F \"${BASH_COMMAND%%[[:space:]]*}\" || __osb_follow \"${BASH_COMMAND%%[[:space:]]*}\"; " \
	       "[[ $BASH_COMMAND != *trap* ]] || __osb_trap=1") "[[ 1 ]]"
#define WRAP \
	"__osb_follow() {\n" \
	"[[ ${__osb_trap-} ]] || __osb_trap=1\n" \
	"builtin declare -ft \"$1\" && __osb_traced+=(\"$1\")\n" \
	"}\n" \
	"__osb_wrap() {\n" \
	"builtin set -- \"$(builtin trap -p EXIT)\"\n" \
	"__osb_trap=\n" \
	"[[ $1 == *__osb_* ]] || { __osb_trap=2; builtin eval \"builtin set -- $1\"; builtin trap -- \"${3-}\"$'\\n''" AT_EXIT_OF_WATCHED "' EXIT; }\n" \
	"}\n" \
	"builtin trap '" WATCH "' DEBUG\n"

/* "$_" is the last argument of the last command, so the last command of ours has to have it. */
#define RESTORED \
	"__osb_dirs() { builtin local i; for ((i = $#; i; i--)); do builtin pushd -n \"${!i}\"; done; builtin unset -f __osb_dirs; }\n" \
	"builtin shopt -u ${BASHOPTS//:/ } 2>/dev/null\n" \
	"builtin unset -v IFS PATH PS4 OPTIND TERM HOSTTYPE MACHTYPE OSTYPE\n"
/* %s: what is disabled, and nothing where the builtins that return a status are among it */
#define DONE \
	"__osb_done() {\n" \
	"builtin set -- \"$1\" \"$__osb_late\" \"$__osb_self\"\n" \
	"[[ $- != *e* ]] || builtin set -- 0 \"$2\" \"$3\"\n" \
	"builtin unset -v __osb_last __osb_late __osb_self; builtin unset -f __osb_done\n" \
	"[[ ! \"%s$2$3\" ]] || builtin eval \"{ [[ 1 ]]$2\"$'\\n''%s'$'\\n'\"$3\"$'\\n''}'\n" \
	"%s\n" \
	"}\n"

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

#define DISABLED "enable -n "

static bool is_name(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:[", text[i]) || !text[i])
			return false;
	return n > 0;
}

/* The lines that begin a state say what is disabled.  Return how many bytes they have. */
static size_t get_disabled(const char *text, size_t n, struct buf *names, bool *ret_status)
{
	static const size_t head = sizeof(DISABLED) - 1;
	size_t at = 0;

	*ret_status = true;
	for (const char *end; n - at > head && !memcmp(text + at, DISABLED, head); at = (size_t)(end + 1 - text)) {
		const char *name = text + at + head;

		end = memchr(name, '\n', n - at - head);
		if (!end)
			break;
		size_t len = (size_t)(end - name);
		if (!is_name(name, len))
			continue;
		buf_printf(names, " %.*s", (int)len, name);
		if ((len == 7 && !memcmp(name, "builtin", 7)) || (len == 6 && !memcmp(name, "return", 6)))
			*ret_status = false;
	}
	return at;
}

static void put_done(struct buf *out, const struct buf *disabled, bool has_status)
{
	auto_buf line = {0};

	if (buf_used(disabled)) {
		buf_puts(&line, "builtin enable -n");
		buf_append(&line, buf_peek(disabled), buf_used(disabled));
	}
	const char *text = buf_used(&line) ? buf_str(&line) : "";
	if (!text)
		out->failed = true;
	else
		buf_printf(out, DONE, text, text, has_status ? "[[ $3 ]] || builtin return \"$1\"" : "");
}

static bool has(const struct shell_state *state, const char *text)
{
	return state->known && memmem(buf_peek(&state->text), buf_used(&state->text), text, strlen(text));
}

/* A word of shell that a command may stand behind. */
static bool begins_command(const char *text, const char *at)
{
	static const char *const words[] = {"then", "do", "else"};

	while (at > text && (at[-1] == ' ' || at[-1] == '\t'))
		at--;
	if (at == text || strchr("\n;&|({!", at[-1]))
		return true;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(at - text) >= n && !memcmp(at - n, words[i], n))
			return true;
	}
	return false;
}

/* `exec` of a program, not of redirections alone. */
static bool may_exec(const char *text)
{
	for (const char *at = text; (at = strstr(at, "exec")); at += 4) {
		const char *next = at + 4 + strspn(at + 4, " \t");

		if (next > at + 4 && *next && !strchr("<>&{;\n0123456789", *next) && begins_command(text, at))
			return true;
	}
	return false;
}

static bool may_trap_exit(const char *text)
{
	return strstr(text, "trap") && (strcasestr(text, "exit") || strstr(text, " 0"));
}

static bool is_watched(const struct shell_state *state, const char *command)
{
	if (has(state, " DEBUG\n"))
		return false; /* a trap of the user's is there */
	return may_exec(command) || may_trap_exit(command);
}

static void put_boot(struct buf *out, const struct shell_state *state, const struct shell_run *run, const char *nonce)
{
	bool limits = strstr(run->command, "ulimit") || has(state, "\nbuiltin ulimit -"), has_status = true;
	bool watched = is_watched(state, run->command);
	auto_buf disabled = {0};

	buf_puts(out, "builtin unset -v BASH_ENV\nbuiltin exec 197<&- 198<&-\n" OWN BASE);
	buf_puts(out, POSIX LIMITS);
	buf_printf(out, PREAMBLE, nonce, limits ? "__osb_limits" : "", nonce);
	buf_puts(out, "__osb_set() { builtin printf %s '");
	put_arguments(out, state);
	buf_puts(out, "'; }\n");
	buf_puts(out, watched ? "builtin trap '" AT_EXIT_OF_WATCHED "' EXIT\n" : "builtin trap '" AT_EXIT "' EXIT\n");
	if (!state->known) {
		buf_puts(out, watched ? WRAP : "");
		return;
	}
	size_t skip = get_disabled(buf_peek(&state->text), buf_used(&state->text), &disabled, &has_status);
	out->failed |= disabled.failed;
	buf_puts(out, RESTORED);
	put_done(out, &disabled, has_status);
	/* a directory that the client names now wins over the session's, and becomes it */
	buf_puts(out, run->cwd ? "__osb_cd() { :; }\n" : "__osb_cd() { builtin cd -- \"$1\"; }\n");
	buf_puts(out, "builtin eval 'builtin shopt -s extglob\n");
	put_quoted(out, (const char *)buf_peek(&state->text) + skip, buf_used(&state->text) - skip);
	if (run->cwd)
		buf_puts(out, "builtin cd -P .\n");
	buf_puts(out, "' >/dev/null 2>&1\n");
	buf_puts(out, watched ? WRAP : "");
	/* the status is $? for the first command of the run; a trap on ERR would take it for a failure */
	int code = state->last_code > 0 && state->last_code < 256 && !has(state, " ERR\n") ? state->last_code : 0;
	buf_printf(out, "{ __osb_done %d \"${__osb_last-}\"; } >/dev/null 2>&1\n", code);
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
	/* a command that sets a trap on EXIT replaces ours: its state is told at its normal end in any case */
	if (may_trap_exit(run->command))
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

/* Where the last state of @dump begins, with what stands before its mark; @ret_text is what follows the mark. */
static const char *last_state(const struct shell_dump *dump, size_t n, const char **ret_text)
{
	char begin[32], end[32];
	size_t n_begin = (size_t)snprintf(begin, sizeof(begin), BEGIN_MARK "%s\n", dump->nonce);
	size_t n_end = (size_t)snprintf(end, sizeof(end), END_MARK "%s\n", dump->nonce);
	const char *text = buf_peek(&dump->text), *mark = NULL, *from = text;

	/* without output there is no text at all */
	for (const char *at = text; n && (at = memmem(at, n - (size_t)(at - text), begin, n_begin)); at += n_begin)
		mark = at;
	if (!mark)
		return NULL;
	for (const char *at = text; (at = memmem(at, (size_t)(mark - at), end, n_end)); at += n_end)
		from = at + n_end;
	*ret_text = mark + n_begin;
	return from;
}

void shell_dump_add(struct shell_dump *dump, const uint8_t *data, size_t n)
{
	if (dump->too_large)
		return;
	/* twice: the last whole one counts, and one may have been told before; the ones before that are forgotten here */
	dump->text.max = 2 * SHELL_STATE_BYTES;
	if (buf_used(&dump->text) + n > dump->text.max) {
		const char *text, *from = last_state(dump, buf_used(&dump->text), &text);

		if (from)
			buf_consume(&dump->text, (size_t)(from - (const char *)buf_peek(&dump->text)));
	}
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

/* The last state, if the end mark ends everything; NULL when it does not.  What is disabled comes first in it. */
static bool find_state(const struct shell_dump *dump, struct buf *ret)
{
	char end[32];
	size_t n_end = (size_t)snprintf(end, sizeof(end), END_MARK "%s\n", dump->nonce);
	const char *all = buf_peek(&dump->text), *text;
	size_t n = buf_used(&dump->text);

	if (n < n_end || memcmp(all + n - n_end, end, n_end))
		return false;
	const char *stop = all + n - n_end, *from = last_state(dump, n - n_end, &text);
	if (!from || memchr(from, 0, (size_t)(stop - from)))
		return false; /* bash has no NUL to tell */
	/* only lines that say what is disabled */
	for (const char *next; from < text && !memcmp(from, DISABLED, sizeof(DISABLED) - 1); from = next) {
		next = (const char *)memchr(from, '\n', (size_t)(text - from)) + 1;
		buf_append(ret, from, (size_t)(next - from));
	}
	buf_append(ret, text, (size_t)(stop - text));
	return true;
}

bool shell_state_take(struct shell_state *state, struct shell_dump *dump, int code)
{
	auto_buf found = {0};
	bool fits = !dump->too_large;

	if (fits && find_state(dump, &found)) {
		size_t n = buf_used(&found);

		fits = !found.failed && n <= SHELL_STATE_BYTES && quoted_bytes(buf_peek(&found), n) <= 2 * SHELL_STATE_BYTES;
		if (fits) {
			buf_free(&state->text);
			state->text = found;
			found = (struct buf){0};
			state->known = true;
		}
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
