package cli

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/label"
)

func TestAVouchersCodeIsItsFile(t *testing.T) {
	f := voucherFile{Device: "00112233445566778899aabbccddeeff", Product: "pump", Server: "https://devices.example:8443", Voucher: "AAAA-BBBB", ID: "v1", Expires: time.Unix(1, 0).UTC()}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for ext, kind := range map[string]func(string) ([]byte, error){".svg": label.SVG, ".png": label.PNG} {
		draw, err := voucherCode(filepath.Join(t.TempDir(), "v"+ext), "v.json")
		if err != nil {
			t.Fatal(err)
		}
		got, err := draw(f)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := kind(string(text)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: it is another code, %v", ext, err)
		}
	}
	if draw, err := voucherCode("", "v.json"); draw != nil || err != nil {
		t.Errorf("without --qr: %v", err)
	}
}
