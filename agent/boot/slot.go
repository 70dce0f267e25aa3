package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// slotMagic begins the first page of a slot that holds a release; length and digest of its envelope follow.
var slotMagic = [4]byte{'H', 'M', 's', '1'}

const slotHead = 4 + 4 + sha256.Size

// chunk is how much is read and hashed at once; no allocation grows with the image.
const chunk = 64 << 10

var errNoRelease = errors.New("no release in the slot")

// parseSlotHead reads the first bytes of a slot.
func parseSlotHead(b []byte) (length uint32, sum [32]byte, err error) {
	if len(b) < slotHead || !bytes.Equal(b[:4], slotMagic[:]) {
		return 0, sum, errNoRelease
	}
	length = binary.BigEndian.Uint32(b[4:])
	if length == 0 || length > wire.MaxEnvelope {
		return 0, sum, errNoRelease
	}
	return length, [32]byte(b[8:slotHead]), nil
}

// envelope reads the signed release of a slot. It is whole, but not verified.
func envelope(r hw.Region) ([]byte, error) {
	var b [slotHead]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, err
	}
	n, sum, err := parseSlotHead(b[:])
	if err != nil {
		return nil, err
	}
	env := make([]byte, n)
	if _, err := r.ReadAt(env, r.Page()); err != nil {
		return nil, err
	}
	if sha256.Sum256(env) != sum {
		return nil, errNoRelease
	}
	return env, nil
}

// place is where component i of a release begins in a slot, and where the last one ends.
func place(r hw.Region, rel wire.Release, i int) int64 {
	off := int64(envelopeSize)
	off = (off + r.Page() - 1) / r.Page() * r.Page()
	for _, c := range rel.Components[:i] {
		off += (int64(c.Size) + r.Page() - 1) / r.Page() * r.Page()
	}
	return off
}

// fits refuses a release that is larger than the slot, before anything is written.
func fits(r hw.Region, rel wire.Release) error {
	var total uint64
	for _, c := range rel.Components {
		if c.Size > uint64(r.Size()) {
			return fmt.Errorf("component %s of %d bytes: %w", c.Name, c.Size, hw.ErrRange)
		}
		total += c.Size + uint64(r.Page())
	}
	if total > uint64(r.Size()) || place(r, rel, len(rel.Components)) > r.Size() {
		return fmt.Errorf("release of %d bytes does not fit a slot of %d: %w", total, r.Size(), hw.ErrRange)
	}
	return nil
}

// Component reads the bytes of component i in the slot.
func component(r hw.Region, rel wire.Release, i int) *io.SectionReader {
	return io.NewSectionReader(r, place(r, rel, i), int64(rel.Components[i].Size))
}

func hashOf(r io.Reader) ([32]byte, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, chunk)); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// checkBytes compares each component in the slot with the digest its release names.
func checkBytes(r hw.Region, rel wire.Release) error {
	for i, c := range rel.Components {
		sum, err := hashOf(component(r, rel, i))
		if err != nil {
			return err
		}
		if !bytes.Equal(sum[:], c.Digest) {
			return fmt.Errorf("component %s is not the one that was signed: measured %x, want %x", c.Name, sum[:8], c.Digest[:8])
		}
	}
	return nil
}

// beginSlot erases a slot and lays down the signed release.
func beginSlot(r hw.Region, env []byte) error {
	if err := r.EraseAll(); err != nil {
		return err
	}
	if err := r.Program(r.Page(), padded(env, r.Page())); err != nil {
		return err
	}
	sum := sha256.Sum256(env)
	head := binary.BigEndian.AppendUint32(slotMagic[:len(slotMagic):len(slotMagic)], uint32(len(env)))
	return r.Program(0, padded(append(head, sum[:]...), r.Page()))
}

func padded(b []byte, page int64) []byte {
	n := (int64(len(b)) + page - 1) / page * page
	return append(bytes.Clone(b), bytes.Repeat([]byte{0xff}, int(n)-len(b))...)
}

// Source opens a component's bytes from an offset on.
type Source func(ctx context.Context, c wire.Component, offset int64) (io.ReadCloser, error)

// fill writes component i from where it was broken off, and checks it.
func fill(ctx context.Context, r hw.Region, rel wire.Release, i int, src Source, wrote func(n int64)) error {
	c := rel.Components[i]
	from, err := resume(r, rel, i)
	if err != nil {
		return err
	}
	wrote(from)
	if from < int64(c.Size) {
		if err := fillFrom(ctx, r, rel, i, from, src, wrote); err != nil {
			return err
		}
	}
	sum, err := hashOf(component(r, rel, i))
	if err != nil {
		return err
	}
	if !bytes.Equal(sum[:], c.Digest) {
		return fmt.Errorf("component %s: %w: got %x, want %x", c.Name, errBytes, sum[:8], c.Digest[:8])
	}
	return nil
}

var errBytes = errors.New("not the bytes that were signed")

func fillFrom(ctx context.Context, r hw.Region, rel wire.Release, i int, from int64, src Source, wrote func(n int64)) (err error) {
	c := rel.Components[i]
	in, err := src(ctx, c, from)
	if err != nil {
		return fmt.Errorf("component %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	buf := make([]byte, max(chunk/r.Page(), 1)*r.Page())
	off := place(r, rel, i)
	for from < int64(c.Size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), int64(c.Size)-from)
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return fmt.Errorf("component %s at %d of %d: %w", c.Name, from, c.Size, err)
		}
		if err := r.Program(off+from, padded(buf[:n], r.Page())); err != nil {
			return err
		}
		from += n
		wrote(n)
	}
	return nil
}

// resume finds how much of a component was written before a cut. The last written page may be torn, so its sector's pages are
// not counted: they are taken from there on, after the sector is made blank again.
func resume(r hw.Region, rel wire.Release, i int) (int64, error) {
	start, size := place(r, rel, i), int64(rel.Components[i].Size)
	page, sector := r.Page(), r.Sector()
	written := int64(0)
	buf := make([]byte, page)
	for off := int64(0); off < size; off += page {
		if _, err := r.ReadAt(buf, start+off); err != nil {
			return 0, err
		}
		if !bytes.Equal(buf, bytes.Repeat([]byte{0xff}, int(page))) {
			written = off + page
		}
	}
	if written == 0 {
		return 0, nil
	}
	if written >= size {
		if sum, err := hashOf(component(r, rel, i)); err != nil || bytes.Equal(sum[:], rel.Components[i].Digest) {
			return size, err
		}
	}
	// Back to the start of the sector that holds the last written page; a sector shared with the component before is not ours
	// to erase, so then everything is begun anew by the caller.
	from := (start+written-page)/sector*sector - start
	if from < 0 {
		return 0, errRestart
	}
	for n := (start + from) / sector; n <= (start+written-1)/sector; n++ {
		if err := r.Erase(n); err != nil {
			return 0, err
		}
	}
	return from, nil
}

var errRestart = errors.New("what is in the slot cannot be gone on with")
