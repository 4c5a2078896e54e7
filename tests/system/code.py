# SPDX-License-Identifier: Apache-2.0
"""Code contexts against a running daemon: a table of cells and their events for each language, then what hostile code tries."""
import collections
import json
import os
import re
import sys
import threading

import execd_client
from execd_client import Box, Tap, joined, once, short, until, when_free

t = Tap()
box = Box(memory="2Gi")


def Context(language, cwd=None):
    return execd_client.Context(box, language, cwd)


def text(value):
    return ("result", {"text": value, "text/plain": value})


def rich(value, **more):
    data = {"text": value, "text/plain": value}
    data.update({k.replace("_", "/"): v for k, v in more.items()})
    return ("result", data)


OUT, ERR = "stdout", "stderr"
# as if there were no IPython
PLAIN = [
    ("import sys; sys.modules['IPython'] = None", []),
    ("x = 5", []),
    ("!echo raw; echo err >&2; exit 3", [(OUT, "raw\n"), (ERR, "err\n")]),
    ("%cd /usr", []),
    ("import os; os.getcwd()", [text("'/usr'")]),
    ("%%bash\necho from $((1+1)); exit 4", [(OUT, "from 2\n"), ("error", ("CalledProcessError", None))]),
    ("%matplotlib inline\nx", [text("5")]),
    ("if x:\n  !echo nested", [(OUT, "nested\n")]),
    ("get_ipython()", [("error", ("NameError", None))]),
    ("%nosuch", [("error", ("SyntaxError", None))]),
]
# with it
IPYTHON = [
    ("7", [text("7")]),
    ("!echo raw; echo err >&2; exit 3", [(OUT, "raw\n"), (ERR, "err\n")]),
    ("_, _exit_code", [text("(7, 3)")]),
    ("x = 5\nfor i in range(2):\n  !echo {x} $i", [(OUT, "5 0\n5 1\n")]),
    ("%matplotlib inline\n%config InlineBackend.figure_format = 'retina'\nx", [text("5")]),
    ("get_ipython().display_formatter.formatters['text/html'].for_type(int, lambda v: '<i>%d</i>' % v)\n41 + 1", [rich("42", text_html="<i>42</i>")]),
    ("class D:\n  def _ipython_display_(self): display('shown')\nD()", [text("'shown'")]),
    ("from IPython.display import clear_output, HTML\nclear_output()\nprint('kept')", [(OUT, "kept\n")]),
    ("get_ipython().display_pub.publish({'text/plain': 'pub'})", [text("pub")]),
    ("%%bash\nexit 4", [("error", ("CalledProcessError", None))]),
    ("%cd /usr", [(OUT, "/usr\n")]),
]
TABLES = {
    "python": [
        ("2 + 2", [text("4")]),
        ("result = 2 + 2\nresult", [text("4")]),
        ("print('a')\nprint('b', end='')", [(OUT, "a\nb")]),
        ("x = 5", []),
        ("x", [text("5")]),
        ("x;", []),
        ("None", []),
        ("_ + 1", [text("6")]),
        ("import sys; sys.stderr.write('e\\n'); sys.stdout.buffer.write(b'\\xff\\n') and None", [(ERR, "e\n"), (OUT, "\ufffd\n")]),
        ("no_such", [("error", ("NameError", "name 'no_such' is not defined"))]),
        ("if", [("error", ("SyntaxError", None))]),
        ("def f(): return g()\ndef g(): raise ValueError('deep')\nf()", [("error", ("ValueError", "deep"))]),
        ("raise SystemExit(3)", [("error", ("SystemExit", "3"))]),
        ("input()", [("error", ("EOFError", None))]),
        ("import asyncio\nawait asyncio.sleep(0.01)\n42", [text("42")]),
        ("async def co(): return 7\nawait co()", [text("7")]),
        ("class H:\n  def __repr__(self): return 'H!'\n  def _repr_html_(self): return '<b>h</b>'\nH()", [rich("H!", text_html="<b>h</b>")]),
        ("display(1, 'a')", [text("1"), text("'a'")]),
        ("!echo raw", [(OUT, "raw\n")]),
        ("%%bash\necho from $((1+1))", [(OUT, "from 2\n")]),
        ("import subprocess\nprint('1')\n_ = subprocess.run(['echo', '2'])\nprint('3')", [(OUT, "1\n2\n3\n")]),
        ("import os\nif os.fork() == 0:\n  print('child')\n  os._exit(0)\n_ = os.wait()", [(OUT, "child\n")]),
        ("from multiprocessing import Pool\nimport math\nwith Pool(2) as p: print(p.map(math.sqrt, [4, 9]))", [(OUT, "[2.0, 3.0]\n")]),
        ("import pickle\nclass P: pass\ntype(pickle.loads(pickle.dumps(P()))).__name__", [text("'P'")]),
        ("'\\ud800'", [text("'\\ud800'")]),
        ("print('\\ud800')", [(OUT, "\\ud800\n")]),
        ("def r(): return r()\nr()", [("error", ("RecursionError", None))]),
        ("import sys; print('own', file=sys.__stdout__)", [(OUT, "own\n")]),
        ("import asyncio; asyncio.run(co())", [text("7")]),
        ("asyncio.get_event_loop().run_until_complete(co())", [text("7")]),
        ("late = asyncio.create_task(asyncio.sleep(0, 'd'))", []),
        ("await late", [text("'d'")]),
        ("async def told(): print('told')\nrest = asyncio.ensure_future(told())\nawait rest", [(OUT, "told\n")]),
        ("asyncio.create_task(co())\n1 / 0", [("error", ("ZeroDivisionError", "division by zero"))]),
        ("import inspect\ninspect.getsource(co)", [text("'async def co(): return 7\\n'")]),
        ("import threading\ndef fails(): raise ValueError('thr')\nfails = threading.Thread(target=fails, name='T')\n"
         "threading.excepthook = lambda args: print(args.exc_value)\nfails.start(); fails.join()", [(OUT, "thr\n")]),
        ("raise ValueError('a') from KeyError('b')", [("error", ("ValueError", "a"))]),
        ("exit()", [("error", ("SystemExit", None))]),
        ("breakpoint()", [(OUT, None), ("error", ("BdbQuit", ""))]),
        ("from __future__ import annotations\ndef ann(x: NoSuch): return 1\nann(2)", [text("1")]),
        ("x # ;", [text("5")]),
        ("x ; # silent", []),
        ("class D:\n  def _ipython_display_(self): display('shown')\nD()", [text("'shown'")]),
        ("class L:\n  def _repr_latex_(self): return '$x$'\n  def _repr_svg_(self): return '<svg/>'\n  def _repr_jpeg_(self): return b'jj'\n"
         "  def _repr_json_(self): return {'k': 1}\n  def __repr__(self): return 'L'\nL()",
         [("result", {"text": "L", "text/plain": "L", "text/latex": "$x$", "image/svg+xml": "<svg/>", "image/jpeg": "amo=",
                      "application/json": '{"k": 1}'})]),
        ("class M:\n  def _repr_mimebundle_(self, include=None, exclude=None): return {'text/plain': 'm', 'image/png': b'abc'}\nM()",
         [rich("m", image_png="YWJj")]),
        ("{'a' * 40: 1, 'b' * 40: 2}", [text("{'%s': 1,\n '%s': 2}" % ("a" * 40, "b" * 40))]),
        ("import sys, os; sys.stdout.isatty(), sys.stdout.fileno(), sys.stderr.fileno(), os.getsid(0) == os.getpid()",
         [text("(False, 1, 2, True)")]),
        ("[k for k in os.environ if 'OSB' in k], os.listdir('/proc/self/fd').count('197')", [text("([], 0)")]),
        ("import subprocess; subprocess.run('ls /proc/self/fd | grep -c 19', shell=True) and None", [(OUT, "0\n")]),
        ("import builtins\nfor name in ('len', 'isinstance', 'type', 'str', 'bytes', 'open'): setattr(builtins, name, None)\n1 + 1", [text("2")]),
        ("1 / 0", [("error", ("ZeroDivisionError", "division by zero"))]),
        ("import os; os.getcwd()", [text("'/w/py thon'")]),
    ],
    "javascript": [
        ("3 + 4", [text("7")]),
        ("console.log(3+4)", [(OUT, "7\n")]),
        ("const a = 5; let b = 6; var c = 7; a + b + c", [text("18")]),
        ("const a = 50; a", [text("50")]),
        ("console.error('e'); undefined", [(ERR, "e\n")]),
        ("throw new TypeError('bad')", [("error", ("TypeError", "bad"))]),
        ("throw {a: 1}", [("error", ("Error", "{ a: 1 }"))]),
        ("if (", [("error", ("SyntaxError", "Unexpected end of input"))]),
        ("await new Promise(r => setTimeout(() => r(42), 20))", [text("42")]),
        ("await Promise.reject(new RangeError('no'))", [("error", ("RangeError", "no"))]),
        ("{a: 1}", [text("{ a: 1 }")]),
        ("({b: [1, {c: 2}]})", [text("{ b: [ 1, { c: 2 } ] }")]),
        ("null", [text("null")]),
        ("10n ** 20n", [text("100000000000000000000n")]),
        ("new (class A { toHtml() { return '<i>a</i>' } })", [rich("A {}", text_html="<i>a</i>")]),
        ("display({x: 1})", [text("{ x: 1 }")]),
        ("require('path').join('a', 'b')", [text("'a/b'")]),
        ("import { basename as base } from 'path'\nbase('/x/y')", [text("'y'")]),
        ("(await import('os')).platform()", [text("'linux'")]),
        ("'import(1) in a text'", [text("'import(1) in a text'")]),
        ("require('child_process').spawnSync('echo', ['raw'], {stdio: 'inherit'}).status", [(OUT, "raw\n"), text("0")]),
        ("function r() { return r() }; r()", [("error", ("RangeError", "Maximum call stack size exceeded"))]),
        ("function f() { return 1 }\nfunction f() { return 2 }\nf()", [text("2")]),
        # what looks like an import, and is none
        ("const q = `a\nimport fs from 'fs'\n${[1 + 1]} import(x)`; q.length", [text("33")]),
        ("`${`import('${1}')`}\nexport const a`.length", [text("26")]),
        ("/import\\(['\"`]/.test(\"import('\")", [text("true")]),
        ("var b9 = 5; b9 /2/ 1 // import(x)\n", [text("2.5")]),
        ("if (true) /`/.test('x'); import { sep as s1 } from 'path'; s1", [text("'/'")]),
        ("class M { import(x) { return x + 1 } export() { return 3 } }\nnew M().import(1) + new M().export()", [text("5")]),
        ("({ import: 1, export: 2 }).import", [text("1")]),
        # what is one
        ("import def, * as ns from 'path'\ntypeof ns.join + typeof def.join", [text("'functionfunction'")]),
        ("import os, { platform as pf } from 'os'; [typeof os.cpus, pf()]", [text("[ 'function', 'linux' ]")]),
        ("import {\n  join, // a, b\n  dirname as dn,\n} from 'path'\njoin(dn('/a/b'), 'c')", [text("'/a/c'")]),
        ("import 'fs'", []),
        ("import.meta.dirname === process.cwd()", [text("true")]),
        ("require('fs').writeFileSync('/tmp/j.json', '{\"a\":1}')\nimport j from '/tmp/j.json' with { type: 'json' }; j", [text("{ a: 1 }")]),
        ("import { x1 } from 'no-such-module'", [("error", ("Error", None))]),
        ("export const e1 = 5; export function f1() { return e1 }\nf1()", [text("5")]),
        ("export default { a: 1 }", [text("{ a: 1 }")]),
        ("export default class { m() { return 2 } }\nnew exports.default().m()", [text("2")]),
        ("export { e1, f1 as g1 }; export * as px from 'path'; px.sep", [text("'/'")]),
        # names declared again, each in another way than before
        ("let l = 1, m = 2; l", [text("1")]),
        ("console.log('once'); const l = 3; l", [(OUT, "once\n"), text("3")]),
        ("let l = 4; l++; l", [text("5")]),
        ("var v = 1; function g() { return 1 }", []),
        ("let v = 2; const g = 3; v + g", [text("5")]),
        ("import l from 'path'; l.sep", [text("'/'")]),
        ("let twice = 1; let twice = 2", [("error", ("SyntaxError", "Identifier 'twice' has already been declared"))]),
        ("const K = 1", []),
        ("let K = 2; K = 3", [("error", ("SyntaxError", "Identifier 'K' has already been declared"))]),
        ("K", [text("1")]),
        ("let half = 1; half2 = ;", [("error", ("SyntaxError", None))]),
        ("typeof half", [text("'undefined'")]),
        ("let full = 1; throw new Error('x')", [("error", ("Error", "x"))]),
        ("full", [text("1")]),
        # await, timers, rejections
        ("for await (const i of [Promise.resolve(1), 2]) console.log(i)", [(OUT, "1\n2\n")]),
        ("const { a: [aw] } = await Promise.resolve({ a: [await 7] }); aw", [text("7")]),
        ("function na() { await 1 }", [("error", ("SyntaxError", None))]),
        ("await new Promise(r => { process.once('uncaughtExceptionMonitor', r); setTimeout(() => { throw 'late' }) }); 1",
         [(ERR, "Uncaught 'late'\n"), text("1")]),
        ("Promise.reject('unh'); await new Promise(r => process.once('unhandledRejection', () => r())); 2",
         [(ERR, "Uncaught (in promise) 'unh'\n"), text("2")]),
        ("throw null", [("error", ("Error", "null"))]),
        ("undefined", []),
        ("class Own extends Error { constructor(m) { super(m); this.name = 'Own' } }; throw new Own('o')", [("error", ("Own", "o"))]),
        ("({ toPng() { return Buffer.alloc(5 << 20) }, toHtml() { return 'h' } })",
         [(ERR, "[image/png of 6990508 bytes is too large and was left out]\n"), ("result", {"text": "{ toPng: [Function: toPng], toHtml: [Function: toHtml] }",
          "text/plain": "{ toPng: [Function: toPng], toHtml: [Function: toHtml] }", "text/html": "h"})]),
        ("process.nextTick(() => console.log('tick')); await 1; console.log('await')", [(OUT, "await\ntick\n")]),
    ],
    "typescript": [
        ("const n: number = 5; n + 1", [text("6")]),
        ("interface P { a: string }\nfunction g<T>(x: T): T { return x }\ng<P>({a: 'b'}).a", [text("'b'")]),
        ("enum E { A, B }\nE.B", [text("1")]),
        ("throw new Error('ts')", [("error", ("Error", "ts"))]),
        ("let y: = 3", [("error", ("SyntaxError", None))]),
        ("console.log(n)", [(OUT, "5\n")]),
    ],
    "bash": [
        ("echo $((8+9))", [(OUT, "17\n")]),
        ("a=(1 '2 3'); f() { echo f$1; }; cd /usr; echo e >&2", [(ERR, "e\n")]),
        ("f \"${a[1]}\"; pwd; exit 3", [(OUT, "f2 3\n/usr\n"), ("error", ("CommandExecError", "3"))]),
        ("echo $?", [(OUT, "3\n")]),
        ("printf 'no newline'", [(OUT, "no newline")]),
        ("kill -9 $$", [("error", ("CommandExecError", "-1"))]),
        ("f again", [(OUT, "fagain\n")]),
    ],
    "java": [
        ("1 + 1", [text("2")]),
        ("int x = 20;\nSystem.out.println(\"hi\");\nx * 2", [(OUT, "hi\n"), text("40")]),
        ("x", [text("20")]),
        ("String s = \"a\";", []),
        ("System.err.println(s)", [(ERR, "a\n")]),
        ("throw new IllegalStateException(\"no\");", [("error", ("EvalException", "java.lang.IllegalStateException: no"))]),
        ("int y = ;", [("error", ("CompilationException", None))]),
        ("int sq(int n) { return n * n; }\nclass C { int q = sq(3); }\nnew C().q", [text("9")]),
        ("System.out.println(\"1\"); new ProcessBuilder(\"echo\", \"2\").inheritIO().start().waitFor(); System.out.println(\"3\");",
         [(OUT, "1\n2\n3\n")]),
        ("for (int i = 0; i < 3; i++) { System.out.println(\"o\" + i); System.err.println(\"e\" + i); }",
         [(OUT, "o0\n"), (ERR, "e0\n"), (OUT, "o1\n"), (ERR, "e1\n"), (OUT, "o2\n"), (ERR, "e2\n")]),
        ("System.out.print(\"\u00fc\u20ac\U0001f600\")", [(OUT, "\u00fc\u20ac\U0001f600")]),
        ("List.of(1, 2).stream().map(i -> i * 2).collect(Collectors.toList())", [text("[2, 4]")]),
    ],
    "go": [
        ("fmt.Println(\"hi\")", [(OUT, "hi\n")]),
        ("1 + 1", [text("2")]),
        ("func add(a, b int) int { return a + b }", []),
        ("add(2, 3)", [text("5")]),
        ("x := 4\nx * 2", [text("8")]),
        ("import \"strings\"\nstrings.ToUpper(\"abc\")", [text("ABC")]),
        ("undefined1", [(ERR, "cell_7.go:1: undefined: undefined1\n"), ("error", ("CompilationError", None))]),
        ("os.Exit(3)", [("error", ("Error", "exit status 3"))]),
        ("package main\nfunc main() { println(\"whole\") }", [(ERR, "whole\n")]),
        ("fmt.Println(1)\nc := exec.Command(\"echo\", \"2\")\nc.Stdout = os.Stdout\nc.Run()\nfmt.Println(3)", [(OUT, "1\n2\n3\n")]),
        ("var total = 40\nfunc more() int { total++; return total }", []),
        ("more() + more()", [text("83")]),
        ("total", [text("40")]),
    ],
}
NEEDS = {"python": "/usr/bin/python3", "javascript": "/usr/bin/node", "typescript": "/usr/bin/node", "bash": "/bin/bash",
         "java": "/usr/bin/java", "go": "/usr/bin/go"}


