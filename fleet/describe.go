package fleet

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// maxText bounds a line's text, characters.
const maxText = 240

// Absent stands where something was said in private that is not here: it was forgotten, or never came along.
const Absent = "(private)"

// Describe says in a line for people what a fact tells, with what is private of it as far as it is known. It never fails: what it cannot
// read it calls unreadable.
func Describe(f wire.Fact, private []byte) string {
	kind, data := ledger.Kind(f.Kind), ledger.Merge(f.Data, private)
	var s string
	var err error
	switch kind {
	case ledger.KindCommandIssued:
		s, err = describeCommand(data, private)
	case ledger.KindCertIssued, ledger.KindCACreated:
		s, err = describeCert(data)
	case ledger.KindReleaseProposed, ledger.KindReleaseApproved, ledger.KindReleasePublished, ledger.KindBundlePublished, ledger.KindWarrantIssued,
		ledger.KindOrderCreated:
		s, err = describeSigned(kind, data)
	case ledger.KindDeviceProvisioned:
		s = "made, with its signed production record"
	case ledger.KindDeviceLogAnchored:
		s, err = describeLog(data)
	case ledger.KindDeviceAttestKey:
		s, err = describeAttestKey(data)
	case ledger.KindRetireWiped:
		s, err = describeReceipt(data)
	case ledger.KindVerdict, ledger.KindDeviceState, ledger.KindDeviceOnboarded, ledger.KindDeviceQuarantined, ledger.KindDeviceReleased,
		ledger.KindDeviceUpdated, ledger.KindDeviceRefused, ledger.KindDeviceUnhealthy, ledger.KindDeviceReprovisioned, ledger.KindDeviceHealthy,
		ledger.KindRemedyDecided, ledger.KindFindingRaised, ledger.KindFindingClosed, ledger.KindDeviceEnrolled:
		s, err = describeEvent(data)
	case ledger.KindDeviceClaimed, ledger.KindDeviceTransferred, ledger.KindTransferGivenUp, ledger.KindTransferDone, ledger.KindOwnerCreated, ledger.KindOwnerEnded, ledger.KindRecallIssued:
		s, err = describeOwnership(kind, data)
	case ledger.KindDeviceGrouped:
		s, err = describeGrouping(data)
	case ledger.KindEnrolmentApproved, ledger.KindEnrolmentRefused, ledger.KindKeyTravelled:
		s, err = describeEnrolment(kind, data)
	case ledger.KindVoucherIssued, ledger.KindVoucherRevoked, ledger.KindVoucherGuessed, ledger.KindDeviceRekeyed, ledger.KindDeviceImported, ledger.KindForeignTrusted, ledger.KindForeignEnded,
		ledger.KindLegacyChanged, ledger.KindChipVendorTrusted, ledger.KindChipVendorEnded, ledger.KindChipsImported:
		s, err = describeKeys(kind, data)
	case ledger.KindOrderMastered:
		s, err = describeMaster(data)
	case ledger.KindDeskAdded, ledger.KindDeskRemoved:
		s, err = describeDesk(kind, data)
	case ledger.KindCeremonyHeld:
		s, err = describeCeremony(f.Data, private)
	case ledger.KindAdvisoriesImported:
		s, err = describeAdvisories(data)
	case ledger.KindSupplyDecided:
		s, err = describeDecision(data)
	case ledger.KindSupplySummary:
		s, err = describeSummary(data)
	case ledger.KindSupplyReassessed:
		s, err = describeReassessed(data)
	case ledger.KindComplianceStated:
		s, err = describeStatement(data)
	default:
		s, err = describeJSON(data)
	}
	if err != nil {
		return "unreadable: " + err.Error()
	}
	if len(f.Private) > 0 && len(private) == 0 {
		s = strings.TrimLeft(s+" "+Absent, " ")
	}
	s = digests.ReplaceAllString(s, "$1…")
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}

