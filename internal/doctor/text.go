package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	r.printFacts(&b)
	if r.Facts.Blind == nil {
		r.printLogins(&b)
	}
	r.printFindings(&b)
	if len(r.Add) > 0 {
		fmt.Fprintf(&b, "\nlet %s begin with\n", r.Facts.HBAFile)
		for _, line := range r.Add {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	if r.SQL != "" {
		b.WriteString("\na superuser sets up the function for verifiers with\n")
		for line := range strings.Lines(r.SQL) {
			b.WriteString("  " + line)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) printFacts(b *strings.Builder) {
	f := r.Facts
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	server := f.Upstream
	if f.Version != "" {
		server += ", PostgreSQL " + f.Version
	}
	fmt.Fprintf(t, "server\t%s%s\n", server, described(f.ServerCert))
	how := map[Leg]string{Unix: "by Unix socket", Plain: "without TLS", TLS: "with TLS"}[f.ServerLeg]
	if f.Client.IsValid() {
		how += ", seen there as " + f.Client.String()
	}
	fmt.Fprintf(t, "proxy\tconnects %s%s\n", how, described(f.ProxyCert))
	if f.ProxyCert != nil && f.ServerCert != nil {
		same := "not the same"
		if f.sameCert() {
			same = "the same"
		}
		fmt.Fprintf(t, "\tthe two certificates are %s\n", same)
	}
	switch {
	case f.Verifiers == "file" && f.BadVerifiers == "":
		fmt.Fprintf(t, "\tends logins by SCRAM, with verifiers of %d users from a file\n", f.Users)
	case f.Verifiers != "":
		fmt.Fprintf(t, "\tends logins by SCRAM, with verifiers from a %s\n", f.Verifiers)
	}
	if f.ClientCert != "" {
		fmt.Fprintf(t, "\tasks clients for a certificate: %s\n", f.ClientCert)
	}
	t.Flush() // into memory
}

func described(c *Certificate) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("\n\tcertificate %s, %s, until %s", c.Subject, c.Signature, c.NotAfter.Format(time.DateOnly))
}

// printLogins writes a row for each rule and way to connect, and numbers the reasons.
func (r *Report) printLogins(b *strings.Builder) {
	if len(r.Logins) == 0 {
		return
	}
	b.WriteString("\nlogins through the proxy, by the client's channel_binding\n")
	var reasons []string
	cell := func(l *Login) string {
		if l.Why == "" {
			return string(l.Result)
		}
		i := slices.Index(reasons, l.Why)
		if i < 0 {
			i = len(reasons)
			reasons = append(reasons, l.Why)
		}
		return fmt.Sprintf("%s (%d)", l.Result, i+1)
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  line\tdatabase\tuser\tmethod\tclient\tdisable\tprefer\trequire")
	for i := 0; i+2 < len(r.Logins); i += 3 { // one for each binding
		l := &r.Logins[i]
		method := l.Method
		if l.Verifier != "" && l.Verifier != l.Method && !strings.HasPrefix(l.Method, l.Verifier) {
			method += ", " + l.Verifier + " password"
		}
		line := fmt.Sprint(l.Line)
		if l.Perhaps {
			line += "?"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", line, strings.Join(l.Databases, ","), strings.Join(l.Users, ","), method, map[Leg]string{TLS: "TLS", Plain: "no TLS"}[l.Client],
			cell(l), cell(&r.Logins[i+1]), cell(&r.Logins[i+2]))
	}
	t.Flush() // into memory
	for i, why := range reasons {
		fmt.Fprintf(b, "  (%d) %s\n", i+1, why)
	}
	if slices.ContainsFunc(r.Logins, func(l Login) bool { return l.Perhaps }) {
		b.WriteString("  ? the server decides whether the line is for the proxy's address\n")
	}
}

func (r *Report) printFindings(b *strings.Builder) {
	if len(r.Findings) == 0 {
		b.WriteString("\nnothing to complain about\n")
		return
	}
	b.WriteString("\n")
	for _, level := range []Level{Error, Warning, Note} {
		for _, x := range r.Findings {
			if x.Level != level {
				continue
			}
			at := ""
			if x.Line > 0 {
				at = fmt.Sprintf("line %d: ", x.Line)
			}
			fmt.Fprintf(b, "%s: %s%s\n", level, at, x.What)
			if x.Do != "" {
				fmt.Fprintf(b, "  %s\n", x.Do)
			}
		}
	}
}
