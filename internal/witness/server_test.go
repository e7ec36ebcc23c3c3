package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// testLog is a log in memory, whose key the test has.
type testLog struct {
	t      testing.TB
	signer checkpoint.Signer
	vkey   string
	origin string
	leaves []tree.Hash
}

func newLog(t testing.TB, origin string, seed byte) *testLog {
	t.Helper()
	skey, vkey, err := checkpoint.GenerateKey(rand.NewChaCha8([32]byte{seed}), origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := checkpoint.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{t: t, signer: s, vkey: vkey, origin: origin}
}

// grow adds leaves up to a size; salt makes another history of them.
func (l *testLog) grow(size int, salt string) *testLog {
	for len(l.leaves) < size {
		l.leaves = append(l.leaves, tree.LeafHash(fmt.Appendf(nil, "%d%s", len(l.leaves), salt)))
	}
	return l
}

// branch returns a copy that goes its own way from a size on.
func (l *testLog) branch(size int) *testLog {
	c := *l
	c.leaves = slices.Clone(l.leaves[:size])
	return &c
}

// Tile implements tree.Source for small logs.
func (l *testLog) Tile(level int, n int64, width int) ([]byte, error) {
	var out []byte
	for i := range width {
		b := tree.New()
		span := 1 << (8 * level)
		from := (int(n)*tree.Width + i) * span
		for _, h := range l.leaves[from : from+span] {
			b.Append(h)
		}
		h := b.Root()
		if level == 0 {
			h = l.leaves[from]
		}
		out = append(out, h[:]...)
	}
	return out, nil
}

func (l *testLog) root(size int) tree.Hash {
	b := tree.New()
	for _, h := range l.leaves[:size] {
		b.Append(h)
	}
	return b.Root()
}

func (l *testLog) sign(size int) []byte {
	l.t.Helper()
	signed, err := checkpoint.Sign(l.signer, l.origin, int64(size), l.root(size))
	if err != nil {
		l.t.Fatal(err)
	}
	return signed
}

func (l *testLog) proof(old, size int) [][32]byte {
	l.t.Helper()
	p, err := tree.Consistency(l, int64(old), int64(size))
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

// body returns an add-checkpoint request.
func (l *testLog) body(old, size int) []byte {
	l.t.Helper()
	r := request{old: int64(old), checkpoint: l.sign(size)}
	if old < size {
		r.proof = l.proof(old, size)
	}
	return r.format()
}

// testKey returns the same witness key in every run.
func testKey(t testing.TB, seed byte) *checkpoint.Cosigner {
	t.Helper()
	skey, _, err := checkpoint.GenerateWitnessKey(rand.NewChaCha8([32]byte{seed}), fmt.Sprintf("witness.example/%d", seed))
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.ParseWitnessKey(skey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Signer == nil {
		cfg.Signer = testKey(t, 1)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// post sends a request as a client would.
func post(s http.Handler, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/add-checkpoint", bytes.NewReader(body)))
	return w
}

// cosigned wants a cosignature for the log's checkpoint of that size.
func cosigned(t *testing.T, s *Server, l *testLog, old, size int) {
	t.Helper()
	w := post(s, l.body(old, size))
	if w.Code != http.StatusOK {
		t.Fatalf("add %d to %d: %d, %s", old, size, w.Code, w.Body)
	}
	if _, _, err := checkpoint.AddCosignature(l.sign(size), w.Body.Bytes(), s.VKey()); err != nil {
		t.Errorf("add %d to %d: %v", old, size, err)
	}
}

// TestAnswers holds the answers to the specification, with the size that the
// witness holds between.
func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	defer s.Close()
	l := newLog(t, "log.example/1", 1).grow(600, "")
	stranger := newLog(t, "log.example/2", 2).grow(5, "")
	thief := newLog(t, "log.example/1", 3).grow(600, "") // same name, other key
	fork := l.branch(250).grow(600, "fork")
	if err := s.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	cosigned(t, s, l, 0, 0)
	cosigned(t, s, l, 0, 0)
	cosigned(t, s, l, 0, 3)
	cosigned(t, s, l, 3, 3)
	cosigned(t, s, l, 3, 300)
	edit := func(b []byte, old, new string) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	good := l.body(300, 400)
	lines := strings.SplitAfter(string(good), "\n")
	for _, tt := range []struct {
		name string
		body []byte
		code int
	}{
		{"empty", nil, 400},
		{"no old", good[4:], 400},
		{"leading zero", edit(good, "old 300", "old 0300"), 400},
		{"negative", edit(good, "old 300", "old -300"), 400},
		{"carriage return", edit(good, "old 300\n", "old 300\r\n"), 400},
		{"no empty line", edit(good, "\n\n", "\n"), 400},
		{"64 hashes", edit(good, lines[1], strings.Repeat(lines[1], 64)), 400},
		{"spare bits", edit(good, lines[1], lines[1][:43]+"A\n"), 400},
		{"extension line", edit(good, "\n400\n", "\n400\nx\n"), 400},
		{"no signature", good[:bytes.Index(good, []byte("— "))], 400},
		{"larger old", edit(l.body(300, 300), "old 300", "old 301"), 400},
		{"unknown log", stranger.body(0, 5), 404},
		{"key of another", thief.body(300, 400), 403},
		{"altered size", edit(good, "\n400\n", "\n401\n"), 403},
		{"altered signature", edit(good, "— log.example/1 ", "— log.example/1 A"), 400},
		{"smaller old", l.body(3, 400), 409},
		{"old of zero", l.body(0, 400), 409},
		{"older checkpoint", l.body(3, 250), 409},
		{"hash missing", edit(good, lines[1], ""), 422},
		{"hash too many", edit(good, lines[1], lines[1]+lines[1]), 422},
		{"hash altered", edit(good, lines[1], lines[2]), 422},
		{"proof of nothing", edit(l.body(300, 300), "old 300\n", "old 300\n"+lines[1]), 422},
		{"another root of the size", fork.body(300, 300), 422},
		{"longer fork", fork.body(300, 400), 422},
		{"longer fork with the true proof", append(good[:bytes.Index(good, []byte("\n\n"))+2:bytes.Index(good, []byte("\n\n"))+2], fork.sign(400)...), 422},
	} {
		w := post(s, tt.body)
		if w.Code != tt.code {
			t.Errorf("%s: %d %q, want %d", tt.name, w.Code, w.Body, tt.code)
		}
		if w.Code == 409 && (w.Body.String() != "300\n" || w.Header().Get("Content-Type") != "text/x.tlog.size") {
			t.Errorf("%s: %q of type %s, want 300", tt.name, w.Body, w.Header().Get("Content-Type"))
		}
	}
	// None of that moved it.
	cosigned(t, s, l, 300, 301)

	// Kept: what the log's key signed and contradicts it. Not: what others made up.
	kept, err := os.ReadDir(filepath.Join(dir, "evidence"))
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != 7 {
		t.Errorf("%d pieces of evidence, want 7", len(kept))
	}
	all := ""
	for _, e := range kept {
		b, err := os.ReadFile(filepath.Join(dir, "evidence", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%x", sha256.Sum256(b)) != e.Name() {
			t.Errorf("evidence %s does not have the hash of its name", e.Name())
		}
		all += string(b)
	}
	for _, c := range [][]byte{fork.sign(300), fork.sign(400), l.sign(300)} {
		if !strings.Contains(all, string(c)) {
			t.Errorf("no evidence has the checkpoint\n%s", c)
		}
	}
}

// TestEmptyRoot: a size of zero with another root is 422, not just malformed.
func TestEmptyRoot(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	l := newLog(t, "log.example/1", 1)
	if err := s.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Sign(l.signer, l.origin, 0, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if w := post(s, (&request{checkpoint: signed}).format()); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s, want 422", w.Code, w.Body)
	}
}

func get(s http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// TestMonitoring reads what was cosigned, also after a restart.
func TestMonitoring(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, Now: func() time.Time { return time.Unix(1_790_000_000, 0) }})
	l := newLog(t, "log.example/1", 1).grow(20, "")
	path := "/" + OriginHash(l.origin) + "/checkpoint"
	if err := s.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	if w := get(s, path); w.Code != http.StatusNotFound {
		t.Errorf("before the first: %d, want 404", w.Code)
	}
	cosigned(t, s, l, 0, 7)
	cosigned(t, s, l, 7, 20)
	want := get(s, path)
	if time, err := checkpoint.CosignatureTime(want.Body.Bytes(), s.VKey()); want.Code != 200 || err != nil || time != 1_790_000_000 {
		t.Errorf("%d %s, %d, %v, want the cosigned checkpoint", want.Code, want.Body, time, err)
	}
	if c, err := checkpoint.Open(want.Body.Bytes(), l.vkey); err != nil || c.Size != 20 {
		t.Errorf("%+v, %v, want size 20", c, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	defer s.Close()
	if w := get(s, path); w.Body.String() != want.Body.String() {
		t.Errorf("after a restart: %s, want %s", w.Body, want.Body)
	}
	if got := s.Logs(); len(got) != 1 || got[l.origin] != 20 {
		t.Errorf("logs %v, want the one of size 20", got)
	}
	if w := post(s, l.body(0, 20)); w.Code != http.StatusConflict || w.Body.String() != "20\n" {
		t.Errorf("after a restart: %d %s, want 409 and 20", w.Code, w.Body)
	}
	for path, code := range map[string]int{"/": 404, "/x/checkpoint": 404, "/add-checkpoint": 405} {
		if w := get(s, path); w.Code != code {
			t.Errorf("GET %s: %d, want %d", path, w.Code, code)
		}
	}
}

// TestRace is row 8 of the tamper matrix: many requests at a time, all from the
// same past. Each size is cosigned from exactly one, and the state never falls.
func TestRace(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	l := newLog(t, "log.example/1", 1).grow(100, "")
	fork := l.branch(10).grow(100, "fork")
	if err := s.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	cosigned(t, s, l, 0, 10)
	var wg sync.WaitGroup
	codes := make(chan int, 200)
	for size := 11; size <= 60; size++ {
		for _, l := range []*testLog{l, fork} {
			body := l.body(10, size)
			wg.Go(func() { codes <- post(s, body).Code })
		}
	}
	wg.Wait()
	close(codes)
	n := map[int]int{}
	for c := range codes {
		n[c]++
	}
	if n[200] != 1 || n[409] != 99 {
		t.Errorf("answers %v, want one 200 and 99 times 409", n)
	}
}

// TestFaults breaks each step of saving, before or after it took effect, and
// loses power: what a client was given is what the next start knows.
func TestFaults(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(50, "")
	for step := 1; ; step++ {
		for _, after := range []bool{false, true} {
			fsys := faultfs.New()
			s := open(t, Config{Dir: "/w", FS: fsys})
			if err := s.Add(l.vkey); err != nil {
				t.Fatal(err)
			}
			cosigned(t, s, l, 0, 10)
			n := 0
			fsys.Inject(func(op faultfs.Op, _ string) faultfs.Fault {
				if op == faultfs.Read || op == faultfs.Open || op == faultfs.List {
					return faultfs.Fault{}
				}
				if n++; n == step {
					return faultfs.Fault{Err: errors.New("no"), After: after}
				}
				return faultfs.Fault{}
			})
			w := post(s, l.body(10, 20))
			fsys.Inject(nil)
			given := w.Code == http.StatusOK
			if !given && (w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "no\n")) {
				t.Fatalf("step %d: %d %s", step, w.Code, w.Body)
			}
			for seed := range uint64(8) {
				disk := fsys.Crash(rand.New(rand.NewPCG(seed, uint64(step))))
				again, err := Open(Config{Dir: "/w", FS: disk, Signer: testKey(t, 1)})
				if err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				size := again.Logs()[l.origin]
				if given && size != 20 || size != 10 && size != 20 {
					t.Errorf("step %d, after %v: the next start knows %d, given out %v", step, after, size, given)
				}
			}
			if n < step {
				return // there is no such step any more
			}
		}
	}
}

// TestDamaged: a witness that lost its memory, or part of it, does not start
// as if nothing had been.
func TestDamaged(t *testing.T) {
	l := newLog(t, "log.example/1", 1).grow(50, "")
	other := newLog(t, "log.example/2", 2).grow(50, "")
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	if err := errors.Join(s.Add(l.vkey), s.Add(other.vkey)); err != nil {
		t.Fatal(err)
	}
	cosigned(t, s, l, 0, 10)
	cosigned(t, s, other, 0, 10)
	if _, err := Open(Config{Dir: dir, Signer: testKey(t, 1)}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second process: %v, want %v", err, durable.ErrLocked)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mine, theirs := filepath.Join(dir, "log", OriginHash(l.origin)), filepath.Join(dir, "log", OriginHash(other.origin))
	good, err := os.ReadFile(mine)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1 << (i % 8)
		if _, err := parseLog(b, testKey(t, 1).VKey()); err == nil {
			t.Fatalf("byte %d altered, and the state is read", i)
		}
	}
	try := func(name string, b []byte, key *checkpoint.Cosigner) {
		t.Helper()
		if err := os.WriteFile(mine, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(Config{Dir: dir, Signer: key}); err == nil {
			t.Errorf("%s: it starts", name)
			s.Close()
		}
	}
	try("cut", good[:len(good)-20], testKey(t, 1))
	try("the file of another log", foreign, testKey(t, 1))
	try("another key", good, testKey(t, 2))
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	defer s.Close()
	if w := post(s, l.body(0, 10)); w.Code != http.StatusNotFound {
		t.Errorf("a log whose file is gone: %d, want 404: it must not begin anew by itself", w.Code)
	}
}

// TestTwoKeys: while a log changes its key, both may sign.
func TestTwoKeys(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	l, next := newLog(t, "log.example/1", 1).grow(50, ""), newLog(t, "log.example/1", 2).grow(50, "")
	if err := errors.Join(s.Add(l.vkey), s.Add(next.vkey)); err != nil {
		t.Fatal(err)
	}
	if s.Add(l.vkey) == nil || s.Add(s.VKey()) == nil || s.Add("x") == nil {
		t.Error("a key twice, the witness's own, or nonsense was added")
	}
	cosigned(t, s, l, 0, 10)
	cosigned(t, s, next, 10, 20)
	cosigned(t, s, l, 20, 30)
}

// TestRetire: what a retired key signs is not cosigned, also behind a restart; the history stays.
func TestRetire(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	l, next := newLog(t, "log.example/1", 1).grow(50, ""), newLog(t, "log.example/1", 2).grow(50, "")
	if err := s.Add(l.vkey); err != nil {
		t.Fatal(err)
	}
	refused := func(vkey, want string) {
		t.Helper()
		if err := s.Retire(vkey); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Retire = %v, want %q", err, want)
		}
	}
	refused(l.vkey, "only one")
	refused(next.vkey, "is not there")
	refused(newLog(t, "log.example/2", 3).vkey, "is not there")
	refused(s.VKey(), "witness")
	if err := s.Add(next.vkey); err != nil {
		t.Fatal(err)
	}
	cosigned(t, s, l, 0, 10)
	refused(l.vkey, "over 10 entries, is signed with it")
	cosigned(t, s, next, 10, 20)
	if err := s.Retire(l.vkey); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if w := post(s, l.body(20, 30)); w.Code != http.StatusForbidden {
			t.Errorf("signed with the retired key: %d, want 403", w.Code)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{Dir: dir})
	}
	if w := post(s, next.branch(15).grow(40, "other").body(20, 40)); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("another history: %d, want 422", w.Code)
	}
	cosigned(t, s, next, 20, 30)
	// Before the first checkpoint any but the last may go.
	other, third := newLog(t, "log.example/3", 4), newLog(t, "log.example/3", 5)
	if err := errors.Join(s.Add(other.vkey), s.Add(third.vkey), s.Retire(other.vkey), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestChanges makes changes while the server runs.
func TestChanges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Changes(ctx)
	}()
	l, next := newLog(t, "log.example/1", 1).grow(50, ""), newLog(t, "log.example/1", 2).grow(50, "")
	for _, tt := range []struct{ verb, vkey, want string }{
		{ChangeAdd, l.vkey, ""},
		{ChangeAdd, l.vkey, "is there already"},
		{ChangeRetire, l.vkey, "only one"},
		{ChangeAdd, next.vkey, ""},
		{ChangeRetire, l.vkey, ""},
		{"forget", next.vkey, "unknown change"},
		{ChangeAdd, strings.Repeat("x", maxChange), "at most"},
	} {
		err := Ask(t.Context(), durable.OS, dir, Change{tt.verb, tt.vkey})
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %v, want %q", tt.verb, err, tt.want)
		}
	}
	cosigned(t, s, next, 0, 10)
	if w := post(s, l.body(10, 20)); w.Code != http.StatusForbidden {
		t.Errorf("signed with the retired key: %d, want 403", w.Code)
	}
	cancel()
	<-ended
	// Nobody answers now: nothing stays that would be done some day.
	gone, stop := context.WithCancel(t.Context())
	stop()
	if err := Ask(gone, durable.OS, dir, Change{ChangeAdd, l.vkey}); !errors.Is(err, context.Canceled) {
		t.Errorf("Ask = %v, want it given up", err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "request")); err != nil || len(names) != 0 {
		t.Errorf("left are %v, %v", names, err)
	}
}

func FuzzRequest(f *testing.F) {
	l := newLog(f, "log.example/1", 1).grow(20, "")
	f.Add(l.body(0, 0))
	f.Add(l.body(3, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil && !bytes.Equal(r.format(), b) {
			t.Errorf("%q becomes %q", b, r.format())
		}
	})
}

func FuzzState(f *testing.F) {
	l := newLog(f, "log.example/1", 1).grow(20, "")
	s := open(f, Config{Dir: f.TempDir()})
	if err := s.Add(l.vkey); err != nil {
		f.Fatal(err)
	}
	f.Add(s.logs[l.origin].format())
	if _, err := s.add(context.Background(), l.body(0, 20)); err != nil {
		f.Fatal(err)
	}
	f.Add(s.logs[l.origin].format())
	vkey := s.VKey()
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLog(b, vkey); err == nil && !bytes.Equal(l.format(), b) {
			t.Errorf("%q becomes %q", b, l.format())
		}
	})
}
