# SPDX-License-Identifier: Apache-2.0
"""Bash sessions against a running daemon: what one run leaves is what the next one finds."""
import threading

from execd_client import Box, Tap, joined, once, short, until, wait_for

t = Tap()
box = Box()


def create(body=None):
    status, reply = box.call("POST", "/session", {} if body is None else body)
    t.ok(status == 200 and list(reply) == ["session_id"] and len(reply["session_id"]) == 36, "a session is made", reply)
    return reply["session_id"]


def run(command, seen=None, **more):
    return box.stream("/session/%s/run" % sid, dict(command=command, **more), seen)


def says(command, want, name, code=0, **more):
    """The lines that come, and how it ends."""
    status, events = run(command, **more)
    if status != 200:
        return t.ok(False, name, events)
    end = [("execution_complete", None)] if code == 0 else \
        [("error", ("CommandExecError", str(code)))]
    lines = [("stdout", line) for line in want]
    return t.eq(short(events), [("init", sid)] + lines + end, name)


sid = create()
sid = create({"cwd": "/w/new dir"})
says("pwd", ["/w/new dir"], "the directory of a session is made")
says("a=1; export e='x\"y$z'; n=$'two\\nlines'; declare -A m=([k 1]='v w'); l=(1 '2 3' \"$n\"); f() { echo \"f $1\"; }", [],
     "a state is made")
says("echo $a \"$e\" \"${m[k 1]}\" \"${#l[@]}\" \"${l[1]}\"; f q; bash -c 'echo $e'",
     ["1 x\"y$z v w 3 2 3", "f q", "x\"y$z"], "variables, maps, arrays, functions, exports")
says("echo \"$n\"; echo \"${l[2]}\"", ["two", "lines", "two", "lines"], "newlines in values")
says("cd /usr; b=2; exit 7", [], "exit ends the run", 7)
says("echo $? $b; pwd", ["7 2", "/usr"], "and not the session, which knows the code")
says("exec echo other", ["other"], "exec of another program")
says("pwd", ["/usr"], "leaves the state from before")
says("b=3; kill -9 $$", [], "a shell that kills itself is reported", -1)
status, events = run("kill -9 $$")
t.eq(events[-1]["error"]["traceback"], ["signal: killed"], "with the signal")
says("echo $b", ["2"], "and the state from before stays")
says("echo one >&2; echo two; printf 'a\\n\\nb\\rc'", ["one", "two", "a", "\n", "b", "c"], "both outputs in order, by lines")
says("pwd", ["/tmp"], "a directory for a run", cwd="/tmp")
says("pwd; echo $OLDPWD", ["/tmp", "/usr"], "becomes the session's")
status, reply = run("pwd", cwd="/nowhere")
t.ok(status == 400 and reply["code"] == "INVALID_REQUEST_BODY" and "invalid request. " in reply["message"], "one that is not there", reply)
says("set -eu -o pipefail; shopt -s nullglob; umask 077; set -- p 'q r'; alias ll='echo LL'; shopt -s expand_aliases", [],
     "options, umask, aliases, arguments")
says("echo $- $# \"$2\"; umask; ll; echo /nowhere*", ["ehuBc 2 q r", "0077", "LL", "\n"], "are found again")
says("false; echo not", [], "set -e ends a run", 1)
says("set +eu; unset e PATH; readonly R=3", [], "unset, readonly")
says("PATH=/usr/bin:/bin; echo \"${e-none} $R\"", ["none 3"], "stay so")
says("set -x", [], "set -x")
says("echo x", ["+ echo x", "x"], "shows the command's trace and nothing of ours")
says("set +x", ["+ set +x"], "and off")
says("trap 'echo bye' EXIT; g=9", ["bye"], "a trap on EXIT of the command's own")
says("echo $g", ["9"], "does not lose the state")
says("hid=session; hids=(1 2); declare -A hidm=([k]=v); export hidx=x; set -- p q", [], "variables that functions will hide")
says("inner() { local hid=inner own=5 hids=x hidm=(y); local -i k=7; hid+=!; exit 4; }; "
     "outer() { local hid=outer o=6 hidx=y; local -A hids=([a]=b); inner 1 2 3; }; outer x",
     [], "a function that exits within a function", 4)
