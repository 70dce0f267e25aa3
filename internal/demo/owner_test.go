package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// buyer is an owner, with one person and a key that the server never sees.
type buyer struct {
	d    *demo
	t    *testing.T
	id   string
	who  *client.Client
	name string
	key  *ecdsa.PrivateKey
}

func (d *demo) buyer(t *testing.T, name string) *buyer {
	t.Helper()
	o, err := d.people["sam"].CreateOwner(t.Context(), name+" Ltd")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := d.people["admin"].Token(t.Context(), httpapi.TokenSpec{
		Caller: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Operator}, Owner: o.ID, Use: signin.UseToken, Seconds: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &buyer{d: d, t: t, id: o.ID, who: d.people["admin"].As(secret), name: name, key: key}
}

func (b *buyer) claim(id, code string) error {
	spki, err := wire.SPKIOf(b.key.Public())
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.who.Claim(b.t.Context(), id, client.ClaimRequest{Code: code, Key: spki})
	return err
}

func (b *buyer) held(a *device) {
	b.t.Helper()
	if ok, saw := wait(b.t.Context(), time.Minute, func() (bool, string) {
		o, err := b.who.Ownership(b.t.Context(), a.id)
		n := len(o.Periods)
		return err == nil && n > 0 && o.Periods[n-1].Owner == b.id && o.Periods[n-1].Holds, fmt.Sprintf("%+v, %v", o.Periods, err)
	}); !ok {
		b.t.Fatalf("the device does not hold its owner: %s\n%s", saw, tail(filepath.Join(a.dir, "agent.log")))
	}
}

// set has the device configured, and says until it is.
func (b *buyer) set(a *device, value string) {
	b.t.Helper()
	if _, err := b.who.Command(b.t.Context(), httpapi.CommandRequest{
		Product: productID, Act: wire.ActConfigure, Devices: []string{a.id}, Config: []wire.ConfigEntry{{Name: "site", Value: value}}, Reason: b.name + " says so",
	}); err != nil {
		b.t.Fatal(err)
	}
	if ok, saw := wait(b.t.Context(), time.Minute, func() (bool, string) {
		all, err := b.who.Settings(b.t.Context(), a.id)
		return err == nil && len(all) == 1 && all[0].Reported != nil && *all[0].Reported == value, fmt.Sprintf("%+v, %v", all, err)
	}); !ok {
		b.t.Fatalf("not configured: %s", saw)
	}
}

// read reads what the device measured, with the reader's key.
func (b *buyer) read(a *device, key hpke.PrivateKey) (telemetry.ReadReply, error) {
	return b.who.ReadStream(b.t.Context(), telemetry.ReadRequest{
		Device: a.id, Stream: "readings", Purpose: "service", KEM: key.KEM().ID(), Key: key.PublicKey().Bytes(),
	})
}

func (b *buyer) reads(a *device) hpke.PrivateKey {
	b.t.Helper()
	key, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.d.people["sam"].GrantStream(b.t.Context(), telemetry.Grant{
		ID: "g-" + b.name, Reader: "person:" + b.name, Product: productID, Stream: "readings", Purpose: "service", Until: time.Now().Add(time.Hour),
	}); err != nil {
		b.t.Fatal(err)
	}
	origin, err := b.d.attestKey(b.t.Context(), a)
	if err != nil {
		b.t.Fatal(err)
	}
	if ok, saw := wait(b.t.Context(), time.Minute, func() (bool, string) {
		reply, err := b.read(a, key)
		if err != nil {
			return false, err.Error()
		}
		samples, err := telemetry.OpenAll(reply, key, origin, a.id)
		return err == nil && len(samples) > 0, fmt.Sprintf("%d samples, %v", len(samples), err)
	}); !ok {
		b.t.Fatalf("%s does not read: %s", b.name, saw)
	}
	return key
}

// readsNothingOfBefore checks that what the owner reads was measured in their time. There is more, which is not theirs.
func (b *buyer) readsNothingOfBefore(a *device, key hpke.PrivateKey) {
	b.t.Helper()
	reply, err := b.read(a, key)
	o, err2 := b.who.Ownership(b.t.Context(), a.id)
	if err := errors.Join(err, err2); err != nil {
		b.t.Fatal(err)
	}
	period := wire.PeriodOf(o.Periods[len(o.Periods)-1].From)
	for _, e := range reply.Epochs {
		if e.Epoch.Period != period {
			b.t.Errorf("%s reads epoch %d of period %d, theirs is %d", b.name, e.Epoch.Epoch, e.Epoch.Period, period)
		}
	}
}

// blind checks that the device is to somebody as one that never was: by everything that names a device.
func (b *buyer) blind(a *device, key hpke.PrivateKey) {
	b.t.Helper()
	ctx, nobody := b.t.Context(), strings.Repeat("0", 32)
	ask := func(id string) map[string]error {
		out := map[string]error{}
		_, out["show"] = b.who.Device(ctx, id)
		_, out["ownership"] = b.who.Ownership(ctx, id)
		_, out["settings"] = b.who.Settings(ctx, id)
		_, out["commands"] = b.who.DeviceCommands(ctx, id)
		_, out["custody"] = b.who.Custody(ctx, id)
		_, out["command"] = b.who.Command(ctx, httpapi.CommandRequest{Product: productID, Act: wire.ActReset, Devices: []string{id}, Reason: "test"})
		_, out["stolen"] = b.who.Mark(ctx, id, true, "test")
		_, out["transfer"] = b.who.Transfer(ctx, client.TransferRequest{Devices: []string{id}, Kind: owner.Resale, Reason: "test"})
		_, out["stream"] = b.read(&device{id: id}, key)
		_, out["dry run"] = b.who.PreviewTransfer(ctx, []string{id})
		return out
	}
	unknown := ask(nobody)
	for what, err := range ask(a.id) {
		if err == nil || strings.ReplaceAll(err.Error(), a.id, "X") != strings.ReplaceAll(unknown[what].Error(), nobody, "X") {
			b.t.Errorf("%s, %s: %v, and of a device that never was: %v", b.name, what, err, unknown[what])
		}
	}
	page, err := b.who.Devices(ctx, fleet.Query{})
	if err != nil && client.Code(err) != "access.denied" || slices.ContainsFunc(page.Items, func(x fleet.Device) bool { return x.ID == a.id }) {
		b.t.Errorf("%s still has it in a list: %+v, %v", b.name, page.Items, err)
	}
}

// leave signs the owner's leave.
func (b *buyer) leave(a *device) []byte {
	b.t.Helper()
	ps, err := b.who.PreviewTransfer(b.t.Context(), []string{a.id})
	if err != nil || len(ps) != 1 || ps[0].Warrant != owner.WarrantOwner || ps[0].Records == 0 {
		b.t.Fatalf("%+v, %v", ps, err)
	}
	env, err := leave(a, ps[0].Digest, b.key)
	if err != nil {
		b.t.Fatal(err)
	}
	return env
}

// A device is claimed, works for its owner, and is sold. The old owner has nothing left of it, the thief of the server could not hand it
// on, and what the ledger tells of it holds.
func TestADeviceIsSoldOn(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	d := plan(Options{Devices: 5, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field} {
		if err := chapter(t.Context()); err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	a, other := d.agents[1], d.agents[2]
	anna, ben := d.buyer(t, "anna"), d.buyer(t, "ben")
	codes, err := d.people["sam"].ClaimCodes(t.Context(), client.LabelsRequest{Product: productID, Order: d.order})
	if err != nil || len(codes.Labels) != 5 {
		t.Fatalf("%+v, %v", codes, err)
	}
	code := map[string]string{}
	for _, l := range codes.Labels {
		code[l.Device] = l.Code
	}
	for what, err := range map[string]error{"another device's code": ben.claim(a.id, code[other.id]), "a code of nothing": ben.claim(a.id, owner.NewCode()), "no device": ben.claim(strings.Repeat("0", 32), code[a.id])} {
		if client.Code(err) != "claim.refused" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := anna.claim(a.id, code[a.id]); err != nil {
		t.Fatal(err)
	}
	if err := ben.claim(a.id, code[a.id]); client.Code(err) != "claim.refused" {
		t.Errorf("a code is good twice: %v", err)
	}
	anna.held(a)
	anna.set(a, "berlin")
	if v, err := anna.who.Device(t.Context(), a.id); err != nil || v.Device.Isolation == nil || v.Device.Isolation.Programs != 1 || !slices.Contains(v.Device.Isolation.InForce, wire.LayerCalls) {
		t.Errorf("its evidence says of what holds its programs: %+v, %v", v.Device.Isolation, err)
	}
	key := anna.reads(a)
	anna.readsNothingOfBefore(a, key)
	if before := d.measured(t, a); before < 2 {
		t.Errorf("%d epochs: there was none before to keep from her", before)
	}
	ben.blind(a, key)
	diary := filepath.Join(a.dir, "programs", "app", "diary")
	if err := os.WriteFile(diary, []byte("what anna did"), 0o644); err != nil { // by her program, in its directory
		t.Fatal(err)
	}

	if err := d.taken(t.Context(), a); err != nil {
		t.Error(err)
	}
	order := client.TransferRequest{Devices: []string{a.id}, Kind: owner.Resale, Reason: "sold"}
	if _, err := anna.who.Transfer(t.Context(), order); client.Code(err) != "transfer.warrant" {
		t.Errorf("without the owner's key: %v", err)
	}
	if _, err := d.people["sam"].Transfer(t.Context(), order); client.Code(err) != "transfer.maker-warrant" {
		t.Errorf("by the maker, without the offline keys: %v", err)
	}
	order.Warrants = [][]byte{anna.leave(a)}
	begun, err := anna.who.Transfer(t.Context(), order)
	if err != nil || len(begun) != 1 || begun[0].Code == "" {
		t.Fatalf("%+v, %v", begun, err)
	}
	sold := time.Now()
	anna.blind(a, key)
	if ok, saw := wait(t.Context(), 90*time.Second, func() (bool, string) {
		err := ben.claim(a.id, begun[0].Code)
		return err == nil, fmt.Sprint(err)
	}); !ok {
		tr, _ := d.people["sam"].Ownership(t.Context(), a.id)
		t.Fatalf("the next owner: %s, %+v\n%s", saw, tr.Transfer, tail(filepath.Join(a.dir, "agent.log")))
	}
	ben.held(a)
	if all, err := ben.who.Settings(t.Context(), a.id); err != nil || len(all) != 0 {
		t.Errorf("settings of the owner before: %+v, %v", all, err)
	}
	if cs, err := ben.who.DeviceCommands(t.Context(), a.id); err != nil || len(cs) != 1 || cs[0].Act != wire.ActAdopt {
		t.Errorf("commands of the owner before: %+v, %v", cs, err)
	}
	v, err := ben.who.Device(t.Context(), a.id)
	if err != nil || v.Device.Legitimacy != "resold" || slices.ContainsFunc(v.Timeline, func(l fleet.Line) bool { return l.At.Before(sold) }) {
		t.Errorf("%s, %d lines, %v", v.Device.Legitimacy, len(v.Timeline), err)
	}
	if _, err := os.Stat(diary); !os.IsNotExist(err) {
		t.Errorf("what her program kept: %v", err)
	}
	ben.set(a, "rome")
	ben.readsNothingOfBefore(a, ben.reads(a))
	anna.blind(a, key)
	d.nothingLeft(t, a, sold)
	d.lineage(t, a)
}

// measured counts the epochs that are stored of a device.
func (d *demo) measured(t *testing.T, a *device) int {
	t.Helper()
	x, err := d.breakIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := x.db.Epochs(t.Context(), a.id, "readings", 0, telemetry.Limit{Epochs: 100, Records: 1 << 20})
	if err := errors.Join(err, x.db.Close()); err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// nothingLeft looks into the database: of the time before there is no sealed data, and no key of it.
func (d *demo) nothingLeft(t *testing.T, a *device, sold time.Time) {
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
	all, _, err := x.db.Epochs(t.Context(), a.id, "readings", 0, telemetry.Limit{Epochs: 100, Records: 1 << 20})
	for _, e := range all {
		if int64(e.Epoch.Opened) < sold.Unix()-1 {
			err = errors.Join(err, fmt.Errorf("epoch %d, opened %d s before the sale, is there with %d records", e.Epoch.Epoch, sold.Unix()-int64(e.Epoch.Opened), len(e.Records)))
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// lineage has the chain of custody checked offline, with the two times of ownership in it.
func (d *demo) lineage(t *testing.T, a *device) {
	t.Helper()
	want := []ledger.Kind{ledger.KindDeviceClaimed, ledger.KindDeviceTransferred, ledger.KindTransferDone, ledger.KindDeviceClaimed}
	if ok, saw := wait(t.Context(), 20*time.Second, func() (bool, string) {
		r, _, err := d.history(t.Context(), a)
		if err != nil {
			return false, err.Error()
		}
		var got []ledger.Kind
		for _, l := range r.Lines {
			if !slices.Contains(want, l.Kind) {
				continue
			}
			got = append(got, l.Kind)
			if said := string(l.Fact.Data) + l.Fact.Actor; slices.ContainsFunc([]string{"anna", "ben", "Ltd", "o-"}, func(x string) bool { return strings.Contains(said, x) }) {
				return false, "the log names an owner: " + string(l.Fact.Data)
			}
		}
		wrong := slices.DeleteFunc(r.Problems, func(p string) bool { return strings.Contains(p, forgedCommand) }) // the thief's is found
		return slices.Equal(got, want) && len(wrong) == 0, fmt.Sprintf("%v, problems %q", got, wrong)
	}); !ok {
		t.Errorf("chain of custody: %s", saw)
	}
}
