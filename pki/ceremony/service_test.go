package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

// house is an instance with a pump whose approvers are alice and bob, and a valve that has nothing yet.
type house struct {
	t       *testing.T
	s       *Service
	root    *pki.Authority
	people  []Approver
	bundles map[string]*wire.Bundle
	cas     map[string]bool
	asked   map[string]Asking
	held    []Held
	deny    []access.Action
	made    int // keys
}

func key(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicOf(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, bundles: map[string]*wire.Bundle{}, cas: map[string]bool{"pump": true}, asked: map[string]Asking{}}
	for _, who := range []string{"alice", "bob"} {
		h.people = append(h.people, Approver{who, key(t)})
	}
	root, err := pki.NewRoot("acme", key(t), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h.root = root
	people := wire.KeySet{Keys: [][]byte{publicOf(t, h.people[0].Key), publicOf(t, h.people[1].Key)}, Threshold: 2}
	log := wire.LogTrust{Origin: "o", Key: bytes.Repeat([]byte{1}, 32)}
	h.bundles["pump"] = &wire.Bundle{
		Version: 7, Product: "pump", Root: people, Release: people, Warrant: people, Directive: wire.KeySet{Keys: [][]byte{publicOf(t, key(t))}, Threshold: 1},
		Control: log, Events: log, MaxAge: 60, Floor: 9, Anchors: [][]byte{root.Cert.Raw}, Suites: []string{"HM-P256-1"}, Issued: 1,
	}
	h.s = NewService(Config{Guard: h, Store: h, CAs: h, Products: h, OEM: "acme", Instance: "i"})
	return h
}

func (h *house) Check(_ context.Context, _ access.Caller, a access.Action, _ access.Resource) error {
	if slices.Contains(h.deny, a) {
		return fault.New(fault.Denied, "access.denied", "no", "")
	}
	return nil
}

func (h *house) PutCeremony(_ context.Context, c Held, f ledger.Fact) error {
	if slices.ContainsFunc(h.held, func(o Held) bool { return o.Digest == c.Digest }) {
		return ErrExists
	}
	if f.Kind != ledger.KindCeremonyHeld {
		h.t.Errorf("fact %s", f.Kind)
	}
	h.held = append(h.held, c)
	return nil
}

func (h *house) Ceremonies(context.Context, string, int) ([]Held, error) { return h.held, nil }
func (h *house) PutAsking(_ context.Context, a Asking) error             { h.asked[a.Product] = a; return nil }

func (h *house) Asking(_ context.Context, product string) (Asking, error) {
	a, ok := h.asked[product]
	if !ok {
		return a, ErrNotFound
	}
	return a, nil
}

func (h *house) RequestCA(_ context.Context, _ access.Caller, r wire.CARequest) ([]byte, error) {
	h.made++
	r.OEM, r.Instance, r.Issued = "acme", "i", 1
	return wire.SignCARequest(r, key(h.t))
}

func (h *house) InstallCA(ctx context.Context, caller access.Caller, _ []byte) (pki.CA, error) {
	if err := h.Check(ctx, caller, access.InstanceManage, access.Resource{}); err != nil {
		return pki.CA{}, err
	}
	h.cas["valve"] = true
	return pki.CA{}, nil
}

func (h *house) Suite(_ context.Context, product string) (string, error) {
	if product != "pump" && product != "valve" && product != "lamp" {
		return "", fault.New(fault.NotFound, "product.unknown", "no product", "")
	}
	return "HM-P256-1", nil
}

func (h *house) All(context.Context) ([]string, error) { return []string{"lamp", "pump", "valve"}, nil }
func (h *house) HasCA(product string) bool             { return h.cas[product] }

func (h *house) Bundle(_ context.Context, product string) (*wire.Bundle, error) {
	return h.bundles[product], nil
}

func (h *house) Publish(ctx context.Context, caller access.Caller, envelope []byte) error {
	if err := h.Check(ctx, caller, access.BundlePublish, access.Resource{}); err != nil {
		return err
	}
	b, err := wire.VerifyBundle(nil, envelope)
	h.bundles[b.Product] = &b
	return err
}

var ann = access.Caller{ID: "person:ann", Kind: access.Person}

func (h *house) request(product, like string) []byte {
	h.t.Helper()
	r, err := h.s.Request(h.t.Context(), ann, product, like)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *house) answer(request []byte) []byte {
	h.t.Helper()
	a, err := Answer(request, h.root, h.people, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	data, err := wire.EncodeCeremonyAnswer(a)
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

func code(err error) string {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok {
		return ""
	}
	return f.Code
}

func TestAProductIsReadyWhenACeremonyHasAnswered(t *testing.T) {
	h := newHouse(t)
	r, err := h.s.Readiness(t.Context(), ann, "valve")
	if err != nil || r.Ready || !slices.Equal(r.Missing, []string{MissingCA, MissingBundle}) || r.Asked {
		t.Fatalf("%+v, %v", r, err)
	}
	request := h.request("valve", "")
	if again := h.request("valve", ""); !bytes.Equal(request, again) || h.made != 1 {
		t.Errorf("asked again, it made another key: %d", h.made)
	}
	asked, err := wire.DecodeCeremonyRequest(request)
	if err != nil || asked.Draft.Version != 1 || asked.Draft.Product != "valve" || asked.Draft.Floor != 0 || len(asked.Draft.Root.Keys) != 2 {
		t.Fatalf("%+v, %v", asked.Draft, err)
	}
	answer := h.answer(request)

	// Who may only do one half does that one; the other half waits for somebody else.
	h.deny = []access.Action{access.BundlePublish}
	if r, err = h.s.Activate(t.Context(), ann, "valve", answer); err != nil || r.Ready || !slices.Equal(r.Missing, []string{MissingBundle}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := h.s.Activate(t.Context(), ann, "valve", answer); code(err) != "access.denied" {
		t.Errorf("who can do nothing of it was told %v", err)
	}
	h.deny = []access.Action{access.InstanceManage}
	if r, err = h.s.Activate(t.Context(), ann, "valve", answer); err != nil || !r.Ready {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = h.s.Activate(t.Context(), ann, "valve", answer); err != nil || !r.Ready {
		t.Errorf("again: %+v, %v", r, err)
	}
	h.deny = nil
	if _, err := h.s.Request(t.Context(), ann, "valve", ""); code(err) != "product.ready" {
		t.Errorf("a product that lacks nothing: %v", err)
	}
}

func TestWhatActivatesNoProduct(t *testing.T) {
	h := newHouse(t)
	if _, err := h.s.Activate(t.Context(), ann, "valve", []byte("x")); code(err) != "product.not-asked" {
		t.Errorf("nothing asked: %v", err)
	}
	if _, err := h.s.Request(t.Context(), ann, "nothing", ""); code(err) != "product.unknown" {
		t.Errorf("no product: %v", err)
	}
	request := h.request("valve", "")
	lamp := h.request("lamp", "pump")
	good, err := wire.DecodeCeremonyAnswer(h.answer(request))
	if err != nil {
		t.Fatal(err)
	}
	change := func(do func(*wire.CeremonyAnswer)) []byte {
		a := good
		do(&a)
		data, err := wire.EncodeCeremonyAnswer(a)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, c := range map[string]struct {
		answer []byte
		code   string
	}{
		"no answer":              {[]byte("x"), "ceremony.answer"},
		"another product's":      {h.answer(lamp), "ceremony.answer"},
		"a rehearsal's":          {change(func(a *wire.CeremonyAnswer) { a.Rehearsal = true }), "ceremony.rehearsal"},
		"without the bundle":     {change(func(a *wire.CeremonyAnswer) { a.Bundle = nil }), "ceremony.answer"},
		"with a bundle of ours":  {change(func(a *wire.CeremonyAnswer) { a.Bundle = h.other() }), "ceremony.answer"},
		"under a root of theirs": {change(func(a *wire.CeremonyAnswer) { a.Root = []byte{1} }), "ceremony.answer"},
	} {
		if _, err := h.s.Activate(t.Context(), ann, "valve", c.answer); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.cas["valve"] || h.bundles["valve"] != nil {
		t.Error("something of it was taken in")
	}
}

// other is a bundle of the valve that enough approvers have signed, and nobody has asked for.
func (h *house) other() []byte {
	b := *h.bundles["pump"]
	b.Version, b.Product, b.Quorum, b.MaxAge = 1, "valve", 0, 1<<30
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		h.t.Fatal(err)
	}
	env, err := wire.NewThreshold(wire.TypeBundle, payload, h.people[0].Key)
	if err != nil {
		h.t.Fatal(err)
	}
	if env, err = wire.AddSignature(wire.TypeBundle, env, h.people[1].Key); err != nil {
		h.t.Fatal(err)
	}
	return env
}

func TestWhoseApproversAFurtherProductHas(t *testing.T) {
	h := newHouse(t)
	lamp := *h.bundles["pump"]
	lamp.Product = "lamp"
	lamp.Root = wire.KeySet{Keys: [][]byte{publicOf(t, key(t))}, Threshold: 1}
	h.bundles["lamp"] = &lamp
	if _, err := h.s.Request(t.Context(), ann, "valve", ""); code(err) != "product.like" || h.made != 0 {
		t.Errorf("two products with different approvers: %v, and %d keys", err, h.made)
	}
	r, err := wire.DecodeCeremonyRequest(h.request("valve", "lamp"))
	if err != nil || len(r.Draft.Root.Keys) != 1 {
		t.Errorf("%v", err)
	}
	h = newHouse(t)
	delete(h.bundles, "pump")
	if _, err := h.s.Request(t.Context(), ann, "valve", ""); code(err) != "product.like" {
		t.Errorf("after nobody's bundle: %v", err)
	}
}

// transcript is of a ceremony that those held.
func (h *house) transcript(oem string, rehearsal bool, signers ...crypto.Signer) []byte {
	h.t.Helper()
	tr := wire.Transcript{Version: 1, Ceremony: "c-1", OEM: oem, Rehearsal: rehearsal, Script: bytes.Repeat([]byte{1}, 32), Program: bytes.Repeat([]byte{2}, 32)}
	for i, k := range signers {
		tr.People = append(tr.People, wire.Participant{Label: string(rune('a' + i)), Part: wire.PartCustodian, SPKI: publicOf(h.t, k)})
	}
	head := tr.Head()
	tr.Steps = []wire.Step{{Prev: head[:], Do: DoVerify, At: 1, By: []string{"a"}}}
	payload, err := wire.EncodeTranscript(tr)
	if err != nil {
		h.t.Fatal(err)
	}
	env, err := wire.NewThreshold(tr.TranscriptType(), payload, signers[0])
	for _, k := range signers[1:] {
		if err == nil {
			env, err = wire.AddSignature(tr.TranscriptType(), env, k)
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return env
}

func TestWhoseTranscriptsAreTaken(t *testing.T) {
	h := newHouse(t)
	alice, bob, eve := h.people[0].Key, h.people[1].Key, key(t)
	good := h.transcript("acme", false, alice, bob)
	if _, err := h.s.Submit(t.Context(), ann, good, map[string]string{"a": "Alice Example"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env   []byte
		names map[string]string
		code  string
	}{
		"the same again":           {good, nil, "ceremony.known"},
		"nobody's":                 {[]byte("x"), nil, "ceremony.transcript"},
		"a rehearsal's":            {h.transcript("rehearsal.acme", true, alice, bob), nil, "ceremony.rehearsal"},
		"another maker's":          {h.transcript("evil", false, alice, bob), nil, "ceremony.foreign"},
		"one approver and another": {h.transcript("acme", false, alice, eve), nil, "ceremony.unknown"},
		"strangers'":               {h.transcript("acme", false, eve, key(t)), nil, "ceremony.unknown"},
		"a name of nobody there":   {h.transcript("acme", false, bob, alice), map[string]string{"z": "Zoe"}, "ceremony.names"},
		"a name of two lines":      {h.transcript("acme", false, bob, alice), map[string]string{"a": "A\nB"}, "ceremony.names"},
	} {
		if _, err := h.s.Submit(t.Context(), ann, c.env, c.names); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(h.held) != 1 {
		t.Errorf("%d on record", len(h.held))
	}
	h.deny = []access.Action{access.CeremonySubmit}
	if _, err := h.s.Submit(t.Context(), ann, h.transcript("acme", false, alice, bob, eve), nil); code(err) != "access.denied" {
		t.Errorf("by who may not: %v", err)
	}
}
