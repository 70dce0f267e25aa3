package demo

import (
	"context"
	"errors"
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
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// begins plays chapters.
func (d *demo) begins(t *testing.T, chapters ...func(context.Context) error) {
	t.Helper()
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	for _, chapter := range chapters {
		if err := chapter(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, tail(filepath.Join(d.dir, "server.log")))
		}
	}
}

// types has the administrator type a command, and gives what it says.
func (d *demo) types(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.bin.hallmark, append(args, "--url", d.console, "--token-file", d.layout.AdminToken())...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+d.dir, "HALLMARK_PASSPHRASE="+d.pass)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("hallmark %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A device is made at a maker, belongs to somebody, and goes to an instance of its owner's own. There it works, is commanded and updated; the maker, with
// all it has, is nobody to it, and says of it that it is gone.
func TestADeviceGoesToItsOwnersInstance(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	bin := programs(t)
	maker := plan(Options{Devices: 5, Out: io.Discard, programs: bin})
	maker.begins(t, maker.build, maker.instance, maker.firstRelease, maker.produce, maker.field)
	clinic := plan(Options{Out: io.Discard, programs: bin, maker: "berlin-clinic"})
	clinic.images = maker.images
	clinic.begins(t, clinic.build, clinic.instance, clinic.firstRelease) // its approvers let run what the maker ships
	a, anna := maker.agents[1], maker.buyer(t, "anna")
	code, err := maker.code(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := anna.claim(a.id, code); err != nil {
		t.Fatal(err)
	}
	anna.held(a)
	anna.set(a, "berlin")

	// The clinic offers, the maker's approvers and the owner sign, and the device is made known where it goes.
	dir := t.TempDir()
	offer, payload := filepath.Join(dir, "clinic.offer"), filepath.Join(dir, "rehome.payload")
	clinic.types(t, "bundle", "offer", "--product", productID, "--server", clinic.devURL, "--out", offer)
	o, err := anna.who.Ownership(t.Context(), a.id)
	if err != nil {
		t.Fatal(err)
	}
	maker.types(t, "warrant", "payload", a.id, "--product", productID, "--act", "rehome", "--offer", offer, "--owner-digest",
		fmt.Sprintf("%x", o.Periods[0].Digest), "--reason", "its own", "--valid", "1h", "--out", payload)
	data, err := os.ReadFile(payload)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := maker.threshold(wire.TypeWarrant, data, "alice", "bob")
	if err != nil {
		t.Fatal(err)
	}
	both, err := wire.AddSignature(wire.TypeWarrant, alone, anna.key)
	if err != nil {
		t.Fatal(err)
	}
	offered, err := os.ReadFile(offer)
	if err != nil {
		t.Fatal(err)
	}
	order := client.TransferRequest{Devices: []string{a.id}, Kind: owner.Rehome, Reason: "the clinic runs its own", Offer: offered, Warrants: [][]byte{alone}}
	if _, err := maker.people["sam"].Transfer(t.Context(), order); client.Code(err) != "access.four-eyes" {
		t.Errorf("by one person alone: %v", err)
	}
	agreed := func(p proposal.Proposal) {
		if _, err := maker.people["olga"].DecideProposal(t.Context(), p.ID, true, "it is sold"); err != nil {
			t.Error(err)
		}
	}
	if _, err := maker.people["sam"].Proposing("sold", agreed).Transfer(t.Context(), order); client.Code(err) != "rehome.warrant" {
		t.Errorf("without the owner's key: %v", err)
	}
	chain := filepath.Join(dir, "a.custody")
	trust := filepath.Join(maker.layout.Logs(), "trust.json")
	maker.types(t, "log", "trace", a.id, "--trust", trust, "--bundle", chain)
	shown, err := os.ReadFile(chain)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(trust)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []foreign.Outcome{foreign.Taken, foreign.Known} {
		w, err := clinic.people["frank"].WelcomeDevice(t.Context(), productID, client.Arriving{Trust: string(keys), Custody: shown})
		if err != nil || w.Device != a.id || w.Outcome != want {
			t.Fatalf("%+v, %v", w, err)
		}
	}
	theirs, err := os.ReadFile(filepath.Join(clinic.layout.Logs(), "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]client.Arriving{
		"by the keys of other logs": {Trust: string(theirs), Custody: shown}, "cut short": {Trust: string(keys), Custody: shown[:len(shown)-1]},
		"with a bit changed": {Trust: string(keys), Custody: append(slices.Clone(shown[:len(shown)/2]), append([]byte{shown[len(shown)/2] ^ 1}, shown[len(shown)/2+1:]...)...)},
	} {
		if _, err := clinic.people["frank"].WelcomeDevice(t.Context(), productID, bad); client.Code(err) != "welcome.custody" {
			t.Errorf("a chain of custody %s: %v", what, err)
		}
	}
	if v, err := clinic.seen(t.Context(), a.id); err != nil || v.Device.State != "provisioned" || v.Device.Legitimacy != "imported" {
		t.Fatalf("%s", tell(v, err))
	}
	order.Warrants = [][]byte{both}
	begun := time.Now()
	if _, err := maker.people["sam"].Proposing("sold", agreed).Transfer(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	moved(t, maker, clinic, a)
	clinic.agents = []*device{a}

	// So does one whose keys were lost and replaced in the field, and which belongs to nobody: it is known there by the keys that it has now.
	b := maker.agents[2]
	maker.setLive(slices.DeleteFunc(maker.powered(), func(o *device) bool { return o == b })...)
	b.run.stop(os.Interrupt)
	if err := b.forget(); err != nil {
		t.Fatal(err)
	}
	b.recovered(t, maker.vouched(t, b))
	if err := b.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := maker.waitWorks(t.Context(), b.id, v1); !ok {
		t.Fatalf("after its recovery: %s", saw)
	}
	chain, payload = filepath.Join(dir, "b.custody"), filepath.Join(dir, "b.payload")
	maker.types(t, "log", "trace", b.id, "--trust", trust, "--bundle", chain)
	maker.types(t, "warrant", "payload", b.id, "--product", productID, "--act", "rehome", "--offer", offer, "--reason", "its own", "--valid", "1h", "--out", payload)
	if shown, err = os.ReadFile(chain); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(payload); err != nil {
		t.Fatal(err)
	}
	if alone, err = maker.threshold(wire.TypeWarrant, data, "alice", "bob"); err != nil {
		t.Fatal(err)
	}
	if w, err := clinic.people["frank"].WelcomeDevice(t.Context(), productID, client.Arriving{Trust: string(keys), Custody: shown}); err != nil || w.Outcome != foreign.Taken {
		t.Fatalf("%+v, %v", w, err)
	}
	order.Devices, order.Warrants = []string{b.id}, [][]byte{alone}
	if _, err := maker.people["sam"].Proposing("sold", agreed).Transfer(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	moved(t, maker, clinic, b)

	// There it is one of theirs.
	if err := clinic.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	if err := clinic.rollout(t.Context(), "own-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 90}}); err != nil {
		t.Fatal(err)
	}
	if ok, saw := clinic.waitWorks(t.Context(), a.id, v2); !ok {
		t.Fatalf("updated by the clinic's approvers: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
	if all, err := clinic.people["olga"].Settings(t.Context(), a.id); err != nil || len(all) != 0 {
		t.Errorf("settings of before: %+v, %v", all, err)
	}

	// A fault takes its trust record, and then all of its flash: it comes home by the copy that is kept there, which its maker's server leads it to.
	for _, all := range []bool{false, true} {
		since := time.Now()
		a.run.stop(os.Interrupt)
		a.loses(t, all)
		if err := a.on(); err != nil {
			t.Fatal(err)
		}
		if ok, saw := wait(t.Context(), 2*time.Minute, func() (bool, string) {
			v, err := clinic.seen(t.Context(), a.id)
			return err == nil && v.Device.LastSeen.After(since) && (all || works(v, v2)), tell(v, err)
		}); !ok {
			t.Fatalf("it does not come home, all of its flash lost %v: %s\n%s", all, saw, tail(filepath.Join(a.dir, "agent.log")))
		}
	}

	// So does one that does not start, at a bench, without a voucher: a device that demands a boot manager that a bundle names.
	a.run.stop(os.Interrupt)
	a.loses(t, false)
	if out, err := exec.CommandContext(t.Context(), maker.bin.agent, "recover", "--dir", a.dir, "--device", a.id, "--product", productID, "--server", clinic.devURL).CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "the trust bundle is back") {
		t.Fatalf("at the bench: %v\n%s", err, out)
	}
	since := time.Now()
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := wait(t.Context(), 2*time.Minute, func() (bool, string) {
		v, err := clinic.seen(t.Context(), a.id)
		return err == nil && v.Device.LastSeen.After(since), tell(v, err)
	}); !ok {
		t.Fatalf("after the bench: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}

	// And where it was it is nobody's.
	v, err := maker.seen(t.Context(), a.id)
	if err != nil || v.Device.State != "moved" || v.Device.LastSeen.After(time.Now().Add(-time.Second)) && v.Device.LastSeen.After(begun.Add(time.Minute)) {
		t.Errorf("%s, last seen %s", tell(v, err), v.Device.LastSeen)
	}
	if _, err := maker.people["olga"].Command(t.Context(), httpapi.CommandRequest{
		Product: productID, Act: wire.ActReset, Devices: []string{a.id}, Reason: "test",
	}); err == nil {
		t.Error("the maker gave it a command")
	}
	if g, err := maker.people["olga"].Verdict(t.Context(), a.id, nil); err != nil || g.Headline != "moved" {
		t.Errorf("asked about it, the maker says %q, %v", g.Headline, err)
	}
	maker.lineageEnds(t, a)
}

// loses has a fault in the device's flash.
func (a *device) loses(t *testing.T, all bool) {
	t.Helper()
	b, err := virtual.Open(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := boot.Arrange(b.Flash)
	if err == nil {
		err = f.Lose(all)
	}
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
}

// moved waits until the device works where it was handed to.
func moved(t *testing.T, maker, clinic *demo, a *device) {
	t.Helper()
	if ok, saw := clinic.waitWorks(t.Context(), a.id, v1); !ok {
		tr, err := maker.people["sam"].Ownership(t.Context(), a.id)
		t.Fatalf("it does not come: %s; here %+v, %v\n%s\n%s", saw, tr.Transfer, err, tail(filepath.Join(a.dir, "agent.log")), tail(filepath.Join(clinic.dir, "server.log")))
	}
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		v, err := maker.seen(t.Context(), a.id)
		return err == nil && v.Device.State == "moved", tell(v, err)
	}); !ok {
		t.Fatalf("its life at the maker does not end: %s", saw)
	}
}

// lineageEnds checks that the maker's ledger tells of it, and holds.
func (d *demo) lineageEnds(t *testing.T, a *device) {
	t.Helper()
	if ok, saw := wait(t.Context(), 20*time.Second, func() (bool, string) {
		r, _, err := d.history(t.Context(), a)
		if err != nil {
			return false, err.Error()
		}
		done := errors.New("no end")
		for _, l := range r.Lines {
			if l.Kind == ledger.KindTransferDone {
				done = nil
			}
		}
		return done == nil && len(r.Problems) == 0, fmt.Sprintf("problems %q, %v", r.Problems, done)
	}); !ok {
		t.Errorf("chain of custody: %s", saw)
	}
}
