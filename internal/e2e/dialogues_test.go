package e2e

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
)

// Short names for what dialogues are made of.
var (
	query   = pgraw.Query
	parse   = pgraw.Parse
	bind    = pgraw.Bind
	execute = pgraw.Execute
	sync    = pgraw.Sync
	flush   = pgraw.Flush
)

// params are parameters in text; "NULL" is null.
func params(values ...string) [][]byte {
	all := make([][]byte, len(values))
	for i, v := range values {
		if v != "NULL" {
			all[i] = []byte(v)
		}
	}
	return all
}

func bindText(portal, statement string, values ...string) []byte {
	return bind(portal, statement, 0, params(values...)...)
}

// run is the extended protocol for a statement without parameters, without Sync.
func run(sql string) []byte {
	return bytes.Join([][]byte{parse("", sql), bindText("", ""), execute("", 0)}, nil)
}

// dialogues are those that must give the same answers with and without pgnotary, with a server of that major version.
func dialogues(version int) []dialogue {
	var all []dialogue
	for _, some := range [][]dialogue{
		startupDialogues(), queryDialogues(), extendedDialogues(), errorDialogues(), copyDialogues(), nameDialogues(), otherDialogues(),
	} {
		all = append(all, some...)
	}
	return slices.DeleteFunc(all, func(d dialogue) bool {
		return d.first > version || d.last != 0 && d.last < version
	})
}

func startupDialogues() []dialogue {
	start := func(version uint32, pairs ...string) []byte { return pgraw.Startup(version, pairs...) }
	user := []string{"user", "postgres", "database", "postgres"}
	with := func(more ...string) []string { return append(append([]string{}, user...), more...) }
	raw := func(name string, steps ...step) dialogue { return dialogue{name: name, raw: true, steps: steps} }
	bye := say(".", pgraw.Msg('X'))
	return []dialogue{
		raw("3.0", say("Z", start(3<<16, user...)), bye),
		raw("3.1", say("Z", start(3<<16|1, user...)), bye),
		raw("3.2", say("Z", start(3<<16|2, user...)), bye),
		raw("3.9999 with an option of the protocol", say("Z", start(3<<16|9999, with("_pq_.test", "1")...)), bye),
		raw("option of the protocol", say("Z", start(3<<16, with("_pq_.one", "1", "_pq_.two", "2")...)), bye),
		raw("user only", say("Z", start(3<<16, "user", "postgres")), bye),
		raw("user twice", say("Z", start(3<<16, "user", "nobody", "database", "postgres", "user", "postgres")), say("Z", query("SELECT current_user")), bye),
		raw("settings", say("Z", start(3<<16, with("options", "-c work_mem=3MB -c geqo=off", "DateStyle", "SQL")...)), say("Z", query("SHOW work_mem")), bye),
		raw("no user", say(".", start(3<<16, "database", "postgres"))),
		raw("unknown database", say(".", start(3<<16, "user", "postgres", "database", "missing"))),
		raw("unknown role", say(".", start(3<<16, "user", "missing", "database", "postgres"))),
		raw("role that must not log in", say(".", start(3<<16, "user", "nologin", "database", "postgres"))),
		raw("bad setting", say(".", start(3<<16, with("work_mem", "none")...))),
		raw("query behind the start-up packet", say("ZZ", start(3<<16, user...), query("SELECT 1")), bye),
		raw("pipeline behind the start-up packet", say("ZZ", start(3<<16, user...), run("SELECT 2"), sync()), bye),
		raw("all at once behind the start-up packet", say(".", start(3<<16, user...), query("SELECT 1"), run("SELECT 2"), sync(), pgraw.Msg('X'))),
		raw("terminate behind a start-up packet that fails", say(".", start(3<<16, "user", "missing"), pgraw.Msg('X'))),
		raw("cancel of nobody", say(".", pgraw.Cancel(1, []byte{1, 2, 3, 4}))),
		raw("physical replication", say("Z", start(3<<16, "user", "postgres", "replication", "on")), say("Z", query("SHOW wal_level")),
			say("Z", query("SELECT 1")), say("Z", query("IDENTIFY_SYSTEM now")), bye),
		raw("physical replication, extended protocol", say("Z", start(3<<16, "user", "postgres", "replication", "1")), say("Z", parse("", "SELECT 1"), sync()), bye),
		raw("long value", say("Z", start(3<<16, with("application_name", strings.Repeat("a", 5000))...)), bye),
	}
}

