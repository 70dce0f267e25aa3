package comply

import (
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// rollOutWithin is how long a release may take to reach enough of the fleet.
const rollOutWithin = 30 * 24 * time.Hour

// refusals are the codes with which a device refuses what is not signed, or not logged, as its trust bundle asks.
func refusals() []string {
	return []string{"signature", "threshold", "not-logged", "not-witnessed", "bundle"}
}

func refusedForgeries(s Snapshot) (n int) {
	for _, code := range refusals() {
		n += s.Refusals[code]
	}
	return n
}

func releases() Link { return list("releases", "/releases") }

// secureUpdate wants both halves of the mechanism seen at work: it takes what is signed, and refuses what is not.
func secureUpdate(s Snapshot) Judgement {
	t := s.Commands[string(wire.ActInstall)]
	j := Judgement{Oldest: t.Newest, Newest: t.Newest, Evidence: append([]Link{list("rollouts", "/rollouts"), refusedList()}, fact("the newest install command", t.Ref)...)}
	var without []string
	for _, h := range s.Product.Hardware {
		if t.Hardware[h] == 0 {
			without = append(without, h)
		}
	}
	forged := refusedForgeries(s)
	j.Figures = []Figure{
		{"signed updates installed, of those looked at", t.Done, t.Devices},
		{"failed", t.Failed, t.Devices},
		{"hardware revisions updated", len(s.Product.Hardware) - len(without), len(s.Product.Hardware)},
		{"refusals of what was not signed or logged as it must", forged, 0},
	}
	switch {
	case s.Product.Model == wire.ModelOTP:
		j.Status, j.Reason, j.Newest = NotMet, "The software of this product is programmed once: it has no update.", s.At
	case t.Done == 0:
		j.Status, j.Reason = Unknown, "No device has been seen to install a signed update."
	case t.Failed > t.Done:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%s failed, %d succeeded.", fleet.Count(t.Failed, "update", "updates"), t.Done)
	case len(without) > 0:
		j.Status, j.Reason = Unknown, fmt.Sprintf("No update was seen on hardware revision %v.", without)
	case forged == 0:
		j.Status, j.Reason = Unknown, "Updates succeed, but no device has been seen to refuse a forged one: try it on the bench."
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("Signed updates succeed on every hardware revision, and %s not signed or logged as it must be.", fleet.Count(forged, "was refused that was", "were refused that were"))
	}
	return j
}

func refusedList() Link {
	return list("what devices refused", "/ledger", "log", "events", "kind", string(ledger.KindDeviceRefused))
}

func automaticUpdate(s Snapshot) Judgement {
	t := s.Commands[string(wire.ActInstall)]
	j := Judgement{Oldest: t.Newest, Newest: t.Newest, Evidence: append([]Link{list("rollouts", "/rollouts")}, fact("the newest install command", t.Ref)...)}
	j.Figures = []Figure{{"install commands looked at", t.Commands, 0}, {"devices that installed by themselves", t.Done, t.Devices}, {"failed or refused", t.Failed + t.Refused, t.Devices}}
	switch {
	case t.Done == 0:
		j.Status, j.Reason = Unknown, "No device has been seen to update itself."
	case t.Failed+t.Refused > t.Done:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%s refused, %d succeeded.", fleet.Count(t.Failed+t.Refused, "update failed or was", "updates failed or were"), t.Done)
	default:
		j.Status, j.Reason = Met, fleet.Count(t.Done, "device installed an update by itself", "devices installed an update by themselves")+", without anybody at the device."
	}
	return j
}

func deviceVerifies(s Snapshot) Judgement {
	marks, forged := s.Facts[ledger.KindDeviceRefused], refusedForgeries(s)
	j := Judgement{Oldest: marks.Newest, Newest: marks.Newest, Evidence: append([]Link{refusedList()}, fact("the newest refusal", marks.Ref)...)}
	j.Figures = []Figure{{"refusals told by devices", marks.N, 0}, {"of what was not signed or logged as it must", forged, 0}}
	if forged == 0 {
		j.Status, j.Reason = Unknown, "No device has been seen to refuse what is forged: try it on the bench."
		return j
	}
	j.Status, j.Reason = Met, fmt.Sprintf("Devices refused %s what was not signed or logged as it must.", fleet.Count(forged, "time", "times"))
	return j
}

func trustedUpdate(s Snapshot) Judgement { return every(anchored, signedReleases, deviceVerifies)(s) }

// anchored looks at the trust anchor on devices: the bundle they say they hold.
func anchored(s Snapshot) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.HeardFrom, Newest: t.HeardTo, Evidence: fact("the trust bundle", s.Bundle.Ref)}
	j.Figures = []Figure{{"devices at work that hold the current trust bundle", t.Current, t.N}}
	if s.Bundle.Version == 0 {
		j.Status, j.Reason = NotMet, "The product has no trust bundle."
		return j
	}
	j.Status, j.Reason = share(t.Current, 0, t.N, fmt.Sprintf("hold trust bundle %d, the current one", s.Bundle.Version), "")
	return j
}

