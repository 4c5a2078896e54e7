// SPDX-License-Identifier: Apache-2.0

// The driver of a Go context (1.18 or later), built by the go command of the image.  It is told cells on descriptor 198 and
// tells what they do on 199; the frames are those of api/execd/code_frames.h.
//
// Go has no interpreter: declarations (import, func, type, const, var) are kept from cell to cell, everything else is the
// body of main() of a program that is built and run for its cell alone.  A cell that begins with `package` is a program.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const textMax = 1 << 20

var (
	told       = os.NewFile(198, "told")
	tells      = os.NewFile(199, "tells")
	wire       sync.Mutex
	dir        string
	kept       = map[string]decl{} // by what they declare
	interrupts = make(chan os.Signal, 8)
	order      int
)

type decl struct {
	text  string
	order int
	names []string
}

// ---- frames ----

func tell(kind byte, payload []byte) {
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = kind
	binary.LittleEndian.PutUint32(frame[1:], uint32(len(payload)))
	wire.Lock()
	defer wire.Unlock()
	if _, err := tells.Write(append(frame, payload...)); err != nil {
		os.RemoveAll(dir)
		os.Exit(70)
	}
}

func tellStrings(kind byte, list ...string) {
	var out bytes.Buffer
	for _, text := range list {
		var size [4]byte
		binary.LittleEndian.PutUint32(size[:], uint32(len(text)))
		out.Write(size[:])
		out.WriteString(text)
	}
	tell(kind, out.Bytes())
}

func cut(text string) string {
	if len(text) > textMax {
		return strings.ToValidUTF8(text[:textMax], "") + "... [cut]"
	}
	return text
}

// ---- what a cell is made of ----

type chunk struct {
	text string
	line int
}

// split cuts a cell where statements of its outermost level end.
func split(code string) []chunk {
	var (
		s      scanner.Scanner
		out    []chunk
		fset   = token.NewFileSet()
		file   = fset.AddFile("", fset.Base(), len(code))
		begin  = -1
		depth  = 0
		finish = func(end int) {
			if begin >= 0 && strings.TrimSpace(code[begin:end]) != "" {
				out = append(out, chunk{code[begin:end], 1 + strings.Count(code[:begin], "\n")})
			}
			begin = -1
		}
	)
	s.Init(file, []byte(code), func(token.Position, string) {}, 0)
	for {
		pos, tok, _ := s.Scan()
		at := file.Offset(pos)
		switch tok {
		case token.EOF:
			finish(len(code))
			return out
		case token.LPAREN, token.LBRACE, token.LBRACK:
			depth++
		case token.RPAREN, token.RBRACE, token.RBRACK:
			depth--
		case token.SEMICOLON:
			if depth <= 0 {
				finish(at)
				continue
			}
		}
		if begin < 0 {
			begin = at
		}
	}
}

func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	switch t := f.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		if id, ok := t.X.(*ast.Ident); ok {
			return id.Name + "."
		}
	case *ast.Ident:
		return t.Name + "."
	}
	return "?."
}

// declared returns what a chunk declares at package level, or false when it is something else.
func declared(text string) (keys []string, imports []*ast.ImportSpec, good bool) {
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+text, 0)
	if err != nil {
		return nil, nil, false
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			keys = append(keys, receiver(d)+d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						keys = append(keys, name.Name)
					}
				case *ast.TypeSpec:
					keys = append(keys, spec.Name.Name)
				}
			}
		}
	}
	return keys, file.Imports, true
}

// What is imported by its last name when a cell uses it without saying so.
var known = strings.Fields("bufio bytes context crypto/md5 crypto/sha256 encoding/base64 encoding/csv encoding/hex encoding/json " +
	"errors fmt io log math math/big math/cmplx math/rand net/http net/url os os/exec path path/filepath reflect regexp runtime " +
	"sort strconv strings sync sync/atomic text/template time unicode unicode/utf8")

func baseName(spec string) string {
	base := path.Base(spec)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(spec))
	}
	return strings.TrimPrefix(strings.Split(base, ".")[0], "go-")
}

type program struct {
	imports map[string]string // name -> import spec, text
	decls   map[string]decl
	body    []chunk
	show    *chunk
}

// valued tells whether a call is likely to be made for its value.
func valued(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		if id, ok := f.X.(*ast.Ident); ok && (id.Name == "fmt" || id.Name == "log" || id.Name == "os") {
			return strings.HasPrefix(f.Sel.Name, "S") || strings.HasPrefix(f.Sel.Name, "Get")
		}
	case *ast.Ident:
		return f.Name != "print" && f.Name != "println" && f.Name != "panic"
	case *ast.FuncLit:
		return f.Type.Results != nil
	}
	return true
}