says("echo $hid ${own-none} ${o-none} ${k-none} \"${hids[*]}\" ${hidm[k]} $hidx $(sh -c 'echo $hidx') $# \"$2\"; type outer | head -n 1",
     ["session none none none 1 2 v x x 2 q", "outer is a function"], "its locals and arguments do not stay")
says("f3() { local hid=f3; l2=made; declare -g l3=global; readonly l4=ro; exit; }; f3", [], "what it makes beyond itself")
says("echo $hid $l2 $l3 $l4", ["session made global ro"], "stays")
says("shopt -s localvar_unset; IFS=:; set -u; f4() { local hid=f4 IFS=,; exit; }; f4", [], "with options that make it hard")
says("echo $hid; printf '%s\\n' \"$IFS\"; shopt localvar_unset; set +u; IFS=$' \\t\\n'; shopt -u localvar_unset",
     ["session", ":", "localvar_unset \ton"], "the same")
says("f5() { local RANDOM=1 i e=; for i in 1 2; do (exit 3); done; exit 0; }; f5; set --", [], "a last one")
says("[[ -n $RANDOM ]] && echo ${i-none} ${e-none} $#; compgen -v | grep osb", ["none none 2"], "and no variable of ours", 1)
says("set --", [], "no arguments")
says("nosuch", ["bash: line 1: nosuch: command not found"], "messages are those of bash", 127)
says("printf '\\377\\n'", ["\ufffd"], "bytes that are no UTF-8")
says("b=$'\\377\\001'; exec >/dev/null; echo lost", [], "a command that redirects everything")
says("printf %s \"$b\" | od -An -tx1", [" ff 01"], "and binary values")

status, events = run("h=5; sleep 801 & setsid sleep 802 & sleep 803", timeout=300)
t.eq((events[-1]["type"], events[-1]["error"]["evalue"], events[-1]["error"]["traceback"]),
     ("error", "-1", ["timeout after 300ms"]), "a timeout ends the run and says so")
t.eq(box.command("pgrep -fc '[s]leep 80[123]' || true"), "0", "its whole tree is gone")
says("echo ${h-none}", ["none"], "with the state from before")

status, events = run("echo early; %s; echo late" % wait_for("/tmp/early"), once("stdout", lambda: box.command("touch /tmp/early")))
t.eq([e["text"] for e in events if e["type"] == "stdout"], ["early", "late"], "output comes while it is made")
says("sleep 0.5 & wait; echo $!  >/dev/null", [], "jobs within a run")

done = []
threads = [threading.Thread(target=lambda: done.append(run("sleep 0.1; c=$((${c:-0}+1)); echo $c"))) for _ in range(4)]
[th.start() for th in threads]
[th.join() for th in threads]
t.eq(sorted(joined(ev) for _, ev in done), ["1", "2", "3", "4"], "runs at the same time follow each other")

says("cd /usr; mkdir -p '/tmp/a b'; pushd '/tmp/a b' >/dev/null; pushd /etc >/dev/null", [], "a stack of directories")
says("popd >/dev/null; pwd; popd >/dev/null; pwd", ["/tmp/a b", "/usr"], "stays")
says("trap 'echo failed $?; exit 9' ERR; (exit 3)", ["failed 3"], "a trap on ERR ends a run", 9)
says("trap 'echo failed $?' ERR", [], "another one")
says("echo $?; false; echo on; exit 4", ["0", "failed 1", "on"], "is there in the next one, and sees nothing of ours", 4)
says("trap - ERR; echo a 'last one'", ["a last one"], "the last argument")
says("echo \"$_\"", ["last one"], "is there as well")
big = "x" * 1000000
says(": '%s'\nlong=2; echo $LINENO end" % big, ["2 end"], "a script of 1 MB")
says("echo $long; compgen -v | grep -c __osb", ["2", "0"], "leaves its state and nothing of ours", 1)
says("trap 'echo bye' EXIT; : '%s'; exit 5" % big[:200000], ["bye"], "one with a trap on EXIT", 5)

# who passes the output on is behind the shell; on a machine that stands still it may come too late, so it may try again
t.ok(until(lambda: [e["text"] for e in run("exec > >(sed s/^/p:/); echo passed")[1] if e["type"] == "stdout"] == ["p:passed"]),
     "output by way of another process")

