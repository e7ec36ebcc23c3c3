package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// program is the binary under test.
var program string

// given names a binary to test.
var given = flag.String("program", "", "test this pgnotary instead of the one built from here")

// kills is the number of kills in each durability mode.
var kills = flag.Int("kills", 10, "kill -9 this many times in each durability mode")

func TestMain(m *testing.M) {
	flag.Parse()
	syscall.Umask(0o022) // servers run as another user, who reads files of tests
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if *given != "" {
		program = *given
		return pgtest.Run(m)
	}
	dir, err := os.MkdirTemp("", "pgnotary-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "pgnotary")
	build := exec.Command("go", "build", "-o", program, "github.com/pgnotary/pgnotary/cmd/pgnotary")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return pgtest.Run(m)
}
