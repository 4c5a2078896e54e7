// SPDX-License-Identifier: Apache-2.0
// The driver of a Java context (JDK 11 or later), run by the source launcher.  It is told cells on descriptor 198 and tells
// what they do on 199; the frames are those of api/execd/code_frames.h.  Cells are evaluated by JShell in this very machine.
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.locks.LockSupport;
import jdk.jshell.Diag;
import jdk.jshell.EvalException;
import jdk.jshell.JShell;
import jdk.jshell.JShellException;
import jdk.jshell.Snippet;
import jdk.jshell.SnippetEvent;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.SourceCodeAnalysis.CompletionInfo;
import jdk.jshell.SourceCodeAnalysis.Completeness;
import jdk.jshell.UnresolvedReferenceException;

public final class Driver {
	static final int TEXT_MAX = 1 << 20;
	static final String[] IMPORTS = {
		"java.io.*", "java.math.*", "java.net.*", "java.nio.file.*", "java.util.*", "java.util.concurrent.*",
		"java.util.function.*", "java.util.prefs.*", "java.util.regex.*", "java.util.stream.*",
	};

	static OutputStream tells;
	static JShell shell;
	static volatile boolean busy, interrupted;
	static volatile int current;
	static final Object stopping = new Object();

	// ---- frames ----

	static FileDescriptor descriptor(int number) throws Exception {
		Constructor<FileDescriptor> made = FileDescriptor.class.getDeclaredConstructor(int.class);

		made.setAccessible(true);
		return made.newInstance(number);
	}

	static void put32(byte[] to, int at, int value) {
		for (int i = 0; i < 4; i++)
			to[at + i] = (byte) (value >>> (8 * i));
	}

	static int get32(byte[] from, int at) {
		int value = 0;

		for (int i = 3; i >= 0; i--)
			value = value << 8 | (from[at + i] & 255);
		return value;
	}

	static void tell(char kind, byte[] payload, int at, int n) {
		byte[] frame = new byte[5 + n];

		frame[0] = (byte) kind;
		put32(frame, 1, n);
		System.arraycopy(payload, at, frame, 5, n);
		try {
			synchronized (Driver.class) {
				tells.write(frame);
			}
		} catch (IOException e) {
			Runtime.getRuntime().halt(70); // closed by a cell: the context cannot be served any more
		}
	}

	static byte[] bytes(String text) {
		return text.getBytes(StandardCharsets.UTF_8);
	}

	static String cut(String text, int limit) {
		return text.length() <= limit ? text : text.substring(0, limit) + "... [cut]";
	}

	static void tell(char kind, List<String> strings) {
		List<byte[]> parts = new ArrayList<>();
		int n = 0, at = 0;

		for (String text : strings) {
			byte[] part = bytes(text);
			parts.add(part);
			n += 4 + part.length;
		}
		byte[] payload = new byte[n];
		for (byte[] part : parts) {
			put32(payload, at, part.length);
			System.arraycopy(part, 0, payload, at + 4, part.length);
			at += 4 + part.length;
		}
		tell(kind, payload, 0, n);
	}

	/**
	 * What cells print: lines leave at once, the rest when it is flushed or long.  They go through the same pipe as what processes that a
	 * cell starts print, so the order of these holds; before the other output's turn, this one's pipe has to be empty.
	 */
	static final class Told extends OutputStream {
		static final long PATIENCE_NS = 20_000_000, SPIN_NS = 200_000;
		static Told last;
		final FileOutputStream pipe;
		final FileInputStream asked; // available() is what the pipe holds; nothing is read
		final byte[] held = new byte[8192];
		int n;

		Told(int number) throws Exception {
			pipe = new FileOutputStream(descriptor(number));
			asked = new FileInputStream(descriptor(number));
		}

		void settle() throws IOException {
			long begin = System.nanoTime(), spent;

			while (asked.available() > 0 && (spent = System.nanoTime() - begin) < PATIENCE_NS)
				if (spent > SPIN_NS)
					LockSupport.parkNanos(50_000);
				else
					Thread.yield();
		}

