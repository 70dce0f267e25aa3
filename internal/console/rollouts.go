package console

import (
	"net/http"
	"strconv"

	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
)

// everyone is how an address asks for all devices of a wave.
const everyone = "all"

// whichOf says which devices of a rollout are asked for; who says nothing is shown what is wrong, or else what is waited for.
func whichOf(r *http.Request, o rollout.Rollout) rollout.Which {
	switch list := r.URL.Query().Get("list"); {
	case list == everyone:
		return rollout.Everyone
	case list == string(rollout.Bad) || list == string(rollout.Stuck) || list == string(rollout.Missing):
		return rollout.Which(list)
	case o.Last.Failed > 0:
		return rollout.Bad
	case o.Last.Good < o.Last.Devices:
		return rollout.Stuck
	}
	return rollout.Everyone
}

func listed(w rollout.Which) string {
	if w == rollout.Everyone {
		return everyone
	}
	return string(w)
}

// deviceLists are the lists of a rollout's devices, as they are called to people.
func deviceLists(r rollout.Rollout) []option {
	lists := []option{{string(rollout.Bad), "Failed"}, {string(rollout.Stuck), "Not good"}, {everyone, "All"}}
	if r.Spec.Again != nil {
		lists = append(lists, option{string(rollout.Missing), "Missing"})
	}
	return lists
}

// none says that a list of devices is empty.
func none(w rollout.Which) string {
	switch w {
	case rollout.Bad:
		return "None has failed."
	case rollout.Stuck:
		return "All of them are good."
	case rollout.Missing:
		return "Whoever was told has shown what it runs, or is under way."
	case rollout.Everyone:
	}
	return "No device is in this wave."
}

// made are the deltas that there are.
func made(all []release.Delta) (out []release.Delta) {
	for _, d := range all {
		if d.State == release.DeltaMade {
			out = append(out, d)
		}
	}
	return out
}

// shareOf is what a delta has of its component.
func shareOf(d release.Delta) string {
	if d.Whole == 0 || d.State != release.DeltaMade {
		return ""
	}
	part := 100 * float64(d.Size) / float64(d.Whole)
	if part < 0.1 {
		return "< 0.1\u202f%"
	}
	return strconv.FormatFloat(part, 'f', 1, 64) + "\u202f%"
}

// deltaSize is how large a delta is, of a component of what size.
func deltaSize(d release.Delta) string {
	if d.State != release.DeltaMade {
		return sizeOf(d.Whole)
	}
	return sizeOf(d.Size) + " of " + sizeOf(d.Whole)
}

// ruleWords says what a wave has to keep to.
func ruleWords(w rollout.Wave) string {
	return "soaks " + w.Soak.Text() + ", deadline " + w.Deadline.Text() + ", may fail: " + mayFail(w) + ", told: " + pace(w)
}

func deltaTone(s release.DeltaState) string {
	switch s {
	case release.DeltaMade:
		return "good"
	case release.DeltaWanted:
		return "busy"
	case release.DeltaFailed:
		return "bad"
	case release.DeltaUseless:
	}
	return ""
}

func deltaWords(s release.DeltaState) string {
	switch s {
	case release.DeltaMade:
		return "made"
	case release.DeltaWanted:
		return "being made"
	case release.DeltaFailed:
		return "could not be made"
	case release.DeltaUseless:
	}
	return "none"
}
