package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/sshagent"
)

// inAgent begins the name of a key that an ssh-agent holds.
const inAgent = "ssh-agent:"

// keys are the private keys that the settings name; nil ones are the ledger's to find.
type keys struct {
	now, next crypto.Signer
	origin    string // in the key file, empty if there is none
}

// openKeys opens them. It also sees to it that nobody else can read those in
// the data directory.
func openKeys(s *settings) (k keys, err error) {
	for _, name := range []string{"key", "key.next"} {
		if _, err := readKey(filepath.Join(s.Data, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	if k.origin, k.now, err = openKey(s.SigningKey); err != nil {
		return k, fmt.Errorf("signing-key: %w", err)
	}
	if _, k.next, err = openKey(s.NextSigningKey); err != nil {
		return k, fmt.Errorf("next-signing-key: %w", err)
	}
	return k, nil
}

// openKey opens a key by its name in the settings: a file that keygen wrote,
// or ssh-agent: and the fingerprint of a key in the agent at SSH_AUTH_SOCK.
func openKey(name string) (origin string, key crypto.Signer, err error) {
	if name == "" {
		return "", nil, nil
	}
	if fingerprint, ok := strings.CutPrefix(name, inAgent); ok {
		k, err := sshagent.Open(os.Getenv("SSH_AUTH_SOCK"), fingerprint)
		if err != nil {
			return "", nil, err
		}
		return "", k, nil
	}
	b, err := readKey(name)
	if err != nil {
		return "", nil, err
	}
	return checkpoint.ParseLogKey(string(b))
}

// nextVKey returns the verifier key of the key that is to come into force at
// this start, empty if there is none.
func (k *keys) nextVKey(dir, origin string) (string, error) {
	next := k.next
	if next == nil && k.now != nil {
		return "", nil // a key that is kept elsewhere has its successor elsewhere
	}
	if next == nil {
		b, err := readKey(filepath.Join(dir, "key.next"))
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		} else if err != nil {
			return "", err
		}
		if _, next, err = checkpoint.ParseLogKey(string(b)); err != nil {
			return "", err
		}
	}
	return checkpoint.VKeyOf(origin, next)
}
