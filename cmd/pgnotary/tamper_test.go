package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// unwatched runs serve without witnesses on another directory, for some statements.
func (w *watched) unwatched(data string, statements int, args ...string) {
	w.t.Helper()
	p := startServe(w.t, nil, append([]string{"--upstream", w.pg.Addr(), "--data", data}, args...)...)
	for range statements {
		if err := p.query(); err != nil {
			w.t.Fatal(err)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		w.t.Fatalf("serve = %d\n%s", code, p.stderr())
	}
}

// TestRewrittenWithKey is row 5 of the tamper matrix: root writes the whole log anew, with
// another history, and signs it with the real key; and row 7: he has a witness
// of his own cosign that, and shows one client this log and the other client that.
func TestRewrittenWithKey(t *testing.T) {
	w := newWatched(t, "all")
	w.once()
	honest := w.data
	cosigned, err := os.ReadFile(filepath.Join(honest, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	forged := t.TempDir()
	copyFile(t, filepath.Join(honest, "key"), filepath.Join(forged, "key"))
	w.unwatched(forged, 4)
	w.data = forged
	if code, out, errs := pgnotary(t, "verify", "--data", forged); code != 0 {
		t.Fatalf("the forged log by itself = %d\n%s%s", code, out, errs)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, cosigned, 0o600); err != nil {
		t.Fatal(err)
	}
	w.verify(1, "too few cosignatures")
	w.verify(1, "the log is not the one that was signed", "--checkpoint", kept)
	w.refused(nil, "the witness says that it cosigned another history", "alarm=fork")
	if err := os.RemoveAll(filepath.Join(forged, "evidence")); err != nil { // root removes the traces
		t.Fatal(err)
	}

	// The true cosignatures, put below the forged checkpoint.
	name := filepath.Join(forged, "checkpoint")
	signed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	stolen := append([]byte{}, signed...)
	for line := range bytes.Lines(cosigned) {
		if bytes.HasPrefix(line, []byte("— witness.example/")) {
			stolen = append(stolen, line...)
		}
	}
	if err := os.WriteFile(name, stolen, 0o600); err != nil {
		t.Fatal(err)
	}
	w.verify(1, "signature is missing or invalid")
	if err := os.WriteFile(name, signed, 0o600); err != nil {
		t.Fatal(err)
	}

	// Row 7: witness C works for root.
	c := startWitness(t, filepath.Join(t.TempDir(), "c"), "witness.example/c", "127.0.0.1:0", w.vkey)
	policy := func(rule string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "policy")
		text := fmt.Sprintf("log %s\nwitness A %s %s\nwitness B %s %s\nwitness C %s %s\ngroup G %s A B C\nquorum G\n",
			w.vkey, w.a.vkey, w.a.url, w.b.vkey, w.b.url, c.vkey, c.url, rule)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, []byte(fmt.Sprintf("log %s\nwitness C %s %s\nquorum C\n", w.vkey, c.vkey, c.url)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.policy = own
	w.once()
	for _, tt := range []struct {
		data, policy, want string
		code               int
		online             bool
	}{
		// A client that is content with any one witness is deceived, until he asks the others.
		{forged, policy("any"), "ok", 0, false},
		{forged, policy("any"), "the log is not the one that was signed", 1, true},
		{honest, policy("any"), "witness C: is of size", 1, true},
		// A quorum that root does not have is not deceived.
		{forged, policy("2"), "too few cosignatures", 1, false},
		{honest, policy("2"), "ok", 0, false},
	} {
		w.data, w.policy = tt.data, tt.policy
		if tt.online {
			w.verify(tt.code, tt.want, "--online")
		} else {
			w.verify(tt.code, tt.want)
		}
	}
}

// TestWindow is row 28 of the tamper matrix: what no witness has seen yet, root
// can drop without a trace. This is the window that witness-mode async leaves;
// TestSyncMode shows that sync leaves none, since nothing runs in it.
func TestWindow(t *testing.T) {
	w := newWatched(t, "all")
	w.once()
	cut := t.TempDir()
	copyLog(t, w.data, cut)
	before := w.data
	policy, err := readPolicy(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	size := func(dir string) int64 {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := checkpoint.Open(b, policy.VKeys()[0])
		if err != nil {
			t.Fatal(err)
		}
		return c.Size
	}
	w.unwatched(w.data, 3) // as if the machine were cut off from its witnesses
	if size(w.data) <= size(cut) {
		t.Fatalf("the log has %d entries, and had %d", size(w.data), size(cut))
	}
	w.verify(0, "signed, but not yet cosigned by enough witnesses")
	w.data = cut
	w.verify(0, "ok", "--online", "--fresh", "10m") // nothing tells
	w.once()
	// From here on the dropped entries cannot come back either.
	w.data = before
	w.verify(1, "", "--online")
}

// TestShownIsProven is row 30 of the tamper matrix: show prints the very bytes
// that a proof is over, for every entry.
func TestShownIsProven(t *testing.T) {
	dir, policy := provable(t)
	for i := range 7 {
		file := filepath.Join(t.TempDir(), "proof")
		args := []string{"prove", "--data", dir, fmt.Sprint(i), "-o", file}
		if i == 1 || i == 2 {
			args = append(args, "--value")
		}
		if code, _, errs := command(t, args...); code != 0 {
			t.Fatalf("%q = %d, %s", args, code, errs)
		}
		if code, _, errs := command(t, "check", "--policy", policy, file); code != 0 {
			t.Fatalf("check = %d, %s", code, errs)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := checkpoint.ParseProof(b)
		if err != nil {
			t.Fatal(err)
		}
		x, err := checkpoint.ParseExtra(p.Extra)
		if err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "show", "--data", dir, fmt.Sprint(i), "--json")
		if code != 0 {
			t.Fatalf("show %d = %d, %s", i, code, errs)
		}
		if !strings.Contains(out, `"leaf":`+string(x.Leaf)) {
			t.Errorf("show %d prints\n%s\nand the proof is over %s", i, out, x.Leaf)
		}
		if x.HasValue && !strings.Contains(out, `"value":"`+base64.StdEncoding.EncodeToString(x.Value)+`"`) {
			t.Errorf("show %d prints\n%s\nand the proof has the value %q", i, out, x.Value)
		}
	}
}
