package fleet

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestWhatCannotBeReadIsCalledUnreadable(t *testing.T) {
	for _, k := range []ledger.Kind{
		ledger.KindCommandIssued, ledger.KindCertIssued, ledger.KindDeviceLogAnchored, ledger.KindTelemetryEpochOpened,
		ledger.KindRetireWiped, ledger.KindDeviceState, ledger.KindComplianceStated, ledger.KindReleaseProposed, ledger.KindReleaseApproved,
		ledger.KindReleasePublished, ledger.KindBundlePublished, ledger.KindWarrantIssued, ledger.KindOrderCreated,
	} {
		if s := Describe(wire.Fact{Kind: string(k), Data: []byte{0xff, 1, 2}}, nil); !strings.HasPrefix(s, "unreadable") {
			t.Errorf("%s: %q", k, s)
		}
	}
}

func TestTheImportantComesFirst(t *testing.T) {
	for _, c := range []struct {
		kind       ledger.Kind
		data, want string
	}{
		{ledger.KindDeviceGrouped, `{"device":"x","from":"","to":"eu/berlin","reason":"sold"}`, "put into group eu/berlin: sold"},
		{ledger.KindEnrolmentApproved, `{"device":"x","call":"enrol","key":"ab","reason":"seen"}`, "let in with key ab: seen"},
		{ledger.KindEnrolmentRefused, `{"device":"x","call":"keygen","key":"ab"}`, "not let in with key ab, to get one that the server makes"},
		{ledger.KindKeyTravelled, `{"device":"x","key":"ab"}`, "has key ab, which the server made and sent it"},
		{ledger.KindDeviceGrouped, `{"device":"x","from":"eu","to":"us"}`, "moved from group eu to us"},
		{ledger.KindDeviceGrouped, `{"device":"x","from":"eu","to":""}`, "taken out of group eu"},
		{ledger.KindDeviceState, `{"to":"active","from":"onboarded","device":"x","reason":"good evidence"}`, "onboarded → active: good evidence"},
		{ledger.KindDeviceRefused, `{"act":"wipe","outcome":"refused","code":"threshold","text":"1 of 2"}`, "wipe refused: threshold: 1 of 2"},
		{ledger.KindVerdict, `{"word":"warning","reasons":["key-origin: soft"],"ear":{}}`, "evidence warning: key-origin: soft"},
		{ledger.KindDeviceEnrolled, `{"again":false}`, "enrolled with its factory identity"},
		{ledger.KindDeviceHealthy, `{"version":"1.0.0","health":"up","release":"` + strings.Repeat("ab", 32) + `"}`, "version 1.0.0: up"},
		{
			ledger.KindComplianceStated,
			`{"framework":"etsi-en-303-645","control":"5.12-1","kind":"rationale","text":"why","review_by":"2027-06-30T00:00:00Z","rev":2}`,
			"rationale on 5.12-1 of etsi-en-303-645, to be reviewed by 2027-06-30: why",
		},
		{ledger.KindAccessChanged, `{"zeta":1,"reason":"why","digest":"` + strings.Repeat("ab", 32) + `"}`, "reason: why, digest: abababababab…, zeta: 1"},
	} {
		if got := Describe(wire.Fact{Kind: string(c.kind), Data: []byte(c.data)}, nil); got != c.want {
			t.Errorf("%s: %q, want %q", c.kind, got, c.want)
		}
	}
	if s := Describe(wire.Fact{Kind: string(ledger.KindDeviceRefused), Data: []byte(`{"text":"` + strings.Repeat("é", 500) + `"}`)}, nil); len([]rune(s)) != maxText+1 {
		t.Errorf("%d characters", len([]rune(s)))
	}
}
