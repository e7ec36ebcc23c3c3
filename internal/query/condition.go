package query

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Condition is one way to select statements as people write it: a flag of
// the command line and a parameter of the HTTP API, of the same name.
type Condition struct {
	Name  string
	Usage string // one line; the word in back quotes stands for the text
	// Content says that it looks at values, not only at leaves: who may not
	// see values must not learn about them by asking.
	Content bool
	set     func(f *Filter, text string, now time.Time) error
}

// Conditions returns all conditions, in the order of the manual.
func Conditions() []Condition {
	return []Condition{
		{Name: "since", Usage: "from this `TIME` on: RFC 3339, a date (UTC), or a duration such as 15m or 30d for that long ago", set: func(f *Filter, s string, now time.Time) (err error) {
			f.Since, err = ParseTime(s, false, now)
			return err
		}},
		{Name: "until", Usage: "up to this `TIME`: RFC 3339, a date, the whole of it, or a duration such as 5m for that long ago", set: func(f *Filter, s string, now time.Time) (err error) {
			f.Until, err = ParseTime(s, true, now)
			return err
		}},
		{Name: "user", Usage: "by this `USER`", set: text(func(f *Filter) *string { return &f.User })},
		{Name: "database", Usage: "in this `DATABASE`", set: text(func(f *Filter) *string { return &f.Database })},
		{Name: "application", Usage: "by clients that call themselves `NAME` at start-up", set: text(func(f *Filter) *string { return &f.Application })},
		{Name: "client", Usage: "from this client `ADDRESS`: IP, IP:port, network (10.0.0.0/8), unix, or the beginning of one", set: setClient},
		{Name: "session", Usage: "in the session with this `ID`, or beginning of an id", set: text(func(f *Filter) *string { return &f.Session })},
		{Name: "kind", Usage: "of this `KIND`, or one of several with commas: query, execute, parse, connect, …", set: setKinds},
		{Name: "text", Usage: "whose statement text (not its parameters) contains `SUBSTRING`", Content: true, set: text(func(f *Filter) *string { return &f.Text })},
		{Name: "regex", Usage: "whose statement text matches this regular `EXPRESSION` (Go syntax, (?i) to ignore case)", Content: true, set: setRegexp},
		{Name: "class", Usage: "of this `CLASS`, or one of several with commas: READ, WRITE, FUNCTION, ROLE, DDL, MISC, or UNKNOWN", Content: true, set: setClasses},
		{Name: "relation", Usage: "that names this `RELATION`: users, public.users; without a schema, on either side, any will do", Content: true, set: text(func(f *Filter) *string { return &f.Relation })},
		{Name: "fingerprint", Usage: "whose text has this `FINGERPRINT`: the same but for literals, spacing and comments", Content: true, set: text(func(f *Filter) *string { return &f.Fingerprint })},
		{Name: "param", Usage: "one of whose parameters is this `VALUE`, as text", Content: true, set: setParam},
		{Name: "sqlstate", Usage: "that failed with this `CODE`, or a code that begins so (23 for all constraints), or any", set: setSQLState},
		{Name: "min-duration", Usage: "that took at least this `LONG`", set: setMinDuration},
		{Name: "from", Usage: "from this `INDEX` on", set: setFrom},
		{Name: "to", Usage: "up to and with this `INDEX` (default the end)", set: setTo},
		{Name: "limit", Usage: "stop after this many `N` (default all)", set: setLimit},
	}
}

// A ConditionError says which condition cannot be understood, and why.
type ConditionError struct {
	Name string
	Err  error
}

func (e *ConditionError) Error() string { return e.Name + ": " + e.Err.Error() }
func (e *ConditionError) Unwrap() error { return e.Err }