func analyse(code string) (p program) {
	p.imports, p.decls = imported, map[string]decl{}
	chunks := split(code)
	for i, c := range chunks {
		if keys, imports, good := declared(c.text); good {
			for _, spec := range imports {
				name := ""
				if spec.Name != nil {
					name = spec.Name.Name
				}
				from, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					continue
				}
				key := name
				if name == "" {
					key = baseName(from)
				} else if name == "_" || name == "." {
					key = name + from
				}
				p.imports[key] = strings.TrimSpace(name + " " + spec.Path.Value)
			}
			if len(keys) > 0 {
				order++
				p.decls[strings.Join(keys, ",")] = decl{fmt.Sprintf("//line cell:%d\n%s\n", c.line, c.text), order, keys}
			}
			continue
		}
		if i == len(chunks)-1 {
			if e, err := parser.ParseExpr(c.text); err == nil {
				call, isCall := e.(*ast.CallExpr)
				if !isCall || valued(call) {
					last := c
					p.show = &last
					continue
				}
			}
		}
		p.body = append(p.body, c)
	}
	return p
}

var imported = map[string]string{}

func all(p program) []decl {
	var list []decl
	gone := map[string]bool{}
	for _, d := range p.decls {
		for _, name := range d.names {
			gone[name] = true
		}
		list = append(list, d)
	}
	for _, d := range kept {
		old := false
		for _, name := range d.names {
			old = old || gone[name]
		}
		if !old {
			list = append(list, d)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].order < list[j].order })
	return list
}

// write makes the program of a cell; with show the value of its last expression goes to descriptor 3.
func write(p program, count uint32, show bool) string {
	var body, text strings.Builder
	hasMain := false
	for _, d := range all(p) {
		body.WriteString(d.text)
		for _, name := range d.names {
			hasMain = hasMain || name == "main"
		}
	}
	if !hasMain {
		body.WriteString("func main() {\n")
		for _, c := range p.body {
			fmt.Fprintf(&body, "//line cell:%d\n%s\n", c.line, c.text)
			if f, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+c.text+"\n}", 0); err == nil {
				for _, s := range f.Decls[0].(*ast.FuncDecl).Body.List {
					if a, ok := s.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
						for _, left := range a.Lhs {
							if id, ok := left.(*ast.Ident); ok && id.Name != "_" {
								fmt.Fprintf(&body, "_ = %s\n", id.Name)
							}
						}
					}
				}
			}
		}
		if p.show != nil && show {
			fmt.Fprintf(&body, "//line cell:%d\nosbShow(%s)\n", p.show.line, p.show.text)
		} else if p.show != nil {
			fmt.Fprintf(&body, "//line cell:%d\n%s\n", p.show.line, p.show.text)
		}
		body.WriteString("}\n")
	}
	show = show && p.show != nil && !hasMain
	used := map[string]bool{}
	if f, err := parser.ParseFile(token.NewFileSet(), "", "package main\n"+body.String(), 0); err == nil {
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := s.X.(*ast.Ident); ok {
					used[id.Name] = true
				}
			}
			return true
		})
	}
	text.WriteString("package main\n")
	for name, spec := range p.imports {
		if used[name] || strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") {
			fmt.Fprintf(&text, "import %s\n", spec)
		}
	}
	for _, spec := range known {
		if name := path.Base(spec); used[name] && p.imports[name] == "" {
			fmt.Fprintf(&text, "import %q\n", spec)
		}
	}
	if show {
		text.WriteString("import osbFmt \"fmt\"\nimport osbOs \"os\"\nfunc osbShow(v ...interface{}) {\n\tf := osbOs.NewFile(3, \"\")\n" +
			"\tfor i, x := range v {\n\t\tif i > 0 {\n\t\t\tosbFmt.Fprint(f, \" \")\n\t\t}\n\t\tosbFmt.Fprintf(f, \"%v\", x)\n\t}\n\tf.Close()\n}\n")
	}
	text.WriteString(body.String())
	return strings.ReplaceAll(text.String(), "//line cell:", fmt.Sprintf("//line cell_%d.go:", count))
}

// ---- running it ----

// One that came before there was a process of the cell; later ones come to it as to us.
func passInterrupt(cmd *exec.Cmd) {
	if len(interrupts) > 0 {
		cmd.Process.Signal(os.Interrupt)
	}
}

