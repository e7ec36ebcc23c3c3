package checkpoint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxPolicy bounds a policy file, in bytes.
const MaxPolicy = 1 << 20

// maxPolicyLines bounds the lines of one kind in a policy.
const maxPolicyLines = 1024

// ErrQuorum is returned for a checkpoint that its log signed and too few
// witnesses cosigned.
var ErrQuorum = errors.New("too few cosignatures")

// A Policy says which logs are trusted and which witnesses must have seen a
// checkpoint (c2sp.org/tlog-policy). It is read-only after ParsePolicy.
type Policy struct {
	logs      []policyKey
	witnesses []policyKey
	quorum    *rule // nil: none asked for
}

// policyKey is a log or a witness line.
type policyKey struct {
	key
	label string // a witness's name in the policy
	url   string // where it answers; empty if the policy does not say
}

// rule is a node of the quorum: one witness, or k of several members.
type rule struct {
	witness int // index into witnesses if members is empty
	k       int
	members []*rule
}

// Verified is a checkpoint that satisfied a policy.
type Verified struct {
	Checkpoint
	VKey         string // the log's key it is signed with
	Cosignatures []Cosignature
}

// A Cosignature is the word of a witness of the policy that it saw the
// checkpoint, and nothing that contradicts it, at a time in Unix seconds.
type Cosignature struct {
	Witness string // its name in the policy
	Time    int64
}

// FormatPolicy returns a policy that trusts one log, without witnesses.
func FormatPolicy(vkey, url string) string {
	return strings.TrimSuffix("log "+vkey+" "+url, " ") + "\nquorum none\n"
}

// ParsePolicy decodes a policy file. Its errors name the line.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > MaxPolicy {
		return nil, fmt.Errorf("parse policy: %d bytes, want at most %d", len(b), MaxPolicy)
	}
	p := &policyParser{names: map[string]*rule{}, member: map[string]bool{}}
	for i, line := range bytes.Split(b, []byte("\n")) {
		if err := p.line(string(line)); err != nil {
			return nil, fmt.Errorf("parse policy: line %d: %w", i+1, err)
		}
	}
	if !p.quorumSet {
		return nil, errors.New("parse policy: no quorum line")
	}
	return &p.Policy, nil
}

type policyParser struct {
	Policy
	names     map[string]*rule // witnesses and groups
	member    map[string]bool  // names that are a member of some group
	groups    int
	quorumSet bool
}

func (p *policyParser) line(s string) error {
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		return fmt.Errorf("control character %#x", s[i])
	}
	// White space is blanks and tabs only; other bytes are opaque.
	f := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(f) == 0 || strings.HasPrefix(f[0], "#") {
		return nil
	}
	switch kw := f[0]; {
	case kw == "log" && (len(f) == 2 || len(f) == 3):
		return p.key(&p.logs, algEd25519, "", f[1:])
	case kw == "witness" && (len(f) == 3 || len(f) == 4):
		if err := p.free(f[1]); err != nil {
			return err
		}
		if err := p.key(&p.witnesses, algCosignature, f[1], f[2:]); err != nil {
			return err
		}
		p.names[f[1]] = &rule{witness: len(p.witnesses) - 1}
	case kw == "group" && len(f) >= 4:
		return p.group(f[1], f[2], f[3:])
	case kw == "quorum" && len(f) == 2:
		if p.quorumSet {
			return errors.New("second quorum line")
		}
		p.quorumSet = true
		if f[1] == "none" {
			return nil
		}
		if p.quorum = p.names[f[1]]; p.quorum == nil {
			return fmt.Errorf("%q is not defined above", f[1])
		}
	case slices.Contains([]string{"log", "witness", "group", "quorum"}, kw):
		return fmt.Errorf("wrong number of fields behind %q", kw)
	default:
		return fmt.Errorf("unknown keyword %.80q", kw)
	}
	return nil
}

// key adds a log or witness line: f is the key and perhaps a URL, which means
// nothing to whoever only verifies. It is not looked at here.
func (p *policyParser) key(list *[]policyKey, alg byte, label string, f []string) error {
	k, err := parseKey(f[0])
	if err != nil {
		return err
	}
	if k.alg != alg {
		return fmt.Errorf("key %.300q is of type %#x, want %#x", f[0], k.alg, alg)
	}
	for _, other := range *list {
		if bytes.Equal(other.pub, k.pub) {
			return fmt.Errorf("key %.300q is listed twice", f[0])
		}
		if other.name == k.name && other.id == k.id {
			return fmt.Errorf("key %.300q has the name and id of another", f[0])
		}
	}
	if len(*list) >= maxPolicyLines {
		return fmt.Errorf("more than %d keys", maxPolicyLines)
	}
	*list = append(*list, policyKey{k, label, strings.Join(f[1:], "")})
	return nil
}

// free reports whether name may be defined.
func (p *policyParser) free(name string) error {
	if name == "none" {
		return errors.New(`the name "none" is taken`)
	}
	if p.names[name] != nil {
		return fmt.Errorf("%q is defined twice", name)
	}
	return nil
}

