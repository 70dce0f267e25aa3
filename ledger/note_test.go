package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	"golang.org/x/mod/sumdb/note"
)

type testKey struct{ ed25519.PrivateKey }

func (k testKey) Sign(text []byte) ([]byte, error) { return ed25519.Sign(k.PrivateKey, text), nil }

func (k testKey) Public() ed25519.PublicKey { return k.PrivateKey.Public().(ed25519.PublicKey) }

func newTestKey(b byte) testKey {
	return testKey{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

func newTestPQ(t testing.TB, b byte) *mldsa.PrivateKey {
	t.Helper()
	k, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), bytes.Repeat([]byte{b}, mldsa.PrivateKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func FuzzParseCheckpoint(f *testing.F) {
	key := newTestKey(0)
	want := State{Size: 7, Root: [32]byte{1}}
	note, err := SignCheckpoint("log.example", want, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(note)
	f.Add([]byte("log.example\n7\nAA==\n\n\u2014 log.example AAAA\n"))
	f.Add([]byte(sumGolangOrg))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseCheckpoint(b, "log.example", key.Public()); err == nil && s != want {
			t.Fatalf("a checkpoint nobody signed: %+v", s)
		}
		n, err := ParseNote(b)
		if err == nil && !strings.HasPrefix(string(b), n.Body+"\n") {
			t.Fatalf("%q has the body %q", b, n.Body)
		}
		_, _, _ = SplitNote(b)
	})
}

// A note of the Go checksum database, whose key is not named as its origin.
const sumGolangOrg = "go.sum database tree\n731096\nTwZs+E3O7nCLmKm9OIXlYkwhMTgMKsuUoTQ5DXB4+Y4=\n\n" +
	"\u2014 sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"

const sumGolangOrgKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

func TestVerifierKeysAreThoseOfOthers(t *testing.T) {
	for _, s := range []string{
		sumGolangOrgKey,
		"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", // c2sp.org/signed-note
	} {
		k, err := ParseVerifierKey(s)
		if err != nil || k.String() != s || k.Type != TypeEd25519 || k.Cosigns() {
			t.Errorf("%s: %+v, %v", s, k, err)
		}
		v, err := note.NewVerifier(s)
		if err != nil || v.KeyHash() != k.ID() || v.Name() != k.Name {
			t.Errorf("%s: x/mod's note reads another key: %v", s, err)
		}
	}
	pq := MLDSA44Cosigner("w.example", newTestPQ(t, 1))
	if k, err := ParseVerifierKey(pq.String()); err != nil || !k.Cosigns() || k.String() != pq.String() {
		t.Errorf("ML-DSA-44: %v", err)
	}
	for name, bad := range map[string]string{
		"empty":            "",
		"no key":           "example.com/foo+530d903a",
		"another's hash":   strings.Replace(sumGolangOrgKey, "033de0ae", "033de0af", 1),
		"another's name":   strings.Replace(sumGolangOrgKey, "sum.", "som.", 1),
		"upper-case hash":  strings.Replace(sumGolangOrgKey, "033de0ae", "033DE0AE", 1),
		"a key too short":  VerifierKey{Name: "x", Type: TypeEd25519, Key: make([]byte, 31)}.String(),
		"no ML-DSA-44 key": VerifierKey{Name: "x", Type: TypeMLDSA44, Key: make([]byte, 32)}.String(),
		"an unknown type":  VerifierKey{Name: "x", Type: 2, Key: make([]byte, 32)}.String(),
		"a space":          VerifierKey{Name: "a b", Type: TypeEd25519, Key: make([]byte, 32)}.String(),
		"a control":        VerifierKey{Name: "a\x01b", Type: TypeEd25519, Key: make([]byte, 32)}.String(),
		"a long name":      VerifierKey{Name: strings.Repeat("a", 256), Type: TypeEd25519, Key: make([]byte, 32)}.String(),
	} {
		if k, err := ParseVerifierKey(bad); err == nil {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func FuzzParseVerifierKey(f *testing.F) {
	f.Add(sumGolangOrgKey)
	f.Add(MLDSA44Cosigner("w.example", newTestPQ(f, 1)).String())
	f.Add("a++")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseVerifierKey(s); err == nil && k.String() != s {
			t.Fatalf("%q became %q", s, k)
		}
	})
}

// What is signed with ML-DSA-44, byte by byte as c2sp.org/tlog-cosignature has it.
func TestTheMessageOfMLDSA44(t *testing.T) {
	n := Note{Origin: "example.com/log", State: State{Size: 0x010203, Root: sha256.Sum256(nil)}}
	got, err := VerifierKey{Name: "w.example", Type: TypeMLDSA44}.message(n, 0x6500)
	want := "737562747265652f76310a00" + // subtree/v1\n\0
		"09" + hex.EncodeToString([]byte("w.example")) + "0000000000006500" +
		"0f" + hex.EncodeToString([]byte("example.com/log")) + "0000000000000000" + "0000000000010203" +
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("%x, %v, want %s", got, err, want)
	}
	for _, n := range []Note{{Origin: strings.Repeat("x", 256)}} {
		if _, err := (VerifierKey{Name: "w", Type: TypeMLDSA44}).message(n, 1); err == nil {
			t.Error("an origin that has no place in it")
		}
	}
}

func TestCosignaturesOfBothKinds(t *testing.T) {
	signed, err := SignCheckpoint("log.example", State{Size: 7, Root: [32]byte{1}}, newTestKey(1))
	if err != nil {
		t.Fatal(err)
	}
	n, err := ParseNote(signed)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0)
	keys := []CosignerKey{Ed25519Cosigner("w.example", newTestKey(2)), MLDSA44Cosigner("w.example", newTestPQ(t, 2))}
	var public []VerifierKey
	var lines string
	for _, k := range keys {
		line, err := k.Line(n, at)
		if err != nil {
			t.Fatal(err)
		}
		lines += line
		public = append(public, k.VerifierKey)
	}
	if got, err := checkCosignatures([]byte(lines), public, n, at); err != nil || got != lines {
		t.Fatalf("%q, %v", got, err)
	}
	// x/mod's note reads Ed25519 keys of type 1 only; the rest of the note it has to let pass.
	v, err := note.NewVerifier(VerifierKey{Name: "log.example", Type: TypeEd25519, Key: newTestKey(1).Public()}.String())
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := note.Open([]byte(string(signed)+lines), note.VerifierList(v)); err != nil || len(opened.UnverifiedSigs) != 2 {
		t.Errorf("x/mod's note: %+v, %v", opened, err)
	}
	other, err := ParseNote(bytes.Replace(signed, []byte("\n7\n"), []byte("\n8\n"), 1))
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(lines)
	flipped[len(flipped)-20] ^= 1
	stranger := Ed25519Cosigner("w.example", newTestKey(3)).VerifierKey
	for name, try := range map[string]func() (string, error){
		"one of two lines": func() (string, error) {
			return checkCosignatures([]byte(lines[:strings.Index(lines, "\n")+1]), public, n, at)
		},
		"of another tree":    func() (string, error) { return checkCosignatures([]byte(lines), public, other, at) },
		"an hour ago":        func() (string, error) { return checkCosignatures([]byte(lines), public, n, at.Add(time.Hour)) },
		"in an hour":         func() (string, error) { return checkCosignatures([]byte(lines), public, n, at.Add(-time.Hour)) },
		"a bit flipped":      func() (string, error) { return checkCosignatures(flipped, public, n, at) },
		"of another key":     func() (string, error) { return checkCosignatures([]byte(lines), []VerifierKey{stranger}, n, at) },
		"nothing":            func() (string, error) { return checkCosignatures(nil, public, n, at) },
		"not what was asked": func() (string, error) { return checkCosignatures([]byte("<html>"), public, n, at) },
		"far too much": func() (string, error) {
			return checkCosignatures([]byte(strings.Repeat(lines, 40)), public, n, at)
		},
	} {
		if got, err := try(); err == nil || got != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestANoteIsReadStrictly(t *testing.T) {
	good, err := SignCheckpoint("log.example", State{Size: 7, Root: [32]byte{1}}, newTestKey(1))
	if err != nil {
		t.Fatal(err)
	}
	key := VerifierKey{Name: "log.example", Type: TypeEd25519, Key: newTestKey(1).Public()}
	for name, c := range map[string]struct{ from, to string }{
		"a leading zero":   {"\n7\n", "\n07\n"},
		"a sign":           {"\n7\n", "\n+7\n"},
		"no origin":        {"log.example\n7", "\n7"},
		"a control":        {"log.example\n7", "log\x01example\n7"},
		"CR":               {"\n7\n", "\n7\r\n"},
		"no UTF-8":         {"log.example\n7", "log\xff\n7"},
		"a hyphen":         {"\u2014 ", "- "},
		"no space":         {"\u2014 ", "\u2014"},
		"a plus in a name": {"\u2014 log", "\u2014 +log"},
	} {
		bad := strings.Replace(string(good), c.from, c.to, 1)
		if bad == string(good) {
			t.Fatalf("%s: nothing changed", name)
		}
		if n, err := ParseNote([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
	n, err := ParseNote(good)
	if err != nil {
		t.Fatal(err)
	}
	if by, err := n.SignedBy(key); err != nil || !by {
		t.Errorf("by the log: %v, %v", by, err)
	}
	key.Name = "else.example"
	if by, err := n.SignedBy(key); err != nil || by {
		t.Errorf("by another: %v, %v", by, err)
	}
	forged, err := ParseNote([]byte(strings.Replace(string(good), "\n7\n", "\n8\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	key.Name = "log.example"
	if by, err := forged.SignedBy(key); err == nil || by {
		t.Errorf("a signature that does not hold: %v, %v", by, err)
	}
	extended, err := ParseNote([]byte(strings.Replace(string(good), "=\n\n", "=\nextension\n\n", 1)))
	if err != nil || !strings.HasSuffix(extended.Body, "=\nextension\n") {
		t.Errorf("extension lines: %+v, %v", extended, err)
	}
}
