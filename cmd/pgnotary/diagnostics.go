package main

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/pgnotary/pgnotary/internal/config"
)

// newLogger returns the logger for diagnostics, whose level can be changed.
func newLogger(w io.Writer, c *config.Config) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c)
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if c.LogFormat == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(limited{h, &lineCounts{count: map[string]int{}, left: map[string]int{}}}), level
}

func setLevel(level *slog.LevelVar, c *config.Config) {
	var l slog.Level
	// Validate has seen to it that this is a level.
	if err := l.UnmarshalText([]byte(c.LogLevel)); err == nil {
		level.Set(l)
	}
}

// maxLines bounds the diagnostics with one message in a second, so that strangers, or clients that try again and
// again while the server is down, cannot fill a disk with them. What they are about is counted, and is in the log.
const maxLines = 100

// limited leaves out what is too much; the next line with that message tells how many were.
type limited struct {
	slog.Handler
	counts *lineCounts
}

// lineCounts counts lines by message.
type lineCounts struct {
	mu     sync.Mutex
	second int64
	count  map[string]int // in this second
	left   map[string]int // left out in earlier ones, and not told of
}

// Handle implements slog.Handler.
func (h limited) Handle(ctx context.Context, r slog.Record) error {
	n, left := h.counts.add(r.Time.Unix(), r.Message)
	if n > maxLines {
		return nil
	}
	if left > 0 {
		r.AddAttrs(slog.Int("left_out", left))
	}
	return h.Handler.Handle(ctx, r)
}

// add counts a line, and returns the how many-th of this second it is, and how many to tell of with it.
func (l *lineCounts) add(second int64, message string) (n, left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if second != l.second {
		l.second = second
		for m, n := range l.count {
			if n > maxLines {
				l.left[m] = n - maxLines
			}
		}
		clear(l.count)
	}
	l.count[message]++
	if n = l.count[message]; n <= maxLines {
		left = l.left[message]
		delete(l.left, message)
	}
	return n, left
}
