// SPDX-License-Identifier: Apache-2.0
// The released JavaScript SDK, unmodified, against a daemon.  SANDBOXD_URL and SANDBOXD_KEY name it.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  ConnectionConfig, createDefaultAdapterFactory, DefaultAdapterFactory, ExecutionEventDispatcher, Sandbox, SandboxManager,
} from "@alibaba-group/opensandbox";
import { createExecdClient } from "@alibaba-group/opensandbox/internal";
import { WebSocket } from "undici"; // of the SDK's own dependencies

const url = new URL(process.env.SANDBOXD_URL ?? "http://127.0.0.1:8080");
const apiKey = process.env.SANDBOXD_KEY ?? "";
const image = process.env.SANDBOXD_IMAGE ?? "host";

const connection = (more = {}) =>
  new ConnectionConfig({ domain: url.host, protocol: "http", apiKey, requestTimeoutSeconds: 30, ...more });

const suite = `e2e-${process.pid}-${Date.now()}`;

// The resources are small, so that several sandboxes fit beside other tests of a small machine.
const create = (more = {}, config = {}) =>
  Sandbox.create({
    connectionConfig: connection(config),
    image,
    timeoutSeconds: 120,
    resource: { cpu: "1", memory: "256Mi" },
    healthCheckPollingInterval: 20,
    ...more,
    metadata: { ...more.metadata, suite },
  });

const texts = (messages) => messages.map((m) => m.text);
const apiError = (statusCode, code) => (err) => {
  assert.equal(err.name, "SandboxApiException", `${err}`);
  assert.equal(err.statusCode, statusCode, `${err.message}`);
  if (code) assert.equal(err.error.code, code);
  assert.ok(err.error.message, "the error says what is wrong");
  return true;
};

