// Package forms gives the bytes of a release's components, whatever way they come.
//
// Stage 3, field, on the device. A server may know shorter ways to a component than its bytes, such as a delta from what the device runs. Whoever stages a release reads plain bytes from an offset on, and does not
// hear of it.
//
// What it guarantees:
//   - Whatever is wrong with a form, the component comes whole, from the byte on that is wanted next; the form is not tried again.
//   - A line that breaks is nobody's fault but the line's: who reads is told, and comes back. A form on which nothing comes for three times in a row is left.
//   - No byte of a form is given of which the form itself does not say that it is right. Whether it is, is for who knows the release to say.
//
// It trusts neither the server nor its forms.
package forms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/delta"
)

// Fetch opens the bytes with a digest from offset on. The reader ends with ctx.
type Fetch func(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error)

// Old opens the bytes of a component that runs, by its digest; false: none does.
type Old func(digest []byte) (io.ReaderAt, bool)

// maxVain is how often in a row a form may break off before anything came of it.
const maxVain = 3

// Source gives the components of one release. It is for one goroutine.
type Source struct {
	fetch Fetch
	old   Old
	forms []*form
}

// form is a way that is not given up.
type form struct {
	wire.Form
	head *delta.Header // once it was read
	vain int           // how often it broke off in a row, with nothing come of it
}

// New makes a source that knows forms of what it may be asked for. What it does not understand, or has not what it is made of, is left out.
func New(fetch Fetch, old Old, all []wire.Form) *Source {
	s := &Source{fetch: fetch, old: old}
	for _, f := range all {
		if f.Kind == wire.FormDelta {
			s.forms = append(s.forms, &form{Form: f})
		}
	}
	return s
}

// Open opens the plain bytes of a component from offset on.
func (s *Source) Open(ctx context.Context, c wire.Component, offset int64) (io.ReadCloser, error) {
	i := slices.IndexFunc(s.forms, func(f *form) bool { return bytes.Equal(f.Component, c.Digest) })
	if i < 0 || offset >= int64(c.Size) {
		return s.fetch(ctx, c.Digest, offset)
	}
	f := s.forms[i]
	old, ok := s.old(f.From)
	if !ok {
		s.leave(f)
		return s.fetch(ctx, c.Digest, offset)
	}
	apply, err := delta.NewApplier()
	if err != nil {
		return nil, err
	}
	r := &reader{s: s, ctx: ctx, c: c, f: f, old: old, apply: apply, at: offset}
	if r.begin() == nil {
		return r, nil
	}
	if err := r.whole(); err != nil { // the line is to blame then, and the form is as good as it was
		return nil, err
	}
	s.leave(f)
	return r, nil
}

// leave does without a form from now on.
func (s *Source) leave(f *form) {
	s.forms = slices.DeleteFunc(s.forms, func(o *form) bool { return o == f })
}

// reader gives the plain bytes of a component, by its form for as long as that is good.
type reader struct {
	s     *Source
	ctx   context.Context //nolint:containedctx // it is that of the one who opened it, for as long as he reads
	c     wire.Component
	f     *form
	old   io.ReaderAt
	apply *delta.Applier // nil: whole
	body  io.ReadCloser
	at    int64  // of the component: what is read next
	part  []byte // of the segment that at is in, from at on
	fault error  // once it cannot go on
}

// begin opens the form where the segment of the next byte is.
func (r *reader) begin() (err error) {
	if r.f.head == nil {
		if r.body, err = r.s.fetch(r.ctx, r.f.Digest, 0); err != nil {
			return err
		}
		h, err := delta.Read(r.body)
		if err != nil {
			return err
		}
		if !bytes.Equal(h.To, r.c.Digest) || h.ToSize != r.c.Size || !bytes.Equal(h.From, r.f.From) {
			return fmt.Errorf("%w: it is of other images", delta.ErrFormat)
		}
		r.f.head = &h
		if r.segment() == 0 {
			return nil
		}
		err = r.body.Close()
		r.body = nil
		if err != nil {
			return err
		}
	}
	place, _, err := r.f.head.Frame(r.segment())
	if err != nil {
		return err
	}
	r.body, err = r.s.fetch(r.ctx, r.f.Digest, place)
	return err
}

// segment is the one that the next byte is in.
func (r *reader) segment() int { return int(r.at / delta.Segment) }

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	if r.fault != nil {
		return 0, r.fault
	}
	if r.apply != nil && len(r.part) == 0 {
		if r.fault = r.next(); r.fault != nil {
			return 0, r.fault
		}
	}
	if r.apply == nil {
		return r.body.Read(p)
	}
	n = copy(p, r.part)
	r.part, r.at = r.part[n:], r.at+int64(n)
	if r.at >= int64(r.c.Size) {
		r.s.leave(r.f) // who comes again had all of it, and found that it was not what the release says
	}
	return n, nil
}

// next makes the next segment, or goes over to the whole component.
func (r *reader) next() error {
	if r.at >= int64(r.c.Size) {
		return io.EOF
	}
	out, err := r.apply.Segment(*r.f.head, r.segment(), r.old, r.body)
	if err == nil {
		r.f.vain, r.part = 0, out[r.at%delta.Segment:]
		return nil
	}
	if !errors.Is(err, delta.ErrFormat) && !errors.Is(err, delta.ErrOld) {
		if r.f.vain++; r.f.vain < maxVain || r.ctx.Err() != nil {
			return err
		}
	}
	if err := r.whole(); err != nil {
		return err
	}
	r.s.leave(r.f)
	return nil
}

// whole goes over to the component as it is.
func (r *reader) whole() (err error) {
	r.Close() //nolint:errcheck // of what is left, whatever the line says to that
	r.body, err = r.s.fetch(r.ctx, r.c.Digest, r.at)
	return err
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.apply != nil {
		r.apply.Close()
		r.apply = nil
	}
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}
