package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newShowCmd() *cobra.Command {
	var (
		dir    string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "show INDEX",
		Short: "Print one entry: its leaf verbatim, its values decoded",
		Long: `Show prints the entry at an index: what it says, joined with its parameters and
its end, and its leaf byte for byte as the Merkle tree has it (on a terminal without
what that would act on, as \u and its number). For the entry of
an outcome it prints the statement that the outcome belongs to.

For people it also shows the statement with its parameters in place, a rendering that
was never sent. With --json it prints one object: the keys of search, rendering, and leaf (verbatim), value
and salt (base64; SHA-256 of salt and value is the leaf's c).`,
		Example: `  pgnotary show --data ./pgnotary-data 42
  pgnotary show --data ./pgnotary-data 42 --json | jq .leaf`,
		Args: oneArgument("the INDEX of an entry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || index < 0 {
				return fmt.Errorf("%q is not an index: a number from 0 on", args[0])
			}
			log, err := query.Open(dir)
			if err != nil {
				return err
			}
			if err := log.CatchUp(cmd.Context()); err != nil {
				return err
			}
			s, e, value, err := log.Detail(cmd.Context(), index)
			if errors.Is(err, fs.ErrNotExist) {
				size, sizeErr := log.Size()
				if sizeErr != nil {
					return sizeErr
				}
				return fmt.Errorf("there is no entry %d: the log has those from %d to %d", index, log.First(), size-1)
			} else if err != nil {
				return err
			}
			if asJSON {
				w := cmd.OutOrStdout()
				_, err := w.Write(forTerminal(w, append(query.AppendEntryJSON(nil, s, &e, value), '\n')))
				return err
			}
			return showText(cmd.OutOrStdout(), s, &e, value)
		},
	}
	addDataFlag(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// A sheet is what show prints of an entry for people: names and texts.
type sheet struct{ strings.Builder }

// row prints a line, unless there is nothing to say.
func (b *sheet) row(name, text string) {
	if text != "" {
		fmt.Fprintf(b, "%-12s %s\n", name, plain(text))
	}
}

func showText(w io.Writer, s *query.Statement, e *query.Entry, value []byte) error {
	var b sheet
	b.row("entry", strconv.FormatInt(s.Index, 10))
	b.row("time", string(event.AppendTime(nil, s.Time)))
	if s.Session != 0 {
		b.row("session", string(event.AppendSession(nil, s.Session)))
	}
	b.row("kind", string(s.Kind))
	b.row("user", s.User)
	b.row("database", s.Database)
	b.row("application", s.Application)
	b.row("client", s.Client)
	b.row("executes", s.Executes)
	b.row("prepared", s.Prepared)
	b.row("portal", s.Portal)
	if s.MaxRows != 0 {
		b.row("row limit", strconv.Itoa(int(s.MaxRows)))
	}
	if s.Malformed {
		b.row("note", "the message is malformed; it is shown as far as it goes")
	}
	if s.TooLarge {
		b.row("note", "a value this entry needs is too large to be shown from here: see it beside the data directory")
	} else if s.Unavailable {
		b.row("note", "a value this entry needs is no longer there")
	}
	b.content(s)
	b.outcome(s)
	if m := message(s); m != nil {
		b.row("message", strings.TrimSpace(m.Severity+" "+m.SQLState)+": "+m.Message)
		b.row("detail", m.Detail)
		b.row("hint", m.Hint)
		b.row("position", m.Position)
	}
	if e.Index != s.Index {
		b.row("shown for", fmt.Sprintf("entry %d", e.Index))
	}
	b.WriteString("leaf\n    ")
	b.Write(forTerminal(w, e.Leaf))
	b.WriteByte('\n')
	switch {
	case e.HasValue && value == nil:
		b.row("value", e.Gone.String())
	case e.HasValue:
		b.row("value", fmt.Sprintf("%d bytes", len(value)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// content prints what the entry's value says.
func (b *sheet) content(s *query.Statement) {
	if s.HasText {
		b.WriteString("statement\n" + indent(s.Text))
	}
	if s.Function != nil {
		b.row("function", strings.TrimSpace(fmt.Sprintf("%d %s", s.Function.OID, s.Function.Name)))
	}
	for i := range s.Params {
		p := &s.Params[i]
		about := "unknown type"
		if p.OID != 0 {
			about = pgvalue.TypeName(p.OID)
		}
		if !p.Null {
			about += fmt.Sprintf(", %s, %d bytes", formatName(p.Format), len(p.Raw))
		}
		b.row(fmt.Sprintf("$%d", i+1), param(p)+"  ("+about+")")
	}
	b.row("request", s.Request)
	if text, ok := s.Rendering(); ok {
		b.WriteString("rendering (made here, with the parameters in place: nobody sent this text)\n" + indent(text))
	}
	for _, p := range s.Settings {
		b.row("setting", p.Name+" = "+p.Value)
	}
	for _, f := range s.Facts {
		b.row("fact", f.Key+" = "+f.Val)
	}
	if s.Copy != nil {
		b.row("copied", fmt.Sprintf("%d messages, %d bytes", s.Copy.Messages, s.Copy.Bytes))
		b.row("SHA-256", fmt.Sprintf("%x", s.Copy.SHA256))
	}
	if s.Notify != nil {
		b.row("notified", fmt.Sprintf("%s: %q by process %d", s.Notify.Channel, s.Notify.Payload, s.Notify.PID))
	}
	for _, row := range s.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = "NULL"; cell != nil {
				cells[i] = fmt.Sprintf("%q", *cell)
			}
		}
		b.row("row", strings.Join(cells, ", "))
	}
	if s.Raw != nil && s.Rows == nil {
		b.row("bytes", fmt.Sprintf("%q", s.Raw))
	}
}

// outcome prints how a statement ended.
func (b *sheet) outcome(s *query.Statement) {
	o := s.Outcome
	if o == nil {
		return
	}
	text, _ := verdict(s)
	if o.Result != nil {
		b.row("result", param(o.Result))
	}
	if len(o.Tags) > 0 {
		text = strings.Join(o.Tags, ", ")
	}
	b.row("outcome", fmt.Sprintf("%s (entry %d)", text, o.Index))
	if us, ok := s.Duration(); ok {
		b.row("took", duration(us))
	}
	if o.Rows > 0 {
		b.row("rows", fmt.Sprintf("%d, %d bytes", o.Rows, o.Bytes))
	}
	for _, f := range o.Facts {
		b.row("server said", f.Key+" = "+f.Val)
	}
	switch {
	case o.Committed > 0:
		b.row("transaction", "committed")
	case o.Committed < 0:
		b.row("transaction", "rolled back")
	case s.Kind == event.KindQuery || s.Kind == event.KindExecute:
		b.row("transaction", "not known to be committed or rolled back")
	}
}

func formatName(code int16) string {
	switch code {
	case pgvalue.FormatText:
		return "text"
	case pgvalue.FormatBinary:
		return "binary"
	}
	return "format " + strconv.Itoa(int(code))
}

// indent sets a text off by four spaces, line by line, without anything a
// terminal would act on.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    ")
		for _, r := range strings.TrimRight(line, "\r\n") {
			if unicode.IsPrint(r) || r == '\t' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
