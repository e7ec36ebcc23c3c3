package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		in     string
		typ    byte
		length int
		ok     bool
	}{
		{"", 0, 0, false},
		{"Q\x00\x00\x00", 0, 0, false},
		{"Q\x00\x00\x00\x04", 'Q', 4, true},
		{"Q\x00\x00\x01\x00more", 'Q', 256, true},
		{"d\xff\xff\xff\xff", 'd', -1, true},
		{"d\x80\x00\x00\x00", 'd', -1 << 31, true},
	} {
		typ, length, ok := Header([]byte(tt.in))
		if typ != tt.typ || length != tt.length || ok != tt.ok {
			t.Errorf("Header(%q) = %q, %d, %v, want %q, %d, %v", tt.in, typ, length, ok, tt.typ, tt.length, tt.ok)
		}
	}
}

func TestFrontendLimit(t *testing.T) {
	limits := map[byte]int{
		'Q': MaxLarge, 'P': MaxLarge, 'B': MaxLarge, 'F': MaxLarge, 'd': MaxLarge,
		'D': MaxSmall, 'C': MaxSmall, 'E': MaxSmall, 'H': MaxSmall, 'S': MaxSmall, 'X': MaxSmall, 'c': MaxSmall, 'f': MaxSmall,
	}
	for c := range 256 {
		want, known := limits[byte(c)]
		if limit, ok := FrontendLimit(byte(c)); limit != want || ok != known {
			t.Errorf("FrontendLimit(%q) = %d, %v, want %d, %v", byte(c), limit, ok, want, known)
		}
	}
}

func TestFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet string
		want   Request
		err    error
	}{
		{"SSLRequest", "\x00\x00\x00\x08\x04\xd2\x16\x2f", SSLRequest, nil},
		{"GSSENCRequest", "\x00\x00\x00\x08\x04\xd2\x16\x30", GSSENCRequest, nil},
		{"long SSLRequest", "\x00\x00\x00\x09\x04\xd2\x16\x2fx", 0, ErrFirstLength},
		{"CancelRequest", "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01abcd", CancelRequest, nil},
		{"CancelRequest of 3.2", "\x00\x00\x00\x2c\x04\xd2\x16\x2e\x00\x00\x00\x01" + string(make([]byte, 32)), CancelRequest, nil},
		{"CancelRequest without key", "\x00\x00\x00\x0c\x04\xd2\x16\x2e\x00\x00\x00\x01", 0, ErrFirstLength},
		{"StartupMessage", "\x00\x00\x00\x09\x00\x03\x00\x00\x00", StartupMessage, nil},
		{"wrong length", "\x00\x00\x00\x0a\x00\x03\x00\x00\x00", 0, ErrFirstLength},
		{"too short", "\x00\x00\x00\x07\x00\x03\x00", 0, ErrFirstLength},
		{"too long", "\x00\x00\x27\x15\x00\x03\x00\x00", 0, ErrFirstLength},
		{"nothing", "", 0, ErrFirstLength},
	} {
		if r, _, err := First([]byte(tt.packet)); r != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: First = %v, %v, want %v, %v", tt.name, r, err, tt.want, tt.err)
		}
	}
}

func TestErrors(t *testing.T) {
	got := AppendError([]byte("x"), "FATAL", "08P01", "no", "try")
	want := "xE\x00\x00\x00\x28SFATAL\x00VFATAL\x00C08P01\x00Mno\x00Htry\x00\x00"
	want = want[:5] + string(rune(len(want)-2)) + want[6:]
	if string(got) != want {
		t.Errorf("AppendError = %q, want %q", got, want)
	}
	if severity, state := ErrorFields(got[6:]); string(severity) != "FATAL" || string(state) != "08P01" {
		t.Errorf("ErrorFields = %q, %q", severity, state)
	}
	for in, want := range map[string][2]string{
		"":                            {"", ""},
		"\x00":                        {"", ""},
		"SFATAL\x00\x00":              {"FATAL", ""},
		"SFEHLER\x00VERROR\x00C1\x00": {"ERROR", "1"},
		"C42601\x00Mno end":           {"", "42601"},
		"C42601":                      {"", ""},
	} {
		if severity, state := ErrorFields([]byte(in)); string(severity) != want[0] || string(state) != want[1] {
			t.Errorf("ErrorFields(%q) = %q, %q, want %q", in, severity, state, want)
		}
	}
	if got := AppendErrorV2(nil, "no"); string(got) != "Eno\n\x00" {
		t.Errorf("AppendErrorV2 = %q", got)
	}
	if got := AppendNegotiate(nil, Version32, [][]byte{[]byte("a")}); string(got) != "v\x00\x00\x00\x0e\x00\x03\x00\x02\x00\x00\x00\x01a\x00" {
		t.Errorf("AppendNegotiate = %q", got)
	}
}

// What is read from a start-up packet, written again, is the packet.
func FuzzStartup(f *testing.F) {
	f.Add(AppendStartup(nil, Version30, []Param{{[]byte("user"), []byte("u")}, {[]byte("user"), nil}}))
	f.Add([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, version, err := First(packet)
		if err != nil || r != StartupMessage {
			return
		}
		params, err := StartupParams(packet)
		if err != nil {
			return
		}
		if again := AppendStartup(nil, version, params); !bytes.Equal(again, packet) {
			t.Errorf("%q written again is %q", packet, again)
		}
	})
}

func FuzzErrorFields(f *testing.F) {
	f.Add([]byte("SFEHLER\x00VERROR\x00C1\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		severity, state := ErrorFields(body)
		if !bytes.Contains(body, severity) || !bytes.Contains(body, state) {
			t.Errorf("ErrorFields(%q) = %q, %q", body, severity, state)
		}
	})
}
