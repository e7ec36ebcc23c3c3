package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// TestPrunedIsSaid holds that a search says when what it was asked about may have been pruned.
func TestPrunedIsSaid(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/pruned", CheckpointEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		for range 300 {
			if _, err := l.Emit(&event.Leaf{Kind: event.KindNotice, Who: &event.Who{Client: "127.0.0.1:5"}}, []byte("request")); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Rotate(); err != nil {
			t.Fatal(err)
		}
		for sealed := 0; sealed <= n; {
			names, err := filepath.Glob(filepath.Join(dir, "segment", "*.zst"))
			if sealed = len(names); err != nil {
				t.Fatal(err)
			}
			if err := l.SealNow(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, o := range []ledger.Order{{Kind: "prune", What: "leaves", Until: 600}, {Kind: "prune", What: "values", Until: 1 << 40}} {
		if a, err := l.Do(t.Context(), &o); err != nil || !a.OK {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, value := log.First(), log.FirstValue()
	if first == 0 || value <= first {
		t.Fatalf("entries from %d, values from %d: nothing was pruned", first, value)
	}
	entries := fmt.Sprintf("pgnotary: entries before %d were pruned\n", first)
	values := fmt.Sprintf("pgnotary: texts and parameters before entry %d were pruned: nothing there is found by them\n", value)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--user", "bob"}, entries},
		{[]string{"--user", "bob", "--since", "1000h"}, entries},
		{[]string{"--user", "bob", "--since", "0s"}, ""},
		{[]string{"--user", "bob", "--from", fmt.Sprint(first)}, ""},
		{[]string{"--text", "bob"}, values},
		{[]string{"--text", "bob", "--from", fmt.Sprint(first)}, values},
		{[]string{"--param", "bob", "--from", fmt.Sprint(value)}, ""},
	} {
		if code, out, errs := command(t, append([]string{"search", "--data", dir}, tt.args...)...); code != 0 || out != "" || errs != tt.want {
			t.Errorf("search %q = %d, %q, %q, want nothing and %q", tt.args, code, out, errs, tt.want)
		}
	}
	if code, out, errs := command(t, "verify", "--data", dir); code != 0 || !strings.Contains(out, fmt.Sprintf("gone        %d entries pruned, 0 values erased", first)) {
		t.Errorf("verify = %d, %q, %q", code, out, errs)
	}
	p := startServe(t, nil, "--data", dir)
	if code, body := p.get("/api/v1/status"); code != 200 || !strings.Contains(body, fmt.Sprintf(`"first_entry":%d,"first_value":%d}`, first, value)) {
		t.Errorf("status = %d %s, want where entries and values begin", code, body)
	}
}