func queryDialogues() []dialogue {
	return []dialogue{
		{name: "query", steps: []step{say("Z", query("SELECT 1, 'two', NULL")), say(".", pgraw.Msg('X'))}},
		{name: "queries at once", steps: []step{say("ZZZ", query("SELECT 1"), query("SELECT 2"), query("SELECT 3"))}},
		{name: "several statements", steps: []step{say("Z", query("SELECT 1; SELECT 2, 3; ; CREATE TEMP TABLE x (i int); INSERT INTO x VALUES (1), (2); SELECT i + 1 FROM x"))}},
		{name: "error among several", steps: []step{say("Z", query("SELECT 1; SELECT 1/0; SELECT 3")), say("Z", query("SELECT 4"))}},
		{name: "empty", steps: []step{say("Z", query("")), say("Z", query(";")), say("Z", query("-- comment")), say("Z", query(" \n"))}},
		{name: "syntax error", steps: []step{say("Z", query("SELEC")), say("Z", query("SELECT 1"))}},
		{name: "transaction", steps: []step{
			say("Z", query("BEGIN")), say("Z", query("SELECT 1")), say("Z", query("SELECT 1/0")), say("Z", query("SELECT 2")), say("Z", query("COMMIT")),
		}},
		{name: "savepoint", steps: []step{say("ZZZZZZ", query("BEGIN"), query("SAVEPOINT a"), query("SELECT 1/0"), query("ROLLBACK TO a"), query("SELECT 1"), query("COMMIT"))}},
		{name: "commit in the middle", steps: []step{say("Z", query("BEGIN; SELECT 1; COMMIT; SELECT 1/0"))}},
		{name: "deferred constraint", steps: []step{
			say("Z", query("BEGIN; INSERT INTO deferred VALUES (1), (1)")), say("Z", query("COMMIT")),
			say("Z", run("INSERT INTO deferred VALUES (2), (2)"), sync()), say("Z", query("SELECT count(*) FROM deferred")),
		}},
		{name: "notices", steps: []step{say("Z", query("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")), say("Z", query("SET client_min_messages = debug1; DROP TABLE IF EXISTS nothing"))}},
		{name: "parameter status", steps: []step{
			say("Z", query("SET client_encoding = 'LATIN1'")), say("Z", query("SELECT '\xe4'")), say("Z", query("SET application_name = 'x'; SET TimeZone = 'UTC'; RESET ALL")),
		}},
		{name: "text that is not UTF-8", steps: []step{say("Z", query("SELECT '\xff'")), say("Z", query("SET client_encoding = 'SJIS'")), say("Z", query("SELECT '\x83\x5c'"))}},
		{name: "listen and notify", steps: []step{say("Z", query("LISTEN a; NOTIFY a, 'x'")), say("Z", query("BEGIN; NOTIFY a, 'y'; COMMIT; SELECT 1"))}},
		{name: "many rows", steps: []step{say("Z", query("SELECT g, repeat('x', g % 100) FROM generate_series(1, 20000) g"))}},
		{name: "large row", steps: []step{say("Z", query("SELECT repeat('x', 3000000)"))}},
		{name: "large query", steps: []step{say("Z", query("SELECT length('"+strings.Repeat("y", 1500000)+"')")), say("Z", query("SELECT 1"))}},
		{name: "chained transactions", steps: []step{
			say("ZZZZ", query("BEGIN"), query("SELECT 1"), query("COMMIT AND CHAIN"), query("SELECT 2")),
			say("ZZZZ", query("ROLLBACK AND CHAIN"), query("SELECT 1/0"), query("COMMIT AND CHAIN"), query("ROLLBACK")),
			say("Z", query("BEGIN; SELECT 1")), say("Z", query("ROLLBACK; SELECT 2")), say("Z", query("COMMIT AND CHAIN")),
		}},
		{name: "savepoints in one another", steps: []step{
			say("ZZZZZZZZ", query("BEGIN"), query("SAVEPOINT a"), query("SAVEPOINT b"), query("SAVEPOINT a"), query("ROLLBACK TO a"), query("RELEASE b"), query("ROLLBACK TO a"), query("COMMIT")),
		}},
		{name: "backslashes in texts", steps: []step{
			say("Z", query("SET standard_conforming_strings = off; SET escape_string_warning = off")), say("Z", query(`SELECT 'it\'s', 'a\\'`)),
			say("Z", run(`SELECT 'it\'s'`), sync()), say("Z", query("SET standard_conforming_strings = on")), say("Z", query(`SELECT 'a\'`)),
		}},
		{name: "prepared transaction", steps: []step{
			say("Z", query("BEGIN; INSERT INTO sink VALUES (1)")), say("Z", query("PREPARE TRANSACTION 'e2e'")), say("Z", query("ROLLBACK PREPARED 'e2e'")),
		}},
	}
}

