package session

import (
	"fmt"
	"strings"
	"testing"
)

// Servers know a name by its first 63 bytes, after they have converted it to their encoding.
func TestLongNames(t *testing.T) {
	n := strings.Repeat("n", 63)
	runDialogues(t, []dialogueTest{
		{"statement", []step{
			client(parse(n+"a", "harmless"), syncMsg()),
			server(parsed(), ready('I')),
			client(closing('S', n+"b"), syncMsg()),
			server(closed(), ready('I')),
			client(parse(n+"c", "evil"), syncMsg()),
			server(parsed(), ready('I')),
			client(bind("", n+"a"), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`parse CSPS`,
			`outcome 3Z1Z of=4 tx=I committed=true`,
			`execute BES parse=4`,
		}},
		{"portal", []step{
			client(query("begin"), parse("", "evil"), bind(n+"b", ""), syncMsg()),
			server(tag("BEGIN"), ready('T'), parsed(), bound(), ready('T')),
			client(execute(n+"a", 0), closing('P', n), parse(n+"d", "x"), bind(n+"e", n+"f"), execute(n+"g", 0), syncMsg()),
		}, []string{
			`query Q`,
			`bind PBS`,
			`outcome CZ of=2 ["BEGIN"] tx=T`,
			`outcome 12Z of=3 tx=T`,
			`execute EC parse=3 bind=3`,
			`parse P`,
			`bind B parse=7`,
			`execute ES parse=7 bind=8`,
		}},
		{"other than ASCII", []step{
			client(parse("\u00e9", "one"), bind("\u00e8", "\u00e9"), syncMsg(), execute("\u00e8", 0), bind("", "\u00e9"), execute("", 0), syncMsg()),
		}, []string{
			`bind PBS`,
			`execute E parse=2 bind=2 portal:uncertain`,
			`execute BES parse=2 statement:uncertain`,
		}},
	})
}

// A name may get another meaning by what the server does before a Bind or Execute that was sent already.
func TestOvertakenNames(t *testing.T) {
	runDialogues(t, []dialogueTest{
		{"DEALLOCATE and PREPARE on the way", []step{
			client(parse("s", "harmless"), syncMsg()),
			server(parsed(), ready('I')),
			client(query("deallocate s"), query("prepare s as evil"), bind("", "s"), execute("", 0), bind("", "s"), syncMsg()),
			server(tag("DEALLOCATE"), ready('I'), tag("PREPARE"), ready('I'), bound(), tag("SELECT 1"), bound(), ready('I')),
			client(bind("", "s"), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`query Q`,
			`query Q`,
			`execute BE parse=2`,
			`bind BS parse=2`,
			`outcome CZ of=4 ["DEALLOCATE"] tx=I committed=true`,
			`outcome CZ of=5 ["PREPARE"] tx=I committed=true`,
			`outcome 2C of=6 ["SELECT 1"] statement:uncertain`,
			`outcome 2Z of=7 tx=I committed=true since=6 statement:uncertain`,
			`bind BS parse=5`,
		}},
		{"a Parse that is refused", []step{
			client(parse("s", "evil"), syncMsg()),
			server(parsed(), ready('I')),
			client(parse("s", "harmless"), syncMsg(), bind("", "s"), execute("", 0), syncMsg()),
			server(failure("42P05"), ready('I'), bound(), tag("SELECT 1"), ready('I')),
			client(bind("", "s"), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`parse PS`,
			`execute BES parse=4`,
			`outcome EZ of=4 tx=I committed=false 42P05`,
			`outcome 2CZ of=5 ["SELECT 1"] tx=I committed=true statement:uncertain`,
			`bind BS parse=2`,
		}},
		{"a ROLLBACK that is not TO", []step{
			client(parse("s", "rollback"), query("begin"), query("insert"), query("savepoint a"), syncMsg()),
			server(parsed(), tag("BEGIN"), ready('T'), tag("INSERT 0 1"), ready('T'), tag("SAVEPOINT"), ready('T'), ready('T')),
			client(parse("s", "rollback to a"), syncMsg(), bind("", "s"), flush(), execute("", 0), syncMsg()),
			server(failure("42P05"), ready('E'), bound(), tag("ROLLBACK"), ready('I')),
		}, []string{
			`parse P`,
			`query Q`,
			`query Q`,
			`query QS`,
			`outcome 1 of=2`,
			`outcome CZ of=3 ["BEGIN"] tx=T`,
			`outcome CZ of=4 ["INSERT 0 1"] tx=T`,
			`outcome CZZ of=5 ["SAVEPOINT"] tx=T`,
			`parse PS`,
			`execute BHES parse=10`,
			`outcome EZ of=10 tx=E 42P05`,
			`outcome 2CZ of=11 ["ROLLBACK"] tx=I committed=false since=2 statement:uncertain`,
		}},
		{"a cursor in a text of several statements", []step{
			client(query("begin"), parse("", "harmless"), bind("p", ""), syncMsg()),
			server(tag("BEGIN"), ready('T'), parsed(), bound(), ready('T')),
			client(query("close p; declare p cursor for evil"), execute("p", 0), syncMsg()),
			server(tag("CLOSE CURSOR"), tag("DECLARE CURSOR"), ready('T'), tag("SELECT 1"), ready('T')),
			client(execute("p", 0), syncMsg()),
		}, []string{
			`query Q`,
			`bind PBS`,
			`outcome CZ of=2 ["BEGIN"] tx=T`,
			`outcome 12Z of=3 tx=T`,
			`query Q`,
			`execute ES parse=3 bind=3`,
			`outcome CCZ of=6 ["CLOSE CURSOR" "DECLARE CURSOR"] tx=T`,
			`outcome CZ of=7 ["SELECT 1"] tx=T statement:uncertain`,
			`execute ES parse=3 bind=3 portal:uncertain`,
		}},
		{"EXECUTE behind DO", []step{
			client(query("prepare s as one")),
			server(tag("PREPARE"), ready('I')),
			client(query("do $$...$$"), query("execute s")),
			server(tag("DO"), ready('I'), tag("SELECT 1"), ready('I')),
		}, []string{
			`query Q`,
			`outcome CZ of=2 ["PREPARE"] tx=I committed=true`,
			`query Q`,
			`query Q parse=2`,
			`outcome CZ of=4 ["DO"] tx=I committed=true`,
			`outcome CZ of=5 ["SELECT 1"] tx=I committed=true statement:uncertain`,
		}},
		{"Close, PREPARE and a Parse that is refused", []step{
			client(parse("s", "harmless"), syncMsg()),
			server(parsed(), ready('I')),
			client(closing('S', "s"), syncMsg(), query("prepare s as evil"), parse("s", "harmless"), syncMsg()),
			server(closed(), ready('I'), tag("PREPARE"), ready('I'), failure("42P05"), ready('I')),
			client(bind("", "s"), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`query CSQ`,
			`parse PS`,
			`outcome 3ZCZ of=4 ["PREPARE"] tx=I committed=true`,
			`outcome EZ of=5 tx=I committed=false 42P05`,
			`bind BS parse=4`,
		}},
	})
}

// However many names a function has the server forget unseen, few are kept.
func TestManyNames(t *testing.T) {
	d := loggedIn(t)
	for i := range 3 * maxNames / 2 {
		d.play(client(parse(fmt.Sprint("s", i), "")), server(parsed()))
	}
	if n := len(d.s.names.stmts.byName); n > maxNames {
		t.Errorf("%d names, want at most %d", n, maxNames)
	}
}
