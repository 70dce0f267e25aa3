package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/rollout"
)

// device is one board and the process that is its power.
type device struct {
	d       *demo
	id, dir string
	run     running
}

// inspected is what `hallmark-agent inspect` prints.
type inspected struct {
	Device  string `json:"device"`
	Version string `json:"version"`
	Counter uint32 `json:"counter"`
	Life    string `json:"life"`
	Slot    string `json:"slot"`
	Boots   uint64 `json:"boots"`
}

func (a *device) inspect(ctx context.Context) (inspected, error) {
	var f inspected
	out, err := output(exec.CommandContext(ctx, a.d.bin.agent, "inspect", "--dir", a.dir))
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal([]byte(out), &f)
}

// on powers the device on.
func (a *device) on() error {
	log, err := os.OpenFile(filepath.Join(a.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"run", "--dir", a.dir, "--poll-min", "200ms", "--recovery", filepath.Join(a.dir, "boot-manager")}
	if a.d.o.trace {
		args = append(args, "--log-level", "debug")
	}
	cmd := exec.Command(a.d.bin.agent, args...) //nolint:noctx // our own program; stop ends it
	cmd.Stderr = log
	return a.run.start(cmd)
}

// powered are the devices that run, and of which nobody waits to see them end.
func (d *demo) powered() []*device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.live)
}

func (d *demo) setLive(agents ...*device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = slices.Clone(agents)
}

func (d *demo) stopAll() {
	for _, a := range d.agents {
		a.run.stop(os.Kill)
	}
	d.serve.stop(os.Interrupt)
}

// seen is a device as the maker sees it.
func (d *demo) seen(ctx context.Context, id string) (httpapi.DeviceDetail, error) {
	return d.people["olga"].Device(ctx, id)
}

// works reports whether the maker sees a device healthy, attested and confirmed on a version.
func works(v httpapi.DeviceDetail, version string) bool {
	x := v.Device
	return x.State == "active" && x.Version == version && !x.Trial && x.Health == "healthy" && (x.Verdict == "affirming" || x.Verdict == "warning")
}

func tell(v httpapi.DeviceDetail, err error) string {
	if err != nil {
		return err.Error()
	}
	x := v.Device
	s := fmt.Sprintf("%s, version %s, %s, evidence %s", x.State, x.Version, x.Health, x.Verdict)
	if len(x.Reasons) > 0 {
		s += " (" + strings.Join(x.Reasons, "; ") + ")"
	}
	return s
}

// counted tells a count by name: "19 active, 1 quarantined".
func counted(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}

func (d *demo) waitWorks(ctx context.Context, id, version string) (bool, string) {
	return wait(ctx, 60*time.Second, func() (bool, string) {
		v, err := d.seen(ctx, id)
		return err == nil && works(v, version), tell(v, err)
	})
}

// field powers all devices on: they enrol over EST with their factory identity, start version 1 and attest.
func (d *demo) field(ctx context.Context) error {
	d.say("\nThe field: every device is a process of its own; it enrols, starts %s and proves it", v1)
	for _, a := range d.agents {
		if err := a.on(); err != nil {
			return err
		}
	}
	d.setLive(d.agents...)
	ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
		s, err := d.people["olga"].Summary(ctx)
		return err == nil && s.States["active"] == d.o.Devices && s.Verdicts["affirming"]+s.Verdicts["warning"] == d.o.Devices,
			observed(err, fmt.Sprintf("%s; evidence: %s", counted(s.States), counted(s.Verdicts)))
	})
	if err := d.step(Step{
		Step: "enrolment and first boot", Expected: "all active, evidence good (warning: the devices are virtual and say so)", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "events", "device.onboarded", d.agents[0].id),
	}); err != nil {
		return err
	}
	a := d.agents[0]
	ok, saw = d.waitWorks(ctx, a.id, v1)
	return d.step(Step{
		Step: "attestation", Device: a.id, Expected: "healthy on " + v1, OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "attest.verdict", a.id),
	})
}

func (d *demo) rollout(ctx context.Context, id, version, back string, waves []rollout.Wave) error {
	digest, err := hex.DecodeString(d.releases[version])
	if err != nil {
		return err
	}
	way, err := hex.DecodeString(d.releases[back]) // empty: there is no way back, the security counter rises
	if err != nil {
		return err
	}
	spec := rollout.Spec{
		ID: id, Product: productID, Release: digest, Rollback: way, Selection: rollout.Selection{All: true}, Waves: waves, Reason: "demo",
		Canaries: []string{d.agents[0].id},
	}
	olga := d.people["olga"]
	if err := insist(ctx, func() error { _, err := olga.CreateRollout(ctx, spec); return err }); err != nil {
		return err
	}
	return insist(ctx, func() error { _, err := olga.StartRollout(ctx, id); return err }, "rollout.phase")
}