		@Override public synchronized void write(int b) {
			held[n++] = (byte) b;
			if (b == '\n' || n == held.length)
				flush();
		}

		@Override public synchronized void write(byte[] from, int at, int count) {
			for (int left = count; left > 0;) {
				int part = Math.min(left, held.length - n);
				System.arraycopy(from, at + count - left, held, n, part);
				n += part;
				left -= part;
				if (n == held.length)
					flush();
			}
			for (int i = n - 1; i >= 0; i--)
				if (held[i] == '\n') {
					flush();
					break;
				}
		}

		@Override public synchronized void flush() {
			int size = n;

			n = 0;
			if (size == 0)
				return;
			try {
				synchronized (Told.class) {
					if (last != null && last != this)
						last.settle();
					last = this;
					pipe.write(held, 0, size);
				}
			} catch (IOException e) {
				// a cell closed its output: nobody reads it
			}
		}
	}

	// ---- cells ----

	static List<String> rejected(Snippet snippet) {
		List<String> error = new ArrayList<>(), lines = new ArrayList<>();
		String source = snippet.source();

		shell.diagnostics(snippet).forEach((Diag diag) -> {
			if (!diag.isError())
				return;
			lines.add(diag.getMessage(Locale.ENGLISH));
			int at = (int) Math.max(0, Math.min(diag.getPosition(), source.length()));
			int begin = source.lastIndexOf('\n', at - 1) + 1, end = source.indexOf('\n', at);
			lines.add("    " + source.substring(begin, end < 0 ? source.length() : end));
			lines.add("    " + " ".repeat(Math.max(0, at - begin)) + "^");
		});
		error.add("CompilationException");
		error.add(lines.isEmpty() ? "the code cannot be compiled" : cut(lines.get(0), 65536));
		error.addAll(lines);
		return error;
	}

	static List<String> thrown(JShellException problem) {
		List<String> error = new ArrayList<>();

		if (problem instanceof EvalException) {
			String name = ((EvalException) problem).getExceptionClassName();
			String message = problem.getMessage();
			String what = message == null ? name : name + ": " + message;

			error.add("EvalException");
			error.add(cut(what, 65536));
			error.add(cut(what, 65536));
		} else {
			String what = problem instanceof UnresolvedReferenceException ?
				"something is not defined yet in: " + ((UnresolvedReferenceException) problem).getSnippet().source().trim() :
				String.valueOf(problem.getMessage());

			error.add("UnresolvedReferenceException");
			error.add(cut(what, 65536));
			error.add(cut(what, 65536));
		}
		for (StackTraceElement frame : problem.getStackTrace()) {
			if (frame.getClassName().startsWith("jdk.jshell") || error.size() > 200)
				break;
			error.add("    at " + frame);
		}
		return error;
	}

	static boolean hasValue(Snippet snippet) {
		switch (snippet.subKind()) {
		case TEMP_VAR_EXPRESSION_SUBKIND:
		case VAR_VALUE_SUBKIND:
		case OTHER_EXPRESSION_SUBKIND:
		case ASSIGNMENT_SUBKIND:
			return true;
		default:
			return false;
		}
	}

	/** Runs the snippets of a cell; the value of the last one goes to @value.  Returns null or what went wrong. */
	static List<String> run(String code, String[] value) {
		SourceCodeAnalysis analysis = shell.sourceCodeAnalysis();
		String rest = code;

		while (!rest.trim().isEmpty()) {
			CompletionInfo info = analysis.analyzeCompletion(rest);
			Completeness how = info.completeness();
			String source = info.source();

			if (how == Completeness.EMPTY)
				return null;
			// what cannot be completed is given to the compiler as it is: its message says why
			if (source == null || how == Completeness.DEFINITELY_INCOMPLETE || how == Completeness.UNKNOWN) {
				source = rest;
				rest = "";
			} else {
				rest = info.remaining();
			}
			value[0] = null;
			if (interrupted)
				return List.of("KeyboardInterrupt", "", "KeyboardInterrupt");
			for (SnippetEvent event : shell.eval(source)) {
				if (event.causeSnippet() != null)
					continue; // another snippet that this one brought up to date
				if (event.status() == Snippet.Status.REJECTED)
					return rejected(event.snippet());
				if (event.exception() != null)
					return thrown(event.exception());
				if (interrupted)
					return List.of("KeyboardInterrupt", "", "KeyboardInterrupt");
				if (hasValue(event.snippet()) && event.value() != null && !event.value().isEmpty())
					value[0] = event.value();
			}
		}
		return null;
	}

