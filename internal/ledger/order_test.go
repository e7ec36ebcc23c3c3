package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// dump copies a directory of a file system to the disk, for tools that read there.
func dump(t testing.TB, fsys durable.FS, dir string) string {
	t.Helper()
	to := t.TempDir()
	var walk func(from, to string)
	walk = func(from, to string) {
		names, err := fsys.List(from)
		if err != nil { // a file
			b, err := durable.ReadFile(fsys, from, 1<<30)
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			walk(filepath.Join(from, name), filepath.Join(to, name))
		}
	}
	walk(dir, to)
	return to
}

// mustVerify has package verify check a log.
func mustVerify(t testing.TB, fsys durable.FS, dir string) *verify.Result {
	t.Helper()
	r, err := verify.Dir(t.Context(), dump(t, fsys, dir), verify.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK || strings.Contains(strings.Join(r.Notes, "\n"), "there is no copy") {
		t.Fatalf("findings %+v, notes %q", r.Findings, r.Notes)
	}
	return r
}

// everywhere returns all that the files below dir hold, decompressed too.
func everywhere(t testing.TB, fsys durable.FS, dir string) []byte {
	t.Helper()
	from := dump(t, fsys, dir)
	var all []byte
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	err = filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all = append(all, b...)
		if strings.Contains(name, "/segment/") {
			plain, err := dec.DecodeAll(b, nil)
			if err != nil {
				return err
			}
			all = append(all, plain...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rich writes a log of two segments and a journal: session 1 goes on and goes
// back to the statement at the index text in each of them; secret is the entry
// of a value that nobody shall see, large one in a blob.
func rich(l *Ledger) (text, secret, large int64, err error) {
	n := map[uint64]uint64{}
	add := func(session uint64, user string, kind event.Kind, parse int64, value []byte) int64 {
		n[session]++
		leaf := event.Leaf{Time: l.cfg.Now(), Session: session, Seq: n[session], Kind: kind, Parse: parse, Who: &event.Who{User: user, Database: "app"}}
		i, e := l.Emit(&leaf, value)
		err = errors.Join(err, e)
		return i
	}
	add(1, "alice", event.KindConnect, 0, []byte("start-up"))
	text = add(1, "alice", event.KindParse, 0, []byte("the text of a statement"))
	add(2, "bob", event.KindConnect, 0, nil)
	secret = add(2, "bob", event.KindQuery, 0, []byte("a secret of bob"))
	large = add(2, "bob", event.KindQuery, 0, bytes.Repeat([]byte("large secret "), MaxInline/13+1))
	for range 2 {
		add(1, "alice", event.KindExecute, event.Ref(text), []byte("run"))
		if err == nil {
			err = l.Rotate()
		}
		if err == nil {
			err = l.await(context.Background(), l.next-1)
		}
		if err == nil {
			err = l.SealNow(context.Background())
		}
	}
	add(1, "alice", event.KindExecute, event.Ref(text), []byte("run"))
	if err == nil {
		err = l.await(context.Background(), l.next-1)
	}
	return text, secret, large, err
}

func steady(cfg Config) Config {
	now := int64(1_780_000_000e9)
	cfg.Now = func() int64 { return now }
	return cfg
}

func mustDo(t testing.TB, l *Ledger, o Order) *Answer {
	t.Helper()
	a, err := l.Do(t.Context(), &o)
	if err != nil {
		t.Fatalf("%+v: %v", o, err)
	}
	return a
}

// TestErase is row 22 of the tamper matrix: what was erased, and what could
// confirm a guess of it, is in no file; all else is as it was, to the byte.
func TestErase(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	_, secret, large, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	// One more that is still in the journal.
	fresh, err := l.Emit(&event.Leaf{Kind: event.KindViolation}, []byte("a fresh secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.await(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	if err := l.sign(); err != nil {
		t.Fatal(err)
	}
	r, err := segment.OpenReaderFS(s, "/d")
	if err != nil {
		t.Fatal(err)
	}
	entry := func(i int64) (leaf, value []byte, salt [32]byte) {
		e, err := r.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		return e.Leaf, e.Value, e.Salt
	}
	leaf, _, salt := entry(secret)
	_, _, freshSalt := entry(fresh)
	_, _, largeSalt := entry(large)
	other, otherValue, otherSalt := entry(1)
	before, err := durable.ReadFile(s, segment.LeafFile("/d", 0), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if all := everywhere(t, s, "/d"); !bytes.Contains(all, []byte("a secret of bob")) || !bytes.Contains(all, []byte("a fresh secret")) {
		t.Fatal("the secrets are nowhere to begin with")
	}
	seed := seedOf(t, s, 0)

	// What was computed from values goes too, wherever it is.
	if err := s.Mkdir("/d/index", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00000000000000000000.idx", "00000000000000000000.idx.tmp", "00000000000000099840.idx"} {
		if err := durable.WriteFile(s, "/d/index/"+name, []byte("hash of a secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	a := mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret, large, fresh}, By: "tester"})
	if !a.OK || a.Frames != 2 {
		t.Errorf("answer %+v, want two frames written anew", a)
	}
	all := everywhere(t, s, "/d")
	for _, gone := range [][]byte{[]byte("a secret of bob"), []byte("a fresh secret"), []byte("large secret large"), []byte("hash of a secret"), salt[:], freshSalt[:], largeSalt[:], seed} {
		if bytes.Contains(all, gone) {
			t.Errorf("%q is still in some file", gone)
		}
	}
	if _, err := s.List("/d/index"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of indexes is there: %v", err)
	}
	after, err := durable.ReadFile(s, segment.LeafFile("/d", 0), 1<<30)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the leaves changed: %v", err)
	}
	if l, v, _ := entry(secret); !bytes.Equal(l, leaf) || v != nil {
		t.Errorf("the erased entry is %s, value %q", l, v)
	}
	if l, v, s := entry(1); !bytes.Equal(l, other) || !bytes.Equal(v, otherValue) || s != otherSalt {
		t.Errorf("its neighbour is %s, value %q", l, v)
	}
	// Again does no harm.
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	mustClose(t, l)
	if r := mustVerify(t, s, "/d"); r.Erased != 3 {
		t.Errorf("%d values erased, want 3", r.Erased)
	}
	if names, err := s.List("/d/blob"); err != nil || len(names) != 0 {
		t.Errorf("blobs %q, %v, want none", names, err)
	}
}

// seedOf returns the seed of the first bundle of a segment.
func seedOf(t testing.TB, fsys durable.FS, first int64) []byte {
	t.Helper()
	b, err := durable.ReadFile(fsys, segment.ValueFile("/d", first), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(b, nil)
	if err != nil || plain[0] != 0 {
		t.Fatalf("no seed: %v", err)
	}
	return plain[1:33]
}

// TestEraseRefused: nothing is erased under a hold, nor what is not there.
func TestEraseRefused(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []Hold{{User: "bob"}, {Database: "app"}, {From: secret, To: secret + 1}, {Since: 1}, {}} {
		mustDo(t, l, Order{Kind: "hold", Case: "trial", Hold: &h})
		if _, err := l.Do(t.Context(), &Order{Kind: "erase", Entries: []int64{secret}}); err == nil || !strings.Contains(err.Error(), `"trial" forbids it`) {
			t.Errorf("erase under %+v = %v, want it refused", h, err)
		}
		mustDo(t, l, Order{Kind: "release", Case: "trial"})
	}
	for _, entries := range [][]int64{nil, {-1}, {5, 3}, {1 << 40}, {3}} {
		if _, err := l.Do(t.Context(), &Order{Kind: "erase", Entries: entries}); err == nil {
			t.Errorf("erase of %v succeeded, want it refused", entries)
		}
	}
	for _, h := range []Hold{{User: "alice"}, {Database: "other"}, {From: secret + 1}, {To: secret}, {Until: 1}} {
		mustDo(t, l, Order{Kind: "hold", Case: fmt.Sprint(h), Hold: &h})
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	mustClose(t, l)
	mustVerify(t, s, "/d")
}

// TestPrune lets leaves and values go, and reads what is left.
func TestPrune(t *testing.T) {
	for _, what := range []string{"leaves", "values"} {
		s := faultfs.New()
		l := mustOpen(t, steady(quiet(s, "/d")))
		text, _, large, err := rich(l)
		if err != nil {
			t.Fatal(err)
		}
		// Holds stop it, and a restart does not forget them.
		for _, h := range []Hold{{User: "bob"}, {To: 1}, {Database: "app", User: "alice"}} {
			mustDo(t, l, Order{Kind: "hold", Case: "trial", Hold: &h})
			mustClose(t, l)
			l = mustOpen(t, steady(quiet(s, "/d")))
			if a := mustDo(t, l, Order{Kind: "prune", What: what, Until: 1 << 40}); a.OK || a.Pruned != 0 || !strings.Contains(a.Text, "trial") {
				t.Errorf("prune under %+v: %+v", h, a)
			}
			mustDo(t, l, Order{Kind: "release", Case: "trial"})
		}
		before := mustVerify(t, s, "/d")
		a := mustDo(t, l, Order{Kind: "prune", What: what, Until: 1 << 40, By: "tester"})
		if !a.OK || a.Pruned != 256 {
			t.Errorf("prune: %+v, want the first segment gone", a)
		}
		mustClose(t, l)
		r := mustVerify(t, s, "/d")
		if what == "leaves" && (r.Pruned != 256 || r.Entries >= before.Entries) {
			t.Errorf("verify: %+v", r)
		}
		if names, err := s.List("/d/blob"); err != nil || len(names) != 0 {
			t.Errorf("blobs %q, %v: that of entry %d is still there", names, err, large)
		}
		reader, err := segment.OpenReaderFS(s, "/d")
		if err != nil {
			t.Fatal(err)
		}
		if e, err := reader.Copy(text); err != nil || string(e.Value) != "the text of a statement" {
			t.Errorf("the text that later entries go back to: %q, %v", e.Value, err)
		}
		if e, err := reader.Entry(text); (what == "values") != (err == nil) || e.Value != nil {
			t.Errorf("a pruned entry: %+v, %v", e, err)
		}
		// The log goes on, and the text stays as long as the session does.
		l = mustOpen(t, steady(quiet(s, "/d")))
		mustClose(t, l)
		mustVerify(t, s, "/d")
	}
}

// TestKeepText: a statement's text follows its session through one pruning after another.
func TestKeepText(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	text, _, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
			t.Fatal(err)
		}
		mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40})
		r, err := segment.OpenReaderFS(s, "/d")
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.Copy(text); err != nil || string(e.Value) != "the text of a statement" {
			t.Fatalf("the text is %q, %v", e.Value, err)
		}
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{text}}) // of the copy: the entry is gone
	if all := everywhere(t, s, "/d"); bytes.Contains(all, []byte("the text of a statement")) {
		t.Error("an erased copy is still there")
	}
	// Nor does it matter that what ordered it is pruned some day.
	for range 3 {
		if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
			t.Fatal(err)
		}
		mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40})
		mustVerify(t, s, "/d")
	}
	if _, err := l.Emit(&event.Leaf{Kind: event.KindDisconnect, Session: 1, Seq: 6, Time: l.cfg.Now()}, nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	if r := mustVerify(t, s, "/d"); r.Pruned == 0 {
		t.Errorf("%+v", r)
	}
}

// TestRetain prunes by age and by size.
func TestRetain(t *testing.T) {
	for _, tt := range []struct {
		p     Retain
		first int64 // entry that is there
		value int64 // segment that has values
	}{
		{Retain{}, 0, 0},
		{Retain{Age: time.Hour}, 0, 0},
		{Retain{Age: 1}, 512, 512},
		{Retain{ValueAge: 1}, 0, 512},
		{Retain{Bytes: 1}, 512, 512},
		{Retain{ValueBytes: 1}, 0, 512},
		{Retain{Bytes: 1 << 30, ValueBytes: 1 << 30}, 0, 0},
	} {
		s := faultfs.New()
		cfg := steady(quiet(s, "/d"))
		now := cfg.Now()
		cfg.Now = func() int64 { return now }
		cfg.Retain = tt.p
		l := mustOpen(t, cfg)
		if _, _, _, err := rich(l); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
			t.Fatal(err)
		}
		now += int64(time.Minute)
		l.clerk.clock.wall = now // it was not set, a minute passed
		if err := l.clerk.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		segs, err := segment.List(s, "/d")
		if err != nil || len(segs) == 0 || segs[0] != tt.first {
			t.Errorf("%+v: segments %v, %v, want them from %d on", tt.p, segs, err, tt.first)
		}
		for _, first := range segs {
			if _, v, err := segment.Size(s, "/d", first); err != nil || (v > 0) != (first >= tt.value) {
				t.Errorf("%+v: segment %d has %d bytes of values, %v, want some from %d on", tt.p, first, v, err, tt.value)
			}
		}
		mustVerify(t, s, "/d")
	}
}

// TestRetainClock: nothing goes for its age for a day after the clock was set forward, and what is too much goes all the same.
func TestRetainClock(t *testing.T) {
	s := faultfs.New()
	cfg := steady(quiet(s, "/d"))
	now := cfg.Now()
	cfg.Now = func() int64 { return now }
	cfg.Retain = Retain{Age: time.Hour, ValueAge: time.Hour}
	l := mustOpen(t, cfg)
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	sealAll(t, l)
	retained := func(want int64) {
		t.Helper()
		if err := l.clerk.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if segs, err := segment.List(s, "/d"); err != nil || len(segs) == 0 || segs[0] != want {
			t.Errorf("segments %v, %v, want them from %d on", segs, err, want)
		}
	}
	now += int64(9000 * time.Hour)
	retained(0)
	retained(0)
	if left := time.Until(l.clerk.ageless); left < 23*time.Hour {
		t.Errorf("in %s all goes, want a day", left)
	}
	now -= int64(9000 * time.Hour) // that was a mistake
	l.clerk.ageless = time.Now()   // a day later
	retained(0)
	l.cfg.Retain.Bytes = 1 // too much is too much
	now += int64(9000 * time.Hour)
	retained(512)
	mustClose(t, l)
	mustVerify(t, s, "/d")
}

func request(fsys durable.FS, id string, o Order) error {
	b, err := json.Marshal(&o)
	if err == nil {
		err = durable.MkdirAll(fsys, "/d/request", 0o700)
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(fsys, "/d/request/"+id+".json", b, 0o600)
}

// TestFaultWhileLettingGo breaks each change to the disk while values are
// erased and segments pruned, before and after it took effect, then takes the
// power away. The next start finishes what was begun.
func TestFaultWhileLettingGo(t *testing.T) {
	for _, o := range []Order{{Kind: "erase"}, {Kind: "prune", What: "leaves", Until: 1 << 40}, {Kind: "prune", What: "values", Until: 1 << 40}} {
		t.Run(o.Kind+o.What, func(t *testing.T) {
			steps := 0
			for n := 1; ; n++ {
				for _, after := range []bool{false, true} {
					hit := lettingGo(t, o, n, after)
					if !hit {
						t.Logf("%d steps, each broken in 2 ways", steps)
						return
					}
				}
				steps++
			}
		})
	}
}

func lettingGo(t *testing.T, o Order, n int, effect bool) (hit bool) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	text, secret, large, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind == "erase" {
		o.Entries = []int64{secret, large}
	}
	if err := request(s, "1", o); err != nil {
		t.Fatal(err)
	}
	count, at := 0, ""
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if changes(op) {
			if count++; count == n {
				hit, at = true, fmt.Sprintf("%s %s", op, name)
				return faultfs.Fault{Err: syscall.EIO, After: effect}
			}
		}
		return faultfs.Fault{}
	})
	l.clerk.orders()
	s.Inject(nil)
	s.Stop()
	_ = l.Close()
	s = s.Crash(rnd(uint64(n)))
	l, err = Open(steady(quiet(s, "/d")))
	if err != nil {
		t.Fatalf("fault at %s: Open = %v", at, err)
	}
	if names, _ := s.List("/d/request"); len(names) == 0 || strings.HasSuffix(names[0], ".done") && strings.Contains(answerOf(t, s), `"ok":false`) {
		// It was answered with the error; whoever asked asks again.
		if err := request(s, "1", o); err != nil {
			t.Fatal(err)
		}
	}
	l.clerk.orders()
	if a := answerOf(t, s); !strings.Contains(a, `"ok":true`) && !strings.Contains(a, "nothing was pruned") {
		t.Errorf("fault at %s: answer %s", at, a)
	}
	mustClose(t, l)
	r := mustVerify(t, s, "/d")
	all := everywhere(t, s, "/d")
	if bytes.Contains(all, []byte("a secret of bob")) || bytes.Contains(all, []byte("large secret large")) {
		t.Errorf("fault at %s: what was to go is still there", at)
	}
	if !bytes.Contains(all, []byte("the text of a statement")) {
		t.Errorf("fault at %s: entry %d, which later ones go back to, is gone", at, text)
	}
	if o.What == "leaves" && r.Pruned != 256 {
		t.Errorf("fault at %s: pruned %d, want 256", at, r.Pruned)
	}
	return hit
}

