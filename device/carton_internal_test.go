package device

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// Who exports is told at once of all devices that a carton does not reach, and not of one after the other.
func TestDevicesThatAreTooFarBehindAreNamed(t *testing.T) {
	const newest = carton.MaxSteps + 10
	at := func(has ...uint64) (all []recipient) {
		for i, v := range has {
			all = append(all, recipient{device: Device{ID: fmt.Sprintf("d%d", i), Twin: Twin{Bundle: v}}})
		}
		return all
	}
	if err := near(at(10, newest, 11), newest); err != nil {
		t.Errorf("as far as a carton leads: %v", err)
	}
	err := near(at(9, newest, 0), newest)
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "farther behind: d0 has 9, d2 has 1:") {
		t.Errorf("two of three: %v", err)
	}
	if err := near(at(make([]uint64, 50)...), newest); !strings.Contains(err.Error(), "d19 has 1, and 30 more:") {
		t.Errorf("fifty: %v", err)
	}
}
