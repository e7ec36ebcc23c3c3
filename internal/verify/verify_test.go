package verify

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSoundLog(t *testing.T) {
	r := run(t, smallLog(t), Options{Trust: func([]byte) (time.Time, error) { return time.Time{}, nil }})
	if !r.OK || len(r.Notes) > 0 {
		t.Fatalf("result %+v, want ok and no notes", r)
	}
	if r.Origin != "pgnotary/test/1" || r.Size != r.Entries || r.Entries != 42 || r.Values != 22 {
		t.Errorf("result %+v", r)
	}
	if d := cmp.Diff([]Finding{}, r.Findings); d != "" {
		t.Error(d)
	}
}

// TestLinkedDirectory checks a log by a link to it, which is what systemd makes for DynamicUser and StateDirectory.
func TestLinkedDirectory(t *testing.T) {
	link := filepath.Join(t.TempDir(), "pgnotary")
	if err := os.Symlink(smallLog(t), link); err != nil {
		t.Fatal(err)
	}
	if r := run(t, link, Options{}); !r.OK || r.Entries != 42 {
		t.Errorf("result %+v, want ok and 42 entries", r)
	}
}
