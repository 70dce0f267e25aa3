package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/rollout"
)

// guest is a machine that QEMU makes: a real kernel, a block device, a TPM, and the agent as a child of PID 1.
type guest struct {
	t                *testing.T
	dir, board       string // of the device: its disk, its TPM, its console
	kernel, initrd   string
	system           string   // a disk with a whole system, which starts the agent instead; empty: the initramfs does
	init             string   // what PID 1 does; empty: guestInit
	more             []string // of QEMU's arguments
	files            []string // of the host, that the initramfs has in the same place
	machine, tpm     running
	agent, programme string // the agent, and swtpm
}

// init starts the agent, and does to the machine what the agent asks for by its exit code.
const guestInit = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
$b mount -t cgroup2 none /sys/fs/cgroup
for m in $($b cat /modules); do $b insmod /lib/$m.ko || echo "no module $m"; done
if [ -b /dev/vdb ]; then # a whole system is there
  for m in $($b cat /system-modules); do $b insmod /lib/$m.ko || echo "no module $m"; done
  $b mkdir /system
  $b mount -t ext4 /dev/vdb /system && exec $b switch_root /system /sbin/init
  $b poweroff -f
fi
if [ -x /bin/board.test ]; then
  for m in $($b cat /flash-modules); do
    case $m in mtdram) with="total_size=1024 erase_size=32" ;; nandsim) with="badblocks=3" ;; *) with="" ;; esac
    $b insmod /lib/$m.ko $with || echo "no module $m"
  done
  HALLMARK_MTD=/dev/mtd0 HALLMARK_MTD_BAD=/dev/mtd1 /bin/board.test -test.v -test.run 'TestAnMTDIsFlash'
  $b poweroff -f
fi
$b ip addr add 127.0.0.1/8 dev lo
$b ip link set lo up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
/bin/hallmark-agent run --dir /run/device --board /etc/board.json --poll-min 200ms &
agent=$!
if $b grep -q hang /proc/cmdline; then
  until [ -S /run/device/local.sock ]; do $b sleep 1; done
  echo "the agent hangs"
  kill -STOP $agent
