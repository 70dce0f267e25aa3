package demo

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Devices whose keys are in a TPM, or in a process of their own, are made, enrol and prove what they run like any other: no key of theirs is in a file
// of the board, and evidence says where it is. None of them passes for hardware: the board is virtual, and a process is none.
func TestDevicesWithKeysElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	swtpm, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed: scripts/setup-test.sh")
	}
	bin := programs(t)
	withCgo := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "hallmark-agent"), "../../cmd/hallmark-agent")
	withCgo.Env = append(os.Environ(), "CGO_ENABLED=1") // for PKCS#11
	if out, err := withCgo.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := plan(Options{Devices: 4, Out: io.Discard, programs: bin})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	beside, err := os.MkdirTemp("", "hm") // short: a socket's path has an end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(beside) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	must(d.build(t.Context()))
	process := func(socket, program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		must(cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
			c, err := net.Dial("unix", socket)
			if err == nil {
				_ = c.Close()
			}
			return err == nil, fmt.Sprint(err)
		}); !ok {
			t.Fatal(saw)
		}
		return socket
	}
	chip := filepath.Join(beside, "tpm")
	must(os.Mkdir(chip, 0o700))
	keys := map[string]string{
		"tpm":      "tpm:" + process(chip+".sock", swtpm, "socket", "--tpm2", "--tpmstate", "dir="+chip, "--flags", "not-need-init,startup-clear", "--server", "type=unixio,path="+chip+".sock"),
		"isolated": "isolated:" + process(filepath.Join(beside, "keys.sock"), d.bin.agent, "keys", "--dir", filepath.Join(beside, "keys"), "--socket", filepath.Join(beside, "keys.sock")),
		"pkcs11":   "pkcs11:" + tokenFor(t, beside),
		"soft":     "",
	}
	origins := []string{"tpm", "isolated", "pkcs11", "soft"}
	agent, script := d.bin.agent, "#!/bin/sh\ncase \"$*\" in\n"
	for i, origin := range origins {
		script += fmt.Sprintf("factory*/dev-%06d*) exec %s \"$@\" --keys '%s' ;;\n", i+1, agent, keys[origin])
	}
	fixture := filepath.Join(beside, "fixture") // each place of the programming station has boards of one kind
	must(os.WriteFile(fixture, []byte(script+"*) exec "+agent+" \"$@\" ;;\nesac\n"), 0o700))
	must(d.instance(t.Context()))
	must(d.firstRelease(t.Context()))
	d.bin.agent = fixture
	must(d.produce(t.Context()))
	d.bin.agent = agent
	must(d.field(t.Context()))
	seen := map[string]int{}
	for _, a := range d.agents {
		v, err := d.people["sam"].Device(t.Context(), a.id)
		must(err)
		seen[v.Device.KeyOrigin]++
		if v.Device.Verdict != "warning" || v.Device.Health != "healthy" {
			t.Errorf("device with keys %q: evidence %s %v, health %s", v.Device.KeyOrigin, v.Device.Verdict, v.Device.Reasons, v.Device.Health)
		}
		files, err := filepath.Glob(filepath.Join(a.dir, "keys", "*"))
		must(err)
		if (len(files) > 0) != (v.Device.KeyOrigin == "soft") {
			t.Errorf("device with keys %q has files %v", v.Device.KeyOrigin, files)
		}
	}
	for _, origin := range origins {
		if seen[origin] != 1 {
			t.Errorf("devices by where their keys are: %v", seen)
		}
	}
}

// tokenFor makes a token of SoftHSM, and gives the rest of its URI.
func tokenFor(t *testing.T, dir string) string {
	t.Helper()
	conf, pinFile := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	for path, data := range map[string]string{conf: "directories.tokendir = " + dir + "\nobjectstore.backend = file\nlog.level = ERROR\n", pinFile: pin + "\n"} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "device", "--pin", pin, "--so-pin", "123456")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return "token=device?module-path=" + softHSM + "&pin-source=file:" + pinFile
}
