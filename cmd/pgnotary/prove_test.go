package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// command runs a command line in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// provable writes a log of a few entries with a key of keygen and returns its
// directory and policy file.
func provable(t *testing.T) (dir, policy string) {
	t.Helper()
	dir, policy = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "log.policy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	code, vkey, errs := command(t, "keygen", "--origin", "pgnotary/test/1", "-o", filepath.Join(dir, "key"), "--policy-out", policy)
	if code != 0 || !strings.HasPrefix(vkey, "pgnotary/test/1+") {
		t.Fatalf("keygen = %d, %q, %q", code, vkey, errs)
	}
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	who := &event.Who{User: "alice", Database: "app", Application: "psql, client 9.9.9.9\x1b[31m", Client: "127.0.0.1:5"}
	emit := func(leaf *event.Leaf, value []byte) {
		t.Helper()
		if _, err := l.Emit(leaf, value); err != nil {
			t.Fatal(err)
		}
	}
	emit(&event.Leaf{Kind: event.KindConnect, Session: 1, Seq: 1, Who: who}, []byte("packet"))
	emit(&event.Leaf{Kind: event.KindQuery, Session: 1, Seq: 2, Who: who, Msgs: []byte("Q")}, []byte("Q\x00\x00\x00\x14SELECT 42 -- \x1b[0m\x00"[:21]))
	emit(&event.Leaf{Kind: event.KindOutcome, Session: 1, Seq: 3, Of: event.Ref(2), Tags: []string{"SELECT 1"}, Rows: 1, Tx: 'I', Committed: 1}, nil)
	emit(&event.Leaf{Kind: event.KindQuery, Session: 1, Seq: 4, Who: who, Msgs: []byte("Q")}, bytes.Repeat([]byte("x"), checkpoint.MaxProofValue+1))
	emit(&event.Leaf{Kind: event.KindDisconnect, Session: 1, Seq: 5, Who: who}, nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, policy
}

func TestProveAndCheck(t *testing.T) {
	dir, policy := provable(t)
	for _, tt := range []struct {
		name string
		args []string
		want []string // in what check prints
		not  string   // not in it
	}{
		{"leaf", []string{"2"}, []string{"valid: the log has this entry", `user alice, database app, application "psql, client 9.9.9.9\x1b[31m", client 127.0.0.1:5`, "query", "index       2\n", "over 7 entries", "not in the proof"}, "SELECT 42"},
		{"value", []string{"2", "--value"}, []string{"value       proven", "    SELECT 42 --"}, "\x1b"},
		{"outcome", []string{"3"}, []string{"outcome of entry 2: SELECT 1, committed"}, "value"},
		{"start", []string{"0"}, []string{"what        start, version"}, "\nwho "},
	} {
		proof := filepath.Join(t.TempDir(), "2.tlog-proof")
		args := append([]string{"prove", "--data", dir, "-o", proof}, tt.args...)
		if code, out, errs := command(t, args...); code != 0 || out != "" {
			t.Fatalf("%s: %q = %d, %q, %q", tt.name, args, code, out, errs)
		}
		code, out, errs := command(t, "check", "--policy", policy, proof)
		if code != 0 || errs != "" {
			t.Errorf("%s: check = %d, %q", tt.name, code, errs)
		}
		for _, w := range tt.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: check prints\n%swant %q in it", tt.name, out, w)
			}
		}
		if strings.Contains(out, tt.not) {
			t.Errorf("%s: check prints\n%swant no %q in it", tt.name, out, tt.not)
		}
	}
	if code, out, _ := command(t, "prove", "--data", dir, "2", "-o", "-"); code != 0 || !strings.HasPrefix(out, "c2sp.org/tlog-proof@v1\n") {
		t.Errorf("prove -o - = %d, %q", code, out)
	}
}

