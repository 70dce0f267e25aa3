// Package witness cosigns checkpoints of logs it has only ever seen grow.
//
// Under all stages. It implements the decision of c2sp.org/tlog-witness (add-checkpoint): a cosignature means that every
// checkpoint it has cosigned of this log, and this one, are one growing tree. What it remembers is durable before it signs. It
// trusts nobody: not the log, whose signature and consistency proof it checks.
package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Storage keeps what the witness remembers. Save is atomic and durable when it returns nil; Load gives nil, nil at first.
type Storage interface {
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, state []byte) error
}

// Log is a log the witness knows.
type Log struct {
	Origin string
	Key    ed25519.PublicKey
}

// Config is what a Witness needs.
type Config struct {
	Name    string
	Key     ledger.Signer
	Logs    []Log
	Storage Storage
	Now     func() time.Time
}

// Witness is safe for concurrent use.
type Witness struct {
	cfg Config

	mu   sync.Mutex          // guards seen, and orders Save before signing
	seen map[string]remember // by origin
}

type remember struct {
	Size uint64   `json:"size"`
	Root [32]byte `json:"root"`
}

// Errors of add-checkpoint, with the status the protocol gives them.
var (
	ErrUnknownLog   = errors.New("unknown log")                                  // 404
	ErrLogSignature = errors.New("not signed by the log")                        // 403
	ErrInconsistent = errors.New("does not extend what this witness has signed") // 422
)

// Open loads what the witness remembers.
func Open(ctx context.Context, cfg Config) (*Witness, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Witness{cfg: cfg, seen: map[string]remember{}}
	data, err := cfg.Storage.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("witness %s: %w", cfg.Name, err)
	}
	if data != nil {
		if w.seen, err = parseMemory(data); err != nil {
			return nil, fmt.Errorf("witness %s: its memory is damaged: %w; restore it: an empty one would sign a fork", cfg.Name, err)
		}
	}
	return w, nil
}

// parseMemory reads what save wrote. It never wrote an empty memory, so one that reads as empty is damaged.
func parseMemory(data []byte) (map[string]remember, error) {
	var seen map[string]remember
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&seen); err != nil {
		return nil, err
	}
	if d.More() || len(seen) == 0 {
		return nil, errors.New("it holds nothing, or too much")
	}
	for origin, r := range seen {
		if r.Size == 0 {
			return nil, fmt.Errorf("it knows no size of %s", origin)
		}
	}
	return seen, nil
}

// Name is the witness's name in cosignatures.
func (w *Witness) Name() string { return w.cfg.Name }

// Key is its public key.
func (w *Witness) Key() ed25519.PublicKey { return w.cfg.Key.Public() }

// Cosign decides on a checkpoint: it implements ledger.Cosigner.
func (w *Witness) Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error) {
	origin, body, err := ledger.NoteOrigin(note)
	if err != nil {
		return nil, err
	}
	state, err := w.verify(origin, note)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	prev := w.seen[origin]
	if old != prev.Size {
		return nil, &ledger.OldSizeError{Size: prev.Size}
	}
	if err := extends(prev, state, proof); err != nil {
		return nil, err
	}
	if state.Size == 0 {
		return nil, fmt.Errorf("%w: an empty tree says nothing", ErrInconsistent)
	}
	if next := (remember{Size: state.Size, Root: state.Root}); next != prev {
		if err := w.save(ctx, origin, next); err != nil {
			return nil, err
		}
	}
	line, err := ledger.CosignLine(w.cfg.Name, uint64(w.cfg.Now().Unix()), body, w.cfg.Key)
	return []byte(line), err
}

func (w *Witness) verify(origin string, note []byte) (ledger.State, error) {
	for _, l := range w.cfg.Logs {
		if l.Origin != origin {
			continue
		}
		s, err := ledger.ParseCheckpoint(note, origin, l.Key)
		if err != nil {
			return ledger.State{}, fmt.Errorf("%w: %w", ErrLogSignature, err)
		}
		return s, nil
	}
	return ledger.State{}, fmt.Errorf("%w %q", ErrUnknownLog, origin)
}

func extends(prev remember, next ledger.State, proof [][32]byte) error {
	switch {
	case next.Size < prev.Size:
		return fmt.Errorf("%w: size %d after %d", ErrInconsistent, next.Size, prev.Size)
	case next.Size == prev.Size && next.Root != prev.Root:
		return fmt.Errorf("%w: another root at size %d", ErrInconsistent, next.Size)
	case prev.Size == 0 || next.Size == prev.Size:
		if len(proof) != 0 {
			return fmt.Errorf("%w: a proof where none belongs", ErrInconsistent)
		}
		return nil
	}
	p := make(tlog.TreeProof, len(proof))
	for i, h := range proof {
		p[i] = h
	}
	if err := tlog.CheckTree(p, int64(next.Size), next.Root, int64(prev.Size), prev.Root); err != nil {
		return fmt.Errorf("%w: from %d to %d: %w", ErrInconsistent, prev.Size, next.Size, err)
	}
	return nil
}

func (w *Witness) save(ctx context.Context, origin string, r remember) error {
	next := map[string]remember{origin: r}
	for k, v := range w.seen {
		if k != origin {
			next[k] = v
		}
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := w.cfg.Storage.Save(ctx, data); err != nil {
		return fmt.Errorf("witness %s: not signed: %w", w.cfg.Name, err)
	}
	w.seen = next
	return nil
}
