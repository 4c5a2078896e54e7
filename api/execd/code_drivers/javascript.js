// SPDX-License-Identifier: Apache-2.0
// The driver of JavaScript and TypeScript contexts (Node 16 or later; the word "typescript" as argument).  It is told cells
// on descriptor 198 and tells what they do on 199; the frames are those of api/execd/code_frames.h.
//
// A cell is evaluated by the inspector of this very thread: replMode lets a later cell declare a name again and awaits at
// the top level, and breakOnSigint lets an interrupt end a loop without end.
(require, load) => {
	'use strict';
	const fs = require('fs'), vm = require('vm'), util = require('util'), path = require('path');
	const { createRequire } = require('module');
	const TOLD = 198, TELLS = 199, TEXT_MAX = 1 << 20;
	const typescript = process.argv.includes('typescript');
	const write = fs.writeSync, exit = process.reallyExit.bind(process);
	const own = /<driver>|\[eval\]|node:(internal|vm|inspector|events)|^\s+at (new )?Script|inspector\.Session/;

	// ---- frames ----

	const send = (data) => {
		for (let at = 0; at < data.length;) {
			try {
				at += write(TELLS, data, at);
			} catch (error) {
				if (error.code !== 'EAGAIN' && error.code !== 'EINTR')
					exit(70); // closed by a cell: the context cannot be served any more
			}
		}
	};
	const tell = (kind, payload) => {
		const head = Buffer.alloc(5);

		head.write(kind, 0, 'latin1');
		head.writeUInt32LE(payload.length, 1);
		send(Buffer.concat([head, payload]));
	};
	const cut = (text, limit = TEXT_MAX) => text.length > limit ? text.slice(0, limit) + '... [cut]' : text;
	const strings = (list) => Buffer.concat(list.flatMap((item) => {
		const data = Buffer.isBuffer(item) ? item : Buffer.from(String(item), 'utf8'), size = Buffer.alloc(4);

		size.writeUInt32LE(data.length);
		return [size, data];
	}));
	const say = (kind, data) => {
		unsettled = true;
		for (let at = 0; at < data.length; at += 65536)
			tell(kind, data.subarray(at, at + 65536));
	};

	// ---- output ----

	const { Writable } = require('stream');
	const output = (kind, fd) => {
		const stream = new Writable({
			decodeStrings: true,
			write(chunk, encoding, done) {
				say(kind, chunk);
				done();
			},
		});

		// at once, as a terminal's: what a cell writes and then exits must not be lost
		stream.write = (chunk, encoding, done) => {
			if (typeof encoding === 'function')
				done = encoding, encoding = undefined;
			say(kind, typeof chunk === 'string' ? Buffer.from(chunk, encoding || 'utf8') : Buffer.from(chunk));
			if (done)
				process.nextTick(done);
			return true;
		};
		stream.fd = fd;
		stream.isTTY = false;
		return stream;
	};
	const stdout = output('O', 1), stderr = output('E', 2);
	Object.defineProperty(process, 'stdout', { configurable: true, enumerable: true, get: () => stdout });
	Object.defineProperty(process, 'stderr', { configurable: true, enumerable: true, get: () => stderr });
	globalThis.console = new console.Console({ stdout, stderr, colorMode: false });

	// Before a process starts that writes past us: what was written here is taken, so that it comes first.  Node cannot ask how
	// much a pipe holds; a moment is what the agent needs to take it.
	let unsettled = false;
	const nap = new Int32Array(new SharedArrayBuffer(4));
	const settle = () => {
		if (unsettled)
			Atomics.wait(nap, 0, 0, 3);
		unsettled = false;
	};
	const children = require('child_process');
	for (const name of ['exec', 'execFile', 'execFileSync', 'execSync', 'fork', 'spawn', 'spawnSync']) {
		const plain = children[name];

		children[name] = Object.assign(function (...args) {
			settle();
			return plain.apply(this, args);
		}, plain);
		if (plain[util.promisify.custom])
			Object.defineProperty(children[name], util.promisify.custom, { value: plain[util.promisify.custom] });
	}
	require('module').syncBuiltinESMExports();

	// ---- values ----

	let count = 0;
	const inspect = (value) => {
		try {
			const text = util.inspect(value, { depth: 4, maxArrayLength: 200, maxStringLength: TEXT_MAX });

			// an error as a value: its stack without us
			return cut(text.includes('<driver>') ? text.split('\n').filter((line) => !own.test(line)).join('\n') : text);
		} catch (error) {
			return '<inspect failed>';
		}
	};
	const rich = Symbol.for('Jupyter.display');
	const bundle = (value) => {
		const data = { 'text/plain': inspect(value) };

		if (value === null || (typeof value !== 'object' && typeof value !== 'function'))
			return data;
		try {
			if (typeof value[rich] === 'function')
				Object.assign(data, value[rich]());
			if (typeof value.toHtml === 'function')
				data['text/html'] = value.toHtml();
			if (typeof value.toPng === 'function')
				data['image/png'] = Buffer.from(value.toPng()).toString('base64');
		} catch (error) {
			// a value that cannot show itself is shown as text
		}
		return data;
	};
	const flat = (data) => Object.entries(data).flatMap(([mime, value]) => {
		if (Buffer.isBuffer(value) || value instanceof Uint8Array)
			return [mime, Buffer.from(value).toString('base64')];
		return value === undefined || value === null ? [] :
			[mime, cut(typeof value === 'string' ? value : JSON.stringify(value), 2 << 20)];
	});
	globalThis.display = (...values) => values.forEach((value) => tell('D', strings(flat(bundle(value)))));

	// ---- TypeScript: types are taken off by what is there ----

	const need = createRequire(path.join(process.cwd(), 'cell.js'));
	const strip = (() => {
		if (!typescript)
			return (code) => code;
		const native = require('module').stripTypeScriptTypes;
		if (native) {
			// the first use warns that it is experimental
			const warn = process.emitWarning;
			process.emitWarning = () => {};
			try {
				native('let a: number', { mode: 'strip' });
			} finally {
				process.emitWarning = warn;
			}
			return (code) => {
				try {
					return native(code, { mode: 'strip' });
				} catch (error) {
					if (error.code !== 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX')
						throw error;
					return native(code, { mode: 'transform' });
				}
			};
		}
		const roots = [process.cwd(), '/usr/lib/node_modules', '/usr/local/lib/node_modules', '/usr/share/nodejs',
			path.resolve(process.execPath, '../../lib/node_modules')];
		const { spawnSync } = require('child_process');
		const esbuild = ['esbuild', ...roots.map((root) => path.join(root, 'esbuild/bin/esbuild'))].find(
			(name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
		if (esbuild)
			return (code) => {
				const done = spawnSync(esbuild, ['--loader=ts', '--target=es2022', '--tsconfig-raw={"compilerOptions":{"verbatimModuleSyntax":true}}',
					'--log-level=error', '--color=false'], { input: code, encoding: 'utf8', maxBuffer: 64 << 20 });

				if (done.status !== 0)
					throw new SyntaxError((done.stderr || String(done.error)).trim());
				return done.stdout;
			};
		try {
			const found = ['typescript', ...roots.map((root) => path.join(root, 'typescript'))].find((name) => {
				try {
					return need.resolve(name);
				} catch (error) {
					return false;
				}
			});
			const ts = need(found);
			const options = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, isolatedModules: true };

			return (code) => {
				const done = ts.transpileModule(code, { compilerOptions: options, reportDiagnostics: true });
				const bad = (done.diagnostics || []).filter((d) => d.category === ts.DiagnosticCategory.Error);

				if (bad.length)
					throw new SyntaxError(bad.map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n')).join('\n'));
				return done.outputText.replace(/^export \{\};\s*$/m, '');
			};
		} catch (error) {
			return null;
		}
	})();

	// ---- cells ----

	const { Session } = require('inspector');
	const session = new Session();
	session.connect();
	const post = (method, params) => {
		let result, failed;

		// same thread: most answers come before post() returns
		session.post(method, params, (error, reply) => { failed = error; result = reply; });
		if (failed)
			throw new Error(failed.message);
		return result;
	};
	let value, abandon = null;

	// The object behind a remote one, in our own realm.
	const fetch = (remote) => {
		const argument = remote.objectId ? { objectId: remote.objectId } :
			'unserializableValue' in remote ? { unserializableValue: remote.unserializableValue } : { value: remote.value };
		const target = post('Runtime.evaluate', { expression: 'globalThis' }).result.objectId;

		globalThis[Symbol.for('osb.put')] = (v) => { value = v; };
		post('Runtime.callFunctionOn', {
			objectId: target, arguments: [argument],
			functionDeclaration: "function (v) { this[Symbol.for('osb.put')](v); }",
		});
		delete globalThis[Symbol.for('osb.put')];
		const found = value;
		value = undefined;
		return found;
	};
	const lines_of = (stack) => String(stack).split('\n').filter((line) => !own.test(line)).slice(0, 100).map((line) => cut(line, 4096));
	const described = (thrown) => {
		try {
			if (thrown instanceof Error || (thrown && typeof thrown === 'object' && typeof thrown.stack === 'string')) {
				const name = thrown.constructor && thrown.constructor.name || thrown.name || 'Error';

				return [name, cut(String(thrown.message), 65536), ...lines_of(thrown.stack)];
			}
			return ['Error', cut(inspect(thrown), 65536), 'Uncaught ' + cut(inspect(thrown), 4096)];
		} catch (error) {
			return ['Error', '<the thrown value cannot be shown>'];
		}
	};
	const INTERRUPTED = ['KeyboardInterrupt', '', 'KeyboardInterrupt'];
	const failure = (details) => {
		if (!details.exception)
			return ['Error', details.text, details.text];
		if (!('objectId' in details.exception))
			return described(fetch(details.exception));
		const thrown = fetch(details.exception);

		// a cell that cannot be parsed has no line of its own in the stack
		if (details.stackTrace === undefined && thrown instanceof SyntaxError && details.lineNumber !== undefined)
			return ['SyntaxError', thrown.message, `<cell_${count}>:${details.lineNumber + 1}`, 'SyntaxError: ' + thrown.message];
		return described(thrown);
	};
	// What the inspector evaluates has no loader of its own: import() is ours, and `import x from 'y'` the await that it stands for.
	const LOAD = 'globalThis[Symbol.for("osb.import")]';
	Object.defineProperty(globalThis, Symbol.for('osb.import'), { value: (name) => load(name) });
	const imports = (code) => code.replace(/(["'])(?:\\.|(?!\1)[^\\\n])*\1|`(?:\\.|[^\\`])*`|\/\/[^\n]*|\/\*[^]*?\*\/|\bimport\s*\(/g,
		(match) => match.startsWith('import') ? LOAD + '(' : match).replace(
		/^[ \t]*import\s+(?:([\w$]+)\s*,?\s*)?(?:\{([^}]*)\}|\*\s+as\s+([\w$]+))?\s*(?:from\s+)?(['"][^'"\n]+['"])[ \t]*;?/gm,
		(all, standard, named, space, from) => {
			if (!standard && named === undefined && !space)
				return `await ${LOAD}(${from});`;
			const parts = named === undefined ? [] : named.split(',').map((part) => part.trim().replace(/^(\S+)\s+as\s+/, '$1: '));

			if (standard)
				parts.unshift('default: ' + standard);
			return space ? (standard ? `var { default: ${standard} } = await ${LOAD}(${from}); ` : '') +
				`var ${space} = await ${LOAD}(${from});` : `var { ${parts.filter(Boolean).join(', ')} } = await ${LOAD}(${from});`;
		});

	const run = (code, done) => {
		let over = false;
		const finish = (error) => {
			if (over)
				return;
			over = true;
			abandon = null;
			tell('Z', strings([count, ...error]));
			done();
		};
		const result = (error, reply) => {
			if (over)
				return;
			try {
				// an interrupt: Node 22 says so here, older ones where the evaluation was started
				if (error)
					return finish(/Execution was terminated/.test(error.message) ? INTERRUPTED : ['InternalError', error.message]);
				if (reply.exceptionDetails)
					return finish(failure(reply.exceptionDetails));
				if (reply.result.type !== 'undefined')
					tell('R', strings([count, ...flat(bundle(fetch(reply.result)))]));
				finish([]);
			} catch (problem) {
				finish(described(problem));
			}
		};

		abandon = () => finish(INTERRUPTED);
		let expression;
		try {
			expression = imports(strip(code));
		} catch (error) {
			return finish([error.name === 'SyntaxError' || error.code ? 'SyntaxError' : error.name, String(error.message),
				'SyntaxError: ' + error.message]);
		}
		// `{a: 1}` is an object to who types it, and a block to the parser
		if (/^\s*\{/.test(expression) && !/;\s*$/.test(expression)) {
			try {
				new vm.Script('(' + expression.trim() + ')');
				expression = '(' + expression.trim() + ')';
			} catch (error) {
				// a block
			}
		}
		globalThis[Symbol.for('osb.evaluate')] = () => session.post('Runtime.evaluate', {
			expression: expression + `\n//# sourceURL=<cell_${count}>`, replMode: true, awaitPromise: true, silent: true,
		}, result);
		try {
			vm.runInThisContext("globalThis[Symbol.for('osb.evaluate')]()", { breakOnSigint: true, filename: '<driver>' });
		} catch (error) {
			finish(error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? INTERRUPTED : described(error));
		} finally {
			delete globalThis[Symbol.for('osb.evaluate')];
		}
	};

	// ---- what a cell leaves running ----

	process.on('SIGINT', () => { if (abandon) abandon(); });
	process.on('uncaughtException', (error) => say('E', Buffer.from('Uncaught ' + described(error).slice(2).join('\n') + '\n')));
	process.on('unhandledRejection', (error) => say('E', Buffer.from('Uncaught (in promise) ' + described(error).slice(2).join('\n') + '\n')));

	globalThis.require = need;
	globalThis.module = { exports: {} };
	globalThis.exports = globalThis.module.exports;
	globalThis.__dirname = process.cwd();
	globalThis.__filename = path.join(process.cwd(), 'cell.js');
	process.argv.length = 1;

	if (!strip) {
		tell('F', Buffer.from('TypeScript needs Node 22.13 or later, or the typescript or esbuild package'));
		exit(1);
	}

	let held = Buffer.alloc(0), running = false;
	const next = () => {
		if (running || held.length < 5)
			return;
		const size = held.readUInt32LE(1);
		if (held.length < 5 + size)
			return;
		const code = held.toString('utf8', 9, 5 + size);
		count = held.readUInt32LE(5);
		held = held.subarray(5 + size);
		running = true;
		run(code, () => { running = false; setImmediate(next); });
	};
	const net = require('net');
	const told = new net.Socket({ fd: TOLD, readable: true, writable: false });
	told.on('data', (data) => { held = held.length ? Buffer.concat([held, data]) : data; next(); });
	told.on('close', () => exit(0));
	tell('H', Buffer.from(process.versions.node));
}
