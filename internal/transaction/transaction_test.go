package transaction

import (
	"fmt"
	"testing"

	"github.com/pgnotary/pgnotary/internal/verb"
)

// Each word is a statement that completed; its place is its index. What is told at it is listed.
func TestGroup(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string
		want  string
	}{
		{"commit", []string{"begin", "w", "commit"}, "2: +[] 0"},
		{"rollback", []string{"begin", "w", "rollback"}, "2: -[] 0"},
		{"undone in the middle", []string{"begin", "w", "savepoint a", "w", "rollback to a", "w", "commit"}, "4: -[] 3 6: +[{0 2}] 5"},
		{"undone twice", []string{"begin", "savepoint a", "w", "rollback to a", "w", "rollback to a", "commit"}, "3: -[] 2 5: -[] 4 6: +[{0 1}] 6"},
		{
			"one in another",
			[]string{"begin", "savepoint a", "w", "savepoint b", "w", "rollback to b", "w", "rollback to a", "rollback"},
			"5: -[] 4 7: -[{2 3}] 6 8: -[{0 1}] 8",
		},
		{"name hidden, then released", []string{"begin", "savepoint a", "w", "savepoint a", "w", "release a", "w", "rollback to a", "commit"}, "7: -[] 2 8: +[{0 1}] 8"},
		{"savepoint of a text not known", []string{"begin", "savepoint a", "savepoint", "w", "rollback to a", "w", "commit"}, "6: +[] 5"},
		{"name not known", []string{"begin", "w", "rollback to a", "w", "commit"}, "4: +[] 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := Group{Settled: -1}
			g.Reset()
			var got string
			tell := func(i int, sign string, parts []Part, since int64) {
				if got != "" {
					got += " "
				}
				got += fmt.Sprintf("%d: %s%v %d", i, sign, parts, since)
			}
			for i, text := range tt.words {
				v, _ := verb.Of([]byte(text))
				index := int64(i)
				known := false
				switch {
				case text == "savepoint", v.Kind == verb.Savepoint:
					g.Savepoint(v, index)
				case v.Kind == verb.Release:
					g.Release(v)
				case v.Kind == verb.RollbackTo:
					if known = g.To(v); !known {
						g.RollbackInside(index, true, true)
					}
				}
				g.Covered(index)
				if known {
					parts, since := g.RollBack()
					tell(i, "-", parts, since)
				}
				switch v.Kind {
				case verb.Commit:
					parts, since := g.End(1)
					tell(i, "+", parts, since)
				case verb.Rollback:
					parts, since := g.End(-1)
					tell(i, "-", parts, since)
				}
			}
			if got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
		})
	}
}
