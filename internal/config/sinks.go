package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// A Sink says where to send what is recorded. A file of them has a table each:
//
//	[[sink]]
//	name   = "siem"
//	url    = "syslog+tls://siem.internal:6514"
//	format = "ocsf"
type Sink struct {
	// Name stands in metrics and is the name of the cursor's file: letters,
	// digits, '-' and '_'.
	Name string `toml:"name"`
	// URL is syslog+tls://HOST:PORT, syslog+tcp://HOST:PORT, otlp+https://HOST/v1/logs,
	// otlp+http://, kafka+tls://HOST:PORT,HOST:PORT/TOPIC, kafka+tcp://, nats+tls://HOST:PORT/SUBJECT,
	// nats+tcp://, or https:// or http:// for any server that takes a POST.
	URL string `toml:"url"`
	// Format is jsonl, csv or ocsf; empty means jsonl.
	Format string `toml:"format"`
	// Filter selects, in the form of a URL's query: kind=query,execute&user=alice.
	Filter string `toml:"filter"`
	// From is "start" or "now": where a sink begins that was not there before.
	From string `toml:"from"`
	// CA is a PEM file of authorities to trust instead of the system's; Cert and
	// Key are shown to the receiver.
	CA   string `toml:"ca"`
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	// TokenFile holds a bearer token or one of NATS, SecretFile what signs the bodies of a webhook.
	TokenFile  string `toml:"token-file"`
	SecretFile string `toml:"secret-file"`
	// User and the password in PasswordFile log in to Kafka or NATS; SASL is
	// Kafka's mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, which is the default.
	User         string `toml:"user"`
	PasswordFile string `toml:"password-file"`
	SASL         string `toml:"sasl"`
	// MaxRecord is the largest record that is sent whole; empty means 256KiB, for syslog 8KiB.
	MaxRecord Size `toml:"max-record"`
}

// ReadSinks reads and checks a file of sinks. It lists everything that is wrong.
func ReadSinks(path string) ([]Sink, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read sinks: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read sinks: %s is larger than 1 MiB", path)
	}
	var file struct {
		Sinks []Sink `toml:"sink"`
	}
	dec := toml.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, new(Config).fileErrors(path, data, err)[0]
	}
	var p problems
	seen := make(map[string]bool)
	for i := range file.Sinks {
		s := &file.Sinks[i]
		key := "sink " + s.Name
		if s.Format == "" {
			s.Format = "jsonl"
		}
		if s.From == "" {
			s.From = "start"
		}
		if seen[s.Name] {
			p.addf(key, "stands there twice")
		}
		seen[s.Name] = true
		s.validate(&p, key)
	}
	return file.Sinks, errors.Join(p...)
}

func (s *Sink) validate(p *problems, key string) {
	if s.Name == "" || len(s.Name) > 64 || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		p.addf(key, "needs a name of letters, digits, '-' and '_'")
	}
	s.validateURL(p, key)
	broker := strings.HasPrefix(s.URL, "kafka+") || strings.HasPrefix(s.URL, "nats+")
	switch {
	case (s.User == "") != (s.PasswordFile == ""):
		p.addf(key, "user and password-file belong together: only one of them is set")
	case s.User != "" && !broker:
		p.addf(key, "user is for kafka and nats: use token-file")
	case s.TokenFile != "" && (strings.HasPrefix(s.URL, "kafka+") || s.User != ""):
		p.addf(key, "token-file does not go with kafka, or with user")
	case s.SASL != "" && !strings.HasPrefix(s.URL, "kafka+"):
		p.addf(key, "sasl is for kafka")
	}
	if s.SASL == "" {
		s.SASL = "SCRAM-SHA-512"
	}
	p.oneOf(key+": sasl", s.SASL, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
	p.oneOf(key+": format", s.Format, "jsonl", "csv", "ocsf")
	p.oneOf(key+": from", s.From, "start", "now")
	if (s.Cert == "") != (s.Key == "") {
		p.addf(key, "cert and key belong together: only one of them is set")
	}
	if s.MaxRecord != 0 && (s.MaxRecord < 4<<10 || s.MaxRecord > 64<<20) {
		p.addf(key, "max-record %s is not between 4KiB and 64MiB", s.MaxRecord)
	}
}

func (s *Sink) validateURL(p *problems, key string) {
	protocol, hosts, name := s.Parts()
	for _, host := range hosts {
		if u, err := url.Parse("//" + host); err != nil || u.Host != host || u.Hostname() == "" || u.Port() == "" {
			p.addf(key, "url %q: %q is not HOST:PORT", s.URL, host)
		}
	}
	switch protocol {
	case "syslog+tls", "syslog+tcp":
		if len(hosts) != 1 || name != "" {
			p.addf(key, "url %q is not %s://HOST:PORT", s.URL, protocol)
		}
	case "kafka+tls", "kafka+tcp", "nats+tls", "nats+tcp":
		if len(hosts) != 1 && strings.HasPrefix(protocol, "nats") || name == "" || strings.ContainsAny(name, "/ \t*>?#%") {
			p.addf(key, "url %q is not %s://HOST:PORT/NAME, with the name of a topic or subject", s.URL, protocol)
		}
	case "":
		u, err := url.Parse(s.URL)
		if err != nil || u.Host == "" || !slices.Contains([]string{"otlp+https", "otlp+http", "https", "http"}, u.Scheme) {
			p.addf(key, "url %q is none of syslog+tls://, syslog+tcp://, otlp+https://, otlp+http://, kafka+tls://, kafka+tcp://, nats+tls://, nats+tcp://, https://, http://", s.URL)
		} else if u.User != nil {
			p.addf(key, "url has a password: use token-file")
		}
	}
}

// Parts takes the URL of a receiver that is not one of HTTP apart; protocol is
// empty for those that are. hosts are HOST:PORT once the file was checked.
func (s *Sink) Parts() (protocol string, hosts []string, name string) {
	protocol, rest, ok := strings.Cut(s.URL, "://")
	if !ok || !slices.Contains([]string{"syslog+tls", "syslog+tcp", "kafka+tls", "kafka+tcp", "nats+tls", "nats+tcp"}, protocol) {
		return "", nil, ""
	}
	rest, name, _ = strings.Cut(rest, "/")
	return protocol, strings.Split(rest, ","), name
}

// TLS returns the settings for connections to the receiver.
func (s *Sink) TLS() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", s.CA)
		}
	}
	if s.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", s.Cert, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
