package session

import "testing"

func TestTransactions(t *testing.T) {
	// do is a Query with its whole answer.
	do := func(text string, tx byte, tags ...string) []step {
		var answer [][]byte
		for _, x := range tags {
			if len(x) == 5 {
				answer = append(answer, failure(x))
			} else {
				answer = append(answer, tag(x))
			}
		}
		return []step{client(query(text)), server(append(answer, ready(tx))...)}
	}
	all := func(steps ...[]step) (out []step) {
		for _, s := range steps {
			out = append(out, s...)
		}
		return out
	}
	run := func(text string) []byte {
		return append(append(parse("", text), bind("", "")...), execute("", 0)...)
	}
	ran := func(t string) []byte { return append(append(parsed(), bound()...), tag(t)...) }
	runDialogues(t, []dialogueTest{
		{"commit", all(do("begin", 'T', "BEGIN "), do("insert", 'T', "INSERT 0 1"), do("commit", 'I', "COMMIT")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["COMMIT"] tx=I committed=true since=2`,
		}},
		{"rollback", all(do("begin", 'T', "BEGIN "), do("insert", 'T', "INSERT 0 1"), do("rollback", 'I', "ROLLBACK")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=I committed=false since=2`,
		}},
		{"COMMIT of a failed one", all(do("begin", 'T', "BEGIN "), do("bad", 'E', "42601"), do("commit", 'I', "ROLLBACK")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome EZ of=4 tx=E 42601`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=I committed=false since=2`,
		}},
		{"all in one Query", do("begin; insert; commit", 'I', "BEGIN ", "INSERT 0 1", "COMMIT"), []string{
			`query Q`,
			`outcome CCCZ of=2 ["BEGIN " "INSERT 0 1" "COMMIT"] tx=I committed=true`,
		}},
		{"COMMIT inside a Query, then an error", all(do("begin", 'T', "BEGIN "),
			do("insert; commit; bad", 'I', "INSERT 0 1", "COMMIT", "42601"), do("insert", 'I', "INSERT 0 1")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`settle of=2 committed=true since=2`,
			`outcome CCEZ of=4 ["INSERT 0 1" "COMMIT"] tx=I 42601`,
			`query Q`,
			`outcome CZ of=7 ["INSERT 0 1"] tx=I committed=true`,
		}},
		{"the same, end in a read of its own", []step{
			client(query("insert; commit; bad")),
			server(tag("INSERT 0 1"), tag("COMMIT"), failure("42601")),
			server(ready('I')),
		}, []string{
			`query Q`,
			`outcome CCE of=2 ["INSERT 0 1" "COMMIT"] 42601`,
			`settle Z of=2 tx=I`,
		}},
		{"COMMIT inside a Query, then another block", all(do("commit; begin; insert", 'T', "COMMIT", "BEGIN ", "INSERT 0 1"),
			do("more", 'T', "UPDATE 1"), do("rollback", 'I', "ROLLBACK")), []string{
			`query Q`,
			`outcome CCCZ of=2 ["COMMIT" "BEGIN " "INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["UPDATE 1"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=I committed=false since=4`,
		}},
		{"ROLLBACK TO SAVEPOINT, then commit", all(do("begin", 'T', "BEGIN "), do("insert", 'T', "INSERT 0 1"),
			do("rollback to s", 'T', "ROLLBACK"), do("insert", 'T', "INSERT 0 2"), do("commit", 'I', "COMMIT")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=T`,
			`query Q`,
			`outcome CZ of=8 ["INSERT 0 2"] tx=T`,
			`query Q`,
			`outcome CZ of=10 ["COMMIT"] tx=I committed=true since=8`,
		}},
		{"error, ROLLBACK TO with more behind it, commit", all(do("begin", 'T', "BEGIN "), do("bad", 'E', "42601"),
			do("rollback to s; insert", 'T', "ROLLBACK", "INSERT 0 1"), do("commit", 'I', "COMMIT")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome EZ of=4 tx=E 42601`,
			`query Q`,
			`outcome CCZ of=6 ["ROLLBACK" "INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=8 ["COMMIT"] tx=I committed=true`,
		}},
		{"ROLLBACK TO, then roll back", all(do("begin", 'T', "BEGIN "), do("rollback to s", 'T', "ROLLBACK"),
			do("rollback", 'I', "ROLLBACK")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["ROLLBACK"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=I committed=false since=2`,
		}},
		{"PREPARE TRANSACTION", all(do("begin", 'T', "BEGIN "), do("insert", 'T', "INSERT 0 1"),
			do("prepare", 'I', "PREPARE TRANSACTION"), do("commit prepared", 'I', "COMMIT PREPARED")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["INSERT 0 1"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["PREPARE TRANSACTION"] tx=I`,
			`query Q`,
			`outcome CZ of=8 ["COMMIT PREPARED"] tx=I committed=true`,
		}},
		{"CALL that fails may have committed", do("call p()", 'I', "P0001"), []string{
			`query Q`,
			`outcome EZ of=2 tx=I P0001`,
		}},
		{"CALL may have committed and rolled back", do("call p()", 'I', "CALL"), []string{
			`query Q`,
			`outcome CZ of=2 ["CALL"] tx=I`,
		}},
		{"DO that may have rolled back", []step{
			client(run("insert"), run("do $$begin RollBack; end$$"), run("insert"), syncMsg()),
			server(ran("INSERT 0 1"), ran("DO"), ran("INSERT 0 2"), ready('I')),
		}, []string{
			`execute PBE`,
			`execute PBE`,
			`execute PBES`,
			`outcome 12C of=2 ["INSERT 0 1"]`,
			`outcome 12C of=3 ["DO"]`,
			`outcome 12CZ of=4 ["INSERT 0 2"] tx=I committed=true`,
		}},
		{"DO that rolls nothing back", []step{
			client(run("insert"), run("do $$begin commit; end$$"), syncMsg()),
			server(ran("INSERT 0 1"), ran("DO"), ready('I')),
		}, []string{
			`execute PBE`,
			`execute PBES`,
			`outcome 12C of=2 ["INSERT 0 1"]`,
			`outcome 12CZ of=3 ["DO"] tx=I committed=true since=2`,
		}},
		{"CALL in a block cannot end it", all(do("begin", 'T', "BEGIN "), do("call p()", 'T', "CALL"), do("rollback", 'I', "ROLLBACK")), []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN "] tx=T`,
			`query Q`,
			`outcome CZ of=4 ["CALL"] tx=T`,
			`query Q`,
			`outcome CZ of=6 ["ROLLBACK"] tx=I committed=false since=2`,
		}},
		{"pipeline with COMMIT in the middle", []step{
			client(run("begin"), run("insert"), run("commit"), run("insert"), run("bad"), syncMsg()),
			server(ran("BEGIN"), ran("INSERT 0 1"), ran("COMMIT"), ran("INSERT 0 2"), failure("42601"), ready('I')),
		}, []string{
			`execute PBE`,
			`execute PBE`,
			`execute PBE`,
			`execute PBE`,
			`execute PBES`,
			`outcome 12C of=2 ["BEGIN"]`,
			`outcome 12C of=3 ["INSERT 0 1"]`,
			`outcome 12C of=4 ["COMMIT"] committed=true since=2`,
			`outcome 12C of=5 ["INSERT 0 2"]`,
			`outcome EZ of=6 tx=I committed=false since=5 42601`,
		}},
		{"pipeline with ROLLBACK in the middle", []step{
			client(run("begin"), run("insert"), run("rollback"), run("insert"), syncMsg()),
			server(ran("BEGIN"), ran("INSERT 0 1"), ran("ROLLBACK"), ran("INSERT 0 2"), ready('I')),
		}, []string{
			`execute PBE`,
			`execute PBE`,
			`execute PBE`,
			`execute PBES`,
			`outcome 12C of=2 ["BEGIN"]`,
			`outcome 12C of=3 ["INSERT 0 1"]`,
			`outcome 12C of=4 ["ROLLBACK"] committed=false since=2`,
			`outcome 12CZ of=5 ["INSERT 0 2"] tx=I committed=true`,
		}},
		{"VACUUM in a pipeline, then an error", []step{
			client(run("vacuum"), run("bad"), syncMsg()),
			server(ran("VACUUM"), failure("42601"), ready('I')),
		}, []string{
			`execute PBE`,
			`execute PBES`,
			`outcome 12C of=2 ["VACUUM"]`,
			`outcome EZ of=3 tx=I committed=false 42601`,
		}},
		{"an implicit transaction that a Query joins", []step{
			client(run("insert"), query("bad")),
			server(ran("INSERT 0 1"), failure("42601"), ready('I')),
			client(syncMsg()),
			server(ready('I')),
		}, []string{
			`execute PBE`,
			`query Q`,
			`outcome 12C of=2 ["INSERT 0 1"]`,
			`outcome EZ of=3 tx=I committed=false since=2 42601`,
		}},
	})
}