def fits(got, want):
    """An error's message that is None may be anything."""
    if len(got) != len(want):
        return False
    for a, b in zip(got, want):
        if b[0] == "error" and a[0] == "error" and b[1][1] is None:
            a = ("error", (a[1][0], None))
        if b == (OUT, None) == (a[0], None):
            a = b
        if a != b:
            return False
    return True


def table(language):
    if not os.path.exists(NEEDS[language]):
        return t.skip(language, "no %s on this host" % NEEDS[language])
    c = Context(language, "/w/py thon" if language == "python" else None)
    if not t.eq(c.status, 200, "%s: a context" % language):
        return print("#", c.reply)
    want = {"id": c.id, "language": language}
    t.eq({k: v for k, v in c.reply.items() if k != "cwd"}, want, "%s: its reply" % language)
    t.eq(box.call("GET", "/code/contexts/" + c.id), (200, want), "%s: it is there" % language)
    for i, (code, events) in enumerate(TABLES[language]):
        got = c.run(code)
        t.ok(fits(got, events), "%s: %s" % (language, code[:60].replace("\n", " | ")), {"got": got, "want": events})
        t.eq(c.count, i + 1, "%s: the count" % language) if i in (0, 5) else None
    other = Context(language)
    t.ok(other.id != c.id, "%s: a second context" % language)
    interrupts = {"python": "print('up')\nwhile True: pass", "javascript": "console.log('up'); while (true) {}",
                  "typescript": "console.log('up'); await new Promise(() => {})", "bash": "echo up; while :; do :; done",
                  "java": "System.out.println(\"up\"); while (true) {}", "go": "fmt.Println(\"up\"); for {}"}
    got = c.run(interrupts[language], once(OUT, lambda: t.eq(c.interrupt(), 200, "%s: interrupt" % language) and None))
    t.ok(got and got[-1][0] == "error" and got[-1][1][0] == "KeyboardInterrupt",
         "%s: an interrupt ends a loop" % language, got)
    sleeps = {"python": "import time\ntime.sleep(60)", "javascript": "await new Promise(r => setTimeout(r, 60000))", "java": "Thread.sleep(60000);",
              "typescript": "await 1; while (true) {}", "go": "time.Sleep(time.Minute)"}
    if language in sleeps:  # the signal waits until the driver says that its run has begun; lost, it would come again after 5 s
        got = c.run(sleeps[language], once("init", lambda: c.interrupt() and None))
        t.eq(got, [("error", ("KeyboardInterrupt", ""))], "%s: an interrupt that comes with the first event" % language)
    if language == "javascript":  # told twice, by a signal and a frame: the later one is not the next cell's
        got = [(c.run(sleeps[language], once("init", lambda: c.interrupt() and None)), c.run("1")) for _ in range(20)]
        t.eq(got, [([("error", ("KeyboardInterrupt", ""))], [text("1")])] * 20, "%s: interrupts are each of one cell" % language)
    code, events = TABLES[language][1 if language in ("go", "bash") else 0]
    got = c.run(code)
    t.ok(fits(got, events), "%s: and the context goes on" % language, got)
    t.eq(other.delete()[0], 200, "%s: delete" % language)
    t.eq(box.call("GET", "/code/contexts/" + other.id)[0], 404, "%s: deleted" % language)
    return c


