package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	findings "github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/rollout"
)

// vouched has olga ask for a voucher for the device, and sam agree.
func (d *demo) vouched(t *testing.T, a *device) string {
	t.Helper()
	type answer struct {
		v   httpapi.VoucherReply
		err error
	}
	got := make(chan answer, 1)
	asked := make(chan string, 1)
	go func() {
		v, err := d.people["olga"].Proposing("flash and key store are gone", func(p proposal.Proposal) { asked <- p.ID }).
			Vouch(t.Context(), a.id, httpapi.VoucherRequest{Reason: "flash and key store are gone"})
		got <- answer{v, err}
	}()
	select {
	case id := <-asked:
		if _, err := d.people["olga"].DecideProposal(t.Context(), id, true, ""); err == nil {
			t.Fatal("who asks for a voucher agreed to it")
		}
		if _, err := d.people["sam"].DecideProposal(t.Context(), id, true, "it lies before me"); err != nil {
			t.Fatal(err)
		}
	case g := <-got:
		t.Fatalf("a voucher without a second person: %+v, %v", g.v.Voucher, g.err)
	}
	g := <-got
	if g.err != nil {
		t.Fatal(g.err)
	}
	path := filepath.Join(t.TempDir(), "voucher.json")
	data, err := json.Marshal(map[string]any{"device": a.id, "product": productID, "server": d.devURL, "voucher": g.v.Secret, "id": g.v.ID, "expires": g.v.Expires})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// recovered is what a technician does, while the power fails again and again: after one operation of the device's memories, then after two, and so on.
func (a *device) recovered(t *testing.T, voucher string) {
	t.Helper()
	cuts := 0
	for n := 1; ; n += 1 + n/3 {
		if err := os.WriteFile(filepath.Join(a.dir, "cut.json"), fmt.Appendf(nil, `{"after": %d, "mode": "random"}`, n), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		cmd := exec.CommandContext(t.Context(), a.d.bin.agent, "recover", "--dir", a.dir, "--voucher-file", voucher)
		cmd.Stderr = &said
		err := cmd.Run()
		if err == nil {
			break
		}
		if cmd.ProcessState.ExitCode() != 75 {
			t.Fatalf("after %d power cuts: %v\n%s", cuts, err, &said)
		}
		cuts++
	}
	if cuts < 5 {
		t.Errorf("%d power cuts are no proof", cuts)
	}
	if err := os.Remove(filepath.Join(a.dir, "cut.json")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// A device loses everything. Two people vouch for it, the power fails at every step of its recovery, and then it is what it was: it enrols, proves itself
// with its new key, is made anew, and updates with the others. Whoever has its former keys is nobody, and is found.
func TestADeviceThatLostEverythingComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	d := plan(Options{Devices: 5, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		d.dir = keep
	}
	t.Cleanup(d.stopAll)
	play := func(chapters ...func(context.Context) error) {
		t.Helper()
		for _, chapter := range chapters {
			if err := chapter(t.Context()); err != nil {
				logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
				t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
			}
		}
	}
	play(d.build, d.instance, d.firstRelease, d.produce, d.field)
	a := d.agents[2]
	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })...)
	a.run.stop(os.Interrupt)
	thief := &device{d: d, id: a.id, dir: filepath.Join(d.dir, "copy")}
	if err := a.duplicate(thief.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { thief.run.stop(os.Kill) })
	if err := a.forget(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), a.d.bin.agent, "inspect", "--dir", a.dir).CombinedOutput(); err == nil {
		t.Fatalf("it starts without anything: %s", out)
	}
	a.recovered(t, d.vouched(t, a))
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := d.waitWorks(t.Context(), a.id, v1); !ok {
		t.Fatalf("after its recovery: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
	if err := d.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 90}}); err != nil {
		t.Fatal(err)
	}
	if ok, saw := d.waitWorks(t.Context(), a.id, v2); !ok {
		t.Fatalf("updating with the others: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
	d.holdsAfterAll(t, a)

	if err := thief.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		all, err := d.people["olga"].Findings(t.Context(), findings.Query{Subject: a.id, Kind: findings.EnrolRefused, OpenOnly: true})
		if err != nil {
			return false, err.Error()
		}
		return slices.ContainsFunc(all, func(f findings.Finding) bool {
			return strings.Contains(f.Text, "former") && f.Severity == findings.Critical
		}), fmt.Sprint(len(all), " findings")
	}); !ok {
		t.Errorf("somebody has the former keys, and no finding says so: %s\n%s", saw, tail(filepath.Join(thief.dir, "agent.log")))
	}
	if ok, saw := d.waitWorks(t.Context(), a.id, v2); !ok {
		t.Errorf("the device itself, meanwhile: %s", saw)
	}
}

// holdsAfterAll has the chain of custody checked offline: the change of keys in the middle of it as well.
func (d *demo) holdsAfterAll(t *testing.T, a *device) {
	t.Helper()
	ok, saw := wait(t.Context(), 20*time.Second, func() (bool, string) {
		r, _, err := d.history(t.Context(), a)
		if err != nil {
			return false, err.Error()
		}
		told, logged := false, false
		for _, l := range r.Lines {
			told = told || l.Kind == ledger.KindDeviceRekeyed && l.Checked != ""
			logged = logged || told && l.Kind == ledger.KindDeviceLogAnchored && l.Problem == ""
		}
		return told && logged && len(r.Problems) == 0, fmt.Sprintf("new keys checked %v, its log since %v, problems %q", told, logged, r.Problems)
	})
	if !ok {
		t.Errorf("chain of custody: %s", saw)
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path)
	return string(b[max(0, len(b)-3000):])
}
