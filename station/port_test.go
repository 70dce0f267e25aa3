package station

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// A payload may take longer than any one step, as long as the device goes on taking it; one that stops is given up, and so is a run that is stopped.
func TestAPayloadTakesAsLongAsTheDeviceGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		pause time.Duration // of the device, before each chunk
		stop  time.Duration // of the run; 0: not
		ok    bool
	}{
		"slow":              {stepTimeout - time.Second, 0, true},
		"too slow":          {stepTimeout + time.Second, 0, false},
		"stopped meanwhile": {stepTimeout - time.Second, 5 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const chunks = 5
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.stop != 0 {
					time.AfterFunc(c.stop, cancel)
				}
				ours, theirs := net.Pipe()
				got := make(chan int, 1)
				go func() {
					dev, n := NewPort(theirs), 0
					defer func() { got <- n }()
					if _, err := dev.expect(wire.PortInstall); err != nil {
						return
					}
					if err := dev.send(wire.PortOK, nil); err != nil {
						return
					}
					for ; n < chunks; n++ {
						time.Sleep(c.pause)
						if _, err := dev.expect(wire.PortChunk); err != nil {
							return
						}
					}
				}()
				err := NewPort(ours).Install(ctx, wire.Install{}, func(put func(wire.Chunk) error) error {
					for i := range chunks {
						if err := put(wire.Chunk{Component: "app", Offset: uint64(i), Data: []byte{1}}); err != nil {
							return err
						}
					}
					return nil
				})
				if c.ok != (err == nil) || !c.ok && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v", err)
				}
				_ = ours.Close()
				if n := <-got; c.ok && n != chunks {
					t.Errorf("%d chunks came", n)
				}
			})
		})
	}
}
