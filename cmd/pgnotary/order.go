package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// order has the writer of a log carry something out: the process that has the
// log open, or, if none has, this one. If ctx ends first the order stays, and
// is carried out all the same.
func order(ctx context.Context, dir string, o *ledger.Order) (*ledger.Answer, error) {
	if _, err := os.Stat(filepath.Join(dir, "log.json")); err != nil {
		return nil, fmt.Errorf("%s is not a data directory: %w", dir, err)
	}
	if o.By == "" {
		o.By = whoAmI()
	}
	dir, err := asOwner(dir)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	requests := filepath.Join(dir, "request")
	if err := durable.MkdirAll(durable.OS, requests, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(requests, fmt.Sprintf("%d-%s", time.Now().UnixNano(), hex.EncodeToString(id[:])))
	if err := durable.WriteFile(durable.OS, name+".json", b, 0o600); err != nil {
		return nil, err
	}
	a, err := carriedOut(ctx, dir, name)
	if err != nil && ctx.Err() != nil {
		return nil, withHint(fmt.Errorf("not finished: %w", err), "the order is request/%s.json in the data directory; the writer of the log carries it out", filepath.Base(name))
	}
	return a, err
}

// carriedOut waits for the answer to an order. If nobody writes the log, and it
// has no witnesses, it does that itself in the meantime.
func carriedOut(ctx context.Context, dir, name string) (*ledger.Answer, error) {
	for {
		if used, err := durable.OS.Locked(filepath.Join(dir, "LOCK")); err != nil {
			return nil, err
		} else if used {
			if a, err := answer(ctx, name, time.Second); a != nil || err != nil {
				return a, err
			}
			continue
		}
		// Whether this is the newest state of the log, and what may go, is for its
		// witnesses to say, and only its writer knows whom to ask.
		if _, err := os.Stat(filepath.Join(dir, "witnessed")); err == nil {
			return nil, withHint(errors.New("nobody writes the log, and it has witnesses: nothing is done before they were asked"),
				"start its writer: the order is request/%s.json in the data directory, and it carries it out", filepath.Base(name))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		l, err := ledger.Open(ledger.Config{Dir: dir, Version: version()})
		if errors.Is(err, durable.ErrLocked) { // somebody else begins to, or does though the file says otherwise
			if a, err := answer(ctx, name, time.Second); a != nil || err != nil {
				return a, err
			}
			continue
		} else if err != nil {
			return nil, err
		}
		// If another has answered in the meantime, it is there at once.
		a, err := answer(ctx, name, 24*time.Hour)
		if err == nil && a == nil {
			err = errors.New("it takes more than a day")
		}
		return a, errors.Join(err, l.Close())
	}
}

// maxAnswer bounds the file of an answer, in bytes.
const maxAnswer = 1 << 20

// answer waits for the answer, takes it and returns it; nil if none came in time.
func answer(ctx context.Context, name string, patience time.Duration) (*ledger.Answer, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		b, err := durable.ReadFile(durable.OS, name+".done", maxAnswer)
		if err == nil {
			var a ledger.Answer
			if err := json.Unmarshal(b, &a); err != nil {
				return nil, fmt.Errorf("read %s.done: %w", name, err)
			}
			return &a, os.Remove(name + ".done")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil, nil
}

// whoAmI names who gives an order: the user of this process and its machine.
func whoAmI() string {
	name := fmt.Sprint("uid ", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
