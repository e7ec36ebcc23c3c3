package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// drivers are commands that run a script with a driver. They take the address of a
// database, check the answers they get, and print ok.
func drivers() map[string][]string {
	return map[string][]string{
		"psycopg":    {"/usr/bin/python3", "testdata/drivers.py"},
		"asyncpg":    {"/usr/bin/python3", "testdata/aio.py"},
		"odbc":       {"/usr/bin/python3", "testdata/odbc.py"},
		"node":       {"node", "testdata/driver.js"},
		"postgresjs": {"node", "testdata/postgresjs.js"},
		"jdbc":       {"java", "-cp", "/usr/share/java/postgresql.jar", "testdata/Driver.java"},
	}
}

func runDriver(t *testing.T, n *notary, name, database string) {
	t.Helper()
	command := drivers()[name]
	url := n.url(database)
	switch name {
	case "jdbc":
		url = "jdbc:postgresql://" + n.addr + "/" + database + "?user=postgres&sslmode=disable&ApplicationName=jdbc&assumeMinServerVersion=9.0"
	case "odbc":
		drivers, err := filepath.Glob("/usr/lib/*/odbc/psqlodbcw.so")
		if err != nil || len(drivers) == 0 {
			t.Fatalf("no ODBC driver, run install.sh: %v", err)
		}
		url = "Driver=" + drivers[0] + ";Server=127.0.0.1;Port=" + port(n.addr) + ";Database=" + database + ";Uid=postgres;SSLmode=disable"
	}
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], url)...)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

func TestDrivers(t *testing.T) {
	s := pgtest.Server(t)
	for _, tt := range []struct {
		name     string
		recorded [][2]string // text of a statement, and a parameter it has
	}{
		{"psycopg", [][2]string{
			{"INSERT INTO py3 VALUES ($1, $2, $3, $4)", "psycopg three 'quoted'"},
			{"SELECT $1::text", "pipelined 19"},
			{"COPY py3 (a, b) FROM STDIN", ""},
			{"FETCH FORWARD 7 FROM", ""},
			{"(49,'psycopg two 49')", ""},
			{"COPY py2 TO STDOUT", ""},
		}},
		{"node", [][2]string{
			{"INSERT INTO js VALUES ($1, $2, $3)", "node 'quoted'"},
			{"SELECT $1::int AS i", "49"},
			{"SELECT 1 AS x; SELECT 2 AS y", ""},
		}},
		{"jdbc", [][2]string{
			{"INSERT INTO jdbc VALUES ($1, $2)", "jdbc 19"},
			{"SELECT b FROM jdbc WHERE a = $1", "9"},
			{"COPY jdbc FROM STDIN", ""},
			{"INSERT INTO jdbc VALUES (('19'::int4), ('jdbc 19'))", ""}, // query mode simple
			{"ROLLBACK TO SAVEPOINT", ""},
		}},
		{"asyncpg", [][2]string{
			{"INSERT INTO aio VALUES ($1, $2, $3)", "asyncpg 'quoted'"},
			{"SELECT b FROM aio WHERE a = $1", "9"},
			{"SELECT * FROM aio", ""},
		}},
		{"postgresjs", [][2]string{
			{"INSERT INTO pjs VALUES ($1, $2)", "postgres.js 'quoted'"},
			{"SELECT $1::int AS i", "39"},
		}},
		{"odbc", [][2]string{
			{"INSERT INTO odbc VALUES (9, 'odbc ''quoted'' 9'", ""},
			{"INSERT INTO odbc VALUES ($1, $2)", "odbc 'quoted' 9"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			createDatabase(t, s, "e2e_"+tt.name)
			n := start(t, s.Addr())
			runDriver(t, n, tt.name, "e2e_"+tt.name)
			all := statements(n.finish(t))
			for _, want := range tt.recorded {
				if !recorded(all, want) {
					t.Errorf("not recorded: %q", want)
				}
			}
		})
	}
}

// recorded looks for a statement that contains want[0] and has the parameter want[1], if that is not empty.
func recorded(all []record, want [2]string) bool {
	for _, r := range all {
		if !strings.Contains(r.Statement, want[0]) || r.Outcome == nil {
			continue
		}
		if want[1] == "" {
			return true
		}
		for _, p := range r.Params {
			if p.Value != nil && *p.Value == want[1] {
				return true
			}
		}
	}
	return false
}
