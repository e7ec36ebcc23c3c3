// Package sink sends the statements of a log to other systems: syslog over
// TLS, OpenTelemetry collectors, Kafka, NATS JetStream, any HTTP server.
//
//	query.Feed ─▶ Sink: format, batch ─▶ Target ─▶ receiver
//	    ▲                                   │
//	    └────────── cursor file ◀───────────┘ once the receiver has it
//
// A sink is a reader: it follows the log on the disk, at its own pace, and
// never makes capture wait. What it promises: every statement that its filter
// selects is sent, in the order of the log, at least once. The log itself is
// the buffer, so a receiver may be away for as long as the log is kept; what is
// pruned meanwhile is left out, and a diagnostic says so. After
// a fault something may be sent again: the index tells. A statement that takes
// longer than Hold is sent once without its end and once more with it.
//
// A record that is too large for the receiver, or that it refuses, is sent
// shortened and says so (fact truncated): the whole is in the log.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/export"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A Record is one statement on its way.
type Record struct {
	Index  int64
	Time   int64 // Unix nanoseconds
	Kind   event.Kind
	Ended  bool   // it is a statement whose end is known
	Failed bool   // it ended with an error, or is about a fault
	Body   []byte // in the sink's format, without the line feed
	short  *query.Statement
}

// A Target is a receiver. It is used by one goroutine.
type Target interface {
	// Send returns nil once the receiver has the records, as far as its protocol
	// tells. A *RejectedError says that the same records will never be taken,
	// any other error that they may be, later.
	Send(ctx context.Context, records []Record) error
	// Settle is how long after Send records may still get lost with the
	// connection, for protocols without acknowledgement.
	Settle() time.Duration
	Close() error
}

// A RejectedError is a receiver's refusal of records for what they are.
type RejectedError struct{ Why string }

func (e *RejectedError) Error() string { return "refused by the receiver: " + e.Why }

// A RetryError is a fault after which the receiver wants some time.
type RetryError struct {
	Err   error
	After time.Duration
}

func (e *RetryError) Error() string { return e.Err.Error() }
func (e *RetryError) Unwrap() error { return e.Err }

// Config says what to send where. All fields must be set but where a default is named.
type Config struct {
	Name      string // for diagnostics and metrics
	Log       *query.Log
	Target    Target
	Format    string // of package export
	Version   string // of the program
	Filter    query.Filter
	FromNow   bool          // a new sink begins at the log's end, not at its beginning
	MaxRecord int           // bytes; what is larger is sent shortened; default 256 KiB
	Hold      time.Duration // default 5 s
	Cursor    string        // file
	FS        durable.FS    // default durable.OS
	Logger    *slog.Logger
}

const (
	batchRecords = 500
	batchBytes   = 512 << 10
	saveEvery    = time.Second
	retryFirst   = time.Second
	retryMost    = 30 * time.Second
	remindEvery  = 5 * time.Minute // of a receiver that is away
	shortText    = 1 << 10         // bytes of a statement in a shortened record
)

// A Sink sends a log to one receiver.
type Sink struct {
	Config
	format    export.Format
	batch     []Record
	bytes     int
	delivered []position // sent and not yet settled, oldest first
	next      int64      // of what is in the batch
	saved     int64      // what the cursor file says
	savedAt   time.Time
	failing   time.Time // since when the receiver is away; zero if it is not
	told      time.Time // when a diagnostic said so last

	confirmed atomic.Int64 // entries before it need not be sent again
	sent      atomic.Uint64
	failures  atomic.Uint64
	shortened atomic.Uint64
	oldest    atomic.Pointer[entryTime] // see Numbers
}

// A position is how far the log was sent at some time.
type position struct {
	next int64
	at   time.Time
	sent bool // records, not only past what is not selected
}

// An entryTime is when an entry was recorded.
type entryTime struct {
	index int64
	time  time.Time
}

// cursor is the content of a cursor file.
type cursor struct {
	Origin string `json:"origin"`
	Next   int64  `json:"next"` // the first entry that was not sent
}

// maxCursor bounds a cursor file, in bytes.
const maxCursor = 4 << 10

// New prepares a sink and reads where it stood.
func New(c Config) (*Sink, error) {
	if c.MaxRecord <= 0 {
		c.MaxRecord = 256 << 10
	}
	if c.Hold <= 0 {
		c.Hold = 5 * time.Second
	}
	if c.FS == nil {
		c.FS = durable.OS
	}
	s := &Sink{Config: c}
	var err error
	if s.format, err = export.NewFormat(c.Format, c.Log.Origin(), c.Version); err != nil {
		return nil, err
	}
	size, err := c.Log.Size()
	if err != nil {
		return nil, err
	}
	b, err := durable.ReadFile(c.FS, c.Cursor, maxCursor)
	var at cursor
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if at.Next = c.Log.First(); c.FromNow {
			at.Next = size
		}
	case err != nil:
		return nil, fmt.Errorf("read cursor: %w", err)
	default:
		if err := json.Unmarshal(b, &at); err != nil || at.Next < 0 {
			return nil, fmt.Errorf("read cursor: %s is damaged; without it the sink begins anew", c.Cursor)
		}
		if at.Origin != c.Log.Origin() {
			return nil, fmt.Errorf("%s is of the log %s, not of %s", c.Cursor, at.Origin, c.Log.Origin())
		}
		if at.Next > size { // it would wait there, and send nothing meanwhile
			return nil, fmt.Errorf("%s says that everything before entry %d was sent, and the log has %d: somebody changed it, or the log was put back; without it the sink begins anew",
				c.Cursor, at.Next, size)
		}
	}
	s.saved = at.Next
	s.confirmed.Store(at.Next)
	return s, nil
}

