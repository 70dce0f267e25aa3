package gate_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	me      = "00112233445566778899aabbccddeeff"
	other   = "ffeeddccbbaa99887766554433221100"
	product = "lamp"
	origin  = "hallmark.example/control"
)

var now = time.Unix(1_800_000_000, 0)

func at(d time.Duration) uint64 { return uint64(now.Add(d).Unix()) }

// world is everyone who has a say over a device, and a log in memory.
type world struct {
	root, release, warrant []crypto.Signer
	directive              crypto.Signer
	owner, buyer           crypto.Signer // of the device, when it has one; who would have it
	log                    ed25519.PrivateKey
	witness                []ed25519.PrivateKey
	bundle                 wire.Bundle

	entries  [][]byte
	cosigned time.Time // what the witnesses say
	cosigner int       // how many of them sign
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		root: keys(t, 2), release: keys(t, 3), warrant: keys(t, 2), directive: keys(t, 1)[0], owner: keys(t, 1)[0], buyer: keys(t, 1)[0],
		log: edKey(t), witness: []ed25519.PrivateKey{edKey(t), edKey(t)}, cosigned: now.Add(-time.Minute), cosigner: 2,
	}
	w.bundle = wire.Bundle{
		Version: 1, Product: product, Root: role(t, 2, w.root...), Release: role(t, 2, w.release...),
		Warrant: role(t, 2, w.warrant...), Directive: role(t, 1, w.directive),
		Control: wire.LogTrust{Origin: origin, Key: w.log.Public().(ed25519.PublicKey)},
		Events:  wire.LogTrust{Origin: "hallmark.example/events", Key: w.log.Public().(ed25519.PublicKey)},
		Witnesses: []wire.NamedKey{
			{Name: "w1", Key: w.witness[0].Public().(ed25519.PublicKey)}, {Name: "w2", Key: w.witness[1].Public().(ed25519.PublicKey)},
		},
		Quorum: 2, MaxAge: 3600, Floor: 1, Issued: at(-time.Hour), Suites: []string{"HM-P256-1"},
	}
	for range 5 { // somebody else's entries
		w.entries = append(w.entries, []byte{byte(len(w.entries))})
	}
	return w
}