# What takes ten seconds of its own goes on beside the rest: who does not listen is asked twice, and killed.
stubborn = {}


def ask_twice(name, code):
    c = Context("python")
    stubborn[name] = c.run(code, once(OUT, lambda: c.interrupt() and None)), c.run("'next'"), c.count
    c.delete()


patient = [threading.Thread(target=ask_twice, args=row) for row in (
    ("twice", "import signal, time\nn = 0\nwhile n < 2:\n  try:\n    print('up', flush=True)\n    time.sleep(60)\n  except KeyboardInterrupt: n += 1\nprint(n)"),
    ("killed", "import signal\nsignal.signal(2, signal.SIG_IGN)\nprint('up', flush=True)\nimport time; time.sleep(60)"))]
[thread.start() for thread in patient]
contexts = {name: table(name) for name in TABLES}
[thread.join() for thread in patient]
t.eq(stubborn["twice"], ([(OUT, "up\nup\n2\n")], [text("'next'")], 2), "a second signal follows the first")
t.eq((stubborn["killed"][0][1][1][0], stubborn["killed"][1:]), ("KernelDied", ([text("'next'")], 1)), "who ignores both is killed; the context starts again, and its count")

def answers(path):
    try:
        return box.call("GET", path)[0] == 200
    except OSError:
        return False


