package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// majorsEnv names more major versions of PostgreSQL to test with than 13 and 18, such as "14 16 17"; install.sh
// installs them if it is set.
const majorsEnv = "PGNOTARY_E2E_MAJORS"

// major copies the programs and libraries of a major version of PostgreSQL, installed by install.sh, to where the
// server's user can reach them.
func major(t *testing.T, version string) (bin, lib string) {
	t.Helper()
	from := "testdata/node_modules/pg" + version + "/native"
	if _, err := os.Stat(from); err != nil {
		t.Fatalf("PostgreSQL %s is not installed, run install.sh: %v", version, err)
	}
	dir, err := os.MkdirTemp("", "pgnotary-"+version+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, command := range [][]string{{"cp", "-a", from, dir}, {"chmod", "-R", "a+rX", dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("copy PostgreSQL %s: %v: %s", version, err, out)
		}
	}
	return filepath.Join(dir, "native", "bin"), filepath.Join(dir, "native", "lib")
}

// TestMajors holds the dialogues with servers of other major versions, themselves and through pgnotary, and compares
// what both answered, and the log with what the server and the wire tell.
func TestMajors(t *testing.T) {
	t.Parallel()
	for _, version := range append([]string{"13", "18"}, strings.Fields(os.Getenv(majorsEnv))...) {
		t.Run(version, func(t *testing.T) {
			bin, _ := major(t, version)
			want := map[string][]string{}
			o := startOracle(t, bin, func(s *pgserver.Server) {
				for _, d := range dialogues(majorOf(t, s.Addr())) {
					want[d.name] = hold(t, s.Addr(), d, deliveries()[0])
				}
			})
			for _, d := range dialogues(o.major) {
				t.Run(d.name, func(t *testing.T) {
					if !differentText(d) {
						compare(t, "in pieces", hold(t, o.notary.addr, d, deliveries()[2]), want[d.name])
					}
				})
			}
			o.compare(t)
		})
	}
}
