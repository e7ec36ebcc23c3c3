package query

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestIndexParam looks for parameters of all sorts: what an index cannot know
// must be found all the same, and what it knows without reading the rest.
func TestIndexParam(t *testing.T) {
	l := new(fakeLog)
	done := event.Leaf{Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
	typed := done
	typed.Types = []uint32{23}
	long, longer := strings.Repeat("x", maxParamText), strings.Repeat("y", maxParamText+1)
	execute := func(o event.Leaf, types []int, formats []int, params ...[]byte) int64 {
		i := l.admit(event.KindExecute, join(parseFrame("", "SELECT $1", types...), bindFrame("", "", formats, params...), executeFrame("", 0)))
		l.end(i, o, nil)
		return i
	}
	var at []int64 // of what is looked for, in bundles far from each other
	add := func(i int64) {
		at = append(at, i)
		for range 3 * 256 {
			execute(done, nil, nil, []byte(fmt.Sprint("other", len(l.entries))))
		}
	}
	add(execute(done, nil, nil, []byte("4711")))
	add(execute(done, []int{23}, []int{1}, be32(42)))
	add(execute(typed, nil, []int{1}, be32(43))) // its type is told behind it
	add(execute(done, nil, []int{1}, be32(44)))  // and never
	add(execute(done, nil, nil, []byte("a"), nil, []byte(long)))
	add(execute(done, nil, nil, []byte(longer)))
	add(execute(done, nil, nil, []byte("")))
	add(execute(done, nil, nil, bytes.Repeat([]byte("z"), maxParamRaw+1)))
	bind := l.admit(event.KindBind, join(parseFrame("", "SELECT $1"), bindFrame("p", "", nil, []byte("bound"))))
	l.end(bind, done, nil)
	for range 2 * 256 {
		execute(done, nil, nil, []byte("between"))
	}
	run := l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: event.Ref(bind)}, executeFrame("p", 0))
	l.end(run, done, nil)
	add(run)

	full := int64(len(l.entries)) / 256 * 256
	b := newIndexBuilder(l, 0)
	for i := range l.entries[:full] {
		if err := b.entry(&l.entries[i]); err != nil {
			t.Fatal(err)
		}
		if i%5000 == 0 { // as that of a journal file, which grows
			if _, err := b.encode(stamp{count: full}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	file, err := b.encode(stamp{count: full}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		param string
		at    int64 // -1: nowhere
		few   bool  // it is found without reading all
	}{
		{"4711", at[0], true},
		{"42", at[1], true},
		{"43", at[2], true},
		{`\x0000002c`, at[3], false},
		{"a", at[4], true},
		{long, at[4], true},
		{longer, at[5], false},
		{"", at[6], true},
		{strings.Repeat("z", maxParamRaw+1), at[7], false},
		{"bound", run, true},
		{"44", -1, true},
		{"nothing", -1, true},
	} {
		f := Filter{Param: &tt.param}
		found := l.searchBy(t, f, file, full)
		var want []int64
		if tt.at >= 0 {
			want = []int64{tt.at}
		}
		if !slices.Equal(found, want) {
			t.Errorf("parameter %.20q is found in %d, want %d", tt.param, found, want)
		}
		if few := l.reads.Load() < 256*12; few != tt.few {
			t.Errorf("parameter %.20q takes %d entries of %d, want few: %v", tt.param, l.reads.Load(), full, tt.few)
		}
	}
}

// TestIndexParamLayout looks up all of many pairs, in few bundles and in more
// than three bytes have room for; hardly a bundle may be named in vain.
func TestIndexParamLayout(t *testing.T) {
	for _, bundles := range []int64{1, 2, 256, 1030, 65536, 65537, 200_000} {
		for _, n := range []int{0, 1, 63, 64, 5_000} {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			b := newIndexBuilder(&fakeLog{}, 0)
			for i := range n {
				b.params = append(b.params, paramHash(fmt.Sprint(i%(n/2+1)))<<paramBundleBits|uint64(r.Int64N(bundles)))
				if r.IntN(1000) == 0 {
					b.sortedParams()
				}
			}
			all := slices.Clone(b.params)
			file, err := b.encode(stamp{count: bundles * 256}, nil)
			if err != nil {
				t.Fatal(err)
			}
			x, err := newIndex(bytes.NewReader(file), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			if size := layoutParams(x.params, bundles).size(x.params); size > int64(n)*4+int64(n)/10+8 || bundles <= 65536 && size > int64(n)*3+int64(n)/10+8 {
				t.Errorf("%d parameters in %d bundles take %d bytes", n, bundles, size)
			}
			for _, v := range all {
				set := newPlaces(bundles)
				if err := x.param(v>>paramBundleBits, set); err != nil || !set.has(int64(v&(1<<paramBundleBits-1))) {
					t.Fatalf("%d parameters in %d bundles: one is not found, %v", n, bundles, err)
				}
			}
			vain := 0
			for i := range 200 {
				set := newPlaces(bundles)
				if err := x.param(paramHash(fmt.Sprint("not there", i)), set); err != nil {
					t.Fatal(err)
				}
				for n := range bundles {
					if set.bits[n/64] != 0 && set.has(n) {
						vain++
					}
				}
			}
			if vain > 100 {
				t.Errorf("%d parameters in %d bundles: of 200 others, %d are found", n, bundles, vain)
			}
		}
	}
}

// TestIndexParamErased holds that once a value is erased, no index tells of its
// parameter or its text: not that of its segment, nor that of the journal file in use, which has a
// statement that runs what was bound in there; nor does one that grows bring it back.
func TestIndexParamErased(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 5 * time.Millisecond})
	done := event.Leaf{Session: 1, Kind: event.KindOutcome, Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
	end := func(of int64) int64 {
		o := done
		o.Of = event.Ref(of)
		return w.emit(o, nil)
	}
	fill := func(n int) (last int64) {
		for i := range n {
			last = end(w.emit(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice},
				join(parseFrame("", "SELECT $1"), bindFrame("", "", nil, []byte(fmt.Sprint("filler", i))), executeFrame("", 0))))
		}
		for w.Want(last); w.Durable() <= last; {
			time.Sleep(100 * time.Microsecond)
		}
		return last
	}
	bind := w.emit(event.Leaf{Session: 1, Kind: event.KindBind, Who: alice}, join(parseFrame("", "SELECT $1 AS secret"), bindFrame("p", "", nil, []byte("4711-0815"))))
	end(bind)
	run := func() {
		end(w.emit(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: event.Ref(bind)}, executeFrame("p", 0)))
	}
	fill(200)
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	fill(1)
	if err := w.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	run()
	fill(growBy/2 + 300)
	l := openLog(t, dir)
	index := func() {
		t.Helper()
		if err := l.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Index(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// told returns the indexes there are, and in how many of them the value is.
	told := func() (indexes, with int) {
		t.Helper()
		names, err := os.ReadDir(l.indexDir())
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, n := range names {
			first, _ := indexName(n.Name())
			x, f, err := l.openIndex(first)
			if err != nil {
				t.Fatal(err)
			}
			set := newPlaces(x.stamp.count / 256)
			if err := x.param(paramHash("4711-0815"), set); err != nil {
				t.Fatal(err)
			}
			row, err := x.rowOf("AS secret")
			if err != nil {
				t.Fatal(err)
			}
			value := slices.ContainsFunc(set.bits, func(b uint64) bool { return b != 0 })
			if text := slices.ContainsFunc(row, func(b byte) bool { return b != 0 }); text != value {
				t.Errorf("index of %d has the value: %v, the text: %v", first, value, text)
			}
			if value {
				with++
			}
			if indexes++; f.Close() != nil {
				t.Fatal("close")
			}
		}
		return indexes, with
	}
	index()
	if n, with := told(); n != 2 || with != 2 {
		t.Fatalf("%d of %d indexes have the value, want 2 of 2", with, n)
	}
	if a, err := w.Do(t.Context(), &ledger.Order{Kind: "erase", Entries: []int64{bind}}); err != nil || !a.OK {
		t.Fatalf("erase: %+v, %v", a, err)
	}
	if n, _ := told(); n != 0 {
		t.Errorf("there are %d indexes once it is erased", n)
	}
	index()
	if n, with := told(); n != 2 || with != 0 {
		t.Errorf("%d of %d new indexes have the value, want 0 of 2", with, n)
	}
	fill(growBy)
	index()
	if _, with := told(); with != 0 {
		t.Errorf("%d indexes have the value once the journal grew", with)
	}
	w.close()
}
