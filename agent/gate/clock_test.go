package gate_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// TestTheTimeThatIsTold judges one delivery, good at now, on devices whose clocks are behind. told and cosigned are the times of directive
// and witnesses, against now; clock is what the device knows.
func TestTheTimeThatIsTold(t *testing.T) {
	const hour = time.Hour // the bundle's maximum age
	for _, c := range []struct {
		name                  string
		clock, told, cosigned time.Duration
		do                    func(w *world, o *order)
		want                  gate.Code // empty: accepted
		signed                time.Duration
	}{
		{name: "clock is right", told: -time.Second, cosigned: -time.Minute, signed: -time.Minute},
		{name: "no clock, and both agree", clock: -50 * 365 * 24 * hour, cosigned: -time.Minute, signed: -time.Minute},
		{name: "clock years behind, and both agree", clock: -3 * 365 * 24 * hour, cosigned: -time.Minute, signed: -time.Minute},
		{name: "clock hours behind, and both agree", clock: -2 * hour, cosigned: -time.Minute, signed: -time.Minute},
		{name: "witness a little ahead", clock: -2 * hour, cosigned: time.Minute, signed: 0},
		{name: "no clock, and the log was last seen long ago", clock: -50 * 365 * 24 * hour, cosigned: -2 * hour, want: gate.StaleCheckpoint},
		{name: "clock behind, and the log was last seen long ago", clock: -3 * hour, cosigned: -2 * hour, want: gate.StaleCheckpoint},
		{name: "time known from before, and a checkpoint before that", clock: -hour, told: -3 * hour, cosigned: -3 * hour, want: gate.StaleCheckpoint},
		{name: "no clock, and the directive alone says that it is later", clock: -3 * hour, told: 3 * hour, cosigned: -4 * hour, want: gate.Future},
		{name: "the directive alone says that it is later", told: 3 * hour, cosigned: -time.Minute, want: gate.Future},
		{name: "the witnesses alone say that it is later", cosigned: hour, want: gate.Future},
		{name: "no clock, and the witnesses alone say that it is later", clock: -2 * hour, told: -hour, cosigned: hour, want: gate.Future},
		{name: "directive of long ago", told: -time.Hour, cosigned: -hour / 2, want: gate.Expired},
		{name: "no clock, and a command that has run out", clock: -9 * hour, cosigned: -time.Minute, want: gate.Expired, do: func(_ *world, o *order) {
			o.cmd.Issued, o.cmd.Expires = at(-8*hour), at(-7*hour)
		}},
		{name: "no limit of age, clock right, witnesses long away", cosigned: -9 * hour, signed: -9 * hour, do: func(w *world, _ *order) { w.bundle.MaxAge = 0 }},
		{name: "no limit of age, no clock, witnesses long away", clock: -99 * hour, cosigned: -9 * hour, signed: -9 * hour, do: func(w *world, _ *order) {
			w.bundle.MaxAge = 0
		}},
		{name: "no witnesses, and no clock", clock: -99 * hour, want: gate.Future, do: func(w *world, _ *order) { w.bundle.Quorum, w.cosigner = 0, 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			o := w.order(wire.ActQuarantine)
			w.cosigned = now.Add(c.cosigned)
			o.dir.Issued, o.dir.Expires = at(c.told), at(c.told+2*time.Minute)
			if c.do != nil {
				c.do(w, o)
			}
			clock := now.Add(c.clock)
			p, err := gate.Decide(w.state(), w.deliver(o), nonce(), clock)
			if c.want != "" {
				wantCode(t, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.Signed.Equal(now.Add(c.signed)) {
				t.Errorf("signed is %s, want %s", p.Signed.Sub(now), c.signed)
			}
			device := clock // and what it keeps
			if p.Signed.After(device) {
				device = p.Signed
			}
			if !p.Until.Equal(device.Add(10 * time.Minute)) {
				t.Errorf("the device ends it after %s by its own time, want 10 min", p.Until.Sub(device))
			}
		})
	}
}

// rewrite gives the log another first entry and so another root at each size, signed by the log and its witnesses: they lie together.
func (w *world) rewrite() { w.entries[0] = []byte("another past") }

func TestALogWithTwoFacesIsRefused(t *testing.T) {
	w := newWorld(t)
	o := w.order(wire.ActAttest)
	first, err := gate.Decide(w.state(), w.deliver(o), nonce(), now)
	if err != nil {
		t.Fatal(err)
	}
	s := w.state()
	s.Trees, s.Counter = gate.Grown(s.Trees, first.Tree), first.Counter
	o.dir.Counter++
	if p, err := gate.Decide(s, again(w, o), nonce(), now); err != nil || p.Tree.Size != first.Tree.Size {
		t.Fatalf("the same tree again: %v", err)
	}
	w.rewrite()
	_, err = gate.Decide(s, again(w, o), nonce(), now)
	wantCode(t, err, gate.ForkedLog)

	w = newWorld(t)
	d := w.deliver(w.order(wire.ActInstall))
	w.rewrite()
	for i, e := range w.entries {
		if bytes.Equal(e, d.Release.Entry) {
			l := w.logged(i)
			d.Release = &l
		}
	}
	_, err = gate.Decide(w.state(), d, nonce(), now)
	wantCode(t, err, gate.ForkedLog)
}

// again delivers what is in the log already.
func again(w *world, o *order) wire.Delivery {
	return wire.Delivery{
		Directive: must(wire.Sign1(wire.TypeDirective, must(wire.EncodeDirective(o.dir)), o.dirSigner)), Command: w.logged(len(w.entries) - 1),
		Member: member(o.devices),
	}
}

func TestARefusalNamesTheCommandOnlyWhenThatIsProven(t *testing.T) {
	w := newWorld(t)
	o := w.order(wire.ActAttest)
	o.devices = []string{other, "3"}
	_, err := gate.Decide(w.state(), w.deliver(o), nonce(), now)
	wantCode(t, err, gate.NotInSet)
	if r, ok := err.(*gate.Refusal); !ok || r.Cause == nil || *r.Cause != (wire.LogRef{Origin: origin, Index: uint64(len(w.entries) - 1)}) { //nolint:errorlint // it is the function's own
		t.Errorf("cause %+v", r.Cause)
	}
	w.cosigner = 0
	_, err = gate.Decide(w.state(), w.deliver(w.order(wire.ActAttest)), nonce(), now)
	wantCode(t, err, gate.NotWitnessed)
	if r, ok := err.(*gate.Refusal); !ok || r.Cause != nil { //nolint:errorlint // it is the function's own
		t.Errorf("a cause that nobody witnessed: %+v", r.Cause)
	}
}

func TestTheLargestTreeOfEachLogIsKept(t *testing.T) {
	head := func(origin string, size uint64) wire.TreeHead { return wire.TreeHead{Origin: origin, Size: size} }
	var held []wire.TreeHead
	for _, h := range []wire.TreeHead{head("a", 5), head("b", 9), head("a", 7), head("b", 8), head("a", 6)} {
		held = gate.Grown(held, h)
	}
	if len(held) != 2 || held[0].Origin != "b" || held[0].Size != 9 || held[1].Origin != "a" || held[1].Size != 7 {
		t.Fatalf("%+v", held)
	}
	for _, o := range []string{"c", "d", "e"} {
		held = gate.Grown(held, head(o, 1))
	}
	if len(held) != wire.MaxLogTrees || held[0].Origin != "a" {
		t.Fatalf("of more logs than there is room for: %+v", held)
	}
}

func TestAnAnchorIsBelievedByItselfAlone(t *testing.T) {
	w := newWorld(t)
	w.bundle.Events.Origin = origin // the world signs one log
	key := keys(t, 2)
	head := sha256.Sum256([]byte("head"))
	signed := func(k int, device string) []byte {
		return must(wire.Sign1(wire.TypeDeviceLog, must(wire.EncodeLogBatch(wire.LogBatch{
			Device: device, First: 8, Last: 7, Prev: head[:], Head: head[:],
		})), key[k]))
	}
	good := w.append("device.log.anchored", signed(0, me))
	wrong := map[string]struct {
		entry int
		want  gate.Code
	}{
		"entry of another kind": {w.append("device.enrolled", signed(0, me)), gate.Malformed},
		"another key":           {w.append("device.log.anchored", signed(1, me)), gate.Signature},
		"another device":        {w.append("device.log.anchored", signed(0, other)), gate.NotForMe},
		"no batch":              {w.append("device.log.anchored", []byte("batch")), gate.Signature},
	}
	open := func(held []wire.TreeHead, l wire.Logged) (gate.Anchor, error) {
		return gate.Anchored(w.bundle, held, me, key[0].Public(), l)
	}
	a, err := open(nil, w.logged(good))
	if err != nil || a.Batch.Last != 7 || a.Tree.Size != uint64(len(w.entries)) || !a.Cosigned.Equal(w.cosigned) {
		t.Fatalf("%+v, %v", a, err)
	}
	if !ed25519.Verify(w.bundle.Events.Key, []byte(wire.CheckpointText(a.Tree.Origin, a.Tree.Size, [32]byte(a.Tree.Root))), a.Tree.Signature) {
		t.Fatal("what is kept of the log is not signed by it")
	}
	for name, c := range wrong {
		_, err := open(nil, w.logged(c.entry))
		if wantCode(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
	}
	held := []wire.TreeHead{a.Tree}
	larger := a.Tree
	larger.Size++
	_, err = open([]wire.TreeHead{larger}, w.logged(good))
	wantCode(t, err, gate.ShrunkLog)
	w.rewrite()
	_, err = open(held, w.logged(good))
	wantCode(t, err, gate.ForkedLog)
	w.cosigner = 1
	_, err = open(nil, w.logged(good))
	wantCode(t, err, gate.NotWitnessed)
}
