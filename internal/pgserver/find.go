package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// BinEnv names the environment variable that says where PostgreSQL's programs
// are, and overrides every other place.
const BinEnv = "PGNOTARY_PG_BIN"

// ErrNotFound is returned by Find when there is no PostgreSQL server here.
var ErrNotFound = errors.New("no PostgreSQL server found (initdb and postgres): " +
	"install Debian's package postgresql, or name the directory of its programs in $" + BinEnv)

// Find returns the directory that holds PostgreSQL's server programs: the one
// named in $PGNOTARY_PG_BIN, else that of initdb in PATH, else the newest of
// Debian's.
func Find(ctx context.Context) (string, error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("$%s is %s, which has no initdb and postgres", BinEnv, dir)
		}
		return dir, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil && hasServer(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !hasServer(dir) })
	if len(dirs) == 0 {
		return "", ErrNotFound
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return cmp.Compare(major(a), major(b)) }), ctx.Err()
}

// hasServer reports whether dir holds the two programs a server needs.
func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// major returns 15 for /usr/lib/postgresql/15/bin, and -1 for what has no number.
func major(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(strings.TrimSuffix(dir, "/"))))
	if err != nil {
		return -1
	}
	return n
}
