package console

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func pathEscape(s string) string { return url.PathEscape(s) }

func queryEscape(s string) string { return url.QueryEscape(s) }

func orUnknown(s string) string {
	if s == "" || s == "none" {
		return "unknown"
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "y") && !strings.HasSuffix(what, "ay") {
		what = what[:len(what)-1] + "ie"
	}
	return number(n) + " " + what + "s"
}

// number groups thousands with a narrow space.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// short shows the first 12 characters of an identifier; the whole is one click away.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// clip bounds a text that somebody else wrote, characters.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// digest is a whole SHA-256 in a text; its beginning is enough to know it again, and leaves the text room.
var digest = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`)

// brief is clip, with digests shortened.
func brief(s string, most int) string { return clip(digest.ReplaceAllString(s, "$1…"), most) }

// keysBy says who may make the keys of an order's devices.
func keysBy(o factory.Order) string {
	switch {
	case o.Chips != "":
		return "the chips' vendor"
	case o.Keys != "":
		return "the device or the station"
	}
	return "the device"
}

func joined(list []string) string { return strings.Join(list, ", ") }

// numeric tells the columns that hold numbers, which are aligned at their last digit.
func numeric(column string) bool {
	switch column {
	case "Count", "Devices", "Findings", "Deliveries", "Approvals", "Components", "Counter", "Size", "Quota", "Tries", "Entries", "Share":
		return true
	}
	return false
}

// why puts a reason behind what it is of.
func why(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + clip(reason, 200)
}

func several(f sameFindings) string {
	if f.More {
		return number(f.N) + " or more"
	}
	return number(f.N) + " of them"
}

func shortActor(a string) string {
	if id, ok := strings.CutPrefix(a, "device:"); ok {
		return "the device " + short(id)
	}
	return a
}

// isDevice reports whether s has the form of a device's ID.
func isDevice(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func refLink(r ledger.Ref) templ.SafeURL {
	return templ.SafeURL(fmt.Sprintf("/ledger/%s/%d", url.PathEscape(string(r.Log)), r.Index))
}

func proofLink(l fleet.Line) templ.SafeURL {
	return refLink(ledger.Ref{Log: ledger.Log(l.Log), Index: *l.Index})
}

// factLink leads to what a fact is about.
func factLink(l fleet.Line) templ.SafeURL {
	if isDevice(l.Subject) {
		return templ.SafeURL("/devices/" + l.Subject)
	}
	return templ.SafeURL("/ledger?" + url.Values{"log": {l.Log}, "subject": {l.Subject}}.Encode())
}

func factColumns(subjects bool) []string {
	if subjects {
		return []string{"When", "About", "What", "By", "Proof"}
	}
	return []string{"When", "What", "By", "Proof"}
}

func factsURL(p ledgerPageData) string {
	v := url.Values{"log": {p.Query.Log}}
	for k, s := range map[string]string{"subject": p.Query.Subject, "kind": p.Query.Kind} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if last := p.Facts[len(p.Facts)-1].Index; last != nil {
		v.Set("before", strconv.FormatUint(*last, 10))
	}
	return "/ledger?" + v.Encode()
}

// kinds are offered for a search; any other may be typed.
func kinds() []string {
	var out []string
	for _, k := range []ledger.Kind{
		ledger.KindReleasePublished, ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed, ledger.KindReleaseApproved, ledger.KindCommandIssued, ledger.KindWarrantIssued,
		ledger.KindBundlePublished, ledger.KindRolloutStarted, ledger.KindRolloutHalted, ledger.KindRolloutCompleted, ledger.KindOrderCreated,
		ledger.KindOrderClosed, ledger.KindOrderCancelled, ledger.KindOrderAbandoned, ledger.KindDeskAdded, ledger.KindDeskRemoved, ledger.KindOrderInspected, ledger.KindRecordRefused, ledger.KindDeviceProvisioned, ledger.KindDeviceEnrolled, ledger.KindDeviceState,
		ledger.KindDeviceUpdated, ledger.KindDeviceUnhealthy, ledger.KindDeviceRefused, ledger.KindDeviceQuarantined, ledger.KindVerdict,
		ledger.KindFindingRaised, ledger.KindRemedyDecided, ledger.KindTelemetryReadDecided, ledger.KindCertIssued, ledger.KindCertRevoked,
		ledger.KindRetireWiped, ledger.KindRetireWrittenOff, ledger.KindRetireDisposed, ledger.KindAccessChanged, ledger.KindComplianceStated,
	} {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return out
}

func devicesURL(q fleet.Query, after string) string {
	v := url.Values{}
	for k, s := range map[string]string{
		"product": q.Product, "group": q.Group, "state": q.State, "verdict": q.Verdict, "version": q.Version, "assurance": q.Assurance, "release": q.Release, "bundle": q.Bundle, "q": q.Prefix, "after": after,
	} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if q.Findings {
		v.Set("findings", "open")
	}
	if len(v) == 0 {
		return "/devices"
	}
	return "/devices?" + v.Encode()
}

// savedQueries are the questions people ask most; any other can be kept under a name of one's own.
func savedQueries() []navLink {
	return []navLink{
		{"All", "/devices"},
		{"With findings", "/devices?findings=open"},
		{"Failing evidence", "/devices?verdict=contraindicated"},
		{"With a warning", "/devices?verdict=warning"},
		{"Without evidence", "/devices?verdict=unknown"},
		{"In quarantine", "/devices?state=quarantined"},
		{"Not yet onboarded", "/devices?state=provisioned"},
		{"Lost", "/devices?state=lost"},
	}
}

func isCurrent(a, b string) string {
	if a == b {
		return "page"
	}
	return "false"
}

// keysOf says where a device's keys are, and since when it has them if that was not in a factory.
func keysOf(d fleet.Detail) string {
	s := keyOrigin(d.KeyOrigin)
	if d.Rekeyed != nil {
		s += "; made in the field on " + d.Rekeyed.UTC().Format("2 January 2006") + ", by a voucher of two people"
	}
	return s
}

func keyOrigin(s string) string {
	switch s {
	case device.OriginImported:
		return "of another maker: nobody here knows"
	case "soft":
		return "in software: it can be copied"
	case wire.OriginStation:
		return "made by the station that programmed it: they were in that computer's memory"
	case "isolated":
		return "in an isolated environment"
	case "tpm":
		return "in a TPM"
	case "pkcs11":
		return "in a secure element"
	}
	return orUnknown(s)
}

func bytesOf(done, of uint64) string { return sizeOf(done) + " of " + sizeOf(of) }

// needsOf says what a component needs of the others of its set, and of the hardware.
func needsOf(c wire.Component) string {
	var out []string
	for _, q := range c.Requires {
		out = append(out, q.String())
	}
	if len(c.Hardware) > 0 {
		out = append(out, "hardware "+strings.Join(c.Hardware, ", "))
	}
	if c.Capabilities != nil {
		out = append(out, c.Capabilities.String())
	}
	if len(c.After) > 0 {
		out = append(out, "starts after "+strings.Join(c.After, ", "))
	}
	if c.Laid != nil {
		out = append(out, fmt.Sprintf("in its bank %s, sha256 %x", sizeOf(c.Laid.Size), c.Laid.Digest))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, "; ")
}

func sizeOf(n uint64) string {
	switch {
	case n < 10_000:
		return strconv.FormatUint(n, 10) + " B"
	case n < 10_000_000:
		return strconv.FormatUint(n/1000, 10) + " kB"
	}
	return strconv.FormatUint(n/1_000_000, 10) + " MB"
}

// setting is one name with what is wanted and what is so.
type setting struct{ Name, Desired, Reported, Text, Tone string }

// settingTone is the tone of how a setting stands.
func settingTone(s device.SettingStanding) string {
	switch s {
	case device.AsWanted:
		return "good"
	case device.UnderWay:
		return "busy"
	case device.Differs, device.NotReported:
		return "warn"
	case device.ItsOwn, device.Unset, device.OfAnother:
	}
	return ""
}

// valueOf is a setting's value, which may be none.
func valueOf(v *string, secret bool) string {
	switch {
	case v == nil:
		return ""
	case secret:
		return "(secret)"
	}
	return clip(*v, 80)
}

// claims spells the trust vector out.
func claims(v attest.Verdict) []setting {
	sub, ok := attest.Submod{}, false
	for _, name := range slices.Sorted(maps.Keys(v.EAR.Submods)) {
		sub, ok = v.EAR.Submods[name], true
		break
	}
	if !ok {
		return nil
	}
	t := sub.Vector
	var out []setting
	for _, c := range []struct {
		name string
		tier attest.Tier
	}{
		{"Identity", t.InstanceIdentity},
		{"Software", t.Executables},
		{"Hardware", t.Hardware},
		{"Configuration", t.Configuration},
		{"Runtime", t.RuntimeOpaque},
		{"Storage", t.StorageOpaque},
	} {
		if c.tier != attest.None {
			out = append(out, setting{Name: c.name, Text: c.tier.String(), Tone: verdictTone(c.tier.String())})
		}
	}
	return out
}

func newestFirst(lines []fleet.Line) []fleet.Line {
	out := slices.Clone(lines)
	slices.Reverse(out)
	return out
}

// changes are the kinds of fact that change how a device stands.
var changes = []ledger.Kind{
	ledger.KindDeviceState, ledger.KindDeviceQuarantined, ledger.KindDeviceReleased, ledger.KindDeviceOnboarded, ledger.KindDeviceProvisioned,
	ledger.KindRetireWiped, ledger.KindRetireWrittenOff, ledger.KindRetireDisposed,
}

// lastChange finds the newest line that tells why the device stands as it does.
func lastChange(lines []fleet.Line) *fleet.Line {
	for _, l := range newestFirst(lines) {
		if slices.Contains(changes, ledger.Kind(l.Kind)) {
			return &l
		}
	}
	return nil
}

func guarded(p devicePageData) bool {
	return (p.Row.State == device.Quarantined || p.Row.State == device.Dormant) && p.Row.GuardUntil.Unix() > 0
}

func outstanding(c device.CommandDevice) bool {
	return c.Standing == device.Pending || c.Standing == device.Delivered
}

func resultText(c device.CommandDevice) string {
	switch {
	case c.Code == "":
		return c.Text
	case c.Text == "":
		return c.Code
	}
	return c.Code + ": " + c.Text
}

func certText(c fleet.Certificate, now time.Time) string {
	switch {
	case !c.Ended.IsZero() && c.Ended.Before(now):
		return "replaced or revoked"
	case c.NotAfter.Before(now):
		return "ended"
	case !c.Ended.IsZero():
		return "replaced, until " + c.Ended.UTC().Format("2 Jan 15:04Z")
	case endless(c.NotAfter):
		return "has no end"
	case now.After(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)):
		return "to be renewed now"
	}
	return "good"
}

func certTone(c fleet.Certificate, now time.Time) string {
	switch certText(c, now) {
	case "good", "has no end":
		return "good"
	case "ended":
		return "bad"
	case "to be renewed now":
		return "warn"
	}
	return ""
}

func endless(t time.Time) bool { return t.Year() > 9000 }
