package proxyproto

import (
	"fmt"
	"net/netip"
	"strings"
)

// Sources are the networks whose word is taken for where a connection comes from.
type Sources []netip.Prefix

// ParseSources reads addresses and networks, such as 10.1.2.3 and fd00::/8.
func ParseSources(list []string) (Sources, error) {
	var all Sources
	for _, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if !strings.Contains(text, "/") {
			var a netip.Addr
			if a, err = netip.ParseAddr(text); err == nil {
				prefix, err = a.Unmap().WithZone("").Prefix(a.Unmap().BitLen())
			}
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("parse source %q: not an address or network", text)
		case prefix != prefix.Masked():
			return nil, fmt.Errorf("parse source %q: bits are set behind the prefix; did you mean %s?", text, prefix.Masked())
		}
		all = append(all, prefix)
	}
	return all, nil
}

// Contains says whether a is in one of the networks.
func (s Sources) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range s {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
