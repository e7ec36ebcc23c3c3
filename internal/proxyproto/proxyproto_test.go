package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// header builds a header of a command byte, a family byte and the rest.
func header(command, family byte, rest ...[]byte) []byte {
	body := bytes.Join(rest, nil)
	b := append([]byte(signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func tlv(kind byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

// summed fills in the checksum, whose value is the last four bytes.
func summed(b []byte) []byte {
	at := len(b) - 4
	binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

var (
	v4   = []byte{192, 0, 2, 1, 198, 51, 100, 7, 0xc8, 0x38, 0x15, 0x38} // 192.0.2.1:51256 to 198.51.100.7:5432
	unix = append(append([]byte("/run/client"), make([]byte, 97)...), append([]byte("\x00abstract"), make([]byte, 99)...)...)
)

func v6(source, destination string) []byte {
	a, b := netip.MustParseAddr(source).As16(), netip.MustParseAddr(destination).As16()
	return append(append(a[:], b[:]...), 0xc8, 0x38, 0x15, 0x38)
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestParse(t *testing.T) {
	tls := tlv(tlvTLS, bytes.Join([][]byte{{7, 0, 0, 0, 0}, tlv(tlvTLSVersion, []byte("TLSv1.3")), tlv(tlvTLSCN, []byte("alice")), tlv(tlvTLSCipher, []byte("TLS_AES_128_GCM_SHA256")), tlv(0x24, []byte("SHA256"))}, nil))
	for _, row := range []struct {
		name   string
		header []byte
		want   Header
	}{
		{"IPv4", header(0x21, 0x11, v4), Header{Source: addr("192.0.2.1:51256"), Destination: addr("198.51.100.7:5432")}},
		{"IPv6", header(0x21, 0x21, v6("2001:db8::1", "2001:db8::2")), Header{Source: addr("[2001:db8::1]:51256"), Destination: addr("[2001:db8::2]:5432")}},
		{"IPv4 in IPv6", header(0x21, 0x21, v6("::ffff:192.0.2.1", "::ffff:198.51.100.7")), Header{Source: addr("192.0.2.1:51256"), Destination: addr("198.51.100.7:5432")}},
		{"Unix", header(0x21, 0x31, unix), Header{SourcePath: "/run/client", DestinationPath: "\x00abstract"}},
		{"unknown addresses", header(0x21, 0x00, tlv(tlvAuthority, []byte("db"))), Header{Authority: "db"}},
		{"local", header(0x20, 0x00), Header{Local: true}},
		{"local with anything", header(0x20, 0xff, []byte("what?")), Header{Local: true}},
		{"TLVs", header(0x21, 0x11, v4, tlv(tlvALPN, []byte("postgresql")), tlv(tlvUniqueID, []byte{1, 2}), tlv(0x04, make([]byte, 9)), tlv(0xea, nil)), Header{
			Source: addr("192.0.2.1:51256"), Destination: addr("198.51.100.7:5432"), ALPN: "postgresql", UniqueID: []byte{1, 2},
		}},
		{"TLS", header(0x21, 0x11, v4, tls), Header{
			Source: addr("192.0.2.1:51256"), Destination: addr("198.51.100.7:5432"),
			TLS: TLS{On: true, Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", ClientCert: true, ClientCertCN: "alice"},
		}},
		{"TLS, no certificate", header(0x21, 0x00, tlv(tlvTLS, []byte{1, 0, 0, 0, 0})), Header{TLS: TLS{On: true}}},
		{"TLS, bad certificate", header(0x21, 0x00, tlv(tlvTLS, []byte{7, 0, 0, 0, 1})), Header{TLS: TLS{On: true}}},
		{"no TLS", header(0x21, 0x00, tlv(tlvTLS, []byte{6, 0, 0, 0, 0})), Header{}},
		{"checksum", summed(header(0x21, 0x11, v4, tlv(tlvALPN, []byte("x")), tlv(tlvCRC32C, make([]byte, 4)))), Header{Source: addr("192.0.2.1:51256"), Destination: addr("198.51.100.7:5432"), ALPN: "x"}},
	} {
		got, err := Parse(row.header)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if diff := cmp.Diff(&row.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s: -want +got\n%s", row.name, diff)
		}
		stream := append(bytes.Clone(row.header), "next"...)
		r := iotest.OneByteReader(bytes.NewReader(stream))
		if h, err := Read(r); err != nil || !cmp.Equal(h, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("%s: Read = %+v, %v", row.name, h, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%s: Read left %q, want next", row.name, rest)
		}
		for n := range row.header {
			if _, err := Parse(row.header[:n]); err == nil {
				t.Errorf("%s: Parse of the first %d bytes succeeds", row.name, n)
			}
			if _, err := Read(bytes.NewReader(row.header[:n])); n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) || n == 0 && !errors.Is(err, io.EOF) {
				t.Errorf("%s: Read of the first %d bytes: %v", row.name, n, err)
			}
			if size, err := Size(row.header[:n]); err != nil || size != 0 && n < HeaderSize {
				t.Errorf("%s: Size of the first %d bytes = %d, %v", row.name, n, size, err)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	badSum := summed(header(0x21, 0x11, v4, tlv(tlvCRC32C, make([]byte, 4))))
	badSum[17] ^= 1
	for _, row := range []struct {
		name   string
		header []byte
		want   error
	}{
		{"nothing", nil, errIncomplete},
		{"version 1", []byte("PROXY TCP4 192.0.2.1 198.51.100.7 51256 5432\r\n"), ErrVersion1},
		{"SSLRequest", []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, ErrNoHeader},
		{"start-up packet", append([]byte{0, 0, 0, 16, 0, 3, 0, 0}, "user\x00a\x00\x00"...), ErrNoHeader},
		{"ClientHello", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0}, ErrNoHeader},
		{"almost the signature", append([]byte("\r\n\r\n\x00\r\nQUIT\r"), 0x21, 0x11, 0, 0), ErrNoHeader},
		{"version 3", header(0x31, 0x11, v4), ErrMalformed},
		{"command 2", header(0x22, 0x11, v4), ErrMalformed},
		{"family 4", header(0x21, 0x41, v4), ErrMalformed},
		{"datagram", header(0x21, 0x12, v4), ErrMalformed},
		{"IPv4 without transport", header(0x21, 0x10, v4), ErrMalformed},
		{"no family, but transport", header(0x21, 0x01, v4), ErrMalformed},
		{"short IPv4", header(0x21, 0x11, v4[:11]), ErrMalformed},
		{"short IPv6", header(0x21, 0x21, make([]byte, 35)), ErrMalformed},
		{"short Unix", header(0x21, 0x31, make([]byte, 215)), ErrMalformed},
		{"too long", header(0x21, 0x11, v4, make([]byte, MaxSize)), ErrTooLong},
		{"as long as it gets", header(0x20, 0x11, make([]byte, 65535)), ErrTooLong},
		{"half a TLV", header(0x21, 0x11, v4, []byte{1, 0}), ErrMalformed},
		{"TLV beyond the end", header(0x21, 0x11, v4, []byte{1, 0, 2, 'x'}), ErrMalformed},
		{"many TLVs", header(0x21, 0x11, v4, bytes.Repeat([]byte{0xee, 0, 0}, maxTLVs+1)), ErrMalformed},
		{"long unique id", header(0x21, 0x11, v4, tlv(tlvUniqueID, make([]byte, 129))), ErrMalformed},
		{"short checksum", header(0x21, 0x11, v4, tlv(tlvCRC32C, make([]byte, 3))), ErrMalformed},
		{"wrong checksum", badSum, ErrMalformed},
		{"short TLS", header(0x21, 0x11, v4, tlv(tlvTLS, make([]byte, 4))), ErrMalformed},
		{"TLS with a bad list", header(0x21, 0x11, v4, tlv(tlvTLS, []byte{1, 0, 0, 0, 0, tlvTLSCN, 0, 1})), ErrMalformed},
		{"bytes after it", append(header(0x21, 0x11, v4), 0), errIncomplete},
	} {
		if h, err := Parse(row.header); !errors.Is(err, row.want) {
			t.Errorf("%s: Parse = %+v, %v, want %v", row.name, h, err, row.want)
		}
		if errors.Is(row.want, errIncomplete) {
			continue
		}
		if h, err := Read(bytes.NewReader(row.header)); !errors.Is(err, row.want) {
			t.Errorf("%s: Read = %+v, %v, want %v", row.name, h, err, row.want)
		}
	}
}

// TestReadDoesNotWait holds that a peer that speaks PostgreSQL at once is refused at once, though it sent
// fewer bytes than a header has, and that a deadline ends a header that never ends.
func TestReadDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			sent string
			want error
		}{{"\x00\x00\x00\x08\x04\xd2\x16\x2f", ErrNoHeader}, {"PROXY", ErrVersion1}, {signature[:11], nil}} {
			near, far := net.Pipe()
			go near.Write([]byte(row.sent))
			far.SetReadDeadline(time.Now().Add(time.Second))
			_, err := Read(far)
			var timeout net.Error
			if row.want != nil && !errors.Is(err, row.want) || row.want == nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
				t.Errorf("after %q: %v, want %v", row.sent, err, row.want)
			}
			near.Close()
			far.Close()
		}
	})
}

func TestSources(t *testing.T) {
	s, err := ParseSources([]string{"10.1.2.3", "192.0.2.0/24", "fd00::/8", "::ffff:203.0.113.9"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.1.2.4": false, "192.0.2.255": true, "192.0.3.0": false,
		"fd12::1%eth0": true, "fe80::1": false, "203.0.113.9": true,
	} {
		if got := s.Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("Contains(%s) = %v, want %v", text, got, want)
		}
	}
	if Sources(nil).Contains(netip.MustParseAddr("10.1.2.3")) {
		t.Error("no source contains an address")
	}
	for _, text := range []string{"", "host", "10.1.2.3/33", "10.1.2.3/24", "10.1.2", "fe80::1%eth0/64"} {
		if _, err := ParseSources([]string{text}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("ParseSources(%q): %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(header(0x21, 0x11, v4))
	f.Add(header(0x21, 0x21, v6("2001:db8::1", "::1"), tlv(tlvTLS, append([]byte{7, 0, 0, 0, 0}, tlv(tlvTLSCN, []byte("a"))...))))
	f.Add(header(0x21, 0x31, unix, tlv(tlvUniqueID, []byte("id"))))
	f.Add(summed(header(0x21, 0x11, v4, tlv(tlvCRC32C, make([]byte, 4)))))
	f.Add(header(0x20, 0))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, sizeErr := Size(b)
		if size > MaxSize || size != 0 && size < HeaderSize {
			t.Fatalf("Size(%q) = %d", b, size)
		}
		h, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		if sizeErr != nil || size > len(b) {
			t.Fatalf("Read(%q) = %+v, but Size = %d, %v", b, h, size, sizeErr)
		}
		if h.Local {
			return
		}
		// The addresses encode as they were, but for IPv4 in IPv6 and bytes behind a path's end.
		at := b[HeaderSize:]
		switch source := h.Source.Addr(); {
		case source.Is4() && b[13] == 0x11:
			if a := source.As4(); !bytes.Equal(a[:], at[:4]) || binary.BigEndian.Uint16(at[8:]) != h.Source.Port() {
				t.Errorf("Read(%q) = %+v", b, h)
			}
		case source.Is6():
			if a := source.As16(); !bytes.Equal(a[:], at[:16]) || binary.BigEndian.Uint16(at[34:]) != h.Destination.Port() {
				t.Errorf("Read(%q) = %+v", b, h)
			}
		case !source.IsValid() && !bytes.HasPrefix(at, []byte(h.SourcePath)):
			t.Errorf("Read(%q) = %+v", b, h)
		}
	})
}
