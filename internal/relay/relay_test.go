package relay

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestMain has processors to spare, as serve has: a loop that waits keeps one for some milliseconds, in which
// nobody else ran where there are few.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 4)
	os.Exit(pgtest.Run(m))
}

type rig struct {
	*Relay
	log    *memLog
	served chan error
	stop   chan struct{}
}

// start serves with a recorder in memory until the test ends.
func start(t testing.TB, cfg Config, log *memLog) *rig {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	for _, d := range []*time.Duration{&cfg.FirstPacketTimeout, &cfg.LoginTimeout, &cfg.DialTimeout} {
		if *d == 0 { // no test of its own: a slow machine may take its time
			*d = testPatience
		}
	}
	r, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{r, log, make(chan error, 1), make(chan struct{})}
	go log.run(g.stop)
	go func() { g.served <- r.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		r.Shutdown(ctx)
		close(g.stop)
	})
	return g
}

func (g *rig) url(options string) string {
	return "postgres://postgres@" + g.Addr().String() + "/postgres?" + options
}
