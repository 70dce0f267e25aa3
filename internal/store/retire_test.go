package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
)

// twoLogs witnesses both logs of a database.
type twoLogs struct {
	*ledger.Reader
	steps []func() error
	trust map[ledger.Log]wire.LogTrust
	w     *witness.Witness
}

func newTwoLogs(t testing.TB, db *store.DB) *twoLogs {
	t.Helper()
	out := &twoLogs{Reader: ledger.NewReader(db), trust: map[ledger.Log]wire.LogTrust{}}
	quiet := slog.New(slog.DiscardHandler)
	keys := map[ledger.Log]edKey{ledger.Control: newEd(t), ledger.Events: newEd(t)}
	var logs []witness.Log
	for log, k := range keys {
		out.trust[log] = wire.LogTrust{Origin: "t.example/" + string(log), Key: k.Public()}
		logs = append(logs, witness.Log{
			Origin: "t.example/" + string(log), Keys: logKeys("t.example/"+string(log), k), Memory: durable.File{Path: filepath.Join(t.TempDir(), "state")},
		})
	}
	var err error
	if out.w, err = witness.Open(t.Context(), witness.Config{
		Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w.example", newEd(t))}, Logs: logs,
	}); err != nil {
		t.Fatal(err)
	}
	for log, k := range keys {
		seq := ledger.NewSequencer(db, log, nil, quiet)
		pub := ledger.NewPublisher(ledger.PublisherConfig{
			Store: db, Log: log, Origin: out.trust[log].Origin, Key: k,
			Export: durable.Files{Dir: t.TempDir()}, Witnesses: []ledger.Cosigner{out.w}, Quorum: 1, Logger: quiet, Failpoint: func(string) {},
		})
		out.steps = append(out.steps, func() error {
			for {
				if n, err := seq.Step(context.Background()); err != nil || n == 0 {
					return errors.Join(err, pub.Step(context.Background()))
				}
			}
		})
	}
	return out
}

func (l *twoLogs) step(t testing.TB) {
	t.Helper()
	for _, f := range l.steps {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
}

// after is what happens to a device's keys elsewhere; it fails as often as it is told to.
type after struct {
	s                  *stages
	revoked, destroyed map[string]int
	fail               int
}

func (a *after) RevokeDevice(ctx context.Context, caller access.Caller, id, _ string, reason int) error {
	if a.fail > 0 {
		a.fail--
		return errCrash
	}
	a.revoked[id]++
	f := ledger.New(ledger.KindCertRevoked, a.s.now, caller.ID, id, nil, []byte(fmt.Sprint(reason)))
	return a.s.db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) })
}

func (a *after) DestroyDevice(_ context.Context, _ access.Caller, id string, _ *ledger.Ref) error {
	a.destroyed[id]++
	return nil
}

type ending struct {
	*stages
	svc   *retire.Service
	after *after
	logs  *twoLogs
	made  *maker
}

func newEnding(t *testing.T, n int) *ending { return newEndingOf(t, n, func(*maker) {}) }

// newEndingOf has the devices made by a maker that may have been changed.
func newEndingOf(t *testing.T, n int, change func(*maker)) *ending {
	e := &ending{stages: newStages(t, wire.ModelBlob)}
	e.logs = newTwoLogs(t, e.db)
	e.after = &after{s: e.stages, revoked: map[string]int{}, destroyed: map[string]int{}}
	var err error
	if e.svc, err = retire.NewService(retire.Config{
		Store: e.db.Retirements(), Devices: e.devices, Warrants: e.db.Devices(), Revoker: e.after,
		Keys: e.after, Ledger: e.logs, Guard: e.guard, Now: func() time.Time { return e.now },
	}); err != nil {
		t.Fatal(err)
	}
	rel := e.publish("1.0.0")
	e.made = newMaker(e)
	change(e.made)
	e.made.trusted()
	e.made.order(rel)
	for i := range n {
		e.keys[devN(i)] = newKey(t)
		e.made.record(devN(i), uint32(i+1))
		e.make(devN(i), rel)
	}
	return e
}