// update rolls version 2 out in waves; one device of the last wave loses power in the middle of a write.
func (d *demo) update(ctx context.Context) error {
	d.say("\nAn update: %s in waves; one device loses power in the middle of a write", v2)
	if err := d.publish(ctx, v2, 2); err != nil {
		return err
	}
	victim := d.agents[len(d.agents)-1]
	d.setLive(d.agents[:len(d.agents)-1]...) // the victim is waited for
	cut := []byte(`{"after": 700, "mode": "random"}`)
	if err := os.WriteFile(filepath.Join(victim.dir, "cut.json"), cut, 0o600); err != nil { //nolint:forbidigo // a hand at the plug
		return err
	}
	if err := d.rollout(ctx, "update-1", v2, "", []rollout.Wave{
		{Size: 1, Soak: 1, Deadline: 60}, {Percent: 30, Soak: 1, Deadline: 60}, {Soak: 1, Deadline: 90},
	}); err != nil {
		return err
	}
	if err := d.powerFails(ctx, victim); err != nil {
		return err
	}
	var last rollout.Rollout
	ok, saw := wait(ctx, 150*time.Second, func() (bool, string) {
		r, err := d.people["olga"].Rollout(ctx, "update-1")
		if err != nil {
			return false, err.Error()
		}
		if r.Rollout.Wave != last.Wave {
			d.say("  wave %d of %d: %d devices", r.Rollout.Wave, len(r.Rollout.Waves), r.Rollout.Last.Devices)
		}
		last = r.Rollout
		reached := 0
		for _, w := range last.Waves {
			if !w.Succeeded.IsZero() {
				reached += w.Devices
			}
		}
		return last.Phase == rollout.Completed && reached == d.o.Devices,
			fmt.Sprintf("%s: %d of %d waves, %d of %d devices healthy and attested", last.Phase, last.Wave, len(last.Waves), reached, d.o.Devices)
	})
	if err := d.step(Step{
		Step: "rollout of " + v2, Expected: "completed: every device booted, attested, healthy", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "control", "rollout.completed", "update-1"),
	}); err != nil {
		return err
	}
	ok, saw = d.waitWorks(ctx, victim.id, v2)
	return d.step(Step{
		Step: "after the power cut", Device: victim.id, Expected: "updated to " + v2 + " after all", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "events", "device.updated", victim.id),
	})
}

func (d *demo) powerFails(ctx context.Context, a *device) error {
	err := a.run.ended(ctx, 120*time.Second)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 75 {
		return d.step(Step{Step: "power cut", Device: a.id, Expected: "the power fails while the update is written", Observed: fmt.Sprintf("it did not: %v", err)})
	}
	f, err := a.inspect(ctx)
	if err := d.step(Step{
		Step: "power cut", Device: a.id, Expected: "comes back on " + v1, OK: err == nil && f.Version == v1,
		Observed: observed(err, "power failed while the update was written; it starts "+f.Version),
	}); err != nil {
		return err
	}
	if err := a.on(); err != nil {
		return err
	}
	d.setLive(d.agents...)
	return nil
}

// badRelease rolls out a release that fails its health check.
func (d *demo) badRelease(ctx context.Context) error {
	d.say("\nA bad release: %s is approved, and sick", vBad)
	if err := d.publish(ctx, vBad, 2, v2); err != nil {
		return err
	}
	if err := d.rollout(ctx, "update-2", vBad, v2, []rollout.Wave{{Size: 1, Soak: 1, Deadline: 60}, {Soak: 1, Deadline: 60}}); err != nil {
		return err
	}
	var last rollout.Rollout
	ok, saw := wait(ctx, 120*time.Second, func() (bool, string) {
		r, err := d.people["olga"].Rollout(ctx, "update-2")
		last = r.Rollout
		return err == nil && last.Phase == rollout.RolledBack, observed(err, fmt.Sprintf("%s in wave %d: %s", last.Phase, last.Wave, last.Reason))
	})
	if err := d.step(Step{
		Step: "rollout of " + vBad, Expected: "halted at the canary and rolled back", OK: ok && last.Wave == 1, Observed: saw,
		Ledger: d.place(ctx, "control", "rollout.halted", "update-2"),
	}); err != nil {
		return err
	}
	canary := d.agents[0]
	ok, saw = d.waitWorks(ctx, canary.id, v2)
	return d.step(Step{Step: "the canary", Device: canary.id, Expected: "back on " + v2, OK: ok, Observed: saw})
}

// alter changes a byte of the program in the device's flash, as somebody with a soldering iron would.
func (a *device) alter(program []byte) error {
	path := filepath.Join(a.dir, "flash.bin")
	flash, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := bytes.Index(flash, program)
	if at < 0 {
		return errors.New("the running program is not in the device's flash")
	}
	at += len(program) / 2
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{flash[at] ^ 0x55}, int64(at))
	return errors.Join(err, f.Close())
}

// modified changes the running program of a device behind its back.
func (d *demo) modified(ctx context.Context) error {
	a := d.agents[1]
	d.say("\nA modified device: somebody changes the program in its flash")
	if err := a.alter(d.images[v2]); err != nil {
		return err
	}
	for _, s := range []struct{ step, expected, kind string }{
		{"attestation", "contraindicated", "attest.verdict"},
		{"quarantine", "quarantined", "device.quarantined"},
	} {
		ok, saw := wait(ctx, 60*time.Second, func() (bool, string) {
			v, err := d.seen(ctx, a.id)
			if err != nil {
				return false, err.Error()
			}
			for _, l := range v.Timeline {
				if l.Kind == s.kind && (s.kind != "attest.verdict" || bytes.Contains([]byte(l.Text), []byte("contraindicated"))) {
					return true, l.Text
				}
			}
			return false, tell(v, nil)
		})
		if err := d.step(Step{
			Step: s.step + " of a modified device", Device: a.id, Expected: s.expected, OK: ok, Observed: saw, Ledger: d.place(ctx, "events", s.kind, a.id),
		}); err != nil {
			return err
		}
	}
	ok, saw := d.waitWorks(ctx, a.id, v2)
	return d.step(Step{
		Step: "re-provisioned", Device: a.id, Expected: "made anew, good evidence, released from quarantine", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "events", "device.released", a.id),
	})
}

// signIn makes a link that signs a browser in once.
func (d *demo) signIn(ctx context.Context) (string, error) {
	code, err := d.people["admin"].Token(ctx, httpapi.TokenSpec{
		Caller: "person:olga", Kind: "person", Roles: roles("viewer", "operator"), Use: "once", Seconds: 3600,
	})
	return d.console + "/login?once=" + code, err
}
