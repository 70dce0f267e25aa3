package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"math"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func treeHead(origin string, size uint64) wire.TreeHead {
	return wire.TreeHead{Origin: origin, Size: size, Root: make([]byte, 32), Signature: make([]byte, 64)}
}

// logBatch builds a batch of three events after a gap.
func logBatch(t testing.TB) wire.LogBatch {
	t.Helper()
	prev := wire.LogOrigin("dev", []byte("spki"))
	after := [32]byte{7}
	b := wire.LogBatch{
		Device: "dev", First: 1, Prev: prev[:], BootCount: 9, Sent: 1000, Counter: 8,
		Trees: []wire.TreeHead{treeHead("log/control", 4), treeHead("log/events", 9)},
		Gap:   &wire.LogGap{First: 1, Last: 5, Prev: prev[:], Head: after[:]},
	}
	head := after
	for i := range uint64(3) {
		e := wire.LogEvent{Seq: 6 + i, Epoch: 7 + i, At: 10, Kind: "boot", Cause: &wire.LogRef{Origin: "log/control", Index: i}, Data: []byte("x")}
		b.Events = append(b.Events, e)
		var err error
		if head, err = wire.NextLogHead(head, "dev", e); err != nil {
			t.Fatal(err)
		}
	}
	b.Last, b.Head = 8, head[:]
	return b
}

