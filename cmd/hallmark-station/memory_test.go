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

// tokenServer runs a token in a process of its own, as a real one is a machine of its own, and gives the way to it and its process. The
// station's keys have to be made before, through cfg: p11-kit 0.24 loses what is inside CKA_UNWRAP_TEMPLATE.
func tokenServer(t *testing.T, cfg station.Config) (station.Config, int) {
	t.Helper()
	p11kit, err := exec.LookPath("p11-kit")
	clients, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if err != nil || len(clients) != 1 {
		t.Skip("p11-kit is not installed: apt-get install p11-kit p11-kit-modules")
	}
	socket := filepath.Join(t.TempDir(), "token.sock")
	cmd := exec.CommandContext(t.Context(), p11kit, "server", "--foreground", "--name", socket, "--provider", cfg.Module, "pkcs11:token="+cfg.Token)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _, _ = io.Copy(io.Discard, out); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "P11_KIT_SERVER_PID") { // it listens before it says so
	}
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+socket)
	return station.Config{Module: clients[0], Token: cfg.Token}, cmd.Process.Pid
}

// TestTheOrderKeyInTheStationsMemory looks for an order key's raw bytes in a station's process and files, after the key was unwrapped and
// used. With a token in another process, as a real one is, the whole memory is looked at, which is what a core dump holds. SoftHSM as a library is in
// the same process and leaves the key in memory of its own; there only what our code works in is looked at, and docs/threat-model.md says so.
// The soft module holds the key, says so in its descriptor, and shows that the search finds keys.
func TestTheOrderKeyInTheStationsMemory(t *testing.T) {
	none := func(*testing.T) station.Config { return station.Config{} }
	for name, c := range map[string]struct {
		cfg    func(t *testing.T) station.Config
		beside bool // the token is in another process, and the station's whole memory is looked at
		held   bool
	}{
		"a token in another process": {softHSMConfig, true, false},
		"SoftHSM":                    {softHSMConfig, false, false},
		"soft":                       {none, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "st")
			cfg := c.cfg(t)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			h := holder{dir: dir, key: factorytest.Key(t), whole: c.beside}
			h.begin(t, cfg)
			if c.beside {
				cfg, h.token = tokenServer(t, cfg)
			}
			cfg.Name = "st-1"
			if err := station.WriteConfig(dir, cfg); err != nil {
				t.Fatal(err)
			}
			h.look(t)
			if h.station != c.held {
				t.Errorf("the order key's bytes are in the memory of the station: %v, want %v", h.station, c.held)
			}
			if c.beside && !h.beside {
				t.Error("the order key is not in the memory of the token either: what was searched?")
			}
			raw, err := h.key.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			files := []string{dir}
			if cfg.Module != "" {
				files = append(files, filepath.Dir(os.Getenv("SOFTHSM2_CONF")))
			}
			for _, root := range files {
				notIn(t, root, raw)
			}
		})
	}
}

// notIn looks for a secret in all files under root.
func notIn(t *testing.T, root string, secret []byte) {
	t.Helper()
	if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, secret) {
			t.Errorf("%s holds the order key", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// holder is a station's process that has unwrapped an order key and used it.
type holder struct {
	dir   string
	alg   wire.WrapAlg
	wrap  *rsa.PublicKey
	key   *ecdsa.PrivateKey
	token int  // the process of the token, if it has one
	whole bool // look at the whole memory

	station, beside bool // whose memory has the key
}

// begin makes the station's keys.
func (h *holder) begin(t *testing.T, cfg station.Config) {
	t.Helper()
	var m module.Module
	var err error
	if cfg.Module == "" {
		m, err = soft.Create(h.dir, []byte(cutPIN))
	} else {
		m, err = pkcs11.Create(pkcs11.Config{Path: cfg.Module, Label: cfg.Token, PIN: []byte(cutPIN)})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.alg = m.Info().WrapAlg
	if h.wrap, _, err = m.OEMKeys("acme"); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// look says whose memory has the key's scalar, in either order of bytes.
func (h *holder) look(t *testing.T) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := h.alg.Hash()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := rsa.EncryptOAEP(hash.New(), rand.Reader, h.wrap, der, nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := wire.SPKIOf(h.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "station-hold", h.dir, hex.EncodeToString(blob), hex.EncodeToString(spki))
	if !h.whole {
		// Go's runtime interrupts threads by signals, also within a library, and the kernel saves their registers on a stack that lies in Go's heap: with
		// SoftHSM's copy of the key in them (AVX-512's, in some 3 runs of 100), it would be found where our code works, without our code having it.
		cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	}
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
	where := factorytest.GoHeap(at)
	if h.whole {
		where = factorytest.Everything
	}
	var public bool
	h.station, public = h.in(t, cmd.Process.Pid, where)
	if !public {
		t.Fatal("not even the public key is in the memory that was read")
	}
	for _, pid := range factorytest.Family(t, h.token) {
		private, _ := h.in(t, pid, factorytest.Everything)
		h.beside = h.beside || private
	}
}

// in says whether a process has the private key in its memory, and the public one.
func (h *holder) in(t *testing.T, pid int, where func(int64, int64, string) bool) (private, public bool) {
	t.Helper()
	raw, err := h.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := h.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	turned := slices.Clone(raw)
	slices.Reverse(turned)
	factorytest.Memory(t, pid, where, func(part []byte) {
		private = private || bytes.Contains(part, raw) || bytes.Contains(part, turned)
		public = public || bytes.Contains(part, pub[1:33])
	})
	return private, public
}
