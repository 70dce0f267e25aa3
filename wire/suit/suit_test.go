package suit_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veraison/go-cose"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/suit"
)

// draftKey is the public key of the draft's examples (appendix B).
const draftKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhJaBGq4LqqvSYVcYnuzaJr6qi/Eb
bz/m4rVlnIXbwK07HypLbAmBMcCjbazR14vTgdzfsJwFLbM5kdtzOLSolg==
-----END PUBLIC KEY-----`

func ofTheDraft(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(draftKey))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PublicKey)
}

func example(t testing.TB, n int) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("example%d.hex", n)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The six examples of draft -37: read down to each command, believed by the draft's key and no other, written again to the same bytes; what they say is what the draft prints beside them.
func TestExamplesOfTheDraft(t *testing.T) {
	type want struct {
		components, shared, validate, load, invoke, fetch, install int
		reference                                                  string
	}
	pub, other := ofTheDraft(t), newKey(t, elliptic.P256())
	for n, w := range []want{
		{1, 3, 1, 0, 1, 0, 0, ""},
		{1, 3, 1, 0, 0, 0, 3, ""},
		{1, 3, 1, 0, 1, 0, 0, "https://git.io/JJYoj"},
		{1, 4, 1, 0, 0, 0, 3, ""},
		{3, 4, 2, 4, 2, 4, 4, ""},
		{2, 6, 4, 0, 2, 0, 8, ""},
	} {
		data := example(t, n)
		e, m, err := suit.Decode(data)
		if err != nil {
			t.Errorf("example %d: %v", n, err)
			continue
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("example %d is written to other bytes: %v", n, err)
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, e.Manifest) {
			t.Errorf("the manifest of example %d is written to other bytes: %v", n, err)
		}
		got := want{len(m.Components), len(m.Shared), len(m.Validate), len(m.Load), len(m.Invoke), len(m.Fetch.Run), len(m.Install.Run), m.Reference}
		if got != w || m.Sequence != uint64(n) {
			t.Errorf("example %d: %+v, sequence number %d, want %+v", n, got, m.Sequence, w)
		}
		if err := e.Verify(pub); err != nil {
			t.Errorf("example %d: %v", n, err)
		}
		if err := e.Verify(&other.PublicKey); !errors.Is(err, suit.ErrSignature) {
			t.Errorf("example %d by another key: %v", n, err)
		}
	}
	e, m, err := suit.Decode(example(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	if e.Install == nil || e.Text == nil || m.Install.Digest == nil || m.Text.Digest == nil {
		t.Error("example 2 has no severed elements")
	}
	e.Install, e.Text = nil, nil // what is severed may be left out: "333 bytes" of the draft
	if b, err := e.Encode(); err != nil || len(b) != 333 {
		t.Errorf("%d bytes without severed elements: %v", len(b), err)
	}
}

// The digest is over the manifest with the head of its byte string; the signature is over the digest's array without one. Each without the other's rule is something else.
func TestTheRuleOfDigests(t *testing.T) {
	e, _, err := suit.Decode(example(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := suit.Digest(e.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if want := "822f58206658ea560262696dd1f13b782239a064da7c6c5cbaf52fded428a6fc83c7e5af"; hex.EncodeToString(digest) != want { // as the draft prints it
		t.Errorf("digest %x, want %s", digest, want)
	}
	head := []byte{0x58, byte(len(e.Manifest))}
	if sum := sha256.Sum256(append(head, e.Manifest...)); !bytes.Equal(sum[:], digest[4:]) {
		t.Error("not over the manifest with its head")
	}
	// signed with the head of the digest's own byte string, or over the manifest itself, it is not believed
	k := newKey(t, elliptic.P256())
	wrapped, err := wire.Marshal(digest)
	if err != nil {
		t.Fatal(err)
	}
	for what, payload := range map[string][]byte{"the digest with a head": wrapped, "the manifest": e.Manifest} {
		signer, err := cose.NewSigner(cose.AlgorithmES256, k)
		if err != nil {
			t.Fatal(err)
		}
		msg := cose.NewSign1Message()
		msg.Headers.Protected.SetAlgorithm(cose.AlgorithmES256)
		msg.Payload = payload
		if err := msg.Sign(rand.Reader, nil, signer); err != nil {
			t.Fatal(err)
		}
		msg.Payload = nil
		block, err := msg.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if err := suit.VerifyBlock(e.Manifest, block, &k.PublicKey); !errors.Is(err, suit.ErrSignature) {
			t.Errorf("a signature over %s: %v", what, err)
		}
	}
}

func release() wire.Release {
	sum := func(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }
	return wire.Release{
		ID: "pump-1.2.0", Product: "pump", Hardware: []string{"A", "B"}, Model: wire.ModelBlob, Version: "1.2.0", Counter: 3, Created: 1789000000,
		Components: []wire.Component{
			{Name: "app", Kind: wire.KindExec, Version: "1.2.0", Size: 4096, Digest: sum("app"), Health: wire.HealthAlive},
			{Name: "tables", Kind: wire.KindData, Version: "1.2.0", Size: 100, Digest: sum("tables"), Health: wire.HealthNone},
		},
	}
}

// The manifest of a release follows from it, says what it says, and its sequence number rises with the counter first.
func TestOfARelease(t *testing.T) {
	r := release()
	m, err := suit.Of(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	same, err := suit.Of(release())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := same.Encode(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("another manifest of the same release: %v", err)
	}
	k := newKey(t, elliptic.P256())
	block, err := suit.Sign(b, k)
	if err != nil {
		t.Fatal(err)
	}
	data, err := suit.Envelope{Blocks: [][]byte{block}, Manifest: b}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e, got, err := suit.Decode(data)
	if err != nil || e.Verify(&k.PublicKey) != nil {
		t.Fatalf("not read, or not believed: %v", err)
	}
	for i, c := range r.Components {
		if string(got.Components[i][0]) != c.Name || got.Validate[2*i].Index != uint64(i) || got.Validate[2*i+1].Code != suit.ConditionImageMatch {
			t.Errorf("component %d is another", i)
		}
		if uri := got.Install.Run[4*i+1].Parameters.URI; uri != fmt.Sprintf("/d/v1/artifact/%x", c.Digest) {
			t.Errorf("component %s is fetched at %s", c.Name, uri)
		}
	}
	if p := got.Shared[1].Parameters; *p.Size != 4096 || !bytes.Equal(p.Digest[4:], r.Components[0].Digest) {
		t.Error("the first component has another size or digest")
	}
	if len(got.Invoke) != 2 || got.Invoke[1].Code != suit.DirectiveInvoke {
		t.Errorf("what is started: %+v", got.Invoke)
	}
	ways := got.Shared[4].Try
	if len(ways) != 2 || !bytes.Equal(ways[1][0].Parameters.Class, suit.Class("pump", "B")) || !bytes.Equal(got.Shared[2].Parameters.Vendor, suit.Vendor("pump")) {
		t.Error("not for both hardware revisions")
	}
	later, lower := release(), release()
	later.Created++
	lower.Counter, lower.Created = 2, lower.Created+1e6
	for what, x := range map[string]struct {
		r      wire.Release
		higher bool
	}{"later": {later, true}, "of a lower counter": {lower, false}} {
		if o, err := suit.Of(x.r); err != nil || (o.Sequence > m.Sequence) != x.higher {
			t.Errorf("a release %s has number %d, beside %d: %v", what, o.Sequence, m.Sequence, err)
		}
	}
	for what, change := range map[string]func(*wire.Release){
		"an image":        func(r *wire.Release) { r.Components[0].Kind = wire.KindImage },
		"protected":       func(r *wire.Release) { r.Components[1].Protected = &wire.Protected{} },
		"of another time": func(r *wire.Release) { r.Created = 1 << 40 },
	} {
		x := release()
		change(&x)
		if _, err := suit.Of(x); err == nil {
			t.Errorf("%s was written", what)
		}
	}
}

// Programs are invoked in the order in which they are started; all else is as it was.
func TestProgramsAreInvokedInOrder(t *testing.T) {
	r := release()
	motor := r.Components[0]
	motor.Name = "motor"
	r.Components = append(r.Components, motor)
	index := func() (out []uint64) {
		m, err := suit.Of(r)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(m.Invoke); i += 2 {
			if m.Invoke[i].Code != suit.DirectiveIndex || m.Invoke[i+1].Code != suit.DirectiveInvoke {
				t.Fatalf("what is started: %+v", m.Invoke)
			}
			out = append(out, m.Invoke[i].Index)
		}
		return out
	}
	if got := index(); !slices.Equal(got, []uint64{0, 2}) {
		t.Errorf("without an order: %v", got)
	}
	r.Components[0].After = []string{"motor"}
	if got := index(); !slices.Equal(got, []uint64{2, 0}) {
		t.Errorf("app after motor: %v", got)
	}
}

// The identifiers are UUIDs of version 5, of just these names: a processor's maker can compute them with any tool.
func TestIdentifiers(t *testing.T) {
	// python3 -c 'import uuid; v = uuid.uuid5(uuid.NAMESPACE_URL, "urn:hallmark:product:pump"); print(v.hex, uuid.uuid5(v, "A").hex)'
	if v, c := hex.EncodeToString(suit.Vendor("pump")), hex.EncodeToString(suit.Class("pump", "A")); v != wantVendor || c != wantClass {
		t.Errorf("vendor %s, class %s", v, c)
	}
}

// Whatever bit is turned, it is refused or not believed.
func TestNoByteIsAltered(t *testing.T) {
	pub := ofTheDraft(t)
	for n := range 6 {
		data := example(t, n)
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1
			if e, _, err := suit.Decode(bad); err == nil && e.Verify(pub) == nil {
				t.Fatalf("example %d with byte %d altered is believed", n, i)
			}
		}
	}
	k := newKey(t, elliptic.P384())
	if _, err := suit.Sign([]byte("manifest"), k); !errors.Is(err, suit.ErrSignature) {
		t.Errorf("signed by P-384: %v", err)
	}
	e := suit.Envelope{Manifest: []byte{0xa0}}
	if err := e.Verify(pub); !errors.Is(err, suit.ErrSignature) {
		t.Errorf("without a signature: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for n := range 6 {
		f.Add(example(f, n))
	}
	pub := ofTheDraft(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, _, err := suit.Decode(data)
		if err != nil {
			return
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("written to other bytes: %v", err)
		}
		_ = e.Verify(pub)
	})
}

func FuzzDecodeManifest(f *testing.F) {
	for n := range 6 {
		e, _, err := suit.Decode(example(f, n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Manifest)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := suit.DecodeManifest(data)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("written to other bytes: %v", err)
		}
	})
}

const (
	wantVendor = "a034925b156e58358f7497c8d9d32649"
	wantClass  = "dcab8a30db5c576288777a33991b9c8f"
)