fi
wait $agent
code=$?
echo "the agent ended with $code"
[ $code = 76 ] && $b reboot -f
$b poweroff -f
`

// guestModules are what the kernel needs of the machine, in the order in which they need each other.
const guestModules = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net watchdog softdog"

// flashModules are the kernel's simulations of flash parts: one in memory, and one with a bad block.
const flashModules = "mtd mtdram bch nandcore nand nandsim"

// systemModules are what it needs to mount a disk.
const systemModules = "crc16 crc32c_generic libcrc32c mbcache jbd2 ext4"

// verityModules are what it needs to read a disk through a hash tree.
const verityModules = "dm-mod dm-bufio reed_solomon dm-verity"

// boardJSON describes the same board on the host, where a station makes it, and in the guest, where it lives.
func boardJSON(flash, tpm, watchdog string, size int64) string {
	if watchdog != "" {
		watchdog = fmt.Sprintf(`, "watchdog": {"path": %q, "seconds": 40}`, watchdog)
	}
	return fmt.Sprintf(`{"kind": "linux", "revision": %q, "chip_uid": "51454d5500000001", "virtual": true, "flash": {"path": %q, "erase": 16384, "size": %d},
		"parts": "tpm:%s", "keys": "tpm:%s"%s}`, hardware, flash, size, tpm, tpm, watchdog)
}

// produceOn has the station make devices on the board that a file describes: the station's place is where the board is laid.
func (d *demo) produceOn(ctx context.Context, board string) error {
	agent := d.bin.agent
	defer func() { d.bin.agent = agent }()
	d.bin.agent = filepath.Join(filepath.Dir(board), "fixture")
	script := "#!/bin/sh\n[ \"$1\" = factory ] && cp " + board + " \"$3/board.json\"\nexec " + agent + " \"$@\"\n"
	if err := os.WriteFile(d.bin.agent, []byte(script), 0o700); err != nil {
		return err
	}
	return d.produce(ctx)
}

// pack makes the initramfs around a program.
func (g *guest) pack(from, program string) {
	g.t.Helper()
	root := filepath.Join(g.dir, "root")
	put := func(name, from, text string, mode os.FileMode) {
		g.t.Helper()
		data := []byte(text)
		if from != "" {
			var err error
			if data, err = os.ReadFile(from); err != nil {
				g.t.Fatal(err)
			}
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, data, mode); err != nil {
			g.t.Fatal(err)
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run/device"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			g.t.Fatal(err)
		}
	}
	put("init", "", cmp.Or(g.init, guestInit), 0o755)
	put("modules", "", guestModules, 0o644)
	put("etc/hosts", "", "10.0.2.2 localhost\n", 0o644) // the host, as QEMU's network shows it
	put("etc/board.json", "", boardJSON("/dev/vda", "/dev/tpmrm0", "/dev/watchdog", 0), 0o644)
	put("bin/busybox", filepath.Join(from, "busybox"), "", 0o755)
	put("flash-modules", "", flashModules, 0o644)
	put("system-modules", "", systemModules, 0o644)
	put("verity-modules", "", verityModules, 0o644)
	put("bin/"+filepath.Base(program), program, "", 0o755)
	for m := range strings.FieldsSeq(guestModules + " " + flashModules + " " + systemModules + " " + verityModules) {
		put("lib/"+m+".ko", filepath.Join(from, "modules", m+".ko"), "", 0o644)
	}
	for _, path := range g.files {
		put(path, path, "", 0o755)
	}
	g.initrd = filepath.Join(g.dir, "initrd")
	cmd := exec.CommandContext(g.t.Context(), "sh", "-c", "find . | cpio -o -H newc --quiet | gzip -1 > "+g.initrd)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("cpio: %v: %s", err, out)
	}
}

// chip gives the TPM power: for programs of the host at a socket, or for the machine.
func (g *guest) chip(socket string, forMachine bool) {
	g.t.Helper()
	_ = os.Remove(socket) // left by the one before
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + g.dir}
	if forMachine {
		args = append(args, "--ctrl", "type=unixio,path="+socket)
	} else {
		args = append(args, "--flags", "not-need-init,startup-clear", "--server", "type=unixio,path="+socket)
	}
	if err := g.tpm.start(exec.Command(g.programme, args...)); err != nil {
		g.t.Fatal(err)
	}
	if ok, saw := wait(g.t.Context(), time.Minute, func() (bool, string) {
		if forMachine { // the one connection it takes is the machine's
			_, err := os.Stat(socket)
			return err == nil, fmt.Sprint(err)
		}
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	}); !ok {
		g.t.Fatal(saw)
	}
}

// on switches the machine on, with a word for its init.
func (g *guest) on(word string) {
	g.t.Helper()
	socket := filepath.Join(g.dir, "ctrl.sock")
	g.chip(socket, true)
	console, err := os.OpenFile(filepath.Join(g.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("qemu-system-x86_64", "-no-user-config", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-display", "none", "-monitor", "none", "-serial", "stdio",
		"-kernel", g.kernel, "-initrd", g.initrd, "-append", "console=ttyS0 quiet panic=-1 "+word,
		"-drive", "if=none,id=disk,format=raw,throttling.bps-write=1000000,file="+filepath.Join(g.dir, "flash"), "-device", "virtio-blk-pci,drive=disk",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-chardev", "socket,id=tpm,path="+socket, "-tpmdev", "emulator,id=chip,chardev=tpm", "-device", "tpm-tis,tpmdev=chip")
	if g.system != "" {
		cmd.Args = append(cmd.Args, "-drive", "if=none,id=system,format=raw,file="+g.system, "-device", "virtio-blk-pci,drive=system", "-m", "768")
	}
	cmd.Args = append(cmd.Args, g.more...)
	cmd.Stdout, cmd.Stderr = console, console
	if err := g.machine.start(cmd); err != nil {
		g.t.Fatal(err)
	}
}

// cut takes machine and TPM from the power.
func (g *guest) cut() {
	g.machine.stop(os.Kill)
	g.tpm.stop(os.Kill)
}

func (g *guest) console() string {
	data, _ := os.ReadFile(filepath.Join(g.dir, "console.log"))
	return string(data[max(0, len(data)-6000):])
}

// inspect looks at the device that is switched off, from the host.
func (g *guest) inspect(ctx context.Context) (f inspected) {
	g.t.Helper()
	g.chip(filepath.Join(g.dir, "tpm.sock"), false)
	defer g.tpm.stop(os.Kill)
	out, err := output(exec.CommandContext(ctx, g.agent, "inspect", "--dir", g.board))
	if err == nil {
		err = json.Unmarshal([]byte(out), &f)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

// flash reads the device's block device.
func (g *guest) flash() []byte {
	g.t.Helper()
	disk, err := os.ReadFile(filepath.Join(g.dir, "flash"))
	if err != nil {
		g.t.Fatal(err)
	}
	return disk
}

// cutInTheMiddle waits until a part of an image is on the flash that was not there before, cuts the power, and gives whether its end was missing then.
func (g *guest) cutInTheMiddle(ctx context.Context, before, next []byte) bool {
	g.t.Helper()
	const page = 512 // images lie on the flash page by page, wherever that is
	written := func(at int) bool {
		part := next[at/page*page:][:page]
		return bytes.Count(g.flash(), part) > bytes.Count(before, part)
	}
	if ok, _ := wait(ctx, 8*time.Minute, func() (bool, string) { return written(len(next) / 3), "" }); !ok {
		g.t.Fatalf("the update is not written:\n%s", g.console())
	}
	g.cut()
	return !written(len(next) - 2*page)
}

// newGuest makes a place for a machine, and says where its kernel is.
func newGuest(t *testing.T) (g *guest, from string) {
	t.Helper()
	if from = os.Getenv("HALLMARK_QEMU"); from == "" {
		t.Skip("scripts/interop-qemu.sh runs it, with a kernel")
	}
	dir, err := os.MkdirTemp("", "hm") // short: a socket's path has an end
	if err != nil {
		t.Fatal(err)
	}
	g = &guest{t: t, dir: dir, kernel: filepath.Join(from, "vmlinuz")}
	t.Cleanup(func() { g.cut(); _ = os.RemoveAll(dir) })
	if g.programme, err = exec.LookPath("swtpm"); err != nil {
		t.Fatal(err)
	}
	return g, from
}

// TestFlashPartsInQEMU has the boards' own list run over the flash parts that a kernel simulates.
func TestFlashPartsInQEMU(t *testing.T) {
	g, from := newGuest(t)
	program := filepath.Join(g.dir, "board.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-buildvcs=false", "-o", program, "../../agent/hw/linux")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "flash"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g.pack(from, program)
	g.on("")
	err := g.machine.ended(t.Context(), 8*time.Minute)
	if said := g.console(); err != nil || !strings.Contains(said, "--- PASS: TestAnMTDIsFlash") {
		t.Errorf("%v:\n%s", err, said)
	}
}

// TestADeviceInQEMU has a device live on a real kernel and a real block device: made at a station, updated from slot to slot over restarts of the
// machine, with the power cut in the middle of the write, back from a release that is sick, and reset by its watchdog when the agent hangs.
func TestADeviceInQEMU(t *testing.T) {
	began := time.Now()
	g, from := newGuest(t)
	bin := programs(t)
	d := plan(Options{Devices: 1, Out: io.Discard, programs: bin})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	must := func(err error) {
		t.Helper()
		if err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s\n%s", err, logs[max(0, len(logs)-4000):], g.console())
		}
	}
	must(d.build(t.Context()))
	g.agent = d.bin.agent
	more := make([]byte, 6<<20) // behind the program, so that writing it takes its time
	_, _ = rand.NewChaCha8([32]byte{1}).Read(more)
	d.images[v2] = append(d.images[v2], more...)
	must(d.instance(t.Context()))
	must(d.firstRelease(t.Context()))

	tpm := filepath.Join(g.dir, "tpm.sock")
	size := int64(2*d.payload()) + 2<<20 // with what lies before the slots
	board := filepath.Join(g.dir, "board.json")
	must(os.WriteFile(board, []byte(boardJSON(filepath.Join(g.dir, "flash"), tpm, "", size)), 0o600))
	g.chip(tpm, false)
	must(d.produceOn(t.Context(), board))
	g.tpm.stop(os.Kill)
	a := d.agents[0]
	g.board = a.dir
	g.pack(from, g.agent)

	works := func(version string) {
		t.Helper()
		if ok, saw := wait(t.Context(), 8*time.Minute, func() (bool, string) {
			v, err := d.seen(t.Context(), a.id)
			return err == nil && works(v, version), tell(v, err)
		}); !ok {
			t.Fatalf("want it to work on %s: %s\n%s", version, saw, g.console())
		}
	}
	ends := func(id string, phase rollout.Phase) {
		t.Helper()
		if ok, saw := wait(t.Context(), 8*time.Minute, func() (bool, string) {
			r, err := d.people["olga"].Rollout(t.Context(), id)
			return err == nil && r.Rollout.Phase == phase, observed(err, fmt.Sprintf("%s: %s", r.Rollout.Phase, r.Rollout.Reason))
		}); !ok {
			t.Fatalf("rollout %s is to be %s: %s\n%s", id, phase, saw, g.console())
		}
	}
	g.on("")
	works(v1)
	t.Logf("%s: enrolled, runs %s", time.Since(began).Round(time.Second), v1)

	must(d.publish(t.Context(), v2, 2))
	before := g.flash()
	must(d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 600}}))
	if !g.cutInTheMiddle(t.Context(), before, d.images[v2]) {
		t.Error("the power was cut when all was written already")
	}
	if f := g.inspect(t.Context()); f.Version != v1 || f.Counter != 1 {
		t.Errorf("after the power cut it would start %+v, want %s", f, v1)
	}
	t.Logf("%s: cut in the middle of the write", time.Since(began).Round(time.Second))
	g.on("")
	works(v2)
	t.Logf("%s: runs %s", time.Since(began).Round(time.Second), v2)

	ends("update-1", rollout.Completed)

	must(d.publish(t.Context(), vBad, 2, v2))
	must(d.rollout(t.Context(), "update-2", vBad, v2, []rollout.Wave{{Soak: 1, Deadline: 600}}))
	ends("update-2", rollout.RolledBack)
	works(v2)
	v, err := d.seen(t.Context(), a.id)
	must(err)
	if v.Device.KeyOrigin != "tpm" || v.Device.Verdict != "warning" || strings.Contains(strings.Join(v.Device.Reasons, " "), "parts:") {
		t.Errorf("keys %q, evidence %s %v", v.Device.KeyOrigin, v.Device.Verdict, v.Device.Reasons)
	}
	g.cut()
	f := g.inspect(t.Context())
	if f.Version != v2 || f.Counter != 2 || f.Boots < 5 || f.Slot != "B" {
		t.Errorf("switched off it is %+v, want %s in slot B after five starts or more: made, cut, update, sick, back", f, v2)
	}
	t.Logf("%s: back on %s, %d starts", time.Since(began).Round(time.Second), f.Version, f.Boots)

	g.on("hang") // the agent is stopped, not ended: nobody but the watchdog sees that
	if ok, _ := wait(t.Context(), 8*time.Minute, func() (bool, string) {
		_, after, hangs := strings.Cut(g.console(), "the agent hangs")
		return hangs && strings.Contains(after, "watchdog is armed"), ""
	}); !ok {
		t.Fatalf("the watchdog did not reset a machine whose agent hangs:\n%s", g.console())
	}
	g.cut()
	if after := g.inspect(t.Context()); after.Boots < f.Boots+2 || after.Version != v2 {
		t.Errorf("after the watchdog's reset it is %+v", after)
	}
	t.Logf("%s: reset by the watchdog", time.Since(began).Round(time.Second))
}
