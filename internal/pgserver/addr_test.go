package pgserver_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

// childAsks is set in the environment of the process that takes addresses beside TestFreeAddr.
const childAsks = "PGNOTARY_TEST_FREE_ADDR"

const manyAddrs = 1000

func TestMain(m *testing.M) {
	if os.Getenv(childAsks) == "" {
		os.Exit(m.Run())
	}
	for range manyAddrs {
		addr, err := pgserver.FreeAddr()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(addr)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // alive until it is closed
}

// TestFreeAddr holds that two processes at a time get different addresses, each once.
func TestFreeAddr(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childAsks+"=1")
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	given := map[string]bool{}
	for range manyAddrs {
		addr, err := pgserver.FreeAddr()
		if err != nil || given[addr] {
			t.Fatalf("%q, %v, want another address than before", addr, err)
		}
		given[addr] = true
	}
	s := bufio.NewScanner(out)
	for range manyAddrs {
		if !s.Scan() || given[s.Text()] {
			t.Fatalf("%q was given to two processes", s.Text())
		}
		given[s.Text()] = true
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}
