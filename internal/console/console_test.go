package console_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/console"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	script = `"><script>alert(1)</script>`
	known  = "00bb00bb00bb00bb00bb00bb00bb00bb"
	digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

var then = time.Unix(1_000_000_000, 0)

// reader is a fleet in which everything that anybody else could write is markup.
type reader struct{}

func (reader) FleetSummary(context.Context, []string) (fleet.Summary, error) {
	return fleet.Summary{
		Total: 2, States: map[string]int{"active": 1, "quarantined": 1}, Verdicts: map[string]int{"unknown": 1, "contraindicated": 1}, Findings: 2,
		Versions: map[string]int{"1.0.0": 1, script: 1, "": 3}, Severity: map[string]int{"critical": 1, "low": 1}, At: then,
		Seen: []fleet.Age{{Under: 5 * time.Minute, Devices: 1}, {Devices: 1}},
	}, nil
}

func (reader) FleetDevices(_ context.Context, q fleet.Query) ([]fleet.Device, error) {
	if q.State == "lost" {
		return nil, nil
	}
	return []fleet.Device{
		{ID: "00aa", Product: "pump", State: "active", Health: "healthy", Verdict: "affirming", Version: "1.0.0", LastSeen: &then},
		{ID: known, Product: "pump", Hardware: script, State: "quarantined", Health: script, Version: script, Findings: 2},
	}, nil
}

func (reader) FleetDevice(_ context.Context, id string) (fleet.Detail, error) {
	if id != known {
		return fleet.Detail{}, fault.New(fault.NotFound, "device.unknown", "device "+id+" is not registered", "")
	}
	return fleet.Detail{
		Device: fleet.Device{ID: id, Product: "pump", Group: "eu/berlin", State: "quarantined", Legitimacy: "genuine", Version: script, Release: digest},
		Order:  script, HealthText: script, Reasons: []string{script}, ChipUID: script, KeyOrigin: script, Made: &then, Virtual: true,
	}, nil
}

func lines() []fleet.Line {
	i := uint64(7)
	return []fleet.Line{
		{At: then, Kind: "device.provisioned", Actor: script, Log: "events", Index: &i, Text: script, Subject: script},
		{At: then, Kind: "device.refused", Actor: "device:00bb", Log: "events"},
	}
}

func (reader) FleetTimeline(context.Context, string, int) ([]fleet.Line, error) { return lines(), nil }

func (reader) FleetFacts(_ context.Context, q fleet.FactQuery) ([]fleet.Line, error) {
	if q.Kind == string(ledger.KindSupplyDecided) {
		return decisions(q.Waiting), nil
	}
	return lines(), nil
}

func (reader) FleetFindings(_ context.Context, q fleet.FindingQuery) ([]monitor.Finding, error) {
	return []monitor.Finding{
		{ID: script, Kind: monitor.Kind(script), Severity: q.Severity, Product: "pump", Subject: known, Text: script, Raised: then, Cause: &ledger.Ref{Log: "events", Index: 3}},
		{ID: "2", Kind: monitor.Refusals, Severity: q.Severity, Product: "pump", Subject: script, Text: script, Raised: then, Closed: then, By: script, Reason: script},
	}, nil
}

func (reader) FleetCertificates(context.Context, fleet.CertQuery) ([]fleet.Certificate, error) {
	return []fleet.Certificate{{Device: known, Role: script, Serial: script, Issuer: script, NotAfter: then}}, nil
}

func (reader) FleetGrants(context.Context, int) ([]telemetry.Grant, error) {
	return []telemetry.Grant{{ID: script, Reader: script, Product: script, Stream: script, Purpose: script, Until: time.Now().Add(time.Hour)}}, nil
}

func (reader) FleetExpiry(context.Context, time.Time) (fleet.Expiry, error) {
	return fleet.Expiry{Overdue: 1, Days: []fleet.ExpiryDay{{Day: then, Count: 3}}, Authorities: []fleet.Authority{{Role: "root", Name: script, NotAfter: then}}}, nil
}

func (reader) FleetRuns(context.Context, []byte, []string) (map[string]int, error) {
	return map[string]int{"active": 1}, nil
}

func (reader) FleetGroups(context.Context, fleet.GroupQuery) ([]fleet.Group, error) {
	return []fleet.Group{{Path: "pump/" + script, Devices: 1}}, nil
}

func (reader) FleetStreams(context.Context) ([]fleet.Stream, error) {
	return []fleet.Stream{{Name: script, Devices: 1}}, nil
}

func (reader) FleetBacklog(context.Context) (fleet.Backlog, error) {
	return fleet.Backlog{Followers: map[string]uint64{script: 1}, Sequenced: map[string]uint64{"events": 4}}, nil
}

// stages are the other services; guard is theirs.
type stages struct{ guard *access.Guard }

func (s stages) check(ctx context.Context, c access.Caller, a access.Action, product string) error {
	return s.guard.Check(ctx, c, a, access.Resource{Type: "thing", Product: product})
}

type (
	products stages
	orders   stages
	devices  stages
	releases stages
	rollouts stages
	cases    stages
	rest     stages
)

func (s products) List(ctx context.Context, c access.Caller) ([]product.Product, error) {
	return []product.Product{{ID: "pump", Name: script}}, stages(s).check(ctx, c, access.ProductRead, "pump")
}

var order = factory.Order{ID: script, Product: "pump", Hardware: script, Quota: 3, State: factory.Open, StationName: script, Module: script, Version: script, Created: then}

func (s orders) List(ctx context.Context, c access.Caller, p string) ([]factory.Order, error) {
	return []factory.Order{order}, stages(s).check(ctx, c, access.OrderRead, p)
}

// Page has three pages for whoever asks for "many", by the place that they are limited to.
func (s orders) Page(ctx context.Context, c access.Caller, p, after string, limit int) ([]factory.Order, error) {
	return paging(p, after, limit, order, func(o *factory.Order, id string) { o.ID = id }), stages(s).check(ctx, c, access.OrderRead, p)
}

// paging is a list of one; of a product "many…" of 60.
func paging[T any](p, after string, limit int, one T, name func(*T, string)) (out []T) {
	if !strings.HasPrefix(p, "many") {
		return []T{one}
	}
	for n := range 60 {
		if id := fmt.Sprintf("%s-%02d", p, n); id > after && (limit == 0 || len(out) < limit) {
			x := one
			name(&x, id)
			out = append(out, x)
		}
	}
	return out
}

func (s orders) Get(ctx context.Context, c access.Caller, id string) (factory.Order, error) {
	if id == "none" {
		return factory.Order{}, fault.New(fault.NotFound, "order.unknown", "there is no such order", "")
	}
	return order, stages(s).check(ctx, c, access.OrderRead, "pump")
}

func (s orders) Reconcile(ctx context.Context, c access.Caller, _ string) (factory.Reconciliation, error) {
	return factory.Reconciliation{Order: script, Tally: factory.Tally{Ordered: 3, Made: 1, Alarms: 1}, Blocked: []string{script}, FirstArticle: true, Inspections: []factory.Inspected{{Device: known, By: script, Notes: script}, {Device: script, Passed: true}}}, stages(s).check(ctx, c, access.OrderRead, "pump")
}

func (s orders) Differences(ctx context.Context, c access.Caller, _ string, q factory.Question, after string, limit int) ([]factory.Difference, string, error) {
	shown := &factory.Shown{Order: script, Seq: 4, Device: known, State: "made", Outcome: script, Chip: script, Time: then}
	all := []factory.Difference{
		{Key: "1", Kind: q, Seq: 1, To: 3, Reason: script, Remedy: script, Device: known, Record: shown, Other: shown}, {Key: "2", Kind: q, Device: script, Reason: script},
	}
	next := ""
	for i := len(all); after == "" && i < limit; i++ {
		next = strconv.Itoa(i)
		all = append(all, factory.Difference{Key: next, Kind: q, Seq: uint32(i), Reason: "row"})
	}
	return all, next, stages(s).check(ctx, c, access.OrderRead, "pump")
}

type (
	vendors stages
	desks   stages
)

func (s desks) Desks(ctx context.Context, c access.Caller) ([]factory.Desk, error) {
	return []factory.Desk{{Name: script, Products: []string{script}, Quota: 9, Ordered: 1, By: script, At: then}, {Name: "gone", Removed: then}}, stages(s).check(ctx, c, access.OrderRead, "")
}

func (s vendors) Vendors(ctx context.Context, c access.Caller) ([]chips.Vendor, error) {
	return []chips.Vendor{{ID: script, Chips: 3, Used: 1, By: script, At: then}, {ID: "gone", Ended: then}}, stages(s).check(ctx, c, access.OrderRead, "")
}

func (s vendors) Chip(ctx context.Context, c access.Caller, uid string) (chips.Chip, error) {
	return chips.Chip{UID: uid, Vendor: script, Model: script, Device: known}, stages(s).check(ctx, c, access.OrderRead, "")
}

func (s devices) Get(ctx context.Context, c access.Caller, id string) (device.Device, error) {
	desired, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "mode", Value: "eco"}, {Name: "rate", Value: "5"}})
	if err != nil {
		return device.Device{}, err
	}
	return device.Device{ID: id, Product: "pump", State: device.Quarantined, Since: then, Rekeyed: then, Replaces: script, Twin: device.Twin{
		Agent: script, Suspect: script, Desired: desired, Reported: []wire.ConfigEntry{{Name: "rate", Value: "7"}, {Name: script, Value: script}},
	}}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s devices) Settings(ctx context.Context, c access.Caller, _ string) ([]device.Setting, error) {
	wanted, said, hidden := script, script+script, ""
	return []device.Setting{
		{Name: script, Desired: &wanted, Reported: &said, Standing: device.Differs},
		{Name: "a", Desired: &wanted, Standing: device.NotReported},
		{Name: "b", Reported: &said, Standing: device.ItsOwn},
		{Name: "mode", Standing: device.Unset, Parameter: &wire.Parameter{Name: "mode", Type: wire.TypeEnumeration, Values: []string{"eco", script}, About: script}},
		{Name: "wifi.key", Desired: &hidden, Reported: &hidden, Standing: device.AsWanted, Secret: true, Parameter: &wire.Parameter{Name: "wifi.key", Type: wire.TypeText, Secret: true}},
	}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s devices) DeviceCommands(ctx context.Context, c access.Caller, id string) ([]device.CommandDevice, error) {
	return []device.CommandDevice{{Command: "c1", Device: id, Act: wire.ActReset, Standing: device.Pending, Code: script, Text: script, At: then}},
		stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (devices) CurrentBundle(context.Context, string) (device.Bundle, error) {
	return device.Bundle{Wire: wire.Bundle{Release: wire.KeySet{Threshold: 2, Keys: [][]byte{{1}, {2}, {3}}}, BootManagers: []wire.BootManager{{Digest: make([]byte, 32)}, {Digest: make([]byte, 32), Hardware: []string{script}}}}}, nil
}

func (s rest) Current(ctx context.Context, c access.Caller, id string) (attest.Verdict, error) {
	return attest.Verdict{Device: id, Word: "contraindicated", EAR: attest.EAR{Submods: map[string]attest.Submod{script: {Vector: attest.Vector{Executables: 96}}}}},
		stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s rest) Get(ctx context.Context, c access.Caller, id string) (retire.Retirement, error) {
	return retire.Retirement{Device: id, Product: "pump", Phase: retire.Wiping, By: script, Reason: script}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

var proposed = release.Release{
	Manifest: wire.Release{ID: script, Product: "pump", Version: "1.2.0", Hardware: []string{script}, Notes: script, Components: []wire.Component{{Name: script, Kind: wire.KindExec, Version: script}}},
	Status:   release.Proposed, Creator: script, Created: then, Approvals: []release.Approval{{Caller: script, Key: script, At: then}},
	Decision: decided, Summary: summarised,
}

func (s releases) List(ctx context.Context, c access.Caller, p string) ([]release.Release, error) {
	out := proposed
	out.Status, out.Manifest.Version = release.Published, "1.1.0"
	return []release.Release{proposed, out}, stages(s).check(ctx, c, access.ReleaseRead, p)
}

func (s releases) Get(ctx context.Context, c access.Caller, d [32]byte) (release.Release, error) {
	return releaseAs(d), stages(s).check(ctx, c, access.ReleaseRead, "pump")
}

var halted = rollout.Rollout{
	Spec:  rollout.Spec{ID: script, Product: "pump", Release: make([]byte, 32), Reason: script, Waves: []rollout.Wave{{Size: 1}, {Percent: 100}}},
	Phase: rollout.Halted, Wave: 1, Waves: []rollout.WaveState{{Devices: 1, Started: then}, {Rule: 1, Devices: 4}}, By: script, Reason: script,
	Last: rollout.Counts{Devices: 1, Failed: 1},
}

func (s rollouts) List(ctx context.Context, c access.Caller, p string) ([]rollout.Rollout, error) {
	return []rollout.Rollout{halted}, stages(s).check(ctx, c, access.RolloutRead, p)
}

func (s rollouts) Page(ctx context.Context, c access.Caller, p string, _ bool, after string, limit int) ([]rollout.Rollout, error) {
	return paging(p, after, limit, halted, func(r *rollout.Rollout, id string) { r.Spec.ID = id }), stages(s).check(ctx, c, access.RolloutRead, p)
}

func (s rollouts) Get(ctx context.Context, c access.Caller, id string) (rollout.Rollout, []rollout.DeviceView, error) {
	r := halted
	if id == "running" {
		r.Phase = rollout.Running
	}
	return r, []rollout.DeviceView{{Status: rollout.Status{Device: known, Verdict: script}, Class: rollout.Failed, Why: script}},
		stages(s).check(ctx, c, access.RolloutRead, "pump")
}

func (s rollouts) Progress(ctx context.Context, c access.Caller, id string) ([]rollout.Point, error) {
	return []rollout.Point{{At: then, Counts: rollout.Counts{Devices: 1200, Waiting: 1200}}, {At: then.Add(time.Minute), Counts: rollout.Counts{Devices: 1200, Good: 1199, Failed: 1}}},
		stages(s).check(ctx, c, access.RolloutRead, "pump")
}

// Devices has 120 of which those that failed are asked for, and none else.
func (s rollouts) Devices(ctx context.Context, c access.Caller, _ string, which rollout.Which, after string, limit int) ([]rollout.DeviceView, error) {
	if which == rollout.Stuck {
		return nil, stages(s).check(ctx, c, access.RolloutRead, "pump")
	}
	return many(string(which), after, limit, func(id string) rollout.DeviceView {
		return rollout.DeviceView{Status: rollout.Status{Device: id, Verdict: script}, Class: rollout.Failed, Why: script}
	}), stages(s).check(ctx, c, access.RolloutRead, "pump")
}

func (s releases) ListDeltas(ctx context.Context, c access.Caller, _ [32]byte) ([]release.Delta, error) {
	return []release.Delta{
		{Name: script, Of: script, State: release.DeltaMade, Size: 13_200, Whole: 300_000, Given: 132_000},
		{Name: "tables", State: release.DeltaUseless, Text: script, Whole: 9},
		{Name: "a", State: release.DeltaWanted},
		{Name: "b", State: release.DeltaFailed, Text: script},
	}, stages(s).check(ctx, c, access.ReleaseRead, "pump")
}

// Approvers are nobody of "none", and one of three of the others.
func (s releases) Approvers(ctx context.Context, c access.Caller, p string) ([]release.Approver, error) {
	key := wire.KeyIDOfSPKI([]byte{2})
	return []release.Approver{{Key: hex.EncodeToString(key[:]), Member: script}}, stages(s).check(ctx, c, access.ReleaseRead, p)
}

func (s cases) Page(ctx context.Context, c access.Caller, p, _ string, _ int) ([]remedy.Case, error) {
	_, err := s.guard.Within(ctx, c, access.FindingRead, "case", p, "")
	return []remedy.Case{{Device: known, Product: "pump", Group: "eu/berlin", Reason: script, Phase: remedy.Contained, Opened: then}}, err
}

type enrolments stages

func (s enrolments) Waitings(ctx context.Context, c access.Caller, place string, _ onboard.Word, _ string, _ int) ([]onboard.Waiting, error) {
	_, err := s.guard.Within(ctx, c, access.DeviceRead, "device", place, "")
	return []onboard.Waiting{
		{Device: known, Product: "pump", Group: "eu/berlin", Hardware: script, Call: onboard.CallKeygen, Request: digest, Key: digest, State: onboard.Waits, Asked: then, Until: then},
		{Device: "00aa", Product: "pump", State: onboard.Refused, By: script, Reason: script, Asked: then, Until: then},
	}, err
}

// owners knows one of each, with script for every word that people or devices choose.
type owners stages

func (s owners) List(ctx context.Context, c access.Caller, _ string, _ int) ([]owner.Owner, error) {
	return []owner.Owner{{ID: "o-1", Name: script, Created: then, Devices: 1}}, stages(s).check(ctx, c, access.OwnerRead, "")
}

func (s owners) Get(ctx context.Context, c access.Caller, _ string) (owner.Owner, error) {
	return owner.Owner{ID: "o-1", Name: script, Created: then, Ended: then}, stages(s).check(ctx, c, access.OwnerRead, "")
}

func (s owners) Lineage(ctx context.Context, c access.Caller, _ string) ([]owner.Period, error) {
	return []owner.Period{
		{Number: 1, Digest: []byte{1, 2}, From: then, Until: then, End: owner.Resale}, {Number: 2, Owner: "o-1", Key: []byte{1}, Refused: script, From: then},
	}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s owners) MarksOf(ctx context.Context, c access.Caller, _ string) ([]owner.Mark, error) {
	return []owner.Mark{{Reason: script, At: then}, {Recall: script, At: then}}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s owners) Recalls(ctx context.Context, c access.Caller, _ string) ([]owner.Recall, error) {
	return []owner.Recall{{ID: "rc-1", Product: script, Reason: script, Remedy: script, Due: then}}, stages(s).check(ctx, c, access.ProductRead, "")
}

func (s owners) Transfers(ctx context.Context, c access.Caller, _ string, _ int) ([]owner.Transfer, error) {
	return []owner.Transfer{{Device: known, Kind: owner.Resale, Refused: script, Begun: then}}, stages(s).check(ctx, c, access.OwnerRead, "")
}

func (s owners) LastTransfer(ctx context.Context, c access.Caller, _ string) (owner.Transfer, error) {
	return owner.Transfer{Device: known, Kind: owner.Rehome, Refused: script, Begun: then}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

func (s owners) Preview(ctx context.Context, c access.Caller, _ []string) ([]owner.Preview, error) {
	return []owner.Preview{{Device: known, Warrant: owner.WarrantNone, Weight: owner.Weight{Rollout: script}}}, stages(s).check(ctx, c, access.DeviceRead, "pump")
}

type proposals stages

var waiting = proposal.Proposal{
	ID: "p", State: proposal.Open, By: "person:ann", Reason: script, Made: then, Expires: then.AddDate(100, 0, 0), Action: access.DeviceQuarantine,
	Asked:    proposal.Asked{Method: "POST", Path: "/api/v1/commands", Summary: "Command devices", Body: []byte(`{"reason":"\"><script>alert(1)</script>"}`)},
	Resource: access.Resource{Type: "device", Product: "pump", Grave: true},
}

func (s proposals) List(ctx context.Context, c access.Caller, product, _ string, _ int) ([]proposal.Proposal, error) {
	_, err := s.guard.Within(ctx, c, access.ProposalRead, "proposal", product, "")
	return []proposal.Proposal{waiting}, err
}

func (s proposals) Get(ctx context.Context, c access.Caller, _ string) (proposal.Proposal, error) {
	return waiting, stages(s).check(ctx, c, access.ProposalRead, "pump")
}

func (reader) SaveQuery(context.Context, string, fleet.Saved) error { return nil }

func (reader) SavedQueries(context.Context, string) ([]fleet.Saved, error) {
	return []fleet.Saved{{Name: script, Query: fleet.Query{Product: "pump", Filter: device.Filter{Version: script}}}}, nil
}

func (reader) ForgetQuery(context.Context, string, string) error { return nil }

type audit stages

func (s audit) List(ctx context.Context, c access.Caller, _ access.RecordedFilter, _ int64, _ int) ([]access.Recorded, error) {
	return []access.Recorded{{ID: 1, At: then, Caller: script, Action: script, Resource: script, Product: script}},
		stages(s).check(ctx, c, access.InstanceRead, "")
}

type members stages

func (s members) Members(ctx context.Context, c access.Caller, _ string, _ int) ([]signin.Member, error) {
	return []signin.Member{{ID: script, Kind: access.Person, Roles: []access.Role{access.Admin}, Scope: []string{script}, Created: then}},
		stages(s).check(ctx, c, access.InstanceRead, "")
}

func (s members) Member(ctx context.Context, c access.Caller, id string) (signin.Member, error) {
	return signin.Member{ID: "person:eve", Kind: access.Person, Roles: []access.Role{access.Operator}, Scope: []string{script}, Created: then},
		stages(s).check(ctx, c, access.InstanceRead, "")
}

func (s members) Held(context.Context, access.Caller, string) ([]signin.Credential, error) {
	return []signin.Credential{{Use: signin.UseToken, From: script, Created: then, Expires: then}}, nil
}

func (s members) Identities(context.Context, access.Caller, string) ([]signin.Identity, error) {
	return []signin.Identity{{Issuer: script, Email: script, Created: then}, {Issuer: script, Subject: script, Created: then}}, nil
}

type logs struct{}

func (logs) Private(context.Context, wire.Fact) ([]byte, error) { return nil, nil }

func (logs) Latest(context.Context, ledger.Log) (ledger.Published, error) {
	return ledger.Published{}, ledger.ErrNotFound
}

func (logs) Entry(_ context.Context, ref ledger.Ref) ([]byte, error) {
	if ref.Index > 10 {
		return nil, ledger.ErrNotFound
	}
	if d := decisionAt(ref.Index); d != nil {
		return ledger.New(ledger.KindSupplyDecided, then, script, script, nil, d).Encode(nil)
	}
	return ledger.New(ledger.KindAccessChanged, then, script, script, &ledger.Ref{Log: "control", Index: 1}, []byte(`{"a":"\"><script>alert(1)</script>"}`)).Encode(nil)
}

// people are signed in by a session of their name.
var people = map[string]access.Caller{
	"viewer":   {ID: "person:ann", Roles: []access.Role{access.Viewer}},
	"operator": {ID: "person:ben", Roles: []access.Role{access.Operator}},
	"all":      {ID: script, Roles: []access.Role{access.Operator, access.ReleaseManager, access.Factory}},
	"pumps":    {ID: "person:cat", Roles: []access.Role{access.Operator}, Scope: []string{"pump"}},
	"valves":   {ID: "person:dan", Roles: []access.Role{access.Operator}, Scope: []string{"valve"}},
	"berlin":   {ID: "person:bea", Roles: []access.Role{access.Operator}, Scope: []string{"pump/eu/berlin"}},
	"rome":     {ID: "person:rob", Roles: []access.Role{access.Operator}, Scope: []string{"pump/eu/rome"}},
	"berlin's": {ID: "person:bob", Roles: []access.Role{access.Viewer, access.Security}, Scope: []string{"pump/eu/berlin"}},
	"security": {ID: "person:sue", Roles: []access.Role{access.Security}},
	"factory":  {ID: "person:fred", Roles: []access.Role{access.Factory}},
	"admin":    {ID: "person:ada", Roles: []access.Role{access.Admin}},
	"nobody":   {ID: "person:eve"},
	"many":     {ID: "person:may", Roles: []access.Role{access.Viewer}, Scope: []string{"many1", "many2"}},
}

type sessions struct{}

func (sessions) Begin(_ context.Context, token string) (string, time.Time, error) {
	if token != "good" {
		return "", time.Time{}, fault.New(fault.Denied, "x", "no", "")
	}
	return "viewer", time.Now().Add(time.Hour), nil
}

func (sessions) Caller(_ context.Context, secret string) (access.Caller, error) {
	c, ok := people[secret]
	if !ok {
		return access.Caller{}, fault.New(fault.Denied, "x", "no", "")
	}
	c.Kind = access.Person
	return c, nil
}

type noAudit struct{}

func (noAudit) Record(context.Context, access.Decision) error { return nil }

// site is a console that is served.
type site struct {
	*httptest.Server
	root   [32]byte // whom its verdicts lead to
	curbed bool     // strangers have asked too often
}

func server(t *testing.T) *site {
	t.Helper()
	guard, err := access.NewGuard(noAudit{})
	if err != nil {
		t.Fatal(err)
	}
	st, out := stages{guard}, &site{}
	var asked *genuine.Service
	asked, out.root = strangers(t)
	out.Server = httptest.NewServer(console.Handler(console.Config{
		Genuine: asked, Curb: func(string) bool { return !out.curbed }, Root: "00", Site: "https://console.example",
		Fleet: fleet.NewService(reader{}, reader{}, guard), Sessions: sessions{}, Log: slog.New(slog.DiscardHandler),
		Stages: console.Stages{
			Products: products(st), Orders: orders(st), Desks: desks(st), Masters: masters(st), Enrolments: enrolments(st), Owners: owners(st), Transfers: owners(st), Vouchers: vouchers(st), Makers: makers(st), Clients: others(st), Chips: vendors(st), Authorities: authorities(st), Devices: devices(st), Evidence: rest(st), Releases: releases(st), Supply: supplies(st), Parts: lots(st), Rollouts: rollouts(st),
			Cases: cases(st), Retirements: rest(st), Compliance: assessments(st), Ledger: logs{}, Proposals: proposals(st), Members: members(st), Audit: audit(st),
		},
		Allowed: func(ctx context.Context, c access.Caller, a access.Action, res access.Resource) bool {
			c.Seconded = "somebody"
			return guard.Check(ctx, c, a, res) == nil
		},
		Trust:    console.Trust{Logs: map[ledger.Log]console.LogTrust{"events": {Origin: script, Key: []byte{1}}}, Witnesses: map[string][]byte{script: {1}}, Quorum: 1},
		Position: func(context.Context) (string, error) { return "control:3,events:" + script, nil },
		Pulse:    func() map[string]console.Beat { return map[string]console.Beat{"publish": {At: then, Due: then}} },
	}))
	t.Cleanup(out.Close)
	return out
}

func get(t *testing.T, s *site, path, session string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		req.AddCookie(&http.Cookie{Name: "hallmark-session", Value: session})
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(page)
}

// pages are all that need a session.
func pages() []string {
	return []string{
		"/", "/devices", "/devices/" + known, "/findings", "/cases", "/releases", "/releases/" + digest, "/releases/" + digest + "/components", "/components", "/components?what=" + script, "/rollouts", "/rollouts/r", "/rollouts/running", "/rollouts/r?list=all", "/rollouts/r?list=stuck&after=x",
		"/supply", "/supply?before=9", "/supply/pump", "/decisions/8", "/decisions/10", "/suppliers", "/suppliers?after=s-100", "/suppliers/s-1", "/suppliers/ended", "/parts", "/parts/p-1", "/parts/soft", "/lots", "/lots/l-1", "/lots/recalled",
		"/orders", "/orders/o", "/orders/o/differences", "/orders/o/differences?list=clone&after=7", "/desks", "/masters", "/masters/" + digest, "/masters/old", "/chips", "/chips?uid=0123", "/certificates", "/certificates?held=ab", "/enrolments", "/compliance", "/compliance/etsi/5.1-met", "/streams", "/ledger", "/ledger/events/7", "/platform",
		"/owners", "/owners/o-1", "/claim", "/claim?device=" + known, "/transfer/" + known, "/transfers",
		"/vouchers", "/vouchers?open=1&device=" + known, "/vouchers/v1", "/makers", "/clients", "/authorities", "/authorities?of=orders", "/bundles", "/bundles/pump",
		"/proposals", "/proposals/p", "/members", "/members/m", "/audit",
	}
}

func TestPagesNeedASessionAndAssetsDoNot(t *testing.T) {
	s := server(t)
	want := map[string]int{"/login": 200, "/genuine": 200, "/genuine?id=" + known: 303, "/g/" + known: 200, "/g/" + known + "/verdict": 200, "/g/x": 404, "/g/" + known + "/qr.svg": 200, "/assets/console.css": 200, "/assets/verify.js": 200, "/nowhere": 303, "/assets/none": 404}
	for _, p := range pages() {
		want[p] = 303
	}
	for path, want := range want {
		resp, _ := get(t, s, path, "")
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	if resp, _ := get(t, s, "/assets/../console.go", ""); resp.StatusCode == 200 {
		t.Error("a way out of the assets")
	}
	if resp, _ := get(t, s, "/", "stolen"); resp.StatusCode != 303 {
		t.Errorf("an unknown session: %d", resp.StatusCode)
	}
}

func TestWhatDevicesSayCannotBecomeMarkup(t *testing.T) {
	s := server(t)
	hostile := "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
	for _, path := range append(pages(), "/devices?state="+hostile+"&product="+hostile+"&q="+hostile+"&version="+hostile+"&verdict="+hostile+"&release="+hostile,
		"/ledger?log="+hostile+"&subject="+hostile+"&kind="+hostile, "/genuine?id="+hostile, "/findings?severity="+hostile, "/orders/"+hostile, "/nowhere/"+hostile) {
		resp, page := get(t, s, path, "all")
		if resp.StatusCode >= 500 || strings.Contains(page, "<script>alert") || strings.Contains(page, `"><script>`) {
			t.Errorf("%s: status %d, markup injected: %v", path, resp.StatusCode, strings.Contains(page, "<script>alert"))
		}
	}
}