func extendedDialogues() []dialogue {
	return []dialogue{
		{name: "parse bind describe execute", steps: []step{
			say("Z", parse("", "SELECT $1::int, $2", 0, 25), bindText("", "", "7", "x"), pgraw.Describe('P', ""), execute("", 0), sync()),
		}},
		{name: "named statement and portal", steps: []step{
			say("Z", parse("s", "SELECT $1::int"), pgraw.Describe('S', "s"), sync()),
			say("Z", bindText("p", "s", "1"), execute("p", 0), bindText("q", "s", "2"), execute("q", 0), pgraw.CloseName('P', "p"), sync()),
			say("Z", pgraw.CloseName('S', "s"), bindText("", "s", "1"), execute("", 0), sync()),
		}},
		{name: "step by step with flush", steps: []step{
			say("1", parse("", "SELECT 1"), flush()), say("2", bindText("", ""), flush()), say("T", pgraw.Describe('P', ""), flush()),
			say("C", execute("", 0), flush()), say("Z", sync()),
		}},
		{name: "portal suspended", steps: []step{
			say("Z", query("BEGIN")),
			say("Z", parse("", "SELECT generate_series(1, 5)"), bindText("p", ""), execute("p", 2), execute("p", 2), execute("p", 2), execute("p", 1), sync()),
			say("Z", bindText("exact", ""), execute("exact", 5), execute("exact", 5), sync()),
			say("Z", query("FETCH 1 FROM p")), say("Z", query("COMMIT")),
			say("Z", execute("p", 0), sync()),
		}},
		{name: "negative row limit", steps: []step{say("Z", parse("", "SELECT generate_series(1, 5)"), bindText("", ""), execute("", -3), sync())}},
		{name: "cursor that outlives its transaction", steps: []step{
			say("Z", query("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 9); COMMIT")), say("Z", execute("h", 2), sync()), say("Z", query("FETCH 1 FROM h; CLOSE h")),
		}},
		{name: "portal gone at sync", steps: []step{
			say("Z", parse("", "SELECT generate_series(1, 5)"), bindText("p", ""), execute("p", 2), sync()), say("Z", execute("p", 2), sync()),
		}},
		{name: "cursor of SQL", steps: []step{
			say("Z", query("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 9)")), say("Z", execute("c", 2), sync()), say("Z", query("CLOSE c; COMMIT")),
		}},
		{name: "empty statement", steps: []step{say("Z", run(""), sync()), say("Z", parse("", "-- nothing"), pgraw.Describe('S', ""), bindText("", ""), execute("", 0), sync())}},
		{name: "null, binary and large parameters", steps: []step{
			say("Z", parse("", "SELECT $1::text, $2::text"), bindText("", "", "NULL", ""), execute("", 0), sync()),
			say("Z", parse("", "SELECT $1::int8 + 1"), bind("", "", 1, []byte{0, 0, 0, 0, 0, 0, 0, 9}), execute("", 0), sync()),
			say("Z", parse("", "SELECT length($1::text)"), bindText("", "", strings.Repeat("z", 900000)), execute("", 0), sync()),
		}},
		{name: "pipeline of many", steps: []step{say(strings.Repeat("Z", 50), bytes.Repeat(append(run("SELECT now() IS NOT NULL"), sync()...), 50))}},
		{name: "pipeline with one sync", steps: []step{say("Z", bytes.Repeat(run("SELECT 1"), 30), sync())}},
		{name: "query without sync before it", steps: []step{say("Z", run("SELECT 1"), query("SELECT 2")), say("Z", sync())}},
		{name: "implicit transaction of both protocols", steps: []step{
			say("Z", query("CREATE TEMP TABLE x (i int)")), say("Z", run("INSERT INTO x VALUES (1)"), query("SELECT 1/0")),
			say("Z", sync()), say("Z", query("SELECT count(*) FROM x")),
		}},
		{name: "transaction in a pipeline", steps: []step{say("Z", run("BEGIN"), run("SELECT 1"), run("COMMIT"), run("SELECT 2"), sync())}},
		{name: "syncs alone", steps: []step{say("ZZZ", sync(), sync(), sync()), say("Z", flush(), sync())}},
		{name: "describe of statements without rows", steps: []step{say("Z", parse("", "BEGIN"), pgraw.Describe('S', ""), bindText("", ""), pgraw.Describe('P', ""), execute("", 0), sync()), say("Z", query("ROLLBACK"))}},
	}
}

