package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

func testMasterHeader(t testing.TB, params DeviceParams, bundle []byte) MasterHeader {
	t.Helper()
	enc, err := Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	d, par, b := make([]byte, 32), sha256.Sum256(enc), sha256.Sum256(bundle)
	return MasterHeader{
		OEM: "acme", Product: "pump", Hardware: "A", Revision: 1, Version: "1.0.0", Counter: 1, Release: d, Bundle: b[:], Trust: 1, Params: par[:], SBOM: d, Provenance: d,
		Parts: []MasterPart{{Name: "app", Kind: KindExec, Version: "1.0.0", Size: 3, Digest: d}}, Created: 1,
	}
}

func testMaster(t testing.TB) Master {
	return Master{
		Header: testMasterHeader(t, testContent().Params, []byte("b")), Keys: []MasterKey{{Key: make([]byte, 16), Sealed: []byte{1}}}, Sealed: make([]byte, 32),
	}
}

func TestWhatAMasterCannotLack(t *testing.T) {
	for name, change := range map[string]func(m *Master){
		"an SBOM":                  func(m *Master) { m.Header.SBOM = nil },
		"provenance":               func(m *Master) { m.Header.Provenance = nil },
		"a revision":               func(m *Master) { m.Header.Revision = 0 },
		"a version":                func(m *Master) { m.Header.Version = "" },
		"a component":              func(m *Master) { m.Header.Parts = nil },
		"parameters":               func(m *Master) { m.Header.Params = nil },
		"a trust bundle":           func(m *Master) { m.Header.Bundle = nil },
		"a product":                func(m *Master) { m.Header.Product = "" },
		"hardware":                 func(m *Master) { m.Header.Hardware = "" },
		"someone to open it":       func(m *Master) { m.Keys = nil },
		"two different to open it": func(m *Master) { m.Keys = append(m.Keys, m.Keys[0]) },
		"a digest":                 func(m *Master) { m.Sealed = nil },
	} {
		m := testMaster(t)
		if _, err := EncodeMaster(m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		if _, err := EncodeMaster(m); err == nil {
			t.Errorf("a master without %s", name)
		}
	}
}

// What is sealed for one master opens as no other.
func TestAMasterOpensAsItselfOnly(t *testing.T) {
	approver, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := sealKEM().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := to.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public := to.PublicKey().Bytes()
	c := MasterContent{Bundle: []byte("b"), Release: []byte("r"), Params: testContent().Params}
	payload := bytes.Repeat([]byte{3}, OrderChunk+9)
	s, err := SealMaster(testMasterHeader(t, c.Params, c.Bundle), c, uint64(len(payload)), public)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := s.Add(bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	env, err := s.Sign(sum, approver)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := s.Write(&file, env, bytes.NewReader(payload)); err != nil {
		t.Fatal(err)
	}
	head, err := ReadSealedHead(&file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadMaster(head.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	id := SealKeyID(public)
	got, open, err := m.Open(id, private, head.Content, head.Chunks)
	if err != nil || !bytes.Equal(got.Release, c.Release) {
		t.Fatal(err)
	}
	chunk, err := NewChunks(&file, head.Chunks).Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Open(1, bytes.Clone(chunk)); err == nil {
		t.Error("a chunk opens in another place")
	}
	if plain, err := open.Open(0, bytes.Clone(chunk)); err != nil || !bytes.Equal(plain, payload[:OrderChunk]) {
		t.Errorf("the first chunk: %v", err)
	}
	for name, change := range map[string]func(m *Master, content *[]byte){
		"another revision":  func(m *Master, _ *[]byte) { m.Header.Revision++ },
		"another product":   func(m *Master, _ *[]byte) { m.Header.Product = "valve" },
		"other parameters":  func(m *Master, _ *[]byte) { m.Header.Params = make([]byte, 32) },
		"a changed key":     func(m *Master, _ *[]byte) { m.Keys[0].Sealed[40] ^= 1 },
		"a changed content": func(_ *Master, c *[]byte) { (*c)[3] ^= 1 },
	} {
		changed, err := ReadMaster(head.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		content := bytes.Clone(head.Content)
		change(&changed, &content)
		if _, _, err := changed.Open(id, private, content, head.Chunks); err == nil {
			t.Errorf("it opens with %s", name)
		}
	}
}

func FuzzDecodeMaster(f *testing.F) {
	seed(f, testMaster(f), EncodeMaster)
	roundTrip(f, DecodeMaster, EncodeMaster)
}

func FuzzDecodeMasterContent(f *testing.F) {
	seed(f, MasterContent{Bundle: []byte{1}, Release: []byte{2}, Params: testContent().Params}, EncodeMasterContent)
	roundTrip(f, DecodeMasterContent, EncodeMasterContent)
}

// FuzzReadMaster takes whatever an envelope holds: what is read has all that a master must have.
func FuzzReadMaster(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	payload, err := EncodeMaster(testMaster(f))
	if err != nil {
		f.Fatal(err)
	}
	env, err := Sign1(TypeMaster, payload, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Add(env[:len(env)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadMaster(data); err == nil && m.check() != nil {
			t.Fatal("read, and not whole")
		}
	})
}
