package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw/linux"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// ubooted is a machine that U-Boot starts from one of two banks: the test plays U-Boot, over a real environment, by the algorithm of its
// CONFIG_BOOTCOUNT_ENV. What it starts is the agent.
type ubooted struct {
	t       *testing.T
	dir     string
	c       linux.Config
	run     running
	starts  int
	stopped bool
	mu      sync.Mutex // guards stopped and starts
}

func (u *ubooted) at(name string) string { return filepath.Join(u.dir, name) }

func (u *ubooted) do(name string, args ...string) string {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), name, args...)
	cmd.Dir = u.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func (u *ubooted) put(name string, data []byte) string {
	u.t.Helper()
	if err := os.WriteFile(u.at(name), data, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return u.at(name)
}

const (
	imageBank = 4 << 20
	imageEnv  = 16 << 10
	slowBytes = 1500000 // of an image the installer gets at once; the rest two seconds later
)

// newUbooted makes the machine, started from bank a, where system is.
func newUbooted(t *testing.T, system []byte, keys string, flash int64) *ubooted {
	t.Helper()
	for _, tool := range []string{"swupdate", "fw_setenv", "mkenvimage", "cpio", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/setup-test.sh", tool)
		}
	}
	u := &ubooted{t: t, dir: t.TempDir()}
	u.put("env.txt", []byte("bootlimit=3\n"))
	u.do("mkenvimage", "-r", "-s", fmt.Sprint(imageEnv), "-o", "one.img", "env.txt")
	one, err := os.ReadFile(u.at("one.img"))
	if err != nil {
		t.Fatal(err)
	}
	env := u.put("env.img", append(bytes.Clone(one), one...))
	u.do("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "maker.key", "-out", "maker.pem", "-days", "3650", "-subj", "/CN=maker",
		"-addext", "extendedKeyUsage=emailProtection,codeSigning", "-addext", "keyUsage=digitalSignature")
	slowly := fmt.Sprintf("(head -c %d; sleep 2; cat) | swupdate -M -m -H board:1.0 -k %s -e stable,$0 -i /dev/stdin", slowBytes, u.at("maker.pem"))
	u.c = linux.Config{
		Kind: linux.Kind, Revision: hardware, ChipUID: "0123456789abcdef0123456789abcdef", Flash: linux.FlashConfig{Path: u.at("flash"), Erase: 16384, Size: flash}, Parts: "file:" + u.at("parts"),
		Keys: keys, Virtual: true, Banks: linux.BanksConfig{
			A: u.put("a.img", append(bytes.Clone(system), make([]byte, imageBank-len(system))...)), B: u.put("b.img", make([]byte, imageBank)),
			Environment: u.put("fw_env.config", fmt.Appendf(nil, "%s 0x0 %#x\n%s %#x %#x\n", env, imageEnv, env, imageEnv, imageEnv)),
			Cmdline:     u.put("cmdline", []byte("console=ttyS0 hallmark.bank=a\n")), Installer: []string{"sh", "-c", slowly, "{bank}"},
		},
	}
	return u
}

// image makes what swupdate installs, and says what lies in a bank then.
func (u *ubooted) image(name string, system []byte) (image []byte, laid *wire.Laid) {
	u.t.Helper()
	if err := os.Mkdir(u.at(name), 0o700); err != nil {
		u.t.Fatal(err)
	}
	sum := sha256.Sum256(system)
	u.put(filepath.Join(name, "root.img"), system)
	one := func(path string) string {
		return fmt.Sprintf(`{ images: ( { filename = "root.img"; device = "%s"; type = "raw"; sha256 = "%x"; installed-directly = true; } ); };`, path, sum)
	}
	u.put(filepath.Join(name, "sw-description"), fmt.Appendf(nil, "software = { version = \"2.0.0\"; hardware-compatibility: [ \"1.0\" ];\n stable = { a: %s\n b: %s };\n};\n",
		one(u.c.Banks.A), one(u.c.Banks.B)))
	u.do("sh", "-ec", "cd "+name+`; openssl cms -sign -in sw-description -out sw-description.sig -signer ../maker.pem -inkey ../maker.key -outform DER -nosmimecap -binary
		printf 'sw-description\nsw-description.sig\nroot.img\n' | cpio -o -H crc --quiet >image.swu`)
	image, err := os.ReadFile(u.at(filepath.Join(name, "image.swu")))
	if err != nil {
		u.t.Fatal(err)
	}
	return image, &wire.Laid{Size: uint64(len(system)), Digest: sum[:]}
}

