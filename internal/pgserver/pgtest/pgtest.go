// Package pgtest gives tests a PostgreSQL server. A test that needs one and finds no
// PostgreSQL fails; it is never skipped.
package pgtest

import (
	"sync"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

var shared struct {
	sync.Mutex
	inMain bool
	server *pgserver.Server
}

// Run runs the tests of a package and stops the server they shared. A test
// binary that uses Server calls it from TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
func Run(m *testing.M) int {
	shared.Lock()
	shared.inMain = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil && code == 0 {
			println(err.Error())
			code = 1
		}
	}
	return code
}

// Server returns the server that all tests of the binary share, and starts it for the first
// of them. Without Run in TestMain each call starts a server of the test's own.
func Server(tb testing.TB) *pgserver.Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		return Start(tb, pgserver.Options{})
	}
	if shared.server == nil {
		s, err := pgserver.Start(tb.Context(), pgserver.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		shared.server = s
	}
	return shared.server
}

// Start starts a server of the test's own, stopped when the test ends.
func Start(tb testing.TB, o pgserver.Options) *pgserver.Server {
	tb.Helper()
	s, err := pgserver.Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// FreeAddr is pgserver.FreeAddr for a test.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	addr, err := pgserver.FreeAddr()
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}
