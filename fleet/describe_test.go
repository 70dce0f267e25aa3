package fleet

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger"
)

func TestWhatCannotBeReadIsCalledUnreadable(t *testing.T) {
	for _, k := range []ledger.Kind{
		ledger.KindCommandIssued, ledger.KindCertIssued, ledger.KindDeviceLogAnchored, ledger.KindTelemetryEpochOpened,
		ledger.KindRetireWiped, ledger.KindDeviceState,
	} {
		if s := Describe(k, []byte{0xff, 1, 2}); !strings.HasPrefix(s, "unreadable") {
			t.Errorf("%s: %q", k, s)
		}
	}
}

func TestTheImportantComesFirst(t *testing.T) {
	s := Describe(ledger.KindDeviceState, []byte(`{"zeta":1,"to":"active","from":"onboarded","device":"x"}`))
	if s != "from: onboarded, to: active, zeta: 1" {
		t.Errorf("%q", s)
	}
	if s := Describe(ledger.KindDeviceRefused, []byte(`{"text":"`+strings.Repeat("é", 500)+`"}`)); len([]rune(s)) != maxText+1 {
		t.Errorf("%d characters", len([]rune(s)))
	}
}
