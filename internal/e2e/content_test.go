package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestContent keeps results and COPYs as the configuration says, per database, in each mode.
func TestContent(t *testing.T) {
	s := pgtest.Server(t)
	for _, name := range []string{"e2e_digest", "e2e_full"} {
		createDatabase(t, s, name)
	}
	file := filepath.Join(t.TempDir(), "pgnotary.toml")
	const text = `
[[capture]]
database = "e2e_digest"
results = "digest"

[[capture]]
database = "e2e_full"
user = "postgres"
results = "full"
copy = "full"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"before-forward", "before-reply", "async"} {
		t.Run(mode, func(t *testing.T) {
			n := start(t, s.Addr(), "--config", file, "--durability", mode)
			const rows = 3000
			all := fmt.Sprintf("SELECT g, CASE WHEN g = 2 THEN NULL ELSE repeat('é', 40) END FROM generate_series(1, %d) g", rows)
			sums := map[string]string{}
			for _, database := range []string{"e2e_digest", "e2e_full", "postgres"} {
				c, err := pgraw.Login(n.addr, "postgres", database, "")
				if err != nil {
					t.Fatal(err)
				}
				answer, err := c.Query(all)
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.New()
				for _, m := range answer {
					if m.Type == 'D' {
						sum.Write(pgraw.Msg('D', m.Body))
					}
				}
				sums[database] = hex.EncodeToString(sum.Sum(nil))
				for _, q := range []string{"CREATE TEMP TABLE c (t text)", "SELECT lo_create(4711)"} {
					if _, err := c.Query(q); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Send(query("COPY c FROM STDIN"), pgraw.CopyData([]byte("one\n")), pgraw.CopyData([]byte("two\n")), pgraw.CopyDone(),
					pgraw.FunctionCall(964, []byte("4711"))); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if _, err := c.Until('Z'); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			checkContent(t, n.finish(t), all, rows, sums)
		})
	}
}

func checkContent(t *testing.T, all []record, text string, rows int, sums map[string]string) {
	t.Helper()
	of := func(kind, database string) (some []record) {
		for _, r := range ofKind(all, kind) {
			if r.Database == database {
				some = append(some, r)
			}
		}
		return some
	}
	if n := len(of("result", "postgres")); n > 0 {
		t.Errorf("%d result entries where rows are only counted", n)
	}
	digest := of("result", "e2e_digest")
	if len(digest) == 0 || digest[0].SHA256 != sums["e2e_digest"] || digest[0].Messages != int64(rows) {
		t.Errorf("digest of a result: %+v, want %s of %d rows", digest, sums["e2e_digest"], rows)
	}
	var got [][]*string
	statement := find(t, all, text)
	for _, r := range all {
		if r.Database == "e2e_full" && r.Statement == text {
			statement = r
		}
	}
	for _, r := range of("result", "e2e_full") {
		if r.Of == statement.Index {
			got = append(got, r.Rows...)
			if statement.Outcome == nil || r.Index > statement.Outcome.Index {
				t.Errorf("a piece of a result behind its outcome: %d, %+v", r.Index, statement.Outcome)
			}
		}
	}
	if len(got) != rows || *got[0][0] != "1" || *got[0][1] != strings.Repeat("é", 40) || got[1][1] != nil {
		t.Errorf("%d rows kept, want %d", len(got), rows)
	}
	want := sha256.Sum256([]byte("one\ntwo\n"))
	for _, database := range []string{"e2e_digest", "e2e_full"} {
		data, sum := "", ""
		for _, r := range of("copy", database) {
			data, sum = data+string(r.Raw), sum+r.SHA256
		}
		if sum != hex.EncodeToString(want[:]) || (database == "e2e_full") != (data == "one\ntwo\n") || database != "e2e_full" && data != "" {
			t.Errorf("%s: COPY data %q, digest %s", database, data, sum)
		}
	}
	for _, r := range ofKind(all, "function_call") {
		if r.Function.Name != "lo_unlink" || r.Outcome == nil || r.Outcome.Result == nil || r.Outcome.Result.String() != "1" {
			t.Errorf("function call %+v, outcome %+v", r, r.Outcome)
		}
	}
}
