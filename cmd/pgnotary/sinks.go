package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/sink"
	"github.com/pgnotary/pgnotary/internal/web"
)

const (
	// sinkDir has the cursors, in the data directory.
	sinkDir = "sink"
	// syslogRecord is what receivers take if nobody told them to take more.
	syslogRecord = 8 << 10
)

// sinks are what follows the log of a running proxy.
type sinks struct {
	all  []*sink.Sink
	stop context.CancelFunc
	done sync.WaitGroup
}

// openSinks prepares the sinks of the settings.
func (p *proxy) openSinks(s *settings) error {
	if s.Sinks == "" {
		return nil
	}
	list, err := config.ReadSinks(s.Sinks)
	if err != nil {
		return fileError(err)
	}
	dir := filepath.Join(p.ledger.Dir(), sinkDir)
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return fmt.Errorf("make directory of sinks: %w", err)
	}
	for i := range list {
		one, err := p.openSink(&list[i], dir)
		if err != nil {
			return fmt.Errorf("sink %s: %w", list[i].Name, err)
		}
		p.sinks.all = append(p.sinks.all, one)
	}
	return nil
}

// sinkFilter returns what selects the statements for a sink, which has no end.
func sinkFilter(c *config.Sink) (query.Filter, error) {
	words, err := url.ParseQuery(c.Filter)
	if err != nil {
		return query.Filter{}, fmt.Errorf("filter: %w", err)
	}
	f, err := query.ParseFilter(words, time.Now())
	if err != nil {
		return query.Filter{}, fmt.Errorf("filter: %w", err)
	}
	if f.Limit > 0 || f.End > 0 || !f.Until.IsZero() {
		return query.Filter{}, errors.New("filter: a sink goes on: it has no limit, until or to")
	}
	return f, nil
}

func (p *proxy) openSink(c *config.Sink, dir string) (*sink.Sink, error) {
	f, err := sinkFilter(c)
	if err != nil {
		return nil, err
	}
	target, err := p.sinkTarget(c)
	if err != nil {
		return nil, err
	}
	conf := sink.Config{
		Name: c.Name, Log: p.view, Target: target, Format: c.Format, Version: version(), Filter: f, FromNow: c.From == "now",
		MaxRecord: int(c.MaxRecord), Cursor: filepath.Join(dir, c.Name+".json"), Logger: p.log,
	}
	if conf.MaxRecord == 0 && strings.HasPrefix(c.URL, "syslog") {
		conf.MaxRecord = syslogRecord
	}
	return sink.New(conf)
}

func (p *proxy) sinkTarget(c *config.Sink) (sink.Target, error) {
	secure, err := c.TLS()
	if err != nil {
		return nil, err
	}
	protocol, hosts, name := c.Parts()
	if strings.HasSuffix(protocol, "+tcp") {
		secure = nil
	}
	token, err := secretOf(c.TokenFile)
	if err != nil {
		return nil, err
	}
	secret, err := secretOf(c.SecretFile)
	if err != nil {
		return nil, err
	}
	password, err := secretOf(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(protocol, "syslog"):
		host, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		return sink.NewSyslog(hosts[0], secure, host, version()), nil
	case strings.HasPrefix(protocol, "kafka"):
		return sink.NewKafka(sink.KafkaConfig{
			Brokers: hosts, Topic: name, TLS: secure, User: c.User, Password: password, Mechanism: c.SASL, Origin: p.ledger.Origin(),
		})
	case strings.HasPrefix(protocol, "nats"):
		return sink.NewNATS(sink.NATSConfig{
			Server: hosts[0], Subject: name, TLS: secure, User: c.User, Password: password, Token: token, Origin: p.ledger.Origin(),
		}), nil
	}
	h := sink.HTTPConfig{
		URL: strings.TrimPrefix(c.URL, "otlp+"), TLS: secure, Token: token, Secret: []byte(secret), Origin: p.ledger.Origin(), Format: c.Format,
	}
	if strings.HasPrefix(c.URL, "otlp+") {
		return sink.NewOTLP(h, version()), nil
	}
	return sink.NewWebhook(h), nil
}

// checkSecrets reports which secret of a sink cannot be read.
func checkSecrets(c *config.Sink) error {
	var err error
	for _, file := range []string{c.TokenFile, c.SecretFile, c.PasswordFile} {
		_, e := secretOf(file)
		err = errors.Join(err, e)
	}
	return err
}

// secretOf returns what a file holds, without space around it; nothing for no file.
func secretOf(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := readFile(file, 64<<10)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return s, nil
}

// indexEvery is how often sealed segments without an index are looked for.
const indexEvery = 5 * time.Second

// run sends until end, and makes the indexes that searches use. What fails here
// does not stop the proxy.
func (s *sinks) run(log *query.Log, logger *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Go(func() {
		for tick := time.NewTicker(indexEvery); ; {
			if err := log.Index(ctx); err != nil && ctx.Err() == nil {
				logger.Error("cannot index segments: searches read all of them", slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	for _, one := range s.all {
		s.done.Go(func() {
			if err := one.Run(ctx); err != nil {
				logger.Error("sink ended", slog.Any("error", err))
			}
		})
	}
}

// end stops all of it; sinks then know how far they came.
func (s *sinks) end() {
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
}

// numbers returns how far the sinks are.
func (s *sinks) numbers() []web.Sink {
	var all []web.Sink
	for _, one := range s.all {
		n := one.Numbers()
		all = append(all, web.Sink{
			Name: n.Name, Next: n.Next, Lag: n.Lag, Behind: n.Behind.Seconds(), Sent: n.Sent, Failures: n.Failures, Shortened: n.Shortened,
		})
	}
	return all
}