func describeDecision(data []byte) (string, error) {
	d, err := wire.DecodeGateDecision(data)
	if err != nil {
		return "", err
	}
	if d.OK {
		return fmt.Sprintf("the supply gate lets it through: %d components, %d flaws excused", d.Components, d.Excused), nil
	}
	var why []string
	for _, st := range d.Steps {
		if !st.OK {
			why = append(why, st.Code)
		}
	}
	return "the supply gate does not let it through: " + strings.Join(why, ", "), nil
}

func describeSummary(data []byte) (string, error) {
	s, err := statement.ReadSummary(data)
	if err != nil {
		return "", err
	}
	if s.Passed {
		return fmt.Sprintf("signed for others: %s passes, %s", s.Resource, strings.Join(s.Levels, ", ")), nil
	}
	return fmt.Sprintf("signed for others: %s does not pass", s.Resource), nil
}

func describeReassessed(data []byte) (string, error) {
	var d supply.Reassessed
	if err := json.Unmarshal(data, &d); err != nil {
		return "", err
	}
	text := fmt.Sprintf("%d known flaws in %d components, and %d of which nothing is known", d.Troubles, d.Affected, d.Unknown)
	if len(d.Appeared) > 0 {
		text += "; new: " + strings.Join(d.Appeared, ", ")
	}
	if len(d.Gone) > 0 {
		text += "; gone: " + strings.Join(d.Gone, ", ")
	}
	return text + ": " + d.Cause, nil
}

func describeAdvisories(data []byte) (string, error) {
	var d supply.Imported
	if err := json.Unmarshal(data, &d); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d advisories of %s, the newest of %s", d.Advisories, d.Ecosystem, d.Newest.UTC().Format("2006-01-02 15:04")), nil
}

func describeGrouping(data []byte) (string, error) {
	var g device.Grouping
	if err := json.Unmarshal(data, &g); err != nil {
		return "", err
	}
	s := "taken out of group " + g.From
	switch {
	case g.To != "" && g.From != "":
		s = fmt.Sprintf("moved from group %s to %s", g.From, g.To)
	case g.To != "":
		s = "put into group " + g.To
	}
	if g.Reason != "" {
		s += ": " + g.Reason
	}
	return s, nil
}

