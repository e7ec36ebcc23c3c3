// Package proxyproto reads the header that a load balancer puts in front of a connection to
// say where it really comes from: the PROXY protocol, version 2.
//
//	 0         signature   0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//	12         version, 4 bits: 2 | command, 4 bits: 0 LOCAL, 1 PROXY
//	13         family, 4 bits: 0 unspecified, 1 IPv4, 2 IPv6, 3 Unix | transport, 4 bits: 1 stream
//	14         length of the rest, 16 bits, big endian
//	16         addresses: source, destination, and their ports
//	           TLVs: type, 8 bits | length, 16 bits | value
//
// A header says what its sender likes, so it may be read only from a sender that is trusted; and then
// it must be there, because a sender that could leave it out could be anybody. Version 1, which
// is text, is refused by name. Datagrams are refused.
//
// The package does no I/O but through the io.Reader it is given.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// HeaderSize is the part of a header that tells the length of the rest.
const HeaderSize = 16

// MaxSize bounds a whole header. The addresses of Unix sockets take 216 bytes, usual TLVs, among
// them a client certificate's name, less than 1 KiB.
const MaxSize = 4096

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	maxTLVs   = 64 // in one list
)

// Errors of a header; the text says more.
var (
	ErrNoHeader   = errors.New("no PROXY protocol header")
	ErrVersion1   = errors.New("PROXY protocol version 1 is not supported: configure the load balancer to send version 2")
	ErrMalformed  = errors.New("malformed PROXY protocol header")
	ErrTooLong    = errors.New("PROXY protocol header is too long")
	errIncomplete = errors.New("PROXY protocol header is incomplete")
)

// A Header is what the load balancer says of a connection.
type Header struct {
	// Local says that the connection is the load balancer's own, such as a health check: the
	// addresses are those of the connection itself.
	Local bool
	// Source and Destination are the addresses of the client's connection. They are invalid if the load
	// balancer does not know them, and for Unix sockets.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are the addresses of a Unix socket, which are often empty.
	SourcePath, DestinationPath string
	// Authority is the host name the client asked for (SNI), ALPN the protocol agreed upon.
	Authority, ALPN string
	// UniqueID is the load balancer's name of the connection, at most 128 bytes.
	UniqueID []byte
	// TLS says that the client speaks TLS to the load balancer, and how.
	TLS TLS
}

// TLS is what the load balancer says of the client's TLS.
type TLS struct {
	On           bool
	Version      string // as "TLSv1.3"
	Cipher       string
	ClientCert   bool   // the client showed a certificate in this session, and it was verified
	ClientCertCN string // common name of its subject
}

// The types of TLVs.
const (
	tlvALPN      = 0x01
	tlvAuthority = 0x02
	tlvCRC32C    = 0x03
	tlvUniqueID  = 0x05
	tlvTLS       = 0x20

	tlvTLSVersion = 0x21
	tlvTLSCN      = 0x22
	tlvTLSCipher  = 0x23
)

// Size says how many bytes the header has, all included, of which b holds the first HeaderSize.
// It finds out as early as it can that b begins something else: pass it whatever is
// there, and if it returns 0 and no error there is too little to say.
func Size(b []byte) (int, error) {
	n := min(len(b), len(signature))
	switch {
	case string(b[:min(n, 5)]) == "PROXY"[:min(n, 5)] && n > 0:
		if n < 5 {
			return 0, nil
		}
		return 0, ErrVersion1
	case string(b[:n]) != signature[:n]:
		return 0, ErrNoHeader
	case len(b) > 12 && b[12]>>4 != 2:
		return 0, fmt.Errorf("%w: version %d", ErrMalformed, b[12]>>4)
	case len(b) < HeaderSize:
		return 0, nil
	}
	size := HeaderSize + int(binary.BigEndian.Uint16(b[14:]))
	if size > MaxSize {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLong, size)
	}
	return size, nil
}

// Parse reads a whole header, whose length Size told. What it returns shares no
// memory with b.
func Parse(b []byte) (*Header, error) {
	size, err := Size(b)
	if err != nil {
		return nil, err
	}
	if size == 0 || size != len(b) {
		return nil, errIncomplete
	}
	switch command := b[12] & 0x0f; command {
	case 0:
		return &Header{Local: true}, nil // the specification: accept, and skip the rest
	case 1:
	default:
		return nil, fmt.Errorf("%w: command %d", ErrMalformed, command)
	}
	var h Header
	rest, err := h.addresses(b[13], b[HeaderSize:])
	if err != nil {
		return nil, err
	}
	if err := h.tlvs(b, len(b)-len(rest)); err != nil {
		return nil, err
	}
	return &h, nil
}

