package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Cosigner is a witness, near or far.
type Cosigner interface {
	Name() string
	// Keys are those it is known by, all of this name.
	Keys() []VerifierKey
	// Cosign asks for a cosignature of note, whose tree extends the one of size old, as proof shows. It returns signature
	// lines. When the witness has seen another size it fails with *OldSizeError.
	Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error)
}

// OldSizeError is a witness's answer when it remembers another size than it was told.
type OldSizeError struct{ Size uint64 }

func (e *OldSizeError) Error() string { return fmt.Sprintf("the witness remembers size %d", e.Size) }

// What witnesses may take. They are asked all at once.
const (
	witnessWait  = 10 * time.Second // for a quorum
	witnessGrace = time.Second      // for those that are still silent when there is a quorum
	witnessSkew  = 5 * time.Minute  // that a cosignature's time may be away from ours
	witnessTries = 3                // to agree on the size that it remembers
)

// Standing is how a log stands with its witnesses.
type Standing struct {
	Published time.Time          // when the last checkpoint was published by this process; zero: none yet
	Trouble                      // that keeps it from publishing
	Witnesses map[string]Trouble // by name: that keeps an answer from counting
}

// Trouble is what fails; the zero value is none.
type Trouble struct {
	Since time.Time
	Err   error // at the last try
}

// next is the trouble after another try.
func (t Trouble) next(err error, now time.Time) Trouble {
	if err == nil {
		return Trouble{}
	}
	if t.Err == nil {
		t.Since = now
	}
	return Trouble{Since: t.Since, Err: err}
}

// Standing tells how the log stands, as of the last try.
func (p *Publisher) Standing() Standing {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.standing
	s.Witnesses = maps.Clone(s.Witnesses)
	return s
}

// tried notes what came of a Step.
func (p *Publisher) tried(err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.standing.Published = p.last
	}
	p.standing.Trouble = p.standing.next(err, now)
}

// collect asks every witness, all at once, and needs a quorum of them. The quorum is of those with an Ed25519 key, because it is
// for devices, and of different keys, because names cost nothing.
func (p *Publisher) collect(ctx context.Context, s State, note []byte) ([]byte, error) {
	n, err := ParseNote(note)
	if err != nil {
		return nil, err
	}
	lines, problems := p.askAll(ctx, s, n, note)
	signed, silent := map[string]bool{}, []error{}
	var all strings.Builder
	for i, w := range p.cfg.Witnesses {
		if problems[i] != nil {
			silent = append(silent, fmt.Errorf("witness %s: %w", w.Name(), problems[i]))
			continue
		}
		all.WriteString(lines[i])
		if k, ok := deviceKey(w); ok {
			signed[string(k.Key)] = true
		}
	}
	p.mu.Lock()
	before := p.standing.Witnesses
	p.standing.Witnesses = map[string]Trouble{}
	for i, w := range p.cfg.Witnesses {
		p.standing.Witnesses[w.Name()] = before[w.Name()].next(problems[i], time.Now())
	}
	p.mu.Unlock()
	if len(signed) < p.cfg.Quorum {
		return nil, fmt.Errorf("%s at size %d: %w: %d of %d: %w", p.cfg.Origin, s.Size, wire.ErrNotWitnessed, len(signed), p.cfg.Quorum, errors.Join(silent...))
	}
	if err := errors.Join(silent...); err != nil {
		p.cfg.Logger.WarnContext(ctx, "published without every witness", "log", p.cfg.Log, "error", err)
	}
	return append(slices.Clip(note), all.String()...), nil
}

// deviceKey is the key of a witness that devices verify.
func deviceKey(w Cosigner) (VerifierKey, bool) {
	for _, k := range w.Keys() {
		if k.Type == TypeCosignature {
			return k, true
		}
	}
	return VerifierKey{}, false
}

var errLate = errors.New("no answer in time")

// askAll asks until all have answered, or for as long as they may take. Who is slow is left alone: nobody waits for them.
func (p *Publisher) askAll(ctx context.Context, s State, n Note, note []byte) (lines []string, problems []error) {
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	type answer struct {
		of   int
		line string
		err  error
	}
	answers := make(chan answer, len(p.cfg.Witnesses)) // room for all: who is late ends too
	lines, problems = make([]string, len(p.cfg.Witnesses)), make([]error, len(p.cfg.Witnesses))
	for i, w := range p.cfg.Witnesses {
		problems[i] = errLate
		go func() {
			line, err := p.ask(ctx, w, s, n, note)
			answers <- answer{i, line, err}
		}()
	}
	var grace <-chan time.Time
	good := 0
	for range p.cfg.Witnesses {
		select {
		case a := <-answers:
			lines[a.of], problems[a.of] = a.line, a.err
			if _, ok := deviceKey(p.cfg.Witnesses[a.of]); ok && a.err == nil {
				good++
			}
			if good >= p.cfg.Quorum && grace == nil {
				grace = time.After(witnessGrace)
			}
		case <-grace:
			return lines, problems
		case <-ctx.Done():
			return lines, problems
		}
	}
	return lines, problems
}

func (p *Publisher) ask(ctx context.Context, w Cosigner, s State, n Note, note []byte) (string, error) {
	p.mu.Lock()
	old := p.seen[w.Name()]
	p.mu.Unlock()
	for attempt := 1; ; attempt++ {
		proof, err := p.reader.Consistency(ctx, p.cfg.Log, old, s.Size)
		if err != nil {
			return "", err
		}
		asked := time.Now()
		out, err := w.Cosign(ctx, old, proof, note)
		var other *OldSizeError
		if errors.As(err, &other) && attempt < witnessTries && other.Size != old {
			if _, err := p.signed(ctx, "witness "+w.Name(), s, other.Size, s.Size); err != nil {
				return "", err
			}
			if other.Size > s.Size {
				return "", fmt.Errorf("it has seen size %d already: another node was faster", other.Size)
			}
			old = other.Size
			continue
		}
		if err != nil {
			return "", err
		}
		line, err := checkCosignatures(out, w.Keys(), n, asked)
		if err != nil {
			return "", err
		}
		p.mu.Lock()
		p.seen[w.Name()] = s.Size
		p.mu.Unlock()
		return line, nil
	}
}

// checkCosignatures finds a line of each of the witness's keys among what it answered, and verifies it: a witness may be broken, or
// lie. What others signed is left away.
func checkCosignatures(answer []byte, keys []VerifierKey, n Note, asked time.Time) (string, error) {
	if len(answer) > MaxNote {
		return "", fmt.Errorf("%w: an answer of %d bytes", errNote, len(answer))
	}
	lines, err := splitLines(string(answer))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, k := range keys {
		line := ""
		for _, l := range lines {
			if l.name != k.Name || l.id != k.ID() {
				continue
			}
			at, err := k.verify(n, l.sig)
			if err != nil {
				return "", err
			}
			if off := at.Sub(asked); off.Abs() > witnessSkew {
				return "", fmt.Errorf("%s: its cosignature is of %s, %s away from this clock: set the wrong one of the two clocks",
					k.Name, at.UTC().Format(time.RFC3339), off.Abs().Round(time.Second))
			}
			line = signatureLine(l.name, l.id, l.sig)
		}
		if line == "" {
			return "", fmt.Errorf("no cosignature by its key %s+%08x in its answer", k.Name, k.ID())
		}
		out.WriteString(line)
	}
	return out.String(), nil
}
