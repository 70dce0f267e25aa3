package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
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
	if st, err := db.Onboard().Known(t.Context(), row.ID); err != nil || !st.Known || st.Rules.Suite != "" || st.Rules.Mode != "" {
		t.Errorf("of a product that is not on record: %+v, %v", st, err)
	}
	p := product.Product{ID: "thermo", Suite: "HM-P256-1"}
	if err := db.PutProduct(t.Context(), p, fact(p.ID)); err != nil {
		t.Fatal(err)
	}
	st, err := db.Onboard().Known(t.Context(), row.ID)
	if err != nil || st.Rules.Suite != suite.P256 || st.Rules.Mode != product.Automatic || !st.Known || st.Product != "thermo" || st.Hardware != "B" || st.State != device.Provisioned ||
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

// A device has one request; another takes its place; what is decided is decided once; and what lapses makes room.
func TestRequestsThatWaitForAPerson(t *testing.T) {
	s := storetest.Open(t).Onboard()
	now := time.Now().Truncate(time.Millisecond).UTC()
	w := onboard.Waiting{Device: "d1", Product: "thermo", Request: "aa", State: onboard.Waits, Asked: now, Until: now.Add(time.Hour)}
	if _, err := s.Waiting(t.Context(), "d1"); !errors.Is(err, onboard.ErrNotWaiting) {
		t.Fatalf("before it asks: %v", err)
	}
	other := w
	other.Request = "bb"
	for _, one := range []onboard.Waiting{w, other} {
		if err := s.Wait(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Waiting(t.Context(), "d1"); err != nil || got != other {
		t.Errorf("%+v, %v; want the newer request", got, err)
	}
	w.State = onboard.Approved
	if err := s.Decide(t.Context(), w, fact("d1")); !errors.Is(err, onboard.ErrNotWaiting) {
		t.Errorf("a request that was replaced was approved: %v", err)
	}
	other.State = onboard.Refused
	for i, want := range []error{nil, onboard.ErrNotWaiting} {
		if err := s.Decide(t.Context(), other, fact("d1")); !errors.Is(err, want) {
			t.Errorf("decision %d: %v", i, err)
		}
	}
	list := func(scope []string, state onboard.Word, at time.Time) int {
		t.Helper()
		all, err := s.Waitings(t.Context(), scope, state, "", at, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := []int{
		list(nil, "", now), list([]string{"thermo"}, onboard.Refused, now), list([]string{"pump"}, "", now), list(nil, onboard.Waits, now), list(nil, "", now.Add(time.Hour)),
	}; n[0] != 1 || n[1] != 1 || n[2] != 0 || n[3] != 0 || n[4] != 0 {
		t.Errorf("lists of %v", n)
	}
}

func TestNoMoreWaitThanFit(t *testing.T) {
	db := storetest.Open(t)
	now := time.Now()
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range onboard.MaxWaiting {
			if _, err := tx.Exec(`INSERT INTO enrolment (device, product, request, state, until, doc) VALUES ($1, 'thermo', 'aa', 'waiting', $2, '{}')`,
				fmt.Sprintf("d%05d", i), store.Millis(now.Add(time.Hour))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w := onboard.Waiting{Device: "new", Product: "thermo", Request: "cc", State: onboard.Waits, Asked: now, Until: now.Add(3 * time.Hour)}
	if err := db.Onboard().Wait(t.Context(), w); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("one too many: %v", err)
	}
	w.Device = "d00007"
	if err := db.Onboard().Wait(t.Context(), w); err != nil {
		t.Errorf("another request of one that waits: %v", err)
	}
	w.Device, w.Asked = "new", now.Add(2*time.Hour)
	if err := db.Onboard().Wait(t.Context(), w); err != nil {
		t.Errorf("after the others have lapsed: %v", err)
	}
}