func (u *ubooted) env() map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(u.do("fw_printenv", "-c", "fw_env.config")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[name] = value
	}
	return out
}

// uboot starts the machine: on trial it counts, and behind the limit, or where no kernel is, it runs altbootcmd.
func (u *ubooted) uboot() {
	for {
		env := u.env()
		bank := "a"
		if env["hallmark_bank"] != "" {
			bank = env["hallmark_bank"]
		}
		if env["upgrade_available"] == "1" {
			count := 0
			_, _ = fmt.Sscan(env["bootcount"], &count)
			u.put("script", fmt.Appendf(nil, "bootcount=%d\nhallmark_boot=another\n", count+1)) // the kernel's number of a start is another one at the next
			if count+1 > 3 {
				bank = map[string]string{"a": "b", "b": "a"}[bank]
			}
		} else {
			u.put("script", []byte("hallmark_boot=another\n"))
		}
		u.do("fw_setenv", "-c", "fw_env.config", "-s", "script")
		u.put("cmdline", []byte("console=ttyS0 hallmark.bank="+bank+"\n"))
		head := make([]byte, 4)
		f, err := os.Open(u.at(bank + ".img"))
		if err == nil {
			_, err = io.ReadFull(f, head)
			_ = f.Close()
		}
		if err != nil {
			u.t.Error(err)
			return
		}
		if string(head) != "dead" {
			return
		}
	}
}