// addresses reads the addresses at the front of b and returns the rest.
func (h *Header) addresses(kind byte, b []byte) ([]byte, error) {
	family, transport := kind>>4, kind&0x0f
	if transport > 1 || family > 3 || (transport == 0) != (family == 0) {
		return nil, fmt.Errorf("%w: family %d with transport %d", ErrMalformed, family, transport)
	}
	ip, path := 0, 0
	switch family {
	case 1:
		ip = 4
	case 2:
		ip = 16
	case 3:
		path = 108
	}
	size := 2 * path
	if ip > 0 {
		size = 2*ip + 4
	}
	if len(b) < size {
		return nil, fmt.Errorf("%w: %d bytes are no addresses of family %d", ErrMalformed, len(b), family)
	}
	if ip > 0 {
		h.Source = address(b[:ip], b[2*ip:])
		h.Destination = address(b[ip:2*ip], b[2*ip+2:])
	} else if path > 0 {
		h.SourcePath, h.DestinationPath = pathOf(b[:path]), pathOf(b[path:size])
	}
	return b[size:], nil
}

func address(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // of 4 or 16 bytes, which is always an address
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

func pathOf(b []byte) string {
	if len(b) > 0 && b[0] == 0 { // an abstract name, or none
		return string(bytes.TrimRight(b, "\x00"))
	}
	path, _, _ := bytes.Cut(b, []byte{0})
	return string(path)
}

// tlvs reads the list that begins at from and ends with the header b.
func (h *Header) tlvs(b []byte, from int) error {
	return each(b[from:], func(kind byte, value []byte, at int) error {
		switch kind {
		case tlvALPN:
			h.ALPN = string(value)
		case tlvAuthority:
			h.Authority = string(value)
		case tlvUniqueID:
			if len(value) > 128 {
				return fmt.Errorf("%w: unique id of %d bytes", ErrMalformed, len(value))
			}
			h.UniqueID = bytes.Clone(value)
		case tlvCRC32C:
			return checksum(b, from+at, len(value))
		case tlvTLS:
			return h.TLS.parse(value)
		}
		return nil // what nobody knows is to be skipped
	})
}

// each calls f for every TLV in b, with the place of the value.
func each(b []byte, f func(kind byte, value []byte, at int) error) error {
	n := 0
	for at := 0; at < len(b); n++ {
		rest := b[at:]
		if len(rest) < 3 || n == maxTLVs {
			return fmt.Errorf("%w: list of TLVs", ErrMalformed)
		}
		size := 3 + int(binary.BigEndian.Uint16(rest[1:]))
		if size > len(rest) {
			return fmt.Errorf("%w: TLV of type %#x is longer than the rest", ErrMalformed, rest[0])
		}
		if err := f(rest[0], rest[3:size], at+3); err != nil {
			return err
		}
		at += size
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum checks the CRC-32C at b[at:] over the header b, in which it counts as zeros itself.
func checksum(b []byte, at, size int) error {
	if size != 4 {
		return fmt.Errorf("%w: checksum of %d bytes", ErrMalformed, size)
	}
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	if sum != binary.BigEndian.Uint32(b[at:]) {
		return fmt.Errorf("%w: checksum does not match", ErrMalformed)
	}
	return nil
}

// parse reads the value of the TLV about TLS: flags, result of the verification, and TLVs.
func (t *TLS) parse(b []byte) error {
	if len(b) < 5 {
		return fmt.Errorf("%w: TLV about TLS of %d bytes", ErrMalformed, len(b))
	}
	const tls, certOnConnection, certInSession = 1, 2, 4
	flags, verified := b[0], binary.BigEndian.Uint32(b[1:]) == 0
	t.On = flags&tls != 0
	t.ClientCert = t.On && verified && flags&(certOnConnection|certInSession) != 0
	return each(b[5:], func(kind byte, value []byte, _ int) error {
		switch kind {
		case tlvTLSVersion:
			t.Version = string(value)
		case tlvTLSCipher:
			t.Cipher = string(value)
		case tlvTLSCN:
			t.ClientCertCN = string(value)
		}
		return nil
	})
}

// Read reads one header from r and not a byte more: what follows is the client's. r should have a
// deadline. An error of r is returned wrapped, io.EOF only if r ended before the first byte.
func Read(r io.Reader) (*Header, error) {
	var buf [HeaderSize]byte
	// The shortest other thing, PostgreSQL's SSLRequest, has 8 bytes: wait for no more than
	// it takes to tell.
	for _, part := range []struct{ from, to int }{{0, 5}, {5, HeaderSize}} {
		if n, err := io.ReadFull(r, buf[part.from:part.to]); err != nil {
			if part.from+n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read PROXY protocol header: %w", err)
		}
		if _, err := Size(buf[:part.to]); err != nil {
			return nil, err
		}
	}
	size, err := Size(buf[:])
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b[copy(b, buf[:]):]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read PROXY protocol header: %w", err)
	}
	return Parse(b)
}
