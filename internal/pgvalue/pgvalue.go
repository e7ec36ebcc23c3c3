// Package pgvalue turns parameter values, as they travel in Bind messages,
// into the text PostgreSQL would print for them. It serves readers only; on
// the way into the log values stay bytes.
//
// The scalar types clients send in binary are decoded here, arrays, ranges
// and records by walking their elements. What is not known is shown as
// hexadecimal behind \x, so no value is ever hidden and none is guessed at.
//
// All functions may be called concurrently, and never panic, whatever the
// bytes are.
package pgvalue

import (
	"encoding/hex"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgtype"
)

// Engine names the rules by which values become text. It changes when the text
// of any value does: indexes of parameters that were made before count no more.
const Engine = "pgvalue2"

// Format codes of the protocol.
const (
	FormatText   = 0
	FormatBinary = 1
)

const (
	// maxDepth bounds arrays of records of arrays ...; a message of a gigabyte
	// could nest them deeper than a stack allows.
	maxDepth = 16
	// maxGrowth bounds the text of a container to so many times its bytes (and
	// a mebibyte): ten bytes can be a number of 131,072 digits, and quoting
	// doubles with each level, so a small message could fill all memory.
	maxGrowth = 16
)

// nesting says where in containers a value is.
type nesting struct {
	depth int
	limit int                 // bytes the whole text may have
	text  func([]byte) string // decodes what is text in the client's encoding
}

func (n nesting) deeper() nesting {
	n.depth++
	return n
}

// Text returns the text form of a value that is not NULL, and came from a
// client that talks UTF-8: valid UTF-8, times with zone in UTC.
func Text(oid uint32, format int16, raw []byte) string {
	return TextFrom(validText, oid, format, raw)
}

// TextFrom is Text for a client with another encoding, which decode turns into
// valid UTF-8.
func TextFrom(decode func([]byte) string, oid uint32, format int16, raw []byte) string {
	switch format {
	case FormatText:
		return decode(raw)
	case FormatBinary:
		switch oid {
		case oidText, oidVarchar, oidBpchar, oidName, oidUnknown, oidJSON, oidXML, oidCString, oidRefcursor:
			return decode(raw)
		}
		buf := make([]byte, 0, 64)
		if out, ok := appendBinary(buf, oid, raw, nesting{limit: maxGrowth*len(raw) + 1<<20, text: decode}); ok {
			return validText(out)
		}
	}
	return string(appendHex(nil, raw))
}

// TypeName returns the name of a built-in type, such as int4 or timestamptz[],
// and the number itself for others, as the server prints an unknown regtype.
func TypeName(oid uint32) string {
	if t, ok := builtin()[oid]; ok {
		return t.name
	}
	return strconv.FormatUint(uint64(oid), 10)
}

// TypeOID returns the OID of the type that TypeName gives this name.
func TypeOID(name string) (oid uint32, ok bool) {
	if oid, ok := oids()[name]; ok {
		return oid, true
	}
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil
}

var oids = sync.OnceValue(func() map[string]uint32 {
	m := make(map[string]uint32)
	for oid, t := range builtin() {
		m[t.name] = oid
	}
	return m
})

type builtinType struct {
	name  string
	array bool
}

// builtin returns the types pgtype knows, by OID. Their OIDs lie below 10,000:
// those from 10,000 on are assigned by initdb and differ between servers.
var builtin = sync.OnceValue(func() map[uint32]builtinType {
	types := make(map[uint32]builtinType)
	m := pgtype.NewMap()
	for oid := uint32(1); oid < 10000; oid++ {
		t, ok := m.TypeForOID(oid)
		if !ok {
			continue
		}
		_, array := t.Codec.(*pgtype.ArrayCodec)
		name := t.Name
		if elem, ok := strings.CutPrefix(name, "_"); ok && array {
			name = elem + "[]"
		}
		types[oid] = builtinType{name, array}
	}
	for oid, name := range map[uint32]string{
		24: "regproc", 705: "unknown", 774: "macaddr8", 790: "money", 2202: "regprocedure", 2203: "regoper",
		2204: "regoperator", 2205: "regclass", 2206: "regtype", 3220: "pg_lsn", 4089: "regnamespace",
		4096: "regrole", 3734: "regconfig", 3769: "regdictionary", 3615: "tsquery", 2275: "cstring", 1790: "refcursor", 22: "int2vector", 30: "oidvector", 5069: "xid8",
	} {
		if _, ok := types[oid]; !ok {
			types[oid] = builtinType{name: name}
		}
	}
	return types
})

func validText(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func appendHex(dst, raw []byte) []byte {
	return hex.AppendEncode(append(dst, `\x`...), raw)
}
