//go:build cgo

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// softHSMConfig makes a SoftHSM token for a station, or skips.
func softHSMConfig(t *testing.T) station.Config {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	if out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "st", "--pin", cutPIN, "--so-pin", "87654321").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return station.Config{Module: softHSM, Token: "st"}
}

// The same with a token: its session, and the order key in it, are gone with the process.
func TestKilledAnywhereTheStationGoesOnWithSoftHSM(t *testing.T) {
	newCentre(t, softHSMConfig(t), func(string) (module.Module, error) {
		return pkcs11.Create(pkcs11.Config{Path: softHSM, Label: "st", PIN: []byte(cutPIN)})
	}).cuts("kill", 1)
}
