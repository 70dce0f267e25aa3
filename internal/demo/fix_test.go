package demo

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
)

// A release is closed while one device is away. What mends it is brought to the others in waves, and to that one when it comes: by one command, over a restart of the server.
func TestALateComerIsBroughtWhatMendsIt(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a whole life")
	}
	d := plan(Options{Devices: 3, Out: io.Discard, programs: programs(t)})
	d.begins(t, d.build, d.instance, d.firstRelease, d.produce, d.field)
	if err := d.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	rita, away := d.token(t, "rita", access.ReleaseManager), d.agents[2]
	d.setLive(d.agents[0], d.agents[1])
	away.run.stop(os.Kill) // as a cut of power
	line := fmt.Sprintf("hallmark release close %[1]s@%[2]s --reason 'CVE-2029-1234' --out %[3]s --fix %[1]s@%[4]s --wave 50,soak=1s,deadline=60s --wave rest,soak=1s,deadline=60s --again 1m --rollout fix", productID, v1, filepath.Join(t.TempDir(), "closed.payload"), v2)
	d.shell(t, line, rita)
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		r, err := d.people["olga"].Rollout(t.Context(), "fix")
		return err == nil && r.Rollout.Missing == 1 && r.Rollout.Joins(), observed(err, fmt.Sprintf("%s %+v, missing %d", r.Rollout.Phase, r.Rollout.Last, r.Rollout.Missing))
	}); !ok {
		t.Fatalf("the waves: %s\n%s", saw, tail(filepath.Join(d.dir, "server.log")))
	}
	for _, a := range []*device{d.agents[0], d.agents[1]} {
		if ok, saw := d.waitWorks(t.Context(), a.id, v2); !ok {
			t.Errorf("who was there: %s", saw)
		}
	}
	missing, err := d.people["olga"].MissingDevices(t.Context(), "fix")
	if err != nil || len(missing) != 1 || missing[0].Device != away.id {
		t.Fatalf("missing are %+v, %v", missing, err)
	}
	d.serve.stop(os.Interrupt)
	if err := d.startServer(); err != nil {
		t.Fatal(err)
	}
	if err := away.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		v, err := d.seen(t.Context(), away.id)
		return err == nil && works(v, v2), tell(v, err)
	}); !ok {
		t.Fatalf("the late comer: %s\n%s", saw, tail(filepath.Join(d.dir, "server.log")))
	}
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		r, err := d.people["olga"].Rollout(t.Context(), "fix")
		return err == nil && r.Rollout.Later.Good == 1 && r.Rollout.Missing == 0 && r.Rollout.Phase == rollout.Running, observed(err, fmt.Sprintf("%s %+v, missing %d", r.Rollout.Phase, r.Rollout.Later, r.Rollout.Missing))
	}); !ok {
		t.Errorf("the rollout: %s", saw)
	}
	if r, err := d.people["olga"].Release(t.Context(), d.releases[v1]); err != nil || r.Status != release.Withdrawn || r.Closed.IsZero() {
		t.Errorf("the release is %s, %v", r.Status, err)
	}
}
