package machine

import (
	"bytes"
	"context"
	"crypto"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/wire"
)

// Stream is the name under which a device's readings are sealed; mostWaiting is how many wait in memory for the server. Those that find no place are
// missed, and the next one's number says how many.
const (
	Stream      = "readings"
	mostWaiting = 256
)

// readings is the device's telemetry: what its programs measure, sealed for the readers its maker will name. The server may refuse an epoch for good:
// a copy of this device has uploaded under its number, or the server came back from a backup without it. Then what waits is sealed in another
// one, and less and less often while that is refused too.
type readings struct {
	report  func() boot.Report
	ask     func(ctx context.Context) []string // the programs
	stream  *seal.Stream                       // nil: none yet
	ended   []*seal.Stream                     // those before, oldest first, until the server knows all of them and that it is all
	key     wire.StreamKey                     // that the stream is sealed for
	nth     uint                               // epoch of this start
	spoiled bool                               // this epoch was refused
	refused int                                // epochs, in a row
	again   time.Time                          // before then nothing is uploaded
}

// Sample implements agent.Telemetry. Each program that answers gives a record of its own.
func (t *readings) Sample(ctx context.Context, now time.Time, key crypto.Signer, period uint64) error {
	r := t.report()
	if len(r.Bundle.Telemetry) == 0 {
		return nil
	}
	if err := t.open(r, key, period, now); err != nil {
		return err
	}
	if t.full(period) {
		return nil // before a program is asked: what it said would be gone
	}
	for _, s := range t.ask(ctx) {
		if t.full(period) {
			continue
		}
		if err := t.stream.Add([]byte(s)); err != nil {
			return err
		}
	}
	return nil
}

// full reports whether nothing more is kept now, and then counts one that is missed, as far as the epoch has numbers.
func (t *readings) full(period uint64) bool {
	if t.stream.Period() != period { // no number is left for an epoch of this period's own
		return true
	}
	if t.waiting() < mostWaiting && t.stream.Sealed() < wire.EpochRecords {
		return false
	}
	if t.stream.Sealed() < wire.EpochRecords {
		t.stream.Miss()
	}
	return true
}

// waiting is how many the server does not have yet.
func (t *readings) waiting() (n int) {
	if t.stream != nil {
		n = t.stream.Pending()
	}
	for _, s := range t.ended {
		n += s.Pending()
	}
	return n
}

// Next implements agent.Telemetry. What has ended is told first.
func (t *readings) Next(now time.Time, key crypto.Signer) ([]byte, func(bool), error) {
	if now.Before(t.again) {
		return nil, nil, nil
	}
	s, last := t.stream, len(t.ended) > 0
	if last {
		s = t.ended[0]
	}
	if s == nil || !last && (t.spoiled || s.Pending() == 0) {
		return nil, nil, nil
	}
	if err := s.Sign(key); err != nil {
		return nil, nil, err
	}
	u, err := s.Upload(last)
	if err != nil {
		return nil, nil, err
	}
	b, err := wire.EncodeUpload(u)
	return b, func(taken bool) { t.answered(u, taken, now) }, err
}

// End implements agent.Telemetry.
func (t *readings) End() {
	t.end()
	t.stream = nil
}

// end has the present epoch closed, once the server has what waits of it. One that it refused it will not have closed either.
func (t *readings) end() {
	if t.stream != nil && !t.spoiled && !t.stream.Void() {
		t.ended = append(t.ended, t.stream)
	}
}

// open makes sure of an epoch that may be written: not full, not refused, for the key that the trust bundle names now, and of this period of
// ownership. The one before is closed. What waits in one of another period is told there; what will not be had of it is dropped, rather than sealed for
// somebody else. What waits when the key changes is sealed for the new one: the old may be in wrong hands.
func (t *readings) open(r boot.Report, key crypto.Signer, period uint64, now time.Time) (err error) {
	bucket := r.Bundle.Telemetry[0]
	move := false
	if s := t.stream; s != nil {
		full := s.Sealed() >= wire.EpochRecords && t.waiting() < mostWaiting
		due := t.spoiled && !now.Before(t.again)
		move = s.Period() == period && (t.spoiled || !bytes.Equal(t.key.Key, bucket.Key))
		if !full && !due && s.Period() == period && bytes.Equal(t.key.Key, bucket.Key) || t.nth > wire.MaxNth {
			return nil
		}
	}
	number := wire.EpochOf(r.BootCount, t.nth)
	var next *seal.Stream
	if move {
		if err := t.stream.Sign(key); err != nil {
			return err
		}
		next, err = t.stream.Anew(number, bucket, now)
	} else {
		next, err = seal.Open(r.Identity.Device, Stream, number, period, bucket, key, now)
	}
	if err != nil {
		return err
	}
	t.end()
	t.stream, t.key, t.spoiled = next, bucket, false
	t.nth++
	return nil
}

// firstPause and mostRefused are the pauses after one refusal and after many.
const (
	firstPause  = 5 * time.Second
	mostRefused = time.Hour
)

func (t *readings) answered(u wire.Upload, taken bool, now time.Time) {
	last := len(t.ended) > 0
	if taken {
		t.refused, t.again = 0, time.Time{}
		if !last {
			t.stream.Acked(u)
			return
		}
		if t.ended[0].Acked(u); t.ended[0].Pending() == 0 {
			t.ended = t.ended[1:]
		}
		return
	}
	t.refused++
	t.again = now.Add(min(firstPause<<min(t.refused, 16), mostRefused))
	if !last {
		t.spoiled = true
		return
	}
	old := t.ended[0]
	t.ended = t.ended[1:]
	if t.stream == nil || t.stream.Period() != old.Period() {
		return
	}
	// It opens, and it fits: all that wait together are no more than one epoch may have waiting.
	_ = old.Move(t.stream)
}
