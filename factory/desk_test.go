package factory_test

import (
	"crypto/hpke"
	"encoding/json"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
)

func FuzzDecodeDeskFile(f *testing.F) {
	k, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(factory.DeskFile{OEM: "acme", Instance: "hallmark.acme.example", Root: []byte{0x30, 0}, SealKey: k.PublicKey().Bytes()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"oem":"acme","instance":"x","root":"MAA=","seal_key":"AA=="}`))
	f.Add([]byte(`{"oem":"acme","more":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := factory.DecodeDeskFile(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := factory.DecodeDeskFile(again); err != nil || e.Fingerprint() != d.Fingerprint() {
			t.Fatalf("%q came back as %q, %v", b, again, err)
		}
	})
}
