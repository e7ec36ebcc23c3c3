package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// quiet is a configuration in which nothing happens by itself.
func quiet(fsys durable.FS, dir string) Config {
	return Config{
		Dir: dir, FS: fsys, Origin: "test.example/log", Version: "test",
		Lazy: time.Hour, CheckpointEvery: time.Hour, HeartbeatEvery: time.Hour, room: 8 << 10, byHand: true,
	}
}

func mustOpen(t testing.TB, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustClose(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func leafOf(n, size int, value bool) []byte {
	return (&event.Leaf{Time: int64(n), Session: 1, Seq: uint64(n + 1), Kind: event.KindQuery, HasValue: value, Size: int64(size)}).Append(nil)
}

func mustAppend(t testing.TB, l *Ledger, n int, value []byte) int64 {
	t.Helper()
	index, err := l.Append(leafOf(n, len(value), value != nil), value)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// waitFor waits until n entries are durable and wants them.
func waitFor(l *Ledger, n int64) error {
	l.Want(n - 1)
	for end := time.Now().Add(2 * time.Minute); l.Durable() < n; time.Sleep(20 * time.Microsecond) {
		if err := l.Err(); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("Durable() = %d, want %d", l.Durable(), n)
		}
	}
	return nil
}

func mustWait(t testing.TB, l *Ledger, n int64) {
	t.Helper()
	if err := waitFor(l, n); err != nil {
		t.Fatal(err)
	}
}

// An entry is what checkLog found in a log.
type entry struct {
	leaf  event.Leaf
	value string
}

// checkLog checks a log from its first byte on, like a verifier, and returns
// its entries: leaves against the tree, values against commitments, the tree
// against the checkpoint and the tiles.
func checkLog(t testing.TB, fsys durable.FS, dir string) []entry {
	t.Helper()
	r, err := segment.OpenReaderFS(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	signed := checkpoint.Checkpoint{}
	// A crash while the log is founded may leave its checkpoint over nothing and no log.json.
	if info, err := durable.ReadFile(fsys, filepath.Join(dir, "log.json"), 1<<20); err == nil {
		b, err := durable.ReadFile(fsys, filepath.Join(dir, "checkpoint"), 1<<20)
		if err != nil {
			t.Fatalf("a log without a checkpoint: %v", err)
		}
		i, err := parseLogInfo(info)
		if err != nil {
			t.Fatal(err)
		}
		if signed, err = checkpoint.Open(b, i.VKey); err != nil {
			t.Fatal(err)
		}
	}
	size, err := r.Size()
	if err != nil {
		t.Fatal(err)
	}
	if size < signed.Size {
		t.Fatalf("the log has %d entries, %d are signed", size, signed.Size)
	}
	var out []entry
	b := tree.New()
	b.OnFull = func(level int, n int64, tile []byte) {
		name := filepath.Join(dir, tree.TilePath(level, n, tree.Width))
		if got, err := durable.ReadFile(fsys, name, 8192); err != nil || !bytes.Equal(got, tile) {
			t.Fatalf("tile %s: %v, or it differs", name, err)
		}
	}
	for e, err := range r.Entries(0, size) {
		if err != nil {
			t.Fatal(err)
		}
		b.Append(tree.LeafHash(e.Leaf))
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			t.Fatalf("entry %d: %v", e.Index, err)
		}
		value := e.Value
		if e.Blob != nil {
			if value, err = durable.ReadFile(fsys, journal.BlobPath(dir, e.Blob.ID), e.Blob.Size); err != nil {
				t.Fatal(err)
			}
		}
		if e.HasValue != leaf.HasValue || int64(len(value)) != leaf.Size {
			t.Fatalf("entry %d: value %v of %d bytes, the leaf says %v, %d", e.Index, e.HasValue, len(value), leaf.HasValue, leaf.Size)
		}
		if e.HasValue && sha256.Sum256(append(e.Salt[:], value...)) != leaf.Commitment {
			t.Fatalf("entry %d: the commitment is not that of the value", e.Index)
		}
		out = append(out, entry{leaf, string(value)})
		if b.Size() == signed.Size && b.Root() != signed.Root {
			t.Fatalf("the root at %d is not the one signed", signed.Size)
		}
	}
	if int64(len(out)) != size {
		t.Fatalf("%d entries, want %d", len(out), size)
	}
	return out
}

// checkLives makes sure that before each start but the first there is a stop or a recover entry.
func checkLives(t testing.TB, entries []entry) {
	t.Helper()
	for i, e := range entries {
		if i == 0 || e.leaf.Kind != event.KindStart {
			continue
		}
		if k := entries[i-1].leaf.Kind; k != event.KindStop && k != event.KindRecover {
			t.Fatalf("entry %d is a start behind a %s", i, k)
		}
	}
}

func kinds(entries []entry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(string(e.leaf.Kind) + " ")
	}
	return strings.TrimSpace(b.String())
}

func TestOpenAppendClose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	want := map[int64]string{}
	for round := range 3 {
		l := mustOpen(t, Config{Dir: dir, Version: "test", SegmentSize: 64 << 10})
		for i := range 500 {
			v := fmt.Appendf(nil, "value %d of round %d", i, round)
			index := mustAppend(t, l, i, v)
			want[index] = string(v)
			if i%50 == 0 {
				mustWait(t, l, index+1)
			}
		}
		mustClose(t, l)
		if err := l.Close(); err != nil {
			t.Errorf("second Close = %v, want nil", err)
		}
		if _, err := l.Append(leafOf(1, 0, false), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Append after Close = %v, want ErrClosed", err)
		}
	}
	got := checkLog(t, durable.OS, dir)
	if len(got) != 3*502 {
		t.Errorf("%d entries, want %d", len(got), 3*502)
	}
	for i, v := range want {
		if got[i].value != v {
			t.Errorf("entry %d: value %q, want %q", i, got[i].value, v)
		}
	}
	if k := got[501].leaf.Kind; k != event.KindStop {
		t.Errorf("entry 501 is a %s, want a stop", k)
	}
}

