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

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/rollout"
)

// A device that was made, enrolled, and never heard of the server again gets a release in a carton, by the commands of the guide. What became of it comes back: its maker sees what it runs and as of when, and the
// rollout counts it.
func TestADeviceThatNoLineReachesIsUpdated(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a whole life")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", "airgap.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := commandsOf(string(page))
	if len(blocks) != 3 {
		t.Fatalf("the guide has %d blocks of commands, want those of the server, the device and the server again", len(blocks))
	}
	d := plan(Options{Devices: 2, Out: io.Discard, programs: programs(t)})
	d.begins(t, d.build, d.instance, d.firstRelease, d.produce, d.field)
	if err := d.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	a, stick := d.agents[1], t.TempDir()
	rita, olga := d.token(t, "rita", access.ReleaseManager), d.token(t, "olga", access.Operator)
	d.setLive(d.agents[0])
	a.run.stop(os.Kill) // from here on no line reaches it
	typed := func(block string) (out []string) {
		t.Helper()
		line := strings.NewReplacer("pump", productID, "00112233445566778899aabbccddeeff", a.id, "/media/stick", stick, "/run/hallmark-agent", a.dir).Replace(block)
		for c := range strings.Lines(line) {
			token := rita
			if strings.HasPrefix(c, "hallmark device ") {
				token = olga
			}
			out = append(out, d.shell(t, c, token))
		}
		return out
	}
	typed(blocks[0])
	d.serve.stop(os.Interrupt)
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	d.awake(t, a)
	typed(blocks[1])
	if again, err := d.inShell(t, fmt.Sprintf("hallmark-agent install --dir %s --from %s/%s-1.1.0.hmb", a.dir, stick, productID), ""); err == nil || !strings.Contains(again, "replayed") {
		t.Errorf("the same carton again: %s", again)
	}
	a.run.stop(os.Kill)
	if err := d.startServer(); err != nil {
		t.Fatal(err)
	}
	before := d.asSeen(t, a)
	if before.Version != v1 || before.Carried != nil {
		t.Errorf("before its history came it is shown as %+v", before)
	}
	said := typed(blocks[2])
	after := d.asSeen(t, a)
	if after.Version != v2 || after.Trial || after.Carried == nil || after.LastSeen == nil || !after.Carried.Equal(*after.LastSeen) || time.Since(*after.Carried) > time.Hour {
		t.Errorf("it is shown as %+v; said %q", after, said)
	}
	if ok, saw := wait(t.Context(), 2*time.Minute, func() (bool, string) {
		r, err := d.people["olga"].Rollout(t.Context(), "mine-1.1.0")
		return err == nil && r.Rollout.Phase == rollout.Completed && r.Rollout.Last.Good == 1, observed(err, fmt.Sprintf("%s: %+v %+v", r.Rollout.Phase, r.Rollout.Last, r.Devices))
	}); !ok {
		t.Errorf("the rollout: %s", saw)
	}
	if again := typed(strings.SplitAfter(blocks[2], "\n")[0]); !strings.Contains(again[0], "only its log counts") {
		t.Errorf("the same history again: %s", again[0])
	}
	if err := a.on(); err != nil { // and a line, one day
		t.Fatal(err)
	}
	if ok, saw := wait(t.Context(), 2*time.Minute, func() (bool, string) {
		v, err := d.seen(t.Context(), a.id)
		return err == nil && works(v, v2) && v.Device.Carried == nil && v.Device.Suspect == "", tell(v, err)
	}); !ok {
		t.Errorf("over a line again: %s", saw)
	}
}

// token is one of a person's, for the command line.
func (d *demo) token(t *testing.T, who string, role access.Role) string {
	t.Helper()
	secret, err := d.people["admin"].Token(t.Context(), httpapi.TokenSpec{
		Caller: "person:" + who, Kind: access.Person, Roles: []access.Role{role}, Use: signin.UseToken, Seconds: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// inShell types a line, with the programs where they are looked for.
func (d *demo) inShell(t *testing.T, line, token string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	for name, path := range map[string]string{"hallmark": d.bin.hallmark, "hallmark-agent": d.bin.agent} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HALLMARK_URL="+d.console, "HALLMARK_TOKEN="+token, "XDG_CONFIG_HOME="+bin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shell types a line until it is done: what it needs may not be witnessed yet.
func (d *demo) shell(t *testing.T, line, token string) string {
	t.Helper()
	var out string
	if err := insist(t.Context(), func() (err error) {
		if out, err = d.inShell(t, line, token); err != nil {
			err = fmt.Errorf("%s%w: %s", line, err, out)
		}
		return err
	}); err != nil {
		t.Fatalf("%v\n%s", err, tail(filepath.Join(d.dir, "server.log")))
	}
	return out
}

// awake waits until a device answers on its own socket.
func (d *demo) awake(t *testing.T, a *device) {
	t.Helper()
	if ok, saw := wait(t.Context(), 2*time.Minute, func() (bool, string) {
		out, err := d.inShell(t, "hallmark-agent local --dir "+a.dir+" status", "")
		return err == nil, out
	}); !ok {
		t.Fatal(saw)
	}
}

// asSeen is the device as its maker is shown it.
func (d *demo) asSeen(t *testing.T, a *device) fleet.Detail {
	t.Helper()
	var v httpapi.DeviceDetail
	if err := insist(t.Context(), func() (err error) { v, err = d.seen(t.Context(), a.id); return err }); err != nil {
		t.Fatal(err)
	}
	return v.Device
}
