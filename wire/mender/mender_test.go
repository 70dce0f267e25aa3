package mender_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire/mender"
)

var options = mender.Options{Name: "pump-1.2.0", Version: "1.2.0", DeviceTypes: []string{"board"}, Type: "rootfs-image", File: "root.ext4"}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func written(t testing.TB, o mender.Options, k *ecdsa.PrivateKey, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := mender.Write(&b, o, k, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	k := newKey(t)
	rapid.Check(t, func(rt *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 1, 5000).Draw(rt, "body")
		a, err := mender.Read(bytes.NewReader(written(t, options, k, body)))
		if err != nil {
			rt.Fatal(err)
		}
		if a.Digest != sha256.Sum256(body) || a.Size != uint64(len(body)) || a.File != "root.ext4" || a.Type.Version() != "1.2.0" || a.Info.Provides.Name != "pump-1.2.0" {
			rt.Fatalf("another artifact: %+v", a)
		}
		if err := a.Verify(&k.PublicKey); err != nil {
			rt.Fatal(err)
		}
	})
	a, err := mender.Read(bytes.NewReader(written(t, options, k, []byte("body"))))
	if err != nil {
		t.Fatal(err)
	}
	other := newKey(t)
	if err := a.Verify(&other.PublicKey); !errors.Is(err, mender.ErrSignature) {
		t.Errorf("by another key: %v", err)
	}
	if err := a.Verify(ed25519.PublicKey(make([]byte, 32))); err == nil {
		t.Error("by a key of another kind")
	}
}

// Whatever bit is turned, and wherever it is cut, what is read is what was signed.
func TestNoByteIsAltered(t *testing.T) {
	k := newKey(t)
	body := []byte(strings.Repeat("root file system ", 30))
	data := written(t, options, k, body)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 4
		if a, err := mender.Read(bytes.NewReader(bad)); err == nil && a.Verify(&k.PublicKey) == nil && (a.Digest != sha256.Sum256(body) || a.Type.Version() != "1.2.0") {
			t.Fatalf("byte %d altered, and believed", i)
		}
	}
	for i := 0; i < len(data)-1536; i += 3 { // behind are the payload's filling and the tar's end, of zeros
		if _, err := mender.Read(bytes.NewReader(data[:i])); err == nil {
			t.Fatalf("read when it ends after %d bytes", i)
		}
	}
	if _, err := mender.Read(bytes.NewReader(append(bytes.Clone(data), "more"...))); err == nil {
		t.Error("read with something behind it")
	}
}