// errAgain ends a feed that has to begin anew where everything is settled.
var errAgain = errors.New("send again from the last settled position")

// Run sends until ctx ends, which is no error. It returns an error only if the
// log cannot be read.
func (s *Sink) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.save(true), s.Target.Close()) }()
	for wait := retryFirst; ; {
		if next, first := s.confirmed.Load(), s.Log.First(); next < first {
			s.Logger.Error("entries were pruned before they were sent", slog.String("sink", s.Name), slog.Int64("from", next), slog.Int64("to", first))
			s.confirmed.Store(first)
		}
		s.batch, s.bytes, s.delivered, s.next = nil, 0, nil, s.confirmed.Load()
		before := s.sent.Load()
		err := s.Log.Feed(ctx, s.next, s.Hold, s.Filter, func(st *query.Statement, next int64) error {
			return s.take(ctx, st, next)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, fs.ErrNotExist) && s.confirmed.Load() < s.Log.First(): // see above
		case !errors.Is(err, errAgain):
			return fmt.Errorf("sink %s: %w", s.Name, err)
		}
		if s.sent.Load() > before {
			wait = retryFirst
		}
		if !sleep(ctx, wait) {
			return nil
		}
		wait = min(2*wait, retryMost)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// take puts a statement into the batch, and sends the batch when it is full or
// nothing came for a moment.
func (s *Sink) take(ctx context.Context, st *query.Statement, next int64) error {
	if st != nil {
		r, err := s.record(st)
		if err != nil {
			return err
		}
		s.batch = append(s.batch, r)
		s.bytes += len(r.Body)
	}
	s.next = next
	if st == nil || len(s.batch) >= batchRecords || s.bytes >= batchBytes {
		return s.flush(ctx)
	}
	return nil
}

// record makes the record of a statement, shortened if it would be too large.
func (s *Sink) record(st *query.Statement) (Record, error) {
	r := Record{
		Index: st.Index, Time: st.Time, Kind: st.Kind, Ended: st.Outcome != nil,
		Failed: st.SQLState() != "" || st.Kind == event.KindViolation || st.Kind == event.KindGap,
	}
	r.short = shorten(st)
	var body []byte
	var err error
	long := s.exceeds(st)
	if !long {
		body, err = s.format.Append(nil, st)
	}
	if err == nil && (long || len(body) > s.MaxRecord) {
		s.shortened.Add(1)
		if body, err = s.format.Append(nil, r.short); err == nil && len(body) > s.MaxRecord {
			body, err = s.format.Append(nil, bare(st))
		}
	}
	if err != nil {
		return r, fmt.Errorf("entry %d: %w", st.Index, err)
	}
	r.Body = body[:len(body)-1]
	if r.Body[len(r.Body)-1] == '\r' { // of CSV
		r.Body = r.Body[:len(r.Body)-1]
	}
	return r, nil
}

// exceeds reports that the record of st is too large in any format, without making it: that
// would take a multiple of the memory. An array as text may be smaller than as it was sent, but
// not by more than this.
func (s *Sink) exceeds(st *query.Statement) bool {
	size := len(st.Text)
	for i := range st.Params {
		size += len(st.Params[i].Raw) / 8
	}
	return size > s.MaxRecord
}

// shorten returns st with the beginning of its text and without parameters.
func shorten(st *query.Statement) *query.Statement {
	c := bare(st)
	if st.HasText {
		c.HasText = true
		c.Text = st.Text[:min(len(st.Text), shortText)]
		for len(c.Text) < len(st.Text) && c.Text != "" && st.Text[len(c.Text)]&0xc0 == 0x80 { // in the middle of a character
			c.Text = c.Text[:len(c.Text)-1]
		}
		c.Text = strings.Clone(c.Text) // which must not keep the rest in memory
	}
	return c
}

// bare returns what the leaves of st say, and that there is more.
func bare(st *query.Statement) *query.Statement {
	c := st.FactsOnly()
	if c.Outcome != nil {
		c.Outcome.Tags = slices.Clone(c.Outcome.Tags) // the reader uses their memory again
	}
	c.Facts = append(c.Facts[:len(c.Facts):len(c.Facts)], event.Fact{Key: "truncated", Val: "true"})
	return c
}

// flush sends the batch and moves the cursor. It returns only when the
// receiver has the batch, or with the error that ends this feed.
func (s *Sink) flush(ctx context.Context) error {
	send := len(s.batch) > 0
	if send {
		if err := s.deliver(ctx, s.batch); err != nil {
			return err
		}
		clear(s.batch)
		s.batch, s.bytes = s.batch[:0], 0
	}
	now := time.Now()
	if n := len(s.delivered); send || n == 0 || s.delivered[n-1].next != s.next {
		s.delivered = append(s.delivered, position{s.next, now, send})
	}
	settled := 0
	for settled < len(s.delivered) && now.Sub(s.delivered[settled].at) >= s.Target.Settle() {
		s.confirmed.Store(s.delivered[settled].next)
		if s.delivered[settled].sent {
			s.recovered(now)
		}
		settled++
	}
	s.delivered = append(s.delivered[:0], s.delivered[settled:]...)
	return s.save(false)
}

// deliver sends records, again and again if need be.
func (s *Sink) deliver(ctx context.Context, records []Record) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := s.Target.Send(ctx, records)
		if err == nil {
			s.sent.Add(uint64(len(records)))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, ok := errors.AsType[*RejectedError](err); ok {
			if len(records) > 1 { // which of them?
				for i := range records {
					if err := s.deliver(ctx, records[i:i+1]); err != nil {
						return err
					}
				}
				return nil
			}
			if r := &records[0]; r.short != nil {
				short, err := s.record(r.short)
				if err != nil {
					return err
				}
				s.shortened.Add(1)
				s.Logger.Warn("the receiver refused a record: it is sent shortened", slog.String("sink", s.Name), slog.Int64("index", r.Index))
				r.Body, r.short = short.Body, nil
				wait = retryFirst / 2
				continue
			}
		}
		s.failed(err)
		if s.Target.Settle() > 0 {
			return errAgain
		}
		pause := wait
		if retry, ok := errors.AsType[*RetryError](err); ok {
			pause = max(pause, min(retry.After, 2*retryMost))
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// failed and recovered write a diagnostic when a receiver goes, now and then while it is away,
// and when it has something again, not for each attempt.
func (s *Sink) failed(err error) {
	s.failures.Add(1)
	now := time.Now()
	if !s.failing.IsZero() && now.Sub(s.told) < remindEvery {
		return
	}
	s.told = now
	attrs := []slog.Attr{slog.String("sink", s.Name), slog.Any("error", err), slog.Int64("next", s.confirmed.Load())}
	if s.failing.IsZero() {
		s.failing = now
		s.Logger.LogAttrs(context.Background(), slog.LevelWarn, "sink cannot send: it goes on trying", attrs...)
		return
	}
	attrs = append(attrs, slog.Duration("elapsed", now.Sub(s.failing).Round(time.Second)))
	s.Logger.LogAttrs(context.Background(), slog.LevelWarn, "sink still cannot send: it goes on trying", attrs...)
}

func (s *Sink) recovered(now time.Time) {
	if !s.failing.IsZero() {
		s.Logger.Info("sink sends again", slog.String("sink", s.Name), slog.Duration("elapsed", now.Sub(s.failing).Round(time.Second)))
		s.failing = time.Time{}
	}
}

// save writes the cursor file, at most once a second unless it must.
func (s *Sink) save(must bool) error {
	next := s.confirmed.Load()
	if next == s.saved || !must && time.Since(s.savedAt) < saveEvery {
		return nil
	}
	b, err := json.Marshal(cursor{Origin: s.Log.Origin(), Next: next})
	if err == nil {
		err = durable.WriteFile(s.FS, s.Cursor, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("save cursor: %w", err)
	}
	s.saved, s.savedAt = next, time.Now()
	return nil
}

// Numbers are the counts of a sink.
type Numbers struct {
	Name      string
	Next      int64         // the first entry that is not known to be delivered
	Lag       int64         // entries of the log from there on
	Behind    time.Duration // age of that entry, 0 if there is none
	Sent      uint64        // records
	Failures  uint64        // attempts that failed
	Shortened uint64        // records
}

// Numbers may be called at any time.
func (s *Sink) Numbers() Numbers {
	n := Numbers{Name: s.Name, Next: s.confirmed.Load(), Sent: s.sent.Load(), Failures: s.failures.Load(), Shortened: s.shortened.Load()}
	if size, err := s.Log.Size(); err == nil {
		n.Lag = max(0, size-n.Next)
	}
	if n.Lag > 0 {
		n.Behind = s.behind(max(n.Next, s.Log.First()))
	}
	return n
}

// behind returns the age of an entry. It remembers the last one: it stays the same while a receiver is away.
func (s *Sink) behind(index int64) time.Duration {
	o := s.oldest.Load()
	if o == nil || o.index != index {
		at, err := s.Log.Time(index)
		if err != nil { // pruned this moment, or damaged, which Run says
			return 0
		}
		o = &entryTime{index, at}
		s.oldest.Store(o)
	}
	return max(0, time.Since(o.time))
}
