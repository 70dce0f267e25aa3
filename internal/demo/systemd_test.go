package demo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/rollout"
)

// play is what somebody does at the machine: install the package, start its units, look; after the restart that an update is, upgrade, remove and purge it.
const play = `#!/bin/sh
exec >/dev/ttyS0 2>&1
say() { echo "PLAY: $*"; }
must() { "$@" || { say "FAILED: $*"; systemctl --no-pager -l status 'hallmark-*'; journalctl --no-pager -n 40; exit 1; }; }
until_() { i=0; until sh -c "$1"; do i=$((i+1)); [ $i -lt 240 ] || must sh -c "$1"; sleep 1; done; }
status() { hallmark-agent local --dir /run/hallmark-agent status; }
busybox ip addr add 10.0.2.15/24 dev eth0
busybox ip link set eth0 up
if [ ! -e /installed ]; then
  must dpkg -i /hallmark-agent-1.0.0.deb
  must systemctl enable --now hallmark-keys.socket
  must [ -S /run/hallmark-keys/keys.sock ]
  must systemctl start hallmark-keys.service
  sleep 2
  must systemctl is-active hallmark-keys.service
  must grep -q hallmark-keys /proc/$(systemctl show -P MainPID hallmark-keys.service)/cgroup
  must [ "$(stat -c %U /proc/$(systemctl show -P MainPID hallmark-keys.service))" = hallmark-keys ]
  say "the keys run"
  must systemctl enable --now hallmark-agent
  until_ '[ -S /run/hallmark-agent/local.sock ]'
  group=$(echo /sys/fs/cgroup/system.slice/hallmark-agent.service/hallmark-*-app)
  until_ "[ -e $group/memory.max ]"
  must [ "$(cat $group/memory.max) $(cat $group/pids.max) $(cat $group/cpu.max)" = "67108864 64 100000 100000" ]
  must [ -n "$(cat $group/cgroup.procs)" ]
  say "the program is in its control group"
  must systemd-run --quiet --wait --pipe -p Delegate=yes -E HALLMARK_GROUPS=1 /bin/launch.test -test.v -test.run TestAControlGroupHoldsItsProgram
  say "control groups hold"
  touch /installed
  sync
  exit 0
fi
until_ 'hallmark-agent local --dir /run/hallmark-agent status | tr -d " \n" | grep -q "\"version\":\"1.1.0\".*\"trial\":false"'
pid=$(systemctl show -P MainPID hallmark-agent)
must dpkg -i /hallmark-agent-1.1.0.deb
must [ "$(systemctl show -P MainPID hallmark-agent)" = "$pid" ]
must status >/dev/null
say "an upgrade restarts nothing"
must dpkg --remove hallmark-agent
must [ "$(systemctl is-active hallmark-agent)" = inactive ]
must [ ! -e /usr/bin/hallmark-agent ]
echo key >/var/lib/hallmark-keys/key # this device's are in its TPM
must dpkg --purge hallmark-agent
must [ "$(cat /var/lib/hallmark-keys/key)" = key ]
say "removed and purged, and the keys are there"
systemctl poweroff
`

// debian makes the disk of a Debian with systemd, two versions of the package, and what plays.
func (g *guest) debian(from, agent string) {
	g.t.Helper()
	run := func(env []string, name string, args ...string) {
		g.t.Helper()
		cmd := exec.CommandContext(g.t.Context(), name, args...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			g.t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	root := filepath.Join(g.dir, "system")
	if err := os.Mkdir(root, 0o755); err != nil {
		g.t.Fatal(err)
	}
	run(nil, "tar", "-xf", filepath.Join(from, "debian.tar"), "-C", root, "--exclude=./dev/*")
	put := func(name, text string, mode os.FileMode) {
		g.t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			g.t.Fatal(err)
		}
	}
	stage := filepath.Join(g.dir, "stage")
	if err := os.Mkdir(stage, 0o755); err != nil {
		g.t.Fatal(err)
	}
	run(nil, "cp", agent, filepath.Join(stage, "hallmark-agent"))
	about, err := os.ReadFile("../../packaging/nfpm-agent.yaml")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "1.1.0"} {
		config := filepath.Join(g.dir, "nfpm.yaml")
		text := strings.NewReplacer("${STAGE}", stage, "${STAMP}", "2026-01-01T00:00:00Z", "${GOARCH}", "amd64", "${VERSION}", version).Replace(string(about))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
		run(nil, os.Getenv("HALLMARK_NFPM"), "package", "-f", config, "-p", "deb", "-t", filepath.Join(root, "hallmark-agent-"+version+".deb"))
	}
	run([]string{"CGO_ENABLED=0"}, "go", "test", "-c", "-buildvcs=false", "-o", filepath.Join(root, "bin/launch.test"), "./agent/launch")
	run(nil, "cp", filepath.Join(from, "busybox"), filepath.Join(root, "bin/busybox"))
	put("etc/hosts", "10.0.2.2 localhost\n", 0o644)
	put("etc/fstab", "", 0o644)
	put("etc/hallmark-agent/board.json", boardJSON("/dev/vda", "/dev/tpmrm0", "/dev/watchdog", 0), 0o644)
	put("play", play, 0o755)
	put("etc/systemd/system/play.service", "[Unit]\nAfter=basic.target\n[Service]\nExecStart=/play\nKillMode=process\n", 0o644)
	for _, l := range [][2]string{
		{"../play.service", "etc/systemd/system/multi-user.target.wants/play.service"},
		{"/dev/null", "etc/systemd/system/serial-getty@ttyS0.service"},
		{"/dev/null", "etc/systemd/system/getty@tty1.service"},
	} {
		path := filepath.Join(root, l[1])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.Symlink(l[0], path); err != nil {
			g.t.Fatal(err)
		}
	}
	g.system = filepath.Join(g.dir, "system.img")
	run(nil, "mke2fs", "-q", "-t", "ext4", "-d", root, g.system, "600M")
}

