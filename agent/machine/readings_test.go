package machine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/wire"
)

// What is measured in one period of ownership is in no epoch of another: what waits is told in its own first, nothing is added to it meanwhile, and
// what the server will not have is dropped rather than sealed for the next owner.
func TestReadingsAreOfOnePeriod(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	kem := hpke.MLKEM768P256()
	bucket, err2 := kem.GenerateKey()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	r := boot.Report{
		Identity: boot.Identity{Device: "00112233445566778899aabbccddeeff"}, BootCount: 7,
		Bundle: wire.Bundle{Telemetry: []wire.StreamKey{{Bucket: "b", KEM: kem.ID(), Key: bucket.PublicKey().Bytes()}}},
	}
	now := time.Now()
	x := &readings{}
	at := func(period uint64) {
		t.Helper()
		if err := x.open(r, key, period, now); err != nil {
			t.Fatal(err)
		}
	}
	is := func(what string, period uint64, waits int) {
		t.Helper()
		if x.stream.Period() != period || x.stream.Pending() != waits {
			t.Fatalf("%s: %d samples wait, of period %d", what, x.stream.Pending(), x.stream.Period())
		}
	}
	at(0)
	if err := x.stream.Add([]byte("nobody's")); err != nil {
		t.Fatal(err)
	}
	at(100)
	is("claimed while a sample waits", 0, 1)
	u, err := x.stream.Upload(false)
	if err != nil {
		t.Fatal(err)
	}
	x.answered(u, true, now)
	at(100)
	is("told", 100, 0)
	if err := x.stream.Add([]byte("the first owner's")); err != nil {
		t.Fatal(err)
	}
	x.answered(wire.Upload{}, false, now)
	at(0)
	is("let go, and refused", 0, 0)
	if x.nth != 3 {
		t.Errorf("%d epochs", x.nth)
	}
	x.nth = wire.MaxNth + 1 // no number is left: no epoch of another's is written on
	at(200)
	is("without a number", 0, 0)
}
