package station

import "testing"

func FuzzDecodeOEM(f *testing.F) {
	f.Add([]byte(`{"id":"acme","root":"AA==","order_key":"AA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := DecodeOEM(b); err == nil && (o.ID == "" || len(o.Root) == 0 || len(o.OrderKey) == 0) {
			t.Fatal("an OEM with nothing to pin")
		}
	})
}
