package factorytest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// combined is a module whose token unwraps private keys by CKM_RSA_AES_KEY_WRAP.
type combined struct{ *soft.Module }

func (c combined) Info() module.Info {
	i := c.Module.Info()
	i.WrapAlg = wire.WrapRSAAES
	return i
}

// A station whose token has the combined mechanism only makes devices as any other; a wrapped key that was changed anywhere, cut or lengthened is refused.
func TestAStationThatUnwrapsByTheCombinedMechanism(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	dir := t.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1"}); err != nil {
		t.Fatal(err)
	}
	m, err := soft.Create(dir, []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	s := openStation(t, dir, combined{m}, o)
	file := order(t, o, s, "ord-1", 2)
	blob := 0
	_ = resign(t, o, file, func(ord *wire.Order, _ *wire.OrderFile) {
		if blob = len(ord.Key.Blob); ord.Key.Alg != wire.WrapRSAAES || blob <= 384 || ord.Content.Alg != wire.WrapOAEPSHA256 {
			t.Fatalf("key by %q in %d bytes, content by %q", ord.Key.Alg, blob, ord.Content.Alg)
		}
	})
	for name, change := range map[string]func(k *wire.WrappedKey){
		"its RSA part changed":         func(k *wire.WrappedKey) { k.Blob[100] ^= 1 },
		"its AES part changed":         func(k *wire.WrappedKey) { k.Blob[blob-1] ^= 1 },
		"cut":                          func(k *wire.WrappedKey) { k.Blob = k.Blob[:blob-8] },
		"without its AES part":         func(k *wire.WrappedKey) { k.Blob = k.Blob[:384] },
		"lengthened":                   func(k *wire.WrappedKey) { k.Blob = append(k.Blob, make([]byte, 8)...) },
		"said to be by another method": func(k *wire.WrappedKey) { k.Alg = wire.WrapOAEPSHA1 },
	} {
		bad := resign(t, o, file, func(ord *wire.Order, _ *wire.OrderFile) { change(&ord.Key) })
		_, err := s.Import(bytes.NewReader(bad), o.Now)
		if t.Log(name); err == nil {
			t.Error("accepted")
			continue
		}
		wantCode(t, err, "order.unwrap")
	}
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatal(err)
	}
	if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := take(t, o, "ord-1", export(t, o, s, "ord-1")); got.Accepted != 2 || len(got.Alarms) != 0 {
		t.Fatalf("%+v", got)
	}
}

// What the OEM wraps is what the standards say: OpenSSL takes it apart.
func TestOpenSSLTakesTheWrappedKeyApart(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	o := factorytest.NewOEM(t, "acme")
	record := factorytest.Key(t)
	d := wire.Station{Name: "st-1", OEM: o.ID, Module: "pkcs11:x", Serial: "1", WrapAlg: wire.WrapRSAAES, ContentAlg: wire.WrapOAEPSHA256, Templated: true}
	var keys [2]*rsa.PrivateKey
	for i, spki := range []*[]byte{&d.WrapKey, &d.ContentKey} {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, module.RSABits); err == nil {
			*spki, err = wire.SPKIOf(keys[i].Public())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.RecordKey, err = wire.SPKIOf(record.Public()); err != nil {
		t.Fatal(err)
	}
	descriptor := func() []byte {
		payload, err := wire.EncodeStation(d)
		if err != nil {
			t.Fatal(err)
		}
		b, err := wire.Sign1(wire.TypeStation, payload, record)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	_, created, err := o.Service.CreateOrder(t.Context(), o.Caller, o.Spec("ord-1", 1, descriptor(), d.ID()))
	if err != nil {
		t.Fatal(err)
	}
	ord, err := wire.VerifyOrder(created.Envelope, o.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	n := keys[0].Size()
	for name, b := range map[string][]byte{"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "rsa": ord.Key.Blob[:n], "aes": ord.Key.Blob[n:]} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		return out
	}
	kek := openssl("pkeyutl", "-decrypt", "-inkey", "key.pem", "-in", "rsa", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1")
	if len(kek) != 32 {
		t.Fatalf("an AES key of %d bytes", len(kek))
	}
	pkcs8 := openssl("enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(kek), "-iv", "A65959A6", "-in", "aes")
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := wire.SPKIOf(key.(*ecdsa.PrivateKey).Public())
	if err != nil || !bytes.Equal(spki, ord.Key.SPKI) {
		t.Errorf("it is another key: %v", err)
	}
	d.ContentAlg = wire.WrapRSAAES
	if _, err := wire.EncodeStation(d); err == nil {
		t.Error("a station that wants its content keys so is believed")
	}
}
