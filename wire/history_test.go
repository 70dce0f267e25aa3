package wire_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

// dynasty signs bundles: three root keys of which two decide, a log, and a witness.
type dynasty struct {
	root         []crypto.Signer
	log, witness ed25519.PrivateKey
	bundle       wire.Bundle
}

func newDynasty(t testing.TB, version uint64) *dynasty {
	t.Helper()
	d := &dynasty{}
	role := wire.KeySet{Threshold: 2}
	for range 3 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		d.root = append(d.root, k)
		role.Keys = append(role.Keys, need(wire.SPKIOf(k.Public())))
	}
	_, d.log, _ = ed25519.GenerateKey(rand.Reader)
	_, d.witness, _ = ed25519.GenerateKey(rand.Reader)
	log := wire.LogTrust{Origin: "example/control", Key: d.log.Public().(ed25519.PublicKey)}
	d.bundle = wire.Bundle{
		Version: version, Product: "pump", Root: role, Release: role, Warrant: role, Directive: wire.KeySet{Keys: role.Keys[:1], Threshold: 1},
		Control: log, Events: log, Witnesses: []wire.NamedKey{{Name: "w", Key: d.witness.Public().(ed25519.PublicKey)}}, Quorum: 1, MaxAge: 3600,
		Anchors: [][]byte{}, Suites: []string{"HM-P256-1"}, Issued: 1, Telemetry: []wire.StreamKey{},
	}
	return d
}

func need[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (d *dynasty) sign(keys ...crypto.Signer) []byte {
	env := need(wire.NewThreshold(wire.TypeBundle, need(wire.EncodeBundle(d.bundle)), keys[0]))
	for _, k := range keys[1:] {
		env = need(wire.AddSignature(wire.TypeBundle, env, k))
	}
	return env
}

// logged is an entry alone in d's log.
func (d *dynasty) logged(kind string, data []byte) *wire.Logged {
	uid := make([]byte, 16)
	entry := need(wire.EncodeFact(wire.Fact{V: 1, UID: uid, Kind: kind, At: 1, Actor: "a", Subject: "pump", Data: data}))
	l := wire.Logged{Entry: entry, Proof: wire.Proof{Size: 1, Path: [][]byte{}}}
	body := wire.CheckpointText(d.bundle.Control.Origin, 1, need(wire.RootOf(l)))
	l.Proof.LogSignature = ed25519.Sign(d.log, []byte(body))
	l.Proof.Cosignatures = []wire.Cosignature{{Witness: "w", Time: 5, Signature: ed25519.Sign(d.witness, []byte(wire.CosignatureText(5, body)))}}
	return &l
}

// What follows a bundle: only what enough of its root keys signed, and of the next's, in the sight of its log and witnesses, or with one
// signature more.
func TestWhoMayFollow(t *testing.T) {
	old, next := newDynasty(t, 1), newDynasty(t, 2)
	two := append(append([]crypto.Signer{}, old.root[:2]...), next.root[:2]...)
	three := append(append([]crypto.Signer{}, old.root...), next.root[:2]...)
	good := next.sign(two...)
	thief := newDynasty(t, 2)
	later := newDynasty(t, 3)
	blind := old.logged("bundle.published", good)
	blind.Proof.Cosignatures = []wire.Cosignature{}
	for name, c := range map[string]struct {
		step wire.BundleStep
		ok   bool
		why  error
	}{
		"by the threshold of both, seen":                                               {step: wire.BundleStep{Seen: old.logged("bundle.published", good)}, ok: true},
		"by all of the old root, unseen":                                               {step: wire.BundleStep{Envelope: next.sign(three...)}, ok: true},
		"by the threshold of both, unseen: what a thief of the old threshold can sign": {step: wire.BundleStep{Envelope: good}, why: wire.ErrUnseen},
		"seen by its own log alone":                                                    {step: wire.BundleStep{Seen: next.logged("bundle.published", good)}, why: wire.ErrUnseen},
		"seen by the log, but not by its witnesses":                                    {step: wire.BundleStep{Seen: blind}, why: wire.ErrUnseen},
		"seen as something else":                                                       {step: wire.BundleStep{Seen: old.logged("bundle.drafted", good)}},
		"by one of the old root, seen":                                                 {step: wire.BundleStep{Seen: old.logged("bundle.published", next.sign(append(old.root[:1:1], next.root...)...))}, why: wire.ErrThreshold},
		"by one of its own root, seen":                                                 {step: wire.BundleStep{Seen: old.logged("bundle.published", next.sign(append(old.root[:2:2], next.root[0])...))}, why: wire.ErrThreshold},
		"by others, in the sight of the log":                                           {step: wire.BundleStep{Seen: old.logged("bundle.published", thief.sign(thief.root...))}, why: wire.ErrThreshold},
		"a version too far":                                                            {step: wire.BundleStep{Envelope: later.sign(append(append([]crypto.Signer{}, old.root...), later.root...)...)}},
		"nothing":                                                                      {},
		"both an entry and an envelope":                                                {step: wire.BundleStep{Seen: old.logged("bundle.published", good), Envelope: good}},
	} {
		b, env, err := wire.VerifyStep(&old.bundle, c.step)
		if (err == nil) != c.ok || c.why != nil && !errors.Is(err, c.why) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && (b.Version != 2 || len(env) == 0) {
			t.Errorf("%s: version %d", name, b.Version)
		}
	}
}

func TestWhereAHistoryEnds(t *testing.T) {
	d, other := newDynasty(t, 2), newDynasty(t, 2)
	env := d.sign(d.root...)
	blind := d.logged("bundle.published", env)
	blind.Proof.Cosignatures = []wire.Cosignature{}
	for name, c := range map[string]struct {
		n  wire.NewestBundle
		ok bool
	}{
		"published in its log":       {wire.NewestBundle{Version: 2, Logged: *d.logged("bundle.published", env)}, true},
		"another version":            {wire.NewestBundle{Version: 3, Logged: *d.logged("bundle.published", env)}, false},
		"in another log":             {wire.NewestBundle{Version: 2, Logged: *other.logged("bundle.published", env)}, false},
		"another bundle in its log":  {wire.NewestBundle{Version: 2, Logged: *d.logged("bundle.published", other.sign(other.root...))}, false},
		"not published, but drafted": {wire.NewestBundle{Version: 2, Logged: *d.logged("bundle.drafted", env)}, false},
		"witnessed by nobody":        {wire.NewestBundle{Version: 2, Logged: *blind}, false},
	} {
		if _, err := wire.VerifyNewest(d.bundle, env, c.n); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeBundleStep(f *testing.F) {
	d := newDynasty(f, 1)
	env := d.sign(d.root...)
	f.Add(need(wire.EncodeBundleStep(wire.BundleStep{Envelope: env})))
	f.Add(need(wire.EncodeBundleStep(wire.BundleStep{Seen: d.logged("bundle.published", env)})))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := wire.DecodeBundleStep(data)
		if err != nil {
			return
		}
		if _, _, err := wire.VerifyStep(&d.bundle, s); err == nil {
			t.Error("a step that nobody signed")
		}
	})
}

func FuzzDecodeNewestBundle(f *testing.F) {
	d := newDynasty(f, 1)
	env := d.sign(d.root...)
	f.Add(need(wire.EncodeNewestBundle(wire.NewestBundle{Version: 1, Logged: *d.logged("bundle.published", env)})))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := wire.DecodeNewestBundle(data)
		if err == nil && n.Version == 0 {
			t.Error("no version")
		}
	})
}
