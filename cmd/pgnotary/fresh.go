package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/verify"
	"github.com/pgnotary/pgnotary/internal/witness"
)

// seen is what the witnesses of a policy say about a log at this moment.
type seen struct {
	checkpoints []verify.File // the latest they cosigned; the log must continue each
	findings    []verify.Finding
	notes       []string
}

// askWitnesses asks all witnesses of the policy that have a URL. signed is the
// log's own checkpoint. Every checkpoint they give must be a prefix of the log:
// if one is larger, the log was put back; if one has another root, somebody was
// shown another log.
func askWitnesses(ctx context.Context, policy *checkpoint.Policy, signed []byte) (*seen, error) {
	v, err := policy.Verify(signed)
	if err != nil && !errors.Is(err, checkpoint.ErrQuorum) {
		return &seen{}, nil // not a log of this policy: verify finds that, with better words
	}
	bare, err := checkpoint.SignedBy(signed, v.VKey)
	if err != nil {
		return nil, err
	}
	s := &seen{}
	var (
		mu       sync.Mutex
		wg       sync.WaitGroup
		answered []string
		asked    int
	)
	for _, w := range policy.Witnesses() {
		if w.URL == "" {
			continue
		}
		asked++
		wg.Go(func() {
			one, ok := askWitness(ctx, w, v.Checkpoint, bare)
			mu.Lock()
			defer mu.Unlock()
			s.checkpoints = append(s.checkpoints, one.checkpoints...)
			s.findings = append(s.findings, one.findings...)
			s.notes = append(s.notes, one.notes...)
			if ok {
				answered = append(answered, w.Name)
			}
		})
	}
	wg.Wait()
	if asked == 0 {
		return nil, errors.New("--online asks the witnesses of the policy, and it gives no witness a URL")
	}
	if !policy.Fulfilled(answered) {
		s.findings = append(s.findings, verify.Finding{What: "witnesses", Why: fmt.Sprintf("only %d of %d answer, too few to know that this is the newest state of the log",
			len(answered), asked)})
	}
	return s, nil
}

// askWitness asks one witness: for its latest checkpoint or, since not every
// one serves that, whether it holds the log's.
func askWitness(ctx context.Context, w checkpoint.Witness, c checkpoint.Checkpoint, bare []byte) (s seen, answered bool) {
	client, name := witness.NewClient(w.URL), "witness "+w.Name
	latest, err := client.Latest(ctx, c.Origin)
	if err == nil {
		if _, err := checkpoint.CosignatureTime(latest, w.VKey); err != nil {
			s.notes = append(s.notes, fmt.Sprintf("%s serves what it did not cosign: %v", name, err))
			return s, false
		}
		s.checkpoints = append(s.checkpoints, verify.File{Name: name, Data: latest})
		return s, true
	}
	if _, err = client.Add(ctx, c.Size, nil, bare); err == nil {
		return s, true
	}
	conflict, ok := errors.AsType[*witness.ConflictError](err)
	switch {
	case ok && conflict.Held > c.Size:
		s.findings = append(s.findings, verify.Finding{What: name, Why: fmt.Sprintf("it cosigned %d entries of this log, and the log's own checkpoint is of %d: entries are lost, or it was rolled back",
			conflict.Held, c.Size)})
	case ok:
		s.notes = append(s.notes, fmt.Sprintf("%s holds a checkpoint of size %d and does not show it", name, conflict.Held))
	case errors.Is(err, witness.ErrFork):
		s.findings = append(s.findings, verify.Finding{What: name, Why: fmt.Sprintf("it says that it cosigned another history of this log: %s", strings.ToValidUTF8(err.Error(), "?"))})
	default:
		s.notes = append(s.notes, fmt.Sprintf("%s does not answer: %v", name, err))
		return s, false
	}
	return s, true
}

// add puts what the witnesses said into the result of a check.
func (s *seen) add(r *verify.Result) {
	r.Findings, r.Notes = append(r.Findings, s.findings...), append(r.Notes, s.notes...)
	for _, c := range s.checkpoints {
		size := int64(-1)
		if p, _, err := checkpoint.Parse(c.Data); err == nil {
			size = p.Size
		}
		r.Notes = append(r.Notes, fmt.Sprintf("%s cosigned %d entries", c.Name, size))
	}
	r.OK = len(r.Findings) == 0
}
