package monitor

import (
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
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
	}
	if err := json.Unmarshal(f.Data, &d); err != nil {
		d.Text = "the fact cannot be read"
	}
	switch f.Kind {
	case ledger.KindVerdict:
		if d.Word == "affirming" || d.Word == "warning" {
			return Finding{}, false
		}
		out.Kind, out.Severity, out.Text = BadVerdict, Critical, fmt.Sprintf("evidence is %s: %.1000q", d.Word, d.Reasons)
	case ledger.KindDeviceRefused:
		out.Kind, out.Severity, out.Text = Refusals, High, fmt.Sprintf("refused %s: %s: %s", d.Act, d.Code, d.Text)
	case ledger.KindDeviceUnhealthy:
		out.Kind, out.Severity, out.Text = Unhealthy, High, "not healthy: "+d.Health+d.Text
		if d.Act != "" {
			out.Kind, out.Text = FailedUpdate, fmt.Sprintf("%s failed: %s: %s", d.Act, d.Code, d.Text)
		}
	case ledger.KindDeviceInconsistent:
		out.Kind, out.Severity, out.Text = CloneSuspected, Critical, d.What+d.Text
	default:
		return Finding{}, false
	}
	if len(out.Text) > 4096 {
		out.Text = out.Text[:4096]
	}
	return out, true
}
