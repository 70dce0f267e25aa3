package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
)

// answers is a server that gives to each path what a test wants to see printed.
func answers(t *testing.T, by map[string]any) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := by[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/api/v1")]
		if !ok {
			t.Errorf("asked for %s %s", r.Method, r.URL)
			http.NotFound(w, r)
			return
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("HALLMARK_URL", s.URL)
	t.Setenv("HALLMARK_TOKEN", "hmk_test")
}

// printed runs a command and compares what it prints, its columns set apart by single spaces.
func printed(t *testing.T, want string, args ...string) {
	t.Helper()
	code, out, errOut := hallmark(args...)
	if code != 0 {
		t.Fatalf("%v: exit %d: %s", args, code, errOut)
	}
	var lines []string
	for l := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	if got := strings.Join(lines, "\n"); got != strings.TrimSpace(want) {
		t.Errorf("%v:\n%s\nwant\n%s", args, got, strings.TrimSpace(want))
	}
}

// What only grown fleets have is printed as it is, and a text that a device wrote neither makes rows nor steers the terminal.
func TestPeopleReadWhatTheServerSays(t *testing.T) {
	at := time.Date(2027, 3, 4, 5, 6, 7, 0, time.Local)
	stamp, index := at.Format(time.RFC3339), uint64(7)
	spec := rollout.Spec{ID: "r1", Product: "pump", Release: bytes.Repeat([]byte{0xab}, 32), Selection: rollout.Selection{Group: "eu", Query: &device.Filter{Version: "1.0.0"}}, Waves: []rollout.Wave{{Size: 1}, {}}}
	r := rollout.Rollout{
		Spec: spec, Phase: rollout.Halted, Wave: 1, By: "person:olga", Created: at, Started: at, Halted: at, Reason: "too many failures",
		Waves: []rollout.WaveState{{Devices: 2, Started: at}}, Last: rollout.Counts{Devices: 2, Good: 1, Failed: 1, Returned: 1, Stranded: 1},
	}
	answers(t, map[string]any{
		"GET /findings": []monitor.Finding{{
			ID: "f1", Kind: monitor.BadVerdict, Severity: monitor.High, Subject: "d1", Text: "bad\nf2 low \x1b[2J", Raised: at,
		}},
		"GET /remedies": []remedy.Case{{Device: "d1", Product: "pump", Phase: remedy.Contained, Opened: at, Since: at, Until: at, Reason: "verdict"}},
		"GET /devices/d1": httpapi.DeviceDetail{
			Device: fleet.Detail{
				Device:  fleet.Device{ID: "d1", Product: "pump", State: "active", Assurance: "enforces", Version: "1.0.0", Health: "healthy", Verdict: "warning", LastSeen: &at},
				Reasons: []string{"virtual"}, Virtual: true,
				Log: fleet.DeviceLog{Events: 57, Gaps: 2, Lost: 9, Heard: &at},
			},
			Timeline: []fleet.Line{{At: at, Kind: "device.state", Actor: "system:reactions", Log: "events", Index: &index, Text: "to: active"}},
		},
		"GET /devices/d1/lots": httpapi.LotList{},
		"GET /rollouts/r1": httpapi.RolloutStatus{Rollout: r, Devices: []rollout.DeviceView{
			{Status: rollout.Status{Device: "d1", State: device.Active, Health: rollout.Healthy, Verdict: "affirming", Seen: at, Mark: rollout.Well}, Class: rollout.Good, Why: "well"},
			{Status: rollout.Status{Device: "d2", State: device.Active, Mark: rollout.Missed}, Class: rollout.Failed, Why: "nobody heard of it"},
		}},
		"POST /rollouts/r1/start": rollout.Resolved{
			Members: []rollout.Member{{Device: "d1", Wave: 1}, {Device: "d2", Wave: 2}}, Skipped: map[string]string{"d3": "quarantined"}, Stranded: []string{"d2"},
		},
	})
	printed(t, `
ID SEVERITY KIND SUBJECT RAISED CLOSED TEXT
f1 high attestation.contraindicated d1 `+stamp+` - bad f2 low [2J`, "finding", "list")
	printed(t, `
DEVICE PRODUCT PHASE OPENED SINCE UNTIL COMMAND REASON
d1 pump contained `+stamp+" "+stamp+" "+stamp+` - verdict`, "remedy", "list")
	printed(t, `
device d1
product pump
group -
state active
its word enforces (Takes only what is proven to it, and proves what it runs)
version 1.0.0
on trial no
its update -
health healthy
evidence warning since -
because virtual
programs held by unknown
seen `+stamp+`
boots 0
room for programs not known
sent back from -
own log whole up to 57, 2 gaps of 9 events explained, heard `+stamp+`
trust bundle 0
open findings 0
made -
new keys -
virtual yes
forgotten -

TIME PLACE KIND SUBJECT BY TEXT
`+stamp+` events/7 device.state - system:reactions to: active`, "device", "show", "d1")
	printed(t, `
rollout r1
product pump
release `+strings.Repeat("ab", 32)+`
phase halted
by person:olga
created `+stamp+`
started `+stamp+`
ended -
reason too many failures
selects devices that are active, run 1.0.0, in group eu
devices 2 in the wave: 1 good, 0 waiting, 1 failed, 0 left
sent back 1 back, 1 without a way back, 0 unknown
wave 1 2 devices, started `+stamp+`, passed -

DEVICE GATE STATE HEALTH EVIDENCE SEEN WHY
d1 good active healthy affirming `+stamp+` well
d2 no-show active - - - nobody heard of it`, "rollout", "show", "r1")
	printed(t, `
DEVICE WAVE NOTE
d1 1
d2 2 would have no way back
d3 - quarantined`, "rollout", "start", "r1")
}

// What is signed is what was named: a server that gives another payload under a digest gets no signature.
func TestNothingIsSignedThatHasNotTheDigest(t *testing.T) {
	digest := strings.Repeat("0", 64)
	answers(t, map[string]any{"GET /releases/" + digest: map[string]any{"digest": digest, "payload": []byte("another")}})
	key := filepath.Join(t.TempDir(), "approver-alice.key")
	put(t, key, nil)
	for _, args := range [][]string{
		{"release", "approve", digest, "--key", key}, {"release", "payload", digest, "--out", filepath.Join(t.TempDir(), "out")},
	} {
		if code, _, said := hallmark(args...); code != 1 || !strings.Contains(said, "has not the release's digest: do not sign it") {
			t.Errorf("%v: exit %d, %s", args, code, said)
		}
		if out := args[len(args)-1]; args[1] == "payload" {
			if _, err := os.Stat(out); err == nil {
				t.Error("the payload was written")
			}
		}
	}
}

// --json gives what the server wrote, with what this version does not know.
func TestJSONIsTheServersOwn(t *testing.T) {
	answers(t, map[string]any{"GET /products": []map[string]any{{"id": "pump", "colour": "red"}}, "GET /log/" + string(ledger.Control) + "/facts": map[string]any{"items": []any{}}})
	_, out, _ := hallmark("product", "list", "--json")
	if !strings.Contains(out, `"colour": "red"`) || !json.Valid([]byte(out)) {
		t.Errorf("%s", out)
	}
}

// A limit that nobody names stays as it is.
func TestOneLimitIsChangedAndTheOtherStays(t *testing.T) {
	for name, c := range map[string]struct {
		had   *rollout.Bandwidth
		flags []string
		want  rollout.Bandwidth
	}{
		"all of them":         {&rollout.Bandwidth{All: 9000, Each: 7000}, []string{"--bandwidth", "5MB/s"}, rollout.Bandwidth{All: 5_000_000, Each: 7000}},
		"one of them":         {&rollout.Bandwidth{All: 9000, Each: 7000}, []string{"--device-bandwidth", "64kB/s"}, rollout.Bandwidth{All: 9000, Each: 64_000}},
		"no limit any more":   {&rollout.Bandwidth{All: 9000, Each: 7000}, []string{"--bandwidth", "0"}, rollout.Bandwidth{Each: 7000}},
		"there was none":      {nil, []string{"--bandwidth", "5MB/s"}, rollout.Bandwidth{All: 5_000_000}},
		"both are as given":   {&rollout.Bandwidth{All: 9000, Each: 7000}, []string{"--bandwidth", "5MB/s", "--device-bandwidth", "0"}, rollout.Bandwidth{All: 5_000_000}},
		"neither is a change": {&rollout.Bandwidth{All: 9000}, nil, rollout.Bandwidth{}},
	} {
		t.Run(name, func(t *testing.T) {
			var got httpapi.NewBandwidth
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				v := any(httpapi.RolloutStatus{Rollout: rollout.Rollout{Spec: rollout.Spec{Bandwidth: c.had}}})
				if r.Method == http.MethodPut {
					if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
						t.Error(err)
					}
					v = rollout.Rollout{}
				}
				if err := json.NewEncoder(w).Encode(v); err != nil {
					t.Error(err)
				}
			}))
			t.Cleanup(s.Close)
			t.Setenv("HALLMARK_URL", s.URL)
			t.Setenv("HALLMARK_TOKEN", "hmk_test")
			code, _, says := hallmark(append([]string{"rollout", "bandwidth", "r1", "--reason", "the line is narrow"}, c.flags...)...)
			if got.Bandwidth != c.want || (code != 0) != (c.flags == nil) {
				t.Errorf("%+v, want %+v; exit %d: %s", got.Bandwidth, c.want, code, says)
			}
		})
	}
}