func keys(t testing.TB, n int) []crypto.Signer {
	t.Helper()
	out := make([]crypto.Signer, n)
	for i := range out {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = k
	}
	return out
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func role(t testing.TB, threshold uint, keys ...crypto.Signer) wire.KeySet {
	t.Helper()
	s := wire.KeySet{Threshold: threshold}
	for _, k := range keys {
		der, err := wire.SPKIOf(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		s.Keys = append(s.Keys, der)
	}
	return s
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func threshold(typ wire.Type, payload []byte, keys ...crypto.Signer) []byte {
	env := must(wire.NewThreshold(typ, payload, keys[0]))
	for _, k := range keys[1:] {
		env = must(wire.AddSignature(typ, env, k))
	}
	return env
}

// append gives an entry its place.
func (w *world) append(kind string, data []byte) int {
	uid := sha256.Sum256(append([]byte(kind), data...))
	w.entries = append(w.entries, must(wire.EncodeFact(wire.Fact{
		V: 1, UID: uid[:16], Kind: kind, At: now.UnixMilli(), Actor: "test", Subject: product, Data: data,
	})))
	return len(w.entries) - 1
}

// logged proves entry i under a checkpoint over all entries, using the reference implementation of the tree.
func (w *world) logged(i int) wire.Logged {
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for n, x := range indexes {
			out[n] = hashes[x]
		}
		return out, nil
	})
	for n, e := range w.entries {
		hashes = append(hashes, must(tlog.StoredHashes(int64(n), e, reader))...)
	}
	size := int64(len(w.entries))
	root := must(tlog.TreeHash(size, reader))
	p := wire.Proof{Index: uint64(i), Size: uint64(size), Path: [][]byte{}, Cosignatures: []wire.Cosignature{}}
	for _, h := range must(tlog.ProveRecord(size, int64(i), reader)) {
		p.Path = append(p.Path, h[:])
	}
	body := wire.CheckpointText(origin, p.Size, root)
	p.LogSignature = ed25519.Sign(w.log, []byte(body))
	for n := range w.cosigner {
		t := uint64(w.cosigned.Unix())
		p.Cosignatures = append(p.Cosignatures, wire.Cosignature{
			Witness: w.bundle.Witnesses[n].Name, Time: t, Signature: ed25519.Sign(w.witness[n], []byte(wire.CosignatureText(t, body))),
		})
	}
	return wire.Logged{Entry: w.entries[i], Proof: p}
}

// order is what is about to be told to a device. Tests change it before it is signed.
type order struct {
	act     wire.Act
	devices []string
	cmd     wire.Command
	dir     wire.Directive
	rel     *wire.Release
	war     *wire.Warrant
	warFor  []string
	next    *wire.Bundle
	config  []byte // salted

	relSigners, warSigners []crypto.Signer
	cmdSigner, dirSigner   crypto.Signer
	cmdKind                string
	keepDigest             bool // the directive's command digest is set by the test
	keepRelease            bool
}

func (w *world) order(act wire.Act) *order {
	o := &order{
		act: act, devices: []string{me, other, "3"}, warFor: []string{me, other},
		cmd: wire.Command{ID: "c1", Product: product, Act: act, Issued: at(-time.Hour), Expires: at(time.Hour)},
		dir: wire.Directive{
			Device: me, Counter: 8, Nonce: nonce(), Act: act, Issued: at(-time.Second), Expires: at(time.Minute),
		},
		relSigners: w.release[:2], warSigners: w.warrant, cmdSigner: w.directive, dirSigner: w.directive, cmdKind: "command.issued",
	}
	switch {
	case wire.NeedsRelease(act):
		r := release("1.1.0", 3)
		o.rel = &r
	case act == wire.ActBundle:
		b := w.bundle
		b.Version++
		o.next = &b
	case act == wire.ActAdopt:
		o.config, o.cmd.Config = wire.SaltConfig(must(wire.EncodeOwnership(ownership("b", w.buyer))))
	case act == wire.ActDisown:
	case wire.NeedsWarrant(act):
		o.war = &wire.Warrant{ID: "w1", Product: product, Act: act, Issued: at(-time.Hour), Expires: at(time.Hour)}
	case act == wire.ActQuarantine || act == wire.ActDormant:
		o.cmd.TTL = 600
	case act == wire.ActConfigure:
		o.config, o.cmd.Config = wire.SaltConfig(must(wire.EncodeConfig([]wire.ConfigEntry{{Name: "interval", Value: "5"}})))
	}
	return o
}

// ownership is a time in which a device belongs to somebody.
func ownership(of string, key crypto.Signer) wire.Ownership {
	d := wire.OwnerDigest([wire.OwnerSalt]byte{1}, of)
	return wire.Ownership{Owner: d[:], Key: must(wire.SPKIOf(key.Public()))}
}

// owned is a device that belongs to a, and the order that would change that, with the owner's leave.
func (w *world) owned(act wire.Act) (gate.State, *order) {
	s, o := w.state(), w.order(act)
	a := ownership("a", w.owner)
	s.Owner = &a
	o.war = &wire.Warrant{ID: "w1", Product: product, Act: act, Owner: a.Owner, Issued: at(-time.Hour), Expires: at(time.Hour)}
	o.warSigners, o.warFor = []crypto.Signer{w.owner}, []string{me}
	return s, o
}

func nonce() []byte { s := sha256.Sum256([]byte("nonce")); return s[:] }

func release(version string, counter uint32) wire.Release {
	d := sha256.Sum256([]byte(version))
	return wire.Release{
		ID: "lamp-" + version, Product: product, Hardware: []string{"A"}, Model: wire.ModelBlob, Version: version, Counter: counter,
		Components: []wire.Component{{
			Name: "app", Kind: wire.KindExec, Version: version, Size: 10, Digest: d[:], Health: wire.HealthAlive,
		}},
		Created: at(-time.Hour),
	}
}

// deliver signs and logs everything, and puts it together.
func (w *world) deliver(o *order) wire.Delivery {
	rel, war, bun := -1, -1, -1
	if o.rel != nil {
		payload := must(wire.Marshal(*o.rel)) // it may be one that nobody would write
		digest := wire.ReleaseDigest(payload)
		if !o.keepRelease {
			o.cmd.Release = digest[:]
		}
		rel = w.append("release.published", threshold(wire.TypeRelease, payload, o.relSigners...))
	}
	if o.war != nil {
		o.war.Devices = must(wire.SetOf(o.warFor))
		war = w.append("warrant.issued", threshold(wire.TypeWarrant, must(wire.EncodeWarrant(*o.war)), o.warSigners...))
	}
	if o.next != nil {
		bun = w.append("bundle.published", threshold(wire.TypeBundle, must(wire.EncodeBundle(*o.next)), w.root...))
	}
	o.cmd.Devices = must(wire.SetOf(o.devices))
	payload := must(wire.Marshal(o.cmd)) // not EncodeCommand: some tests sign what it would refuse
	cmd := w.append(o.cmdKind, must(wire.Sign1(wire.TypeCommand, payload, o.cmdSigner)))
	digest := sha256.Sum256(payload)
	if !o.keepDigest {
		o.dir.Command = digest[:]
	}
	d := wire.Delivery{
		Directive: must(wire.Sign1(wire.TypeDirective, must(wire.EncodeDirective(o.dir)), o.dirSigner)), Command: w.logged(cmd),
		Member: member(o.devices), Config: o.config,
	}
	if rel >= 0 {
		l := w.logged(rel)
		d.Release = &l
	}
	if war >= 0 {
		l, m := w.logged(war), member(o.warFor)
		d.Warrant, d.WarrantMember = &l, &m
	}
	if bun >= 0 {
		l := w.logged(bun)
		d.Bundle = &l
	}
	return d
}

// member proves this device in the set; when it is not in it, it borrows another's proof, as an attacker would.
func member(devices []string) wire.Membership {
	m, err := wire.MembershipOf(devices, me)
	if err != nil {
		m = must(wire.MembershipOf(devices, devices[0]))
	}
	if m.Path == nil {
		m.Path = [][]byte{}
	}
	return m
}

// state is a device that runs 1.0.0.
func (w *world) state() gate.State {
	cur := release("1.0.0", 2)
	return gate.State{
		Device: me, Product: product, Hardware: "A", Model: wire.ModelBlob, Lifecycle: wire.LifecycleSecured, Bundle: w.bundle,
		Counter: 7, Trees: []wire.TreeHead{{Origin: origin, Size: 5}}, Fuses: 2,
		Current: &gate.Installed{Digest: wire.ReleaseDigest(must(wire.EncodeRelease(cur))), Release: cur},
	}
}
