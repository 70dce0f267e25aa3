package store_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// maker is an OEM and its station, as far as a device's record tells of them. A test may exchange any of its parts.
type maker struct {
	e        *ending
	anchor   []byte
	chain    [][]byte
	orderCA  *pki.Authority
	signed   *ecdsa.PrivateKey // the order, really
	named    *ecdsa.PrivateKey // as the order key, in the log
	station  *ecdsa.PrivateKey // that the order names
	recorder *ecdsa.PrivateKey // that signs the records
	product  string
	proves   *ecdsa.PrivateKey // the attestation key; nil: it is the device's
	id       string            // that the record is about; empty: the device's
	before   []byte            // envelope of the order, and then of the record before
	identity map[string]*ecdsa.PrivateKey
}

// authorities makes an OEM's chain down to an order CA.
func authorities(t testing.TB, now time.Time) (chain [][]byte, order *pki.Authority) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := pki.NewRoot("acme", newKey(t), now)
	must(err)
	pk, ok := newKey(t), newKey(t)
	pc, err := root.Sub(profile.Product, pki.Name{OEM: "acme", Product: "pump"}, pk.Public(), now)
	must(err)
	prod, err := pki.NewAuthority(profile.Product, pc, pk)
	must(err)
	oc, err := prod.Sub(profile.Order, pki.Name{OEM: "acme", Product: "pump", Unit: "o s"}, ok.Public(), now)
	must(err)
	order, err = pki.NewAuthority(profile.Order, oc, ok)
	must(err)
	return [][]byte{oc.Raw, pc.Raw, root.Cert.Raw}, order
}

func newMaker(e *ending) *maker {
	m := &maker{e: e, signed: newKey(e.t), station: newKey(e.t), product: "pump"}
	m.chain, m.orderCA = authorities(e.t, e.now)
	m.anchor, m.named, m.recorder = m.chain[2], m.signed, m.station
	return m
}

func digestOf(b []byte) []byte { d := sha256.Sum256(b); return d[:] }

