package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// TestReplacedKey: whoever has a key that was replaced cannot sign the log,
// even if the entry about that was pruned.
func TestReplacedKey(t *testing.T) {
	s := faultfs.New()
	cfg := steady(quiet(s, "/d"))
	l := mustOpen(t, cfg)
	old := l.signer
	mustClose(t, l)
	nextKey(t, s, 10)
	l = mustOpen(t, cfg)
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	mustClose(t, l)
	if r := mustVerify(t, s, "/d"); r.Pruned != 256 {
		t.Fatalf("%+v, want what was before 256 pruned", r)
	}
	dir := dump(t, s, "/d")
	forged, err := checkpoint.Sign(old, l.info.Origin, l.pub.size, l.pub.root)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "checkpoint"), forged, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "whoever has the old key") {
		t.Errorf("signed with the old key: %+v, %v, want a finding", r, err)
	}
}

// TestCopyPutBack: whoever puts an erased value back in a copy of it is found out.
func TestCopyPutBack(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	text, _, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	name := segment.ValueFile("", 256) // it has the copy
	was, err := durable.ReadFile(s, filepath.Join("/d", name), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{text}})
	mustClose(t, l)
	mustVerify(t, s, "/d")
	dir := dump(t, s, "/d")
	if err := os.WriteFile(filepath.Join(dir, name), was, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "gone, but it is there") {
		t.Errorf("an erased value in a copy: %+v, %v, want a finding", r, err)
	}
}
