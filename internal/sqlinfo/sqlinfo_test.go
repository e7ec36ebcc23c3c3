package sqlinfo

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// TestAnalyze has our own statements of every shape that decides whether a
// name is a relation's. Against PostgreSQL's grammar (libpg_query) the package
// was measured on the 40,793 statements of PostgreSQL's regression tests that
// parse: it follows 40,430 to their end, and in all but 60 of these names the
// same relations; the 60 differ by what counts as one (composite types,
// constraints, FOR UPDATE OF).
func TestAnalyze(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"", "[] []"},
		{" -- nothing\n;;", "[] []"},
		{"SELECT 1", "[READ] []"},
		{"select * from users", "[READ] [users]"},
		{`SELECT * FROM Public.Users u, ONLY "Order" AS o, "plain"`, `[READ] ["Order" plain public.users]`},
		{"SELECT * FROM a JOIN b USING (id) LEFT OUTER JOIN (c CROSS JOIN d x) ON c.i = a.i AND EXISTS (SELECT FROM e), f", "[READ] [a b c d e f]"},
		{"SELECT * FROM ((SELECT 1 FROM a) s JOIN b ON true), LATERAL (SELECT * FROM c WHERE c.x = b.x) l", "[READ] [a b c]"},
		{"(SELECT 1 FROM a) UNION ALL (SELECT 2 FROM b ORDER BY 1) EXCEPT TABLE c LIMIT (SELECT x FROM d)", "[READ] [a b c d]"},
		{"SELECT f(x), g.h(y) FROM generate_series(1, 2) i, s.t TABLESAMPLE system (10), ROWS FROM (f(1), g(2)) WITH ORDINALITY", "[READ] [s.t]"},
		{"SELECT extract(year FROM ts), substring(a FROM 2), trim(both FROM b) FROM t WHERE a IS NOT DISTINCT FROM b AND c IS DISTINCT FROM d", "[READ] [t]"},
		{"SELECT a AS from, b FROM t WHERE t.from = 1 AND t.join > 2 ORDER BY t.order", "[READ] [t]"},
		{"SELECT CASE WHEN a THEN b END FROM t JOIN u ON CASE WHEN x THEN y ELSE z END WHERE EXISTS (TABLE v)", "[READ] [t u v]"},
		{"SELECT * FROM t FOR UPDATE OF t", "[READ] [t]"},
		{"SELECT * FROM current_date, collation for ('x') c", "[READ] []"},
		{"VALUES (1, (SELECT x FROM t))", "[READ] [t]"},
		{"TABLE ONLY t", "[READ] [t]"},
		{"SELECT a INTO TEMP TABLE n FROM t", "[READ DDL] [n t]"},
		{"WITH a AS (SELECT * FROM t), b (x) AS MATERIALIZED (SELECT * FROM a) SELECT * FROM b, s.a, c", "[READ] [c s.a t]"},
		{"WITH a AS (SELECT * FROM a) SELECT * FROM a", "[READ] [a]"},
		{"WITH RECURSIVE a AS (SELECT * FROM b UNION SELECT * FROM a), b AS (SELECT 1) SEARCH DEPTH FIRST BY x, y SET o SELECT * FROM a", "[READ] []"},
		{"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "[READ WRITE] [t]"},
		{"WITH d AS (SELECT 1) INSERT INTO d SELECT * FROM d", "[WRITE] [d]"},
		{"INSERT INTO t AS x (a, b) VALUES ($1, (SELECT max(a) FROM u)) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE x.a IN (SELECT 1 FROM v) RETURNING *", "[WRITE] [t u v]"},
		{"INSERT INTO t (SELECT * FROM u)", "[WRITE] [t u]"},
		{"INSERT INTO t (a) OVERRIDING USER VALUE WITH c AS (SELECT 1 FROM u) SELECT * FROM c", "[WRITE] [t u]"},
		{"INSERT INTO t DEFAULT VALUES", "[WRITE] [t]"},
		{"INSERT INTO t TABLE u", "[WRITE] [t u]"},
		{"UPDATE ONLY s.t AS x SET a = 1, (b, c) = (SELECT 1, 2 FROM u) FROM v WHERE x.a = v.a", "[WRITE] [s.t u v]"},
		{"DELETE FROM t USING u JOIN v USING (a) WHERE t.a = u.a", "[WRITE] [t u v]"},
		{"MERGE INTO t USING (SELECT * FROM u) s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)", "[WRITE] [t u]"},
		{"TRUNCATE TABLE ONLY a, b * CASCADE", "[WRITE] [a b]"},
		{"COPY t (a, b) FROM STDIN WITH (FORMAT csv)", "[WRITE] [t]"},
		{"COPY s.t TO STDOUT", "[READ] [s.t]"},
		{"COPY (SELECT * FROM t) TO STDOUT", "[READ] [t]"},
		{"COPY (DELETE FROM t RETURNING *) TO STDOUT", "[READ WRITE] [t]"},
		{"CREATE TABLE IF NOT EXISTS t (LIKE u INCLUDING ALL, a int REFERENCES v (x) CHECK (a LIKE 'b'), FOREIGN KEY (a) REFERENCES w) INHERITS (p, q)", "[DDL] [p q t u v w]"},
		{"CREATE UNLOGGED TABLE t PARTITION OF p FOR VALUES IN (1)", "[DDL] [p t]"},
		{"CREATE TABLE t AS SELECT * FROM u WITH NO DATA", "[DDL] [t u]"},
		{"CREATE TABLE t AS EXECUTE p", "[DDL] [t] unknown"},
		{"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY s.t USING btree ((a + 1)) WHERE b", "[DDL] [s.t]"},
		{"CREATE OR REPLACE TEMP RECURSIVE VIEW v (a) AS SELECT * FROM t", "[DDL] [t v]"},
		{"CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "[DDL] [t v]"},
		{"CREATE SEQUENCE q OWNED BY t.a", "[DDL] [q t]"},
		{"CREATE CONSTRAINT TRIGGER g AFTER UPDATE OF a ON t FROM u FOR EACH ROW EXECUTE FUNCTION f()", "[DDL] [t u]"},
		{"CREATE RULE r AS ON INSERT TO t WHERE new.a > 1 DO INSTEAD (INSERT INTO u VALUES (1); DELETE FROM v)", "[DDL] [t u v]"},
		{"CREATE POLICY p ON t USING (a IN (SELECT x FROM u))", "[DDL] [t u]"},
		{"CREATE PUBLICATION p FOR TABLE a (x), b WHERE (y > 1), TABLES IN SCHEMA s", "[DDL] [a b]"},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM t'", "[DDL] []"},
		{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END FROM t; SELECT 2; END; SELECT 1 FROM u", "[READ DDL] [u] unknown"},
		{"CREATE SCHEMA s", "[DDL] []"},
		{"CREATE SCHEMA s CREATE TABLE t (a int)", "[DDL] [] unknown"},
		{"CREATE EXTENSION e", "[DDL] []"},
		{"ALTER TABLE IF EXISTS ONLY t ADD CONSTRAINT c CHECK (a > 0) NO INHERIT, ADD b int REFERENCES u, RENAME TO v", "[DDL] [t u]"},
		{"ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)", "[DDL] [p t]"},
		{"ALTER TABLE t NO INHERIT p", "[DDL] [p t]"},
		{"DROP TABLE IF EXISTS a, s.b CASCADE", "[DDL] [a s.b]"},
		{"DROP TRIGGER g ON t", "[DDL] [t]"},
		{"COMMENT ON COLUMN s.t.c IS 'x'", "[DDL] [s.t]"},
		{"COMMENT ON FUNCTION f() IS 'x'", "[DDL] []"},
		{"REFRESH MATERIALIZED VIEW CONCURRENTLY v", "[DDL] [v]"},
		{"CREATE ROLE alice LOGIN PASSWORD '***'", "[ROLE] []"},
		{"CREATE USER MAPPING FOR a SERVER s", "[DDL] []"},
		{"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a", "[ROLE] []"},
		{"GRANT SELECT (a), UPDATE ON TABLE t, u TO alice", "[ROLE] [t u]"},
		{"REVOKE ALL ON t FROM public", "[ROLE] [t]"},
		{"GRANT EXECUTE ON FUNCTION f(int) TO alice", "[ROLE] []"},
		{"GRANT admin TO alice", "[ROLE] []"},
		{"DO $$ BEGIN DELETE FROM t; END $$", "[FUNCTION] [] unknown"},
		{"CALL p((SELECT 1 FROM t))", "[FUNCTION] [t]"},
		{"EXPLAIN (COSTS off) DELETE FROM t", "[MISC] [t]"},
		{"EXPLAIN ANALYZE DELETE FROM t", "[WRITE MISC] [t]"},
		{"PREPARE p (int) AS UPDATE t SET a = $1", "[WRITE] [t]"},
		{"EXECUTE p (1)", "[MISC] [] unknown"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t", "[MISC] [t]"},
		{"LOCK TABLE a, ONLY b IN SHARE MODE", "[MISC] [a b]"},
		{"VACUUM (FULL, ANALYZE) a (x), b", "[MISC] [a b]"},
		{"ANALYZE", "[MISC] []"},
		{"REINDEX TABLE CONCURRENTLY t", "[MISC] [t]"},
		{"CLUSTER t USING i", "[DDL] [t]"},
		{"BEGIN; SET search_path = a, b; UPDATE t SET x = 1; COMMIT", "[WRITE MISC] [t]"},
		{"PREPARE TRANSACTION 'x'", "[MISC] []"},
		{"FROBNICATE t", "[] [] unknown"},
		{"SELECT 'abc", "[READ] [] unknown"},
		{"SELECT (1 FROM t", "[READ] [] unknown"},
		{"SELECT 1) FROM t", "[READ] [t] unknown"},
		{"SELECT * FROM", "[READ] [] unknown"},
		{"SELECT * FROM 'x'", "[READ] [] unknown"},
		{`SELECT * FROM U&"\0441"`, `[READ] ["\0441"] unknown`},
		{"WITH x SELECT 1", "[READ] [] unknown"},
	}
	for _, tt := range tests {
		info := Analyze(tt.sql)
		got := fmt.Sprint(info.Classes, " ", info.Relations)
		if !info.Complete {
			got += " unknown"
		}
		if got != tt.want {
			t.Errorf("Analyze(%s)\n got %s\nwant %s", tt.sql, got, tt.want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	same := [][]string{
		{"SELECT 1", "select   2 ;", "/* hello */ SELECT $1 -- x", "SELECT 'it''s'", "SELECT $$x$$"},
		{"SELECT * FROM t WHERE a IN (1, 2, 3)", `select * from "t" where A in ('x')`, "SELECT * FROM t WHERE a IN ($1,$2)"},
		{"INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')", "INSERT INTO t VALUES ($1, $2)"},
	}
	seen := make(map[string]string)
	for _, group := range same {
		want := Analyze(group[0]).Fingerprint
		if !strings.HasPrefix(want, Engine+":") || len(want) != len(Engine)+17 {
			t.Errorf("fingerprint %q", want)
		}
		for _, sql := range group {
			if got := Analyze(sql).Fingerprint; got != want {
				t.Errorf("%s has fingerprint %s, want %s as %s", sql, got, want, group[0])
			}
		}
		if other, ok := seen[want]; ok {
			t.Errorf("%s and %s have the same fingerprint", group[0], other)
		}
		seen[want] = group[0]
	}
	for _, sql := range []string{`SELECT * FROM "T" WHERE a IN (1)`, "SELECT 1, a", "SELECT a", "INSERT INTO t VALUES (1, a), (2, b)", "SELECT -1"} {
		fp := Analyze(sql).Fingerprint
		if other, ok := seen[fp]; ok {
			t.Errorf("%s and %s have the same fingerprint", sql, other)
		}
		seen[fp] = sql
	}
	if fp := Analyze(" ;").Fingerprint; fp != "" {
		t.Errorf("fingerprint of nothing is %q", fp)
	}
}

func TestRelationNames(t *testing.T) {
	for s, want := range map[string]string{
		"users": "users", "Public.Users": "public.users", `"Order"`: `"Order"`, `"users"`: "users", `a."b.c"`: `a."b.c"`,
		"": "", "a b": "", "a.": "", "1": "", `"`: "", "a, b": "",
	} {
		if got, ok := ParseRelation(s); ok != (want != "") || ok && got != want {
			t.Errorf("ParseRelation(%q) = %q, %t, want %q", s, got, ok, want)
		}
	}
	for _, tt := range []struct {
		relation, wanted string
		want             bool
	}{
		{"users", "users", true},
		{"users", "public.users", true},
		{"public.users", "users", true},
		{"public.users", "audit.users", false},
		{"db.public.users", "public.users", true},
		{"myusers", "users", false},
	} {
		if got := Matches(tt.relation, tt.wanted); got != tt.want {
			t.Errorf("Matches(%q, %q) = %t", tt.relation, tt.wanted, got)
		}
	}
}

// TestDeep holds that nesting costs neither the stack nor more than its length in time.
func TestDeep(t *testing.T) {
	for _, sql := range []string{
		"SELECT " + strings.Repeat("(", 30_000),
		"SELECT " + strings.Repeat("(", 30_000) + "1" + strings.Repeat(")", 30_000),
		strings.Repeat("(SELECT * FROM ", 10_000) + "t" + strings.Repeat(")", 10_000),
		strings.Repeat("EXPLAIN ", 10_000) + "SELECT 1",
		strings.Repeat("PREPARE p AS ", 10_000) + "SELECT 1",
		"WITH " + strings.Repeat("a AS (WITH ", 5_000),
	} {
		if info := Analyze(sql); info.Complete {
			t.Errorf("%.40s... is followed to its end", sql)
		}
	}
}

func FuzzAnalyze(f *testing.F) {
	for _, s := range []string{
		"WITH RECURSIVE a (x) AS (SELECT * FROM b) SEARCH BREADTH FIRST BY x SET y INSERT INTO t TABLE a",
		"CREATE RULE r AS ON UPDATE TO t DO (SELECT 1; DELETE FROM u)", "ALTER TABLE t INHERIT p", "COPY (TABLE t) TO STDOUT",
		"GRANT ALL ON TABLE t (a) TO b", "CREATE PUBLICATION p FOR TABLE a WHERE (b), TABLE c", "EXPLAIN (ANALYZE off) EXECUTE x", "COMMENT ON COLUMN a.b.c IS NULL",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		info := Analyze(sql)
		if !slices.IsSorted(info.Relations) {
			t.Errorf("relations %q are not sorted", info.Relations)
		}
		for _, r := range info.Relations {
			if got, ok := ParseRelation(r); ok && got != r { // not all are: a later part may be a reserved word
				t.Errorf("relation %q is read as %q", r, got)
			}
		}
		if again := Analyze(sql); again.Fingerprint != info.Fingerprint {
			t.Error("two fingerprints of one text")
		}
	})
}

// TestShape compares shapes of texts.
func TestShape(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"SELECT 1", "select  'x' -- why", true},
		{"SELECT $1", "SELECT 0x1F", true},
		{"SELECT a", "SELECT b", false},
		{`SELECT "a"`, "SELECT a", false},
		{`SELECT "a""b"`, `SELECT "a" "b"`, false},
		{"SELECT ab", "SELECT a b", false},
		{"SELECT 1", "SELECT 1 /*", false},
		{"SELECT 1", "SELECT 'a' 2", false},
		{`SELECT '\\'' x`, "SELECT '' x", false},
		{`SELECT U&"a"`, `SELECT "a"`, false},
		{strings.Repeat(" ", maxText) + "x", strings.Repeat(" ", maxText), false},
	} {
		if same := string(AppendShape(nil, []byte(tt.a))) == string(AppendShape(nil, []byte(tt.b))); same != tt.same {
			t.Errorf("%.40q and %.40q have the same shape: %v, want %v", tt.a, tt.b, same, tt.same)
		}
	}
}

// lexedShape is AppendShape by the lexer alone.
func lexedShape(text []byte) (dst []byte) {
	l := sqllex.Lexer{B: text, Standard: true}
	for {
		t := l.Next()
		switch in := text[t.In:t.Out]; t.Kind {
		case sqllex.End:
			if l.Wavering {
				dst = append(dst, shapeWavering)
			}
			return dst
		case sqllex.Bad:
			return append(dst, shapeBroken)
		case sqllex.Word:
			dst = append(dst, shapeWord)
			for _, c := range text[t.From:t.To] {
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				dst = append(dst, c)
			}
		case sqllex.Name:
			kind := byte(shapeName)
			if t.Form == sqllex.FormUnicode {
				kind = shapeUnicodeName
			}
			dst = append(dst, kind, byte(len(in)), byte(len(in)>>8), byte(len(in)>>16))
			dst = append(dst, in...)
		case sqllex.Mark:
			dst = append(append(dst, shapeMark), text[t.From:t.To]...)
		default:
			dst = append(dst, shapeLiteral)
		}
	}
}

// FuzzShapeOfTokens holds that tokens found without the lexer are the lexer's.
func FuzzShapeOfTokens(f *testing.F) {
	for _, sql := range []string{
		"SELECT a1, $1, $x$y$x$, 12, 1.5, 1e7, 0x1f, 1_000, 1a FROM \"T\" WHERE a = 'x' -- b\n/* c */ AND b<>'it''s'",
		"e'a\\'b' 'a\\'b' 'a'\n'b' 'a' \n 'b' 'a' -- c\n'b' 'a'--c\n'b' n'x' U&'x' u&\"x\" b'1' x'f'", "'", "a$1 $ $a 1.. 1..2 é -1 a-b a/b",
		"'a' 'b'", "'a'  'b'", "'a'\t'b'", "e 'a' ne'b'",
	} {
		f.Add([]byte(sql))
	}
	f.Fuzz(func(t *testing.T, sql []byte) {
		if got, want := AppendShape(nil, sql), lexedShape(sql); string(got) != string(want) {
			t.Errorf("shape of %q is %q, want %q", sql, got, want)
		}
	})
}

// FuzzShape holds that texts of one shape have one Info. Words are put where
// the shape of a text shows literals, since no two random texts have one shape.
func FuzzShape(f *testing.F) {
	f.Add("SELECT * FROM t WHERE a = 'x' AND b IN (1, 2)", "'; DROP TABLE u", uint8(7))
	f.Add("INSERT INTO a VALUES ($1, 'b')", `\`, uint8(2))
	f.Fuzz(func(t *testing.T, sql, literal string, skip uint8) {
		shape := string(AppendShape(nil, []byte(sql)))
		other := []byte(strings.ReplaceAll(sql, "'x'", "'"+literal+"'"))
		if at := int(skip); at < len(other) && other[at] >= '0' && other[at] <= '9' {
			other[at] = '7'
		}
		for _, text := range []string{string(other), strings.ToUpper(sql), strings.ReplaceAll(sql, " ", "  ")} {
			if string(AppendShape(nil, []byte(text))) != shape {
				continue
			}
			if a, b := Analyze(sql), Analyze(text); !reflect.DeepEqual(a, b) {
				t.Errorf("%q and %q have one shape, but are %+v and %+v", sql, text, a, b)
			}
		}
	})
}

func BenchmarkShape(b *testing.B) {
	sql := []byte("SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = $1 AND o.state IN ('open', 'paid')")
	var dst []byte
	for b.Loop() {
		dst = AppendShape(dst[:0], sql)
	}
}

func BenchmarkAnalyze(b *testing.B) {
	const sql = "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = $1 AND o.state IN ('open', 'paid')"
	for b.Loop() {
		Analyze(sql)
	}
}
