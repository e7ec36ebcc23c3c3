package ledger

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
)

// RotationReason is the fact "reason" of the config entry by which a log gets
// another key.
const RotationReason = "key_rotation"

// readKey returns the private key in a file, nil if there is none.
func (l *Ledger) readKey(name string) (origin string, priv crypto.Signer, err error) {
	b, err := durable.ReadFile(l.cfg.FS, l.path(name), 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	} else if err != nil {
		return "", nil, fmt.Errorf("read the log's private key: %w", err)
	}
	if origin, priv, err = checkpoint.ParseLogKey(string(b)); err != nil {
		return "", nil, fmt.Errorf("read %s: %w", l.path(name), err)
	}
	return origin, priv, nil
}

// loadKeys finds the key in force, which is the last of the succession, and
// the one that is to take its place, if there is one. Whoever can write in the directory shall not
// name the successor of a key that is kept elsewhere: so that one is elsewhere too.
func (l *Ledger) loadKeys() error {
	b, err := durable.ReadFile(l.cfg.FS, l.path("succession"), checkpoint.MaxSuccession)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read succession: %w", err)
	}
	l.succession = b
	if l.vkeys, err = checkpoint.ParseSuccession(b, l.info.VKey); err != nil {
		return fmt.Errorf("%s has been altered: %w", l.path("succession"), err)
	}
	key, next := l.cfg.Key, l.cfg.NextKey
	if key == nil {
		if _, key, err = l.readKey("key"); err != nil {
			return err
		}
	}
	if next == nil && l.cfg.Key == nil {
		if _, next, err = l.readKey("key.next"); err != nil {
			return err
		}
	}
	for _, k := range []crypto.Signer{key, next} {
		if k == nil {
			continue
		}
		vkey, err := checkpoint.VKeyOf(l.info.Origin, k)
		if err != nil {
			return err
		}
		switch {
		case vkey == l.VKey():
			l.key = k
		case l.key != nil && slices.Contains(l.vkeys, vkey):
			return fmt.Errorf("the next key, %s, was in force before: whoever has it since could sign for the log again; make another", vkey)
		case l.key != nil: // the one in force came before: this is its successor
			l.nextKey = k
		}
	}
	if l.key == nil {
		return fmt.Errorf("the private key in %s, or that of the settings, is missing or is not that of the log, %s: put it back", l.path("key"), l.VKey())
	}
	l.signer, err = checkpoint.SignerOf(l.info.Origin, l.key)
	return err
}

// rotation returns the entry by which the next key takes the place of the
// present one, nil if none is to.
func (l *Ledger) rotation() (*event.Leaf, checkpoint.Successor, error) {
	if l.nextKey == nil {
		return nil, checkpoint.Successor{}, nil
	}
	s, err := checkpoint.NewSuccessor(l.info.Origin, l.key, l.nextKey)
	if err != nil {
		return nil, s, fmt.Errorf("name the next key: %w", err)
	}
	return &event.Leaf{Kind: event.KindConfig, Facts: []event.Fact{
		{Key: "reason", Val: RotationReason},
		{Key: "successor", Val: s.VKey},
		{Key: "by_old", Val: base64.StdEncoding.EncodeToString(s.ByOld)},
		{Key: "by_new", Val: base64.StdEncoding.EncodeToString(s.ByNew)},
	}}, s, nil
}

// succeed puts the next key into force. The entry about it is durable.
func (l *Ledger) succeed(s checkpoint.Successor) error {
	// If we die before this: the next start makes the entry again, with the
	// same signatures. Behind it: the next key is in force, and key.next is it.
	line := s.Format()
	if bytes.HasSuffix(l.succession, line) {
		line = nil
	}
	l.succession = append(bytes.Clone(l.succession), line...)
	if err := durable.WriteFile(l.cfg.FS, l.path("succession"), l.succession, 0o600); err != nil {
		return fmt.Errorf("write succession: %w", err)
	}
	l.vkeys = append(l.vkeys, s.VKey)
	l.key, l.nextKey = l.nextKey, nil
	var err error
	if l.signer, err = checkpoint.SignerOf(l.info.Origin, l.key); err != nil {
		return err
	}
	l.cfg.Logger.Warn("the log has another key: give it to its witnesses and to whoever verifies it",
		slog.String("vkey", l.VKey()), slog.String("before", l.vkeys[len(l.vkeys)-2]))
	return l.renameKey()
}

// renameKey puts the file of the key in force in its place: the old key is
// gone then.
func (l *Ledger) renameKey() error {
	_, next, err := l.readKey("key.next")
	if err != nil || next == nil {
		return err
	}
	vkey, err := checkpoint.VKeyOf(l.info.Origin, next)
	if err != nil || vkey != l.VKey() {
		return err
	}
	// If we die in here: the next start finds the key under one name or the other.
	if err := l.cfg.FS.Rename(l.path("key.next"), l.path("key")); err != nil {
		return fmt.Errorf("put the new key in its place: %w", err)
	}
	return l.cfg.FS.SyncDir(l.cfg.Dir)
}