// TestThePackageUnderSystemd has a device live from its package on: installed by dpkg on a machine that systemd runs, started by the packaged units as they are, updated over a restart
// that the unit asks for, its package upgraded, removed and purged; its program within the control group's limits, and those in force.
func TestThePackageUnderSystemd(t *testing.T) {
	began := time.Now()
	g, from := newGuest(t)
	if os.Getuid() != 0 || os.Getenv("HALLMARK_NFPM") == "" {
		t.Skip("scripts/interop-qemu.sh runs it, as root")
	}
	bin := programs(t)
	d := plan(Options{Devices: 1, Out: io.Discard, programs: bin})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, g.console())
		}
	}
	must(d.build(t.Context()))
	g.agent = d.bin.agent
	must(d.instance(t.Context()))
	must(d.firstRelease(t.Context()))
	tpm, board := filepath.Join(g.dir, "tpm.sock"), filepath.Join(g.dir, "board.json")
	must(os.WriteFile(board, []byte(boardJSON(filepath.Join(g.dir, "flash"), tpm, "", int64(2*d.payload())+2<<20)), 0o600))
	g.chip(tpm, false)
	must(d.produceOn(t.Context(), board))
	g.tpm.stop(os.Kill)
	a := d.agents[0]
	g.board = a.dir
	g.pack(from, g.agent)
	g.debian(from, g.agent)

	said := func(what string) {
		t.Helper()
		if ok, _ := wait(t.Context(), 15*time.Minute, func() (bool, string) {
			c := g.console()
			return strings.Contains(c, "PLAY: "+what) || strings.Contains(c, "PLAY: FAILED"), ""
		}); !ok || strings.Contains(g.console(), "PLAY: FAILED") {
			t.Fatalf("nobody says that %s:\n%s", what, g.console())
		}
		t.Logf("%s: %s", time.Since(began).Round(time.Second), what)
	}
	works := func(version string) {
		t.Helper()
		if ok, saw := wait(t.Context(), 10*time.Minute, func() (bool, string) {
			v, err := d.seen(t.Context(), a.id)
			return err == nil && works(v, version), tell(v, err)
		}); !ok {
			t.Fatalf("want it to work on %s: %s\n%s", version, saw, g.console())
		}
		t.Logf("%s: works on %s", time.Since(began).Round(time.Second), version)
	}
	g.on("")
	said("the keys run")
	said("the program is in its control group")
	works(v1)
	said("control groups hold")
	must(d.publish(t.Context(), v2, 2))
	must(d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 900}}))
	works(v2)
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		r, err := d.people["olga"].Rollout(t.Context(), "update-1")
		return err == nil && r.Rollout.Phase == rollout.Completed, observed(err, fmt.Sprint(r.Rollout.Phase))
	}); !ok {
		t.Error(saw)
	}
	said("an upgrade restarts nothing")
	said("removed and purged, and the keys are there")
	if err := g.machine.ended(t.Context(), 5*time.Minute); err != nil {
		t.Errorf("the machine is not off: %v\n%s", err, g.console())
	}
	g.cut()
	if f := g.inspect(t.Context()); f.Version != v2 || f.Counter != 2 {
		t.Errorf("without its package it is %+v: what is in flash and TPM is the device's", f)
	}
}