func TestAppendRefuses(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, quiet(s, "/d"))
	b, err := l.NewBlob()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (int64, error){
		"no leaf":             func() (int64, error) { return l.Append(nil, nil) },
		"long leaf":           func() (int64, error) { return l.Append(make([]byte, event.MaxLeaf+1), nil) },
		"value, no place":     func() (int64, error) { return l.Append(leafOf(1, 0, false), []byte("x")) },
		"blob not synced":     func() (int64, error) { return l.AppendBlob(leafOf(1, 0, true), b) },
		"blob, no commitment": func() (int64, error) { return l.AppendBlob(leafOf(1, 0, false), b) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: Append succeeded, want an error", name)
		}
	}
	b.Abort()
	if err := l.Err(); err != nil {
		t.Errorf("the log ended: %v", err)
	}
	mustAppend(t, l, 1, []byte{})
	mustClose(t, l)
	if got := checkLog(t, s, "/d"); kinds(got) != "start query stop" || !got[1].leaf.HasValue {
		t.Errorf("entries: %s", kinds(got))
	}
}

func TestBlobs(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, quiet(s, "/d"))
	big := bytes.Repeat([]byte("0123456789"), 1<<20)
	b, err := l.NewBlob()
	if err != nil {
		t.Fatal(err)
	}
	for rest := big; len(rest) > 0; {
		n := min(len(rest), 300<<10)
		if _, err := b.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	index, err := l.AppendBlob(leafOf(1, len(big), true), b)
	if err != nil {
		t.Fatal(err)
	}
	b.Abort() // too late: an entry refers to it
	if _, err := b.Write(nil); err == nil {
		t.Error("Write after the end succeeded, want an error")
	}
	inline, large := big[:MaxInline], big[:MaxInline+1] // both through Append
	mustAppend(t, l, 2, inline)
	mustAppend(t, l, 3, large)
	aborted, err := l.NewBlob()
	if err != nil {
		t.Fatal(err)
	}
	aborted.Abort()
	aborted.Abort()
	dropped, err := l.NewBlob()
	if err == nil {
		err = dropped.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	dropped.Abort() // synced, but no entry came
	if _, err := l.NewBlob(); err != nil {
		t.Fatal(err) // left over
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, quiet(s, "/d")))
	got := checkLog(t, s, "/d")
	if got[index].value != string(big) || got[index+1].value != string(inline) || got[index+2].value != string(large) {
		t.Error("values differ")
	}
	if names, err := s.List("/d/blob"); err != nil || len(names) != 2 {
		t.Errorf("blobs: %v, %v, want 2 and nothing left over", names, err)
	}
}

