package mender

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"unicode/utf8"
)

// FuzzHeader begins behind the digests and the compression, which no fuzzer gets through.
func FuzzHeader(f *testing.F) {
	var b bytes.Buffer
	z := tar.NewWriter(&b)
	for _, part := range []struct{ name, data string }{
		{"header-info", `{"payloads":[{"type":"app"}],"artifact_provides":{"artifact_name":"pump-1"},"artifact_depends":{"device_type":["board"]}}`},
		{"headers/0000/type-info", `{"type":"app","artifact_provides":{"app.version":"1"}}`},
	} {
		if err := errors.Join(z.WriteHeader(&tar.Header{Name: part.name, Size: int64(len(part.data)), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatGNU}), write(z, part.data)); err != nil {
			f.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var a Artifact
		if err := a.readHeader(packed(t, data)); err != nil {
			return
		}
		for _, v := range []any{a.Info, a.Type} { // what is taken says no more than it reads as
			again, err := json.Marshal(v)
			if err != nil || !bytes.Contains(data, again) {
				t.Fatalf("%s is not in what was read: %v", again, err)
			}
		}
	})
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzRepacked writes an artifact whose payload and header are the fuzzer's, with digests that fit.
func FuzzRepacked(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("pump-1.2.0", "1.2.0", "board", "rootfs-image", "root.ext4", []byte("body"))
	f.Fuzz(func(t *testing.T, name, version, device, kind, file string, body []byte) {
		o := Options{Name: name, Version: version, DeviceTypes: []string{device}, Type: kind, File: file}
		var b bytes.Buffer
		if err := Write(&b, o, key, bytes.NewReader(body)); err != nil {
			return
		}
		a, err := Read(bytes.NewReader(b.Bytes()))
		if err != nil {
			if !utf8.ValidString(name + version + device) {
				return // JSON has no such text
			}
			t.Fatalf("%+v: %v", o, err)
		}
		if a.File != file || a.Size != uint64(len(body)) || a.Digest != sha256.Sum256(body) || utf8.ValidString(version) && a.Type.Version() != version || utf8.ValidString(name) && a.Info.Provides.Name != name {
			t.Fatalf("%+v was read as %+v", o, a)
		}
	})
}
