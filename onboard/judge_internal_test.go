package onboard

import (
	"crypto/x509"
	"testing"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Whoever is not let in is told why, and each reason has something of its own to be done: a device that nobody ordered is no matter of its production record.
func TestEachRefusalSaysWhatToDo(t *testing.T) {
	good := Standing{Known: true, Product: "pump", Hardware: "A", State: device.Active, Legitimacy: device.Genuine}
	of := func(kind idevid.Kind) pki.Device {
		return pki.Device{Cert: &x509.Certificate{}, Identity: idevid.Identity{DeviceID: "d", Product: "pump", HWRev: "A", Kind: kind}}
	}
	if no := judge(good, of(idevid.LDevID)); no != (reason{}) {
		t.Fatalf("a good device is refused: %+v", no)
	}
	other, ended, fake := good, good, good
	other.Hardware, ended.State, fake.Legitimacy = "B", device.Decommissioned, ""
	told := map[string]string{}
	for code, no := range map[string]reason{
		Unordered:          judge(Standing{}, of(idevid.LDevID)),
		"enrol.other":      judge(other, of(idevid.LDevID)),
		"enrol.key":        judge(good, of(idevid.IDevID)),
		"enrol.state":      judge(ended, of(idevid.LDevID)),
		"enrol.legitimacy": judge(fake, of(idevid.LDevID)),
	} {
		if no.code != code || no.text == "" || no.remedy == "" {
			t.Errorf("want %s: %+v", code, no)
		}
		if before, ok := told[no.remedy]; ok {
			t.Errorf("%s and %s have the same remedy", code, before)
		}
		told[no.remedy] = code
	}
}