// live starts the machine, and again whenever the agent asks for it by its exit code, until stop.
func (u *ubooted) live(agent string) {
	go func() {
		for u.t.Context().Err() == nil {
			u.mu.Lock()
			if u.stopped {
				u.mu.Unlock()
				return
			}
			u.starts++
			u.uboot()
			log, err := os.OpenFile(u.at("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			cmd := exec.Command(agent, "run", "--dir", u.dir, "--poll-min", "200ms")
			cmd.Stderr = log
			if err == nil {
				err = u.run.start(cmd)
				_ = log.Close()
			}
			l, _ := u.run.now()
			u.mu.Unlock()
			if err != nil {
				u.t.Error(err)
				return
			}
			<-l.done
			var exit *exec.ExitError
			if !errors.As(l.err, &exit) || exit.ExitCode() != 76 && exit.ExitCode() != -1 {
				u.t.Errorf("the agent ended with %v: %s", l.err, u.log())
				return
			}
			if exit.ExitCode() == -1 {
				time.Sleep(3 * time.Second) // an installer that lost its image has ended by then, as the power would have ended it
			}
		}
	}()
}

func (u *ubooted) stop() {
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
	u.run.stop(os.Kill)
}

func (u *ubooted) log() string {
	data, _ := os.ReadFile(u.at("agent.log"))
	return string(data[max(0, len(data)-5000):])
}

func (u *ubooted) bank(name string) []byte {
	u.t.Helper()
	data, err := os.ReadFile(u.at(name + ".img"))
	if err != nil {
		u.t.Fatal(err)
	}
	return data
}

// A device whose root file system is outside of its flash is updated by SWUpdate and U-Boot as by itself: one release, one trial, one way back. Its power
// fails while SWUpdate writes, of an image that came sealed; a system that never comes up, and one whose program is sick, are gone back from; and what lies in the bank is evidence.
func TestSWUpdateInstallsWhatARolloutBrings(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a whole life")
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
	beside, err := os.MkdirTemp("", "hm") // short: a socket's path has an end
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(beside) })
	keys := exec.CommandContext(t.Context(), d.bin.agent, "keys", "--dir", filepath.Join(beside, "keys"), "--socket", filepath.Join(beside, "s"))
	must(keys.Start())
	t.Cleanup(func() { _ = keys.Process.Kill(); _ = keys.Wait() })
	if ok, saw := wait(t.Context(), time.Minute, func() (bool, string) {
		c, err := net.Dial("unix", filepath.Join(beside, "s"))
		if err == nil {
			_ = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	}); !ok {
		t.Fatal(saw)
	}
	const v3 = "1.3.0"
	systems := map[string][]byte{}
	for i, v := range []string{v1, v2, v3, vBad} {
		systems[v] = make([]byte, 3<<20)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(systems[v])
	}
	copy(systems[v3], "dead")
	d.images[v3] = append(bytes.Clone(d.images[v2]), 3)
	d.images["room"] = make([]byte, len(d.images[v2])+3<<20) // that the order is to say of a slot; no version
	u := newUbooted(t, systems[v1], "isolated:"+filepath.Join(beside, "s"), int64(2*d.payload())+4<<20)
	t.Cleanup(u.stop)
	must(d.instance(t.Context()))
	d.beside = map[string][]part{}
	for v, system := range systems {
		image, laid := u.image(v, system)
		digest, err := d.people["rita"].Upload(t.Context(), productID, "root-"+v, v == v2, bytes.NewReader(image)) // one is sealed
		must(err)
		built := sha256.Sum256(image)
		if bytes.Equal(digest, built[:]) == (v == v2) {
			t.Fatalf("the image of %s is stored as it came: %t", v, v == v2)
		}
		d.beside[v] = []part{{release.Component{Name: "root", Kind: wire.KindImage, Version: v, Artifact: digest, Health: wire.HealthNone, Laid: laid}, built[:]}}
	}
	must(d.firstRelease(t.Context()))
	data, err := json.Marshal(u.c)
	must(err)
	board := u.put("board.json", data)
	must(d.produceOn(t.Context(), board))
	device := d.agents[0].id
	runs := func(version, bank string) {
		t.Helper()
		if ok, saw := wait(t.Context(), 8*time.Minute, func() (bool, string) {
			v, err := d.seen(t.Context(), device)
			return err == nil && works(v, version) && !strings.Contains(strings.Join(v.Device.Reasons, " "), "measured"), tell(v, err)
		}); !ok {
			t.Fatalf("want it to work on %s: %s\n%s", version, saw, u.log())
		}
		if env := u.env(); env["hallmark_bank"] != bank && env["hallmark_bank"]+bank != "a" || env["upgrade_available"] == "1" {
			t.Errorf("on %s the boot loader was told %v, want bank %s for good", version, env, bank)
		}
		if !bytes.HasPrefix(u.bank(bank), systems[version]) {
			t.Errorf("bank %s does not have the system of %s", bank, version)
		}
		if cmdline, _ := os.ReadFile(u.at("cmdline")); !strings.Contains(string(cmdline), "hallmark.bank="+bank) {
			t.Errorf("on %s the machine was started with %q", version, cmdline)
		}
	}
	ends := func(id string, phase rollout.Phase) {
		t.Helper()
		if ok, saw := wait(t.Context(), 8*time.Minute, func() (bool, string) {
			r, err := d.people["olga"].Rollout(t.Context(), id)
			return err == nil && r.Rollout.Phase == phase, observed(err, fmt.Sprintf("%s: %s", r.Rollout.Phase, r.Rollout.Reason))
		}); !ok {
			t.Fatalf("rollout %s is to be %s: %s\n%s", id, phase, saw, u.log())
		}
	}
	u.live(d.bin.agent)
	runs(v1, "a")

	must(d.publish(t.Context(), v2, 2))
	must(d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 600}}))
	if ok, _ := wait(t.Context(), 5*time.Minute, func() (bool, string) { return !bytes.Equal(u.bank("b"), make([]byte, imageBank)), "" }); !ok {
		t.Fatalf("the system is not written:\n%s", u.log())
	}
	l, _ := u.run.now()
	must(l.cmd.Process.Kill())
	if bytes.HasPrefix(u.bank("b"), systems[v2]) {
		t.Error("the power was cut when all was written already")
	}
	ends("update-1", rollout.Completed)
	runs(v2, "b")

	must(d.publish(t.Context(), v3, 2, v2))
	must(d.rollout(t.Context(), "update-2", v3, v2, []rollout.Wave{{Soak: 1, Deadline: 600}}))
	ends("update-2", rollout.RolledBack)
	runs(v2, "b")
	if !bytes.HasPrefix(u.bank("a"), systems[v3]) {
		t.Error("the system that never came up was not tried")
	}

	must(d.publish(t.Context(), vBad, 2, v2))
	must(d.rollout(t.Context(), "update-3", vBad, v2, []rollout.Wave{{Soak: 1, Deadline: 600}}))
	ends("update-3", rollout.RolledBack)
	runs(v2, "b")

	// Whoever writes the bank that runs changes what is measured, and what was not signed starts nothing.
	u.stop()
	spoilt := u.bank("b")
	spoilt[len(systems[v2])-1] ^= 1
	u.put("b.img", spoilt)
	u.mu.Lock()
	u.stopped = false
	u.mu.Unlock()
	u.live(d.bin.agent)
	if ok, saw := wait(t.Context(), 5*time.Minute, func() (bool, string) {
		v, err := d.seen(context.WithoutCancel(t.Context()), device)
		return err == nil && v.Device.Verdict == "contraindicated", tell(v, err)
	}); !ok {
		t.Errorf("a bank that was written by somebody: %s\n%s", saw, u.log())
	}
}