var (
	scripts = regexp.MustCompile(`<script\b[^>]*>`)
	inline  = regexp.MustCompile(`(?i)<style|\sstyle\s*=\s*["']|<[^>]+\son[a-z]+\s*=\s*["']|href="javascript:`)
)

// What the policy forbids would not work: no page may need it.
func TestNothingIsInline(t *testing.T) {
	s := server(t)
	for _, path := range append(pages(), "/login", "/genuine", "/g/"+known, "/g/"+known+"?question="+strings.Repeat("0", 32), "/nowhere") {
		_, page := get(t, s, path, "all")
		for _, tag := range scripts.FindAllString(page, -1) {
			if !strings.Contains(tag, `src="/assets/`) {
				t.Errorf("%s: %s", path, tag)
			}
		}
		if found := inline.FindString(page); found != "" {
			t.Errorf("%s: %q", path, found)
		}
		for _, need := range []string{`lang="en"`, `<main id="main"`, `class="skip"`, "<h1>", "<title>"} {
			if !strings.Contains(page, need) {
				t.Errorf("%s has no %s", path, need)
			}
		}
		if strings.Count(page, "<table>") > strings.Count(page, "<caption>") {
			t.Errorf("%s has a table without a caption", path)
		}
		if strings.Contains(page, "@when") || strings.Contains(page, "%!") {
			t.Errorf("%s shows a template's inside", path)
		}
	}
}

