package boot

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

const imageSize = 64 << 20

// image is 64 MB of firmware.
func (m *maker) image(b *testing.B, version string) (firmware, []byte) {
	b.Helper()
	data := make([]byte, imageSize)
	if _, err := rand.Read(data); err != nil {
		b.Fatal(err)
	}
	f := m.assets(b, version, 1, []part{{"image", version, 1}}, func(r *wire.Release) {
		sum := sha256.Sum256(data)
		r.Model, r.Components[0].Size, r.Components[0].Digest = wire.ModelBlob, imageSize, sum[:]
	})
	f.data["image"] = data
	return f, data
}

func imageBoard(b *testing.B) *virtual.Board {
	b.Helper()
	const sector, page = 16 << 10, 512
	board, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: FlashFor(imageSize, sector, page), Sector: sector, Page: page}})
	if err != nil {
		b.Fatal(err)
	}
	return board
}

// BenchmarkVerify is what a start does with a release of 64 MB: signatures, product, hardware, counters, every byte.
func BenchmarkVerify(b *testing.B) {
	m := newMaker(b)
	f, _ := m.image(b, "1.0.0")
	board := imageBoard(b)
	if err := birth(board, m, f); err != nil {
		b.Fatal(err)
	}
	mgr := mustBoot(b, board)
	b.SetBytes(imageSize)
	for b.Loop() {
		if _, err := mgr.authorise(SlotA, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReferenceSHA256 hashes the same bytes in memory.
func BenchmarkReferenceSHA256(b *testing.B) {
	m := newMaker(b)
	_, data := m.image(b, "1.0.0")
	b.SetBytes(imageSize)
	for b.Loop() {
		sha256.Sum256(data)
	}
}

// BenchmarkUpdate brings a release of 64 MB into the idle slot, with all that is checked.
func BenchmarkUpdate(b *testing.B) {
	m := newMaker(b)
	small := m.assets(b, "0.1.0", 1, []part{{"image", "0.1.0", 10}}, func(r *wire.Release) { r.Model = wire.ModelBlob })
	f, data := m.image(b, "1.0.0")
	board := imageBoard(b)
	if err := birth(board, m, small); err != nil {
		b.Fatal(err)
	}
	mgr := mustBoot(b, board)
	src := func(_ context.Context, _ wire.Component, off int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[off:])), nil
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := mgr.flash.slots[SlotB].Erase(0); err != nil { // what lies there is of no use
			b.Fatal(err)
		}
		if err := mgr.flash.saveControl(control{Valid: true}); err != nil {
			b.Fatal(err)
		}
		if err := mgr.Stage(b.Context(), f.env, src, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReferenceWriteAndHash erases and writes as many bytes to the same flash, and hashes them.
func BenchmarkReferenceWriteAndHash(b *testing.B) {
	m := newMaker(b)
	_, data := m.image(b, "1.0.0")
	board := imageBoard(b)
	f, err := Arrange(board.Flash)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for n := range int64(imageSize) / f.pool.Sector() {
			if err := f.pool.Erase(n); err != nil {
				b.Fatal(err)
			}
		}
		for off := 0; off < imageSize; off += chunk {
			if err := f.pool.Program(int64(off), data[off:off+chunk]); err != nil {
				b.Fatal(err)
			}
		}
		sha256.Sum256(data)
	}
}