func signedReleases(s Snapshot) Judgement {
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: append([]Link{releases()}, fact("the trust bundle", s.Bundle.Ref)...)}
	if len(s.Releases) == 0 {
		j.Status, j.Reason = Unknown, "Nothing is published."
		return j
	}
	newest, good := s.Releases[0], 0
	for _, r := range s.Releases {
		if r.Verified && r.Suite != "" {
			good++
		}
	}
	j.Evidence = append(j.Evidence, fact("release "+newest.Version, newest.Ref)...)
	j.Figures = []Figure{
		{"releases whose signatures hold under the current trust bundle", good, len(s.Releases)},
		{"signatures a release needs", int(s.Bundle.Threshold), s.Bundle.Signers},
	}
	if !newest.Verified || newest.Suite == "" {
		j.Status, j.Reason = NotMet, "The signatures of release "+newest.Version+", the newest, do not hold under the current trust bundle."
		return j
	}
	j.Status, j.Reason = Met, fmt.Sprintf("Release %s is named by SHA-256 and signed in suite %s by %d of %d offline keys; just verified.",
		newest.Version, newest.Suite, s.Bundle.Threshold, s.Bundle.Signers)
	return j
}

// timelyUpdate holds the newest release of each hardware revision against what devices have proven to run.
func timelyUpdate(s Snapshot) Judgement {
	j := Judgement{Evidence: []Link{releases(), atWork(s)}}
	if len(s.Releases) == 0 {
		j.Status, j.Reason = Unknown, "Nothing is published."
		return j
	}
	var runs, behind, of int
	var published time.Time
	for _, h := range s.Product.Hardware {
		t := s.sumOf(func(d Devices) bool { return d.working() && d.Hardware == h })
		i := slices.IndexFunc(s.Releases, func(r Release) bool { return len(r.Hardware) == 0 || slices.Contains(r.Hardware, h) })
		of += t.N
		if i < 0 || t.N == 0 {
			continue
		}
		published = later(published, s.Releases[i].Published)
		on := s.sumOf(func(d Devices) bool { return d.working() && d.Hardware == h && d.Release == s.Releases[i].Digest })
		runs += on.Good + on.Warned
		behind += t.N - on.N
		j.Oldest, j.Newest = earlier(j.Oldest, t.ProvenFrom), later(j.Newest, t.ProvenTo)
	}
	j.Figures = []Figure{{"devices at work proven to run their newest release", runs, of}, {"that run another one", behind, of}, {"days since it was published", int(s.At.Sub(published).Hours() / 24), 0}}
	switch {
	case of == 0 || published.IsZero():
		j.Status, j.Reason, j.Figures = Unknown, "No device of this product is at work with a release that is for it.", nil
	case runs*100 >= of*enough:
		j.Status, j.Reason = Met, fmt.Sprintf("%d of %d devices at work are proven to run the newest release, of %s.", runs, of, day(published))
	case s.At.Sub(published) <= rollOutWithin:
		j.Status, j.Reason = Unknown, fmt.Sprintf("The newest release is of %s and still on its way: %d of %d devices have it.", day(published), runs, of)
	case behind*100 > of*(100-enough):
		j.Status, j.Reason = NotMet, fmt.Sprintf("The newest release is of %s, and %d of %d devices at work run another one.", day(published), behind, of)
		j.Newest = s.At // what a device said last stands
	default:
		j.Status, j.Reason = Unknown, fmt.Sprintf("Only %d of %d devices at work are proven to run the newest release, of %s.", runs, of, day(published))
	}
	return j
}

