package machine

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// measured is a device's readings and who keeps them.
type measured struct {
	*readings
	t      *testing.T
	key    crypto.Signer
	bucket hpke.PrivateKey
	bundle wire.Bundle
	now    time.Time
	says   []string // what programs answer
	asked  int
	kept   map[uint64]*telemetry.Readable
}

func measure(t *testing.T) *measured {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &measured{t: t, key: key, now: time.Now(), says: []string{"21.5"}, kept: map[uint64]*telemetry.Readable{}}
	x.newBucket("b")
	x.readings = &readings{
		report: func() boot.Report {
			return boot.Report{Identity: boot.Identity{Device: "00112233445566778899aabbccddeeff"}, BootCount: 7, Bundle: x.bundle}
		},
		ask: func(context.Context) []string { x.asked++; return x.says },
	}
	return x
}

func (x *measured) newBucket(name string) {
	x.t.Helper()
	kem := hpke.MLKEM768P256()
	k, err := kem.GenerateKey()
	if err != nil {
		x.t.Fatal(err)
	}
	x.bucket, x.bundle = k, wire.Bundle{Telemetry: []wire.StreamKey{{Bucket: name, KEM: kem.ID(), Key: k.PublicKey().Bytes()}}}
}

func (x *measured) sample(period uint64, n int) {
	x.t.Helper()
	for range n {
		if err := x.Sample(x.t.Context(), x.now, x.key, period); err != nil {
			x.t.Fatal(err)
		}
	}
}

// next is an upload that is not answered yet; nil: there is none.
func (x *measured) next() (u wire.Upload, answered func(bool)) {
	x.t.Helper()
	b, answered, err := x.Next(x.now, x.key)
	if err != nil {
		x.t.Fatal(err)
	}
	if b == nil {
		return u, nil
	}
	if u, err = wire.DecodeUpload(b); err != nil {
		x.t.Fatal(err)
	}
	return u, answered
}

// upload has the server take all that waits.
func (x *measured) upload() {
	x.t.Helper()
	for u, answered := x.next(); answered != nil; u, answered = x.next() {
		x.take(u)
		answered(true)
	}
}

func (x *measured) take(u wire.Upload) {
	x.t.Helper()
	for _, env := range u.Epochs {
		e, err := wire.Verify1(wire.TypeEpoch, env, x.key.Public())
		d, err2 := wire.DecodeEpoch(e)
		sealed := d.Sealed
		if dataKey, err := wire.OpenEpochKey(x.bucket, d, nil, d.Sealed); err == nil {
			sealed, _ = wire.ResealEpochKey(x.bucket.PublicKey(), d, []byte("decision"), dataKey)
		}
		if err := errors.Join(err, err2); err != nil {
			x.t.Fatal(err)
		}
		x.kept[d.Epoch] = &telemetry.Readable{Epoch: d, Opened: env, SealedKey: sealed}
	}
	for _, r := range u.Records {
		x.kept[r.Epoch].Records = append(x.kept[r.Epoch].Records, r)
	}
	for _, env := range u.Series {
		h := headOf(x.t, env, x.key.Public())
		x.kept[h.Epoch].Heads = [][]byte{env}
	}
}

func headOf(t *testing.T, env []byte, key crypto.PublicKey) wire.Series {
	t.Helper()
	payload, err := wire.Verify1(wire.TypeSeries, env, key)
	h, err2 := wire.DecodeSeries(payload)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return h
}

// told is what the server has of the nth epoch of this start: its period, the readings that a reader gets, the last number, and whether it is closed.
func (x *measured) told(nth uint) string {
	x.t.Helper()
	e := x.kept[wire.EpochOf(7, nth)]
	if e == nil {
		return "nothing"
	}
	h := headOf(x.t, e.Heads[0], x.key.Public())
	got, err := telemetry.OpenAll(telemetry.ReadReply{Decision: []byte("decision"), Epochs: []telemetry.Readable{*e}}, x.bucket, x.key.Public(), e.Epoch.Device)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("period %d: %d of %d, closed %v", e.Epoch.Period, len(got), h.Last, h.Closed)
}

func (x *measured) is(nth uint, want string) {
	x.t.Helper()
	if got := x.told(nth); got != want {
		x.t.Errorf("epoch %d: %s; want %s", nth, got, want)
	}
}

