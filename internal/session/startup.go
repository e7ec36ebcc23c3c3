package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// login is what is known of start-up and authentication.
type login struct {
	begun     bool // the connect entry is emitted
	done      bool // the first ReadyForQuery came
	told      bool // the auth entry is emitted
	asked     bool // the server waits for a p message
	binds     bool // the server offers channel binding
	accepted  bool // AuthenticationOk came
	full      bool // refused since the server has no connection left
	method    string
	mechanism string
	facts     []event.Fact // more about the login, for the auth entry
	unbound   string       // see Unbindable
	key       []byte       // body of BackendKeyData

	// A client newer than the proxy is answered with one
	// NegotiateProtocolVersion, the server's and ours in one.
	negotiate bool
	version   uint32   // forwarded
	refused   [][]byte // names of options that were not forwarded
}

// maxRefused is how many refused options the connect entry names.
const maxRefused = 4

// Start takes the StartupMessage, its length word included, and returns what
// to send to the server in its place. The result is valid for ever.
func (s *Session) Start(now int64, packet []byte) (fwd []byte, err error) {
	s.now = now
	s.who.Client = s.cfg.Client
	_, version, err := wire.First(packet)
	if err != nil {
		return nil, s.violate("08P01", "malformed start-up packet", nil)
	}
	if wire.Major(version) != 3 {
		return nil, s.violate("0A000", fmt.Sprintf("protocol version %d.%d is not supported, only 3.0 to 3.2",
			wire.Major(version), wire.Minor(version)), nil)
	}
	params, err := wire.StartupParams(packet)
	if err != nil {
		return nil, s.violate("08P01", "invalid start-up packet: the terminator is not its last byte", nil)
	}
	facts := append([]event.Fact(nil), s.cfg.Facts...)
	facts = append(facts, event.Fact{Key: "protocol", Val: strconv.Itoa(int(wire.Major(version))) + "." + strconv.Itoa(int(wire.Minor(version)))})
	facts = s.identify(params, facts)
	if s.cfg.Content != nil {
		s.results, s.copies = s.cfg.Content(s.who.User, s.who.Database)
	}

	fwd = bytes.Clone(packet)
	s.login.version = version
	kept := params[:0:0]
	for _, p := range params {
		if bytes.HasPrefix(p.Name, []byte("_pq_.")) {
			s.login.refused = append(s.login.refused, bytes.Clone(p.Name))
			continue
		}
		kept = append(kept, p)
	}
	if version > wire.Version32 || len(kept) < len(params) {
		s.login.negotiate = true
		s.login.version = min(version, wire.Version32)
		fwd = wire.AppendStartup(nil, s.login.version, kept)
	}

	for _, name := range s.login.refused[:min(len(s.login.refused), maxRefused)] { // the value has them all
		facts = append(facts, event.Fact{Key: "refused_option", Val: string(name[:min(len(name), maxFact)])})
	}
	l := s.entry(event.KindConnect)
	l.Who, l.Facts = &s.who, facts
	s.emit(packet)
	s.login.begun, s.cfg.Facts = true, nil // they are in the log
	s.queue.push(expect{typ: '0', index: -1, at: now})
	return fwd, s.err
}

// identify takes who is logging in from the parameters as a server would: the
// last of a name counts, and the database defaults to the user.
func (s *Session) identify(params []wire.Param, facts []event.Fact) []event.Fact {
	seen := make(map[string]bool)
	repeated := false
	var replication, options, encoding []byte
	for _, p := range params {
		switch name := string(p.Name); name {
		case "user":
			s.who.User = string(cut(p.Value))
		case "database":
			s.who.Database = string(cut(p.Value))
		case "application_name":
			s.who.Application = string(p.Value)
		case "replication":
			replication = p.Value
		case "options":
			options = p.Value
		case "client_encoding":
			encoding = p.Value
		}
		repeated = repeated || seen[string(p.Name)]
		seen[string(p.Name)] = true
	}
	if s.who.Database == "" {
		s.who.Database = s.who.User
	}
	switch string(bytes.ToLower(replication)) {
	case "", "f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0":
		replication = nil // any other spelling is true, or an error
	}
	for _, f := range []struct {
		key string
		val []byte
		max int
	}{{"replication", replication, maxFact}, {"options", options, 4 * maxFact}, {"client_encoding", encoding, maxFact}} {
		if len(f.val) > 0 {
			facts = append(facts, event.Fact{Key: f.key, Val: string(f.val[:min(len(f.val), f.max)])})
		}
	}
	if repeated {
		facts = append(facts, event.Fact{Key: "repeated_parameter", Val: "the last one counts"})
	}
	return facts
}

