package factorytest_test

import (
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/wire"
)

func asked(t *testing.T, o *factorytest.OEM, id string, q factory.Question) []factory.Difference {
	t.Helper()
	var all []factory.Difference
	for after := ""; ; { // the smallest pages there are
		page, next, err := o.Service.Differences(t.Context(), o.Caller, id, q, after, 1)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		all, after = append(all, page...), next
		if next == "" {
			return all
		}
	}
}

// counted says how many rows each list of an order has.
func counted(t *testing.T, o *factorytest.OEM, id string) map[factory.Question]int {
	t.Helper()
	n := map[factory.Question]int{}
	for _, q := range factory.Questions() {
		if k := len(asked(t, o, id, q)); k > 0 {
			n[q] = k
		}
	}
	return n
}

func wantLists(t *testing.T, what string, got, want map[factory.Question]int) {
	t.Helper()
	for _, q := range factory.Questions() {
		if got[q] != want[q] {
			t.Errorf("%s: list %s has %d rows, want %d", what, q, got[q], want[q])
		}
	}
}

// A station's disk is restored and it makes pieces again; a chip comes twice, in two orders; a piece is made anew: the maker has each in its list, with
// both records and what to do.
func TestWhatDoesNotAgreeIsListed(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	original := factorytest.NewPiece()
	if _, _, err := run(t, o, s, "ord-1", 1, original); err != nil {
		t.Fatal(err)
	}
	restore := kept(t, dir)
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	history := export(t, o, s, "ord-1")
	restore()
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	fork := export(t, o, s, "ord-1")
	take(t, o, "ord-1", history)
	wantLists(t, "the first history", counted(t, o, "ord-1"), map[factory.Question]int{factory.Unseen: 3})
	take(t, o, "ord-1", fork)
	wantLists(t, "the second", counted(t, o, "ord-1"), map[factory.Question]int{factory.Alarms: 2, factory.OverProduction: 2, factory.Unseen: 3})
	for i, d := range asked(t, o, "ord-1", factory.OverProduction) {
		if d.Record == nil || d.Other == nil || d.Record.Seq != uint32(2+i) || d.Other.Seq != d.Record.Seq || d.Record.Chip == d.Other.Chip || d.Record.State != "" ||
			d.Other.State != "made" || !strings.Contains(d.Reason, "rolled back") || !strings.Contains(d.Remedy, "ask the centre") {
			t.Errorf("%+v\n%+v\n%+v", d, d.Record, d.Other)
		}
	}

	imported(t, o, s, "ord-2", 4)
	twin, bad := factorytest.NewPiece(), factorytest.NewPiece()
	twin.UID, bad.Corrupt = original.UID, "app"
	if _, _, err := run(t, o, s, "ord-2", 2, twin, bad); err != nil {
		t.Fatal(err)
	}
	take(t, o, "ord-2", export(t, o, s, "ord-2"))
	wantLists(t, "the clone", counted(t, o, "ord-2"), map[factory.Question]int{factory.Alarms: 1, factory.Clones: 1, factory.Refused: 1})
	if d := asked(t, o, "ord-2", factory.Clones)[0]; d.Record.Chip != hex.EncodeToString(original.UID) || d.Other == nil || d.Other.Order != "ord-1" || d.Other.Chip != d.Record.Chip ||
		d.Record.State != "refused" || !strings.Contains(d.Remedy, "quarantine") {
		t.Errorf("%+v\n%+v\n%+v", d, d.Record, d.Other)
	}
}

