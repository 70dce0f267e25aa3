package comply

import (
	"fmt"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
)

// isolated wants it exercised: a device was quarantined, and said so.
func isolated(s Snapshot) Judgement {
	m := s.Facts[ledger.KindDeviceQuarantined]
	j := Judgement{Oldest: m.Newest, Newest: m.Newest, Evidence: append([]Link{list("quarantine", "/cases")}, fact("the newest quarantine", m.Ref)...)}
	j.Figures = []Figure{{"quarantines that devices confirmed", m.N, 0}}
	if m.N == 0 {
		j.Status, j.Reason = Unknown, "No device has been seen in quarantine: try it on the bench."
		return j
	}
	j.Status, j.Reason = Met, fleet.Count(m.N, "time", "times")+" a device confirmed that it was isolated."
	return j
}

// contained wants every device whose evidence is bad in quarantine, to have seen one, and to know of enough of the others that theirs is not.
func contained(s Snapshot) Judgement {
	j := Judgement{Oldest: s.Cases.Newest, Newest: s.Cases.Newest}
	j.Evidence = append([]Link{list("quarantine", "/cases"), atWork(s, "verdict", "contraindicated")}, fact("what began the newest case", s.Cases.Ref)...)
	loose := s.sumOf(func(d Devices) bool { return d.working() && d.State != "quarantined" })
	fresh := loose.Good + loose.Warned + loose.Bad
	j.Figures = []Figure{
		{"cases within " + span(FreshDrill), s.Cases.N, 0},
		{"that wait for a person", s.Cases.Held, s.Cases.N},
		{"devices at work with bad evidence that are not in quarantine", loose.Bad, loose.N},
		{"with none within " + span(FreshProof), loose.N - fresh, loose.N},
	}
	switch {
	case loose.Bad > 0 || s.Cases.Held > 0:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%s not in quarantine; %s for a person.",
			fleet.Count(loose.Bad, "device gives bad evidence and is", "devices give bad evidence and are"), fleet.Count(s.Cases.Held, "case waits", "cases wait"))
		j.Newest = s.At
	case s.Cases.N == 0:
		j.Status, j.Reason = Unknown, "No device has given bad evidence, so that nothing shows what would happen: try it on the bench."
	case fresh*100 < loose.N*enough:
		j.Status, j.Reason = Unknown, fmt.Sprintf("Of %s at work outside quarantine only %d gave evidence within %s; that of the others may be bad.",
			fleet.Count(loose.N, "device", "devices"), fresh, span(FreshProof))
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("Of %s bad evidence was raised as a finding, and none that gives such evidence is outside quarantine.", fleet.Count(s.Cases.Devices, "device", "devices"))
	}
	return j
}

// sealedData looks at what devices sent lately. That the store takes nothing else is its doing: it holds no key.
func sealedData(s Snapshot) Judgement {
	e := s.Epochs
	j := Judgement{Oldest: e.Newest, Newest: e.Newest, Evidence: append([]Link{list("data", "/streams")}, fact("the newest key", e.Ref)...)}
	j.Figures = []Figure{{"data keys sealed in a suite this build knows, of the newest", e.Approved, e.N}, {"streams", len(e.Streams), 0}}
	switch {
	case e.N == 0:
		j.Status, j.Reason = Unknown, "No device has sent data."
	case e.Approved < e.N:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%d of %d data keys are sealed in no suite this build knows.", e.N-e.Approved, e.N)
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("What devices send (%v) is sealed on the device, inside mutual TLS; the store cannot open it.", e.Streams)
	}
	return j
}

// sealedKeys is sealedData, said of the keys.
func sealedKeys(s Snapshot) Judgement {
	j := sealedData(s)
	if j.Status == Met {
		j.Reason = fmt.Sprintf("Of %s looked at, the newest, none left its device but sealed for the key-access service.", fleet.Count(s.Epochs.N, "data key", "data keys"))
	}
	return j
}

func keysManaged(s Snapshot) Judgement { return every(certified, endedKeys)(s) }