async function waitFor(what, ask, ms = 60000) {
  const until = Date.now() + ms;
  for (;;) {
    const got = await ask();
    if (got) return got;
    assert.ok(Date.now() < until, `waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function end(sandbox) {
  if (!sandbox) return;
  await sandbox.kill().catch(() => undefined);
  await sandbox.close();
}

async function sessions(commands) {
  const id = await commands.createSession({ workingDirectory: "/w/session" });
  assert.match(id, /^[0-9a-f-]{36}$/);
  const seen = [];
  const first = await commands.runInSession(id, "pwd; x='a \"b\" $c'; export y=1; f() { echo f$1; }; cd /usr", undefined, {
    onStdout: (m) => seen.push(m.text),
    onInit: (m) => seen.push(m.id),
  });
  assert.equal(first.exitCode, 0);
  assert.ok(seen.includes("/w/session"));
  const second = await commands.runInSession(id, 'echo "$x"; f 2; pwd; sh -c "exit 7"');
  assert.deepEqual(texts(second.logs.stdout), ['a "b" $c', "f2", "/usr"]);
  assert.equal(second.error.name, "CommandExecError");
  assert.equal(second.error.value, "7");
  assert.equal(second.complete, undefined);
  const third = await commands.runInSession(id, "echo $? $y; pwd", { workingDirectory: "/tmp" });
  assert.deepEqual(texts(third.logs.stdout), ["7 1", "/tmp"]);
  const late = await commands.runInSession(id, "sleep 30 & sleep 30", { timeoutSeconds: 1 });
  assert.equal(late.error.value, "-1");
  await commands.deleteSession(id);
  await assert.rejects(commands.deleteSession(id), apiError(404, "CONTEXT_NOT_FOUND"));
  await assert.rejects(commands.runInSession(id, "true"), apiError(500, "RUNTIME_ERROR"));
}

describe("one sandbox", () => {
  let sandbox;
  before(async () => {
    sandbox = await create({ env: { GREETING: "hello from env" }, metadata: { part: "one", gone: "soon" } });
  });
  after(() => end(sandbox));

  describe("create", () => {
    test("the sandbox runs and says what it is", async () => {
      const info = await sandbox.getInfo();
      assert.equal(info.id, sandbox.id);
      assert.equal(info.status.state, "Running");
      assert.deepEqual(info.entrypoint, ["tail", "-f", "/dev/null"]);
      assert.equal(info.image?.uri, image);
      assert.deepEqual(info.metadata, { part: "one", gone: "soon", suite });
      assert.ok(info.createdAt instanceof Date && Math.abs(Date.now() - info.createdAt.getTime()) < 60000);
      assert.ok(info.expiresAt.getTime() > info.createdAt.getTime() + 100000);
      assert.equal(await sandbox.isHealthy(), true);
    });
    test("its endpoints have no scheme and end in the port", async () => {
      const execd = await sandbox.getEndpoint(44772);
      assert.match(execd.endpoint, /^[^/:]+:\d+\/.*44772$/);
      assert.ok((await sandbox.getEndpoint(18080)).endpoint.endsWith("/18080"));
    });
    test("without the token of its endpoint the execd API is closed", async () => {
      const execd = await sandbox.getEndpoint(44772);
      const reply = await fetch(`http://${execd.endpoint}/ping`);
      assert.equal(reply.status, 401);
      assert.ok((await reply.json()).code);
    });
  });

  describe("commands", () => {
    test("one line of output is one message", async () => {
      const run = await sandbox.commands.run("echo 'Hello Sandbox!'");
      assert.deepEqual(texts(run.logs.stdout), ["Hello Sandbox!"]);
      assert.deepEqual(run.logs.stderr, []);
      assert.match(run.id, /^[0-9a-f]{32}$/);
      assert.ok(run.complete && run.complete.executionTimeMs >= 0);
      assert.equal(run.error, undefined);
      assert.equal(run.exitCode, 0);
      assert.ok(Math.abs(run.logs.stdout[0].timestamp - Date.now()) < 60000);
    });
    test("lines are cut at LF, CR and CR LF; an empty one is a line feed", async () => {
      const run = await sandbox.commands.run("printf 'a\\n\\nb\\r\\nc\\rd'");
      assert.deepEqual(texts(run.logs.stdout), ["a", "\n", "b", "c", "d"]);
    });
    test("both streams arrive", async () => {
      const run = await sandbox.commands.run("echo out; echo err >&2");
      assert.deepEqual(texts(run.logs.stdout), ["out"]);
      assert.deepEqual(texts(run.logs.stderr), ["err"]);
    });
    test("events come while the command runs, not at its end", async () => {
      const order = [];
      // each line is written when somebody has seen the one before
      const next = (n) => sandbox.commands.run(`touch /tmp/seen${n}`);
      await sandbox.commands.run(
        "for i in 1 2 3; do echo $i; n=0; until [ -e /tmp/seen$i ] || [ $((n += 1)) = 1200 ]; do sleep 0.05; done; [ $n != 1200 ] || exit 9; done",
        undefined,
        {
          onInit: () => void order.push("init"),
          onStdout: (m) => {
            order.push(m.text);
            void next(m.text);
          },
          onExecutionComplete: () => void order.push("complete"),
        },
      );
      assert.deepEqual(order, ["init", "1", "2", "3", "complete"]);
    });
    test("the stream closes with its last event", async () => {
      // the fastest one counts: the published server lets every stream stay open for a second
      let best = Infinity;
      for (let i = 0; i < 10; i++) {
        const began = Date.now();
        assert.equal((await sandbox.commands.run("true")).exitCode, 0);
        best = Math.min(best, Date.now() - began);
      }
      assert.ok(best < 1000, `the fastest of ten commands took ${best} ms`);
    });
    test("a failing command has an error, its exit code, and no complete", async () => {
      const run = await sandbox.commands.run("no-such-program-here");
      assert.equal(run.error.name, "CommandExecError");
      assert.equal(run.error.value, "127");
      assert.equal(run.exitCode, 127);
      assert.equal(run.complete, undefined);
      assert.ok(texts(run.logs.stderr).join("\n").includes("no-such-program-here"));
      assert.deepEqual((await sandbox.commands.run("exit 7")).error.traceback, ["exit status 7"]);
    });
    test("a killed command is -1", async () => {
      const run = await sandbox.commands.run("kill -9 $$");
      assert.equal(run.error.value, "-1");
      assert.deepEqual(run.error.traceback, ["signal: killed"]);
    });
    test("cwd, envs and the sandbox's own environment", async () => {
      const run = await sandbox.commands.run("pwd; echo \"$GREETING, $EXTRA\"", {
        workingDirectory: "/tmp",
        envs: { EXTRA: "and more" },
      });
      assert.deepEqual(texts(run.logs.stdout), ["/tmp", "hello from env, and more"]);
      assert.deepEqual(texts((await sandbox.commands.run("echo \"[$EXTRA]\"")).logs.stdout), ["[]"]);
    });
    test("uid and gid", async () => {
      const run = await sandbox.commands.run("id -u; id -g", { uid: 65534, gid: 65534 });
      assert.deepEqual(texts(run.logs.stdout), ["65534", "65534"]);
      await assert.rejects(sandbox.commands.run("id", { gid: 5 }));
    });
    test("a directory that is not there is refused before anything runs", async () => {
      await assert.rejects(sandbox.commands.run("true", { workingDirectory: "/no/such/dir" }), apiError(400, "INVALID_REQUEST_BODY"));
    });
    test("a timeout kills the whole tree", async () => {
      const run = await sandbox.commands.run("sleep 61.5 & sleep 61.5", { timeoutSeconds: 1 });
      assert.equal(run.error.value, "-1");
      assert.deepEqual(run.error.traceback, ["signal: killed"]);
      await waitFor("the children to be gone", async () =>
        (await sandbox.commands.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep 61.5'")).logs.stdout[0]?.text === "0");
    });
    test("a command can be interrupted from elsewhere", async () => {
      let id;
      const run = await sandbox.commands.run("sleep 300", undefined, {
        onInit: (init) => {
          id = init.id;
          void sandbox.commands.interrupt(id);
        },
      });
      assert.equal(run.error.name, "CommandExecError");
      assert.deepEqual(run.error.traceback, ["signal: terminated"]);
      await assert.rejects(sandbox.commands.interrupt(id), apiError(500, "RUNTIME_ERROR"));
      await assert.rejects(sandbox.commands.interrupt("0".repeat(32)), apiError(500, "RUNTIME_ERROR"));
    });
    test("a background command answers at once; status and logs follow it", async () => {
      const run = await sandbox.commands.run("echo first; until [ -e /tmp/go-on ]; do sleep 0.05; done; echo second >&2; exit 3", {
        background: true,
      });
      assert.ok(run.complete, "it did not wait");
      const status = await sandbox.commands.getCommandStatus(run.id);
      assert.equal(status.id, run.id);
      assert.equal(status.running, true);
      assert.equal(status.exitCode ?? null, null);
      assert.ok(status.startedAt instanceof Date);
      const early = await waitFor("the first line", async () => {
        const logs = await sandbox.commands.getBackgroundCommandLogs(run.id, 0);
        return logs.content ? logs : null;
      });
      assert.equal(early.content, "first\n");
      assert.equal(early.cursor, 6);
      await sandbox.commands.run("touch /tmp/go-on");
      const done = await waitFor("its end", async () => {
        const s = await sandbox.commands.getCommandStatus(run.id);
        return s.running ? null : s;
      });
      assert.equal(done.exitCode, 3);
      assert.ok(done.finishedAt instanceof Date);
      const late = await sandbox.commands.getBackgroundCommandLogs(run.id, early.cursor);
      assert.equal(late.content, "second\n");
      assert.equal(late.cursor, 13);
      await assert.rejects(sandbox.commands.getCommandStatus("f".repeat(32)), apiError(404, "INVALID_REQUEST_BODY"));
    });
    test("much output arrives whole", async () => {
      const run = await sandbox.commands.run("seq 1 50000");
      assert.equal(run.logs.stdout.length, 50000);
      assert.equal(run.logs.stdout[49999].text, "50000");
    });
    test("bytes that are no text do not break the stream", async () => {
      const run = await sandbox.commands.run("printf 'a\\377b\\n'; echo 'gr\u00fc\u00dfe \u{1f600}'");
      assert.deepEqual(texts(run.logs.stdout), ["a\ufffdb", "gr\u00fc\u00dfe \u{1f600}"]);
    });
    test("a client that goes away leaves its command running", async () => {
      // the SDK cannot drop a stream that has begun, so this one client is made by hand
      const { endpoint, headers } = await sandbox.getEndpoint(44772);
      const abort = new AbortController();
      const reply = await fetch(`http://${endpoint}/command`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ command: "sleep 0.5; echo survived > /tmp/survivor; sleep 20" }),
        signal: abort.signal,
      });
      assert.match(new TextDecoder().decode((await reply.body.getReader().read()).value), /^\{"type":"init"/);
      abort.abort();
      await waitFor("what it writes", async () => (await sandbox.commands.run("cat /tmp/survivor")).exitCode === 0);
    });
    test("sixteen commands at once", async () => {
      const runs = await Promise.all(Array.from({ length: 16 }, (_, i) => sandbox.commands.run(`sleep 0.2; echo ${i}`)));
      assert.deepEqual(runs.map((r) => r.logs.stdout[0].text), Array.from({ length: 16 }, (_, i) => `${i}`));
    });
  });

  // The code interpreter package is not in every registry; these are the parts of the SDK that it is made of: the typed client of the
  // execd API, and the dispatcher that makes an execution of events.
  describe("code", () => {
    let client, base, headers;
    before(async () => {
      const endpoint = await sandbox.getEndpoint(44772);
      base = `http://${endpoint.endpoint}`;
      headers = endpoint.headers ?? {};
      client = createExecdClient({ baseUrl: base, headers });
    });
    const ok = ({ data, error, response }) => {
      assert.equal(error, undefined, JSON.stringify(error));
      assert.equal(response.status, 200);
      return data;
    };
    async function run(body, handlers = {}) {
      const execution = { logs: { stdout: [], stderr: [] }, result: [] };
      const dispatcher = new ExecutionEventDispatcher(execution, handlers);
      const reply = await fetch(`${base}/code`, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "text/event-stream", ...headers },
        body: JSON.stringify(body),
      });
      if (reply.status !== 200) throw Object.assign(new Error(await reply.text()), { status: reply.status });
      let rest = "";
      for await (const piece of reply.body.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + piece).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line) await dispatcher.dispatch(JSON.parse(line));
      }
      assert.equal(rest, "");
      return execution;
    }

    test("contexts: made, listed, found, deleted, by language too", async () => {
      await client.DELETE("/code/contexts", { params: { query: { language: "bash" } } });
      const one = ok(await client.POST("/code/context", { body: { language: "bash" } }));
      const two = ok(await client.POST("/code/context", { body: { language: "bash" } }));
      assert.equal(one.language, "bash");
      assert.notEqual(one.id, two.id);
      const listed = ok(await client.GET("/code/contexts", { params: { query: { language: "bash" } } }));
      assert.deepEqual(listed.map((c) => c.id).sort(), [one.id, two.id].sort());
      assert.equal(ok(await client.GET("/code/contexts/{context_id}", { params: { path: { context_id: one.id } } })).id, one.id);
      ok(await client.DELETE("/code/contexts/{context_id}", { params: { path: { context_id: one.id } } }));
      const gone = await client.GET("/code/contexts/{context_id}", { params: { path: { context_id: one.id } } });
      assert.equal(gone.response.status, 404);
      assert.equal(gone.error.code, "CONTEXT_NOT_FOUND");
      ok(await client.DELETE("/code/contexts", { params: { query: { language: "bash" } } }));
      assert.deepEqual(ok(await client.GET("/code/contexts", { params: { query: { language: "bash" } } })), []);
    });
    test("Python: state, a value, output, an error, the id of the context", async (t) => {
      const made = await client.POST("/code/context", { body: { language: "python" } });
      if (made.error?.message?.includes("language runtime server not configured")) return t.skip("no Python in the image");
      const context = ok(made);
      const seen = [];
      const first = await run({ language: "python", code: "result = 2 + 2\nprint('out')\nresult", context }, { onInit: (m) => void seen.push(m.id) });
      assert.deepEqual(seen, [context.id]);
      assert.equal(first.id, context.id);
      assert.equal(first.executionCount, 1);
      assert.equal(first.result[0].text, "4");
      assert.deepEqual(texts(first.logs.stdout), ["out\n"]);
      assert.ok(first.complete);
      assert.equal((await run({ code: "result * 2", context })).result[0].text, "8");
      const failed = await run({ code: "no_such_name", context });
      assert.equal(failed.error.name, "NameError");
      assert.ok(Array.isArray(failed.error.traceback) && failed.error.traceback.length > 0);
      const interrupted = await run(
        { code: "print('up')\nwhile True: pass", context },
        { onStdout: async () => void ok(await client.DELETE("/code", { params: { query: { id: context.id } } })) },
      );
      assert.equal(interrupted.error.name, "KeyboardInterrupt");
      assert.equal((await run({ code: "result", context })).result[0].text, "4");
      const nothing = await client.DELETE("/code", { params: { query: { id: "not-a-context" } } });
      assert.equal(nothing.response.status, 500);
      ok(await client.DELETE("/code/contexts/{context_id}", { params: { path: { context_id: context.id } } }));
    });
    test("a default context for each language, JavaScript and Bash", async (t) => {
      const bash = await run({ code: "echo $((8+9))", context: { language: "bash" } });
      assert.deepEqual(texts(bash.logs.stdout), ["17\n"]);
      const script = await run({ code: "var kept = 3; console.log(3+4)", context: { language: "javascript" } }).catch((e) => e);
      if (script.message?.includes("language runtime server not configured")) return t.skip("no Node in the image");
      assert.deepEqual(texts(script.logs.stdout), ["7\n"]);
      assert.equal((await run({ code: "kept", context: { language: "javascript" } })).result[0].text, "3");
    });
    test("what is not offered is refused", async () => {
      const sql = await client.POST("/code/context", { body: { language: "sql" } });
      assert.equal(sql.response.status, 501);
      const other = await client.POST("/code/context", { body: { language: "elvish" } });
      assert.equal(other.response.status, 500);
      assert.match(other.error.message, /unknown language: elvish/);
      await assert.rejects(run({ code: "1", context: { id: "nope" } }), { status: 500 });
    });
  });

  describe("files", () => {
    const dir = "/tmp/sdk-files";
    before(async () => {
      await sandbox.files.createDirectories([{ path: dir, mode: 755 }]);
    });

    test("write and read, with modes", async () => {
      await sandbox.files.writeFiles([
        { path: `${dir}/hello.txt`, data: "Hello World", mode: 644 },
        { path: `${dir}/secret.txt`, data: "s", mode: 600 },
        { path: `${dir}/run.sh`, data: "#!/bin/sh\necho ran\n", mode: 755 },
      ]);
      assert.equal(await sandbox.files.readFile(`${dir}/hello.txt`), "Hello World");
      const info = await sandbox.files.getFileInfo([`${dir}/hello.txt`, `${dir}/secret.txt`, `${dir}/run.sh`, dir]);
      assert.equal(info[`${dir}/hello.txt`].mode, 644);
      assert.equal(info[`${dir}/secret.txt`].mode, 600);
      assert.equal(info[`${dir}/run.sh`].mode, 755);
      assert.equal(info[`${dir}/hello.txt`].size, 11);
      assert.equal(info[`${dir}/hello.txt`].type, "file");
      assert.equal(info[dir].type, "directory");
      assert.equal(info[`${dir}/hello.txt`].path, `${dir}/hello.txt`);
      assert.ok(Math.abs(info[`${dir}/hello.txt`].modifiedAt.getTime() - Date.now()) < 60000);
      assert.deepEqual(texts((await sandbox.commands.run(`${dir}/run.sh`)).logs.stdout), ["ran"]);
    });
    test("bytes, streams and names that are not ASCII", async () => {
      const bytes = Uint8Array.from({ length: 300000 }, (_, i) => (i * 7) & 255);
      async function* pieces() {
        for (let at = 0; at < bytes.length; at += 10000) yield bytes.subarray(at, at + 10000);
      }
      await sandbox.files.writeFiles([
        { path: `${dir}/b\u00e4r.bin`, data: bytes },
        { path: `${dir}/stream.bin`, data: pieces() },
        { path: `${dir}/empty`, data: "" },
      ]);
      assert.deepEqual(Buffer.from(await sandbox.files.readBytes(`${dir}/b\u00e4r.bin`)), Buffer.from(bytes));
      const chunks = [];
      for await (const chunk of sandbox.files.readBytesStream(`${dir}/stream.bin`)) chunks.push(chunk);
      assert.deepEqual(Buffer.concat(chunks), Buffer.from(bytes));
      assert.equal((await sandbox.files.readBytes(`${dir}/empty`)).length, 0);
    });
    test("sixteen megabytes up and down", async () => {
      const bytes = Buffer.alloc(16 << 20, "sandbox ");
      await sandbox.files.writeFiles([{ path: `${dir}/big`, data: bytes }]);
      assert.ok(bytes.equals(Buffer.from(await sandbox.files.readBytes(`${dir}/big`))));
      const sum = await sandbox.commands.run(`wc -c < ${dir}/big`);
      assert.equal(sum.logs.stdout[0].text.trim(), `${16 << 20}`);
    });
    test("an upload that is broken off leaves nothing, one onto a directory says so", async () => {
      const { endpoint, headers } = await sandbox.getEndpoint(44772);
      const form = (path) =>
        Buffer.from(
          `--B\r\nContent-Disposition: form-data; name="metadata"; filename="metadata"\r\n\r\n{"path":"${path}"}\r\n` +
            `--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n`,
        );
      const abort = new AbortController();
      async function* some() {
        yield form(`${dir}/half/file`);
        for (let i = 0; i < 20; i++) {
          yield Buffer.alloc(65536, i);
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        abort.abort();
      }
      await assert.rejects(
        fetch(`http://${endpoint}/files/upload`, {
          method: "POST",
          headers: { "content-type": "multipart/form-data; boundary=B", ...headers },
          body: some(),
          duplex: "half",
          signal: abort.signal,
        }),
      );
      await waitFor("the half file to be gone", async () => (await sandbox.files.listDirectory({ path: `${dir}/half` })).length === 0);
      await assert.rejects(sandbox.files.writeFiles([{ path: dir, data: Buffer.alloc(1 << 20) }]), (err) => {
        assert.match(JSON.stringify(err.rawBody), /directory/i);
        return apiError(500)(err);
      });
    });
    test("ranges and line windows", async () => {
      await sandbox.files.writeFiles([{ path: `${dir}/lines`, data: "one\r\ntwo\nthree\nfour\n" }]);
      assert.equal(await sandbox.files.readFile(`${dir}/lines`, { range: "bytes=0-2" }), "one");
      assert.equal(await sandbox.files.readFile(`${dir}/lines`, { range: "bytes=-5" }), "four\n");
      assert.equal(await sandbox.files.readFile(`${dir}/lines`, { offset: 1, limit: 2 }), "one\ntwo");
      assert.equal(await sandbox.files.readFile(`${dir}/lines`, { offset: 3 }), "three\nfour");
      assert.equal(await sandbox.files.readFile(`${dir}/lines`, { offset: 99 }), "");
      await assert.rejects(sandbox.files.readFile(`${dir}/lines`, { range: "bytes=1000-" }), apiError(416));
    });
    test("search by name", async () => {
      const found = await sandbox.files.search({ path: dir, pattern: "*.txt" });
      assert.deepEqual(found.map((f) => f.path).sort(), [`${dir}/hello.txt`, `${dir}/secret.txt`]);
      assert.ok((await sandbox.files.search({ path: dir })).length >= 6);
      assert.deepEqual(await sandbox.files.search({ path: dir, pattern: "nothing*" }), []);
    });
    test("replace, counted", async () => {
      await sandbox.files.writeFiles([{ path: `${dir}/r`, data: "a b a b a", mode: 640 }]);
      assert.deepEqual(
        await sandbox.files.replaceContentsDetailed([{ path: `${dir}/r`, oldContent: "a", newContent: "xyz" }]),
        [{ path: `${dir}/r`, replacedCount: 3 }],
      );
      assert.equal(await sandbox.files.readFile(`${dir}/r`), "xyz b xyz b xyz");
      await sandbox.files.replaceContents([{ path: `${dir}/r`, oldContent: "not there", newContent: "x" }]);
      assert.equal((await sandbox.files.getFileInfo([`${dir}/r`]))[`${dir}/r`].mode, 640);
    });
    test("move, and not onto something", async () => {
      await sandbox.files.writeFiles([{ path: `${dir}/m1`, data: "1" }, { path: `${dir}/m2`, data: "2" }]);
      await sandbox.files.moveFiles([{ src: `${dir}/m1`, dest: `${dir}/deep/er/m1` }]);
      assert.equal(await sandbox.files.readFile(`${dir}/deep/er/m1`), "1");
      await assert.rejects(sandbox.files.moveFiles([{ src: `${dir}/m2`, dest: `${dir}/deep/er/m1` }]), apiError(500, "RUNTIME_ERROR"));
      await assert.rejects(sandbox.files.moveFiles([{ src: `${dir}/gone`, dest: `${dir}/x` }]), apiError(404, "FILE_NOT_FOUND"));
    });
    test("permissions and owners by name", async () => {
      await sandbox.files.setPermissions([{ path: `${dir}/hello.txt`, mode: 600, owner: "nobody", group: "nogroup" }]);
      const info = (await sandbox.files.getFileInfo([`${dir}/hello.txt`]))[`${dir}/hello.txt`];
      assert.deepEqual([info.mode, info.owner, info.group], [600, "nobody", "nogroup"]);
    });
    test("directories: list, depth, delete", async () => {
      await sandbox.files.createDirectories([{ path: `${dir}/tree/a/b`, mode: 755 }]);
      await sandbox.files.writeFiles([{ path: `${dir}/tree/a/f`, data: "f" }, { path: `${dir}/tree/z`, data: "z" }]);
      const flat = await sandbox.files.listDirectory({ path: `${dir}/tree` });
      assert.deepEqual(flat.map((f) => f.path), [`${dir}/tree/a`, `${dir}/tree/z`]);
      const deep = await sandbox.files.listDirectory({ path: `${dir}/tree`, depth: 5 });
      assert.deepEqual(deep.map((f) => f.path), [`${dir}/tree/a`, `${dir}/tree/a/b`, `${dir}/tree/a/f`, `${dir}/tree/z`]);
      await sandbox.files.deleteDirectories([`${dir}/tree`]);
      await assert.rejects(sandbox.files.listDirectory({ path: `${dir}/tree` }), apiError(404, "FILE_NOT_FOUND"));
    });
    test("large lists and searches arrive whole, also over directories that may not be read", async () => {
      const count = async (find) => Number((await sandbox.commands.run(`${find} 2>/dev/null | wc -l`)).logs.stdout[0].text);
      const files = await sandbox.files.search({ path: "/usr/share" });
      assert.equal(files.length, await count("find /usr/share ! -type d"));
      const all = await sandbox.files.listDirectory({ path: "/usr/share", depth: 100 });
      assert.equal(all.length, await count("find /usr/share -mindepth 1"));
      assert.ok(all.length > 1000, `${all.length} entries`);
    });
    test("delete files; a missing one is fine, a directory is not", async () => {
      await sandbox.files.deleteFiles([`${dir}/empty`, `${dir}/never-was`]);
      await assert.rejects(sandbox.files.getFileInfo([`${dir}/empty`]), apiError(404, "FILE_NOT_FOUND"));
      await assert.rejects(sandbox.files.deleteFiles([dir]), apiError(500, "RUNTIME_ERROR"));
    });
    test("a missing file is a 404 with code and message", async () => {
      await assert.rejects(sandbox.files.getFileInfo(["/no/such/file"]), apiError(404, "FILE_NOT_FOUND"));
      await assert.rejects(sandbox.files.readFile("/no/such/file"), (err) => {
        assert.match(JSON.stringify(err.rawBody), /FILE_NOT_FOUND/);
        return apiError(404)(err);
      });
    });
  });

  describe("terminals", () => {
    // A shell in a terminal, as a browser or `sandboxctl run -it` uses it: text() is all output so far.
    async function terminal(query = "", body = {}) {
      const { endpoint, headers } = await sandbox.getEndpoint(44772);
      const made = await fetch(`http://${endpoint}/pty`, { method: "POST", headers, body: JSON.stringify(body) });
      assert.equal(made.status, 201);
      const { session_id: id } = await made.json();
      const open = async (more) => {
        const ws = new WebSocket(`ws://${endpoint}/pty/${id}/ws?${more}`, { headers });
        const t = { ws, id, output: "", replay: "", messages: [], closed: null, base: `http://${endpoint}/pty/${id}`, headers };
        ws.binaryType = "arraybuffer";
        ws.onclose = (e) => (t.closed = e.code);
        ws.onmessage = ({ data }) => {
          if (typeof data === "string") t.messages.push(JSON.parse(data));
          else if (new Uint8Array(data)[0] === 3) t.replay += Buffer.from(data).subarray(9);
          else t.output += Buffer.from(data).subarray(1);
        };
        await waitFor("the connection", () => t.messages.some((m) => m.type === "connected"));
        return t;
      };
      const t = await open(query);
      t.again = open;
      t.type = (text) => t.ws.send(Buffer.concat([Buffer.from([0]), Buffer.from(text)]));
      return t;
    }

    test("a terminal of its own size, echo, Ctrl-C, exit code", async () => {
      const t = await terminal("", { cwd: "/tmp/term" });
      t.type("tty; stty size; pwd; echo $TERM\n");
      await waitFor("the terminal", () => /\/dev\/pts\/\d+[^]*24 80[^]*\/tmp\/term[^]*xterm/.test(t.output));
      t.ws.send(JSON.stringify({ type: "resize", cols: 132, rows: 43 }));
      t.type("stty size\n");
      await waitFor("the new size", () => t.output.includes("43 132"));
      // the job itself says that it is in front: a key that comes earlier is the shell's
      t.type("sh -c 'echo job''1; exec sleep 60'\n");
      await waitFor("the first job", () => /job1\r/.test(t.output));
      t.type("\x03");
      t.type("echo interrup''ted\n");
      await waitFor("the prompt", () => t.output.includes("interrupted"));
      t.type("sh -c 'echo job''2; exec sleep 61'\n");
      await waitFor("the second job", () => /job2\r/.test(t.output));
      t.ws.send(JSON.stringify({ type: "signal", signal: "SIGINT" }));
      t.type("echo signal''led\n");
      await waitFor("the prompt", () => t.output.includes("signalled"));
      t.type("exit 5\n");
      await waitFor("the close", () => t.closed);
      assert.equal(t.closed, 1000);
      assert.deepEqual(t.messages.at(-1), { type: "exit", exit_code: 5 });
    });
    test("the shell outlives its client, who sees what was missed", async () => {
      const t = await terminal();
      t.type("sleep 0.3; echo mis''sed\n");
      await waitFor("the echo", () => t.output.includes("sleep"));
      const seen = Buffer.byteLength(t.output);
      t.ws.close();
      await waitFor("the close", () => t.closed);
      // the echo may come in pieces, so the offset alone does not tell that the command has run
      await waitFor("the output", async () => (await (await fetch(t.base, { headers: t.headers })).json()).output_offset > seen + 8);
      const back = await t.again(`since=${seen}`);
      await waitFor("what was missed", () => (back.replay + back.output).includes("missed"));
      assert.notEqual(back.replay, "");
      const gone = await fetch(t.base, { method: "DELETE", headers: t.headers });
      assert.equal(gone.status, 200);
      await waitFor("the end of the shell", () => back.closed);
      assert.equal((await fetch(t.base, { headers: t.headers })).status, 404);
    });
    test("pipes instead of a terminal", async () => {
      const t = await terminal("pty=0", { command: "cat; echo err >&2; exit 3" });
      assert.equal(t.messages[0].mode, "pipe");
      t.type("through\n");
      await waitFor("the echo", () => t.output.includes("through"));
      t.ws.send(JSON.stringify({ type: "signal", signal: "SIGTERM" }));
      await waitFor("the close", () => t.closed);
      assert.equal(t.messages.at(-1).exit_code, -1);
    });
  });

  test("what the published image starts inside is not there: its ports refuse", async () => {
    const run = await sandbox.commands.run("for p in 44772 18080; do bash -c \"echo > /dev/tcp/127.0.0.1/$p\" 2>/dev/null && echo open; done; echo done");
    assert.deepEqual(texts(run.logs.stdout), ["done"]);
  });

  test("the env file is read again for each command", async () => {
    const file = "/opt/opensandbox/.env";
    assert.deepEqual(texts((await sandbox.commands.run("echo $EXECD_ENVS")).logs.stdout), [file]);
    await sandbox.files.writeFiles([{ path: file, data: "# made by a test\nFROM_FILE=one\nGREETING=$FROM_NOWHERE-two\n" }]);
    const run = await sandbox.commands.run('echo "$FROM_FILE $GREETING $CALL"', { envs: { CALL: "three" } });
    assert.deepEqual(texts(run.logs.stdout), ["one -two three"]);
    await sandbox.files.writeFiles([{ path: file, data: "" }]);
    assert.deepEqual(texts((await sandbox.commands.run('echo "[$FROM_FILE]"')).logs.stdout), ["[]"]);
  });

  test("metrics are the sandbox's", async () => {
    const m = await sandbox.getMetrics();
    assert.equal(m.cpuCount, 1);
    assert.ok(m.cpuUsedPercentage >= 0 && m.cpuUsedPercentage <= 100);
    assert.equal(m.memoryTotalMiB, 256);
    assert.ok(m.memoryUsedMiB >= 0 && m.memoryUsedMiB <= 256);
    assert.ok(Math.abs(m.timestamp - Date.now()) < 60000);
  });

  test("metadata is merged, and a null removes", async () => {
    const info = await sandbox.patchMetadata({ part: "changed", extra: "x", gone: null });
    assert.deepEqual(info.metadata, { part: "changed", extra: "x", suite });
    assert.deepEqual((await sandbox.getInfo()).metadata, { part: "changed", extra: "x", suite });
  });

  test("renew sets the expiry, also to a shorter time", async () => {
    const longer = await sandbox.renew(600);
    assert.ok(Math.abs(longer.expiresAt.getTime() - (Date.now() + 600000)) < 60000);
    await sandbox.renew(120);
    assert.ok(Math.abs((await sandbox.getInfo()).expiresAt.getTime() - (Date.now() + 120000)) < 60000);
  });
});