func TestACertificateIsOfferedToWhoHasItsDevicesGroup(t *testing.T) {
	s := server(t)
	for who, want := range map[string]bool{"security": true, "berlin's": true, "operator": false} {
		if _, page := get(t, s, "/devices/"+known, who); strings.Contains(page, "Revoke this certificate") != want {
			t.Errorf("%s is offered to revoke: %v", who, !want)
		}
	}
}

func TestAnEnrolmentIsOfferedToWhoMayDecide(t *testing.T) {
	s := server(t)
	for who, want := range map[string]struct{ decide, change bool }{"operator": {true, false}, "berlin": {true, false}, "rome": {}, "viewer": {}, "security": {true, true}} {
		resp, page := get(t, s, "/enrolments", who)
		decide, change := strings.Contains(page, "/enrolments/"+known+"/approve"), strings.Contains(page, "/products/pump/enrolment")
		if resp.StatusCode != http.StatusOK || decide != want.decide || change != want.change {
			t.Errorf("%s: status %d, offered to decide: %v, to change the rules: %v; want %+v", who, resp.StatusCode, decide, change, want)
		}
	}
}

// What changes who signs, whose devices come and who goes is offered to those who may, and to nobody else.
func TestIdentityIsOfferedToWhoMayChangeIt(t *testing.T) {
	s := server(t)
	for what, c := range map[string]struct {
		page, action string
		may          []string
	}{
		"asking for an authority": {"/authorities", "/api/v1/issuers/requests", []string{"admin"}},
		"installing one":          {"/authorities", "/api/v1/issuers/install", []string{"admin"}},
		"welcoming a device":      {"/makers", "/api/v1/products/pump/arrivals", []string{"security", "factory"}},
		"admitting a client":      {"/clients", "/api/v1/products/pump/legacy-clients", []string{"security", "factory"}},
		"refusing one":            {"/clients", "/api/v1/products/pump/legacy-clients/refusals", []string{"security", "factory"}},
		"keeping one after all":   {"/transfer/" + known, "/api/v1/transfers/" + known + "/give-up", []string{"operator", "security"}},
		"taking in a manifest":    {"/chips", "/api/v1/chip-vendors/", []string{"security", "factory"}},
		"registering an order":    {"/desks", "/api/v1/registrations", []string{"factory"}},
		"taking in advisories":    {"/components", "/api/v1/advisories/", []string{"security"}},
		"removing a desk":         {"/desks", "/remove", []string{"security"}},
	} {
		for _, who := range []string{"viewer", "operator", "factory", "security", "admin"} {
			resp, page := get(t, s, c.page, who)
			if got, want := strings.Contains(page, c.action), slices.Contains(c.may, who); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s: status %d, offered to %s: %v, want %v", what, resp.StatusCode, who, got, want)
			}
		}
	}
	if _, page := get(t, s, "/devices/"+known, "viewer"); !strings.Contains(page, "Keys that it had before") {
		t.Error("the device's page is silent about its former keys")
	}
}

