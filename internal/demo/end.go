package demo

import (
	"context"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// data is read by whom the policy names, and by nobody else.
func (d *demo) data(ctx context.Context) error {
	d.say("\nData: sealed on the device, read by whom a grant names")
	a := d.agents[3]
	key, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		return err
	}
	req := telemetry.ReadRequest{Device: a.id, Stream: "readings", Purpose: "service", KEM: key.KEM().ID(), Key: key.PublicKey().Bytes()}
	grant := telemetry.Grant{
		ID: "grant-1", Reader: "person:rene", Product: productID, Stream: "readings", Purpose: "service", Until: time.Now().Add(time.Hour),
	}
	if err := insist(ctx, func() error { return d.people["sam"].GrantStream(ctx, grant) }, "grant.exists"); err != nil {
		return err
	}
	origin, err := d.attestKey(ctx, a)
	if err != nil {
		return err
	}
	limit := 60 * time.Second
	if d.o.Firmware != "" {
		limit = 3 * time.Second // it need not measure anything
	}
	ok, saw := wait(ctx, limit, func() (bool, string) {
		reply, err := d.people["rene"].ReadStream(ctx, req)
		if err != nil {
			return false, err.Error()
		}
		samples, err := telemetry.OpenAll(reply, key, origin, a.id)
		if err != nil || len(samples) == 0 {
			return false, observed(err, "nothing yet")
		}
		return true, fmt.Sprintf("%d readings, the first %q", len(samples), samples[0])
	})
	if d.o.Firmware != "" && !ok {
		ok, saw = true, "the firmware given measures nothing: no readings to read"
	}
	if err := d.step(Step{
		Step: "an allowed reader", Device: a.id, Expected: "reads", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "telemetry.read.decided", a.id),
	}); err != nil {
		return err
	}
	err = insist(ctx, func() error { _, err := d.people["mallory"].ReadStream(ctx, req); return err })
	return d.step(Step{
		Step: "another reader", Device: a.id, Expected: "refused, and on record", OK: client.Code(err) == "stream.no-grant",
		Observed: observed(err, "he reads"), Ledger: d.place(ctx, "events", "telemetry.read.decided", a.id),
	})
}

// attestKey is the device's attestation key as its production record in the ledger gives it.
func (d *demo) attestKey(ctx context.Context, a *device) (any, error) {
	p := d.place(ctx, "events", "device.provisioned", a.id)
	if p == nil {
		return nil, errors.New("the device's production is not in the ledger")
	}
	var e httpapi.Entry
	if err := insist(ctx, func() (err error) { e, err = d.people["admin"].Entry(ctx, p.Log, p.Index); return err }); err != nil {
		return nil, err
	}
	o, err := wire.Parse1(wire.TypeRecord, e.Fact.Data)
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeRecord(o.Payload)
	if err != nil {
		return nil, err
	}
	if r.Keys == nil {
		return nil, errors.New("the production record holds no keys")
	}
	return wire.ParseKey(r.Keys.Attest)
}

// retire ends one device's life, by the approvers' warrant.
func (d *demo) retire(ctx context.Context) error {
	a := d.agents[4]
	d.say("\nThe end: one device is retired by a warrant of two approvers")
	set, err := wire.SetOf([]string{a.id})
	if err != nil {
		return err
	}
	now := time.Now()
	payload, err := wire.EncodeWarrant(wire.Warrant{
		ID: "warrant-1", Product: productID, Act: wire.ActWipe, Devices: set, Reason: "end of life",
		Issued: uint64(now.Unix()), Expires: uint64(now.Add(time.Hour).Unix()),
	})
	if err != nil {
		return err
	}
	env, err := d.threshold(wire.TypeWarrant, payload, "alice", "bob")
	if err != nil {
		return err
	}
	order := retire.Order{Product: productID, Devices: []string{a.id}, Reason: "end of life", Warrant: env}
	if err := insist(ctx, func() error { _, err := d.people["sam"].Retire(ctx, order); return err }, "retire.exists", "retire.state"); err != nil {
		return err
	}
	ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
		v, err := d.seen(ctx, a.id)
		return err == nil && v.Device.State == "decommissioned", tell(v, err)
	})
	if err := d.step(Step{
		Step: "wipe by warrant", Device: a.id, Expected: "wiped, with a signed receipt", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "events", "retire.wiped", a.id),
	}); err != nil {
		return err
	}
	if err := d.dead(ctx, a); err != nil {
		return err
	}
	if err := d.disposed(ctx, a); err != nil {
		return err
	}
	return d.custody(ctx, a)
}

// dead checks that the board starts no more.
func (d *demo) dead(ctx context.Context, a *device) error {
	if err := a.run.ended(ctx, 30*time.Second); errors.Is(err, errRuns) {
		return fmt.Errorf("device %s after its end: %w", a.id, err)
	}
	out, err := exec.CommandContext(ctx, d.bin.agent, "inspect", "--dir", a.dir).CombinedOutput()
	return d.step(Step{
		Step: "a retired board", Device: a.id, Expected: "starts no more", OK: err != nil && strings.Contains(string(out), "decommissioned"),
		Observed: strings.TrimSpace(string(out)),
	})
}