// What is measured in one period of ownership is in no epoch of another: what waits is told in its own, which is closed then, and
// what the server will not have is dropped rather than sealed for the next owner.
func TestReadingsAreOfOnePeriod(t *testing.T) {
	x := measure(t)
	x.sample(0, 1)
	x.sample(100, 2) // claimed while a sample waits
	x.upload()
	x.is(0, "period 0: 1 of 1, closed true")
	x.is(1, "period 100: 2 of 2, closed false")
	x.sample(100, 1)
	_, answered := x.next()
	answered(false)
	x.sample(0, 1) // let go, and refused
	x.now = x.now.Add(mostRefused)
	x.upload()
	x.is(2, "period 0: 1 of 1, closed false")
	x.nth = wire.MaxNth + 1 // no number is left: no epoch of another's is written on
	x.sample(200, 3)
	x.upload()
	x.is(2, "period 0: 1 of 1, closed false")
}

// While the server is away so many readings wait, and no program is asked for more. The next number says how many are missing, and the device has signed
// that: a reader finds the chain whole.
func TestAnOutageLeavesAGapThatIsSigned(t *testing.T) {
	x := measure(t)
	x.sample(0, mostWaiting+30)
	if x.waiting() != mostWaiting || x.asked != mostWaiting {
		t.Errorf("%d wait, programs were asked %d times", x.waiting(), x.asked)
	}
	x.upload()
	x.is(0, "period 0: 256 of 286, closed false")
	x.sample(0, 1)
	x.upload()
	x.is(0, "period 0: 257 of 287, closed false")
	records := x.kept[wire.EpochOf(7, 0)].Records
	x.kept[wire.EpochOf(7, 0)].Records = slices.Delete(slices.Clone(records), 4, 5)
	x.is(0, "epoch 458752: the records are not those the device signed: 256 of at most 287 are there") // one that the server holds back is no gap of the device's
	x.sample(0, 2*wire.EpochRecords+mostWaiting)                                                       // a very long one
	x.kept[wire.EpochOf(7, 0)].Records = records
	x.upload()
	x.is(0, fmt.Sprintf("period 0: %d of %d, closed false", 257+mostWaiting, wire.EpochRecords))
	x.sample(0, 1)
	x.upload()
	x.is(0, fmt.Sprintf("period 0: %d of %d, closed true", 257+mostWaiting, wire.EpochRecords))
	x.is(1, "period 0: 1 of 1, closed false")
}

// An epoch that ends is closed, whatever ended it: it is full, the trust bundle names another key, or the device restarts.
func TestAnEpochThatEndsIsClosed(t *testing.T) {
	x := measure(t)
	for range wire.EpochRecords / 128 {
		x.sample(0, 128)
		x.upload()
	}
	x.is(0, fmt.Sprintf("period 0: %d of %d, closed false", wire.EpochRecords, wire.EpochRecords))
	x.sample(0, 2)
	x.upload()
	x.is(0, fmt.Sprintf("period 0: %d of %d, closed true", wire.EpochRecords, wire.EpochRecords))
	x.is(1, "period 0: 2 of 2, closed false")
	x.sample(0, 3)
	old := x.bucket
	x.newBucket("c")
	x.sample(0, 1) // what waits is sealed for the new key
	x.upload()
	x.is(2, "period 0: 4 of 4, closed false")
	x.sample(0, 1)
	x.End()
	x.upload()
	x.is(2, "period 0: 5 of 5, closed true")
	x.bucket = old
	x.is(1, "period 0: 2 of 2, closed true")
	if _, answered := x.next(); answered != nil {
		t.Error("there is more to tell")
	}
}

// What the server refuses of an epoch that has ended is sealed in the one that is open.
func TestWhatIsRefusedAtAnEndIsNotLost(t *testing.T) {
	x := measure(t)
	for range wire.EpochRecords / 128 {
		x.sample(0, 128)
		if x.nth == 1 && x.stream.Sealed() < wire.EpochRecords {
			x.upload()
		}
	}
	x.sample(0, 2)
	_, answered := x.next()
	answered(false)
	x.now = x.now.Add(mostRefused)
	x.upload()
	x.is(0, fmt.Sprintf("period 0: %d of %d, closed false", wire.EpochRecords-128, wire.EpochRecords-128))
	x.is(1, "period 0: 130 of 130, closed false")
}

// Every program that answers gives a record of its own.
func TestEveryProgramIsAsked(t *testing.T) {
	x := measure(t)
	x.says = []string{"pump 3", "valve 4"}
	x.sample(0, 2)
	x.upload()
	x.is(0, "period 0: 4 of 4, closed false")
}
