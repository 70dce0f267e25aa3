package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/hallmark-iot/hallmark/wire"
)

// Two public logs have died of a restored backup: entries that were witnessed were gone, others took their places, and the log
// contradicted itself for ever. So the database is not believed to be the newest. What was shown to others is compared with it, at
// the start and again before each publication: the exported checkpoints, what the witnesses remember, and what this process saw.
//
// A witness that does not answer agrees to nothing, and does not hold up the start: without a quorum nothing is published, and one
// that has seen another tree does not sign this one.

// ErrInconsistent is a witness's answer to a tree that does not extend the one it has signed.
var ErrInconsistent = errors.New("does not extend what this witness has signed")

// Check refuses to begin when an export or a witness remembers more than the database does, or something else: signing on would
// fork the log. It must be called before Run.
func (p *Publisher) Check(ctx context.Context) error {
	state, err := p.cfg.Store.State(ctx, p.cfg.Log)
	if err != nil {
		return err
	}
	for i := range p.outlets {
		if err := p.checkOutlet(ctx, &p.outlets[i], state); err != nil {
			return err
		}
	}
	return p.recall(ctx, state)
}

// checkOutlet compares an export with the database, and finds out from where on its files have to be written again.
func (p *Publisher) checkOutlet(ctx context.Context, at *outlet, state State) error {
	note, err := at.Get(ctx, "checkpoint")
	if err != nil || note == nil {
		return err
	}
	shown, err := p.parse(*at, note)
	if err != nil {
		return err
	}
	if err := p.covers(ctx, at.String(), state, shown); err != nil {
		return err
	}
	for _, t := range edgeFiles(shown.Size) {
		if data, err := at.Get(ctx, t); err != nil || data == nil {
			return err // exported stays 0: all are written again
		}
	}
	at.exported = shown.Size
	return nil
}

// edgeFiles are the files that hold the right edge of a tree, which change with each publication and so are the first to be lost.
func edgeFiles(size uint64) (paths []string) {
	for level := -1; level < 0 || size>>(tileHeight*level) > 0; level++ {
		n := size
		if level > 0 {
			n = size >> (tileHeight * level)
		}
		if n > 0 {
			paths = append(paths, tilePath(level, (n-1)/tileWidth, int((n-1)%tileWidth)+1))
		}
	}
	return paths
}

// own reads a note of this log, by whichever of its keys it was signed.
func (p *Publisher) own(note []byte) (s State, err error) {
	keys := []ed25519.PublicKey{p.cfg.Key.Public()}
	for _, o := range p.cfg.Others {
		keys = append(keys, o.Public())
	}
	for _, k := range append(keys, p.cfg.Former...) {
		if s, err = ParseCheckpoint(note, p.cfg.Origin, k); !errors.Is(err, wire.ErrLogSignature) {
			return s, err
		}
	}
	return s, err
}

func (p *Publisher) parse(at outlet, note []byte) (State, error) {
	s, err := p.own(note)
	if err != nil {
		return s, fmt.Errorf("exported checkpoint of the %s log in %s: %w; restore the file, or the key that signed it", p.cfg.Log, at, err)
	}
	return s, nil
}

// ahead is Check before a publication: the database may have been exchanged under a running process, by a failover or a restore.
func (p *Publisher) ahead(ctx context.Context, state, published State) error {
	if err := p.covers(ctx, "the database's own checkpoint", state, published); err != nil {
		return err
	}
	if published.Size < p.known.Size {
		return fmt.Errorf("%w: the database knows of %d published entries of the %s log, and knew of %d before: it was exchanged for an older copy; %s",
			ErrForked, published.Size, p.cfg.Log, p.known.Size, remedy)
	}
	if err := p.covers(ctx, "this process", state, p.known); err != nil {
		return err
	}
	for _, at := range p.outlets {
		note, err := at.Get(ctx, "checkpoint")
		if err != nil {
			return err
		}
		if note == nil {
			continue
		}
		shown, err := p.parse(at, note)
		if err != nil {
			return err
		}
		now := state
		if shown.Size > now.Size { // another node may just have been faster
			if now, err = p.cfg.Store.State(ctx, p.cfg.Log); err != nil {
				return err
			}
		}
		if err := p.covers(ctx, at.String(), now, shown); err != nil {
			return err
		}
	}
	p.known = published
	return nil
}

const remedy = "nothing is signed: stop, and replay what is missing with `hallmark log recover`"

