package console_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
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
