package demo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
)

// verified is what `hallmark verify` says to somebody without an account, and how it ends.
func (d *demo) verified(t *testing.T, args ...string) (string, int) {
	t.Helper()
	root, err := os.ReadFile(d.layout.Cert("oem-root"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(root)
	cmd := exec.CommandContext(t.Context(), d.bin.hallmark, append([]string{"verify", "--root", hex.EncodeToString(sum[:])}, args...)...)
	cmd.Env = append(os.Environ(), "HALLMARK_TOKEN=", "HALLMARK_URL="+d.console)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// A device proves itself to whoever asks, over the server and beside it. Its memory is copied, keys and all, and both run: they are found, and a buyer is told.
func TestACopyOfADeviceIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	d := plan(Options{Devices: 3, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field} {
		if err := chapter(t.Context()); err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	a := d.agents[1]
	trust := filepath.Join(d.layout.Logs(), "trust.json")
	kept := filepath.Join(t.TempDir(), "kept.verdict")
	out, code := d.verified(t, a.id, "--challenge", "--trust", trust, "--out", kept, "--wait", "1m")
	if code != 0 || !strings.HasPrefix(out, "Genuine\n") || !strings.Contains(out, "answered this question; it runs version "+v1) ||
		!strings.Contains(out, "of the root that you believe") || !strings.Contains(out, "in the events log") {
		t.Fatalf("%d: %s", code, out)
	}
	for _, secret := range []string{"station", "order", "owner"} {
		if strings.Contains(out, secret) {
			t.Errorf("a stranger is told of %s: %s", secret, out)
		}
	}
	if out, code := d.verified(t, kept, "--trust", trust); code != 0 || !strings.HasPrefix(out, "Genuine\n") {
		t.Errorf("what was kept: %d: %s", code, out)
	}
	if out, code := d.verified(t, strings.Repeat("0", 32)); code != 4 || !strings.HasPrefix(out, "Unknown\n") {
		t.Errorf("a device that nobody made: %d: %s", code, out)
	}

	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })...)
	a.run.stop(os.Interrupt)
	d.besideIt(t, a)
	twin := &device{d: d, id: a.id, dir: filepath.Join(d.dir, "copy")}
	if err := a.duplicate(twin.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { twin.run.stop(os.Kill) })
	for _, x := range []*device{a, twin} {
		if err := x.on(); err != nil {
			t.Fatal(err)
		}
	}
	d.until(t, a, "they are found", func(v httpapi.DeviceDetail) bool {
		return v.Device.State == string(registry.Suspected) && v.Device.Suspect != ""
	})
	v, err := d.seen(t.Context(), a.id)
	if err != nil || len(v.Device.Sides) != 2 || v.Device.Sides[1].BootCount == 0 {
		t.Errorf("what was seen of both: %+v, %v", v.Device.Sides, err)
	}
	found, err := d.people["olga"].Findings(t.Context(), findings.Query{Subject: a.id, Kind: findings.CloneSuspected, OpenOnly: true})
	if err != nil || len(found) != 1 || found[0].Severity != findings.Critical {
		t.Errorf("findings: %+v, %v", found, err)
	}
	if ok, saw := wait(t.Context(), 20*time.Second, func() (bool, string) { // a verdict is given out for a moment without looking again
		out, code := d.verified(t, a.id)
		return code == 4 && strings.HasPrefix(out, "Perhaps a copy\n"), fmt.Sprintf("%d: %s", code, out)
	}); !ok {
		t.Errorf("a buyer is told: %s", saw)
	}
}

// until waits for the maker to see a device as it should be.
func (d *demo) until(t *testing.T, a *device, what string, is func(httpapi.DeviceDetail) bool) {
	t.Helper()
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		v, err := d.seen(t.Context(), a.id)
		return err == nil && is(v), tell(v, err)
	}); !ok {
		t.Fatalf("%s: %s\n%s", what, saw, tail(filepath.Join(a.dir, "agent.log")))
	}
}

// besideIt has a device prove itself to who stands beside it, the server having no part in it.
func (d *demo) besideIt(t *testing.T, a *device) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.bin.agent, "run", "--dir", a.dir, "--prove", "127.0.0.1:0")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at := make(chan string, 1)
	go func() {
		for sc := bufio.NewScanner(said); sc.Scan(); {
			if _, after, ok := strings.Cut(sc.Text(), "proves itself to whoever asks"); ok {
				_, addr, _ := strings.Cut(after, "at=")
				at <- strings.Fields(addr)[0]
			}
		}
	}()
	select {
	case addr := <-at:
		if ok, saw := wait(t.Context(), 20*time.Second, func() (bool, string) { // its door is open before it is ready, and says so
			out, code := d.verified(t, a.id, "--local", addr)
			return code == 0 && strings.Contains(out, "is the one with this ID") && strings.Contains(out, v1), fmt.Sprintf("%d: %s", code, out)
		}); !ok {
			t.Errorf("beside it: %s", saw)
		}
		if out, code := d.verified(t, d.agents[0].id, "--local", addr); code != 1 {
			t.Errorf("as another device: %d: %s", code, out)
		}
	case <-time.After(time.Minute):
		t.Error("the device does not say where it proves itself")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(fmt.Errorf("the device: %w", err))
	}
}