func (e *ending) order(act wire.Act, who []int, ids ...string) retire.Order {
	e.t.Helper()
	set, err := wire.SetOf(ids)
	if err != nil {
		e.t.Fatal(err)
	}
	payload, err := wire.EncodeWarrant(wire.Warrant{
		ID: "w-" + ids[0][28:] + string(act), Product: "pump", Act: act, Devices: set,
		Issued: uint64(e.now.Unix()), Expires: uint64(e.now.Add(time.Hour).Unix()),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return retire.Order{Product: "pump", Devices: ids, Reason: "end of life", Warrant: e.sign(wire.TypeWarrant, payload, who...)}
}

// receipt is what a device signs when it has wiped itself.
func (e *ending) receipt(id string, change func(*wire.Receipt), key ...int) []byte {
	e.t.Helper()
	r, err := e.svc.Get(e.t.Context(), person("op"), id)
	if err != nil {
		e.t.Fatal(err)
	}
	c, err := e.devices.CommandOf(e.t.Context(), person("op"), r.Command)
	if err != nil {
		e.t.Fatal(err)
	}
	rec := wire.Receipt{
		Device: id, Command: c.Digest[:], Warrant: r.Warrant, Erased: []string{"slot-a", "slot-b"}, Keys: []string{"ldevid"},
		LogHead: make([]byte, 32), At: uint64(e.now.Unix()),
	}
	change(&rec)
	payload, err := wire.EncodeReceipt(rec)
	if err != nil {
		e.t.Fatal(err)
	}
	k := e.keys[id]
	if len(key) > 0 {
		k = e.people[key[0]]
	}
	env, err := wire.Sign1(wire.TypeReceipt, payload, k)
	if err != nil {
		e.t.Fatal(err)
	}
	return env
}

// goOn lets what follows from what was decided be done.
func (e *ending) goOn() {
	e.t.Helper()
	if err := e.svc.Tick(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

func (e *ending) state(id string, want device.State) {
	e.t.Helper()
	if d, err := e.devices.Get(e.t.Context(), person("op"), id); err != nil || d.State != want {
		e.t.Fatalf("device %s is %s, want %s: %v", id, d.State, want, err)
	}
}

// bundle is the product's trust bundle with the logs of the test.
func (e *ending) bundle() wire.Bundle {
	e.t.Helper()
	b, err := e.db.Devices().Bundle(e.t.Context(), "pump", 0)
	if err != nil {
		e.t.Fatal(err)
	}
	out := b.Wire
	out.Control, out.Events, out.Quorum = e.logs.trust[ledger.Control], e.logs.trust[ledger.Events], 1
	out.Witnesses = []wire.NamedKey{{Name: e.logs.w.Name(), Key: e.logs.w.Keys()[0].Key}}
	out.Anchors = [][]byte{e.made.anchor}
	return out
}

func same(*wire.Receipt) {}

func TestTheEndOfADeviceCanBeProven(t *testing.T) {
	e := newEnding(t, 3)
	ctx, id, me := t.Context(), devN(0), access.DeviceCaller(devN(0))
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 1}, devN(0), devN(1))); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.state(id, device.Decommissioning)
	if n := len(e.commands(id, wire.ActWipe)); n != 1 {
		t.Fatalf("%d wipe commands", n)
	}
	for name, env := range map[string][]byte{
		"another's key":   e.receipt(id, same, 0),
		"another device":  e.receipt(id, func(r *wire.Receipt) { r.Device = devN(1) }),
		"another command": e.receipt(id, func(r *wire.Receipt) { r.Command = make([]byte, 32) }),
		"another warrant": e.receipt(id, func(r *wire.Receipt) { r.Warrant = "w" }),
		"no receipt":      []byte("done, trust me"),
	} {
		wantKind(t, name, e.svc.Receipt(ctx, me, id, env), fault.Invalid)
	}
	good := e.receipt(id, same)
	wantKind(t, "brought by another device", e.svc.Receipt(ctx, access.DeviceCaller(devN(1)), id, good), fault.Denied)
	_, err := e.svc.Dispose(ctx, person("op"), id, "shredded")
	wantKind(t, "disposed of before the wipe", err, fault.Conflict)
	e.after.fail = 1 // the CA is away for a moment
	if err := e.svc.Receipt(ctx, me, id, good); err != nil {
		t.Fatal(err)
	}
	if err := e.svc.Tick(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("%v", err)
	}
	e.state(id, device.Decommissioning)
	_, err = e.svc.Dispose(ctx, person("op"), id, "shredded")
	wantKind(t, "disposed of before its certificates are revoked", err, fault.Unavailable)
	for range 2 {
		if err := errors.Join(e.svc.Receipt(ctx, me, id, good), e.svc.Tick(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	e.state(id, device.Decommissioned)
	if e.after.revoked[id] != 1 || e.after.destroyed[id] != 1 || e.kinds(id)["retire.wiped"] != 1 {
		t.Errorf("revoked %d times, data keys destroyed %d times, %v", e.after.revoked[id], e.after.destroyed[id], e.kinds(id))
	}
	if _, err := e.svc.Dispose(ctx, person("op"), id, "shredded"); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.state(id, device.Disposed)
	_, err = e.svc.Proof(ctx, person("op"), id)
	wantKind(t, "a proof before the witness", err, fault.Unavailable)
	e.logs.step(t)
	p, err := e.svc.Proof(ctx, person("op"), id)
	if err != nil {
		t.Fatal(err)
	}
	v, err := retire.VerifyProof(e.bundle(), reread(t, p))
	if err != nil || !v.Wiped || v.How != "shredded" || v.Revoked != 1 || len(v.Erased) != 2 || v.Order != "o" || v.Station == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	falsified(t, e.bundle(), p)
}

// reread takes a proof through its document.
func reread(t *testing.T, p retire.Proof) retire.Proof {
	t.Helper()
	doc, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := retire.DecodeProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// falsified changes a good proof in every way one might try.
func falsified(t *testing.T, b wire.Bundle, good retire.Proof) {
	t.Helper()
	try := func(name string, b wire.Bundle, change func(*retire.Proof)) {
		p := reread(t, good)
		change(&p)
		if v, err := retire.VerifyProof(b, p); err == nil {
			t.Errorf("%s: taken for a proof of %+v", name, v)
		}
	}
	same := func(*retire.Proof) {}
	for i, entry := range good.Entries {
		if entry.Kind != ledger.KindCertRevoked {
			try("without "+string(entry.Kind), b, func(p *retire.Proof) { p.Entries = append(p.Entries[:i], p.Entries[i+1:]...) })
		}
		try("twice "+string(entry.Kind), b, func(p *retire.Proof) { p.Entries = append(p.Entries, p.Entries[i]) })
		try("another kind for "+string(entry.Kind), b, func(p *retire.Proof) { p.Entries[i].Kind = "genesis" })
		for at := 0; at < len(entry.Logged); at += 97 {
			try(fmt.Sprintf("%s changed at %d", entry.Kind, at), b, func(p *retire.Proof) { p.Entries[i].Logged[at] ^= 1 })
		}
	}
	try("of another device", b, func(p *retire.Proof) { p.Device = devN(1) })
	try("of another product", b, func(p *retire.Proof) { p.Product = "lamp" })
	try("said to be written off", b, func(p *retire.Proof) { p.Wiped = false })
	try("without membership", b, func(p *retire.Proof) { p.Member = nil })
	try("at another place", b, func(p *retire.Proof) { p.Member.Index ^= 1 })
	try("by another station", b, func(p *retire.Proof) { p.Station[len(p.Station)-1] ^= 1 })
	elsewhere := b
	elsewhere.Anchors = nil
	try("under no anchor", elsewhere, same)
	nobody := b
	nobody.Quorum, nobody.Witnesses = 1, []wire.NamedKey{{Name: "other", Key: make([]byte, 32)}}
	try("under another witness", nobody, same)
	more := b
	more.Warrant.Threshold = 3
	try("under a higher threshold", more, same)
	other := b
	other.Product = "lamp"
	try("under another product's bundle", other, same)
}

func TestADeviceThatDoesNotAnswerIsWrittenOffAndTheProofSaysSo(t *testing.T) {
	e := newEnding(t, 1)
	ctx, id := t.Context(), devN(0)
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 2}, id)); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	if _, err := e.svc.WriteOff(ctx, person("op"), id, "burnt"); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.state(id, device.Decommissioned)
	if _, err := e.svc.Dispose(ctx, person("op"), id, "ashes"); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	snap, err := e.db.Comply().Measure(ctx, "pump", e.now)
	if err != nil || snap.Retired[string(retire.WrittenOff)].N != 1 || snap.Retired[string(retire.Disposed)].N != 0 {
		t.Errorf("counted as if it had been wiped: %+v, %v", snap.Retired, err)
	}
	e.logs.step(t)
	p, err := e.svc.Proof(ctx, person("op"), id)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := retire.VerifyProof(e.bundle(), p); err != nil || v.Wiped || v.Revoked != 1 || v.By != person("op").ID {
		t.Fatalf("%+v, %v", v, err)
	}
	if d := e.dataOf(id, ledger.KindRetireWrittenOff); d["reason"] != "burnt" {
		t.Errorf("why it was written off: %v", d)
	}
	for i, entry := range p.Entries {
		if q := reread(t, p); entry.Kind == ledger.KindRetireWrittenOff {
			q.Entries = append(q.Entries[:i], q.Entries[i+1:]...)
			if _, err := retire.VerifyProof(e.bundle(), q); err == nil {
				t.Error("a write-off that nobody decided is proven")
			}
		}
	}
	p.Wiped = true
	if _, err := retire.VerifyProof(e.bundle(), p); err == nil {
		t.Error("a written-off device passes for wiped")
	}
}

// dataOf gives what the newest fact of a kind says, in public and in private.
func (e *ending) dataOf(id string, kind ledger.Kind) map[string]any {
	e.t.Helper()
	var uid []byte
	if err := e.db.Read().QueryRowContext(e.t.Context(), `SELECT uid FROM entry WHERE subject = $1 AND kind = $2 ORDER BY id DESC LIMIT 1`, id, string(kind)).Scan(&uid); err != nil {
		e.t.Fatal(err)
	}
	at, ok, err := e.logs.Locate(e.t.Context(), [16]byte(uid))
	if err != nil || !ok {
		e.t.Fatal(ok, err)
	}
	entries, err := e.logs.Entries(e.t.Context(), at.Log, at.Index, at.Index+1)
	if err != nil || len(entries) != 1 {
		e.t.Fatal(len(entries), err)
	}
	w, err := wire.DecodeFact(entries[0])
	if err != nil {
		e.t.Fatal(err)
	}
	private, err := e.logs.Private(e.t.Context(), w)
	if err != nil {
		e.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(ledger.Merge(w.Data, private), &out); err != nil {
		e.t.Fatal(err)
	}
	return out
}

// A device that was told to wipe itself, and did, has done so whatever became of the command meanwhile.
func TestAReceiptCountsThoughTheCommandWasCancelled(t *testing.T) {
	e := newEnding(t, 1)
	ctx, id := t.Context(), devN(0)
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 1}, id)); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	receipt := e.receipt(id, same)
	if err := e.devices.CancelCommand(ctx, person("op"), e.commands(id, wire.ActWipe)[0], "second thoughts"); err != nil {
		t.Fatal(err)
	}
	if err := e.svc.Receipt(ctx, access.DeviceCaller(id), id, receipt); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.state(id, device.Decommissioned)
	if _, err := e.svc.Dispose(ctx, person("op"), id, "shredded"); err != nil {
		t.Fatal(err)
	}
	e.logs.step(t)
	p, err := e.svc.Proof(ctx, person("op"), id)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := retire.VerifyProof(e.bundle(), p); err != nil || !v.Wiped {
		t.Errorf("%+v, %v", v, err)
	}
}