func endedKeys(s Snapshot) Judgement {
	var n, left int
	for _, r := range s.Retired {
		n += r.N
		left += r.Unfinished
	}
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: []Link{list("decommissioned devices", "/devices", "product", s.Product.ID, "state", "decommissioned")}}
	j.Figures = []Figure{{"ended devices whose certificates and keys are ended", n - left, n}}
	switch {
	case left > 0:
		j.Status, j.Reason = NotMet, fmt.Sprintf("Of %s the certificates or keys still stand.", fleet.Count(left, "ended device", "ended devices"))
	case n == 0:
		j.Status, j.Reason = Unknown, "No device has been ended yet, so that nothing shows that its keys are."
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("Of %s no certificate and no data key stands.", fleet.Count(n, "ended device", "ended devices"))
	}
	return j
}

// erased wants wipes that devices signed for. One that was written off was not seen to be wiped.
func erased(s Snapshot) Judgement {
	m := s.Facts[ledger.KindRetireWiped]
	off := s.Retired["written-off"].N
	j := Judgement{Oldest: m.Newest, Newest: m.Newest, Evidence: append([]Link{
		list("wipe receipts", "/ledger", "log", "events", "kind", string(ledger.KindRetireWiped)),
	}, fact("the newest receipt", m.Ref)...)}
	j.Figures = []Figure{{"receipts signed by the wiped device, among the newest", m.N, 0}, {"written off without a receipt", off, 0}}
	switch {
	case m.N == 0:
		j.Status, j.Reason = Unknown, "No device has signed for its wipe."
	case off > m.N:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%s written off without a receipt, more than the %d that signed for a wipe.", fleet.Count(off, "device was", "devices were"), m.N)
	case m.N*100 < (m.N+off)*enough:
		j.Status, j.Reason = Unknown, fmt.Sprintf("%s wipe; of %s off nobody knows whether that was done.",
			fleet.Count(m.N, "device signed for its", "devices signed for their"), fleet.Count(off, "that was written", "that were written"))
	default:
		j.Status, j.Reason = Met, fleet.Count(m.N, "device signed what it", "devices signed what they")+" erased; the proof of disposal can be checked by anyone."
	}
	return j
}

func keysDestroyed(s Snapshot) Judgement {
	m := s.Facts[ledger.KindTelemetryKeysDestroyed]
	j := endedKeys(s)
	j.Evidence = append(j.Evidence, fact("the newest destruction", m.Ref)...)
	j.Figures = append(j.Figures, Figure{"destructions of a device's data keys, among the newest", m.N, 0})
	switch {
	case j.Status == NotMet:
	case m.N == 0:
		j.Status, j.Reason = Unknown, "No data keys of a device have been destroyed yet."
	default:
		j.Oldest, j.Newest = m.Newest, m.Newest
		j.Reason = fmt.Sprintf("The data keys of %s are destroyed: what was sent can never be opened.", fleet.Count(m.N, "ended device", "ended devices"))
	}
	return j
}

// accessControlled wants refusals seen, on record, and dealt with.
func accessControlled(s Snapshot) Judgement {
	tried := s.findings("enrol.refused", "clone.suspected", "directives.refused")
	j := Judgement{Oldest: s.Denials.Newest, Newest: later(s.Denials.Newest, tried.Newest)}
	j.Evidence = []Link{list("what was denied", "/audit", "denied", "true"), list("findings", "/findings"), list("who may do what", "/ledger", "log", "control", "kind", string(ledger.KindAccessChanged))}
	j.Figures = []Figure{
		{"calls refused and recorded, among the newest", s.Denials.N, 0},
		{"findings of refused devices within " + span(Handling), tried.N, 0},
		{"open", tried.Open, tried.N},
	}
	switch {
	case tried.Open > 0 && s.At.Sub(tried.OldestOpen) > overdue("high"):
		j.Status, j.Reason = NotMet, fmt.Sprintf("A device was refused on %s, and nobody has dealt with the finding.", day(tried.OldestOpen))
		j.Newest = s.At
	case s.Denials.N == 0 && tried.N == 0:
		j.Status, j.Reason = Unknown, "Nobody has been refused yet, so that nothing shows that the door is shut."
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("%s and %s are on record; what was allowed is in the ledger with its author.",
			fleet.Count(s.Denials.N, "refused call", "refused calls"), fleet.Count(tried.N, "refused device", "refused devices"))
	}
	return j
}
