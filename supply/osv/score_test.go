package osv_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/supply/osv"
)

// The figures are FIRST's own examples (CVSS 2.0 §3.3, 3.1 and 4.0 examples).
func TestScoresAreThoseOfTheirNotation(t *testing.T) {
	for vector, want := range map[string]float64{
		"AV:N/AC:L/Au:N/C:N/I:N/A:C":                                      7.8,
		"CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":                    9.8,
		"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:L":                    3.3,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H": 10,
		"CVSS:9.0/AV:N": 0, "": 0, "high": 0, "CVSS:3.1/AV:N": 0,
	} {
		if got := (osv.Advisory{Severity: []osv.Severity{{Type: "x", Score: vector}}}).Score(); got != want {
			t.Errorf("%q: %v, want %v", vector, got, want)
		}
	}
}

func FuzzScore(f *testing.F) {
	f.Add("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H")
	f.Add("AV:N/AC:L/Au:N/C:N/I:N/A:C")
	f.Fuzz(func(t *testing.T, vector string) {
		if s := (osv.Advisory{Severity: []osv.Severity{{Score: vector}}}).Score(); !(s >= 0 && s <= 10) {
			t.Errorf("%q: %v", vector, s)
		}
	})
}
