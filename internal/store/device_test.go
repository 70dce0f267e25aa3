package store_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

type silentAudit struct{}

func (silentAudit) Record(context.Context, access.Decision) error { return nil }

// proofs is a ledger that proves facts only once they are witnessed.
type proofs struct {
	db        *store.DB
	witnessed bool
}

func (p *proofs) Locate(context.Context, [16]byte) (ledger.Ref, bool, error) {
	return ledger.Ref{Log: ledger.Control, Index: 1}, p.witnessed, nil
}

func (p *proofs) Logged(ctx context.Context, uid [16]byte) (wire.Logged, error) {
	if !p.witnessed {
		return wire.Logged{}, ledger.ErrNotYetWitnessed
	}
	var l wire.Logged
	return l, p.db.Read().QueryRowContext(ctx, `SELECT data FROM entry WHERE uid = $1`, uid[:]).Scan(&l.Entry)
}

func (p *proofs) SignedBy(_ context.Context, _ ledger.Log, proof wire.Proof, _ ed25519.PublicKey) (wire.Proof, bool, error) {
	return proof, true, nil
}

type noReleases struct{}

func (noReleases) HandsOut(context.Context, [32]byte) (bool, error) { return false, nil }

func (noReleases) Forms(context.Context, [32]byte, [32]byte) ([]wire.Form, error) { return nil, nil }

func (noReleases) Manifest(context.Context, [32]byte) (wire.Release, bool, error) {
	return wire.Release{}, false, fault.New(fault.NotFound, "release.unknown", "no releases are served here", "")
}

func (noReleases) Logged(context.Context, [32]byte) (wire.Logged, error) {
	return wire.Logged{}, errors.New("no release")
}

const devID = "00112233445566778899aabbccddeeff"

func deviceBench(t testing.TB) (*store.DB, *device.Service, *proofs, *ecdsa.PrivateKey) {
	t.Helper()
	db := storetest.Open(t)
	svc, l, key := deviceBenchOn(t, db, func(*device.Config) {})
	return db, svc, l, key
}

// deviceBenchOn has a device at work in db, and change what its service is made of.
func deviceBenchOn(t testing.TB, db *store.DB, change func(*device.Config)) (*device.Service, *proofs, *ecdsa.PrivateKey) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		return store.PutProvisioned(tx, store.ProvisionedRow{
			ID: devID, Product: "pump", Hardware: "A", Order: "o", Station: "s", At: time.Unix(1, 0), AttestKey: []byte{1}, KeyOrigin: "soft",
		})
	}); err != nil {
		t.Fatal(err)
	}
	cfg, l, key := benchConfig(t, db)
	change(&cfg)
	svc, err := device.NewService(cfg)
	if err != nil {
		t.Fatal(err)
	}
	publishBundle(t, svc, key)
	for _, ev := range []device.Event{device.Onboard, device.Activate} {
		if _, err := svc.Move(t.Context(), access.Internal("test"), devID, ev, nil, "test"); err != nil {
			t.Fatal(err)
		}
	}
	return svc, l, key
}