func TestProveRefuses(t *testing.T) {
	dir, policy := provable(t)
	out := filepath.Join(t.TempDir(), "x.tlog-proof")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no such entry", []string{"7", "-o", out}, "there is no entry 7: the log has those from 0 to 6"},
		{"not a number", []string{"seven", "-o", out}, `"seven" is not an index`},
		{"no file", []string{"2"}, "-o is needed"},
		{"no value", []string{"3", "--value", "-o", out}, "entry 3 has no value"},
		{"value too large", []string{"4", "--value", "-o", out}, "a proof carries at most 16777216"},
	} {
		code, stdout, errs := command(t, append([]string{"prove", "--data", dir}, tt.args...)...)
		if code != 2 || stdout != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("%s: prove = %d, %q, %q, want 2 and %q", tt.name, code, stdout, errs, tt.want)
		}
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	if code, out, errs := command(t, "report", "--data", dir, "--from", "7", "-o", bundle); code != 0 || !strings.Contains(out, "about no entries") {
		t.Errorf("report on nothing = %d, %q, %q, want 0 and that there is nothing", code, out, errs)
	}
	if err := os.WriteFile(filepath.Join(bundle, "extra"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "check", "--policy", policy, bundle); code != 0 || !strings.Contains(out, "signed the 7 files") || !strings.Contains(out, "but extra, beside them, is not signed") {
		t.Errorf("check of a bundle's directory = %d, %q, %q, want 0 and the file that was put in", code, out, errs)
	}
	if code, _, errs := command(t, "check", "--policy", policy, bundle+".zip"); code != 2 || !strings.Contains(errs, "unpack") {
		t.Errorf("check of a zip file = %d, %q, want 2 and what to do", code, errs)
	}
	for _, bad := range [][]string{{"--since", "yesterday"}, {"--data", "/nonexistent"}} {
		if code, _, _ := command(t, append([]string{"export", "--data", dir, "-o", out}, bad...)...); code != 2 {
			t.Errorf("export %q = %d, want 2", bad, code)
		}
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("export %q that failed leaves a file: %v", bad, err)
		}
	}
	if code, _, errs := command(t, "erase", "--data", dir, "7"); code != 2 || !strings.Contains(errs, "there is no entry 7") {
		t.Errorf("erase of no entry = %d, %q, want 2 and that there is none", code, errs)
	}
	for _, flag := range []string{"--user", "--text", "--param", "--since"} {
		if code, out, errs := command(t, "erase", "--data", dir, "--dry-run", flag, ""); code != 2 || !strings.Contains(errs, "empty") {
			t.Errorf("erase of all with an empty %s = %d, %q, %q, want 2 and that it is empty", flag, code, out, errs)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused proof left a file")
	}
	if code, _, errs := command(t, "prove", "--data", t.TempDir(), "0", "-o", out); code != 2 || !strings.Contains(errs, "not a data directory") {
		t.Errorf("prove without a log = %d, %q", code, errs)
	}
}

