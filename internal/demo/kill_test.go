package demo

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// killer ends server and devices with SIGKILL at moments that a seed decides, and starts them again at once.
type killer struct {
	t   *testing.T
	rng *rand.Rand

	mu       sync.Mutex // guards all below
	receipts []string   // what the people were told is durable
	servers  int
	agents   int

	stop func()
}

func (k *killer) begun(d *demo) {
	d.people["admin"].OnFacts(func(facts []string) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.receipts = append(k.receipts, facts...)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	k.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		var took time.Duration
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(50+k.rng.IntN(400))*time.Millisecond + 2*took):
				begun := time.Now()
				k.strike(d)
				took = time.Since(begun) // on a busy machine too, it works for longer than it takes to start: else nothing would ever end
			}
		}
	}()
}

func (k *killer) strike(d *demo) {
	agents := d.powered()
	victim := k.rng.IntN(2 * max(1, len(agents)))
	if victim < len(agents) {
		a := agents[victim]
		shot, err := a.run.shoot(a.on)
		if err != nil {
			k.t.Errorf("device %s does not start again: %v", a.id, err)
		}
		if shot {
			k.mu.Lock()
			k.agents++
			k.mu.Unlock()
		}
		return
	}
	shot, err := d.serve.shoot(d.startServer)
	if err != nil {
		k.t.Errorf("the server does not start again: %v", err)
	}
	if shot {
		k.mu.Lock()
		k.servers++
		k.mu.Unlock()
	}
}

var acknowledged = regexp.MustCompile(`msg=answered .*facts="?((?:(?:control|events)/[0-9a-f]{32},?)+)`)

// told collects what the devices were told is durable.
func told(t *testing.T, dir string) []string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "devices", "*", "agent.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no logs of devices", err)
	}
	var out []string
	for _, l := range logs {
		data, err := os.ReadFile(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range acknowledged.FindAllSubmatch(data, -1) {
			out = append(out, strings.Split(string(m[1]), ",")...)
		}
	}
	return out
}

func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("HALLMARK_SEED"), 10, 64)
	if err != nil {
		s = 20261121
	}
	return s
}

// programs builds what the demo starts.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []string{"hallmark", "hallmark-station", "hallmark-agent"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, p), "../../cmd/"+p)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return dir
}

// TestKilledAtAnyMomentNothingAcknowledgedIsLost plays the demo while server and devices are killed and started again, at moments
// decided by HALLMARK_SEED, fifty times or more. Every step must still do what it should, the ledger must verify, and it must hold
// each fact of which anybody, person or device, was told that it is durable.
func TestKilledAtAnyMomentNothingAcknowledgedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	bin := programs(t)
	want := 50
	if os.Getenv("HALLMARK_LONG") != "" {
		want = 1000
	}
	servers, agents := 0, 0
	for run := seed(t); servers+agents < want; run++ {
		s, a := playKilling(t, bin, run, "")
		servers, agents = servers+s, agents+a
	}
	t.Logf("%d kills of the server, %d of devices", servers, agents)
	if servers < want/5 || agents < want/5 {
		t.Errorf("only %d kills of the server and %d of devices", servers, agents)
	}
}

// Over PostgreSQL as well, whose server outlives the killed ones.
func TestKilledAtAnyMomentOverPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	c := storetest.Shared(t)
	servers, agents := playKilling(t, programs(t), seed(t), c.URL(c.Create(t, false)))
	if servers == 0 {
		t.Errorf("no kill of the server, %d of devices", agents)
	}
}

func playKilling(t *testing.T, bin string, run uint64, db string) (servers, agents int) {
	t.Helper()
	dir := t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		dir = filepath.Join(keep, strconv.FormatUint(run, 10))
	}
	k := &killer{t: t, rng: rand.New(rand.NewPCG(run, 1)), stop: func() {}}
	var out bytes.Buffer
	old := filepath.Join(t.TempDir(), "old.db")
	begun := func(d *demo) {
		if db == "" {
			backup(t, d.layout.Database(), old)
		}
		k.begun(d)
	}
	err := Run(t.Context(), Options{Devices: 5, Dir: dir, DB: db, Out: &out, begun: begun, ending: func() { k.stop() }, trace: true, programs: bin})
	k.stop()
	if err != nil {
		logs, _ := os.ReadFile(filepath.Join(dir, "server.log"))
		t.Fatalf("seed %d: %v\n%s\n--- server ---\n%s", run, err, out.String(), logs[max(0, len(logs)-4000):])
	}
	receipts := append(k.receipts, told(t, dir)...)
	if len(receipts) < 50 {
		t.Fatalf("seed %d: only %d receipts: nothing is shown", run, len(receipts))
	}
	list := filepath.Join(dir, "receipts")
	if err := os.WriteFile(list, []byte(strings.Join(receipts, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := exec.CommandContext(t.Context(), filepath.Join(bin, "hallmark"), "log", "verify", "--dir", filepath.Join(dir, "server"), "--receipts", list)
	said, err := verify.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) || err != nil {
		t.Fatalf("seed %d: %v: %s", run, err, said)
	}
	if db == "" {
		comesBack(t, bin, filepath.Join(dir, "server"), old)
	}
	t.Logf("seed %d: %d kills of the server, %d of devices, %d receipts hold", run, k.servers, k.agents, len(receipts))
	return k.servers, k.agents
}
