package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/release/delta"
	"github.com/hallmark-iot/hallmark/wire"
)

// DeltaState is where a delta is.
type DeltaState string

// The states. Useless: it would not be smaller by enough, or there can be none.
const (
	DeltaWanted  DeltaState = "wanted"
	DeltaMade    DeltaState = "made"
	DeltaUseless DeltaState = "useless"
	DeltaFailed  DeltaState = "failed"
)

// Delta makes a component of one that a device has.
type Delta struct {
	Product string     `json:"product"`
	From    [32]byte   `json:"-"` // digests of the components
	To      [32]byte   `json:"-"`
	Name    string     `json:"component"`
	Of      string     `json:"of" doc:"the version of the release whose component it is made of"`
	State   DeltaState `json:"state" enum:"wanted,made,useless,failed"`
	Digest  []byte     `json:"digest,omitempty" doc:"SHA-256 of the delta"`
	Size    uint64     `json:"size,omitempty" doc:"of the delta, bytes"`
	Whole   uint64     `json:"whole" doc:"of the component, bytes"`
	Text    string     `json:"text,omitempty" doc:"why there is none"`
	Tries   int        `json:"tries,omitempty" doc:"times that it was begun and not made"`
	At      time.Time  `json:"at" doc:"when it came into its state"`
	Given   uint64     `json:"-"` // bytes of it that devices were given
}

// Deltas keeps deltas. Writes are durable when they return nil.
type Deltas interface {
	// Unplanned gives the published release, the oldest first, of which nobody has looked what deltas it wants; ErrNotFound.
	Unplanned(ctx context.Context) (Release, error)
	// WantDeltas notes what is wanted for a release, and that it was looked. What there is of them already stands, but for what failed.
	WantDeltas(ctx context.Context, release [32]byte, all []Delta) error
	// NextDelta gives one that is wanted; ErrNotFound.
	NextDelta(ctx context.Context) (Delta, error)
	// SetDelta says what became of one that is wanted; of what another node has made meanwhile it changes nothing.
	SetDelta(ctx context.Context, d Delta) error
	// DeltasTo lists those that make components of a release.
	DeltasTo(ctx context.Context, release [32]byte) ([]Delta, error)
	// DeltasBetween lists those that were made of a component of from, and make one of to.
	DeltasBetween(ctx context.Context, from, to [32]byte) ([]Delta, error)
	// Gave adds to what devices were given of deltas. Of one that is not there any more it counts nothing.
	Gave(ctx context.Context, all []Given) error
	// RunningReleases counts the devices of a product by the release (digest) that they run.
	RunningReleases(ctx context.Context, product string) (map[[32]byte]int, error)
}

const (
	lastReleases = 3   // before a release, of which deltas are made whoever runs them
	onePart      = 100 // of which the devices of a product have to run an older one
	maxTries     = 3
)

// worth is the share of a component's size, in tenths, that a delta may have.
const worth = 7

// MakeDelta makes one delta that is wanted, if there is one, and says so. Before it, it looks what deltas releases want that were published since. For a loop that runs once.
func (s *Service) MakeDelta(ctx context.Context) (bool, error) {
	if err := s.planDeltas(ctx); err != nil {
		return false, err
	}
	d, err := s.cfg.Deltas.NextDelta(ctx)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d.Tries >= maxTries {
		d.State, d.Text, d.At = DeltaFailed, "the server ended each time that it was at it: it has too little memory, or see its log", s.cfg.Now().UTC()
		return true, s.cfg.Deltas.SetDelta(ctx, d)
	}
	d.Tries++ // before: a process that is killed for it does not begin with it for ever
	if err := s.cfg.Deltas.SetDelta(ctx, d); err != nil {
		return false, err
	}
	err = s.makeDelta(ctx, &d)
	switch {
	case ctx.Err() != nil: // it is still wanted, and nothing is wrong with it
		d.Tries--
		return false, errors.Join(ctx.Err(), s.cfg.Deltas.SetDelta(context.WithoutCancel(ctx), d))
	case err == nil:
		d.Tries--
	default:
		d.Text = err.Error()
		if d.Tries >= maxTries {
			d.State = DeltaFailed
		}
	}
	d.At = s.cfg.Now().UTC()
	return true, s.cfg.Deltas.SetDelta(ctx, d)
}

// makeDelta makes a delta, which is applied and compared before it is kept.
func (s *Service) makeDelta(ctx context.Context, d *Delta) error {
	old, err := s.image(ctx, d.From)
	if err != nil {
		return err
	}
	image, err := s.image(ctx, d.To)
	if err != nil {
		return err
	}
	var made bytes.Buffer
	if err := delta.Make(ctx, old, image, &made); err != nil {
		return err
	}
	d.Size = uint64(made.Len())
	if !d.worthIt() {
		d.State, d.Text = DeltaUseless, fmt.Sprintf("it would have %d bytes of %d", d.Size, d.Whole)
		return nil
	}
	digest, _, err := s.cfg.Blobs.Put(ctx, &made, MaxArtifact)
	if err != nil {
		return err
	}
	d.State, d.Digest, d.Text = DeltaMade, digest[:], ""
	return nil
}

// worthIt reports whether the delta is smaller than the component by enough.
func (d Delta) worthIt() bool { return d.Size*10 <= d.Whole*worth }

