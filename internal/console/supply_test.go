package console_test

import (
	"context"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/bom"
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
