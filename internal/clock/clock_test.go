package clock_test

import (
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/clock"
)

// TestShift: what a Clock says to add is what the time of day was set by, unless that is little, in whole microseconds.
func TestShift(t *testing.T) {
	c := clock.New()
	var ahead time.Duration
	c.Ahead = func() time.Duration { return ahead }
	at := c.Now()
	for _, step := range []struct{ ahead, want time.Duration }{
		{0, 0},
		{99 * time.Millisecond, 0},
		{time.Hour + 999, time.Hour},
		{-9000 * time.Hour, -9000 * time.Hour},
		{-9000*time.Hour + 50*time.Millisecond, -9000 * time.Hour},
		{0, 0},
	} {
		ahead = step.ahead
		at += int64(time.Second)
		if got := time.Duration(c.Shift(at)); got != step.want {
			t.Errorf("the time of day is %s ahead: Shift = %s, want %s", step.ahead, got, step.want)
		}
		ahead = 77 * time.Hour // within the second it does not look
		if got := time.Duration(c.Shift(at + 1000)); got != step.want {
			t.Errorf("the time of day was %s ahead: Shift = %s, want %s", step.ahead, got, step.want)
		}
	}
}

// TestAhead: unless somebody sets the machine's clock just now, both agree, and Now does not go back.
func TestAhead(t *testing.T) {
	c := clock.New()
	if ahead := c.Ahead(); ahead.Abs() > time.Second {
		t.Errorf("a new clock is behind the time of day by %s", ahead)
	}
	if a, b := c.Now(), c.Now(); b < a || a%1000 != 0 {
		t.Errorf("Now = %d and then %d, want whole microseconds that do not go back", a, b)
	}
}
