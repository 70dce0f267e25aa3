// Package delta makes deltas: see wire/delta for what they are.
//
// Stage 3, field. It finds in an old image what a new one is like, in the manner of bsdiff: where much is the same at the same distance, the bytes that are not become a sum that is mostly zeros, and
// compresses to little. Addresses in programs are like that, which change everywhere when something is put in.
//
// What it guarantees: a delta that Make returns without an error was applied to the old image, by what devices apply it with, and gave the new one. It takes at most five times
// the old image, three times the new one and 160 MiB of memory, for as long as it works.
package delta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/hallmark-iot/hallmark/wire/delta"
)

// MaxImage bounds both images, bytes. They lie in memory while a delta is made.
const MaxImage = 128 << 20

// Make writes a delta that makes image of old. ctx ends it early.
func Make(ctx context.Context, old, image []byte, w io.Writer) error {
	if len(old) == 0 || len(image) == 0 || len(old) > MaxImage || len(image) > MaxImage {
		return fmt.Errorf("delta: images of %d and %d bytes: want 1 to %d", len(old), len(image), MaxImage)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(delta.Window), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	from, to := sha256.Sum256(old), sha256.Sum256(image)
	h := delta.Header{From: from[:], FromSize: uint64(len(old)), To: to[:], ToSize: uint64(len(image))}
	frames := make([]byte, 0, len(image)) // what is not written of it takes no memory; that it grew would
	var plain []byte
	err = newFinder(old, image).segments(ctx, func(at, end int, steps []step) {
		plain = segment(plain[:0], old, image[at:end], steps)
		before := len(frames)
		frames = enc.EncodeAll(plain, frames)
		sum := sha256.Sum256(image[at:end])
		h.Frames, h.Sums = append(h.Frames, uint32(len(frames)-before)), append(h.Sums, sum[:]...)
	})
	if err != nil {
		return err
	}
	head, err := h.Encode()
	if err != nil {
		return err
	}
	if err := Check(old, image, io.MultiReader(bytes.NewReader(head), bytes.NewReader(frames))); err != nil {
		return err
	}
	if _, err = w.Write(head); err != nil {
		return err
	}
	_, err = w.Write(frames)
	return err
}

// Check says whether a delta makes image of old, by applying it.
func Check(old, image []byte, r io.Reader) error {
	h, err := delta.Read(r)
	if err != nil {
		return err
	}
	a, err := delta.NewApplier()
	if err != nil {
		return err
	}
	defer a.Close()
	if h.ToSize != uint64(len(image)) || h.FromSize != uint64(len(old)) {
		return errors.New("delta: it is of other images")
	}
	for i := range h.Frames {
		out, err := a.Segment(h, i, bytes.NewReader(old), r)
		if err != nil {
			return err
		}
		if at := i * delta.Segment; !bytes.Equal(out, image[at:at+len(out)]) {
			return fmt.Errorf("delta: segment %d is not that of the image", i)
		}
	}
	return nil
}

// step says of a stretch of the image where in the old one it is nearly so, and how many bytes behind it are nowhere.
type step struct {
	at       int // in the image
	from     int // in the old one
	add, new int
}

// within appends the steps, cut to a stretch of the image.
func within(out, steps []step, from, end int) []step {
	for _, s := range steps {
		if s.at+s.add+s.new <= from || s.at >= end {
			continue
		}
		if cut := from - s.at; cut > 0 {
			add := min(cut, s.add)
			s.at, s.from, s.add, s.new = from, s.from+add, s.add-add, s.new-(cut-add)
		}
		if s.at+s.add > end {
			s.add, s.new = end-s.at, 0
		}
		s.new = min(s.new, end-s.at-s.add)
		out = append(out, s)
	}
	return out
}

// segment appends a segment's frame before it is compressed. image is its part of the image alone.
func segment(out, old, image []byte, steps []step) []byte {
	steps = coarse(steps)
	out = binary.AppendUvarint(out, uint64(len(steps)))
	place := 0
	for _, s := range steps {
		out = binary.AppendVarint(out, int64(s.from-place))
		out = binary.AppendUvarint(out, uint64(s.add))
		out = binary.AppendUvarint(out, uint64(s.new))
		place = s.from + s.add
	}
	at := 0
	for _, s := range steps {
		for i := range s.add {
			out = append(out, image[at+i]-old[s.from+i])
		}
		at += s.add + s.new
	}
	at = 0
	for _, s := range steps {
		out = append(out, image[at+s.add:at+s.add+s.new]...)
		at += s.add + s.new
	}
	return out
}

// coarse joins neighbours, what is added of the second being new then, until there are no more of them than a segment may have.
func coarse(steps []step) []step {
	for len(steps) > delta.MaxSteps {
		half := steps[:0]
		for i := 0; i < len(steps); i += 2 {
			s := steps[i]
			if i+1 < len(steps) {
				s.new += steps[i+1].add + steps[i+1].new
			}
			half = append(half, s)
		}
		steps = half
	}
	return steps
}

// window is how many bytes two images have to have alike, somewhere, to be looked at there.
const window = 8

// finder finds where the old image has what the image has: chains of the places in it that begin alike.
type finder struct {
	old, image []byte
	first      []int32 // by the hash of window bytes: the last place in old that has it, and one; 0: none
	next       []int32 // by place: the one before with the same hash
	shift      uint
}

// depth is how many places that begin alike are looked at.
const depth = 48

func newFinder(old, image []byte) *finder {
	bits := uint(10)
	for 1<<bits < len(old) && bits < 24 {
		bits++
	}
	f := &finder{old: old, image: image, first: make([]int32, 1<<bits), next: make([]int32, len(old)), shift: 64 - bits}
	for i := 0; i+window <= len(old); i++ {
		h := f.hash(old[i:])
		f.next[i], f.first[h] = f.first[h], int32(i+1)
	}
	return f
}

func (f *finder) hash(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9E3779B97F4A7C15 >> f.shift
}

// longest is as far as a match is measured: one that is longer is taken on its way anyway.
const longest = 1 << 12

// match gives where the old image has the most of what the image has at scan, and how much of it.
func (f *finder) match(scan int) (at, length int) {
	if scan+window > len(f.image) {
		return 0, 0
	}
	want := f.image[scan:min(scan+longest, len(f.image))]
	place := f.first[f.hash(want)]
	for n := 0; place != 0 && n < depth; n++ {
		i := int(place - 1)
		if length == 0 || i+length < len(f.old) && length < len(want) && f.old[i+length] == want[length] {
			if k := alike(f.old[i:], want); k > length {
				at, length = i, k
			}
		}
		place = f.next[i]
	}
	return at, length
}

// alike is how many bytes two begin with that are the same.
func alike(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// same says whether the image at i is as the old one is, off bytes from there.
func (f *finder) same(i, off int) bool {
	j := i + off
	return j >= 0 && j < len(f.old) && f.old[j] == f.image[i]
}

// better is by how many bytes another place in the old image has to be more alike to be gone to.
const better = 8

// sure is how many bytes in a row that are as at the place where one is make it not worth looking for another.
const sure = 32

// steps goes through the image. It is Percival's way (Naive differences of executable code, 2003): go on at a place of the old image for as long as no other one is like it by more than a few bytes; then let the
// old stretch reach forward, and the new one back, as far as more than half of the bytes are alike.
func (f *finder) steps(ctx context.Context, give func(step)) error {
	scan, length, place := 0, 0, 0
	last, off := 0, 0 // where what is not written yet begins, and what has to be added to be at its place in old
	for scan < len(f.image) {
		if err := ctx.Err(); err != nil {
			return err
		}
		scan += length
		var here int
		scan, place, length, here = f.leave(scan, off)
		if length == here && scan < len(f.image) {
			continue
		}
		forward := f.forward(last, off, scan)
		back := 0
		if scan < len(f.image) {
			back = f.back(last, scan, place)
		}
		if over := last + forward - (scan - back); over > 0 {
			keep := f.share(last+forward-over, off, place-scan, over)
			forward, back = forward-over+keep, back-keep
		}
		give(step{at: last, from: last + off, add: forward, new: scan - back - last - forward})
		last, off = scan-back, place-scan
	}
	return nil
}

// segments gives the steps of each segment of the image, one segment after another, so that no more of them are there at once. They are whoever's they are given to until it returns.
func (f *finder) segments(ctx context.Context, give func(at, end int, steps []step)) error {
	var steps, cut []step // from the segment's first on; those that are given
	at, place := 0, 0
	return f.steps(ctx, func(s step) {
		s.new = min(s.new, len(f.image)-s.at-s.add)
		if s.add == 0 {
			s.from = place
		}
		if s.add+s.new == 0 {
			return // it gives nothing
		}
		place = s.from + s.add
		steps = append(steps, s)
		for done := s.at + s.add + s.new; at < len(f.image); {
			end := min(at+delta.Segment, len(f.image))
			if done < end {
				return
			}
			cut = within(cut[:0], steps, at, end)
			give(at, end, cut)
			at, steps = end, append(steps[:0], s)
		}
	})
}

// leave goes on from scan until the old image has elsewhere what is more alike than where one is, which is off bytes from there; or just as much as there: then one stays.
func (f *finder) leave(scan, off int) (at, place, length, here int) {
	counted := scan // here counts those alike in scan … counted
	for ; scan < len(f.image); scan++ {
		if j := scan + off; j >= 0 && j < len(f.old) {
			if n := alike(f.old[j:], f.image[scan:]); n >= sure {
				return scan, j, n, n
			}
		}
		place, length = f.match(scan)
		for counted = max(counted, scan); counted < scan+length; counted++ {
			if f.same(counted, off) {
				here++
			}
		}
		if length == here && length != 0 || length > here+better {
			return scan, place, length, here
		}
		if counted > scan && f.same(scan, off) {
			here--
		}
	}
	return scan, place, 0, math.MaxInt
}

// forward is how far the old stretch reaches, from last on.
func (f *finder) forward(last, off, scan int) (reach int) {
	alike, best := 0, 0
	for i := 0; last+i < scan && last+i+off < len(f.old); i++ {
		if f.same(last+i, off) {
			alike++
		}
		if score := 2*alike - (i + 1); score > best {
			best, reach = score, i+1
		}
	}
	return reach
}

// back is how far the new stretch reaches back from scan, which is at place in the old image.
func (f *finder) back(last, scan, place int) (reach int) {
	alike, best := 0, 0
	for i := 1; scan-i >= last && place-i >= 0; i++ {
		if f.same(scan-i, place-scan) {
			alike++
		}
		if score := 2*alike - i; score > best {
			best, reach = score, i
		}
	}
	return reach
}

// share says how much of a stretch that both reach belongs to the old place.
func (f *finder) share(from, off, other, over int) (keep int) {
	score, best := 0, 0
	for i := range over {
		if f.same(from+i, off) {
			score++
		}
		if f.same(from+i, other) {
			score--
		}
		if score > best {
			best, keep = score, i+1
		}
	}
	return keep
}
