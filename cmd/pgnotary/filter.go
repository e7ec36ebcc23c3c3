package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/query"
)

// defaultData is where serve puts a log when nobody says where.
const defaultData = "pgnotary-data"

func addDataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", defaultData, "data directory of the log, in use or at rest")
}

// filterFlags are the flags by which commands select statements: the
// conditions of package query, each a flag.
type filterFlags struct{ words url.Values }

func (f *filterFlags) register(cmd *cobra.Command) {
	f.words = make(url.Values)
	for _, c := range query.Conditions() {
		cmd.Flags().Var(conditionFlag{c, f.words}, c.Name, c.Usage)
	}
}

// given reports whether a condition was set.
func (f *filterFlags) given(name string) bool { return f.words.Get(name) != "" }

// filter returns what the flags say; durations count back from now.
func (f *filterFlags) filter(now time.Time) (query.Filter, error) {
	filter, err := query.ParseFilter(f.words, now)
	if bad, ok := errors.AsType[*query.ConditionError](err); ok {
		return filter, fmt.Errorf("--%s: %w", bad.Name, bad.Err)
	}
	return filter, err
}

// A conditionFlag collects the texts of one condition.
type conditionFlag struct {
	condition query.Condition
	words     url.Values
}

func (c conditionFlag) String() string { return strings.Join(c.words[c.condition.Name], ",") }
func (c conditionFlag) Type() string   { return "text" }

// Set refuses an empty text: left out by ParseFilter it would select
// everything, and with erase that is everything gone for an unset variable of a shell.
func (c conditionFlag) Set(text string) error {
	if text == "" {
		return errors.New("it is empty; to select by anything else, leave the flag out")
	}
	c.words.Add(c.condition.Name, text)
	return nil
}