def python_wait(path):
    return "import os, time\nfor _ in range(1200):\n  if os.path.exists(%r): break\n  time.sleep(0.05)\nelse: raise TimeoutError\n" % path


# ---- contexts and runs ----

status, listed = box.call("GET", "/code/contexts")
t.eq(sorted(c["language"] for c in listed), sorted(k for k, v in contexts.items() if v), "the list")
t.eq([c["language"] for c in box.call("GET", "/code/contexts?language=python")[1]], ["python"], "by language")
py = contexts["python"]
a, b = Context("python"), Context("python")
a.run("secret = 1")
t.eq(b.run("secret")[0][1][0], "NameError", "contexts of one language are apart")
met = []
threads = [threading.Thread(target=lambda c=c, me=me, you=you: met.append(c.run("open('/tmp/%s', 'w')\n%s" % (me, python_wait("/tmp/" + you))))
                            ) for c, me, you in ((a, "met_a", "met_b"), (b, "met_b", "met_a"))]
[th.start() for th in threads]
[th.join() for th in threads]
t.eq([m[-1:] for m in met], [[], []], "and run side by side: each waits for the other")


def second_run():
    t.eq(short(a.stream("1")[1])[1:], [("error", ("RUNTIME_ERROR", "session is busy"))], "one run at a time")
    box.command("touch /tmp/tried")


