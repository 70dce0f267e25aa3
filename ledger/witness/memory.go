package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
)

// memory is what is remembered of a log: the newest checkpoint that was cosigned, and the tree it is of.
type memory struct {
	ledger.State
	note string // with the log's signature and the cosignatures; empty: none was cosigned yet
}

// stored is a memory as it is kept.
type stored struct {
	Origin     string `json:"origin"`
	Checkpoint string `json:"checkpoint"`
}

var emptyRoot = sha256.Sum256(nil)

// Blank is the memory of a log of which nothing was cosigned yet. Where it is stored beforehand, one that is lost is noticed.
func Blank(origin string) ([]byte, error) { return json.Marshal(stored{Origin: origin}) }

// maxMemory bounds a stored memory: a note, escaped.
const maxMemory = 4 * ledger.MaxNote

// parseMemory reads what save or Blank wrote. Neither ever wrote an empty file, so one that reads as empty is damaged.
func parseMemory(data []byte, origin string) (memory, error) {
	m := memory{State: ledger.State{Root: emptyRoot}}
	var s stored
	if len(data) > maxMemory {
		return m, fmt.Errorf("%d bytes, at most %d", len(data), maxMemory)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return m, err
	}
	if d.More() || s.Origin != origin {
		return m, fmt.Errorf("it is of %q, or holds too much", s.Origin)
	}
	if s.Checkpoint == "" {
		return m, nil
	}
	n, err := ledger.ParseNote([]byte(s.Checkpoint))
	if err != nil {
		return m, err
	}
	if n.Origin != origin {
		return m, fmt.Errorf("its checkpoint is of %q", n.Origin)
	}
	return memory{State: n.State, note: s.Checkpoint}, nil
}

// save stores next, and only then remembers it.
func (l *watched) save(ctx context.Context, next memory) error {
	data, err := json.Marshal(stored{Origin: l.Origin, Checkpoint: next.note})
	if err != nil {
		return err
	}
	if err := l.Memory.Save(ctx, data); err != nil {
		return err
	}
	l.last = next
	return nil
}