// One history that is not taken keeps nobody's from being taken, and those that were are shown.
func TestEachHistoryIsTried(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var h httpapi.HistoryOf
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Error(err)
		}
		if string(h.History) == "bad" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"status":422,"code":"history.invalid","title":"no history","detail":"it is none","remedy":"write it again"}`))
			return
		}
		if err := json.NewEncoder(w).Encode(device.Taken{Device: string(h.History), Known: true}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("HALLMARK_URL", s.URL)
	t.Setenv("HALLMARK_TOKEN", "hmk_test")
	args := []string{"device", "history", "import"}
	for _, text := range []string{"d1", "bad", "d3"} {
		path := filepath.Join(t.TempDir(), text+".history")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	args = append(args, filepath.Join(t.TempDir(), "gone.history"))
	code, out, says := hallmark(args...)
	if code == 0 || strings.Count(out, "only its log counts") != 2 || !strings.Contains(out, "d1") || !strings.Contains(out, "d3") {
		t.Errorf("exit %d, prints:\n%s", code, out)
	}
	if !strings.Contains(says, "bad.history: it is none") || !strings.Contains(says, "gone.history") || !strings.Contains(says, "2 of 4 were not done") {
		t.Errorf("says:\n%s", says)
	}
}

// A plan is played over as many devices as it would reach, of which some fail, before anybody is told.
func TestAPlanIsPlayedBeforeItIsStarted(t *testing.T) {
	release := strings.Repeat("ab", 32)
	answers(t, map[string]any{
		"POST /rollouts/dry-run": rollout.Resolved{Reached: 2000}, "GET /releases/" + release: httpapi.ReleaseView{Digest: release},
	})
	plan := []string{
		"rollout", "dry-run", "--product", "pump", "--release", release, "--all", "--wave", "50,failures=3", "--wave", "rest,per-hour=200", "--failures", "1%", "--deadline", "1h", "--soak", "10m", "--simulate",
	}
	code, out, errOut := hallmark(append(plan, "--brick", "10%")...)
	for _, want := range []string{`reaches +2,000 devices`, `phase +rolled-back`, `reason +wave 1: .* failed`, `wave +1 of 2`} {
		if code != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("exit %d, %s%s: want %s", code, out, errOut, want)
		}
	}
	chart := filepath.Join(t.TempDir(), "out.svg")
	code, out, errOut = hallmark(append(plan, "--output", "json", "--chart", chart)...)
	if code != 0 || !strings.Contains(out, `"Phase": "completed"`) || !strings.Contains(out, `"Told": 2000`) {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}
	if svg, err := os.ReadFile(chart); err != nil || !bytes.Contains(svg, []byte("2,000 devices")) {
		t.Errorf("%v: %.80s", err, svg)
	}
}

// Who plans to tell many at once is told before the start that it takes two.
func TestADryRunSaysThatAStartTakesTwo(t *testing.T) {
	release := strings.Repeat("ab", 32)
	plan := []string{"rollout", "dry-run", "--product", "pump", "--release", release, "--all", "--wave", "rest"}
	for want, r := range map[string]rollout.Resolved{
		`takes two +2,000 devices are told before it is seen whether any is good`: {Unproven: 2000, TakesTwo: true},
		`takes two +however many come are told before`:                            {Unproven: rollout.Unbounded, TakesTwo: true},
		`^DEVICE +WAVE +NOTE\n$`:                                                  {Unproven: 100},
	} {
		answers(t, map[string]any{"POST /rollouts/dry-run": r, "GET /releases/" + release: httpapi.ReleaseView{Digest: release}})
		if code, out, errOut := hallmark(plan...); code != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("exit %d, %s%s: want %s", code, out, errOut, want)
		}
	}
}
