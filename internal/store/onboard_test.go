package store_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/onboard"
)

func TestHowADeviceStands(t *testing.T) {
	db := storetest.Open(t)
	row := store.ProvisionedRow{
		ID: strings.Repeat("ab", 16), Product: "thermo", Hardware: "B", Order: "o-1", Station: "st-1", At: time.Now(),
		Identity: bytes.Repeat([]byte{7}, 32), AttestKey: []byte("key"), KeyOrigin: "soft",
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return store.PutProvisioned(tx, row) }); err != nil {
		t.Fatal(err)
	}
	st, err := db.Onboard().Known(t.Context(), row.ID)
	if err != nil || !st.Known || st.Product != "thermo" || st.Hardware != "B" || st.State != device.Provisioned ||
		st.Legitimacy != device.Genuine || !bytes.Equal(st.Identity, row.Identity) {
		t.Errorf("%+v, %v", st, err)
	}
	if st, err := db.Onboard().Known(t.Context(), strings.Repeat("cd", 16)); err != nil || st.Known || st.State != "" || st.Identity != nil {
		t.Errorf("never ordered: %+v, %v", st, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := db.Onboard().Known(t.Context(), row.ID); err == nil || st.Known {
		t.Errorf("an outage: %+v, %v; want an error, not a stranger", st, err)
	}
	var _ onboard.Registry = db.Onboard()
}
