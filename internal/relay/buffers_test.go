package relay

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestQueue holds a queue to a list of runs of bytes.
func TestQueue(t *testing.T) {
	type run struct {
		b    []byte
		gate int64
	}
	rapid.Check(t, func(t *rapid.T) {
		var pool queuePool
		var m Metrics
		q := pool.get()
		var model []run
		durable := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"hold": func(t *rapid.T) {
				b := rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "b")
				gate := durable + rapid.Int64Range(-2, 5).Draw(t, "gate")
				q.hold(b, gate, 0, true)
				if n := len(model); n > 0 {
					gate = max(gate, model[n-1].gate)
				}
				model = append(model, run{b, gate})
			},
			"release": func(t *rapid.T) {
				durable += rapid.Int64Range(0, 3).Draw(t, "more")
				var want []byte
				for len(model) > 0 && model[0].gate < durable {
					want = append(want, model[0].b...)
					model = model[1:]
				}
				if got, _ := q.release(durable, &m, 0); !bytes.Equal(got, want) {
					t.Fatalf("released %d bytes, want %d", len(got), len(want))
				}
				if q.len() == 0 {
					pool.put(q)
					q = pool.get()
				}
			},
			"": func(t *rapid.T) {
				n := 0
				for _, r := range model {
					n += len(r.b)
				}
				if q.len() != n {
					t.Fatalf("holds %d bytes, want %d", q.len(), n)
				}
			},
		})
	})
}

// TestFIFO pushes and pops across many growths.
func TestFIFO(t *testing.T) {
	var f fifo
	in, out := int64(0), int64(0)
	for round := range 500 {
		for range round % 97 {
			f.push(waiting{gate: in})
			in++
		}
		for range round % 89 {
			w, ok := f.pop(in)
			if ok != (out < in) || ok && w.gate != out {
				t.Fatalf("popped %d, %v, want %d", w.gate, ok, out)
			}
			if ok {
				out++
			}
		}
	}
	if w, ok := f.pop(out); ok {
		t.Errorf("popped %d, whose entry is not durable", w.gate)
	}
	if f.gate() != out {
		t.Errorf("first gate %d, want %d", f.gate(), out)
	}
}