// TestProveNotCoveredYet asks for an entry between two checkpoints.
func TestProveNotCoveredYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, CheckpointEvery: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 { // the last batch of a log in use is not shown
		i, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for l.Want(i); l.Durable() <= i; {
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	code, _, errs := command(t, "prove", "--data", dir, "1", "-o", "-")
	if code != 2 || !strings.Contains(errs, "entry 1 is not covered by a signed checkpoint yet") || !strings.Contains(errs, "hint: one is signed every second") {
		t.Errorf("prove = %d, %q", code, errs)
	}
}

func TestCheckRefuses(t *testing.T) {
	dir, policy := provable(t)
	_, otherPolicy := provable(t) // the same name and another key
	proof := filepath.Join(t.TempDir(), "2.tlog-proof")
	if code, _, errs := command(t, "prove", "--data", dir, "2", "--value", "-o", proof); code != 0 {
		t.Fatal(errs)
	}
	good, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "prove", "--data", dir, "1", "-o", proof); code != 2 || !strings.Contains(errs, "exists") {
		t.Errorf("a second proof into the same file = %d, %q", code, errs)
	}
	if now, err := os.ReadFile(proof); err != nil || string(now) != string(good) {
		t.Errorf("the first proof is gone: %v", err)
	}
	p, err := checkpoint.ParseProof(good)
	if err != nil {
		t.Fatal(err)
	}
	extra, err := checkpoint.ParseExtra(p.Extra)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(e *checkpoint.Extra)) []byte {
		e, q := *extra, *p
		e.Value = bytes.Clone(e.Value)
		change(&e)
		if q.Extra, err = e.Format(); err != nil {
			t.Fatal(err)
		}
		return q.Format()
	}
	none := *p
	none.Extra = nil
	for _, tt := range []struct {
		name, policy string
		proof        []byte
		code         int
		want         string
	}{
		{"another key of that name", otherPolicy, good, 1, "signature is missing or invalid"},
		{"another value", policy, with(func(e *checkpoint.Extra) { e.Value[7]++ }), 1, "not the one the entry commits to"},
		{"another salt", policy, with(func(e *checkpoint.Extra) { e.Salt[0]++ }), 1, "not the one the entry commits to"},
		{"another leaf", policy, with(func(e *checkpoint.Extra) { e.Leaf = bytes.Replace(e.Leaf, []byte("alice"), []byte("mallo"), 1) }), 1, "not valid"},
		{"value of an entry without one", policy, with(func(e *checkpoint.Extra) { e.Leaf = []byte("x") }), 1, "not valid"},
		{"no leaf", policy, none.Format(), 1, "does not carry its entry"},
		{"not a proof", policy, []byte("hello"), 1, "malformed proof"},
		{"empty", policy, nil, 1, "malformed proof"},
		{"no policy", "", good, 2, "--policy is needed"},
		{"policy is missing", "/nonexistent/policy", good, 2, "no such file"},
		{"policy is no policy", proof, good, 2, "parse policy: line 1"},
	} {
		if err := os.WriteFile(proof, good, 0o600); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "x.tlog-proof")
		if err := os.WriteFile(file, tt.proof, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "check", "--policy", tt.policy, file)
		if code != tt.code || out != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("%s: check = %d, %q, %q, want %d and %q", tt.name, code, out, errs, tt.code, tt.want)
		}
	}
	if code, _, errs := command(t, "check", "--policy", policy, "/nonexistent/proof"); code != 2 {
		t.Errorf("check of a missing file = %d, %q, want 2", code, errs)
	}
}

func TestVerifyCommand(t *testing.T) {
	dir, policy := provable(t)
	kept := filepath.Join(dir, "checkpoint")
	code, out, errs := command(t, "verify", "--data", dir, "--policy", policy, "--checkpoint", kept)
	if code != 0 || errs != "" || !strings.Contains(out, "ok: everything agrees") || strings.Contains(out, "no policy given") {
		t.Errorf("verify = %d, %q, %q", code, out, errs)
	}
	code, out, _ = command(t, "verify", "--data", dir, "--json")
	var r verify.Result
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || !r.OK || r.Entries != 7 || r.Size != 7 || r.Origin != "pgnotary/test/1" {
		t.Errorf("verify --json = %d, %q, %v", code, out, err)
	}
	for _, key := range []string{`"ok"`, `"origin"`, `"size"`, `"root"`, `"entries"`, `"values"`, `"erased"`, `"pruned"`, `"findings":[]`, `"notes":[`} {
		if !strings.Contains(out, key) {
			t.Errorf("verify --json prints %s, want key %s in it", out, key)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "extra"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, "verify", "--data", dir)
	if code != 1 || !strings.Contains(out, "finding     extra: no file of a log") || !strings.Contains(out, "NOT OK") || !strings.HasSuffix(errs, "1 finding\n") {
		t.Errorf("verify with a foreign file = %d, %q, %q", code, out, errs)
	}
	for _, args := range [][]string{
		{"--data", t.TempDir()},
		{"--data", dir, "--url", "http://127.0.0.1:1"},
		{"--url", "nonsense"},
		{"--url", "http://127.0.0.1:1"},
		{"--data", dir, "--policy", "/nonexistent"},
		{"--data", dir, "--checkpoint", "/nonexistent"},
		{"--data", dir, "--policy", policy, "--fresh", "0s"},
		{"--data", dir, "--policy", policy, "--fresh", "-5m"},
	} {
		if code, out, errs := command(t, append([]string{"verify"}, args...)...); code != 2 || out != "" || !strings.HasPrefix(errs, "pgnotary: ") {
			t.Errorf("verify %q = %d, %q, %q, want 2", args, code, out, errs)
		}
	}
}

func TestKeygenNeverOverwrites(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if code, _, errs := command(t, "keygen", "--origin", "a/b", "-o", key); code != 0 {
		t.Fatal(errs)
	}
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key has mode %v, want 0600", st.Mode())
	}
	for _, args := range [][]string{{"--origin", "a/b", "-o", key}, {"--origin", "a b", "-o", key + "2"}, {"-o", key + "3"}, {"--origin", "a/b"}} {
		if code, out, errs := command(t, append([]string{"keygen"}, args...)...); code != 2 || out != "" || errs == "" {
			t.Errorf("keygen %q = %d, %q, %q, want 2", args, code, out, errs)
		}
	}
	if after, err := os.ReadFile(key); err != nil || !bytes.Equal(before, after) {
		t.Error("keygen overwrote a key")
	}
}

