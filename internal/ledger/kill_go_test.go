package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// childLetsGo is set in the environment of the process that TestKillLettingGo kills.
const childLetsGo = "PGNOTARY_TEST_LETS_GO"

// childLettingGo records, rotates, erases and prunes for ever. It prints each
// secret that it was told is erased.
func childLettingGo(dir string) error {
	l, err := Open(Config{
		Dir: dir, SegmentSize: 64 << 10, CheckpointEvery: 5 * time.Millisecond, Lazy: time.Millisecond,
		Retain: Retain{Bytes: 400 << 10, ValueBytes: 200 << 10},
	})
	if err != nil {
		return err
	}
	fmt.Println("open")
	ctx := context.Background()
	errs := make(chan error)
	go func() {
		for i := 0; ; i++ {
			value := fmt.Sprintf("%d of %d, %x", i, os.Getpid(), rand.N[uint64](1<<60))
			if _, err := l.Emit(&event.Leaf{Kind: event.KindNotice}, []byte(strings.Repeat(value, 1+i%40))); err != nil {
				errs <- err
				return
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			if err := l.clerk.retain(ctx); err != nil {
				errs <- err
				return
			}
		}
	}()
	for i := 0; ; i++ {
		secret := fmt.Sprintf("secret-%d-%d-", os.Getpid(), i)
		value := secret
		if i%3 == 0 {
			value += strings.Repeat("large", MaxInline/5)
		}
		index, err := l.Emit(&event.Leaf{Kind: event.KindNotice}, []byte(value))
		if err == nil {
			err = l.await(ctx, index)
		}
		if err == nil {
			fmt.Println("begin", secret, index)
			_, err = l.Do(ctx, &Order{Kind: "erase", Entries: []int64{index}})
		}
		if err != nil {
			return errors.Join(err, l.Err())
		}
		fmt.Println("erased", secret, index)
		select {
		case err := <-errs:
			return err
		default:
		}
	}
}

// TestKillLettingGo kills a process that erases and prunes, many times, on the
// real disk. Each time the log verifies and goes on, an order that was cut
// short is finished, and what was said to be erased is nowhere.
func TestKillLettingGo(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	dir := t.TempDir()
	erased, begun := 0, 0
	var gone []string
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, childLetsGo+"=1")
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
		timer := time.AfterFunc(time.Duration(100+rand.IntN(1200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		var half Order
		var secret string
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			var what string
			var index int64
			if _, err := fmt.Sscan(line, &what, &secret, &index); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if what == "erased" {
				erased++
				gone, half = append(gone, secret), Order{}
			} else {
				begun++
				half = Order{Kind: "erase", Entries: []int64{index}}
			}
		}
		timer.Stop()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended with %v, want it killed", err)
		}
		// As it lies there, it is in order: what is gone was explained before.
		if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || !r.OK {
			t.Fatalf("after the kill: %+v, %v", r, err)
		}
		l := mustOpen(t, Config{Dir: dir, SegmentSize: 64 << 10})
		if half.Kind != "" {
			if _, err := l.Do(t.Context(), &half); err != nil && !strings.Contains(err.Error(), "has a value") {
				t.Fatalf("an order that was cut short: %v", err)
			}
			gone = append(gone, secret)
		}
		if err := l.SealNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		r, err := verify.Dir(t.Context(), dir, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !r.OK {
			t.Fatalf("findings %+v", r.Findings)
		}
		for _, s := range gone {
			if name := fileWith(t, dir, s); name != "" {
				t.Fatalf("%s was erased and is in %s", s, name)
			}
		}
	}
	r, err := verify.Dir(t.Context(), dir, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d values erased, %d more begun, entries before %d pruned", kills, erased, begun-erased, r.Pruned)
}

// fileWith returns the name of a file below dir that has the text, decompressed or not.
func fileWith(t *testing.T, dir, text string) (found string) {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && strings.Contains(name, "/segment/") {
			var plain []byte
			plain, err = dec.DecodeAll(b, nil)
			b = append(b, plain...)
		}
		if strings.Contains(string(b), text) {
			found = name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
