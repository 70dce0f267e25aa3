package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// A slot holds the record of a set: a signed release, and where in the pool the bytes of each of its components are. Two sets may name the same
// sectors: a component that an update does not change stays where it is. The record is three parts, on pages of their own, written in this order:
//
//	page 2…  body: CBOR
//	page 0   head: setMagic, length of the body (uint32, big-endian), SHA-256 of the body
//	page 1   mark: setMark, the same SHA-256; from then on the sectors for what is new are erased, and what is in them belongs to this set
type record struct {
	Envelope []byte     `cbor:"1,keyasint"`
	Areas    [][]extent `cbor:"2,keyasint"` // of each component, in the release's order
}

var (
	setMagic = [4]byte{'H', 'M', 's', '2'}
	setMark  = [4]byte{'H', 'M', 's', 'm'}
)

const (
	setHead = 4 + 4 + sha256.Size
	maxBody = wire.MaxEnvelope + 32<<10 // with some two thousand pieces of components
)

// chunk is how much is read and hashed at once; no allocation grows with the image.
const chunk = 128 << 10

// set is what a record says.
type set struct {
	env   []byte
	areas []area
}

var errNoRelease = errors.New("no release in the slot")

// parseHead reads the first bytes of a slot.
func parseHead(b []byte) (length uint32, sum [32]byte, err error) {
	if len(b) < setHead || !bytes.Equal(b[:4], setMagic[:]) {
		return 0, sum, errNoRelease
	}
	length = binary.BigEndian.Uint32(b[4:])
	if length == 0 || length > maxBody {
		return 0, sum, errNoRelease
	}
	return length, [32]byte(b[8:setHead]), nil
}

// parseRecord reads the body of a record: each component has its own sectors of a pool that has so many.
func parseRecord(body []byte, sectors int64) (record, error) {
	var r record
	if err := wire.Unmarshal(body, &r, maxBody); err != nil {
		return record{}, fmt.Errorf("%w: %w", errNoRelease, err)
	}
	if len(r.Envelope) == 0 || len(r.Areas) == 0 || len(r.Areas) > wire.MaxComponents {
		return record{}, fmt.Errorf("%w: %d areas", errNoRelease, len(r.Areas))
	}
	used := make(sectorSet, sectors)
	for i, ext := range r.Areas {
		if len(ext) == 0 {
			return record{}, fmt.Errorf("%w: area %d is nowhere", errNoRelease, i)
		}
		for _, e := range ext {
			if e.First < 0 || e.Count <= 0 || e.Count > sectors || e.First > sectors-e.Count {
				return record{}, fmt.Errorf("%w: area %d lies outside the pool", errNoRelease, i)
			}
			if one := (area{ext: []extent{e}}); used.holds(one) {
				return record{}, fmt.Errorf("%w: area %d lies in another", errNoRelease, i)
			} else {
				used.add(one)
			}
		}
	}
	return r, nil
}

// bodyOf reads the body of a slot's record, whole, and its digest.
func bodyOf(r hw.Region) (body []byte, sum [32]byte, err error) {
	var b [setHead]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, sum, err
	}
	n, sum, err := parseHead(b[:])
	if err != nil {
		return nil, sum, err
	}
	body = make([]byte, n)
	if _, err := r.ReadAt(body, 2*r.Page()); err != nil {
		return nil, sum, err
	}
	if sha256.Sum256(body) != sum {
		return nil, sum, errNoRelease
	}
	return body, sum, nil
}

// load reads the set of a slot. It is whole, but not verified.
func (f *Flash) load(s Slot) (set, error) {
	body, _, err := bodyOf(f.slots[s])
	if err != nil {
		return set{}, err
	}
	rec, err := parseRecord(body, f.pool.Size()/f.pool.Sector())
	if err != nil {
		return set{}, err
	}
	out := set{env: rec.Envelope}
	for _, ext := range rec.Areas {
		out.areas = append(out.areas, area{pool: f.pool, ext: ext})
	}
	return out, nil
}

