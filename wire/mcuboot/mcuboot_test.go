package mcuboot_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire/mcuboot"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// private reads a key as imgtool wrote it.
func private(t testing.TB, name string) any {
	t.Helper()
	block, _ := pem.Decode(file(t, name))
	if block == nil {
		t.Fatalf("%s is no PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signer(t testing.TB, name string) crypto.Signer {
	t.Helper()
	s, ok := private(t, name).(crypto.Signer)
	if !ok {
		t.Fatalf("%s signs nothing", name)
	}
	return s
}

func wrapper(t testing.TB, name string) *ecdh.PrivateKey {
	t.Helper()
	switch k := private(t, name).(type) {
	case *ecdh.PrivateKey:
		return k
	case *ecdsa.PrivateKey:
		e, err := k.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	t.Fatalf("%s agrees on nothing", name)
	return nil
}

func decoded(t testing.TB, data []byte) mcuboot.Image {
	t.Helper()
	m, err := mcuboot.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func encoded(t testing.TB, m mcuboot.Image) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What imgtool 2.5.0 wrote (testdata/README.md has the calls) is read, believed by its key and no other, and written again to the same bytes.
func TestImagesOfImgtool(t *testing.T) {
	for name, by := range map[string]string{
		"p256.img": "p256.pem", "ed25519.img": "ed25519.pem", "ed25519-full.img": "ed25519.pem",
		"enc-p256.img": "p256.pem", "enc-x25519.img": "ed25519.pem",
	} {
		data := file(t, name)
		m := decoded(t, data)
		if !bytes.Equal(encoded(t, m), data) {
			t.Errorf("%s is written to other bytes", name)
		}
		counter, ok := m.Counter()
		if m.Version.String() != "1.2.3+4" || !ok || counter != 7 || m.HeaderSize() != 0x200 {
			t.Errorf("%s: version %s, counter %d %v, header %d", name, m.Version, counter, ok, m.HeaderSize())
		}
		if err := m.Verify(signer(t, by).Public()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range []string{"p256.pem", "ed25519.pem", "enc-p256.pem"} {
			if err := m.Verify(signer(t, other).Public()); (err == nil) != (other == by) || err != nil && !errors.Is(err, mcuboot.ErrSignature) {
				t.Errorf("%s by %s: %v", name, other, err)
			}
		}
		if !m.Sealed && !bytes.Equal(m.Body, file(t, "app.bin")) {
			t.Errorf("%s has another body", name)
		}
	}
	want := []mcuboot.Dependency{{Image: 1, Version: mcuboot.Version{Major: 2, Revision: 1, Build: 5}}}
	if got := decoded(t, file(t, "p256.img")).Dependencies(); !reflect.DeepEqual(got, want) {
		t.Errorf("dependencies %v", got)
	}
	if err := decoded(t, file(t, "pure.img")).Verify(signer(t, "ed25519.pem").Public()); !errors.Is(err, mcuboot.ErrSignature) || !strings.Contains(err.Error(), "SIG_PURE") {
		t.Errorf("a signature over the whole image: %v", err)
	}
}

// Ed25519 signs the same twice, so that what is made here of the same things is what imgtool makes, to the byte.
func TestMadeHereAsImgtoolMakesIt(t *testing.T) {
	m, err := mcuboot.New(mcuboot.Options{
		Version: mcuboot.Version{Major: 1, Minor: 2, Revision: 3, Build: 4}, Counter: 7, HeaderSize: 0x200,
		Dependencies: []mcuboot.Dependency{{Image: 1, Version: mcuboot.Version{Major: 2, Revision: 1, Build: 5}}},
	}, file(t, "app.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(signer(t, "ed25519.pem")); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encoded(t, m), file(t, "ed25519.img")) {
		t.Error("another image than imgtool's")
	}
}

func TestEncryptedImagesOfImgtool(t *testing.T) {
	for name, key := range map[string]string{"enc-p256.img": "enc-p256.pem", "enc-x25519.img": "enc-x25519.pem"} {
		m := decoded(t, file(t, name))
		if !m.Sealed || bytes.Contains(encoded(t, m), file(t, "app.bin")[:64]) {
			t.Fatalf("%s is not encrypted", name)
		}
		open, err := m.Decrypt(wrapper(t, key))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(open.Body, append(file(t, "app.bin"), make([]byte, 7)...)) { // up to whole blocks
			t.Errorf("%s has another body", name)
		}
		for _, other := range []string{"enc-p256.pem", "enc-x25519.pem", "p256.pem"} {
			if _, err := m.Decrypt(wrapper(t, other)); (err == nil) != (other == key) || err != nil && !errors.Is(err, mcuboot.ErrNotFor) {
				t.Errorf("%s opened by %s: %v", name, other, err)
			}
		}
	}
}

// keys are of a device: the boot manager's own, for content keys.
func keys(t testing.TB, c ecdh.Curve) *ecdh.PrivateKey {
	t.Helper()
	k, err := c.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// mcuboot#1268: one key for all devices of a fleet, and whoever takes one device apart reads what all of them will ever be sent. Here the image goes to each device under its own key: no
// device opens another's, the sealed body and the signature are the same bytes for all, and nothing is signed again.
func TestMcuboot1268NoKeyOfTheFleet(t *testing.T) {
	body := append(file(t, "app.bin"), make([]byte, 7)...) // whole blocks
	by := signer(t, "p256.pem")
	for _, curve := range []ecdh.Curve{ecdh.P256(), ecdh.X25519()} {
		for _, bits := range []int{128, 256} {
			m, err := mcuboot.New(mcuboot.Options{Version: mcuboot.Version{Major: 1}, Counter: 1, KeyBits: bits}, body)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Sign(by); err != nil {
				t.Fatal(err)
			}
			maker, devices := keys(t, curve), []*ecdh.PrivateKey{keys(t, ecdh.P256()), keys(t, ecdh.P256()), keys(t, ecdh.X25519())}
			sealed, err := m.Encrypt(maker.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range devices {
				r, err := sealed.Rewrap(maker, d.PublicKey())
				if err != nil {
					t.Fatal(err)
				}
				data := encoded(t, r)
				shared := encoded(t, sealed)
				if end := len(data) - len(r.Unprotected[len(r.Unprotected)-1].Value) - 4; end > len(shared) || !bytes.Equal(data[:m.HeaderSize()+len(body)], shared[:m.HeaderSize()+len(body)]) ||
					!reflect.DeepEqual(r.Unprotected[:3], sealed.Unprotected[:3]) {
					t.Error("more than the content key's record is another device's")
				}
				got := decoded(t, data)
				if err := got.Verify(by.Public()); err != nil {
					t.Errorf("device %d: %v", i, err)
				}
				for j, other := range append(devices, maker) {
					open, err := got.Decrypt(other)
					if (err == nil) != (i == j) {
						t.Errorf("device %d's image opened by %d: %v", i, j, err)
					}
					if err == nil && !bytes.Equal(open.Body, body) {
						t.Error("another body")
					}
				}
			}
		}
	}
}

// What is signed cannot be altered, each byte of it.
func TestNoByteOfWhatIsSignedIsAltered(t *testing.T) {
	data := file(t, "p256.img")
	pub := signer(t, "p256.pem").Public()
	end := len(data) - 200 // header, body and protected records, and some behind
	for i := range end {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		m, err := mcuboot.Decode(bad)
		if err == nil && i < 4 {
			t.Fatalf("byte %d altered, and read", i)
		}
		if err == nil && m.Verify(pub) == nil {
			t.Fatalf("byte %d altered, and believed", i)
		}
	}
	sealed := decoded(t, file(t, "enc-p256.img"))
	sealed.Body[17] ^= 1
	if _, err := sealed.Decrypt(wrapper(t, "enc-p256.pem")); !errors.Is(err, mcuboot.ErrSignature) {
		t.Errorf("a sealed body that was altered: %v", err)
	}
}

func TestRefused(t *testing.T) {
	data := file(t, "p256.img")
	for what, bad := range map[string][]byte{
		"padded to its slot": append(bytes.Clone(data), 0xff, 0xff), "cut": data[:len(data)-1], "nothing": nil, "text": []byte(strings.Repeat("no image ", 20)),
	} {
		if _, err := mcuboot.Decode(bad); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mcuboot.New(mcuboot.Options{}, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(p384); err == nil {
		t.Error("signed by P-384")
	}
	if err := m.Check(); !errors.Is(err, mcuboot.ErrSignature) {
		t.Errorf("without a hash: %v", err)
	}
	if _, err := m.Encrypt(keys(t, ecdh.P256()).PublicKey()); err == nil {
		t.Error("encrypted before it was signed")
	}
	if err := decoded(t, data).Verify(ed25519.PublicKey(make([]byte, 32))); err == nil {
		t.Error("believed by a key of zeros")
	}
	for _, o := range []mcuboot.Options{{HeaderSize: 16}, {KeyBits: 192}} {
		if _, err := mcuboot.New(o, []byte("x")); err == nil {
			t.Errorf("made with %+v", o)
		}
	}
	if _, err := mcuboot.New(mcuboot.Options{}, nil); err == nil {
		t.Error("made without a body")
	}
	for _, v := range []string{"", "1.2", "1.2.3.4", "256.0.0", "1.2.65536", "1.2.3+4294967296", "1.2.3+x", "v1.2.3", "1.2.-3"} {
		if got, err := mcuboot.ParseVersion(v); err == nil {
			t.Errorf("version %q read as %s", v, got)
		}
	}
}

func TestVersionsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := mcuboot.Version{
			Major: rapid.Uint8().Draw(t, "major"), Minor: rapid.Uint8().Draw(t, "minor"), Revision: rapid.Uint16().Draw(t, "revision"), Build: rapid.Uint32().Draw(t, "build"),
		}
		if got, err := mcuboot.ParseVersion(v.String()); err != nil || got != v {
			t.Fatalf("%v came back as %v: %v", v, got, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"p256.img", "ed25519-full.img", "enc-x25519.img", "pure.img"} {
		f.Add(file(f, name))
	}
	own, by := wrapper(f, "enc-x25519.pem"), signer(f, "p256.pem").Public()
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := mcuboot.Decode(data)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("written to other bytes: %v", err)
		}
		_, _ = m.Counter()
		_ = m.Dependencies()
		_ = m.Verify(by)
		if open, err := m.Decrypt(own); err == nil {
			if d, err := open.Digest(); err != nil || func() [32]byte { s, _ := m.Signed(); return s }() != d {
				t.Fatal("opened to what was not signed")
			}
		}
	})
}
