package ledger

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
)

// childDir is set in the environment of the process that TestKill kills.
const childDir = "PGNOTARY_TEST_LEDGER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		run := child
		if os.Getenv(childLetsGo) != "" {
			run = childLettingGo
		}
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child records with several sessions for ever and prints each entry that is
// durable.
func child(dir string) error {
	l, err := Open(Config{Dir: dir, SegmentSize: 100 << 10, CheckpointEvery: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var mu sync.Mutex
	errs := make(chan error)
	for session := range 4 {
		go func() {
			for i := 0; ; i++ {
				value := strings.Repeat(fmt.Sprintf("%d.%d.%d,", os.Getpid(), session, i), 1+i%50)
				index, err := l.Append(leafOf(i, len(value), true), []byte(value))
				if err == nil && i%2 == 0 {
					if err = waitFor(l, index+1); err == nil {
						mu.Lock()
						fmt.Println(index, value)
						mu.Unlock()
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// TestKill kills a process that records, many times, on the real disk. What
// it said was durable must be there.
func TestKill(t *testing.T) {
	const kills = 20
	dir := t.TempDir()
	var a acked
	for kill := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "open\n" {
			t.Fatalf("the child said %q, %v", line, err)
		}
		if kill%2 == 0 { // something is durable, whatever the machine
			if _, err := lines.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
		timer := time.AfterFunc(time.Duration(5+rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				break // a line in part was not said
			} else if err != nil {
				t.Fatal(err)
			}
			var index int64
			var value string
			if _, err := fmt.Sscan(line, &index, &value); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			a.add(index, value)
		}
		timer.Stop()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended with %v, want it killed", err)
		}
		a.check(t, checkLog(t, durable.OS, dir))
	}
	mustClose(t, mustOpen(t, Config{Dir: dir}))
	a.check(t, checkLog(t, durable.OS, dir))
	if len(a.values) < kills/2 {
		t.Errorf("only %d entries were reported durable", len(a.values))
	}
	t.Logf("%d kills, %d entries reported durable, all there", kills, len(a.values))
}
