package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// TestStart looks at what a start records of itself.
func TestStart(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.StartFacts = []event.Fact{{Key: "durability", Val: "async"}}
	l := mustOpen(t, cfg)
	if l.Durable() != 1 || l.Origin() != cfg.Origin || l.Dir() != "/d" || l.VKey() == "" {
		t.Errorf("new log: %d durable, origin %s, dir %s, vkey %q", l.Durable(), l.Origin(), l.Dir(), l.VKey())
	}
	c, _, err := l.lastCheckpoint()
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
		{"checkpoint gone", func(t *testing.T, s *faultfs.FS) { remove(t, s, "/d/checkpoint") }, "checkpoint is missing"},
		{"checkpoint and journal gone", func(t *testing.T, s *faultfs.FS) {
			remove(t, s, "/d/checkpoint")
			remove(t, s, last)
			remove(t, s, "/d/journal/"+journal.FileName(0))
		}, "checkpoint is missing"},
		{"checkpoint altered", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, "/d/checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("\n302\n"), []byte("\n301\n"), 1) })
		}, "has been altered"},
		{"journal cut at a batch", func(t *testing.T, s *faultfs.FS) {
			edit(t, s, last, func(b []byte) []byte { return b[:bytes.LastIndex(b, b[104:112])] })
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
		{"all gone but the checkpoint", func(t *testing.T, s *faultfs.FS) {
			remove(t, s, "/d/log.json")
			remove(t, s, last)
			remove(t, s, "/d/journal/"+journal.FileName(0))
		}, "checkpoint is of a log that is gone"},
		{"all gone but what witnesses cosigned", func(t *testing.T, s *faultfs.FS) {
			b, err := durable.ReadFile(s, "/d/checkpoint", 1<<20)
			if err == nil {
				err = durable.WriteFile(s, "/d/witnessed", b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			remove(t, s, "/d/checkpoint")
			remove(t, s, "/d/log.json")
			remove(t, s, last)
			remove(t, s, "/d/journal/"+journal.FileName(0))
		}, "witnessed is of a log that is gone"},
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
			if tt.want == "" && tt.name == "nothing" || err == nil || !strings.Contains(err.Error(), tt.want) {
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

// TestOpenRefusesToBeginAnew takes the journal of a sealed log away and puts back the checkpoint it was
// founded with, or a journal that was begun anew: the segments tell, and stay.
func TestOpenRefusesToBeginAnew(t *testing.T) {
	s := faultfs.New()
	cfg := quiet(s, "/d")
	cfg.Rand = &countingReader{}
	l := mustOpen(t, cfg)
	for range 3 {
		mustAppend(t, l, 1, []byte("value"))
		if err := l.Rotate(); err != nil {
			t.Fatal(err)
		}
		mustWait(t, l, l.next)
		if err := l.SealNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)
	sealed, err := segment.List(s, "/d")
	if err != nil || len(sealed) != 3 {
		t.Fatalf("segments %v (%v), want 3", sealed, err)
	}

	names, err := s.List("/d/journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		remove(t, s, "/d/journal/"+name)
	}
	key, err := durable.ReadFile(s, "/d/key", 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := checkpoint.NewSigner(strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	founded, err := checkpoint.Sign(signer, "test.example/log", 0, sha256.Sum256(nil))
	if err == nil {
		err = durable.WriteFile(s, "/d/checkpoint", founded, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := func(want string) {
		t.Helper()
		if _, err := Open(quiet(s, "/d")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want an error with %q", err, want)
		}
		if now, err := segment.List(s, "/d"); err != nil || !slices.Equal(now, sealed) {
			t.Errorf("segments %v (%v) after a refused start, want %v", now, err, sealed)
		}
	}
	refused("the journal is gone")
	refused("the journal is gone") // the first did not begin one

	opt := journal.Options{
		FS: s, Dir: "/d/journal", LogID: sha256.Sum256([]byte("test.example/log")), SegmentSize: 1 << 20, SegmentAge: time.Hour, Room: 8 << 10,
	}
	w, err := journal.Create(opt, 1)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	refused("does not continue the last segment")
}
