package watch_test

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/watch"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const oem, product, hardware = "acme", "lock", "a"

// life is a maker's life, as both logs tell it.
type life struct {
	t       testing.TB
	now     time.Time
	keys    map[string]*ecdsa.PrivateKey
	cas     map[string]*pki.Authority
	entries map[ledger.Log][][]byte
	order   []ledger.Ref // of all entries, as they came
	bundle  wire.Bundle
	station *ecdsa.PrivateKey
	chip    string // of the next device; empty: one of its own
	header  wire.OrderHeader
	digest  []byte // of the release
	seq     uint32
}

// ordinary is a life in which everything is as it should be.
func ordinary(t testing.TB) *life {
	t.Helper()
	l := &life{
		t: t, now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), keys: map[string]*ecdsa.PrivateKey{}, cas: map[string]*pki.Authority{},
		entries: map[ledger.Log][][]byte{},
	}
	l.begin()
	l.digest = l.publish("lock-1", 1)
	l.ordered("ord-1", 3)
	for i := range 2 {
		l.made(deviceID(i), uint32(i), nil)
		l.certified(deviceID(i), "operational", nil)
		l.json(ledger.Events, ledger.KindDeviceOnboarded, "device:"+deviceID(i), deviceID(i), map[string]any{"device": deviceID(i), "from": "provisioned", "to": "onboarded"})
	}
	l.command(wire.ActAttest, 2, nil)
	l.command(wire.ActQuarantine, 1, nil)
	l.json(ledger.Control, ledger.KindRolloutCreated, "person:olga", "roll-1", map[string]any{"id": "roll-1", "release": l.digest})
	l.command(wire.ActInstall, 2, nil)
	l.json(ledger.Control, ledger.KindOrderClosed, "person:fay", "ord-1", map[string]any{"order": "ord-1"})
	l.warrant("war-1", wire.ActWipe, 1, "alice", "bob")
	l.command(wire.ActWipe, 1, nil)
	l.fact(ledger.Events, ledger.KindRetireWiped, "device:"+deviceID(1), deviceID(1), []byte("receipt"))
	l.json(ledger.Events, ledger.KindDeviceState, "system:retire", deviceID(1), map[string]any{"device": deviceID(1), "from": "decommissioning", "to": "decommissioned"})
	l.certified(deviceID(0), "operational", nil)
	return l
}

func deviceID(i int) string { return fmt.Sprintf("%032x", 0xabc0+i) }

func (l *life) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) key(name string) *ecdsa.PrivateKey {
	if l.keys[name] == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		l.must(err)
		l.keys[name] = k
	}
	return l.keys[name]
}

func (l *life) spki(k crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	l.must(err)
	return der
}

func (l *life) role(threshold uint, names ...string) wire.KeySet {
	s := wire.KeySet{Threshold: threshold}
	for _, n := range names {
		s.Keys = append(s.Keys, l.spki(l.key(n)))
	}
	return s
}

// fact adds an entry, a second after the one before.
func (l *life) fact(log ledger.Log, kind ledger.Kind, actor, subject string, data []byte) {
	l.t.Helper()
	l.now = l.now.Add(time.Second)
	l.raw(log, encode(l.t, factOf(log, kind, l.now, actor, subject, data)))
}

// factOf makes facts of kinds that no log has, too.
func factOf(log ledger.Log, kind ledger.Kind, at time.Time, actor, subject string, data []byte) ledger.Fact {
	if len(kind.Logs()) == 1 {
		return ledger.New(kind, at, actor, subject, nil, data)
	}
	f := ledger.Genesis(log, at, actor, subject, data)
	f.Kind = kind
	return f
}