describe("lifecycle", () => {
  test("pause freezes at once, resume goes on where it was", async () => {
    const sandbox = await create();
    let resumed;
    try {
      await sandbox.commands.run("i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done", { background: true });
      await waitFor("the counter", async () => (await sandbox.commands.run("test -s /tmp/count")).exitCode === 0);
      await sandbox.pause();
      assert.equal((await sandbox.getInfo()).status.state, "Paused");
      const began = Date.now();
      assert.equal(await sandbox.isHealthy(), false);
      await assert.rejects(sandbox.commands.run("true"), apiError(503));
      assert.ok(Date.now() - began < 20000, "calls on a paused sandbox fail at once");
      resumed = await sandbox.resume({ healthCheckPollingInterval: 20 });
      assert.equal((await resumed.getInfo()).status.state, "Running");
      const before = Number((await resumed.commands.run("cat /tmp/count")).logs.stdout[0]?.text ?? 0);
      await waitFor("the counter to go on", async () => Number((await resumed.commands.run("cat /tmp/count")).logs.stdout[0]?.text ?? 0) > before);
    } finally {
      await end(sandbox); // shares its transport with the resumed one
    }
  });

  test("kill removes it from everywhere", async () => {
    const sandbox = await create();
    const manager = SandboxManager.create({ connectionConfig: connection() });
    try {
      await sandbox.kill();
      await assert.rejects(sandbox.getInfo(), apiError(404));
      const list = await manager.listSandboxInfos({ pageSize: 200 });
      assert.ok(!list.items.some((s) => s.id === sandbox.id));
      assert.equal(await sandbox.isHealthy(), false);
    } finally {
      await manager.close();
      await sandbox.close();
    }
  });

  test("no timeout means no expiry", async () => {
    const sandbox = await create({ timeoutSeconds: null });
    try {
      assert.equal((await sandbox.getInfo()).expiresAt ?? null, null);
      await assert.rejects(sandbox.renew(600), apiError(409));
    } finally {
      await end(sandbox);
    }
  });

  test("EXECD_LOG_FILE is written inside, EXECD_ACCESS_TOKEN is the token", async () => {
    const sandbox = await create({ env: { EXECD_LOG_FILE: "/tmp/logs/execd.log", EXECD_ACCESS_TOKEN: "my own token" } });
    try {
      assert.equal((await sandbox.getEndpoint(44772)).headers["X-EXECD-ACCESS-TOKEN"], "my own token");
      await sandbox.commands.run("true");
      const log = await waitFor("the log", async () => {
        const text = (await sandbox.commands.run("cat /tmp/logs/execd.log")).logs.stdout.map((m) => m.text).join("\n");
        return text.includes("POST - /command") ? text : null;
      });
      const line = JSON.parse(log.split("\n")[0]);
      assert.equal(line.level, "info");
      assert.match(line.msg, /^Requested: GET - \/ping$/);
    } finally {
      await end(sandbox);
    }
  });

  test("connect to a sandbox that runs", async () => {
    const sandbox = await create();
    let other;
    try {
      await sandbox.commands.run("echo kept > /tmp/kept");
      other = await Sandbox.connect({ sandboxId: sandbox.id, connectionConfig: connection() });
      assert.deepEqual(texts((await other.commands.run("cat /tmp/kept")).logs.stdout), ["kept"]);
    } finally {
      await other?.close();
      await end(sandbox);
    }
  });

  test("through the API's own port", async () => {
    const sandbox = await create({}, { useServerProxy: true });
    try {
      assert.match((await sandbox.getEndpoint(44772)).endpoint, /\/sandboxes\/[^/]+\/proxy\/44772$/);
      assert.deepEqual(texts((await sandbox.commands.run("echo proxied")).logs.stdout), ["proxied"]);
      await sandbox.files.writeFiles([{ path: "/tmp/p", data: "p" }]);
      assert.equal(await sandbox.files.readFile("/tmp/p"), "p");
    } finally {
      await end(sandbox);
    }
  });

  test("a service inside is reached by its port", async () => {
    const sandbox = await create();
    try {
      await sandbox.files.writeFiles([{ path: "/tmp/www/index.html", data: "served\n" }]);
      await sandbox.commands.run("cd /tmp/www && exec python3 -m http.server 8000 --bind 127.0.0.1", { background: true });
      const base = await sandbox.getEndpointUrl(8000);
      const text = await waitFor("the service", async () => {
        const reply = await fetch(`${base}/index.html`);
        return reply.ok ? await reply.text() : (await reply.text(), null);
      });
      assert.equal(text, "served\n");
    } finally {
      await end(sandbox);
    }
  });
});