# what a hostile command can do with the descriptors
says("echo '#S' >&199; echo '#OK' >&199; k=1", [], "marks without the nonce")
says("echo $k", ["1"], "change nothing")
says("exec 199>&-; k=2", [], "a command that closes the state's pipe")
says("echo $k", ["1"], "keeps the state from before")

status, events = run("k=4; big=$(head -c 700000 /dev/zero | tr '\\0' x)")
t.ok(events[-1]["type"] == "execution_complete" and "too large" in joined(events, "stderr"), "a state that is too large is told",
     short(events))
says("echo $k ${#big}", ["1 0"], "and the one from before stays")
status, events = run("head -c 20000000 /dev/zero | tr '\\0' x | fold -w 99")
t.eq(sum(len(e["text"]) for e in events if e["type"] == "stdout"), 20000000, "20 MB of output, all of it")

interrupt = once("stdout", lambda: t.eq(box.call("DELETE", "/command?id=" + sid)[0], 200, "an interrupt by the session's id") and None)
status, events = run("echo up; sleep 500", interrupt)
t.ok(events[-1]["type"] == "error", "ends the run")
says("echo $k", ["1"], "and not the session")
t.eq(box.call("DELETE", "/command?id=" + sid)[0], 500, "nothing to interrupt")
box.stream("/session/%s/run" % sid, {"command": "sleep 811 & sleep 812"}, lambda e: "leave")
gone = until(lambda: box.command("pgrep -fc '[s]leep 81[12]' || true") == "0")
t.ok(gone, "a client that leaves takes its run with it")
delete = once("stdout", lambda: t.eq(box.call("DELETE", "/session/" + sid)[0], 200, "delete while it runs") and None)
status, events = run("echo up; sleep 500", delete)
t.eq((events[-1]["error"]["evalue"], events[-1]["error"]["traceback"]), ("-1", ["signal: killed"]), "ends the run as a kill")
status, reply = run("echo")
t.eq((status, reply["code"], reply["message"]), (500, "RUNTIME_ERROR", "error running in session. context not found"), "it is gone")
status, reply = box.call("DELETE", "/session/" + sid)
t.eq((status, reply["code"]), (404, "CONTEXT_NOT_FOUND"), "for DELETE as well")
# What a run leaves for the next one, whatever stands in the way: a name, and runs of a session of its own: text, lines, code.
# Lines that are None are bash's own affair.
STATES = [
    ("failed exec", [
        ("a=1; exec /nonexistent", ["bash: line 1: /nonexistent: No such file or directory"], 127),
        ("echo $a", ["1"])]),
    ("failed exec not found", [
        ("a=2; exec nonexistent", ["bash: line 1: exec: nonexistent: not found"], 127),
        ("echo $a", ["2"])]),
    ("exec prog", [("a=3; f() { echo f; }; exec echo other x", ["other x"]), ("echo $a; f", ["3", "f"])]),
    ("exec redirect", [("exec 3>/tmp/x3; a=4; echo hi >&3; cat /tmp/x3", ["hi"]), ("echo $a", ["4"])]),
    ("functions", [
        ("v=1; printf() { echo my printf; }; read() { echo my read; }; command() { echo my command; }; declare() { echo my declare; }; trap() { echo my trap; }; eval() { echo my eval; }; exit() { echo my exit; }; :() { echo my :; }; set() { echo my set; }; unset() { echo my unset; }; shopt() { echo my shopt; }; local() { echo my local; }; return() { echo my return; }; export() { echo my export; }; alias() { echo my alias; }; umask() { echo my umask; }; cd() { echo my cd; }; pwd() { echo my pwd; }; test() { echo my test; }; [() { echo my [; }; enable() { echo my enable; }; shift() { echo my shift; }; compgen() { echo my compgen; }", []),
        ("v=2; printf; read; \\command; declare; trap; eval; :; set; unset; shopt; umask; enable; exit; return; builtin echo $v", ["my printf", "my read", "my command", "my declare", "my trap", "my eval", "my :", "my set", "my unset", "my shopt", "my umask", "my enable", "my exit", "my return", "2"]),
        ("builtin echo $v; builtin type -t declare trap set", ["2", "function", "function", "function"])]),
    ("builtin", [
        ("v=1; builtin() { echo my builtin; }", []),
        ("v=2; builtin echo x", ["my builtin"]),
        ("builtin; echo $v", ["my builtin", "2"])]),
    ("builtin and all", [
        ("v=1; builtin() { echo my builtin; }; declare() { :; }; enable() { echo en; }; export() { echo ex; }; unset() { echo un; }", []),
        ("v=2; export; unset; enable", ["ex", "un", "en"]),
        ("builtin; declare; export; echo $v", ["my builtin", "ex", "2"])]),
    ("enable -n", [
        ("v=1; enable -n printf declare unset trap builtin eval set", []),
        ("v=2; printf 'x\\n'; declare", ["x", "bash: line 1: declare: command not found"], 127),
        ("echo $v; enable -n", ["2", "enable -n builtin", "enable -n declare", "enable -n eval", "enable -n printf", "enable -n set", "enable -n trap", "enable -n unset"])]),
    ("enable -n enable", [
        ("v=1; enable -n return; enable -n enable", []),
        ("echo ${v-none}; enable -n return; enable -n", ["1", "enable -n return"])]),
    ("enable -n with fn", [
        ("v=1; enable -n echo; echo() { printf 'own %s\\n' \"$1\"; }", []),
        ("echo $v", ["own 1"]),
        ("enable -n", ["enable -n echo"])]),
    ("own trap", [("trap 'echo bye' EXIT; a=5; exit 3", ["bye"], 3), ("echo $? $a", ["3 5"]), ("true", [])]),
    ("nested", [
        ("g() { a=20; exit 2; }; f() { local a=9; trap 'echo bye' EXIT; local v=1; g; }; s=1; f x", ["bye"], 2),
        ("echo ${v-none} $s; declare -p a; trap -p RETURN; type f | head -n 1", ["none 1", "bash: line 1: declare: a: not found", "f is a function"])]),
    ("own trap errexit", [
        ("set -e; trap 'echo bye $?' EXIT; a=6; false; echo no", ["bye 1"], 1),
        ("echo $a; set +e", ["6"])]),
    ("own trap calls exit", [("trap 'echo bye; exit 9' EXIT; a=7; exit 3", ["bye"], 9), ("echo $? $a", ["9 7"])]),
    ("own trap, changes", [("trap 'h=in; cd /usr' EXIT; a=8; exit", []), ("echo $a $h $PWD", ["8 in /usr"])]),
    ("own trap removed", [("trap 'echo x' EXIT; trap - EXIT; a=9; exit 4", [], 4), ("echo $a", ["9"])]),
    ("own trap with ERR and args", [
        ("set -- p 'q r'; trap 'echo err' ERR; trap 'echo bye' EXIT; a=10; exit 0", ["bye"]),
        ("echo $a $# \"$2\"; false; true", ["10 2 q r", "err"])]),
    ("own trap and xtrace", [
        ("set -x; trap 'echo bye' EXIT; a=11; exit 0", ["+ trap 'echo bye' EXIT", "+ a=11", "+ exit 0", "+ echo bye", "bye"]),
        ("set +x; echo $a", ["+ set +x", "11"])]),
    ("trap in a function", [("f() { trap 'echo bye' EXIT; a=12; exit 0; }; f", ["bye"]), ("echo ${a-none}", ["12"])]),
    ("trap in a function, end", [
        ("f() { trap 'echo bye' EXIT; a=13; }; f; set -e; false", ["bye"], 1),
        ("echo ${a-none}", ["13"])]),
    ("failed exec in a function", [
        ("f() { a=14; exec /nonexistent; }; f", ["environment: line 1: /nonexistent: No such file or directory"], 127),
        ("echo ${a-none}", ["14"])]),
    ("aliases of words", [
        ("shopt -s expand_aliases; alias if='echo IF' then='echo T' builtin='echo B' trap='echo TR' shopt='echo SH' set='echo SE' declare='echo D' exit='echo EX'; a=15", []),
        ("if x", ["IF x"]),
        ("echo $a; builtin x; alias builtin", ["15", "B x", "alias builtin='echo B'"])]),
    ("posix", [
        ("set -o posix; a=16; alias q='echo Q'; set -- 1", []),
        ("q; [[ -o posix ]] && echo $a $# $POSIXLY_CORRECT; shopt expand_aliases", ["Q", "16 1 y", "expand_aliases \ton"]),
        ("set +o posix; shopt -u expand_aliases", []),
        ("[[ -o posix ]] || echo no ${POSIXLY_CORRECT-none}; shopt expand_aliases", ["no none", "expand_aliases \toff"], 1)]),
    ("posix, function", [
        ("set() { echo my set; }; a=1; POSIXLY_CORRECT=1", []),
        ("type -t set; echo $a; [[ -o posix ]] && echo on", ["function", "1", "on"]),
        ("unset POSIXLY_CORRECT; set", ["my set"])]),
    ("nounset", [("set -u; a=1; unset PWD OLDPWD", []), ("echo $a $-; pwd", ["1 huBc", "/"])]),
    ("extdebug", [("shopt -s extdebug; a=1", []), ("shopt -q extdebug || echo not $a; set +TE", ["not 1"])]),
    ("noexec", [("a=1", []), ("a=2; set -n; a=3", []), ("echo $a", ["1"])]),
    ("BASH_ENV", [
        ("export BASH_ENV=/tmp/be; a=1; echo 'echo env' >/tmp/be", []),
        ("echo $BASH_ENV; bash -c 'echo in'", ["/tmp/be", "env", "in"])]),
    ("IFS", [
        ("IFS=o1b; a=1; set -- x y", []),
        ("echo \"$a$#\" \"$IFS\"; unset IFS", ["12 o1b"]),
        ("echo \"${IFS-none}\"", ["none"])]),
    ("xtracefd", [
        ("exec 7>/tmp/tr; BASH_XTRACEFD=7; set -x; a=1", []),
        ("set +x; echo $a ${BASH_XTRACEFD-none}", ["+ set +x", "1 none"])]),
    ("xtracefd 1", [
        ("BASH_XTRACEFD=1; set -x; a=1", ["+ a=1"]),
        ("echo $a", ["+ echo 1", "1"]),
        ("set +x", ["+ set +x"])]),
    ("assoc", [
        ("declare -A m; for ((i=0;i<3000;i++)); do m[\"k $i\"]=\"v'$i\"; done", []),
        ("echo ${#m[@]} \"${m[k 7]}\"", ["3000 v'7"])]),
    ("attrs", [
        ("declare -n ref=tgt; tgt=5; declare -i n=3; declare -l lo=ABC; declare -u up=abc; h=([2]=x [5]=y); declare -A e; declare -i u; declare -ir ri=7; declare -ax xa=(1)", []),
        ("ref=6; n+=4; lo+=DEF; up+=def; u=2+3; e[k]=1; echo $tgt $n $lo $up ${!h[@]} $u ${#e[@]} $ri; declare -p ref xa u", ["6 7 abcdef ABCDEF 2 5 5 1 7", "declare -n ref=\"tgt\"", "declare -ax xa=([0]=\"1\")", "declare -i u=\"5\""])]),
    ("own names", [
        ("code=1 nonce=2 text=3 k=4 l=5 i=6 n=7 t=8", []),
        ("ulimit -c >/dev/null; echo $code$nonce$text$k$l$i$n$t", ["12345678"])]),
    ("LC_ALL", [("LC_ALL=C; a=$'\\303\\244\\n'; b='ä'", []), ("LC_ALL=C.UTF-8; echo \"$a$b\" ${#b}", ["ä", "ä 1"])]),
    ("umask", [("umask 027", []), ("umask", ["0027"])]),
    ("ulimit", [
        ("ulimit -n 100; ulimit -Sc 0; a=1", []),
        ("ulimit -n; echo $a", ["100", "1"]),
        ("true", []),
        ("bash -c 'ulimit -n'", ["100"]),
        ("ulimit -Hn", ["100"])]),
    ("background", [("sleep 822 & p=$!", []), ("kill -0 $p && echo alive; kill $p", ["alive"])]),
    ("DEBUG", [
        ("trap 'echo \"D $BASH_COMMAND\"' DEBUG; a=1", ["D a=1"]),
        ("echo $a", ["D echo $a", "1"]),
        ("trap - DEBUG", ["D trap - DEBUG"]),
        ("echo $a", ["1"])]),
    ("RETURN", [
        ("trap 'echo R' RETURN; a=1", []),
        ("f() { :; }; declare -ft f; f; echo $a", ["R", "1"]),
        ("trap - RETURN", []),
        ("trap -p RETURN", [])]),
    ("signals", [
        ("trap 'echo usr' USR1; trap '' TERM; trap 'echo chld' CHLD; trap 'echo w' SIGWINCH CONT", []),
        ("kill -USR1 $$; kill $$; trap -p TERM; kill -CONT $$; trap - CHLD", ["usr", "trap -- '' SIGTERM", "w"])]),
    ("globs", [
        ("shopt -s failglob nullglob; set -f; a=1", []),
        ("echo $a; shopt -u failglob nullglob; set +f", ["1"])]),
    ("last", [("(exit 5)", [], 5), ("echo $?", ["5"])]),
    ("OPTIND", [("getopts a x -a; echo $OPTIND", ["2"]), ("echo $OPTIND", ["2"])]),
    ("SECONDS", [("SECONDS=100", []), ("[[ $SECONDS -ge 100 && $SECONDS -lt 1000 ]] && echo yes", ["yes"])]),
    ("dirstack", [
        ("cd /; pushd /usr >/dev/null; PWD=/nonsense; a=1", []),
        ("dirs -l; cd -P .; pwd", ["/usr /", "/usr"])]),
    ("PS4", [("PS4='$(echo +P) '; set -x; a=1", ["+P a=1"]), ("set +x", ["+P set +x"])]),
    ("exported fn", [("f() { echo ef; }; export -f f; a=1", []), ("bash -c f", ["ef"])]),
    ("extglob fn", [
        ("shopt -s extglob\ng() { case $1 in @(a|b)) echo yes;; esac; }", []),
        ("g a", ["yes"]),
        ("shopt -u extglob; type g | head -n 1", ["g is a function"]),
        ("shopt extglob", ["extglob        \toff"], 1)]),
    ("odd function names", [
        ("a-b() { echo ab; }; function x.y { echo xy; }; @z() { echo z; }", []),
        ("a-b; x.y; @z", ["ab", "xy", "z"])]),
    ("set -e code", [("set -e; a=1", []), ("false", [], 1), ("echo $a $?; set +e", ["1 0"])]),
    ("keyword", [("set -k; a=1", []), ("echo $a x=1", ["1"]), ("set +k", [])]),
    ("localvar", [("f() { local -r lr=1; local -A PWD; exit 2; }; a=1; f", [], 2), ("echo $a; pwd", ["1", "/"])]),
    ("histexpand", [("set -o history -o histexpand; a=1", []), ("echo $a", ["1"])]),
    ("verbose", [("set -v; a=1", None), ("set +v; echo $a", ["set +v; echo $a", "1"]), ("echo $a", ["1"])]),
    ("monitor", [("set -m; a=1", []), ("[[ $- == *m* ]] && echo $a; set +m", ["1"])]),
    ("TMOUT", [("TMOUT=1; a=1", []), ("echo $a", ["1"])]),
    ("huge line args", [("set -- $(seq 2000); a=1", []), ("echo $# ${2000}", ["2000 2000"])]),
    ("unset all", [
        ("unset BASHOPTS SHELLOPTS; a=1", ["bash: line 1: unset: BASHOPTS: cannot unset: readonly variable", "bash: line 1: unset: SHELLOPTS: cannot unset: readonly variable"]),
        ("echo $a", ["1"])]),
    ("readonly fn", [
        ("rf() { echo rf; }; readonly -f rf", []),
        ("rf; a=1", ["rf"]),
        ("rf() { :; }", ["bash: line 1: rf: readonly function"], 1),
        ("echo $a", ["1"])]),
]
for name, runs in STATES:
    sid = box.call("POST", "/session", {})[1]["session_id"]
    seen, want = [], []
    for row in runs:
        text, lines, code = (row + (0,))[:3]
        status, events = run(text)
        end = events[-1]
        seen.append((None if lines is None else [e["text"] for e in events if e["type"] == "stdout"],
                     int(end["error"]["evalue"]) if end["type"] == "error" else 0 if end["type"] == "execution_complete" else end))
        want.append((lines, code))
    left = run("builtin compgen -v; builtin compgen -A function | command grep -v '^__osb_[bdelopsv]'")[1]
    seen.append([e["text"] for e in left if e["type"] == "stdout" and "__osb" in e["text"]])
    t.eq(seen, want + [[]], "state: " + name)
    box.call("DELETE", "/session/" + sid)
box.delete()
t.done()
