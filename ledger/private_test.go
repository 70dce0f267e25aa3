package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

const said = "Mrs Smith, ward 3"

func moved() ledger.Fact {
	return ledger.New(ledger.KindDeviceState, time.Now(), "person:ann", "dev", nil, []byte(`{"device":"dev","from":"active","reason":"`+said+`","to":"lost"}`))
}

func TestWhatPeopleSayIsNotInTheEntry(t *testing.T) {
	f := moved()
	key := bytes.Repeat([]byte{7}, ledger.PrivateKeySize)
	s, err := ledger.Seal(key, f.UID, f.Private)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := f.Encode(s.Commitment())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(entry, []byte("Smith")) {
		t.Fatal("the entry has it")
	}
	w, err := wire.DecodeFact(entry)
	if err != nil {
		t.Fatal(err)
	}
	private, err := s.Open(key, f.UID, w.Private)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if err := json.Unmarshal(ledger.Merge(w.Data, private), &m); err != nil || m["reason"] != said || m["to"] != "lost" {
		t.Fatalf("%v, %v", m, err)
	}
	if got := string(ledger.Merge(w.Data, nil)); strings.Contains(got, "reason") || !strings.Contains(got, "lost") {
		t.Errorf("without the private part: %s", got)
	}
}

// Wherever people give a reason or a purpose, it is not public.
func TestReasonsAreNotInTheEntry(t *testing.T) {
	for kind, member := range map[ledger.Kind]string{
		ledger.KindReleaseWithdrawn: "reason", ledger.KindReleaseClosed: "reason", ledger.KindRolloutCreated: "reason", ledger.KindRolloutPaused: "reason", ledger.KindRolloutResumed: "reason",
		ledger.KindRolloutHalted: "reason", ledger.KindRolloutAborted: "reason", ledger.KindTelemetryReadDecided: "purpose",
		ledger.KindRemedyDecided: "reason", ledger.KindRetireOrdered: "reason", ledger.KindProposalMade: "reason",
	} {
		f := ledger.New(kind, time.Now(), "person:ann", "x", nil, []byte(`{"`+member+`":"`+said+`","wave":3}`))
		if bytes.Contains(f.Data, []byte("Smith")) || !bytes.Contains(f.Private, []byte(said)) || !bytes.Contains(f.Data, []byte("wave")) {
			t.Errorf("%s: public %s, private %s", kind, f.Data, f.Private)
		}
	}
}

func TestAPrivatePartOpensAsItWasSealedOrNotAtAll(t *testing.T) {
	f := moved()
	key := bytes.Repeat([]byte{7}, ledger.PrivateKeySize)
	s, err := ledger.Seal(key, f.UID, f.Private)
	if err != nil {
		t.Fatal(err)
	}
	commitment := s.Commitment()
	opens := func(s ledger.Sealed, key []byte, uid [16]byte, commitment []byte) bool {
		out, err := s.Open(key, uid, commitment)
		if err != nil && !errors.Is(err, ledger.ErrPrivate) {
			t.Fatalf("another error: %v", err)
		}
		return err == nil && bytes.Equal(out, f.Private)
	}
	if !opens(s, key, f.UID, commitment) {
		t.Fatal("it does not open as it is")
	}
	for name, part := range map[string][]byte{"salt": s.Salt, "ciphertext": s.Ciphertext, "key": key, "uid": f.UID[:], "commitment": commitment} {
		for i := range part {
			part[i] ^= 1
			if opens(s, key, f.UID, commitment) {
				t.Errorf("it opens with byte %d of the %s changed", i, name)
			}
			// With a commitment to the changed bytes too, the cipher still says no, or it is another fact's.
			if name != "salt" && name != "commitment" && opens(s, key, f.UID, s.Commitment()) {
				t.Errorf("it opens with byte %d of the %s changed, and a commitment that fits", i, name)
			}
			part[i] ^= 1
		}
	}
	again, err := ledger.Seal(key, f.UID, f.Private)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.Commitment(), commitment) {
		t.Error("the same words have the same commitment: they could be guessed")
	}
}

func TestAPrivatePartIsNeverLeftOut(t *testing.T) {
	f := moved()
	if _, err := f.Encode(nil); err == nil {
		t.Error("a fact with a private part was encoded without a commitment to it")
	}
	f.Private = nil
	if _, err := f.Encode(make([]byte, 32)); err == nil {
		t.Error("a fact without a private part was encoded with a commitment")
	}
}

func TestReasonsThatAreNumbersStayPublic(t *testing.T) {
	f := ledger.New(ledger.KindCertRevoked, time.Now(), "person:ann", "dev", nil, []byte(`{"serial":"1","reason":4}`))
	if f.Private != nil || !strings.Contains(string(f.Data), `"reason":4`) {
		t.Errorf("%s, %s", f.Data, f.Private)
	}
}
