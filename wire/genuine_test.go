package wire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const tested = "00112233445566778899aabbccddeeff"

// house is a maker's hierarchy, small.
type house struct {
	t    *testing.T
	root *x509.Certificate
	key  crypto.Signer
}

func freshKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *house) sign(c *x509.Certificate, pub crypto.PublicKey, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
	h.t.Helper()
	c.SerialNumber, c.BasicConstraintsValid = big.NewInt(time.Now().UnixNano()), true
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Unix(1_700_000_000, 0), time.Unix(1_900_000_000, 0)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, key: freshKey(t)}
	c := &x509.Certificate{Subject: pkix.Name{Organization: []string{"acme"}, CommonName: "root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	h.root = h.sign(c, h.key.Public(), c, h.key)
	return h
}

// ca makes a CA under the root for a policy.
func (h *house) ca(name, product string, policy x509.OID) (*x509.Certificate, crypto.Signer) {
	k := freshKey(h.t)
	c := &x509.Certificate{Subject: pkix.Name{Organization: []string{"acme"}, CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, Policies: []x509.OID{policy}}
	if product != "" {
		c.Subject.OrganizationalUnit = []string{product}
	}
	return h.sign(c, k.Public(), h.root, h.key), k
}

// verdict makes a key for verdicts under a CA, and its chain.
func (h *house) verdict(ca *x509.Certificate, by crypto.Signer, policy x509.OID) (crypto.Signer, [][]byte) {
	k := freshKey(h.t)
	leaf := h.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "verdicts"}, KeyUsage: x509.KeyUsageDigitalSignature, Policies: []x509.OID{policy}}, k.Public(), ca, by)
	return k, [][]byte{leaf.Raw, ca.Raw, h.root.Raw}
}

func sampleGenuine() Genuine {
	return Genuine{
		V: 1, Device: tested, Maker: "acme", Product: "Pump", Headline: "recalled", Made: 1_790_000_000, Support: 1_890_000_000,
		Says:  []GenuineSaid{{Word: "genuine"}, {Word: "recalled", Since: 1_795_000_000, Text: "the cable may burn"}},
		Nonce: bytes.Repeat([]byte{7}, 32), Issued: 1_796_000_000, Expires: 1_796_086_400,
		Logs: []GenuineLog{{Name: "events", Checkpoint: "origin\n2\n…\n", Size: 2, Facts: []GenuineFact{
			{Index: 0, Kind: "device.provisioned", Leaf: make([]byte, 32), Path: [][]byte{make([]byte, 32)}},
		}}},
	}
}

