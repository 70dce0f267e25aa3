package seal_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	device = "00112233445566778899aabbccddeeff"
	stream = "readings"
	kem    = 0x0050 // MLKEM768-P256
)

var now = time.Unix(1_800_000_000, 0)

func bucket(t testing.TB, name string) (wire.StreamKey, hpke.PrivateKey) {
	t.Helper()
	k, err := hpke.NewKEM(kem)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := k.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return wire.StreamKey{Bucket: name, KEM: kem, Key: priv.PublicKey().Bytes()}, priv
}

func signer(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// store is who keeps uploads: it believes only what the device signed, and that the records lead to the signed head.
type store struct {
	key     crypto.PublicKey
	epochs  map[uint64]wire.Epoch
	heads   map[uint64][32]byte
	last    map[uint64]uint64
	records []wire.Sealed
	closed  bool
}

func newStore(key crypto.PublicKey) *store {
	return &store{key: key, epochs: map[uint64]wire.Epoch{}, heads: map[uint64][32]byte{}, last: map[uint64]uint64{}}
}

func (s *store) take(u wire.Upload) error {
	b, err := wire.EncodeUpload(u)
	if err != nil {
		return err
	}
	if u, err = wire.DecodeUpload(b); err != nil { // bounded, as the server reads it
		return err
	}
	for _, env := range u.Epochs {
		payload, err := wire.Verify1(wire.TypeEpoch, env, s.key)
		if err != nil {
			return err
		}
		e, err := wire.DecodeEpoch(payload)
		if err != nil {
			return err
		}
		if _, again := s.epochs[e.Epoch]; !again {
			s.heads[e.Epoch] = sha256.Sum256(payload)
		}
		s.epochs[e.Epoch] = e
	}
	for _, r := range u.Records {
		if r.Seq <= s.last[r.Epoch] {
			continue // again
		}
		if r.Seq != s.last[r.Epoch]+1 {
			return fmt.Errorf("record %d after %d", r.Seq, s.last[r.Epoch])
		}
		s.last[r.Epoch], s.heads[r.Epoch] = r.Seq, wire.NextHead(s.heads[r.Epoch], r)
		s.records = append(s.records, r)
	}
	for _, env := range u.Series {
		payload, err := wire.Verify1(wire.TypeSeries, env, s.key)
		if err != nil {
			return err
		}
		h, err := wire.DecodeSeries(payload)
		if err != nil {
			return err
		}
		if head := s.heads[h.Epoch]; h.Last != s.last[h.Epoch] || !bytes.Equal(h.Head, head[:]) {
			return fmt.Errorf("the signed head is of %d records, %d came", h.Last, s.last[h.Epoch])
		}
		s.closed = h.Closed
	}
	return nil
}

func TestWhatIsSealedOpensOnlyWithItsKeyInItsPlace(t *testing.T) {
	mine, priv := bucket(t, "30d")
	_, other := bucket(t, "30d")
	k := signer(t)
	st := newStore(k.Public())
	s, err := seal.Open(device, stream, 7, 0, mine, k, now)
	if err != nil {
		t.Fatal(err)
	}
	samples := []string{"load 0.5", "", string(make([]byte, wire.MaxSample))}
	for _, sample := range samples {
		if err := s.Add([]byte(sample)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(make([]byte, wire.MaxSample+1)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a sample too large: %v", err)
	}
	u, err := s.Upload(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.take(u); err != nil || !st.closed {
		t.Fatalf("closed %v, %v", st.closed, err)
	}
	e := st.epochs[7]
	dataKey, err := wire.OpenEpochKey(priv, e, nil, e.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range st.records {
		if got, err := wire.OpenRecord(dataKey, device, r); err != nil || string(got) != samples[i] {
			t.Errorf("record %d: %d bytes, %v", r.Seq, len(got), err)
		}
		if bytes.Contains(r.Data, []byte("load")) {
			t.Error("the sample is there in clear")
		}
	}
	elsewhere := map[string]func(e *wire.Epoch){
		"device": func(e *wire.Epoch) { e.Device = "d2" }, "stream": func(e *wire.Epoch) { e.Stream = "s2" },
		"epoch": func(e *wire.Epoch) { e.Epoch++ }, "bucket": func(e *wire.Epoch) { e.Bucket = "10y" },
	}
	for name, change := range elsewhere {
		moved := e
		change(&moved)
		if _, err := wire.OpenEpochKey(priv, moved, nil, e.Sealed); err == nil {
			t.Errorf("the key opens for another %s", name)
		}
	}
	if _, err := wire.OpenEpochKey(other, e, nil, e.Sealed); err == nil {
		t.Error("another bucket's key opens it")
	}
	if _, err := wire.OpenEpochKey(priv, e, []byte("decision"), e.Sealed); err == nil {
		t.Error("it opens as if it were resealed to a reader")
	}
	for name, change := range map[string]func(r *wire.Sealed){
		"stream": func(r *wire.Sealed) { r.Stream = "s2" }, "epoch": func(r *wire.Sealed) { r.Epoch++ },
		"number": func(r *wire.Sealed) { r.Seq++ }, "bytes": func(r *wire.Sealed) { r.Data = append(bytes.Clone(r.Data[:20]), r.Data[20]^1) },
	} {
		r := st.records[0]
		change(&r)
		if _, err := wire.OpenRecord(dataKey, device, r); err == nil {
			t.Errorf("a record with another %s opens", name)
		}
	}
	if _, err := wire.OpenRecord(dataKey, "d2", st.records[0]); err == nil {
		t.Error("a record opens as another device's")
	}
	if err := newStore(signer(t).Public()).take(u); err == nil {
		t.Error("another device's signature is believed")
	}
}

// Samples of any size, answers lost, restarts and power cuts at any write: every sample that was taken since the last start
// comes once, in order and within the bounds of an upload, and no number is ever used twice.
func TestNumbersAreNeverUsedTwice(t *testing.T) {
	mine, priv := bucket(t, "30d")
	k := signer(t)
	rapid.Check(t, func(r *rapid.T) {
		b, err := virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: 512, Sector: 256, Page: 64}})
		if err != nil {
			r.Fatal(err)
		}
		st := newStore(k.Public())
		keys, used := map[string]bool{}, map[[2]uint64]bool{}
		for range rapid.IntRange(1, 4).Draw(r, "starts") {
			boots, err := b.Boots.Value()
			if err != nil {
				r.Fatal(err)
			}
			if rapid.Bool().Draw(r, "cut") {
				b.Power.CutAt(1, rapid.SampledFrom(virtual.Modes()).Draw(r, "mode"), 1)
			}
			if err := b.Boots.Raise(boots + 1); err != nil { // this start ends before anything is sealed
				b.Reset()
				continue
			}
			s, err := seal.Open(device, stream, boots+1, 0, mine, k, now)
			if err != nil {
				r.Fatal(err)
			}
			for range rapid.IntRange(0, 6).Draw(r, "rounds") {
				size, n := rapid.IntRange(0, wire.MaxSample).Draw(r, "bytes"), rapid.IntRange(0, 80).Draw(r, "samples")
				for range n {
					before := s.Pending()
					switch err := s.Add(make([]byte, size)); {
					case errors.Is(err, seal.ErrFull) && s.Pending() == before:
					case err != nil:
						r.Fatal(err)
					}
				}
				u, err := s.Upload(false)
				if err != nil {
					r.Fatal(err)
				}
				for _, rec := range u.Records {
					used[[2]uint64{rec.Epoch, rec.Seq}] = true
				}
				if s.Pending() > 0 && len(u.Records) == 0 {
					r.Fatal("samples wait, and none is uploaded")
				}
				if err := st.take(u); err != nil {
					r.Fatal(err)
				}
				if rapid.Bool().Draw(r, "answered") {
					left := s.Pending() - len(u.Records)
					if s.Acked(u); s.Pending() != left {
						r.Fatalf("%d wait, want %d", s.Pending(), left)
					}
				}
			}
		}
		for _, e := range st.epochs {
			key, err := wire.OpenEpochKey(priv, e, nil, e.Sealed)
			if err != nil || keys[string(key)] {
				r.Fatalf("epoch %d: its key came before, or does not open: %v", e.Epoch, err)
			}
			keys[string(key)] = true
		}
		if len(used) != len(st.records) {
			r.Fatalf("%d numbers for %d records", len(used), len(st.records))
		}
	})
}

func TestAFullStreamDropsNothing(t *testing.T) {
	mine, _ := bucket(t, "30d")
	k := signer(t)
	s, err := seal.Open(device, stream, 1, 0, mine, k, now)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		err = s.Add(make([]byte, 4<<10))
	}
	if !errors.Is(err, seal.ErrFull) || s.Pending() != n-1 {
		t.Fatalf("%d of %d wait: %v", s.Pending(), n, err)
	}
	st := newStore(k.Public())
	for s.Pending() > 0 {
		u, err := s.Upload(true)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.take(u); err != nil {
			t.Fatal(err)
		}
		if st.closed != (len(u.Records) == s.Pending()) {
			t.Fatalf("closed %v with %d of %d records", st.closed, len(u.Records), s.Pending())
		}
		s.Acked(u)
	}
	if len(st.records) != n-1 || !st.closed {
		t.Errorf("%d of %d came, closed %v", len(st.records), n-1, st.closed)
	}
	if err := s.Add([]byte("more")); err != nil {
		t.Error(err)
	}
}

func TestAStreamThatCannotBeSealedIsRefused(t *testing.T) {
	mine, _ := bucket(t, "30d")
	for name, open := range map[string]func() error{
		"no epoch number": func() error { _, err := seal.Open(device, stream, 0, 0, mine, signer(t), now); return err },
		"stream name":     func() error { _, err := seal.Open(device, "A B", 1, 0, mine, signer(t), now); return err },
		"KEM": func() error {
			bad := mine
			bad.KEM = 1
			_, err := seal.Open(device, stream, 1, 0, bad, signer(t), now)
			return err
		},
		"key": func() error {
			bad := mine
			bad.Key = bad.Key[1:]
			_, err := seal.Open(device, stream, 1, 0, bad, signer(t), now)
			return err
		},
	} {
		if open() == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// What the server will not have is sealed anew under another number, and nothing of it is lost.
func TestARefusedEpochIsSealedAnew(t *testing.T) {
	mine, priv := bucket(t, "30d")
	k := signer(t)
	st := newStore(k.Public())
	s, err := seal.Open(device, stream, wire.EpochOf(7, 0), 0, mine, k, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range []string{"a", "b", "c"} {
		if err := s.Add([]byte(sample)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Upload(false)
	if err != nil {
		t.Fatal(err)
	}
	next, err := s.Anew(wire.EpochOf(7, 1), mine, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Add([]byte("d")); err != nil {
		t.Fatal(err)
	}
	u, err := next.Upload(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.take(u); err != nil || !st.closed {
		t.Fatalf("closed %v, %v", st.closed, err)
	}
	e := st.epochs[wire.EpochOf(7, 1)]
	dataKey, err := wire.OpenEpochKey(priv, e, nil, e.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range st.records {
		sample, err := wire.OpenRecord(dataKey, device, r)
		if err != nil {
			t.Fatal(err)
		}
		got += string(sample)
	}
	if got != "abcd" {
		t.Errorf("%q", got)
	}
	if _, err := wire.OpenRecord(dataKey, device, first.Records[0]); err == nil {
		t.Error("both epochs have one key")
	}
}
