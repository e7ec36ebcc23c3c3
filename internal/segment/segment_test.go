package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// build writes a log of n statements with the ledger, sealed as far as it goes
// after each 600, and returns its directory and its leaves and values.
func build(t testing.TB, n int) (dir string, leaves, values [][]byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/1", Lazy: time.Millisecond, CheckpointEvery: time.Hour, SegmentAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var parse int64
	for i := range n {
		leaf := event.Leaf{Time: int64(i), Session: 1, Seq: uint64(i + 1), Kind: event.KindExecute}
		value := fmt.Appendf(nil, "value %d", i)
		switch {
		case i == 3:
			value = []byte("the text of a long-lived statement")
		case i%10 == 9:
			value = nil
		case i == 444:
			value = bytes.Repeat([]byte("large "), ledger.MaxInline/6+1)
		case i == 500:
			value = []byte{}
		case i > 3 && i%50 == 0:
			leaf.Parse = event.Ref(parse)
		}
		leaf.HasValue, leaf.Size = value != nil, int64(len(value))
		index, err := l.Append(leaf.Append(nil), value)
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			parse = index
		}
		if i%600 == 599 {
			if err := l.Rotate(); err != nil {
				t.Fatal(err)
			}
			wait(t, l)
			if err := l.SealNow(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := segment.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.Entries(0, 1<<40) {
		if err != nil {
			t.Fatal(err)
		}
		leaves, values = append(leaves, bytes.Clone(e.Leaf)), append(values, bytes.Clone(e.Value))
	}
	return dir, leaves, values
}

func wait(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	i, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Want(i)
	for end := time.Now().Add(2 * time.Minute); l.Durable() <= i; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("entry %d did not become durable", i)
		}
	}
}

