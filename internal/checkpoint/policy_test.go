package checkpoint

import (
	"errors"
	"strings"
	"testing"
)

func TestPolicyQuorum(t *testing.T) {
	s, vkey := testKey(t, "log", 1)
	signed := testCheckpoint(t, s, 7)
	x := []witness{testWitness("x.example/1", 11), testWitness("x.example/2", 12), testWitness("x.example/3", 13)}
	y := testWitness("y.example", 14)
	two := "# two of three and one more\nlog " + vkey + "\thttps://log.example/\n\n" +
		"witness X1 " + x[0].String() + " https://x.example/\n  witness X2 " + x[1].String() + "\nwitness X3 " + x[2].String() + "\t\n" +
		"group X 2 X1 X2 X3\nwitness Y " + y.String() + "\ngroup all-of-it all X Y\nquorum all-of-it\n"
	for _, tt := range []struct {
		name, policy string
		by           []witness
		want         error
		n            int
	}{
		{"none asked for", FormatPolicy(vkey, ""), nil, nil, 0},
		{"none asked for, unknown ones there", FormatPolicy(vkey, "https://log.example/log/"), x, nil, 0},
		{"all there", two, append([]witness{y}, x...), nil, 4},
		{"just enough", two, []witness{y, x[0], x[2]}, nil, 3},
		{"one of two", two, []witness{y, x[0]}, ErrQuorum, 2},
		{"other group missing", two, x, ErrQuorum, 3},
		{"nobody", two, nil, ErrQuorum, 0},
		{"any", strings.ReplaceAll(strings.Replace(two, "group X 2", "group X any", 1), "all X Y", "1 X Y"), x[2:], nil, 1},
		{"single witness", strings.Replace(two, "quorum all-of-it", "quorum Y", 1), []witness{y}, nil, 1},
		{"single witness missing", strings.Replace(two, "quorum all-of-it", "quorum Y", 1), x, ErrQuorum, 3},
	} {
		p, err := ParsePolicy([]byte(tt.policy))
		if err != nil {
			t.Errorf("%s: ParsePolicy: %v", tt.name, err)
			continue
		}
		b := signed
		for i, w := range tt.by {
			b = append(b[:len(b):len(b)], w.cosign(signed, 1700000000+uint64(i))...)
		}
		v, err := p.Verify(b)
		if !errors.Is(err, tt.want) || len(v.Cosignatures) != tt.n {
			t.Errorf("%s: Verify = %d cosignatures, %v, want %d, %v", tt.name, len(v.Cosignatures), err, tt.n, tt.want)
		}
		if err == nil && (v.VKey != vkey || v.Size != 7) {
			t.Errorf("%s: Verify = %+v", tt.name, v)
		}
	}
}

// TestPolicyRejectsForgeries is row 10 of the tamper matrix.
func TestPolicyRejectsForgeries(t *testing.T) {
	s, vkey := testKey(t, "log", 1)
	s2, vkey2 := testKey(t, "log", 2)
	other, otherKey := testKey(t, "other", 3)
	w, impostor := testWitness("w", 9), testWitness("w", 10)
	impostor.id = w.id // as if the four bytes had been made to collide
	signed := testCheckpoint(t, s, 7)
	older := testCheckpoint(t, s, 6)
	with := func(lines ...[]byte) []byte {
		b := signed[:len(signed):len(signed)]
		for _, l := range lines {
			b = append(b, l...)
		}
		return b
	}
	quorum := "witness W " + w.String() + "\nquorum W\n"
	for _, tt := range []struct {
		name, policy string
		signed       []byte
		ok           bool
	}{
		{"good", "log " + vkey + "\n" + quorum, with(w.cosign(signed, 5)), true},
		{"stripped cosignature", "log " + vkey + "\n" + quorum, signed, false},
		{"cosignature of an older checkpoint", "log " + vkey + "\n" + quorum, with(w.cosign(older, 5)), false},
		{"forged cosignature with the key id", "log " + vkey + "\n" + quorum, with(impostor.cosign(signed, 5)), false},
		{"forged cosignature beside a good one", "log " + vkey + "\n" + quorum, with(w.cosign(signed, 5), impostor.cosign(signed, 5)), false},
		{"time over 63 bits", "log " + vkey + "\n" + quorum, with(w.cosign(signed, 1<<63)), false},
		{"log key swapped", "log " + vkey2 + "\nquorum none\n", signed, false},
		{"rotated key, both listed", "log " + vkey + "\nlog " + vkey2 + "\nquorum none\n", testCheckpoint(t, s2, 7), true},
		{"another log", "log " + otherKey + "\nquorum none\n", signed, false},
		{"another log's checkpoint", "log " + vkey + "\nquorum none\n", testCheckpoint(t, other, 7), false},
		{"no log", "quorum none\n", signed, false},
		{"malformed", "log " + vkey + "\nquorum none\n", signed[1:], false},
	} {
		p, err := ParsePolicy([]byte(tt.policy))
		if err != nil {
			t.Fatalf("%s: ParsePolicy: %v", tt.name, err)
		}
		if v, err := p.Verify(tt.signed); (err == nil) != tt.ok {
			t.Errorf("%s: Verify = %+v, %v, want ok %v", tt.name, v, err, tt.ok)
		}
	}
}

