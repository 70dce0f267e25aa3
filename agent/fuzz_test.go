package agent

import (
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func FuzzParseLocal(f *testing.F) {
	for _, s := range []string{`{"op":"status"}`, `{"op":"deliver","delivery":"AAAA"}`, `{"op":"nonce"} x`, `[]`, ``, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := parseLocal(line); err != nil && (r.Op != "" || r.Delivery != nil) {
			t.Fatalf("an error, and a request: %+v", r)
		}
	})
}

func FuzzDecodeMemory(f *testing.F) {
	b, err := wire.Marshal(memory{Counter: 3, Task: &task{Phase: phaseTrial, Act: wire.ActInstall}, Guard: &guard{State: "dormant", Until: 9}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMemory(b)
		if err != nil {
			return
		}
		if again, err := wire.Marshal(m); err != nil || b != nil && string(again) != string(b) {
			t.Fatalf("%x was taken and is %x, %v", b, again, err)
		}
	})
}
