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
		err = errors.Join(err, waitForSessions(t))
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

// waitForSessions waits until the server has ended the sessions, so that the
// next target finds it as this one did. PgBouncer keeps them for a second.
func waitForSessions(t *target) error {
	c, err := pgraw.Login(t.server.Addr(), "postgres", "postgres", "")
	if err != nil {
		return err
	}
	defer c.Close()
	for range 300 {
		ms, err := c.Query("SELECT count(*) < 20 FROM pg_stat_activity WHERE backend_type = 'client backend'")
		if err != nil {
			return err
		}
		for _, m := range ms {
			if m.Type == 'D' && bytes.HasSuffix(m.Body, []byte("t")) {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the server's sessions do not end")
}
