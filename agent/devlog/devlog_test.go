package devlog_test

import (
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
