package desk_test

import (
	"crypto/hpke"
	"encoding/json"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/desk"
)

func FuzzDecodeConfig(f *testing.F) {
	k, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(desk.Config{Name: "desk-1", Of: factory.DeskFile{OEM: "acme", Instance: "x", Root: []byte{1}, SealKey: k.PublicKey().Bytes()}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"name":"desk-1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := desk.DecodeConfig(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(c); err != nil {
			t.Fatal(err)
		}
	})
}