func (p *policyParser) group(name, k string, members []string) error {
	if err := p.free(name); err != nil {
		return err
	}
	if p.groups++; p.groups > maxPolicyLines {
		return fmt.Errorf("more than %d groups", maxPolicyLines)
	}
	r := &rule{}
	for _, m := range members {
		mr := p.names[m]
		switch {
		case mr == nil:
			return fmt.Errorf("%q is not defined above", m)
		case p.member[m]:
			return fmt.Errorf("%q is already a member of a group", m)
		}
		p.member[m] = true
		r.members = append(r.members, mr)
	}
	switch k {
	case "any":
		r.k = 1
	case "all":
		r.k = len(members)
	default:
		n, err := strconv.Atoi(k)
		if err != nil || strconv.Itoa(n) != k || n < 1 || n > len(members) {
			return fmt.Errorf("%.80q is not any, all or a number from 1 to %d", k, len(members))
		}
		r.k = n
	}
	p.names[name] = r
	return nil
}

// holds reports whether the witnesses seen satisfy the rule.
func (r *rule) holds(seen map[int]bool) bool {
	if len(r.members) == 0 {
		return seen[r.witness]
	}
	n := 0
	for _, m := range r.members {
		if m.holds(seen) {
			n++
		}
	}
	return n >= r.k
}

// Verify returns the checkpoint in signed if a log of the policy signed it
// and its witnesses fulfil the quorum. A line of a key of the policy that does
// not verify is an error even if there are enough others.
func (p *Policy) Verify(signed []byte) (Verified, error) {
	var v Verified
	if len(p.logs) == 0 {
		return v, errors.New("verify checkpoint: the policy lists no log")
	}
	n, err := parseNote(signed)
	if err != nil {
		return v, err
	}
	v.Checkpoint = n.Checkpoint
	known := false
	for _, l := range p.logs {
		if l.name != n.Origin {
			continue
		}
		known = true
		ok, _, err := n.signedBy(l.key)
		if err != nil {
			return v, err
		}
		if ok && v.VKey == "" {
			v.VKey = l.key.String()
		}
	}
	if !known {
		return v, fmt.Errorf("verify checkpoint: %w: the policy does not know log %q", ErrSignature, n.Origin)
	}
	if v.VKey == "" {
		return v, fmt.Errorf("verify checkpoint: %w: none of a key that the policy has for log %q", ErrSignature, n.Origin)
	}
	seen := map[int]bool{}
	for i, w := range p.witnesses {
		ok, time, err := n.signedBy(w.key)
		if err != nil {
			return v, err
		}
		if ok {
			seen[i] = true
			v.Cosignatures = append(v.Cosignatures, Cosignature{w.label, time})
		}
	}
	if p.quorum != nil && !p.quorum.holds(seen) {
		return v, fmt.Errorf("verify checkpoint: %w: %d of the policy's %d witnesses", ErrQuorum, len(seen), len(p.witnesses))
	}
	return v, nil
}

// A Witness is a line of the policy.
type Witness struct {
	Name string // in the policy
	VKey string
	URL  string // its submission prefix; empty if the policy does not say
}

// Witnesses returns the policy's witnesses, in the order of the file.
func (p *Policy) Witnesses() []Witness {
	var out []Witness
	for _, w := range p.witnesses {
		out = append(out, Witness{w.label, w.key.String(), w.url})
	}
	return out
}

// HasQuorum reports whether the policy asks for cosignatures at all.
func (p *Policy) HasQuorum() bool { return p.quorum != nil }

// Fulfilled reports whether witnesses with these names in the policy are a quorum.
func (p *Policy) Fulfilled(names []string) bool {
	seen := map[int]bool{}
	for i, w := range p.witnesses {
		seen[i] = slices.Contains(names, w.label)
	}
	return p.quorum == nil || p.quorum.holds(seen)
}

// ForLog returns the policy for one log: the same witnesses and quorum, and
// only its keys, those in force one after the other. If the policy lists logs,
// one of these keys must be among them.
func (p *Policy) ForLog(vkeys ...string) (*Policy, error) {
	q := &Policy{witnesses: p.witnesses, quorum: p.quorum}
	listed := len(p.logs) == 0
	for _, v := range vkeys {
		k, err := parseKey(v)
		if err != nil {
			return nil, err
		}
		listed = listed || slices.ContainsFunc(p.logs, func(l policyKey) bool { return l.key.String() == v })
		q.logs = append(q.logs, policyKey{key: k})
	}
	if !listed {
		return nil, fmt.Errorf("the policy does not list the key of this log: %s", vkeys[len(vkeys)-1])
	}
	return q, nil
}

// WitnessedAt returns the latest time, in Unix seconds, for which the
// cosignatures of that time or later fulfil the quorum: that long ago, the checkpoint
// was the latest that enough witnesses knew. It is 0 without a quorum.
func (p *Policy) WitnessedAt(v *Verified) int64 {
	if p.quorum == nil {
		return 0
	}
	order := slices.Clone(v.Cosignatures)
	slices.SortFunc(order, func(a, b Cosignature) int { return cmp.Compare(b.Time, a.Time) })
	seen := map[int]bool{}
	for _, c := range order {
		seen[slices.IndexFunc(p.witnesses, func(w policyKey) bool { return w.label == c.Witness })] = true
		if p.quorum.holds(seen) {
			return c.Time
		}
	}
	return 0
}

// VKeys returns the keys of the policy's logs, in the order of the file.
func (p *Policy) VKeys() []string {
	var out []string
	for _, l := range p.logs {
		out = append(out, l.key.String())
	}
	return out
}
