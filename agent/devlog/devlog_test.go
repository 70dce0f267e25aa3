package devlog_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	device  = "00112233445566778899aabbccddeeff"
	sectors = 6
	sector  = 4096
	page    = 256
)

var (
	origin = wire.LogOrigin(device, []byte("spki"))
	now    = time.Unix(1_800_000_000, 0)
)

func board(t testing.TB) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: sectors * sector, Sector: sector, Page: page}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(b *virtual.Board) (*devlog.Log, error) {
	r, err := hw.NewRegion(b.Flash, 0, sectors)
	if err != nil {
		return nil, err
	}
	return devlog.Open(devlog.Config{Region: r, Device: device, Origin: origin, Counter: b.Log, Epoch: 1, Now: now})
}

func mustOpen(t testing.TB, b *virtual.Board) *devlog.Log {
	t.Helper()
	l, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t testing.TB, l *devlog.Log, text string) {
	t.Helper()
	if err := l.Append(1, now, "test", nil, text); err != nil {
		t.Fatal(err)
	}
}

func signer(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// server is what receives batches: it takes only what leads from a head it knows, and a stretch it has only unchanged.
type server struct {
	key   crypto.PublicKey
	seq   uint64
	head  [32]byte
	text  map[uint64]string
	heads map[uint64][32]byte // after each event
	gaps  []wire.LogGap
}

func newServer(k crypto.Signer) *server {
	return &server{key: k.Public(), head: origin, text: map[uint64]string{}, heads: map[uint64][32]byte{0: origin}}
}

func (s *server) take(t testing.TB, envelope []byte) wire.LogBatch {
	t.Helper()
	payload, err := wire.Verify1(wire.TypeDeviceLog, envelope, s.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.DecodeLogBatch(payload)
	if err != nil {
		t.Fatal(err)
	}
	if b.First > s.seq+1 || [32]byte(b.Prev) != s.heads[b.First-1] {
		t.Fatalf("batch from %d does not follow %d", b.First, s.seq)
	}
	head := [32]byte(b.Prev)
	for _, e := range b.Events { // what came before must come again as it was
		if b.Gap == nil {
			if head, err = wire.NextLogHead(head, device, e); err != nil {
				t.Fatal(err)
			}
			if had, ok := s.heads[e.Seq]; ok && had != head {
				t.Fatalf("event %d is another than before", e.Seq)
			}
			s.heads[e.Seq] = head
		}
	}
	if b.Gap != nil {
		s.gaps = append(s.gaps, *b.Gap)
	}
	for _, e := range b.Events {
		s.text[e.Seq] = string(e.Data)
	}
	s.seq, s.head = b.Last, [32]byte(b.Head)
	s.heads[s.seq] = s.head
	return b
}

func (s *server) drain(t testing.TB, l *devlog.Log, k crypto.Signer) {
	t.Helper()
	for {
		envelope, last, err := l.Batch(k, devlog.Says{Boots: 9, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		s.take(t, envelope)
		if err := l.Ack(last, 0); err != nil {
			t.Fatal(err)
		}
		if seq, _ := l.Head(); seq == last {
			return
		}
	}
}

func TestTheLogSurvivesARestart(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	for i := range 20 {
		add(t, l, fmt.Sprint(i))
		if i%7 == 0 {
			s.drain(t, l, k)
		}
		seq, head := l.Head()
		l = mustOpen(t, b)
		if seq2, head2 := l.Head(); seq2 != seq || head2 != head {
			t.Fatalf("after a restart the log ends at %d, it ended at %d", seq2, seq)
		}
	}
	s.drain(t, l, k)
	for i := range 20 {
		if s.text[uint64(i+1)] != fmt.Sprint(i) {
			t.Fatalf("event %d is %q", i+1, s.text[uint64(i+1)])
		}
	}
}

func TestOverflowIsNeverSilent(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	for i := range 200 {
		add(t, l, fmt.Sprint("event ", i))
	}
	s.drain(t, l, k)
	if len(s.gaps) != 1 || s.gaps[0].First != 1 {
		t.Fatalf("gaps %+v, want one from 1", s.gaps)
	}
	told, seq := 0, s.seq
	for n := s.gaps[0].Last + 1; n <= seq; n++ {
		if _, ok := s.text[n]; !ok {
			t.Fatalf("event %d is neither sent nor in a gap", n)
		}
	}
	if err := l.Events(1, func(e wire.LogEvent, _ [32]byte) bool {
		if e.Kind == wire.LogOverflow {
			told++
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if told == 0 {
		t.Fatal("the log does not tell of its overflow")
	}
}

func TestRoomIsFreedByAcknowledgementWithoutLoss(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	for i := range 300 {
		add(t, l, fmt.Sprint(i))
		if i%10 == 0 {
			s.drain(t, l, k)
		}
	}
	s.drain(t, l, k)
	if len(s.gaps) != 0 || len(s.text) != 300 {
		t.Fatalf("%d events came, gaps %v", len(s.text), s.gaps)
	}
}

func TestTheServerMayAskAgain(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	for i := range 12 {
		add(t, l, fmt.Sprint(i))
	}
	s.drain(t, l, k)
	lost := newServer(k) // has forgotten everything
	if err := l.Ack(0, 1); err != nil {
		t.Fatal(err)
	}
	lost.drain(t, l, k)
	if lost.seq != s.seq || lost.head != s.head || len(lost.text) != 12 {
		t.Fatalf("sent again to %d, want %d", lost.seq, s.seq)
	}
	if err := l.Ack(99, 0); err == nil {
		t.Fatal("acknowledged events that do not exist")
	}
}

func TestAnAnchorOfAnotherHistoryIsRefused(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	add(t, l, "x")
	add(t, l, "y")
	envelope, last, err := l.Batch(k, devlog.Says{Boots: 1, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	batch := s.take(t, envelope)
	if err := l.Anchored(batch); err == nil {
		t.Fatal("anchored before it was acknowledged")
	}
	if err := l.Ack(last, 0); err != nil {
		t.Fatal(err)
	}
	forged := batch
	forged.Head = make([]byte, 32)
	if err := l.Anchored(forged); err == nil || l.AnchoredTo() != 0 {
		t.Fatal("an anchor with another head was believed")
	}
	if err := l.Anchored(batch); err != nil || l.AnchoredTo() != last {
		t.Fatalf("anchored to %d: %v", l.AnchoredTo(), err)
	}
}

// TestACutTailIsReported takes events away behind the log's back, as a thief with a programmer would.
func TestACutTailIsReported(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	for i := range 5 {
		add(t, l, fmt.Sprint(i))
	}
	for n := int64(2); n < sectors; n++ { // the ring, not the head slots
		if err := b.Flash.Erase(n); err != nil {
			t.Fatal(err)
		}
	}
	l = mustOpen(t, b)
	s.drain(t, l, k)
	if len(s.gaps) != 1 || s.gaps[0].First != 1 || s.gaps[0].Last != 5 {
		t.Fatalf("gaps %+v, want 1 to 5", s.gaps)
	}
	if s.seq < 6 {
		t.Fatal("numbers began again")
	}
}

// TestPowerCutAtEveryWrite cuts in each write of a run that fills the ring more than once, in each mode. Afterwards the log
// opens, ends with the event that was promised or the one under way, and is accepted by a server that had its beginning.
func TestPowerCutAtEveryWrite(t *testing.T) {
	k := signer(t)
	work := func(l *devlog.Log, s *server, promised *uint64) error {
		for i := range 30 {
			if err := l.Append(1, now, "test", nil, fmt.Sprint(i)); err != nil {
				return err
			}
			*promised, _ = l.Head()
			if i%9 == 8 {
				envelope, last, err := l.Batch(k, devlog.Says{Boots: 9, Now: now})
				if err != nil {
					return err
				}
				s.take(t, envelope)
				if err := l.Ack(last, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	whole := board(t)
	l := mustOpen(t, whole)
	opened := whole.Power.Ops()
	var n uint64
	if err := work(l, newServer(k), &n); err != nil {
		t.Fatal(err)
	}
	for _, mode := range virtual.Modes() {
		for cut := uint64(1); cut <= whole.Power.Ops()-opened; cut++ {
			b, s := board(t), newServer(k)
			l := mustOpen(t, b)
			b.Power.CutAt(cut, mode, cut*31)
			var promised uint64
			err := work(l, s, &promised)
			if !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s at %d: the power was to fail: %v", mode, cut, err)
			}
			b.Power.Restore()
			l, err = open(b)
			if err != nil {
				t.Fatalf("%s at %d: the log does not open: %v", mode, cut, err)
			}
			seq, _ := l.Head()
			if seq < promised || seq > promised+1 {
				t.Fatalf("%s at %d: the log ends at %d, promised %d", mode, cut, seq, promised)
			}
			add(t, l, "after")
			s.drain(t, l, k)
			if len(s.gaps) != 0 || s.text[seq+1] != "after" {
				t.Fatalf("%s at %d: gaps %v", mode, cut, s.gaps)
			}
		}
	}
}

// says is what a batch of these tests tells.
var says = devlog.Says{Boots: 9, Now: now}

// TestPowerCutInEveryWriteOfALife cuts in each write of a run that appends, sends, is acknowledged, anchored and trimmed, overflows, and
// is set back to an earlier state of its flash, with a counter and without. Afterwards the log opens, goes on, and nothing is lost
// silently.
func TestPowerCutInEveryWriteOfALife(t *testing.T) {
	k := signer(t)
	life := func(b *virtual.Board, l *devlog.Log, s *server) error {
		for round := range 3 {
			for i := range 8 {
				if err := l.Append(1, now, "test", nil, fmt.Sprint(round, i)); err != nil {
					return err
				}
			}
			envelope, last, err := l.Batch(k, says)
			if err != nil {
				return err
			}
			batch := s.take(t, envelope)
			if err := l.Ack(last, 0); err != nil {
				return err
			}
			if err := l.Anchored(batch); err != nil {
				return err
			}
		}
		for i := range 70 { // more than the ring holds
			if err := l.Append(1, now, "test", nil, fmt.Sprint("more", i)); err != nil {
				return err
			}
		}
		ahead := wire.LogBatch{Device: device, Last: 500, Head: make([]byte, 32)}
		if err := l.Rejoin(ahead, 1, now); err != nil {
			return err
		}
		return l.Append(1, now, "test", nil, "behind the gap")
	}
	whole := board(t)
	l := mustOpen(t, whole)
	opened := whole.Power.Ops()
	if err := life(whole, l, newServer(k)); err != nil {
		t.Fatal(err)
	}
	for cut := uint64(1); cut <= whole.Power.Ops()-opened; cut++ {
		mode := virtual.Modes()[cut%4]
		b, s := board(t), newServer(k)
		l := mustOpen(t, b)
		b.Power.CutAt(cut, mode, cut*31)
		if err := life(b, l, s); !errors.Is(err, hw.ErrPowerCut) {
			t.Fatalf("%s at %d: the power was to fail: %v", mode, cut, err)
		}
		b.Power.Restore()
		l, err := open(b)
		if err != nil {
			t.Fatalf("%s at %d: the log does not open: %v", mode, cut, err)
		}
		add(t, l, "after")
		seq, head := l.Head()
		if n, err := b.Log.Value(); err != nil || n != seq {
			t.Fatalf("%s at %d: the counter is at %d, the log at %d: %v", mode, cut, n, seq, err)
		}
		lost, told := uint64(0), false
		if l.Acked() < 500 { // until it was set back, what it sends follows what it sent
			s.drain(t, l, k)
			if s.seq != seq || s.head != head {
				t.Fatalf("%s at %d: the server is at %d, the device at %d", mode, cut, s.seq, seq)
			}
			for _, g := range s.gaps {
				lost += g.Last - g.First + 1
			}
		} else {
			lost = 1
		}
		if err := l.Events(1, func(e wire.LogEvent, _ [32]byte) bool {
			told = told || e.Kind == wire.LogOverflow || e.Kind == wire.LogRollback || e.Kind == wire.LogDamaged
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if lost > 0 && !told {
			t.Fatalf("%s at %d: %d events are lost, and the log does not say so", mode, cut, lost)
		}
	}
}

// TestPowerCutWhileTheLogFindsItselfSetBack restores an earlier flash, and cuts in each write of the start that follows.
func TestPowerCutWhileTheLogFindsItselfSetBack(t *testing.T) {
	k := signer(t)
	for cut := uint64(0); ; cut++ {
		b, s := board(t), newServer(k)
		l := mustOpen(t, b)
		for i := range 5 {
			add(t, l, fmt.Sprint(i))
		}
		s.drain(t, l, k)
		old := image(t, b)
		add(t, l, "forgotten")
		s.drain(t, l, k)
		known := s.seq
		restore(t, b, old)
		if cut > 0 {
			b.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
		}
		l, err := open(b)
		if cut > 0 && err == nil {
			if cut < 4 {
				t.Fatalf("only %d writes", cut-1)
			}
			return
		}
		if cut > 0 {
			b.Power.Restore()
			l, err = open(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		if err := l.Events(1, func(e wire.LogEvent, _ [32]byte) bool {
			if e.Kind == wire.LogRollback {
				told++
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if seq, _ := l.Head(); told != 1 || seq <= known {
			t.Fatalf("cut %d: told %d times, the log goes on with %d, it was at %d", cut, told, seq+1, known)
		}
		anchor := wire.LogBatch{Device: device, Last: known, Head: s.head[:]}
		if err := l.Rejoin(anchor, 2, now); err != nil {
			t.Fatal(err)
		}
		s.drain(t, l, k)
		if len(s.gaps) != 1 || s.gaps[0].First != known+1 {
			t.Fatalf("cut %d: gaps %+v", cut, s.gaps)
		}
	}
}

func TestAnAnchorOfThisHistoryChangesNothing(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	add(t, l, "x")
	envelope, last, err := l.Batch(k, says)
	if err != nil {
		t.Fatal(err)
	}
	own := s.take(t, envelope)
	if err := l.Ack(last, 0); err != nil {
		t.Fatal(err)
	}
	ops := b.Power.Ops()
	other := own
	other.Device = "ffeeddccbbaa99887766554433221100"
	other.Last = 99
	for _, a := range []wire.LogBatch{own, other} {
		if back, err := l.Contradicts(a); back || err != nil {
			t.Errorf("an anchor of %s to %d contradicts: %v", a.Device, a.Last, err)
		}
		if err := l.Rejoin(a, 2, now); err != nil {
			t.Fatal(err)
		}
	}
	if b.Power.Ops() != ops {
		t.Error("the flash was written")
	}
}

func TestABatchTellsTheCounterItIsBoundTo(t *testing.T) {
	b, k := board(t), signer(t)
	s := newServer(k)
	l := mustOpen(t, b)
	add(t, l, "x")
	add(t, l, "y")
	envelope, _, err := l.Batch(k, says)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.take(t, envelope); got.Counter != 2 {
		t.Errorf("counter %d, want 2", got.Counter)
	}
}

// image is all that a thief with a programmer can read of the flash, and restore what he writes.
func image(t *testing.T, b *virtual.Board) []byte {
	t.Helper()
	out := make([]byte, sectors*sector)
	if _, err := b.Flash.ReadAt(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

func restore(t *testing.T, b *virtual.Board, image []byte) {
	t.Helper()
	for n := range int64(sectors) {
		if err := b.Flash.Erase(n); err != nil {
			t.Fatal(err)
		}
	}
	for off := 0; off < len(image); off += page {
		if p := image[off : off+page]; !bytes.Equal(p, bytes.Repeat([]byte{0xff}, page)) {
			if err := b.Flash.Program(int64(off), p); err != nil {
				t.Fatal(err)
			}
		}
	}
}
