package scitt_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger/scitt"
	"github.com/hallmark-iot/hallmark/wire"
)

// grown is a log of n entries by x/mod's tlog.
func grown(t *testing.T, n int64) (hashes tlog.HashReader, entry func(i int64) []byte) {
	t.Helper()
	entry = func(i int64) []byte { return fmt.Appendf(nil, "entry %d", i) }
	var stored []tlog.Hash
	hashes = tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, _ error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for i := range n {
		more, err := tlog.StoredHashes(i, entry(i), hashes)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	return hashes, entry
}

func logged(t *testing.T, n, i int64) wire.Logged {
	t.Helper()
	hashes, entry := grown(t, n)
	path, err := tlog.ProveRecord(n, i, hashes)
	if err != nil {
		t.Fatal(err)
	}
	l := wire.Logged{Entry: entry(i), Proof: wire.Proof{Index: uint64(i), Size: uint64(n)}}
	for _, h := range path {
		l.Proof.Path = append(l.Proof.Path, h[:])
	}
	return l
}

// verify checks a receipt as one would who has RFC 9942 and RFC 9162 and nothing of ours.
func verify(receipt, entry []byte, root tlog.Hash, pub ed25519.PublicKey) error {
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(receipt); err != nil {
		return err
	}
	if alg, err := m.Headers.Protected.Algorithm(); err != nil || alg != cose.AlgorithmEdDSA || m.Payload != nil {
		return fmt.Errorf("algorithm %v, payload %x: %w", alg, m.Payload, err)
	}
	if vds := m.Headers.Protected[int64(395)]; vds != int64(1) {
		return fmt.Errorf("verifiable data structure %v", vds)
	}
	proofs, ok := m.Headers.Unprotected[int64(396)].(map[any]any)
	if !ok || len(proofs) != 1 || len(m.Headers.Unprotected) != 1 {
		return fmt.Errorf("proofs %v", m.Headers.Unprotected)
	}
	list, ok := proofs[int64(-1)].([]any)
	if !ok || len(list) != 1 {
		return fmt.Errorf("inclusion proofs %v", proofs)
	}
	raw, ok := list[0].([]byte)
	if !ok {
		return fmt.Errorf("an inclusion proof is %T, want a byte string", list[0])
	}
	var p struct {
		_           struct{} `cbor:",toarray"`
		Size, Index int64
		Path        []tlog.Hash
	}
	if err := cbor.Unmarshal(raw, &p); err != nil {
		return err
	}
	if err := tlog.CheckRecord(p.Path, p.Size, root, p.Index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	m.Payload = root[:]
	v, err := cose.NewVerifier(cose.AlgorithmEdDSA, pub)
	if err != nil {
		return err
	}
	return m.Verify(nil, v)
}

func TestAReceiptIsVerifiedWithoutUs(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(2); n <= 20; n++ {
		hashes, _ := grown(t, n)
		root, err := tlog.TreeHash(n, hashes)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			l := logged(t, n, i)
			r, err := scitt.Sign(l, "fact", scitt.LogKey{Origin: "t.example/events", Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(r, l.Entry, root, pub); err != nil {
				t.Fatalf("entry %d of %d: %v", i, n, err)
			}
			if verify(r, []byte("other"), root, pub) == nil {
				t.Fatalf("entry %d of %d: it is a receipt of other bytes too", i, n)
			}
		}
	}
}

func TestEveryFlippedBitOfAReceiptIsRefused(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hashes, _ := grown(t, 7)
	root, err := tlog.TreeHash(7, hashes)
	if err != nil {
		t.Fatal(err)
	}
	l := logged(t, 7, 4)
	r, err := scitt.Sign(l, "fact", scitt.LogKey{Origin: "t.example/events", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for i := range r {
		for bit := range 8 {
			r[i] ^= 1 << bit
			if verify(r, l.Entry, root, pub) == nil {
				t.Errorf("bit %d of byte %d does not count", bit, i)
			}
			r[i] ^= 1 << bit
		}
	}
}

func TestNoReceiptOfALogOfOneEntryOrOfAnotherPath(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := scitt.LogKey{Origin: "t.example/events", Key: key}
	if _, err := scitt.Sign(logged(t, 1, 0), "fact", k); err == nil {
		t.Error("RFC 9942 has no form for a path of no hashes")
	}
	l := logged(t, 7, 4)
	l.Proof.Path = l.Proof.Path[1:]
	if _, err := scitt.Sign(l, "fact", k); err == nil {
		t.Error("a path that leads nowhere was signed")
	}
}
