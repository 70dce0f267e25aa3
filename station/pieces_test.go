package station

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

// Wherever an order's file is cut, a device gets whole chunks of each component, in order, and its last bytes as they are.
func TestADeviceGetsWholeChunksOfEachComponent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var components []wire.Component
		var all []byte
		for _, name := range []string{"a", "b", "c"} {
			c := wire.Component{Name: name, Size: rng.Uint64N(3*wire.PortChunkSize) + 1}
			components = append(components, c)
			for range c.Size {
				all = append(all, byte(rng.Uint32()))
			}
		}
		var got []byte
		at := map[string]uint64{}
		sizes := map[string]uint64{}
		for _, c := range components {
			sizes[c.Name] = c.Size
		}
		p := pieces{buf: make([]byte, 0, wire.PortChunkSize), put: func(k wire.Chunk) error {
			if k.Offset != at[k.Component] {
				t.Fatalf("%s at %d, want %d", k.Component, k.Offset, at[k.Component])
			}
			at[k.Component] += uint64(len(k.Data))
			if len(k.Data) != wire.PortChunkSize && at[k.Component] != sizes[k.Component] {
				t.Fatalf("%s: a piece of %d bytes at %d of %d", k.Component, len(k.Data), k.Offset, sizes[k.Component])
			}
			got = append(got, k.Data...)
			return nil
		}}
		rest := all
		for _, c := range components {
			for off := uint64(0); off < c.Size; {
				n := min(rng.Uint64N(wire.PortChunkSize)+1, c.Size-off)
				if err := p.add(c, off, rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest, off = rest[n:], off+n
			}
		}
		if !bytes.Equal(got, all) {
			t.Fatal("other bytes came")
		}
	}
}