// authentication follows an Authentication message. body is what stands
// behind the header.
func (s *Session) authentication(body []byte) {
	if len(body) < 4 {
		return
	}
	lg := &s.login
	code := int(binary.BigEndian.Uint32(body))
	lg.asked = code != 0 && code != 12
	switch method := methods[code]; {
	case code == 0:
		lg.accepted = true
		if lg.method == "" {
			lg.method = "trust" // or a method without a message: peer, ident, cert
		}
	case method != "":
		lg.method, lg.binds = method, bytes.Contains(body, []byte("-PLUS\x00"))
	case code != 8 && code != 11 && code != 12: // these are further steps
		lg.method = "code " + strconv.Itoa(code)
	}
}

// methods are the codes of Authentication messages that begin one.
var methods = map[int]string{3: "password", 5: "md5", 7: "gss", 9: "sspi", 10: "sasl"}

// saslBegun reads the mechanism a client chose, and what it says of channel
// binding, from its SASLInitialResponse; the rest of it is a secret.
func (s *Session) saslBegun(body []byte) error {
	lg := &s.login
	if lg.method != "sasl" || lg.mechanism != "" {
		return nil
	}
	name, rest, ok := wire.CString(body)
	if !ok || len(name) > maxFact {
		name = []byte("unknown")
	}
	lg.mechanism = string(name)
	if len(rest) < 6 || !bytes.HasPrefix(name, []byte("SCRAM-")) {
		return nil
	}
	binding := "none"
	switch flag, _, _ := bytes.Cut(rest[4:], []byte(",")); {
	case string(flag) == "y":
		binding = "not offered"
	case bytes.HasPrefix(flag, []byte("p=")):
		binding = string(flag[2:min(len(flag), maxFact)])
	}
	s.LoginFact("channel_binding", binding)
	if binding != "none" && lg.binds && lg.unbound != "" {
		return s.Refuse(s.now, "28000", "channel binding cannot work here: this connection and the server's have different certificates", lg.unbound)
	}
	return nil
}

// Unbindable has a SCRAM login refused, with this hint, if the server offers channel binding and the client's message
// depends on the certificate it sees: the server would take the proxy's for an attacker's.
func (s *Session) Unbindable(hint string) { s.login.unbound = hint }

// LoginFact adds a fact to the auth entry, if it is yet to come.
func (s *Session) LoginFact(key, val string) {
	s.login.facts = append(s.login.facts, event.Fact{Key: key, Val: val})
}

// User returns the name the client logs in with.
func (s *Session) User() string { return s.who.User }

// Refuse ends a login that the proxy does not let through. The error is a *Violation, or that of the log.
func (s *Session) Refuse(now int64, code, message, hint string) error {
	s.now = max(s.now, now)
	s.LoginFact("reason", message)
	s.loginEnded("refused", []byte(code), nil)
	if s.err != nil {
		return s.err
	}
	s.phase = phaseDead
	return &Violation{Code: code, Message: message, Hint: hint}
}

// loginEnded emits the auth entry. frame is the ErrorResponse of a failure.
func (s *Session) loginEnded(result string, sqlstate, frame []byte) {
	lg := &s.login
	if lg.told {
		return
	}
	lg.told = true
	l := s.entry(event.KindAuth)
	l.Who = &s.who
	l.Msgs = s.server.takeLetters()
	l.SQLState = string(sqlstate)
	if lg.method != "" {
		l.Facts = append(l.Facts, event.Fact{Key: "method", Val: lg.method})
	}
	if lg.mechanism != "" {
		l.Facts = append(l.Facts, event.Fact{Key: "mechanism", Val: lg.mechanism})
	}
	l.Facts, lg.facts = append(l.Facts, lg.facts...), nil
	l.Facts = append(l.Facts, event.Fact{Key: "result", Val: result})
	l.Facts = append(l.Facts, s.work.cur.facts...) // what the server told
	s.emit(frame)
}

// negotiated returns the NegotiateProtocolVersion for the client: ours, and
// the server's if it sent one.
func (s *Session) negotiated(body []byte) []byte {
	version, refused := s.login.version, s.login.refused
	if len(body) >= 8 {
		version = min(version, binary.BigEndian.Uint32(body))
		for rest := body[8:]; len(rest) > 0; {
			name, after, ok := wire.CString(rest)
			if !ok {
				break
			}
			refused = append(refused, name)
			rest = after
		}
	}
	s.login.negotiate = false
	return wire.AppendNegotiate(nil, version, refused)
}