func signGenuine(t *testing.T, g Genuine, key crypto.Signer, chain [][]byte) []byte {
	t.Helper()
	body, err := EncodeGenuine(g)
	if err != nil {
		t.Fatal(err)
	}
	env, err := SignChained(TypeGenuine, body, key, chain)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestAVerdictIsBelievedByTheRootAlone(t *testing.T) {
	h := newHouse(t)
	server, _ := x509.ParseOID(oidServer)
	infra, infraKey := h.ca("infra", "", server)
	key, chain := h.verdict(infra, infraKey, VerdictPolicy())
	root := sha256.Sum256(h.root.Raw)
	env := signGenuine(t, sampleGenuine(), key, chain)
	g, err := OpenGenuine(env, root)
	if err != nil || g.Headline != "recalled" || g.Says[1].Text != "the cable may burn" {
		t.Fatalf("%+v, %v", g, err)
	}

	orders, orderKey := h.ca("order", "pump", idevid.PolicyIDevID())
	other := newHouse(t)
	otherInfra, otherKey := other.ca("infra", "", server)
	late := sampleGenuine()
	late.Issued, late.Expires = 1_950_000_000, 1_950_000_001
	for name, bad := range map[string]func() []byte{
		"a byte changed": func() []byte {
			b := bytes.Clone(env)
			b[bytes.Index(b, []byte("recalled"))] ^= 1
			return b
		},
		"another maker's root": func() []byte {
			k, c := other.verdict(otherInfra, otherKey, VerdictPolicy())
			return signGenuine(t, sampleGenuine(), k, c)
		},
		"another root that is only put last": func() []byte {
			k, c := other.verdict(otherInfra, otherKey, VerdictPolicy())
			return signGenuine(t, sampleGenuine(), k, [][]byte{c[0], c[1], h.root.Raw})
		},
		"a server's key": func() []byte {
			k, c := h.verdict(infra, infraKey, server)
			return signGenuine(t, sampleGenuine(), k, c)
		},
		"the CA of an order, stolen": func() []byte {
			k, c := h.verdict(orders, orderKey, VerdictPolicy())
			return signGenuine(t, sampleGenuine(), k, c)
		},
		"the CA itself": func() []byte {
			return signGenuine(t, sampleGenuine(), infraKey, [][]byte{infra.Raw, h.root.Raw})
		},
		"another key than the certificate's":   func() []byte { return signGenuine(t, sampleGenuine(), freshKey(t), chain) },
		"issued when no certificate was valid": func() []byte { return signGenuine(t, late, key, chain) },
		"another type": func() []byte {
			body, _ := EncodeGenuine(sampleGenuine())
			env, err := SignChained(TypeDeviceProof, body, key, chain)
			if err != nil {
				t.Fatal(err)
			}
			return env
		},
	} {
		if _, err := OpenGenuine(bad(), root); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}

func TestAVerdictIsStrict(t *testing.T) {
	for name, change := range map[string]func(*Genuine){
		"no statement":               func(g *Genuine) { g.Says = nil },
		"a headline nobody says":     func(g *Genuine) { g.Headline = "genuine!" },
		"expires before it is given": func(g *Genuine) { g.Expires = g.Issued },
		"a short nonce":              func(g *Genuine) { g.Nonce = []byte{1} },
		"an answer to no question":   func(g *Genuine) { g.Nonce, g.Proof = nil, &GenuineProof{Key: []byte{1}} },
		"logs out of order":          func(g *Genuine) { g.Logs = append(g.Logs, g.Logs[0]) },
		"a fact outside of the tree": func(g *Genuine) { g.Logs[0].Facts[0].Index = 2 },
		"a leaf of another size":     func(g *Genuine) { g.Logs[0].Facts[0].Leaf = []byte{1} },
		"a long text":                func(g *Genuine) { g.Says[0].Text = strings.Repeat("x", 2305) },
		"another version":            func(g *Genuine) { g.V = 2 },
	} {
		g := sampleGenuine()
		change(&g)
		if _, err := EncodeGenuine(g); err == nil {
			t.Errorf("%s: written", name)
		}
		raw, err := Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeGenuine(raw); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestFactsOfAVerdictLeadToOneRoot(t *testing.T) {
	h := grow(t, 9)
	l := GenuineLog{Name: "events", Size: 9}
	for _, i := range []int64{2, 7} {
		path, err := tlog.ProveRecord(9, i, h)
		if err != nil {
			t.Fatal(err)
		}
		leaf := tlog.RecordHash([]byte("entry " + string(rune('0'+i))))
		f := GenuineFact{Index: uint64(i), Leaf: leaf[:], Path: [][]byte{}}
		for _, p := range path {
			f.Path = append(f.Path, p[:])
		}
		l.Facts = append(l.Facts, f)
	}
	want, err := tlog.TreeHash(9, h)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Root(); err != nil || got != [32]byte(want) {
		t.Errorf("%x, %v", got, err)
	}
	l.Facts[1].Leaf = make([]byte, 32)
	if _, err := l.Root(); !errors.Is(err, ErrInclusion) {
		t.Errorf("a fact that is not in the tree: %v", err)
	}
}

// piece is a device with its factory identity.
type piece struct {
	idevid, attest crypto.Signer
	chain          [][]byte
}

func (h *house) piece(product string, kind idevid.Kind, ca *x509.Certificate, by crypto.Signer) piece {
	h.t.Helper()
	p := piece{idevid: freshKey(h.t), attest: freshKey(h.t)}
	end := idevid.NoExpiry()
	if kind == idevid.LDevID {
		end = time.Unix(1_760_000_000, 0)
	}
	c, err := idevid.Template(idevid.Identity{Kind: kind, DeviceID: tested, OEM: "acme", Product: product, HWRev: "A"}, big.NewInt(1<<62), time.Unix(1_750_000_000, 0), end)
	if err != nil {
		h.t.Fatal(err)
	}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	policy := idevid.PolicyIDevID()
	if kind == idevid.LDevID {
		policy = idevid.PolicyLDevID()
	}
	c.Policies = []x509.OID{policy}
	p.chain = [][]byte{h.sign(c, p.idevid.Public(), ca, by).Raw, ca.Raw, h.root.Raw}
	return p
}

func (p piece) evidence(t *testing.T, nonce [32]byte) []byte {
	t.Helper()
	id, err := InstanceID(p.attest.Public())
	if err != nil {
		t.Fatal(err)
	}
	body, err := EncodeEvidence(Evidence{
		Nonce: nonce[:], InstanceID: id, Profile: PSAProfile, ClientID: 1, Lifecycle: LifecycleSecured, Implementation: d32(4), Device: tested,
		Components: []Measured{{Type: "App", Value: d32(5), SignerID: d32(6)}}, POST: []TestResult{{Name: "flash", Passed: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := Sign1(TypeEvidence, body, p.attest)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func (p piece) prove(t *testing.T, nonce []byte) []byte {
	t.Helper()
	spki, err := SPKIOf(p.attest.Public())
	if err != nil {
		t.Fatal(err)
	}
	body, err := EncodeDeviceProof(DeviceProof{V: 1, Device: tested, Nonce: nonce, Attest: spki, Evidence: p.evidence(t, GenuineNonce(nonce))})
	if err != nil {
		t.Fatal(err)
	}
	env, err := SignChained(TypeDeviceProof, body, p.idevid, p.chain)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestADeviceProvesItselfWithoutAServer(t *testing.T) {
	h := newHouse(t)
	ca, key := h.ca("order", "pump", idevid.PolicyIDevID())
	p, nonce, root := h.piece("pump", idevid.IDevID, ca, key), bytes.Repeat([]byte{9}, 32), sha256.Sum256(h.root.Raw)
	env := p.prove(t, nonce)
	if _, e, err := OpenDeviceProof(env, root, tested, nonce); err != nil || e.Device != tested {
		t.Fatal(err)
	}
	other := newHouse(t)
	otherCA, otherKey := other.ca("order", "pump", idevid.PolicyIDevID())
	op, opKey := h.ca("operational", "", idevid.PolicyLDevID())
	for name, bad := range map[string]struct {
		env    []byte
		device string
		nonce  []byte
	}{
		"another question":                    {env, tested, bytes.Repeat([]byte{8}, 32)},
		"another device":                      {env, strings.Repeat("1", 32), nonce},
		"another maker's":                     {other.piece("pump", idevid.IDevID, otherCA, otherKey).prove(t, nonce), tested, nonce},
		"the CA of another product":           {h.piece("valve", idevid.IDevID, ca, key).prove(t, nonce), tested, nonce},
		"an operational CA makes no pieces":   {h.piece("pump", idevid.IDevID, op, opKey).prove(t, nonce), tested, nonce},
		"an operational identity is no proof": {h.piece("pump", idevid.LDevID, op, opKey).prove(t, nonce), tested, nonce},
	} {
		if _, _, err := OpenDeviceProof(bad.env, root, bad.device, bad.nonce); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}

func TestTheDevicesAnswerIsToThisQuestion(t *testing.T) {
	h := newHouse(t)
	ca, key := h.ca("order", "pump", idevid.PolicyIDevID())
	p, nonce := h.piece("pump", idevid.IDevID, ca, key), bytes.Repeat([]byte{9}, 32)
	spki, err := SPKIOf(p.attest.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := GenuineProof{Key: spki, Evidence: p.evidence(t, GenuineNonce(nonce))}
	if _, err := good.Verify(tested, nonce); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Verify(tested, bytes.Repeat([]byte{1}, 32)); err == nil {
		t.Error("an answer to another question is taken")
	}
	// Evidence over a nonce that the server chose for itself says nothing to who holds the device.
	if _, err := (GenuineProof{Key: spki, Evidence: p.evidence(t, [32]byte(nonce))}).Verify(tested, nonce); err == nil {
		t.Error("evidence over the bare nonce is taken")
	}
}

func FuzzDecodeGenuine(f *testing.F) { again(f, DecodeGenuine, EncodeGenuine, sampleGenuine()) }

func FuzzDecodeDeviceProof(f *testing.F) {
	again(f, DecodeDeviceProof, EncodeDeviceProof, DeviceProof{V: 1, Device: tested, Nonce: make([]byte, 32), Attest: []byte{1}, Evidence: []byte{2}})
}

// Whatever a stranger sends as a verdict, it is an answer or an error, and never believed by a root that did not sign it.
func FuzzOpenGenuine(f *testing.F) {
	f.Add([]byte{0xd2, 0x84})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := OpenGenuine(data, [32]byte{1}); err == nil {
			t.Error("believed")
		}
		if _, _, err := OpenDeviceProof(data, [32]byte{1}, tested, make([]byte, 32)); err == nil {
			t.Error("believed")
		}
	})
}