// encode gives an entry; what is private in it is only committed to.
func encode(t testing.TB, f ledger.Fact) []byte {
	t.Helper()
	var commitment []byte
	if len(f.Private) > 0 {
		commitment = hash("private")
	}
	e, err := f.Encode(commitment)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (l *life) raw(log ledger.Log, e []byte) {
	l.order = append(l.order, ledger.Ref{Log: log, Index: uint64(len(l.entries[log]))})
	l.entries[log] = append(l.entries[log], e)
}

func (l *life) json(log ledger.Log, kind ledger.Kind, actor, subject string, v any) {
	l.t.Helper()
	data, err := json.Marshal(v)
	l.must(err)
	l.fact(log, kind, actor, subject, data)
}

func (l *life) begin() {
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		l.json(log, ledger.KindGenesis, "host:init", "acme", map[string]string{"origin": "acme/" + string(log)})
	}
	l.json(ledger.Control, ledger.KindInitialised, "host:init", "acme", map[string]string{"instance": "acme"})
	for _, name := range []string{"directive", "order", "alice", "bob", "carol"} {
		l.created(name)
	}
	root, err := pki.NewRoot(oem, l.key("root"), l.now)
	l.must(err)
	l.cas["root"] = root
	l.fact(ledger.Control, ledger.KindCACreated, "host:init", "root", root.Cert.Raw)
	for name, role := range map[string]profile.Role{"product": profile.Product, "operational": profile.Operational} {
		l.authority(name, role, "host:init")
	}
	l.json(ledger.Control, ledger.KindProductCreated, "system:init", product, map[string]string{"id": product})
	people := l.role(2, "alice", "bob", "carol")
	l.bundle = wire.Bundle{
		Version: 1, Product: product, Root: people, Release: people, Warrant: people, Directive: l.role(1, "directive"),
		Control: wire.LogTrust{Origin: "acme/control", Key: make([]byte, 32)}, Events: wire.LogTrust{Origin: "acme/events", Key: make([]byte, 32)},
		Witnesses: []wire.NamedKey{{Name: "w1", Key: hash("w1")}, {Name: "w2", Key: hash("w2")}}, Quorum: 2, MaxAge: 600,
		Anchors: [][]byte{root.Cert.Raw}, Suites: []string{"HM-P256-1"}, Issued: 1,
	}
	l.bundled(l.bundle, "alice", "bob")
	l.grant("person:admin", "admin")
	l.grant("person:olga", "operator")
}

func hash(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

func (l *life) created(name string) {
	l.json(ledger.Control, ledger.KindKeyCreated, "host:init", name, map[string]any{"name": name, "purpose": "test", "spki": l.spki(l.key(name))})
}

// desk takes in a desk, whose order key has its name.
func (l *life) desk(name string) {
	l.json(ledger.Control, ledger.KindDeskAdded, "person:sam", name, map[string]any{"desk": name, "order_key": l.spki(l.key(name)), "quota": 9})
}

func (l *life) authority(name string, role profile.Role, actor string) {
	n := pki.Name{OEM: oem}
	if role == profile.Product {
		n.Product = product
	}
	cert, err := l.cas["root"].Sub(role, n, l.key("ca "+name).Public(), l.now)
	l.must(err)
	l.cas[name], err = pki.NewAuthority(role, cert, l.key("ca "+name))
	l.must(err)
	l.fact(ledger.Control, ledger.KindCACreated, actor, name, cert.Raw)
}

func (l *life) grant(who, role string) {
	l.json(ledger.Control, ledger.KindAccessChanged, "system:init", who, map[string]any{"caller": who, "kind": "person", "roles": []string{role}, "use": "token"})
}

// signed is a threshold message by the named people.
func (l *life) signed(typ wire.Type, payload []byte, names ...string) []byte {
	l.t.Helper()
	env, err := wire.NewThreshold(typ, payload, l.key(names[0]))
	l.must(err)
	for _, n := range names[1:] {
		env, err = wire.AddSignature(typ, env, l.key(n))
		l.must(err)
	}
	return env
}

func (l *life) bundled(b wire.Bundle, names ...string) {
	l.t.Helper()
	payload, err := wire.EncodeBundle(b)
	l.must(err)
	l.fact(ledger.Control, ledger.KindBundlePublished, "person:sam", b.Product, l.signed(wire.TypeBundle, payload, names...))
}

// next is a trust bundle that follows the one there is.
func (l *life) next(change func(*wire.Bundle)) wire.Bundle {
	b := l.bundle
	b.Version++
	change(&b)
	return b
}

func (l *life) manifest(id string, counter uint32) (payload []byte, digest []byte) {
	payload, err := wire.EncodeRelease(wire.Release{
		ID: id, Product: product, Hardware: []string{hardware}, Model: wire.ModelBlob, Version: "1.0.0", Counter: counter, Created: 1,
		Components: []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: 4, Digest: hash(id), Health: wire.HealthAlive}},
	})
	l.must(err)
	d := wire.ReleaseDigest(payload)
	return payload, d[:]
}

