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
box.delete()
t.done()