// TestUnfinishedBlobs takes the power away at each step of a life with values that are recorded, given up or
// not finished. The next start keeps exactly the blobs that entries refer to, and looks
// for the others at the end of the log only.
func TestUnfinishedBlobs(t *testing.T) {
	write := func(l *Ledger, sync bool) (*Blob, error) {
		b, err := l.NewBlob()
		if err == nil {
			_, err = b.Write([]byte("a value"))
		}
		if err == nil && sync {
			err = b.Sync()
		}
		return b, err
	}
	record := func(l *Ledger) error {
		b, err := write(l, true)
		if err != nil {
			return err
		}
		index, err := l.AppendBlob(leafOf(1, len("a value"), true), b)
		if err != nil {
			return err
		}
		return waitFor(l, index+1)
	}
	life := func(l *Ledger) error {
		for range 2 {
			for _, sync := range []bool{false, true} {
				b, err := write(l, sync)
				if err != nil {
					return err
				}
				b.Abort()
			}
			if err := record(l); err != nil {
				return err
			}
			if err := errors.Join(l.Rotate(), waitFor(l, l.next), l.sign(), l.sealer.sealAll(t.Context())); err != nil {
				return err
			}
			if err := record(l); err != nil {
				return err
			}
		}
		_, err1 := write(l, false) // left over
		_, err2 := write(l, true)
		return errors.Join(err1, err2)
	}
	for stop := 1; ; stop++ {
		s := faultfs.New()
		l := mustOpen(t, quiet(s, "/d"))
		count := 0
		s.Inject(func(op faultfs.Op, _ string) faultfs.Fault {
			if changes(op) {
				if count++; count >= stop {
					return faultfs.Fault{Err: faultfs.ErrCrashed, After: stop%2 == 0 && count == stop}
				}
			}
			return faultfs.Fault{}
		})
		err := life(l)
		s.Inject(nil)
		s.Stop()
		_ = l.Close()
		for seed := range uint64(4) {
			after := s.Crash(rnd(seed))
			after.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if op == faultfs.List && name == "/d/blob" || op == faultfs.Open && strings.HasSuffix(name, ".val") {
					t.Errorf("the start looks at %s", name)
				}
				return faultfs.Fault{}
			})
			l := mustOpen(t, quiet(after, "/d"))
			after.Inject(nil)
			mustClose(t, l)
			want := map[string]bool{}
			r, err := segment.OpenReaderFS(after, "/d")
			if err != nil {
				t.Fatal(err)
			}
			for e, err := range r.Entries(0, l.Durable()) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Blob != nil {
					want[fmt.Sprintf("%x.blob", e.Blob.ID)] = true
				}
			}
			names, err := after.List("/d/blob")
			for _, name := range names {
				if !want[name] {
					t.Errorf("stop at %d: no entry refers to %s", stop, name)
				}
				delete(want, name)
			}
			if err != nil || len(want) > 0 {
				t.Errorf("stop at %d: blobs %v are missing, %v", stop, want, err)
			}
			if names, err := after.List("/d/pending"); err != nil || len(names) != 0 {
				t.Errorf("stop at %d: marks %v, %v", stop, names, err)
			}
		}
		if err == nil {
			t.Logf("%d steps", stop)
			return
		}
	}
}

// TestLazy: what nobody wants becomes durable all the same.
func TestLazy(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.Lazy = 5 * time.Millisecond
	l := mustOpen(t, cfg)
	for range 3 {
		n := mustAppend(t, l, 0, nil) + 1
		for end := time.Now().Add(2 * time.Minute); l.Durable() < n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("Durable() = %d, want %d", l.Durable(), n)
			}
		}
	}
	if l.Backlog() != 0 {
		t.Errorf("Backlog() = %d, want 0", l.Backlog())
	}
	mustClose(t, l)
}

// TestTend: who attends sees to what nobody wants, and no timer does.
func TestTend(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.Lazy = 2 * time.Millisecond
	l := mustOpen(t, cfg)
	armed := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.armed
	}
	for armed() { // since the first entry
		time.Sleep(time.Millisecond)
	}
	l.Attend()
	l.Attend()
	l.Leave()
	for range 3 {
		n := mustAppend(t, l, 0, nil) + 1
		for end := time.Now().Add(2 * time.Minute); l.Durable() < n; time.Sleep(100 * time.Microsecond) {
			if ms := l.Tend(); ms != 1 && ms != 2 {
				t.Fatalf("Tend() = %d, want 1 or 2", ms)
			}
			if time.Now().After(end) {
				t.Fatalf("Durable() = %d, want %d", l.Durable(), n)
			}
		}
	}
	index := mustAppend(t, l, 0, nil)
	if armed() {
		t.Error("the timer runs although somebody attends")
	}
	l.Leave()
	for end := time.Now().Add(2 * time.Minute); l.Durable() <= index; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Durable() = %d, want %d", l.Durable(), index+1)
		}
	}
	mustClose(t, l)
}