func errorDialogues() []dialogue {
	return []dialogue{
		{name: "skip until sync", steps: []step{say("ZZ", run("SELECT 1/0"), run("SELECT 2"), pgraw.CloseName('S', "x"), sync(), run("SELECT 3"), sync())}},
		{name: "query discarded before sync", steps: []step{say("ZZ", run("SELECT 1/0"), query("SELECT 'discarded'"), sync(), query("SELECT 4"))}},
		{name: "function call discarded before sync", steps: []step{say("Z", run("SELECT 1/0"), pgraw.FunctionCall(1397, []byte("-5")), sync())}},
		{name: "error in parse", steps: []step{say("Z", parse("", "SELEC"), bindText("", ""), execute("", 0), sync()), say("Z", query("SELECT 1"))}},
		{name: "error in bind", steps: []step{say("Z", parse("", "SELECT $1::int"), bindText("", "", "x"), execute("", 0), sync())}},
		{name: "unknown names", steps: []step{
			say("Z", bindText("", "missing"), sync()), say("Z", execute("missing", 0), sync()), say("Z", pgraw.Describe('S', "missing"), sync()),
			say("Z", pgraw.Describe('P', "missing"), sync()), say("Z", pgraw.CloseName('S', "missing"), sync()), say("Z", pgraw.Describe('?', "x"), sync()),
		}},
		{name: "65,535 parameters", steps: []step{say("Z", parse("", "SELECT 1"), bindText("", "", make([]string, 65535)...), execute("", 0), sync()), say("Z", query("SELECT 1"))}},
		{name: "close in a failed transaction", steps: []step{say("Z", query("BEGIN")), say("Z", parse("s", "SELECT 1/0"), bindText("p", "s"), execute("p", 0), sync()), say("Z", pgraw.CloseName('S', "s"), pgraw.CloseName('P', "p"), sync())}},
		{name: "wrong number of parameters", steps: []step{say("Z", parse("", "SELECT $1::int"), bindText("", ""), execute("", 0), sync()), say("Z", query("SELECT 1"))}},
		{name: "malformed bind", steps: []step{
			say("Z", parse("", "SELECT $1::text"), pgraw.Msg('B', 0, 0, int16(0), int16(1), int32(-2), int16(0)), sync()),
			say("Z", pgraw.Msg('B', 0, 0, int16(0), int16(1), int32(100), "short"), sync()),
			say("Z", pgraw.Msg('B', 0, 0, int16(-1)), sync()), say("Z", pgraw.Msg('B', "no end"), sync()), say("Z", query("SELECT 1")),
		}},
		{name: "malformed bodies", steps: []step{
			say("Z", pgraw.Msg('P', "no end"), sync()), say("Z", pgraw.Msg('P', 0, "SELECT 1", 0, int16(0), "more"), sync()), say("Z", pgraw.Msg('E', 0), sync()),
			say("Z", pgraw.Msg('Q', "SELECT 1")), say("Z", pgraw.Msg('Q', "SELECT 1", 0, "SELECT 2", 0)), say("Z", pgraw.Msg('Q')), say("Z", query("SELECT 1")),
		}},
		{name: "error in a failed transaction", steps: []step{
			say("Z", query("BEGIN")), say("Z", run("SELECT 1/0"), sync()), say("Z", run("SELECT 1"), sync()), say("Z", parse("s", "ROLLBACK"), bindText("", "s"), execute("", 0), sync()),
		}},
		{name: "terminated by the server", steps: []step{say(".", query("SELECT pg_terminate_backend(pg_backend_pid())"))}},
		{name: "terminated in a pipeline", steps: []step{say(".", run("SELECT 1"), run("SELECT pg_terminate_backend(pg_backend_pid())"), run("SELECT 3"), sync())}},
		{name: "statement timeout", steps: []step{say("Z", query("SET statement_timeout = 50; CREATE TEMP TABLE late AS SELECT pg_sleep(10) IS NULL AS slept")), say("Z", query("SELECT 1"))}},
		{name: "transaction timeout", steps: []step{say("ZZ.", query("SET idle_in_transaction_session_timeout = 200"), query("BEGIN"))}},
		{name: "terminate in the middle of COPY", loose: true, first: 14, steps: []step{say("G", query("COPY sink FROM STDIN")), say(".", pgraw.CopyData([]byte("1\tone\n")), pgraw.Msg('X'))}},
		{name: "session timeout", first: 14, steps: []step{say("Z.", query("SET idle_session_timeout = 200"))}},
		{name: "bytes after terminate", steps: []step{say(".", query("SELECT 1"), pgraw.Msg('X', "body"), query("SELECT 2"))}},
		{name: "close at once", steps: []step{say(".", pgraw.Msg('X'))}},
		{name: "late password", loose: true, steps: []step{say(".", pgraw.Msg('p', "secret", 0))}},
		{name: "query during COPY", loose: true, first: 14, steps: []step{say("G", query("COPY sink FROM STDIN")), say(".", query("SELECT 1"))}},
		{name: "query during COPY, which older servers swallow", last: 13, steps: []step{say("G", query("COPY sink FROM STDIN")), say("Z", query("SELECT 1")), say("Z", query("SELECT 2"))}},
	}
}

