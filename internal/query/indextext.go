package query

import (
	"bytes"
	"hash/maphash"

	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// indexTexts remembers the terms of texts: by their shape, since most are those of
// a program with other literals, and by all they are, since many come again and again.
type indexTexts struct {
	seed   maphash.Seed
	recent []recentText // at the place that their hash says
	shapes map[string]*textTerms
	bytes  int // of the shapes
	shape  []byte
	grams  trigrams
}

// textTerms are where the terms of a text are.
type textTerms struct{ all []*postings }

type recentText struct {
	text   []byte
	terms  *textTerms
	bundle int64 // that has its trigrams
}

// recentTexts is how many texts are remembered as they are, and maxRecent how
// many bytes such a one has at most.
const (
	recentTexts = 1024
	maxRecent   = 4 << 10
)

// text adds the terms and trigrams of a text, valid UTF-8, that is in the entry at.
func (b *indexBuilder) text(at int64, text []byte) {
	x := &b.texts
	if x.recent == nil {
		x.recent, x.seed = make([]recentText, recentTexts), maphash.MakeSeed()
	}
	r := new(recentText) // of a long text, which is not kept
	if len(text) > maxRecent {
		r.terms, r.bundle = b.shapeTerms(text), -1
	} else if r = &x.recent[maphash.Bytes(x.seed, text)%recentTexts]; r.terms == nil || !bytes.Equal(r.text, text) {
		r.text, r.terms, r.bundle = append(r.text[:0], text...), b.shapeTerms(text), -1
	}
	b.recent(at, r, text)
}

// shared is text for that of a Parse, which many entries go back to.
func (b *indexBuilder) shared(at int64, c *shared) {
	if c.terms == nil {
		c.terms = &recentText{text: []byte(c.text), bundle: -1}
		c.terms.terms = b.shapeTerms(c.terms.text)
	}
	b.recent(at, c.terms, c.terms.text)
}

// recent adds the terms of a text, and its trigrams unless its bundle has them.
func (b *indexBuilder) recent(at int64, r *recentText, text []byte) {
	for _, p := range r.terms.all {
		p.put(at)
	}
	if bundle := at / tree.Width; r.bundle != bundle {
		r.bundle = bundle
		b.parts(at, text)
	}
}

// parts adds the trigrams of a text in the entry at.
func (b *indexBuilder) parts(at int64, text []byte) {
	if len(text) > maxGramText {
		b.openText(at)
	} else {
		b.texts.grams.add(at/tree.Width, text)
	}
}

// openText says that the entry at may have any text as far as the index knows.
func (b *indexBuilder) openText(at int64) { b.of(openTerm, textTerm).put(at) }

// unread says that the entry at may have any text and parameters as far as the index knows.
func (b *indexBuilder) unread(at int64) {
	b.openText(at)
	b.of(openTerm, paramTerm).put(at)
	b.of(openTerm, unreadTerm).put(at)
}

// shapeTerms returns the terms of a text by its shape.
func (b *indexBuilder) shapeTerms(text []byte) *textTerms {
	x := &b.texts
	if len(text) > maxAnalysed {
		return b.analysed(text)
	}
	x.shape = sqlinfo.AppendShape(x.shape[:0], text)
	t := x.shapes[string(x.shape)]
	if t == nil {
		if x.bytes += len(x.shape); x.shapes == nil || x.bytes > maxAnalyses || len(x.shapes) >= maxAnalysesNo {
			x.shapes, x.bytes = make(map[string]*textTerms), len(x.shape)
		}
		t = b.analysed(text)
		x.shapes[string(x.shape)] = t
	}
	return t
}

func (b *indexBuilder) analysed(text []byte) *textTerms {
	var t textTerms
	add := func(kind, text string) {
		if text != "" {
			t.all = append(t.all, b.of(kind, text))
		}
	}
	info := sqlinfo.Analyze(string(text))
	add("fingerprint", info.Fingerprint)
	for _, c := range info.Classes {
		add("class", string(c))
	}
	if !info.Complete {
		add("class", Unknown)
	}
	for _, r := range info.Relations {
		add("relation", lastName(r))
	}
	return &t
}
