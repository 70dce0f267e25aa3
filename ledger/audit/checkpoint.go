package audit

import (
	"fmt"
	"slices"
	"time"
)

// Head is a checkpoint that holds: the state of a log that enough witnesses have seen.
type Head struct {
	Origin   string        `json:"origin"`
	Size     uint64        `json:"size"`
	Root     [32]byte      `json:"-"`
	Cosigned []Cosignature `json:"cosigned"` // by the policy's witnesses
}

// Cosignature says which witness saw the tree, and when.
type Cosignature struct {
	Witness string    `json:"witness"`
	At      time.Time `json:"at"`
}

// Seen is when a quorum of n had seen the tree: the oldest time of the freshest n.
func (h Head) Seen(n int) time.Time {
	c := slices.SortedFunc(slices.Values(h.Cosigned), func(a, b Cosignature) int { return b.At.Compare(a.At) })
	if n < 1 || n > len(c) {
		return time.Time{}
	}
	return c[n-1].At
}

// Checkpoint verifies a signed checkpoint by itself, without the log it is of.
func Checkpoint(p Policy, note []byte) (Head, error) {
	if err := p.check(); err != nil {
		return Head{}, err
	}
	var r Report
	root, err := r.checkNote(p, note)
	if err != nil {
		return Head{}, fmt.Errorf("checkpoint: %w", err)
	}
	if got := len(r.Cosigned); got < p.Quorum {
		return Head{}, fmt.Errorf("checkpoint: cosigned by %d witnesses, want %d", got, p.Quorum)
	}
	return r.head(root), nil
}

func (r Report) head(root [32]byte) Head {
	h := Head{Origin: r.Origin, Size: r.Size, Root: root}
	for _, name := range r.Cosigned {
		h.Cosigned = append(h.Cosigned, Cosignature{Witness: name, At: time.Unix(int64(min(r.at[name], 1<<40)), 0).UTC()})
	}
	return h
}