// image reads a component; it is no larger than what deltas are made of.
func (s *Service) image(ctx context.Context, digest [32]byte) (b []byte, err error) {
	f, err := s.cfg.Blobs.Open(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("artifact %x: %w", digest[:8], err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if size > delta.MaxImage {
		return nil, fmt.Errorf("artifact %x has %d bytes: a delta is made of at most %d", digest[:8], size, delta.MaxImage)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b = make([]byte, size) // at once: one that grows takes more
	_, err = io.ReadFull(f, b)
	return b, err
}

// planDeltas looks what deltas the releases want that were published since.
func (s *Service) planDeltas(ctx context.Context) error {
	for {
		r, err := s.cfg.Deltas.Unplanned(ctx)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		before, err := s.before(ctx, r)
		if err != nil {
			return err
		}
		if err := s.cfg.Deltas.WantDeltas(ctx, r.Digest, s.deltas(r, before)); err != nil {
			return err
		}
	}
}

// before gives the releases of which devices are likely to come to r: those that were published last, and those that many of them run.
func (s *Service) before(ctx context.Context, r Release) ([]Release, error) {
	all, err := s.cfg.Store.Releases(ctx, r.Manifest.Product, nil, 0)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(o Release) bool {
		return o.Digest == r.Digest || o.Published.IsZero() || o.Published.After(r.Published)
	})
	slices.SortFunc(all, func(a, b Release) int { return b.Published.Compare(a.Published) })
	running, err := s.cfg.Deltas.RunningReleases(ctx, r.Manifest.Product)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, n := range running {
		total += n
	}
	out := all[:0:0]
	for i, o := range all {
		if n := running[o.Digest]; i < lastReleases || n > 0 && n*onePart >= total {
			out = append(out, o)
		}
	}
	return out, nil
}

// deltas are those between components of one name of r and of older ones. A component that is the same in both needs none; sealed bytes are like no others, and a device has no image as it was delivered.
func (s *Service) deltas(r Release, older []Release) (out []Delta) {
	for _, c := range r.Manifest.Components {
		for _, o := range older {
			i := slices.IndexFunc(o.Manifest.Components, func(old wire.Component) bool { return old.Name == c.Name })
			if i < 0 || bytes.Equal(o.Manifest.Components[i].Digest, c.Digest) {
				continue
			}
			old := o.Manifest.Components[i]
			d := Delta{
				Product: r.Manifest.Product, From: [32]byte(old.Digest), To: [32]byte(c.Digest), Name: c.Name, Of: o.Manifest.Version, Whole: c.Size,
				State: DeltaWanted, At: s.cfg.Now().UTC(),
			}
			if d.Text = without(old, c); d.Text != "" {
				d.State = DeltaUseless
			}
			out = append(out, d)
		}
	}
	return out
}

// without says why there can be no delta.
func without(old, c wire.Component) string {
	switch {
	case old.Protected != nil || c.Protected != nil:
		return "protected: sealed bytes are like no others"
	case old.Kind == wire.KindImage || c.Kind == wire.KindImage:
		return "an image: devices do not keep it as it was delivered"
	case max(old.Size, c.Size) > delta.MaxImage:
		return fmt.Sprintf("larger than %d bytes", delta.MaxImage)
	}
	return ""
}

// ListDeltas lists the deltas to a release.
func (s *Service) ListDeltas(ctx context.Context, caller access.Caller, release [32]byte) ([]Delta, error) {
	if _, err := s.checked(ctx, caller, access.ReleaseRead, release); err != nil {
		return nil, err
	}
	return s.cfg.Deltas.DeltasTo(ctx, release)
}

// WantDeltas has deltas made to a published release for devices that run another one of its product: at once those that are not there, and those that failed anew.
func (s *Service) WantDeltas(ctx context.Context, caller access.Caller, release, from [32]byte) ([]Delta, error) {
	r, err := s.checked(ctx, caller, access.ReleaseCreate, release)
	if err != nil {
		return nil, err
	}
	old, err := s.find(ctx, from)
	if err != nil {
		return nil, err
	}
	if r.Status != Published || old.Published.IsZero() || old.Manifest.Product != r.Manifest.Product || old.Digest == r.Digest {
		return nil, invalid("delta.releases", fmt.Sprintf("deltas lead from a release that devices run to another of its product that is published: not from %s of %s to %s of %s, which is %s",
			old.Manifest.Version, old.Manifest.Product, r.Manifest.Version, r.Manifest.Product, r.Status), "see `hallmark release list`")
	}
	if err := s.planDeltas(ctx); err != nil { // once some are wanted, a release counts as planned: what is made without being asked comes first
		return nil, err
	}
	if err := s.cfg.Deltas.WantDeltas(ctx, release, s.deltas(r, []Release{old})); err != nil {
		return nil, err
	}
	return s.cfg.Deltas.DeltasTo(ctx, release)
}

// Forms gives the other ways to the components of a release for a device that runs another. It is for the stage that hands releases to devices, not for callers.
func (s *Service) Forms(ctx context.Context, from, to [32]byte) ([]wire.Form, error) {
	all, err := s.cfg.Deltas.DeltasBetween(ctx, from, to)
	if err != nil {
		return nil, err
	}
	var out []wire.Form
	for _, d := range all[:min(len(all), wire.MaxForms)] {
		out = append(out, wire.Form{Component: d.To[:], Kind: wire.FormDelta, Digest: d.Digest, Size: d.Size, From: d.From[:]})
	}
	return out, nil
}