// Records that are on their way are missing by their numbers, those that the station ended with included; then they are here, and nothing is.
func TestWhatIsMissingIsListed(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 5)
	bad := factorytest.NewPiece()
	bad.Corrupt = "app"
	if _, _, err := run(t, o, s, "ord-1", 2, factorytest.NewPiece(), bad); err != nil {
		t.Fatal(err)
	}
	bad.Corrupt = ""
	if _, _, err := reworking(t, o, s, bad); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	whole := export(t, o, s, "ord-1")
	end, err := os.ReadFile(filepath.Join(dir, "orders", "ord-1", "end"))
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "orders", "ord-1", "order.cose"))
	if err != nil {
		t.Fatal(err)
	}
	ord, err := wire.VerifyOrder(env, o.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := wire.SealBatch(wire.RecordBatch{Order: "ord-1", Records: [][]byte{}, JobEnd: end}, ord.Header.ReturnKey)
	if err != nil {
		t.Fatal(err)
	}
	short, err := wire.Marshal(wire.RecordFile{Order: "ord-1", Batches: [][]byte{sealed}})
	if err != nil {
		t.Fatal(err)
	}
	take(t, o, "ord-1", short)
	if d := asked(t, o, "ord-1", factory.Missing); len(d) != 1 || d[0].Seq != 1 || d[0].To != 3 || !strings.Contains(d[0].Remedy, "export ord-1 --after 0") {
		t.Errorf("%+v", d)
	}
	take(t, o, "ord-1", whole)
	wantLists(t, "whole", counted(t, o, "ord-1"), map[factory.Question]int{factory.Unseen: 2, factory.Reworks: 1})
	if d := asked(t, o, "ord-1", factory.Reworks)[0]; d.Record.Rework != 2 || d.Other == nil || d.Other.Seq != 2 || d.Other.Outcome != "scrapped" || !strings.Contains(d.Reason, "which failed") {
		t.Errorf("%+v", d)
	}
	_, _, err = o.Service.Differences(t.Context(), o.Caller, "ord-1", "everything", "", 1)
	wantCode(t, err, "order.question")
	for _, after := range []string{"x", "4294967296", "-1"} {
		_, _, err = o.Service.Differences(t.Context(), o.Caller, "ord-1", factory.Missing, after, 1)
		wantCode(t, err, "page.invalid")
	}
	_, _, err = o.Service.Differences(t.Context(), o.Caller, "ord-1", factory.Alarms, "1.zz", 1)
	wantCode(t, err, "page.invalid")
	_, _, err = o.Service.Differences(t.Context(), access.Caller{ID: "person:eve", Kind: access.Person}, "ord-1", factory.Alarms, "", 1)
	if err == nil {
		t.Error("somebody without a role reads the lists")
	}
}

// A device that comes before its record is listed as one that waits, one with a serial that no ticket gives as one that is refused, each with what to do.
func TestWhoCameWithoutARecordIsListed(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 2)
	piece := factorytest.NewPiece()
	if _, _, err := run(t, o, s, "ord-1", 1, piece); err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(piece.Got.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // asked again, from memory
		if planned, err := o.Service.Planned(t.Context(), ca, piece.Got.Device); err != nil || !planned {
			t.Fatalf("%v, %v", planned, err)
		}
	}
	ski, other := hex.EncodeToString(ca.SubjectKeyId), strings.Repeat("ee", 16)
	if err := o.DB.Onboard().Planned(t.Context(), onboard.Planned{Device: piece.Got.Device, Issuer: ski, At: o.Now}); err != nil {
		t.Fatal(err)
	}
	if err := o.DB.Onboard().Refuse(t.Context(), onboard.Refusal{Device: other, Issuer: ski, Code: onboard.Unordered, At: o.Now}); err != nil {
		t.Fatal(err)
	}
	remedies := map[string]string{}
	for _, d := range asked(t, o, "ord-1", factory.Unregistered) {
		remedies[d.Device] = d.Remedy
	}
	if len(remedies) != 2 || !strings.Contains(remedies[piece.Got.Device], "order import ord-1") || !strings.Contains(remedies[other], "revoke-issuer "+ski) {
		t.Errorf("%+v", remedies)
	}
	take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if d := asked(t, o, "ord-1", factory.Unregistered); len(d) != 1 || d[0].Device != other {
		t.Errorf("its record came: %+v", d)
	}
}
