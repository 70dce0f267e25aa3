//go:build cgo

package factorytest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
)

// BenchmarkStation makes devices with keys in SoftHSM, with pieces that take no time to write. SoftHSM signs on the processors that everything else
// here needs too: of what one device costs them, its two signatures are a quarter. The rest is what is not left out: the proofs of the two keys
// are verified (a quarter), and the certificate's signature is (a ninth); and the pieces' own proofs, which a real one makes itself (an eighth).
func BenchmarkStation(b *testing.B) {
	c := token(b)
	o := factorytest.NewOEM(b, "acme")
	dir := b.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1", Module: c.Path, Token: c.Label}); err != nil {
		b.Fatal(err)
	}
	m, err := pkcs11.Create(c)
	if err != nil {
		b.Fatal(err)
	}
	s, err := station.Open(dir, m)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Close(), m.Close()); err != nil {
			b.Error(err)
		}
	}()
	trust(b, o, s)
	ordered(b, o, s, b.N)
	b.ResetTimer()
	made(b, o, s, b.N, true, nil)
}

// recordKey is a key in SoftHSM, and something to sign.
func recordKey(b *testing.B) (key crypto.Signer, digest []byte) {
	b.Helper()
	m, err := pkcs11.Create(token(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	if key, err = m.RecordKey(); err != nil {
		b.Fatal(err)
	}
	digest = make([]byte, 32)
	_, _ = rand.Read(digest)
	return key, digest
}

// BenchmarkReferenceModule makes two signatures in SoftHSM for each device, and nothing else: as fast as the module alone allows.
func BenchmarkReferenceModule(b *testing.B) {
	key, digest := recordKey(b)
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			for range 2 {
				if _, err := key.Sign(rand.Reader, digest, crypto.SHA256); err != nil {
					b.Error(err)
				}
			}
		}
	})
}

// BenchmarkStationCeiling is the cryptography of a device and nothing else: the piece makes two keys and proves that it has them, the station
// verifies both proofs, and the module signs a certificate, which crypto/x509 looks at once, and a record. No order, no ticket, no record on a disk, no
// programmer: what the checks that are asked for leave for all of that.
func BenchmarkStationCeiling(b *testing.B) {
	key, digest := recordKey(b)
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	device := func() error {
		var keys [2]*ecdsa.PrivateKey
		for i := range keys {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			keys[i] = k
			proof, err := ecdsa.SignASN1(rand.Reader, k, digest)
			if err != nil {
				return err
			}
			if !ecdsa.VerifyASN1(&k.PublicKey, digest, proof) {
				return errors.New("a proof is none")
			}
		}
		if _, err := x509.CreateCertificate(rand.Reader, t, t, &keys[0].PublicKey, key); err != nil {
			return err
		}
		_, err := key.Sign(rand.Reader, digest, crypto.SHA256)
		return err
	}
	b.SetParallelism(4)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := device(); err != nil {
				b.Error(err)
			}
		}
	})
}
