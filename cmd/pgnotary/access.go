package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/web"
)

const (
	// ownerToken is the file in the data directory with the token that whoever
	// can read that directory may use.
	ownerToken = "token"
	ownerName  = "owner"
)

// httpAccess is what the HTTP address asks of those who connect.
type httpAccess struct {
	certs  *config.Certificates // nil without TLS
	tokens atomic.Pointer[access.Tokens]
}

func (a *httpAccess) tls() *tls.Config {
	if a.certs == nil {
		return nil
	}
	return a.certs.ServerConfig()
}

// openAccess reads certificate and tokens for the HTTP address.
func (p *proxy) openAccess(s *settings) error {
	if s.HTTPTLSCert != "" {
		p.web.certs = new(config.Certificates)
		if err := p.web.certs.Load(s.HTTPTLSCert, s.HTTPTLSKey, ""); err != nil {
			return fmt.Errorf("http-tls-cert: %w", err)
		}
	}
	tokens, err := p.loadTokens(s)
	if err != nil {
		return err
	}
	p.web.tokens.Store(&tokens)
	if s.HTTPTokens == "" {
		return nil // only whoever can read the data directory
	}
	// Who came or went since the last stop shows when all are named.
	return p.recordTokens("tokens", access.Tokens(nil).Until(tokens).Added)
}

// reloadAccess is openAccess after a change. On an error all stays as it was.
func (p *proxy) reloadAccess(old, next *settings) error {
	if p.http == nil {
		return nil
	}
	if (old.HTTPTLSCert == "") != (next.HTTPTLSCert == "") {
		p.log.Warn("turning TLS of the HTTP address on or off needs a restart")
		next.HTTPTLSCert, next.HTTPTLSKey = old.HTTPTLSCert, old.HTTPTLSKey
	}
	tokens, err := p.loadTokens(next)
	if err != nil {
		return err
	}
	if p.web.certs != nil {
		if err := p.web.certs.Load(next.HTTPTLSCert, next.HTTPTLSKey, ""); err != nil {
			return fmt.Errorf("http-tls-cert: %w", err)
		}
	}
	// Said first: what somebody reads with a new token stands behind it in the log.
	if err := p.recordChange(p.web.tokens.Load().Until(tokens)); err != nil {
		return err
	}
	p.web.tokens.Store(&tokens)
	return nil
}

// maxTokensFact keeps a fact below what a leaf has room for.
const maxTokensFact = 500

// recordChange makes it entries who may read entries from now on, or no longer.
func (p *proxy) recordChange(d access.Difference) error {
	return errors.Join(
		p.recordTokens("tokens_added", d.Added), p.recordTokens("tokens_removed", d.Removed),
		p.recordTokens("tokens_renewed", d.Renewed), p.recordTokens("tokens_changed", d.Changed))
}

// recordTokens makes words about tokens a fact, in as many entries as it takes.
func (p *proxy) recordTokens(fact string, words []string) error {
	for len(words) > 0 {
		text, n := words[0], 1
		for ; n < len(words) && len(text)+1+len(words[n]) <= maxTokensFact; n++ {
			text += " " + words[n]
		}
		words = words[n:]
		facts := []event.Fact{{Key: "reason", Val: "tokens"}, {Key: fact, Val: text}}
		if _, err := p.ledger.Emit(&event.Leaf{Kind: event.KindConfig, Facts: facts}, nil); err != nil {
			return err
		}
	}
	return nil
}

// loadTokens reads the token file, or, if none is named, the token in the data
// directory, which is made if it is missing.
func (p *proxy) loadTokens(s *settings) (access.Tokens, error) {
	if s.HTTPTokens != "" {
		tokens, err := readTokens(s.HTTPTokens)
		if err != nil {
			return nil, fmt.Errorf("http-tokens: %w", err)
		}
		return tokens, nil
	}
	name := filepath.Join(p.ledger.Dir(), ownerToken)
	secret, err := durable.ReadFile(durable.OS, name, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		made, _, err := access.New(rand.Reader, ownerName, access.Investigator)
		if err != nil {
			return nil, err
		}
		if err := writeNew(name, []byte(made+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("make token: %w", err)
		}
		p.log.Info("token for reading entries over HTTP made", slog.String("file", name))
		secret = []byte(made)
	} else if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	text := strings.TrimSpace(string(secret))
	if len(text) < 40 {
		return nil, fmt.Errorf("%s holds no token: remove it, and a new one is made", name)
	}
	return access.Tokens{{Name: ownerName, Role: access.Investigator, Hash: access.Hash(text)}}, nil
}

// readTokens reads a token file, which nobody else may be able to write to.
func readTokens(name string) (access.Tokens, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s can be written to by others than its owner", name)
	}
	b, err := readFile(name, access.MaxFile)
	if err != nil {
		return nil, err
	}
	tokens, err := access.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return tokens, nil
}

// recordRead makes a look at entries an entry itself, and returns its index
// when it is durable.
func (p *proxy) recordRead(ctx context.Context, r web.Read) (int64, error) {
	l := event.Leaf{Kind: event.KindNotice, Who: &event.Who{Client: r.Client}}
	var value []byte
	if r.What == "" {
		l.Kind = event.KindViolation
		l.Facts = []event.Fact{{Key: "reason", Val: "http_token"}}
		if r.Suppressed > 0 {
			l.Facts = append(l.Facts, event.Fact{Key: "suppressed", Val: strconv.FormatInt(r.Suppressed, 10)})
		}
	} else {
		l.Facts = []event.Fact{{Key: event.FactRead, Val: r.What}, {Key: "reader", Val: r.Reader}, {Key: "role", Val: r.Role.String()}}
		value = []byte(r.Request)
	}
	index, err := p.ledger.Emit(&l, value)
	if err != nil {
		return 0, err
	}
	p.ledger.Want(index)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.ledger.Durable() <= index {
		if err := p.ledger.Err(); err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
	return index, nil
}
