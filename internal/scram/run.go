package scram

import (
	"encoding/binary"
	"io"
)

// A Host is the proxy around a Middle. What its methods return as an error ends Run.
type Host interface {
	// ToClient sends a message.
	ToClient(frame []byte) error
	// FromClient is told each message that comes, or only the header of one that is no
	// SASL message of a permitted length, and then has to return an error.
	FromClient(frame []byte) error
	// Verifier returns the verifier of the user, nil if there is none.
	Verifier() (*Verifier, error)
	// Found is told the mechanism used towards the server, whether there is a verifier, and
	// whether it is the server's.
	Found(mechanism string, found, fits bool)
}

// maxFrame bounds the length word of messages during a login, as PostgreSQL does.
const maxFrame = 65535

// The codes of Authentication messages.
const (
	authOK       = 0
	authSASL     = 10
	authContinue = 11
	authFinal    = 12
)

// Run reads the messages of both sides, not a byte more than it needs, until the server has spoken
// its verdict or it turns out that this is no login to be ended here. rest is then what the
// client is to be told next; all that follows passes unchanged. Where a connection ends or its time
// is up the error is nil too, and rest what came: reading on will show it. An error means that the login must end.
func (m *Middle) Run(client io.Reader, server io.ReadWriter, random io.Reader, h Host) (rest []byte, err error) {
	r := run{client: client, server: server, random: random, host: h}
	if err := m.steps(&r); err != nil && !r.over {
		return nil, err
	}
	return r.frame, nil
}

// A run is what Run keeps of a login.
type run struct {
	client io.Reader
	server io.ReadWriter
	random io.Reader
	host   Host
	frame  []byte // last message of the server, not passed on yet
	over   bool   // the login is not to be ended here, or no more
}

// handOver makes Run return without an error.
func (r *run) handOver() error { r.over = true; return ErrState }

// steps is the dialogue drawn at Middle.
func (m *Middle) steps(r *run) error {
	list, err := r.fromServer(authSASL)
	if err != nil {
		return err
	}
	ours, ok := m.Offer(list)
	if !ok {
		return r.handOver()
	}
	body, err := r.ask(authSASL, ours)
	if err != nil {
		return err
	}
	if body, err = m.ClientFirst(body, r.random); err != nil {
		return err
	}
	if body, err = r.answer(body, authContinue); err != nil {
		return err
	}
	v, err := r.host.Verifier()
	if err != nil {
		return err
	}
	body, fits, err := m.ServerFirst(body, v, r.random)
	if err != nil {
		return err
	}
	r.host.Found(m.client.Mechanism(), v != nil, fits)
	if body, err = r.ask(authContinue, body); err != nil {
		return err
	}
	if body, _, err = m.ClientFinal(body); err != nil {
		return err
	}
	if body, err = r.answer(body, authFinal); err != nil { // after a wrong proof: the server refuses
		return err
	}
	if body, err = m.ServerFinal(body); err != nil {
		return err
	}
	if _, err = r.fromServer(authOK); err != nil {
		return err
	}
	r.frame = append(authentication(authFinal, body), r.frame...)
	return nil
}

// authentication is an Authentication message.
func authentication(code uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, uint32(8+len(data)))
	return append(binary.BigEndian.AppendUint32(b, code), data...)
}

// ask sends an Authentication message to the client and returns what it answers.
func (r *run) ask(code uint32, data []byte) (body []byte, err error) {
	r.frame = nil
	if err := r.host.ToClient(authentication(code, data)); err != nil {
		return nil, err
	}
	frame, err := readFrame(r.client, func(typ byte) bool { return typ == 'p' })
	if err != nil {
		return nil, r.handOver()
	}
	if err := r.host.FromClient(frame); err != nil {
		return nil, err
	}
	if frame[0] != 'p' || len(frame) < 5 || len(frame) == 5 && binary.BigEndian.Uint32(frame[1:]) != 4 {
		return nil, ErrState
	}
	return frame[5:], nil
}

// answer sends a SASL message to the server and returns the data of what it answers.
func (r *run) answer(body []byte, code uint32) (data []byte, err error) {
	b := binary.BigEndian.AppendUint32([]byte{'p'}, uint32(4+len(body)))
	if _, err := r.server.Write(append(b, body...)); err != nil {
		return nil, r.handOver()
	}
	return r.fromServer(code)
}

// fromServer reads an Authentication message with that code and returns its data; the message itself
// is r.frame. Before the first there may be talk of protocol versions. An error of the server, or whatever
// stands in the place of the first, is not for us.
func (r *run) fromServer(code uint32) (data []byte, err error) {
	for {
		r.frame, err = readFrame(r.server, func(byte) bool { return true })
		switch f := r.frame; {
		case err != nil:
			return nil, r.handOver()
		case f[0] == 'v' && code == authSASL:
			if err := r.host.ToClient(f); err != nil {
				return nil, err
			}
		case f[0] == 'R' && len(f) >= 9 && binary.BigEndian.Uint32(f[5:]) == code:
			return f[9:], nil
		case code == authSASL || f[0] == 'E':
			return nil, r.handOver()
		default:
			return nil, ErrState
		}
	}
}

// readFrame reads one message and not a byte more, and of one that is not good or not of a permitted
// length only the header. On an error it returns what came.
func readFrame(c io.Reader, good func(typ byte) bool) ([]byte, error) {
	frame := make([]byte, 5, 256)
	n, err := io.ReadFull(c, frame)
	if err != nil {
		return frame[:n], err
	}
	length := binary.BigEndian.Uint32(frame[1:])
	if length < 4 || length > maxFrame || !good(frame[0]) {
		return frame, nil
	}
	frame = append(frame, make([]byte, length-4)...)
	n, err = io.ReadFull(c, frame[5:])
	return frame[:5+n], err
}
