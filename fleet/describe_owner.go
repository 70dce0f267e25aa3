package fleet

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// ownership holds the members that the facts about owners have, each kind some of them.
type ownership struct {
	Owner, Name, How, Kind, Reason, Remedy, By string
	Period, Devices                            int
	Keyed                                      bool
	Due                                        time.Time
}

// describeOwnership says what happened to whom a device belongs to.
func describeOwnership(kind ledger.Kind, data []byte) (string, error) {
	var o ownership
	if err := json.Unmarshal(data, &o); err != nil {
		return "", err
	}
	s := ""
	switch kind { //nolint:exhaustive // those of owners
	case ledger.KindOwnerCreated:
		s = "an owner"
	case ledger.KindOwnerEnded:
		s = "an owner ended"
	case ledger.KindDeviceClaimed:
		s = fmt.Sprintf("claimed by its owner number %d", o.Period)
		if !o.Keyed {
			s += ", on the server only"
		}
	case ledger.KindDeviceTransferred:
		s = fmt.Sprintf("leaves its owner number %d (%s)", o.Period, o.Kind)
		switch {
		case o.Kind == "rehome":
			s = "is handed to another instance, for good"
		case o.Period == 0:
			s = "goes back to the maker"
		}
	case ledger.KindTransferGivenUp:
		s = "is not handed to another instance after all"
	case ledger.KindTransferDone:
		if o.Kind == "rehome" {
			return "has left for another instance: nobody here has a say over it any more", nil
		}
		return fmt.Sprintf("let go of its owner number %d: nothing of that time is left", o.Period), nil
	case ledger.KindRecallIssued:
		return fmt.Sprintf("recall of %s until %s: %s: %s", Count(o.Devices, "device", "devices"), o.Due.UTC().Format(time.DateOnly), o.Reason, o.Remedy), nil
	}
	for _, part := range []string{o.Owner, o.Name, o.By, o.Reason} {
		if part != "" {
			s += ", " + part
		}
	}
	return s, nil
}
