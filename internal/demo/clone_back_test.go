package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	registry "github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	findings "github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/wire"
)

// wayBack plays the first chapters, and gives a device that nobody waits for.
func wayBack(t *testing.T) (d *demo, a *device) {
	t.Helper()
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	d = plan(Options{Devices: 3, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		d.dir = keep
	}
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field} {
		if err := chapter(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, tail(filepath.Join(d.dir, "server.log")))
		}
	}
	a = d.agents[1]
	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })...)
	return d, a
}

// copyOf copies a device that is switched off, without some of its files.
func (d *demo) copyOf(t *testing.T, a *device, without ...string) *device {
	t.Helper()
	twin := &device{d: d, id: a.id, dir: filepath.Join(d.dir, "copy")}
	if err := a.duplicate(twin.dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range without {
		if err := os.Remove(filepath.Join(twin.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { twin.run.stop(os.Kill) })
	return twin
}

func (d *demo) suspected(t *testing.T, a *device) {
	t.Helper()
	d.until(t, a, "they are found", func(v httpapi.DeviceDetail) bool {
		return v.Device.State == string(registry.Suspected) && v.Device.Suspect != ""
	})
}

// released has olga end the quarantine, and waits until the device works.
func (d *demo) released(t *testing.T, a *device) {
	t.Helper()
	if _, err := d.people["olga"].Command(t.Context(), httpapi.CommandRequest{Product: productID, Act: wire.ActRelease, Devices: []string{a.id}, Reason: "it lies before me"}); err != nil {
		t.Fatal(err)
	}
	if ok, saw := d.waitWorks(t.Context(), a.id, v1); !ok {
		t.Fatalf("after its release: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
}

// heardOf is how many readings of a device came in by now.
func (d *demo) heardOf(t *testing.T, a *device) (n int) {
	t.Helper()
	x, err := d.breakIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.db.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := x.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM stream_record WHERE device = $1`, a.id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The flash of a device is copied, with its operational certificate, and the copy runs ahead of it. Somebody looks, and says so: whoever has the
// factory's key comes back by itself, is released, and works, with its data; the copy gets nothing more.
func TestADeviceWhoseMemoryWasCopiedComesBack(t *testing.T) {
	d, a := wayBack(t)
	a.run.stop(os.Interrupt)
	twin := d.copyOf(t, a, "keys/idevid.key")
	for range 3 { // ahead: in starts, in what it sent, in what it was told
		if err := twin.on(); err != nil {
			t.Fatal(err)
		}
		before := d.heardOf(t, a)
		if ok, _ := wait(t.Context(), time.Minute, func() (bool, string) { return d.heardOf(t, a) > before, "" }); !ok {
			t.Fatalf("the copy sends nothing: it shows nothing\n%s", tail(filepath.Join(twin.dir, "agent.log")))
		}
		twin.run.stop(os.Interrupt)
	}
	for _, x := range []*device{twin, a} {
		if err := x.on(); err != nil {
			t.Fatal(err)
		}
	}
	d.suspected(t, a)
	if _, err := d.people["olga"].Move(t.Context(), a.id, httpapi.MoveRequest{Event: registry.Clear, Reason: "a copy of its flash, in the laboratory"}); err != nil {
		t.Fatal(err)
	}
	d.released(t, a)
	before := d.heardOf(t, a)
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		n := d.heardOf(t, a)
		return n > before, fmt.Sprintf("%d readings, then %d", before, n)
	}); !ok {
		t.Errorf("its data: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		said := tail(filepath.Join(twin.dir, "agent.log"))
		return strings.Contains(said, "check-in failed") && !strings.Contains(said, "msg=enrolled"), said
	}); !ok {
		t.Errorf("the copy: %s", saw)
	}
	twin.run.stop(os.Interrupt)
	if err := twin.on(); err != nil { // and not after a restart either
		t.Fatal(err)
	}
	v, err := d.seen(t.Context(), a.id)
	if err != nil || !works(v, v1) || v.Device.Suspect != "" {
		t.Errorf("%s, suspected of %q, %v", tell(v, err), v.Device.Suspect, err)
	}
	open, err := d.people["olga"].Findings(t.Context(), findings.Query{Subject: a.id, Kind: findings.CloneSuspected, OpenOnly: true})
	if err != nil || len(open) != 0 {
		t.Errorf("findings: %+v, %v", open, err)
	}
}

// Every key of a device is copied. To say that somebody has looked changes nothing: they are found again. New keys by a voucher, on the piece that lies
// before two people, end it, and whoever has the former ones is found.
func TestADeviceWhoseKeysWereCopiedComesBack(t *testing.T) {
	d, a := wayBack(t)
	a.run.stop(os.Interrupt)
	twin := d.copyOf(t, a)
	for _, x := range []*device{a, twin} {
		if err := x.on(); err != nil {
			t.Fatal(err)
		}
	}
	d.suspected(t, a)
	if _, err := d.people["olga"].Move(t.Context(), a.id, httpapi.MoveRequest{Event: registry.Clear, Reason: "it looked like a slip"}); err != nil {
		t.Fatal(err)
	}
	d.until(t, a, "they are found again", func(v httpapi.DeviceDetail) bool { return v.Device.State == string(registry.Suspected) })

	voucher := d.vouched(t, a)
	a.run.stop(os.Interrupt)
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), d.bin.agent, "recover", "--dir", a.dir, "--voucher-file", voucher, "--new-keys")
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	d.until(t, a, "contained, with its new keys", func(v httpapi.DeviceDetail) bool {
		return v.Device.State == string(registry.Quarantined) && v.Device.Rekeyed != nil
	})
	d.released(t, a)
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		all, err := d.people["olga"].Findings(t.Context(), findings.Query{Subject: a.id, Kind: findings.EnrolRefused, OpenOnly: true})
		return err == nil && slices.ContainsFunc(all, func(f findings.Finding) bool { return strings.Contains(f.Text, "former") }), fmt.Sprint(len(all), " findings ", err)
	}); !ok {
		t.Errorf("somebody has the former keys, and no finding says so: %s\n%s", saw, tail(filepath.Join(twin.dir, "agent.log")))
	}
	v, err := d.seen(t.Context(), a.id)
	if err != nil || !works(v, v1) || v.Device.Suspect != "" {
		t.Errorf("%s, suspected of %q, %v", tell(v, err), v.Device.Suspect, err)
	}
}
