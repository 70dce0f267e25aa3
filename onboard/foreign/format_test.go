package foreign_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/pki"
)

func FuzzRead(f *testing.F) {
	f.Add("csv", []byte("name,sha256\na,"+strings.Repeat("ab", 32)+"\n"))
	f.Add("aws", []byte(`{"thingName":"a","certificateId":"`+strings.Repeat("ab", 32)+`","status":"ACTIVE"}`))
	f.Add("azure", []byte(`{"id":"a","status":"enabled","authentication":{"type":"certificateAuthority"}}`))
	f.Fuzz(func(t *testing.T, format string, b []byte) {
		_ = foreign.Read(foreign.Format(format), bytes.NewReader(b), func(l foreign.Line) error {
			if l.Err == nil && (l.Device.Of == "" || l.Device.Kind == "") {
				t.Fatalf("line %d: %+v", l.N, l.Device)
			}
			return nil
		})
		if m, err := pki.ParseMapping(string(b)); err == nil && !strings.Contains(string(m), "{") {
			t.Fatalf("mapping %q reads nothing", m)
		}
	})
}
