package comply

import (
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/wire"
)

// Of the devices at work enough have to be good, and more than few bad ones are too many. What is neither is not known. Percent.
const (
	enough = 95
	few    = 1
)

// evaluators are the controls that are measured, by their key. What is not here is said to be unknown.
func evaluators() map[string]evaluator {
	const etsi, cra = "etsi-en-303-645/", "eu-cra-2024-2847/"
	return map[string]evaluator{
		etsi + "5.1-1":   {uniqueKeys, FreshContact},
		etsi + "5.1-2A":  {certified, FreshContact},
		etsi + "5.1-3":   {certified, FreshContact},
		etsi + "5.3-2":   {secureUpdate, FreshDrill},
		etsi + "5.3-4A":  {automaticUpdate, FreshDrill},
		etsi + "5.3-5":   {checksIn, FreshContact},
		etsi + "5.3-7":   {signedReleases, FreshContact},
		etsi + "5.3-8":   {timelyUpdate, FreshContact},
		etsi + "5.3-9":   {deviceVerifies, FreshDrill},
		etsi + "5.3-10":  {trustedUpdate, FreshDrill},
		etsi + "5.3-13":  {supportSaid, FreshContact},
		etsi + "5.3-15A": {isolated, FreshDrill},
		etsi + "5.4-1":   {hardwareKeys, FreshProof},
		etsi + "5.4-2":   {hardwareIdentity, FreshProof},
		etsi + "5.4-4":   {uniqueKeys, FreshContact},
		etsi + "5.5-5":   {commandedConfiguration, FreshDrill},
		etsi + "5.5-6":   {sealedKeys, FreshData},
		etsi + "5.5-7":   {sealedKeys, FreshData},
		etsi + "5.5-8":   {keysManaged, FreshContact},
		etsi + "5.6-4A":  {debugLocked, FreshProof},
		etsi + "5.6-7":   {leastPrivilege, FreshProof},
		etsi + "5.6-9":   {reviewedReleases, FreshContact},
		etsi + "5.7-1":   {attested, FreshProof},
		etsi + "5.7-2":   {contained, FreshDrill},
		etsi + "5.8-1":   {sealedData, FreshData},
		etsi + "5.8-2":   {sealedData, FreshData},
		etsi + "5.10-1":  {examined, FreshContact},
		etsi + "5.11-1":  {erased, FreshDrill},
		etsi + "5.11-2":  {keysDestroyed, FreshDrill},
		etsi + "5.11-4":  {erased, FreshDrill},
		cra + "I.(2)(c)": {every(automaticUpdate, timelyUpdate), FreshDrill},
		cra + "I.(2)(d)": {accessControlled, FreshDrill},
		cra + "I.(2)(e)": {every(sealedData, certified, hardwareKeys), FreshData},
		cra + "I.(2)(f)": {every(attested, unforked), FreshProof},
		cra + "I.(2)(k)": {contained, FreshDrill},
		cra + "I.(2)(l)": {recorded, FreshContact},
		cra + "I.(2)(m)": {every(erased, keysDestroyed), FreshDrill},
		cra + "II.(1)":   {components, FreshContact},
		cra + "II.(7)":   {every(signedReleases, timelyUpdate), FreshContact},
		cra + "II.(8)":   {timelyUpdate, FreshContact},
		cra + "Art13(8)": {supportLong, FreshContact},
	}
}

