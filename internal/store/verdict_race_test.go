package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device gets another key while evidence by the one before is judged: nothing is said of the device that has the new one.
func TestEvidenceByAKeyThatWasReplacedJudgesNobody(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	id := devN(0)
	rel := s.publish("1.0.0")
	s.make(id, rel)
	next := must(wire.SPKIOf(newKey(t).Public()))(t)
	v := must(attest.NewService(attest.Config{
		Store: s.db.Attest(), Guard: s.guard, References: s.db.Releases(),
		Policy: func(ctx context.Context, _ string) (attest.Policy, error) { // after the device was read
			return attest.Policy{}, s.db.Write(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE device SET attest_key = $1 WHERE id = $2`, next, id)
				return err
			})
		},
	}))(t)
	nonce := must(v.Challenge(t.Context(), access.Internal("test"), id))(t)
	before := s.facts(id)
	_, err := v.Appraise(t.Context(), access.DeviceCaller(id), id, s.evidence(id, rel, nonce))
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != "attest.key-changed" {
		t.Errorf("judged by a key that is replaced: %v", err)
	}
	if _, err := v.Current(t.Context(), access.Internal("test"), id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("it left a verdict: %v", err)
	}
	if n := s.facts(id); n != before {
		t.Errorf("it left %d facts", n-before)
	}
}

// Of two verdicts the later one is the device's, whichever was written first; both are kept.
func TestAnOlderVerdictDoesNotReplaceANewerOne(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	id := devN(0)
	rel := s.publish("1.0.0")
	s.make(id, rel)
	put := func(at time.Time, tier attest.Tier) {
		t.Helper()
		v := attest.Verdict{Device: id, At: at, Status: tier, Word: tier.String(), Release: rel.Digest[:]}
		f := ledger.New(ledger.KindVerdict, at, "test", id, nil, []byte("{}"))
		v.UID = f.UID
		if err := s.db.Attest().PutVerdict(t.Context(), v, must(wire.SPKIOf(s.keys[id].Public()))(t), f); err != nil {
			t.Fatal(err)
		}
	}
	put(s.now.Add(time.Second), attest.Contraindicated)
	put(s.now, attest.Affirming)
	if v := must(s.db.Attest().Verdict(t.Context(), id))(t); v.Status != attest.Contraindicated {
		t.Errorf("the device is %s", v.Word)
	}
	var listed int
	if err := s.db.Read().QueryRowContext(t.Context(), `SELECT verdict FROM device WHERE id = $1`, id).Scan(&listed); err != nil || attest.Tier(listed) != attest.Contraindicated {
		t.Errorf("lists have it as %s, %v", attest.Tier(listed), err)
	}
	if all := must(s.db.Attest().Verdicts(t.Context(), id, 10))(t); len(all) != 2 {
		t.Errorf("%d verdicts are kept", len(all))
	}
	put(s.now.Add(2*time.Second), attest.Affirming)
	if v := must(s.db.Attest().Verdict(t.Context(), id))(t); v.Status != attest.Affirming {
		t.Errorf("after a newer one the device is %s", v.Word)
	}
}
