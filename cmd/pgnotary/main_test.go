package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(shared{m}, map[string]func(){"pgnotary": main})
}

// shared has the tests share a PostgreSQL server.
type shared struct{ *testing.M }

func (s shared) Run() int { return pgtest.Run(s.M) }

// TestScripts runs the real program as testdata/*.txtar say.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":        checkCode,
			"interrupted": interrupted,
			"mklog":       makeLog,
		},
	})
}

// checkCode implements "code N pgnotary args...": the command must end with
// exit code N, and must not have crashed.
func checkCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with code %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
	if stderr := ts.ReadFile("stderr"); strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("standard error has a stack trace:\n%s", stderr)
	}
}

// interrupted implements "interrupted pgnotary args...": the command is interrupted once it has printed a line; it
// must end with exit code 0 and say nothing on standard error.
func interrupted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupted command args...")
	}
	exe, err := os.Executable()
	ts.Check(err)
	cmd := exec.Command(exe)
	cmd.Args, cmd.Dir = args, ts.MkAbs(".")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ts.Fatalf("%q printed nothing: %v\n%s", args, err, errs.Bytes())
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	_, err = io.Copy(io.Discard, lines)
	ts.Check(err)
	if err := cmd.Wait(); err != nil || errs.Len() > 0 {
		ts.Fatalf("%q interrupted: %v\n%s", args, err, errs.Bytes())
	}
}

// TestEveryCommandIsDocumented holds that each command has a summary, an
// example that names it, and no flag without a description.
func TestEveryCommandIsDocumented(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: summary is %q, want one without a full stop", cmd.CommandPath(), cmd.Short)
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.LocalFlags().FlagUsages(), "\n") {
			if f := strings.Fields(line); len(f) == 1 {
				t.Errorf("%s: flag %s has no description", cmd.CommandPath(), f[0])
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd())
}

func TestReport(t *testing.T) {
	cause := errors.New("open x: no such file")
	tests := []struct {
		name string
		err  error
		code int
		out  string
	}{
		{"nil", nil, 0, ""},
		{"error", cause, 2, "pgnotary: open x: no such file\n"},
		{"hint", withHint(cause, "try %s", "y"), 2, "pgnotary: open x: no such file\nhint: try y\n"},
		{"no", no("nothing found"), 1, "pgnotary: nothing found\n"},
		{"no, wrapped", fmt.Errorf("verify: %w", no("bad")), 1, "pgnotary: verify: bad\n"},
		{"no, silent", no(""), 1, ""},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if code := report(&out, tt.err); code != tt.code || out.String() != tt.out {
			t.Errorf("%s: report = %d, %q, want %d, %q", tt.name, code, out.String(), tt.code, tt.out)
		}
	}
}

// TestProgress draws the bar of a long verification.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, began: time.Now().Add(-10 * time.Second)}
	p.show(1, 4)
	p.clear()
	if got, want := out.String(), "\r[##########..............................]  25 %, 30s left \x1b[K\r\x1b[K"; got != want {
		t.Errorf("the bar is %q, want %q", got, want)
	}
}
