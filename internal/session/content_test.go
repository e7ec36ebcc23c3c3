package session

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
)

// keeping returns a dialogue after the login that keeps so much.
func keeping(t *testing.T, results, copies content.Mode) *dialogue {
	d := newDialogue(t)
	d.s.cfg.Content = func(user, database string) (content.Mode, content.Mode) {
		if user != "u" || database != "d" {
			t.Errorf("asked for user %q, database %q", user, database)
		}
		return results, copies
	}
	d.start(startup(3<<16, "user", "u", "database", "d"))
	d.play(server(auth(0), keyData(), ready('I')))
	return d
}

func TestResultDigest(t *testing.T) {
	d := keeping(t, content.Digest, content.Digest)
	rows := append(dataRow("1"), dataRow("two")...)
	d.play(
		client(query("q")), server(rowDescription(), rows[:7]), server(rows[7:], tag("SELECT 2"), ready('I')),
		client(query("none")), server(tag("SET"), ready('I')),
		client(parse("", "p"), bind("", ""), execute("", 1), execute("", 0), syncMsg()),
		server(parsed(), bound(), dataRow("a"), suspended(), dataRow("b"), failure("22012"), ready('I')),
	)
	d.want(2,
		`query Q`,
		`result of=2 rows=2 content:sha256`,
		`outcome TDCZ of=2 ["SELECT 2"] rows=2 tx=I committed=true`,
		`query Q`,
		`outcome CZ of=5 ["SET"] tx=I committed=true`,
		`execute PBE`,
		`execute ES parse=7 bind=7`,
		`result of=7 rows=1 content:sha256`,
		`outcome 12Ds of=7 rows=1 end=suspended`,
		`result of=8 rows=1 content:sha256`,
		`outcome DEZ of=8 rows=1 tx=I committed=false since=7 22012`,
	)
	if sum := sha256.Sum256(rows); !bytes.Equal(d.log.entries[3].value, sum[:]) || d.log.entries[3].Bytes != int64(len(rows)) {
		t.Errorf("digest %x of %d bytes, want %x of %d", d.log.entries[3].value, d.log.entries[3].Bytes, sum, len(rows))
	}
}

func TestResultFull(t *testing.T) {
	d := keeping(t, content.Full, content.Digest)
	row := dataRow(strings.Repeat("x", 3000))
	giant := dataRow(strings.Repeat("y", 700<<10))
	all := bytes.Join([][]byte{rowDescription(), bytes.Repeat(row, 50), giant, row}, nil)
	d.play(client(query("q")))
	for b := all; len(b) > 0; b = b[min(len(b), 5000):] {
		if _, err := d.feed(false, b[:min(len(b), 5000)]); err != nil {
			t.Fatal(err)
		}
	}
	d.play(server(tag("SELECT 52"), ready('I')))
	var kept []byte
	for _, e := range d.log.entries[3 : len(d.log.entries)-1] {
		if e.Kind != event.KindResult || e.Of != event.Ref(2) || len(e.value) > 5*content.MaxChunk {
			t.Errorf("%s with %d bytes", e.String(), len(e.value))
		}
		kept = append(kept, e.value...)
	}
	if !bytes.Equal(kept, all) {
		t.Errorf("kept %d bytes, want the %d that came", len(kept), len(all))
	}
	if e := d.log.entries[3]; len(e.value)%len(row) != len(rowDescription()) {
		t.Errorf("the first piece of %d bytes does not end between rows", len(e.value))
	}
	if last := d.log.entries[len(d.log.entries)-1]; last.Kind != event.KindOutcome || last.Rows != 52 {
		t.Errorf("last entry %s", last.String())
	}
}

func TestCopyFull(t *testing.T) {
	d := keeping(t, content.Count, content.Full)
	line := strings.Repeat("z", 30000) + "\n"
	d.play(client(query("copy in")), server(copyStart('G')))
	for range 4 {
		d.play(client(data(line)))
	}
	d.play(
		client(copyDone()), server(tag("COPY 4"), ready('I')),
		client(query("copy out")), server(copyStart('H'), data("1\n"), data("2\n"), copyDone(), tag("COPY 2"), ready('I')),
		client(query("copy in")), server(copyStart('G')), client(data("lost\n"), copyFail("no")), server(failure("57014"), ready('I')),
	)
	d.want(2,
		`query Q`,
		`copy of=2 direction:in content:full`,
		`copy of=2 direction:in content:full`,
		`copy dc of=2 rows=4 direction:in`,
		`outcome GCZ of=2 ["COPY 4"] tx=I committed=true`,
		`query Q`,
		`copy of=7 direction:out content:full`,
		`copy of=7 rows=2 direction:out`,
		`outcome HdcCZ of=7 ["COPY 2"] tx=I committed=true`,
		`query Q`,
		`copy of=11 direction:in content:full`,
		`copy df of=11 rows=1 direction:in client:CopyFail`,
		`outcome GEZ of=11 tx=I committed=false 57014`,
		`outcome of=13 end=discarded`,
	)
	whole := strings.Repeat(line, 4)
	sum := sha256.Sum256([]byte(whole))
	if got := string(d.log.entries[3].value) + string(d.log.entries[4].value); got != whole || !bytes.Equal(d.log.entries[5].value, sum[:]) {
		t.Errorf("kept %d bytes, want %d", len(got), len(whole))
	}
}

func TestFunctionResult(t *testing.T) {
	d := loggedIn(t)
	answer := msg('V', 4, 42)
	large := msg('V', 100<<10, bytes.Repeat([]byte("l"), 100<<10))
	d.play(client(call(952)), server(answer, ready('I')), client(call(954)), server(large, ready('I')))
	d.want(2, `function_call F`, `outcome VZ of=2 tx=I committed=true`, `function_call F`, `outcome VZ of=4 tx=I committed=true`)
	if e := d.log.entries[3]; !bytes.Equal(e.value, answer) || e.Bytes != int64(len(answer)) {
		t.Errorf("result %q", e.value)
	}
	if e := d.log.entries[5]; !bytes.Equal(e.value, large[:maxControl]) || e.Bytes != int64(len(large)) {
		t.Errorf("%d bytes of a result, want %d; it was %d", len(e.value), maxControl, e.Bytes)
	}
}
