package ledger

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
)

// logFormat is the version of the data directory as a whole.
const logFormat = 1

// logInfo is log.json: what a log is. It is written once.
type logInfo struct {
	Format  int    `json:"format"`
	Origin  string `json:"origin"`
	VKey    string `json:"vkey"`
	Created string `json:"created"`
}

func (i *logInfo) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(i); err != nil {
		return nil, fmt.Errorf("encode log.json: %w", err)
	}
	return b.Bytes(), nil
}

// parseLogInfo accepts exactly what encode writes.
func parseLogInfo(b []byte) (i logInfo, err error) {
	if err := json.Unmarshal(b, &i); err != nil {
		return i, fmt.Errorf("log.json is damaged: %w", err)
	}
	if i.Format != logFormat {
		return i, fmt.Errorf("log.json: format %d is not known to this version, which knows %d", i.Format, logFormat)
	}
	if again, err := i.encode(); err != nil || !bytes.Equal(again, b) {
		return i, errors.New("log.json is damaged: it is not in the form it was written in")
	}
	return i, nil
}

func (l *Ledger) path(name string) string { return filepath.Join(l.cfg.Dir, name) }

// identify reads who this log is, or decides it if the directory is new. It
// returns the SHA-256 of log.json in hex.
func (l *Ledger) identify() (digest string, err error) {
	b, err := durable.ReadFile(l.cfg.FS, l.path("log.json"), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = l.found()
	}
	if err != nil {
		return "", fmt.Errorf("read log.json: %w", err)
	}
	if l.info, err = parseLogInfo(b); err != nil {
		return "", err
	}
	if l.cfg.Origin != "" && l.cfg.Origin != l.info.Origin {
		return "", fmt.Errorf("the log in %s is %q, not %q: a log keeps its origin; use another data directory for another log",
			l.cfg.Dir, l.info.Origin, l.cfg.Origin)
	}
	if err := l.loadKeys(); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// found makes key and log.json of a new log and returns the latter. A key
// that is there already, from keygen or from a start that died here, is used.
func (l *Ledger) found() (info []byte, err error) {
	for _, name := range []string{"journal", "segment", "blob"} {
		if names, err := l.cfg.FS.List(l.path(name)); err != nil || len(names) > 0 {
			return nil, errors.Join(fmt.Errorf("%s has a log without a log.json: put the file back", l.cfg.Dir), err)
		}
	}
	for _, name := range []string{"witnessed", "succession"} {
		if _, err := durable.ReadFile(l.cfg.FS, l.path(name), 1<<20); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("%s is of a log that is gone: put that back, or begin a new one elsewhere", l.path(name)), err)
		}
	}
	origin, key, err := l.foundKey()
	if err != nil {
		return nil, err
	}
	vkey, err := checkpoint.VKeyOf(origin, key)
	if err != nil {
		return nil, err
	}
	i := logInfo{Format: logFormat, Origin: origin, VKey: vkey, Created: time.Unix(0, l.cfg.Now()).UTC().Format("2006-01-02T15:04:05.000000000Z")}
	if info, err = i.encode(); err != nil {
		return nil, err
	}
	// One over nothing is of a start that died here.
	if b, err := durable.ReadFile(l.cfg.FS, l.path("checkpoint"), checkpoint.MaxBytes); !errors.Is(err, fs.ErrNotExist) {
		if c, _, perr := checkpoint.Parse(b); err != nil || perr != nil || c.Size > 0 {
			return nil, errors.Join(fmt.Errorf("%w: %s is of a log that is gone: put that back, or begin a new one elsewhere", ErrRolledBack, l.path("checkpoint")), err, perr)
		}
	}
	// If we die before this: as below. From log.json on, a checkpoint exists.
	if err := l.foundCheckpoint(key, i.Origin); err != nil {
		return nil, err
	}
	// If we die before this: the next start uses the key. Behind it: the log
	// exists and is empty.
	if err := durable.WriteFile(l.cfg.FS, l.path("log.json"), info, 0o600); err != nil {
		return nil, err
	}
	l.cfg.Logger.Info("made a new log", slog.String("data", l.cfg.Dir), slog.String("origin", i.Origin), slog.String("vkey", vkey))
	return info, nil
}

// foundKey returns the key of a new log and its origin: the one in the
// settings, the one that is in its file, or a new one.
func (l *Ledger) foundKey() (origin string, key crypto.Signer, err error) {
	if origin = l.cfg.Origin; origin == "" {
		if origin, err = defaultOrigin(l.cfg.Rand); err != nil {
			return "", nil, err
		}
	}
	if l.cfg.Key != nil {
		return origin, l.cfg.Key, nil
	}
	if named, key, err := l.readKey("key"); err != nil || key != nil {
		return named, key, err
	}
	skey, _, err := checkpoint.GenerateKey(l.cfg.Rand, origin)
	if err != nil {
		return "", nil, err
	}
	if err := durable.WriteFile(l.cfg.FS, l.path("key"), []byte(skey+"\n"), 0o600); err != nil {
		return "", nil, err
	}
	l.cfg.Logger.Info("made a signing key", slog.String("file", l.path("key")))
	return checkpoint.ParseLogKey(skey)
}

// foundCheckpoint signs the empty log.
func (l *Ledger) foundCheckpoint(key crypto.Signer, origin string) error {
	signer, err := checkpoint.SignerOf(origin, key)
	if err != nil {
		return err
	}
	signed, err := checkpoint.Sign(signer, origin, 0, sha256.Sum256(nil))
	if err != nil {
		return err
	}
	return durable.WriteFile(l.cfg.FS, l.path("checkpoint"), signed, 0o600)
}

// defaultOrigin returns a name no other log has: pgnotary/HOST/8 random hex digits.
func defaultOrigin(random io.Reader) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	host = strings.Map(func(r rune) rune {
		if r == '+' || r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, host)
	var b [4]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make an origin: %w", err)
	}
	return fmt.Sprintf("pgnotary/%.200s/%x", host, b), nil
}