func reviewedReleases(s Snapshot) Judgement {
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: []Link{releases()}}
	if len(s.Releases) == 0 {
		j.Status, j.Reason = Unknown, "Nothing is published."
		return j
	}
	r := s.Releases[0]
	j.Evidence = append(j.Evidence, fact("release "+r.Version, r.Ref)...)
	j.Figures = []Figure{{"people who signed release " + r.Version + ", its author left out", r.Approvers, 0}}
	switch {
	case r.Approvers < 2:
		j.Status, j.Reason = NotMet, fmt.Sprintf("Release %s was approved by %s besides its author; two have to look.", r.Version, fleet.Count(r.Approvers, "person", "people"))
	case !r.Provenance:
		j.Status, j.Reason = NotMet, "Release "+r.Version+" names no provenance document: nobody can tell how it was built."
	case r.Found == nil:
		j.Status, j.Reason = Unknown, "Release "+r.Version+" names how it was built, and nobody has checked it: it has no summary of a supply gate."
	case !r.Found.Passed:
		j.Status, j.Reason = NotMet, "Release "+r.Version+" was published although it did not pass the supply gate."
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("%d people besides its author approved release %s, and the decision of the supply gate with it: it was built by a builder that is named.", r.Approvers, r.Version)
	}
	return j
}

// components finds that bills of materials are missing. That they are there is not to know that they are right: the supply gate has read those that it let through.
func components(s Snapshot) Judgement {
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: []Link{releases()}}
	have := 0
	for _, r := range s.Releases {
		if r.SBOM {
			have++
		}
	}
	j.Figures = []Figure{{"releases that name a bill of materials", have, len(s.Releases)}}
	switch {
	case len(s.Releases) == 0:
		j.Status, j.Reason = Unknown, "Nothing is published."
		return j
	case !s.Releases[0].SBOM:
		j.Status, j.Reason = NotMet, "Release "+s.Releases[0].Version+", the newest, names no bill of materials."
		return j
	}
	r := s.Releases[0]
	j.Evidence = append(j.Evidence, fact("release "+r.Version, r.Ref)...)
	if r.Found == nil {
		j.Status, j.Reason = Unknown, "The newest release names a bill of materials, and nobody has checked it: the release has no summary of a supply gate."
		return j
	}
	j.Figures = append(j.Figures, Figure{"components of release " + r.Version + " of which nothing is known", r.Found.Unknown, r.Found.Components}, Figure{"known flaws that were excused, with reasons", r.Found.Excused, 0})
	if !r.Found.Passed {
		j.Status, j.Reason = NotMet, "Release "+r.Version+", the newest, was published although it did not pass the supply gate."
		return j
	}
	j.Status, j.Reason = Met, fmt.Sprintf("The supply gate read what release %s is made of, %s, and found no known flaw that is open; its decision is in what approvers signed.", r.Version, fleet.Count(r.Found.Components, "component", "components"))
	return j
}

func commandedConfiguration(s Snapshot) Judgement {
	t := s.Commands[string(wire.ActConfigure)]
	j := Judgement{Oldest: t.Newest, Newest: t.Newest, Evidence: append([]Link{list("commands", "/ledger", "log", "control", "kind", string(ledger.KindCommandIssued))}, fact("the newest", t.Ref)...)}
	j.Figures = []Figure{{"configurations taken from signed commands", t.Done, t.Devices}, {"refused", t.Refused, t.Devices}}
	if t.Done == 0 {
		j.Status, j.Reason = Unknown, "No device has been seen to take a configuration."
		return j
	}
	j.Status, j.Reason = Met, fleet.Count(t.Done, "device", "devices")+" took a configuration from a command that was signed, logged and addressed; its author is in the ledger."
	return j
}

func supportSaid(s Snapshot) Judgement {
	end := s.Product.EndOfSupport
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: []Link{list("the product's facts", "/ledger", "log", "control", "subject", s.Product.ID)}}
	t := s.sum()
	switch {
	case end.IsZero():
		j.Status, j.Reason = NotMet, "The product has no end of support."
		return j
	case !end.After(s.At) && t.N > 0:
		j.Status, j.Reason = NotMet, fmt.Sprintf("Support ended on %s, and %s at work.", day(end), fleet.Count(t.N, "device is", "devices are"))
	default:
		j.Status, j.Reason = Met, "Support until "+day(end)+" is in the ledger."
	}
	j.Figures = []Figure{{"days of support left", max(0, int(end.Sub(s.At).Hours()/24)), 0}}
	return j
}

func supportLong(s Snapshot) Judgement {
	j := supportSaid(s)
	if j.Status != Met {
		return j
	}
	years := s.Product.EndOfSupport.Sub(s.Product.Created).Hours() / 24 / 365.25
	if years < 4.99 {
		j.Reason += fmt.Sprintf(" That is %.1f years from when the product was entered: the statement has to say why fewer than five will do.", years)
		return j
	}
	j.Reason += fmt.Sprintf(" That is %.1f years from when the product was entered.", years)
	return j
}
