package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
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
