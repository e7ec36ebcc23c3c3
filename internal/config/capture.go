package config

import (
	"fmt"
	"strings"
)

// How much is kept of what statements return and COPY carries.
const (
	KeepCount  = "count"  // how much it was
	KeepDigest = "digest" // and its SHA-256
	KeepFull   = "full"   // and all of it
)

// maxCaptures bounds the rules, which all stand in the log's config entries.
const maxCaptures = 20

// A Capture says how much is kept of the content that a user's sessions with a
// database carry, beyond their statements:
//
//	[[capture]]
//	database = "payroll"
//	results  = "digest"
//	copy     = "full"
//
// Of several, the first counts whose database and user fit.
type Capture struct {
	// Database and User are names as in the start-up packet; empty fits all.
	Database string `toml:"database"`
	User     string `toml:"user"`
	// Results is KeepCount, KeepDigest or KeepFull, of the rows; empty counts them.
	Results string `toml:"results"`
	// Copy is KeepDigest or KeepFull, of the data of COPYs; empty has their digest.
	Copy string `toml:"copy"`
}

// CaptureOf returns what counts for the sessions of a user with a database.
func (c *Config) CaptureOf(user, database string) Capture {
	found := Capture{Database: database, User: user}
	for _, r := range c.Captures {
		if (r.Database == "" || r.Database == database) && (r.User == "" || r.User == user) {
			found.Results, found.Copy = r.Results, r.Copy
			break
		}
	}
	if found.Results == "" {
		found.Results = KeepCount
	}
	if found.Copy == "" {
		found.Copy = KeepDigest
	}
	return found
}

// String writes the rule on one line.
func (r Capture) String() string {
	return fmt.Sprintf("database=%q user=%q results=%q copy=%q", r.Database, r.User, r.Results, r.Copy)
}

// toml writes the rule as it stands in a file.
func (r Capture) toml() string {
	var b strings.Builder
	b.WriteString("\n[[capture]]\n")
	for _, f := range []struct{ key, val string }{{"database", r.Database}, {"user", r.User}, {"results", r.Results}, {"copy", r.Copy}} {
		if f.val != "" {
			fmt.Fprintf(&b, "%s = %s\n", f.key, quote(f.val))
		}
	}
	return b.String()
}

func (r Capture) validate(p *problems) {
	if r.Results != "" {
		p.oneOf("capture.results", r.Results, KeepCount, KeepDigest, KeepFull)
	}
	if r.Copy != "" {
		p.oneOf("capture.copy", r.Copy, KeepDigest, KeepFull)
	}
}