// TestProveConsistency: from a checkpoint that was kept, of another history, and of another log.
func TestProveConsistency(t *testing.T) {
	dir, policy := provable(t)
	keep := func(dir string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "kept")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	grow := func(dir string, n int) {
		t.Helper()
		l, err := ledger.Open(ledger.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	kept := keep(dir)
	fork := filepath.Join(t.TempDir(), "fork")
	if err := os.CopyFS(fork, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	grow(dir, 300)
	grow(fork, 5)
	var proof string
	for _, from := range []string{kept, keep(dir)} {
		proof = filepath.Join(t.TempDir(), "p.consistency")
		if code, out, errs := command(t, "prove", "--data", dir, "--from-checkpoint", from, "-o", proof); code != 0 || out != "" {
			t.Fatalf("prove = %d, %q, %q", code, out, errs)
		}
		code, out, errs := command(t, "check", "--policy", policy, proof)
		if code != 0 || !strings.Contains(out, "valid: the later checkpoint continues the earlier one") || !strings.Contains(out, "none was changed, removed") {
			t.Errorf("check = %d, %q\n%s", code, errs, out)
		}
	}
	if code, _, errs := command(t, "prove", "--data", dir, "--from-checkpoint", keep(fork), "-o", proof); code != 1 || !strings.Contains(errs, "not a continuation") {
		t.Errorf("from a fork = %d, %q", code, errs)
	}
	if code, _, errs := command(t, "prove", "--data", fork, "--from-checkpoint", keep(dir), "-o", proof); code != 1 || !strings.Contains(errs, "rolled back") {
		t.Errorf("from a larger one = %d, %q", code, errs)
	}
	other, _ := provable(t)
	if code, _, errs := command(t, "prove", "--data", dir, "--from-checkpoint", keep(other), "-o", proof); code != 2 || !strings.Contains(errs, "signature") {
		t.Errorf("from another log = %d, %q", code, errs)
	}
	b, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	b[40] ^= 1
	if err := os.WriteFile(proof, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "check", "--policy", policy, proof); code != 1 {
		t.Errorf("check of an altered proof = %d, %q", code, errs)
	}
	for _, args := range [][]string{{"-o", proof}, {"3", "--from-checkpoint", kept, "-o", proof}, {"--from-checkpoint", kept}} {
		if code, _, errs := command(t, append([]string{"prove", "--data", dir}, args...)...); code != 2 || !strings.Contains(errs, "hint:") {
			t.Errorf("prove %q = %d, %q", args, code, errs)
		}
	}
}

// TestProofPage: the page is one file that names its own script and style, and nothing else.
func TestProofPage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "proof.html")
	if code, _, errs := command(t, "check", "--page", name); code != 0 {
		t.Fatalf("check --page = %d, %q", code, errs)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	html := string(b)
	for _, want := range []string{"default-src 'none'", "'sha256-", "crypto.subtle.verify"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, not := range []string{"{{", "src=", "http:", "https:", "import(", "fetch(", "eval(", "innerHTML"} {
		if strings.Contains(html, not) {
			t.Errorf("the page has %s", not)
		}
	}
	if code, _, errs := command(t, "check", "--page", name, "x"); code != 2 {
		t.Errorf("check --page with a proof = %d, %q", code, errs)
	}
	if code, _, errs := command(t, "check"); code != 2 || !strings.Contains(errs, "hint:") {
		t.Errorf("check of nothing = %d, %q", code, errs)
	}
}

// TestProveStatement puts the text of a prepared statement and its parameters
// into one proof with the Execute, and nothing that does not belong there.
func TestProveStatement(t *testing.T) {
	dir, policy := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "policy")
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(checkpoint.FormatPolicy(l.VKey(), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	who := &event.Who{User: "alice"}
	for i, e := range []struct {
		leaf  event.Leaf
		value string
	}{
		{event.Leaf{Kind: event.KindConnect}, "packet"},
		{event.Leaf{Kind: event.KindParse, Msgs: []byte("P")}, "P\x00\x00\x00\x18s\x00SELECT the text\x00\x00\x00"},
		{event.Leaf{Kind: event.KindBind, Msgs: []byte("B"), Parse: event.Ref(2)}, "B\x00\x00\x00\x0fparameters\x00"},
		{event.Leaf{Kind: event.KindExecute, Msgs: []byte("E"), Parse: event.Ref(2), Bind: event.Ref(3)}, "E\x00\x00\x00\x09\x00\x00\x00\x00\x00"},
		{event.Leaf{Kind: event.KindQuery, Msgs: []byte("Q")}, "Q\x00\x00\x00\x0dSELECT 7\x00"},
	} {
		e.leaf.Session, e.leaf.Seq, e.leaf.Who = 1, uint64(i+1), who
		if _, err := l.Emit(&e.leaf, []byte(e.value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "4.tlog-proof")
	if code, _, errs := command(t, "prove", "--data", dir, "4", "--statement", "-o", file); code != 0 {
		t.Fatalf("prove = %d, %s", code, errs)
	}
	code, out, errs := command(t, "check", "--policy", policy, file)
	if code != 0 || !strings.Contains(out, "text        proven, in entry 2:") || !strings.Contains(out, "SELECT the text") ||
		!strings.Contains(out, "parameters  proven, in entry 3:") || !strings.Contains(out, "parameters") || strings.Contains(out, "SELECT 7") {
		t.Errorf("check = %d\n%s%s", code, out, errs)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := checkpoint.ParseProof(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(x *checkpoint.Extra){
		"value":    func(x *checkpoint.Extra) { x.Related[0].Value[8] ^= 1 },
		"salt":     func(x *checkpoint.Extra) { x.Related[0].Salt[8] ^= 1 },
		"hash":     func(x *checkpoint.Extra) { x.Related[0].Hashes[0][8] ^= 1 },
		"index":    func(x *checkpoint.Extra) { x.Related[0].Index++ },
		"leaf":     func(x *checkpoint.Extra) { x.Related[0].Leaf = x.Related[1].Leaf },
		"exchange": func(x *checkpoint.Extra) { x.Related[0].Index, x.Related[1].Index = 3, 2 },
		"too many": func(x *checkpoint.Extra) { x.Related = append(x.Related, x.Related[0], x.Related[0], x.Related[0]) },
		"foreign": func(x *checkpoint.Extra) { // sound by itself, but of another statement
			log, err := query.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			e, err := log.Entry(5)
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := checkpoint.Parse(p.Checkpoint)
			if err != nil {
				t.Fatal(err)
			}
			r := checkpoint.Related{Index: 5, Leaf: e.Leaf, Value: e.Value, Salt: e.Salt}
			if r.Hashes, err = tree.Inclusion(log, 5, c.Size); err != nil {
				t.Fatal(err)
			}
			x.Related[0] = r
		},
	} {
		x, err := checkpoint.ParseExtra(p.Extra)
		if err != nil {
			t.Fatal(err)
		}
		change(x)
		altered := *p
		if altered.Extra, err = x.Format(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, altered.Format(), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := command(t, "check", "--policy", policy, file); code != 1 {
			t.Errorf("%s: check = %d\n%s", name, code, out)
		}
	}
}
