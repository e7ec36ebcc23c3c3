package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

func leafOf(i int, value bool) []byte {
	return (&event.Leaf{Time: int64(i), Session: 1, Seq: uint64(i + 1), Kind: event.KindQuery, HasValue: value, Size: 0}).Append(nil)
}

func waitDurable(t testing.TB, l *Ledger, n int64) {
	t.Helper()
	l.Want(n - 1)
	for end := time.Now().Add(10 * time.Second); l.Durable() < n; time.Sleep(50 * time.Microsecond) {
		if err := l.Err(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("Durable() = %d, want %d", l.Durable(), n)
		}
	}
}

func TestOpenAppendClose(t *testing.T) {
	dir := t.TempDir() + "/a/b"
	var want []string
	for round := range 3 {
		l, err := Open(Config{Dir: dir, Version: "test", SegmentSize: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			v := fmt.Appendf(nil, "value %d of round %d", i, round)
			index, err := l.Append(leafOf(i, true), v)
			if err != nil {
				t.Fatal(err)
			}
			for int64(len(want)) < index {
				want = append(want, "")
			}
			want = append(want, string(v))
			if i%50 == 0 {
				waitDurable(t, l, index+1)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := journal.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	size, err := r.Size()
	if err != nil || size != 3*502 {
		t.Fatalf("Size() = %d, %v, want %d", size, err, 3*502)
	}
	n := int64(0)
	for e, err := range r.Entries(0, size) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Index != n {
			t.Fatalf("index %d, want %d", e.Index, n)
		}
		n++
		if e.Index < int64(len(want)) && want[e.Index] != string(e.Value) {
			t.Errorf("entry %d: value %q, want %q", e.Index, e.Value, want[e.Index])
		}
	}
	if n != size {
		t.Errorf("%d entries, want %d", n, size)
	}
}
