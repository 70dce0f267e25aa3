package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
)

// Whatever is wrong with a board, the first stage of its start leaves the unique secret closed until the TPM is reset; and a start behind it without a reset
// asks for one.
func TestAStartThatFailsLeavesTheSecretClosed(t *testing.T) {
	for what, board := range map[string]string{
		"flash that is not there":      `{"kind": "linux", "revision": "A", "chip_uid": "0011223344556677", "flash": {"path": "DIR/none"}, "parts": "tpm:SOCKET", "keys": "tpm:SOCKET"}`,
		"a member that nobody knows":   `{"kind": "linux", "later": true, "parts": "tpm:SOCKET"}`,
		"a description that is wrong":  `{"kind": "linux", "parts": "tpm:SOCKET", "revision": ""}`,
		"keys that are nowhere":        `{"kind": "linux", "revision": "A", "chip_uid": "0011223344556677", "flash": {"path": "DIR/flash"}, "parts": "tpm:SOCKET", "keys": "isolated:DIR/none"}`,
		"a board that is no device":    `{"kind": "linux", "revision": "A", "chip_uid": "0011223344556677", "flash": {"path": "DIR/flash"}, "parts": "tpm:SOCKET", "keys": "tpm:SOCKET"}`,
		"a number that is not its own": `{"kind": "linux", "revision": "A", "chip_uid": "file:DIR/none", "flash": {"path": "DIR/flash"}, "parts": "tpm:SOCKET", "keys": "tpm:SOCKET"}`,
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "locked") // a socket's name is short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			socket, _ := boardtest.TPM(t, dir)
			k, err := tpm.Open(socket)
			if err != nil {
				t.Fatal(err)
			}
			f := hw.NewFuses(k.Parts().Fuses())
			if err := errors.Join(k.Parts().Define(), f.BurnSecret([32]byte{7}), k.Close()); err != nil {
				t.Fatal(err)
			}
			blank := make([]byte, 64<<16)
			for i := range blank {
				blank[i] = 0xff
			}
			file := filepath.Join(dir, "board.json")
			board := strings.NewReplacer("DIR", dir, "SOCKET", socket).Replace(board)
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "flash"), blank, 0o600), os.WriteFile(file, []byte(board), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := first(newPlug(), place{dir: dir, board: file}, ""); err == nil || errors.Is(err, errReset) {
				t.Errorf("the first start: %v", err)
			}
			if k, err = tpm.Open(socket); err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if s, err := hw.NewFuses(k.Parts().Fuses()).Secret(); !errors.Is(err, hw.ErrLocked) {
				t.Errorf("the secret reads %x, %v", s, err)
			}
		})
	}
}

// The unit of a device says of each way to end whether it is started again: a start that would be refused as this one was is not tried for ever, and one that takes
// a restart of the machine gets it. (On a board with a TPM a second try finds the secret closed, and would have the machine restarted without end.)
func TestTheUnitsKnowHowADeviceEnds(t *testing.T) {
	for unit, want := range map[string][]int{"hallmark-agent.service": {exitReset, exitRefused}, "hallmark-agent@.service": {exitRefused}} {
		data, err := os.ReadFile(filepath.Join("..", "..", "packaging", unit))
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindSubmatch(data)
		if line == nil {
			t.Fatalf("%s: no RestartPreventExitStatus", unit)
		}
		var got []int
		for w := range strings.FieldsSeq(string(line[1])) {
			n, err := strconv.Atoi(w)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
		if !slices.Equal(got, want) || !strings.Contains(string(data), "\nRestart=on-failure\n") {
			t.Errorf("%s is not restarted after %v, want %v", unit, got, want)
		}
		if unit == "hallmark-agent.service" && !strings.Contains(string(data), fmt.Sprintf(`"$EXIT_STATUS" = %d`, exitReset)) {
			t.Errorf("%s does not restart the machine after %d", unit, exitReset)
		}
	}
}
