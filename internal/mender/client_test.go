package mender_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/legacytest"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/mender"
)

// attributes is a list of attributes in a transcript: the client writes them in any order, and a golden transcript has them sorted.
var attributes = regexp.MustCompile(`\[\{"name":[^\]]*\]`)

const (
	identity = "mac=02:00:00:00:00:01"
	// module is an update module of the board's maker: it keeps what was there, and refuses what does not begin as its programs do.
	module = `#!/bin/sh
set -e
lib=@LIB@
case "$1" in
NeedsArtifactReboot) echo No ;;
SupportsRollback) echo Yes ;;
ArtifactInstall)
	touch $lib/began
	while [ -e $lib/hold ]; do sleep 0.1; done
	if [ -e $lib/installed ]; then cp $lib/installed $lib/kept; fi
	head -c 7 "$2/files/app" | grep -q program || { echo "that is no program of ours" >&2; exit 1; }
	cp "$2/files/app" $lib/installed ;;
ArtifactRollback) if [ -e $lib/kept ]; then mv $lib/kept $lib/installed; else rm -f $lib/installed; fi ;;
esac
`
)

var update = flag.Bool("update", false, "write testdata anew; then read what has changed")

// board is a machine with mender-client on it, as Debian has it: what it reads at fixed places lies there in a mount namespace.
type board struct {
	t   testing.TB
	w   *legacytest.World
	dir string
	key *ecdsa.PrivateKey // of the maker
	end func()
	out *legacytest.Words
}

func needMender(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"mender", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed: scripts/setup-test.sh", tool)
			}
			t.Skipf("%s is not installed: scripts/setup-test.sh", tool)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("this machine gives no mount namespace: %v: %s", err, out)
	}
}

func newBoard(w *legacytest.World, version string) *board {
	w.T.Helper()
	b := &board{t: w.T, w: w, dir: w.T.TempDir()}
	var err error
	b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.Must(err)
	der, err := x509.MarshalPKIXPublicKey(&b.key.PublicKey)
	w.Must(err)
	config, err := json.Marshal(map[string]any{
		"ServerURL": w.Base, "ServerCertificate": w.Roots, "TenantToken": legacytest.Tenant, "DeviceTypeFile": b.at("lib/device_type"), "ArtifactVerifyKey": "/etc/mender/maker.pem",
		"UpdatePollIntervalSeconds": 1, "InventoryPollIntervalSeconds": 1, "RetryPollIntervalSeconds": 1, "DBus": map[string]bool{"Enabled": false},
	})
	w.Must(err)
	for path, text := range map[string]string{
		"etc/mender.conf": string(config), "etc/artifact_info": "artifact_name=pump-" + version + "\n", "lib/device_type": "device_type=A\n",
		"etc/maker.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "lib/installed": "program " + version,
		"share/identity/mender-device-identity": "#!/bin/sh\necho " + identity + "\n", "share/inventory/mender-inventory-board": "#!/bin/sh\necho board=b1\n", "share/modules/v3/app": strings.ReplaceAll(module, "@LIB@", b.at("lib")),
	} {
		w.Must(os.MkdirAll(filepath.Dir(b.at(path)), 0o755))
		w.Must(os.WriteFile(b.at(path), []byte(text), 0o755))
	}
	return b
}

func (b *board) at(path string) string { return filepath.Join(b.dir, path) }

// start runs the client.
func (b *board) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, done := &legacytest.Words{}, make(chan struct{})
	run := exec.CommandContext(ctx, "unshare", "-rm", "sh", "-ec", `mount --bind "$0/share" /usr/share/mender; mount --bind "$0/etc" /etc/mender
		exec mender --no-syslog --data "$0/lib" daemon`, b.dir)
	run.Stdout, run.Stderr, run.WaitDelay = out, out, time.Minute
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	b.w.Must(run.Start())
	go func() {
		_ = run.Wait() // it was told to end
		close(done)
	}()
	b.out, b.end = out, func() {
		cancel()
		<-done
	}
	b.t.Cleanup(b.end)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("mender-client: %s", out)
		}
	})
}