	static void cell(int count, String code) {
		String[] value = {null};
		List<String> error, end = new ArrayList<>();

		interrupted = false;
		synchronized (stopping) {
			current = count;
			busy = true;
		}
		tell('B', List.of(Integer.toString(count)));
		try {
			error = run(code, value);
		} catch (Throwable problem) {
			error = List.of(problem.getClass().getSimpleName(), String.valueOf(problem.getMessage()), problem.toString());
		}
		synchronized (stopping) {
			busy = false; // and nobody stops the next cell
		}
		System.out.flush();
		System.err.flush();
		if (interrupted && error == null)
			error = List.of("KeyboardInterrupt", "", "KeyboardInterrupt");
		if (error == null && value[0] != null && !code.stripTrailing().endsWith(";;"))
			tell('R', List.of(Integer.toString(count), "text/plain", cut(value[0], TEXT_MAX)));
		end.add(Integer.toString(count));
		if (error != null)
			end.addAll(error);
		tell('Z', end);
	}

	/** By reflection: the compiler would warn about the class, and there is no other. */
	static void onInterrupt(Runnable what) throws Exception {
		Class<?> signal = Class.forName("sun.misc.Signal"), handler = Class.forName("sun.misc.SignalHandler");
		Object called = Proxy.newProxyInstance(Driver.class.getClassLoader(), new Class<?>[] {handler}, (self, method, arguments) -> {
			if (method.getName().equals("handle"))
				what.run();
			return method.getName().equals("hashCode") ? (Object) 1 : method.getName().equals("equals") ? (Object) false : null;
		});

		signal.getMethod("handle", signal, handler).invoke(null, signal.getConstructor(String.class).newInstance("INT"), called);
	}

	/** Whether cell @count still ran. */
	static boolean stop(int count) {
		synchronized (stopping) {
			if (busy && current == count)
				shell.stop();
			return busy && current == count;
		}
	}

	static void pause() {
		try {
			Thread.sleep(20);
		} catch (InterruptedException nobody) {
			Thread.currentThread().interrupt();
		}
	}

	static byte[] read(InputStream in, int n) throws IOException {
		byte[] data = new byte[n];

		// not readNBytes(): it asks where in the file it is
		for (int have = 0, got; have < n; have += got)
			if ((got = in.read(data, have, n - have)) <= 0)
				Runtime.getRuntime().halt(0);
		return data;
	}

	public static void main(String[] arguments) throws Exception {
		InputStream told = new FileInputStream(descriptor(198));
		tells = new FileOutputStream(descriptor(199));
		System.setOut(new PrintStream(new Told(1), false, "UTF-8"));
		System.setErr(new PrintStream(new Told(2), false, "UTF-8"));
		shell = JShell.builder().executionEngine("local").build();
		onInterrupt(() -> {
			if (!busy)
				return;
			interrupted = true;
			// it does nothing while the compiler works, and a finally block may begin anew
			for (int mine = current; stop(mine);)
				pause();
		});
		for (String name : IMPORTS)
			shell.eval("import " + name + ";");
		shell.eval("int osb = 1 + 1;"); // what the first cell would otherwise wait for
		shell.variables().forEach(shell::drop);
		byte[] hello = bytes(System.getProperty("java.version"));
		tell('H', hello, 0, hello.length);
		for (;;) {
			byte[] head = read(told, 9), code = read(told, get32(head, 1) - 4);
			cell(get32(head, 5), new String(code, StandardCharsets.UTF_8));
		}
	}
}
