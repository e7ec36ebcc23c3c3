package session

import (
	"crypto/sha256"
	"testing"
)

func TestCopyIn(t *testing.T) {
	copyRun := func() []byte { return append(append(parse("", "copy"), bind("", "")...), execute("", 0)...) }
	runDialogues(t, []dialogueTest{
		{"simple", []step{
			client(query("copy t from stdin")),
			server(copyStart('G')),
			client(data("1\n"), data("2\n")),
			client(data("3\n"), copyDone()),
			server(tag("COPY 3"), ready('I')),
		}, []string{
			`query Q`,
			`copy dc of=2 rows=3 direction:in`,
			`outcome GCZ of=2 ["COPY 3"] tx=I committed=true`,
		}},
		{"extended, Sync swallowed", []step{
			client(copyRun(), syncMsg()),
			server(parsed(), bound(), copyStart('G')),
			client(data("1\n"), copyDone(), syncMsg()),
			server(tag("COPY 1"), ready('I')),
			client(query("q")),
			server(tag("Q"), ready('I')),
		}, []string{
			`execute PBES`,
			`copy dc of=2 rows=1 direction:in`,
			`outcome 12GCZ of=2 ["COPY 1"] tx=I committed=true`,
			`query SQ`,
			`outcome CZ of=5 ["Q"] tx=I committed=true`,
		}},
		{"extended, failing before data, Sync effective", []step{
			client(copyRun(), syncMsg()),
			server(parsed(), bound(), copyStart('G')),
			client(data("1\n"), copyDone(), syncMsg()),
			server(failure("P0001"), ready('I'), ready('I')),
			client(query("q")),
			server(tag("Q"), ready('I')),
		}, []string{
			`execute PBES`,
			`copy dc of=2 rows=1 direction:in`,
			`outcome 12GEZZ of=2 tx=I committed=false P0001`,
			`outcome of=3 end=discarded`,
			`query SQ`,
			`outcome CZ of=6 ["Q"] tx=I committed=true`,
		}},
		{"extended, failing on data, Sync swallowed", []step{
			client(copyRun(), syncMsg()),
			server(parsed(), bound(), copyStart('G')),
			client(data("1\n"), copyDone(), syncMsg()),
			server(failure("22P02"), ready('I')),
			client(copyRun(), syncMsg()),
			server(parsed(), bound(), tag("Q"), ready('I')),
		}, []string{
			`execute PBES`,
			`copy dc of=2 rows=1 direction:in`,
			`outcome 12GEZ of=2 tx=I committed=false 22P02`,
			`outcome of=3 end=discarded`,
			`execute SPBES`,
			`outcome 12CZ of=6 ["Q"] tx=I committed=true`,
		}},
		{"failing while the client still sends", []step{
			client(copyRun()),
			client(flush()),
			server(parsed(), bound(), copyStart('G')),
			client(data("1\n")),
			server(failure("22P02")),
			client(data("2\n"), copyDone(), syncMsg()),
			server(ready('I')),
		}, []string{
			`execute PBE`,
			`outcome 12GE of=2 22P02`,
			`copy Hdc of=2 rows=2 direction:in`,
			`outcome of=4 end=discarded`,
			`settle Z of=2 tx=I committed=false since=2`,
		}},
		{"CopyFail", []step{
			client(query("copy t from stdin")),
			server(copyStart('G')),
			client(data("1\n"), copyFail("no")),
			server(failure("57014"), ready('I')),
		}, []string{
			`query Q`,
			`copy df of=2 rows=1 direction:in client:CopyFail`,
			`outcome GEZ of=2 tx=I committed=false 57014`,
			`outcome of=3 end=discarded`,
		}},
		{"a Query in the middle, which a server before 14 swallows", []step{
			client(query("copy t from stdin")),
			server(copyStart('G')),
			client(data("1\n"), query("a")),
			server(unexpected(), ready('I')),
			client(query("b")),
			server(tag("B"), ready('I')),
		}, []string{
			`query Q`,
			`copy d of=2 rows=1 direction:in`,
			`query Q`,
			`outcome of=4 end=skipped`,
			`outcome GEZ of=2 tx=I committed=false 08P01`,
			`outcome of=3 end=discarded`,
			`query Q`,
			`outcome CZ of=8 ["B"] tx=I committed=true`,
		}},
		{"data when no COPY runs", []step{
			client(data("1\n"), copyDone()),
			client(query("a"), data("1\n"), copyDone(), query("b")),
			server(tag("A"), ready('I'), tag("B"), ready('I')),
		}, []string{
			`copy dc rows=1 direction:in`,
			`outcome of=2 end=discarded`,
			`query Q`,
			`copy dc of=4 rows=1 direction:in`,
			`query Q`,
			`outcome CZ of=4 ["A"] tx=I committed=true`,
			`outcome of=5 end=discarded`,
			`outcome CZ of=6 ["B"] tx=I committed=true`,
		}},
		{"data that never ends", []step{
			client(query("copy t from stdin")),
			server(copyStart('G')),
			client(data("1\n")),
			server(failure("22P02"), ready('I')),
			client(data("2\n")),
			client(query("copy t from stdin")),
			server(copyStart('G')),
			client(data("3\n"), copyDone()),
			server(tag("COPY 1"), ready('I')),
		}, []string{
			`query Q`,
			`outcome GEZ of=2 tx=I committed=false 22P02`,
			`copy d of=2 rows=2 direction:in`,
			`outcome of=4 end=discarded`,
			`query Q`,
			`copy dc of=6 rows=1 direction:in`,
			`outcome GCZ of=6 ["COPY 1"] tx=I committed=true`,
		}},
		{"two in a Query", []step{
			client(query("copy; copy")),
			server(copyStart('G')),
			client(data("1\n"), copyDone()),
			server(tag("COPY 1"), copyStart('G')),
			client(data("1\n"), data("2\n"), copyDone()),
			server(tag("COPY 2"), ready('I')),
		}, []string{
			`query Q`,
			`copy dc of=2 rows=1 direction:in`,
			`copy dc of=2 rows=2 direction:in`,
			`outcome GCGCZ of=2 ["COPY 1" "COPY 2"] tx=I committed=true`,
		}},
		{"two in a Query, sent ahead, the first failing", []step{
			client(query("copy; copy"), data("1\n"), copyDone(), data("2\n"), copyDone()),
			server(copyStart('G'), failure("22P02"), ready('I')),
		}, []string{
			`query Q`,
			`copy dc of=2 rows=1 direction:in`,
			`copy dc of=2 rows=1 direction:in`,
			`outcome GEZ of=2 tx=I committed=false 22P02`,
			`outcome of=3 end=discarded`,
			`outcome of=4 end=discarded`,
		}},
	})
}

