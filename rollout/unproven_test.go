package rollout

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func dealt(t interface{ Fatal(...any) }, spec Spec, n int) []WaveState {
	all := make([]Member, n)
	for i := range all {
		all[i] = Member{Device: fmt.Sprintf("%032x", i)}
	}
	_, waves, err := Deal(spec, all)
	if err != nil {
		t.Fatal(err)
	}
	return waves
}

func TestSoManyAreToldBeforeAnyIsSeenToBeGood(t *testing.T) {
	for name, c := range map[string]struct {
		waves   []Wave
		dynamic bool
		want    int
	}{
		"a canary":                                  {waves: []Wave{{Size: 1}, {Percent: 10}, {}}, want: 1},
		"all at once":                               {waves: []Wave{{}}, want: 1000},
		"a wave larger than the fleet":              {waves: []Wave{{Size: 5000}}, want: 1000},
		"a tenth":                                   {waves: []Wave{{Percent: 10}, {}}, want: 100},
		"a canary that halts nothing":               {waves: []Wave{{Size: 1, MaxFailures: 5}, {Size: 20}, {}}, want: 21},
		"canaries of which all may fail":            {waves: []Wave{{Size: 10, MaxFailures: 10}, {Size: 10, MaxFailures: 9}, {}}, want: 20},
		"nothing ever halts":                        {waves: []Wave{{Size: 10, MaxFailures: 5000}, {MaxFailures: 5000}}, want: 1000},
		"errors halt and silence does not":          {waves: []Wave{{Size: 10, MaxNoShows: 10}, {}}, want: 1000},
		"silence halts and errors do not":           {waves: []Wave{{Size: 10, MaxErrors: 10}, {}}, want: 1000},
		"parts of it":                               {waves: []Wave{{Size: 10, MaxErrorsRate: 90, MaxNoShowsRate: 99}, {}}, want: 10},
		"a few under way at once":                   {waves: []Wave{{Tranche: 7}}, want: 7},
		"a few, of which some may fail":             {waves: []Wave{{Tranche: 7, MaxFailures: 20}}, want: 21},
		"a few, of which all may fail":              {waves: []Wave{{Tranche: 7, MaxFailures: 5000}}, want: 1000},
		"a few, within a part":                      {waves: []Wave{{Tranche: 2, MaxFailuresRate: 1}}, want: 4},
		"whoever comes":                             {waves: []Wave{{}}, dynamic: true, want: Unbounded},
		"whoever comes, after a canary":             {waves: []Wave{{Size: 5}, {}}, dynamic: true, want: 5},
		"whoever comes, a few at once":              {waves: []Wave{{Tranche: 7}}, dynamic: true, want: 7},
		"whoever comes, after who halts nothing":    {waves: []Wave{{Size: 5, MaxFailures: 5}, {}}, dynamic: true, want: Unbounded},
		"whoever comes, a few, of which some may":   {waves: []Wave{{Tranche: 7, MaxFailures: 200}}, dynamic: true, want: 203},
		"whoever comes, and all may fail":           {waves: []Wave{{Tranche: 7, MaxFailures: Unbounded}}, dynamic: true, want: Unbounded},
		"as many as the wave takes when they come":  {waves: []Wave{{Size: 5000}, {}}, dynamic: true, want: 5000},
		"of the few of a wave that are left for it": {waves: []Wave{{Percent: 60, MaxFailures: 600}, {Percent: 60}}, want: 1000},
	} {
		spec := Spec{ID: "r", Waves: c.waves, Dynamic: c.dynamic}
		if got := unproven(spec, dealt(t, spec, 1000)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A plan in which everybody fails is played: never are more told than was said, whatever the plan, and whichever way they fail.
func TestNoMoreAreToldThanWasSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "devices")
		spec := Spec{ID: "r"}
		limit := func(name string, most int) int {
			return rapid.OneOf(rapid.Just(0), rapid.IntRange(0, most)).Draw(t, name)
		}
		for range rapid.IntRange(0, 3).Draw(t, "waves") {
			spec.Waves = append(spec.Waves, Wave{Size: rapid.IntRange(1, 60).Draw(t, "size")})
		}
		spec.Waves = append(spec.Waves, Wave{})
		for i := range spec.Waves {
			w := &spec.Waves[i]
			w.Deadline, w.Tranche = 3600, limit("tranche", 40)
			w.MaxFailures, w.MaxFailuresRate = limit("failures", 80), limit("failures %", 99)
			w.MaxErrors, w.MaxErrorsRate = limit("errors", 80), limit("errors %", 99)
			w.MaxNoShows, w.MaxNoShowsRate = limit("no-shows", 80), limit("no-shows %", 99)
		}
		waves := dealt(t, spec, n)
		said := unproven(spec, waves)
		silent := rapid.Bool().Draw(t, "silent")
		told := 0
		for _, w := range waves {
			c := Counts{Devices: w.Devices}
			for c.Failed < w.Devices {
				step := w.Devices - c.Failed
				if of := spec.Waves[w.Rule].Tranche; of > 0 {
					step = min(step, of)
				}
				told, c.Failed = told+step, c.Failed+step
				if silent {
					c.NoShows = c.Failed
				}
				if spec.Waves[w.Rule].TooMany(c, Counts{}) != "" {
					if told > said {
						t.Fatalf("%d were told, %d were said", told, said)
					}
					return
				}
			}
		}
		if told > said {
			t.Fatalf("%d were told, %d were said", told, said)
		}
	})
}
