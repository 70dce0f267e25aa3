package wire

import (
	"strings"
	"testing"
)

func releaseOver(over ...VersionRange) Release {
	return Release{
		ID: "r", Product: "p", Hardware: []string{"A"}, Model: ModelBlob, Version: "3.0.0", Counter: 1, Created: 1, Over: over,
		Components: []Component{{Name: "app", Kind: KindExec, Version: "3.0.0", Size: 1, Digest: make([]byte, 32), Health: HealthAlive}},
	}
}

func TestOverWhatAReleaseIsInstalled(t *testing.T) {
	some := releaseOver(VersionRange{From: "1.2.0", Below: "1.4.0"}, VersionRange{From: "2.0.0"})
	for version, want := range map[string]bool{"1.1.9": false, "1.2.0": true, "1.3.9": true, "1.4.0": false, "2.0.0-rc.1": false, "2.0.0": true, "2.9.0": true} {
		if got := some.InstallsOver(version); got != want {
			t.Errorf("over %s: %v", version, got)
		}
	}
	if !releaseOver().InstallsOver("0.0.1") {
		t.Error("one that does not say is not installed over any")
	}
	data, err := EncodeRelease(some)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := DecodeRelease(data); err != nil || len(back.Over) != 2 {
		t.Errorf("%+v, %v", back.Over, err)
	}
	many := make([]VersionRange, 0, MaxOver+1)
	for _, n := range "123456789" {
		many = append(many, VersionRange{From: string(n) + ".0.0", Below: string(n) + ".1.0"})
	}
	for what, over := range map[string][]VersionRange{
		"without an end":     {{}},
		"not semver":         {{From: "1"}, {From: "v2.0.0"}},
		"empty":              {{From: "1.0.0", Below: "1.0.0"}},
		"not rising":         {{From: "2.0.0", Below: "3.0.0"}, {From: "1.0.0", Below: "2.0.0"}},
		"not apart":          {{From: "1.0.0", Below: "2.0.0"}, {From: "1.9.0"}},
		"behind an open one": {{From: "1.0.0"}, {From: "2.0.0"}},
		"before an open one": {{Below: "2.0.0"}, {Below: "3.0.0"}},
		"more than there is": many,
	} {
		if _, err := EncodeRelease(releaseOver(over...)); err == nil || !strings.Contains(err.Error(), "over") {
			t.Errorf("%s: %v", what, err)
		}
	}
	long := releaseOver()
	if long.BackFor = MaxBackFor + 1; long.check() == nil {
		t.Error("a way back for ever is taken")
	}
}

// What says nothing of its ways is written as it was before there were any: its digest, and what an agent of before makes of it, stay.
func TestAReleaseAndABundleWithoutWaysAreWrittenAsBefore(t *testing.T) {
	data, err := EncodeRelease(releaseOver())
	if err != nil {
		t.Fatal(err)
	}
	var fields map[uint64]any
	if err := Unmarshal(data, &fields, MaxRelease); err != nil || len(fields) != 8 {
		t.Errorf("%d fields, %v", len(fields), err)
	}
	b := Bundle{Floor: 3}
	if data, err = Marshal(b); err != nil {
		t.Fatal(err)
	}
	clear(fields)
	if err := Unmarshal(data, &fields, MaxBundle); err != nil || len(fields) != 16 {
		t.Errorf("%d fields, %v", len(fields), err)
	}
}