// marked reports whether the slot's record has its mark.
func (f *Flash) marked(s Slot) (bool, error) {
	r := f.slots[s]
	_, sum, err := bodyOf(r)
	if err != nil {
		return false, err
	}
	var b [4 + sha256.Size]byte
	if _, err := r.ReadAt(b[:], r.Page()); err != nil {
		return false, err
	}
	return bytes.Equal(b[:], append(setMark[:len(setMark):len(setMark)], sum[:]...)), nil
}

// lay writes the record of a set that is planned, and makes the areas ready that something new comes into.
func (f *Flash) lay(s Slot, body []byte, fresh []area) error {
	r := f.slots[s]
	for n := range sectorsFor(uint64(2*r.Page())+uint64(len(body)), r.Sector()) {
		if err := r.Erase(n); err != nil {
			return err
		}
	}
	if err := r.Program(2*r.Page(), padded(body, r.Page())); err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	head := binary.BigEndian.AppendUint32(setMagic[:len(setMagic):len(setMagic)], uint32(len(body)))
	if err := r.Program(0, padded(append(head, sum[:]...), r.Page())); err != nil {
		return err
	}
	for _, a := range fresh {
		if err := a.erase(0, a.size()); err != nil {
			return err
		}
	}
	return r.Program(r.Page(), padded(append(setMark[:len(setMark):len(setMark)], sum[:]...), r.Page()))
}

// fits says whether the areas are those of the release.
func (s set) fits(rel wire.Release) error {
	if len(s.areas) != len(rel.Components) {
		return fmt.Errorf("%w: %d areas for %d components", errNoRelease, len(s.areas), len(rel.Components))
	}
	for i, c := range rel.Components {
		if a := s.areas[i]; a.sectors() != sectorsFor(c.Size, a.pool.Sector()) {
			return fmt.Errorf("%w: component %s of %d bytes has %d sectors", errNoRelease, c.Name, c.Size, a.sectors())
		}
	}
	return nil
}

// manifest reads the set's release without believing its signatures.
func (s set) manifest() (wire.Release, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeRelease, s.env)
	if err != nil {
		return wire.Release{}, err
	}
	rel, err := wire.DecodeRelease(payload)
	if err != nil {
		return wire.Release{}, err
	}
	return rel, s.fits(rel)
}

// component reads the bytes of component i.
func (s set) component(rel wire.Release, i int) *io.SectionReader {
	return io.NewSectionReader(s.areas[i], 0, int64(rel.Components[i].Size))
}

// checkBytes compares each component with the digest its release names. An image is in the pool only on its way into a bank, and is looked for there.
func (s set) checkBytes(rel wire.Release) error {
	for i, c := range rel.Components {
		if c.Kind == wire.KindImage {
			continue
		}
		sum, err := hashOf(s.component(rel, i))
		if err != nil {
			return err
		}
		if !bytes.Equal(sum[:], c.Digest) {
			return fmt.Errorf("component %s is not the one that was signed: measured %x, want %x", c.Name, sum[:8], c.Digest[:8])
		}
	}
	return nil
}

func padded(b []byte, page int64) []byte {
	n := (int64(len(b)) + page - 1) / page * page
	return append(bytes.Clone(b), bytes.Repeat([]byte{0xff}, int(n)-len(b))...)
}

// hashOf reads r to its end. The next part is read while the one before is hashed.
func hashOf(r *io.SectionReader) ([32]byte, error) {
	type part struct {
		b   []byte
		err error
	}
	size := min(chunk, r.Size()+1) // the end shows in the read that meets it
	full, empty := make(chan part, 1), make(chan []byte, 2)
	empty <- make([]byte, size)
	empty <- make([]byte, size)
	go func() {
		defer close(full)
		for b := range empty {
			n, err := io.ReadFull(r, b)
			full <- part{b: b[:n], err: err}
			if err != nil {
				return
			}
		}
	}()
	h := sha256.New()
	for p := range full {
		h.Write(p.b)
		switch {
		case p.err == nil:
			empty <- p.b
		case !errors.Is(p.err, io.EOF) && !errors.Is(p.err, io.ErrUnexpectedEOF):
			return [32]byte{}, p.err
		}
	}
	return [32]byte(h.Sum(nil)), nil
}
