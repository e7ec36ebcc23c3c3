package web

import (
	"io"
	"net"
	"testing"
)

// TestLimited holds that more connections than MaxConns wait, and go on when others end.
func TestLimited(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := limited(inner)
	accepted := make(chan net.Conn)
	done := make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				done <- err
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var first net.Conn
	for range MaxConns {
		dial()
		first = <-accepted
	}
	last := dial()
	select {
	case <-accepted:
		t.Error("one more than MaxConns is accepted")
	default:
	}
	if len(ln.free) != MaxConns {
		t.Errorf("%d slots are taken, want all", len(ln.free))
	}
	first.Close()
	first.Close() // gives back no second slot
	c := <-accepted
	c.Close()
	if _, err := io.ReadAll(last); err != nil {
		t.Error(err)
	}
	for range 2 {
		ln.Close()
	}
	if err := <-done; err == nil {
		t.Error("Accept goes on after Close")
	}
}
