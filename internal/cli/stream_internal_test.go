package cli

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// An epoch of which a record is gone takes no other with it; of each it is said whether it is all, and what the device itself missed.
func TestAnEpochThatDoesNotHoldIsNamed(t *testing.T) {
	const device = "00112233445566778899aabbccddeeff"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	kem := hpke.MLKEM768P256()
	reader, err2 := kem.GenerateKey()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	bucket := wire.StreamKey{Bucket: "b", KEM: kem.ID(), Key: reader.PublicKey().Bytes()}
	reply := telemetry.ReadReply{Decision: []byte("decision")}
	epoch := func(number uint64, closed bool, missed int) *telemetry.Readable {
		s, err := seal.Open(device, "readings", number, 0, bucket, key, time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Add([]byte("21.5")); err != nil {
				t.Fatal(err)
			}
		}
		for range missed {
			s.Miss()
		}
		if err := s.Add([]byte("21.6")); err != nil {
			t.Fatal(err)
		}
		u, err := s.Upload(closed)
		payload, err2 := wire.Verify1(wire.TypeEpoch, u.Epochs[0], key.Public())
		e, err3 := wire.DecodeEpoch(payload)
		dataKey, err4 := wire.OpenEpochKey(reader, e, nil, e.Sealed)
		sealed, err5 := wire.ResealEpochKey(reader.PublicKey(), e, reply.Decision, dataKey)
		if err := errors.Join(err, err2, err3, err4, err5); err != nil {
			t.Fatal(err)
		}
		reply.Epochs = append(reply.Epochs, telemetry.Readable{Epoch: e, Opened: u.Epochs[0], SealedKey: sealed, Records: u.Records, Heads: u.Series})
		return &reply.Epochs[len(reply.Epochs)-1]
	}
	epoch(1, true, 0)
	broken := epoch(2, true, 0)
	broken.Records = broken.Records[:2]
	epoch(3, false, 7)
	samples, said, bad := openPart(reply, reader, device, []crypto.PublicKey{key.Public()})
	if len(samples) != 6 || bad != 1 || len(said) != 3 {
		t.Fatalf("%d samples, %d bad, %q", len(samples), bad, said)
	}
	for i, want := range []string{": 3 readings, closed", "epoch 2 is left out", ": 3 readings, open, 7 missing"} {
		if !strings.Contains(said[i], want) {
			t.Errorf("%q; want %q", said[i], want)
		}
	}
}
