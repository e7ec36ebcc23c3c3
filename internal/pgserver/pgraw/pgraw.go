// Package pgraw is a client that speaks PostgreSQL's protocol message by message: tests script
// dialogues with it that no driver would hold, legal ones and others, and
// benchmarks use it where a driver would cost more than what is measured.
// It checks nothing that the test does not ask for.
package pgraw

import (
	"bufio"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A Message is one message: its type byte and its body without the length word.
type Message struct {
	Type byte
	Body []byte
}

func (m Message) String() string { return fmt.Sprintf("%c %q", m.Type, m.Body) }

// A Conn is a connection. It is not safe for concurrent use, but one
// goroutine may send while another receives.
type Conn struct {
	net.Conn
	r   *bufio.Reader
	Pid uint32 // from BackendKeyData
	Key []byte
}

// New returns a Conn on an open connection.
func New(c net.Conn) *Conn { return &Conn{Conn: c, r: bufio.NewReaderSize(c, 64<<10)} }

// Dial connects and does nothing else.
func Dial(addr string) (*Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return New(c), nil
}

// Login connects and logs in, without a password or, asked for it, with that one.
func Login(addr, user, database, password string) (*Conn, error) {
	c, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	if err := c.Send(Startup(3<<16, "user", user, "database", database)); err != nil {
		return nil, errors.Join(err, c.Conn.Close())
	}
	for {
		m, err := c.Receive()
		if err != nil {
			return nil, errors.Join(err, c.Conn.Close())
		}
		switch m.Type {
		case 'R':
			err = c.answer(m.Body, user, password)
		case 'K':
			c.Pid, c.Key = binary.BigEndian.Uint32(m.Body), append([]byte(nil), m.Body[4:]...)
		case 'E':
			err = fmt.Errorf("log in: %s", Field(m.Body, 'M'))
		case 'Z':
			return c, nil
		}
		if err != nil {
			return nil, errors.Join(err, c.Conn.Close())
		}
	}
}

// answer answers a request for a password, clear or by MD5.
func (c *Conn) answer(request []byte, user, password string) error {
	switch kind := binary.BigEndian.Uint32(request); kind {
	case 0:
		return nil
	case 3:
		return c.Send(Msg('p', password, 0))
	case 5:
		inner := md5.Sum([]byte(password + user))
		outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), request[4:8]...))
		return c.Send(Msg('p', "md5"+hex.EncodeToString(outer[:]), 0))
	default:
		return fmt.Errorf("log in: the server asks for authentication %d", kind)
	}
}

// Send writes bytes as they are.
func (c *Conn) Send(packets ...[]byte) error {
	var all []byte
	if len(packets) == 1 {
		all = packets[0]
	} else {
		for _, p := range packets {
			all = append(all, p...)
		}
	}
	if _, err := c.Write(all); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Receive reads one message. Its body is the caller's.
func (c *Conn) Receive() (Message, error) {
	typ, n, err := c.header()
	if err != nil {
		return Message{}, err
	}
	m := Message{typ, make([]byte, n)}
	if _, err := io.ReadFull(c.r, m.Body); err != nil {
		return Message{}, fmt.Errorf("receive: %w", err)
	}
	return m, nil
}

func (c *Conn) header() (typ byte, n int, err error) {
	var h [5]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, 0, fmt.Errorf("receive: %w", err)
	}
	length := binary.BigEndian.Uint32(h[1:])
	if length < 4 {
		return 0, 0, fmt.Errorf("receive: message %q with length %d", h[0], length)
	}
	return h[0], int(length - 4), nil
}

// Until reads messages up to and including the first of that type.
func (c *Conn) Until(typ byte) ([]Message, error) {
	var all []Message
	for {
		m, err := c.Receive()
		if err != nil {
			return all, err
		}
		all = append(all, m)
		if m.Type == typ {
			return all, nil
		}
	}
}

// SkipTo reads messages up to and including the first of that type, and returns the bytes of
// all bodies, which it does not keep. An ErrorResponse ends it with an error.
func (c *Conn) SkipTo(until byte) (int64, error) {
	var total int64
	for {
		typ, n, err := c.header()
		if err != nil {
			return total, err
		}
		total += int64(n)
		if typ == 'E' {
			body := make([]byte, n)
			if _, err := io.ReadFull(c.r, body); err != nil {
				return total, fmt.Errorf("receive: %w", err)
			}
			return total, fmt.Errorf("server: %s", Field(body, 'M'))
		}
		if _, err := c.r.Discard(n); err != nil {
			return total, fmt.Errorf("receive: %w", err)
		}
		if typ == until {
			return total, nil
		}
	}
}

// Query runs a simple query and returns the messages up to ReadyForQuery, and
// an error if one of them was an ErrorResponse.
func (c *Conn) Query(sql string) ([]Message, error) {
	if err := c.Send(Query(sql)); err != nil {
		return nil, err
	}
	ms, err := c.Until('Z')
	for _, m := range ms {
		if m.Type == 'E' {
			err = errors.Join(err, fmt.Errorf("server: %s", Field(m.Body, 'M')))
		}
	}
	return ms, err
}

// Close says good-bye and closes the connection.
func (c *Conn) Close() error {
	_ = c.Send(Msg('X'))
	return c.Conn.Close()
}

// Field returns a field of an ErrorResponse or NoticeResponse: C is the
// SQLSTATE, M the message, S the severity, H the hint.
func Field(body []byte, code byte) string {
	for len(body) > 0 && body[0] != 0 {
		end := 1
		for end < len(body) && body[end] != 0 {
			end++
		}
		if body[0] == code {
			return string(body[1:end])
		}
		body = body[min(end+1, len(body)):]
	}
	return ""
}
