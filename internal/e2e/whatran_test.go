package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// A trick is a dialogue that might have another statement recorded than the one that ran, or another end of it.
type trick struct {
	dialogue
	want []string // the statements of the record, see told
}

// TestWhatRan plays tricks on the record. What the client receives must be the same as from the server itself.
func TestWhatRan(t *testing.T) {
	t.Parallel()
	s := pgtest.Server(t)
	if _, err := s.Psql(t.Context(), "postgres", tricksSchema); err != nil {
		t.Fatal(err)
	}
	n := start(t, s.Addr())
	for _, d := range tricks() {
		t.Run(d.name, func(t *testing.T) {
			want := hold(t, s.Addr(), d.dialogue, deliveries()[0])
			compare(t, "whole", hold(t, n.addr, d.dialogue, deliveries()[0]), want)
		})
	}
	got := map[string][]string{}
	var sessions []string
	for _, r := range n.finish(t) {
		switch r.Kind {
		case "connect":
			sessions = append(sessions, r.Session)
		case "query", "execute":
			got[r.Session] = append(got[r.Session], told(r))
		}
	}
	for i, d := range tricks() {
		if i >= len(sessions) || !slices.Equal(got[sessions[i]], d.want) {
			t.Errorf("%s: recorded\n %s\nwant\n %s", d.name, strings.Join(got[sessions[i]], "\n "), strings.Join(d.want, "\n "))
		}
	}
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
CREATE TRIGGER tricked BEFORE INSERT ON refusing FOR EACH STATEMENT EXECUTE FUNCTION tricked();`

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