// benchConfig is what a node's service is made of.
func benchConfig(t testing.TB, db *store.DB) (device.Config, *proofs, *ecdsa.PrivateKey) {
	t.Helper()
	guard, err := access.NewGuard(silentAudit{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l, s := &proofs{db: db}, db.Devices()
	cfg := device.Config{
		Registry: s, Reports: s, Commands: s, Trust: s, Groups: s, Forgetter: s, Guard: guard, Ledger: l, Releases: noReleases{}, Bundles: s, Records: s,
		Authorities: func() []crypto.Signer { return []crypto.Signer{key} }, Wakes: db,
	}
	return cfg, l, key
}

// publishBundle publishes the product's first trust bundle, in which key is everybody.
func publishBundle(t testing.TB, svc *device.Service, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	one := wire.KeySet{Keys: [][]byte{der}, Threshold: 1}
	log := wire.LogTrust{Origin: "acme/control", Key: make([]byte, 32)}
	payload, err := wire.EncodeBundle(wire.Bundle{
		Version: 1, Product: "pump", Root: one, Release: one, Warrant: one, Directive: one, Control: log, Events: log, Issued: 1,
		Witnesses: []wire.NamedKey{}, Anchors: [][]byte{}, Suites: []string{"HM-P256-1"}, Telemetry: []wire.StreamKey{},
	})
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := wire.NewThreshold(wire.TypeBundle, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := svc.PublishBundle(t.Context(), access.Internal("test"), envelope); err != nil {
		t.Fatal(err)
	}
}

func checkin() wire.Checkin {
	return wire.Checkin{Bundle: 1, Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 1, Healthy: true, Version: "1.0.0"}
}

func TestACommandReachesItsDeviceOnceItIsWitnessed(t *testing.T) {
	db, svc, l, key := deviceBench(t)
	ctx, me := t.Context(), access.DeviceCaller(devID)
	id, err := svc.Command(ctx, access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActQuarantine, Devices: []string{devID}, Reason: "why"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := svc.Checkin(ctx, me, devID, checkin())
	if err != nil || r.Delivery != nil || r.NextPoll != 5000 {
		t.Fatalf("not witnessed: %+v, %v", r, err)
	}
	l.witnessed = true
	var directive wire.Directive
	for want := uint64(1); want <= 2; want++ {
		if r, err = svc.Checkin(ctx, me, devID, checkin()); err != nil {
			t.Fatal(err)
		}
		d, err := wire.DecodeDelivery(r.Delivery)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := wire.Verify1(wire.TypeDirective, d.Directive, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if directive, err = wire.DecodeDirective(payload); err != nil || directive.Counter != want || directive.Device != devID {
			t.Fatalf("directive %+v, %v", directive, err)
		}
	}
	in := checkin()
	in.Counter, in.State = 2, "quarantined"
	in.Results = []wire.Result{{Command: directive.Command, Act: wire.ActQuarantine, Outcome: wire.OutcomeDone, Seq: 1}}
	if r, err = svc.Checkin(ctx, me, devID, in); err != nil || r.Standing != "quarantined" || r.AckedSeq != 1 || r.Delivery != nil {
		t.Fatalf("after the result: %+v, %v", r, err)
	}
	before := count(t, db)
	if r, err = svc.Checkin(ctx, me, devID, in); err != nil || r.AckedSeq != 1 || count(t, db) != before {
		t.Fatalf("resent result was taken again: %+v, %v", r, err)
	}
	status, err := svc.CommandStatus(ctx, access.Internal("test"), id)
	if err != nil || status[device.Done] != 1 || len(status) != 1 {
		t.Fatalf("%v, %v", status, err)
	}
}

// Whoever reads the log can quote any command: a result moves the device that was given the command, once, and no other.
func TestAResultOfAnotherDevicesCommandMovesNothing(t *testing.T) {
	db, svc, l, _ := deviceBench(t)
	l.witnessed = true
	ctx, me, test := t.Context(), access.DeviceCaller(devID), access.Internal("test")
	other := strings.Repeat("ab", 16)
	if err := db.Write(ctx, func(tx *store.Tx) error {
		return store.PutProvisioned(tx, store.ProvisionedRow{
			ID: other, Product: "pump", Hardware: "A", Order: "o", Station: "s", At: time.Unix(1, 0), AttestKey: []byte{2}, KeyOrigin: "soft",
		})
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{other, devID} {
		for _, ev := range []device.Event{device.Onboard, device.Activate} {
			if _, err := svc.Move(ctx, test, id, ev, nil, "test"); err != nil && id == other {
				t.Fatal(err)
			}
		}
	}
	digest := func(act wire.Act, to string) []byte {
		id, err := svc.Command(ctx, test, device.Instruction{Product: "pump", Act: act, Devices: []string{to}, Reason: "why", TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		c, err := svc.CommandOf(ctx, test, id)
		if err != nil {
			t.Fatal(err)
		}
		return c.Digest[:]
	}
	if _, err := svc.Move(ctx, test, devID, device.Quarantine, nil, "compromised"); err != nil {
		t.Fatal(err)
	}
	claim := func(seq uint64, act wire.Act, digest []byte) string {
		in := checkin()
		in.State, in.Results = "quarantined", []wire.Result{{Command: digest, Act: act, Outcome: wire.OutcomeDone, Seq: seq}}
		r, err := svc.Checkin(ctx, me, devID, in)
		if err != nil {
			t.Fatal(err)
		}
		return r.Standing
	}
	if got := claim(1, wire.ActRelease, digest(wire.ActRelease, other)); got != "quarantined" {
		t.Errorf("by another device's command it is %s", got)
	}
	own := digest(wire.ActRelease, devID)
	if got := claim(2, wire.ActRelease, own); got != "quarantined" {
		t.Errorf("by a command that it was never given it is %s", got)
	}
	if _, err := svc.Checkin(ctx, me, devID, checkin()); err != nil { // now it is given
		t.Fatal(err)
	}
	if got := claim(3, wire.ActRelease, own); got != "onboarded" {
		t.Errorf("by its own command it is %s", got)
	}
	if _, err := svc.Move(ctx, test, devID, device.Quarantine, nil, "again"); err != nil {
		t.Fatal(err)
	}
	if got := claim(4, wire.ActRelease, own); got != "quarantined" {
		t.Errorf("by the answered command again it is %s", got)
	}
}

// The ledger keeps what it is told for good: a device does not fill it with results of what nobody asked for, nor by falling ill and
// getting well again.
func TestADeviceThatTellsEverMoreIsNotListenedTo(t *testing.T) {
	db, svc, _, _ := deviceBench(t)
	before := count(t, db)
	seq := uint64(0)
	for i := range 40 {
		in := checkin()
		in.Healthy, in.Sick = i%2 == 0, i%2 == 1
		for range wire.MaxResults {
			seq++
			in.Results = append(in.Results, wire.Result{Command: bytes.Repeat([]byte{byte(seq)}, 32), Act: wire.ActReset, Outcome: wire.OutcomeRefused, Code: "x", Seq: seq})
		}
		if r, err := svc.Checkin(t.Context(), access.DeviceCaller(devID), devID, in); err != nil || r.AckedSeq != seq {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if n := count(t, db) - before; n < 50 || n > 110 {
		t.Errorf("%d facts", n)
	}
}

func TestCommandsThatMayNotBe(t *testing.T) {
	db, svc, _, _ := deviceBench(t)
	before := count(t, db)
	for name, in := range map[string]device.Instruction{
		"another product": {Product: "lamp", Act: wire.ActReset, Devices: []string{devID}},
		"unknown device":  {Product: "pump", Act: wire.ActReset, Devices: []string{devID, strings.Repeat("f", 32)}},
		"no warrant":      {Product: "pump", Act: wire.ActWipe, Devices: []string{devID}},
		"no release":      {Product: "pump", Act: wire.ActInstall, Devices: []string{devID}},
	} {
		if _, err := svc.Command(t.Context(), access.Internal("test"), in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := svc.Checkin(t.Context(), access.DeviceCaller("other"), devID, checkin()); err == nil {
		t.Error("one device checked in for another")
	}
	if n := count(t, db); n != before {
		t.Errorf("%d facts of refused commands", n-before)
	}
}

func TestWhatCannotBeTrueOfOneDeviceIsSaidOnce(t *testing.T) {
	_, svc, _, _ := deviceBench(t)
	in := checkin()
	for _, boots := range []uint64{5, 3, 6, 2} {
		in.BootCount = boots
		if _, err := svc.Checkin(t.Context(), access.DeviceCaller(devID), devID, in); err != nil {
			t.Fatal(err)
		}
	}
	d, err := svc.Get(t.Context(), access.Internal("test"), devID)
	if err != nil || d.Twin.Suspect == "" || d.Twin.BootCount != 6 {
		t.Fatalf("%+v, %v", d.Twin, err)
	}
}

func BenchmarkCheckinNoChange(b *testing.B) {
	_, svc, _, _ := deviceBench(b)
	me, in := access.DeviceCaller(devID), checkin()
	for b.Loop() {
		if _, err := svc.Checkin(b.Context(), me, devID, in); err != nil {
			b.Fatal(err)
		}
	}
}

// A device that has just started does not know yet how it is: that is neither well nor sick, and no news.
func TestHealthIsToldWhenItChanges(t *testing.T) {
	db, svc, _, _ := deviceBench(t)
	said := func() (healthy, unhealthy int) {
		t.Helper()
		if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FILTER (WHERE kind = 'device.healthy'),
			count(*) FILTER (WHERE kind = 'device.unhealthy') FROM entry WHERE subject = $1`, devID).Scan(&healthy, &unhealthy); err != nil {
			t.Fatal(err)
		}
		return healthy, unhealthy
	}
	for i, c := range []struct {
		healthy, sick     bool
		state             string
		wantGood, wantBad int
		shown             string
	}{
		{false, false, "active", 0, 0, "unknown"},
		{true, false, "active", 1, 0, "healthy"},
		{true, false, "active", 1, 0, "healthy"},
		{false, false, "active", 1, 0, "unknown"}, // it restarted
		{true, false, "active", 1, 0, "healthy"},
		{false, true, "active", 1, 1, "unhealthy"},
		{false, true, "active", 1, 1, "unhealthy"},
		{false, false, "active", 1, 1, "unknown"},
		{true, false, "active", 2, 1, "healthy"},
		{false, false, "recovery", 2, 2, "unhealthy"},
	} {
		in := checkin()
		in.BootCount, in.Healthy, in.Sick, in.State = uint64(i+1), c.healthy, c.sick, c.state
		if _, err := svc.Checkin(t.Context(), access.DeviceCaller(devID), devID, in); err != nil {
			t.Fatal(err)
		}
		if err := svc.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		d, err := db.FleetDevice(t.Context(), devID)
		if good, bad := said(); err != nil || good != c.wantGood || bad != c.wantBad || d.Health != c.shown {
			t.Errorf("check-in %d: %d times healthy, %d unhealthy, shown %s, %v; want %+v", i+1, good, bad, d.Health, err, c)
		}
	}
}
