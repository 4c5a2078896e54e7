# SPDX-License-Identifier: Apache-2.0
"""TypeScript cells with a Node that takes types off by itself; that Node goes into a sandbox by an upload."""
import os
import sys

from execd_client import Box, Context, Tap, once

t = Tap()
OUT, ERR = "stdout", "stderr"
NODE = sys.argv[2]


def text(value):
    return ("result", {"text": value, "text/plain": value})


CELLS = [
    ("typeof require('module').stripTypeScriptTypes", [text("'function'")]),
    ("const n: number = 5; n + 1", [text("6")]),
    ("interface P { a: string }\nfunction g<T>(x: T): T { return x }\ng<P>({a: 'b'}).a", [text("'b'")]),
    ("enum E { A, B }\nE.B", [text("1")]),
    ("E.A", [text("0")]),
    ("class C { constructor(private readonly x: number) {} get(): number { return this.x } }\nnew C(3).get()", [text("3")]),
    ("abstract class S { abstract area(): number }\nclass Q extends S { area() { return 4 } }\nnew Q().area()", [text("4")]),
    ("namespace N { export const v = 7 }\nN.v", [text("7")]),
    ("type U = 'a' | 'b'; const u = 'a' satisfies U; u as string", [text("'a'")]),
    ("let late!: string; late = 'x'; late!.length", [text("1")]),
    ("const t: [number, string?] = [1]; t", [text("[ 1 ]")]),
    ("await new Promise<number>((r: (v: number) => void) => setTimeout(() => r(42), 5))", [text("42")]),
    ("import type { Stats } from 'fs'\nimport { basename as base } from 'path'\nbase('/x/y')", [text("'y'")]),
    ("const n: string = 'again'; n", [text("'again'")]),
    ("throw new Error('ts')", [("error", ("Error", "ts"))]),
    ("let y: = 3", [("error", ("SyntaxError", None))]),
    ("console.log(n as any)", [(OUT, "again\n")]),
    ("({a: 1} as {a: number})", [text("{ a: 1 }")]),
    ("{a: 1}", [text("{ a: 1 }")]),
]

box = Box(memory="2Gi", env={"PATH": "/opt/node/bin:/usr/bin:/bin"})
status, reply = box.upload("/opt/node/bin/node", NODE, 755)
t.eq(status, 200, "a Node of %d MB is uploaded" % (os.path.getsize(NODE) >> 20))
c = Context(box, "typescript")
if t.eq(c.status, 200, "a context"):
    for code, want in CELLS:
        got = c.run(code)
        if want[-1][0] == "error" and want[-1][1][1] is None:
            got = [(kind, (value[0], None) if kind == "error" else value) for kind, value in got]
        t.eq(got, want, code[:60].replace("\n", " | "))
    got = c.run("console.log('up' as string); while (true) {}", once(OUT, lambda: t.eq(c.interrupt(), 200, "interrupt") and None))
    t.ok(got[-1][0] == "error" and got[-1][1][0] == "KeyboardInterrupt", "ends a loop", got)
    t.eq(c.run("n"), [text("'again'")], "and the context goes on")
else:
    print("#", c.reply)
t.eq(Context(box, "javascript").run("process.version"), [text("'%s'" % os.popen("%s --version" % NODE).read().strip())], "JavaScript with the same Node")
box.delete()
t.done()
