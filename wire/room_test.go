package wire

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// sized is a release of components by their sizes; digests go by size and letter.
func sized(model UpdateModel, components ...Component) Release {
	return Release{Model: model, Components: components, Version: "1.0.0"}
}

func part(letter byte, size uint64) Component {
	return Component{Name: string(letter), Kind: KindExec, Size: size, Digest: bytes.Repeat([]byte{letter}, 32)}
}

func image(size uint64) Component {
	return Component{Name: "image", Kind: KindImage, Size: size, Digest: bytes.Repeat([]byte{'i'}, 32)}
}

func TestWhatRoomAReleaseNeeds(t *testing.T) {
	for _, c := range []struct {
		next      Release
		confirmed *Release
		needs     uint64 // sectors of 10 bytes that it has to have, with what comes after it
		beside    uint64 // and that it has to have beside what is confirmed
	}{
		{sized(ModelOTP, part('a', 10), part('b', 11)), nil, 3, 3},
		{sized(ModelBlob, part('a', 10), part('b', 11)), nil, 6, 6},
		{sized(ModelBlob, part('a', 10), image(25)), nil, 5, 5},
		{sized(ModelAsset, part('a', 10), part('b', 11)), nil, 5, 5},
		{sized(ModelAsset, part('a', 10), part('b', 11)), new(sized(ModelAsset, part('a', 10), part('c', 35))), 5, 7},    // a stays, b comes beside c
		{sized(ModelAsset, part('a', 10), part('a', 10)), new(sized(ModelAsset, part('a', 10), part('c', 35))), 3, 6},    // one of the two is there
		{sized(ModelBlob, part('a', 10)), new(sized(ModelBlob, part('a', 10), part('c', 35))), 2, 6},                     // nothing is shared
		{sized(ModelAsset, part('a', 10), image(20)), new(sized(ModelAsset, part('a', 10), image(100))), 4, 4},           // the former image lies in its bank
		{sized(ModelAsset, part('a', 1<<63), part('b', 1<<63)), new(sized(ModelAsset, part('a', 10))), 3 << 40, 3 << 40}, // nothing has so much, and no sum overflows
	} {
		if got := c.next.Needs(10); got != c.needs {
			t.Errorf("%+v needs %d sectors, want %d", c.next, got, c.needs)
		}
		takes := func(n uint64) error {
			if r := (Room{Sectors: n, Sector: 10}); c.confirmed != nil {
				return r.TakesOver(c.next, *c.confirmed)
			} else {
				return r.Takes(c.next)
			}
		}
		if err := takes(c.beside); err != nil {
			t.Errorf("%d sectors: %v", c.beside, err)
		}
		if err := takes(c.beside - 1); !errors.Is(err, ErrNoRoom) {
			t.Errorf("%d sectors are enough: %v", c.beside-1, err)
		}
	}
}

func TestARoomIsWithinBounds(t *testing.T) {
	for want, r := range map[string]*Room{
		"":                                nil,
		"<nil>":                           {Sectors: 0, Sector: 1},
		"a flash of 1 sectors of 0 bytes": {Sectors: 1},
		fmt.Sprint("a flash of ", most+1, " sectors of 1 bytes"): {Sectors: most + 1, Sector: 1},
		fmt.Sprint("a flash of 1 sectors of ", most+1, " bytes"): {Sectors: 1, Sector: most + 1},
	} {
		data, err := Marshal(Checkin{Nonce: make([]byte, 32), State: "active", Room: r})
		if err != nil {
			t.Fatal(err)
		}
		in, err := DecodeCheckin(data)
		if (want == "" || want == "<nil>") != (err == nil) || err != nil && err.Error() != "check-in: "+want {
			t.Errorf("%v: %v", r, err)
		}
		if err == nil && (r == nil) != (in.Room == nil) {
			t.Errorf("said %v, heard %v", r, in.Room)
		}
	}
}