describe("egress", () => {
  const allow = (...targets) => targets.map((target) => ({ action: "allow", target }));

  for (const useServerProxy of [false, true])
    test(`a policy, read, patched and trimmed${useServerProxy ? " through the server" : ""}`, async () => {
      const sandbox = await create({ networkPolicy: { defaultAction: "deny", egress: allow("pkg.test") } }, { useServerProxy });
      try {
        const endpoint = await sandbox.getEndpoint(18080);
        if (useServerProxy) assert.ok(endpoint.endpoint.includes(`/sandboxes/${sandbox.id}/proxy/18080`), endpoint.endpoint);
        assert.ok(endpoint.headers["OPENSANDBOX-EGRESS-AUTH"]);
        assert.deepEqual(await sandbox.getEgressPolicy(), { defaultAction: "deny", egress: allow("pkg.test") });
        await sandbox.patchEgressRules([{ action: "deny", target: "x.pkg.test" }, ...allow("*.pkg.test", "PKG.test")]);
        assert.deepEqual((await sandbox.getEgressPolicy()).egress, [{ action: "deny", target: "x.pkg.test" }, ...allow("*.pkg.test", "PKG.test")]);
        await sandbox.deleteEgressRules(["pkg.test", "nothing.test"]);
        assert.deepEqual((await sandbox.getEgressPolicy()).egress, [{ action: "deny", target: "x.pkg.test" }, ...allow("*.pkg.test")]);
        await assert.rejects(sandbox.patchEgressRules(allow("a b")), (err) => {
          assert.equal(err.statusCode, 400);
          assert.match(`${err.rawBody ?? err.message}`, /"a b"|failed/);
          return true;
        });
        const denied = await sandbox.commands.run("getent hosts other.test; echo $?; tail -n 1 $SANDBOX_DENIED_LOG");
        assert.ok(texts(denied.logs.stdout).join("\n").includes('"name":"other.test"'), texts(denied.logs.stdout).join("\n"));
      } finally {
        await end(sandbox);
      }
    });

  test("a sandbox without a policy has one that allows, and can be tightened", async () => {
    const sandbox = await create();
    try {
      assert.deepEqual(await sandbox.getEgressPolicy(), { defaultAction: "allow", egress: [] });
      await sandbox.patchEgressRules([{ action: "deny", target: "blocked.test" }]);
      assert.deepEqual(await sandbox.getEgressPolicy(), { defaultAction: "allow", egress: [{ action: "deny", target: "blocked.test" }] });
    } finally {
      await end(sandbox);
    }
  });

  test("a policy that is wrong is refused before anything is made", async () => {
    await assert.rejects(create({ networkPolicy: { defaultAction: "deny", egress: allow("10.0.0.0/33") } }), (err) => apiError(400)(err));
  });
});

