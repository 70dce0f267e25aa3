package device_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
)

func anyFilter(t *rapid.T, name string) device.Filter {
	one := func(name string, of ...string) string { return rapid.SampledFrom(append(of, "", "")).Draw(t, name) }
	return device.Filter{
		State: one(name+" state", "active", "quarantined"), Verdict: one(name+" verdict", "affirming", "unknown"), Version: one(name+" version", "1.0.0", "1.1.0"),
		Assurance: one(name+" assurance", "enforces", "says"), Release: one(name+" release", "aa", "bb"), Bundle: one(name+" bundle", "1", "2"),
		Prefix: one(name+" prefix", "0", "01", "1"), Findings: rapid.Bool().Draw(t, name+" findings"),
	}
}

// selects is what the word says, of a device that is all that d says and whose ID is d.Prefix.
func selects(f, d device.Filter) bool {
	for _, w := range [][2]string{{f.State, d.State}, {f.Verdict, d.Verdict}, {f.Version, d.Version}, {f.Assurance, d.Assurance}, {f.Release, d.Release}, {f.Bundle, d.Bundle}} {
		if w[0] != "" && w[0] != w[1] {
			return false
		}
	}
	return strings.HasPrefix(d.Prefix, f.Prefix) && (!f.Findings || d.Findings)
}

// A filter that covers another has every device that the other has; one that says the same covers it.
func TestAFilterThatCoversAnotherHasAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, o := anyFilter(t, "f"), anyFilter(t, "o")
		if rapid.Bool().Draw(t, "narrower") { // else few cover each other
			o = f
			o.Findings, o.Prefix = true, f.Prefix+rapid.SampledFrom([]string{"", "1"}).Draw(t, "more")
		}
		d := device.Filter{
			State: rapid.SampledFrom([]string{"active", "quarantined"}).Draw(t, "state"), Verdict: rapid.SampledFrom([]string{"affirming", "unknown"}).Draw(t, "verdict"),
			Version: rapid.SampledFrom([]string{"1.0.0", "1.1.0"}).Draw(t, "version"), Assurance: rapid.SampledFrom([]string{"enforces", "says"}).Draw(t, "assurance"),
			Release: rapid.SampledFrom([]string{"aa", "bb"}).Draw(t, "release"), Bundle: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "bundle"),
			Prefix: rapid.SampledFrom([]string{"00", "01", "11", "011"}).Draw(t, "ID"), Findings: rapid.Bool().Draw(t, "findings"),
		}
		if !f.Covers(f) || !(device.Filter{}).Covers(f) {
			t.Fatalf("%+v is not covered by itself, or not by one that asks for nothing", f)
		}
		if f.Covers(o) && selects(o, d) && !selects(f, d) {
			t.Fatalf("%+v covers %+v, and %+v is in the second alone", f, o, d)
		}
	})
}

func TestAFilterRefusesWordsThatNoDeviceHas(t *testing.T) {
	for code, all := range map[string][]device.Filter{
		"query.state": {{State: "actve"}}, "query.verdict": {{Verdict: "splendid"}}, "query.assurance": {{Assurance: "swears"}}, "query.release": {{Release: "zz"}, {Release: "aabb"}}, "query.bundle": {{Bundle: "-1"}},
		"query.text": {{Version: "1.0\x00"}, {Prefix: "0\n"}, {Version: "\xff"}},
	} {
		for _, f := range all {
			if got, ok := errors.AsType[*fault.Fault](f.Check()); !ok || got.Code != code {
				t.Errorf("%+v: %v, want %s", f, got, code)
			}
		}
	}
	for want, f := range map[string]device.Filter{
		"all devices": {},
		"devices that are quarantined, run 1.0.0, have no current evidence, have open findings":                              {State: "quarantined", Version: "1.0.0", Verdict: "unknown", Findings: true},
		"devices that run release aabbccddeeff, only say what they run, believe trust bundle 7, have IDs that begin with 0a": {Release: "aabbccddeeff" + strings.Repeat("0", 52), Assurance: "says", Bundle: "7", Prefix: "0a"},
	} {
		if err := f.Check(); err != nil || f.Text() != want {
			t.Errorf("%q (%v), want %q", f.Text(), err, want)
		}
	}
}
