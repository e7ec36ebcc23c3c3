package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// fakeWitness cosigns, or does not.
type fakeWitness struct {
	c *checkpoint.Cosigner

	mu      sync.Mutex
	refuse  error // of Start
	away    bool
	asked   int64 // for this size, while away
	started int
	seen    []int64 // sizes asked for
	held    [][2]int64
}

func (w *fakeWitness) Held() [][2]int64 { return w.held }

func newFakeWitness(t *testing.T) *fakeWitness {
	t.Helper()
	skey, _, err := checkpoint.GenerateWitnessKey(bytes.NewReader(make([]byte, 32)), "witness.example/1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.ParseWitnessKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeWitness{c: c}
}

func (w *fakeWitness) Start(context.Context, []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started++
	return w.refuse
}

func (w *fakeWitness) Cosign(_ context.Context, signed []byte) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, _, err := checkpoint.Parse(signed)
	if w.away {
		w.asked = max(w.asked, c.Size)
	}
	if err != nil || w.away {
		return signed, false
	}
	w.seen = append(w.seen, c.Size)
	line, err := w.c.Cosign(c, 1_780_000_000)
	if err != nil {
		return signed, false
	}
	cosigned, _, err := checkpoint.AddCosignature(signed, line, w.c.VKey())
	return cosigned, err == nil
}

func (w *fakeWitness) set(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting for %s", what)
		}
	}
}

// TestWitness: what is wanted witnessed is so before anybody is told, and both
// files have the cosignature.
func TestWitness(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := quiet(s, "/d")
	cfg.Witness = w
	l := mustOpen(t, cfg)
	var mu sync.Mutex
	var told []int64
	l.SubscribeWitnessed(func(size int64, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, size)
	})
	for n := range 20 {
		i := mustAppend(t, l, n, nil)
		l.WantWitnessed(i)
		until(t, "the witness", func() bool { return l.Witnessed() > i })
		b, err := durable.ReadFile(s, "/d/witnessed", checkpoint.MaxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if c, _, err := checkpoint.Parse(b); err != nil || c.Size <= i {
			t.Fatalf("witnessed is of size %d, and entry %d is said to be (%v)", c.Size, i, err)
		}
		if at, err := checkpoint.CosignatureTime(b, w.c.VKey()); err != nil || at != 1_780_000_000 {
			t.Fatalf("%s: %v", b, err)
		}
	}
	w.set(true)
	i := mustAppend(t, l, 20, nil)
	l.WantWitnessed(i)
	until(t, "the commit", func() bool { return l.Durable() > i })
	if l.Witnessed() > i {
		t.Error("witnessed without a witness")
	}
	w.set(false) // asked again without anything new
	until(t, "the witness that came back", func() bool { return l.Witnessed() > i })
	mustClose(t, l)
	b, err := durable.ReadFile(s, "/d/checkpoint", checkpoint.MaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.CosignatureTime(b, w.c.VKey()); err != nil {
		t.Errorf("the last checkpoint: %v\n%s", err, b)
	}
	mu.Lock()
	defer mu.Unlock()
	for k := 1; k < len(told); k++ {
		if told[k] <= told[k-1] {
			t.Errorf("told %d, want ascending sizes", told)
		}
	}
	for k := 1; k < len(w.seen); k++ {
		if w.seen[k] < w.seen[k-1] {
			t.Errorf("cosigned %d: sizes fall", w.seen)
		}
	}
}

// TestWitnessRefuses: a start that the witnesses refuse changes no file.
func TestWitnessRefuses(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := quiet(s, "/d")
	mustClose(t, mustOpen(t, cfg))
	cfg.Witness, w.refuse = w, errors.New("they know more")
	ops := s.Ops()
	before := everything(t, s)
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "they know more") {
		t.Errorf("Open = %v", err)
	}
	if after := everything(t, s); after != before {
		t.Errorf("files before\n%s\nafter\n%s\n(%d operations)", before, after, s.Ops()-ops)
	}
	w.refuse = nil
	l := mustOpen(t, cfg)
	mustClose(t, l)
	if w.started != 2 {
		t.Errorf("asked %d times at a start, want 2", w.started)
	}
}

