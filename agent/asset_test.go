package agent_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/wire"
)

// A set of assets takes the place of another while the device runs: it is tried, attested and confirmed, or given up, and there is one start in all.
func TestAssetsAreTriedWithoutARestart(t *testing.T) {
	for name, c := range map[string]struct {
		health  agent.Health
		spell   time.Duration
		verdict string
		outcome wire.Outcome
		code    string
		version string
		fuses   uint32
	}{
		"good":                     {agent.HealthGood, 0, "affirming", wire.OutcomeDone, "", "2.0.0", 2},
		"sick once, and then good": {agent.HealthGood, 1500 * time.Millisecond, "affirming", wire.OutcomeDone, "", "2.0.0", 2},
		"sick for too long":        {agent.HealthGood, time.Minute, "affirming", wire.OutcomeFailed, "sick", "1.0.0", 1},
		"not affirmed":             {agent.HealthGood, 0, "contraindicated", wire.OutcomeFailed, "not-affirmed", "1.0.0", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publishAs(wire.ModelAsset, "1.0.0", 1)))
				d.prog.health, d.prog.spell, d.s.verdict = c.health, c.spell, c.verdict
				v2 := w.publishAs(wire.ModelAsset, "2.0.0", 2)
				got := d.told(t, w.command(wire.ActInstall, func(o *command) { o.release = &v2 }))
				if len(got) != 1 || got[0].Outcome != c.outcome || got[0].Code != c.code {
					t.Fatalf("%+v", got)
				}
				if in := d.s.last; in.Version != c.version || in.Trial || in.BootCount != 1 || len(d.runs) != 1 {
					t.Errorf("runs %s, trial %v, after %d starts", in.Version, in.Trial, len(d.runs))
				}
				if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != c.fuses {
					t.Errorf("security counter %d, %v", n, err)
				}
				app, radio := fmt.Sprintf("artifact/%x", v2.rel.Components[0].Digest), fmt.Sprintf("artifact/%x", v2.rel.Components[1].Digest)
				if !slices.Contains(d.s.calls, app) || slices.Contains(d.s.calls, radio) {
					t.Errorf("fetched %v", d.s.calls)
				}
			})
		})
	}
}