t.eq(a.run(python_wait("/tmp/tried"), once("init", second_run)), [], "the first one goes on")
status, events = box.stream("/code", {"code": "d = 1", "context": {"language": "python"}})
standard = events[0]["text"]
status, events = box.stream("/code", {"code": "d", "context": {"language": "python"}})
t.eq((events[0]["text"], events[2]["execution_count"], events[3]["results"]["text"]), (standard, 2, "1"), "a default context, shared")
got = a.run("print('early')\n%sprint('late')" % python_wait("/tmp/early"), once(OUT, lambda: box.command("touch /tmp/early")))
t.eq(got, [(OUT, "early\nlate\n")], "output comes while it is made")
got = a.run("print('half', end='')\n%sprint(' line')" % python_wait("/tmp/half"), once(OUT, lambda: box.command("touch /tmp/half")))
t.eq(got, [(OUT, "half line\n")], "the part of a line leaves without its rest")
got = a.run("import sys, threading\ndef say(c):\n    for i in range(2000): sys.stdout.write(c)\n"
            "ts = [threading.Thread(target=say, args=(c,)) for c in 'abcd']\n[t.start() for t in ts]; [t.join() for t in ts];")
t.eq((len(got), sorted(collections.Counter(got[0][1]).items())), (1, [(c, 2000) for c in "abcd"]), "what four threads write at once is told once")
status, events = box.stream("/code", {"code": "echo $((1+1)); exit 3"})
t.eq([e["type"] for e in events if e["type"] != "ping"], ["init", OUT, "error"], "no language is a shell command")
a.stream("e = 1\nprint('x')\n%se = 2" % python_wait("/tmp/left"), once(OUT, lambda: "leave"))
box.command("touch /tmp/left")
t.eq(when_free(a, "e"), [text("2")], "a client that leaves does not end the run")
for body, want in (({}, (400, "INVALID_REQUEST_BODY")), ({"code": "1", "context": {"language": "ruby"}}, (500, "RUNTIME_ERROR")),
                   ({"code": "1", "context": {"language": "sql"}}, (501, "GENERAL::NOT_IMPLEMENTED")),
                   ({"code": "1", "context": {"id": "nope"}}, (500, "RUNTIME_ERROR"))):
    status, reply = box.stream("/code", body)
    t.eq((status, reply["code"]), want, "refused: %s" % json.dumps(body))
t.eq(box.call("POST", "/code/context", {"language": "ruby"})[0], 500, "a context of no language that we know")
t.eq(box.call("DELETE", "/code/contexts")[0], 400, "delete needs a language")
t.eq(box.call("DELETE", "/code?id=nope")[0], 500, "nothing to interrupt")
bare = Context("python", "/none/of\nthese/new")
t.eq(bare.run("import os; os.getcwd()"), [text("'/none/of\\nthese/new'")], "the directory is made")
bare.delete()
box.call("POST", "/directories", {"/w/file": {"mode": 755}})


def cells(context, rows, name):
    for code, events in rows:
        got = context.run(code)
        t.ok(fits(got, events), "%s: %s" % (name, code[:60].replace("\n", " | ")), {"got": got, "want": events})