// ParseFilter returns the filter that words stand for: texts by the name of
// their condition. Empty texts are none, durations count back from now. Its
// errors are *ConditionError, but for what no single condition is to blame for.
func ParseFilter(words url.Values, now time.Time) (Filter, error) {
	var f Filter
	conditions := Conditions()
	for name := range words {
		if !slices.ContainsFunc(conditions, func(c Condition) bool { return c.Name == name }) {
			return f, &ConditionError{name, errors.New("there is no such condition")}
		}
	}
	for _, c := range conditions {
		for i, text := range words[c.Name] {
			switch {
			case text == "":
			case i > 0 && c.Name != "kind" && c.Name != "class":
				return f, &ConditionError{c.Name, errors.New("is given twice")}
			default:
				if err := c.set(&f, text, now); err != nil {
					return f, &ConditionError{c.Name, err}
				}
			}
		}
	}
	switch _, err := f.compile(); {
	case err != nil:
		return f, err
	case !f.Since.IsZero() && !f.Until.IsZero() && f.Since.After(f.Until):
		return f, fmt.Errorf("nothing can be since %s and until %s, which is earlier", f.Since.Format(time.RFC3339Nano), f.Until.Format(time.RFC3339Nano))
	case f.End > 0 && f.From > f.End: // the last page of a search may be empty
		return f, fmt.Errorf("nothing is from %d on and up to %d", f.From, f.End-1)
	}
	return f, nil
}

func text(field func(*Filter) *string) func(*Filter, string, time.Time) error {
	return func(f *Filter, s string, _ time.Time) error {
		*field(f) = s
		return nil
	}
}

// ParseTime reads a time, a duration, in days too (30d), that counts back from now, or a date in
// UTC, which stands for its first moment or, as an end, for its last.
func ParseTime(s string, end bool, now time.Time) (time.Time, error) {
	d, err := time.ParseDuration(s)
	if digits, ok := strings.CutSuffix(s, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(digits, 10, 16)
		d = time.Duration(days) * 24 * time.Hour
	}
	if err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("%s would be in the future: a duration counts back from now as it is", s)
		}
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, s); err != nil {
			return t, fmt.Errorf("%q is neither a time such as %s, nor a date such as %.10[2]s, nor a duration such as 15m or 30d", s, now.UTC().Format(time.RFC3339))
		}
		if end {
			t = t.AddDate(0, 0, 1).Add(-1)
		}
	}
	// As nanoseconds since 1970 anything else would be another time.
	if t.Before(time.Unix(0, 0)) || t.Year() > 2261 {
		return t, fmt.Errorf("%q is not between 1970 and 2261, where the times of entries are", s)
	}
	return t, nil
}

func setKinds(f *Filter, s string, _ time.Time) error {
	f.Kinds = append(f.Kinds, strings.Split(s, ",")...)
	return nil
}

func setClasses(f *Filter, s string, _ time.Time) error {
	f.Classes = append(f.Classes, strings.Split(strings.ToUpper(s), ",")...)
	return nil
}

// setClient refuses what looks like a network and is none: taken for the
// beginning of an address it would find nothing.
func setClient(f *Filter, s string, _ time.Time) error {
	if strings.Contains(s, "/") {
		if _, err := netip.ParsePrefix(s); err != nil {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
		}
	}
	f.Client = s
	return nil
}

func setSQLState(f *Filter, s string, _ time.Time) error {
	if f.SQLState = strings.ToUpper(s); f.SQLState == "ANY" {
		f.SQLState = anyState
		return nil
	}
	if len(s) > 5 || strings.Trim(f.SQLState, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return fmt.Errorf("%q is not a code such as 42P01, nor the beginning of one, nor any", s)
	}
	return nil
}

func setParam(f *Filter, s string, _ time.Time) error {
	f.Param = &s
	return nil
}

func setRegexp(f *Filter, s string, _ time.Time) (err error) {
	f.Regexp, err = regexp.Compile(s)
	return err
}

func setMinDuration(f *Filter, s string, _ time.Time) (err error) {
	if f.MinDuration, err = time.ParseDuration(s); err == nil && f.MinDuration < 0 {
		err = fmt.Errorf("%s is below 0", s)
	}
	return err
}

func setFrom(f *Filter, s string, _ time.Time) (err error) {
	f.From, err = parseCount(s)
	return err
}

func setTo(f *Filter, s string, _ time.Time) error {
	n, err := parseCount(s)
	f.End = n + 1
	return err
}

func setLimit(f *Filter, s string, _ time.Time) error {
	n, err := parseCount(s)
	f.Limit = int(n)
	return err
}

// parseCount reads an index or a number of statements.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n >= 1<<60 {
		return 0, fmt.Errorf("%q is not a number from 0 on", s)
	}
	return n, nil
}
