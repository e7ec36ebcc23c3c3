package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
)

// A stretch of a run of pgbench, from one of its lines of progress to another, and the CPU time used in it.
type stretch struct {
	transactions, seconds float64
	proxy, server         time.Duration
}

// lead is what a run lasts longer than the stretch that is wanted: so long its sessions may
// take to begin.
func lead(clients int) time.Duration { return time.Second + time.Duration(clients/16)*time.Second }

// fillPool has a target that pools sessions open as many as will be wanted. It keeps them for
// some seconds; without that it opens them one after the other while the first ones are busy, and so
// has few of 32 after three seconds.
func (t *target) fillPool(sessions int) error {
	if !t.pools {
		return nil
	}
	errs := make(chan error, sessions)
	for range sessions {
		go func() {
			c, err := pgraw.Login(t.addr, "postgres", "postgres", "")
			if err == nil {
				_, err = c.Query("SELECT pg_sleep(2)") // so that none gets the session of another
				err = errors.Join(err, c.Close())
			}
			errs <- err
		}()
	}
	var err error
	for range sessions {
		err = errors.Join(err, <-errs)
	}
	return err
}

// run runs pgbench with -P 1 and so many clients. It returns what it printed, and the stretch from when all its
// sessions are there.
func (t *target) run(cmd *exec.Cmd, clients int) (out []byte, s stretch, err error) {
	var text bytes.Buffer
	cmd.Stdout = &text
	progress, err := cmd.StderrPipe()
	if err != nil {
		return nil, s, err
	}
	if err := cmd.Start(); err != nil {
		return nil, s, err
	}
	begun := make(chan error, 1)
	go func() { begun <- waitForSessions(t, clients, 2*clients, patience) }()
	all := false // sessions are there
	var begin, now mark
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		last := now.at
		var rate float64
		if _, err := fmt.Sscanf(lines.Text(), "progress: %f s, %f tps", &now.at, &rate); err != nil {
			fmt.Fprintln(&text, lines.Text())
			continue
		}
		now.transactions += rate * (now.at - last)
		if now.proxy, now.server, err = t.cpu(); err != nil {
			return nil, s, errors.Join(err, cmd.Wait())
		}
		if !all {
			select {
			case err := <-begun:
				if err != nil {
					return nil, s, errors.Join(err, cmd.Wait())
				}
				all, begin = true, now
			default:
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, s, fmt.Errorf("%w: %s", err, lastLine(text.Bytes()))
	}
	s = stretch{now.transactions - begin.transactions, now.at - begin.at, now.proxy - begin.proxy, now.server - begin.server}
	if !all || s.transactions <= 0 {
		return nil, s, fmt.Errorf("its %d sessions were not there for long enough", clients)
	}
	return text.Bytes(), s, nil
}

// A mark is how far things are at a line of progress.
type mark struct {
	at, transactions float64
	proxy, server    time.Duration
}
