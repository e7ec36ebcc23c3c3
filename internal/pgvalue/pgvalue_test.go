package pgvalue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"
)

type servedValue struct {
	oid  uint32
	hex  string // binary form
	text string
}

// unreadable are types without a decoder, shown in hexadecimal.
var unreadable = map[uint32]bool{790: true, 3615: true} // money, tsquery

func (v servedValue) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.hex)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTextIsWhatTheServerPrints(t *testing.T) {
	for _, v := range served() {
		want := v.text
		if unreadable[v.oid] {
			want = `\x` + v.hex
		}
		if got := Text(v.oid, FormatBinary, v.bytes(t)); got != want {
			t.Errorf("Text(%s, binary, %s) = %q, want %q", TypeName(v.oid), v.hex, got, want)
		}
		if got := Text(v.oid, FormatText, []byte(v.text)); got != v.text {
			t.Errorf("Text(%s, text, %q) = %q, want it as it is", TypeName(v.oid), v.text, got)
		}
	}
}

func TestText(t *testing.T) {
	nested := []byte{}
	for range 40 { // records within records
		nested = append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1, 0, 0, 8, 0xc9}, uint32(len(nested))), nested...)
	}
	tests := []struct {
		name   string
		oid    uint32
		format int16
		raw    string
		want   string
	}{
		{"unknown type in binary", 99999, 1, "\x01\xff", `\x01ff`},
		{"unknown type in text", 99999, 0, "red", "red"},
		{"type not told, in binary", 0, 1, "ab", `\x6162`},
		{"invalid UTF-8 in text", 25, 0, "a\xffb", "a\uFFFDb"},
		{"invalid UTF-8 in binary", 25, 1, "a\xffb", "a\uFFFDb"},
		{"regclass", 2205, 1, "\x00\x00\x04\xeb", "1259"},
		{"format nobody knows", 23, 7, "ab", `\x6162`},
		{"int4 of three bytes", 23, 1, "abc", `\x616263`},
		{"int4 of none", 23, 1, "", `\x`},
		{"jsonb of an unknown version", 3802, 1, "\x02{}", `\x027b7d`},
		{"time after midnight", 1083, 1, "\x7f\xff\xff\xff\xff\xff\xff\xff", `\x7fffffffffffffff`},
		{
			"array with an unknown element type", 1007, 1,
			"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x86\x9f\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01A", `{"\\x41"}`,
		},
		{
			"array that claims a billion elements", 1007, 1,
			"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x40\x00\x00\x00\x00\x00\x00\x01", `\x00000001000000000000001740000000` + "00000001",
		},
		{"array of seven dimensions", 1007, 1, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x17", `\x000000070000000000000017`},
		{"numeric of a digit over 9999", 1700, 1, "\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff", `\x0001000000000000ffff`},
		{"inet of a wrong length", 869, 1, "\x02\x20\x00\x10abcd", `\x0220001061626364`},
		{"varbit of fewer bytes than bits", 1562, 1, "\x00\x00\x00\x10a", `\x0000001061`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Text(tt.oid, tt.format, []byte(tt.raw)); got != tt.want {
				t.Errorf("Text = %q, want %q", got, tt.want)
			}
		})
	}
	if got := Text(oidRecord, FormatBinary, nested); !strings.Contains(got, `\x`) {
		t.Errorf("records within records within ... = %q, want an end in hexadecimal", got)
	}
}

// TestTextIsBounded feeds values whose text would be thousands of times longer.
func TestTextIsBounded(t *testing.T) {
	long := []byte("\x00\x01\x7f\xff\x00\x00\x00\x00\x00\x01") // a number of 131,072 digits
	numbers := []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06\xa4\x00\x00\x27\x10\x00\x00\x00\x01")
	for range 10000 {
		numbers = append(append(numbers, 0, 0, 0, 10), long...)
	}
	record := func(oid uint32, b []byte) []byte {
		out := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, oid)
		return append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	quotes := record(25, bytes.Repeat([]byte{'"'}, 1<<16))
	for range 15 {
		quotes = record(oidRecord, quotes)
	}
	for oid, raw := range map[uint32][]byte{1231: numbers, oidRecord: quotes} {
		if got := Text(oid, FormatBinary, raw); len(got) > 2*maxGrowth*len(raw)+4<<20 {
			t.Errorf("Text of %d bytes has %d", len(raw), len(got))
		}
	}
	if got := Text(1700, FormatBinary, long); len(got) != 131069 {
		t.Errorf("a number of 32,768 base-10,000 digits has %d characters, want 131,069", len(got))
	}
}

func TestTypeName(t *testing.T) {
	for oid, want := range map[uint32]string{
		16: "bool", 20: "int8", 23: "int4", 25: "text", 1184: "timestamptz", 1007: "int4[]", 1185: "timestamptz[]",
		2950: "uuid", 3802: "jsonb", 3904: "int4range", 790: "money", 16999: "16999", 0: "0",
	} {
		if got := TypeName(oid); got != want {
			t.Errorf("TypeName(%d) = %q, want %q", oid, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, v := range served() {
		f.Add(v.oid, int16(FormatBinary), v.bytes(f))
	}
	f.Add(uint32(1007), int16(0), []byte("{1}"))
	f.Fuzz(func(t *testing.T, oid uint32, format int16, raw []byte) {
		before := bytes.Clone(raw)
		s := Text(oid, format, raw)
		if !utf8.ValidString(s) {
			t.Errorf("Text(%d, %d, %x) = %q is not UTF-8", oid, format, raw, s)
		}
		if !bytes.Equal(before, raw) {
			t.Errorf("Text(%d, %d, %x) changed its input", oid, format, before)
		}
	})
}

func BenchmarkText(b *testing.B) {
	for _, v := range []struct {
		name string
		oid  uint32
		hex  string
	}{{"int4", 23, "0000002a"}, {"timestamptz", 1184, "0002ffcff6f2a680"}, {"numeric", 1700, "000200000000000200011388"}, {"text", 25, "68656c6c6f"}} {
		raw := servedValue{hex: v.hex}.bytes(b)
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Text(v.oid, FormatBinary, raw)
			}
		})
	}
}

func TestTypeNames(t *testing.T) {
	for oid := range uint32(10_100) {
		if got, ok := TypeOID(TypeName(oid)); !ok || got != oid {
			t.Errorf("TypeOID(%q) = %d, %t, want %d", TypeName(oid), got, ok, oid)
		}
	}
	if oid, ok := TypeOID("no such type"); ok {
		t.Errorf("TypeOID of an unknown name = %d", oid)
	}
}
