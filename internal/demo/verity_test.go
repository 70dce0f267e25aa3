package demo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// verityInit is what a board's initramfs does, which its boot loader verified: the bank that it was told, through the hash tree behind it, by the root hash in
// the signed command line.
const verityInit = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
for m in $($b cat /modules) $($b cat /system-modules) $($b cat /verity-modules); do $b insmod /lib/$m.ko || echo "no module $m"; done
word() { $b sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
case $(word hallmark.bank) in a) disk=/dev/vdb ;; b) disk=/dev/vdc ;; esac
export DM_DISABLE_UDEV=1 # nobody else makes its nodes
$b mkdir -p /system /run/cryptsetup
if ! veritysetup open --hash-offset=$(word verity.tree) $disk system $disk $(word verity.root) || ! $b mount -t ext4 -o ro /dev/dm-0 /system; then
  echo "INIT: bank $(word hallmark.bank) is not what was signed"
  $b poweroff -f
fi
for d in proc sys dev; do $b mount --move /$d /system/$d; done
exec $b switch_root /system /init
`

// systemInit is the root file system's: the agent, and a program that reads a file again and again from the medium.
const systemInit = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t cgroup2 none /sys/fs/cgroup
$b mount -t tmpfs none /run
$b mount -t tmpfs none /tmp
$b mkdir /run/device /run/lock
export PATH=/bin:/usr/bin
$b ip addr add 127.0.0.1/8 dev lo
$b ip link set lo up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
echo "INIT: system $($b cat /etc/version) on $($b sed -n 's/ \/ .*//p' /proc/mounts)"
(while :; do
  $b sleep 1
  echo 3 >/proc/sys/vm/drop_caches
  $b cat /data >/dev/null 2>&1 || { echo "INIT: the kernel gives no data that was altered"; break; }
done) &
/bin/hallmark-agent run --dir /run/device --board /etc/board.json --poll-min 200ms &
wait $!
code=$?
echo "INIT: the agent ended with $code"
[ $code = 76 ] && $b reboot -f
$b poweroff -f
`

// verified is a machine whose root file system is in one of two banks, read through dm-verity. The test plays U-Boot, and the FIT that has each bank's root hash.
type verified struct {
	*guest
	u     ubooted
	roots map[string]string // by version: the words of the signed command line
	banks map[string][]byte // by version: what is laid in a bank, file system and hash tree
}

// libraries are what a program of the host needs to run elsewhere, itself included.
func (g *guest) libraries(program string) []string {
	g.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		g.t.Fatal(err)
	}
	out, err := exec.CommandContext(g.t.Context(), "ldd", path).CombinedOutput()
	if err != nil {
		g.t.Fatalf("ldd %s: %v: %s", path, err, out)
	}
	return append(regexp.MustCompile(`/\S+`).FindAllString(strings.ReplaceAll(string(out), path+":", ""), -1), path)
}

var dataMark = []byte("what a program reads while the machine runs")

// build makes the image of a version: a file system, and behind it its hash tree.
func (v *verified) build(from, version, board string) {
	v.t.Helper()
	root := filepath.Join(v.dir, "system-"+version)
	put := func(name string, data []byte, mode os.FileMode) {
		v.t.Helper()
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, data, mode)
		}
		if err != nil {
			v.t.Fatal(err)
		}
	}
	files := map[string]string{"bin/busybox": filepath.Join(from, "busybox"), "bin/hallmark-agent": v.agent}
	for _, tool := range []string{"fw_printenv", "fw_setenv"} {
		for _, path := range v.libraries(tool) {
			files[path] = path
		}
	}
	for name, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			v.t.Fatal(err)
		}
		put(name, data, 0o755)
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "var"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			v.t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"var/lock": "../run/lock", "bin/sh": "busybox", "bin/cat": "busybox"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			v.t.Fatal(err)
		}
	}
	put("init", []byte(systemInit), 0o755)
	put("data", bytes.Repeat(append([]byte(version), dataMark...), 4096), 0o644)
	put("etc/version", []byte(version), 0o644)
	put("etc/hosts", []byte("10.0.2.2 localhost\n"), 0o644)
	put("etc/board.json", []byte(board), 0o644)
	put("etc/fw_env.config", fmt.Appendf(nil, "/dev/vdd 0x0 %#x\n/dev/vdd %#x %#x\n", imageEnv, imageEnv, imageEnv), 0o644)
	image := version + ".img"
	v.u.do("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-d", root, image, fmt.Sprintf("%dk", verityTree>>10))
	said := v.u.do("veritysetup", "format", "--hash-offset", fmt.Sprint(verityTree), "--data-blocks", fmt.Sprint(verityTree/4096), image, image)
	hash := regexp.MustCompile(`Root hash:\s*([0-9a-f]{64})`).FindStringSubmatch(said)
	if hash == nil {
		v.t.Fatal(said)
	}
	v.roots[version] = fmt.Sprintf("verity.tree=%d verity.root=%s", verityTree, hash[1])
	var err error
	if v.banks[version], err = os.ReadFile(v.u.at(image)); err != nil {
		v.t.Fatal(err)
	}
}

