package chips_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/wire"
)

func read(t *testing.T, manifest []byte, signers ...*x509.Certificate) ([]chips.Item, error) {
	t.Helper()
	var got []chips.Item
	err := chips.Read(bytes.NewReader(manifest), signers, func(i chips.Item) error {
		got = append(got, i)
		return nil
	})
	return got, err
}

func TestAManifestIsRead(t *testing.T) {
	v, key := factorytest.NewVendor(t), factorytest.Key(t)
	got, err := read(t, factorytest.Manifest(v.Said(t, []byte("chip 0001"), &key.PublicKey, nil), v.Said(t, []byte("chip 0002"), &factorytest.Key(t).PublicKey, nil)), factorytest.NewVendor(t).Cert, v.Cert)
	if err != nil || len(got) != 2 || got[0].Err != nil || got[1].Err != nil {
		t.Fatal(got, err)
	}
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c, sum := got[0].Chip, sha256.Sum256(spki)
	if c.UID != "636869702030303031" || c.Model != "ATECC608B" || len(c.Keys) != 1 || !bytes.Equal(c.Keys[0], sum[:]) || got[1].N != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestWhatAVendorDidNotSayIsNotTaken(t *testing.T) {
	v, key := factorytest.NewVendor(t), &factorytest.Key(t).PublicKey
	uid := []byte("chip 0001")
	said := func(change func(map[string]any)) json.RawMessage { return v.Said(t, uid, key, change) }
	with := func(name string, value any) json.RawMessage {
		return said(func(m map[string]any) { m[name] = value })
	}
	keys := func(k ...any) json.RawMessage { return with("publicKeySet", map[string]any{"keys": k}) }
	var members map[string]any
	if err := json.Unmarshal(said(nil), &members); err != nil {
		t.Fatal(err)
	}
	broken := func(member string, change func(string) string) json.RawMessage {
		m := map[string]any{}
		maps.Copy(m, members)
		m[member] = change(m[member].(string))
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	beside := func(member string) json.RawMessage { return append([]byte("{"+member+","), said(nil)[1:]...) }
	flip := func(s string) string { // but for the end, which would be written otherwise
		return strings.NewReplacer("A", "B", "B", "A", "x", "y", "y", "x", "a", "b", "b", "a", "2", "3", "3", "2").Replace(s[:40]) + s[40:]
	}
	for name, c := range map[string]struct {
		entry json.RawMessage
		want  string
	}{
		"another vendor's":              {factorytest.NewVendor(t).Said(t, uid, key, nil), "no key of this vendor"},
		"another payload beside it":     {beside(`"Payload":"bm8"`), "unknown member"},
		"a payload that comes twice":    {beside(`"payload":"bm8"`), "twice"},
		"a header in capitals":          {beside(`"PROTECTED":"e30"`), "unknown member"},
		"another form of its base64":    {broken("payload", func(s string) string { return s + "\n" }), "not a signed entry"},
		"a changed payload":             {broken("payload", flip), "no key of this vendor"},
		"a changed signature":           {broken("signature", flip), "no key of this vendor"},
		"no signature":                  {broken("signature", func(string) string { return "" }), "no key of this vendor"},
		"an algorithm of none":          {broken("protected", func(string) string { return "eyJhbGciOiJub25lIn0" }), "not a signed entry"},
		"an algorithm with one secret":  {broken("protected", func(string) string { return "eyJhbGciOiJIUzI1NiJ9" }), "not a signed entry"},
		"not an object":                 {json.RawMessage(`"chip"`), "not a signed entry"},
		"the header of another chip":    {v.Sign(t, map[string]any{"uniqueId": "636869702030303031"}, "636869702030303032"), "it is headed"},
		"no number":                     {v.Sign(t, map[string]any{"provisioningTimestamp": "2025-06-15T17:22:45Z"}, ""), "want 8 to 32 bytes"},
		"a number in capitals":          {v.Sign(t, map[string]any{"uniqueId": "0123F1822C38DD7A01", "provisioningTimestamp": "2025-06-15T17:22:45Z"}, ""), "want 8 to 32 bytes"},
		"made after the key's end":      {with("provisioningTimestamp", "2026-01-02T00:00:00Z"), "the key that signed for it ended"},
		"no time":                       {with("provisioningTimestamp", ""), "provisioningTimestamp"},
		"no keys":                       {keys(), "0 keys on P-256"},
		"only keys of no use":           {keys(map[string]any{"kty": "RSA"}), "0 keys on P-256"},
		"a point that is not on curve":  {keys(map[string]any{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)}), "key"},
		"a coordinate that is too long": {keys(map[string]any{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 86), "y": strings.Repeat("A", 43)}), "32 bytes"},
		"a part number without end":     {with("partNumber", strings.Repeat("x", 65)), "more than 64 bytes"},
	} {
		got, err := read(t, factorytest.Manifest(c.entry, said(nil)), v.Cert)
		if err != nil || len(got) != 2 {
			t.Errorf("%s: %v %v", name, got, err)
			continue
		}
		if got[0].Err == nil || !strings.Contains(got[0].Err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, got[0].Err, c.want)
		}
		if got[1].Err != nil {
			t.Errorf("%s: the one behind it: %v", name, got[1].Err)
		}
	}
}

func TestWhatIsNoManifest(t *testing.T) {
	v := factorytest.NewVendor(t)
	good := v.Said(t, []byte("chip 0001"), &factorytest.Key(t).PublicKey, nil)
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"nothing":               {"", "a JSON array"},
		"an object":             {"{}", "a JSON array"},
		"a CSV":                 {"uid,key\n01,02\n", "a JSON array"},
		"one that is cut":       {"[" + string(good), "ends before its end"},
		"one cut in an entry":   {"[" + string(good[:100]), "entry 1"},
		"something behind it":   {string(factorytest.Manifest(good)) + "[]", "something follows"},
		"an entry without end":  {`["` + strings.Repeat("x", 2*chips.MaxElement) + `"]`, "more than 65536 bytes"},
		"a text between two":    {"[" + string(good) + " x " + string(good) + "]", "entry 2"},
		"an array in the array": {"[[]", "ends before its end"},
	} {
		if _, err := read(t, []byte(c.text), v.Cert); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzManifest(f *testing.F) {
	v := factorytest.NewVendor(f)
	key := factorytest.Key(f)
	f.Add(factorytest.Manifest(v.Said(f, []byte("chip 0001"), &key.PublicKey, nil)))
	f.Add([]byte(`[{"payload":"","protected":"","signature":""}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = chips.Read(bytes.NewReader(data), []*x509.Certificate{v.Cert}, func(i chips.Item) error {
			if i.Err == nil && (len(i.Chip.Keys) == 0 || i.Chip.UID == "") {
				t.Fatalf("%+v", i)
			}
			return nil
		})
	})
}
