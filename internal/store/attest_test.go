package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

func (s *stages) verifier() *attest.Service { return s.verifierAt(time.Now) }

func (s *stages) verifierAt(now func() time.Time) *attest.Service {
	s.t.Helper()
	v, err := attest.NewService(attest.Config{
		Store: s.db.Attest(), Guard: s.guard, References: s.db.Releases(), Now: now,
		Policy: func(context.Context, string) (attest.Policy, error) { return attest.Policy{}, nil },
	})
	must(v, err)(s.t)
	return v
}

// evidence is a device's of the release that is published, signed by its key.
func (s *stages) evidence(id string, rel release.Release, nonce []byte) []byte {
	s.t.Helper()
	return s.evidenceOf(id, rel, nonce, 99)
}

func (s *stages) evidenceOf(id string, rel release.Release, nonce []byte, boots uint64) []byte {
	s.t.Helper()
	b := make([]byte, 32)
	payload := must(wire.EncodeEvidence(wire.Evidence{
		Nonce: nonce, InstanceID: must(wire.InstanceID(s.keys[id].Public()))(s.t), Profile: wire.PSAProfile, BootSeed: b, ClientID: 1,
		Lifecycle: wire.LifecycleSecured, Implementation: append([]byte{7}, b[1:]...), Device: id, Hardware: "A", DebugLocked: true, BootCount: boots, Counter: 1,
		Components: []wire.Measured{{Type: "BL", Value: b, SignerID: b}, {Type: "App", Value: rel.Manifest.Components[0].Digest, SignerID: b}},
		POST:       []wire.TestResult{{Name: "ram", Passed: true}}, LogHead: b, KeyOrigin: "isolated",
	}))(s.t)
	return must(wire.Sign1(wire.TypeEvidence, payload, s.keys[id]))(s.t)
}

// Evidence that answers no challenge outstanding here proves nothing bad: the process may have started since it asked, or another node
// has asked. The device is asked again, and nothing follows from it.
func TestEvidenceThatIsNotFreshJudgesNobody(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	id := devN(0)
	s.make(id, rel)
	before, after := s.verifier(), s.verifier()
	evidence := func(asked *attest.Service) []byte {
		return s.evidence(id, rel, must(asked.Challenge(t.Context(), access.Internal("test"), id))(t))
	}
	appraise := func(by *attest.Service, e []byte) (attest.Verdict, error) {
		return by.Appraise(t.Context(), access.DeviceCaller(id), id, e)
	}
	stale := func(what string, err error) {
		t.Helper()
		var f *fault.Fault
		if !errors.As(err, &f) || f.Code != "attest.nonce" || f.Kind != fault.Unavailable {
			t.Errorf("%s: %v, want to be asked again", what, err)
		}
		if _, err := before.Current(t.Context(), access.Internal("test"), id); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: it left a verdict: %v", what, err)
		}
	}
	lost := evidence(before)
	_, err := appraise(after, lost)
	stale("asked by another node", err)
	fresh := evidence(after)
	_, err = appraise(after, lost)
	stale("another challenge is outstanding", err)
	if v, err := appraise(after, fresh); err != nil || !wire.Acceptable(v.Word) {
		t.Fatalf("the one that was asked for: %s %v, %v", v.Word, v.Reasons, err)
	}
	n := s.facts(id)
	if _, err := appraise(after, fresh); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the same again: %v", err)
	}
	if got := s.facts(id); got != n {
		t.Errorf("%d facts more for evidence sent again", got-n)
	}
}

// A device whose evidence was bad is not asked again for a minute, unless it has started anew, and one with a release on trial is asked sooner: it
// starts with the count that the copy of it had reached, which looks like the start that was judged, and gives its release up when nobody asks.
func TestAReleaseOnTrialIsAskedForAgainSoon(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	id := devN(0)
	s.make(id, rel)
	now := time.Now()
	v := s.verifierAt(func() time.Time { return now })
	for _, x := range []struct {
		boots uint64
		good  bool
	}{{99, true}, {98, false}} {
		e := s.evidenceOf(id, rel, must(v.Challenge(t.Context(), access.Internal("test"), id))(t), x.boots)
		if got := must(v.Appraise(t.Context(), access.DeviceCaller(id), id, e))(t); wire.Acceptable(got.Word) != x.good {
			t.Fatalf("start %d: %s %v", x.boots, got.Word, got.Reasons)
		}
	}
	d := must(s.db.Devices().Device(t.Context(), id))(t)
	judged := now
	for _, x := range []struct {
		after time.Duration
		in    wire.Checkin
		asked bool
	}{
		{10 * time.Second, wire.Checkin{BootCount: 99, Trial: true}, false},
		{20 * time.Second, wire.Checkin{BootCount: 99, Trial: true}, true},
		{20 * time.Second, wire.Checkin{BootCount: 99}, false},
		{61 * time.Second, wire.Checkin{BootCount: 99}, true},
		{time.Second, wire.Checkin{BootCount: 100}, true},
	} {
		now = judged.Add(x.after)
		if nonce, _ := v.Due(t.Context(), d, x.in); (nonce != nil) != x.asked {
			t.Errorf("after %v, start %d, trial %v: asked %v", x.after, x.in.BootCount, x.in.Trial, nonce != nil)
		}
	}
}

func (s *stages) facts(subject string) (n int) {
	s.t.Helper()
	if err := s.db.Read().QueryRowContext(s.t.Context(), `SELECT count(*) FROM entry WHERE subject = $1`, subject).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}
