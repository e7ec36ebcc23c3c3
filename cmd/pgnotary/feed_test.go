package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/witness"
)

// watched is a log with a key and two witnesses that know it.
type watched struct {
	t      *testing.T
	pg     *pgserver.Server
	data   string
	vkey   string
	policy string // file
	a, b   *witnessProcess
	dirs   [2]string // of the witnesses
}

func newWatched(t *testing.T, quorum string) *watched {
	t.Helper()
	w := &watched{t: t, pg: pgtest.Server(t), data: t.TempDir(), policy: filepath.Join(t.TempDir(), "policy")}
	code, vkey, errs := command(t, "keygen", "--origin", "pgnotary/test/1", "-o", filepath.Join(w.data, "key"))
	if code != 0 {
		t.Fatal(errs)
	}
	w.vkey = strings.TrimSpace(vkey)
	w.dirs = [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	w.a = startWitness(t, w.dirs[0], "witness.example/a", pgtest.FreeAddr(t), w.vkey)
	w.b = startWitness(t, w.dirs[1], "witness.example/b", pgtest.FreeAddr(t), w.vkey)
	text := fmt.Sprintf("log %s\nwitness A %s %s\nwitness B %s %s\ngroup G %s A B\nquorum G\n", w.vkey, w.a.vkey, w.a.url, w.b.vkey, w.b.url, quorum)
	if err := os.WriteFile(w.policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) serve(args ...string) *process {
	w.t.Helper()
	return startServe(w.t, nil, append([]string{"--upstream", w.pg.Addr(), "--data", w.data, "--policy", w.policy}, args...)...)
}

// refused wants that serve ends with code 2 and says why.
func (w *watched) refused(args []string, want ...string) {
	w.t.Helper()
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--http", "off", "--upstream", w.pg.Addr(), "--data", w.data, "--policy", w.policy}, args...)
	code, _, errs := pgnotary(w.t, args...)
	if code != 2 {
		w.t.Errorf("serve = %d, want 2:\n%s", code, errs)
	}
	for _, s := range want {
		if !strings.Contains(errs, s) {
			w.t.Errorf("serve says %s, want %q in it", errs, s)
		}
	}
}

func (w *watched) verify(code int, want string, args ...string) {
	w.t.Helper()
	args = append([]string{"verify", "--data", w.data, "--policy", w.policy}, args...)
	got, out, errs := pgnotary(w.t, args...)
	if got != code || !strings.Contains(out+errs, want) {
		w.t.Errorf("%q = %d, want %d and %q:\n%s%s", args, got, code, want, out, errs)
	}
}

// restart puts a witness back on its address.
func (w *watched) restart(i int, p *witnessProcess) *witnessProcess {
	w.t.Helper()
	return startWitness(w.t, w.dirs[i], []string{"witness.example/a", "witness.example/b"}[i], strings.Trim(strings.TrimPrefix(p.url, "http:"), "/"))
}

func (p *process) query() error {
	conn := p.mustConnect()
	defer conn.Close(p.t.Context())
	_, err := conn.Exec(p.t.Context(), "SELECT 1")
	return err
}

// TestWatched follows a log and its two witnesses: cosigned in passing, at the
// stop, checked by verify and by a proof, put back, and forked.
func TestWatched(t *testing.T) {
	w := newWatched(t, "all")
	w.refused([]string{"--witness-mode", "sync", "--durability", "async"}, "nothing would wait")
	p := w.serve()
	if err := p.query(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "witnessed entries", func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, "pgnotary_witness_alarms_total 0\n") && !strings.Contains(body, "pgnotary_witnessed_entries 0\n")
	})
	policy, err := readPolicy(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	_, served := p.get("/log/checkpoint")
	if v, err := policy.Verify([]byte(served)); err != nil || len(v.Cosignatures) != 2 {
		t.Errorf("the log serves %s: %v, want it cosigned", served, err)
	}
	w.verify(0, "witness A cosigned", "--online", "--fresh", "5m")
	if code, out, errs := pgnotary(t, "verify", "--url", "http://"+p.http, "--policy", w.policy, "--online", "--fresh", "5m"); code != 0 {
		t.Errorf("verify --url = %d\n%s%s", code, out, errs)
	}
	proof := filepath.Join(t.TempDir(), "1.tlog-proof")
	if code, _, errs := pgnotary(t, "prove", "--data", w.data, "1", "-o", proof); code != 0 {
		t.Errorf("prove = %d, %s", code, errs)
	}
	if code, out, errs := pgnotary(t, "check", "--policy", w.policy, proof); code != 0 || strings.Count(out, "\nwitness ") != 2 {
		t.Errorf("check = %d\n%s%s", code, out, errs)
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Fatalf("serve = %d\n%s", code, p.stderr())
	}
	signed, err := os.ReadFile(filepath.Join(w.data, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := policy.Verify(signed); err != nil || len(v.Cosignatures) != 2 {
		t.Errorf("after the stop: %s, %v, want all cosigned", signed, err)
	}
	w.verify(1, "is stale", "--fresh", "1ns")

	// An older state, well signed and cosigned, is put back: row 4 of the tamper matrix.
	older := t.TempDir()
	copyLog(t, w.data, older)
	p = w.serve()
	if err := p.query(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	p.code()
	newest := w.data
	w.data = older
	w.verify(0, "")
	w.verify(1, "rolled back", "--online")
	w.refused(nil, "an old state was put back, or another process has its key", "ALARM", "alarm=rollback")
	if names, err := os.ReadDir(filepath.Join(older, "evidence")); err != nil || len(names) == 0 {
		t.Errorf("evidence: %v, %v", names, err)
	}

	// Its owner lets it run all the same, without witnesses, and then with: row 6.
	if err := os.Remove(filepath.Join(older, "witnessed")); err != nil {
		t.Fatal(err)
	}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--http", "off", "--upstream", w.pg.Addr(), "--data", w.data}
	q := startServe(t, nil, args[5:]...)
	for range 5 {
		if err := q.query(); err != nil {
			t.Fatal(err)
		}
	}
	q.signal(syscall.SIGTERM)
	q.code()
	w.verify(1, "the log is not the one that was signed", "--online")
	w.refused(nil, "the witness says that it cosigned another history", "alarm=fork")
	w.data = newest
	w.verify(0, "ok: everything agrees", "--online", "--fresh", "5m")
}

// TestForkAlarm is rows 6 and 17: while the log runs, somebody with its key
// has another history cosigned. It is an entry, a metric, a line, and evidence.
func TestForkAlarm(t *testing.T) {
	w := newWatched(t, "any")
	p := w.serve()
	if err := p.query(); err != nil {
		t.Fatal(err)
	}
	// The thief: a copy of the directory, run as a log of its own with witness A only.
	thief := t.TempDir()
	p.pause() // so that the copy is of one moment, and the first to go on
	copyLog(t, w.data, thief)
	own := filepath.Join(t.TempDir(), "policy")
	text := fmt.Sprintf("log %s\nwitness A %s %s\nquorum A\n", w.vkey, w.a.vkey, w.a.url)
	if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	q := startServe(t, nil, "--upstream", w.pg.Addr(), "--data", thief, "--policy", own)
	q.signal(syscall.SIGTERM)
	q.code()
	p.signal(syscall.SIGCONT)
	if err := p.query(); err != nil { // B is enough for the quorum
		t.Fatal(err)
	}
	line := p.wait("ALARM: a witness does not agree with this log: it was put back to an earlier state, or somebody else has its key")
	if line["witness"] != "A" || line["alarm"] == "" || line["evidence"] == "" {
		t.Errorf("the line says %v", line)
	}
	waitFor(t, "the alarm in the metrics", func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, "pgnotary_witness_alarms_total 1\n")
	})
	evidence := filepath.Base(line["evidence"].(string))
	waitFor(t, "the alarm in the log", func() bool {
		_, out, _ := pgnotary(t, "search", "--data", w.data, "--kind", "violation", "--json")
		return strings.Contains(out, "witness_") && strings.Contains(out, evidence)
	})
	w.verify(1, "not the one that was signed", "--online")
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve = %d\n%s", code, p.stderr())
	}
	// The evidence is enough, without any witness.
	w.verify(1, "evidence/"+evidence)
	w.b.stop()
	w.verify(1, "", "--online")
	if err := os.Remove(filepath.Join(w.data, "evidence", evidence)); err != nil {
		t.Fatal(err)
	}
	w.verify(1, "is missing: this entry tells of it")
}

// TestSyncMode: a statement is answered only after a quorum has cosigned a
// checkpoint over it, and waits while there is none. It is row 28.
func TestSyncMode(t *testing.T) {
	w := newWatched(t, "all")
	policy, err := readPolicy(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	p := w.serve("--witness-mode", "sync")
	if err := p.query(); err != nil {
		t.Fatal(err)
	}
	conn := p.mustConnect()
	for i := range 8 {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("SELECT 'statement %d'", i)); err != nil {
			t.Fatal(err)
		}
		// What is witnessed now covers the statement, whatever root deletes.
		signed, err := os.ReadFile(filepath.Join(w.data, "witnessed"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := policy.Verify(signed)
		if err != nil || len(v.Cosignatures) != 2 {
			t.Fatalf("%s: %v", signed, err)
		}
		_, out, _ := pgnotary(t, "search", "--data", w.data, "--text", fmt.Sprintf("'statement %d'", i), "--to", fmt.Sprint(v.Size), "--json")
		if !strings.Contains(out, "statement") {
			t.Fatalf("statement %d ran, and is not among the %d entries witnessed", i, v.Size)
		}
	}
	if err := w.b.stop(); err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT 'without a witness'")
		ran <- err
	}()
	waitFor(t, "not ready", func() bool { code, _ := p.get("/readyz"); return code == 503 })
	select {
	case err := <-ran:
		t.Errorf("the statement ran without the quorum: %v", err)
	case <-time.After(time.Second):
	}
	w.b = w.restart(1, w.b)
	if err := <-ran; err != nil {
		t.Errorf("after the witness came back: %v", err)
	}
	waitFor(t, "ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve = %d\n%s", code, p.stderr())
	}
	w.verify(0, "ok", "--online", "--fresh", "5m")
}

// TestUnreachable: a start without the witnesses is refused, unless told otherwise.
func TestUnreachable(t *testing.T) {
	w := newWatched(t, "all")
	w.a.stop()
	w.refused(nil, "too few witnesses answer", "hint:", "--witness-unreachable start")
	// Nothing was recorded by that, so nothing was forked.
	if b, err := os.ReadFile(filepath.Join(w.data, "checkpoint")); err != nil || !strings.Contains(string(b), "\n0\n") {
		t.Errorf("checkpoint %s, %v, want that over nothing", b, err)
	}
	p := w.serve("--witness-unreachable", "start")
	if err := p.query(); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := pgnotary(t, "verify", "--data", w.data, "--policy", w.policy); code != 1 || !strings.Contains(out, "too few cosignatures") {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
	w.a = w.restart(0, w.a)
	waitFor(t, "the quorum", func() bool {
		b, err := os.ReadFile(filepath.Join(w.data, "witnessed"))
		return err == nil && strings.Count(string(b), "— ") == 3
	})
	p.signal(syscall.SIGTERM)
	p.code()
	w.verify(0, "ok")
	w.a.stop()
	w.b.stop()
	w.verify(1, "too few to know", "--online")

	// A policy for another log, and one that could not work.
	other, err := os.ReadFile(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	_, vkey, _ := command(t, "keygen", "--origin", "pgnotary/test/2", "-o", filepath.Join(t.TempDir(), "key"))
	if err := os.WriteFile(w.policy, []byte(strings.Replace(string(other), w.vkey, strings.TrimSpace(vkey), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(nil, "does not list the key of this log")
	if err := os.WriteFile(w.policy, []byte(regexp.MustCompile(` http\S+`).ReplaceAllString(string(other), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(nil, "gives no witness a URL")
	if err := os.WriteFile(w.policy, []byte(checkpoint.FormatPolicy(w.vkey, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused([]string{"--witness-mode", "sync"}, "asks for no quorum")
}

// copyLog copies a data directory, with the key readable by its owner only.
func copyLog(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(to, "key"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEvidenceIsBounded: a log that is started again and again fills no disk with evidence.
func TestEvidenceIsBounded(t *testing.T) {
	w := &witnesses{dir: t.TempDir()}
	for i := range maxEvidence + 5 {
		_, _, err := w.keepEvidence(fmt.Appendf(nil, "%d", i))
		if (err == nil) != (i < maxEvidence) {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	names, err := os.ReadDir(filepath.Join(w.dir, "evidence"))
	if err != nil || len(names) != maxEvidence {
		t.Errorf("%d files, %v", len(names), err)
	}
}

// behind is a witness that holds a checkpoint of some size.
type behind int64

func (behind) Start(context.Context, []byte) error { return nil }
func (behind) Cosign(_ context.Context, signed []byte) ([]byte, bool) {
	return append(signed[:len(signed):len(signed)], "— w AAAAAAAA\n"...), true
}
func (b behind) Held() [][2]int64 { return [][2]int64{{int64(b), int64(b)}} }

// TestBehind: a witness that is behind what was pruned can be shown that the log continues its checkpoint.
func TestBehind(t *testing.T) {
	const held = 77
	for _, known := range []behind{held, 0} {
		dir := filepath.Join(t.TempDir(), "data")
		l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "pgnotary/test/1", Witness: known})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if err := l.Rotate(); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
				if err := l.SealNow(t.Context()); err != nil || time.Now().After(end) {
					t.Fatalf("no segment: %v", err)
				}
				if names, err := filepath.Glob(filepath.Join(dir, "segment", "*.zst")); err == nil && len(names) > n {
					break
				}
			}
		}
		root := func() (size int64, root [32]byte) {
			b, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := checkpoint.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			return c.Size, c.Root
		}
		view, err := query.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		past := tree.New()
		for e, err := range view.Entries(0, held) {
			if err != nil {
				t.Fatal(err)
			}
			past.Append(tree.LeafHash(e.Leaf))
		}
		if a, err := l.Do(t.Context(), &ledger.Order{Kind: "prune", What: "leaves", Until: 1 << 40}); err != nil || a.Pruned < 256 {
			t.Fatalf("%+v, %v", a, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if view, err = query.Open(dir); err != nil {
			t.Fatal(err)
		}
		size, now := root()
		proof, err := tree.Consistency(view, held, size)
		if err == nil {
			err = tree.CheckConsistency(proof, size, now, held, past.Root())
		}
		if (err == nil) != (known == held) {
			t.Errorf("a proof from %d to %d, when the witness is known to hold %d: %v", held, size, known, err)
		}
	}
}

// TestBehindRestarted: a witness that goes away before the proxy is killed, and comes back only when all it held was pruned by another.
func TestBehindRestarted(t *testing.T) {
	w := newWatched(t, "any")
	p := w.serve()
	latest := func(i *witnessProcess) int64 {
		b, err := witness.NewClient(i.url).Latest(t.Context(), "pgnotary/test/1")
		if err != nil {
			return 0
		}
		c, _, err := checkpoint.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		return c.Size
	}
	var held int64
	waitFor(t, "b to hold something within a bundle", func() bool {
		if err := p.query(); err != nil {
			t.Fatal(err)
		}
		held = latest(w.b)
		return held%tree.Width != 0
	})
	w.b.stop()
	p.signal(syscall.SIGKILL)
	p.code()

	p = w.serve("--immutable=false")
	for n := range 3 {
		p.signal(syscall.SIGUSR1)
		waitFor(t, "a segment", func() bool {
			names, err := filepath.Glob(filepath.Join(w.data, "segment", "*.zst"))
			return err == nil && len(names) > n
		})
	}
	if code, out, errs := pgnotary(t, "prune", "--before", "0s", "--data", w.data); code != 0 || !strings.Contains(out+errs, "are gone") {
		t.Fatalf("prune = %d, %s%s", code, out, errs)
	}
	w.verify(0, "ok")
	w.b = w.restart(1, w.b)
	waitFor(t, "b to follow", func() bool {
		if err := p.query(); err != nil { // it is asked when the log grows
			t.Fatal(err)
		}
		return latest(w.b) > held
	})
	w.verify(0, "ok")
}
