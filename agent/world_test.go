package agent_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/wire"
)

const (
	me      = "00112233445566778899aabbccddeeff"
	product = "pump"
	origin  = "hallmark.example/control"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is everyone who has a say over the device, and the control log.
type world struct {
	root, release, warrant []crypto.Signer
	directive, owner       crypto.Signer
	log, witness           ed25519.PrivateKey
	ca                     *x509.Certificate
	caKey                  crypto.Signer
	bundle                 wire.Bundle
	envelope               []byte // of the bundle

	entries [][]byte
	hashes  []tlog.Hash
	bytes   map[string][]byte // components by digest

	ahead   time.Duration // by which all but the device are ahead of the device's clock
	stopped time.Time     // the witnesses have not cosigned since; zero: they do now
	alone   bool          // whoever has the log's key has no witnesses
	upTo    int           // proofs are under a checkpoint over so many entries; 0: all

	steps  []wire.BundleStep // the history of trust bundles, from version 1
	newest int               // entry of the newest

	shown *x509.Certificate // by the server
}

// now is the time of everybody but the device.
func (w *world) now() time.Time { return time.Now().Add(w.ahead) }

func newWorld() *world { return newWorldAhead(0) }

func newWorldAhead(ahead time.Duration) *world {
	key := func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }
	two := func() []crypto.Signer { return []crypto.Signer{key(), key()} }
	_, log, err := ed25519.GenerateKey(rand.Reader)
	_, witness, err2 := ed25519.GenerateKey(rand.Reader)
	if err != nil || err2 != nil {
		panic("no keys")
	}
	w := &world{root: two(), release: two(), warrant: two(), directive: key(), owner: key(), log: log, witness: witness, caKey: key(), bytes: map[string][]byte{}, ahead: ahead}
	now := w.now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	w.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, t, w.caKey.Public(), w.caKey))))
	pub := func(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }
	w.bundle = wire.Bundle{
		Version: 1, Product: product, Root: role(w.root), Release: role(w.release), Warrant: role(w.warrant),
		Directive: role([]crypto.Signer{w.directive}), Control: wire.LogTrust{Origin: origin, Key: pub(log)},
		Events: wire.LogTrust{Origin: origin, Key: pub(log)}, Witnesses: []wire.NamedKey{{Name: "w", Key: pub(witness)}},
		Quorum: 1, MaxAge: 3600, Floor: 1, Issued: uint64(now.Unix()), Anchors: [][]byte{w.ca.Raw}, Suites: []string{"HM-P256-1"},
		Telemetry: []wire.StreamKey{},
	}
	w.envelope = threshold(wire.TypeBundle, must(wire.EncodeBundle(w.bundle)), w.root)
	w.append("other", []byte("somebody else's entry"))
	w.newest = w.append("bundle.published", w.envelope)
	w.steps = []wire.BundleStep{{Envelope: w.envelope}}
	return w
}

// replace publishes the next trust bundle: change gives everybody's new keys to the world, and what the bundle says of them is made of
// those. Who was there before signs it, and its log and witnesses see it.
func (w *world) replace(change func(w *world)) {
	before := *w
	change(w)
	pub := func(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }
	b := w.bundle
	b.Version++
	b.Root, b.Release, b.Warrant = role(w.root), role(w.release), role(w.warrant)
	b.Directive, b.Anchors = role([]crypto.Signer{w.directive}), [][]byte{w.ca.Raw}
	b.Control.Key, b.Events.Key, b.Witnesses = pub(w.log), pub(w.log), []wire.NamedKey{{Name: "w", Key: pub(w.witness)}}
	b.Issued = uint64(w.now().Unix())
	by := before.root
	if must(wire.RootDigest(b)) != must(wire.RootDigest(before.bundle)) {
		by = append(append([]crypto.Signer{}, by...), w.root...)
	}
	w.bundle, w.envelope = b, threshold(wire.TypeBundle, must(wire.EncodeBundle(b)), by)
	w.newest = w.append("bundle.published", w.envelope)
	seen := *w
	seen.log, seen.witness = before.log, before.witness
	w.steps = append(w.steps, wire.BundleStep{Seen: seen.logged(w.newest)})
}

