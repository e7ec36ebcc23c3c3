// Package arch holds the rules about who may import whom, and nothing else.
// It reads the packages with the go command; see ARCHITECTURE.md for the reasons.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pgnotary/pgnotary/"

// layers says for every package below internal which other packages of this
// module it may reach, directly or through others. Packages for tests are
// in tests, below.
func layers() map[string][]string {
	return map[string][]string{
		// The capture path: no log, no files.
		"event":   {},
		"wire":    {},
		"session": {"content", "event", "redact", "sqllex", "transaction", "verb", "wire"},
		"relay":   {"clock", "content", "crowd", "event", "proxyproto", "redact", "scram", "sender", "session", "sqllex", "transaction", "verb", "wire"},
		// The log: nothing of PostgreSQL, so neither wire nor session nor relay. What it may prune depends on the names
		// that statements have; verb tells it.
		"durable":    {},
		"tree":       {},
		"checkpoint": {"durable", "tree"},
		"journal":    {"durable", "tree"},
		"segment":    {"durable", "event", "journal", "tree"},
		"ledger":     {"checkpoint", "durable", "event", "journal", "segment", "tree", "verb"},
		// The readers: never the ledger.
		"pgvalue": {},
		"query":   {"checkpoint", "durable", "event", "journal", "pgvalue", "segment", "sqlinfo", "sqllex", "tree", "wire"},
		"verify":  {"event"}, // a second opinion: shares no reader with the rest
		"export":  {"checkpoint", "durable", "event", "journal", "pgvalue", "query", "segment", "sqlinfo", "sqllex", "tree", "wire"},
		"report":  {"checkpoint", "durable", "event", "journal", "pgvalue", "query", "segment", "sqlinfo", "sqllex", "tree", "wire"},
		"sink":    {"checkpoint", "durable", "event", "export", "journal", "pgvalue", "query", "segment", "sqlinfo", "sqllex", "tree", "wire"},
		"access":  {},
		"web":     {"access", "checkpoint", "durable", "event", "journal", "pgvalue", "query", "segment", "sqlinfo", "sqllex", "tree", "wire"},
		"witness": {"checkpoint", "durable", "tree"},
		// Parts of the capture path that stand alone.
		"crowd":       {},
		"proxyproto":  {},
		"redact":      {"sqllex", "wire"},
		"sqllex":      {},
		"sqlinfo":     {"sqllex"},
		"scram":       {},
		"sender":      {},
		"sshagent":    {},
		"transaction": {"verb"},
		"clock":       {},
		"content":     {},
		"verb":        {},
		// The rest.
		"config":    {"proxyproto"},
		"doctor":    {"config", "proxyproto", "scram", "verifiers"},
		"pgserver":  {},
		"verifiers": {"config", "proxyproto", "scram"},
	}
}

// testPackages are helpers that only tests and tools import; they may reach anything.
func testPackages() []string {
	return []string{"arch", "durable/faultfs", "e2e", "pgserver/pgraw", "pgserver/pgtest"}
}

// thirdParty says which package may import a module from outside.
func thirdParty() map[string][]string {
	return map[string][]string{
		"github.com/jackc/pgx/v5":             {"cmd/pgnotary", "internal/doctor", "internal/pgvalue", "internal/verifiers"}, // clients; types for display
		"github.com/klauspost/compress/zstd":  {"internal/segment", "internal/verify"},
		"github.com/nats-io/nats.go":          {"internal/sink"},
		"github.com/twmb/franz-go":            {"internal/sink"},
		"github.com/pelletier/go-toml/v2":     {"internal/config"},
		"github.com/prometheus/client_golang": {"internal/web"},
		"github.com/spf13/cobra":              {"cmd/pgnotary"},
		"github.com/spf13/pflag":              {"cmd/pgnotary"},
		"golang.org/x/mod/sumdb/note":         {"internal/checkpoint", "internal/verify"},
		"golang.org/x/mod/sumdb/tlog":         {"internal/tree", "internal/verify"},
		"golang.org/x/sys/unix":               {"cmd/pgnotary", "internal/durable", "internal/relay", "internal/sink"},
		"golang.org/x/term":                   {"cmd/pgnotary"},
		"golang.org/x/text":                   {"cmd/pgnotary", "internal/query"},
	}
}

// pure packages take time, randomness, files and network as arguments.
func pure() []string {
	return []string{"content", "event", "redact", "scram", "session", "sqllex", "transaction", "tree", "verb", "wire"}
}

