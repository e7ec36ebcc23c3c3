package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
)

// idle opens sessions that run one statement each and then keep still, and returns
// by how much the proxy's memory grew for each, in bytes.
func idle(t *target, sessions int) (perSession float64, err error) {
	pid := t.proxy.cmd.Process.Pid
	before, err := memory(pid, "VmRSS")
	if err != nil {
		return 0, err
	}
	conns := make([]*pgraw.Conn, 0, sessions)
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		err = errors.Join(err, waitForSessions(t, 0, 20, patience))
	}()
	for i := range sessions {
		c, err := pgraw.Login(t.addr, "postgres", "postgres", "")
		if err != nil {
			return 0, fmt.Errorf("session %d on %s: %w", i, t.name, err)
		}
		conns = append(conns, c)
		if _, err := c.Query("SELECT 1"); err != nil {
			return 0, fmt.Errorf("session %d on %s: %w", i, t.name, err)
		}
	}
	time.Sleep(3 * time.Second)
	after, err := memory(pid, "VmRSS")
	return float64(after-before) / float64(sessions), err
}

// patience is how long a server may take to end its sessions.
const patience = 30 * time.Second

// waitForSessions waits until the server has no fewer and no more sessions than
// told. It has those of the target before for some time yet: PgBouncer keeps them for seconds.
func waitForSessions(t *target, least, most int, patience time.Duration) error {
	c, err := pgraw.Login(t.server.Addr(), "postgres", "postgres", "")
	if err != nil {
		return err
	}
	defer c.Close()
	query := fmt.Sprintf("SELECT count(*) - 1 BETWEEN %d AND %d FROM pg_stat_activity WHERE backend_type = 'client backend'", least, most)
	for start := time.Now(); time.Since(start) < patience; time.Sleep(20 * time.Millisecond) {
		ms, err := c.Query(query)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if m.Type == 'D' && bytes.HasSuffix(m.Body, []byte("t")) {
				return nil
			}
		}
	}
	return fmt.Errorf("the server does not come to have %d to %d sessions within %v", least, most, patience.Round(time.Second))
}