// TestTidy removes what crashes left among the orders, but nothing that may be at work.
func TestTidy(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	now := l.cfg.Now()
	name := func(age time.Duration, suffix string) string { return fmt.Sprintf("%d-00aa%s", now-int64(age), suffix) }
	keep := []string{name(-time.Hour, ".json.tmp"), name(time.Minute, ".json.tmp"), name(2*time.Hour, ".json"), name(2*time.Hour, ".done"), "other.json.tmp", "1.tmp"}
	if err := durable.MkdirAll(s, "/d/request", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range append([]string{name(time.Hour, ".json.tmp"), name(time.Minute, ".done.tmp"), "other.done.tmp"}, keep...) {
		f, err := s.Create("/d/request/"+n, 0o600)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	l.clerk.tidy()
	slices.Sort(keep)
	if names, err := s.List("/d/request"); err != nil || !slices.Equal(names, keep) {
		t.Errorf("left are %q, %v, want %q", names, err, keep)
	}
	mustClose(t, l)
}

func answerOf(t *testing.T, fsys durable.FS) string {
	b, err := durable.ReadFile(fsys, "/d/request/1.done", 1<<20)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestLettingGoTamper is rows 20 and 21 of the tamper matrix: whoever lets more
// go than the entries say, or puts back what they say is gone, is found out.
func TestLettingGoTamper(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
		t.Fatal(err)
	}
	whole := dump(t, s, "/d")
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	erased := dump(t, s, "/d")
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	mustDo(t, l, Order{Kind: "prune", What: "values", Until: 512})
	mustClose(t, l)
	mustVerify(t, s, "/d")
	pruned := dump(t, s, "/d")
	name := func(first int, suffix string) string { return fmt.Sprintf("segment/%020d%s", first, suffix) }
	remove := func(names ...string) func(string) error {
		return func(dir string) (err error) {
			for _, n := range names {
				err = errors.Join(err, os.Remove(filepath.Join(dir, n)))
			}
			return err
		}
	}
	for _, tt := range []struct {
		what string
		from string
		do   func(dir string) error
		want string
	}{
		{"one more segment", pruned, remove(name(256, ".zst")), "those before 512 are not there"},
		{"the values of one more segment", pruned, remove(name(512, ".val")), "the values of entries 512 to"},
		{"the checkpoint", pruned, remove("checkpoint"), "is missing"},
		{"an erased value is put back", erased, func(dir string) error {
			b, err := os.ReadFile(filepath.Join(whole, name(0, ".val")))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name(0, ".val")), b, 0o600)
		}, "an erase entry says that it is gone, but it is there"},
		{"the prune entry is cut off", pruned, func(dir string) error {
			// An older state of the journal and its checkpoint, with the files as they are now.
			for _, n := range []string{"checkpoint"} {
				b, err := os.ReadFile(filepath.Join(erased, n))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, "those before 256 are not there"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(tt.from)); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(dir); err != nil {
				t.Fatal(err)
			}
			r, err := verify.Dir(t.Context(), dir, verify.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := ""
			for _, f := range r.Findings {
				all += f.What + ": " + f.Why + "\n"
			}
			if r.OK || !strings.Contains(all, tt.want) {
				t.Errorf("findings %q, want one with %q", all, tt.want)
			}
		})
	}
}

// TestImmutable seals, erases and prunes on the real file system, with the
// immutable flag where that can be set.
func TestImmutable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { // or nobody could remove the directory
		names, err := filepath.Glob(filepath.Join(dir, "segment", "*"))
		for _, name := range names {
			err = errors.Join(err, durable.OS.Unprotect(name))
		}
		if err != nil {
			t.Error(err)
		}
	})
	cfg := steady(quiet(nil, dir))
	cfg.Immutable = true
	l := mustOpen(t, cfg)
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "segment", "*"))
	if err != nil || len(names) != 4 {
		t.Fatalf("files %q, %v, want those of two segments", names, err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v, want mode 0444", name, info.Mode(), err)
		}
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	mustDo(t, l, Order{Kind: "prune", What: "values", Until: 256})
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	mustClose(t, l)
	r, err := verify.Dir(t.Context(), dir, verify.Options{})
	if err != nil || !r.OK || r.Pruned != 256 {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

// TestOldCheckpoints: after pruning, checkpoints over what went are compared
// with the tiles that stay, as far as these reach.
func TestOldCheckpoints(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	h, err := segment.ReadHeader(s, "/d", 0)
	if err != nil {
		t.Fatal(err)
	}
	old := func(size int64, root tree.Hash) []verify.File {
		b, err := checkpoint.Sign(l.signer, l.info.Origin, size, root)
		if err != nil {
			t.Fatal(err)
		}
		return []verify.File{{Name: "old", Data: b}}
	}
	good, bad, within := old(256, h.NextRoot), old(256, h.Root), old(100, h.Root)
	if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 512})
	mustClose(t, l)
	dir := dump(t, s, "/d")
	for _, tt := range []struct {
		name string
		list []verify.File
		ok   bool
		want string
	}{
		{"aligned", good, true, ""},
		{"aligned, of another history", bad, false, "is not that of the tiles that are kept"},
		{"within a bundle", within, true, "cannot be compared any more"},
	} {
		r, err := verify.Dir(t.Context(), dir, verify.Options{Checkpoints: tt.list})
		if err != nil {
			t.Fatal(err)
		}
		if all := fmt.Sprint(r.Findings, r.Notes); r.OK != tt.ok || r.Pruned != 512 || !strings.Contains(all, tt.want) {
			t.Errorf("%s: %s", tt.name, all)
		}
	}
}

// TestPrunedTile: a tile over entries that were pruned stays, and is checked
// against the hash above it.
func TestPrunedTile(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	beat := (&event.Leaf{Kind: event.KindHeartbeat, Time: l.cfg.Now()}).Append(nil)
	for range 257 * 256 {
		if _, err := l.Append(beat, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.SealNow(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 1 << 40}); a.Pruned <= 1<<16 {
		t.Fatalf("%+v, want more than a tile pruned", a)
	}
	mustClose(t, l)
	mustVerify(t, s, "/d")
	dir := dump(t, s, "/d")
	name := filepath.Join(dir, "tile", "1", "000")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[77] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "tile above") {
		t.Errorf("an altered tile: %+v, %v", r, err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "is missing") {
		t.Errorf("a missing tile: %+v, %v", r, err)
	}
}