// A long list is shown page by page, product after product, each thing once.
func TestLongListsAreShownPageByPage(t *testing.T) {
	s := server(t)
	for _, list := range []string{"/rollouts", "/orders", "/masters"} {
		path, seen, pages := list, 0, 0
		next := regexp.MustCompile(`rel="next" href="([^"]+)"`)
		for path != "" && pages < 9 {
			resp, page := get(t, s, path, "many")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d", path, resp.StatusCode)
			}
			if n := len(regexp.MustCompile(`<th scope="row"><a href="`+list+`/many`).FindAllString(page, -1)); n > 50 {
				t.Errorf("%s: %d on a page", path, n)
			} else {
				seen += n
			}
			path = ""
			if m := next.FindStringSubmatch(page); m != nil {
				path = html.UnescapeString(m[1])
			}
			pages++
		}
		if seen != 120 || pages != 3 {
			t.Errorf("%s: %d on %d pages, want 120 on 3", list, seen, pages)
		}
	}
}

func TestACaseIsOfferedToWhoHasItsGroup(t *testing.T) {
	s := server(t)
	for who, want := range map[string]bool{"operator": true, "pumps": true, "berlin": true, "rome": false, "viewer": false} {
		resp, page := get(t, s, "/cases", who)
		if got := strings.Contains(page, "/remedies/"+known+"/reprovision"); resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: status %d, offered to make it anew: %v, want %v", who, resp.StatusCode, got, want)
		}
	}
}