// admitted waits until the client asks, and has a person let it in who holds the key that it shows against the device's.
func (b *board) admitted() (id string) {
	b.t.Helper()
	var asks legacy.Client
	b.w.Until("the client asks to be let in", func() (bool, string) {
		waiting, err := b.w.People["olga"].LegacyClients(b.t.Context(), legacytest.Tenant, legacy.Pending)
		b.w.Must(err)
		if len(waiting) > 0 {
			asks = waiting[0]
		}
		return len(waiting) > 0, b.out.String()
	})
	if asks.Kind != legacy.Mender || asks.Name != identity || !bytes.Equal(asks.Key, b.ownKey()) {
		b.t.Fatalf("%s %s asks with key %x, and the device has %x", asks.Kind, asks.Name, asks.Key, b.ownKey())
	}
	id, token := b.w.Admit(legacy.Admission{Kind: legacy.Mender, Name: asks.Name, Key: asks.Key})
	if token != "" {
		b.t.Fatal("a client with a key was given a token")
	}
	return id
}

// ownKey is the digest of the key that lies on the device.
func (b *board) ownKey() []byte {
	b.t.Helper()
	out, err := exec.CommandContext(b.t.Context(), "openssl", "pkey", "-in", b.at("lib/mender-agent.pem"), "-pubout", "-outform", "DER").Output()
	b.w.Must(err)
	sum := sha256.Sum256(out)
	return sum[:]
}

func (b *board) installed() string {
	data, err := os.ReadFile(b.at("lib/installed"))
	if err != nil {
		return ""
	}
	return string(data)
}

// publish makes a release of an artifact for the board.
func (b *board) publish(version string, program []byte, back ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	b.w.Must(mender.Write(&out, mender.Options{Name: "pump-" + version, Version: version, DeviceTypes: []string{"A"}, Type: "app", File: "app"}, b.key, bytes.NewReader(program)))
	return b.w.PublishAs(wire.FormatMender, version, "app", out.Bytes(), back...)
}

func (b *board) has(program string) {
	b.t.Helper()
	b.w.Until("it has installed "+program, func() (bool, string) { return strings.HasPrefix(b.installed(), program), b.out.String() })
}

func TestInteropMenderClient(t *testing.T) {
	needMender(t)
	w := legacytest.New(t)
	b := newBoard(w, "1.0.0")
	first := b.publish("1.0.0", []byte("program 1.0.0"))
	second := b.publish("1.1.0", []byte("program 1.1.0"), first)
	b.start()
	id := b.admitted()
	w.Runs(id, "1.0.0") // by the name of its artifact
	w.Roll("r1", second, id)
	b.has("program 1.1.0")
	w.Runs(id, "1.1.0")
	if r := w.Rolled("r1", rollout.Completed); r.Rollout.Last.Good != 1 || r.Rollout.Last.ByWord != 1 {
		t.Errorf("counts %+v", r.Rollout.Last)
	}
	if d := w.Device(id); d.Device.Assurance != "says" || d.Device.Legitimacy != "imported" || d.Device.Verdict != "unknown" || d.Device.Version != "1.1.0" {
		t.Errorf("it is shown as %+v", d.Device)
	}
	w.Until("what it says of itself is known", func() (bool, string) {
		all, err := w.People["olga"].LegacyClients(t.Context(), legacytest.Tenant, legacy.Admitted)
		w.Must(err)
		return len(all) == 1 && all[0].Attributes["board"] == "b1" && all[0].Attributes["device_type"] == "A", b.out.String()
	})

	// One that its module refuses: what it had stands, and it says why.
	bad := b.publish("1.2.0", []byte("something else"), second)
	w.Roll("r2", bad, id)
	r := w.Rolled("r2", rollout.RolledBack)
	if !strings.Contains(r.Rollout.Reason, "failed") || b.installed() != "program 1.1.0" {
		t.Errorf("halted because %q, and %q is installed", r.Rollout.Reason, b.installed())
	}
	w.Until("its log is kept", func() (bool, string) {
		logs, err := w.People["olga"].LegacyLogs(t.Context(), legacytest.Tenant, identity)
		w.Must(err)
		text, err := json.Marshal(logs)
		w.Must(err)
		return strings.Contains(string(text), "Update module terminated abnormally"), string(text)
	})
	w.Runs(id, "1.1.0")

	// A token that ended: it asks for another, and goes on.
	w.Admit(legacy.Admission{Kind: legacy.Mender, Name: identity, Key: b.ownKey()})
	w.Runs(id, "1.1.0") // which it says again
	w.Roll("r3", b.publish("1.3.0", []byte("program 1.3.0"), second), id)
	b.has("program 1.3.0")
	w.Rolled("r3", rollout.Completed)
}