func copyDialogues() []dialogue {
	data, done := pgraw.CopyData, pgraw.CopyDone
	count := say("Z", query("SELECT count(*) FROM copied"))
	temp := say("Z", query("CREATE TEMP TABLE copied (i int, t text)"))
	in := "COPY copied FROM STDIN"
	return []dialogue{
		{name: "copy in", steps: []step{temp, say("G", query(in)), say("", data([]byte("1\tone\n2\t")), data([]byte("two\n")), data(nil)), say("Z", done()), count}},
		{name: "copy in without waiting", steps: []step{temp, say("Z", query(in), data([]byte("1\tone\n")), done()), count}},
		{name: "copy in given up", steps: []step{temp, say("G", query(in)), say("Z", data([]byte("1\tone\n")), pgraw.CopyFail("no more")), count}},
		{name: "copy in of a bad row", steps: []step{temp, say("G", query(in)), say("Z", data([]byte("bad\n")), data([]byte("2\ttwo\n")), done()), count}},
		{name: "copy in refused", steps: []step{say("Z", query("COPY missing FROM STDIN")), say("Z", data([]byte("1\n")), done(), query("SELECT 1"))}},
		{name: "copy out", steps: []step{say("Z", query("COPY (SELECT g, 'x' FROM generate_series(1, 1000) g) TO STDOUT")), say("Z", query("COPY (SELECT 1) TO STDOUT (FORMAT binary)"))}},
		{name: "copy out with an error", steps: []step{say("Z", query("COPY (SELECT 1 / (g - 500) FROM generate_series(1, 1000) g) TO STDOUT"))}},
		{name: "copy in, extended, sync swallowed", steps: []step{
			temp, say("G", run(in), sync()), say("Z", data([]byte("1\tone\n")), done(), sync()), count,
		}},
		{name: "copy in, extended, all at once", steps: []step{temp, say("Z", run(in), sync(), data([]byte("1\tone\n")), done(), sync()), count}},
		{name: "copy in, extended, flush within", steps: []step{temp, say("G", run(in), flush()), say("Z", data([]byte("1\tone\n")), flush(), sync(), done(), sync()), count}},
		{name: "copy in, extended, bad row", steps: []step{
			temp, say("G", run(in), flush()), say("E", data([]byte("bad\n")), done()), say("Z", sync()), count,
		}},
		{name: "copy in, extended, refused by a trigger", steps: []step{say("ZZ", run("COPY guarded FROM STDIN"), sync(), data([]byte("1\n")), done(), sync()), say("Z", query("SELECT 1"))}},
		{name: "copy out, extended", steps: []step{say("Z", run("COPY (SELECT generate_series(1, 10)) TO STDOUT"), run("SELECT 2"), sync())}},
		{name: "two copies in a query", steps: []step{
			temp, say("G", query(in+"; "+in+"; SELECT 3")), say("G", data([]byte("1\tone\n")), done()), say("Z", data([]byte("2\ttwo\n")), done()), count,
		}},
		{name: "first of two copies fails", steps: []step{
			temp, say("Z", query(in+"; "+in), data([]byte("bad\n")), done(), data([]byte("2\ttwo\n")), done()), count,
		}},
		{name: "copy data outside of COPY", steps: []step{say("Z", data([]byte("1\n")), done(), pgraw.CopyFail("x"), query("SELECT 1"))}},
		{name: "large copy in", steps: []step{temp, say("G", query(in)), say("Z", bytes.Repeat(data([]byte("1\t"+strings.Repeat("x", 60000)+"\n")), 40), done()), count}},
		{name: "large copy message", steps: []step{temp, say("G", query(in)), say("Z", data([]byte("1\t"+strings.Repeat("x", 1200000)+"\n")), done()), count}},
		{name: "copy in a transaction", steps: []step{temp, say("Z", query("BEGIN")), say("Z", query(in), data([]byte("1\tone\n")), done()), say("Z", query("ROLLBACK")), count}},
	}
}

