package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"

	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// Target is where a copy is kept; ledger.Exporter is one.
type Target interface {
	Put(ctx context.Context, path string, data []byte) error
	Swap(ctx context.Context, path string, old, data []byte) (done bool, err error)
	Drop(ctx context.Context, dir string) error
	// Get gives a file's content; nil, nil when there is none.
	Get(ctx context.Context, path string) ([]byte, error)
}

// ErrForked says that the source shows another log than the one that was mirrored.
var ErrForked = errors.New("the source shows another log than the one that was mirrored")

// Copy is one log to be mirrored.
type Copy struct {
	Policy    audit.Policy
	From      audit.Fetcher
	To        Target
	Failpoint func(name string) // for tests that end the process there; nil otherwise
}

// Report is what one Run found.
type Report struct {
	Origin string `json:"origin"`
	Was    uint64 `json:"was"`    // size of the mirror before
	Size   uint64 `json:"size"`   // and now
	Source uint64 `json:"source"` // size that the source showed; less than Size: it is behind
}

// Run brings the copy up to the source's checkpoint. Nothing of the copy is taken back: a source that is behind is left alone, and one
// that contradicts the copy is ErrForked, with both checkpoints kept as evidence. What was interrupted goes on where it was.
func (c Copy) Run(ctx context.Context) (Report, error) {
	if c.Failpoint == nil {
		c.Failpoint = func(string) {}
	}
	r := Report{Origin: c.Policy.Origin}
	theirs, err := Open(ctx, c.Policy, c.From)
	if err != nil {
		return r, fmt.Errorf("source: %w", err)
	}
	ours, err := c.ours(ctx)
	if err != nil {
		return r, fmt.Errorf("mirror: %w", err)
	}
	r.Was, r.Size, r.Source = ours.Size, ours.Size, theirs.Size
	if err := c.consistent(ctx, ours, theirs); err != nil {
		return r, err
	}
	if theirs.Size < ours.Size || bytes.Equal(theirs.Note, ours.Note) {
		return r, nil
	}
	if err := c.bundles(ctx, ours, theirs); err != nil {
		return r, err
	}
	if err := c.tiles(ctx, ours, theirs); err != nil {
		return r, err
	}
	c.Failpoint("mirror.copied")
	done, err := c.To.Swap(ctx, "checkpoint", ours.Note, theirs.Note)
	if err == nil && !done {
		err = errors.New("mirror: another program writes it: one is enough")
	}
	if err != nil {
		return r, err
	}
	r.Size = theirs.Size
	c.Failpoint("mirror.checkpoint")
	return r, c.dropPartial(ctx, ours.Size, theirs.Size)
}

// ours reads what is mirrored so far. That is verified like anybody's.
func (c Copy) ours(ctx context.Context) (*Tree, error) {
	note, err := c.To.Get(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	if note == nil {
		return &Tree{Root: sha256.Sum256(nil)}, nil
	}
	return Open(ctx, c.Policy, c.own)
}

func (c Copy) own(ctx context.Context, path string) ([]byte, error) {
	data, err := c.To.Get(ctx, path)
	if err == nil && data == nil {
		err = errors.New("it is missing")
	}
	return data, err
}

// consistent compares the two trees at the size of the smaller one. Each is verified under its own checkpoint, so that a difference
// is nobody's damage: the log has signed both.
func (c Copy) consistent(ctx context.Context, ours, theirs *Tree) error {
	small, large := ours, theirs
	if theirs.Size < ours.Size {
		small, large = theirs, ours
	}
	root, err := large.RootAt(ctx, small.Size)
	if err != nil {
		return err
	}
	if root == small.Root {
		return nil
	}
	sum := sha256.Sum256(theirs.Note)
	dir := fmt.Sprintf("evidence/%x", sum[:8])
	err = errors.Join(c.To.Put(ctx, dir+"/mirrored", ours.Note), c.To.Put(ctx, dir+"/source", theirs.Note))
	return errors.Join(fmt.Errorf("%w: %s at size %d is not a continuation of it at size %d, and both are signed; the mirror stands as it was, the evidence is in %s",
		ErrForked, c.Policy.Origin, large.Size, small.Size, dir), err)
}

// bundles copies the entries that are new. What an interrupted run has copied is looked at, and not fetched again.
func (c Copy) bundles(ctx context.Context, ours, theirs *Tree) error {
	for n := ours.Size / width; n < theirs.Bundles(); n++ {
		path := Path("entries", n, int(min(width, theirs.Size-n*width)))
		have, err := c.To.Get(ctx, path)
		if err != nil {
			return err
		}
		if have != nil {
			if _, _, err := theirs.check(ctx, n, have, false); err == nil {
				continue
			}
		}
		_, raw, err := theirs.Bundle(ctx, n)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if err := c.To.Put(ctx, path, raw); err != nil {
			return err
		}
		c.Failpoint("mirror.bundle")
	}
	return nil
}

// tiles writes the tiles that are new or wider.
func (c Copy) tiles(ctx context.Context, ours, theirs *Tree) error {
	for level := 0; theirs.hashes(level) > 0; level++ {
		for n := ours.hashes(level) / width; n*width < theirs.hashes(level); n++ {
			data, err := theirs.Tile(ctx, level, n)
			if err != nil {
				return fmt.Errorf("source: %w", err)
			}
			path := Path(strconv.Itoa(level), n, len(data)/hashSize)
			have, err := c.To.Get(ctx, path)
			if err != nil {
				return err
			}
			if bytes.Equal(have, data) {
				continue
			}
			if err := c.To.Put(ctx, path, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropPartial removes the partial files of what is full since.
func (c Copy) dropPartial(ctx context.Context, from, now uint64) error {
	drop := func(kind string, from, now uint64) error {
		for n := from / width; n < now/width; n++ {
			if err := c.To.Drop(ctx, Path(kind, n, width)+".p"); err != nil {
				return err
			}
		}
		return nil
	}
	for level := 0; now>>(8*level) > 0; level++ {
		if err := drop(strconv.Itoa(level), from>>(8*level), now>>(8*level)); err != nil {
			return err
		}
	}
	return drop("entries", from, now)
}
