package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func edKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func pub(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// hashes keeps a tree as x/mod's tlog stores it: a second, independent maker of proofs.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

func grow(t *testing.T, n int) (h hashes) {
	t.Helper()
	for i := range int64(n) {
		more, err := tlog.StoredHashes(i, fmt.Appendf(nil, "entry %d", i), h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
	}
	return h
}

// prove makes the proof of entry i in a tree of size, signed by the log's key and cosigned at the given times.
func prove(t *testing.T, h hashes, size, i int, times ...uint64) Proof {
	t.Helper()
	path, err := tlog.ProveRecord(int64(size), int64(i), h)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tlog.TreeHash(int64(size), h)
	if err != nil {
		t.Fatal(err)
	}
	p := Proof{Index: uint64(i), Size: uint64(size), Path: [][]byte{}}
	for _, x := range path {
		p.Path = append(p.Path, x[:])
	}
	body := CheckpointText(logPolicy().Origin, p.Size, root)
	p.LogSignature = ed25519.Sign(edKey(1), []byte(body))
	for w, at := range times {
		p.Cosignatures = append(p.Cosignatures, Cosignature{
			Witness: fmt.Sprint("w", w), Time: at, Signature: ed25519.Sign(edKey(byte(10+w)), []byte(CosignatureText(at, body))),
		})
	}
	return p
}

func logPolicy() LogPolicy {
	p := LogPolicy{Origin: "example.com/control", LogKey: pub(edKey(1)), Quorum: 2}
	for w := range 3 {
		p.Witnesses = append(p.Witnesses, Witness{Name: fmt.Sprint("w", w), Key: pub(edKey(byte(10 + w)))})
	}
	return p
}

func TestProofsOfAnotherMakerVerifyAtEverySize(t *testing.T) {
	h := grow(t, 70)
	for size := 1; size <= 70; size++ {
		for i := range size {
			p := prove(t, h, size, i, 5, 6)
			if _, err := p.Verify(logPolicy(), fmt.Appendf(nil, "entry %d", i)); err != nil {
				t.Fatalf("entry %d of %d: %v", i, size, err)
			}
			if _, err := p.Verify(logPolicy(), fmt.Appendf(nil, "entry %d", i+1)); err == nil {
				t.Fatalf("entry %d of %d: another entry is proven too", i, size)
			}
		}
	}
}

func TestARefusedProofNamesThePart(t *testing.T) {
	h := grow(t, 9)
	entry := []byte("entry 4")
	for _, c := range []struct {
		name   string
		change func(p *Proof, pol *LogPolicy)
		want   error
	}{
		{"index outside", func(p *Proof, _ *LogPolicy) { p.Index = 9 }, ErrInclusion},
		{"no size", func(p *Proof, _ *LogPolicy) { p.Index, p.Size = 0, 0 }, ErrInclusion},
		{"path too short", func(p *Proof, _ *LogPolicy) { p.Path = p.Path[:len(p.Path)-1] }, ErrInclusion},
		{"path too long", func(p *Proof, _ *LogPolicy) { p.Path = append(p.Path, p.Path[0]) }, ErrInclusion},
		{"short hash", func(p *Proof, _ *LogPolicy) { p.Path[0] = p.Path[0][:31] }, ErrInclusion},
		{"swapped path", func(p *Proof, _ *LogPolicy) { slices.Reverse(p.Path) }, ErrLogSignature},
		{"another index", func(p *Proof, _ *LogPolicy) { p.Index = 5 }, ErrLogSignature},
		{"another origin", func(_ *Proof, pol *LogPolicy) { pol.Origin = "example.com/events" }, ErrLogSignature},
		{"another log key", func(_ *Proof, pol *LogPolicy) { pol.LogKey = pub(edKey(2)) }, ErrLogSignature},
		{"no log key", func(_ *Proof, pol *LogPolicy) { pol.LogKey = nil }, ErrLogSignature},
		{"one witness", func(p *Proof, _ *LogPolicy) { p.Cosignatures = p.Cosignatures[:1] }, ErrNotWitnessed},
		{"one witness twice", func(p *Proof, _ *LogPolicy) { p.Cosignatures[1] = p.Cosignatures[0] }, ErrNotWitnessed},
		{"one key under two names", func(p *Proof, pol *LogPolicy) {
			pol.Witnesses[1].Key = pol.Witnesses[0].Key
			p.Cosignatures[1] = p.Cosignatures[0]
			p.Cosignatures[1].Witness = "w1"
		}, ErrNotWitnessed},
		{"another time", func(p *Proof, _ *LogPolicy) { p.Cosignatures[1].Time++ }, ErrNotWitnessed},
		{"a stranger for a witness", func(p *Proof, _ *LogPolicy) { p.Cosignatures[1].Witness = "w9" }, ErrNotWitnessed},
		{"a witness without key", func(_ *Proof, pol *LogPolicy) { pol.Witnesses[1].Key = nil }, ErrNotWitnessed},
	} {
		p, pol := prove(t, h, 9, 4, 5, 6), logPolicy()
		if _, err := p.Verify(pol, entry); err != nil {
			t.Fatal(err)
		}
		c.change(&p, &pol)
		if cp, err := p.Verify(pol, entry); !errors.Is(err, c.want) || cp != (Checkpoint{}) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// The time that bounds a proof's age is one at which a whole quorum had seen the tree, and the newest such.
func TestCosignedIsTheOldestTimeOfTheFreshestQuorum(t *testing.T) {
	h := grow(t, 3)
	for _, c := range []struct {
		times []uint64
		want  int64
	}{{[]uint64{100, 200}, 100}, {[]uint64{100, 300, 200}, 200}, {[]uint64{300, 100, 200}, 200}} {
		cp, err := prove(t, h, 3, 1, c.times...).Verify(logPolicy(), []byte("entry 1"))
		if err != nil || cp.Cosigned.Unix() != c.want || cp.Size != 3 || cp.Origin != logPolicy().Origin {
			t.Errorf("%v: %+v, %v; want time %d", c.times, cp, err, c.want)
		}
	}
}

func TestEveryFlippedBitOfASmallProofIsRefused(t *testing.T) {
	l := Logged{Entry: []byte("entry 1"), Proof: prove(t, grow(t, 3), 3, 1, 100, 200)}
	enc, err := EncodeLogged(l)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := DecodeLogged(enc); err != nil {
		t.Fatal(err)
	} else if _, err := b.Proof.Verify(logPolicy(), b.Entry); err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(enc) {
		bad := bytes.Clone(enc)
		bad[i/8] ^= 1 << (i % 8)
		b, err := DecodeLogged(bad)
		if err != nil {
			continue
		}
		if _, err := b.Proof.Verify(logPolicy(), b.Entry); err == nil {
			t.Fatalf("bit %d flipped, and still proven", i)
		}
	}
}
