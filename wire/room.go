package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// Room is what a device's flash has for the components of its sets. A component takes whole sectors.
type Room struct {
	Sectors uint64 `cbor:"1,keyasint" json:"sectors"`
	Sector  uint64 `cbor:"2,keyasint" json:"sector" doc:"bytes of one"`
}

// ErrNoRoom says that a release does not fit into what is free, or would leave no room for the one after it.
var ErrNoRoom = errors.New("no room in the flash")

// most bounds sizes in sectors, and sectors in bytes: more than any flash has, and sums of it do not overflow.
const most = 1 << 40

// check bounds what a device says of itself.
func (r *Room) check() error {
	if r != nil && (r.Sector == 0 || r.Sector > most || r.Sectors > most) {
		return fmt.Errorf("a flash of %d sectors of %d bytes", r.Sectors, r.Sector)
	}
	return nil
}

func (r Room) String() string { return fmt.Sprintf("%d sectors of %d bytes", r.Sectors, r.Sector) }

// SectorsFor is how many sectors so many bytes take; more than any flash has when nobody could have so many bytes.
func SectorsFor(size, sector uint64) uint64 {
	n := size / sector
	if size%sector != 0 {
		n++
	}
	return min(n, most)
}

// Needs is how many sectors of sector bytes a flash must have for the release and, after it, the next: a whole image beside it, or the next version of its largest
// component. Software that is fixed for life needs no such room. What lies in a bank of the machine only passes through.
func (r Release) Needs(sector uint64) uint64 {
	var total, largest, image uint64
	for _, c := range r.Components {
		n := SectorsFor(c.Size, sector)
		if c.Kind == KindImage { // the next one takes its sectors
			image = n
			continue
		}
		total, largest = total+n, max(largest, n)
	}
	switch r.Model {
	case ModelBlob:
		return 2*total + image
	case ModelAsset:
		return total + largest + image
	case ModelOTP:
	}
	return total + image
}

// typical is a sector of a board under Linux.
const typical = 64 << 10

// Room says for people what a flash must have for the release.
func (r Release) Room() string {
	n := r.Needs(typical)
	return fmt.Sprintf("%d bytes (%d sectors of 64 KiB), with the update after it", n*typical, n)
}

// Takes says whether a flash can have the release, and the next one after it.
func (r Room) Takes(next Release) error {
	if need := next.Needs(r.Sector); need > r.Sectors {
		return fmt.Errorf("release %s: %w: with room for the update after it (model %s) it needs %d sectors of %d bytes, the flash has %d", next.Version, ErrNoRoom, next.Model,
			need, r.Sector, r.Sectors)
	}
	return nil
}

// TakesOver says whether the release also finds room beside the one that is confirmed: its sectors stay until the next is confirmed. It leaves open what only the device
// knows: damaged sectors, and how many pieces the free ones are in.
func (r Room) TakesOver(next, confirmed Release) error {
	if err := r.Takes(next); err != nil {
		return err
	}
	var kept, fresh uint64
	here := make([]bool, len(confirmed.Components))
	for i, c := range confirmed.Components {
		if c.Kind != KindImage {
			kept, here[i] = kept+SectorsFor(c.Size, r.Sector), next.Model == ModelAsset
		}
	}
	for _, c := range next.Components {
		if !shares(c, confirmed.Components, here) {
			fresh += SectorsFor(c.Size, r.Sector)
		}
	}
	if kept+fresh > r.Sectors {
		return fmt.Errorf("release %s: %w: beside %s, which stays until it is confirmed, it needs %d sectors of %d bytes, the flash has %d free", next.Version, ErrNoRoom, confirmed.Version,
			fresh, r.Sector, r.Sectors-min(kept, r.Sectors))
	}
	return nil
}

// shares reports whether the bytes of c are one of those that are here, and takes that: each is used once.
func shares(c Component, have []Component, here []bool) bool {
	for i, h := range have {
		if here[i] && h.Size == c.Size && bytes.Equal(h.Digest, c.Digest) {
			here[i] = false
			return true
		}
	}
	return false
}
