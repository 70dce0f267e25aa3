//go:build cgo

package factorytest_test

import (
	"crypto"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
)

// BenchmarkStation makes devices with keys in SoftHSM, eight on the line, with pieces that take no time to write.
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

// BenchmarkReferenceModule makes two signatures in SoftHSM for each device, and nothing else: as fast as the module alone allows.
func BenchmarkReferenceModule(b *testing.B) {
	m, err := pkcs11.Create(token(b))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	key, err := m.RecordKey()
	if err != nil {
		b.Fatal(err)
	}
	digest := make([]byte, 32)
	_, _ = rand.Read(digest)
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
