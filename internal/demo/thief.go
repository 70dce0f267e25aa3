package demo

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// forgedCommand begins the ID of each command that the thief writes.
const forgedCommand = "forged-"

func roles(names ...string) []access.Role {
	out := make([]access.Role, 0, len(names))
	for _, n := range names {
		out = append(out, access.Role(n))
	}
	return out
}

// thief has the server's database and online keys: he can have anything logged and witnessed, and any directive signed. What he
// has not is an offline key.
type thief struct {
	d         *demo
	db        *store.DB
	reader    *ledger.Reader
	directive crypto.Signer
	control   crypto.Signer // the control log's
}

func (d *demo) breakIn(ctx context.Context) (*thief, error) {
	keys, err := soft.Open(d.layout.Keys(), d.pass)
	if err != nil {
		return nil, err
	}
	k, err := keys.Signer("directive")
	if err != nil {
		return nil, err
	}
	control, err := keys.Signer("log-control")
	if err != nil {
		return nil, err
	}
	db, err := server.OpenDatabase(ctx, d.layout)
	if err != nil {
		return nil, err
	}
	return &thief{d: d, db: db, reader: ledger.NewReader(db), directive: k, control: control}, nil
}

// log has a fact logged and witnessed, by the server's own sequencer and witnesses.
func (t *thief) log(ctx context.Context, kind ledger.Kind, data []byte) (wire.Logged, error) {
	f := ledger.New(kind, time.Now(), "person:rita", productID, nil, data)
	if err := t.db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) }); err != nil { //nolint:contextcheck // the transaction has a context of its own
		return wire.Logged{}, err
	}
	var out wire.Logged
	var last error
	ok, _ := wait(ctx, 15*time.Second, func() (bool, string) {
		out, last = t.reader.Logged(ctx, f.UID)
		return last == nil, ""
	})
	if !ok {
		return wire.Logged{}, fmt.Errorf("the thief's fact is not witnessed: %w", last)
	}
	return out, nil
}

// published is a release that the maker really published, with its proof.
func (t *thief) published(ctx context.Context, version string) (wire.Logged, error) {
	delete(t.d.told, "release.published "+productID+"-"+version) // told when it was published
	p := t.d.place(ctx, "control", "release.published", productID+"-"+version)
	if p == nil {
		return wire.Logged{}, fmt.Errorf("release %s is not in the log", version)
	}
	return t.reader.Prove(ctx, ledger.Ref{Log: ledger.Control, Index: p.Index})
}

// forge makes a delivery for one device: everything an online thief can make is right.
func (t *thief) forge(ctx context.Context, a *device, act wire.Act, digest []byte, rel *wire.Logged) ([]byte, error) {
	payload, env, err := t.command(a, act, digest)
	if err != nil {
		return nil, err
	}
	logged, err := t.log(ctx, ledger.KindCommandIssued, env)
	if err != nil {
		return nil, err
	}
	return t.direct(ctx, a, act, payload, logged, rel)
}

// command signs a command to one device.
func (t *thief) command(a *device, act wire.Act, digest []byte) (payload, env []byte, err error) {
	set, err := wire.SetOf([]string{a.id})
	if err != nil {
		return nil, nil, err
	}
	now := uint64(time.Now().Unix())
	payload, err = wire.EncodeCommand(wire.Command{
		ID: forgedCommand + rand.Text()[:8], Product: productID, Act: act, Devices: set, Release: digest, Issued: now, Expires: now + 3600,
	})
	if err != nil {
		return nil, nil, err
	}
	env, err = wire.Sign1(wire.TypeCommand, payload, t.directive)
	return payload, env, err
}

// direct answers the nonce of the device with a command.
func (t *thief) direct(ctx context.Context, a *device, act wire.Act, payload []byte, logged wire.Logged, rel *wire.Logged) ([]byte, error) {
	nonce, err := a.ask(ctx, "nonce", nil)
	if err != nil {
		return nil, err
	}
	status, err := a.ask(ctx, "status", nil)
	if err != nil {
		return nil, err
	}
	now := uint64(time.Now().Unix())
	member, err := wire.MembershipOf([]string{a.id}, a.id)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(payload)
	dir, err := wire.EncodeDirective(wire.Directive{
		Device: a.id, Counter: status.Status.Counter + 1, Nonce: nonce.Nonce, Act: act, Command: sum[:], Issued: now, Expires: now + 120,
	})
	if err != nil {
		return nil, err
	}
	signed, err := wire.Sign1(wire.TypeDirective, dir, t.directive)
	if err != nil {
		return nil, err
	}
	return wire.EncodeDelivery(wire.Delivery{Directive: signed, Command: logged, Member: member, Release: rel})
}