func TestCopyOut(t *testing.T) {
	runDialogues(t, []dialogueTest{
		{"simple", []step{
			client(query("copy t to stdout")),
			server(copyStart('H'), data("1\n"), data("2\n"), copyDone(), tag("COPY 2"), ready('I')),
		}, []string{
			`query Q`,
			`copy of=2 rows=2 direction:out`,
			`outcome HdcCZ of=2 ["COPY 2"] tx=I committed=true`,
		}},
		{"failing in the middle, then another", []step{
			client(query("copy t to stdout")),
			server(copyStart('H'), data("1\n"), failure("22012"), ready('I')),
			client(query("copy t to stdout")),
			server(copyStart('H'), data("x"), copyDone(), tag("COPY 1"), ready('I')),
		}, []string{
			`query Q`,
			`copy of=2 rows=1 direction:out`,
			`outcome HdEZ of=2 tx=I committed=false 22012`,
			`query Q`,
			`copy of=5 rows=1 direction:out`,
			`outcome HdcCZ of=5 ["COPY 1"] tx=I committed=true`,
		}},
		{"replication", []step{
			client(query("START_REPLICATION 0/0")),
			server(copyStart('W'), data("w1")),
			client(data("r1")),
			server(data("w2")),
			client(data("r2"), copyDone()),
			server(copyDone(), tag("COPY 0"), tag("START_REPLICATION"), ready('I')),
			client(query("IDENTIFY_SYSTEM")),
			server(tag("IDENTIFY_SYSTEM"), ready('I')),
		}, []string{
			`query Q`,
			`replication of=2 rows=2 direction:in`,
			`replication of=2 rows=2 direction:out`,
			`outcome WdcCCZ of=2 ["COPY 0" "START_REPLICATION"] tx=I committed=true`,
			`query dcQ`,
			`outcome CZ of=6 ["IDENTIFY_SYSTEM"] tx=I committed=true`,
		}},
	})
}

func TestReplicationGoesOn(t *testing.T) {
	d := loggedIn(t)
	d.play(client(query("START_REPLICATION 0/0")), server(copyStart('W'), data("w1")), client(data("r1")))
	d.clock += untoldTime
	d.play(server(data("w2")), server(data("w3")), client(terminate()))
	if err := d.s.Close(d.clock, "end"); err != nil {
		t.Fatal(err)
	}
	d.want(2,
		`query Q`,
		`replication of=2 rows=1 direction:in`,
		`replication of=2 rows=2 direction:out`,
		`replication of=2 direction:in`,
		`replication of=2 rows=1 direction:out`,
		`outcome Wd of=2 end=unknown`,
		`disconnect dX reason:end`,
	)
}