plain = Context("python")
cells(plain, PLAIN, "without IPython")
got = plain.run("%time 40 + 2")
t.ok(len(got) == 2 and re.match(r"Wall time: [\d.e+-]+ ms\n$", got[0][1]) and got[1] == text("42"), "without IPython: %time", got)
got = plain.run("%pip --version")
t.ok("pip" in str(got), "without IPython: %pip", got)
plain.delete()
if box.command("python3 -c 'import IPython' 2>&1") == "":
    got = a.run("from IPython.display import display as show, HTML\nshow(HTML('<b>i</b>'))")
    t.ok(len(got) == 1 and got[0][0] == "result" and got[0][1]["text/html"] == "<b>i</b>", "IPython's display() is ours", got)
    got = a.run("%%capture kept\nprint('inside')")
    t.eq(got + a.run("kept.stdout"), [text("'inside\\n'")], "a magic of IPython's")
    t.eq(a.run("names = !echo one; echo two\nlist(names)"), [text("['one', 'two']")], "a command's lines as a value")
    got = a.run("%nosuchmagic")
    t.ok("nosuchmagic" in str(got), "one that there is not", got)
    t.eq([x[:1] for x in a.run("exit(0)")], [("error",)], "and exit() is still Python's")
    own = Context("python")
    cells(own, IPYTHON, "with IPython")
    own.delete()
    own = Context("python")
    t.eq(own.run("import IPython\nIPython.get_ipython() is not None"), [text("True")], "with IPython: a library that asks for the shell finds it")
    own.delete()
else:
    t.skip("IPython's magics and display()", "no IPython on this host")
if box.command("python3 -c 'import matplotlib' 2>&1") == "":
    status, events = a.stream("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('after')")
    shown = [e["results"] for e in events if e["type"] == "result"]
    t.ok(len(shown) == 1 and shown[0].get("image/png", "").startswith("iVBOR") and shown[0]["text"].startswith("<Figure"),
         "a figure is shown as PNG", short(events))
else:
    t.skip("a figure is shown as PNG", "no matplotlib on this host")

# ---- which interpreter, and what is refused ----

for body, want in (({}, 400), ({"language": ""}, 400), ({"language": None}, 400), ({"language": 5}, 400), ({"language": "command"}, 500), ({"language": "sql"}, 501)):
    t.eq(box.call("POST", "/code/context", body)[0], want, "a context refused: %s" % json.dumps(body))
t.eq(box.call("POST", "/code/context", b"")[0], 400, "a context refused: an empty body")
for language in ("command", "background-command", "sql"):
    status, reply = box.call("GET", "/code/contexts?language=" + language)
    t.eq((status, reply["message"]), (500, "unsupported language context operation: " + language), "no list of %s" % language)
other = execd_client.Context(box, "bash")
t.eq(short(box.stream("/code", {"code": "echo $BASH_VERSION | head -c0; echo own", "context": {"id": other.id, "language": "python"}})[1])[:2],
     [("init", other.id), ("stdout", "own\n")], "a context's own language counts")
other.delete()
found = Box(env={"EXECD_ENVS": "/w/env"})
found.command("mkdir -p /w/bin; cd /w; for n in bin/python3 own; do printf '#!/bin/sh\\nMARK=%s exec /usr/bin/python3 \"$@\"\\n' $n >$n; done; "
              "printf '#!/bin/sh\\nexec /usr/bin/python3 -c \"import sys; sys.version_info = (3, 7, 3); exec(sys.argv[1])\" \"$2\"\\n' >old; chmod 755 own old bin/python3")


def with_env(lines):
    found.command("printf '%s' >/w/env" % lines)
    return found


MARK = "import os; os.environ['MARK']"
t.eq(execd_client.Context(with_env("PATH=/w/bin:/usr/bin:/bin\\n"), "python").run(MARK), [text("'bin/python3'")], "an interpreter is found along the env file's PATH")
t.eq(execd_client.Context(with_env("PATH=/w/bin:/usr/bin:/bin\\nEXECD_PYTHON=/w/own\\n"), "python").run(MARK), [text("'own'")], "EXECD_PYTHON comes first")
reply = execd_client.Context(with_env("EXECD_PYTHON=/w/old\\n"), "python").reply
NONE = "language runtime server not configured, please check your image runtime"
t.ok(NONE in reply["message"] and "3.7 is too old" in reply["message"], "a Python before 3.8 is told", reply)
for language in ("python", "javascript", "typescript", "java", "go"):
    c = execd_client.Context(with_env("PATH=/none\\n"), language)
    t.eq((c.status, NONE in c.reply["message"]), (500, True), "no interpreter of %s" % language)
found.command("PATH=/bin:/usr/bin; rm -rf /tmp /var/tmp; printf 'PATH=/usr/bin:/bin\\n' >/w/env")
t.eq([execd_client.Context(found, language).run(code) for language, code in (("python", "1 + 1"), ("bash", "echo 2"))], [[text("2")], [("stdout", "2\n")]],
     "without /tmp")
found.delete()

# ---- tracebacks, what is too large, limits ----

PICTURE = """class I:
  def __init__(self, *sizes): self.sizes = sizes
  def __repr__(self): return 'I'
  def _repr_png_(self): return b'p' * self.sizes[0]
  def _repr_jpeg_(self): return b'j' * self.sizes[1]
  def _repr_html_(self): return 'h' * self.sizes[2]
"""


def kinds_of(events):
    return [(e["type"], e["text"] if e["type"] == ERR else {k: len(v) for k, v in e["results"].items()}) for e in events if e["type"] in (ERR, "result")]


def note(mime, size):
    return (ERR, "[%s of %d bytes is too large and was left out]\n" % (mime, size))


c = Context("python")
status, events = c.stream("def g():\n    raise ValueError('deep')\ng()")
t.eq([e["error"]["traceback"] for e in events if e["type"] == "error"],
     [["Traceback (most recent call last):", '  File "<cell 1>", line 3, in <module>\n    g()', '  File "<cell 1>", line 2, in g\n    raise ValueError(\'deep\')',
       "ValueError: deep"]], "a traceback: the cell's own lines, without ours and without colours")
