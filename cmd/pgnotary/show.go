package main

import (
	"encoding/base64"
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
its end, and its leaf byte for byte as the Merkle tree has it. For the entry of
an outcome it prints the statement that the outcome belongs to.

With --json it prints one object: the keys of search, and leaf (verbatim), value
and salt (base64; SHA-256 of salt and value is the leaf's c).`,
		Example: `  pgnotary show --data ./pgnotary-data 42
  pgnotary show --data ./pgnotary-data 42 --json | jq .leaf`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || index < 0 {
				return fmt.Errorf("%q is not an index: a number from 0 on", args[0])
			}
			log, err := query.Open(dir)
			if err != nil {
				return err
			}
			e, err := log.Entry(index)
			if errors.Is(err, fs.ErrNotExist) {
				size, sizeErr := log.Size()
				if sizeErr != nil {
					return sizeErr
				}
				return fmt.Errorf("there is no entry %d: the log has those from %d to %d", index, log.First(), size-1)
			} else if err != nil {
				return err
			}
			s, err := log.Statement(cmd.Context(), index)
			if err != nil {
				return err
			}
			value, err := log.Value(&e)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if asJSON {
				return showJSON(cmd.OutOrStdout(), s, &e, value)
			}
			return showText(cmd.OutOrStdout(), s, &e, value)
		},
	}
	addDataFlag(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// showJSON adds what only show tells to the object of search.
func showJSON(w io.Writer, s *query.Statement, e *query.Entry, value []byte) error {
	b := s.AppendJSON(nil)
	b = append(b[:len(b)-1], `,"leaf":`...)
	b = append(b, e.Leaf...)
	if e.HasValue && value != nil {
		b = base64.StdEncoding.AppendEncode(append(b, `,"value":"`...), value)
		b = base64.StdEncoding.AppendEncode(append(b, `","salt":"`...), e.Salt[:])
		b = append(b, '"')
	}
	_, err := w.Write(append(b, '}', '\n'))
	return err
}

// showText prints an entry for people.
func showText(w io.Writer, s *query.Statement, e *query.Entry, value []byte) error {
	var b strings.Builder
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-12s %s\n", name, plain(text))
		}
	}
	row("entry", strconv.FormatInt(s.Index, 10))
	row("time", string(event.AppendTime(nil, s.Time)))
	if s.Session != 0 {
		row("session", string(event.AppendSession(nil, s.Session)))
	}
	row("kind", string(s.Kind))
	row("user", s.User)
	row("database", s.Database)
	row("application", s.Application)
	row("client", s.Client)
	row("prepared", s.Prepared)
	row("portal", s.Portal)
	if s.MaxRows != 0 {
		row("row limit", strconv.Itoa(int(s.MaxRows)))
	}
	if s.Malformed {
		row("note", "the message is malformed; it is shown as far as it goes")
	}
	if s.Unavailable {
		row("note", "a value this entry needs is no longer there")
	}
	if s.HasText {
		b.WriteString("statement\n" + indent(s.Text))
	}
	if s.Function != nil {
		row("function", strings.TrimSpace(fmt.Sprintf("%d %s", s.Function.OID, s.Function.Name)))
	}
	for i := range s.Params {
		p := &s.Params[i]
		text := param(p)
		name := "unknown type"
		if p.OID != 0 {
			name = pgvalue.TypeName(p.OID)
		}
		if !p.Null {
			name += fmt.Sprintf(", %s, %d bytes", formatName(p.Format), len(p.Raw))
		}
		row(fmt.Sprintf("$%d", i+1), text+"  ("+name+")")
	}
	for _, p := range s.Settings {
		row("setting", p.Name+" = "+p.Value)
	}
	for _, f := range s.Facts {
		row("fact", f.Key+" = "+f.Val)
	}
	if s.Copy != nil {
		row("copied", fmt.Sprintf("%d messages, %d bytes, SHA-256 %x", s.Copy.Messages, s.Copy.Bytes, s.Copy.SHA256))
	}
	if s.Notify != nil {
		row("notified", fmt.Sprintf("%s: %q by process %d", s.Notify.Channel, s.Notify.Payload, s.Notify.PID))
	}
	if s.Raw != nil {
		row("bytes", fmt.Sprintf("%q", s.Raw))
	}
	showOutcome(row, s)
	if m := message(s); m != nil {
		row("message", strings.TrimSpace(m.Severity+" "+m.SQLState)+": "+m.Message)
		row("detail", m.Detail)
		row("hint", m.Hint)
		row("position", m.Position)
	}
	if e.Index != s.Index {
		row("shown for", fmt.Sprintf("entry %d", e.Index))
	}
	b.WriteString("leaf\n    " + string(e.Leaf) + "\n")
	switch {
	case e.HasValue && value == nil:
		row("value", "no longer there")
	case e.HasValue:
		row("value", fmt.Sprintf("%d bytes", len(value)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// showOutcome prints how a statement ended.
func showOutcome(row func(name, text string), s *query.Statement) {
	o := s.Outcome
	if o == nil {
		return
	}
	text, _ := verdict(s)
	if len(o.Tags) > 0 {
		text = strings.Join(o.Tags, ", ")
	}
	row("outcome", fmt.Sprintf("%s (entry %d)", text, o.Index))
	if us, ok := s.Duration(); ok {
		row("took", duration(us))
	}
	if o.Rows > 0 {
		row("rows", fmt.Sprintf("%d, %d bytes", o.Rows, o.Bytes))
	}
	switch {
	case o.Committed > 0:
		row("transaction", "committed")
	case o.Committed < 0:
		row("transaction", "rolled back")
	case s.Kind == event.KindQuery || s.Kind == event.KindExecute:
		row("transaction", "not known to be committed or rolled back")
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
