package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// TestMatching asks for what belongs to the statements whose text names somebody: also the rows they returned, the
// notices and errors they caused, and what speaks of these; and nothing of the statement beside them.
func TestMatching(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/erase", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	who := &event.Who{User: "app", Database: "db"}
	seq := uint64(0)
	add := func(kind event.Kind, of int64, value string) int64 {
		t.Helper()
		seq++
		leaf := event.Leaf{Time: time.Now().UnixNano(), Session: 1, Seq: seq, Kind: kind, Of: of}
		if kind != event.KindOutcome {
			leaf.Who = who
		}
		index, err := l.Emit(&leaf, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	text := func(sql string) string {
		n := len(sql) + 5
		return string([]byte{'Q', 0, 0, 0, byte(n)}) + sql + "\x00"
	}
	carol := add(event.KindQuery, 0, text("SELECT 'carol'"))
	other := add(event.KindQuery, 0, text("SELECT 'dave'"))
	rows := add(event.KindResult, event.Ref(carol), "rows")
	add(event.KindResult, event.Ref(other), "rows")
	notice := add(event.KindNotice, event.Ref(carol), "notice")
	outcome := add(event.KindOutcome, event.Ref(carol), "error")
	add(event.KindOutcome, event.Ref(other), "error")
	of := add(event.KindNotice, event.Ref(notice), "of a notice")
	read := add(event.KindNotice, 0, "/api/v1/search?text=%27carol%27&limit=9")
	param := add(event.KindNotice, 0, "/api/v1/search?param=carol")
	add(event.KindNotice, 0, "/api/v1/search?text=dave")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	r, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want []int64
	}{
		{[]string{"--text", "carol"}, []int64{carol, rows, notice, outcome, of, read, param}},
		{[]string{"--text", "carol", "--from", "0"}, []int64{carol, rows, notice, outcome, of}},
		{[]string{"--param", "carol"}, []int64{param}},
	} {
		var filters filterFlags
		cmd := &cobra.Command{}
		filters.register(cmd)
		if err := cmd.ParseFlags(tt.args); err != nil {
			t.Fatal(err)
		}
		if got, err := matching(t.Context(), r, &filters); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("matching of %q = %v, %v, want %v", tt.args, got, err, tt.want)
		}
	}
}

// TestContaining holds that what somebody asked for over HTTP goes too.
func TestContaining(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/erase", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var want []int64
	for _, value := range []string{
		"/api/v1/search?text=carol%40example.org%27s+cat",
		"/api/v1/search?%zz&param=x%26carol@example.org%27s+cat&limit=1",
		"SELECT 'carol@example.org''s', $$carol@example.org's cat$$",
		"SELECT 'carol%40example.org%27s+cat'",
		"/api/v1/search?text=carol",
	} {
		index, err := l.Emit(&event.Leaf{Kind: event.KindNotice}, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < 3 {
			want = append(want, index)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := containing(t.Context(), r, "carol@example.org's cat"); err != nil || !slices.Equal(got, want) {
		t.Errorf("containing = %v, %v, want %v", got, err, want)
	}
}
