package devicelog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/wire"
)

const id = "00112233445566778899aabbccddeeff"

var now = time.Unix(1_800_000_000, 0)

// quiet audits nothing.
type quiet struct{}

func (quiet) Record(context.Context, access.Decision) error { return nil }

// shelf is the store, and the ledger's prover, in memory.
type shelf struct {
	attest  []byte
	head    devicelog.Head
	batches []wire.LogBatch
	facts   map[[16]byte]ledger.Fact
	alarms  map[uint64]devicelog.Fork
	told    []devicelog.Fork // set back, as the device said itself
	unseen  bool             // no witness has cosigned yet
}

func (s *shelf) LogHead(context.Context, string) (devicelog.Head, []byte, error) {
	if s.head.Seq == 0 {
		return devicelog.Head{Head: wire.LogOrigin(id, s.attest)}, s.attest, nil
	}
	return s.head, s.attest, nil
}

func (s *shelf) LoggedHead(_ context.Context, _ string, seq uint64) (head [32]byte, ok bool, err error) {
	for _, b := range s.batches {
		if head, ok = b.HeadAt(seq); ok {
			break
		}
	}
	return head, ok, nil
}

func (s *shelf) AdvanceLog(_ context.Context, _ string, from, to devicelog.Head, facts ...ledger.Fact) error {
	if from.Seq != s.head.Seq {
		return devicelog.ErrChanged
	}
	s.head = to
	for _, f := range facts {
		if f.Kind == ledger.KindDeviceLogForked {
			s.told = append(s.told, fork(f))
			continue
		}
		s.facts[f.UID] = f
		s.batches = append(s.batches, open(f))
	}
	return nil
}

func (s *shelf) HeardLog(_ context.Context, _ string, h devicelog.Head) error {
	s.head.Boots, s.head.Counter, s.head.Heard = h.Boots, h.Counter, h.Heard
	return nil
}

func (s *shelf) AlarmLog(_ context.Context, _ string, seq uint64, f ledger.Fact) error {
	s.alarms[seq] = fork(f)
	return nil
}

func (s *shelf) Logged(_ context.Context, uid [16]byte) (wire.Logged, error) {
	if s.unseen {
		return wire.Logged{}, ledger.ErrNotYetWitnessed
	}
	return wire.Logged{Entry: uid[:]}, nil // whether a proof holds is the gate's to say, and tested there
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func open(f ledger.Fact) wire.LogBatch {
	return must(wire.DecodeLogBatch(must(wire.Parse1(wire.TypeDeviceLog, f.Data)).Payload))
}

func fork(f ledger.Fact) (out devicelog.Fork) {
	if err := json.Unmarshal(f.Data, &out); err != nil {
		panic(err)
	}
	return out
}

// pair is a device and its server.
type pair struct {
	board   *virtual.Board
	counted bool // the board has a counter for the log
	key     *ecdsa.PrivateKey
	log     *devlog.Log
	boots   uint64
	n       int // events so far

	shelf   *shelf
	service *devicelog.Service
	sent    [][]byte // envelopes
	flash   []byte   // an earlier state
	past    int      // how many events there were then
	pastSeq uint64   // and the number of the last

	said  map[string]bool // that were promised to be durable, and not set back since
	ever  int             // how often the flash was set back to where events are missing
	burst bool            // the ring was filled, so that events may be lost
}

func newPair(t *rapid.T) *pair {
	b := must(virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: 6 * 4096, Sector: 4096, Page: 256}}))
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	s := &shelf{attest: must(wire.SPKIOf(k.Public())), facts: map[[16]byte]ledger.Fact{}, alarms: map[uint64]devicelog.Fork{}}
	p := &pair{
		board: b, counted: rapid.Bool().Draw(t, "counter"), key: k, shelf: s, said: map[string]bool{},
		service: devicelog.NewService(s, s, must(access.NewGuard(quiet{}))),
	}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) start() error {
	p.board.Reset()
	p.boots++
	c := devlog.Config{
		Region: must(hw.NewRegion(p.board.Flash, 0, 6)), Device: id, Origin: wire.LogOrigin(id, p.shelf.attest), Epoch: p.boots, Now: now,
	}
	if p.counted {
		c.Counter = p.board.Log
	}
	l, err := devlog.Open(c)
	if err != nil {
		return err
	}
	p.log = l
	return p.add(1) // as the agent does: a start is an event
}

func (p *pair) add(n int) error {
	for range n {
		p.n++
		text := fmt.Sprint("event ", p.n)
		if err := p.log.Append(p.boots, now, "test", nil, text); err != nil {
			return err
		}
		p.said[text] = true
	}
	return nil
}

// talk is one batch and what the agent does with the answer; lost loses that.
func (p *pair) talk(t *rapid.T, lost bool) error {
	envelope, _, err := p.log.Batch(p.key, devlog.Says{Boots: p.boots, Now: now})
	if err != nil {
		return err
	}
	p.sent = append(p.sent, envelope)
	r := p.hand(t, envelope)
	if lost {
		return nil
	}
	taken := func(err error) error {
		if errors.Is(err, devlog.ErrContradicted) {
			return nil
		}
		return err
	}
	if !r.Fork {
		if err := taken(p.log.Ack(r.Acked, r.Need)); err != nil {
			return err
		}
	}
	if r.Anchor == nil {
		return nil
	}
	a := open(p.shelf.facts[[16]byte(r.Anchor.Entry)])
	back, err := p.log.Contradicts(a)
	if err != nil {
		return err
	}
	if back && a.Last == r.Acked {
		return p.log.Rejoin(a, p.boots, now)
	}
	return taken(p.log.Anchored(a))
}

