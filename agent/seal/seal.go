// Package seal encrypts a device's data on the device, for readers its maker will name later.
//
// Stage 3, field: telemetry. A Stream opens an epoch under a fresh random key, seals that key to the key-access service's
// retention bucket from the trust bundle, seals each sample under it, and signs the head of the chain. It keeps nothing on
// disk: after a restart it opens a new epoch, so no key has to survive and no sequence number can repeat under one key.
package seal

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Stream is one open stream of a device. It is for one goroutine.
type Stream struct {
	device, name string
	key          crypto.Signer // the attestation key: origin
	dataKey      []byte
	epoch        wire.Epoch
	opened       []byte // COSE_Sign1 of the epoch, until it has been taken
	head         [32]byte
	seq          uint64
	pending      []pending
	told         uint64   // numbers that the server knows of
	toldHead     [32]byte // and the head after them
}

// pending is a record that the server does not have yet, and the head of the chain after it.
type pending struct {
	record wire.Sealed
	head   [32]byte
}

// Open begins epoch number of stream name, in a period of ownership. No number may come twice: wire.EpochOf.
func Open(device, name string, number, period uint64, bucket wire.StreamKey, key crypto.Signer, now time.Time) (*Stream, error) {
	dataKey := make([]byte, 32)
	if _, err := rand.Read(dataKey); err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	sealed, err := wire.SealEpochKey(bucket, device, name, number, dataKey)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	e := wire.Epoch{
		Device: device, Stream: name, Epoch: number, Bucket: bucket.Bucket, KEM: bucket.KEM,
		Sealed: sealed, Opened: uint64(now.Unix()), Period: period,
	}
	payload, err := wire.EncodeEpoch(e)
	if err != nil {
		return nil, err
	}
	opened, err := wire.Sign1(wire.TypeEpoch, payload, key)
	if err != nil {
		return nil, err
	}
	head := sha256.Sum256(payload)
	return &Stream{
		device: device, name: name, key: key, dataKey: dataKey, epoch: e, opened: opened, head: head, toldHead: head,
	}, nil
}

// Sign has what comes next signed by key: the device may have changed it since the epoch began. What the server has of the epoch was signed before.
func (s *Stream) Sign(key crypto.Signer) error {
	if k, ok := s.key.Public().(interface{ Equal(x crypto.PublicKey) bool }); ok && k.Equal(key.Public()) {
		return nil
	}
	if s.opened != nil {
		payload, err := wire.EncodeEpoch(s.epoch)
		if err != nil {
			return err
		}
		if s.opened, err = wire.Sign1(wire.TypeEpoch, payload, key); err != nil {
			return err
		}
	}
	s.key = key
	return nil
}

// ErrFull says that more samples wait than one upload can carry: upload first, nothing was dropped.
var ErrFull = errors.New("samples wait to be uploaded")

const maxPending = 256

// Add seals one sample.
func (s *Stream) Add(sample []byte) error {
	if len(s.pending) >= maxPending {
		return fmt.Errorf("stream %s: %w", s.name, ErrFull)
	}
	r, err := wire.SealRecord(s.dataKey, s.device, s.name, s.epoch.Epoch, s.seq+1, sample)
	if err != nil {
		return err
	}
	s.seq++
	s.head = wire.NextHead(s.head, r)
	s.pending = append(s.pending, pending{r, s.head})
	return nil
}

// Miss says that a sample was not taken, or could not be kept: its number stays empty, and the next head is signed over the gap, so that a reader
// knows how many are missing, and that the device itself says so.
func (s *Stream) Miss() { s.seq++ }

// Anew begins another epoch, and moves what waits into it. This one can still be closed.
func (s *Stream) Anew(number uint64, bucket wire.StreamKey, now time.Time) (*Stream, error) {
	next, err := Open(s.device, s.name, number, s.epoch.Period, bucket, s.key, now)
	if err != nil {
		return nil, err
	}
	return next, s.Move(next)
}

// Move seals in another epoch what waits, with its gaps: the server will not have it in this one, or is not to. What it has acknowledged stays, and
// is all of this one.
func (s *Stream) Move(to *Stream) error {
	at := s.told
	for _, p := range s.pending {
		sample, err := wire.OpenRecord(s.dataKey, s.device, p.record)
		if err != nil {
			return err
		}
		to.seq += p.record.Seq - at - 1
		if err := to.Add(sample); err != nil {
			return err
		}
		at = p.record.Seq
	}
	to.seq += s.seq - at
	s.seq, s.head, s.pending = s.told, s.toldHead, nil
	return nil
}

// Void reports whether there is nothing to tell of the epoch: nothing waits, and nobody heard that it began.
func (s *Stream) Void() bool { return s.opened != nil && len(s.pending) == 0 }

// Sealed reports how many numbers were given in this epoch: to samples, and to those that were missed.
func (s *Stream) Sealed() uint64 { return s.seq }

// Period is the period of ownership that the epoch is of.
func (s *Stream) Period() uint64 { return s.epoch.Period }

// Pending reports how many samples wait.
func (s *Stream) Pending() int { return len(s.pending) }

// perUpload leaves room in an upload for epoch and series; perRecord is what a record adds to its data at most.
const (
	perUpload = wire.MaxUpload - 16<<10
	perRecord = 128
)

// Upload gives what is not yet acknowledged, oldest first and as much as an upload can carry: the same again until Acked.
// closing says that nothing follows; it is kept for the upload that carries the last record.
func (s *Stream) Upload(closing bool) (wire.Upload, error) {
	var u wire.Upload
	last, head, size := s.seq, s.head, 0 // with what was missed behind the last record
	for i, p := range s.pending {
		if size += len(p.record.Data) + perRecord; size > perUpload {
			last, head = s.pending[i-1].record.Seq, s.pending[i-1].head // one record always fits
			break
		}
		u.Records = append(u.Records, p.record)
	}
	payload, err := wire.EncodeSeries(wire.Series{
		Device: s.device, Stream: s.name, Epoch: s.epoch.Epoch, Last: last, Head: head[:], Closed: closing && last == s.seq,
	})
	if err != nil {
		return wire.Upload{}, err
	}
	series, err := wire.Sign1(wire.TypeSeries, payload, s.key)
	if err != nil {
		return wire.Upload{}, err
	}
	u.Series = [][]byte{series}
	if s.opened != nil {
		u.Epochs = [][]byte{s.opened}
	}
	return u, nil
}

// Acked forgets what the server has made durable: the records of an upload it answered with success.
func (s *Stream) Acked(u wire.Upload) {
	s.opened = nil
	for _, env := range u.Series { // it is this stream's own: what cannot be read was never made here
		if p, err := wire.Parse1(wire.TypeSeries, env); err == nil {
			if h, err := wire.DecodeSeries(p.Payload); err == nil && h.Last >= s.told {
				s.told, s.toldHead = h.Last, [32]byte(h.Head)
			}
		}
	}
	n := 0
	if k := len(u.Records); k > 0 {
		last := u.Records[k-1].Seq
		for n < len(s.pending) && s.pending[n].record.Seq <= last {
			n++
		}
	}
	s.pending = slices.Clone(s.pending[n:])
}
