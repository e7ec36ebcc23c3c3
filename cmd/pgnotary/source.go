package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A selection is what search, tail and export have in common: a log, on the
// disk or over HTTP, and what of it is wanted.
type selection struct {
	dir, url, tokenFile string
	all                 bool
	filterFlags
}

func (s *selection) register(cmd *cobra.Command) {
	addDataFlag(cmd, &s.dir)
	f := cmd.Flags()
	f.StringVar(&s.url, "url", "", "instead of --data: `URL` of the HTTP address of a running pgnotary serve")
	f.StringVar(&s.tokenFile, "token-file", "", "`FILE` with the token for --url (default: the environment variable "+tokenVariable+")")
	s.filterFlags.register(cmd)
}

// registerAll adds the flag for those who must not miss one.
func (s *selection) registerAll(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.all, "all", false, "read every entry: rely neither on indexes nor on a clock that was not set back")
}

func addJSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print one JSON object a line")
}

// run lists, or with follow follows, what is selected.
func (s *selection) run(cmd *cobra.Command, follow bool, out output) error {
	if s.url != "" && cmd.Flags().Changed("data") {
		return withHint(errors.New("give either --data or --url"), "see %s --help", cmd.CommandPath())
	}
	f, err := s.filter(time.Now())
	if err != nil {
		return err
	}
	f.All = s.all
	if s.url == "" {
		return s.runDir(cmd, f, follow, out)
	}
	if err := s.runURL(cmd, follow, out); err != nil {
		return fmt.Errorf("%s: %w", s.url, err)
	}
	return nil
}

// An output takes what is selected.
type output interface {
	begin(origin string) error // of the log
	statement(s *query.Statement) error
	object(object []byte) error // the JSON of a statement
	// render returns a function that may be called concurrently and appends what
	// statement would write, which write then writes; nil if there is none.
	render() func(dst []byte, s *query.Statement) ([]byte, error)
	write(b []byte) error
}

func (s *selection) runDir(cmd *cobra.Command, f query.Filter, follow bool, out output) error {
	ctx := cmd.Context()
	log, err := query.Open(s.dir)
	if err != nil {
		return err
	}
	if err := out.begin(log.Origin()); err != nil {
		return err
	}
	if !follow {
		if err := log.CatchUp(ctx); err != nil {
			return err
		}
		if err := s.sayPruned(cmd.ErrOrStderr(), log, &f); err != nil {
			return err
		}
		if render := out.render(); render != nil {
			return log.Render(ctx, f, render, out.write)
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

// sayPruned says of what is selected that it may have been pruned: that
// nothing is found is no answer then.
func (s *selection) sayPruned(w io.Writer, log *query.Log, f *query.Filter) error {
	first, what := log.First(), "entries before %d were pruned\n"
	if slices.ContainsFunc(query.Conditions(), func(c query.Condition) bool { return c.Content && s.given(c.Name) }) {
		if v := log.FirstValue(); v > first {
			first, what = v, "texts and parameters before entry %d were pruned: nothing there is found by them\n"
		}
	}
	if first <= f.From {
		return nil
	}
	e, err := log.Entry(first)
	if errors.Is(err, fs.ErrNotExist) { // the log ends there
		return nil
	} else if err != nil {
		return err
	}
	if leaf, err := event.Parse(e.Leaf); err != nil || !f.Since.IsZero() && f.Since.UnixNano() >= leaf.Time {
		return err
	}
	_, err = fmt.Fprintf(w, "pgnotary: "+what, first)
	return err
}

func (s *selection) runURL(cmd *cobra.Command, follow bool, out output) error {
	log, err := openRemote(s.url, s.tokenFile, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	origin, err := log.origin(cmd.Context())
	if err != nil {
		return err
	}
	if err := out.begin(origin); err != nil {
		return err
	}
	words := maps.Clone(s.words)
	if s.all {
		words.Set("all", "true")
	}
	if follow {
		return log.tail(cmd.Context(), words, out.object)
	}
	return log.search(cmd.Context(), words, out.object)
}

// A printer writes statements one a line, as JSON or for people.
type printer struct {
	out    io.Writer // behind w
	w      *bufio.Writer
	lines  linePrinter
	asJSON bool
	follow bool // nothing waits
	found  bool
	buf    []byte
}

func newPrinter(w io.Writer, asJSON, follow bool) *printer {
	return &printer{out: w, w: bufio.NewWriterSize(w, 64<<10), lines: newLinePrinter(w), asJSON: asJSON, follow: follow}
}

func (p *printer) begin(string) error { return nil }

func (p *printer) render() func(dst []byte, s *query.Statement) ([]byte, error) {
	if p.asJSON {
		return func(dst []byte, s *query.Statement) ([]byte, error) { return append(s.AppendJSON(dst), '\n'), nil }
	}
	return func(dst []byte, s *query.Statement) ([]byte, error) { return append(dst, p.lines.line(s)...), nil }
}

func (p *printer) statement(s *query.Statement) (err error) {
	if p.buf, err = p.render()(p.buf[:0], s); err != nil {
		return err
	}
	return p.write(p.buf)
}

// object writes a statement that is JSON already.
func (p *printer) object(object []byte) error {
	if !p.asJSON {
		return decoded(p.statement)(object)
	}
	return p.write(append(object[:len(object):len(object)], '\n'))
}

func (p *printer) write(lines []byte) error {
	if p.asJSON {
		lines = forTerminal(p.out, lines)
	}
	_, err := p.w.Write(lines)
	p.found = true
	if err == nil && p.follow {
		err = p.w.Flush()
	}
	return err
}