func TestLogBatchChain(t *testing.T) {
	good := logBatch(t)
	raw, err := wire.EncodeLogBatch(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.DecodeLogBatch(raw); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*wire.LogBatch){
		"event changed":     func(b *wire.LogBatch) { b.Events[1].Data = []byte("y") },
		"event left out":    func(b *wire.LogBatch) { b.Events = append(b.Events[:1:1], b.Events[2]) },
		"tail cut":          func(b *wire.LogBatch) { b.Events = b.Events[:2] },
		"gap hidden":        func(b *wire.LogBatch) { b.Gap = nil },
		"gap moved":         func(b *wire.LogBatch) { b.Gap = &wire.LogGap{First: 2, Last: 5, Prev: b.Gap.Prev, Head: b.Gap.Head} },
		"other head":        func(b *wire.LogBatch) { b.Head = bytes.Repeat([]byte{1}, 32) },
		"other device":      func(b *wire.LogBatch) { b.Device = "other" },
		"epoch falls":       func(b *wire.LogBatch) { b.Events[2].Epoch = 1 },
		"epoch from future": func(b *wire.LogBatch) { b.BootCount = 8 },
		"counter behind":    func(b *wire.LogBatch) { b.Counter = 7 },
		"two trees of one":  func(b *wire.LogBatch) { b.Trees[1].Origin = b.Trees[0].Origin },
		"a start of 2^63":   func(b *wire.LogBatch) { b.BootCount = 1 << 63 },
		"a gap that wraps": func(b *wire.LogBatch) {
			b.Events, b.Counter, b.Gap.Last, b.Last, b.Head = nil, 0, math.MaxUint64, math.MaxUint64, b.Gap.Head
		},
		"tree of nothing": func(b *wire.LogBatch) { b.Trees[0].Size = 0 },
		"many trees": func(b *wire.LogBatch) {
			for i := range wire.MaxLogTrees {
				b.Trees = append(b.Trees, treeHead(string(rune('a'+i)), 1))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := logBatch(t)
			spoil(&b)
			raw, err := wire.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := wire.DecodeLogBatch(raw); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestTheHeadWithinABatch(t *testing.T) {
	b := logBatch(t)
	for seq := range uint64(12) {
		head, ok := b.HeadAt(seq)
		if want := seq == 0 || seq >= 5 && seq <= 8; ok != want {
			t.Errorf("head after event %d: known is %v, want %v", seq, ok, want)
		}
		switch seq {
		case 0:
			ok = bytes.Equal(head[:], b.Prev)
		case 5:
			ok = bytes.Equal(head[:], b.Gap.Head)
		case 6:
			want, err := wire.NextLogHead([32]byte(b.Gap.Head), "dev", b.Events[0])
			ok = err == nil && head == want
		case 8:
			ok = bytes.Equal(head[:], b.Head)
		default:
			ok = true
		}
		if !ok {
			t.Errorf("head after event %d is %x", seq, head)
		}
	}
}

// A signed batch is refused whichever of its bits is changed: the envelope by its signature, or for its form.
func TestEveryFlippedBitOfABatchIsRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := wire.EncodeLogBatch(logBatch(t))
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeDeviceLog, raw, key)
	if err != nil {
		t.Fatal(err)
	}
	take := func(env []byte) error {
		payload, err := wire.Verify1(wire.TypeDeviceLog, env, key.Public())
		if err == nil {
			_, err = wire.DecodeLogBatch(payload)
		}
		return err
	}
	if err := take(env); err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(env) {
		bad := bytes.Clone(env)
		bad[i/8] ^= 1 << (i % 8)
		if take(bad) == nil {
			t.Fatalf("bit %d changed, and taken", i)
		}
	}
	for n := range env {
		if take(env[:n]) == nil {
			t.Fatalf("cut to %d bytes, and taken", n)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	h := bytes.Repeat([]byte{3}, 32)
	b := wire.LogBatch{Device: "dev", First: 9, Last: 8, Prev: h, Head: h}
	if _, err := wire.EncodeLogBatch(b); err != nil {
		t.Fatal(err)
	}
	b.Last = 9
	if _, err := wire.EncodeLogBatch(b); err == nil {
		t.Fatal("heartbeat that claims an event it does not hold")
	}
}

func FuzzDecodeLogBatch(f *testing.F) {
	raw, err := wire.EncodeLogBatch(logBatch(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := wire.DecodeLogBatch(data)
		if err != nil {
			return
		}
		if again, err := wire.EncodeLogBatch(b); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("does not encode to itself: %v", err)
		}
	})
}

func FuzzDecodeLogEvent(f *testing.F) {
	raw, err := wire.EncodeLogEvent(logBatch(f).Events[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := wire.DecodeLogEvent(data); err == nil && e.Seq == 0 {
			t.Fatal("event without a number")
		}
	})
}

func FuzzDecodeLogReply(f *testing.F) {
	raw, err := wire.EncodeLogReply(wire.LogReply{Acked: 3, Anchor: &wire.Logged{Entry: []byte("e")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := wire.DecodeLogReply(data); err == nil {
			if again, err := wire.EncodeLogReply(r); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("does not encode to itself: %v", err)
			}
		}
	})
}

func receipt() wire.Receipt {
	h := bytes.Repeat([]byte{3}, 32)
	return wire.Receipt{
		Device: "dev", Command: h, Warrant: "w1", Erased: []string{"slot a"}, Keys: []string{"attest"}, LogHead: h, At: 5,
	}
}

func TestReceiptIsItsOwnType(t *testing.T) {
	raw, err := wire.EncodeReceipt(receipt())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeReceipt, raw, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Verify1(wire.TypeEvidence, env, key.Public()); err == nil {
		t.Fatal("a receipt passed for evidence")
	}
	none := receipt()
	none.Erased = nil
	if _, err := wire.EncodeReceipt(none); err == nil {
		t.Fatal("receipt of nothing erased")
	}
}

func FuzzDecodeReceipt(f *testing.F) {
	raw, err := wire.EncodeReceipt(receipt())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := wire.DecodeReceipt(data); err == nil && r.Warrant == "" {
			t.Fatal("receipt without a warrant")
		}
	})
}

func FuzzDecodeConfig(f *testing.F) {
	raw, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "a.b", Value: "1"}, {Name: "c", Value: ""}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := wire.DecodeConfig(data)
		if err == nil && (len(c) == 0 || len(c) > wire.MaxConfigEntries) {
			t.Fatal("configuration out of bounds")
		}
	})
}
