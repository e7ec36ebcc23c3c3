package scram

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	xdg "github.com/xdg-go/scram"
)

// initial is a SASLInitialResponse.
func initial(mechanism, message string) []byte {
	b := append([]byte(mechanism), 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(message))), message...)
}

// offers is a list of mechanisms.
func offers(names ...string) []byte { return []byte(strings.Join(names, "\x00") + "\x00\x00") }

// xdgServer is an independent server that knows v.
func xdgServer(t *testing.T, v *Verifier) *xdg.Server {
	t.Helper()
	s, err := xdg.SHA256.NewServer(func(string) (xdg.StoredCredentials, error) {
		return xdg.StoredCredentials{
			KeyFactors: xdg.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey:  v.StoredKey[:], ServerKey: v.ServerKey[:],
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMiddle puts a Middle between an independent client and an independent server, which are
// bound to different certificates.
func TestMiddle(t *testing.T) {
	shown, seen := []byte("certificate of the proxy"), []byte("certificate of the server")
	v, _ := newVerifier(t, "pencil", []byte("a salt of 16 ..."), 4096)
	stale, _ := newVerifier(t, "pencil", []byte("another salt ..."), 4096)
	twin, _ := newVerifier(t, "brush", []byte("a salt of 16 ..."), 4096) // of another password, and the same salt
	for _, row := range []struct {
		name        string
		password    string
		v           *Verifier
		shown, seen []byte
		fits, good  bool
	}{
		{"PLUS on both legs", "pencil", v, shown, seen, true, true},
		{"PLUS towards the client", "pencil", v, shown, nil, true, true},
		{"PLUS towards the server", "pencil", v, nil, seen, true, true},
		{"no TLS", "pencil", v, nil, nil, true, true},
		{"wrong password", "pen", v, shown, seen, true, false},
		{"no verifier", "pencil", nil, shown, seen, false, false},
		{"stale verifier", "pencil", stale, shown, seen, false, false},
		{"verifier of another password", "brush", twin, shown, seen, true, true}, // the server refuses
	} {
		t.Run(row.name, func(t *testing.T) {
			m := NewMiddle(row.shown, row.seen)
			defer m.Erase()
			list := offers(Mechanism)
			if row.seen != nil {
				list = offers(MechanismPlus, Mechanism)
			}
			ours, ok := m.Offer(list)
			if !ok || bytes.HasPrefix(ours, []byte(MechanismPlus)) != (row.shown != nil) {
				t.Fatalf("Offer(%q) = %q, %v", list, ours, ok)
			}
			client, err := xdg.SHA256.NewClientUnprepped("alice", row.password, "")
			if err != nil {
				t.Fatal(err)
			}
			conv, mechanism := client.NewConversation(), Mechanism
			if row.shown != nil {
				mechanism = MechanismPlus
				conv = client.NewConversationWithChannelBinding(xdg.ChannelBinding{Type: xdg.ChannelBindingTLSServerEndpoint, Data: row.shown})
			}
			up := xdgServer(t, v).NewConversation()
			if row.seen != nil {
				up = xdgServer(t, v).NewConversationWithChannelBindingRequired(xdg.ChannelBinding{Type: xdg.ChannelBindingTLSServerEndpoint, Data: row.seen})
			}

			text, err := conv.Step("")
			if err != nil {
				t.Fatal(err)
			}
			out, err := m.ClientFirst(initial(mechanism, text), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			name, rest, _ := strings.Cut(string(out), "\x00")
			if (name == MechanismPlus) != (row.seen != nil) {
				t.Errorf("the server is asked for %s", name)
			}
			challenge, err := up.Step(rest[4:])
			if err != nil {
				t.Fatalf("the server refuses %q: %v", rest[4:], err)
			}
			out, fits, err := m.ServerFirst([]byte(challenge), row.v, rand.Reader)
			if err != nil || fits != row.fits {
				t.Fatalf("ServerFirst: fits %v, %v, want %v", fits, err, row.fits)
			}
			_, want, _ := strings.Cut(challenge, ",")
			if _, got, _ := strings.Cut(string(out), ","); got != want {
				t.Errorf("the client is told %q, by the server itself %q", got, want)
			}
			if text, err = conv.Step(string(out)); err != nil {
				t.Fatal(err)
			}
			out, good, err := m.ClientFinal([]byte(text))
			if err != nil || good != row.good {
				t.Fatalf("ClientFinal: good %v, %v, want %v", good, err, row.good)
			}
			if m.client.keys != (Keys{}) {
				t.Error("the client's key is still there")
			}
			final, err := up.Step(string(out))
			if accepted := row.good && row.v == v; accepted != (err == nil && up.Valid()) {
				t.Fatalf("the server: %q, %v", final, err)
			} else if !accepted {
				if last, err := m.ServerFinal([]byte(final)); !errors.Is(err, ErrRefused) || last != nil {
					t.Errorf("ServerFinal = %q, %v", last, err)
				}
				return
			}
			out, err = m.ServerFinal([]byte(final))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conv.Step(string(out)); err != nil || !conv.Valid() {
				t.Errorf("the client refuses %q: %v", out, err)
			}
		})
	}
}

// TestMiddleRefuses has peers that do not keep to the order or the rules.
func TestMiddleRefuses(t *testing.T) {
	hash := []byte("hash")
	if _, ok := NewMiddle(nil, nil).Offer(offers("OAUTHBEARER")); ok {
		t.Error("a login without SCRAM is taken")
	}
	for _, row := range []struct {
		name  string
		shown []byte
		body  []byte
		want  error
	}{
		{"empty", nil, nil, ErrMalformed},
		{"no length", nil, []byte("SCRAM-SHA-256\x00\x00\x00"), ErrMalformed},
		{"wrong length", nil, append(initial(Mechanism, "n,,n=,r=abc"), 'x'), ErrMalformed},
		{"negative length", nil, []byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"), ErrMalformed},
		{"other mechanism", nil, initial("PLAIN", "n,,n=,r=abc"), ErrMalformed},
		{"PLUS was not offered", nil, initial(MechanismPlus, "p=tls-server-end-point,,n=,r=abc"), ErrMalformed},
		{"downgrade", hash, initial(Mechanism, "y,,n=,r=abc"), ErrDowngrade},
	} {
		m := NewMiddle(row.shown, nil)
		m.Offer(offers(Mechanism))
		if out, err := m.ClientFirst(row.body, rand.Reader); !errors.Is(err, row.want) {
			t.Errorf("%s: ClientFirst = %q, %v, want %v", row.name, out, err, row.want)
		}
	}
	m := NewMiddle(nil, nil)
	if _, _, err := m.ServerFirst([]byte(rfcServer), nil, rand.Reader); !errors.Is(err, ErrState) {
		t.Errorf("ServerFirst before all: %v", err)
	}
	if _, _, err := m.ClientFinal([]byte(rfcFinal)); !errors.Is(err, ErrState) {
		t.Errorf("ClientFinal before all: %v", err)
	}
	if _, err := m.ServerFinal([]byte(rfcLast)); !errors.Is(err, ErrState) {
		t.Errorf("ServerFinal before all: %v", err)
	}
}

// A server that accepts what cannot have been a proof does not get a client to believe it.
func TestMiddleNeedsTheClientsProof(t *testing.T) {
	m := NewMiddle(nil, nil)
	m.Offer(offers(Mechanism))
	if _, err := m.ClientFirst(initial(Mechanism, "n,,n=,r=abc"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	challenge := "r=" + m.client.nonce + "x,s=c2FsdA==,i=4096"
	if _, _, err := m.ServerFirst([]byte(challenge), nil, rand.Reader); err != nil {
		t.Fatal(err)
	}
	out, good, err := m.ClientFinal([]byte("c=biws,r=" + m.server.nonce + ",p=" + encode(make([]byte, keySize))))
	if err != nil || good || len(out) == 0 {
		t.Fatalf("ClientFinal = %q, %v, %v", out, good, err)
	}
	// What a server would say that knows that the keys were zeros.
	if last, err := m.ServerFinal([]byte("v=" + encode(m.client.signature[:]))); !errors.Is(err, ErrProof) || last != nil {
		t.Errorf("ServerFinal = %q, %v", last, err)
	}
}

// FuzzMiddle has two peers that say anything: no panic, and never the server's word without a proof.
func FuzzMiddle(f *testing.F) {
	v, _ := rfcVerifier(f)
	f.Add(offers(MechanismPlus, Mechanism), initial(Mechanism, "n,,n=,r=abc"), []byte("x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"), []byte("c=biws,r="), []byte(rfcLast))
	f.Add(offers(Mechanism), initial(MechanismPlus, "p=tls-server-end-point,,n=,r=abc"), []byte("x,s=AA==,i=1"), []byte(""), []byte("e=x"))
	f.Fuzz(func(t *testing.T, list, first, challenge, final, last []byte) {
		m := NewMiddle([]byte("shown"), []byte("seen"))
		defer m.Erase()
		m.Offer(list)
		if _, err := m.ClientFirst(first, rand.Reader); err != nil {
			return
		}
		challenge = append([]byte("r="+m.client.nonce), challenge...)
		answer, fits, err := m.ServerFirst(challenge, v, rand.Reader)
		if err != nil {
			return
		}
		if len(answer) > MaxMessage || fits && m.client.verifier != v {
			t.Errorf("ServerFirst(%q) = %q, %v", challenge, answer, fits)
		}
		_, good, err := m.ClientFinal(final)
		if good {
			t.Errorf("ClientFinal(%q) found a proof", final)
		}
		if err != nil {
			return
		}
		if out, err := m.ServerFinal(last); err == nil {
			t.Errorf("ServerFinal(%q) = %q without a proof", last, out)
		}
	})
}
