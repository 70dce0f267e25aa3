package mender

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

func FuzzDecodeAuth(f *testing.F) {
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(make([]byte, 32)))
	if err != nil {
		f.Fatal(err)
	}
	key, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"id_data":"{\"mac\":\"02:00:00:00:00:01\"}","tenant_token":"pump","pubkey":` + string(key) + `}`))
	f.Add([]byte(`{"id_data":"{\"mac\":[\"1\",2]}","tenant_token":"pump","pubkey":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAuth(data)
		if err == nil && (a.Product == "" || legacy.CheckName(a.name) != nil || len(a.digest) != 32 || a.key == nil) {
			t.Fatalf("%+v", a)
		}
		if err == nil && a.verify(data, "AAAA") == nil {
			t.Fatal("three zeros are a signature")
		}
	})
}

func FuzzDecodeProvides(f *testing.F) {
	f.Add([]byte(`{"device_provides":{"artifact_name":"pump-1","device_type":"board"},"update_control_map":true}`))
	f.Add([]byte(`{"artifact_name":"pump-1","device_type":"board"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, err := decodeProvides(data); err != nil && name != "" {
			t.Fatal(name)
		}
	})
}

func FuzzDecodeStatus(f *testing.F) {
	f.Add([]byte(`{"status":"failure","substate":"script failed"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeStatus(data)
		if err != nil {
			return
		}
		if said := s.said(); said != device.Working && said != device.Succeeded && said != device.Failing {
			t.Fatalf("it says %q", said)
		}
		if strings.ContainsFunc(s.text(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("text %q", s.text())
		}
	})
}

func FuzzDecodeLog(f *testing.F) {
	f.Add([]byte(`{"messages":[{"timestamp":"2026-07-11T10:15:22Z","level":"error","message":"it failed"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		messages, err := decodeLog(bytes.NewReader(data))
		size := 0
		for _, m := range messages {
			size += m.Size()
		}
		if err == nil && messages == nil || size > legacy.MaxLog {
			t.Fatalf("%d messages of %d bytes", len(messages), size)
		}
	})
}

func FuzzDecodeInventory(f *testing.F) {
	f.Add([]byte(`[{"name":"board","value":"b1"},{"name":"nets","value":["eth0","wlan0"]},{"name":"n","value":1}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		said, err := decodeInventory(data)
		for k, v := range said {
			if len(v) > legacy.MaxAttribute {
				t.Fatalf("%q: %d bytes", k, len(v))
			}
		}
		if err == nil && said == nil {
			t.Fatal("nothing at all")
		}
	})
}

func TestNamesOfIdentities(t *testing.T) {
	for in, want := range map[string]string{
		`{"mac":"02:00:00:00:00:01"}`:     "mac=02:00:00:00:00:01",
		`{"b":"2","a":"1"}`:               "a=1,b=2",
		`{"a":["x","y"]}`:                 "a=x,a=y",
		`{"serial":4711}`:                 "serial=4711",
		`{"serial":12345678901234567890}`: "serial=12345678901234567890",
		`{"a":"1,b=2"}`:                   "a=1%2Cb%3D2",
		`{"a/b":"c%d"}`:                   "a%2Fb=c%25d",
		`{"a":"é "}`:                      "a=%C3%A9%20",
		`{}`:                              "",
		`[]`:                              "",
		`{"a":{}}`:                        "",
		`{"a":null}`:                      "",
		`{"a":"1"}{"a":"2"}`:              "",
		`{"a":"` + strings.Repeat("x", 200) + `"}`: "",
	} {
		got, err := nameOf(in)
		if want == "" && err == nil || want != "" && (err != nil || got != want) {
			t.Errorf("%s is called %q, want %q: %v", in, got, want, err)
		}
	}
	seen := map[string]string{}
	rapid.Check(t, func(rt *rapid.T) {
		m := rapid.MapOfN(rapid.StringMatching(`[ab=,%]{1,3}`), rapid.StringMatching(`[ab=,%]{0,3}`), 1, 3).Draw(rt, "identity")
		data, err := json.Marshal(m)
		if err != nil {
			rt.Fatal(err)
		}
		name, err := nameOf(string(data))
		if err != nil {
			rt.Fatal(err)
		}
		if other, ok := seen[name]; ok && other != string(data) {
			rt.Fatalf("%s and %s are both called %s", other, data, name)
		}
		seen[name] = string(data)
	})
}

// Messages that say nothing count as well: 1.4 million of them are 4 MiB.
func TestOfALogOfManyMessagesTheEndIsKept(t *testing.T) {
	messages, err := decodeLog(strings.NewReader(`{"x":[{}],"messages":[` + strings.Repeat("{},", maxLog/3-32) + `{"message":"the last"}],"y":1}`))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(messages)
	if err != nil || len(messages) == 0 || len(kept) > 2*legacy.MaxLog || messages[len(messages)-1].Text != "the last" {
		t.Errorf("%d messages are kept, %d bytes: %v", len(messages), len(kept), err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"messages":null}`, `{"messages":[1]}`, `{"messages":[{}`, `{"messages":[]`, `{"messages":[]}{}`, `{"messages":[]}x`} {
		if _, err := decodeLog(strings.NewReader(bad)); err == nil {
			t.Errorf("%s is a log", bad)
		}
	}
}
