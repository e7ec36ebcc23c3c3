package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestLettingGo holds, erases and prunes in a log that is in use, kills the
// proxy in between, and looks for what must be gone in every file.
func TestLettingGo(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr(), "--immutable=false")
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	const secret = "carol@example.com"
	run := func(sql string) {
		t.Helper()
		if err := c.Send(query(sql)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Until('Z'); err != nil {
			t.Fatal(err)
		}
	}
	say := func(args ...string) (string, int) {
		t.Helper()
		return runProgram(t, append([]string{args[0]}, append(args[1:], "--data", n.data)...)...)
	}
	prepare := func(c *pgraw.Conn) {
		t.Helper()
		if err := c.Send(join(parse("s", "SELECT 'kept text', $1::text"), sync())); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Until('Z'); err != nil {
			t.Fatal(err)
		}
	}
	execute := func(c *pgraw.Conn, value string) {
		t.Helper()
		if err := c.Send(join(bindText("", "s", value), execute("", 0), sync())); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Until('Z'); err != nil {
			t.Fatal(err)
		}
	}
	prepare(c)
	execute(c, secret)
	run("SELECT '" + secret + "'")
	run("SELECT '" + secret + "'::int") // the error quotes it
	run("SELECT 'nothing of interest'")
	n.seal(t)
	run("SELECT '" + secret + "' AS again")
	proof := filepath.Join(t.TempDir(), "p.tlog-proof")
	first := find(t, n.search(t), "nothing of interest")
	if out, code := say("prove", fmt.Sprint(first.Index), "-o", proof, "--value"); code != 0 {
		t.Fatalf("prove: %s", out)
	}
	holds := func(out string) bool { return bytes.Contains(everyFile(t, n.data), []byte(out)) }
	if !holds(secret) {
		t.Fatal("the value is nowhere to begin with")
	}
	// A hold stops it, and being asked only is no harm.
	if out, code := say("hold", "add", "trial", "--user", "postgres"); code != 0 {
		t.Fatalf("hold add: %s", out)
	}
	if out, code := say("erase", "--bytes", secret); code == 0 || !strings.Contains(out, "trial") {
		t.Errorf("erase under a hold: %d, %s", code, out)
	}
	if out, code := say("hold", "release", "trial"); code != 0 {
		t.Fatalf("hold release: %s", out)
	}
	if out, code := say("erase", "--bytes", secret, "--dry-run"); code != 0 || strings.Count(out, `"k":`) < 5 {
		t.Errorf("dry run: %d, %s, want the statements and the error", code, out)
	}
	if !holds(secret) {
		t.Error("a dry run erased it")
	}
	// Half-way, the proxy is killed, and who asked it too: otherwise that might
	// open the log before the proxy does again. The next start finishes it.
	asked := exec.Command(program, "erase", "--bytes", secret, "--reason", "her request", "--data", n.data)
	var said bytes.Buffer
	asked.Stdout, asked.Stderr = &said, &said
	if err := asked.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		names, err := filepath.Glob(filepath.Join(n.data, "request", "*-*")) // none before
		if err == nil && slices.ContainsFunc(names, func(s string) bool { return !strings.HasSuffix(s, ".tmp") }) {
			break
		}
	}
	n.kill(t)
	if err := asked.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if err := asked.Wait(); err == nil {
		t.Logf("the order was carried out before the kill: %s", said.String())
	}
	n.launch(t)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(n.data, "request", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the order was not finished: %q\n%s", left, n.stderr())
		}
	}
	if holds(secret) {
		t.Error("what was erased is still there")
	}
	n.verify(t)
	// Prune what is older, with a session that goes on; its text stays.
	c2, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	prepare(c2)
	for range 2 {
		execute(c2, "value")
		n.seal(t)
	}
	if out, code := say("prune", "--before", "0s", "--reason", "policy"); code != 0 || !strings.Contains(out, "are gone") {
		t.Errorf("prune: %d, %s", code, out)
	}
	execute(c2, "the last value")
	n.verify(t)
	last := n.search(t, "--text", "kept text")
	if len(last) == 0 || len(last[len(last)-1].Params) != 1 || last[len(last)-1].Params[0].String() != "the last value" {
		t.Errorf("the text of a statement that goes on: %v", last)
	}
	n.stop(t)
	n.verify(t)
	// At rest the command does it by itself.
	if out, code := say("erase", fmt.Sprint(last[len(last)-1].Index)); code != 0 {
		t.Errorf("erase at rest: %s", out)
	}
	if holds("the last value") {
		t.Error("what was erased at rest is still there")
	}
	n.verify(t)
}

// everyFile returns what the files below dir hold, decompressed too.
func everyFile(t *testing.T, dir string) []byte {
	t.Helper()
	var all []byte
	for path, b := range filesBelow(t, dir) {
		all = append(all, b...)
		if strings.Contains(path, "/segment/") {
			cmd := exec.CommandContext(t.Context(), "zstd", "-dc")
			cmd.Stdin = bytes.NewReader(b)
			plain, err := cmd.Output()
			if err != nil && !strings.HasSuffix(path, ".tmp") { // of what is being written it gives the beginning
				t.Fatalf("zstd -dc < %s: %v", path, err)
			}
			all = append(all, plain...)
		}
	}
	return all
}
