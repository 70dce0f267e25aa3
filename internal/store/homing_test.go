package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// The copy of a trust record is the device's own to leave, and anybody's to ask for; the last one counts.
func TestADeviceLeavesACopyOfItsTrustRecord(t *testing.T) {
	_, svc, _, _ := deviceBench(t)
	mine := access.DeviceCaller(devID)
	if r, err := svc.Record(t.Context(), "pump", devID); err != nil || r != nil {
		t.Errorf("before: %x, %v", r, err)
	}
	for name, c := range map[string]struct {
		caller access.Caller
		record []byte
		want   string
	}{
		"another device's":   {access.DeviceCaller("ffffffffffffffffffffffffffffffff"), []byte{1}, ""},
		"nothing":            {mine, nil, "trust.record"},
		"more than there is": {mine, make([]byte, wire.MaxTrust+1), "trust.record"},
	} {
		var f *fault.Fault
		if err := svc.KeepRecord(t.Context(), c.caller, devID, c.record); !errors.As(err, &f) || f.Code != c.want && c.want != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, record := range [][]byte{{1}, {1}, {2, 3}} {
		if err := svc.KeepRecord(t.Context(), mine, devID, record); err != nil {
			t.Fatal(err)
		}
		if got, err := svc.Record(t.Context(), "pump", devID); err != nil || !bytes.Equal(got, record) {
			t.Errorf("left %x, got %x, %v", record, got, err)
		}
	}
	if r, err := svc.Record(t.Context(), "other", devID); err != nil || r != nil {
		t.Errorf("as one of another product: %x, %v", r, err)
	}
}
