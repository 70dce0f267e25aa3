package statement_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/supply/statement"
)

func summary() statement.Summary {
	sum := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
	return statement.Summary{
		Verifier: "https://hallmark.example", At: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Resource: "pkg:generic/pump@1.1.0", Passed: true,
		Levels: []string{"SLSA_BUILD_LEVEL_1", "HALLMARK-SUPPLY-GATE"}, Subjects: []statement.Subject{{Name: "pump-1.1.0", Digest: sum("release")}, {Name: "app", Digest: sum("app")}},
		Policy: statement.Reference{URI: "https://hallmark.example/policy", Digest: sum("policy")}, Inputs: []statement.Reference{{URI: "https://hallmark.example/sbom", Digest: sum("sbom")}},
	}
}

func sealedSummary(t *testing.T, k crypto.Signer, s statement.Summary) []byte {
	t.Helper()
	kind, payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := statement.Seal(k, kind, payload)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func spkiOf(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// signers are keys of each kind that statements are signed with.
func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"P-256": p256, "P-384": p384, "Ed25519": ed}
}

func TestASummarySaysWhatWasFound(t *testing.T) {
	bad := summary()
	bad.Passed, bad.Levels = false, nil
	for name, k := range signers(t) {
		for _, s := range []statement.Summary{summary(), bad} {
			env := sealedSummary(t, k, s)
			if _, err := statement.ReadSigned(env, [][]byte{spkiOf(t, k)}, 1); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got, err := statement.ReadSummary(env); err != nil || !reflect.DeepEqual(got, s) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
	for name, change := range map[string]func(*statement.Summary){
		"passed, and nothing found": func(s *statement.Summary) { s.Levels = nil },
		"a level, and not passed":   func(s *statement.Summary) { s.Passed = false },
		"about nothing":             func(s *statement.Summary) { s.Subjects = nil },
		"by nobody":                 func(s *statement.Summary) { s.Verifier = "" },
		"at no time":                func(s *statement.Summary) { s.At = time.Time{} },
		"nothing asked":             func(s *statement.Summary) { s.Policy.URI = "" },
	} {
		s := summary()
		change(&s)
		if _, _, err := s.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statement.Seal(other, "text/plain", []byte("x")); err == nil {
		t.Error("sealed with a key that nobody here could check")
	}
}

// OpenSSL holds the signature to the bytes that the protocol says are signed, put together here.
func TestOpenSSLChecksASummary(t *testing.T) {
	for name, k := range signers(t) {
		var e struct {
			Payload, PayloadType string
			Signatures           []struct{ Sig string }
		}
		if err := json.Unmarshal(sealedSummary(t, k, summary()), &e); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.StdEncoding.DecodeString(e.Payload)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
		if err != nil {
			t.Fatal(err)
		}
		in := func(name string, data []byte) string {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		}
		message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(payload), payload)
		args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", in("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spkiOf(t, k)})), "-rawin", "-sigfile", in("sig", sig)}
		if name == "P-384" {
			args = append(args, "-digest", "sha384")
		}
		run(t, nil, append(args, "-in", in("message", message))...)
		if err := exec.CommandContext(t.Context(), "openssl", append(args, "-in", in("message", bytes.Replace(message, []byte("PASSED"), []byte("FAILED"), 1)))...).Run(); err == nil {
			t.Errorf("%s: OpenSSL takes another text for it", name)
		}
	}
}

// The libraries of those who made the formats read it, strictly.
func TestInteropSummary(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "vsa")
	build := exec.CommandContext(t.Context(), "go", "-C", filepath.Join("..", "..", "tools", "vsa"), "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("tools/vsa: %v\n%s", err, out)
	}
	key, file := filepath.Join(dir, "key.pem"), filepath.Join(dir, "vsa.json")
	for name, k := range signers(t) {
		env := sealedSummary(t, k, summary())
		for path, data := range map[string][]byte{key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spkiOf(t, k)}), file: env} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sub := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
		want := fmt.Sprintf("application/vnd.in-toto+json https://slsa.dev/verification_summary/v1 PASSED pkg:generic/pump@1.1.0 https://hallmark.example SLSA_BUILD_LEVEL_1,HALLMARK-SUPPLY-GATE 1.0\npump-1.1.0 %x\napp %x\n", sub("release"), sub("app"))
		if out, err := exec.CommandContext(t.Context(), program, key, file).CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, out, want)
		}
		if err := os.WriteFile(file, sealedSummary(t, signers(t)[name], summary()), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, key, file).CombinedOutput(); err == nil {
			t.Errorf("%s: one of another's key is taken\n%s", name, out)
		}
	}
}

func FuzzReadSummary(f *testing.F) {
	_, payload, err := summary().Encode()
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(statement.Envelope{Payload: payload, PayloadType: inToto})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payload":"e30=","payloadType":"application/vnd.in-toto+json"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := statement.ReadSummary(data)
		if err != nil {
			return
		}
		_, payload, err := s.Encode() // what is read can be written
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		again, err := json.Marshal(statement.Envelope{Payload: payload, PayloadType: inToto})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := statement.ReadSummary(again); err != nil || got.Passed != s.Passed || len(got.Subjects) != len(s.Subjects) {
			t.Fatalf("%+v, then %+v: %v", s, got, err)
		}
	})
}
