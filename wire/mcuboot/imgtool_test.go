package mcuboot_test

import (
	"crypto/ecdh"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/wire/mcuboot"
)

// imgtool is MCUboot's own, of PyPI, where scripts/interop-imgtool.sh put it.
func imgtool(t *testing.T) (tool, python string) {
	t.Helper()
	bin, err := filepath.Abs("../../.cache/imgtool/bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "imgtool")); err != nil {
		t.Skip("needs imgtool: scripts/interop-imgtool.sh installs it")
	}
	return filepath.Join(bin, "imgtool"), filepath.Join(bin, "python")
}

func call(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is written here imgtool verifies and shows, clear or opened by another program than ours; with the key of another it does not.
func TestInteropImgtool(t *testing.T) {
	tool, python := imgtool(t)
	dir := t.TempDir()
	clearImage, sealed, open := filepath.Join(dir, "clear.bin"), filepath.Join(dir, "sealed.bin"), filepath.Join(dir, "open.bin")
	for _, by := range []string{"p256.pem", "ed25519.pem"} {
		for _, bits := range []int{0, 128, 256} {
			m, err := mcuboot.New(mcuboot.Options{
				Version: mcuboot.Version{Major: 3, Build: 9}, Counter: 12, HeaderSize: 0x40, KeyBits: bits, Load: 0x20000000,
				Dependencies: []mcuboot.Dependency{{Image: 2, Version: mcuboot.Version{Minor: 1}}},
			}, file(t, "app.bin"))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Sign(signer(t, by)); err != nil {
				t.Fatal(err)
			}
			put(t, clearImage, encoded(t, m))
			call(t, tool, "verify", "-k", filepath.Join("testdata", by), clearImage)
			call(t, tool, "dumpinfo", clearImage)
			if bits == 0 {
				continue
			}
			for _, curve := range []ecdh.Curve{ecdh.P256(), ecdh.X25519()} {
				maker, device := keys(t, curve), keys(t, curve)
				s, err := m.Encrypt(maker.PublicKey())
				if err != nil {
					t.Fatal(err)
				}
				if s, err = s.Rewrap(maker, device.PublicKey()); err != nil {
					t.Fatal(err)
				}
				put(t, sealed, encoded(t, s))
				der, err := x509.MarshalPKCS8PrivateKey(device)
				if err != nil {
					t.Fatal(err)
				}
				key := put(t, filepath.Join(dir, "device.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
				call(t, python, "testdata/open.py", key, sealed, open)
				call(t, tool, "verify", "-k", filepath.Join("testdata", by), open)
			}
			// imgtool verifies no signature of what is still sealed
			if exec.CommandContext(t.Context(), tool, "verify", "-k", filepath.Join("testdata", by), sealed).Run() == nil {
				t.Error("imgtool verified an image that is encrypted")
			}
		}
	}
	if exec.CommandContext(t.Context(), tool, "verify", "-k", "testdata/enc-p256.pem", clearImage).Run() == nil {
		t.Error("imgtool verified it by another's key")
	}
}
