package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/query"
)

// A selection is what search and tail have in common: a log, on the disk or
// over HTTP, what of it is wanted, and in which form.
type selection struct {
	dir, url, tokenFile string
	asJSON              bool
	filterFlags
}

func (s *selection) register(cmd *cobra.Command) {
	addDataFlag(cmd, &s.dir)
	f := cmd.Flags()
	f.StringVar(&s.url, "url", "", "instead of --data: `URL` of the HTTP address of a running pgnotary serve")
	f.StringVar(&s.tokenFile, "token-file", "", "`FILE` with the token for --url (default: the environment variable "+tokenVariable+")")
	s.filterFlags.register(cmd)
	f.BoolVar(&s.asJSON, "json", false, "print one JSON object a line")
}

// run lists, or with follow follows, what is selected, and reports whether there was any.
func (s *selection) run(cmd *cobra.Command, follow bool) (found bool, err error) {
	if s.url != "" && cmd.Flags().Changed("data") {
		return false, withHint(errors.New("give either --data or --url"), "see %s --help", cmd.CommandPath())
	}
	f, err := s.filter(time.Now())
	if err != nil {
		return false, err
	}
	out := newPrinter(cmd.OutOrStdout(), s.asJSON, follow)
	if s.url == "" {
		err = s.runDir(cmd.Context(), f, follow, out)
	} else {
		err = s.runURL(cmd, follow, out)
	}
	return out.found, errors.Join(err, out.w.Flush())
}

func (s *selection) runDir(ctx context.Context, f query.Filter, follow bool, out *printer) error {
	log, err := query.Open(s.dir)
	if err != nil {
		return err
	}
	if !follow {
		if err := log.CatchUp(ctx); err != nil {
			return err
		}
		return log.Search(ctx, f, out.statement)
	}
	var from int64
	if !s.given("since") && !s.given("from") {
		if from, err = log.Size(); err != nil {
			return err
		}
	}
	return log.Tail(ctx, from, f, out.statement)
}

func (s *selection) runURL(cmd *cobra.Command, follow bool, out *printer) error {
	log, err := openRemote(s.url, s.tokenFile, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	show := out.object
	if !s.asJSON {
		show = decoded(out.statement)
	}
	if follow {
		err = log.tail(cmd.Context(), s.words, show)
	} else {
		err = log.search(cmd.Context(), s.words, show)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.url, err)
	}
	return nil
}

// A printer writes statements one a line, as JSON or for people.
type printer struct {
	w      *bufio.Writer
	lines  linePrinter
	asJSON bool
	follow bool // nothing waits
	found  bool
	buf    []byte
}

func newPrinter(w io.Writer, asJSON, follow bool) *printer {
	return &printer{w: bufio.NewWriterSize(w, 64<<10), lines: newLinePrinter(w), asJSON: asJSON, follow: follow}
}

func (p *printer) statement(s *query.Statement) error {
	if p.asJSON {
		p.buf = s.AppendJSON(p.buf[:0])
		return p.object(p.buf)
	}
	_, err := p.w.WriteString(p.lines.line(s))
	return p.done(err)
}

// object writes a statement that is JSON already.
func (p *printer) object(object []byte) error {
	_, err := p.w.Write(object)
	if err == nil {
		err = p.w.WriteByte('\n')
	}
	return p.done(err)
}

func (p *printer) done(err error) error {
	p.found = true
	if err == nil && p.follow {
		err = p.w.Flush()
	}
	return err
}
