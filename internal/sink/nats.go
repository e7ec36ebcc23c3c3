package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSConfig says where to publish to.
type NATSConfig struct {
	Server   string // HOST:PORT
	Subject  string // a stream must have it
	TLS      *tls.Config
	User     string // logs in with Password, if set
	Password string
	Token    string // logs in, if set
	Origin   string // of the log
}

// natsHeaders is room for a message's headers, in bytes.
const natsHeaders = 1 << 10

// natsStream publishes records to a stream of NATS JetStream.
//
// A message is published with an id of its own (Nats-Msg-Id), so the server
// leaves out what it has had within its window for duplicates. All of a batch are
// on their way at once; each but the first names the one before it
// (Nats-Expected-Last-Msg-Id), so that none is stored if one in front was not.
type natsStream struct {
	NATSConfig
	conn   *nats.Conn
	js     jetstream.JetStream
	closed <-chan nats.Status // gets one when the connection ends
}

// NewNATS returns a target that publishes records to a subject of NATS
// JetStream; it has them once the stream has stored them. The headers
// Pgnotary-Origin and Pgnotary-Index tell what is in a message.
func NewNATS(c NATSConfig) Target { return &natsStream{NATSConfig: c} }

func (n *natsStream) Settle() time.Duration { return 0 }

func (n *natsStream) Close() error {
	if n.conn != nil {
		n.conn.Close()
		n.conn, n.js = nil, nil
	}
	return nil
}

func (n *natsStream) connect(ctx context.Context) error {
	if n.conn != nil && n.conn.IsConnected() {
		return nil
	}
	_ = n.Close() // returns nil
	opts := []nats.Option{
		nats.Name("pgnotary"), nats.NoReconnect(), nats.Timeout(dialTimeout),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // else it writes to standard error; Send returns errors
	}
	if n.TLS != nil {
		opts = append(opts, nats.Secure(n.TLS))
	}
	if n.User != "" {
		opts = append(opts, nats.UserInfo(n.User, n.Password))
	}
	if n.Token != "" {
		opts = append(opts, nats.Token(n.Token))
	}
	conn, err := dialNATS(ctx, "nats://"+n.Server, opts)
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*batchRecords))
	if err != nil {
		conn.Close()
		return err
	}
	n.conn, n.js, n.closed = conn, js, conn.StatusChanged(nats.CLOSED)
	return nil
}

// dialNATS connects, or gives up when ctx ends, which nats.Connect knows nothing of.
func dialNATS(ctx context.Context, url string, opts []nats.Option) (*nats.Conn, error) {
	type result struct {
		conn *nats.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() { // ends by its own time limit
		conn, err := nats.Connect(url, opts...)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (n *natsStream) Send(ctx context.Context, records []Record) error {
	if err := n.connect(ctx); err != nil {
		return err
	}
	for i := range records { // before others are sent
		if most := n.conn.MaxPayload() - natsHeaders; int64(len(records[i].Body)) > most {
			return &RejectedError{fmt.Sprintf("a record of %d bytes, the server takes %d", len(records[i].Body), most)}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	stored, err := n.atOnce(ctx, records)
	if _, ok := errors.AsType[*jetstream.APIError](err); ok {
		// Others may publish to the same stream, and then the one before is not ours.
		err = n.oneByOne(ctx, records[stored:])
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum {
		return &RejectedError{api.Error()}
	}
	if err != nil {
		return errors.Join(err, n.Close())
	}
	return nil
}

// atOnce publishes all records before it waits for the first to be stored. It
// returns how many were, from the first on.
func (n *natsStream) atOnce(ctx context.Context, records []Record) (stored int, err error) {
	pending := make([]jetstream.PubAckFuture, len(records))
	for i := range records {
		var opts []jetstream.PublishOpt
		if i > 0 {
			opts = append(opts, jetstream.WithExpectLastMsgID(n.id(&records[i-1])))
		}
		if pending[i], err = n.js.PublishMsgAsync(n.message(&records[i]), opts...); err != nil {
			return 0, err
		}
	}
	for i, p := range pending {
		select {
		case <-p.Ok():
		case err := <-p.Err():
			return i, err
		case <-n.closed:
			return i, nats.ErrConnectionClosed
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
	return len(records), nil
}

func (n *natsStream) oneByOne(ctx context.Context, records []Record) error {
	for i := range records {
		if _, err := n.js.PublishMsg(ctx, n.message(&records[i])); err != nil {
			return err
		}
	}
	return nil
}

func (n *natsStream) message(r *Record) *nats.Msg {
	m := nats.NewMsg(n.Subject)
	m.Data = r.Body
	m.Header.Set(nats.MsgIdHdr, n.id(r))
	m.Header.Set("Pgnotary-Origin", n.Origin)
	m.Header.Set("Pgnotary-Index", strconv.FormatInt(r.Index, 10))
	return m
}

// id is one for each record of all logs. A statement that is sent once more, with its end, has another.
func (n *natsStream) id(r *Record) string {
	id := n.Origin + "/" + strconv.FormatInt(r.Index, 10)
	if r.Ended {
		id += "/ended"
	}
	return id
}