func (l *life) publish(id string, counter uint32) []byte {
	payload, digest := l.manifest(id, counter)
	l.fact(ledger.Control, ledger.KindReleaseProposed, "person:rita", id, payload)
	l.fact(ledger.Control, ledger.KindReleaseApproved, "person:alice", id, l.signed(wire.TypeRelease, payload, "alice"))
	l.fact(ledger.Control, ledger.KindReleaseApproved, "person:bob", id, l.signed(wire.TypeRelease, payload, "alice", "bob"))
	l.fact(ledger.Control, ledger.KindReleasePublished, "person:rita", id, l.signed(wire.TypeRelease, payload, "alice", "bob"))
	return digest
}

func set(n uint64) wire.DeviceSet { return wire.DeviceSet{Root: hash("set"), Count: n} }

// command gives one by the directive key; change makes it another.
func (l *life) command(act wire.Act, n uint64, change func(*wire.Command)) {
	l.t.Helper()
	c := wire.Command{ID: fmt.Sprintf("cmd-%d", len(l.order)), Product: product, Act: act, Devices: set(n), Issued: uint64(l.now.Unix()), Expires: uint64(l.now.Unix()) + 60}
	if wire.NeedsRelease(act) {
		c.Release = l.digest
	}
	if wire.ClassOf(act) == wire.Guarded {
		c.TTL = 60
	}
	if change != nil {
		change(&c)
	}
	l.commanded(c, c.ID, "directive")
}

func (l *life) commanded(c wire.Command, subject, by string) {
	l.t.Helper()
	payload, err := wire.EncodeCommand(c)
	l.must(err)
	env, err := wire.Sign1(wire.TypeCommand, payload, l.key(by))
	l.must(err)
	l.fact(ledger.Control, ledger.KindCommandIssued, "person:olga", subject, env)
}

func (l *life) warrant(id string, act wire.Act, n uint64, names ...string) {
	l.t.Helper()
	payload, err := wire.EncodeWarrant(wire.Warrant{ID: id, Product: product, Act: act, Devices: set(n), Issued: uint64(l.now.Unix()), Expires: uint64(l.now.Unix()) + 3600})
	l.must(err)
	l.fact(ledger.Control, ledger.KindWarrantIssued, "person:sam", id, l.signed(wire.TypeWarrant, payload, names...))
}

// orderCA makes the CA of an order, under the given one.
func (l *life) orderCA(id, under string) {
	cert, err := l.cas[under].Sub(profile.Order, pki.Name{OEM: oem, Product: product, Unit: id}, l.key("ca "+id).Public(), l.now)
	l.must(err)
	l.cas[id], err = pki.NewAuthority(profile.Order, cert, l.key("ca "+id))
	l.must(err)
	l.fact(ledger.Control, ledger.KindCACreated, "system:factory", hex.EncodeToString(cert.SubjectKeyId), cert.Raw)
}

func (l *life) ordered(id string, quota uint32) {
	l.orderCA(id, "product")
	l.place(id, quota, "order")
}

// place signs and logs an order.
func (l *life) place(id string, quota uint32, by string) {
	l.t.Helper()
	l.station = l.key("station")
	station := sha256.Sum256(l.spki(l.station))
	l.header = wire.OrderHeader{
		ID: id, OEM: oem, Product: product, Hardware: hardware, Quota: quota, NotBefore: uint64(l.now.Unix()), NotAfter: uint64(l.now.Unix()) + 3600, Created: uint64(l.now.Unix()),
		Station: station[:], HSMSerial: "s", Chain: [][]byte{l.cas[id].Cert.Raw, l.cas["product"].Cert.Raw, l.cas["root"].Cert.Raw},
		Profile: wire.ProfileIDevID1, Bundle: hash("b"), Release: l.digest, Root: hash("r"), ReturnKey: make([]byte, 65),
	}
	payload, err := wire.EncodeOrder(wire.Order{
		Header: l.header, Key: wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: l.spki(l.key("ca " + id)), Alg: wire.WrapOAEPSHA256, Template: wire.SigningTemplate(), Blob: []byte{1}},
		Content: wire.Recipient{Alg: wire.WrapOAEPSHA1, Blob: []byte{1}}, Sealed: hash("s"),
	})
	l.must(err)
	env, err := wire.Sign1(wire.TypeOrder, payload, l.key(by))
	l.must(err)
	l.fact(ledger.Control, ledger.KindOrderCreated, "person:fay", id, env)
}

