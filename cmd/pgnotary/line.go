package main

import (
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A linePrinter writes statements for people, one a line.
type linePrinter struct {
	width func() int // of the terminal now, nil if there is none: lines are not cut then
	color bool       // ANSI colours
}

// newLinePrinter looks whether w is a terminal.
func newLinePrinter(w io.Writer) linePrinter {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return linePrinter{}
	}
	width := func() int { // it changes while a tail runs
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0
		}
		return width
	}
	return linePrinter{width: width, color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

const (
	colorDim   = "\x1b[2m"
	colorRed   = "\x1b[31m"
	colorGreen = "\x1b[32m"
	colorAmber = "\x1b[33m"
	colorSlow  = "\x1b[1;33m" // bold
	colorWorst = "\x1b[1;31m"
	colorReset = "\x1b[0m"
)

// From these times on a statement is slow, and very slow.
const (
	slow     = time.Second
	verySlow = 10 * time.Second
)

// line returns the line of a statement, with its line feed. What is slow, what
// failed and what was rolled back stands out by its colour.
func (p linePrinter) line(s *query.Statement) string {
	terminal := 0
	if p.width != nil {
		terminal = p.width()
	}
	form := wideForm()
	if 0 < terminal && terminal < wideTerminal {
		form = narrowForm()
	}
	at := time.Unix(0, s.Time).UTC().Format(form.time)
	head := fmt.Sprintf(form.head, s.Index, at, form.fit(plain(who(s)), form.who))
	took, tookColor := "", colorDim
	if us, known := s.Duration(); known {
		took = duration(us)
		switch d := time.Duration(us) * time.Microsecond; {
		case d >= verySlow:
			tookColor = colorWorst
		case d >= slow:
			tookColor = colorSlow
		}
	}
	took = fmt.Sprintf(form.took, took)
	result, color := verdict(s)
	result = form.fit(plain(result), form.result) + form.gap
	text := describe(s)
	if terminal > 0 {
		text = cut(text, terminal-columns(head+took+result))
	}
	if !p.color {
		return strings.TrimRight(head+took+result+text, " ") + "\n"
	}
	if color == colorRed { // an error's message is as important as its code
		text = color + text + colorReset
	}
	return colorDim + head + colorReset + tookColor + took + colorReset + color + result + colorReset + text + "\n"
}

// A form says how the parts of a line are set.
type form struct {
	time, head, took, gap string
	who, result           int  // columns
	tight                 bool // what is longer is cut
}

// wideTerminal is the width from which on a terminal has room for the wide form.
const wideTerminal = 120

func wideForm() form {
	return form{time: "2006-01-02 15:04:05.000", head: "%7d  %s  %s  ", took: "%10s  ", gap: "  ", who: 18, result: 18}
}

func narrowForm() form {
	return form{time: "15:04:05.000", head: "%6d %s %s ", took: "%9s ", gap: " ", who: 10, result: 12, tight: true}
}

func (f *form) fit(s string, n int) string {
	if f.tight && columns(s) > n {
		s = cut(s, n)
	}
	return padded(s, n)
}

// padded fills s up with spaces.
func padded(s string, n int) string { return s + strings.Repeat(" ", max(0, n-columns(s))) }

// columns returns how wide s is on a terminal.
func columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// who names user and database of a statement.
func who(s *query.Statement) string {
	if s.Database == "" {
		return s.User
	}
	return s.User + "@" + s.Database
}

// duration prints microseconds in milliseconds, or in seconds from ten of them on.
func duration(us int64) string {
	if us >= 10_000_000 {
		return fmt.Sprintf("%.2f s", float64(us)/1e6)
	}
	return fmt.Sprintf("%.3f ms", float64(us)/1e3)
}

// verdict says in a few words how a statement ended, and the colour for it.
func verdict(s *query.Statement) (text, color string) {
	o := s.Outcome
	if state := s.SQLState(); state != "" {
		return "ERROR " + state, colorRed
	}
	if o == nil {
		switch s.Kind {
		case event.KindQuery, event.KindExecute, event.KindParse, event.KindBind, event.KindFunctionCall:
			return "(end not seen)", colorAmber
		case event.KindViolation, event.KindGap:
			return string(s.Kind), colorRed
		}
		return string(s.Kind), colorDim
	}
	switch {
	case o.Skipped:
		return "(skipped)", colorAmber
	case o.Discarded:
		return "(discarded)", colorAmber
	case o.Suspended:
		return "(suspended)", colorAmber
	}
	switch n := len(o.Tags); {
	case n > 1:
		text = fmt.Sprintf("%s +%d", o.Tags[0], n-1)
	case n == 1:
		text = o.Tags[0]
	default:
		text = string(s.Kind)
	}
	if o.Committed < 0 && text != "ROLLBACK" {
		return text + " undone", colorAmber
	}
	return text, colorGreen
}

// describe returns what a statement is about, on one line.
func describe(s *query.Statement) string {
	var b strings.Builder
	switch {
	case s.Function != nil:
		name := s.Function.Name
		if name == "" {
			name = fmt.Sprintf("function %d", s.Function.OID)
		}
		b.WriteString(name)
	case s.HasText:
		b.WriteString(plain(s.Text))
	case s.TooLarge:
		b.WriteString("(text too large to be shown from here)")
	case s.Unavailable:
		b.WriteString("(text not available)")
	case s.Kind == event.KindExecute:
		b.WriteString("portal " + plain(fmt.Sprintf("%q", s.Portal)))
	}
	for i := range s.Params {
		sep := ", "
		if i == 0 {
			sep = "  ["
		}
		fmt.Fprintf(&b, "%s$%d=%s", sep, i+1, param(&s.Params[i]))
	}
	if len(s.Params) > 0 {
		b.WriteByte(']')
	}
	if m := message(s); m != nil {
		addWord(&b, plain(m.Severity+": "+m.Message))
	}
	if s.Request != "" {
		addWord(&b, plain(s.Request))
	}
	if s.Notify != nil {
		addWord(&b, plain(fmt.Sprintf("%s: %s", s.Notify.Channel, s.Notify.Payload)))
	}
	if s.Copy != nil {
		addWord(&b, fmt.Sprintf("%d messages, %d bytes", s.Copy.Messages, s.Copy.Bytes))
	}
	for _, f := range s.Facts {
		addWord(&b, plain(f.Key+"="+f.Val))
	}
	if s.Kind == event.KindConnect || s.Kind == event.KindViolation || s.Kind == event.KindCancel {
		addWord(&b, plain(s.Client))
	}
	return b.String()
}

// message returns what the server said, if it did.
func message(s *query.Statement) *query.ServerMessage {
	switch {
	case s.Outcome != nil && s.Outcome.Error != nil:
		return s.Outcome.Error
	case s.Error != nil:
		return s.Error
	}
	return s.Notice
}

func addWord(b *strings.Builder, word string) {
	if b.Len() > 0 {
		b.WriteString("  ")
	}
	b.WriteString(word)
}

// param returns a parameter for people: quoted unless it is a plain number.
func param(p *query.Param) string {
	v, ok := p.Text()
	if !ok {
		return "NULL"
	}
	if _, err := strconv.ParseFloat(v, 64); err == nil && strings.Trim(v, "0123456789.-") == "" {
		return v
	}
	return "'" + plain(v) + "'"
}

// plain returns s on one line and without anything a terminal would act on:
// what is logged is what a client chose to send.
func plain(s string) string {
	n := 0
	for n < len(s) && 0x20 <= s[n] && s[n] < 0x7f {
		n++
	}
	if n == len(s) || strings.IndexFunc(s[n:], func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	out := make([]byte, 0, len(s)+len(s)/8+16)
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			if !space {
				out = append(out, ' ')
			}
			space = true
			continue
		case unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		default:
			out = appendEscaped(out, r)
		}
		space = false
	}
	return string(out)
}

