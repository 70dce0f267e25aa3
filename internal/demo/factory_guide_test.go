//go:build linux

package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// desk is a machine at which somebody types.
type desk struct {
	t    *testing.T
	dir  string
	env  []string
	keys io.Writer
	out  *bufio.Scanner
}

// newDesk makes a machine in a directory of its own; the one that has no network has it not where the kernel lets us take it away.
func newDesk(t *testing.T, name, bin string, network bool) *desk {
	t.Helper()
	d := &desk{t: t, dir: filepath.Join(t.TempDir(), name)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+d.dir, "XDG_CONFIG_HOME="+filepath.Join(d.dir, "config"))
	argv := []string{"bash"}
	if !network && exec.CommandContext(t.Context(), "unshare", "--net", "true").Run() == nil {
		argv = []string{"unshare", "--net", "bash"}
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = d.dir, d.env, &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // what people see is one thing
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.keys, d.out = in, bufio.NewScanner(out)
	d.out.Buffer(nil, 1<<20)
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // and whatever it has started
		_ = in.Close()
		for d.out.Scan() { // what comes until everything has ended
		}
		_ = cmd.Wait()
	})
	return d
}

// types types a block, and gives what was said.
func (d *desk) types(block string) string {
	d.t.Helper()
	return d.typed(d.t, block)
}

// typed is types in a test of its own.
func (d *desk) typed(t *testing.T, block string) string {
	t.Helper()
	const done = "-- typed, and it ended with "
	var said strings.Builder
	if _, err := fmt.Fprintf(d.keys, "trap 'echo \"%[2]s$?\"' EXIT\nset -e\n%[1]s\nset +e\ntrap - EXIT\necho '%[2]s0'\n", block, done); err != nil {
		t.Fatalf("%v, at\n%s", err, block)
	}
	for d.out.Scan() {
		if code, ok := strings.CutPrefix(d.out.Text(), done); ok {
			if code != "0" {
				break
			}
			return said.String()
		}
		said.WriteString(d.out.Text() + "\n")
	}
	t.Fatalf("it ended at\n%s\nwith\n%s", block, said.String())
	return ""
}

// says gives the one thing that a pattern finds.
func says(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %q in\n%s", pattern, text)
	}
	return m[1]
}

// blocksOf gives a page's shell commands that are marked with one of the words: [word, commands].
func blocksOf(text string, words ...string) (out [][2]string) {
	for _, m := range regexp.MustCompile("(?ms)^```sh ?([a-z]*)\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		if slices.Contains(words, m[1]) {
			out = append(out, [2]string{m[1], m[2]})
		}
	}
	return out
}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// centre is the factory's guide, played.
type centre struct {
	maker, station *desk
	bin, stick     string
	pass           string
	say            *strings.Replacer // what the guide writes, as it is here
}

func newCentre(t *testing.T) *centre {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real programs for a minute")
	}
	for program, pkg := range map[string]string{"softhsm2-util": "softhsm2", "p11-kit": "p11-kit p11-kit-modules", "openssl": "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: apt-get install %s", program, pkg)
		}
	}
	bin := t.TempDir()
	withModules(t, bin)
	api, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devices, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	local := strings.NewReplacer("127.0.0.1", "localhost") // the name in the server's certificate
	c := &centre{
		maker: newDesk(t, "maker", bin, true), station: newDesk(t, "centre", bin, false), bin: bin, stick: t.TempDir(), pass: "choose one",
	}
	c.say = strings.NewReplacer("localhost:8480", local.Replace(api), "localhost:8443", local.Replace(devices), "/media/stick", c.stick,
		"hallmark init ", fmt.Sprintf("hallmark init --kdf-iterations 1000 --api %s --devices %s ", api, devices))
	before, _, _ := strings.Cut(page(t, "guide/getting-started.md"), "## 3")
	for _, b := range blocksOf(before, "") {
		c.maker.types(c.say.Replace(b[1]))
		if strings.Contains(b[1], "hallmark serve") {
			if ok, _ := wait(t.Context(), 3*time.Minute, func() (bool, string) {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", api)
				return err == nil && conn.Close() == nil, ""
			}); !ok {
				t.Fatal("the maker's server does not start")
			}
		}
	}
	return c
}