// certificate makes one for a device.
func (l *life) certificate(kind idevid.Kind, device, ca string, key crypto.PublicKey) []byte {
	l.t.Helper()
	serial, err := idevid.RandomSerial()
	l.must(err)
	end := idevid.NoExpiry()
	if kind == idevid.LDevID {
		end = l.now.Add(time.Hour)
	}
	tmpl, err := idevid.Template(idevid.Identity{Kind: kind, DeviceID: device, OEM: oem, Product: product, HWRev: hardware}, serial, l.now, end)
	l.must(err)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, l.cas[ca].Cert, key, l.key("ca "+ca))
	l.must(err)
	return der
}

// made logs the production record of a device; change makes it another, before it is signed.
func (l *life) made(device string, ticket uint32, change func(*wire.Record)) {
	l.t.Helper()
	l.seq++
	id, at := l.key("id "+device), l.key("at "+device)
	q := wire.KeyRequest{Order: l.header.ID, Seq: ticket, Nonce: hash("nonce"), Device: device}
	keys := wire.KeyReply{IDevID: l.spki(id), Attest: l.spki(at), Origin: "soft"}
	chip := wire.ChipHello{Version: wire.PortVersion, ChipUID: hash("chip " + cmp.Or(l.chip, device))[:12], Hardware: hardware, Flash: wire.Flash{Size: 4096, Erase: 512, Slots: 2, SlotSize: 1024}}
	msg, err := wire.PossessionMessage(q, chip.ChipUID, keys.IDevID, keys.Attest)
	l.must(err)
	sum := sha256.Sum256(msg)
	keys.ProofIDevID, err = ecdsa.SignASN1(rand.Reader, id, sum[:])
	l.must(err)
	keys.ProofAttest, err = ecdsa.SignASN1(rand.Reader, at, sum[:])
	l.must(err)
	r := wire.Record{
		Order: l.header.ID, Station: l.header.Station, Seq: l.seq, Prev: hash("prev"), Ticket: ticket, Device: device, Outcome: wire.Made, Chip: &chip, Keys: &keys,
		Nonce: q.Nonce, Certificate: l.certificate(idevid.IDevID, device, l.header.ID, id.Public()), Time: uint64(l.now.Unix()),
		ReadBack: &wire.ReadBack{Bundle: hash("b"), Release: hash("r"), Certificate: hash("c"), Params: hash("p"), Components: []wire.NamedDigest{{Name: "app", Digest: hash("a")}}},
		Fuses:    &wire.FuseState{Root: hash("r"), Counter: 1},
	}
	if change != nil {
		change(&r)
	}
	payload, err := wire.EncodeRecord(r)
	l.must(err)
	env, err := wire.Sign1(wire.TypeRecord, payload, l.station)
	l.must(err)
	l.fact(ledger.Events, ledger.KindDeviceProvisioned, "person:fay", device, env)
}

// certified logs an operational certificate.
func (l *life) certified(device, ca string, change func(device *string)) {
	l.t.Helper()
	of := device
	if change != nil {
		change(&of)
	}
	l.fact(ledger.Events, ledger.KindCertIssued, "device:"+device, device, l.certificate(idevid.LDevID, of, ca, l.key("op "+device).Public()))
}

// judged gives what is told of each entry, in the order in which they came.
func (l *life) judged(p watch.Policy) (all []watch.Alert, j *watch.Judge) {
	j = watch.NewJudge(p, nil)
	for _, ref := range l.order {
		all = append(all, j.Entry(ref, l.entries[ref.Log][ref.Index], l.now.Add(time.Minute))...)
	}
	return all, j
}