// rebuilt is an artifact with one of its files replaced; a header's are in a tar of their own.
func rebuilt(t *testing.T, data []byte, change func(name string, content []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "header.tar.gz" {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			inner, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			var packed bytes.Buffer
			p := gzip.NewWriter(&packed)
			if _, err := p.Write(rebuilt(t, inner, change)); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			b = packed.Bytes()
		}
		b = change(h.Name, b)
		if b == nil {
			continue
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// An artifact that says more than is understood, or is made of other parts, is refused, even where its digests are right.
func TestRefused(t *testing.T) {
	k := newKey(t)
	data := written(t, options, k, []byte("body"))
	for what, change := range map[string]func(name string, b []byte) []byte{
		"another version": func(name string, b []byte) []byte {
			if name == "version" {
				return []byte(`{"format":"mender","version":2}`)
			}
			return b
		},
		"no manifest": func(name string, b []byte) []byte {
			if name == "manifest" {
				return nil
			}
			return b
		},
		"another manifest": func(name string, b []byte) []byte {
			if name == "manifest" {
				return append(b, b...)
			}
			return b
		},
		"a member twice": func(name string, b []byte) []byte {
			return bytes.Replace(b, []byte(`{"type":"rootfs-image","artifact_provides"`), []byte(`{"type":"x","type":"rootfs-image","artifact_provides"`), 1)
		},
		"a signature of blanks": func(name string, b []byte) []byte {
			if name == "manifest.sig" {
				return []byte("  ")
			}
			return b
		},
		"a header that goes on": func(name string, b []byte) []byte {
			if name == "header-info" {
				return append(b, bytes.Repeat([]byte(" "), 100<<10)...)
			}
			return b
		},
	} {
		bad := rebuilt(t, data, change)
		if bytes.Equal(bad, data) {
			t.Fatalf("%s changed nothing", what)
		}
		if _, err := mender.Read(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	bare, err := mender.Read(bytes.NewReader(rebuilt(t, data, func(name string, b []byte) []byte {
		if name == "manifest.sig" {
			return nil
		}
		return b
	})))
	if err == nil && (len(bare.Signature) != 0 || bare.Verify(&k.PublicKey) == nil) {
		t.Error("a signature where none is")
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := mender.Write(io.Discard, options, p384, bytes.NewReader([]byte("x"))); err == nil {
		t.Error("signed by P-384")
	}
	for what, o := range map[string]mender.Options{
		"no name": {Version: "1", DeviceTypes: []string{"b"}, Type: "rootfs-image", File: "f"}, "a path": {Name: "n", Version: "1", DeviceTypes: []string{"b"}, Type: "rootfs-image", File: "a/b"},
		"no type": {Name: "n", Version: "1", DeviceTypes: []string{"b"}, File: "f"}, "no device": {Name: "n", Version: "1", Type: "rootfs-image", File: "f"},
	} {
		if err := mender.Write(io.Discard, o, k, bytes.NewReader([]byte("x"))); err == nil {
			t.Errorf("%s was written", what)
		}
	}
	if err := mender.Write(io.Discard, options, k, bytes.NewReader(nil)); err == nil {
		t.Error("nothing was written")
	}
}

// mender-artifact, Mender's own, validates what is written here; and what it writes for an update module is read.
func TestInteropMenderArtifact(t *testing.T) {
	tool, err := exec.LookPath("mender-artifact")
	if err != nil {
		t.Skip("needs mender-artifact: scripts/setup-test.sh installs it")
	}
	dir := t.TempDir()
	k := newKey(t)
	put := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	spki, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pub, private := put("k.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), put("k.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	body := bytes.Repeat([]byte("root file system "), 100000)
	for _, typ := range []string{"rootfs-image", "single-file"} {
		o := options
		o.Type = typ
		ours := put(typ+".mender", written(t, o, k, body))
		if out, err := exec.CommandContext(t.Context(), tool, "validate", "-k", pub, ours).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", typ, err, out)
		}
		out, err := exec.CommandContext(t.Context(), tool, "read", "-k", pub, ours).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Signature: signed and verified correctly") || !strings.Contains(string(out), "pump-1.2.0") {
			t.Errorf("%s: %v\n%s", typ, err, out)
		}
	}
	theirs := filepath.Join(dir, "theirs.mender")
	out, err := exec.CommandContext(t.Context(), tool, "write", "module-image", "-T", "single-file", "-n", "pump-1.2.0", "-t", "board", "--software-version", "1.2.0",
		"-f", put("app.bin", body), "-o", theirs, "-k", private).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	a, err := mender.Read(bytes.NewReader(data))
	if err != nil || a.Digest != sha256.Sum256(body) || a.Verify(&k.PublicKey) != nil || a.Type.Version() != "1.2.0" {
		t.Errorf("what mender-artifact wrote: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(written(f, options, newKey(f), []byte("body")))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := mender.Read(bytes.NewReader(data))
		if err == nil && (a.Size == 0 || a.File == "" || len(a.Manifest) == 0) {
			t.Fatal("an artifact of nothing")
		}
	})
}

func TestAHeadIsReadWhateverIsBehindIt(t *testing.T) {
	whole := written(t, options, newKey(t), []byte("body"))
	for what, data := range map[string][]byte{"whole": whole, "cut behind its header": whole[:len(whole)-2048]} {
		if h, err := mender.ReadHead(bytes.NewReader(data)); err != nil || h.Name != "pump-1.2.0" || len(h.DeviceTypes) != 1 || h.DeviceTypes[0] != "board" {
			t.Errorf("%s: %+v %v", what, h, err)
		}
	}
	for what, data := range map[string][]byte{"nothing": nil, "no artifact": bytes.Repeat([]byte("x"), 2048), "of another format": bytes.Replace(whole, []byte(`"version":3`), []byte(`"version":2`), 1)} {
		if h, err := mender.ReadHead(bytes.NewReader(data)); err == nil {
			t.Errorf("%s has a head: %+v", what, h)
		}
	}
	if _, err := exec.LookPath("mender-artifact"); err != nil {
		return // TestInteropMenderArtifact says that it is missing
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "ArtifactInstall_Enter_00")
	for path, text := range map[string]string{script: "#!/bin/sh\n", filepath.Join(dir, "app"): "payload"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, compression := range []string{"gzip", "none"} {
		out := filepath.Join(dir, compression+".mender")
		if text, err := exec.CommandContext(t.Context(), "mender-artifact", "--compression", compression, "write", "module-image", "-T", "script", "-n", "pump-7", "-t", "board", "-t", "other", "-s", script,
			"-f", filepath.Join(dir, "app"), "-o", out).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := mender.ReadHead(bytes.NewReader(data)); err != nil || h.Name != "pump-7" || len(h.DeviceTypes) != 2 {
			t.Errorf("one with a script, %s: %+v %v", compression, h, err)
		}
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add(written(f, options, newKey(f), []byte("body")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := mender.ReadHead(bytes.NewReader(data)); err == nil && (h.Name == "" || len(h.Name) > mender.MaxName || len(h.DeviceTypes) == 0) {
			t.Fatalf("%+v", h)
		}
	})
}