// What the group was sent may end a process of the cell before the runtime has told us: then it is waited for, since it is not the next cell's.
func interrupted(likely bool) bool {
	if likely {
		select {
		case sent := <-interrupts:
			interrupts <- sent
		case <-time.After(time.Second):
		}
	}
	return len(interrupts) > 0
}

func build(text string) (string, error) {
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "cell")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		return err.Error(), err
	}
	// in the cell's own directory: a go.mod there says what may be imported
	var out bytes.Buffer
	cmd := exec.Command("go", "build", "-o", binary, source)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err == nil {
		passInterrupt(cmd)
		err = cmd.Wait()
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) > 0 && strings.HasPrefix(lines[0], "# ") {
		lines = lines[1:]
	}
	cwd, _ := os.Getwd()
	for i := range lines {
		lines[i] = strings.ReplaceAll(strings.ReplaceAll(lines[i], dir+"/", ""), cwd+"/", "")
		lines[i] = strings.TrimPrefix(lines[i], "./")
	}
	return strings.Join(lines, "\n"), err
}

func run(shown *string) (state *os.ProcessState, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(dir, "cell"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	if err = cmd.Start(); err != nil {
		w.Close()
		r.Close()
		return nil, err
	}
	passInterrupt(cmd)
	w.Close()
	done := make(chan string, 1)
	go func() {
		data, _ := io.ReadAll(io.LimitReader(r, textMax+1))
		done <- cut(string(data))
	}()
	err = cmd.Wait()
	select {
	case *shown = <-done:
	case <-time.After(200 * time.Millisecond):
		// a child of the cell may hold the pipe: what is there is there
		r.Close()
		*shown = <-done
	}
	r.Close()
	return cmd.ProcessState, err
}

func failure(name, text string) []string {
	lines := strings.Split(text, "\n")
	if len(lines) > 200 {
		lines = lines[:200]
	}
	return append([]string{name, cut(lines[0])}, lines...)
}

func cell(count uint32, code string) []string {
	var shown string
	p := program{}
	n := strconv.Itoa(int(count))
	text := code
	whole := strings.HasPrefix(strings.TrimSpace(code), "package ")
	if !whole {
		p = analyse(code)
		text = write(p, count, true)
	}
	out, err := build(text)
	if err != nil && p.show != nil && strings.Contains(out, "used as value") {
		// a call without a value
		p.body, p.show = append(p.body, *p.show), nil
		out, err = build(write(p, count, false))
	}
	if err != nil && interrupted(out == "" || strings.Contains(out, "signal: interrupt")) {
		return []string{"KeyboardInterrupt", "", "KeyboardInterrupt"}
	}
	if err != nil {
		os.Stderr.WriteString(out + "\n")
		return failure("CompilationError", out)
	}
	for key, d := range p.decls {
		for old, was := range kept {
			for _, a := range was.names {
				for _, b := range d.names {
					if a == b {
						delete(kept, old)
					}
				}
			}
		}
		if key != "main" {
			kept[key] = d
		}
	}
	if !whole && len(p.body) == 0 && p.show == nil && p.decls["main"].text == "" {
		return nil // declarations alone
	}
	state, err := run(&shown)
	if shown != "" {
		tellStrings('R', n, "text/plain", shown)
	}
	if state == nil {
		return failure("Error", err.Error())
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGINT:
		interrupted(true)
		return []string{"KeyboardInterrupt", "", "KeyboardInterrupt"}
	case status.Signaled():
		return failure("Error", "signal: "+status.Signal().String())
	case status.ExitStatus() == 2:
		return failure("Panic", "exit status 2")
	case status.ExitStatus() != 0:
		return failure("Error", "exit status "+strconv.Itoa(status.ExitStatus()))
	}
	return nil
}

func main() {
	syscall.CloseOnExec(198)
	syscall.CloseOnExec(199)
	dir = os.Args[1]
	// an interrupt is for the program of the cell, and the build: they get it as well
	signal.Notify(interrupts, os.Interrupt)
	if _, err := build("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Print() }\n"); err != nil {
		tell('F', []byte("the go command of the image cannot build"))
		os.RemoveAll(dir)
		os.Exit(1)
	}
	tell('H', []byte(strings.TrimPrefix(runtime.Version(), "go")))
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(told, head); err != nil {
			break
		}
		code := make([]byte, binary.LittleEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(told, code); err != nil {
			break
		}
		count := binary.LittleEndian.Uint32(head[5:])
		for len(interrupts) > 0 {
			<-interrupts
		}
		tellStrings('B', strconv.Itoa(int(count)))
		problem := cell(count, string(code))
		tellStrings('Z', append([]string{strconv.Itoa(int(count))}, problem...)...)
	}
	os.RemoveAll(dir)
}