// every joins judgements: one that is not met makes the whole not met, one that is unknown makes it unknown. The whole is as old
// as the oldest of its parts.
func every(parts ...func(Snapshot) Judgement) func(Snapshot) Judgement {
	return func(s Snapshot) Judgement {
		all := Judgement{Status: Met}
		for i, part := range parts {
			j := part(s)
			all.Figures = append(all.Figures, j.Figures...)
			all.Evidence = append(all.Evidence, j.Evidence...)
			switch {
			case j.Status == Met && all.Status == Met:
				all.Reason = join(all.Reason, j.Reason)
			case j.Status == NotMet && all.Status != NotMet:
				all.Status, all.Reason = NotMet, j.Reason
			case j.Status != Met && all.Status == Met: // no answer is none either
				all.Status, all.Reason = Unknown, j.Reason
			}
			if i == 0 || j.Newest.Before(all.Newest) {
				all.Newest = j.Newest
			}
			all.Oldest = earlier(all.Oldest, j.Oldest)
		}
		return all
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + " " + b
}

// share judges devices at work: good have it, bad lack it, and of the others nothing fresh is known.
func share(good, bad, of int, has, lacks string) (Status, string) {
	switch {
	case of == 0:
		return Unknown, "No device of this product is at work."
	case bad*100 > of*few:
		return NotMet, fmt.Sprintf("%d of %d devices at work %s.", bad, of, lacks)
	case good*100 >= of*enough:
		return Met, fmt.Sprintf("%d of %d devices at work %s.", good, of, has)
	}
	return Unknown, fmt.Sprintf("Of %s at work only %d can be said to be good: %s. Of the others there is no fresh evidence.", fleet.Count(of, "device", "devices"), good, has)
}

// atWork links the list of a product's devices.
func atWork(s Snapshot, pairs ...string) Link {
	return list("devices", "/devices", append([]string{"product", s.Product.ID}, pairs...)...)
}

func checksIn(s Snapshot) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.HeardFrom, Newest: t.HeardTo, Evidence: []Link{atWork(s, "state", "active")}}
	j.Figures = []Figure{{"devices at work heard within " + span(FreshContact), t.Heard, t.N}}
	bad := 0
	if t.Heard > 0 {
		bad = t.N - t.Heard // some are heard, so that it is not we who are deaf
	}
	if bad*100 <= t.N*(100-enough) {
		bad = 0
	}
	j.Status, j.Reason = share(t.Heard, bad, t.N, "asked for work within "+span(FreshContact), "did not ask for work within "+span(FreshContact))
	return j
}

func certified(s Snapshot) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.HeardFrom, Newest: t.HeardTo, Evidence: []Link{list("certificates", "/certificates"), atWork(s)}}
	j.Figures = []Figure{{"devices at work with a valid certificate of their own", t.Certified, t.N}, {"heard within " + span(FreshContact), t.Heard, t.N}}
	j.Status, j.Reason = share(t.Certified, t.N-t.Certified, t.N,
		"hold a valid certificate of their own; nothing else lets a device in", "hold no valid certificate")
	return j
}

func uniqueKeys(s Snapshot) Judgement {
	t := s.sum()
	alarms := 0
	for _, o := range s.Orders {
		alarms += o.Alarms
	}
	j := Judgement{Oldest: s.At, Newest: s.At, Evidence: []Link{atWork(s), list("orders", "/orders")}}
	j.Figures = []Figure{
		{"devices at work with a recorded identity key", t.Identified, t.N},
		{"identity keys that two devices have", s.Shared, 0},
		{"production records that cannot be true", alarms, 0},
	}
	over := overQuota(s)
	switch {
	case s.Shared > 0:
		j.Status, j.Reason = NotMet, fleet.Count(s.Shared, "identity key is that", "identity keys are those")+" of more than one device."
	case alarms > 0 || over > 0:
		j.Status, j.Reason = NotMet, fmt.Sprintf("%s cannot be true, and %s quota: keys may have been copied.",
			fleet.Count(alarms, "production record", "production records"), fleet.Count(over, "order made more than its", "orders made more than their"))
	default:
		j.Status, j.Reason = share(t.Identified, 0, t.N, "have an identity key recorded in production, each another", "")
	}
	return j
}

func overQuota(s Snapshot) (n int) {
	for _, o := range s.Orders {
		if o.Devices > o.Quota {
			n++
		}
	}
	return n
}

func attested(s Snapshot) Judgement {
	return proven(s, "proved within "+span(FreshProof)+" that they started what was published", "proved something else than what was published")
}

func debugLocked(s Snapshot) Judgement {
	return proven(s, "proved within "+span(FreshProof)+" that debugging is locked and the life cycle secured",
		"gave evidence that is bad: of debugging, life cycle, or what runs")
}

// leastPrivilege is proven where the product asks for it: then evidence that lacks a layer is bad. What is not asked for, no verdict speaks of.
func leastPrivilege(s Snapshot) Judgement {
	asked := s.Product.Isolation
	for _, l := range []wire.Layer{wire.LayerUser, wire.LayerPrivileges, wire.LayerFiles, wire.LayerCalls} {
		if !slices.Contains(asked, l) {
			return Judgement{Status: Unknown, Evidence: []Link{atWork(s)}, Reason: fmt.Sprintf("The product does not ask its devices for the layer %s: `hallmark product isolation` makes it a part of what evidence has to show.", l)}
		}
	}
	return proven(s, "proved within "+span(FreshProof)+" that each program runs with least privileges", "gave evidence that is bad: of what holds their programs, or otherwise")
}