describe("lists", () => {
  const boxes = [];
  let manager;
  before(async () => {
    manager = SandboxManager.create({ connectionConfig: connection() });
    for (const n of ["1", "2", "3"]) boxes.push(await create({ metadata: { list: "yes", number: n, words: "a-b_c" } }));
  });
  after(async () => {
    await Promise.all(boxes.map(end));
    await manager.close();
  });

  test("filters by metadata and state, newest first", async () => {
    const all = await manager.listSandboxInfos({ metadata: { list: "yes" } });
    assert.deepEqual(all.items.map((s) => s.metadata.number), ["3", "2", "1"]);
    const two = await manager.listSandboxInfos({ metadata: { list: "yes", number: "2", words: "a-b_c" }, states: ["Running"] });
    assert.deepEqual(two.items.map((s) => s.id), [boxes[1].id]);
    await boxes[0].pause();
    const paused = await manager.listSandboxInfos({ metadata: { list: "yes" }, states: ["Paused"] });
    assert.deepEqual(paused.items.map((s) => s.id), [boxes[0].id]);
    const both = await manager.listSandboxInfos({ metadata: { list: "yes" }, states: ["paused", "RUNNING"] });
    assert.equal(both.items.length, 3);
    await manager.resumeSandbox(boxes[0].id);
  });
  test("pages", async () => {
    const page = await manager.listSandboxInfos({ metadata: { list: "yes" }, page: 2, pageSize: 2 });
    assert.deepEqual(page.items.map((s) => s.metadata.number), ["1"]);
    assert.deepEqual(page.pagination, { page: 2, pageSize: 2, totalItems: 3, totalPages: 2, hasNextPage: false });
  });
  test("the manager's other calls", async () => {
    assert.equal((await manager.getSandboxInfo(boxes[2].id)).metadata.number, "3");
    await manager.renewSandbox(boxes[2].id, 300);
    assert.equal((await manager.patchSandboxMetadata(boxes[2].id, { number: "three" })).metadata.number, "three");
    await manager.pauseSandbox(boxes[2].id);
    assert.equal((await manager.getSandboxInfo(boxes[2].id)).status.state, "Paused");
    await manager.killSandbox(boxes[2].id);
    await assert.rejects(manager.getSandboxInfo(boxes[2].id), apiError(404));
  });
});

