package main

import (
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/query"
)

// defaultData is where serve puts a log when nobody says where.
const defaultData = "pgnotary-data"

func addDataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", defaultData, "data directory of the log, in use or at rest")
}

// filterFlags are the flags by which search and tail select statements.
type filterFlags struct {
	since, until string
	regex        string
	from, to     int64
	query.Filter
}

func (f *filterFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.since, "since", "", "from this `TIME` on: RFC 3339, or a duration such as 15m for that long ago")
	fl.StringVar(&f.until, "until", "", "up to this `TIME`: RFC 3339, or a duration such as 5m for that long ago")
	fl.StringVar(&f.User, "user", "", "by this `USER`")
	fl.StringVar(&f.Database, "database", "", "in this `DATABASE`")
	fl.StringVar(&f.Application, "application", "", "by clients that call themselves `NAME` at start-up")
	fl.StringVar(&f.Client, "client", "", "from this client `ADDRESS`: IP, IP:port, network (10.0.0.0/8), unix, or the beginning of one")
	fl.StringVar(&f.Session, "session", "", "in the session with this `ID`, or beginning of an id")
	fl.StringSliceVar(&f.Kinds, "kind", nil, "of this `KIND`, or one of several with commas: query, execute, parse, connect, …")
	fl.StringVar(&f.Text, "text", "", "whose statement text (not its parameters) contains `SUBSTRING`")
	fl.StringVar(&f.regex, "regex", "", "whose statement text matches this regular expression (Go syntax, (?i) to ignore case)")
	fl.StringVar(&f.SQLState, "sqlstate", "", "that failed with this `CODE`, or a code that begins so (23 for all constraints)")
	fl.DurationVar(&f.MinDuration, "min-duration", 0, "that took at least this long")
	fl.Int64Var(&f.from, "from", 0, "from this `INDEX` on")
	fl.Int64Var(&f.to, "to", -1, "up to and with this `INDEX` (default the end)")
	fl.Lookup("to").DefValue = "-1"
	fl.IntVar(&f.Limit, "limit", 0, "stop after this many `N` (default all)")
}

// filter returns what the flags say; durations count back from now.
func (f *filterFlags) filter(cmd *cobra.Command, now time.Time) (query.Filter, error) {
	var err error
	if f.Since, err = parseTime(f.since, now); err != nil {
		return f.Filter, fmt.Errorf("--since: %w", err)
	}
	if f.Until, err = parseTime(f.until, now); err != nil {
		return f.Filter, fmt.Errorf("--until: %w", err)
	}
	if f.regex != "" {
		if f.Regexp, err = regexp.Compile(f.regex); err != nil {
			return f.Filter, fmt.Errorf("--regex: %w", err)
		}
	}
	f.From = f.from
	if cmd.Flags().Changed("to") {
		if f.to < 0 {
			return f.Filter, fmt.Errorf("--to: index %d is below 0", f.to)
		}
		f.End = f.to + 1
	}
	if f.Limit < 0 || f.MinDuration < 0 || f.From < 0 {
		return f.Filter, fmt.Errorf("--limit, --min-duration and --from cannot be below 0")
	}
	return f.Filter, nil
}

// parseTime reads a time, or a duration that counts back from now; "" is none.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("%q is neither a time such as %s nor a duration such as 15m", s, now.UTC().Format(time.RFC3339))
	}
	return t, nil
}
