package agent_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/wire"
)

// Readings are taken at their own pace, however seldom the server is asked and whether or not it can be reached; and none before it has said whose time it is.
func TestReadingsAreTakenWhileTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.data, d.s.sealed, d.s.poll = new(data), http.StatusTooManyRequests, time.Hour
		d.s.down.Store(true)
		stop := d.start(t)
		time.Sleep(time.Hour)
		if n := d.data.samples.Load(); n != 0 {
			t.Errorf("%d readings before it was heard whose they are", n)
		}
		d.s.down.Store(false)
		time.Sleep(time.Hour)
		before := d.data.samples.Load()
		d.s.down.Store(true)
		time.Sleep(10 * time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := d.data.samples.Load() - before; n < 7000 || n > 7200 {
			t.Errorf("%d readings in ten hours, want one each 5 s", n)
		}
	})
}

// Before a restart that was commanded what waits is told.
func TestReadingsAreToldBeforeARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.data, d.s.sealed, d.s.tell = new(data), http.StatusTooManyRequests, w.command(wire.ActReset, nil)
		if err := d.power(t.Context()); !errors.Is(err, agent.ErrReset) {
			t.Fatal(err)
		}
		if d.data.ends.Load() != 1 || !slices.Contains(d.s.calls, "telemetry") {
			t.Errorf("ended %d times, and the server was called by %q", d.data.ends.Load(), d.s.calls)
		}
	})
}