describe("errors", () => {
  test("a wrong key is 401", { skip: apiKey ? false : "the daemon has no key" }, async () => {
    const manager = SandboxManager.create({ connectionConfig: connection({ apiKey: "wrong" }) });
    try {
      await assert.rejects(manager.listSandboxInfos(), apiError(401));
    } finally {
      await manager.close();
    }
  });
  test("an unknown sandbox is 404 with the request's id", async () => {
    const manager = SandboxManager.create({ connectionConfig: connection({ headers: { "X-Request-ID": "e2e-request" } }) });
    try {
      await assert.rejects(manager.getSandboxInfo("00000000-0000-4000-8000-000000000000"), (err) => {
        assert.equal(err.requestId, "e2e-request");
        return apiError(404)(err);
      });
    } finally {
      await manager.close();
    }
  });
  test("what is not offered is refused, not ignored", async () => {
    await assert.rejects(create({ secureAccess: true }), (err) => apiError(err.statusCode)(err));
    await assert.rejects(create({ image: undefined, snapshotId: "nope" }), (err) => apiError(err.statusCode)(err));
  });
  test("bad values are refused with a reason", async () => {
    await assert.rejects(create({ timeoutSeconds: 1 }), (err) => apiError(err.statusCode)(err));
    await assert.rejects(create({ image: "no/such-image:here" }), (err) => apiError(err.statusCode)(err));
    await assert.rejects(create({ resource: { cpu: "many" } }), (err) => apiError(err.statusCode)(err));
  });
  test("isolated sessions say that they are not offered", async () => {
    const sandbox = await create();
    try {
      assert.equal((await sandbox.isolation.capabilities()).available, false);
    } finally {
      await end(sandbox);
    }
  });

  test("bash sessions keep their state, tell exits and go", async () => {
    const sandbox = await create();
    try {
      await sessions(sandbox.commands);
    } finally {
      await end(sandbox);
    }
  });
});

