package session

import "testing"

// Names that SQL makes or uses, as far as a Query of its own tells.
func TestSQLNames(t *testing.T) {
	run := func(text string, tx byte, tags ...string) []step {
		var answer [][]byte
		for _, x := range tags {
			answer = append(answer, tag(x))
		}
		return []step{client(query(text)), server(append(answer, ready(tx))...)}
	}
	var steps []step
	for _, s := range [][]step{
		run("prepare S as select 1", 'I', "PREPARE"),                                                     // 2
		{client(bind("", "s"), execute("", 0), syncMsg()), server(bound(), tag("SELECT 1"), ready('I'))}, // 4
		run("EXECUTE s", 'I', "SELECT 1"),                                                                // 6
		{client(parse("p", "select $1"), syncMsg()), server(parsed(), ready('I'))},                       // 8
		run(`execute "p"(4)`, 'I', "SELECT 1"),                                                           // 10
		run("deallocate s", 'I', "DEALLOCATE"),                                                           // 12
		run("execute s", 'I', "SELECT 1"),                                                                // 14
		run("execute p(1); select 1", 'I', "SELECT 1"),                                                   // 16
		run("begin", 'T', "BEGIN"),                                                                       // 18
		run("declare c cursor for q", 'T', "DECLARE CURSOR"),                                             // 20
		{client(execute("c", 2), syncMsg()), server(suspended(), ready('T'))},                            // 22
		run("fetch 2 from c", 'T', "FETCH 2"),                                                            // 24
		run("close c", 'T', "CLOSE CURSOR"),                                                              // 26
		run("fetch c", 'T', "FETCH 0"),                                                                   // 28
		run("commit", 'I', "COMMIT"),                                                                     // 30
	} {
		steps = append(steps, s...)
	}
	d := loggedIn(t)
	d.play(steps...)
	d.want(2,
		`query Q`, `outcome CZ of=2 ["PREPARE"] tx=I committed=true`,
		`execute BES parse=2`, `outcome 2CZ of=4 ["SELECT 1"] tx=I committed=true`,
		`query Q parse=2`, `outcome CZ of=6 ["SELECT 1"] tx=I committed=true`,
		`parse PS`, `outcome 1Z of=8 tx=I committed=true`,
		`query Q parse=8`, `outcome CZ of=10 ["SELECT 1"] tx=I committed=true`,
		`query Q`, `outcome CZ of=12 ["DEALLOCATE"] tx=I committed=true`,
		`query Q statement:unknown`, `outcome CZ of=14 ["SELECT 1"] tx=I committed=true`,
		`query Q`, `outcome CZ of=16 ["SELECT 1"] tx=I committed=true`,
		`query Q`, `outcome CZ of=18 ["BEGIN"] tx=T`,
		`query Q`, `outcome CZ of=20 ["DECLARE CURSOR"] tx=T`,
		`execute ES parse=20`, `outcome sZ of=22 tx=T end=suspended`,
		`query Q parse=20`, `outcome CZ of=24 ["FETCH 2"] tx=T`,
		`query Q`, `outcome CZ of=26 ["CLOSE CURSOR"] tx=T`,
		`query Q parse=20 portal:uncertain`, `outcome CZ of=28 ["FETCH 0"] tx=T`,
		`query Q`, `outcome CZ of=30 ["COMMIT"] tx=I committed=true since=18`,
	)
}
