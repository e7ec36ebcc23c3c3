package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/config"
)

// TestManyLines holds that one message cannot fill a disk, and that no other is lost for it.
func TestManyLines(t *testing.T) {
	var out bytes.Buffer
	c := config.Default()
	logger, _ := newLogger(&out, &c)
	say := func(second int64, message string) {
		if err := logger.Handler().Handle(context.Background(), slog.NewRecord(time.Unix(second, 0), slog.LevelError, message, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 * maxLines {
		say(1, "cannot reach the server")
	}
	say(1, "recording ended")
	for range 2 {
		say(7, "cannot reach the server")
	}
	if n := strings.Count(out.String(), "cannot reach the server"); n != maxLines+2 {
		t.Errorf("%d lines of one message, want %d in one second and 2 in another", n, maxLines)
	}
	if !strings.Contains(out.String(), "recording ended") || strings.Count(out.String(), "left_out=900\n") != 1 {
		t.Errorf("want the other message, and once that 900 were left out:\n%s", out.String()[max(0, out.Len()-600):])
	}
}