// forTerminal returns b as it may be written to w: to a terminal what it would act on or not
// show stands as \u and four digits, which in JSON means the same.
func forTerminal(w io.Writer, b []byte) []byte {
	if newLinePrinter(w).width == nil {
		return b
	}
	return harmless(b)
}

func harmless(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i, r := range string(b) {
		switch {
		case unicode.IsPrint(r) || r == '\n' || r == '\t' || r == '\r' && i+1 < len(b) && b[i+1] == '\n':
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = appendEscaped(appendEscaped(out, high), low)
		default:
			out = appendEscaped(out, r)
		}
	}
	return out
}

// appendEscaped appends a character as \u and its number, four hexadecimal digits or more.
func appendEscaped(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '\\', 'u')
	for shift := max(12, (bits.Len32(uint32(r))-1)/4*4); shift >= 0; shift -= 4 {
		dst = append(dst, digits[r>>shift&15])
	}
	return dst
}

// cut shortens s to at most n columns, but leaves some of it in any case.
func cut(s string, n int) string {
	n = max(n, 10)
	wide, last := 0, 0 // last is where the last column that an ellipsis can take begins
	for i, r := range s {
		w := runeColumns(r)
		if wide+w > n {
			return s[:last] + "…"
		}
		if wide += w; wide <= n-1 {
			last = i + utf8.RuneLen(r)
		}
	}
	return s
}