func nameDialogues() []dialogue {
	return []dialogue{
		{name: "SQL prepare, protocol bind", steps: []step{say("Z", query("PREPARE s AS SELECT $1::int")), say("Z", bindText("", "s", "3"), execute("", 0), sync()), say("Z", query("DEALLOCATE s")), say("Z", bindText("", "s", "3"), sync())}},
		{name: "protocol parse, SQL execute", steps: []step{say("Z", parse("s", "SELECT $1::int"), sync()), say("Z", query("EXECUTE s(4)")), say("Z", query("DEALLOCATE ALL")), say("Z", query("EXECUTE s(4)"))}},
		{name: "discard all", steps: []step{say("Z", parse("s", "SELECT 1"), sync()), say("Z", query("DISCARD ALL")), say("Z", bindText("", "s"), sync())}},
		{name: "query kills the unnamed statement", steps: []step{say("Z", parse("", "SELECT 1"), sync()), say("Z", query("SELECT 2")), say("Z", bindText("", ""), execute("", 0), sync())}},
		{name: "failed parse kills the unnamed statement", steps: []step{say("Z", parse("", "SELECT 1"), sync()), say("Z", parse("", "SELEC"), sync()), say("Z", bindText("", ""), execute("", 0), sync())}},
		{name: "duplicate name", steps: []step{say("Z", parse("s", "SELECT 1"), sync()), say("Z", parse("s", "SELECT 2"), sync()), say("Z", bindText("", "s"), execute("", 0), sync())}},
		{name: "name made by a block", steps: []step{say("Z", query("DO $$ BEGIN EXECUTE 'PREPARE hidden AS SELECT 5'; END $$")), say("Z", bindText("", "hidden"), execute("", 0), sync())}},
		{name: "long name", steps: []step{say("Z", parse(strings.Repeat("n", 300), "SELECT 1"), bindText("", strings.Repeat("n", 300)), execute("", 0), sync())}},
	}
}

func otherDialogues() []dialogue {
	abs := uint32(1397) // abs(integer), see pg_proc
	return []dialogue{
		{name: "function call", steps: []step{say("Z", pgraw.FunctionCall(abs, []byte("-5"))), say("Z", pgraw.FunctionCall(999999, []byte("1"))), say("Z", query("SELECT 1"))}},
		{name: "function call in a transaction", steps: []step{say("ZZZ", query("BEGIN"), pgraw.FunctionCall(abs, []byte("-5")), query("COMMIT"))}},
		{name: "function call behind a pipeline", steps: []step{say("Z", run("SELECT 1"), pgraw.FunctionCall(abs, []byte("-5"))), say("Z", sync())}},
		{name: "malformed function call", steps: []step{say("Z", pgraw.Msg('F', "x"))}},
		{name: "replication mode of a database", raw: true, steps: []step{
			say("Z", pgraw.Startup(3<<16, "user", "postgres", "database", "postgres", "replication", "database")),
			say("Z", query("SELECT 1")), say("Z", query("SHOW work_mem")), say("Z", query("TIMELINE_HISTORY 77")), say(".", pgraw.Msg('X')),
		}},
	}
}