func TestParsePolicyRejects(t *testing.T) {
	_, vkey := testKey(t, "log", 1)
	w, w2 := testWitness("w", 9).String(), testWitness("v", 8).String()
	same := testWitness("another-name", 9).String()
	for _, tt := range []struct{ name, policy, want string }{
		{"empty", "", "no quorum"},
		{"no quorum", "log " + vkey + "\n", "no quorum"},
		{"two quorums", "quorum none\nquorum none\n", "line 2: second"},
		{"unknown keyword", "logs " + vkey + "\nquorum none\n", "line 1: unknown keyword"},
		{"no key", "log\nquorum none\n", "wrong number"},
		{"too many fields", "log " + vkey + " a b\nquorum none\n", "wrong number"},
		{"comment behind", "quorum none # really\n", "wrong number"},
		{"control character", "quorum none\r\n", "control character"},
		{"log key of a witness", "log " + w + "\nquorum none\n", "type"},
		{"witness key of a log", "witness W " + vkey + "\nquorum none\n", "type"},
		{"log twice", "log " + vkey + "\nlog " + vkey + "\nquorum none\n", "twice"},
		{"witness twice", "witness A " + w + "\nwitness B " + w + "\nquorum none\n", "twice"},
		{"witness key under another name", "witness A " + w + "\nwitness B " + same + "\nquorum none\n", "twice"},
		{"name twice", "witness A " + w + "\nwitness A " + w2 + "\nquorum none\n", "defined twice"},
		{"group with a witness's name", "witness A " + w + "\ngroup A any A\nquorum none\n", "defined twice"},
		{"witness called none", "witness none " + w + "\nquorum none\n", "taken"},
		{"group called none", "witness A " + w + "\ngroup none any A\nquorum none\n", "taken"},
		{"none as a member", "group G any none\nquorum G\n", "not defined"},
		{"member defined later", "group G any A\nwitness A " + w + "\nquorum G\n", "not defined"},
		{"quorum defined later", "quorum A\nwitness A " + w + "\n", "not defined"},
		{"member twice", "witness A " + w + "\ngroup G 2 A A\nquorum G\n", "already a member"},
		{"member of two groups", "witness A " + w + "\ngroup G any A\ngroup H any A\nquorum G\n", "already a member"},
		{"group of nobody", "group G any\nquorum G\n", "wrong number"},
		{"threshold 0", "witness A " + w + "\ngroup G 0 A\nquorum G\n", "from 1 to 1"},
		{"threshold too high", "witness A " + w + "\ngroup G 2 A\nquorum G\n", "from 1 to 1"},
		{"threshold with zero", "witness A " + w + "\ngroup G 01 A\nquorum G\n", "from 1 to 1"},
		{"too long", strings.Repeat("\n", MaxPolicy) + "quorum none\n", "at most"},
	} {
		if _, err := ParsePolicy([]byte(tt.policy)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: ParsePolicy = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestParsePolicyAccepts(t *testing.T) {
	w := testWitness("w", 9).String()
	for _, s := range []string{
		"quorum none", "quorum none\n", "\t quorum \t none \n", "#\x80\xff\n \t#x\nquorum none\n",
		"witness \xff\xfe " + w + "\nquorum \xff\xfe\n", "quorum none\nwitness A " + w + "\n",
	} {
		if _, err := ParsePolicy([]byte(s)); err != nil {
			t.Errorf("ParsePolicy(%q): %v", s, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	s, vkey := testKey(f, "log", 1)
	signed := testCheckpoint(f, s, 7)
	f.Add([]byte(FormatPolicy(vkey, "")))
	f.Add([]byte("log " + vkey + "\nwitness A " + testWitness("w", 9).String() + "\ngroup G 1 A\nquorum G\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b)
		if err != nil {
			return
		}
		if v, err := p.Verify(signed); err == nil && v.VKey != vkey {
			t.Errorf("policy %q accepts a checkpoint by key %s, signed by %s", b, v.VKey, vkey)
		}
	})
}