status, events = c.stream("x = 1\nx = = 2")
t.eq([e["error"]["traceback"][0] for e in events if e["type"] == "error"], ['  File "<cell 2>", line 2'], "one of what cannot be read is the place alone")
status, events = c.stream("import asyncio\nawait asyncio.sleep(0)\nno_such")
t.eq([len(e["error"]["traceback"]) for e in events if e["type"] == "error"], [3], "a cell that awaits: without the loop's")
status, events = c.stream("import os\nfor i in range(200):\n  _ = os.write(1, b'<%d>' % i)\n  display(i)")
early = [e["results"]["text"] for i, e in enumerate(events) if e["type"] == "result" and "<%s>" % e["results"]["text"] not in joined(events[:i])]
t.eq((early, len([e for e in events if e["type"] == "result"])), ([], 200), "what was written to a descriptor before a frame comes before it")
c.run(PICTURE)
for code, want in (("I(2500000, 10, 10)", [("result", {"text": 1, "text/plain": 1, "text/html": 10, "image/png": 3333336, "image/jpeg": 16})]),
                   ("I(2500000, 1000000, 10)", [note("image/png", 3333336), ("result", {"text": 1, "text/plain": 1, "text/html": 10, "image/jpeg": 1333336})]),
                   ("I(2500000, 2000000, 900000)", [note("image/png", 3333336), ("result", {"text": 1, "text/plain": 1, "text/html": 900000, "image/jpeg": 2666668})]),
                   ("I(3200000, 3200000, 10)", [note("image/png", 4266668), note("image/jpeg", 4266668), ("result", {"text": 1, "text/plain": 1, "text/html": 10})])):
    t.eq(kinds_of(c.stream(code)[1]), want, "4 MiB for an event, images go first, the largest of them: %s" % code)
ask = {"code": "import time; time.sleep(60)", "context": {"id": c.id}, "timeout": 300}
t.eq(short(box.stream("/code", ask)[1])[1:], [(ERR, "[interrupted after the timeout of 300 ms]\n"), ("execution_count", 10),
                                              ("error", ("KeyboardInterrupt", "")), ("execution_complete", None)], "a timeout is an interrupt")
t.eq(c.run("1"), [text("1")], "and the context goes on")
for more, want in (({"timeout": -1}, 400), ({"timeout": "5"}, 400), ({"envs": {"A": "b"}}, 400), ({"Envs": {"A": "b"}}, 400), ({"TIMEOUT": -1}, 400), ({"timeout": 0, "envs": {}}, 200), ({"timeout": None, "envs": None}, 200)):
    t.eq(box.stream("/code", dict({"code": "1", "context": {"id": c.id}}, **more))[0], want, "with %s" % json.dumps(more))
t.eq(joined(box.stream("/code", {"code": "echo $A", "envs": {"A": "b"}, "timeout": 60000})[1]), "b", "a command by /code has both")
got = c.run("import subprocess\nsubprocess.run(['sh', '-c', 'echo up; sleep 6001; sleep 6002'])", once(OUT, lambda: c.interrupt() and None))
t.eq((got[1:], until(lambda: box.command("pgrep -fc '[s]leep 600' || true") == "0")), ([("error", ("KeyboardInterrupt", ""))], True), "an interrupt reaches what the cell has started")
t.eq((c.interrupt(), c.run("2")), (200, [text("2")]), "an interrupt while nothing runs is nobody's")
got = c.run("import subprocess\nsubprocess.Popen(['setsid', 'sleep', '6003'])\nprint('up', flush=True)\nimport time; time.sleep(60)",
            once(OUT, lambda: t.eq(c.delete()[0], 200, "delete while it runs") and None))
t.eq(got[-1], ("error", ("KernelDied", "the context was deleted")), "is told to the run")
t.ok(until(lambda: box.command("pgrep -fc '[s]leep 6003' || true") == "0"), "and its whole tree is gone")

# ---- hostile cells: each harms its own context only, and the next run says or shows it ----