const (
	verityTree = 40 << 20 // where the hash tree begins
	verityBank = 41 << 20
)

// start has U-Boot start the machine once, from the bank that its environment says; with is what it finds in the FIT, and empty: what belongs to the bank.
func (v *verified) start(with string) {
	v.t.Helper()
	v.u.uboot()
	cmdline, err := os.ReadFile(v.u.at("cmdline"))
	if err != nil {
		v.t.Fatal(err)
	}
	_, bank, _ := strings.Cut(strings.TrimSpace(string(cmdline)), "hallmark.bank=")
	for version, b := range v.banks {
		if with == "" && bytes.HasPrefix(v.u.bank(bank), b[:1<<20]) {
			with = v.roots[version]
		}
	}
	v.on("hallmark.bank=" + bank + " " + with)
}

// off waits until the machine is off, or wants to be started again.
func (v *verified) off() {
	v.t.Helper()
	if err := v.machine.ended(v.t.Context(), 10*time.Minute); err != nil {
		v.t.Fatalf("the machine is not off: %v\n%s", err, v.console())
	}
	v.cut()
}

// says waits for words on the console.
func (v *verified) says(words string) {
	v.t.Helper()
	if ok, _ := wait(v.t.Context(), 8*time.Minute, func() (bool, string) { return strings.Contains(v.console(), words), "" }); !ok {
		v.t.Fatalf("nobody says %q:\n%s", words, v.console())
	}
}

