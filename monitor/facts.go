package monitor

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// FromFact gives the finding a fact leads to, if it leads to one; at is the fact's place. A fact of a kind that is watched but that
// cannot be read leads to one as well. The product is for the caller to fill in.
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
		if d.Why != "guessed" {
			return Finding{}, false
		}
		out.Kind, out.Severity, out.Text = VoucherGuessed, High, "voucher "+d.Voucher+" is locked: too many wrong tries"
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

// cures gives the kinds of finding about its subject that a fact puts an end to.
func cures(f ledger.Fact) []Kind {
	if f.Kind == ledger.KindDeviceHealthy {
		return []Kind{Unhealthy, FailedUpdate}
	}
	var v struct {
		Word string `json:"word"`
	}
	if f.Kind == ledger.KindVerdict && json.Unmarshal(f.Data, &v) == nil && wire.Acceptable(v.Word) {
		return []Kind{BadVerdict, NoAttestation}
	}
	return nil
}
