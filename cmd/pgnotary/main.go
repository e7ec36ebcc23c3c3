// Command pgnotary is an auditing proxy for PostgreSQL: it writes what passes
// through it into a log that cannot be altered, cut or forged unnoticed, and
// it searches, proves and verifies that log.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, stable for scripts.
const (
	exitOK    = 0 // done
	exitNo    = 1 // the answer is no
	exitError = 2 // could not do it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the command in order; the next one ends the
	// process, since by then the default behaviour is back.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgnotary",
		Short: "An auditing proxy for PostgreSQL with a tamper-evident log",
		Long: `pgnotary stands between PostgreSQL clients and their server, lets every legal
byte through unchanged, and records each statement in an append-only log whose
Merkle tree anyone can check with a public key.

Exit codes: 0 done; 1 the answer is no (verification failed, nothing found
under --exit-status, proof invalid); 2 could not do it.`,
		Example: `  pgnotary demo
  pgnotary serve --listen 127.0.0.1:6432 --upstream 127.0.0.1:5432 --data ./pgnotary-data
  pgnotary search --data ./pgnotary-data --user alice --since 15m
  pgnotary verify --data ./pgnotary-data`,
		Args:          knownCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(err, "see %s --help", cmd.CommandPath())
	})
	root.AddCommand(
		newDemoCmd(),
		newServeCmd(),
		newTailCmd(),
		newSearchCmd(),
		newShowCmd(),
		newExportCmd(),
		newReportCmd(),
		newVerifyCmd(),
		newProveCmd(),
		newCheckCmd(),
		newPruneCmd(),
		newHoldCmd(),
		newEraseCmd(),
		newKeygenCmd(),
		newTokenCmd(),
		newWitnessCmd(),
		newDoctorCmd(),
		newVersionCmd(),
	)
	return root
}

// oneArgument is for commands that take one, whose name in their usage says little on its own.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return withHint(fmt.Errorf("%s is needed, and nothing else: there are %d arguments", what, len(args)), "see %s --help", cmd.CommandPath())
		}
		return nil
	}
}

// knownCommand refuses arguments that name no command, with suggestions.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return withHint(err, "did you mean %s?", strings.Join(near, " or "))
	}
	return withHint(err, "see %s --help", cmd.CommandPath())
}

// answerNo is the error of a command that did its work and found that the
// answer is no. Its message, if any, goes to standard error.
type answerNo struct{ msg string }

func (e *answerNo) Error() string { return e.msg }

// no ends a command with exit code 1. An empty format prints nothing.
func no(format string, args ...any) error {
	return &answerNo{msg: fmt.Sprintf(format, args...)}
}

// hinted is an error with a line of advice for the person at the terminal.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// withHint adds a line of advice to an error; it is printed behind "hint:".
func withHint(err error, format string, args ...any) error {
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// report prints err the way every command does, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitError
	if _, ok := errors.AsType[*answerNo](err); ok {
		code = exitNo
	}
	if msg := strings.TrimRight(err.Error(), "\n"); msg != "" {
		fmt.Fprintf(w, "pgnotary: %s\n", msg)
	}
	if h, ok := errors.AsType[*hinted](err); ok {
		fmt.Fprintf(w, "hint: %s\n", h.hint)
	}
	return code
}