// alter changes a byte of the data that lies in a bank, on the medium.
func (v *verified) alter(bank string) {
	v.t.Helper()
	at := bytes.LastIndex(v.u.bank(bank), dataMark)
	if at < 0 {
		v.t.Fatal("the data is not in the bank as it is")
	}
	f, err := os.OpenFile(v.u.at(bank+".img"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{dataMark[0] ^ 1}, int64(at))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// newVerified makes the machine's disks, and the systems of two versions.
func newVerified(t *testing.T, agent string) (v *verified, from string, board func(flash int64) string) {
	t.Helper()
	g, from := newGuest(t)
	v = &verified{guest: g, u: ubooted{t: t, dir: t.TempDir()}, roots: map[string]string{}, banks: map[string][]byte{}}
	g.agent = agent
	v.u.put("env.txt", []byte("bootlimit=3\n"))
	v.u.do("mkenvimage", "-r", "-s", fmt.Sprint(imageEnv), "-o", "one.img", "env.txt")
	one, err := os.ReadFile(v.u.at("one.img"))
	if err != nil {
		t.Fatal(err)
	}
	v.u.put("env.img", append(bytes.Clone(one), one...))
	v.u.put("fw_env.config", fmt.Appendf(nil, "%[1]s 0x0 %#[2]x\n%[1]s %#[2]x %#[2]x\n", v.u.at("env.img"), imageEnv))
	v.u.put("cmdline", []byte("hallmark.bank=a\n"))
	described := func(b, banks string) string {
		return strings.TrimSuffix(b, "}") + `, "banks": {` + banks + `, "installer": ["sh", "-c", "cat >/dev/disk-{bank}", "{bank}"]}}`
	}
	// The installer is a word of the shell: whatever reads its input and writes the bank will do.
	inside := strings.ReplaceAll(described(boardJSON("/dev/vda", "/dev/tpmrm0", "", 0), `"a": "/dev/vdb", "b": "/dev/vdc", "environment": "/etc/fw_env.config"`),
		"cat >/dev/disk-{bank}", "case {bank} in a) cat >/dev/vdb ;; b) cat >/dev/vdc ;; esac")
	for _, version := range []string{v1, v2} {
		v.build(from, version, inside)
	}
	v.u.put("a.img", append(bytes.Clone(v.banks[v1]), make([]byte, verityBank-len(v.banks[v1]))...))
	v.u.put("b.img", make([]byte, verityBank))
	g.init = verityInit
	g.files = g.libraries("veritysetup")
	g.more = []string{"-no-reboot", "-m", "384"}
	for _, disk := range []string{"a", "b", "env"} {
		g.more = append(g.more, "-drive", fmt.Sprintf("if=none,id=%s,format=raw,file=%s", disk, v.u.at(disk+".img")), "-device", "virtio-blk-pci,drive="+disk)
	}
	return v, from, func(flash int64) string {
		return described(boardJSON(filepath.Join(g.dir, "flash"), filepath.Join(g.dir, "tpm.sock"), "", flash), fmt.Sprintf(`"a": %q, "b": %q, "environment": %q, "cmdline": %q`,
			v.u.at("a.img"), v.u.at("b.img"), v.u.at("fw_env.config"), v.u.at("cmdline")))
	}
}

// TestABankUnderVerity has a device's root file system in banks that the kernel reads through dm-verity, the agent in them: updated over a restart with the hash tree that came in the
// image; altered while it runs, the kernel gives nothing of what was altered; at the next start the bank is measured, and the evidence tells; and by another root hash nothing starts.
func TestABankUnderVerity(t *testing.T) {
	began := time.Now()
	if os.Getenv("HALLMARK_QEMU") == "" {
		t.Skip("scripts/interop-qemu.sh runs it, with a kernel")
	}
	d := plan(Options{Devices: 1, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	must := func(err error) {
		t.Helper()
		if err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	must(d.build(t.Context()))
	v, from, board := newVerified(t, d.bin.agent)
	d.images["room"] = make([]byte, len(d.images[v2])+verityBank) // that the order is to say of a slot; no version
	must(d.instance(t.Context()))
	d.beside = map[string][]part{}
	for version, bank := range v.banks {
		digest, err := d.people["rita"].Upload(t.Context(), productID, "root-"+version, false, bytes.NewReader(bank))
		must(err)
		sum := sha256.Sum256(bank)
		d.beside[version] = []part{{release.Component{
			Name: "root", Kind: wire.KindImage, Version: version, Artifact: digest, Health: wire.HealthNone,
			Laid: &wire.Laid{Size: uint64(len(bank)), Digest: sum[:]},
		}, sum[:]}}
	}
	must(d.firstRelease(t.Context()))
	described := filepath.Join(v.dir, "board.json")
	must(os.WriteFile(described, []byte(board(int64(2*d.payload())+4<<20)), 0o600))
	v.chip(filepath.Join(v.dir, "tpm.sock"), false)
	must(d.produceOn(t.Context(), described))
	v.tpm.stop(os.Kill)
	device := d.agents[0].id
	v.pack(from, filepath.Join(from, "busybox"))
	sees := func(what string, want func(httpapi.DeviceDetail) bool) {
		t.Helper()
		if ok, saw := wait(t.Context(), 10*time.Minute, func() (bool, string) {
			s, err := d.seen(t.Context(), device)
			return err == nil && want(s), tell(s, err)
		}); !ok {
			t.Fatalf("want %s: %s\n%s", what, saw, v.console())
		}
		t.Logf("%s: %s", time.Since(began).Round(time.Second), what)
	}
	runs := func(version string) func(httpapi.DeviceDetail) bool {
		return func(s httpapi.DeviceDetail) bool {
			return works(s, version) && !strings.Contains(strings.Join(s.Device.Reasons, " "), "measured")
		}
	}

	v.start("")
	v.says("INIT: system " + v1 + " on /dev/dm-0")
	sees("it works on "+v1+" from bank a", runs(v1))

	must(d.publish(t.Context(), v2, 2))
	must(d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 1200}}))
	v.off() // the agent wants to be started from the other bank
	v.start("")
	v.says("INIT: system " + v2 + " on /dev/dm-0")
	sees("it works on "+v2+" from bank b", runs(v2))
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		r, err := d.people["olga"].Rollout(t.Context(), "update-1")
		return err == nil && r.Rollout.Phase == rollout.Completed, observed(err, fmt.Sprint(r.Rollout.Phase))
	}); !ok {
		t.Error(saw)
	}
	if env := v.u.env(); env["hallmark_bank"] != "b" || env["upgrade_available"] == "1" {
		t.Errorf("the boot loader was told %v, want bank b for good", env)
	}

	v.alter("b")
	v.says("INIT: the kernel gives no data that was altered")
	t.Logf("%s: altered while it runs: not given", time.Since(began).Round(time.Second))
	v.cut()
	v.start(v.roots[v2]) // its root hash is right, and the tree finds what was altered only where somebody reads it: the agent reads all
	sees("the evidence tells that the bank was altered", func(s httpapi.DeviceDetail) bool { return s.Device.Verdict == "contraindicated" })
	v.cut()

	v.start(v.roots[v1])
	v.says("INIT: bank b is not what was signed")
	v.off()
}