describe("the rest of what the package offers", () => {
  test("health, readiness, the raw events of a command, the calls that the classes are made of", async () => {
    const sandbox = await create();
    try {
      assert.equal(await sandbox.health.ping(), true);
      await sandbox.waitUntilReady({ readyTimeoutSeconds: 30, pollingIntervalMillis: 20 });
      await assert.rejects(sandbox.waitUntilReady({ readyTimeoutSeconds: 0.2, pollingIntervalMillis: 20, healthCheck: () => false }),
        (err) => err.name === "SandboxReadyTimeoutException");
      const events = [];
      for await (const event of sandbox.commands.runStream("echo raw; exit 3")) if (event.type !== "ping") events.push(event);
      assert.deepEqual(events.map((e) => e.type), ["init", "stdout", "error"]);
      assert.equal(events[1].text, "raw");
      const api = sandbox.sandboxes;
      assert.equal((await api.getSandbox(sandbox.id)).id, sandbox.id);
      assert.ok((await api.listSandboxes({ metadata: { suite } })).items.some((s) => s.id === sandbox.id));
      const expiresAt = new Date(Math.ceil(Date.now() / 1000) * 1000 + 300000).toISOString(); // whole seconds are kept
      assert.equal(Date.parse((await api.renewSandboxExpiration(sandbox.id, { expiresAt })).expiresAt), Date.parse(expiresAt));
      assert.match((await api.getSandboxEndpoint(sandbox.id, 8000)).endpoint, /8000$/);
      await api.deleteSandbox(sandbox.id);
      await assert.rejects(api.getSandbox(sandbox.id), apiError(404));
    } finally {
      await end(sandbox);
    }
  });
  test("both factories of adapters, handed in by the caller", async () => {
    for (const adapterFactory of [createDefaultAdapterFactory(), new DefaultAdapterFactory()]) {
      const sandbox = await create({ adapterFactory }), manager = SandboxManager.create({ connectionConfig: connection(), adapterFactory });
      try {
        assert.deepEqual(texts((await sandbox.commands.run("echo made")).logs.stdout), ["made"]);
        assert.equal((await manager.getSandboxInfo(sandbox.id)).id, sandbox.id);
      } finally {
        await manager.close();
        await end(sandbox);
      }
    }
  });
  test("what is not there says so, with a code and a reason", async () => {
    const sandbox = await create(), manager = SandboxManager.create({ connectionConfig: connection() });
    const refused = (err) => apiError(err.statusCode)(err) && err.statusCode >= 400 && err.statusCode !== 500 && !!err.error.code;
    const workspace = { path: "/tmp" };
    try {
      for (const [name, call] of Object.entries({
        getSignedEndpoint: () => sandbox.getSignedEndpoint(8000, Math.floor(Date.now() / 1000) + 60),
        createSnapshot: () => manager.createSnapshot(sandbox.id),
        getSnapshot: () => manager.getSnapshot("nope"),
        listSnapshots: () => manager.listSnapshots(),
        deleteSnapshot: () => manager.deleteSnapshot("nope"),
        "credentialVault.get": () => sandbox.credentialVault.get(),
        "credentialVault.delete": () => sandbox.credentialVault.delete(),
        "credentialVault.listCredentials": () => sandbox.credentialVault.listCredentials(),
        "credentialVault.listBindings": () => sandbox.credentialVault.listBindings(),
        "credentialVault.getCredential": () => sandbox.credentialVault.getCredential("x"),
        "credentialVault.getBinding": () => sandbox.credentialVault.getBinding("x"),
        "credentialVault.create": () => sandbox.credentialVault.create({ credentials: [], bindings: [] }),
        "credentialVault.patch": () => sandbox.credentialVault.patch({}),
        "isolation session run": () => sandbox.isolation._run("x", "true"),
      }))
        await assert.rejects(call(), refused, name);
      // the package throws plain errors here, with the answer in the text
      for (const [name, call] of Object.entries({
        "isolation.create": () => sandbox.isolation.create({ workspace }),
        "isolation.attach": () => sandbox.isolation.attach("x"),
        "isolation.list": () => sandbox.isolation.list(),
        "isolation.runOnce": () => sandbox.isolation.runOnce("true", "/tmp"),
        "isolation.withSession": () => sandbox.isolation.withSession({ workspace }, () => null),
        // what get() and delete() of a session call (and run(), above), of which there is none to be had
        "isolation session get": () => sandbox.isolation._get("x"),
        "isolation session delete": () => sandbox.isolation._delete("x"),
      }))
        await assert.rejects(call(), /ISOLATION_UNAVAILABLE.*not offered/, name);
      // none of it harmed the sandbox
      assert.deepEqual(texts((await sandbox.commands.run("echo alive")).logs.stdout), ["alive"]);
    } finally {
      await manager.close();
      await end(sandbox);
    }
  });
});

test("nothing of this suite is left", async () => {
  const manager = SandboxManager.create({ connectionConfig: connection() });
  try {
    const left = await manager.listSandboxInfos({ metadata: { suite }, pageSize: 200 });
    assert.deepEqual(left.items.map((s) => `${s.id} ${s.status.state}`), []);
  } finally {
    await manager.close();
  }
});