func describeEnrolment(kind ledger.Kind, data []byte) (string, error) {
	var d struct {
		Call   string `json:"call"`
		Key    string `json:"key"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return "", err
	}
	if kind == ledger.KindKeyTravelled {
		return "has key " + d.Key + ", which the server made and sent it", nil
	}
	s := "let in with key " + d.Key
	if kind == ledger.KindEnrolmentRefused {
		s = "not let in with key " + d.Key
	}
	if d.Call == "keygen" {
		s += ", to get one that the server makes"
	}
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s, nil
}

func describeCommand(env, private []byte) (string, error) {
	o, err := wire.Parse1(wire.TypeCommand, env)
	if err != nil {
		return "", err
	}
	c, err := wire.DecodeCommand(o.Payload)
	if err != nil {
		return "", err
	}
	s := string(c.Act)
	if c.Rollout != "" {
		s += fmt.Sprintf(", rollout %s wave %d", c.Rollout, c.Wave)
	}
	var said struct {
		Reason string `json:"reason"`
	}
	if len(private) > 0 {
		if err := json.Unmarshal(private, &said); err != nil {
			return "", err
		}
	}
	if said.Reason != "" {
		s += ": " + said.Reason
	}
	return fmt.Sprintf("%s (%s)", s, Count(c.Devices.Count, "device", "devices")), nil
}

// Count says how many there are of what has one name when it is one and another when it is not: 1 device, 2 devices.
func Count[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func describeCert(der []byte) (string, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, by %s, until %s", c.Subject.CommonName+c.Subject.SerialNumber, c.Issuer.CommonName, c.NotAfter.UTC().Format(time.DateOnly)), nil
}

func describeLog(env []byte) (string, error) {
	o, err := wire.Parse1(wire.TypeDeviceLog, env)
	if err != nil {
		return "", err
	}
	b, err := wire.DecodeLogBatch(o.Payload)
	if err != nil {
		return "", err
	}
	var kinds []string
	for _, e := range b.Events {
		if len(e.Data) > 0 && len(e.Data) < 100 {
			kinds = append(kinds, e.Kind+" ("+string(e.Data)+")")
		} else {
			kinds = append(kinds, e.Kind)
		}
	}
	return fmt.Sprintf("events %d to %d of its own log: %s", b.First, b.Last, strings.Join(kinds, ", ")), nil
}

func describeReceipt(env []byte) (string, error) {
	o, err := wire.Parse1(wire.TypeReceipt, env)
	if err != nil {
		return "", err
	}
	r, err := wire.DecodeReceipt(o.Payload)
	if err != nil {
		return "", err
	}
	if len(r.Remains) > 0 {
		return fmt.Sprintf("erased %s; not proven erased: %s; destroyed keys %s; by warrant %s", strings.Join(r.Erased, ", "), strings.Join(r.Remains, ", "), strings.Join(r.Keys, ", "), r.Warrant), nil
	}
	return fmt.Sprintf("erased %s; destroyed keys %s; by warrant %s", strings.Join(r.Erased, ", "), strings.Join(r.Keys, ", "), r.Warrant), nil
}

func describeStatement(data []byte) (string, error) {
	var s struct {
		Framework, Control, Kind, Text string
		ReviewBy                       time.Time `json:"review_by"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s on %s of %s, to be reviewed by %s: %s", s.Kind, s.Control, s.Framework, s.ReviewBy.UTC().Format(time.DateOnly), s.Text), nil
}

// digests are shortened: a person compares their beginning, a program asks for the entry.
var digests = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`)

// event holds the members that the facts about a device have, each kind some of them.
type event struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Word     string   `json:"word"`
	Reasons  []string `json:"reasons"`
	Act      string   `json:"act"`
	Outcome  string   `json:"outcome"`
	Code     string   `json:"code"`
	Decision string   `json:"decision"`
	Severity string   `json:"severity"`
	Kind     string   `json:"kind"`
	Version  string   `json:"version"`
	Health   string   `json:"health"`
	Reason   string   `json:"reason"`
	Text     string   `json:"text"`
	Closed   string   `json:"closed_reason"`
	Again    *bool    `json:"again"`
}

func describeEvent(data []byte) (string, error) {
	var e event
	if err := json.Unmarshal(data, &e); err != nil {
		return "", err
	}
	var s string
	switch {
	case e.Word != "":
		s = "evidence " + e.Word
	case e.From != "" || e.To != "":
		s = e.From + " → " + e.To
	case e.Act != "":
		s = e.Act + " " + e.Outcome
	case e.Decision != "":
		s = e.Decision
	case e.Severity != "":
		s = e.Severity + ", " + e.Kind
	case e.Again != nil && *e.Again:
		s = "enrolled again with its factory identity"
	case e.Again != nil:
		s = "enrolled with its factory identity"
	case e.Version != "":
		s = "version " + e.Version
	}
	for _, part := range append([]string{e.Code, e.Text, e.Health, e.Reason, e.Closed}, e.Reasons...) {
		switch {
		case part == "":
		case s == "":
			s = part
		default:
			s += ": " + part
		}
	}
	return s, nil
}

// first are the members that matter most, in the order in which they are told.
var first = []string{"from", "to", "word", "status", "act", "outcome", "code", "text", "reason", "reasons", "version"}

func describeJSON(data []byte) (string, error) {
	var m map[string]any
	if len(data) == 0 {
		return "", nil
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", err
	}
	var parts []string
	take := func(k string) {
		switch v := m[k].(type) {
		case string:
			if v != "" {
				parts = append(parts, k+": "+v)
			}
		case float64, bool:
			parts = append(parts, fmt.Sprintf("%s: %v", k, v))
		case []any:
			if len(v) > 0 && k == "reasons" {
				parts = append(parts, fmt.Sprintf("%s: %v", k, v))
			}
		}
		delete(m, k)
	}
	for _, k := range first {
		take(k)
	}
	rest := make([]string, 0, len(m))
	for k := range m {
		if k != "device" && k != "ear" {
			rest = append(rest, k)
		}
	}
	slices.Sort(rest)
	for _, k := range rest {
		take(k)
	}
	return strings.Join(parts, ", "), nil
}
