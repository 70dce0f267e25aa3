package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
	"testing"
)

// atSize makes the proof of entry in a tree of size whose other entries are nobody's: a path of as many hashes as such a tree has, which
// leads to whatever root it does, signed by the log and two witnesses.
func atSize(t testing.TB, size uint64, entry []byte) Proof {
	t.Helper()
	index := size / 3
	p := Proof{Index: index, Size: size}
	for i := range bits.Len64(size - 1) {
		h := sha256.Sum256(fmt.Append(nil, i))
		p.Path = append(p.Path, h[:])
	}
	root, err := RootFromPath(index, size, leafHash(entry), p.Path)
	if err != nil {
		t.Fatal(err)
	}
	body := CheckpointText(logPolicy().Origin, size, root)
	p.LogSignature = ed25519.Sign(edKey(1), []byte(body))
	for w := range 2 {
		p.Cosignatures = append(p.Cosignatures, Cosignature{
			Witness: fmt.Sprintf("w%d", w), Time: 1_800_000_000, Signature: ed25519.Sign(edKey(byte(10+w)), []byte(CosignatureText(1_800_000_000, body))),
		})
	}
	return p
}

// BenchmarkDeviceVerify is what a device does for each part of a delivery: an entry of 300 bytes in a tree of 10⁶, two witnesses.
func BenchmarkDeviceVerify(b *testing.B) {
	entry := make([]byte, 300)
	raw, err := EncodeLogged(Logged{Entry: entry, Proof: atSize(b, 1_000_000, entry)})
	if err != nil {
		b.Fatal(err)
	}
	l, err := DecodeLogged(raw)
	if err != nil {
		b.Fatal(err)
	}
	policy := logPolicy()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Proof.Verify(policy, l.Entry); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(onWire(b, l.Proof)), "wire-B")
}

// onWire is how many bytes a proof takes, with names of witnesses as they are in practice.
func onWire(t testing.TB, p Proof) int {
	t.Helper()
	p.Cosignatures = slices.Clone(p.Cosignatures)
	for i := range p.Cosignatures {
		p.Cosignatures[i].Witness = "witness-1.example.org/hallmark"
	}
	raw, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return len(raw)
}

// What a proof adds to an entry on the wire.
func TestAProofIsSmall(t *testing.T) {
	entry := []byte("entry")
	for size, limit := range map[uint64]int{1_000_000: 1200, 100_000_000: 1400} {
		p := atSize(t, size, entry)
		if _, err := p.Verify(logPolicy(), entry); err != nil {
			t.Fatal(err)
		}
		if n := onWire(t, p); n > limit {
			t.Errorf("a proof in a tree of %d is %d bytes, at most %d", size, n, limit)
		}
	}
}

// maxHeap is what verifying a proof may take of a small device's memory.
const maxHeap = 4 << 10

func TestVerifyingTakesLittleMemory(t *testing.T) {
	entry := make([]byte, MaxFact)
	p, policy := atSize(t, 1_000_000, entry), logPolicy()
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Verify(policy, entry); err != nil {
				b.Fatal(err)
			}
		}
	})
	if n := r.AllocedBytesPerOp(); n > maxHeap {
		t.Errorf("%d bytes of heap, at most %d", n, maxHeap)
	}
}