// proven judges by verdicts. A warning is a good proof of known, but withdrawn or outdated, software.
func proven(s Snapshot, has, lacks string) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.ProvenFrom, Newest: t.ProvenTo}
	j.Evidence = []Link{atWork(s, "verdict", "affirming"), list("devices whose evidence is bad", "/devices", "product", s.Product.ID, "verdict", "contraindicated")}
	j.Figures = []Figure{
		{"devices at work with good evidence", t.Good, t.N},
		{"with a warning", t.Warned, t.N},
		{"with bad evidence", t.Bad, t.N},
		{"with none within " + span(FreshProof), t.N - t.Good - t.Warned - t.Bad, t.N},
	}
	j.Status, j.Reason = share(t.Good+t.Warned, t.Bad, t.N, has, lacks)
	if n := s.simulated(); n > 0 {
		j.Reason += " Of them " + fleet.Count(n, "is a simulation.", "are simulations.")
	}
	return j
}

func hardwareKeys(s Snapshot) Judgement {
	hardware := func(d Devices) bool { return !d.Virtual && wire.HardwareOrigin(d.Origin) }
	soft := s.sumOf(func(d Devices) bool { return d.working() && !hardware(d) })
	kept := s.sumOf(func(d Devices) bool { return d.working() && hardware(d) })
	t := s.sum()
	j := Judgement{Oldest: t.ProvenFrom, Newest: t.ProvenTo, Evidence: []Link{atWork(s)}}
	j.Figures = []Figure{
		{"devices at work whose key is in hardware and was proven to be used", kept.Good + kept.Warned, t.N},
		{"whose key is not in hardware, or that are simulations", soft.N, t.N},
	}
	j.Status, j.Reason = share(kept.Good+kept.Warned, soft.N, t.N, "sign their evidence with a key that hardware keeps", "do not keep their key in hardware, or are simulations")
	return j
}

func hardwareIdentity(s Snapshot) Judgement { return every(uniqueKeys, hardwareKeys)(s) }

func recorded(s Snapshot) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.HeardFrom, Newest: t.HeardTo, Evidence: []Link{list("logs of devices", "/ledger", "log", "events", "kind", "device.log.anchored")}}
	j.Figures = []Figure{{"devices at work that have sent their own log", t.Logged, t.N}}
	j.Status, j.Reason = share(t.Logged, 0, t.N, "have sent their own log, chained and signed", "")
	if forked := s.findings("log.forked"); forked.Open > 0 {
		j.Status, j.Reason = NotMet, fleet.Count(forked.Open, "device's log contradicts what it", "devices' logs contradict what they")+" said before."
	}
	return j
}

func unforked(s Snapshot) Judgement {
	j := recorded(s)
	if j.Status == Met {
		j.Reason = "No log of a device contradicts itself."
	}
	return j
}

// findings adds those of some kinds.
func (s Snapshot) findings(kinds ...string) (t Findings) {
	for _, f := range s.Findings {
		for _, k := range kinds {
			if f.Kind == k {
				t.N += f.N
				t.Open += f.Open
				t.OldestOpen, t.Newest = earlier(t.OldestOpen, f.OldestOpen), later(t.Newest, f.Newest)
			}
		}
	}
	return t
}

// overdue says how long a finding may be open.
func overdue(severity string) time.Duration {
	if severity == "critical" || severity == "high" {
		return 7 * 24 * time.Hour
	}
	return 30 * 24 * time.Hour
}

// maxBehind is how many events may wait for the rules that look for anomalies.
const maxBehind = 10_000

func examined(s Snapshot) Judgement {
	t := s.sum()
	j := Judgement{Oldest: t.HeardFrom, Newest: t.HeardTo, Evidence: []Link{list("findings", "/findings")}}
	var n, open, late int
	for _, f := range s.Findings {
		n += f.N
		open += f.Open
		if f.Open > 0 && s.At.Sub(f.OldestOpen) > overdue(f.Severity) {
			late++
		}
	}
	j.Figures = []Figure{
		{"findings raised within " + span(Handling), n, 0},
		{"open", open, n},
		{"kinds of them open for longer than they may be", late, 0},
		{"events no rule has looked at yet", s.Behind, 0},
	}
	switch {
	case t.N == 0:
		j.Status, j.Reason = Unknown, "No device of this product is at work."
	case s.Behind > maxBehind:
		j.Status, j.Reason = NotMet, fleet.Count(s.Behind, "event waits", "events wait")+" to be looked at."
	case late > 0:
		j.Status, j.Reason = NotMet, "Findings are open for longer than 7 days (critical and high) or 30 days."
	default:
		j.Status, j.Reason = Met, fmt.Sprintf("Every event is held against the rules; of %s within %s none is open for too long.", fleet.Count(n, "finding", "findings"), span(Handling))
	}
	return j
}