// covers checks that the tree in the database begins with one that was shown to others; who has it is for people.
func (p *Publisher) covers(ctx context.Context, who string, state, shown State) error {
	if state.Size < shown.Size {
		return fmt.Errorf("%w: the %s log has %d entries in the database, and %d in %s: %d are missing, the database is an old copy; %s",
			ErrForked, p.cfg.Log, state.Size, shown.Size, who, shown.Size-state.Size, remedy)
	}
	if shown.Size == 0 {
		return nil
	}
	root, err := p.rootAt(ctx, shown.Size)
	if err != nil {
		return err
	}
	if root != shown.Root {
		return fmt.Errorf("%w: the first %d entries of the %s log in the database are not those of %s: one of them is of another instance, or was changed; "+
			"nothing is signed", ErrForked, shown.Size, p.cfg.Log, who)
	}
	return nil
}

// recall asks every witness, all at once, what it remembers.
func (p *Publisher) recall(ctx context.Context, state State) error {
	note, err := p.question(ctx)
	if err != nil {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	forks := make([]error, len(p.cfg.Witnesses))
	var wg sync.WaitGroup
	for i, w := range p.cfg.Witnesses {
		wg.Go(func() {
			err := p.remembers(ask, w, note, state)
			if errors.Is(err, ErrForked) {
				forks[i] = err
			} else if err != nil {
				p.cfg.Logger.WarnContext(ctx, "a witness does not say what it remembers: it does not count until it does",
					"log", p.cfg.Log, "witness", w.Name(), "error", err)
			}
		})
	}
	wg.Wait()
	return errors.Join(forks...)
}

// question is a note to ask with: a checkpoint that is public already, or of the empty tree, which contradicts nothing.
func (p *Publisher) question(ctx context.Context) ([]byte, error) {
	prev, err := p.cfg.Store.Published(ctx, p.cfg.Log)
	if errors.Is(err, ErrNotFound) {
		return SignCheckpoint(p.cfg.Origin, State{Root: sha256.Sum256(nil)}, p.cfg.Key, p.cfg.Others...)
	}
	return prev.Note, err
}

// remembers has a witness say its size: it is offered note as the first it sees, and objects if it is not. The note that was signed
// at that size it must then recognise.
func (p *Publisher) remembers(ctx context.Context, w Cosigner, note []byte, state State) error {
	_, err := w.Cosign(ctx, 0, nil, note)
	var other *OldSizeError
	if !errors.As(err, &other) {
		if errors.Is(err, ErrInconsistent) {
			return nil // it remembers nothing, and an empty tree is nothing to remember
		}
		return err
	}
	who := "witness " + w.Name()
	signed, err := p.signed(ctx, who, state, other.Size, state.Size+1)
	if err != nil || other.Size == 0 {
		return err
	}
	_, err = w.Cosign(ctx, other.Size, nil, signed)
	if errors.Is(err, ErrInconsistent) {
		return fmt.Errorf("%w: %s remembers another tree of %d entries of the %s log: the database was changed or is of another instance; nothing is signed",
			ErrForked, who, other.Size, p.cfg.Log)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[w.Name()] = other.Size
	return nil
}

// signed gives the signed note of the size that a witness remembers. What is to be witnessed is in the database first, so that a
// database without it is a copy from before, however much it has grown since. After a replay there may be a larger one only, which
// binds the log to the smaller tree as well; only one below a size counts, that of what is being signed.
func (p *Publisher) signed(ctx context.Context, who string, state State, size, below uint64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	s, err := p.cfg.Store.Signed(ctx, p.cfg.Log, size)
	if err == nil && s.Size == size {
		return s.Note, nil
	}
	if err == nil && s.Size < below {
		root, err := p.rootAt(ctx, size)
		if err != nil {
			return nil, err
		}
		return SignCheckpoint(p.cfg.Origin, State{Size: size, Root: root}, p.cfg.Key, p.cfg.Others...)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	missing := "some were replaced by others"
	if size > state.Size {
		missing = fmt.Sprintf("%d are missing", size-state.Size)
	}
	return nil, fmt.Errorf("%w: %s has seen the %s log with %d entries, which this database never signed; it has %d, %s: it is an old copy; %s",
		ErrForked, who, p.cfg.Log, size, state.Size, missing, remedy)
}

func (p *Publisher) rootAt(ctx context.Context, size uint64) ([32]byte, error) {
	return p.reader.RootAt(ctx, p.cfg.Log, size)
}

// RootAt gives the root of the tree that the first entries of a log are.
func (r *Reader) RootAt(ctx context.Context, log Log, size uint64) ([32]byte, error) {
	tiles := r.tiles(ctx, log)
	e := &edge{size: size}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		n := size >> (tileHeight * level)
		t := Tile{Level: level, Index: n / tileWidth}
		if w := int(n%tileWidth) * hashSize; w > 0 {
			data, err := tiles(level, t.Index)
			if err != nil {
				return [32]byte{}, err
			}
			if len(data) < w {
				return [32]byte{}, fmt.Errorf("tile %d/%d is too short for size %d", level, t.Index, size)
			}
			t.Data = data[:w]
		}
		e.tiles = append(e.tiles, t)
	}
	return e.root(), nil
}