DIED = "KernelDied"
HOSTILE = [
    ("exits", "import os; os._exit(3)", DIED),
    ("kills itself", "import os; os.kill(os.getpid(), 9)", DIED),
    ("crashes", "import ctypes; ctypes.string_at(0)", DIED),
    ("kills its parent", "import os\nos.kill(os.getppid(), 9)", "PermissionError"),
    ("closes all descriptors", "import os\nos.closerange(3, 1024)", DIED),
    ("writes garbage to the driver's pipe", "import os\nos.write(199, b'garbage')", DIED),
    ("announces a frame of 4 GiB", "import os\nos.write(199, b'R\\xff\\xff\\xff\\xff')", DIED),
    ("ends a run that is not its own", "import os\nos.write(199, b'Z\\x05\\0\\0\\0\\x01\\0\\0\\0' + b'9')\n'mine'", None),
    ("says hello again", "import os\nos.write(199, b'H\\x01\\0\\0\\0x')", DIED),
    ("a list that does not fit", "import os\nos.write(199, b'D\\x08\\0\\0\\0\\xff\\0\\0\\0aaaa')", DIED),
    ("prints what looks like an event", "print('{\"type\":\"execution_complete\"}\\n\\n')", None),
    ("replaces sys.stdout", "import sys\nsys.stdout = None\nsys.stderr = 5\nprint('x')", None),
    ("forks and lets go", "import os\nif os.fork() == 0:\n  os.setsid()\n  import time; time.sleep(30)", None),
    ("forks, and both go on", "import os\n_ = os.fork()", None),
    ("takes more memory than there is", "x = bytearray(3 << 30)", DIED),
    ("raises something odd", "class E(BaseException):\n  def __str__(self): raise self\nraise E()", "E"),
    ("a value that cannot be shown", "class V:\n  def __repr__(self): raise KeyError('no')\nV()", None),
    ("a value that ends the process", "class W:\n  def __repr__(self): import os; os._exit(1)\nW()", DIED),
    ("a very long value", "'<' * 3000000", None),
    ("ignores interrupts", "import signal\nsignal.signal(2, signal.SIG_IGN)\nimport time\ntime.sleep(0.1)", None),
    ("leaves a thread that exits", "import threading, os\nprint(os.getpid(), flush=True)\nthreading.Timer(0.2, lambda: os._exit(1)).start()", None),
]
for name, code, ename in HOSTILE:
    c = Context("python")
    status, events = c.stream(code)
    errors = [e["error"]["ename"] for e in events if e["type"] == "error"]
    t.ok(errors == ([ename] if ename else []) and events[-1]["type"] == "execution_complete", "hostile: %s" % name, short(events)[-3:])
    if name == "leaves a thread that exits":
        pid = [e["text"].strip() for e in events if e["type"] == OUT][0]
        until(lambda: box.command("[ -e /proc/%s ] && echo there" % pid) == "")
        got = c.run("1 + 1")
        t.ok(got[0][0] == ERR and "its state is lost" in got[0][1] and got[1:] == [text("2")], "the next run says so", got)
    t.eq(c.run("1 + 1"), [text("2")], "hostile: %s: the next run" % name)
    t.eq(c.count, 1 if ename == DIED else 2, "hostile: %s: and its count" % name)
    c.delete()
t.eq(a.run("e"), [text("2")], "the others have not noticed")
many = [Context("python") for _ in range(5)]
flood = "import os\nos.write(199, b'D\\0\\0\\x2f\\0')\nfor _ in range(10): os.write(199, b'x' * 300000)"
ends = []
threads = [threading.Thread(target=lambda c=c: ends.append(c.run(flood)[-1])) for c in many]
[th.start() for th in threads]
until(lambda: any("too large" in str(e) for e in ends))
[box.call("DELETE", "/code/contexts/" + c.id) for c in many]
[th.join() for th in threads]
t.ok(any("too large" in str(e) for e in ends), "hostile: unfinished values of several contexts are bounded together", ends)
c = Context("python")
size, kinds = 0, set()


def measure(event):
    global size
    kinds.add(event["type"])
    size += len(event.get("text", "")) if event["type"] == OUT else 0


c.stream("import sys\nfor _ in range(16): sys.stdout.write('x' * (8 << 20))", measure)
t.eq(size, 128 << 20, "128 MiB through the driver")
size = 0
c.stream("import os\nblock = b'y' * (1 << 20)\nfor _ in range(128): os.write(1, block)", measure)
t.eq(size, 128 << 20, "128 MiB past the driver")
c.stream("while True: print('z' * 1000)", once(OUT, lambda: "leave"))
t.eq(c.interrupt(), 200, "an endless run that nobody listens to")
got = when_free(c, "3")
t.eq(got, [text("3")], "can be interrupted")
js = contexts["javascript"]
if js:
    for name, code, ename in (("exits", "process.exit(2)", DIED), ("aborts", "process.abort()", DIED),
                              ("exits while it waits", "setTimeout(() => process.exit(3)); await new Promise(() => {})", DIED),
                              ("puts nothing in place of what we use", "JSON = Buffer = Promise = Object = String = null; 1", None),
                              ("closes its pipe", "require('fs').closeSync(199); 1", DIED),
                              ("takes away what it is built on", "delete globalThis.console; Array.prototype.map = null; 1", None)):
        c = Context("javascript")
        status, events = c.stream(code)
        errors = [e["error"]["ename"] for e in events if e["type"] == "error"]
        t.ok(errors == ([ename] if ename else []), "hostile script: %s" % name, short(events)[-3:])
        c.delete()
t.eq(box.call("DELETE", "/code/contexts?language=python")[0], 200, "all of a language")
t.eq(box.call("GET", "/code/contexts?language=python")[1], [], "are gone")
t.ok(until(lambda: box.command("pgrep -fc '[f]dopen.197' || true") == "0"), "and their processes")

# ---- a gateway that is killed: interpreters end with it, the sandbox does not ----

if len(sys.argv) > 2:
    c = Context("python")
    c.run("x = 1")
    sid = box.call("POST", "/session", {})[1]["session_id"]
    pid = re.findall(r"monitor: gateway started, pid (\d+)", open(sys.argv[2]).read())[-1]
    os.kill(int(pid), 9)
    until(lambda: answers("/ping"))
    left = until(lambda: box.command("pgrep -fc '[f]dopen.197' || true") == "0")
    t.ok(left, "a killed gateway: no interpreter is left behind")
    t.eq(c.run("x")[0][1], 500, "a killed gateway: its contexts are gone, and that is told")
    t.eq(box.stream("/session/%s/run" % sid, {"command": "true"})[0], 500, "a killed gateway: its sessions as well")
    c = Context("python")
    t.eq(c.run("1 + 1"), [text("2")], "a killed gateway: new ones work")
made = [Context("bash") for _ in range(30)]
t.eq(sorted({c.status for c in made}), [200, 503], "a bound on contexts")
box.delete()
t.done()