// away is a registry that cannot be reached.
type away struct{ retire.Devices }

func (away) Move(context.Context, access.Caller, string, device.Event, *ledger.Ref, string) (device.Device, error) {
	return device.Device{}, errCrash
}

// What was decided on one node is done by another, at its next tick, however often it is cut off.
func TestAnotherNodeGoesOnWithAnEnd(t *testing.T) {
	e := newEnding(t, 3)
	ctx, ids := t.Context(), []string{devN(0), devN(1), devN(2)}
	node := func(d retire.Devices) *retire.Service {
		svc, err := retire.NewService(retire.Config{
			Store: e.db.Retirements(), Devices: d, Warrants: e.db.Devices(), Revoker: e.after, Keys: e.after, Ledger: e.logs, Guard: e.guard,
			Now: func() time.Time { return e.now.Add(-time.Second) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return svc
	}
	cut, other := node(away{e.devices}), node(e.devices)
	rs, err := cut.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 1}, ids...))
	if err != nil || len(rs) != 3 || rs[0].Phase != retire.Ordered {
		t.Fatalf("%+v, %v", rs, err)
	}
	if err := cut.Tick(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("%v", err)
	}
	for range 2 {
		if err := errors.Join(other.Tick(ctx), e.svc.Tick(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		e.state(id, device.Decommissioning)
		if n := len(e.commands(id, wire.ActWipe)); n != 1 {
			t.Errorf("%d wipe commands", n)
		}
	}
	id := ids[0]
	if _, err := cut.WriteOff(ctx, person("op"), id, "burnt"); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.state(id, device.Decommissioned)
	if r, err := cut.Dispose(ctx, person("op"), id, "ashes"); err != nil || r.Phase != retire.Disposed {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := cut.Tick(ctx); !errors.Is(err, errCrash) {
		t.Fatalf("%v", err)
	}
	e.state(id, device.Decommissioned)
	e.goOn()
	e.state(id, device.Disposed)
	if open, err := e.db.Retirements().OpenRetirements(ctx); err != nil || len(open) != 0 {
		t.Errorf("still to be done: %+v, %v", open, err)
	}
}

func TestRetirementsThatMayNotBe(t *testing.T) {
	e := newEnding(t, 3)
	ctx := t.Context()
	both := []int{0, 1}
	other := e.order(wire.ActWipe, both, devN(0))
	other.Devices = []string{devN(1)}
	unreasoned := e.order(wire.ActWipe, both, devN(0))
	unreasoned.Reason = ""
	for name, o := range map[string]retire.Order{
		"below the threshold":      e.order(wire.ActWipe, []int{0}, devN(0)),
		"a warrant of another act": e.order(wire.ActUnlock, both, devN(0)),
		"other devices":            other,
		"no reason":                unreasoned,
		"no warrant":               {Product: "pump", Devices: []string{devN(0)}, Reason: "x"},
	} {
		_, err := e.svc.Retire(ctx, person("op"), o)
		wantKind(t, name, err, fault.Invalid)
	}
	viewer := access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	_, err := e.svc.Retire(ctx, viewer, e.order(wire.ActWipe, both, devN(0)))
	wantKind(t, "somebody without the right", err, fault.Denied)
	e.state(devN(0), device.Active)
	if n := len(e.commands(devN(0), wire.ActWipe)); n != 0 {
		t.Errorf("%d wipe commands of refused orders", n)
	}
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, both, devN(0))); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	_, err = e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, both, devN(0)))
	wantKind(t, "a second time", err, fault.Conflict)
	_, err = e.svc.Get(ctx, person("op"), devN(2))
	wantKind(t, "one that lives", err, fault.NotFound)
}
