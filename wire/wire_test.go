package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func newKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, der
}

type people struct {
	keys []*ecdsa.PrivateKey
	role KeySet
}

func newPeople(t testing.TB, n int, threshold uint) people {
	t.Helper()
	p := people{role: KeySet{Threshold: threshold}}
	for range n {
		k, der := newKey(t)
		p.keys = append(p.keys, k)
		p.role.Keys = append(p.role.Keys, der)
	}
	return p
}

func (p people) sign(t testing.TB, typ Type, payload []byte, who ...int) []byte {
	t.Helper()
	env, err := NewThreshold(typ, payload, p.keys[who[0]])
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range who[1:] {
		if env, err = AddSignature(typ, env, p.keys[i]); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

func sampleRelease() Release {
	d := sha256.Sum256([]byte("program"))
	return Release{
		ID: "r1", Product: "pump", Hardware: []string{"A"}, Model: ModelBlob, Version: "1.2.0", Counter: 2, Created: 1,
		Components: []Component{{Name: "app", Kind: KindExec, Version: "1.2.0", Size: 7, Digest: d[:], Health: HealthSocket}},
		RollbackTo: [][]byte{d[:]},
	}
}

func sampleBundle(root, release KeySet) Bundle {
	k := bytes.Repeat([]byte{7}, 32)
	return Bundle{
		Version: 1, Product: "pump", Root: root, Release: release, Warrant: release, Directive: KeySet{Keys: release.Keys[:1], Threshold: 1},
		Control: LogTrust{Origin: "t/control", Key: k}, Events: LogTrust{Origin: "t/events", Key: k},
		Witnesses: []NamedKey{{Name: "w1", Key: k}}, Quorum: 1, MaxAge: 60, Issued: 1, Suites: []string{"HM-P256-1"},
		Anchors: [][]byte{{1}}, Telemetry: []StreamKey{},
	}
}

func TestThresholdCountsDistinctKeysOfTheRole(t *testing.T) {
	approvers, outsiders := newPeople(t, 3, 2), newPeople(t, 2, 1)
	payload, err := EncodeRelease(sampleRelease())
	if err != nil {
		t.Fatal(err)
	}
	one := approvers.sign(t, TypeRelease, payload, 0)
	two := approvers.sign(t, TypeRelease, payload, 0, 2)
	padded := one
	for _, k := range outsiders.keys {
		if padded, err = AddSignature(TypeRelease, padded, k); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		env  []byte
		ok   bool
	}{{"two of three", two, true}, {"one of three", one, false}, {"one and two outsiders", padded, false}} {
		got, err := VerifyThreshold(TypeRelease, c.env, approvers.role)
		if c.ok != (err == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.ok && !bytes.Equal(got, payload) {
			t.Errorf("%s: other payload", c.name)
		}
		if !c.ok && !errors.Is(err, ErrThreshold) {
			t.Errorf("%s: %v, want ErrThreshold", c.name, err)
		}
	}
	if _, err := AddSignature(TypeRelease, one, approvers.keys[0]); err == nil {
		t.Error("the same key signed twice")
	}
}

func TestSignatureOfOneTypeIsNotOfAnother(t *testing.T) {
	k, _ := newKey(t)
	env, err := Sign1(TypeDirective, []byte("payload"), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify1(TypeDirective, env, k.Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify1(TypeCommand, env, k.Public()); err == nil {
		t.Error("a directive verified as a command")
	}
	other, _ := newKey(t)
	if _, err := Verify1(TypeDirective, env, other.Public()); err == nil {
		t.Error("verified by another key")
	}
}

func TestEveryBitFlipOfASignedMessageIsRefused(t *testing.T) {
	p := newPeople(t, 3, 2)
	payload, err := EncodeRelease(sampleRelease())
	if err != nil {
		t.Fatal(err)
	}
	env := p.sign(t, TypeRelease, payload, 0, 1)
	b := sampleBundle(p.role, p.role)
	if _, _, err := VerifyRelease(b, env); err != nil {
		t.Fatal(err)
	}
	for i := range env {
		for bit := range 8 {
			bad := bytes.Clone(env)
			bad[i] ^= 1 << bit
			if _, _, err := VerifyRelease(b, bad); err == nil {
				t.Fatalf("bit %d of byte %d flipped, and still accepted", bit, i)
			}
		}
	}
}

func TestBundleRotation(t *testing.T) {
	old, next := newPeople(t, 3, 2), newPeople(t, 3, 2)
	b1 := sampleBundle(old.role, old.role)
	enc := func(b Bundle) []byte {
		p, err := EncodeBundle(b)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	env1 := old.sign(t, TypeBundle, enc(b1), 0, 1)
	cur, err := VerifyBundle(nil, env1)
	if err != nil {
		t.Fatal(err)
	}
	b2 := sampleBundle(next.role, next.role)
	b2.Version = 2
	both := next.sign(t, TypeBundle, enc(b2), 0, 1)
	for _, k := range old.keys[:2] {
		if both, err = AddSignature(TypeBundle, both, k); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := VerifyBundle(&cur, both); err != nil {
		t.Errorf("signed by both thresholds: %v", err)
	}
	if _, err := VerifyBundle(&cur, next.sign(t, TypeBundle, enc(b2), 0, 1)); err == nil {
		t.Error("signed by the new root only, and accepted")
	}
	mixed := append([]*ecdsa.PrivateKey{}, old.keys...)
	halves := people{keys: append(mixed, next.keys...)}
	if _, err := VerifyBundle(&cur, halves.sign(t, TypeBundle, enc(b2), 0, 3, 4)); err == nil {
		t.Error("one signature of the old root, and accepted")
	}
	skip := b2
	skip.Version = 3
	env3 := halves.sign(t, TypeBundle, enc(skip), 0, 1, 3, 4)
	if _, err := VerifyBundle(&cur, env3); err == nil {
		t.Error("version skipped, and accepted")
	}
	cur.Floor, b2.Floor = 5, 4
	if _, err := VerifyBundle(&cur, halves.sign(t, TypeBundle, enc(b2), 0, 1, 3, 4)); err == nil {
		t.Error("floor lowered, and accepted")
	}
}

func TestMembership(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[0-9a-f]{8}`), 1, 40, rapid.ID).Draw(t, "ids")
		set, err := SetOf(ids)
		if err != nil {
			t.Fatal(err)
		}
		id := rapid.SampledFrom(ids).Draw(t, "member")
		m, err := MembershipOf(ids, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(set, id); err != nil {
			t.Fatal(err)
		}
		if m.Verify(set, id+"0") == nil {
			t.Fatal("a stranger is a member")
		}
		if m.Verify(DeviceSet{Root: set.Root, Count: set.Count + 1}, id) == nil && len(ids) > 1 && m.Index == uint64(len(ids)-1) {
			t.Fatal("accepted under another count")
		}
		if len(m.Path) > 0 {
			m.Path[0] = bytes.Repeat([]byte{1}, 32)
			if m.Verify(set, id) == nil {
				t.Fatal("accepted by another path")
			}
		}
	})
}

func TestUnmarshalIsStrict(t *testing.T) {
	good, err := EncodeCheckinReply(CheckinReply{Time: 1, NextPoll: 2, Standing: "active"})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"trailing byte": append(bytes.Clone(good), 0),
		"truncated":     good[:len(good)-1],
		"empty":         {},
		"long integer":  bytes.Replace(good, []byte{0x01, 0x01}, []byte{0x01, 0x18, 0x01}, 1),
		"unknown key":   append([]byte{good[0] + 1}, append(bytes.Clone(good[1:]), 0x18, 99, 0)...),
		"oversized":     make([]byte, MaxCheckinReply+1),
		"indefinite":    append(append([]byte{0xbf}, good[1:]...), 0xff),
	}
	for name, b := range cases {
		if _, err := DecodeCheckinReply(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWarrantIsNeededForWhatCannotBeUndone(t *testing.T) {
	for _, a := range []Act{ActWipe, ActUnlock, "something-new"} {
		if ClassOf(a) != Fatal || !NeedsWarrant(a) {
			t.Errorf("%s: class %v, warrant %v", a, ClassOf(a), NeedsWarrant(a))
		}
	}
	for _, a := range []Act{ActInstall, ActQuarantine, ActAttest, ActBundle} {
		if NeedsWarrant(a) {
			t.Errorf("%s asks for a warrant", a)
		}
	}
}

// again checks the law of every decoder: what it accepts, encodes to the same bytes.
func again[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) ([]byte, error), seeds ...T) {
	f.Helper()
	for _, s := range seeds {
		b, err := encode(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil {
			return
		}
		out, err := encode(v)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		if !bytes.Equal(out, b) {
			t.Fatalf("%x decoded and encoded to %x", b, out)
		}
	})
}

func d32(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func FuzzDecodeRelease(f *testing.F) {
	again(f, DecodeRelease, EncodeRelease, sampleRelease(), ordered([]string{"control", "motor", "radio"}, []string{"motor"}, []string{"radio", "motor"}))
}

func FuzzDecodeBundle(f *testing.F) {
	p := newPeople(f, 2, 1)
	again(f, DecodeBundle, EncodeBundle, sampleBundle(p.role, p.role))
}

func FuzzDecodeCommand(f *testing.F) {
	again(f, DecodeCommand, EncodeCommand, Command{
		ID: "c", Product: "pump", Act: ActInstall, Devices: DeviceSet{Root: d32(1), Count: 2}, Release: d32(2), Issued: 1, Expires: 2,
	})
}

func FuzzDecodeWarrant(f *testing.F) {
	again(f, DecodeWarrant, EncodeWarrant, Warrant{
		ID: "w", Product: "pump", Act: ActWipe, Devices: DeviceSet{Root: d32(1), Count: 1}, Issued: 1, Expires: 2,
	})
}

func FuzzDecodeDirective(f *testing.F) {
	again(f, DecodeDirective, EncodeDirective, Directive{
		Device: "d", Counter: 1, Nonce: d32(1), Act: ActInstall, Command: d32(2), Issued: 1, Expires: 2,
	})
}

func FuzzDecodeOfflineDirective(f *testing.F) {
	again(f, DecodeOfflineDirective, EncodeOfflineDirective, OfflineDirective{Device: "d", Counter: 1, Command: d32(2), Issued: 1, Expires: 2})
}

func FuzzDecodeDelivery(f *testing.F) {
	again(f, DecodeDelivery, EncodeDelivery, Delivery{Directive: []byte{1}, Command: Logged{Entry: []byte{1}}, Member: Membership{Path: [][]byte{d32(1)}}})
}

func FuzzDecodeCheckin(f *testing.F) {
	again(f, DecodeCheckin, EncodeCheckin, Checkin{
		Nonce: d32(1), State: "active", Results: []Result{{Command: d32(1), Act: ActInstall, Outcome: OutcomeDone, Seq: 1}},
	})
}

func FuzzDecodeCheckinReply(f *testing.F) {
	again(f, DecodeCheckinReply, EncodeCheckinReply, CheckinReply{Time: 1, Challenge: d32(3), Standing: "active"})
}

func FuzzDecodeAttestReply(f *testing.F) {
	again(f, DecodeAttestReply, EncodeAttestReply, AttestReply{Status: "affirming", Reasons: []string{"x"}})
}

func FuzzDecodeVerdict(f *testing.F) {
	again(f, DecodeVerdict, EncodeVerdict, Verdict{Device: "d", Evidence: d32(1), Status: "affirming"})
}

func FuzzDecodeEvidence(f *testing.F) {
	again(f, DecodeEvidence, EncodeEvidence, Evidence{
		Nonce: d32(1), InstanceID: append([]byte{1}, d32(2)...), Profile: PSAProfile, ClientID: 1, Implementation: d32(3),
		Components: []Measured{{Type: "App", Value: d32(4), SignerID: d32(5)}}, Device: "d",
	})
}

func FuzzParse1(f *testing.F) {
	k, _ := newKey(f)
	env, err := Sign1(TypeDirective, []byte("p"), k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := Parse1(TypeDirective, b); err == nil && o.Verify(k.Public()) == nil && !bytes.Equal(o.Payload, []byte("p")) {
			t.Fatal("a payload nobody signed")
		}
	})
}

func FuzzThresholdPayload(f *testing.F) {
	p := newPeople(f, 2, 2)
	f.Add(p.sign(f, TypeRelease, []byte("p"), 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := VerifyThreshold(TypeRelease, b, p.role); err == nil && string(got) != "p" {
			t.Fatal(fmt.Errorf("a payload nobody signed: %x", got))
		}
		_, _, _ = ThresholdPayload(TypeRelease, b)
	})
}