func TestCopyDigest(t *testing.T) {
	d := loggedIn(t)
	d.play(client(query("copy")), server(copyStart('G')))
	whole := append(append(data("one\n"), data("two\n")...), copyDone()...)
	for i := range whole {
		if fwd, err := d.feed(true, whole[i:i+1]); err != nil {
			t.Fatal(err, fwd)
		}
	}
	sum := sha256.Sum256([]byte("one\ntwo\n"))
	if e := d.log.entries[3]; string(e.value) != string(sum[:]) || e.Bytes != 8 {
		t.Errorf("copy of %d bytes, digest %x, want 8, %x", e.Bytes, e.value, sum)
	}
}

// unexpected is the error of a server that reads another message in the middle of COPY data.
func unexpected() []byte {
	e := failure("08P01")
	return msg('E', append(e[5:len(e)-1], "RCopyGetData\x00\x00"...))
}

// An error during COPY does not tell what the server has read of the messages behind it.
func TestCopyFails(t *testing.T) {
	runDialogues(t, []dialogueTest{
		{"by a trigger with the code of a protocol violation", []step{
			client(query("copy t from stdin"), data("1\n"), copyDone(), query("runs")),
			server(copyStart('G'), failure("08P01"), ready('I'), tag("A"), ready('I')),
		}, []string{
			`query Q`,
			`copy dc of=2 rows=1 direction:in`,
			`query Q`,
			`outcome GEZ of=2 tx=I committed=false 08P01`,
			`outcome of=3 end=discarded`,
			`outcome CZ of=4 ["A"] tx=I committed=true`,
		}},
		{"behind it an error at Sync", []step{
			client(parse("", "copy t from stdin"), bind("", ""), execute("", 0), syncMsg(), parse("", "insert"), bind("", ""), execute("", 0), syncMsg(), query("runs")),
			server(parsed(), bound(), copyStart('G'), failure("P0001"), ready('I')),
			server(parsed(), bound(), tag("INSERT 0 1"), failure("23505"), ready('I'), tag("A"), ready('I')),
		}, []string{
			`execute PBES`,
			`execute PBES`,
			`query Q`,
			`outcome 12GEZ of=2 tx=I committed=false P0001`,
			`outcome 12C of=3 ["INSERT 0 1"]`,
			`settle EZ of=3 tx=I committed=false since=3 23505`,
			`outcome CZ of=4 ["A"] tx=I committed=true`,
		}},
		{"with a Sync in a Query's data, read", []step{
			client(query("copy t from stdin"), syncMsg(), data("bad\n"), copyDone(), query("runs")),
			server(copyStart('G'), failure("22P02"), ready('I'), tag("A"), ready('I')),
		}, []string{
			`query QS`,
			`copy dc of=2 rows=1 direction:in`,
			`query Q`,
			`outcome GEZ of=2 tx=I committed=false 22P02`,
			`outcome of=3 end=discarded`,
			`outcome CZ of=4 ["A"] tx=I committed=true`,
		}},
		{"with a Sync in a Query's data, not read", []step{
			client(query("copy t from stdin"), syncMsg(), data("1\n"), copyDone(), query("runs")),
			server(copyStart('G'), failure("P0001"), ready('I'), ready('I'), tag("A"), ready('I')),
		}, []string{
			`query QS`,
			`copy dc of=2 rows=1 direction:in`,
			`query Q`,
			`outcome GEZZ of=2 tx=I committed=false P0001`,
			`outcome of=3 end=discarded`,
			`outcome CZ of=4 ["A"] tx=I committed=true`,
		}},
		{"and more before the next Sync, which may be skipped or not", []step{
			client(parse("", "copy t from stdin"), bind("", ""), execute("", 0), syncMsg(), data("1\n"), copyDone()),
			client(query("runs, or is skipped"), syncMsg()),
			server(parsed(), bound(), copyStart('G'), failure("22P02")),
			server(ready('I')).breaks("08P01"),
		}, []string{
			`execute PBES`,
			`copy dc of=2 rows=1 direction:in`,
			`query QS`,
			`outcome 12GE of=2 22P02`,
			`outcome of=3 end=discarded`,
			`violation 08P01 reason:cannot tell what the server skipped after a COPY that failed: Sync came before its data, and other messages behind it`,
		}},
	})
}
