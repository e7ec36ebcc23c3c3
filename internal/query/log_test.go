package query

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A writer writes a real log.
type writer struct {
	*ledger.Ledger
	t   testing.TB
	now int64
}

func openWriter(t testing.TB, dir string, cfg ledger.Config) *writer {
	t.Helper()
	cfg.Dir = dir
	l, err := ledger.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &writer{Ledger: l, t: t, now: fakeStart}
}

func (w *writer) emit(l event.Leaf, value []byte) int64 {
	w.t.Helper()
	if l.Time == 0 {
		w.now += 1e6
		l.Time = w.now
	}
	l.HasValue, l.Size = value != nil, int64(len(value))
	i, err := w.Emit(&l, value)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

// statement emits a query and its outcome.
func (w *writer) statement(text string) int64 {
	i := w.emit(event.Leaf{Session: 1, Kind: event.KindQuery, Who: alice}, queryMsg(text))
	w.emit(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: event.Ref(i), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1, Micros: 5}, nil)
	return i
}

func (w *writer) close() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func openLog(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func texts(t testing.TB, l *Log, f Filter) (out []string) {
	t.Helper()
	if err := l.Search(context.Background(), f, func(s *Statement) error {
		if s.HasText {
			out = append(out, s.Text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is not a data directory") {
		t.Errorf("Open of an empty directory: %v, want an error that says so", err)
	}
	for _, s := range []string{"", "{}", `{"format":2}`} {
		if err := os.WriteFile(filepath.Join(dir, "log.json"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("Open with log.json %q succeeded, want an error", s)
		}
	}
}

func TestSearchRealLog(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{Origin: "test.example/log"})
	w.statement("SELECT 1")
	large := "SELECT '" + strings.Repeat("x", 300<<10) + "'"
	i := w.statement(large)
	alone := w.emit(event.Leaf{Session: 1, Kind: event.KindSettle, SQLState: "26000", Tx: 'I'}, errorFrame("26000", "no such"))
	w.close()
	l := openLog(t, dir)
	if l.Origin() != "test.example/log" || l.VKey() != w.VKey() || l.Created().IsZero() {
		t.Errorf("Origin, VKey, Created = %q, %q, %v", l.Origin(), l.VKey(), l.Created())
	}
	if d := cmp.Diff([]string{"SELECT 1", large}, texts(t, l, Filter{})); d != "" {
		t.Errorf("Search differs (-want +got):\n%s", d)
	}
	s, err := l.Statement(context.Background(), i+1)
	if err != nil || s.Index != i || s.Text != large || s.Outcome == nil || s.Outcome.Index != i+1 {
		t.Errorf("Statement(outcome) = %+v, %v", s, err)
	}
	if s, err = l.Statement(context.Background(), alone); err != nil || s.Index != alone || s.Error == nil || s.Error.Message != "no such" {
		t.Errorf("Statement(settlement of none) = %+v, %v", s, err)
	}
	if _, err := l.Entry(1 << 40); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Entry beyond the end: %v, want fs.ErrNotExist", err)
	}
	if got := texts(t, l, Filter{Since: time.Unix(0, fakeStart+2e6), Until: time.Unix(0, fakeStart+3e6)}); len(got) != 1 || got[0] != large {
		t.Errorf("Search by time found %d statements, want the second", len(got))
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) == 0 {
		t.Error("the data directory is empty")
	}
}

// TestCatchUp looks for a statement as soon as it is durable for its writer. The
// clock stands still while the disk works, so that a slow one cannot use up the wait.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := openWriter(t, dir, ledger.Config{Origin: "test.example/log"})
		defer w.close()
		for i := range 3 {
			text := fmt.Sprintf("SELECT %d", i)
			outcome := w.statement(text) + 1
			for w.Want(outcome); w.Durable() <= outcome; {
				time.Sleep(time.Millisecond)
			}
			l := openLog(t, dir)
			if err := l.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := texts(t, l, Filter{Text: text}); len(got) != 1 {
				t.Errorf("search for %q found %d statements, want it", text, len(got))
			}
		}
	})
}

// TestCatchUpTo holds that entries before the last one need not wait for what says that that one is durable.
func TestCatchUpTo(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: time.Hour})
	defer w.close()
	var last int64
	for range 2 {
		last = w.emit(event.Leaf{Kind: event.KindNotice}, nil)
		for w.Want(last); w.Durable() <= last; {
			time.Sleep(time.Millisecond)
		}
	}
	l := openLog(t, dir)
	if err := l.CatchUpTo(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if size, err := l.Size(); err != nil || size < last {
		t.Errorf("size %d, %v, want %d, although no checkpoint came", size, err, last)
	}
}