// TestOlderThanWitnessed: a log that was put back to a state before what its own
// files say was cosigned is refused, though no witness answers: else entries
// that are not there yet would count as witnessed.
func TestOlderThanWitnessed(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := quiet(s, "/d")
	cfg.Witness = w
	mustClose(t, mustOpen(t, cfg))
	older, newer := s.Crash(rnd(1)), s.Crash(rnd(2)) // it was closed: both are the same
	cfg.FS = newer
	l := mustOpen(t, cfg)
	mustAppend(t, l, 1, nil)
	mustClose(t, l)
	b, err := durable.ReadFile(newer, "/d/witnessed", checkpoint.MaxBytes)
	if err == nil {
		err = durable.WriteFile(older, "/d/witnessed", b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg.Witness = range []Witness{w, nil} {
		cfg.FS = older
		if _, err := Open(cfg); !errors.Is(err, ErrRolledBack) {
			t.Errorf("witness %v: Open = %v, want ErrRolledBack", cfg.Witness, err)
		}
	}
}

// everything returns names and contents of the files that matter.
func everything(t *testing.T, s durable.FS) string {
	t.Helper()
	out := ""
	for _, dir := range []string{"/d", "/d/journal"} {
		names, err := s.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if b, err := durable.ReadFile(s, dir+"/"+name, 1<<20); err == nil {
				out += name + " " + string(b[:min(len(b), 4096)]) + "\n"
			}
		}
	}
	return out
}

// TestPruneIsWitnessed: nothing is pruned before enough witnesses cosigned the
// entry that explains it.
func TestPruneIsWitnessed(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := steady(quiet(s, "/d"))
	cfg.Witness = w
	l := mustOpen(t, cfg)
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	w.set(true)
	ctx, cancel := context.WithCancel(t.Context())
	before := l.Durable()
	go func() { // gives up once the witness was asked for the entry that says so
		defer cancel()
		until(t, "the witness asked", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.asked > before
		})
	}()
	if _, err := l.Do(ctx, &Order{Kind: "prune", What: "leaves", Until: 256}); err == nil || !strings.Contains(err.Error(), "too few witnesses") {
		t.Errorf("prune without witnesses: %v", err)
	}
	if b, err := durable.ReadFile(s, "/d/segment/00000000000000000000.zst", 1<<20); err != nil || len(b) == 0 {
		t.Errorf("the segment is gone: %v", err)
	}
	w.set(false)
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	if _, err := durable.ReadFile(s, "/d/segment/00000000000000000000.zst", 1<<20); err == nil {
		t.Error("the segment is still there")
	}
	mustClose(t, l)
	mustVerify(t, s, "/d")
}

// TestPruneKeepsTiles: of the bundles that checkpoints of witnesses end in, what proofs need stays, and is checked.
func TestPruneKeepsTiles(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := steady(quiet(s, "/d"))
	cfg.Witness = w
	l := mustOpen(t, cfg)
	for range 6 {
		mustSeal(t, l)
	}
	for _, size := range []int64{0, 100, 256, 300, 511, 512, 1500, 1 << 40} {
		w.held = append(w.held, [2]int64{size, size})
	}
	w.held = append(w.held, [2]int64{900, 1 << 40})
	w.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Do(ctx, &Order{Kind: "prune", What: "leaves", Until: 1280}); err == nil {
		t.Error("pruned without witnesses")
	}
	mustVerify(t, s, "/d") // the tiles are there already, and the entries still
	w.set(false)
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1280})
	mustClose(t, l)
	mustVerify(t, s, "/d")
	if names, err := s.List("/d/tile/0"); err != nil || strings.Join(names, " ") != "000 001 003 004" {
		t.Errorf("tiles of level 0: %q, %v, want four", names, err)
	}
	dir := dump(t, s, "/d")
	name := filepath.Join(dir, "tile", "0", "001")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		tile []byte
		want string
	}{
		{"tile/0/001", append([]byte{b[0] ^ 1}, b[1:]...), "does not agree"},
		{"tile/0/001", b[:32], "has 32 bytes"},
		{"tile/0/000", b, "does not agree"},
		{"tile/0/x000/001", b, "no tile"},
		{"tile/0/999", b, "no tile"},
	} {
		to := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(to, filepath.FromSlash(tt.name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, tt.tile, 0o600)); err != nil {
			t.Fatal(err)
		}
		if r, err := verify.Dir(t.Context(), to, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), tt.want) {
			t.Errorf("%s: %+v, %v, want %q", tt.name, r, err, tt.want)
		}
	}
}

// TestPruneAsksWitnesses: who opens the log without its witnesses lets nothing go, though DIR/witnessed is gone.
func TestPruneAsksWitnesses(t *testing.T) {
	s, w := faultfs.New(), newFakeWitness(t)
	cfg := steady(quiet(s, "/d"))
	cfg.Witness, cfg.StartFacts = w, []event.Fact{{Key: WitnessMode, Val: "async"}}
	l := mustOpen(t, cfg)
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	remove(t, s, "/d/witnessed")
	orders := []Order{{Kind: "prune", What: "values", Until: 256}, {Kind: "prune", What: "leaves", Until: 256}, {Kind: "erase", Entries: []int64{secret}}}

	l = mustOpen(t, steady(quiet(s, "/d")))
	for _, o := range orders {
		if _, err := l.Do(t.Context(), &o); err == nil || !strings.Contains(err.Error(), "has witnesses") {
			t.Errorf("%+v without the witnesses: %v", o, err)
		}
	}
	mustDo(t, l, Order{Kind: "hold", Case: "1", Hold: &Hold{From: 1 << 40}}) // takes nothing away
	mustClose(t, l)
	mustVerify(t, s, "/d")

	cfg.Witness, cfg.StartFacts = nil, []event.Fact{{Key: WitnessMode, Val: "off"}}
	l = mustOpen(t, cfg) // which is on record
	mustDo(t, l, Order{Kind: "release", Case: "1"})
	mustDo(t, l, orders[0])
	mustClose(t, l)
	mustVerify(t, s, "/d")
}
