package report

import (
	"fmt"
	"html"
	"strings"
	"unicode"
)

// A document is a report as it is read, for Markdown and HTML alike.
type document struct {
	title  string
	blocks []block
}

// A block is a heading, a paragraph or a table; one of the fields is set.
type block struct {
	heading string
	text    string
	head    []string
	rows    [][]string
}

func (d *document) heading(s string) { d.blocks = append(d.blocks, block{heading: s}) }

func (d *document) say(format string, args ...any) {
	d.blocks = append(d.blocks, block{text: fmt.Sprintf(format, args...)})
}

func (d *document) table(head []string, rows [][]string) {
	d.blocks = append(d.blocks, block{head: head, rows: rows})
}

// visible returns s on one line, with what is not printable escaped: much of
// what a report shows is what a client chose to send.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// markdown writes the document as Markdown.
func (d *document) markdown() string {
	var b strings.Builder
	plain := func(s string) string {
		return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "]", `\]`, "&", "&amp;",
			"#", `\#`, "~", `\~`, "://", ":&#47;/").Replace(visible(s))
	}
	fmt.Fprintf(&b, "# %s\n", plain(d.title))
	for _, k := range d.blocks {
		switch {
		case k.heading != "":
			fmt.Fprintf(&b, "\n## %s\n", plain(k.heading))
		case k.text != "":
			fmt.Fprintf(&b, "\n%s\n", plain(k.text))
		default:
			b.WriteString("\n| " + strings.Join(k.head, " | ") + " |\n|" + strings.Repeat(" --- |", len(k.head)) + "\n")
			for _, row := range k.rows {
				b.WriteByte('|')
				for _, cell := range row {
					b.WriteString(" " + plain(cell) + " |")
				}
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

const style = `body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff;overflow-wrap:anywhere}main{overflow-x:auto}
h1,h2{line-height:1.2}h2{margin-top:2.5rem;border-top:1px solid #999;padding-top:1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border:1px solid #999;overflow-wrap:anywhere;min-width:7rem}
th{background:#eee}@media (prefers-color-scheme:dark){body{color:#eee;background:#111}th{background:#222}}@media print{h2{break-after:avoid}}`

// html writes the document as one page that asks nobody for anything.
func (d *document) html() string {
	var b strings.Builder
	plain := func(s string) string { return html.EscapeString(visible(s)) }
	fmt.Fprintf(&b, `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>%s</title><style>%s</style></head><body><main>
<h1>%s</h1>
`, plain(d.title), style, plain(d.title))
	for _, k := range d.blocks {
		switch {
		case k.heading != "":
			fmt.Fprintf(&b, "<h2>%s</h2>\n", plain(k.heading))
		case k.text != "":
			fmt.Fprintf(&b, "<p>%s</p>\n", plain(k.text))
		default:
			b.WriteString("<table><thead><tr>")
			for _, cell := range k.head {
				fmt.Fprintf(&b, `<th scope="col">%s</th>`, plain(cell))
			}
			b.WriteString("</tr></thead><tbody>\n")
			for _, row := range k.rows {
				b.WriteString("<tr>")
				for _, cell := range row {
					fmt.Fprintf(&b, "<td>%s</td>", plain(cell))
				}
				b.WriteString("</tr>\n")
			}
			b.WriteString("</tbody></table>\n")
		}
	}
	b.WriteString("</main></body></html>\n")
	return b.String()
}
