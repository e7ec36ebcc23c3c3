package crowd

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
)

// TestOrigin tells what counts as one place.
func TestOrigin(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1", "192.0.2.1/32"},
		{"::ffff:192.0.2.1", "192.0.2.1/32"},
		{"2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	} {
		if got := Origin(netip.MustParseAddr(tt.addr)); got.String() != tt.want {
			t.Errorf("Origin(%s) = %s, want %s", tt.addr, got, tt.want)
		}
	}
	if got := OriginOf(&net.UnixAddr{}); got.IsValid() || got != Origin(netip.Addr{}) {
		t.Errorf("origin of a Unix socket: %v", got)
	}
}

// TestTurnAway says who is turned away from a crowd of three.
func TestTurnAway(t *testing.T) {
	type who struct {
		from  string
		waits int64
	}
	for _, tt := range []struct {
		name     string
		in       []who
		newcomer string
		want     int // of in; -1 for the newcomer
	}{
		{"the longest wait", []who{{"a", 3}, {"a", 1}, {"a", 2}}, "a", 1},
		{"not who goes on", []who{{"a", 0}, {"a", 9}, {"a", 0}}, "a", 1},
		{"nobody waits for them", []who{{"a", 0}, {"a", 0}, {"a", 0}}, "a", -1},
		{"not who comes from elsewhere", []who{{"b", 1}, {"a", 3}, {"a", 2}}, "a", 2},
		{"nor a newcomer from elsewhere", []who{{"a", 0}, {"a", 5}, {"a", 0}}, "b", 1},
		{"all from elsewhere", []who{{"a", 4}, {"b", 2}, {"c", 3}}, "d", 1},
		{"all from elsewhere, going on", []who{{"a", 0}, {"b", 0}, {"c", 0}}, "d", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := -2
			c := New(len(tt.in), new(atomic.Int64))
			from := func(s string) netip.Prefix { return Origin(netip.AddrFrom4([4]byte{192, 0, 2, s[0]})) }
			for i, w := range tt.in {
				c.Enter(&Entrant{From: from(w.from), Waits: w.waits, TurnAway: func() { got = i }})
			}
			c.Enter(&Entrant{From: from(tt.newcomer), Waits: 10, TurnAway: func() { got = -1 }})
			if got != tt.want || c.size.Load() != int64(len(tt.in)) {
				t.Errorf("turned away %d, want %d; %d left", got, tt.want, c.size.Load())
			}
		})
	}
}
