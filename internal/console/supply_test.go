package console_test

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

type supplies stages

func (s supplies) Contents(ctx context.Context, c access.Caller, _ [32]byte, _, limit int) (supply.Contents, []supply.Part, error) {
	part := supply.Part{N: 1, Component: bom.Component{Name: script, Version: script, PURL: script, Supplier: script, Licenses: []string{script}}, Answer: supply.Affected, Why: script, Flaws: []supply.Flaw{{ID: script, CVEs: []string{script}, Summary: script, Fixed: []string{script}}}}
	return supply.Contents{Format: script, Spec: script, Components: limit}, slices.Repeat([]supply.Part{part}, limit), stages(s).check(ctx, c, access.ReleaseRead, "pump")
}

func (s supplies) Assessed(ctx context.Context, c access.Caller, _ [32]byte) (supply.Assessment, error) {
	return supply.Assessment{At: then, Components: 3, Affected: 1, Unknown: 1, Troubles: []supply.Trouble{{ID: script, Names: []string{script}, Parts: []string{script}, Summary: script, Score: 9.8, Fixed: []string{script}}}}, stages(s).check(ctx, c, access.ReleaseRead, "pump")
}

func (s supplies) Where(ctx context.Context, c access.Caller, _ string) ([]supply.Use, error) {
	return []supply.Use{{Digest: digest, ID: script, Product: script, Version: script, Status: script, Has: script, PURL: script, Answer: supply.Unknown, Devices: 7}}, stages(s).check(ctx, c, access.ReleaseRead, "")
}

func (s supplies) Databases(ctx context.Context, c access.Caller) ([]supply.Database, error) {
	return []supply.Database{{Ecosystem: script, Advisories: 3, Newest: then, At: then, By: script, Old: true}}, stages(s).check(ctx, c, access.InstanceRead, "")
}

func (s supplies) Policy(ctx context.Context, c access.Caller, p string) (supply.Policy, error) {
	policy := supply.Policy{
		Mode: supply.Warn, Suppliers: []string{script}, SupplierIDs: []string{script}, Exceptions: [][]byte{{1}}, Severity: 4.5,
		Builders: []supply.Builder{{ID: script, Keys: [][]byte{{1}}, Sources: []string{script}}, {ID: "second"}},
	}
	if p == "off" {
		policy = supply.Policy{Mode: supply.Off}
	}
	return policy, stages(s).check(ctx, c, access.DeviceRead, p)
}

// decisionAt is what a gate found, by its place in the control log: that of the release, one that was refused, and one that is good.
func decisionAt(index uint64) []byte {
	d := wire.GateDecision{V: 1, Product: "pump", Subject: [][]byte{make([]byte, 32)}, At: uint64(then.Unix()), Steps: []wire.GateStep{{N: 3, Code: "provenance.missing", Text: script}}}
	switch index {
	case 8:
	case 9:
		return decided
	case 10:
		d.OK, d.Steps = true, []wire.GateStep{{N: 3, OK: true, Text: script}}
	default:
		return nil
	}
	data, err := wire.EncodeGateDecision(d)
	if err != nil {
		panic(err)
	}
	return data
}

func decisions(waiting bool) (out []fleet.Line) {
	if waiting {
		out = append(out, fleet.Line{At: then, Kind: "supply.decided", Log: "control"})
	}
	for _, at := range []uint64{10, 9, 8} {
		out = append(out, fleet.Line{At: then, Kind: "supply.decided", Log: "control", Index: &at})
	}
	return out
}

// decided is what the supply gate found of the release, and summarised what was signed of it.
var (
	decided = func() []byte {
		data, err := wire.EncodeGateDecision(wire.GateDecision{
			V: 1, Product: script, Subject: [][]byte{make([]byte, 32)}, At: uint64(then.Unix()), Components: 3, Unknown: 1, Open: 2, Excused: 4,
			Steps: []wire.GateStep{{N: 1, OK: true, Text: script}, {N: 2, Code: script, Text: script}, {N: 9, Code: "a.code"}},
		})
		if err != nil {
			panic(err)
		}
		return data
	}()
	summarised = func() []byte {
		ref := statement.Reference{URI: script}
		kind, payload, err := statement.Summary{Verifier: script, At: then, Resource: script, Policy: ref, Inputs: []statement.Reference{ref}, Subjects: []statement.Subject{{Name: script}}, Passed: true, Levels: []string{script, "SLSA_BUILD_LEVEL_1"}}.Encode()
		if err != nil {
			panic(err)
		}
		data, err := json.Marshal(statement.Envelope{PayloadType: kind, Payload: payload})
		if err != nil {
			panic(err)
		}
		return data
	}()
)