func TestSeek(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{SegmentSize: 32 << 10, Now: func() int64 { return fakeStart }})
	const step = 10e9
	for i := range 2000 {
		w.emit(event.Leaf{Time: fakeStart + int64(i)*step, Kind: event.KindHeartbeat}, nil)
	}
	w.close()
	l := openLog(t, dir)
	from, err := l.seek(time.Unix(0, fakeStart+1500*step))
	if err != nil {
		t.Fatal(err)
	}
	// One minute of slack is six entries.
	if first := from - 1; first < 1490 || first > 1496 {
		t.Errorf("seek(entry 1500's time) = %d, want about 1495", first)
	}
}

// TestTiles compares all tiles and bundles of a log of several journal files
// with a tree made of its leaves.
func TestTiles(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{SegmentSize: 8 << 20})
	var last int64
	for range 70_000 {
		last = w.emit(event.Leaf{Kind: event.KindHeartbeat}, nil)
		if last%8192 == 0 {
			w.Want(last)
		}
	}
	w.close()
	l := openLog(t, dir)
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	var want [3][]byte
	b := tree.New()
	b.OnFull = func(level int, n int64, tile []byte) {
		if level < len(want) {
			want[level] = append(want[level], tile...)
		}
	}
	for e, err := range l.Entries(0, size) {
		if err != nil {
			t.Fatal(err)
		}
		h := tree.LeafHash(e.Leaf)
		want[0] = append(want[0], h[:]...)
		b.Append(h)
	}
	for i, tile := range b.Tiles() {
		for _, h := range tile {
			want[i+1] = append(want[i+1], h[:]...)
		}
	}
	check := func(t *testing.T) {
		for level := range want {
			for n := int64(0); n*tree.Width*32 < int64(len(want[level])); n++ {
				rest := want[level][n*tree.Width*32:]
				full := min(tree.Width, len(rest)/32)
				for _, width := range []int{1, full/2 + 1, full} {
					got, err := l.Tile(level, n, width)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, rest[:width*32]) {
						t.Errorf("Tile(%d, %d, %d) differs", level, n, width)
					}
				}
			}
		}
		root, err := tree.RootAt(l, size)
		if err != nil || root != b.Root() {
			t.Errorf("RootAt = %x, %v, want %x", root, err, b.Root())
		}
	}
	t.Run("with tile files", check)
	if err := os.RemoveAll(filepath.Join(dir, "tile")); err != nil {
		t.Fatal(err)
	}
	t.Run("without", check)

	if _, err := l.Tile(1, 1<<40, 1); err == nil {
		t.Error("Tile beyond the end succeeded, want an error")
	}
	for _, bad := range [][3]int64{{-1, 0, 1}, {8, 0, 1}, {7, 1 << 60, 1}, {0, -1, 1}, {0, 0, 0}, {0, 0, 257}} {
		if _, err := l.Tile(int(bad[0]), bad[1], int(bad[2])); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Tile(%d, %d, %d) = %v, want fs.ErrNotExist", bad[0], bad[1], bad[2], err)
		}
	}
	bundle, err := l.Bundle(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := int64(512); i < 515; i++ {
		e, err := l.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		n := binary.BigEndian.Uint16(bundle)
		if !bytes.Equal(bundle[2:2+n], e.Leaf) {
			t.Errorf("Bundle: leaf %d is %s, want %s", i, bundle[2:2+n], e.Leaf)
		}
		bundle = bundle[2+n:]
	}
	if len(bundle) > 0 {
		t.Errorf("Bundle has %d bytes too many", len(bundle))
	}
	if _, err := l.Bundle(size/tree.Width, tree.Width); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Bundle beyond the end: %v, want fs.ErrNotExist", err)
	}
}

