package delta

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Applier makes segments. It takes less than 3 MiB, whatever the delta and the images: one segment, the window of a frame, the steps of a segment. It is for one goroutine.
type Applier struct {
	frames *zstd.Decoder
	in     *bufio.Reader
	out    []byte
	added  []byte
	steps  []step
}

// step is one of the n of a segment.
type step struct {
	seek     int64
	add, new uint32
}

// NewApplier makes one. Close frees what it holds.
func NewApplier() (*Applier, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(Window), zstd.WithDecoderMaxMemory(4*Segment))
	if err != nil {
		return nil, err
	}
	return &Applier{frames: d, in: bufio.NewReaderSize(nil, 16<<10), added: make([]byte, 16<<10)}, nil
}

// Close frees what it holds.
func (a *Applier) Close() { a.frames.Close() }

// Segment makes segment i of the old image, of h.FromSize bytes, and the segment's frame. What it returns is overwritten by the next. ErrFormat and ErrOld are faults of the delta's or the old image's; any
// other error is one of reading either.
func (a *Applier) Segment(h Header, i int, old io.ReaderAt, frame io.Reader) ([]byte, error) {
	if a.out == nil {
		a.out = make([]byte, Segment)
	}
	out := a.out[:h.plain(i)]
	line := &noting{r: frame}
	if err := a.make(out, old, int64(h.FromSize), io.LimitReader(line, int64(h.Frames[i]))); err != nil {
		if line.err != nil {
			return nil, line.err
		}
		return nil, fmt.Errorf("segment %d: %w", i, err)
	}
	if sum := sha256.Sum256(out); !bytes.Equal(sum[:], h.sum(i)) {
		return nil, fmt.Errorf("segment %d: %w", i, ErrOld)
	}
	return out, nil
}

// noting remembers the error of a reader, beneath what decodes it.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

func (a *Applier) make(out []byte, old io.ReaderAt, size int64, frame io.Reader) error {
	if err := a.frames.Reset(frame); err != nil {
		return malformed(err)
	}
	a.in.Reset(a.frames)
	if err := a.readSteps(len(out)); err != nil {
		return err
	}
	if err := a.add(out, old, size); err != nil {
		return err
	}
	at := 0
	for _, s := range a.steps {
		at += int(s.add)
		if _, err := io.ReadFull(a.in, out[at:at+int(s.new)]); err != nil {
			return malformed(err)
		}
		at += int(s.new)
	}
	if _, err := a.in.ReadByte(); !errors.Is(err, io.EOF) {
		return malformed(errors.Join(err, errors.New("it goes on behind its end")))
	}
	return nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", ErrFormat, err) }

// readSteps reads the steps of a segment of so many bytes; together they give just as many.
func (a *Applier) readSteps(want int) error {
	n, err := binary.ReadUvarint(a.in)
	if err != nil || n > MaxSteps {
		return malformed(fmt.Errorf("%d steps: %w", n, err))
	}
	if uint64(cap(a.steps)) < n {
		a.steps = make([]step, 0, n)
	}
	a.steps = a.steps[:0]
	left := uint64(want)
	for range n {
		seek, err := binary.ReadVarint(a.in)
		if err != nil {
			return malformed(err)
		}
		add, err := binary.ReadUvarint(a.in)
		if err != nil || add > left {
			return malformed(fmt.Errorf("a step adds %d bytes of %d: %w", add, left, err))
		}
		fresh, err := binary.ReadUvarint(a.in)
		if err != nil || fresh > left-add || add+fresh == 0 {
			return malformed(fmt.Errorf("a step brings %d bytes of %d: %w", fresh, left-add, err))
		}
		left -= add + fresh
		a.steps = append(a.steps, step{seek: seek, add: uint32(add), new: uint32(fresh)})
	}
	if left != 0 {
		return malformed(fmt.Errorf("its steps give %d bytes less than the segment has", left))
	}
	return nil
}

// add lays what is added over the old image's bytes.
func (a *Applier) add(out []byte, old io.ReaderAt, size int64) error {
	at, place := 0, int64(0)
	for _, s := range a.steps {
		if s.seek > size || s.seek < -size {
			return malformed(fmt.Errorf("a step of %d in an image of %d bytes", s.seek, size))
		}
		place += s.seek
		if place < 0 || place > size-int64(s.add) {
			return malformed(fmt.Errorf("%d bytes at %d of an image of %d", s.add, place, size))
		}
		part := out[at : at+int(s.add)]
		if n, err := old.ReadAt(part, place); n < len(part) {
			return fmt.Errorf("the old image at %d: %w", place, err)
		}
		place += int64(s.add)
		at += int(s.add) + int(s.new)
		for len(part) > 0 {
			n := min(len(part), len(a.added))
			if _, err := io.ReadFull(a.in, a.added[:n]); err != nil {
				return malformed(err)
			}
			for i, b := range a.added[:n] {
				part[i] += b
			}
			part = part[n:]
		}
	}
	return nil
}