// everybody gives everybody new keys.
func everybody(w *world) {
	n := newWorldAhead(w.ahead)
	w.root, w.release, w.warrant, w.directive, w.log, w.witness, w.ca, w.caKey = n.root, n.release, n.warrant, n.directive, n.log, n.witness, n.ca, n.caKey
}

// leaf is what the server shows.
func (w *world) leaf() *x509.Certificate {
	now := w.now()
	if l := w.shown; l != nil && l.CheckSignatureFrom(w.ca) == nil && now.Before(l.NotAfter) {
		return l
	}
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.shown = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), DNSNames: []string{"server"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, w.ca, k.Public(), w.caKey))))
	return w.shown
}

func role(keys []crypto.Signer) wire.KeySet {
	s := wire.KeySet{Threshold: uint(len(keys))}
	for _, k := range keys {
		s.Keys = append(s.Keys, must(wire.SPKIOf(k.Public())))
	}
	return s
}

func threshold(typ wire.Type, payload []byte, keys []crypto.Signer) []byte {
	env := must(wire.NewThreshold(typ, payload, keys[0]))
	for _, k := range keys[1:] {
		env = must(wire.AddSignature(typ, env, k))
	}
	return env
}

// append gives a fact its place in the control log.
func (w *world) append(kind string, data []byte) int {
	uid := sha256.Sum256(append([]byte(kind), data...))
	e := must(wire.EncodeFact(wire.Fact{
		V: 1, UID: uid[:16], Kind: kind, At: w.now().UnixMilli(), Actor: "test", Subject: product, Data: data,
	}))
	w.place(e)
	return len(w.entries) - 1
}

func (w *world) place(e []byte) {
	w.entries = append(w.entries, e)
	w.hashes = append(w.hashes, must(tlog.StoredHashes(int64(len(w.entries)-1), e, w.reader()))...)
}

func (w *world) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for n, x := range indexes {
			out[n] = w.hashes[x]
		}
		return out, nil
	})
}

// logged proves entry i, cosigned now.
func (w *world) logged(i int) *wire.Logged {
	size := int64(len(w.entries))
	if w.upTo > 0 {
		size = int64(w.upTo)
	}
	p := wire.Proof{Index: uint64(i), Size: uint64(size), Path: [][]byte{}}
	for _, h := range must(tlog.ProveRecord(size, int64(i), w.reader())) {
		p.Path = append(p.Path, h[:])
	}
	body := wire.CheckpointText(origin, p.Size, must(tlog.TreeHash(size, w.reader())))
	at := uint64(w.now().Unix())
	if !w.stopped.IsZero() {
		at = uint64(w.stopped.Unix())
	}
	p.LogSignature = ed25519.Sign(w.log, []byte(body))
	p.Cosignatures = []wire.Cosignature{{Witness: "w", Time: at, Signature: ed25519.Sign(w.witness, []byte(wire.CosignatureText(at, body)))}}
	if w.alone {
		p.Cosignatures = []wire.Cosignature{}
	}
	return &wire.Logged{Entry: w.entries[i], Proof: p}
}

// firmware is a published release.
type firmware struct {
	rel      wire.Release
	envelope []byte
	digest   [32]byte
	entry    int
}

func (w *world) publish(version string, counter uint32) firmware {
	return w.publishAs(wire.ModelBlob, version, counter)
}

// publishAs publishes a release of a model. One of assets has a second program, that is the same in every version.
func (w *world) publishAs(model wire.UpdateModel, version string, counter uint32) firmware {
	return w.publishWith(model, version, counter, nil)
}

// publishWith publishes a release with a schema of its parameters.
func (w *world) publishWith(model wire.UpdateModel, version string, counter uint32, schema wire.Schema) firmware {
	f := firmware{rel: wire.Release{
		ID: "r" + version, Product: product, Hardware: []string{"A"}, Model: model, Version: version, Counter: counter, Created: 1,
		Parameters: schema,
	}}
	add := func(name, version string) {
		code := make([]byte, 2000)
		copy(code, "firmware "+name+version)
		sum := sha256.Sum256(code)
		w.bytes[string(sum[:])] = code
		f.rel.Components = append(f.rel.Components, wire.Component{
			Name: name, Kind: wire.KindExec, Version: version, Size: 2000, Digest: sum[:], Health: wire.HealthAlive,
		})
	}
	add("app", version)
	if model == wire.ModelAsset {
		add("radio", "1.0.0")
	}
	payload := must(wire.EncodeRelease(f.rel))
	f.envelope, f.digest = threshold(wire.TypeRelease, payload, w.release), wire.ReleaseDigest(payload)
	f.entry = w.append("release.published", f.envelope)
	return f
}

