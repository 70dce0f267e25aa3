package hw_test

import (
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
)

// A shadow of a board is a board, and its original stays as it was.
func TestAShadowIsABoard(t *testing.T) {
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		b, err := virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: 64 << 10, Sector: 4096, Page: 256}})
		if err != nil {
			t.Fatal(err)
		}
		s := hw.Shadow(&b.Board)
		t.Cleanup(func() {
			root, err := b.Fuses.Root()
			secret, err2 := b.Fuses.Secret()
			if !errors.Is(err, hw.ErrNotBurned) || !errors.Is(err2, hw.ErrNotBurned) || b.Power.Ops() != 0 {
				t.Errorf("the original was changed: root %x, secret %x, %v, %d operations", root, secret, errors.Join(err, err2), b.Power.Ops())
			}
		})
		return func(*testing.T) (*hw.Board, func()) { return s, func() { hw.Unlock(s) } }
	}})
}