// disposed takes the proof of disposal and checks it with nothing but the trust bundle.
func (d *demo) disposed(ctx context.Context, a *device) error {
	if err := insist(ctx, func() error { _, err := d.people["sam"].Dispose(ctx, a.id, "recycled"); return err }); err != nil {
		return err
	}
	bundle, err := d.bundle(ctx)
	if err != nil {
		return err
	}
	var v retire.Verified
	ok, saw := wait(ctx, 20*time.Second, func() (bool, string) {
		p, err := d.people["olga"].Proof(ctx, a.id)
		if err != nil {
			return false, err.Error()
		}
		if v, err = retire.VerifyProof(bundle, p); err != nil {
			return false, err.Error()
		}
		return true, fmt.Sprintf("proven offline: erased %s; destroyed %s; %d certificates revoked; %s",
			strings.Join(v.Erased, ", "), strings.Join(v.Keys, ", "), v.Revoked, v.How)
	})
	return d.step(Step{
		Step: "proof of disposal", Device: a.id, Expected: "verifies against the trust bundle alone", OK: ok && v.Wiped && v.Revoked > 0, Observed: saw,
		Ledger: d.place(ctx, "events", "retire.disposed", a.id),
	})
}

// custody takes the whole chain of custody of the retired device, and checks it with nothing but the keys of logs and witnesses. What the
// thief had logged for it is there too, and does not hold.
func (d *demo) custody(ctx context.Context, a *device) error {
	ok, saw := wait(ctx, 20*time.Second, func() (bool, string) {
		r, size, err := d.history(ctx, a)
		if err != nil {
			return false, err.Error()
		}
		told := map[ledger.Kind]bool{}
		for _, l := range r.Lines {
			told[l.Kind] = told[l.Kind] || l.Problem == ""
		}
		whole := told[ledger.KindOrderCreated] && told[ledger.KindDeviceProvisioned] && told[ledger.KindReleaseApproved] && told[ledger.KindRetireDisposed]
		forged := slices.IndexFunc(r.Problems, func(p string) bool { return !strings.Contains(p, forgedCommand) }) < 0
		return whole && forged, fmt.Sprintf("%d facts in %d bytes, order to disposal, verify offline; %s named", len(r.Lines), size,
			fleet.Count(len(r.Problems), "forged command is", "forged commands are"))
	})
	return d.step(Step{Step: "chain of custody", Device: a.id, Expected: "holds, but for what the thief forged", OK: ok, Observed: saw})
}

// history takes a device's chain of custody, size bytes, and verifies it with nothing but the keys of the logs.
func (d *demo) history(ctx context.Context, a *device) (r custody.Report, size int, err error) {
	keys, err := os.ReadFile(filepath.Join(d.layout.Logs(), "trust.json"))
	if err != nil {
		return r, 0, err
	}
	trust, err := audit.DecodeTrust(keys)
	if err != nil {
		return r, 0, err
	}
	data, err := d.people["olga"].Custody(ctx, a.id)
	if err != nil {
		return r, 0, err
	}
	c, err := wire.DecodeCustody(data)
	if err != nil {
		return r, 0, err
	}
	r, err = custody.Verify(c, trust)
	return r, len(data), err
}

// bundle reads the product's trust bundle from the ledger.
func (d *demo) bundle(ctx context.Context) (wire.Bundle, error) {
	p := d.place(ctx, "control", "bundle.published", productID)
	if p == nil {
		return wire.Bundle{}, errors.New("no trust bundle in the ledger")
	}
	var e httpapi.Entry
	if err := insist(ctx, func() (err error) { e, err = d.people["admin"].Entry(ctx, p.Log, p.Index); return err }); err != nil {
		return wire.Bundle{}, err
	}
	return wire.VerifyBundle(nil, e.Fact.Data)
}

// verify recomputes the whole ledger.
func (d *demo) verify(ctx context.Context) error {
	d.say("\nThe ledger, recomputed by code that shares nothing with the writer")
	type report struct {
		Origin string `json:"origin"`
		Size   uint64 `json:"size"`
	}
	ok, saw := wait(ctx, 20*time.Second, func() (bool, string) {
		out, err := output(exec.CommandContext(ctx, d.bin.hallmark, "log", "verify", "--dir", d.layout.Dir, "--json"))
		var reports []report
		if err == nil {
			err = json.Unmarshal([]byte(out), &reports)
		}
		if err != nil {
			return false, err.Error()
		}
		var saw []string
		whole := len(reports) == 2
		for _, r := range reports {
			saw = append(saw, fmt.Sprintf("%s: %d entries verify", r.Origin, r.Size))
			whole = whole && r.Size > d.last[path.Base(r.Origin)] // what was told last is published too
		}
		return whole, strings.Join(saw, "; ")
	})
	return d.step(Step{Step: "ledger", Expected: "both logs verify", OK: ok, Observed: saw})
}
