package release

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	// PruneAge is how old an artifact is that one person deletes, whoever uploaded it.
	PruneAge = 30 * 24 * time.Hour
	// MinPruneAge is how old it is at least: an upload, and what is proposed of it, have ended by then.
	MinPruneAge = time.Hour

	pruneBatch = 400 // of each kind, in one fact
	pruneTries = 5
)

// Prunable is what nothing names, or nobody needs.
type Prunable struct {
	Artifacts []Artifact // uploads that no release, lot or master names
	Deltas    []Delta    // to what is not published any more, or from what no device runs
	Blobs     []Blob     // whose bytes go with them, and those that broken uploads left
	Strays    int        // of Blobs: those of broken uploads
}

// Blob is bytes that are to leave.
type Blob struct {
	Digest [32]byte
	Size   uint64
}

// Bytes is what they free.
func (p Prunable) Bytes() (n uint64) {
	for _, b := range p.Blobs {
		n += b.Size
	}
	return n
}

func (p Prunable) empty() bool { return len(p.Artifacts)+len(p.Deltas)+len(p.Blobs) == 0 }

func (p *Prunable) add(more Prunable) {
	p.Artifacts = append(p.Artifacts, more.Artifacts...)
	p.Deltas = append(p.Deltas, more.Deltas...)
	p.Blobs = append(p.Blobs, more.Blobs...)
	p.Strays += more.Strays
}

// Pruning is the fact of a deletion. Digests are hex.
type Pruning struct {
	Product   string    `json:"product"`
	Before    time.Time `json:"before"` // nothing of them was touched since
	Artifacts []string  `json:"artifacts,omitempty"`
	Deltas    []string  `json:"deltas,omitempty"`
	Strays    int       `json:"strays,omitempty"` // bytes of broken uploads, of whatever product
	Bytes     uint64    `json:"bytes"`
}

// Prune deletes what was uploaded to a product and nothing names, and deltas that nobody needs, when nobody touched them for as long as older says; dry only says what that is.
// Their bytes leave their place soon after, if nothing else is made of them. Younger artifacts of others than the caller take a second person. What is deleted can be uploaded, or made, again.
func (s *Service) Prune(ctx context.Context, caller access.Caller, product string, older time.Duration, dry bool) (Prunable, error) {
	res := access.Resource{Type: "product", ID: product, Product: product}
	if err := s.cfg.Guard.Check(ctx, caller, access.ArtifactPrune, res); err != nil {
		return Prunable{}, err
	}
	if _, err := s.product(ctx, product); err != nil {
		return Prunable{}, err
	}
	if older < MinPruneAge {
		return Prunable{}, invalid("artifact.age", fmt.Sprintf("what is younger than %s may be of an upload or a proposal under way", MinPruneAge), "give an age of at least an hour")
	}
	before := s.cfg.Now().UTC().Add(-older)
	all, err := s.cfg.Artifacts.Prunable(ctx, product, before, 0)
	if err != nil || dry {
		return all, err
	}
	if res.Grave = older < PruneAge && slices.ContainsFunc(all.Artifacts, func(a Artifact) bool { return a.By != caller.ID }); res.Grave {
		if err := s.cfg.Guard.Check(ctx, caller, access.ArtifactPrune, res); err != nil {
			return Prunable{}, err
		}
	}
	var done Prunable
	for tries := 0; ; {
		p, err := s.cfg.Artifacts.Prunable(ctx, product, before, pruneBatch)
		if err != nil || p.empty() {
			return done, err
		}
		switch err := s.prune(ctx, caller, product, before, p); {
		case err == nil:
			done.add(p)
		case errors.Is(err, ErrChanged) && tries < pruneTries: // something names a part of it now
			tries++
		case errors.Is(err, ErrChanged):
			return done, conflict("artifact.changed", fmt.Sprintf("the artifacts of %s are being used meanwhile", product), "delete them when less is proposed")
		default:
			return done, err
		}
	}
}

func (s *Service) prune(ctx context.Context, caller access.Caller, product string, before time.Time, p Prunable) error {
	f := Pruning{Product: product, Before: before, Strays: p.Strays, Bytes: p.Bytes()}
	for _, a := range p.Artifacts {
		f.Artifacts = append(f.Artifacts, hex.EncodeToString(a.Digest[:]))
	}
	for _, d := range p.Deltas {
		f.Deltas = append(f.Deltas, hex.EncodeToString(d.Digest))
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.cfg.Artifacts.Prune(ctx, product, before, pruneBatch, p, ledger.New(ledger.KindArtifactsPruned, s.cfg.Now().UTC(), caller.ID, product, nil, data))
}

// Named are the digests of the artifacts that a manifest names.
func Named(m wire.Release) (out [][32]byte) {
	for _, n := range namings(m) {
		out = append(out, n.digest)
	}
	return out
}
