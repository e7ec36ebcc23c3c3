package segment_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// TestLeftover: a segment of entries that the journal has means nothing, and verify does not read it. So a reader
// neither takes copies from it nor believes that the log begins with it.
func TestLeftover(t *testing.T) {
	dir, leaves, _ := build(t, 1500)
	var text int64
	for _, b := range leaves {
		if l, err := event.Parse(b); err == nil && l.Parse != 0 {
			text, _ = event.Index(l.Parse)
		}
	}
	segs, err := segment.List(durable.OS, dir)
	if err != nil || len(segs) != 2 {
		t.Fatalf("segments %v, %v, want two", segs, err)
	}
	open := func() *segment.Reader {
		r, err := segment.OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := open().Copy(text); err != nil {
		t.Fatal(err)
	}
	h, err := segment.ReadHeader(durable.OS, dir, segs[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(segment.ValueFile(dir, segs[1]), segment.ValueFile(dir, h.End())); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment.LeafFile(dir, h.End()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open().First(); got != 0 {
		t.Errorf("the log begins with entry %d, want 0", got)
	}
	if e, err := open().Copy(text); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Copy = %q, %v, want ErrNotExist", e.Value, err)
	}
	if err := os.RemoveAll(segment.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(segment.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment.LeafFile(dir, h.End()+tree.Width), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open().First(); got != h.End() {
		t.Errorf("the log begins with entry %d, want %d", got, h.End())
	}
}