// TestTail follows a log that another handle writes. A slow statement holds up the others no longer than it is
// waited for, and those selected by their outcome not at all.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 50 * time.Millisecond})
	w.statement("before")
	start := openLog(t, dir)
	from := w.emit(event.Leaf{Session: 2, Kind: event.KindQuery, Who: alice}, queryMsg("slow"))

	type shown struct {
		text  string
		ended bool
	}
	follow := func(hold time.Duration, f Filter) (<-chan shown, func()) {
		ctx, cancel := context.WithCancel(context.Background())
		out, done := make(chan shown, 16), make(chan struct{})
		go func() {
			defer close(done)
			if err := start.follow(ctx, &tail{hold: hold, fn: func(s *Statement, _ int64) error {
				if s != nil {
					out <- shown{s.Text, s.Outcome != nil}
				}
				return nil
			}}, from, f); err != nil {
				t.Error(err)
			}
		}()
		return out, func() { cancel(); <-done }
	}
	all, stopAll := follow(2*time.Second, Filter{Kinds: []string{"query"}})
	ended, stopEnded := follow(time.Hour, Filter{MinDuration: time.Microsecond})
	defer stopAll()
	defer stopEnded()
	w.statement("quick")
	next := func(c <-chan shown, text string, hasEnd bool) {
		t.Helper()
		select {
		case s := <-c:
			if s.text != text || s.ended != hasEnd {
				t.Errorf("tail shows %q, ended %v, want %q, %v", s.text, s.ended, text, hasEnd)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("no %q", text)
		}
	}
	next(ended, "quick", true) // by outcome, the slow one holds nothing back
	next(all, "slow", false)
	next(all, "quick", true)
	w.emit(event.Leaf{Session: 2, Kind: event.KindOutcome, Of: event.Ref(from), Tx: 'I', Committed: 1, Micros: 5}, nil)
	next(ended, "slow", true)
	w.statement("last")
	next(all, "last", true) // and the slow one not again
	w.close()
}

func TestTailEnds(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{})
	for i := range 5 {
		w.statement(fmt.Sprint("SELECT ", i))
	}
	w.close()
	l := openLog(t, dir)
	var got []string
	collect := func(s *Statement) error {
		got = append(got, s.Text)
		return nil
	}
	if err := l.Tail(context.Background(), 0, Filter{Text: "SELECT", Limit: 2}, collect); err != nil || len(got) != 2 {
		t.Errorf("Tail with a limit of 2 gave %q, %v", got, err)
	}
	got = nil
	if err := l.Tail(context.Background(), 0, Filter{Kinds: []string{"query"}, Until: time.Unix(0, fakeStart+5e6)}, collect); err != nil || len(got) != 3 {
		t.Errorf("Tail up to the third gave %q, %v", got, err)
	}
	got = nil
	if err := l.Tail(context.Background(), 0, Filter{Kinds: []string{"query"}, End: 5}, collect); err != nil || len(got) == 0 || len(got) == 5 {
		t.Errorf("Tail up to an entry gave %q, %v", got, err)
	}
	stop := errors.New("stop")
	if err := l.Tail(context.Background(), 0, Filter{}, func(*Statement) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Tail = %v, want the callback's error", err)
	}
}

// TestClockSetBack searches by time in a log whose clock was set back by an hour.
func TestClockSetBack(t *testing.T) {
	const n, back = 3 * enoughLate, int64(time.Hour)
	step := back / n
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{Origin: "test/clock", CheckpointEvery: time.Hour})
	var times []int64
	for i := range int64(2 * n) {
		at := fakeStart + i*step
		if i >= n {
			at -= back / 2
		}
		w.emit(event.Leaf{Time: at, Kind: event.KindNotice}, nil)
		times = append(times, at)
	}
	w.close()
	l := openLog(t, dir)
	for at := fakeStart + back*5/8; at < fakeStart+back*3/2; at += back / 4 {
		for _, f := range []Filter{
			{All: true, Kinds: []string{"notice"}, Since: time.Unix(0, at)},
			{All: true, Kinds: []string{"notice"}, Until: time.Unix(0, at)},
		} {
			want, got, back := 0, 0, 0
			for _, tm := range times {
				if f.Until.IsZero() && tm >= at || f.Since.IsZero() && tm <= at {
					want++
				}
			}
			count := func(n *int) func(*Statement) error { return func(*Statement) error { *n++; return nil } }
			if err := errors.Join(l.Search(t.Context(), f, count(&got)), l.SearchBack(t.Context(), f, count(&back))); err != nil {
				t.Fatal(err)
			}
			if got != want || back != want {
				t.Errorf("since %v until %v: %d statements, %d backwards, want %d", f.Since, f.Until, got, back, want)
			}
		}
	}
}
