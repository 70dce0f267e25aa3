//go:build cgo && linux

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// memory reads what a Go process has in its own heap, which is what our code works in: a part of what a core dump of it would hold.
// at is an address in it: arenas of 64 MiB lie together.
func memory(t *testing.T, pid int, at int64) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("the memory of a child cannot be read here: %v", err)
	}
	defer mem.Close()
	var all []byte
	for l := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(l, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || from < at&^(1<<26-1) || from >= at+1<<30 {
			continue
		}
		part := make([]byte, to-from)
		n, err := mem.ReadAt(part, from)
		if n == 0 && err != nil {
			continue // reserved, and nothing there
		}
		all = append(all, part[:n]...)
	}
	if len(all) < 1<<20 {
		t.Fatalf("only %d bytes of memory were read", len(all))
	}
	return all
}

// TestTheOrderKeyInTheStationsMemory looks for an order key's raw bytes in the memory that a station's own code works in, after the key
// was unwrapped and used, and in the station's files. The soft module holds it there, says so in its descriptor, and shows that the
// search finds keys. SoftHSM is a library in the same process and leaves the key in memory of its own: that is not looked at here, and
// docs/threat-model.md says it. Only a token that is another machine keeps a key from who reads the process.
func TestTheOrderKeyInTheStationsMemory(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    func(t *testing.T) station.Config
		create func(dir string) (module.Module, error)
		held   bool
	}{
		"SoftHSM": {softHSMConfig, func(string) (module.Module, error) {
			return pkcs11.Create(pkcs11.Config{Path: softHSM, Label: "st", PIN: []byte(cutPIN)})
		}, false},
		"soft": {func(*testing.T) station.Config { return station.Config{} }, func(dir string) (module.Module, error) { return soft.Create(dir, []byte(cutPIN)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "st")
			cfg := c.cfg(t)
			cfg.Name = "st-1"
			if err := station.WriteConfig(dir, cfg); err != nil {
				t.Fatal(err)
			}
			m, err := c.create(dir)
			if err != nil {
				t.Fatal(err)
			}
			wrap, _, err := m.OEMKeys("acme")
			if err != nil {
				t.Fatal(err)
			}
			alg := m.Info().WrapAlg
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			key := factorytest.Key(t)
			got := held(t, dir, alg, wrap, key)
			if got != c.held {
				t.Errorf("the order key's bytes are in the memory of our own code: %v, want %v", got, c.held)
			}
			raw, err := key.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			files := []string{dir}
			if conf := os.Getenv("SOFTHSM2_CONF"); cfg.Module != "" {
				files = append(files, filepath.Dir(conf))
			}
			for _, root := range files {
				if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
					if err != nil || !d.Type().IsRegular() {
						return err
					}
					b, err := os.ReadFile(path)
					if bytes.Contains(b, raw) {
						t.Errorf("%s holds the order key", path)
					}
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// held has a process unwrap key and use it, and says whether its memory has the scalar, in either order of bytes.
func held(t *testing.T, dir string, alg wire.WrapAlg, wrap *rsa.PublicKey, key *ecdsa.PrivateKey) bool {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := alg.Hash()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := rsa.EncryptOAEP(hash.New(), rand.Reader, wrap, der, nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "station-hold", dir, hex.EncodeToString(blob), hex.EncodeToString(spki))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _, _ = io.Copy(io.Discard, out); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("it did not get ready: %q, %v", line, err)
	}
	at, err := strconv.ParseInt(strings.TrimSpace(line), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	mem := memory(t, cmd.Process.Pid, at)
	if pub, err := key.PublicKey.Bytes(); err != nil || !bytes.Contains(mem, pub[1:33]) {
		t.Fatalf("not even the public key is in the memory that was read: %v", err)
	}
	turned := slices.Clone(raw)
	slices.Reverse(turned)
	return bytes.Contains(mem, raw) || bytes.Contains(mem, turned)
}
