package gate_test

import (
	"crypto"
	"crypto/sha256"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// A verdict counts that the directive authority signed, on just this evidence of just this device.
func TestWhoseVerdictCounts(t *testing.T) {
	w := newWorld(t)
	evidence := []byte("evidence")
	digest, otherDigest := sha256.Sum256(evidence), sha256.Sum256([]byte("evidence of before"))
	for name, c := range map[string]struct {
		v    wire.Verdict
		by   crypto.Signer
		typ  wire.Type
		good bool
	}{
		"as it is":             {wire.Verdict{Device: me, Evidence: digest[:], Status: "affirming"}, w.directive, wire.TypeVerdict, true},
		"of another device":    {wire.Verdict{Device: other, Evidence: digest[:], Status: "affirming"}, w.directive, wire.TypeVerdict, false},
		"on other evidence":    {wire.Verdict{Device: me, Evidence: otherDigest[:], Status: "affirming"}, w.directive, wire.TypeVerdict, false},
		"of the release keys":  {wire.Verdict{Device: me, Evidence: digest[:], Status: "affirming"}, w.release[0], wire.TypeVerdict, false},
		"as a directive":       {wire.Verdict{Device: me, Evidence: digest[:], Status: "affirming"}, w.directive, wire.TypeDirective, false},
		"of one who was never": {wire.Verdict{Device: me, Evidence: digest[:], Status: "affirming"}, keys(t, 1)[0], wire.TypeVerdict, false},
	} {
		status, err := gate.Verdict(w.bundle, me, evidence, must(wire.Sign1(c.typ, must(wire.EncodeVerdict(c.v)), c.by)))
		if c.good != (err == nil) || c.good && status != "affirming" || !c.good && status != "" {
			t.Errorf("%s: %q, %v", name, status, err)
		}
	}
	if status, err := gate.Verdict(w.bundle, me, evidence, nil); err == nil || status != "" {
		t.Errorf("unsigned: %q, %v", status, err)
	}
}