// TestNothingWanted: nothing is written before somebody wants it.
func TestNothingWanted(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, quiet(s, "/d"))
	ops := s.Ops()
	index := mustAppend(t, l, 0, []byte("value"))
	l.Want(index - 1) // durable already
	time.Sleep(5 * time.Millisecond)
	if s.Ops() != ops || l.Durable() != 1 || l.Backlog() == 0 {
		t.Errorf("%d operations, %d durable, backlog %d: want none, 1, some", s.Ops()-ops, l.Durable(), l.Backlog())
	}
	mustWait(t, l, index+1)
	mustClose(t, l)
}

func TestKeeper(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.CheckpointEvery, cfg.HeartbeatEvery, cfg.Lazy = time.Millisecond, 3*time.Millisecond, time.Millisecond
	var mu sync.Mutex
	shift := int64(0)
	cfg.Now = func() int64 {
		mu.Lock()
		defer mu.Unlock()
		shift += int64(time.Second) // every look at the wall clock finds it a second further
		return time.Now().UnixNano() + shift
	}
	cfg.Sessions = func() int { return 42 }
	l := mustOpen(t, cfg)
	var signed checkpoint.Checkpoint
	for end := time.Now().Add(2 * time.Minute); signed.Size < 4; time.Sleep(time.Millisecond) {
		var err error
		if signed, _, err = l.lastCheckpoint(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("checkpoint over %d entries, want 4 or more", signed.Size)
		}
	}
	mustClose(t, l)
	beat := checkLog(t, s, "/d")[1].leaf
	if beat.Kind != event.KindHeartbeat || len(beat.Facts) != 2 || beat.Facts[0].Key != "clock_step" || beat.Facts[1].Val != "42" {
		t.Errorf("entry 1 is %s with facts %v, want a heartbeat with clock_step and 42 sessions", beat.Kind, beat.Facts)
	}
}

// An observer notes what it is told.
type observer struct {
	mu      sync.Mutex
	entries int
	largest int64
	batches int
}

func (o *observer) Commit(entries int, bytes int64, elapsed time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries += entries
	o.largest = max(o.largest, bytes)
	o.batches++
	if elapsed <= 0 {
		o.batches = -1 << 30
	}
}

// TestLargeBacklog: more than fits one batch becomes several.
func TestLargeBacklog(t *testing.T) {
	s := faultfs.New()
	var o observer
	cfg := quiet(s, "/d")
	cfg.Observer = &o
	l := mustOpen(t, cfg)
	value := bytes.Repeat([]byte("x"), MaxInline)
	var last int64
	for i := range 100 {
		last = mustAppend(t, l, i, value)
	}
	mustWait(t, l, last+1)
	mustClose(t, l)
	if o.entries != 102 || o.largest > journal.MaxBody || o.largest < journal.MaxBody/2 || o.batches < 5 {
		t.Errorf("%d entries in %d batches of up to %d bytes, want 102 in 5 or more of up to %d", o.entries, o.batches, o.largest, journal.MaxBody)
	}
	checkLog(t, s, "/d")
}

// TestTiles makes tiles of level 1 full, loses them, and opens the log.
func TestTiles(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, quiet(s, "/d"))
	for i := range 65536 + 10 {
		mustAppend(t, l, i, nil)
	}
	mustClose(t, l)
	checkLog(t, s, "/d")
	for _, c := range []string{"gone", "short", "altered"} {
		name := "/d/tile/1/000"
		b, err := durable.ReadFile(s, name, 8192)
		if err != nil {
			t.Fatal(err)
		}
		switch c {
		case "gone":
			err = s.Remove(name)
		case "short":
			err = durable.WriteFile(s, name, b[:4096], 0o600)
		case "altered":
			b[9] ^= 1
			err = durable.WriteFile(s, name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, mustOpen(t, quiet(s, "/d")))
		checkLog(t, s, "/d")
	}
}
