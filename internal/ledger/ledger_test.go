package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// quiet is a configuration in which nothing happens by itself.
func quiet(fsys durable.FS, dir string) Config {
	return Config{
		Dir: dir, FS: fsys, Origin: "test.example/log", Version: "test",
		Lazy: time.Hour, CheckpointEvery: time.Hour, HeartbeatEvery: time.Hour, room: 8 << 10,
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
	for end := time.Now().Add(20 * time.Second); l.Durable() < n; time.Sleep(20 * time.Microsecond) {
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
	r, err := journal.OpenReaderFS(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	signed := checkpoint.Checkpoint{}
	if b, err := durable.ReadFile(fsys, filepath.Join(dir, "checkpoint"), 1<<20); err == nil {
		info, err := durable.ReadFile(fsys, filepath.Join(dir, "log.json"), 1<<20)
		if err != nil {
			t.Fatal(err)
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

// TestStart looks at what a start records of itself.
func TestStart(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.StartFacts = []event.Fact{{Key: "durability", Val: "async"}}
	l := mustOpen(t, cfg)
	if l.Durable() != 1 || l.Origin() != cfg.Origin || l.Dir() != "/d" || l.VKey() == "" {
		t.Errorf("new log: %d durable, origin %s, dir %s, vkey %q", l.Durable(), l.Origin(), l.Dir(), l.VKey())
	}
	c, err := l.lastCheckpoint()
	if err != nil || c.Size != 1 {
		t.Errorf("checkpoint after Open is over %d entries, %v, want 1", c.Size, err)
	}
	mustAppend(t, l, 0, []byte("lost"))
	s.Stop()
	s2 := s.Crash(rnd(1))
	if err := l.Close(); err == nil {
		t.Error("Close on a dead disk succeeded, want an error")
	}
	cfg.FS = s2
	mustClose(t, mustOpen(t, cfg))
	got := checkLog(t, s2, "/d")
	if k := kinds(got); k != "start recover start stop" {
		t.Fatalf("entries: %s, want start recover start stop", k)
	}
	info, err := durable.ReadFile(s2, "/d/log.json", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		fmt.Sprintf("[{version test} {log_json %x} {durability async}]", sha256.Sum256(info)),
		"[{reason the process did not stop in order} {cut_bytes 0} {last_index 0}]",
		"[{version test} {durability async}]", "[]",
	} {
		if facts := fmt.Sprint(got[i].leaf.Facts); facts != want {
			t.Errorf("facts of entry %d = %s, want %s", i, facts, want)
		}
	}
}

// TestOpenRefuses changes one thing in the directory of a log of 300 entries.
func TestOpenRefuses(t *testing.T) {
	build := func(n int) *faultfs.FS {
		s := faultfs.New()
		cfg := quiet(s, "/d")
		cfg.SegmentSize = 20 << 10
		cfg.Rand = &countingReader{}
		cfg.Now = func() int64 { return 1 }
		l := mustOpen(t, cfg)
		for i := range n {
			mustAppend(t, l, i, []byte("value"))
			mustWait(t, l, int64(i+2))
		}
		mustClose(t, l)
		return s
	}
	base, other := build(300), build(299)
	edit := func(t *testing.T, s *faultfs.FS, name string, f func([]byte) []byte) {
		t.Helper()
		b, err := durable.ReadFile(s, name, 1<<30)
		if err == nil {
			err = durable.WriteFile(s, name, f(bytes.Clone(b)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	last := "/d/journal/" + journal.FileName(256)
	for _, tt := range []struct {
		name string
		edit func(t *testing.T, s *faultfs.FS)
		want string // part of the error; "" for none
	}{
		{"nothing", func(*testing.T, *faultfs.FS) {}, ""},
		{"checkpoint gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, "/d/checkpoint") }, ""},
		{"checkpoint altered", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, "/d/checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("\n302\n"), []byte("\n301\n"), 1) })
		}, "has been altered"},
		{"journal cut at a batch", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, last, func(b []byte) []byte { return b[:bytes.LastIndex(b, []byte("pgnb"))] })
		}, "entries were lost: it is over 302, the journal has 301"},
		{"journal cut within a batch", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, last, func(b []byte) []byte { return b[:len(b)-10] })
		}, ""}, // see below: refused, by one rule or the other
		{"last journal file gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, last) }, "entries were lost: it is over 302, the journal has 256"},
		{"journal gone", func(t *testing.T, s *faultfs.FS) {
			remove(t, s, last)
			remove(t, s, "/d/journal/"+journal.FileName(0))
		}, "the journal is gone"},
		{"first journal file gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, "/d/journal/"+journal.FileName(0)) }, "the file is missing"},
		{"journal of another history", func(t *testing.T, s *faultfs.FS) {
			// The same key signed another tree: its last entry is a stop, this one's is not.
			b, err := durable.ReadFile(other.Crash(rnd(1)), "/d/checkpoint", 1<<20)
			if err == nil {
				err = durable.WriteFile(s, "/d/checkpoint", b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "entries were changed: at 301 entries the root is"},
		{"log.json gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, "/d/log.json") }, "put the file back"},
		{"log.json of another form", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, "/d/log.json", func(b []byte) []byte { return append(b, ' ') })
		}, "log.json is damaged"},
		{"log.json of another format", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, "/d/log.json", func(b []byte) []byte { return bytes.Replace(b, []byte(":1,"), []byte(":2,"), 1) })
		}, "format 2 is not known"},
		{"log.json of another origin", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, "/d/log.json", func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"origin":"test.`), []byte(`"origin":"fest.`), 1)
			})
		}, "keeps its origin"},
		{"key gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, "/d/key") }, "private key"},
		{"key of another log", func(t *testing.T, s *faultfs.FS) {
			skey, _, err := checkpoint.GenerateKey(&countingReader{n: 77}, "test.example/log")
			if err != nil {
				t.Fatal(err)
			}
			edit(t, s, "/d/key", func([]byte) []byte { return []byte(skey + "\n") })
		}, "is not that of the log"},
		{"a bit of the journal", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, last, func(b []byte) []byte { b[len(b)-9] ^= 1; return b })
		}, "journal is damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := base.Crash(rnd(1)) // a copy
			tt.edit(t, s)
			cfg := quiet(s, "/d")
			cfg.SegmentSize = 20 << 10
			l, err := Open(cfg)
			if err == nil && tt.want == "" && tt.name != "journal cut within a batch" {
				mustClose(t, l)
				checkLog(t, s, "/d")
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, want an error with %q", err, tt.want)
			}
			if locked, _ := s.Locked("/d/LOCK"); locked {
				t.Error("the lock is held after a refused Open")
			}
		})
	}
}

func remove(t *testing.T, s *faultfs.FS, name string) {
	t.Helper()
	if err := s.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// A countingReader is randomness one can repeat.
type countingReader struct{ n uint64 }

func (c *countingReader) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		sum := sha256.Sum256(fmt.Append(nil, c.n))
		p[i] = sum[0]
	}
	return len(p), nil
}

func TestSecondWriter(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, quiet(durable.OS, dir))
	if _, err := Open(quiet(durable.OS, dir)); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, quiet(durable.OS, dir)))
}

func TestOtherOrigin(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.Origin = ""
	l := mustOpen(t, cfg)
	if !strings.HasPrefix(l.Origin(), "pgnotary/") {
		t.Errorf("default origin is %q, want pgnotary/…", l.Origin())
	}
	mustClose(t, l)
	cfg.Origin = "another"
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "keeps its origin") {
		t.Errorf("Open with another origin = %v, want an error", err)
	}
}

// TestKeyThatIsThere: a key made beforehand gives a new log its name.
func TestKeyThatIsThere(t *testing.T) {
	s := faultfs.New()
	skey, vkey, err := checkpoint.GenerateKey(&countingReader{}, "made.before/1")
	if err == nil {
		err = errors.Join(durable.MkdirAll(s, "/d", 0o700), durable.WriteFile(s, "/d/key", []byte(skey+"\n"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg := quiet(s, "/d")
	cfg.Origin = ""
	l := mustOpen(t, cfg)
	if l.Origin() != "made.before/1" || l.VKey() != vkey {
		t.Errorf("origin %s, vkey %s, want those of the key", l.Origin(), l.VKey())
	}
	mustClose(t, l)
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

// TestLazy: what nobody wants becomes durable all the same.
func TestLazy(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.Lazy = 5 * time.Millisecond
	l := mustOpen(t, cfg)
	for range 3 {
		n := mustAppend(t, l, 0, nil) + 1
		for end := time.Now().Add(10 * time.Second); l.Durable() < n; time.Sleep(time.Millisecond) {
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
	for end := time.Now().Add(10 * time.Second); signed.Size < 4; time.Sleep(time.Millisecond) {
		var err error
		if signed, err = l.lastCheckpoint(); err != nil {
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

// TestFailure: a failed write or sync ends recording for good and tells why.
func TestFailure(t *testing.T) {
	for _, tt := range []struct {
		name string
		op   faultfs.Op
		file string
		err  error
		do   func(l *Ledger) error
	}{
		{"sync of a batch", faultfs.Datasync, ".journal", syscall.EIO, nil},
		{"direct write of a batch", faultfs.Write, ".journal", syscall.EIO, nil},
		{"write of a batch", faultfs.Write, ".journal", syscall.ENOSPC, nil},
		{"checkpoint", faultfs.Rename, "checkpoint", syscall.EROFS, (*Ledger).sign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := faultfs.New()
			s.SetDirect(strings.Contains(tt.name, "direct"))
			l := mustOpen(t, quiet(s, "/d"))
			told := make(chan error, 10)
			l.Subscribe(func(_ int64, err error) {
				if err != nil {
					told <- err
				}
			})
			before := mustAppend(t, l, 0, nil)
			mustWait(t, l, before+1)
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if op == tt.op && strings.HasSuffix(name, tt.file) {
					return faultfs.Fault{Err: tt.err}
				}
				return faultfs.Fault{}
			})
			index := mustAppend(t, l, 1, nil)
			if tt.do == nil {
				l.Want(index)
			} else {
				if err := tt.do(l); err == nil {
					t.Fatal("the fault was not reported")
				} else {
					l.fail(err)
				}
			}
			select {
			case err := <-told:
				if !errors.Is(err, tt.err) {
					t.Errorf("subscriber was told %v, want %v", err, tt.err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the subscriber was not told")
			}
			s.Inject(nil) // the disk is well again: too late
			if _, err := l.Append(leafOf(1, 0, false), nil); !errors.Is(err, tt.err) {
				t.Errorf("Append = %v, want %v", err, tt.err)
			}
			if _, err := l.NewBlob(); !errors.Is(err, tt.err) {
				t.Errorf("NewBlob = %v, want %v", err, tt.err)
			}
			if l.Durable() != index {
				t.Errorf("Durable() = %d, want %d", l.Durable(), index)
			}
			if err := l.Close(); !errors.Is(err, tt.err) {
				t.Errorf("Close = %v, want %v", err, tt.err)
			}
			if len(told) != 0 {
				t.Errorf("the subscriber was told again: %v", <-told)
			}
			mustClose(t, mustOpen(t, quiet(s, "/d")))
			if k := kinds(checkLog(t, s, "/d")); !strings.Contains(k, "recover start stop") {
				t.Errorf("entries: %s, want a recovery", k)
			}
		})
	}
}

// TestFullDisk fills the disk and makes room again.
func TestFullDisk(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.room = 0
	l := mustOpen(t, cfg)
	s.SetSpace(200 << 10)
	var err error
	n := 0
	for ; err == nil; n++ {
		var index int64
		if index, err = l.Append(leafOf(n, 100<<10, true), make([]byte, 100<<10)); err == nil {
			err = waitFor(l, index+1)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || n < 5 {
		t.Errorf("after %d entries: %v, want ENOSPC after 5 or more", n, err)
	}
	if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close = %v, want ENOSPC", err)
	}
	s.SetSpace(-1)
	mustClose(t, mustOpen(t, quiet(s, "/d")))
	if got := checkLog(t, s, "/d"); len(got) < n {
		t.Errorf("%d entries, want at least %d", len(got), n)
	}
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

func TestRandomnessFails(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	mustClose(t, mustOpen(t, cfg))
	cfg.Rand = io.LimitReader(&countingReader{}, 20)
	l := mustOpen(t, cfg)
	if _, err := l.NewBlob(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("NewBlob without randomness = %v, want an error", err)
	}
	var err error
	for i := 0; err == nil && i < 300; i++ {
		_, err = l.Append(leafOf(i, 1, true), []byte("x"))
	}
	if werr := waitFor(l, 300); !errors.Is(werr, io.EOF) && !errors.Is(werr, io.ErrUnexpectedEOF) {
		t.Errorf("commit without randomness: %v, want an error", werr)
	}
	if err := l.Close(); err == nil {
		t.Error("Close = nil, want the error")
	}
}
