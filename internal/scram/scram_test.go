package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	xdg "github.com/xdg-go/scram"
)

// newVerifier derives what a server stores, and the keys, from a password.
func newVerifier(tb testing.TB, password string, salt []byte, count int) (*Verifier, Keys) {
	tb.Helper()
	salted, err := pbkdf2.Key(sha256.New, password, salt, count, keySize)
	if err != nil {
		tb.Fatal(err)
	}
	derive := func(label string) (out key) {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(label))
		h.Sum(out[:0])
		return out
	}
	keys := Keys{ClientKey: derive("Client Key"), ServerKey: derive("Server Key")}
	return &Verifier{Iterations: count, Salt: salt, StoredKey: sha256.Sum256(keys.ClientKey[:]), ServerKey: keys.ServerKey}, keys
}

// The example of RFC 7677, section 3.
const (
	rfcNonce  = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcFirst  = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcServer = "r=" + rfcNonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcFinal  = "c=biws,r=" + rfcNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcLast   = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcVerifier(tb testing.TB) (*Verifier, Keys) {
	salt, _ := decode("W22ZaJ0SNY7soEsUEjb6gQ==")
	return newVerifier(tb, "pencil", salt, 4096)
}

func TestServerRFC7677(t *testing.T) {
	v, want := rfcVerifier(t)
	header, bare, nonce, err := parseClientFirst(rfcFirst)
	if err != nil || header != "n,," || bare != rfcFirst[3:] || nonce != rfcNonce[:20] {
		t.Fatalf("parseClientFirst = %q, %q, %q, %v", header, bare, nonce, err)
	}
	s := &Server{verifier: v, header: header, nonce: rfcNonce, auth: bare + "," + rfcServer, state: atFinal}
	var keys Keys
	last, err := s.Final([]byte(rfcFinal), &keys)
	if err != nil || string(last) != rfcLast {
		t.Fatalf("Final = %q, %v, want %q", last, err, rfcLast)
	}
	if keys != want {
		t.Error("Final recovered other keys than the password gives")
	}
}

func TestClientRFC7677(t *testing.T) {
	v, keys := rfcVerifier(t)
	c := &Client{keys: keys, verifier: v, header: "n,,", nonce: rfcNonce[:20], bare: "n=user,r=" + rfcNonce[:20], state: atFirst}
	final, err := c.First([]byte(rfcServer))
	if err != nil || string(final) != rfcFinal {
		t.Fatalf("First = %q, %v, want %q", final, err, rfcFinal)
	}
	if err := c.Final([]byte(rfcLast)); err != nil {
		t.Fatalf("Final: %v", err)
	}
}

func TestParseVerifier(t *testing.T) {
	v, _ := rfcVerifier(t)
	good := v.Encode()
	if got, err := ParseVerifier(good); err != nil || got.Encode() != good {
		t.Fatalf("ParseVerifier(%q) = %q, %v", good, got.Encode(), err)
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, row := range []struct{ name, text string }{
		{"empty", ""},
		{"md5", "md500000000000000000000000000000000"},
		{"password", "pencil"},
		{"other hash", replace("256", "512")},
		{"small letters", strings.ToLower(good)},
		{"no salt", replace("W22ZaJ0SNY7soEsUEjb6gQ==", "")},
		{"salt not canonical", replace("6gQ==", "6gR==")},
		{"salt unpadded", replace("6gQ==", "6gQ")},
		{"salt with line break", replace("6gQ==", "6g\nQ==")},
		{"long salt", replace("W22ZaJ0SNY7soEsUEjb6gQ==", encode(make([]byte, MaxSalt+1)))},
		{"no iterations", replace("4096", "")},
		{"zero iterations", replace("4096", "0")},
		{"negative iterations", replace("4096", "-1")},
		{"signed iterations", replace("4096", "+4096")},
		{"leading zero", replace("4096", "04096")},
		{"too many iterations", replace("4096", "10000001")},
		{"overflowing iterations", replace("4096", "99999999999999999999")},
		{"short key", good[:len(good)-4]},
		{"long key", good + "AAAA"},
		{"trailing space", good + " "},
		{"one key", good[:strings.LastIndex(good, ":")]},
		{"too long", good + strings.Repeat("A", MaxMessage)},
	} {
		if v, err := ParseVerifier(row.text); err == nil {
			t.Errorf("%s: ParseVerifier(%q) = %v, want an error", row.name, row.text, v)
		} else if len(row.text) > 10 && strings.Contains(err.Error(), row.text[10:]) {
			t.Errorf("%s: the error repeats the verifier", row.name)
		}
	}
}

func TestSecretsStayOutOfText(t *testing.T) {
	v, keys := rfcVerifier(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, v); got != "SCRAM-SHA-256 verifier" {
			t.Errorf("%s of a verifier = %s", verb, got)
		}
		if got := fmt.Sprintf(verb, &keys); got != "SCRAM keys" {
			t.Errorf("%s of keys = %s", verb, got)
		}
	}
	v.Erase()
	keys.Erase()
	if v.StoredKey != (key{}) || v.ServerKey != (key{}) || keys != (Keys{}) {
		t.Error("Erase left a key")
	}
}

// dialogue runs our Client against our Server and returns what the server said at the end.
func dialogue(v *Verifier, keys *Keys, flag Flag, offered, seen []byte) (recovered Keys, err error) {
	c, err := NewClient(keys, v, flag, seen)
	if err != nil {
		return recovered, err
	}
	s, err := NewServer(v, c.Mechanism(), offered)
	if err != nil {
		return recovered, err
	}
	m, err := c.Start(rand.Reader)
	if err != nil {
		return recovered, err
	}
	if m, err = s.First(m, rand.Reader); err != nil {
		return recovered, err
	}
	if m, err = c.First(m); err != nil {
		return recovered, err
	}
	if m, err = s.Final(m, &recovered); err != nil {
		return recovered, err
	}
	return recovered, c.Final(m)
}

func TestDialogue(t *testing.T) {
	v, good := rfcVerifier(t)
	bad := good
	bad.ClientKey[7] ^= 1
	forger := good
	forger.ServerKey[7] ^= 1
	a, b := []byte("certificate A"), []byte("certificate B")
	for _, row := range []struct {
		name          string
		v             *Verifier
		keys          Keys
		flag          Flag
		offered, seen []byte
		want          error
	}{
		{"plain", v, good, FlagNone, nil, nil, nil},
		{"plain though PLUS is offered", v, good, FlagNone, a, nil, nil},
		{"PLUS not offered", v, good, FlagNotOffered, nil, nil, nil},
		{"PLUS", v, good, FlagBound, a, a, nil},
		{"PLUS hidden on the way", v, good, FlagNotOffered, a, nil, ErrDowngrade},
		{"another certificate", v, good, FlagBound, a, b, ErrBinding},
		{"part of a certificate", v, good, FlagBound, a, a[:4], ErrBinding},
		{"PLUS chosen, not offered", v, good, FlagBound, nil, a, ErrMalformed},
		{"bound without data", v, good, FlagBound, a, nil, ErrState},
		{"unknown flag", v, good, 'x', a, a, ErrState},
		{"wrong key", v, bad, FlagBound, a, a, ErrProof},
		{"server without the verifier", v, forger, FlagBound, a, a, ErrSignature},
		{"unknown user", Nobody(v.Salt, 4096), good, FlagNone, nil, nil, ErrProof},
	} {
		got, err := dialogue(row.v, &row.keys, row.flag, row.offered, row.seen)
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
		if recovered := got != (Keys{}); recovered != (err == nil || errors.Is(err, ErrSignature)) {
			t.Errorf("%s: keys recovered = %v with error %v", row.name, recovered, err)
		}
		if err == nil && got != good {
			t.Errorf("%s: recovered other keys", row.name)
		}
	}
}

// Nobody's verifier refuses even a proof that would be good.
func TestNobody(t *testing.T) {
	v, keys := rfcVerifier(t)
	doomed := *v
	doomed.mock = true
	if got, err := dialogue(&doomed, &keys, FlagNone, nil, nil); !errors.Is(err, ErrProof) || got != (Keys{}) {
		t.Errorf("a verifier of nobody accepted a proof: %v", err)
	}
	if n := Nobody(v.Salt, 77); !bytes.Equal(n.Salt, v.Salt) || n.Iterations != 77 {
		t.Errorf("Nobody = %s", n.Encode())
	}
}

func TestServerFirstRefuses(t *testing.T) {
	v, _ := rfcVerifier(t)
	for _, row := range []struct{ name, message string }{
		{"empty", ""},
		{"no commas", "n"},
		{"no header", "n=,r=abc"},
		{"unknown flag", "q,,n=,r=abc"},
		{"flag with rest", "nn,,n=,r=abc"},
		{"binding without the mechanism", "p=tls-server-end-point,,n=,r=abc"},
		{"other binding type", "p=tls-unique,,n=,r=abc"},
		{"no binding type", "p=,,n=,r=abc"},
		{"authorization identity", "n,a=root,n=,r=abc"},
		{"authorization junk", "n,x,n=,r=abc"},
		{"mandatory extension", "n,,m=x,n=,r=abc"},
		{"later mandatory extension", "n,,n=,r=abc,m=x"},
		{"no user", "n,,r=abc"},
		{"no nonce", "n,,n="},
		{"nonce before user", "n,,r=abc,n="},
		{"empty nonce", "n,,n=,r="},
		{"nonce with a space", "n,,n=,r=a b"},
		{"nonce above ASCII", "n,,n=,r=a\xff"},
		{"nonce with DEL", "n,,n=,r=a\x7f"},
		{"long nonce", "n,,n=,r=" + strings.Repeat("a", MaxNonce+1)},
		{"long message", "n,,n=" + strings.Repeat("a", MaxMessage) + ",r=abc"},
		{"zero byte", "n,,n=\x00,r=abc"},
		{"empty extension", "n,,n=,r=abc,"},
		{"extension without value", "n,,n=,r=abc,x"},
		{"extension without letter", "n,,n=,r=abc,1=x"},
	} {
		s, err := NewServer(v, Mechanism, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := s.First([]byte(row.message), rand.Reader); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: First(%q) = %q, %v, want ErrMalformed", row.name, row.message, m, err)
		}
		if _, err := s.First([]byte("n,,n=,r=abc"), rand.Reader); !errors.Is(err, ErrState) {
			t.Errorf("%s: a failed login goes on: %v", row.name, err)
		}
	}
	for _, message := range []string{"n,,n=,r=abc", "n,,n=*,r=abc", "n,,n=al=2Cice,r=abc,x=1,Y=", "y,,n=,r=!"} {
		s, _ := NewServer(v, Mechanism, nil)
		if _, err := s.First([]byte(message), rand.Reader); err != nil {
			t.Errorf("First(%q): %v", message, err)
		}
	}
	if _, err := NewServer(v, "SCRAM-SHA-1", nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("NewServer of SCRAM-SHA-1: %v", err)
	}
	s, _ := NewServer(v, MechanismPlus, []byte("hash"))
	if _, err := s.First([]byte("n,,n=,r=abc"), rand.Reader); !errors.Is(err, ErrMalformed) {
		t.Errorf("PLUS with flag n: %v", err)
	}
	if _, err := (&Server{verifier: v}).First([]byte("n,,n=,r=abc"), bytes.NewReader(nil)); err == nil {
		t.Error("a login went on without randomness")
	}
}

func TestServerFinalRefuses(t *testing.T) {
	proof := ",p=" + encode(make([]byte, keySize))
	for _, row := range []struct {
		name, message string
		want          error
	}{
		{"empty", "", ErrMalformed},
		{"no proof", "c=biws,r=NONCE", ErrMalformed},
		{"short proof", "c=biws,r=NONCE,p=AAAA", ErrMalformed},
		{"after the proof", "c=biws,r=NONCE" + proof + ",x=1", ErrMalformed},
		{"no binding", "r=NONCE" + proof, ErrMalformed},
		{"binding not base64", "c=bi_s,r=NONCE" + proof, ErrMalformed},
		{"other header", "c=eSws,r=NONCE" + proof, ErrBinding},
		{"header with binding", "c=" + encode([]byte("n,,hash")) + ",r=NONCE" + proof, ErrBinding},
		{"no nonce", "c=biws" + proof, ErrMalformed},
		{"other nonce", "c=biws,r=NONCE2" + proof, ErrMalformed},
		{"shorter nonce", "c=biws,r=NONC" + proof, ErrMalformed},
		{"bad extension", "c=biws,r=NONCE,1=" + proof, ErrMalformed},
		{"zero byte", "c=biws,r=NONCE,x=\x00" + proof, ErrMalformed},
		{"long", "c=biws,r=NONCE,x=" + strings.Repeat("a", MaxMessage) + proof, ErrMalformed},
		{"wrong proof", "c=biws,r=NONCE" + proof, ErrProof},
		{"wrong proof after an extension", "c=biws,r=NONCE,x=1" + proof, ErrProof},
	} {
		v, _ := rfcVerifier(t)
		s := &Server{verifier: v, header: "n,,", nonce: "NONCE", auth: "x", state: atFinal}
		var keys Keys
		if m, err := s.Final([]byte(row.message), &keys); !errors.Is(err, row.want) || m != nil || keys != (Keys{}) {
			t.Errorf("%s: Final(%q) = %q, %v, want %v", row.name, row.message, m, err, row.want)
		}
	}
	if _, err := (&Server{}).Final(nil, nil); !errors.Is(err, ErrState) {
		t.Errorf("Final before First: %v", err)
	}
}

func TestClientRefuses(t *testing.T) {
	v, keys := rfcVerifier(t)
	for _, row := range []struct {
		name, message string
		want          error
	}{
		{"empty", "", ErrMalformed},
		{"no nonce", "s=AAAA,i=1", ErrMalformed},
		{"other nonce", strings.Replace(rfcServer, "rOpr", "sOpr", 1), ErrMalformed},
		{"only our nonce", strings.Replace(rfcServer, rfcNonce[20:], "", 1), ErrMalformed},
		{"no salt", "r=" + rfcNonce + ",i=4096", ErrMalformed},
		{"empty salt", strings.Replace(rfcServer, "W22ZaJ0SNY7soEsUEjb6gQ==", "", 1), ErrMalformed},
		{"other salt", strings.Replace(rfcServer, "W22Z", "X22Z", 1), ErrVerifier},
		{"other count", strings.Replace(rfcServer, "4096", "4097", 1), ErrVerifier},
		{"huge count", strings.Replace(rfcServer, "4096", "2147483647", 1), ErrMalformed},
		{"zero count", strings.Replace(rfcServer, "4096", "0", 1), ErrMalformed},
		{"no count", strings.Replace(rfcServer, ",i=4096", "", 1), ErrMalformed},
		{"mandatory extension", rfcServer + ",m=1", ErrMalformed},
		{"long", rfcServer + ",x=" + strings.Repeat("a", MaxMessage), ErrMalformed},
		{"extension", rfcServer + ",x=1", nil},
	} {
		c := &Client{keys: keys, verifier: v, header: "n,,", nonce: rfcNonce[:20], bare: "n=user,r=" + rfcNonce[:20], state: atFirst}
		if m, err := c.First([]byte(row.message)); !errors.Is(err, row.want) || (m != nil) != (err == nil || errors.Is(err, ErrVerifier)) {
			t.Errorf("%s: First(%q) = %q, %v, want %v", row.name, row.message, m, err, row.want)
		}
	}
	for _, row := range []struct {
		name, message string
		want          error
	}{
		{"empty", "", ErrMalformed},
		{"refused", "e=invalid-proof", ErrRefused},
		{"other signature", "v=" + encode(make([]byte, keySize)), ErrSignature},
		{"short signature", rfcLast[:len(rfcLast)-4], ErrMalformed},
		{"long", rfcLast + strings.Repeat(" ", MaxMessage), ErrMalformed},
		{"extension", rfcLast + ",x=1", nil},
		{"bad extension", rfcLast + ",", ErrMalformed},
	} {
		c := &Client{keys: keys, verifier: v, header: "n,,", nonce: rfcNonce[:20], bare: "n=user,r=" + rfcNonce[:20], state: atFirst}
		if _, err := c.First([]byte(rfcServer)); err != nil {
			t.Fatal(err)
		}
		if err := c.Final([]byte(row.message)); !errors.Is(err, row.want) {
			t.Errorf("%s: Final(%q) = %v, want %v", row.name, row.message, err, row.want)
		}
		c.Erase()
		if err := c.Final([]byte(rfcLast)); !errors.Is(err, ErrState) {
			t.Errorf("%s: Final after the end = %v", row.name, err)
		}
	}
}

// TestOracleClient lets an independent client log in to Server.
func TestOracleClient(t *testing.T) {
	binding := xdg.ChannelBinding{Type: xdg.ChannelBindingTLSServerEndpoint, Data: []byte("hash of a certificate")}
	conversations := map[string]func(*xdg.Client) *xdg.ClientConversation{
		"n": (*xdg.Client).NewConversation,
		"y": (*xdg.Client).NewConversationAdvertisingChannelBinding,
		"p": func(c *xdg.Client) *xdg.ClientConversation { return c.NewConversationWithChannelBinding(binding) },
	}
	for flag, begin := range conversations {
		for _, password := range []string{"pencil", "", "wrong"} {
			client, err := xdg.SHA256.NewClientUnprepped("al,i=ce", "pencil", "")
			if err != nil {
				t.Fatal(err)
			}
			v, want := newVerifier(t, password, []byte("a salt of 16 ..."), 4096)
			mechanism, offered := Mechanism, []byte(nil)
			if flag == "p" {
				mechanism, offered = MechanismPlus, binding.Data
			}
			conv := begin(client)
			s, err := NewServer(v, mechanism, offered)
			if err != nil {
				t.Fatal(err)
			}
			text, err := conv.Step("")
			if err != nil {
				t.Fatal(err)
			}
			m, err := s.First([]byte(text), rand.Reader)
			if err != nil {
				t.Fatalf("flag %s: First(%q): %v", flag, text, err)
			}
			if text, err = conv.Step(string(m)); err != nil {
				t.Fatalf("flag %s: the client refuses %q: %v", flag, m, err)
			}
			var keys Keys
			m, err = s.Final([]byte(text), &keys)
			if password != "pencil" {
				if !errors.Is(err, ErrProof) {
					t.Errorf("flag %s: Final with a wrong password: %v", flag, err)
				}
				continue
			}
			if err != nil || keys != want {
				t.Fatalf("flag %s: Final(%q): %v", flag, text, err)
			}
			if _, err := conv.Step(string(m)); err != nil || !conv.Valid() {
				t.Errorf("flag %s: the client refuses %q: %v", flag, m, err)
			}
		}
	}
}

// TestOracleServer lets Client log in to an independent server.
func TestOracleServer(t *testing.T) {
	v, good := newVerifier(t, "pencil", []byte("a salt of 16 ..."), 4096)
	bad := good
	bad.ClientKey[31] ^= 0x80
	binding := xdg.ChannelBinding{Type: xdg.ChannelBindingTLSServerEndpoint, Data: []byte("hash of a certificate")}
	server, err := xdg.SHA256.NewServer(func(string) (xdg.StoredCredentials, error) {
		return xdg.StoredCredentials{
			KeyFactors: xdg.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey:  v.StoredKey[:], ServerKey: v.ServerKey[:],
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []Flag{FlagNone, FlagNotOffered, FlagBound} {
		for _, keys := range []Keys{good, bad} {
			conv := server.NewConversation()
			if flag == FlagBound {
				conv = server.NewConversationWithChannelBindingRequired(binding)
			}
			c, err := NewClient(&keys, v, flag, binding.Data)
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.Start(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			text, err := conv.Step(string(m))
			if err != nil {
				t.Fatalf("flag %c: the server refuses %q: %v", flag, m, err)
			}
			if m, err = c.First([]byte(text)); err != nil {
				t.Fatalf("flag %c: First(%q): %v", flag, text, err)
			}
			text, err = conv.Step(string(m))
			if keys == bad {
				if err == nil || conv.Valid() || !errors.Is(c.Final([]byte(text)), ErrRefused) {
					t.Errorf("flag %c: a wrong key logs in: %q", flag, text)
				}
				continue
			}
			if err != nil || !conv.Valid() {
				t.Fatalf("flag %c: the server refuses %q: %v", flag, m, err)
			}
			if err := c.Final([]byte(text)); err != nil {
				t.Errorf("flag %c: Final(%q): %v", flag, text, err)
			}
		}
	}
}

func FuzzParseVerifier(f *testing.F) {
	v, _ := rfcVerifier(f)
	f.Add(v.Encode())
	f.Add("SCRAM-SHA-256$1:AA==$:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVerifier(text)
		if err == nil && v.Encode() != text {
			t.Errorf("ParseVerifier(%q).Encode() = %q", text, v.Encode())
		}
	})
}

func FuzzServer(f *testing.F) {
	v, _ := rfcVerifier(f)
	f.Add([]byte(rfcFirst), []byte(rfcFinal))
	f.Add([]byte("y,,n=,r=x"), []byte("c=eSws,r=x,p="))
	f.Add([]byte("p=tls-server-end-point,,n=,r=x,a=b"), []byte(",,,p=,p="))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		for _, mechanism := range []string{Mechanism, MechanismPlus} {
			s, err := NewServer(v, mechanism, []byte("hash"))
			if err != nil {
				t.Fatal(err)
			}
			if m, err := s.First(first, rand.Reader); err == nil {
				if len(m) > MaxNonce+MaxSalt*2+64 || s.header+strings.SplitN(s.auth, ",r="+s.nonce, 2)[0] == "" {
					t.Errorf("First(%q) = %q", first, m)
				}
				if !bytes.HasPrefix(first, []byte(s.header)) || !bytes.Contains(m, []byte(s.nonce)) {
					t.Errorf("First(%q) = %q loses bytes", first, m)
				}
			}
			var keys Keys
			s.state, s.nonce = atFinal, "x"
			if _, err := s.Final(final, &keys); err == nil {
				t.Errorf("Final(%q) found a proof", final)
			}
		}
	})
}

// FuzzClientFinal holds that what parses is what was written: nothing is skipped.
func FuzzClientFinal(f *testing.F) {
	f.Add(rfcFinal)
	f.Add("c=biws,r=a,x=1,p=" + encode(make([]byte, keySize)))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseClientFinal(text)
		if err != nil {
			return
		}
		head := "c=" + encode(p.binding) + ",r=" + p.nonce
		if !strings.HasPrefix(p.withoutProof, head) || p.withoutProof+",p="+encode(p.proof[:]) != text {
			t.Errorf("parseClientFinal(%q) = %+v", text, p)
		}
	})
}

func FuzzClient(f *testing.F) {
	v, keys := rfcVerifier(f)
	f.Add([]byte(rfcServer), []byte(rfcLast))
	f.Add([]byte(rfcServer+",x=1"), []byte("e=other-error"))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		c := &Client{keys: keys, verifier: v, header: "n,,", nonce: rfcNonce[:20], bare: "n=user,r=" + rfcNonce[:20], state: atFirst}
		m, err := c.First(first)
		if err != nil {
			return
		}
		p, err := parseServerFirst(string(first))
		if err != nil || !slices.Equal(p.salt, v.Salt) || p.iterations != v.Iterations || !bytes.Contains(m, []byte(p.nonce)) {
			t.Errorf("First(%q) = %q", first, m)
		}
		if err := c.Final(last); err == nil && !bytes.HasPrefix(last, []byte(rfcLast)) {
			t.Errorf("Final(%q) accepted", last)
		}
	})
}