func TestWhoMayNotSeesNothing(t *testing.T) {
	s := server(t)
	for _, path := range pages() {
		if resp, page := get(t, s, path, "nobody"); resp.StatusCode != http.StatusForbidden || strings.Contains(page, "alert(1)") {
			t.Errorf("%s without a role: %d", path, resp.StatusCode)
		}
		if resp, _ := get(t, s, path, "viewer"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s as viewer: %d", path, resp.StatusCode)
		}
	}
	for _, path := range []string{"/devices/" + known, "/releases/" + digest, "/rollouts/r", "/orders/o"} {
		if resp, page := get(t, s, path, "valves"); resp.StatusCode != http.StatusForbidden || strings.Contains(page, "alert(1)") {
			t.Errorf("%s of another product: %d", path, resp.StatusCode)
		}
		if resp, _ := get(t, s, path, "pumps"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s of one's own product: %d", path, resp.StatusCode)
		}
	}
	for _, path := range []string{"/", "/devices", "/findings", "/cases", "/releases", "/rollouts", "/orders"} {
		if resp, _ := get(t, s, path, "pumps"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s for one product: %d", path, resp.StatusCode)
		}
	}
	for _, path := range []string{"/devices/00cc", "/orders/none", "/ledger/events/99", "/ledger/other/1", "/ledger/events/x", "/releases/zz", "/nowhere"} {
		if resp, _ := get(t, s, path, "viewer"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestOnlyWhatIsAllowedIsOffered(t *testing.T) {
	s := server(t)
	for path, want := range map[string]string{
		"/devices/" + known: `data-path="/api/v1/commands"`, "/findings": "/api/v1/findings/", "/rollouts/running": "/halt", "/cases": "/dismiss",
	} {
		if _, page := get(t, s, path, "operator"); !strings.Contains(page, want) {
			t.Errorf("%s does not offer %s to an operator", path, want)
		}
		if _, page := get(t, s, path, "viewer"); strings.Contains(page, "data-path=") {
			t.Errorf("%s offers a viewer something", path)
		}
	}
	if _, page := get(t, s, "/releases/"+digest, "all"); strings.Contains(page, "/publish") || !strings.Contains(page, "1 missing") {
		t.Error("a release is offered for publication without its approvals, or does not say how many are missing")
	}
}

// A proposal is offered for approval to who may do it himself, and to nobody else; its proposer can take it back.
func TestWhoIsAskedToApprove(t *testing.T) {
	s := server(t)
	for who, want := range map[string]bool{"operator": true, "pumps": true, "viewer": false} {
		if _, page := get(t, s, "/proposals/p", who); strings.Contains(page, ">Approve</button>") != want {
			t.Errorf("%s is asked to approve: %v", who, !want)
		}
	}
	if resp, _ := get(t, s, "/proposals/p", "valves"); resp.StatusCode != 403 {
		t.Errorf("who is of another product sees it: %d", resp.StatusCode)
	}
}

func TestThePagesSayWhatMatters(t *testing.T) {
	s := server(t)
	for path, wants := range map[string][]string{
		"/":                 {"2 devices", "failed to prove", "is halted", "in quarantine", `href="/devices?verdict=contraindicated"`, "1 device not heard of"},
		"/devices":          {"affirming", "unknown", `href="/devices/` + known + `"`},
		"/devices/" + known: {"device.provisioned", `href="/ledger/events/7"`, "not yet placed", "differs", "not reported", "contraindicated", "virtual device"},
		"/ledger/events/7":  {`data-log="events"`, `data-index="7"`, "access.changed"},
		"/platform":         {"has not gone well"},
		"/proposals":        {`href="/proposals/p"`, "Command devices", "device of product pump"},
		"/proposals/p":      {"Waits for a second person", "/api/v1/commands", "device:quarantine", ">Withdraw</button>"},
	} {
		_, page := get(t, s, path, "viewer")
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
	}
	if _, page := get(t, s, "/devices?state=lost", "viewer"); !strings.Contains(page, "hallmark order import") {
		t.Error("an empty list does not say what to do")
	}
	if resp, _ := get(t, s, "/devices?q="+strings.ToUpper(known), "viewer"); resp.Header.Get("Location") != "/devices/"+known {
		t.Errorf("a whole ID leads to %q", resp.Header.Get("Location"))
	}
}
