package ddi

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/device"
)

func FuzzDecodeFeedback(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"status":{"execution":"closed","result":{"finished":"success"},"details":[]}}`, `{"id":"1","status":{"execution":"proceeding"}}`,
		`{"id": 1, "status": {"result": {"finished": "failure"}, "execution": "closed", "details": ["it said "no"` + "\n" + `"]}}`, `{}`, `[]`, `{"status":{"details":{}}}`, `{"id":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeFeedback(body, 1)
		if err != nil {
			return
		}
		if got.ID != 0 && got.ID != 1 {
			t.Fatalf("it is on action %d", got.ID)
		}
		switch got.said() {
		case device.Succeeded, device.Failing:
			if got.Status.Execution != "closed" {
				t.Fatalf("%s ends it", got.Status.Execution)
			}
		case device.Working, device.GaveUp:
		default:
			t.Fatalf("it says %q", got.said())
		}
		if text := got.text(); strings.ContainsFunc(text, unicode.IsControl) && strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(text) > 2*len(body)+utf8.UTFMax*len(body) {
			t.Fatalf("text %q", text)
		}
	})
}

func FuzzDecodeAttributes(f *testing.F) {
	f.Add([]byte(`{"mode":"merge","data":{"sw.version":"1.0.0"}}`))
	f.Add([]byte(`{"data":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeAttributes(body)
		if err == nil && (a.Data == nil || a.Mode == "") {
			t.Fatalf("%+v", a)
		}
	})
}

func FuzzDecodeConfirmation(f *testing.F) {
	f.Add([]byte(`{"confirmation":"confirmed","details":["yes"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeConfirmation(body)
		if err == nil && c.Confirmation != "confirmed" && c.Confirmation != "denied" {
			t.Fatalf("%+v", c)
		}
	})
}
