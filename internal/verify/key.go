package verify

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/pgnotary/pgnotary/internal/event"
)

// keyring is the keys of a log in the order they were in force: that of
// log.json, and those that took its place (docs/format/checkpoint.md).
type keyring struct {
	vkeys   []string
	lines   []string // lines[i] is how vkeys[i] named vkeys[i+1]
	retired []int64  // the entry about that, -1 if none was seen
	used    []use
	alarms  map[string]int64 // evidence that an entry tells of, to that entry
}

// use is a checkpoint that one of the keys signed.
type use struct {
	name string
	size int64
	key  int
}

// parseSuccession takes the file apart and checks every signature in it.
func parseSuccession(b []byte, first string) (*keyring, error) {
	k := &keyring{vkeys: []string{first}, alarms: map[string]int64{}}
	if len(b) > maxSmall {
		return k, errors.New("is larger than any succession")
	}
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), " ")
		if len(f) != 3 {
			return k, errors.New("is malformed")
		}
		last := k.vkeys[len(k.vkeys)-1]
		text := []byte("pgnotary/succession@v1\n" + last + "\n" + f[0] + "\n")
		if _, err := note.NewVerifier(f[0]); err != nil || nameOf(f[0]) != nameOf(first) || slices.Contains(k.vkeys, f[0]) {
			return k, fmt.Errorf("names a key that is malformed, of another log, or was in force before: %.300q", f[0])
		}
		for i, vkey := range []string{last, f[0]} {
			sig, err := base64.StdEncoding.Strict().DecodeString(f[1+i])
			if err != nil || base64.StdEncoding.EncodeToString(sig) != f[1+i] || !ed25519.Verify(publicKey(vkey), text, sig) {
				return k, fmt.Errorf("has no valid signature of %s about the key %s", vkey, f[0])
			}
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			return k, errors.New("is cut")
		}
		k.vkeys, k.lines, k.retired = append(k.vkeys, f[0]), append(k.lines, strings.Join(f, " ")), append(k.retired, -1)
	}
	return k, nil
}

func nameOf(vkey string) string {
	name, _, _ := strings.Cut(vkey, "+")
	return name
}

// publicKey returns the key in a verifier key that note accepted.
func publicKey(vkey string) ed25519.PublicKey {
	p := strings.SplitN(vkey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(p[len(p)-1])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 1 {
		return make(ed25519.PublicKey, ed25519.PublicKeySize) // verifies nothing
	}
	return raw[1:]
}

// readKeys reads the succession of the data directory.
func (c *check) readKeys() error {
	b, err := readSmall(filepath.Join(c.dir, "succession"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.keysFrom("succession", b)
	return nil
}

// keysFrom sets the keys of the log: the one in force is the one to open
// checkpoints with.
func (c *check) keysFrom(name string, succession []byte) {
	if c.log.vkey == "" {
		c.keys = &keyring{vkeys: []string{""}, alarms: map[string]int64{}}
		return
	}
	var err error
	if c.keys, err = parseSuccession(succession, c.log.vkey); err != nil {
		c.find(name, "%v", err)
	}
}

// openSigned opens a checkpoint with the key in force, or one before it.
func (c *check) openSigned(name string, b []byte) (n signedNote, err error) {
	for i := len(c.keys.vkeys) - 1; i >= 0; i-- {
		opened, openErr := openNote(b, c.keys.vkeys[i])
		if openErr == nil {
			c.keys.used = append(c.keys.used, use{name, opened.size, i})
			return opened, nil
		}
		if err == nil {
			err = openErr
		}
	}
	return n, err
}

// isAbout looks at entries that tell of keys and alarms.
func (o *order) isAbout(e *entry) {
	l, err := event.Parse(e.leaf)
	if err != nil {
		return
	}
	facts := map[string]string{}
	for _, f := range l.Facts {
		facts[f.Key] = f.Val
	}
	switch {
	case l.Kind == event.KindViolation && strings.HasPrefix(facts["reason"], "witness_"):
		if hash := facts["evidence"]; hash != "" {
			o.keys.alarms[hash] = e.index
		}
	case l.Kind == event.KindConfig && facts["reason"] == "key_rotation":
		i := slices.Index(o.keys.lines, facts["successor"]+" "+facts["by_old"]+" "+facts["by_new"])
		if i < 0 {
			o.note("entry %d: it names a key that never came into force", e.index)
		} else {
			o.keys.retired[i] = e.index
		}
	}
}

// checkKeys is called after the last entry.
func (c *check) checkKeys() {
	for i, at := range c.keys.retired {
		if at < 0 && c.gap.start == 0 && c.dir != "" {
			c.find("succession", "no entry tells that %s took the place of %s", c.keys.vkeys[i+1], c.keys.vkeys[i])
		} else if at >= 0 {
			c.note("the key was changed by entry %d to %s", at, c.keys.vkeys[i+1])
		}
	}
	for _, u := range c.keys.used {
		// Up to that entry the old key was the right one; a crash behind it leaves such a checkpoint.
		switch {
		case u.key == len(c.keys.retired):
		case c.keys.retired[u.key] >= 0 && u.size > c.keys.retired[u.key]:
			c.find(u.name, "is signed with a key that entry %d replaced, and covers that entry: whoever has the old key made it", c.keys.retired[u.key])
		case c.keys.retired[u.key] < 0 && c.gap.start > 0 && u.size > c.gap.start: // that entry is one of those that were not read
			c.find(u.name, "is signed with a key that was replaced before entry %d, and covers that: whoever has the old key made it", c.gap.start)
		}
	}
	for hash, at := range c.keys.alarms {
		if c.dir != "" && !slices.Contains(c.files.evidence, "evidence/"+hash) {
			c.findAt(at, "evidence/"+hash, "is missing: this entry tells of it")
		}
	}
}
