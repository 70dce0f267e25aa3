// Package witness cosigns checkpoints of logs it has only ever seen grow.
//
// Under all stages. It implements the decision of c2sp.org/tlog-witness (add-checkpoint): a cosignature means that every
// checkpoint it has cosigned of this log, and this one, are one growing tree. What it remembers is durable before it answers. It
// trusts nobody: not the log, whose signature and consistency proof it checks.
package witness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/time/rate"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Storage keeps what the witness remembers of one log. Save is atomic and durable when it returns nil; Load gives nil, nil at first.
type Storage interface {
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, state []byte) error
}

// Log is a log the witness knows.
type Log struct {
	Origin string
	Keys   []ledger.VerifierKey // any of them signs it
	Memory Storage              // of this log alone
}

// Config is what a Witness needs.
type Config struct {
	Keys      []ledger.CosignerKey // of one name; each gives a line
	Logs      []Log
	Now       func() time.Time
	Rate      float64           // checkpoints of one log a second, at most; 0: as many as come
	Failpoint func(name string) // for tests that end the process there; nil otherwise
}

// Witness is safe for concurrent use.
type Witness struct {
	cfg  Config
	logs map[string]*watched // by origin; never changes
}

// watched is a log and what is remembered of it.
type watched struct {
	Log
	limit *rate.Limiter

	mu   sync.Mutex // guards what is below, and orders Save before the answer
	last memory
	body string    // of the checkpoint that this process answered last
	said []byte    // what it answered
	at   time.Time // when
}

// again is for how long the same checkpoint gets the same answer.
const again = 5 * time.Second

// Errors of add-checkpoint, with the status the protocol gives them.
var (
	ErrMalformed    = errors.New("not what a log sends")                    // 400
	ErrLogSignature = errors.New("not signed by the log")                   // 403
	ErrUnknownLog   = errors.New("unknown log")                             // 404
	ErrInconsistent = ledger.ErrInconsistent                                // 422
	ErrTooOften     = errors.New("more checkpoints than this log may send") // 429
)

// Open loads what the witness remembers.
func Open(ctx context.Context, cfg Config) (*Witness, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	if len(cfg.Keys) == 0 {
		return nil, errors.New("a witness without a key")
	}
	w := &Witness{cfg: cfg, logs: map[string]*watched{}}
	for _, k := range cfg.Keys {
		if k.Name != w.Name() {
			return nil, fmt.Errorf("witness %s: it has a key of %s: one name for one witness", w.Name(), k.Name)
		}
	}
	for _, l := range cfg.Logs {
		if w.logs[l.Origin] != nil {
			return nil, fmt.Errorf("witness %s: the log %s is there twice", w.Name(), l.Origin)
		}
		data, err := l.Memory.Load(ctx)
		if err != nil {
			return nil, fmt.Errorf("witness %s: %w", w.Name(), err)
		}
		x := &watched{Log: l, limit: rate.NewLimiter(rate.Inf, 0), last: memory{State: ledger.State{Root: emptyRoot}}}
		if cfg.Rate > 0 {
			x.limit = rate.NewLimiter(rate.Limit(cfg.Rate), max(1, int(2*cfg.Rate)))
		}
		if data != nil {
			if x.last, err = parseMemory(data, l.Origin); err != nil {
				return nil, fmt.Errorf("witness %s: its memory of %s is damaged: %w; restore it: an empty one would sign a fork", w.Name(), l.Origin, err)
			}
		}
		w.logs[l.Origin] = x
	}
	return w, nil
}

// Name is the witness's name in cosignatures.
func (w *Witness) Name() string { return w.cfg.Keys[0].Name }

// Keys are its public keys.
func (w *Witness) Keys() (out []ledger.VerifierKey) {
	for _, k := range w.cfg.Keys {
		out = append(out, k.VerifierKey)
	}
	return out
}

// Cosign decides on a checkpoint: it implements ledger.Cosigner. The checks are in the order of the specification.
func (w *Witness) Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error) {
	n, err := ledger.ParseNote(note)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	l := w.logs[n.Origin]
	if l == nil {
		return nil, fmt.Errorf("%w %q", ErrUnknownLog, n.Origin)
	}
	if err := l.signed(n); err != nil {
		return nil, err
	}
	if old > n.State.Size {
		return nil, fmt.Errorf("%w: size %d after %d", ErrMalformed, n.State.Size, old)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old != l.last.Size {
		return nil, &ledger.OldSizeError{Size: l.last.Size}
	}
	if err := extends(l.last, n.State, proof); err != nil {
		return nil, err
	}
	now := w.cfg.Now()
	if n.Body == l.body && now.Sub(l.at).Abs() < again {
		return l.said, nil
	}
	if !l.limit.AllowN(now, 1) { // last of all: checkpoints are public, and a stranger who sends one again does not use up what is the log's
		return nil, ErrTooOften
	}
	lines, err := w.lines(n, now)
	if err != nil {
		return nil, err
	}
	w.cfg.Failpoint("witness.signed")
	next := memory{State: n.State, note: n.By(l.Keys...) + lines}
	if err := l.save(ctx, next); err != nil {
		return nil, fmt.Errorf("witness %s: not signed: %w", w.Name(), err)
	}
	w.cfg.Failpoint("witness.saved")
	l.body, l.said, l.at = n.Body, []byte(lines), now
	return l.said, nil
}

// signed checks that one of the log's keys signed the note, and that none of them is said to have and has not.
func (l *watched) signed(n ledger.Note) error {
	known := false
	for _, k := range l.Keys {
		by, err := n.SignedBy(k)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLogSignature, err)
		}
		known = known || by
	}
	if !known {
		return fmt.Errorf("%w: no signature by a key that is known for %s", ErrLogSignature, l.Origin)
	}
	return nil
}

func (w *Witness) lines(n ledger.Note, now time.Time) (string, error) {
	var out strings.Builder
	for _, k := range w.cfg.Keys {
		line, err := k.Line(n, now)
		if err != nil {
			return "", err
		}
		out.WriteString(line)
	}
	return out.String(), nil
}

// Latest gives the newest checkpoint that was cosigned of a log, with the log's signature and the cosignatures; nil when there is none.
func (w *Witness) Latest(origin string) []byte {
	l := w.logs[origin]
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.note == "" {
		return nil
	}
	return []byte(l.last.note)
}

func extends(prev memory, next ledger.State, proof [][32]byte) error {
	if next.Size == 0 && next.Root != emptyRoot {
		return fmt.Errorf("%w: another root than the empty tree's at size 0", ErrInconsistent)
	}
	if next.Size == prev.Size && prev.Size > 0 && next.Root != prev.Root {
		return fmt.Errorf("%w: another root at size %d", ErrInconsistent, next.Size)
	}
	if prev.Size == 0 || next.Size == prev.Size {
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