// The whole way of an order through the factory's guide, copied from it: a maker and a programming centre on two machines with a stick between,
// the centre's without a network, keys in SoftHSM, every program a process of its own. Then: what the centre has of the maker's secrets, what a core dump
// of the station would hold, and what others make of the devices' certificates.
func TestTheFactoryGuideRunsAsItIsWritten(t *testing.T) {
	c := newCentre(t)
	told, maker, closed := "", "", ""
	for _, b := range blocksOf(page(t, "factory.md"), "maker", "station") {
		at, block := c.maker, c.say.Replace(b[1])
		if b[0] == "station" {
			at = c.station
		}
		if strings.HasPrefix(block, "read ") { // the telephone rings
			block = strings.TrimSpace(block) + "\n" + told
		}
		said := at.types(block)
		switch {
		case strings.Contains(block, " init "):
			told = says(t, said, `(?m)^fingerprint ([0-9a-f]{64})$`)
		case strings.Contains(block, "order oem"):
			maker = says(t, said, `(?m)^fingerprint +([0-9a-f]{64})$`)
		case strings.Contains(block, " trust "):
			if got := says(t, said, `fingerprint ([0-9a-f]{64}) \(compare`); got != maker {
				t.Errorf("the maker says its fingerprint is %s, the station %s", maker, got)
			}
		case strings.Contains(block, "run first -n"):
			t.Run("no order key in a core dump of the station", c.dump)
		case strings.Contains(block, "order close"):
			closed = strings.Join(strings.Fields(said), " ")
		}
	}
	for _, want := range []string{"state closed ordered 6 records 5 missing 0 made 5 ", "alarms 0", "unused 1 ", "passed, by ola", "station's end yes"} {
		if !strings.Contains(closed, want) {
			t.Errorf("no %q in %s", want, closed)
		}
	}
	t.Run("no secret of the maker at the centre", c.secrets)
	t.Run("the devices live", c.live)
	t.Run("openssl accepts a device's certificate", c.openssl)
}