// trusted publishes the trust bundle that has the OEM's anchor.
func (m *maker) trusted() {
	t := m.e.t
	t.Helper()
	b, err := m.e.db.Devices().Bundle(t.Context(), "pump", 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Wire.Version, b.Wire.Anchors = b.Wire.Version+1, [][]byte{m.anchor}
	payload, err := wire.EncodeBundle(b.Wire)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.e.devices.PublishBundle(t.Context(), person("root"), m.e.sign(wire.TypeBundle, payload, 0, 1)); err != nil {
		t.Fatal(err)
	}
}

// order puts the order and the key it is signed with into the ledger, as the factory stage and init do.
func (m *maker) order(rel release.Release) {
	t := m.e.t
	t.Helper()
	b, err := m.e.db.Devices().Bundle(t.Context(), "pump", 0)
	if err != nil {
		t.Fatal(err)
	}
	key := spki(t, newKey(t))
	payload, err := wire.EncodeOrder(wire.Order{
		Header: wire.OrderHeader{
			ID: "o", OEM: "acme", Product: m.product, Hardware: "A", Quota: 10, NotBefore: 1, NotAfter: 2, Station: digestOf(spki(t, m.station)),
			Chain: m.chain, Profile: wire.ProfileIDevID1, Bundle: digestOf(b.Envelope), Release: rel.Digest[:], Root: make([]byte, 32),
			ReturnKey: make([]byte, 65),
		},
		Key:     wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: key, Alg: wire.WrapOAEPSHA256, Template: wire.SigningTemplate(), Blob: []byte{1}},
		Content: wire.Recipient{Alg: wire.WrapOAEPSHA256, Blob: []byte{1}}, Sealed: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeOrder, payload, m.signed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{"name": "order", "purpose": "signs production orders", "spki": spki(t, m.named)})
	if err != nil {
		t.Fatal(err)
	}
	named := ledger.New(ledger.KindKeyCreated, m.e.now, "host:init", "order", nil, data)
	f := ledger.New(ledger.KindOrderCreated, m.e.now, "test", "o", nil, env)
	o := factory.Order{ID: "o", Product: "pump", State: factory.Open, Created: m.e.now, UID: f.UID, Envelope: env, RecordKey: spki(t, m.station)}
	m.before = env
	if err := m.e.db.CreateOrder(t.Context(), o, named, f); err != nil {
		t.Fatal(err)
	}
}

// record puts the production record of a device into the ledger.
func (m *maker) record(id string, seq uint32) {
	t := m.e.t
	t.Helper()
	about := id
	if m.id != "" {
		about = m.id
	}
	own, attest := newKey(t), m.e.keys[id]
	if m.identity == nil {
		m.identity = map[string]*ecdsa.PrivateKey{}
	}
	m.identity[id] = own
	cert, err := m.orderCA.Device(idevid.Identity{Kind: idevid.IDevID, DeviceID: about, OEM: "acme", Product: "pump", HWRev: "A"},
		own.Public(), m.e.now, idevid.NoExpiry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := bytes.Repeat([]byte{7}, 32)
	r := wire.Record{
		Order: "o", Station: digestOf(spki(t, m.station)), Seq: seq, Prev: digestOf(m.before), Device: about, Outcome: wire.Made, Time: 1, Nonce: d, Certificate: cert.Raw,
		Chip:     &wire.ChipHello{Version: wire.PortVersion, ChipUID: make([]byte, 8), Hardware: "A"},
		Keys:     &wire.KeyReply{IDevID: spki(t, own), Attest: spki(t, attest), Origin: "isolated"},
		ReadBack: &wire.ReadBack{Components: []wire.NamedDigest{{Name: "app", Digest: d}}, Bundle: d, Release: d, Certificate: d, Params: d},
		Fuses:    &wire.FuseState{Root: d},
	}
	msg, err := wire.PossessionMessage(wire.KeyRequest{Order: "o", Nonce: d, Device: about}, r.Chip.ChipUID, r.Keys.IDevID, r.Keys.Attest)
	if err != nil {
		t.Fatal(err)
	}
	if m.proves != nil {
		own = m.proves
	}
	for to, k := range map[*[]byte]*ecdsa.PrivateKey{&r.Keys.ProofIDevID: own, &r.Keys.ProofAttest: attest} {
		if *to, err = ecdsa.SignASN1(rand.Reader, k, digestOf(msg)); err != nil {
			t.Fatal(err)
		}
	}
	payload, err := wire.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeRecord, payload, m.recorder)
	if err != nil {
		t.Fatal(err)
	}
	m.before = env
	m.fact(ledger.New(ledger.KindDeviceProvisioned, m.e.now, "test", id, nil, env))
}

func (m *maker) fact(f ledger.Fact) {
	m.e.t.Helper()
	if err := m.e.db.Write(m.e.t.Context(), func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
		m.e.t.Fatal(err)
	}
}

// disposed takes device 0 to its end, with its receipt, and gives the proof.
func (e *ending) disposed() retire.Proof {
	e.t.Helper()
	ctx, id := e.t.Context(), devN(0)
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 1}, id)); err != nil {
		e.t.Fatal(err)
	}
	e.goOn()
	if err := e.svc.Receipt(ctx, access.DeviceCaller(id), id, e.receipt(id, same)); err != nil {
		e.t.Fatal(err)
	}
	e.goOn()
	if _, err := e.svc.Dispose(ctx, person("op"), id, "shredded"); err != nil {
		e.t.Fatal(err)
	}
	e.goOn()
	e.logs.step(e.t)
	p, err := e.svc.Proof(ctx, person("op"), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

// A server that holds the logs' keys, and its witnesses, writes a device's end for itself: with a key of its own in a production record.
func TestAForgedBirthProvesNoEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *maker)
		want   string
	}{
		{"as it should be", func(*maker) {}, ""},
		{"a record by another station", func(m *maker) { m.recorder = newKey(t) }, "by the station of order o"},
		{"a record of another device", func(m *maker) { m.id = devN(7) }, "of device " + devN(7)},
		{"an order by another key", func(m *maker) { m.signed = newKey(t) }, "order, by the log's order key"},
		{"an order for another product", func(m *maker) { m.product = "lamp" }, "for product lamp"},
		{"a certificate by another OEM", func(m *maker) { m.chain, m.orderCA = authorities(t, m.e.now) }, "anchors"},
		{"a certificate by another CA than the order's", func(m *maker) { _, m.orderCA = authorities(t, m.e.now) }, "not by the CA of order o"},
		{"keys nobody proved", func(m *maker) { m.proves = newKey(t) }, "does not hold the identity key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEndingOf(t, 1, c.change)
			v, err := retire.VerifyProof(e.bundle(), reread(t, e.disposed()))
			if c.want == "" && (err != nil || !v.Wiped) {
				t.Fatalf("%+v, %v", v, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%+v, %v, want %q", v, err, c.want)
			}
		})
	}
}

// logged gives a fact with its proof, as an entry.
func (e *ending) logged(f ledger.Fact) retire.Entry {
	e.t.Helper()
	l, err := e.logs.Logged(e.t.Context(), f.UID)
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := wire.EncodeLogged(l)
	if err != nil {
		e.t.Fatal(err)
	}
	return retire.Entry{Kind: f.Kind, Logged: b}
}

// Facts that are truly in the log, and are not this device's, do not count.
func TestAProofHoldsNoOthersFacts(t *testing.T) {
	e := newEnding(t, 2)
	p := e.disposed()
	foreign := ledger.New(ledger.KindCertRevoked, e.now, "test", devN(1), nil, []byte("{}"))
	second := ledger.New(ledger.KindDeviceProvisioned, e.now, "test", devN(0), nil, []byte("another record"))
	e.made.fact(foreign)
	e.made.fact(second)
	e.logs.step(t)
	for want, f := range map[string]ledger.Fact{"is about": foreign, "2 entries of kind device.provisioned": second} {
		q := reread(t, p)
		q.Entries = append(q.Entries, e.logged(f))
		if v, err := retire.VerifyProof(e.bundle(), q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", want, v, err)
		}
	}
	if _, err := retire.VerifyProof(e.bundle(), p); err != nil {
		t.Fatal(errors.Join(err, errors.New("the proof itself")))
	}
}
