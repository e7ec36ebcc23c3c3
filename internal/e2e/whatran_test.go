package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
)

// A trick is a dialogue that might have another statement recorded than the one that ran, or another end of it.
type trick struct {
	dialogue
	want []string // the statements of the record, see told and fate
}

// TestWhatRan plays tricks on the record. What the client receives must be the same as from the server itself.
func TestWhatRan(t *testing.T) {
	t.Parallel()
	t.Run("usual", func(t *testing.T) { whatRan(t, "") })
	t.Run("18", func(t *testing.T) {
		bin, _ := major(t, "18")
		whatRan(t, bin)
	})
}

func whatRan(t *testing.T, bin string) {
	t.Parallel()
	s := auditedServer(t, bin)
	for _, sql := range []string{tricksSchema, tricksDatabase} {
		if _, err := s.Psql(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	n, version := start(t, s.Addr()), majorOf(t, s.Addr())
	played := slices.DeleteFunc(append(tricks(), fates()...), func(d trick) bool { return version < d.first || d.last != 0 && version > d.last })
	for _, d := range played {
		t.Run(d.name, func(t *testing.T) {
			want := hold(t, s.Addr(), d.dialogue, deliveries()[0])
			compare(t, "whole", hold(t, n.addr, d.dialogue, deliveries()[0]), want)
		})
	}
	got, ends := map[string][]string{}, map[string][]string{}
	texts := map[int64]string{}
	var sessions []string
	for _, r := range n.finish(t) {
		switch r.Kind {
		case "connect":
			sessions = append(sessions, r.Session)
		case "query", "execute":
			texts[r.Index] = r.Statement
			got[r.Session] = append(got[r.Session], told(r))
			ends[r.Session] = append(ends[r.Session], fate(r))
		case "copy":
			ends[r.Session] = append(ends[r.Session], "data of "+texts[r.Of])
		}
	}
	for i, d := range played {
		if i >= len(sessions) {
			t.Fatalf("%d sessions recorded, want %d", len(sessions), len(played))
		}
		is := got[sessions[i]]
		if i >= len(tricks()) {
			is = ends[sessions[i]]
		}
		if !slices.Equal(is, d.want) {
			t.Errorf("%s: recorded\n %s\nwant\n %s", d.name, strings.Join(is, "\n "), strings.Join(d.want, "\n "))
		}
	}
}

// fate is told, and what became of the work, who the client says it is and who it is from then on.
func fate(r record) string {
	text := told(r)
	if r.User != "postgres" {
		text = r.User + ": " + text
	}
	o := r.Outcome
	if o == nil {
		return text
	}
	if user := o.Facts["session_authorization"]; user != "" {
		text += ", now " + user
	}
	if o.Committed != nil {
		text += map[bool]string{true: ", committed", false: ", rolled back"}[*o.Committed]
	}
	return text
}

// told is what the record says of a statement: its text and its end, and whether either is not certain.
func told(r record) string {
	text := r.Statement
	for _, key := range []string{"statement", "portal"} {
		if r.Facts[key] != "" {
			text += ", " + key + " " + r.Facts[key]
		}
	}
	o := r.Outcome
	switch {
	case o == nil:
		return text
	case o.Skipped:
		return text + ": skipped"
	case o.Error != nil:
		return text + ": " + o.Error.SQLState
	case o.Facts["statement"] != "":
		text += ", statement " + o.Facts["statement"]
	}
	return fmt.Sprint(text, ": ", o.Tag, strings.Join(o.Tags, "+"))
}

const tricksSchema = `
CREATE TABLE tricks (i int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION tricked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '08P01'; END $$;
CREATE TABLE refusing (i int);
CREATE ROLE tricked;
CREATE TRIGGER tricked BEFORE INSERT ON refusing FOR EACH STATEMENT EXECUTE FUNCTION tricked();
CREATE TABLE work (i int);
CREATE TABLE slow (i int);
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN new; END $$;
CREATE TRIGGER sleep BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION sleep();
CREATE TABLE twice (i int);
INSERT INTO twice VALUES (1), (1);
CREATE PROCEDURE half() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO work VALUES (1); COMMIT; PERFORM 1/0; END $$;
CREATE ROLE a23456789b23456789c23456789d23456789e23456789f23456789g23456789 LOGIN;`

const tricksDatabase = "CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"

// long is a message with a byte more than the server takes.
func long(m []byte) []byte { return pgraw.Msg(m[0], m[5:], 0) }

// fates are tricks of which the end is told, too.
func fates() []trick {
	const a63 = "a23456789b23456789c23456789d23456789e23456789f23456789g23456789"
	p5000, e62 := strings.Repeat("p", 5000), strings.Repeat("é", 31)
	latin1 := say("Z", pgraw.Startup(3<<16, "user", "postgres", "database", "latin1", "client_encoding", "UTF8"))
	begin, fail := say("Z", query("BEGIN")), run("SELECT 1/0")
	named := func(text string) step { return say("Z", parse("n", text), sync()) }
	work := say("Z", run("INSERT INTO work VALUES (1)"), sync())
	const inserted = "INSERT INTO work VALUES (1): INSERT 0 1"
	return []trick{
		{dialogue{name: "an unnamed statement that a bad Parse leaves", steps: []step{
			say("Z", parse("", "SELECT 'evil'"), sync()),
			say("ZZ", long(parse("", "SELECT 'harmless'")), sync(), bindText("", ""), execute("", 0), sync()),
		}}, []string{"SELECT 'harmless', statement uncertain: SELECT 1, committed"}},
		{dialogue{name: "and one in another encoding", steps: []step{
			say("Z", parse("", "SELECT 'evil'"), sync()),
			say("ZZZ", parse("", "SELECT '\xff'"), sync(), bindText("p", ""), execute("p", 0), sync(), query("SELECT 1")),
		}}, []string{"SELECT '\ufffd', statement uncertain: SELECT 1, committed", "SELECT 1: SELECT 1, committed"}},
		{dialogue{name: "an unnamed portal that a bad Bind leaves", steps: []step{
			begin, say("Z", parse("s", "SAVEPOINT a"), parse("r", "ROLLBACK TO a"), parse("h", "SELECT 'harmless'"), sync()),
			say("Z", parse("", "SELECT 'evil'"), bindText("", ""), bindText("p", "s"), execute("p", 0), sync()),
			say("ZZ", bindText("", "h", "1"), sync(), bindText("q", "r"), execute("q", 0), execute("", 0), sync()),
			say("Z", query("COMMIT")),
		}}, []string{
			"BEGIN: BEGIN, committed", "SAVEPOINT a: SAVEPOINT, committed", "ROLLBACK TO a: ROLLBACK, rolled back",
			"SELECT 'harmless', statement uncertain: SELECT 1, committed", "COMMIT: COMMIT, committed",
		}},
		{dialogue{name: "names that are the same in the client's encoding only", raw: true, steps: []step{
			latin1, say("Z", parse(e62+"éA", "SELECT 'evil'"), sync()),
			say("Z", parse(e62+"éB", "SELECT 'harmless'"), bindText("", e62+"éA"), execute("", 0), sync()),
		}}, []string{"SELECT 'harmless', statement uncertain: SELECT 1, committed"}},
		{dialogue{name: "portals likewise", raw: true, steps: []step{
			latin1, begin, say("Z", parse("e", "SELECT 'evil'"), parse("h", "SELECT 'harmless'"), bindText(e62+"éA", "e"), sync()),
			say("Z", bindText(e62+"éB", "h"), execute(e62+"éA", 0), sync()),
		}}, []string{"BEGIN: BEGIN, rolled back", "SELECT 'harmless', portal uncertain: SELECT 1, rolled back"}},
		{dialogue{name: "a statement behind a portal's long name", steps: []step{
			say("Z", parse("", "SELECT 'harmless' || $1::text"), parse("e", "SELECT 'evil' || $1::text"), sync()),
			say("Z", bindText(p5000, "e", strings.Repeat("v", 300<<10)), execute(p5000, 0), sync()),
		}}, []string{": SELECT 1, committed"}},
		{dialogue{name: "a name that a DO changes and fails", steps: []step{
			say("Z", parse("s", "SELECT 'harmless'"), sync()),
			say("Z", query("DO $$ BEGIN EXECUTE 'DEALLOCATE s'; EXECUTE 'PREPARE s AS SELECT 1'; RAISE EXCEPTION 'no'; END $$")),
			say("Z", bindText("", "s"), execute("", 0), sync()),
		}}, []string{
			"DO $$ BEGIN EXECUTE 'DEALLOCATE s'; EXECUTE 'PREPARE s AS SELECT 1'; RAISE EXCEPTION 'no'; END $$: P0001",
			"SELECT 'harmless', statement uncertain: SELECT 1, committed",
		}},
		{dialogue{name: "a COMMIT by EXECUTE, and an error", steps: []step{
			named("COMMIT"), begin, work, say("Z", run("EXECUTE n"), fail, sync()),
		}}, []string{"BEGIN: BEGIN", inserted, "EXECUTE n: COMMIT", "SELECT 1/0: 22012"}},
		{dialogue{name: "and in one Query", steps: []step{
			named("COMMIT"), begin, work, say("Z", query("EXECUTE n; SELECT 1/0")),
		}}, []string{"BEGIN: BEGIN", inserted, "EXECUTE n; SELECT 1/0: 22012"}},
		{dialogue{name: "and what fails when it is committed", steps: []step{
			named("COMMIT"), begin, work, say("Z", run("INSERT INTO tricks VALUES (1), (1)"), sync()), say("Z", run("EXECUTE n"), sync()),
		}}, []string{"BEGIN: BEGIN", inserted, "INSERT INTO tricks VALUES (1), (1): INSERT 0 2", "EXECUTE n: COMMIT"}},
		{dialogue{name: "a ROLLBACK TO by EXECUTE", steps: []step{
			named("ROLLBACK TO a"), begin, say("Z", query("SAVEPOINT a")),
			say("Z", run("EXECUTE n"), run("INSERT INTO work VALUES (1)"), sync()), work, say("Z", query("COMMIT")),
		}}, []string{"BEGIN: BEGIN", "SAVEPOINT a: SAVEPOINT", "EXECUTE n: ROLLBACK", inserted, inserted + ", committed", "COMMIT: COMMIT, committed"}},
		{dialogue{name: "a ROLLBACK in the code of a DO, in pieces", steps: []step{
			say("Z", query("DO 'BEGIN INSERT INTO work VALUES (1); ROLL'\n'BACK; END'")),
			say("Z", query("DO U&'BEGIN INSERT INTO work VALUES (1); !0052OLLBACK; END' UESCAPE '!'")),
		}}, []string{
			"DO 'BEGIN INSERT INTO work VALUES (1); ROLL'\n'BACK; END': DO",
			"DO U&'BEGIN INSERT INTO work VALUES (1); !0052OLLBACK; END' UESCAPE '!': DO",
		}},
		{dialogue{name: "a CALL behind a space that newer servers know", first: 16, steps: []step{say("Z", query("\vCALL half()"))}}, []string{"\vCALL half(): 22012"}},
		{dialogue{name: "a CALL behind PREPARE TRANSACTION", steps: []step{
			begin, say("Z", run("INSERT INTO work VALUES (1)"), run("PREPARE TRANSACTION 'x'"), run("CALL half()"), sync()),
			say("Z", query("ROLLBACK PREPARED 'x'")),
		}}, []string{"BEGIN: BEGIN", inserted, "PREPARE TRANSACTION 'x': PREPARE TRANSACTION", "CALL half(): 22012", "ROLLBACK PREPARED 'x': ROLLBACK PREPARED, committed"}},
		{dialogue{name: "a PREPARE TRANSACTION of none, which says ROLLBACK", last: 17, steps: []step{
			say("Z", run("INSERT INTO work VALUES (1)"), run("PREPARE TRANSACTION 'x'"), sync()),
			say("Z", run("INSERT INTO work VALUES (1)"), query("PREPARE TRANSACTION 'x'")),
			begin, say("Z", query("SELECT 1/0")), say("Z", run("PREPARE TRANSACTION 'x'"), sync()),
		}}, []string{
			inserted + ", committed", "PREPARE TRANSACTION 'x': ROLLBACK, committed", inserted + ", committed", "PREPARE TRANSACTION 'x': ROLLBACK, committed",
			"BEGIN: BEGIN, rolled back", "SELECT 1/0: 22012, rolled back", "PREPARE TRANSACTION 'x': ROLLBACK, rolled back",
		}},
		{dialogue{name: "a CALL that the record cannot name", steps: []step{
			say("Z", parse("", "CALL half()"), sync()), say("Z", parse("u", "SELECT 1/0"), bindText("u", "u"), execute("u", 0), query("SELECT 1"), sync()),
			say("Z", bindText("", ""), execute("", 0), sync()),
		}}, []string{"SELECT 1/0: 22012, rolled back", "SELECT 1: skipped", ", statement unknown: 22012"}},
		{dialogue{name: "what commits by itself", steps: []step{
			begin, say("Z", run("INSERT INTO work VALUES (1)"), run("PREPARE TRANSACTION 'x'"), sync()),
			say("Z", run("COMMIT PREPARED 'x'"), fail, sync()), say("Z", run("DISCARD ALL"), run("SELECT 1/0"), sync()),
			begin, say("Z", run("COMMIT"), run("VACUUM work"), fail, sync()),
			say("Z", query("CREATE UNIQUE INDEX CONCURRENTLY unique_twice ON twice (i)")), say("Z", query("DROP INDEX unique_twice")),
		}}, []string{
			"BEGIN: BEGIN", inserted, "PREPARE TRANSACTION 'x': PREPARE TRANSACTION",
			"COMMIT PREPARED 'x': COMMIT PREPARED", "SELECT 1/0: 22012, rolled back", "DISCARD ALL: DISCARD ALL", "SELECT 1/0: 22012, rolled back",
			"BEGIN: BEGIN, committed", "COMMIT: COMMIT, committed", "VACUUM work: VACUUM", "SELECT 1/0: 22012, rolled back",
			"CREATE UNIQUE INDEX CONCURRENTLY unique_twice ON twice (i): 23505", "DROP INDEX unique_twice: DROP INDEX, committed",
		}},
		{dialogue{name: "data of the second of two COPYs, while the first one goes on", steps: []step{
			say("G", query("COPY slow FROM STDIN"), pgraw.CopyData([]byte("1\n")), pgraw.CopyDone(), query("COPY work FROM STDIN")),
			say("ZZ", pgraw.CopyData([]byte("2\n")), pgraw.CopyDone()),
		}}, []string{"COPY slow FROM STDIN: COPY 1, committed", "data of COPY slow FROM STDIN", "COPY work FROM STDIN: COPY 1, committed", "data of COPY work FROM STDIN"}},
		{dialogue{name: "another user by Execute", steps: []step{
			say("Z", run("SET SESSION AUTHORIZATION pg_monitor"), sync()), say("Z", run("SELECT 1"), sync()),
		}}, []string{"SET SESSION AUTHORIZATION pg_monitor: SET, now pg_monitor, committed", "SELECT 1: SELECT 1, committed"}},
		{dialogue{name: "a user by a longer name", raw: true, steps: []step{
			say("Z", pgraw.Startup(3<<16, "user", a63+"xyz", "database", "postgres")), say("Z", query("SELECT session_user")),
		}}, []string{a63 + ": SELECT session_user: SELECT 1, committed"}},
	}
}

func tricks() []trick {
	data, done, end := pgraw.CopyData, pgraw.CopyDone(), say(".", pgraw.Msg('X'))
	n63 := strings.Repeat("n", 63)
	return []trick{
		{dialogue{name: "names that are the same to the server", steps: []step{
			say("Z", parse(n63+"a", "SELECT 'harmless'"), sync()), say("Z", pgraw.CloseName('S', n63+"b"), sync()),
			say("Z", parse(n63+"c", "SELECT 'evil'"), sync()), say("Z", bindText("", n63+"a"), execute("", 0), sync()),
		}}, []string{"SELECT 'evil': SELECT 1"}},
		{dialogue{name: "portals that are the same to the server", steps: []step{
			say("Z", query("BEGIN")), say("Z", parse("h", "SELECT 'harmless'"), bindText(n63+"a", "h"), sync()),
			say("Z", pgraw.CloseName('P', n63+"b"), parse("e", "SELECT 'evil'"), bindText(n63+"b", "e"), sync()),
			say("Z", execute(n63+"a", 0), sync()),
		}}, []string{"BEGIN: BEGIN", "SELECT 'evil': SELECT 1"}},
		{dialogue{name: "names that another encoding makes the same", steps: []step{
			say("Z", query("SET client_encoding = 'LATIN1'")),
			say("Z", parse("\xc3\xa9", "SELECT 'harmless'"), parse("\xe9", "SELECT 'evil'"), sync()),
			say("Z", query("SET client_encoding = 'UTF8'")), say("Z", bindText("", "\xc3\xa9"), execute("", 0), sync()),
		}}, []string{
			"SET client_encoding = 'LATIN1': SET", "SET client_encoding = 'UTF8': SET",
			"SELECT 'harmless', statement uncertain: SELECT 1",
		}},
		{dialogue{name: "a name that gets another text on the way", steps: []step{
			say("Z", parse("s", "SELECT 'harmless'"), sync()),
			say("ZZZ", query("DEALLOCATE s"), query("PREPARE s AS SELECT 'evil'"), bindText("", "s"), execute("", 0), sync()),
		}}, []string{
			"DEALLOCATE s: DEALLOCATE", "PREPARE s AS SELECT 'evil': PREPARE", "SELECT 'harmless', statement uncertain: SELECT 1",
		}},
		{dialogue{name: "a name that does not get another text", steps: []step{
			say("Z", parse("s", "SELECT 'evil'"), sync()),
			say("ZZ", parse("s", "SELECT 'harmless'"), sync(), bindText("", "s"), execute("", 0), sync()),
		}}, []string{"SELECT 'harmless', statement uncertain: SELECT 1"}},
		{dialogue{name: "a portal that SQL replaces", steps: []step{
			say("Z", query("BEGIN")), say("Z", parse("", "SELECT 'harmless'"), bindText("p", ""), sync()),
			say("Z", query("CLOSE p; DECLARE p CURSOR FOR SELECT 'evil'")), say("Z", execute("p", 0), sync()),
		}}, []string{
			"BEGIN: BEGIN", "CLOSE p; DECLARE p CURSOR FOR SELECT 'evil': CLOSE CURSOR+DECLARE CURSOR",
			"SELECT 'harmless', portal uncertain: SELECT 1",
		}},
		{dialogue{name: "a trigger that says what a server says of a message in COPY data", steps: []step{
			say("ZZ", query("COPY refusing FROM STDIN"), data([]byte("1\n")), done, query("SELECT 'ran'")), end,
		}}, []string{"COPY refusing FROM STDIN: 08P01", "SELECT 'ran': SELECT 1"}},
		{dialogue{name: "an error at Sync behind a COPY that failed", steps: []step{
			say("ZZZ", run("COPY refusing FROM STDIN"), sync(), run("INSERT INTO tricks VALUES (1), (1)"), sync(), run("SELECT 'ran'"), sync()), end,
		}}, []string{"COPY refusing FROM STDIN: 08P01", "INSERT INTO tricks VALUES (1), (1): 23505", "SELECT 'ran': SELECT 1"}},
		{dialogue{name: "and one behind the data of that", steps: []step{
			say("ZZZZ", run("COPY refusing FROM STDIN"), sync(), data([]byte("1\n")), done, sync(), run("INSERT INTO tricks VALUES (1), (1)"), sync(), run("SELECT 'ran'"), sync()), end,
		}}, []string{"COPY refusing FROM STDIN: 08P01", "INSERT INTO tricks VALUES (1), (1): 23505", "SELECT 'ran': SELECT 1"}},
		{dialogue{name: "what is a password in one encoding and runs in the one on its way", steps: []step{
			say("ZZ", query("SET client_encoding = 'SJIS'"), query("ALTER ROLE tricked PASSWORD E'\x83\\'; SELECT 'ran'; --'")), end,
		}}, []string{"SET client_encoding = 'SJIS': SET", "ALTER ROLE tricked PASSWORD E'\ufffd\\'; SELECT 'ran'; --': ALTER ROLE+SELECT 1"}},
		{dialogue{name: "a Sync in the data of a Query", steps: []step{
			say("G", query("COPY tricks FROM STDIN")), say("Z", sync(), data([]byte("bad\n")), done), say("Z", query("SELECT 'ran'")), end,
		}}, []string{"COPY tricks FROM STDIN: 22P02", "SELECT 'ran': SELECT 1"}},
	}
}
