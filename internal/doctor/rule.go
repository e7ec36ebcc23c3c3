package doctor

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// A Rule is one line of pg_hba.conf, as pg_hba_file_rules shows it.
type Rule struct {
	Line      int      `json:"line_number"`
	Type      string   `json:"type"`
	Databases []string `json:"database"`
	Users     []string `json:"user_name"`
	Address   string   `json:"address"` // empty for local
	Netmask   string   `json:"netmask"` // of an address
	Method    string   `json:"auth_method"`
	Options   []string `json:"options"`
	Error     string   `json:"error"`
}

// A match says whether a rule speaks of a connection.
type match uint8

const (
	never match = iota
	perhaps
	surely
)

// speaksOf says whether the rule is for connections of that leg.
func (r *Rule) speaksOf(leg Leg) bool {
	switch r.Type {
	case "local":
		return leg == Unix
	case "host", "hostnogssenc":
		return leg != Unix
	case "hostssl":
		return leg == TLS
	case "hostnossl":
		return leg == Plain
	}
	return false
}

// prefix returns the network of the rule.
func (r *Rule) prefix() (netip.Prefix, bool) {
	a, err := netip.ParseAddr(r.Address)
	if err != nil {
		return netip.Prefix{}, false
	}
	mask := net.ParseIP(r.Netmask)
	if four := mask.To4(); a.Is4() && four != nil {
		mask = four
	}
	ones, bits := net.IPMask(mask).Size()
	if bits != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// admits says whether the rule is for connections of that leg from an address. Host
// names, samehost and samenet are for the server to resolve.
func (r *Rule) admits(leg Leg, from netip.Addr) match {
	if r.Error != "" || !r.speaksOf(leg) {
		return never
	}
	if leg == Unix || r.Address == "all" {
		return surely
	}
	p, ok := r.prefix()
	switch {
	case !ok && r.Address == "samehost" && from.IsLoopback():
		return surely
	case !ok || !from.IsValid():
		return perhaps
	case p.Contains(from.Unmap()):
		return surely
	}
	return never
}

// only says whether the rule is for that address and no other.
func (r *Rule) only(from netip.Addr) bool {
	p, ok := r.prefix()
	return ok && p.IsSingleIP() && p.Addr() == from.Unmap()
}

// local says whether only processes on the server's machine can use the rule.
func (r *Rule) local() bool {
	p, ok := r.prefix()
	return r.Type == "local" || r.Address == "samehost" || ok && p.Addr().IsLoopback() && p.Bits() >= 8
}

// everybody says whether the rule speaks of every user in every database, replication aside.
func (r *Rule) everybody() bool {
	return slices.Contains(r.Databases, "all") && slices.Contains(r.Users, "all")
}

func (r *Rule) replication() bool { return slices.Contains(r.Databases, "replication") }

// String is the line as it may stand in the file.
func (r *Rule) String() string {
	at := r.Address
	if p, ok := r.prefix(); ok {
		at = p.String()
	}
	parts := []string{r.Type, strings.Join(r.Databases, ","), strings.Join(r.Users, ","), at, r.Method, strings.Join(r.Options, " ")}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}