// answer is what a device says on its local socket.
type answer struct {
	Status *struct {
		Counter uint64 `json:"counter"`
		Version string `json:"version"`
	} `json:"status"`
	Nonce   []byte `json:"nonce"`
	Outcome string `json:"outcome"`
	Code    string `json:"code"`
	Text    string `json:"text"`
	Error   string `json:"error"`
}

// ask talks to the running device as somebody beside it would.
func (a *device) ask(ctx context.Context, op string, delivery []byte) (answer, error) {
	var out answer
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(a.dir, "local.sock"))
	if err != nil {
		return out, err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return out, err
		}
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"op": op, "delivery": delivery}); err != nil {
		return out, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(line, &out); err != nil {
		return out, err
	}
	if out.Error != "" {
		return out, errors.New(out.Error)
	}
	return out, nil
}

// try has the device judge what make makes; again when the device was switched off between its nonce and the answer.
func (a *device) try(ctx context.Context, mk func() ([]byte, error)) (answer, error) {
	var r answer
	err := insist(ctx, func() error {
		delivery, err := mk()
		if err != nil {
			return err
		}
		if r, err = a.ask(ctx, "deliver", delivery); err == nil && r.Outcome == "refused" && r.Code == "nonce" {
			return errors.New("the device has forgotten the nonce it gave")
		}
		return err
	})
	return r, err
}

// refused delivers, and expects the device to refuse for one of the given reasons.
func (d *demo) refused(ctx context.Context, name string, a *device, mk func() ([]byte, error), codes ...string) error {
	r, err := a.try(ctx, mk)
	if err != nil {
		return err
	}
	return d.judged(ctx, name, a, r, codes...)
}

func (d *demo) judged(ctx context.Context, name string, a *device, r answer, codes ...string) error {
	return d.step(Step{
		Step: name, Device: a.id, Expected: "refused by the device: " + codes[0], OK: r.Outcome == "refused" && slices.Contains(codes, r.Code),
		Observed: fmt.Sprintf("%s by the device: %s: %s", r.Outcome, r.Code, r.Text), Ledger: d.place(ctx, "events", "device.refused", a.id),
	})
}

// attacks are made with everything the server has.
func (d *demo) attacks(ctx context.Context) (err error) {
	d.say("\nSeven attacks, by a thief who has the server's database and all its online keys")
	t, err := d.breakIn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.db.Close()) }()
	a := d.agents[2]
	for _, attack := range []func(context.Context, *thief, *device) error{d.oneSignature, d.notLogged, d.older, d.otherProduct, d.replay, d.unseen, d.oldLog} {
		if err := attack(ctx, t, a); err != nil {
			return err
		}
	}
	return nil
}

// craft makes a release manifest of the attacker's own.
func (d *demo) craft(product string, signers ...string) (env, digest []byte, err error) {
	sum := sha256.Sum256([]byte("evil"))
	payload, err := wire.EncodeRelease(wire.Release{
		ID: "evil", Product: product, Hardware: []string{hardware}, Model: wire.ModelBlob, Version: "9.9.9", Counter: 9, Created: 1,
		Components: []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "9.9.9", Size: 4, Digest: sum[:], Health: wire.HealthAlive}},
	})
	if err != nil {
		return nil, nil, err
	}
	env, err = d.threshold(wire.TypeRelease, payload, signers...)
	dg := wire.ReleaseDigest(payload)
	return env, dg[:], err
}

func (d *demo) oneSignature(ctx context.Context, t *thief, a *device) error {
	env, digest, err := d.craft(productID, "alice") // one approver's key was stolen too
	if err != nil {
		return err
	}
	rel, err := t.log(ctx, ledger.KindReleasePublished, env)
	if err != nil {
		return err
	}
	return d.refused(ctx, "attack: one signature only", a, func() ([]byte, error) { return t.forge(ctx, a, wire.ActInstall, digest, &rel) }, "threshold")
}

func (d *demo) notLogged(ctx context.Context, t *thief, a *device) error {
	env, digest, err := d.craft(productID, "alice", "bob") // both approvers were deceived; nobody else was to see it
	if err != nil {
		return err
	}
	rel, err := t.published(ctx, v2)
	if err != nil {
		return err
	}
	f := ledger.New(ledger.KindReleasePublished, time.Now(), "person:rita", productID, nil, env)
	if rel.Entry, err = f.Encode(nil); err != nil {
		return err
	}
	return d.refused(ctx, "attack: release not in the ledger", a, func() ([]byte, error) { return t.forge(ctx, a, wire.ActInstall, digest, &rel) }, "not-logged")
}

func (d *demo) older(ctx context.Context, t *thief, a *device) error {
	rel, err := t.published(ctx, v1)
	if err != nil {
		return err
	}
	digest, err := hex.DecodeString(d.releases[v1])
	if err != nil {
		return err
	}
	return d.refused(ctx, "attack: older version", a, func() ([]byte, error) { return t.forge(ctx, a, wire.ActInstall, digest, &rel) }, "older-version", "security-counter")
}

