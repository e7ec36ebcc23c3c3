package witness

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// maxProof is how many hashes a request may carry.
const maxProof = 63

// maxRequest bounds the body of a request, in bytes.
const maxRequest = maxProof*45 + 64 + checkpoint.MaxBytes

// maxSize bounds sizes, far beyond any log.
const maxSize = 1 << 60

// errRequest is returned for a body that is not of the form of the protocol.
var errRequest = errors.New("malformed add-checkpoint request")

// A request is the body of add-checkpoint.
type request struct {
	old        int64      // size the witness is thought to hold
	proof      [][32]byte // that the tree of that size is a prefix of the new one
	checkpoint []byte     // signed
}

// format returns the body:
//
//	old 20852014
//	PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
//	…
//
//	<signed checkpoint>
func (r *request) format() []byte {
	b := strconv.AppendInt([]byte("old "), r.old, 10)
	b = append(b, '\n')
	for i := range r.proof {
		b = append(base64.StdEncoding.AppendEncode(b, r.proof[i][:]), '\n')
	}
	b = append(b, '\n')
	return append(b, r.checkpoint...)
}

// parseRequest decodes a body; it accepts exactly what format writes. The
// checkpoint is not looked at.
func parseRequest(b []byte) (*request, error) {
	if len(b) > maxRequest {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", errRequest, len(b), maxRequest)
	}
	head, signed, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no empty line", errRequest)
	}
	lines := strings.Split(string(head), "\n")
	text, ok := strings.CutPrefix(lines[0], "old ")
	r := &request{checkpoint: signed}
	var err error
	if r.old, err = strconv.ParseInt(text, 10, 64); !ok || err != nil || r.old < 0 || r.old > maxSize {
		return nil, fmt.Errorf("%w: bad old size line %.80q", errRequest, lines[0])
	}
	if len(lines) > 1+maxProof {
		return nil, fmt.Errorf("%w: %d hashes, want at most %d", errRequest, len(lines)-1, maxProof)
	}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != sha256.Size {
			return nil, fmt.Errorf("%w: bad hash line %.80q", errRequest, l)
		}
		r.proof = append(r.proof, [32]byte(h))
	}
	if !bytes.Equal(r.format(), b) {
		return nil, fmt.Errorf("%w: not in canonical form", errRequest)
	}
	return r, nil
}

// OriginHash names a log in the monitoring part of the protocol and in the
// files of a witness: SHA-256 of its origin in hex.
func OriginHash(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}
