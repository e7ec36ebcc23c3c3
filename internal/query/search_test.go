package query

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

const one = "0000000000000001"

var done = event.Leaf{Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 57, Micros: 180, Tx: 'I', Committed: 1}

const doneJSON = `"tag":"SELECT 1","rows":1,"bytes":57,"duration_us":180,"tx":"I","committed":true}}`

func TestJoin(t *testing.T) {
	tests := []struct {
		name string
		log  func(l *fakeLog)
		want []string
	}{
		{"query", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT 1")), done, nil)
		}, []string{header(0, one, "query") + `,"statement":"SELECT 1","outcome":{"index":1,` + doneJSON}},

		{"query with several statements", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT 1; DELETE FROM t")),
				event.Leaf{Tags: []string{"SELECT 1", "DELETE 0"}, Rows: 1, Bytes: 10, Tx: 'I', Committed: 1}, nil)
		}, []string{header(0, one, "query") + `,"statement":"SELECT 1; DELETE FROM t",` +
			`"outcome":{"index":1,"tags":["SELECT 1","DELETE 0"],"rows":1,"bytes":10,"duration_us":0,"tx":"I","committed":true}}`}},

		{"more tags than a leaf holds", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("a;b;c")), event.Leaf{Tags: []string{"A"}, Tx: 'I', Committed: 1},
				join(msg('C', cstr("A")), msg('C', cstr("B")), msg('C', cstr("C"))))
		}, []string{header(0, one, "query") + `,"statement":"a;b;c",` +
			`"outcome":{"index":1,"tags":["A","B","C"],"rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":true}}`}},

		{"error", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT x")),
				event.Leaf{SQLState: "42P01", Micros: 5, Tx: 'I', Committed: -1}, errorFrame("42P01", `no "x"`))
		}, []string{header(0, one, "query") + `,"statement":"SELECT x","outcome":{"index":1,"rows":0,"bytes":0,` +
			`"duration_us":5,"tx":"I","committed":false,"error":{"sqlstate":"42P01","message":"no \"x\"","severity":"ERROR","routine":"exec"}}}`}},

		{"error whose frame is gone", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("x")), event.Leaf{SQLState: "42601", Tx: 'I'}, nil)
		}, []string{header(0, one, "query") + `,"statement":"x","outcome":{"index":1,"rows":0,"bytes":0,` +
			`"duration_us":0,"tx":"I","error":{"sqlstate":"42601","message":""}}}`}},

		{"end never seen", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT 1")), event.Leaf{End: event.EndUnknown}, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindDisconnect, Facts: []event.Fact{{Key: "reason", Val: "client EOF"}}}, nil)
		}, []string{
			header(0, one, "query") + `,"statement":"SELECT 1"}`,
			`{"index":2,"time":"2026-09-21T14:13:20.003000000Z","session":"0000000000000001","kind":"disconnect","facts":{"reason":"client EOF"}}`,
		}},

		{"killed", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("SELECT 1")), event.Leaf{End: event.EndUnknown, SQLState: "57P01"}, errorFrame("57P01", "bye"))
		}, []string{header(0, one, "query") + `,"statement":"SELECT 1","outcome":{"index":1,"rows":0,"bytes":0,"duration_us":0,` +
			`"error":{"sqlstate":"57P01","message":"bye","severity":"ERROR","routine":"exec"}}}`}},

		{"invalid UTF-8, control characters", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, queryMsg("a\xffb\n\x01é")), done, nil)
		}, []string{header(0, one, "query") + `,"statement":"a` + "\uFFFD" + `b\n\u0001é","outcome":{"index":1,` + doneJSON}},

		{"parse, bind and execute in one", func(l *fakeLog) {
			l.end(l.admit(event.KindExecute, join(parseFrame("", "SELECT $1, $2, $3", 23, 25), bindFrame("", "", []int{1, 0, 0},
				be32(42), nil, []byte("x")), msg('D', cstr("P")), executeFrame("", 0), msg('S'))), done, nil)
		}, []string{header(0, one, "execute") + `,"statement":"SELECT $1, $2, $3","params":[` +
			`{"type":"int4","format":"binary","value":"42","raw":"AAAAKg=="},{"type":"text","format":"text","value":null},` +
			`{"format":"text","value":"x","raw":"eA=="}],"outcome":{"index":1,` + doneJSON}},

		{"prepared statement, types from the server's answer", func(l *fakeLog) {
			p := l.admit(event.KindParse, join(parseFrame("s1", "SELECT $1"), msg('D', cstr("Ss1")), msg('S')))
			l.end(p, event.Leaf{Types: []uint32{20}, Tx: 'I'}, nil)
			x := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(p)},
				join(bindFrame("", "s1", []int{1}, append(be32(0), be32(7)...)), executeFrame("", 0), msg('S')))
			l.end(x, done, nil)
		}, []string{
			header(0, one, "parse") + `,"statement":"SELECT $1","prepared":"s1","outcome":{"index":1,"duration_us":0,"tx":"I"}}`,
			header(2, one, "execute") + `,"statement":"SELECT $1","params":[{"type":"int8","format":"binary","value":"7","raw":"AAAAAAAAAAc="}],` +
				`"prepared":"s1","outcome":{"index":3,` + doneJSON,
		}},

		{"prepared, executed with nothing of its own", func(l *fakeLog) {
			p := l.admit(event.KindParse, join(parseFrame("s1", "COMMIT"), msg('S')))
			l.end(p, event.Leaf{Tx: 'I'}, nil)
			for _, value := range [][]byte{join(bindFrame("", "s1", nil), executeFrame("", 0), msg('S')), nil} { // as it may be recorded
				l.end(l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(p)}, value), done, nil)
			}
		}, []string{
			header(0, one, "parse") + `,"statement":"COMMIT","prepared":"s1","outcome":{"index":1,"duration_us":0,"tx":"I"}}`,
			header(2, one, "execute") + `,"statement":"COMMIT","prepared":"s1","outcome":{"index":3,` + doneJSON,
			header(4, one, "execute") + `,"statement":"COMMIT","prepared":"s1","outcome":{"index":5,` + doneJSON,
		}},

		{"types in the leaf", func(l *fakeLog) {
			p := l.admit(event.KindParse, parseFrame("s1", "SELECT $1"))
			l.end(p, event.Leaf{}, nil)
			x := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(p), Types: []uint32{21}},
				join(bindFrame("", "s1", []int{1}, be16(3)), executeFrame("", 0), msg('S')))
			l.end(x, done, nil)
		}, []string{
			header(0, one, "parse") + `,"statement":"SELECT $1","prepared":"s1","outcome":{"index":1,"duration_us":0}}`,
			header(2, one, "execute") + `,"statement":"SELECT $1","params":[{"type":"int2","format":"binary","value":"3","raw":"AAM="}],` +
				`"prepared":"s1","outcome":{"index":3,` + doneJSON,
		}},

		{"portal run in parts, bind not shown", func(l *fakeLog) {
			b := l.admit(event.KindBind, join(parseFrame("", "SELECT 9", 23), bindFrame("c", "", nil, []byte("5"))))
			l.end(b, event.Leaf{Tx: 'T'}, nil)
			x := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: event.Ref(b)}, join(executeFrame("c", 2), msg('H')))
			l.end(x, event.Leaf{Rows: 2, Bytes: 20, End: event.EndSuspended}, nil)
			y := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: event.Ref(b)}, join(executeFrame("c", 0), msg('S')))
			l.end(y, event.Leaf{Tags: []string{"SELECT 3"}, Rows: 1, Bytes: 10, Tx: 'I', Committed: 1, Since: event.Ref(x)}, nil)
		}, []string{
			header(2, one, "execute") + `,"statement":"SELECT 9","params":[{"type":"int4","format":"text","value":"5","raw":"NQ=="}],"portal":"c","max_rows":2,` +
				`"outcome":{"index":3,"rows":2,"bytes":20,"duration_us":0,"committed":true,"suspended":true}}`,
			header(4, one, "execute") + `,"statement":"SELECT 9","params":[{"type":"int4","format":"text","value":"5","raw":"NQ=="}],"portal":"c",` +
				`"outcome":{"index":5,"tag":"SELECT 3","rows":1,"bytes":10,"duration_us":0,"tx":"I","committed":true}}`,
		}},

		{"bind that failed, execute skipped", func(l *fakeLog) {
			p := l.admit(event.KindParse, parseFrame("s", "SELECT $1", 23))
			l.end(p, event.Leaf{}, nil)
			b := l.add(event.Leaf{Session: 1, Kind: event.KindBind, Who: alice, Parse: event.Ref(p)}, bindFrame("", "s", nil, []byte("x")))
			x := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: event.Ref(b)}, join(executeFrame("", 0), msg('S')))
			l.end(b, event.Leaf{SQLState: "22P02"}, errorFrame("22P02", "bad"))
			l.end(x, event.Leaf{End: event.EndSkipped, Tx: 'I'}, nil)
		}, []string{
			header(0, one, "parse") + `,"statement":"SELECT $1","prepared":"s","outcome":{"index":1,"duration_us":0}}`,
			header(2, one, "bind") + `,"statement":"SELECT $1","params":[{"type":"int4","format":"text","value":"x","raw":"eA=="}],"prepared":"s",` +
				`"outcome":{"index":4,"duration_us":0,"error":{"sqlstate":"22P02","message":"bad","severity":"ERROR","routine":"exec"}}}`,
			header(3, one, "execute") + `,"statement":"SELECT $1","params":[{"type":"int4","format":"text","value":"x","raw":"eA=="}],"prepared":"s",` +
				`"outcome":{"index":5,"tx":"I","skipped":true}}`,
		}},

		{"commit that failed, told by two settles", func(l *fakeLog) {
			a := l.admit(event.KindQuery, queryMsg("INSERT"))
			l.end(a, event.Leaf{Tags: []string{"INSERT 0 1"}}, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(a), SQLState: "23503"}, errorFrame("23503", "no parent"))
			l.add(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(a), Since: event.Ref(a), Committed: -1, Tx: 'I'}, nil)
			b := l.admit(event.KindQuery, queryMsg("SELECT 1")) // what comes while it idles undoes nothing
			l.end(b, done, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(b), SQLState: "57P01"}, errorFrame("57P01", "bye"))
		}, []string{
			header(0, one, "query") + `,"statement":"INSERT","outcome":{"index":1,"tag":"INSERT 0 1","rows":0,"bytes":0,"duration_us":0,"tx":"I",` +
				`"committed":false,"error":{"sqlstate":"23503","message":"no parent","severity":"ERROR","routine":"exec"}}}`,
			header(4, one, "query") + `,"statement":"SELECT 1","outcome":{"index":5,` + doneJSON,
		}},

		{"transaction rolled back, told by a settle", func(l *fakeLog) {
			a := l.admit(event.KindQuery, queryMsg("BEGIN"))
			l.end(a, event.Leaf{Tags: []string{"BEGIN"}, Tx: 'T'}, nil)
			b := l.admit(event.KindQuery, queryMsg("INSERT"))
			l.end(b, event.Leaf{Tags: []string{"INSERT 0 1"}, Tx: 'T'}, nil)
			c := l.admit(event.KindQuery, queryMsg("ROLLBACK"))
			l.end(c, event.Leaf{Tags: []string{"ROLLBACK"}}, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindSettle, Of: event.Ref(c), Since: event.Ref(a), Committed: -1, Tx: 'I'}, nil)
			l.admit(event.KindQuery, queryMsg("BEGIN"))
		}, []string{
			header(0, one, "query") + `,"statement":"BEGIN","outcome":{"index":1,"tag":"BEGIN","rows":0,"bytes":0,"duration_us":0,"tx":"T","committed":false}}`,
			header(2, one, "query") + `,"statement":"INSERT","outcome":{"index":3,"tag":"INSERT 0 1","rows":0,"bytes":0,"duration_us":0,"tx":"T","committed":false}}`,
			header(4, one, "query") + `,"statement":"ROLLBACK","outcome":{"index":5,"tag":"ROLLBACK","rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":false}}`,
			header(7, one, "query") + `,"statement":"BEGIN"}`,
		}},

		{"open transaction, then a crash", func(l *fakeLog) {
			a := l.admit(event.KindQuery, queryMsg("BEGIN"))
			l.end(a, event.Leaf{Tags: []string{"BEGIN"}, Tx: 'T'}, nil)
			l.admit(event.KindQuery, queryMsg("SELECT"))
			l.add(event.Leaf{Kind: event.KindStart, Facts: []event.Fact{{Key: "version", Val: "1"}}}, nil)
		}, []string{
			header(0, one, "query") + `,"statement":"BEGIN","outcome":{"index":1,"tag":"BEGIN","rows":0,"bytes":0,"duration_us":0,"tx":"T"}}`,
			header(2, one, "query") + `,"statement":"SELECT"}`,
			header(3, "", "start") + `,"facts":{"version":"1"}}`,
		}},

		{"connect, auth, violation, cancel", func(l *fakeLog) {
			l.admit(event.KindConnect, join(be32(0), be32(196608), cstr("user"), cstr("bob"), cstr("options"), cstr("-c x=1"), cstr("user"), cstr("alice"), []byte{0}))
			l.add(event.Leaf{Session: 1, Kind: event.KindAuth, SQLState: "28P01", Facts: []event.Fact{{Key: "result", Val: "failed"}}}, errorFrame("28P01", "no"))
			l.admit(event.KindViolation, []byte("GET /"))
			l.add(event.Leaf{Kind: event.KindCancel, Who: &event.Who{Client: "[::1]:9"}, Of: event.Ref(0)}, nil)
		}, []string{
			header(0, one, "connect") + `,"protocol":"3.0","parameters":{"user":"bob","options":"-c x=1","user":"alice"}}`,
			`{"index":1,"time":"2026-09-21T14:13:20.002000000Z","session":"0000000000000001","kind":"auth","facts":{"result":"failed"},` +
				`"error":{"sqlstate":"28P01","message":"no","severity":"ERROR","routine":"exec"}}`,
			header(2, one, "violation") + `,"raw":"R0VUIC8="}`,
			`{"index":3,"time":"2026-09-21T14:13:20.004000000Z","client":"[::1]:9","kind":"cancel","of":0}`,
		}},

		{"copy, notice, notification", func(l *fakeLog) {
			q := l.admit(event.KindQuery, queryMsg("COPY t FROM STDIN"))
			sum := make([]byte, 32)
			sum[31] = 1
			l.add(event.Leaf{Session: 1, Kind: event.KindCopy, Who: alice, Of: event.Ref(q), Rows: 2, Bytes: 9}, sum)
			l.end(q, event.Leaf{Tags: []string{"COPY 2"}, Tx: 'I', Committed: 1}, nil)
			l.add(event.Leaf{Session: 1, Kind: event.KindNotice, Who: alice, SQLState: "00000"}, msg('N', cstr("SNOTICE"), cstr("C00000"), cstr("Mhi"), []byte{0}))
			l.admit(event.KindNotice, msg('A', be32(77), cstr("ch"), cstr("pay")))
		}, []string{
			header(0, one, "query") + `,"statement":"COPY t FROM STDIN","outcome":{"index":2,"tag":"COPY 2","rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":true}}`,
			header(1, one, "copy") + `,"of":0,"messages":2,"bytes":9,"sha256":"0000000000000000000000000000000000000000000000000000000000000001"}`,
			header(3, one, "notice") + `,"notice":{"sqlstate":"00000","message":"hi","severity":"NOTICE"}}`,
			header(4, one, "notice") + `,"notification":{"pid":77,"channel":"ch","payload":"pay"}}`,
		}},

		{"COPY data that was read, and data that was dropped", func(l *fakeLog) {
			in := []event.Fact{{Key: "direction", Val: "in"}}
			q := l.admit(event.KindQuery, queryMsg("COPY t FROM STDIN"))
			l.add(event.Leaf{Session: 1, Kind: event.KindCopy, Who: alice, Of: event.Ref(q), Facts: in}, nil)
			l.end(q, event.Leaf{Tags: []string{"COPY 2"}, Tx: 'I', Committed: 1}, nil)
			q = l.admit(event.KindQuery, queryMsg("COPY x FROM STDIN"))
			c := l.add(event.Leaf{Session: 1, Kind: event.KindCopy, Who: alice, Of: event.Ref(q), Facts: in}, nil)
			l.end(q, event.Leaf{SQLState: "42P01", Tx: 'I', Committed: -1}, nil)
			l.end(c, event.Leaf{End: event.EndDiscarded}, nil)
		}, []string{
			header(0, one, "query") + `,"statement":"COPY t FROM STDIN","outcome":{"index":2,"tag":"COPY 2","rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":true}}`,
			header(1, one, "copy") + `,"of":0,"facts":{"direction":"in"},"messages":0,"bytes":0}`,
			header(3, one, "query") + `,"statement":"COPY x FROM STDIN","outcome":{"index":5,"rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":false,` +
				`"error":{"sqlstate":"42P01","message":""}}}`,
			header(4, one, "copy") + `,"of":3,"facts":{"direction":"in"},"messages":0,"bytes":0,"outcome":{"index":6,"discarded":true}}`,
		}},

		{"ROLLBACK TO SAVEPOINT: what was before it is not known", func(l *fakeLog) {
			a := l.admit(event.KindQuery, queryMsg("INSERT"))
			l.end(a, event.Leaf{Tags: []string{"INSERT 0 1"}, Tx: 'T'}, nil)
			b := l.admit(event.KindQuery, queryMsg("UPDATE"))
			l.end(b, event.Leaf{Tags: []string{"UPDATE 1"}, Tx: 'T'}, nil)
			c := l.admit(event.KindQuery, queryMsg("COMMIT"))
			l.end(c, event.Leaf{Tags: []string{"COMMIT"}, Tx: 'I', Committed: 1, Since: event.Ref(b)}, nil)
		}, []string{
			header(0, one, "query") + `,"statement":"INSERT","outcome":{"index":1,"tag":"INSERT 0 1","rows":0,"bytes":0,"duration_us":0,"tx":"T"}}`,
			header(2, one, "query") + `,"statement":"UPDATE","outcome":{"index":3,"tag":"UPDATE 1","rows":0,"bytes":0,"duration_us":0,"tx":"T","committed":true}}`,
			header(4, one, "query") + `,"statement":"COMMIT","outcome":{"index":5,"tag":"COMMIT","rows":0,"bytes":0,"duration_us":0,"tx":"I","committed":true}}`,
		}},

		{"function call", func(l *fakeLog) {
			f := l.admit(event.KindFunctionCall, msg('F', be32(955), arguments([]int{1}, [][]byte{be32(3), []byte("hi")}), be16(1)))
			l.end(f, event.Leaf{Tx: 'I', Committed: 1, Micros: 2}, nil)
		}, []string{header(0, one, "function_call") + `,"function":{"oid":955,"name":"lowrite"},"params":[` +
			`{"type":"int4","format":"binary","value":"3","raw":"AAAAAw=="},{"type":"bytea","format":"binary","value":"\\x6869","raw":"aGk="}],` +
			`"outcome":{"index":1,"duration_us":2,"tx":"I","committed":true}}`}},

		{"malformed messages", func(l *fakeLog) {
			l.end(l.admit(event.KindQuery, msg('Q', []byte("no NUL"))), done, nil)
			l.end(l.admit(event.KindExecute, join(parseFrame("", "a"), msg('B', cstr(""), cstr(""), be16(0), be16(2), be32(1), []byte("x"), be32(-2)),
				executeFrame("", 0))), done, nil)
		}, []string{
			header(0, one, "query") + `,"statement":"no NUL","malformed":true,"outcome":{"index":1,` + doneJSON,
			header(2, one, "execute") + `,"statement":"a","params":[{"format":"text","value":"x","raw":"eA=="}],"malformed":true,"outcome":{"index":3,` + doneJSON,
		}},

		{"cursor declared in SQL: text not known", func(l *fakeLog) {
			l.end(l.admit(event.KindExecute, join(executeFrame("cur", 5), msg('S'))), done, nil)
		}, []string{header(0, one, "execute") + `,"portal":"cur","max_rows":5,"outcome":{"index":1,` + doneJSON}},

		{"blob, and one that is gone", func(l *fakeLog) {
			l.blobs = map[[16]byte][]byte{{1}: queryMsg("SELECT 'long'")}
			for i := byte(1); i <= 2; i++ {
				x := l.admit(event.KindQuery, []byte{})
				l.entries[x].Value, l.entries[x].Blob = nil, &journal.BlobRef{ID: [16]byte{i}, Size: 1}
				l.end(x, done, nil)
			}
		}, []string{
			header(0, one, "query") + `,"statement":"SELECT 'long'","outcome":{"index":1,` + doneJSON,
			header(2, one, "query") + `,"unavailable":true,"outcome":{"index":3,` + doneJSON,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l fakeLog
			tt.log(&l)
			if d := cmp.Diff(tt.want, l.search(t, Filter{})); d != "" {
				t.Errorf("search differs (-want +got):\n%s", d)
			}
		})
	}
}
