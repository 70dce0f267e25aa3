package ledger_test

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
)

func TestPublicFilesAreThoseOfTheSpecification(t *testing.T) {
	for path, want := range map[string]bool{
		"checkpoint": true, "tile/0/000": true, "tile/0/000.p/1": true, "tile/0/000.p/255": true, "tile/63/999": true,
		"tile/entries/x001/x234/067": true, "tile/entries/x001/000.p/8": true,
		"": false, "signed": false, "checkpoint/": false, "/checkpoint": false, "Checkpoint": false, "tile": false, "tile/": false, "tile/0": false,
		"tile/0/": false, "tile/0/00": false, "tile/0/0000": false, "tile/0/000/": false, "tile/64/000": false, "tile/00/000": false, "tile/-1/000": false,
		"tile/0/000.p/0": false, "tile/0/000.p/256": false, "tile/0/000.p/01": false, "tile/0/000.p": false, "tile/0/000.p/": false,
		"tile/0/x000/000": false, "tile/0/x001": false, "tile/0/001/x002": false, "tile/entries/../checkpoint": false, "evidence/ab/source": false,
		"tile/0/000\n": false, "trust.json": false, "tile/0/.new-123": false,
	} {
		if _, _, ok := ledger.PublicFile(path); ok != want {
			t.Errorf("%q: %v, want %v", path, ok, want)
		}
	}
}

// Each path that x/mod's tlog makes is one of ours, but for the height of tiles, which is in theirs.
func FuzzPublicFile(f *testing.F) {
	f.Add(int64(0), uint8(0), uint16(1))
	f.Add(int64(1234067), uint8(3), uint16(256))
	f.Add(int64(999_999), uint8(63), uint16(255))
	f.Fuzz(func(t *testing.T, n int64, level uint8, width uint16) {
		if n < 0 || level > 63 || width < 1 || width > 256 {
			return
		}
		path := tlog.Tile{H: 8, L: int(level), N: n, W: int(width)}.Path()
		if _, _, ok := ledger.PublicFile("tile/" + path[len("tile/8/"):]); !ok {
			t.Errorf("%s is none of ours", path)
		}
	})
}
