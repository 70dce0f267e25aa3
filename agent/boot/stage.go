package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Source opens a component's bytes from an offset on.
type Source func(ctx context.Context, c wire.Component, offset int64) (io.ReadCloser, error)

// planned is where a release will be.
type planned struct {
	set   set
	body  []byte // of its record
	fresh []bool // components whose bytes are still to come
}

// plan finds a place for each component: where its bytes are already, or in sectors that are not taken. It writes nothing. here gives the area in
// which a component's bytes are, and may be nil.
func (f *Flash) plan(env []byte, rel wire.Release, here func(wire.Component, sectorSet) (area, bool, error), taken sectorSet) (planned, error) {
	p := planned{set: set{env: env, areas: make([]area, len(rel.Components))}, fresh: make([]bool, len(rel.Components))}
	sector, used := f.pool.Sector(), make(sectorSet, len(taken))
	for i, c := range rel.Components {
		p.fresh[i] = true
		if here == nil {
			continue
		}
		a, ok, err := here(c, used)
		if err != nil {
			return planned{}, err
		}
		if ok {
			p.set.areas[i], p.fresh[i] = a, false
			used.add(a)
			taken.add(a)
		}
	}
	rec := record{Envelope: env}
	for i, c := range rel.Components {
		if p.fresh[i] {
			ext, err := taken.take(sectorsFor(c.Size, sector))
			if err != nil {
				return planned{}, fmt.Errorf("component %s of %d bytes: %w: what runs and the components before it leave too few of %d sectors of %d bytes", c.Name, c.Size, err,
					len(taken), sector)
			}
			p.set.areas[i] = area{pool: f.pool, ext: ext}
		}
		rec.Areas = append(rec.Areas, p.set.areas[i].ext)
	}
	var err error
	if p.body, err = wire.Marshal(rec); err == nil && len(p.body) > maxBody {
		err = fmt.Errorf("%w: what is free is in too many pieces", wire.ErrNoRoom)
	}
	return p, err
}

// staging is one release on its way into the idle slot.
type staging struct {
	m        *Manager
	slot     Slot
	env      []byte
	rel      wire.Release
	digest   [32]byte
	src      Source
	laid     bool // the release's image lies in a bank already, and is not brought
	progress func(done, of uint64)
}

// confirmed is the set that is confirmed, and the sectors that must not be touched because of it. There is none when nothing is confirmed, or when it
// cannot be read and so cannot start either. On a device that starts nothing, what is damaged of it does not stand in the way of what would mend it.
func (in *staging) confirmed(c control) (set, sectorSet, error) {
	pinned := make(sectorSet, in.m.flash.pool.Size()/in.m.flash.pool.Sector())
	if !c.Valid {
		return set{}, pinned, nil
	}
	s, err := in.m.flash.load(c.Active)
	if errors.Is(err, errNoRelease) {
		return set{}, pinned, nil
	}
	if err != nil {
		return s, pinned, err
	}
	rel, err := s.manifest()
	if err != nil && in.m.rep.Release != nil {
		return s, pinned, err
	}
	if err != nil {
		return set{}, pinned, nil //nolint:nilerr // it is no release, and starts never
	}
	for i, a := range s.areas {
		if rel.Components[i].Kind == wire.KindImage {
			continue // it lies in a bank, and was only on its way here
		}
		if in.m.rep.Release != nil {
			pinned.add(a)
			continue
		}
		same, err := holds(a, rel.Components[i])
		if err != nil {
			return set{}, nil, err
		}
		if same {
			pinned.add(a)
		}
	}
	return s, pinned, nil
}

func (in *staging) run(ctx context.Context, c *control) error {
	kept, pinned, err := in.confirmed(*c)
	if err != nil {
		return err
	}
	p, begun, err := in.begun(*c, pinned)
	if err == nil && !begun {
		p, err = in.begin(c, kept, pinned)
	}
	if err != nil {
		return err
	}
	var done, of uint64
	for i, comp := range in.rel.Components {
		if p.fresh[i] {
			of += comp.Size
		}
	}
	for i := range in.rel.Components {
		if !p.fresh[i] {
			continue
		}
		if err := in.fill(ctx, p.set, i, begun, func(n int64) {
			done += uint64(n)
			if in.progress != nil {
				in.progress(done, of)
			}
		}); err != nil {
			return err
		}
	}
	return in.m.install(ctx, in.rel, p.set)
}

// begun finds what an attempt before has laid down: its places stand, and their sectors were made ready.
func (in *staging) begun(c control, pinned sectorSet) (planned, bool, error) {
	if !bytes.Equal(c.Staging, in.digest[:]) {
		return planned{}, false, nil
	}
	s, err := in.m.flash.load(in.slot)
	same := err == nil && bytes.Equal(s.env, in.env) && s.fits(in.rel) == nil
	if same {
		same, err = in.m.flash.marked(in.slot)
	}
	if errors.Is(err, errNoRelease) || err == nil && !same {
		return planned{}, false, nil
	}
	if err != nil {
		return planned{}, false, err
	}
	p := planned{set: s}
	for i, a := range s.areas {
		p.fresh = append(p.fresh, !pinned.holds(a) && !in.passes(i))
		if p.fresh[i] || in.passes(i) {
			continue
		}
		same, err := holds(a, in.rel.Components[i])
		if err != nil {
			return planned{}, false, err
		}
		if !same { // it was shared, and is damaged now: it is not ours to mend in place
			return planned{}, false, nil
		}
	}
	return p, true, nil
}

