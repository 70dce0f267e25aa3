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
	return &Stream{
		device: device, name: name, key: key, dataKey: dataKey, epoch: e, opened: opened, head: sha256.Sum256(payload),
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

// Anew begins another epoch, and seals in it what waits: the server will not have this one's records. What it has acknowledged stays there.
func (s *Stream) Anew(number uint64, bucket wire.StreamKey, now time.Time) (*Stream, error) {
	next, err := Open(s.device, s.name, number, s.epoch.Period, bucket, s.key, now)
	if err != nil {
		return nil, err
	}
	for _, p := range s.pending {
		sample, err := wire.OpenRecord(s.dataKey, s.device, p.record)
		if err != nil {
			return nil, err
		}
		if err := next.Add(sample); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// Sealed reports how many samples were sealed in this epoch.
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
	last, head, size := s.seq, s.head, 0
	for _, p := range s.pending {
		if size += len(p.record.Data) + perRecord; size > perUpload {
			break
		}
		u.Records = append(u.Records, p.record)
		last, head = p.record.Seq, p.head
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
	n := 0
	if k := len(u.Records); k > 0 {
		last := u.Records[k-1].Seq
		for n < len(s.pending) && s.pending[n].record.Seq <= last {
			n++
		}
	}
	s.pending = slices.Clone(s.pending[n:])
}
