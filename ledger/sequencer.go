package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Pending is a fact that has no place yet.
type Pending struct {
	ID   int64
	Data []byte
}

// Placement is what one round of sequencing decided: the pending facts take the places from First on, in their order.
type Placement struct {
	First uint64
	Tiles []Tile
	Size  uint64
	Root  [32]byte
}

// State is a log's size and root.
type State struct {
	Size uint64
	Root [32]byte
}

// SequenceStore is the database as the sequencer needs it.
type SequenceStore interface {
	// Sequence locks the log's state against every other sequencer, reads at most limit pending facts, oldest first, and has
	// place decide; the placement and the new state are durable when it returns. With nothing pending it does not call place.
	// right reads a tile of the log inside the same transaction; a tile that is not there is empty.
	Sequence(ctx context.Context, log Log, limit int, place func(s State, pending []Pending,
		right func(level int, index uint64) ([]byte, error)) (Placement, error)) (n int, err error)
}

const (
	sequenceEvery = 50 * time.Millisecond
	sequencePace  = 20 * time.Millisecond // between rounds: a round costs as much for one fact as for a hundred
	sequenceWorth = 256                   // facts in a round after which there is no pause: it was worth its cost
	sequenceBatch = 4096
)

// Sequencer gives facts their place. Any number may run against one database: the state's lock is the fence.
type Sequencer struct {
	store  SequenceStore
	log    Log
	wake   chan struct{}
	placed func()
	logger *slog.Logger
}

// NewSequencer makes a sequencer for log; placed is called after each round that placed something.
func NewSequencer(store SequenceStore, log Log, placed func(), logger *slog.Logger) *Sequencer {
	return &Sequencer{store: store, log: log, wake: make(chan struct{}, 1), placed: placed, logger: logger}
}

// Wake hints that there is something to place.
func (s *Sequencer) Wake() { poke(s.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run sequences until ctx ends. An error of the database is logged and tried again: facts wait, none is lost.
func (s *Sequencer) Run(ctx context.Context) error {
	tick := time.NewTicker(sequenceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.wake:
		}
		n, err := s.Step(ctx)
		for err == nil && n == sequenceBatch {
			n, err = s.Step(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.logger.ErrorContext(ctx, "sequencing waits", "log", s.log, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sequencePace - min(time.Duration(n), sequenceWorth)*sequencePace/sequenceWorth):
		}
	}
}

// Step runs one round and says how many facts it placed.
func (s *Sequencer) Step(ctx context.Context) (int, error) {
	n, err := s.store.Sequence(ctx, s.log, sequenceBatch, place)
	if err != nil {
		return 0, fmt.Errorf("sequence %s: %w", s.log, err)
	}
	if n > 0 && s.placed != nil {
		s.placed()
	}
	return n, nil
}

// place appends the pending facts to the tree whose state is s.
func place(s State, pending []Pending, right func(level int, index uint64) ([]byte, error)) (Placement, error) {
	e, err := loadEdge(s, right)
	if err != nil {
		return Placement{}, err
	}
	leaves := make([][hashSize]byte, len(pending))
	for i, p := range pending {
		leaves[i] = LeafHash(p.Data)
	}
	tiles := e.append(leaves)
	return Placement{First: s.Size, Tiles: tiles, Size: e.size, Root: e.root()}, nil
}

// loadEdge reads the right edge of a tree and checks that it leads to the root it is said to have.
func loadEdge(s State, right func(level int, index uint64) ([]byte, error)) (*edge, error) {
	e := &edge{size: s.Size}
	for level := 0; s.Size>>(tileHeight*level) > 0; level++ {
		n := s.Size >> (tileHeight * level)
		t := Tile{Level: level, Index: n / tileWidth}
		if want := int(n % tileWidth); want > 0 {
			data, err := right(level, t.Index)
			if err != nil {
				return nil, err
			}
			if len(data) != want*hashSize {
				return nil, fmt.Errorf("tile %d/%d has %d hashes, the tree of %d needs %d: the database contradicts itself; restore it",
					level, t.Index, len(data)/hashSize, s.Size, want)
			}
			t.Data = data
		}
		e.tiles = append(e.tiles, t)
	}
	if s.Size > 0 && e.root() != s.Root {
		return nil, fmt.Errorf("the tiles lead to another root than the state of size %d: the database contradicts itself; restore it", s.Size)
	}
	return e, nil
}