func TestInteropMenderClientLeavesOff(t *testing.T) {
	needMender(t)
	w := legacytest.New(t)
	b := newBoard(w, "1.0.0")
	first := b.publish("1.0.0", []byte("program 1.0.0"))
	next := b.publish("1.1.0", []byte("program 1.1.0"), first)
	w.Must(os.WriteFile(b.at("lib/hold"), nil, 0o600))
	b.start()
	id := b.admitted()
	w.Runs(id, "1.0.0")
	w.Roll("r1", next, id)
	w.Until("it waits in the middle", func() (bool, string) {
		_, err := os.Stat(b.at("lib/began"))
		return err == nil, b.out.String()
	})
	_, err := w.People["olga"].ControlRollout(t.Context(), "r1", "abort", "another comes first")
	w.Must(err)
	w.Rolled("r1", rollout.Aborted)
	w.Must(os.Remove(b.at("lib/hold")))
	w.Until("it left off", func() (bool, string) {
		return strings.Contains(b.out.String(), "deployment aborted") && strings.Contains(b.out.String(), "idle"), b.out.String()
	})
	w.Until("what it had stands", func() (bool, string) { return b.installed() == "program 1.0.0", b.installed() })
	w.Roll("r2", next, id) // what it left off is offered again, as something else
	b.has("program 1.1.0")
	w.Rolled("r2", rollout.Completed)
}

// The client waits for a minute before it goes on.
func TestInteropMenderClientBrokenLineAndTranscript(t *testing.T) {
	needMender(t)
	l := &legacytest.Line{}
	w := legacytest.Behind(t, l)
	b := newBoard(w, "1.0.0")
	first := b.publish("1.0.0", []byte("program 1.0.0"))
	large := make([]byte, 4<<20)
	_, _ = mrand.NewChaCha8([32]byte{1}).Read(large)
	next := b.publish("1.1.0", append([]byte("program 1.1.0"), large...), first)
	b.start()
	id := b.admitted()
	w.Runs(id, "1.0.0")
	l.BreakAfter(1 << 20)
	w.Roll("r1", next, id)
	b.has("program 1.1.0")
	w.Rolled("r1", rollout.Completed)
	if n := l.Count(func(e legacytest.Exchange) bool {
		return strings.HasPrefix(e.Ranged, "bytes=") && e.Status == http.StatusPartialContent
	}); n != 1 {
		t.Errorf("it went on %d times where the line broke", n)
	}
	said := attributes.ReplaceAllStringFunc(l.Transcript(), func(list string) string {
		entries := strings.SplitAfter(strings.Trim(list, "[]")+",", "},")
		slices.Sort(entries)
		return "[" + strings.TrimSuffix(strings.Join(entries, ""), ",") + "]"
	})
	legacytest.Golden(t, "mender", said, *update)
}
