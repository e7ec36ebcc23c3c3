package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strings"
)

// evidence reads what was kept of alarms (docs/format/checkpoint.md): each file
// has the SHA-256 of its content for a name. A checkpoint in it that the log
// signed goes on the list of roots to compare, so a second history shows.
func (c *check) evidence() {
	for _, rel := range c.files.evidence {
		b, err := readUpTo(filepath.Join(c.dir, filepath.FromSlash(rel)), maxEvidence)
		if err != nil {
			c.find(rel, "cannot be read: %v", err)
			continue
		}
		if sum := sha256.Sum256(b); "evidence/"+hex.EncodeToString(sum[:]) != rel {
			c.find(rel, "does not have the SHA-256 that is its name")
			continue
		}
		var e struct{ Kind, Witness, Theirs string }
		if err := json.Unmarshal(b, &e); err != nil {
			c.find(rel, "is malformed: %v", err)
			continue
		}
		c.note("%s: an alarm was raised: witness %s did not agree with this log (%s)", rel, strings.ToValidUTF8(e.Witness, "?"), e.Kind)
		if e.Theirs == "" || c.log.vkey == "" {
			continue
		}
		n, err := c.openSigned(rel, []byte(e.Theirs))
		if err != nil {
			c.note("%s: the witness's checkpoint is not signed by this log, and proves nothing: %v", rel, err)
			continue
		}
		c.wanted = append(c.wanted, wanted{rel, n.size, n.root})
	}
	c.sortWanted()
}