// order is the order's part that everybody may read.
func (c *centre) order(t *testing.T) wire.Order {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.stick, "first.hmo"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.DecodeOrderFile(data)
	if err != nil {
		t.Fatal(err)
	}
	o, err := wire.Parse1(wire.TypeOrder, f.Order)
	if err != nil {
		t.Fatal(err)
	}
	order, err := wire.DecodeOrder(o.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return order
}

// dump has a device made by a station whose token is in another process, as a real one is another machine, and looks at all that the station's process
// has in memory while it waits for the next piece. Nobody but the token knows the key, so it is looked for in the token's process first: what
// gives the public key of the order's CA is it.
func (c *centre) dump(t *testing.T) {
	clients, err := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if err != nil || len(clients) != 1 {
		t.Skip("p11-kit-modules is not installed: apt-get install p11-kit-modules")
	}
	dir := t.TempDir()
	env := append(slices.Clone(c.station.env), "SOFTHSM2_CONF="+filepath.Join(c.station.dir, "softhsm2.conf"), "P11_KIT_SERVER_ADDRESS=unix:path="+dir+"/token")
	token := exec.CommandContext(t.Context(), "p11-kit", "server", "--foreground", "--name", dir+"/token", "--provider", softHSM, "pkcs11:token=bench")
	token.Env = env
	said, err := token.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = token.Process.Signal(os.Interrupt); _, _ = io.Copy(io.Discard, said); _ = token.Wait() }()
	for lines := bufio.NewScanner(said); lines.Scan() && !strings.Contains(lines.Text(), "P11_KIT_SERVER_PID"); { // it listens before it says so
	}

	config := filepath.Join(c.station.dir, "station/station.json")
	old, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, bytes.ReplaceAll(old, []byte(softHSM), []byte(clients[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(config, old, 0o600); err != nil {
			t.Fatal(err)
		}
	}()
	station := c.atLine(t, dir, env)
	key := theKey(t, c.order(t).Key.SPKI, token.Process.Pid)
	turned := slices.Clone(key)
	slices.Reverse(turned)
	public := false
	factorytest.Memory(t, station.Process.Pid, factorytest.Everything, func(part []byte) {
		if bytes.Contains(part, key) || bytes.Contains(part, turned) {
			t.Error("the order key is in the memory of the station")
		}
		public = public || bytes.Contains(part, c.order(t).Key.SPKI)
	})
	if !public {
		t.Error("not even the order's public key is in the memory that was read")
	}
	for _, s := range c.ofMaker(t) {
		factorytest.Memory(t, station.Process.Pid, factorytest.Everything, func(part []byte) {
			if bytes.Contains(part, s.bytes) {
				t.Errorf("%s of the maker is in the memory of the station", s.name)
			}
		})
	}
	absent(t, c.station.dir, secret{"the order key", key})
	if err := station.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = station.Wait() // it made one of two
}

// atLine starts the station, has it make one device, and leaves it waiting for another.
func (c *centre) atLine(t *testing.T, dir string, env []string) *exec.Cmd {
	t.Helper()
	pinFile, err := os.Open(filepath.Join(c.station.dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	defer pinFile.Close()
	station := exec.CommandContext(t.Context(), filepath.Join(c.bin, "hallmark-station"), "--dir", "./station", "--pin-fd", "3", "run", "first", "-n", "2", "--listen", dir+"/line")
	station.Dir, station.Env, station.ExtraFiles = c.station.dir, env, []*os.File{pinFile}
	says, err := station.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := station.Start(); err != nil {
		t.Fatal(err)
	}
	if ok, _ := wait(t.Context(), time.Minute, func() (bool, string) {
		_, err := os.Stat(dir + "/line")
		return err == nil, ""
	}); !ok {
		_ = station.Process.Kill()
		said, _ := io.ReadAll(says)
		t.Fatalf("the station opens no line: %s", said)
	}
	piece := exec.CommandContext(t.Context(), filepath.Join(c.bin, "hallmark-agent"), "factory", "--dir", filepath.Join(c.station.dir, "devices/by-hand"),
		"--socket", dir+"/line", "--payload-bytes", "16777216")
	if out, err := piece.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := bufio.NewScanner(says)
	for lines.Scan() {
		if strings.Contains(lines.Text(), " made") {
			go func() { _, _ = io.Copy(io.Discard, says) }()
			return station
		}
	}
	t.Fatal("the station made nothing")
	return nil
}

// theKey finds the private key of a public one in the memory of a process or its children: every 32 bytes that could be one are tried.
func theKey(t *testing.T, spki []byte, pid int) (key []byte) {
	t.Helper()
	pub, err := wire.ParseKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	want, err := pub.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	written := func(_, _ int64, mode string) bool { return strings.HasPrefix(mode, "rw") }
	for _, p := range factorytest.Family(t, pid) {
		factorytest.Memory(t, p, written, func(part []byte) {
			for at := 0; at+32 <= len(part) && key == nil; at++ {
				candidate := part[at : at+32]
				if !random(candidate) {
					continue
				}
				tried++
				turned := slices.Clone(candidate)
				slices.Reverse(turned)
				for _, k := range [][]byte{candidate, turned} {
					if private, err := ecdh.P256().NewPrivateKey(k); err == nil && bytes.Equal(private.PublicKey().Bytes(), want) {
						key = slices.Clone(k)
					}
				}
			}
		})
	}
	if key == nil {
		t.Fatalf("the order key is not in the memory of the token either, after %d tries: what was searched?", tried)
	}
	return key
}

// random says whether 32 bytes could be a key: nearly all of those have 24 different bytes or more, and no zeros in a row.
func random(b []byte) bool {
	var seen [256]bool
	n := 0
	for i, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
		if i == 7 && n < 5 {
			return false
		}
	}
	return n >= 24
}

type secret struct {
	name  string
	bytes []byte
}

// ofMaker are the secrets of the maker: its keys, online and offline, tokens and passphrase.
func (c *centre) ofMaker(t *testing.T) (all []secret) {
	t.Helper()
	dir := filepath.Join(c.maker.dir, "maker")
	for _, d := range []string{"keys", "offline"} {
		s, err := soft.Open(filepath.Join(dir, d), c.pass)
		if err != nil {
			t.Fatal(err)
		}
		names, err := s.Names()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			raw, err := rawKey(s, name)
			if err != nil {
				t.Fatal(err)
			}
			if len(raw) < 16 {
				t.Fatalf("key %s is %d bytes", name, len(raw))
			}
			all = append(all, secret{name, raw})
		}
	}
	for _, name := range []string{"frank", "alice", "maker/admin.token"} {
		b, err := os.ReadFile(filepath.Join(c.maker.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, secret{name, bytes.TrimSpace(b)})
	}
	if len(all) < 12 {
		t.Fatalf("only %d secrets of the maker", len(all))
	}
	return append(all, secret{"the passphrase", []byte(c.pass)})
}

// rawKey gives a key's bytes as they would lie in a file or in memory.
func rawKey(s *soft.Store, name string) ([]byte, error) {
	k, err := s.Signer(name)
	if err != nil {
		return s.Secret(name)
	}
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		return k.Bytes()
	case ed25519.PrivateKey:
		return k.Seed(), nil
	default:
		return nil, fmt.Errorf("key %s is %T", name, k)
	}
}

// absent looks for a secret in every file under root.
func absent(t *testing.T, root string, secrets ...secret) (files int) {
	t.Helper()
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		for _, s := range secrets {
			if bytes.Contains(b, s.bytes) {
				t.Errorf("%s is in %s", s.name, path)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// secrets looks for the maker's secrets in whatever is at the centre and on the stick.
func (c *centre) secrets(t *testing.T) {
	all := c.ofMaker(t)
	if n := absent(t, c.station.dir, all...) + absent(t, c.stick, all...); n < 20 {
		t.Errorf("only %d files were looked at", n)
	}
	found := false
	root := c.order(t).Header.Chain[2]
	if err := filepath.WalkDir(c.station.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			found = found || bytes.Contains(b, root)
			return err
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Error("not even the maker's root certificate was found at the centre")
	}
}

// openssl has another program read a device's factory identity and verify it up to the maker's root.
func (c *centre) openssl(t *testing.T) {
	if said := c.maker.typed(t, "cmp <(openssl x509 -in root.pem -outform DER) <(tail -n +$(grep -n BEGIN device.pem | tail -n 1 | cut -d: -f1) device.pem | openssl x509 -outform DER) && openssl verify -x509_strict -CAfile root.pem -untrusted device.pem device.pem"); !strings.Contains(said, "device.pem: OK") {
		t.Error(said)
	}
	if said := c.maker.typed(t, "! openssl verify -CAfile root.pem device.pem 2>&1"); strings.Contains(said, "OK") {
		t.Errorf("without the order's CA: %s", said)
	}
	device := strings.TrimSpace(c.maker.typed(t, "echo $device"))
	text := c.maker.typed(t, "openssl x509 -in device.pem -noout -text")
	for _, want := range []string{"Not After : Dec 31 23:59:59 9999 GMT", "Digital Signature", "serialNumber=" + device} {
		if !strings.Contains(strings.ReplaceAll(text, "serialNumber = ", "serialNumber="), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// The hardwareModuleName is inside the octets of the extension: 802.1AR-2018 §8.
	at := says(t, c.maker.typed(t, "openssl asn1parse -in device.pem"), `X509v3 Subject Alternative Name[^\n]*\n(?:[^\n]*BOOLEAN[^\n]*\n)? *(\d+):d=`)
	inside := c.maker.typed(t, "openssl asn1parse -in device.pem -strparse "+at)
	for _, want := range []string{`OBJECT +:(1\.3\.6\.1\.5\.5\.7\.8\.4|id-on-hardwareModuleName)`, `(?s)OBJECT.*OBJECT.*OCTET STRING`} {
		if !regexp.MustCompile(want).MatchString(inside) {
			t.Errorf("no %s in\n%s", want, inside)
		}
	}
}

// live switches the devices on where the maker's server is.
func (c *centre) live(t *testing.T) {
	boards, err := filepath.Glob(filepath.Join(c.station.dir, "[db]e*/*/board.json")) // made by themselves, and by a probe
	if err != nil || len(boards) != 7 {
		t.Fatalf("boards: %q, %v", boards, err)
	}
	for i, b := range boards {
		c.maker.typed(t, fmt.Sprintf("cp -r %s ./board%d && { hallmark-agent run --dir ./board%d >agent%d.log 2>&1 & }", filepath.Dir(b), i, i, i))
	}
	if ok, saw := wait(t.Context(), 3*time.Minute, func() (bool, string) {
		list := c.maker.typed(t, "hallmark device list --token-file olga")
		return len(regexp.MustCompile(`active +1\.0\.0 +healthy`).FindAllString(list, -1)) == 7, list
	}); !ok {
		t.Fatalf("they do not work: %s", saw)
	}
	// What a probe made proves what it runs like any other, and says for good that a station has seen its keys.
	probed := 0
	for id := range strings.FieldsSeq(c.maker.typed(t, "hallmark device list --token-file olga --output name")) {
		if v := strings.Join(strings.Fields(c.maker.typed(t, "hallmark device show --token-file olga "+id)), " "); strings.Contains(v, "keys station ") {
			probed++
			if !strings.Contains(v, "evidence warning since") || strings.Contains(v, "recorded as") {
				t.Errorf("evidence of a device that a probe made: %s", v)
			}
		}
	}
	if probed != 2 {
		t.Errorf("%d devices of two have keys of a station", probed)
	}
}