func TestTheReleasesPageSaysWhatTheGateFound(t *testing.T) {
	s := server(t)
	_, page := get(t, s, "/releases/"+digest, "all")
	for _, want := range []string{"What the supply gate found", "does not pass", "the bill of materials", "step 9", "a.code", "3 components, of 1 nothing is known", "2 open, 4 excused", "signed for others: passes", "SLSA_BUILD_LEVEL_1", "hallmark release summary pump@1.2.0"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if _, page := get(t, s, "/releases/"+strings.Repeat("ff", 32), "all"); strings.Contains(page, "supply gate found") {
		t.Error("a release without a decision has one on its page")
	}
}

// What the gate refused, and what it only warned of, is told apart; each has the step, the reason and what to do.
func TestWhatTheGateDidNotLetThroughHasAPage(t *testing.T) {
	s := server(t)
	_, list := get(t, s, "/supply", "viewer")
	for _, want := range []string{`href="/supply/pump"`, "only warns", `href="/decisions/8"`, `href="/decisions/9"`, "refused", "warned of, and proposed", "provenance.missing", "A decision is on its way into the ledger", `data-since="control:3,events:`} {
		if !strings.Contains(list, want) {
			t.Errorf("the list does not say %q", want)
		}
	}
	if strings.Contains(list, `href="/decisions/10"`) {
		t.Error("what passed is listed")
	}
	for path, want := range map[string][]string{
		"/decisions/8":  {"Refused: there is no such release. 1 step is not good.", "the provenance", supply.Remedy("provenance.missing"), `href="/ledger/control/8"`},
		"/decisions/9":  {"The gate warned, and the release was proposed: 2 steps are not good."},
		"/decisions/10": {"It passed."},
	} {
		_, page := get(t, s, path, "viewer")
		for _, w := range want {
			if !strings.Contains(page, w) {
				t.Errorf("%s does not say %q", path, w)
			}
		}
	}
	for _, path := range []string{"/decisions/7", "/decisions/99", "/decisions/x", "/supply/none"} {
		if resp, _ := get(t, s, path, "viewer"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if resp, page := get(t, s, "/supply", "pumps"); resp.StatusCode != http.StatusOK || strings.Contains(page, "/decisions/8") || !strings.Contains(page, "you may not read all of it") {
		t.Errorf("who has one product is shown decisions of others: %d", resp.StatusCode)
	}
	if resp, _ := get(t, s, "/decisions/8", "pumps"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("and one of them: %d", resp.StatusCode)
	}
}

// The policy is offered for change to who manages releases; each change says all of it.
func TestAPolicyIsOfferedToWhoMay(t *testing.T) {
	s := server(t)
	for who, want := range map[string]bool{"all": true, "viewer": false, "operator": false, "security": false, "admin": false} {
		resp, page := get(t, s, "/supply/pump", who)
		if got := strings.Contains(page, `data-path="/api/v1/products/pump/supply"`); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: status %d, offered %v, want %v", who, resp.StatusCode, got, want)
		}
	}
	_, page := get(t, s, "/supply/pump", "all")
	var changes []supply.Policy
	for _, m := range regexp.MustCompile(`data-path="/api/v1/products/pump/supply" data-body="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		var p supply.Policy
		if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &p); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, p)
	}
	if len(changes) != 4 {
		t.Fatalf("%d changes are offered, want 4", len(changes))
	}
	for i, builders := range []int{2, 3, 1, 1} { // change, one more, and each of the two no more
		if p := changes[i]; len(p.Builders) != builders || len(p.Exceptions) != 1 || p.Severity != 4.5 || p.Mode != supply.Warn {
			t.Errorf("change %d says: %+v", i, p)
		}
	}
	if changes[2].Builders[0].ID != "second" || changes[3].Builders[0].ID != script {
		t.Error("another builder than the row's is dropped")
	}
}
