package relay

// A mark says up to where bytes of a queue wait for an entry.
type mark struct {
	end      int   // offset in queue.b behind the last byte
	gate     int64 // index of the entry that must be durable
	since    int64 // when the bytes came, Unix nanoseconds
	boundary bool  // behind the last byte is a message boundary
}

// A queue holds bytes on their way to one leg, in order. With marks they wait
// for entries, without they wait for the socket. A leg has a queue only while
// there are such bytes, so an idle session has none.
type queue struct {
	b     []byte
	off   int // bytes before it have left
	marks []mark
	first int // marks before it have left
}

func (q *queue) len() int { return len(q.b) - q.off }

// add appends bytes, moving the rest to the front when that avoids growing.
func (q *queue) add(p []byte) {
	if len(q.b)+len(p) > cap(q.b) && q.off > 0 {
		n := copy(q.b, q.b[q.off:])
		for i := q.first; i < len(q.marks); i++ {
			q.marks[i].end -= q.off
		}
		q.b, q.off = q.b[:n], 0
	}
	q.b = append(q.b, p...)
}

// hold appends bytes that wait for gate. It reports whether a mark was added;
// otherwise the last mark, whose gate is as late, was extended.
func (q *queue) hold(p []byte, gate, now int64, boundary bool) bool {
	q.add(p)
	if n := len(q.marks); n > q.first && q.marks[n-1].gate >= gate {
		q.marks[n-1].end, q.marks[n-1].boundary = len(q.b), boundary
		return false
	}
	if len(q.marks) == cap(q.marks) && q.first > 0 {
		n := copy(q.marks, q.marks[q.first:])
		q.marks, q.first = q.marks[:n], 0
	}
	q.marks = append(q.marks, mark{end: len(q.b), gate: gate, since: now, boundary: boundary})
	return true
}

// release returns the bytes whose entries are among the first durable ones,
// and the last mark among them; they alias the queue until the next add.
func (q *queue) release(durable int64, m *Metrics, now int64) (p []byte, last mark) {
	start := q.off
	for q.first < len(q.marks) && q.marks[q.first].gate < durable {
		last = q.marks[q.first]
		m.held(now - last.since)
		q.off = last.end
		q.first++
	}
	return q.b[start:q.off], last
}

// Bounds of what a loop keeps for the next session that needs it.
const (
	newQueue   = 2 << 10
	keepQueue  = 64 << 10
	keepQueues = 128
)

// A queuePool keeps the queues of one loop, so that a statement allocates
// nothing. It is not safe for concurrent use: each loop has its own.
type queuePool []*queue

func (f *queuePool) get() *queue {
	if n := len(*f); n > 0 {
		q := (*f)[n-1]
		*f = (*f)[:n-1]
		return q
	}
	return &queue{b: make([]byte, 0, newQueue), marks: make([]mark, 0, 4)}
}

// put takes a queue back and returns nil, to be stored where it was.
func (f *queuePool) put(q *queue) *queue {
	if q != nil && cap(q.b) <= keepQueue && len(*f) < keepQueues {
		q.b, q.off, q.marks, q.first = q.b[:0], 0, q.marks[:0], 0
		*f = append(*f, q)
	}
	return nil
}

// A waiting is a pair that has bytes held until gate is durable.
type waiting struct {
	p    *pair
	g    *leg
	gate int64
}

// A fifo is the waiting pairs in the order of their gates, but for a
// few that wait for an older entry behind newer ones; they leave in turn.
type fifo struct {
	w     []waiting
	first int // those before it have left
}

func (f *fifo) push(w waiting) {
	if len(f.w) == cap(f.w) && f.first > len(f.w)/2 {
		n := copy(f.w, f.w[f.first:])
		clear(f.w[n:])
		f.w, f.first = f.w[:n], 0
	}
	f.w = append(f.w, w)
}

// pop returns the first pair if its entry is among the first durable ones.
func (f *fifo) pop(durable int64) (w waiting, ok bool) {
	if f.first == len(f.w) || f.w[f.first].gate >= durable {
		return w, false
	}
	w, f.w[f.first] = f.w[f.first], waiting{}
	if f.first++; f.first == len(f.w) {
		f.w, f.first = f.w[:0], 0
	}
	return w, true
}

// gate is the entry the first pair waits for, -1 if none waits.
func (f *fifo) gate() int64 {
	if f.first == len(f.w) {
		return -1
	}
	return f.w[f.first].gate
}