func (p *pair) hand(t *rapid.T, envelope []byte) wire.LogReply {
	r, err := p.service.Ingest(context.Background(), access.DeviceCaller(id), id, envelope)
	if err != nil {
		t.Fatalf("the server: %v", err)
	}
	return r
}

func (p *pair) read(t *rapid.T) []byte {
	out := make([]byte, 6*4096)
	if _, err := p.board.Flash.ReadAt(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

// setBack writes an earlier state of the flash, as a thief with a programmer does, and starts the device.
func (p *pair) setBack(t *rapid.T) {
	p.steady()
	for n := range int64(6) {
		if err := p.board.Flash.Erase(n); err != nil {
			t.Fatal(err)
		}
	}
	for off := 0; off < len(p.flash); off += 256 {
		page := p.flash[off : off+256]
		if slices.Equal(page, slices.Repeat([]byte{0xff}, 256)) {
			continue
		}
		if err := p.board.Flash.Program(int64(off), page); err != nil {
			t.Fatal(err)
		}
	}
	for text := range maps.Clone(p.said) {
		var n int
		if _, err := fmt.Sscanf(text, "event %d", &n); err != nil || n > p.past {
			delete(p.said, text)
		}
	}
	p.ever++
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
}

// steady gives the board power that stays.
func (p *pair) steady() {
	p.board.Power.Restore()
	p.board.Power.CutAt(1<<40, virtual.Before, 0)
}

// settle talks until both agree.
func (p *pair) settle(t *rapid.T) {
	p.shelf.unseen = false
	for range 40 {
		if err := p.talk(t, false); err != nil {
			t.Fatal(err)
		}
		if seq, head := p.log.Head(); seq == p.log.AnchoredTo() && seq == p.shelf.head.Seq && head == p.shelf.head.Head {
			return
		}
	}
	seq, _ := p.log.Head()
	t.Fatalf("the device is at %d (acknowledged %d, anchored %d), the server at %d, alarms %v",
		seq, p.log.Acked(), p.log.AnchoredTo(), p.shelf.head.Seq, p.shelf.alarms)
}

func (p *pair) survives(t *rapid.T, err error) {
	if errors.Is(err, hw.ErrPowerCut) {
		err = p.start()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// check compares what the server has with what happened. Call it when both agree.
func (p *pair) check(t *rapid.T) {
	have, lost := map[string]bool{}, uint64(0)
	next, head := uint64(1), wire.LogOrigin(id, p.shelf.attest)
	for _, b := range p.shelf.batches {
		if b.First != next || [32]byte(b.Prev) != head {
			t.Fatalf("anchored batch from %d does not follow %d", b.First, next-1)
		}
		next, head = b.Last+1, [32]byte(b.Head)
		if b.Gap != nil {
			lost += b.Gap.Last - b.Gap.First + 1
		}
		for _, e := range b.Events {
			have[string(e.Data)] = true
		}
	}
	tally := p.shelf.head.Tally
	if tally.Lost != lost || tally.Unexplained != 0 {
		t.Fatalf("tally %+v, %d events are lost", tally, lost)
	}
	if p.ever == 0 && (len(p.shelf.alarms) > 0 || len(p.shelf.told) > 0) {
		t.Fatalf("an alarm about a device that did nothing: %v %v", p.shelf.alarms, p.shelf.told)
	}
	if p.ever == 0 && !p.burst {
		if lost > 0 {
			t.Fatalf("%d events are lost", lost)
		}
		for text := range p.said {
			if !have[text] {
				t.Fatalf("%s was promised, and is not there", text)
			}
		}
	}
}

// TestTheLogsOfADeviceAndItsServerAgree lets a device live: it writes, talks, loses answers and power, overflows, and is set back to
// earlier states of its flash, on boards with and without a counter. Nothing is ever taken twice or otherwise than before, nothing is
// lost silently, a flash that was set back is found out, and an honest device is never accused. Afterwards both go on together.
func TestTheLogsOfADeviceAndItsServerAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) { p.survives(t, p.add(rapid.IntRange(1, 4).Draw(t, "n"))) },
			"overflow": func(t *rapid.T) {
				p.burst = true
				p.survives(t, p.add(80))
			},
			"talk": func(t *rapid.T) {
				p.shelf.unseen = rapid.Bool().Draw(t, "not witnessed yet")
				p.survives(t, p.talk(t, rapid.Bool().Draw(t, "answer lost")))
			},
			"late": func(t *rapid.T) { // something comes again, long after
				if n := len(p.sent); n > 0 && p.ever == 0 {
					p.hand(t, p.sent[rapid.IntRange(0, n-1).Draw(t, "which")])
				}
			},
			"restart": func(t *rapid.T) { p.survives(t, p.start()) },
			"cut": func(t *rapid.T) {
				p.board.Power.CutAt(rapid.Uint64Range(1, 12).Draw(t, "operation"), rapid.SampledFrom(virtual.Modes()).Draw(t, "mode"), 7)
			},
			"copy the flash": func(t *rapid.T) {
				if len(p.sent) > 0 {
					p.flash, p.past = p.read(t), p.n
					p.pastSeq, _ = p.log.Head()
				}
			},
			"set back": func(t *rapid.T) {
				if p.flash == nil || p.past == p.n {
					t.Skip("nothing to set back")
				}
				before := len(p.shelf.alarms) + len(p.shelf.told)
				knew := p.shelf.head.Seq
				p.setBack(t)
				p.settle(t)
				if (p.counted || knew > p.pastSeq) && len(p.shelf.alarms)+len(p.shelf.told) == before {
					t.Fatalf("nobody noticed that the flash was set back: the server knew events to %d", knew)
				}
			},
			"": func(*rapid.T) {},
		})
		p.steady()
		p.settle(t)
		p.check(t)
	})
}