// command is something the device is told, until it says what became of it.
type command struct {
	cmd     wire.Command
	digest  [32]byte
	entry   int
	release *firmware
	warrant int // entry; 0: none
	bundle  int
	config  []byte // salted
	forms   []wire.Form
	nobody  bool // signed by a key the device does not know
}

// ownership is that of who adopts the device.
func (w *world) ownership() wire.Ownership {
	d := wire.OwnerDigest([wire.OwnerSalt]byte{1}, "a")
	return wire.Ownership{Owner: d[:], Key: must(wire.SPKIOf(w.owner.Public()))}
}

// command signs and logs an order to this one device.
func (w *world) command(act wire.Act, edit func(c *command)) *command {
	now := uint64(w.now().Unix())
	c := &command{cmd: wire.Command{
		ID: "c-" + string(act), Product: product, Act: act, Devices: must(wire.SetOf([]string{me})), Issued: now, Expires: now + 3600,
	}}
	switch act { //nolint:exhaustive // the others need nothing more
	case wire.ActQuarantine, wire.ActDormant:
		c.cmd.TTL = 600
	case wire.ActConfigure:
		c.config, c.cmd.Config = wire.SaltConfig(must(wire.EncodeConfig([]wire.ConfigEntry{{Name: "interval", Value: "5"}})))
	case wire.ActAdopt:
		c.config, c.cmd.Config = wire.SaltConfig(must(wire.EncodeOwnership(w.ownership())))
	case wire.ActWipe:
		c.warrant = w.append("warrant.issued", threshold(wire.TypeWarrant, must(wire.EncodeWarrant(wire.Warrant{
			ID: "w1", Product: product, Act: act, Devices: c.cmd.Devices, Issued: now, Expires: now + 3600,
		})), w.warrant))
	case wire.ActBundle:
		b := w.bundle
		b.Version++
		c.bundle = w.append("bundle.published", threshold(wire.TypeBundle, must(wire.EncodeBundle(b)), w.root))
	}
	if edit != nil {
		edit(c)
	}
	if c.release != nil {
		c.cmd.Release = c.release.digest[:]
	}
	payload := must(wire.EncodeCommand(c.cmd))
	c.digest = sha256.Sum256(payload)
	c.entry = w.append("command.issued", must(wire.Sign1(wire.TypeCommand, payload, w.directive)))
	return c
}

// deliver tells the device, in answer to its nonce.
func (w *world) deliver(c *command, nonce []byte, counter uint64) []byte {
	now := uint64(w.now().Unix())
	key := w.directive
	if c.nobody {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	member := must(wire.MembershipOf([]string{me}, me))
	if member.Path == nil {
		member.Path = [][]byte{}
	}
	d := wire.Delivery{
		Directive: must(wire.Sign1(wire.TypeDirective, must(wire.EncodeDirective(wire.Directive{
			Device: me, Counter: counter, Nonce: nonce, Act: c.cmd.Act, Command: c.digest[:], Issued: now, Expires: now + 60,
		})), key)),
		Command: *w.logged(c.entry), Member: member, Config: c.config, Forms: c.forms,
	}
	if c.release != nil {
		d.Release = w.logged(c.release.entry)
	}
	if c.warrant > 0 {
		d.Warrant, d.WarrantMember = w.logged(c.warrant), &member
	}
	if c.bundle > 0 {
		d.Bundle = w.logged(c.bundle)
	}
	return must(wire.Marshal(d))
}

// judged is the verdict on evidence.
func (w *world) judged(evidence []byte, status string) []byte {
	digest := sha256.Sum256(evidence)
	return must(wire.Sign1(wire.TypeVerdict, must(wire.EncodeVerdict(wire.Verdict{Device: me, Evidence: digest[:], Status: status})), w.directive))
}

// certify is the enrolment server and the factory.
func (w *world) certify(t testing.TB, pub crypto.PublicKey, life time.Duration) []byte {
	t.Helper()
	now := w.now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{SerialNumber: me}, NotBefore: now, NotAfter: now.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, w.ca, pub, w.caKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
