package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/wire"
)

// chain is a device that keeps a log.
type chain struct {
	id   string
	key  *ecdsa.PrivateKey
	seq  uint64
	head [32]byte

	origin [32]byte
	texts  []string
}

func newChain(t *testing.T, db *store.DB) *chain {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{id: strings.Repeat("ab", 16), key: k}
	c.head = wire.LogOrigin(c.id, spki)
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, attest_key,
			key_origin, is_virtual, since, doc) VALUES ($1, 'pump', 'A', 'active', 'genuine', 'o', 's', 1, $2, 'soft', 1, 1, '{}')`, c.id, spki)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *chain) batch(t *testing.T, texts ...string) []byte {
	t.Helper()
	b := wire.LogBatch{Device: c.id, First: c.seq + 1, Prev: c.head[:], BootCount: 1}
	head := c.head
	for i, text := range texts {
		e := wire.LogEvent{Seq: c.seq + 1 + uint64(i), Epoch: 1, Kind: "test", Data: []byte(text)}
		var err error
		if head, err = wire.NextLogHead(head, c.id, e); err != nil {
			t.Fatal(err)
		}
		b.Events = append(b.Events, e)
	}
	b.Last, b.Head = c.seq+uint64(len(texts)), head[:]
	payload, err := wire.EncodeLogBatch(b)
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeDeviceLog, payload, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func (c *chain) forward(n int, head [32]byte) { c.seq, c.head = c.seq+uint64(n), head }

func TestADevicesLogIsTakenOnceAndAForkIsAnAlarm(t *testing.T) {
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	s := devicelog.NewService(db, ledger.NewReader(db), guard)
	c := newChain(t, db)
	ingest := func(env []byte) wire.LogReply {
		t.Helper()
		r, err := s.Ingest(t.Context(), access.DeviceCaller(c.id), c.id, env)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := c.batch(t, "a", "b")
	if r := ingest(first); r.Acked != 2 || r.Fork || r.Need != 0 {
		t.Fatalf("first: %+v", r)
	}
	if r := ingest(first); r.Acked != 2 || r.Fork {
		t.Fatalf("the same again: %+v", r)
	}
	if n := count(t, db); n != 1 {
		t.Fatalf("%d facts, want 1", n)
	}
	if r := ingest(c.batch(t, "a", "other")); !r.Fork {
		t.Fatalf("another history of the same length: %+v", r)
	}
	skipped := *c
	skipped.seq = 7
	if r := ingest(skipped.batch(t, "z")); r.Need != 3 || r.Acked != 2 {
		t.Fatalf("a gap: %+v", r)
	}
	fork := *c
	fork.seq = 2
	if r := ingest(fork.batch(t, "z")); !r.Fork {
		t.Fatalf("follows another head: %+v", r)
	}
	if n := count(t, db); n != 2 {
		t.Fatalf("%d facts, want the anchor and one alarm", n)
	}
	h, _, err := db.LogHead(t.Context(), c.id)
	if err != nil {
		t.Fatal(err)
	}
	c.forward(2, h.Head)
	if r := ingest(c.batch(t, "c")); r.Acked != 3 {
		t.Fatalf("goes on: %+v", r)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.key = other
	c.seq++
	if _, err := s.Ingest(t.Context(), access.DeviceCaller(c.id), c.id, c.batch(t, "d")); err == nil {
		t.Fatal("signed by another key, and taken")
	}
}

// TestWhatADeviceSaysOfItsLog has a device say one thing after an honest beginning: three events at its second start, its counter at 3.
// What a device says is in the ledger for good. One that says ever more is not listened to for ever, and is told nothing is wrong: an
// honest one that has much to say is done later.
func TestADeviceDoesNotFillTheLedger(t *testing.T) {
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	s := devicelog.NewService(db, ledger.NewReader(db), guard)
	c := newChain(t, db)
	texts := slices.Repeat([]string{strings.Repeat("x", 1000)}, 40)
	taken := 0
	for range 100 {
		env := c.batch(t, texts...)
		r, err := s.Ingest(t.Context(), access.DeviceCaller(c.id), c.id, env)
		if err != nil || r.Fork || r.Need != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		if r.Acked == c.seq {
			break
		}
		b, err := wire.Parse1(wire.TypeDeviceLog, env)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := wire.DecodeLogBatch(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		c.forward(len(texts), [32]byte(batch.Head))
		taken += len(env)
	}
	if taken < 1<<20 || taken > 3<<20 {
		t.Errorf("%d bytes were taken", taken)
	}
}

func TestWhatADeviceSaysOfItsLog(t *testing.T) {
	const needs, same, alarm, taken = "asked for more", "acknowledged again", "an alarm", "taken"
	for _, c := range []struct {
		name string
		say  func(c *chain, b *wire.LogBatch) // b begins at the head
		want string
	}{
		{"the next event", func(c *chain, b *wire.LogBatch) { c.add(b, "d") }, taken},
		{"a heartbeat", func(*chain, *wire.LogBatch) {}, same},
		{"from behind a gap", func(c *chain, b *wire.LogBatch) { b.First += 2; c.add(b, "f") }, needs},
		{"all again and more", func(c *chain, b *wire.LogBatch) { c.again(b); c.add(b, "d") }, needs},
		{"all again", func(c *chain, b *wire.LogBatch) { c.again(b) }, same},
		{"all again, otherwise", func(c *chain, b *wire.LogBatch) { c.texts[0] = "x"; c.again(b) }, alarm},
		{"another past and more", func(c *chain, b *wire.LogBatch) { c.texts[1] = "x"; c.again(b); c.add(b, "d") }, alarm},
		{"a heartbeat after another past", func(_ *chain, b *wire.LogBatch) { b.Prev = make([]byte, 32) }, alarm},
		{"what is long known", func(c *chain, b *wire.LogBatch) { c.texts = c.texts[:2]; c.again(b) }, same},
		{"what is long known, otherwise", func(c *chain, b *wire.LogBatch) { c.texts = []string{"a", "x"}; c.again(b) }, alarm},
		{"less, after another start", func(c *chain, b *wire.LogBatch) { c.texts = c.texts[:2]; c.again(b); b.BootCount++ }, alarm},
		{"an earlier start", func(c *chain, b *wire.LogBatch) { b.BootCount--; c.add(b, "d"); b.Events[0].Epoch-- }, alarm},
		{"counter gone back", func(c *chain, b *wire.LogBatch) { b.Counter = 3; c.add(b, "d"); b.Counter = 0 }, alarm},
		{"a gap that it tells of", func(c *chain, b *wire.LogBatch) { c.lose(b, 4); c.add(b, "told") }, taken},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := storetest.Open(t)
			guard, err := access.NewGuard(db)
			if err != nil {
				t.Fatal(err)
			}
			s := devicelog.NewService(db, ledger.NewReader(db), guard)
			dev := newChain(t, db)
			dev.origin = dev.head
			ingest := func(b wire.LogBatch) wire.LogReply {
				t.Helper()
				r, err := s.Ingest(t.Context(), access.DeviceCaller(dev.id), dev.id, dev.sign(t, dev.close(t, b)))
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			first := wire.LogBatch{Device: dev.id, BootCount: 2, Counter: 3}
			dev.texts = []string{"a", "b", "c"}
			dev.again(&first)
			if r := ingest(first); r.Acked != 3 || r.Need > 0 || r.Fork {
				t.Fatalf("the beginning: %+v", r)
			}
			head := dev.close(t, first).Head
			b := wire.LogBatch{Device: dev.id, BootCount: 2, First: 4, Prev: head, Counter: 9}
			c.say(dev, &b)
			r, got := ingest(b), same
			switch {
			case r.Fork:
				got = alarm
			case r.Need > 0:
				got = needs
			case r.Acked > 3:
				got = taken
			}
			if got != c.want {
				t.Fatalf("%s: %+v, want %s", got, r, c.want)
			}
			d, err := db.FleetDevice(t.Context(), dev.id)
			if err != nil {
				t.Fatal(err)
			}
			want := fleet.DeviceLog{Events: 3}
			switch {
			case got == alarm:
				want.Contradictions = 1
			case b.Gap != nil:
				want.Gaps, want.Lost, want.Events = 1, 4, 8
			case got == taken:
				want.Events = 4
			}
			l := d.Log
			if l.Heard == nil || l.Events != want.Events || l.Gaps != want.Gaps || l.Lost != want.Lost || l.Unexplained != 0 || l.Contradictions != want.Contradictions {
				t.Errorf("its log is %+v, want %+v", l, want)
			}
			if whole := strings.HasPrefix(l.Standing(), "whole up to"); whole != (got != alarm) {
				t.Errorf("it says %q", l.Standing())
			}
		})
	}
}

// again says all events from the first on.
func (c *chain) again(b *wire.LogBatch) {
	b.First, b.Prev, b.Events = 1, c.origin[:], nil
	for _, text := range c.texts {
		c.add(b, text)
	}
}

func (c *chain) add(b *wire.LogBatch, text string) {
	e := wire.LogEvent{Seq: b.First + uint64(len(b.Events)), Epoch: b.BootCount, Kind: "test", Data: []byte(text)}
	if g := b.Gap; g != nil {
		e.Seq, e.Kind = g.Last+1+uint64(len(b.Events)), wire.LogOverflow
	}
	b.Events = append(b.Events, e)
}

func (c *chain) lose(b *wire.LogBatch, n uint64) {
	b.Gap = &wire.LogGap{First: b.First, Last: b.First + n - 1, Prev: b.Prev, Head: make([]byte, 32)}
}

// close gives b its end.
func (c *chain) close(t *testing.T, b wire.LogBatch) wire.LogBatch {
	t.Helper()
	head := [32]byte(b.Prev)
	b.Last = b.First - 1
	if b.Gap != nil {
		head, b.Last = [32]byte(b.Gap.Head), b.Gap.Last
	}
	for _, e := range b.Events {
		var err error
		if head, err = wire.NextLogHead(head, c.id, e); err != nil {
			t.Fatal(err)
		}
		b.Last = e.Seq
	}
	b.Head = head[:]
	return b
}

func (c *chain) sign(t *testing.T, b wire.LogBatch) []byte {
	t.Helper()
	payload, err := wire.EncodeLogBatch(b)
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeDeviceLog, payload, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return env
}
