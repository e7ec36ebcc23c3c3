package report

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newGatherer() *gatherer {
	return &gatherer{
		Data:  &Data{Origin: "example.com/log", First: -1, Last: -1},
		kinds: counts{}, users: counts{}, databases: counts{}, classes: counts{}, relations: counts{}, clients: counts{}, errors: counts{},
		logins: counts{}, badLogins: counts{}, readers: counts{}, stopped: true,
	}
}

func TestGatherer(t *testing.T) {
	g := newGatherer()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	index := int64(10)
	add := func(after time.Duration, s query.Statement) {
		at = at.Add(after)
		s.Index, s.Time = index, at.UnixNano()
		index++
		g.statement(&s)
	}
	fact := func(k, v string) []event.Fact { return []event.Fact{{Key: k, Val: v}} }
	add(0, query.Statement{Kind: event.KindStart})
	add(time.Second, query.Statement{Kind: event.KindAuth, User: "alice"})
	add(time.Second, query.Statement{Kind: event.KindAuth, User: "mallory", Client: "10.0.0.1:5", Error: &query.ServerMessage{SQLState: "28P01", Message: "no"}})
	add(time.Second, query.Statement{Kind: event.KindAuth, User: "mallory", Client: "10.0.0.1:6", Error: &query.ServerMessage{SQLState: "28P01", Message: "no"}})
	add(90*time.Second, query.Statement{Kind: event.KindQuery, User: "alice", HasText: true, Text: "GRANT a TO b; CREATE TABLE t (x int)", Outcome: &query.Outcome{Committed: -1}})
	add(-2*time.Second, query.Statement{Kind: event.KindNotice, Facts: fact("reader", "auditor")})
	add(time.Second, query.Statement{Kind: event.KindGap, Facts: fact("reason", "disk")})
	add(time.Hour, query.Statement{Kind: event.KindRecover}) // after a crash
	add(0, query.Statement{Kind: event.KindStart, Facts: fact("durability", "async")})
	add(time.Second, query.Statement{Kind: event.KindStop})
	add(time.Second, query.Statement{Kind: event.KindStart})
	d := g.Data
	if d.First != 10 || d.Last != 20 || d.Statements != 1 || d.RolledBack != 1 {
		t.Errorf("stretch %d to %d, %d statements, %d rolled back", d.First, d.Last, d.Statements, d.RolledBack)
	}
	if d.Crashes != 1 || d.Backs != 1 || d.Silence != 90*time.Second || d.SilenceAfter != 13 {
		t.Errorf("crashes %d, clock back %d, silence %s after %d", d.Crashes, d.Backs, d.Silence, d.SilenceAfter)
	}
	if g.logins["alice"] != 1 || g.badLogins["mallory from 10.0.0.1"] != 2 || g.readers["auditor"] != 1 || g.classes["ROLE"] != 1 || g.relations["t by alice"] != 1 || g.classes["DDL"] != 1 {
		t.Errorf("logins %v, failed %v, readers %v, classes %v", g.logins, g.badLogins, g.readers, g.classes)
	}
	if d.Gaps.Total != 1 || d.Failures.Total != 2 || d.Configs.Total != 3 || !strings.HasPrefix(d.Roles.Items[0].What, "rolled back: GRANT") {
		t.Errorf("gaps %v, failures %v, configurations %v, roles %v", d.Gaps, d.Failures, d.Configs, d.Roles)
	}
}

// TestHostileTexts holds that what clients chose to send changes nothing in
// how a report looks.
func TestHostileTexts(t *testing.T) {
	doc := &document{title: "x"}
	hostile := "<script>alert(1)</script>|\n# h [a](javascript:x) `c` *b* https://evil.example \x1b[31m\u202e&amp;"
	doc.table([]string{"a"}, [][]string{{hostile}})
	doc.say("%s", hostile)
	page, text := doc.html(), doc.markdown()
	for _, bad := range []string{"<script", "\x1b", "\u202e"} {
		if strings.Contains(page, bad) || strings.Contains(text, bad) {
			t.Errorf("a report contains %q", bad)
		}
	}
	if n := strings.Count(text, "\n"); n != 7 {
		t.Errorf("the Markdown has %d lines:\n%s", n, text)
	}
	for _, bad := range []string{"](", "https://", "\n#h", "`c`"} {
		if strings.Contains(strings.ReplaceAll(text, `\`+bad[:1], ""), bad) {
			t.Errorf("the Markdown contains %q:\n%s", bad, text)
		}
	}
}

func TestManifest(t *testing.T) {
	skey, vkey, err := checkpoint.GenerateKey(rand.Reader, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := checkpoint.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := checkpoint.GenerateKey(rand.Reader, "example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	files, err := Bundle(&Data{Origin: "example.com/log", First: -1}, &Evidence{Checkpoint: []byte("c"), VKey: vkey, Consistency: []byte("g")}, signer)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	for _, f := range files {
		content[f.Name] = f.Content
	}
	read := func(name string) ([]byte, error) {
		b, ok := content[name]
		if !ok {
			return nil, errors.New(name + " is missing")
		}
		return b, nil
	}
	manifest := content[Manifest]
	if origin, n, err := CheckManifest(manifest, []string{other, vkey}, read); err != nil || origin != "example.com/log" || n != len(files)-1 || !IsManifest(manifest) {
		t.Errorf("CheckManifest = %q, %d, %v", origin, n, err)
	}
	if _, _, err := CheckManifest(manifest, []string{other}, read); err == nil {
		t.Error("a manifest of another key is accepted")
	}
	_, elsewhere, err := checkpoint.GenerateKey(rand.Reader, "example.com/other")
	if err != nil {
		t.Fatal(err)
	}
	claim, err := Bundle(&Data{Origin: "example.com/other", First: -1}, &Evidence{Checkpoint: []byte("c"), VKey: vkey}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := CheckManifest(claim[len(claim)-1].Content, []string{elsewhere, vkey}, read); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("one log's manifest about another log: %v", err)
	}
	if _, err := checkpoint.Open(manifest, vkey); err == nil {
		t.Error("a manifest is taken for a checkpoint")
	}
	if _, err := checkpoint.SignText(signer, "example.com/log\n1\nroot\n"); err == nil {
		t.Error("what could be a checkpoint is signed as a text")
	}
	content["report.md"] = []byte("x")
	if _, _, err := CheckManifest(manifest, []string{vkey}, read); err == nil || !strings.Contains(err.Error(), "report.md") {
		t.Errorf("a changed file: %v", err)
	}
	delete(content, "report.md")
	if _, _, err := CheckManifest(manifest, []string{vkey}, read); err == nil {
		t.Error("a missing file is accepted")
	}
	for _, line := range []string{"00  ../key\n", "00 x\n", "00  a/b\n", "00  .x\n"} {
		bad, err := checkpoint.SignText(signer, manifestHeader+"\nexample.com/log\n"+line)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := CheckManifest(bad, []string{vkey}, read); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
