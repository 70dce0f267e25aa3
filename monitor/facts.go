package monitor

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// FromFact gives the finding a fact leads to, if it leads to one; at is the fact's place. A fact of a kind that is watched but that
// cannot be read leads to one as well. The product is for the caller to fill in, and the version of the release if there is one.
func FromFact(f ledger.Fact, at ledger.Ref) (Finding, bool) {
	out := Finding{Subject: f.Subject, Cause: &at}
	var d struct {
		Word    string   `json:"word"`
		Reasons []string `json:"reasons"`
		Command string   `json:"command"`
		Act     string   `json:"act"`
		Code    string   `json:"code"`
		Text    string   `json:"text"`
		What    string   `json:"what"`
		Health  string   `json:"health"`
		Reason  string   `json:"reason"`
		Said    any      `json:"said"`
		Many    bool     `json:"many"`
		Today   int      `json:"today"`
		Why     string   `json:"why"`
		Voucher string   `json:"voucher"`
		Release string   `json:"release"`
	}
	if err := json.Unmarshal(f.Data, &d); err != nil {
		d.Text = "the fact cannot be read"
	}
	switch f.Kind {
	case ledger.KindVerdict:
		if wire.Acceptable(d.Word) {
			return Finding{}, false
		}
		out.Kind, out.Severity, out.Text = BadVerdict, Critical, fmt.Sprintf("evidence is %s: %.1000s", d.Word, strings.Join(d.Reasons, "; "))
	case ledger.KindDeviceRefused:
		out.Kind, out.Severity, out.Text = Refusals, High, fmt.Sprintf("refused %s: %s: %s", d.Act, d.Code, d.Text)
	case ledger.KindDeviceUnhealthy:
		out.Kind, out.Severity, out.Text = Unhealthy, High, "not healthy: "+d.Health+d.Text
		if d.Act != "" {
			out.Kind, out.Text = FailedUpdate, fmt.Sprintf("%s failed: %s: %s", d.Act, d.Code, d.Text)
			out.Act, out.Release = d.Act, d.Release
		}
	case ledger.KindDeviceInconsistent:
		out.Kind, out.Severity, out.Text = CloneSuspected, Critical, d.What+d.Text
	case ledger.KindEnrolRefused:
		out.Kind, out.Severity, out.Text = EnrolRefused, High, d.Code+": "+d.Text
		if d.Code == "enrol.unknown" || d.Code == "enrol.key" || d.Code == "enrol.former-key" {
			out.Severity = Critical // the key of an order CA may be in wrong hands
		}
	case ledger.KindVoucherIssued:
		if !d.Many {
			return Finding{}, false
		}
		out.Kind, out.Severity, out.Text = VouchersMany, High, fmt.Sprintf("%d vouchers for devices of the product within a day: why do so many lose their keys?", d.Today)
	case ledger.KindVoucherRevoked:
		if d.Why != "guessed" && d.Why != "locked" {
			return Finding{}, false
		}
		out.Kind, out.Severity, out.Text = VoucherGuessed, High, "voucher "+d.Voucher+" is locked: it was shown with another chip than it is for"
	case ledger.KindVoucherGuessed:
		out.Kind, out.Severity, out.Text = VoucherGuessed, High, "somebody guesses at voucher "+d.Voucher+": it stays good, and is not to be guessed; who knows of it?"
	case ledger.KindRecordRefused:
		out.Kind, out.Severity, out.Text = RecordRefused, Critical, d.Reason+d.Text
	case ledger.KindDeviceLogForked:
		out.Kind, out.Severity, out.Text = LogForked, Critical, fmt.Sprintf("its log contradicts what it told before: a copy of the device, or a restored state%s", d.Text)
		if d.Code == "devicelog.rollback" || d.Code == "devicelog.setback" {
			out.Text = "its log had lost its end: its flash was set back to an earlier state: " + fmt.Sprint(d.Said)
		}
	default:
		return Finding{}, false
	}
	if len(out.Text) > 4096 {
		out.Text = out.Text[:4096]
	}
	return out, true
}

// cures tells which findings about its subject a fact puts an end to; nil: none.
func cures(f ledger.Fact) func(Finding) bool {
	var d struct {
		Word    string `json:"word"`
		Act     string `json:"act"`
		Release string `json:"release"`
		Version string `json:"version"`
		Event   string `json:"event"`
	}
	if json.Unmarshal(f.Data, &d) != nil {
		return nil
	}
	switch f.Kind {
	case ledger.KindDeviceState: // somebody has looked into it: a copy that goes on is a suspicion of its own
		if d.Event != "clear" {
			return nil
		}
		return func(f Finding) bool { return f.Kind == CloneSuspected }
	case ledger.KindDeviceRekeyed:
		return func(f Finding) bool { return f.Kind == CloneSuspected }
	case ledger.KindVerdict:
		if !wire.Acceptable(d.Word) {
			return nil
		}
		return func(f Finding) bool { return f.Kind == BadVerdict || f.Kind == NoAttestation }
	case ledger.KindDeviceHealthy:
		return func(f Finding) bool {
			return f.Kind == Unhealthy || f.Kind == FailedUpdate && arrived(f, d.Release, d.Version)
		}
	case ledger.KindDeviceUpdated: // a command was done: what brings no code has failed until it is
		return func(f Finding) bool {
			return f.Kind == FailedUpdate && f.Release == "" && f.Act != "" && f.Act == d.Act
		}
	default:
		return nil
	}
}

// arrived reports whether a device that is well with a release has made good for the update that failed: it runs that one, or has gone
// beyond it. Falling back to the release of before is what failing is; and who would not go back is not well for being ahead.
func arrived(f Finding, release, version string) bool {
	if f.Release == "" || release == "" {
		return false
	}
	return release == f.Release || f.Act != string(wire.ActRollback) && f.Version != "" && wire.CompareVersions(version, f.Version) > 0
}
