package retire

import (
	"encoding/json"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func FuzzDecodeProof(f *testing.F) {
	seed, err := json.Marshal(Proof{
		V: 1, Device: "d", Product: "pump", Wiped: true, Member: &wire.Membership{Path: [][]byte{make([]byte, 32)}},
		Entries: []Entry{{Kind: ledger.KindRetireDisposed, Logged: []byte{0xa0}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"v":1,"device":"d","product":"p","entries":[{"kind":"genesis","logged":"oA=="}]} {}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodeProof(data)
		if err != nil {
			return
		}
		if p.V != 1 || p.Device == "" || len(p.Entries) == 0 || len(p.Entries) > maxEntries {
			t.Fatalf("out of bounds: %+v", p)
		}
		if _, err := VerifyProof(wire.Bundle{Product: p.Product}, p); err == nil {
			t.Fatal("proven to somebody who trusts nobody")
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeProof(again); err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
	})
}
