package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// elsewhere is a witness of its own that knows an instance's logs, and answers 503 while it is down.
type elsewhere struct {
	WitnessConfig
	down atomic.Bool
}

func newElsewhere(t *testing.T, logs []trustedLog, others ...witnessd.Log) *elsewhere {
	t.Helper()
	dir := witnessd.Dir{Path: t.TempDir()}
	keys, err := soft.Create(dir.Keys(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Init("w.example/far", keys); err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		others = append(others, witnessd.Log{Origin: l.Origin, Keys: []ledger.VerifierKey{l.verifierKey()}})
	}
	for _, l := range others {
		if err := dir.AddLog(l.Origin, l.Keys[0]); err != nil {
			t.Fatal(err)
		}
	}
	w, known, err := dir.Open(t.Context(), keys, 0)
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhere{}
	h := witnessd.Handler(witnessd.Config{Witness: w, Origins: known.Origins(), Log: slog.New(slog.DiscardHandler)})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.down.Load() {
			http.Error(w, "closed today", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	e.WitnessConfig = WitnessConfig{Name: known.Name(), URL: s.URL, Keys: known.Keys}
	return e
}

func made(t *testing.T) (Layout, Vault) {
	t.Helper()
	l := Layout{Dir: filepath.Join(t.TempDir(), "inst")}
	cfg := DefaultConfig()
	cfg.API, cfg.Devices = "127.0.0.1:0", "127.0.0.1:0"
	var online Vault
	_, err := Make(t.Context(), l, InitOptions{
		Config: cfg, Approvers: []string{"a", "b"}, Threshold: 2, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}, func(dir string) (Vault, error) {
		v, err := soft.Create(dir, "pass", 1000)
		if online == nil {
			online = v
		}
		return v, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, online
}

func opened(t *testing.T, l Layout, keys Vault) *Instance {
	t.Helper()
	i, err := Open(t.Context(), l, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A backup of the database is brought back, and everything on this machine that knew better is gone: the witness elsewhere still knows.
func TestAWitnessElsewhereStopsAnOldDatabase(t *testing.T) {
	l, keys := made(t)
	i := opened(t, l, keys)
	far := newElsewhere(t, i.logs.trust.Logs)
	cfg := i.cfg
	cfg.Witnesses, cfg.Quorum = append(cfg.Witnesses, far.WitnessConfig), 3
	if err := errors.Join(i.logs.settle(t.Context()), i.Close(), cfg.save(l)); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(l.Database())
	if err != nil {
		t.Fatal(err)
	}
	i = opened(t, l, keys)
	grow(t, i, ledger.Control)
	if err := errors.Join(i.logs.settle(t.Context()), i.Close()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(l.Logs()), os.RemoveAll(filepath.Join(l.Dir, "witness")), os.WriteFile(l.Database(), backup, 0o600)); err != nil {
		t.Fatal(err)
	}
	i, err = Open(t.Context(), l, keys, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Error(i.Close())
	}
	if !errors.Is(err, ledger.ErrForked) || !strings.Contains(err.Error(), "w.example/far") {
		t.Errorf("%v, want ErrForked, by the witness that knows", err)
	}
}

// joined makes an instance whose logs need a witness elsewhere besides its own two.
func joined(t *testing.T) (*Instance, *elsewhere) {
	t.Helper()
	l, keys := made(t)
	i := opened(t, l, keys)
	far := newElsewhere(t, i.logs.trust.Logs)
	cfg := i.cfg
	cfg.Witnesses, cfg.Quorum = append(cfg.Witnesses, far.WitnessConfig), 3
	if err := errors.Join(i.Close(), cfg.save(l)); err != nil {
		t.Fatal(err)
	}
	i = opened(t, l, keys)
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i, far
}

func grow(t *testing.T, i *Instance, log ledger.Log) {
	t.Helper()
	err := i.db.Write(t.Context(), func(tx *store.Tx) error {
		return tx.Append(ledger.Genesis(log, time.Now(), "test", "test", []byte("{}")))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// verified recomputes a log from its files with the trust file beside them, changed.
func verified(t *testing.T, l Layout, change func(t *audit.Trust)) (audit.Report, error) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.Logs(), "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := audit.DecodeTrust(data)
	if err != nil {
		t.Fatal(err)
	}
	change(&trust)
	return audit.Verify(t.Context(), trust.Policy(0), durable.Files{Dir: filepath.Join(l.Logs(), "control")}.Get)
}

func TestAWitnessElsewhereIsOneOfTheQuorum(t *testing.T) {
	i, _ := joined(t)
	grow(t, i, ledger.Control)
	if err := i.logs.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := verified(t, i.layout, func(*audit.Trust) {})
	if err != nil || len(r.Cosigned) != 3 || len(r.Strange) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	// Its ML-DSA-44 key is enough for an auditor.
	r, err = verified(t, i.layout, func(t *audit.Trust) {
		for _, w := range t.Witnesses {
			if w.Type == audit.MLDSA44 {
				t.Witnesses, t.Quorum = []audit.Witness{w}, 1
			}
		}
	})
	if err != nil || len(r.Cosigned) != 1 || r.Cosigned[0] != "w.example/far" {
		t.Errorf("%+v, %v", r, err)
	}
	// A device verifies the other one, and is not given the large one.
	control, _, witnesses := i.logs.trusted()
	policy := wire.LogPolicy{Origin: control.Origin, LogKey: control.Key, Quorum: 3}
	for _, w := range witnesses {
		policy.Witnesses = append(policy.Witnesses, wire.Witness{Name: w.Name, Key: w.Key})
	}
	proven, err := i.logs.reader.Prove(t.Context(), ledger.Ref{Log: ledger.Control, Index: 0})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proven.Proof.Verify(policy, proven.Entry); err != nil || len(proven.Proof.Cosignatures) != 3 {
		t.Errorf("%d cosignatures, %v", len(proven.Proof.Cosignatures), err)
	}
}

func openFindings(t *testing.T, i *Instance) (out []string) {
	t.Helper()
	all, err := i.monitor.List(t.Context(), access.Internal("test"), monitor.Query{OpenOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		out = append(out, fmt.Sprintf("%s %s %s: %s", f.Severity, f.Kind, f.Subject, f.Text))
	}
	return out
}

func TestTooFewWitnessesAreAFindingUntilItIsOver(t *testing.T) {
	i, far := joined(t)
	ctx := t.Context()
	if err := i.logs.settle(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(i.layout.Logs(), "control", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	far.down.Store(true)
	grow(t, i, ledger.Control)
	if err := i.logs.settle(ctx); !errors.Is(err, wire.ErrNotWitnessed) {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(i.layout.Logs(), "control", "checkpoint")); err != nil || string(after) != string(before) {
		t.Errorf("the last checkpoint does not stand: %s, %v", after, err)
	}
	if err := i.watchLogs(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := openFindings(t, i); len(got) != 0 {
		t.Errorf("at once: %q", got)
	}
	for range 2 { // told once, however long it lasts
		if err := i.watchLogs(ctx, time.Now().Add(10*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	got := openFindings(t, i)
	if len(got) != 2 || !strings.HasPrefix(got[0], "high ledger.unwitnessed hallmark.local/control: the control log has not been witnessed since ") ||
		!strings.Contains(got[0], "witness w.example/far: ") || !strings.Contains(got[0], "503") ||
		!strings.HasPrefix(got[1], "medium witness.failing w.example/far: ") {
		t.Fatalf("after a while: %q", got)
	}
	far.down.Store(false)
	if err := i.logs.settle(ctx); err != nil {
		t.Fatal(err)
	}
	if err := i.watchLogs(ctx, time.Now().Add(20*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := openFindings(t, i); len(got) != 0 {
		t.Errorf("when it is over: %q", got)
	}
	var h health
	rec := httptest.NewRecorder()
	i.pulse.ServeHTTP(rec, nil)
	if err := json.Unmarshal(rec.Body.Bytes(), &h); err != nil || len(h.Witnessed) != 2 || !h.OK {
		t.Errorf("healthz: %s, %v", rec.Body, err)
	}
}

func TestTroublesOfTheLogs(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	logs := []trustedLog{{Name: "control", Origin: "x/control"}, {Name: "events", Origin: "x/events"}}
	since := func(ago time.Duration, err error) ledger.Trouble {
		return ledger.Trouble{Since: now.Add(-ago), Err: err}
	}
	refused, forked := errors.New("refused\nby everybody"), fmt.Errorf("it knows more: %w", ledger.ErrForked)
	for _, c := range []struct {
		name     string
		standing []ledger.Standing
		want     string
	}{
		{"all is well", []ledger.Standing{{}, {}}, ""},
		{"for a moment", []ledger.Standing{{Trouble: since(time.Second, refused)}, {}}, ""},
		{"for a while", []ledger.Standing{{Trouble: since(2*time.Minute, refused)}, {}}, "ledger.unwitnessed x/control"},
		{"a database that is behind, at once", []ledger.Standing{{}, {Trouble: since(0, forked)}}, "ledger.behind x/events"},
		{"a witness that knows more, at once", []ledger.Standing{{Witnesses: map[string]ledger.Trouble{"w": since(0, forked)}}, {}}, "ledger.behind x/control"},
		{"a witness, for a moment", []ledger.Standing{{Witnesses: map[string]ledger.Trouble{"w": since(time.Minute, refused)}}, {}}, ""},
		{"a witness of the second log", []ledger.Standing{{Witnesses: map[string]ledger.Trouble{"w": {}}}, {Witnesses: map[string]ledger.Trouble{"w": since(time.Hour, refused)}}}, "witness.failing w"},
	} {
		var got []string
		for _, x := range troubles(logs, c.standing, now) {
			if x.lasts {
				got = append(got, string(x.Kind)+" "+x.Subject)
			}
			if x.lasts && (x.Text == "" || strings.Contains(x.Text, "\n")) {
				t.Errorf("%s: text %q", c.name, x.Text)
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWitnessesInTheConfiguration(t *testing.T) {
	far := newElsewhere(t, nil)
	ed, pq := far.Keys[0].String(), far.Keys[1].String()
	for _, c := range []struct{ name, witnesses, quorum, want string }{
		{"names", `["witness-1","witness-2"]`, "2", ""},
		{"one elsewhere", `["witness-1",{"url":"https://w.example","keys":["` + ed + `","` + pq + `"]}]`, "2", ""},
		{"one elsewhere that devices cannot verify", `["witness-1",{"url":"https://w.example","keys":["` + pq + `"]}]`, "2", "quorum 2 of 1"},
		{"too few", `["witness-1"]`, "2", "quorum 2 of 1"},
		{"none", `[]`, "1", "quorum 1 of 0"},
		{"no quorum", `["witness-1"]`, "0", "quorum 0"},
		{"twice", `["witness-1","witness-1"]`, "1", "twice"},
		{"a key twice", `[{"url":"https://w.example","keys":["` + ed + `"]},{"url":"https://v.example","keys":["` + ed + `"]}]`, "1", "twice"},
		{"a path", `["../x"]`, "1", "lower-case"},
		{"an unknown member", `[{"url":"https://w.example","keys":["` + ed + `"],"x":1}]`, "1", "unknown field"},
		{"no url", `[{"keys":["` + ed + `"]}]`, "1", "url"},
		{"no keys", `[{"url":"https://w.example"}]`, "1", "keys"},
		{"a key cut short", `[{"url":"https://w.example","keys":["` + ed[:40] + `"]}]`, "1", "verifier key"},
	} {
		l := Layout{Dir: t.TempDir()}
		data, err := json.Marshal(DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(data), `["witness-1","witness-2"]`, c.witnesses, 1)
		text = strings.Replace(text, `"quorum":2`, `"quorum":`+c.quorum, 1)
		if err := os.WriteFile(l.Config(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := LoadConfig(l)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		if err := cfg.save(l); err != nil { // and what was read is written as it was
			t.Fatal(err)
		}
		if again, err := LoadConfig(l); err != nil || fmt.Sprint(again.Witnesses) != fmt.Sprint(cfg.Witnesses) {
			t.Errorf("%s: written as %v, %v", c.name, again.Witnesses, err)
		}
	}
}

// verifierKey is the log's key in the form of notes.
func (t trustedLog) verifierKey() ledger.VerifierKey {
	return ledger.VerifierKey{Name: t.Origin, Type: ledger.TypeEd25519, Key: t.Key}
}
