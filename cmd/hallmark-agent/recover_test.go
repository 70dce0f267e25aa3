package main

import (
	"os"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/machine"
)

func FuzzParseVoucherFile(f *testing.F) {
	f.Add([]byte(`{"device":"00112233445566778899aabbccddeeff","product":"pump","server":"https://h:1","voucher":"AAAA","id":"v1","expires":"2030-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"device":1}`))
	f.Add([]byte(`{} {}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseVoucherFile(b); err == nil && len(b) > maxVoucherFile {
			t.Fatalf("%d bytes were taken", len(b))
		}
	})
}

func TestFlagsWinOverTheVouchersFile(t *testing.T) {
	v, err := parseVoucherFile([]byte(`{"device":"d","product":"p","server":"s","voucher":"v","id":"","expires":""}`))
	if err != nil || v.Voucher != "v" {
		t.Fatalf("%+v, %v", v, err)
	}
	r := machine.Recovery{Server: "mine"}
	path := t.TempDir() + "/v.json"
	writeFile(t, path, `{"device":"d","product":"p","server":"s","voucher":"v","id":"","expires":""}`)
	if err := fromFile(path, &r); err != nil || r != (machine.Recovery{Device: "d", Product: "p", Server: "mine", Voucher: "v"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for name, text := range map[string]string{"unknown member": `{"secret":"x"}`, "two": `{}{}`, "no JSON": `hello`} {
		writeFile(t, path, text)
		if err := fromFile(path, &machine.Recovery{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
