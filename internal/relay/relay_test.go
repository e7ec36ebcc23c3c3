package relay

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

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