// trustedLines bounds the capture path, so that it can be read in an
// afternoon: lines of code, comments and blank lines not counted.
const trustedLines = 5000

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// name is the import path within the module, and, for what is below internal,
// within that.
func (p *goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module+"internal/") }

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestLayers(t *testing.T) {
	rules := layers()
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"internal/") || slices.Contains(testPackages(), p.name()) {
			continue
		}
		allowed, ok := rules[p.name()]
		if !ok {
			t.Errorf("internal/%s has no rule: say in layers what it may import", p.name())
			continue
		}
		for _, dep := range p.Deps {
			dep, ours := strings.CutPrefix(dep, module+"internal/")
			if ours && !slices.Contains(allowed, dep) {
				t.Errorf("internal/%s reaches internal/%s, which its layer must not", p.name(), dep)
			}
		}
	}
}

func TestThirdParty(t *testing.T) {
	rules := thirdParty()
	for _, p := range packages(t) {
		user := strings.TrimPrefix(p.ImportPath, module)
		if slices.Contains(testPackages(), p.name()) || !strings.HasPrefix(user, "internal/") && !strings.HasPrefix(user, "cmd/") {
			continue
		}
		for _, dep := range p.Imports {
			first, _, _ := strings.Cut(dep, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(dep, module) {
				continue
			}
			if !slices.ContainsFunc(rules[moduleOf(rules, dep)], func(u string) bool { return u == user }) {
				t.Errorf("%s imports %s, which is not its business: see thirdParty", user, dep)
			}
		}
	}
}

// moduleOf returns the key of rules that covers an import path.
func moduleOf(rules map[string][]string, dep string) string {
	for m := range rules {
		if dep == m || strings.HasPrefix(dep, m+"/") {
			return m
		}
	}
	return ""
}

// TestPure holds that the state machine and the formats get everything as
// arguments: they import nothing that reaches the system, and ask no clock.
func TestPure(t *testing.T) {
	forbidden := []string{"os", "net", "syscall", "log", "crypto/rand", "math/rand", "runtime", "embed", "plugin", "golang.org/x/sys"}
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"internal/") || !slices.Contains(pure(), p.name()) {
			continue
		}
		for _, dep := range p.Imports {
			if slices.ContainsFunc(forbidden, func(f string) bool { return dep == f || strings.HasPrefix(dep, f+"/") }) {
				t.Errorf("internal/%s imports %s", p.name(), dep)
			}
		}
		eachFile(t, &p, func(path string, file *ast.File) {
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
						t.Errorf("%s asks the clock: time.%s", path, sel.Sel.Name)
					}
				}
				return true
			})
		})
	}
}

// TestNoInit holds that nothing happens because a package was imported.
func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		eachFile(t, &p, func(path string, file *ast.File) {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has a func init", path)
				}
			}
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", strings.TrimPrefix(p.ImportPath, module))
		}
	}
}

func TestCapturePathIsShort(t *testing.T) {
	total := 0
	for _, p := range packages(t) {
		if !slices.Contains([]string{"wire", "session", "relay"}, p.name()) {
			continue
		}
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for line := range bytes.Lines(text) {
				if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, []byte("//")) {
					total++
				}
			}
		}
	}
	t.Logf("wire, session and relay have %d lines of code", total)
	if total == 0 || total > trustedLines {
		t.Errorf("wire, session and relay have %d lines of code, want at most %d", total, trustedLines)
	}
}

func eachFile(t *testing.T, p *goPackage, f func(path string, file *ast.File)) {
	t.Helper()
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		f(path, file)
	}
}

// TestTamperMatrix holds that the tests which docs/tamper.md names exist.
func TestTamperMatrix(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "tamper.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if rows := bytes.Count(text, []byte("\n| ")); len(named) < rows || rows < 31 {
		t.Errorf("docs/tamper.md has %d rows and names %d tests", rows, len(named))
	}
	for _, m := range named {
		dir := filepath.Join(root, "internal", m[1])
		switch m[1] {
		case "pgnotary":
			dir = filepath.Join(root, "cmd", m[1])
		case "interop":
			dir = filepath.Join(root, m[1])
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(files, func(name string) bool {
			src, err := os.ReadFile(name)
			return err == nil && bytes.Contains(src, []byte("func "+m[2]+"(t *testing.T"))
		})
		if !found {
			t.Errorf("docs/tamper.md names %s.%s, and there is no such test", m[1], m[2])
		}
	}
}
