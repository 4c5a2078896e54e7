// SPDX-License-Identifier: Apache-2.0
// The driver of JavaScript and TypeScript contexts (Node 16 or later; the word "typescript" as argument).  It is told cells
// on descriptor 198 and tells what they do on 199; the frames are those of api/execd/code_frames.h.
//
// A cell is evaluated by the inspector of this very thread: replMode lets a later cell declare a name again and awaits at
// the top level, and breakOnSigint lets an interrupt end a loop without end.
(require, load) => {
	'use strict';
	// a cell may put something else in their places
	const { Array, Atomics, Buffer, Error, Int32Array, JSON, Map, Object, RegExp, Set, SharedArrayBuffer, String, Symbol, SyntaxError, Uint8Array,
		encodeURI, process, setImmediate } = globalThis;
	const fs = require('fs'), vm = require('vm'), util = require('util'), path = require('path');
	const { createRequire } = require('module');
	const TOLD = 198, TELLS = 199, TEXT_MAX = 1 << 20, DATA_MAX = 4 << 20;
	const typescript = process.argv.includes('typescript');
	const write = fs.writeSync, exit = process.reallyExit.bind(process);
	// What follows an await is run by whoever calls this: within the watch for interrupts.  V8 has a word for it and Node has none.
	const checkpoint = () => {
		try {
			require('v8').setFlagsFromString('--allow-natives-syntax');
			const found = vm.runInThisContext('() => %PerformMicrotaskCheckpoint()', { filename: '<driver>' });
			found();
			return found;
		} catch (error) {
			return () => {};
		} finally {
			require('v8').setFlagsFromString('--no-allow-natives-syntax');
		}
	};
	let settle_awaits = checkpoint(), settling = false;
	// What an interrupted cell has behind an await that is over would go on when nobody watches: it gets a moment, and ends.
	const end_awaits = () => {
		globalThis[Symbol.for('osb.settle')] = settle_awaits;
		try {
			vm.runInThisContext("globalThis[Symbol.for('osb.settle')]()", { timeout: 50, breakOnSigint: true, filename: '<driver>' });
		} catch (error) {
			// it was a loop without end
		} finally {
			delete globalThis[Symbol.for('osb.settle')];
		}
	};
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
	const asText = (mime, value) => {
		if (Buffer.isBuffer(value) || value instanceof Uint8Array)
			return Buffer.from(value).toString('base64');
		const text = typeof value === 'string' ? value : String(JSON.stringify(value));

		return mime.startsWith('image/') ? text : cut(text);
	};
	const isWorse = (a, b) => {
		const image = a[0].startsWith('image/');

		return image === b[0].startsWith('image/') ? a[1].length > b[1].length : image;
	};
	// types and texts in turn; of more than a frame may have, images go first, and the largest of them
	const flat = (data) => {
		const texts = [], list = [];
		let sum = 0;

		for (const [mime, value] of Object.entries(data)) {
			if (value === undefined || value === null)
				continue;
			const text = asText(mime, value);
			sum += Buffer.byteLength(text);
			texts.push([mime, text]);
		}
		while (sum > DATA_MAX) {
			let worst = 0;
			for (let i = 1; i < texts.length; i++)
				worst = isWorse(texts[i], texts[worst]) ? i : worst;
			const [[mime, text]] = texts.splice(worst, 1), size = Buffer.byteLength(text);
			sum -= size;
			say('E', Buffer.from(`[${mime} of ${size} bytes is too large and was left out]\n`));
		}
		for (const one of texts)
			list.push(...one);
		return list;
	};
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
	// What the inspector evaluates is a script: it has no loader of its own and knows no `import` and `export`.  import() is ours,
	// `import x from 'y'` the await that it stands for, and an export what it exports.  To see which words are code, the text is
	// walked with what decides that: strings, templates, comments, and whether a slash divides or begins a regular expression.
	const LOAD = 'globalThis[Symbol.for("osb.import")]', META = 'globalThis[Symbol.for("osb.meta")]';
	Object.defineProperty(globalThis, Symbol.for('osb.import'), { value: (name, options) => load(name, options) });
	Object.defineProperty(globalThis, Symbol.for('osb.meta'), { value: {
		url: 'file://' + encodeURI(path.join(process.cwd(), 'cell.js')), dirname: process.cwd(), filename: path.join(process.cwd(), 'cell.js'),
		resolve: (name) => need('url').pathToFileURL(need.resolve(name)).href,
	} });
	const TOKEN = /\s+|\/\/[^\n]*|\/\*[^]*?\*\/|(["'])(?:\\[^]|(?!\1)[^\\\n])*\1|[\w$\u0080-\uffff]+|=>|[^]/y;
	const REGEXP = /\/(?:\\[^\n]|\[(?:\\[^\n]|[^\]\\\n])*\]|[^[\\/\n])+\/[a-z]*/y;
	const BEFORE_VALUE = new Set(['return', 'typeof', 'case', 'in', 'of', 'do', 'else', 'void', 'delete', 'instanceof', 'new', 'throw', 'await', 'yield',
		'import', 'export', 'default', 'extends']);
	const BEFORE_BLOCK = new Set([undefined, ';', '{', '}', ')', '=>', 'else', 'do', 'try', 'finally']);

	// Calls @word(at, before, top) for each word of code: its place, the token before it, and whether a statement may begin here.
	const walk = (code, word) => {
		const open = []; // of what is open: a parenthesis behind `if`, a block, a template's value
		let at = 0, before, before2, ends_value = false, line = true;
		const template = () => {
			for (; at < code.length; at++) {
				if (code[at] === '\\') {
					at++;
				} else if (code[at] === '`') {
					at++;
					ends_value = true;
					return;
				} else if (code[at] === '$' && code[at + 1] === '{') {
					at += 2;
					open.push({ kind: '`' });
					ends_value = false;
					return;
				}
			}
		};

		while (at < code.length) {
			if (code[at] === '/' && code[at + 1] !== '/' && code[at + 1] !== '*' && !ends_value) {
				REGEXP.lastIndex = at;
				const found = REGEXP.exec(code);
				if (found) {
					at += found[0].length;
					[before2, before, ends_value, line] = [before, '/', true, false];
					continue;
				}
			}
			TOKEN.lastIndex = at;
			const token = TOKEN.exec(code)[0], start = at;
			at += token.length;
			if (/^(\s|\/\/|\/\*)/.test(token)) {
				line = line || token.includes('\n');
				continue;
			}
			const is_word = /^[\w$\u0080-\uffff]/.test(token);
			if (is_word)
				word(token, start, before, !open.length && (line || before === ';' || before === '}'));
			if (token === '`') {
				template();
			} else if (token === '(' || token === '[') {
				open.push({ kind: token, regexp: token === '(' && before2 !== '.' && ['if', 'while', 'for', 'with'].includes(before) });
				ends_value = false;
			} else if (token === '{') {
				open.push({ kind: token, regexp: BEFORE_BLOCK.has(before) });
				ends_value = false;
			} else if (token === ')' || token === ']' || token === '}') {
				const last = open.pop();
				if (last && last.kind === '`')
					template();
				else
					ends_value = !(last && last.regexp);
			} else {
				ends_value = is_word ? before === '.' || !BEFORE_VALUE.has(token) : token.length > 1 && token !== '=>';
			}
			[before2, before, line] = [before, token, false];
		}
	};
	const NAME = String.raw`[\w$\u0080-\uffff]+`, GAP = String.raw`(?:\s|\/\*[^]*?\*\/|\/\/[^\n]*\n)*`;
	const FROM = String.raw`(["'][^"'\n]*["'])(?:${GAP}\b(?:with|assert)\b${GAP}(\{[^}]*\}))?[ \t]*;?`;
	const IMPORT = new RegExp(String.raw`import\b${GAP}(?:(?:(${NAME})${GAP},?${GAP})?(?:\{([^}]*)\}|\*${GAP}as\b${GAP}(${NAME}))?${GAP}from\b${GAP})?${FROM}`, 'y');
	const EXPORT_FROM = new RegExp(String.raw`export\b${GAP}(?:\{[^}]*\}|\*(?:${GAP}as\b${GAP}(${NAME}))?)${GAP}from\b${GAP}${FROM}`, 'y');
	const EXPORT_LIST = /export\b\s*\{[^}]*\}[ \t]*;?/y, EXPORT_DEFAULT = /export\s+default\b/y, EXPORT = /export\b/y;
	const NAMED = new RegExp(String.raw`\s+(?:(?:async\s+)?function\b\s*\*?|class\b)\s*(?!extends\b)${NAME}`, 'y');
	const match_at = (expression, text, at) => {
		expression.lastIndex = at;
		return expression.exec(text);
	};
	const parts_of = (named) => named.replace(/\/\*[^]*?\*\/|\/\/[^\n]*/g, '').split(',').map((part) => part.trim())
		.map((part) => part.replace(/^(\S+|"[^"]*"|'[^']*')\s+as\s+/, '$1: ')).filter(Boolean);
	const load_of = (from, how) => `await ${LOAD}(${from}${how ? `, { with: ${how}, assert: ${how} }` : ''});`;
	// What stands for @text has its lines, so that those of errors are the cell's.
	const lines_like = (text, put) => put + '\n'.repeat(text.split('\n').length - 1);

	// `import(x) { ... }` names a method: what follows its parenthesis tells.
	const is_method = (code, at) => {
		for (let depth = 1; at < code.length && depth; at++)
			depth += code[at] === '(' ? 1 : code[at] === ')' ? -1 : 0;
		return /^\s*\{/.test(code.slice(at, at + 1000));
	};
	const rewritten = (word, code, at, top) => {
		let found;

		if (word === 'import' && (found = match_at(/import\s*\.\s*meta\b/y, code, at)))
			return [found[0], META];
		if (word === 'import' && (found = match_at(/import\s*\(/y, code, at)))
			return is_method(code, at + found[0].length) ? null : [found[0], LOAD + '('];
		if (!top)
			return null;
		if (word === 'import' && (found = match_at(IMPORT, code, at))) {
			const [, standard, named, space, from, how] = found, parts = named === undefined ? [] : parts_of(named);

			if (standard)
				parts.unshift('default: ' + standard);
			return [found[0], space ? (standard ? `var { default: ${standard} } = ${load_of(from, how)} ` : '') + `var ${space} = ${load_of(from, how)}` :
				standard || named !== undefined ? `var { ${parts.join(', ')} } = ${load_of(from, how)}` : 'void ' + load_of(from, how)];
		}
		if (word !== 'export')
			return null;
		if ((found = match_at(EXPORT_FROM, code, at)))
			return [found[0], (found[1] ? `var ${found[1]} = ` : 'void ') + load_of(found[2], found[3])];
		if ((found = match_at(EXPORT_LIST, code, at)))
			return [found[0], ';'];
		if ((found = match_at(EXPORT_DEFAULT, code, at)))
			return [found[0], match_at(NAMED, code, at + found[0].length) ? '' : 'exports.default ='];
		return match_at(/export\s+(?:const|let|var|function|async|class)\b/y, code, at) ? [match_at(EXPORT, code, at)[0], ''] : null;
	};
	const imports = (code) => {
		let out = '', done = 0;

		if (!/\b(import|export)\b/.test(code))
			return code;
		walk(code, (word, at, before, top) => {
			const found = at < done || before === '.' || before === '#' || (word !== 'import' && word !== 'export') ? null : rewritten(word, code, at, top);

			if (!found)
				return;
			out += code.slice(done, at) + lines_like(found[0], found[1]);
			done = at + found[0].length;
		});
		return out + code.slice(done);
	};

	// A name may be declared again only in the way in which it was: const as const, let and class as let, var and function as var.
	// Whoever declares it otherwise means it anew all the same, so the word at its declaration gives way.  Return null when none can.
	const OTHERS = { const: ['let', 'var'], let: ['var', 'const'], var: ['let', 'const'] };
	const declared_otherwise = (code, name, tried) => {
		const words = [], declares = new RegExp(String.raw`(^|[^\w$.])${name.replace(/\$/g, '\\$&')}(?![\w$])`);
		const assigns = new RegExp(declares.source + String.raw`\s*(=(?![=>])|\+\+|--|[-+*/%&|^?<>]{1,3}=(?!=))`, 'g');

		walk(code, (word, at, before, top) => {
			if (top && word in OTHERS)
				words.push([word, at]);
		});
		for (let i = 0; i < words.length; i++) {
			const [word, at] = words[i], end = i + 1 < words.length ? words[i + 1][1] : code.length;

			if (!declares.test(code.slice(at + word.length, end)))
				continue;
			const was = tried.get(name) || (tried.set(name, [word, ...OTHERS[word]]), tried.get(name));
			const next = was[was.indexOf(word) + 1];
			// a constant is none that the cell changes later
			if (!next || (next === 'const' && (code.match(assigns) || []).length > 1))
				return null;
			return code.slice(0, at) + next + code.slice(at + word.length);
		}
		return null;
	};
	const CLASH = /^Identifier '(.+)' has already been declared$/;

	const run = (code, done) => {
		let over = false, expression;
		const tried = new Map();
		const finish = (error) => {
			if (over)
				return;
			over = true;
			abandon = null;
			try {
				tell('Z', strings([count, ...error]));
			} catch (broken) {
				exit(70); // what we are built on was taken away: better told as an end than never
			}
			done();
		};
		const result = (error, reply) => {
			if (over)
				return;
			try {
				if (error && /context was destroyed/.test(error.message))
					return; // the process exits
				// an interrupt: Node 22 says so here, older ones where the evaluation was started
				if (error)
					return finish(/Execution was terminated/.test(error.message) ? INTERRUPTED : ['InternalError', error.message]);
				if (reply.exceptionDetails) {
					const details = reply.exceptionDetails, failed = failure(details), clash = CLASH.exec(failed[1]);
					// told before anything of the cell has run
					const other = clash && failed[0] === 'SyntaxError' && !details.stackTrace && declared_otherwise(expression, clash[1], tried);

					if (!other)
						return finish(failed);
					expression = other;
					return evaluate();
				}
				if (reply.result.type !== 'undefined')
					tell('R', strings([count, ...flat(bundle(fetch(reply.result)))]));
				finish([]);
			} catch (problem) {
				finish(described(problem));
			}
		};

		const evaluate = () => {
			globalThis[Symbol.for('osb.evaluate')] = () => {
				tell('B', strings([count]));
				session.post('Runtime.evaluate', {
					expression: expression + `\n//# sourceURL=<cell_${count}>`, replMode: true, awaitPromise: true, silent: true,
				// what the cell has put behind its turn is its own, too
				}, (...told) => settling ? setImmediate(result, ...told) : result(...told));
				if (!/\bawait\b/.test(expression))
					return;
				try {
					settle_awaits = settle_awaits || checkpoint();
					settling = true;
					settle_awaits();
				} catch (error) {
					settle_awaits = null; // its code was dropped by the collector, and cannot be read again as it is
				} finally {
					settling = false;
				}
			};
			try {
				vm.runInThisContext("globalThis[Symbol.for('osb.evaluate')]()", { breakOnSigint: true, filename: '<driver>' });
			} catch (error) {
				const interrupted = error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED';

				if (interrupted && settle_awaits)
					end_awaits();
				finish(interrupted ? INTERRUPTED : described(error));
			} finally {
				delete globalThis[Symbol.for('osb.evaluate')];
			}
		};

		abandon = () => finish(INTERRUPTED);
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
		evaluate();
	};

	// ---- what a cell leaves running ----

	// The signal is for vm's watch.  Here it comes when the loop gets to it, maybe in the next cell: its frame says which one is meant.
	process.on('SIGINT', () => {});
	const left = (how) => (error) => say('E', Buffer.from(how + described(error).slice(2).join('\n').replace(/^Uncaught /, '') + '\n'));
	process.on('uncaughtException', left('Uncaught '));
	process.on('unhandledRejection', left('Uncaught (in promise) '));

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
	const INTERRUPT = 73;
	const next = () => {
		while (held.length >= 5) {
			const size = held.readUInt32LE(1), kind = held[0];
			if (held.length < 5 + size || (running && kind !== INTERRUPT))
				return;
			const code = held.toString('utf8', 9, 5 + size), number = held.readUInt32LE(5);
			held = held.subarray(5 + size);
			if (kind === INTERRUPT) {
				// the signal is lost when it comes while vm takes its watch off
				if (running && number === count && abandon)
					abandon();
				continue;
			}
			count = number;
			running = true;
			run(code, () => { running = false; setImmediate(next); });
		}
	};
	const net = require('net');
	const told = new net.Socket({ fd: TOLD, readable: true, writable: false });
	told.on('data', (data) => { held = held.length ? Buffer.concat([held, data]) : data; next(); });
	told.on('close', () => exit(0));
	tell('H', Buffer.from(process.versions.node));
}
