package session

import "testing"

func TestExtended(t *testing.T) {
	pbdes := client(parse("", "select $1", 23), bind("", ""), describe('P', ""), execute("", 0), syncMsg())
	runDialogues(t, []dialogueTest{
		{"one run", []step{
			pbdes,
			server(parsed(), bound(), rowDescription(), dataRow("7"), tag("SELECT 1"), ready('I')),
		}, []string{
			`execute PBDES types=[23]`,
			`outcome 12TDCZ of=2 ["SELECT 1"] rows=1 tx=I committed=true`,
		}},
		{"each in a read of its own", []step{
			client(parse("", "select $1", 23)),
			client(bind("", "")),
			client(describe('P', "")),
			client(execute("", 0)),
			client(syncMsg()),
			server(parsed(), bound(), rowDescription(), dataRow("7"), tag("SELECT 1"), ready('I')),
		}, []string{
			`parse P`,
			`bind B parse=2 types=[23]`,
			`execute DE parse=2 bind=3`,
			`outcome 1 of=2`,
			`outcome 2 of=3`,
			`outcome TDCZ of=4 ["SELECT 1"] rows=1 tx=I committed=true since=2`,
		}},
		{"prepared", []step{
			client(parse("s", "select $1"), describe('S', "s"), syncMsg()),
			server(parsed(), paramTypes(23), rowDescription(), ready('I')),
			client(bind("", "s"), execute("", 0), syncMsg()),
			server(bound(), tag("SELECT 0"), ready('I')),
			client(closing('S', "s"), syncMsg()),
			server(closed(), ready('I')),
			client(bind("", "s"), execute("", 0), syncMsg()),
			server(failure("26000"), ready('I')),
		}, []string{
			`parse PDS`,
			`outcome 1tTZ of=2 types=[23] tx=I committed=true`,
			`execute BES parse=2 types=[23]`,
			`outcome 2CZ of=4 ["SELECT 0"] tx=I committed=true`,
			`execute CSBES statement:unknown`,
			`outcome 3ZEZ of=6 tx=I committed=false 26000`,
		}},
		{"described on its own", []step{
			client(parse("s", "select $1"), syncMsg()),
			server(parsed(), ready('I')),
			client(describe('S', "s"), syncMsg()),
			server(paramTypes(25), noData(), ready('I')),
			client(bind("", "s"), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`execute DSBES parse=2 types=[25]`,
		}},
		{"suspended", []step{
			client(query("begin")),
			server(tag("BEGIN"), ready('T')),
			client(parse("", "select"), bind("p", ""), execute("p", 2), syncMsg()),
			server(parsed(), bound(), dataRow("1"), dataRow("2"), suspended(), ready('T')),
			client(execute("p", 2), syncMsg()),
			server(dataRow("3"), tag("SELECT 1"), ready('T')),
		}, []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN"] tx=T`,
			`execute PBES`,
			`outcome 12DsZ of=4 rows=2 tx=T end=suspended`,
			`execute ES parse=4 bind=4`,
			`outcome DCZ of=6 ["SELECT 1"] rows=1 tx=T`,
		}},
		{"portals end with the transaction", []step{
			client(parse("", "select"), bind("p", ""), execute("p", 1), syncMsg()),
			server(parsed(), bound(), dataRow("1"), suspended(), ready('I')),
			client(execute("p", 1), syncMsg()),
			server(failure("34000"), ready('I')),
		}, []string{
			`execute PBES`,
			`outcome 12DsZ of=2 rows=1 tx=I committed=true end=suspended`,
			`execute ES portal:unknown`,
			`outcome EZ of=4 tx=I 34000`,
		}},
		{"unknown names", []step{
			client(bind("p", "made by SQL"), execute("p", 0), syncMsg()),
			server(bound(), tag("SELECT 1"), ready('I')),
		}, []string{
			`execute BES statement:unknown`,
			`outcome 2CZ of=2 ["SELECT 1"] tx=I committed=true`,
		}},
		{"named statement given twice keeps its meaning", []step{
			client(parse("s", "one"), syncMsg()),
			server(parsed(), ready('I')),
			client(parse("s", "two"), syncMsg()),
			server(failure("42P05"), ready('I')),
			client(bind("", "s"), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`parse PS`,
			`outcome EZ of=4 tx=I committed=false 42P05`,
			`execute BES parse=2`,
		}},
		{"failing twice in a pipeline, then a third", []step{
			client(parse("s", "bad"), syncMsg(), parse("s", "good"), syncMsg()),
			server(failure("42601"), ready('I'), parsed(), ready('I')),
			client(bind("", "s"), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`parse PS`,
			`outcome EZ of=2 tx=I committed=false 42601`,
			`outcome 1Z of=3 tx=I committed=true`,
			`execute BES parse=3`,
		}},
		{"unnamed failing before an unnamed one", []step{
			client(parse("", "bad"), syncMsg(), parse("", "good"), syncMsg()),
			server(failure("42601"), ready('I'), parsed(), ready('I')),
			client(bind("", ""), execute("", 0), syncMsg()),
		}, []string{
			`parse PS`,
			`parse PS`,
			`outcome EZ of=2 tx=I committed=false 42601`,
			`outcome 1Z of=3 tx=I committed=true`,
			`execute BES parse=3`,
		}},
		{"unnamed failed", []step{
			client(parse("", "good"), syncMsg()),
			server(parsed(), ready('I')),
			client(parse("", "bad"), syncMsg()),
			server(failure("42601"), ready('I')),
			client(bind("", ""), execute("", 0), syncMsg()),
			server(failure("26000"), ready('I')),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`parse PS`,
			`outcome EZ of=4 tx=I committed=false 42601`,
			`execute BES statement:unknown`,
			`outcome EZ of=6 tx=I committed=false 26000`,
		}},
		{"Query takes the unnamed statement away", []step{
			client(parse("", "good"), syncMsg(), query("q"), bind("", ""), syncMsg()),
		}, []string{
			`parse PS`,
			`query Q`,
			`bind BS statement:unknown`,
		}},
		{"DEALLOCATE", []step{
			client(parse("s", "one"), parse("T", "two"), syncMsg()),
			server(parsed(), parsed(), ready('I')),
			client(query("deallocate prepare s")),
			server(tag("DEALLOCATE"), ready('I')),
			client(bind("", "s"), bind("", "T"), syncMsg()),
		}, []string{
			`parse P`,
			`parse PS`,
			`outcome 1 of=2`,
			`outcome 1Z of=3 tx=I committed=true since=2`,
			`query Q`,
			`outcome CZ of=6 ["DEALLOCATE"] tx=I committed=true`,
			`bind B statement:unknown`,
			`bind BS parse=3`,
		}},
		{"DISCARD ALL", []step{
			client(parse("s", "one"), syncMsg()),
			server(parsed(), ready('I')),
			client(query("discard all")),
			server(tag("DISCARD ALL"), ready('I')),
			client(bind("", "s"), syncMsg()),
		}, []string{
			`parse PS`,
			`outcome 1Z of=2 tx=I committed=true`,
			`query Q`,
			`outcome CZ of=4 ["DISCARD ALL"] tx=I committed=true`,
			`bind BS statement:unknown`,
		}},
		{"malformed", []step{
			client(msg('P', []byte("no end")), msg('B'), msg('E', []byte("x")), msg('D'), msg('C', byte('S')), syncMsg(), msg('Q', []byte("no end"))),
			server(failure("08P01"), ready('I'), failure("08P01"), ready('I')),
		}, []string{
			`parse P malformed:unterminated name`,
			`bind B malformed:unterminated name statement:unknown`,
			`execute EDCS malformed:unterminated name portal:unknown`,
			`query Q malformed:unterminated text`,
			`outcome EZ of=2 tx=I committed=false 08P01`,
			`outcome of=3 end=skipped`,
			`outcome of=4 end=skipped`,
			`outcome EZ of=5 tx=I committed=false 08P01`,
		}},
	})
}

func TestSkip(t *testing.T) {
	runDialogues(t, []dialogueTest{
		{"to the Sync behind", []step{
			client(parse("", "bad"), bind("", ""), execute("", 0), query("q"), call(1), parse("", "x"), bind("", ""), execute("", 0), syncMsg(), query("runs")),
			server(failure("42601"), ready('I'), tag("A"), ready('I')),
		}, []string{
			`execute PBE`,
			`query Q`,
			`function_call F`,
			`execute PBES`,
			`query Q`,
			`outcome EZ of=2 tx=I committed=false 42601`,
			`outcome of=3 end=skipped`,
			`outcome of=4 end=skipped`,
			`outcome of=5 end=skipped`,
			`outcome CZ of=6 ["A"] tx=I committed=true`,
		}},
		{"what is sent after the error", []step{
			client(parse("", "bad"), flush()),
			server(failure("42601")),
			client(query("q"), parse("s", "x"), describe('S', "s"), call(1)),
			client(data("x"), copyDone()),
			client(closing('S', "s"), syncMsg(), query("runs")),
			server(ready('I'), tag("A"), ready('I')),
			client(bind("", "s"), syncMsg()),
		}, []string{
			`parse PH`,
			`outcome E of=2 42601`,
			`query Q`,
			`outcome of=4 end=skipped`,
			`parse PD`,
			`outcome of=6 end=skipped`,
			`function_call F`,
			`outcome of=8 end=skipped`,
			`copy dc of=8 rows=1 direction:in`,
			`outcome of=10 end=discarded`,
			`query CSQ`,
			`settle Z of=2 tx=I committed=false since=2`,
			`outcome CZ of=12 ["A"] tx=I committed=true`,
			`bind BS statement:unknown`,
		}},
		{"error of a Describe on its own", []step{
			client(describe('S', "nope"), syncMsg()),
			server(failure("26000"), ready('I')),
		}, []string{
			`settle EZ tx=I 26000`,
		}},
		{"error at Sync", []step{
			client(parse("", "insert"), bind("", ""), execute("", 0), syncMsg()),
			server(parsed(), bound(), tag("INSERT 0 1"), failure("23503"), ready('I')),
		}, []string{
			`execute PBES`,
			`outcome 12C of=2 ["INSERT 0 1"]`,
			`settle EZ of=2 tx=I committed=false since=2 23503`,
		}},
		{"error at Sync in a read of its own", []step{
			client(parse("", "insert"), bind("", ""), execute("", 0), syncMsg()),
			server(parsed(), bound(), tag("INSERT 0 1")),
			server(failure("23503")),
			server(ready('I')),
		}, []string{
			`execute PBES`,
			`outcome 12C of=2 ["INSERT 0 1"]`,
			`settle E of=2 23503`,
			`settle Z of=2 tx=I committed=false since=2`,
		}},
	})
}
