package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
)

// A copySample is what one COPY showed.
type copySample struct {
	rate     float64 // MB/s, of the data
	proxyCPU float64 // microseconds per MB, -1 without a proxy
	peak     int64   // bytes of the proxy's memory, -1 without one
}

// rowSize is the length of a row with its line feed.
const rowSize = 1000

// copyOut reads n bytes by COPY TO STDOUT: the server makes rows out of nothing
// and sends each in a message of its own.
func copyOut(t *target, n int64) (copySample, error) {
	return copyRun(t, n, func(c *pgraw.Conn) error {
		sql := fmt.Sprintf("COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT", rowSize-1, n/rowSize)
		if err := c.Send(pgraw.Query(sql)); err != nil {
			return err
		}
		got, err := c.SkipTo('Z')
		if err == nil && got < n/rowSize*rowSize {
			err = fmt.Errorf("%d bytes came, want %d", got, n)
		}
		return err
	})
}

// copyIn sends n bytes by COPY FROM STDIN in messages of 8 KiB, as psql does. The server
// parses the rows and stores none.
func copyIn(t *target, n int64) (copySample, error) {
	row := append(bytes.Repeat([]byte{'x'}, rowSize-1), '\n')
	message := pgraw.CopyData(bytes.Repeat(row, 8))
	const many = 8
	packet := bytes.Repeat(message, many)
	return copyRun(t, n, func(c *pgraw.Conn) error {
		if err := c.Send(pgraw.Query("COPY pgbench_sink FROM STDIN WHERE false")); err != nil {
			return err
		}
		if _, err := c.Until('G'); err != nil {
			return err
		}
		for sent := int64(0); sent < n; sent += many * 8 * rowSize {
			if err := c.Send(packet); err != nil {
				return err
			}
		}
		if err := c.Send(pgraw.CopyDone()); err != nil {
			return err
		}
		_, err := c.SkipTo('Z')
		return err
	})
}

func copyRun(t *target, n int64, do func(*pgraw.Conn) error) (s copySample, err error) {
	c, err := pgraw.Login(t.addr, "postgres", "postgres", "")
	if err != nil {
		return s, fmt.Errorf("COPY on %s: %w", t.name, err)
	}
	defer c.Close()
	if _, err := c.Query("CREATE TEMP TABLE IF NOT EXISTS pgbench_sink (t text)"); err != nil {
		return s, fmt.Errorf("COPY on %s: %w", t.name, err)
	}
	if t.proxy != nil {
		if err := resetPeak(t.proxy.cmd.Process.Pid); err != nil {
			return s, err
		}
	}
	before, err := t.usage()
	if err != nil {
		return s, err
	}
	start := time.Now()
	if err := do(c); err != nil {
		return s, fmt.Errorf("COPY on %s: %w", t.name, err)
	}
	mb := float64(n) / 1e6
	s.rate = mb / time.Since(start).Seconds()
	after, err := t.usage()
	if err != nil {
		return s, err
	}
	s.proxyCPU, s.peak = -1, -1
	if t.proxy != nil {
		s.proxyCPU = float64((after.proxyCPU - before.proxyCPU).Microseconds()) / mb
		s.peak = after.peak
	}
	return s, nil
}
