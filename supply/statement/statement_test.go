package statement_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/supply/statement"
)

const inToto = "application/vnd.in-toto+json"

// bySSL has OpenSSL sign, so that both ends are not ours.
type bySSL struct {
	file string
	spki []byte
}

func newSSL(t *testing.T, algorithm ...string) bySSL {
	t.Helper()
	k := bySSL{file: filepath.Join(t.TempDir(), "key.pem")}
	run(t, nil, append([]string{"genpkey", "-out", k.file}, algorithm...)...)
	block, _ := pem.Decode(run(t, nil, "pkey", "-in", k.file, "-pubout"))
	k.spki = block.Bytes
	return k
}

func run(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), "openssl", args...)
	c.Stdin = bytes.NewReader(in)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v", args, err)
	}
	return out
}

func (k bySSL) sign(t *testing.T, message []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, message, 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, nil, "pkeyutl", "-sign", "-inkey", k.file, "-rawin", "-in", file)
}

func envelope(t *testing.T, kind, payload string, sigs ...[]byte) []byte {
	t.Helper()
	var all []map[string]string
	for _, s := range sigs {
		all = append(all, map[string]string{"keyid": "of the signer's own making", "sig": base64.StdEncoding.EncodeToString(s)})
	}
	out, err := json.Marshal(map[string]any{"payload": base64.StdEncoding.EncodeToString([]byte(payload)), "payloadType": kind, "signatures": all})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEnvelopesThatOpenSSLSigned(t *testing.T) {
	p256, ed := newSSL(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), newSSL(t, "-algorithm", "ED25519")
	// The message is spelled out: it is the example of the protocol, and not what we make of it.
	message := []byte("DSSEv1 29 http://example.com/HelloWorld 11 hello world")
	kind, payload := "http://example.com/HelloWorld", "hello world"
	one, two := p256.sign(t, message), ed.sign(t, message)
	keys := [][]byte{p256.spki, ed.spki}
	for name, c := range map[string]struct {
		envelope  []byte
		keys      [][]byte
		threshold int
		want      error
	}{
		"one of two":           {envelope(t, kind, payload, one), keys, 1, nil},
		"two of two":           {envelope(t, kind, payload, two, one), keys, 2, nil},
		"one twice for two":    {envelope(t, kind, payload, one, one), keys, 2, statement.ErrSignature},
		"one key twice":        {envelope(t, kind, payload, one), [][]byte{p256.spki, p256.spki}, 2, statement.ErrSignature},
		"another payload":      {envelope(t, kind, "hello World", one), keys, 1, statement.ErrSignature},
		"another type":         {envelope(t, kind+"s", payload, one), keys, 1, statement.ErrSignature},
		"another's key":        {envelope(t, kind, payload, one), [][]byte{ed.spki}, 1, statement.ErrSignature},
		"no signature":         {envelope(t, kind, payload), keys, 1, statement.ErrSignature},
		"nobody is asked for":  {envelope(t, kind, payload, one), keys, 0, statement.ErrSignature},
		"no key":               {envelope(t, kind, payload, one), nil, 1, statement.ErrSignature},
		"no envelope":          {[]byte(`{"payload":"","payloadType":"x"}`), keys, 1, statement.ErrFormat},
		"no JSON":              {[]byte(`x`), keys, 1, statement.ErrFormat},
		"larger than any is":   {make([]byte, statement.MaxSize+1), keys, 1, statement.ErrFormat},
		"a signature of words": {[]byte(`{"payload":"aGVsbG8=","payloadType":"x","signatures":[{"sig":"!"}]}`), keys, 1, statement.ErrFormat},
	} {
		got, err := statement.ReadSigned(c.envelope, c.keys, c.threshold)
		if !errors.Is(err, c.want) || err == nil && (string(got.Payload) != payload || got.Type != kind) || err != nil && got.Payload != nil {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestProvenanceSaysWhoBuiltWhatFromWhat(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	head := `{"_type":"https://in-toto.io/Statement/%s","subject":[{"digest":{"sha256":"%s"}}],"predicateType":"https://slsa.dev/provenance/%s","predicate":%s}`
	v1 := `{"buildDefinition":{"buildType":"make","resolvedDependencies":[{"uri":"git+https://a"},{"uri":"b"}]},"runDetails":{"builder":{"id":"ci"}}}`
	v02 := `{"builder":{"id":"ci"},"buildType":"make","invocation":{"configSource":{"uri":"git+https://a"}}}`
	for name, c := range map[string]struct {
		kind, text string
		good       bool
	}{
		"SLSA 1":               {inToto, fmt.Sprintf(head, "v1", sum, "v1", v1), true},
		"SLSA 0.2":             {inToto, fmt.Sprintf(head, "v0.1", sum, "v0.2", v02), true},
		"another type":         {"text/plain", fmt.Sprintf(head, "v1", sum, "v1", v1), false},
		"another statement":    {inToto, fmt.Sprintf(head, "v9", sum, "v1", v1), false},
		"another predicate":    {inToto, fmt.Sprintf(head, "v1", sum, "v7", v1), false},
		"no builder":           {inToto, fmt.Sprintf(head, "v1", sum, "v1", strings.Replace(v1, `"ci"`, `""`, 1)), false},
		"no source":            {inToto, fmt.Sprintf(head, "v1", sum, "v1", `{"buildDefinition":{},"runDetails":{"builder":{"id":"ci"}}}`), false},
		"a short digest":       {inToto, fmt.Sprintf(head, "v1", "abcd", "v1", v1), false},
		"a predicate of words": {inToto, fmt.Sprintf(head, "v1", sum, "v1", `"x"`), false},
		"about nothing":        {inToto, strings.Replace(fmt.Sprintf(head, "v1", sum, "v1", v1), `{"digest":{"sha256":"`+sum+`"}}`, "", 1), false},
	} {
		p, err := statement.ReadProvenance(statement.Signed{Type: c.kind, Payload: []byte(c.text)})
		if (err == nil) != c.good || err != nil && !errors.Is(err, statement.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if c.good && (p.Builder != "ci" || p.Source != "git+https://a" || p.BuildType != "make" || len(p.Subjects) != 1 || p.Subjects[0][0] != 0xab) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzReadSigned(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"payload":"aGVsbG8=","payloadType":"x","signatures":[{"sig":"AAAA"}]}`), []byte("x"))
	f.Add([]byte(`{}`), spki)
	f.Fuzz(func(t *testing.T, data, key []byte) {
		if _, err := statement.ReadSigned(data, [][]byte{spki}, 1); err == nil {
			t.Errorf("%q is signed by a key that signed nothing", data)
		}
		if pub, err := statement.ParseKey(key); (pub == nil) != (err != nil) {
			t.Errorf("%x: %v, %v", key, pub, err)
		}
	})
}

func FuzzReadProvenance(f *testing.F) {
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.Repeat("ab", 32) + `"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{"resolvedDependencies":[{"uri":"a"}]},"runDetails":{"builder":{"id":"ci"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := statement.ReadProvenance(statement.Signed{Type: inToto, Payload: data})
		if err == nil && (p.Builder == "" || p.Source == "" || len(p.Subjects) == 0) {
			t.Errorf("%q: %+v", data, p)
		}
	})
}