// passes reports whether component i is an image that needs no bringing.
func (in *staging) passes(i int) bool { return in.laid && in.rel.Components[i].Kind == wire.KindImage }

// begin plans and lays down the record. Until the plan stands nothing is written.
func (in *staging) begin(c *control, kept set, pinned sectorSet) (planned, error) {
	before, err := in.m.flash.load(in.slot)
	if err != nil && !errors.Is(err, errNoRelease) {
		return planned{}, err
	}
	p, err := in.m.flash.plan(in.env, in.rel, func(comp wire.Component, used sectorSet) (area, bool, error) {
		for i, s := range []set{kept, before} {
			if i == 0 && in.rel.Model != wire.ModelAsset {
				continue // a whole image has a copy of its own: what damages one leaves the other
			}
			a, ok, err := s.find(comp, func(a area) bool { return !used.holds(a) && (i == 0 || !pinned.holds(a)) })
			if ok || err != nil {
				return a, ok, err
			}
		}
		return area{}, false, nil
	}, append(sectorSet(nil), pinned...))
	if err != nil {
		return planned{}, err
	}
	c.Staged, c.Staging = nil, in.digest[:]
	if err := in.m.flash.saveControl(*c); err != nil {
		return planned{}, err
	}
	var fresh []area
	for i, a := range p.set.areas {
		p.fresh[i] = p.fresh[i] && !in.passes(i)
		if p.fresh[i] {
			fresh = append(fresh, a)
		}
	}
	return p, in.m.flash.lay(in.slot, p.body, fresh)
}

// find gives an area of the set that may be used and has the component's bytes, read now.
func (s set) find(c wire.Component, may func(area) bool) (area, bool, error) {
	if len(s.areas) == 0 {
		return area{}, false, nil
	}
	rel, err := s.manifest()
	if err != nil {
		return area{}, false, nil //nolint:nilerr // it is no release: nothing of it is used
	}
	for i, have := range rel.Components {
		if have.Size != c.Size || !bytes.Equal(have.Digest, c.Digest) || !may(s.areas[i]) {
			continue
		}
		if same, err := holds(s.areas[i], c); same || err != nil {
			return s.areas[i], same, err
		}
	}
	return area{}, false, nil
}

// holds reports whether the area has the component's bytes.
func holds(a area, c wire.Component) (bool, error) {
	sum, err := hashOf(io.NewSectionReader(a, 0, int64(c.Size)))
	return err == nil && bytes.Equal(sum[:], c.Digest), err
}

// fill writes component i, from where it was broken off if it was begun before, and checks what is there then.
func (in *staging) fill(ctx context.Context, s set, i int, begun bool, wrote func(n int64)) error {
	a, c := s.areas[i], in.rel.Components[i]
	from := int64(0)
	if begun {
		var err error
		if from, err = resume(a, c); err != nil {
			return err
		}
		wrote(from)
	}
	if from < int64(c.Size) {
		if err := in.copy(ctx, a, c, from, wrote); err != nil {
			return err
		}
	}
	sum, err := hashOf(s.component(in.rel, i))
	if err != nil {
		return err
	}
	if !bytes.Equal(sum[:], c.Digest) {
		return fmt.Errorf("component %s: %w: got %x, want %x", c.Name, ErrBytes, sum[:8], c.Digest[:8])
	}
	return nil
}

func (in *staging) copy(ctx context.Context, a area, c wire.Component, from int64, wrote func(n int64)) (err error) {
	r, err := in.src(ctx, c, from)
	if err != nil {
		return fmt.Errorf("component %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	page := a.pool.Page()
	size := min(max(chunk/page, 1)*page, (int64(c.Size)-from+page-1)/page*page)
	buf := make([]byte, size)
	for from < int64(c.Size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(size, int64(c.Size)-from)
		got, err := io.ReadFull(r, buf[:n])
		if err != nil { // what came is kept, as far as it fills pages
			n = int64(got) / page * page
		}
		end := (n + page - 1) / page * page
		for i := n; i < end; i++ {
			buf[i] = 0xff
		}
		if perr := a.program(from, buf[:end]); perr != nil {
			return perr
		}
		if err != nil {
			return fmt.Errorf("component %s at %d of %d: %w", c.Name, from+n, c.Size, err)
		}
		from += n
		wrote(n)
	}
	return nil
}

// resume finds how much of a component was written before a cut. The page that was written last may be torn, so its sector is made blank and
// written again.
func resume(a area, c wire.Component) (int64, error) {
	page, sector, size := a.pool.Page(), a.pool.Sector(), int64(c.Size)
	written := int64(0)
	buf, blank := make([]byte, page), bytes.Repeat([]byte{0xff}, int(page))
	for off := int64(0); off < size; off += page {
		if _, err := a.ReadAt(buf, off); err != nil {
			return 0, err
		}
		if !bytes.Equal(buf, blank) {
			written = off + page
		}
	}
	if written >= size {
		if same, err := holds(a, c); same || err != nil {
			return size, err
		}
	}
	if written == 0 {
		return 0, nil
	}
	from := (written - page) / sector * sector
	return from, a.erase(from, written)
}

// The pool's regions are read by offset.
var _ io.ReaderAt = hw.Region{}