// TestReader reads every entry of a log of segments and a journal, in order,
// one by one, and across the borders.
func TestReader(t *testing.T) {
	dir, leaves, values := build(t, 1500)
	if n := len(leaves); n < 1500 {
		t.Fatalf("%d entries, want 1500 and more", n)
	}
	segs, err := segment.List(durable.OS, dir)
	if err != nil || len(segs) != 2 {
		t.Fatalf("segments %v, %v, want two", segs, err)
	}
	r, err := segment.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for i := range leaves {
		e, err := r.Entry(int64(i))
		if err != nil || !bytes.Equal(e.Leaf, leaves[i]) || !bytes.Equal(e.Value, values[i]) {
			t.Fatalf("Entry(%d) = %s, %v, want %s", i, e.Leaf, err, leaves[i])
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil || leaf.HasValue != e.HasValue || (e.Value == nil) != (e.Blob != nil || !e.HasValue) {
			t.Fatalf("entry %d: %v, value %v", i, err, e.HasValue)
		}
		found[string(e.Value)] = true
		if i%97 == 0 {
			n := 0
			for e, err := range r.Leaves(int64(i), int64(i+300)) {
				if err != nil || e.Index != int64(i+n) || !bytes.Equal(e.Leaf, leaves[e.Index]) {
					t.Fatalf("entry %d of Leaves from %d: %d, %v", n, i, e.Index, err)
				}
				n++
			}
			if want := min(300, len(leaves)-i); n != want {
				t.Fatalf("Leaves from %d: %d entries, want %d", i, n, want)
			}
		}
	}
	for _, want := range []string{"value 0", "value 1498", "the text of a long-lived statement", ""} {
		if !found[want] {
			t.Errorf("value %q is not in the log", want)
		}
	}
	if _, err := r.Entry(int64(len(leaves))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Entry behind the last = %v, want ErrNotExist", err)
	}
	// The second segment goes back to the statement in the first.
	for i := range values {
		if strings.HasPrefix(string(values[i]), "the text") {
			c, err := r.Copy(int64(i))
			if err != nil || !bytes.Equal(c.Leaf, leaves[i]) || !bytes.Equal(c.Value, values[i]) {
				t.Errorf("Copy(%d) = %q, %v", i, c.Value, err)
			}
		}
	}
	if _, err := r.Copy(7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Copy of what nobody goes back to = %v, want ErrNotExist", err)
	}
}

// TestZstd: the standard tool prints the bundles and finds the file whole.
func TestZstd(t *testing.T) {
	dir, leaves, _ := build(t, 1300)
	for _, first := range []int64{0} {
		name := segment.LeafFile(dir, first)
		out, err := exec.CommandContext(t.Context(), "zstd", "-dc", name).Output()
		if err != nil {
			t.Fatalf("zstd -dc: %v", err)
		}
		var want []byte
		h, err := segment.ReadHeader(durable.OS, dir, first)
		if err != nil {
			t.Fatal(err)
		}
		for _, leaf := range leaves[first : first+h.Count] {
			want = append(binary.BigEndian.AppendUint16(want, uint16(len(leaf))), leaf...)
		}
		if !bytes.Equal(out, want) {
			t.Errorf("zstd -dc %s prints %d bytes, want the %d of the bundles", name, len(out), len(want))
		}
		for _, name := range []string{name, segment.ValueFile(dir, first)} {
			if out, err := exec.CommandContext(t.Context(), "zstd", "-t", name).CombinedOutput(); err != nil {
				t.Errorf("zstd -t %s: %v: %s", name, err, out)
			}
		}
	}
}

// TestWhileSealed reads a log to its end while it is written and sealed.
func TestWhileSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/1", Lazy: time.Millisecond, CheckpointEvery: time.Millisecond, SegmentSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	r, err := segment.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			value := fmt.Appendf(nil, "value %d %s", i, strings.Repeat("x", i%500))
			if _, err := l.Append((&event.Leaf{Time: int64(i), Kind: event.KindQuery, HasValue: true, Size: int64(len(value))}).Append(nil), value); err != nil {
				t.Error(err)
				return
			}
			if i%20 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	var next int64
	sealed := map[int64]bool{}
	for end := time.Now().Add(5 * time.Minute); (len(sealed) < 5 || next < 20_000) && time.Now().Before(end); {
		size, err := r.Size()
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range r.Entries(next, size) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Index != next {
				t.Fatalf("entry %d, want %d", e.Index, next)
			}
			next++
			if next%1000 == 0 { // far back
				if e, err := r.Entry(next / 2); err != nil || e.Index != next/2 {
					t.Fatalf("Entry(%d) = %d, %v", next/2, e.Index, err)
				}
			}
		}
		segs, err := segment.List(durable.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range segs {
			sealed[s] = true
		}
	}
	cancel()
	<-done
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(sealed) < 2 || next < 1000 {
		t.Errorf("%d segments and %d entries were seen: the test is worth nothing", len(sealed), next)
	}
}

// damage is a change to a sealed file.
func TestDamage(t *testing.T) {
	dir, _, _ := build(t, 700)
	r, err := segment.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{segment.LeafFile(dir, 0), segment.ValueFile(dir, 0)} {
		good, err := durable.ReadFile(durable.OS, name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if err := durable.OS.Unprotect(name); err != nil {
			t.Fatal(err)
		}
		for i := 0; i <= len(good); i += 1 + len(good)/200 {
			bad := bytes.Clone(good[:i])
			if i%2 == 0 && i < len(good) {
				bad = bytes.Clone(good)
				bad[i] ^= 0x55
			}
			if err := durable.WriteFile(durable.OS, name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			n := 0
			var failed error
			for _, err := range r.Entries(0, 512) {
				if failed = err; err != nil {
					break
				}
				n++
			}
			_, cerr := r.Copy(3)
			if len(bad) < len(good) && failed == nil && !errors.As(cerr, new(*segment.DamagedError)) {
				t.Errorf("%s cut at %d: %d entries and no error", filepath.Base(name), i, n)
			}
		}
		if err := durable.WriteFile(durable.OS, name, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