func (d *demo) otherProduct(ctx context.Context, t *thief, a *device) error {
	env, digest, err := d.craft("toaster", "alice", "bob")
	if err != nil {
		return err
	}
	rel, err := t.log(ctx, ledger.KindReleasePublished, env)
	if err != nil {
		return err
	}
	return d.refused(ctx, "attack: release for another product", a, func() ([]byte, error) { return t.forge(ctx, a, wire.ActInstall, digest, &rel) }, "other-product")
}

func (d *demo) replay(ctx context.Context, t *thief, a *device) error {
	var delivery []byte
	first, err := a.try(ctx, func() (_ []byte, err error) {
		delivery, err = t.forge(ctx, a, wire.ActAttest, nil, nil)
		return delivery, err
	})
	if err != nil {
		return err
	}
	if first.Outcome == "refused" {
		return d.step(Step{Step: "attack: replayed directive", Device: a.id, Expected: "taken the first time", Observed: first.Code + ": " + first.Text})
	}
	var again answer
	if err := insist(ctx, func() (err error) {
		if _, err = a.ask(ctx, "nonce", nil); err == nil {
			again, err = a.ask(ctx, "deliver", delivery)
		}
		return err
	}); err != nil {
		return err
	}
	return d.judged(ctx, "attack: replayed directive", a, again, "nonce", "replayed")
}

// unseen signs, with the log's own key, a log that no witness has seen.
func (d *demo) unseen(ctx context.Context, t *thief, a *device) error {
	payload, env, err := t.command(a, wire.ActAttest, nil)
	if err != nil {
		return err
	}
	trust, err := t.reader.Latest(ctx, ledger.Control)
	if err != nil {
		return err
	}
	origin, _, _ := strings.Cut(string(trust.Note), "\n")
	f := ledger.New(ledger.KindCommandIssued, time.Now(), "person:rita", productID, nil, env)
	entry, err := f.Encode(nil)
	if err != nil {
		return err
	}
	alone := wire.Logged{Entry: entry, Proof: wire.Proof{Size: 1, Path: [][]byte{}, Cosignatures: []wire.Cosignature{}}}
	root, err := wire.RootOf(alone)
	if err != nil {
		return err
	}
	if alone.Proof.LogSignature, err = t.control.Sign(nil, []byte(wire.CheckpointText(origin, 1, root)), crypto.Hash(0)); err != nil {
		return err
	}
	return d.refused(ctx, "attack: log without witnesses", a, func() ([]byte, error) {
		return t.direct(ctx, a, wire.ActAttest, payload, alone, nil)
	}, "not-witnessed")
}

// oldLog shows the device a log that ends before what it has seen already, as a restored backup would.
func (d *demo) oldLog(ctx context.Context, t *thief, a *device) error {
	payload, env, err := t.command(a, wire.ActAttest, nil)
	if err != nil {
		return err
	}
	old, err := t.log(ctx, ledger.KindCommandIssued, env)
	if err != nil {
		return err
	}
	later, err := a.try(ctx, func() ([]byte, error) { return t.forge(ctx, a, wire.ActAttest, nil, nil) })
	if err != nil {
		return err
	}
	if later.Outcome == "refused" {
		return d.step(Step{Step: "attack: log that has shrunk", Device: a.id, Expected: "the longer log is taken", Observed: later.Code + ": " + later.Text})
	}
	return d.refused(ctx, "attack: log that has shrunk", a, func() ([]byte, error) {
		return t.direct(ctx, a, wire.ActAttest, payload, old, nil)
	}, "shrunk-log")
}

// wipeAll orders every device to wipe itself, with the online key alone.
func (d *demo) wipeAll(ctx context.Context) (err error) {
	d.say("\nA mass wipe, ordered with the online key alone")
	err = insist(ctx, func() error {
		_, err := d.people["olga"].Command(ctx, httpapi.CommandRequest{
			Product: productID, Act: wire.ActWipe, Devices: []string{d.agents[0].id}, Reason: "demo",
		})
		return err
	})
	if err := d.step(Step{Step: "wipe by API", Expected: "refused by the server", OK: err != nil, Observed: observed(err, "accepted")}); err != nil {
		return err
	}
	t, err := d.breakIn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.db.Close()) }()
	no := 0
	var why string
	for _, a := range d.agents {
		r, err := a.try(ctx, func() ([]byte, error) { return t.forge(ctx, a, wire.ActWipe, nil, nil) })
		if err != nil {
			return err
		}
		if r.Outcome == "refused" && r.Code == "warrant-missing" {
			no++
		}
		why = r.Code + ": " + r.Text
	}
	return d.step(Step{
		Step: "wipe by the thief", Expected: "refused by every device", OK: no == len(d.agents),
		Observed: fmt.Sprintf("refused by %d of %d devices: %s", no, len(d.agents), why),
	})
}
