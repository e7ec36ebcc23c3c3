package session

import "testing"

// A dialogueTest plays steps after a login (entries 0 and 1) and names the
// entries they make, from index 2 on.
type dialogueTest struct {
	name  string
	steps []step
	want  []string
}

func runDialogues(t *testing.T, tests []dialogueTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := loggedIn(t)
			d.play(tt.steps...)
			d.want(2, tt.want...)
		})
	}
}

func TestQuery(t *testing.T) {
	runDialogues(t, []dialogueTest{
		{"one", []step{
			client(query("select 1")),
			server(rowDescription(), dataRow("1"), tag("SELECT 1"), ready('I')),
		}, []string{
			`query Q`,
			`outcome TDCZ of=2 ["SELECT 1"] rows=1 tx=I committed=true`,
		}},
		{"end in a read of its own", []step{
			client(query("insert")),
			server(tag("INSERT 0 1")),
			server(ready('I')),
		}, []string{
			`query Q`,
			`outcome CZ of=2 ["INSERT 0 1"] tx=I committed=true`,
		}},
		{"several results", []step{
			client(query("a; b")),
			server(rowDescription(), dataRow("1"), dataRow("2"), tag("SELECT 2"), tag("INSERT 0 1"), ready('I')),
		}, []string{
			`query Q`,
			`outcome TDCCZ of=2 ["SELECT 2" "INSERT 0 1"] rows=2 tx=I committed=true`,
		}},
		{"empty", []step{
			client(query(";")),
			server(empty(), ready('I')),
		}, []string{
			`query Q`,
			`outcome IZ of=2 tx=I committed=true`,
		}},
		{"error in the middle", []step{
			client(query("insert; bad")),
			server(tag("INSERT 0 1"), failure("42601"), ready('I')),
		}, []string{
			`query Q`,
			`outcome CEZ of=2 ["INSERT 0 1"] tx=I committed=false 42601`,
		}},
		{"error and its end in two reads", []step{
			client(query("bad")),
			server(failure("42601")),
			server(ready('I')),
		}, []string{
			`query Q`,
			`outcome E of=2 42601`,
			`settle Z of=2 tx=I committed=false since=2`,
		}},
		{"notice", []step{
			client(query("DO $$ raise $$")),
			server(notice("00000"), tag("DO"), ready('I')),
		}, []string{
			`query Q`,
			`notice N of=2 00000`,
			`outcome CZ of=2 ["DO"] tx=I committed=true`,
		}},
		{"two in one read", []step{
			client(query("a"), query("b")),
			server(tag("A"), ready('I'), failure("22012"), ready('I')),
		}, []string{
			`query Q`,
			`query Q`,
			`outcome CZ of=2 ["A"] tx=I committed=true`,
			`outcome EZ of=3 tx=I committed=false 22012`,
		}},
		{"notifications between", []step{
			server(notification("x")),
			client(query("a")),
			server(notification("x"), tag("A"), ready('I'), notification("y")),
		}, []string{
			`notice A`,
			`query Q`,
			`notice A of=3`,
			`outcome CZ of=3 ["A"] tx=I committed=true`,
			`notice A`,
		}},
		{"settings", []step{
			client(query("set client_encoding = 'sjis'")),
			server(tag("SET"), setting("client_encoding", "SJIS"), ready('I')),
		}, []string{
			`query Q`,
			`outcome CSZ of=2 ["SET"] tx=I committed=true client_encoding:SJIS`,
		}},
		{"function call", []step{
			client(call(952)),
			server(msg('V', 4, 77), ready('I')),
			client(call(952)),
			server(failure("42883"), ready('I')),
		}, []string{
			`function_call F`,
			`outcome VZ of=2 tx=I committed=true`,
			`function_call F`,
			`outcome EZ of=4 tx=I committed=false 42883`,
		}},
	})
}
