package telemetry

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"

	"github.com/hallmark-iot/hallmark/wire"
)

// Reading is what a reader has of one epoch.
type Reading struct {
	Samples [][]byte
	Missed  uint64 // numbers that the device itself left empty, and signed so: it had no room while the server was away
	Closed  bool   // the device has said that it is all
}

// Open is the reader's half: it opens an epoch's key, checks the device's signatures over epoch and head, and gives the samples
// up to the newest signed head. Records behind it are not yet proven to come from the device and are left out. A device that changed its key
// has several; each signature names its own.
func (e Readable) Open(decision []byte, reader hpke.PrivateKey, deviceID string, keys ...crypto.PublicKey) (Reading, error) {
	if len(keys) == 0 {
		return Reading{}, fmt.Errorf("epoch %d: device %s has no key to check it by", e.Epoch.Epoch, deviceID)
	}
	signed, err := verifyEpoch(e.Opened, deviceID, whose(wire.TypeEpoch, e.Opened, keys))
	if err != nil {
		return Reading{}, fmt.Errorf("epoch %d: %w", e.Epoch.Epoch, err)
	}
	dataKey, err := wire.OpenEpochKey(reader, signed.Epoch, decision, e.SealedKey)
	if err != nil {
		return Reading{}, err
	}
	newest, err := newestHead(e.Heads, signed.Epoch, keys)
	if err != nil {
		return Reading{}, err
	}
	out := Reading{Closed: newest.Closed}
	head := sha256.Sum256(signed.Payload)
	for _, r := range e.Records {
		if r.Seq > newest.Last {
			break
		}
		sample, err := wire.OpenRecord(dataKey, deviceID, r)
		if err != nil {
			return Reading{}, err
		}
		head = wire.NextHead(head, r)
		out.Samples = append(out.Samples, sample)
	}
	if !bytes.Equal(head[:], newest.Head) {
		return Reading{}, fmt.Errorf("epoch %d: the records are not those the device signed: %d of at most %d are there", signed.Epoch.Epoch, len(out.Samples), newest.Last)
	}
	out.Missed = newest.Last - min(newest.Last, uint64(len(out.Samples)))
	return out, nil
}

// OpenAll opens every epoch of a reply, or gives none.
func OpenAll(reply ReadReply, reader hpke.PrivateKey, device crypto.PublicKey, deviceID string, more ...crypto.PublicKey) ([][]byte, error) {
	var out [][]byte
	for _, e := range reply.Epochs {
		r, err := e.Open(reply.Decision, reader, deviceID, append([]crypto.PublicKey{device}, more...)...)
		if err != nil {
			return nil, err
		}
		out = append(out, r.Samples...)
	}
	return out, nil
}

// whose gives the key that an envelope says it is signed by, or the first: then it does not verify.
func whose(typ wire.Type, envelope []byte, keys []crypto.PublicKey) crypto.PublicKey {
	if o, err := wire.Parse1(typ, envelope); err == nil {
		for _, k := range keys {
			if kid, err := wire.KeyIDOf(k); err == nil && kid == o.KeyID {
				return k
			}
		}
	}
	return keys[0]
}

func newestHead(heads [][]byte, e wire.Epoch, keys []crypto.PublicKey) (wire.Series, error) {
	var best *wire.Series
	for _, env := range heads {
		payload, err := wire.Verify1(wire.TypeSeries, env, whose(wire.TypeSeries, env, keys))
		if err != nil {
			return wire.Series{}, err
		}
		se, err := wire.DecodeSeries(payload)
		if err != nil {
			return wire.Series{}, err
		}
		if se.Device != e.Device || se.Stream != e.Stream || se.Epoch != e.Epoch {
			return wire.Series{}, fmt.Errorf("head of epoch %d of %s/%s", se.Epoch, se.Device, se.Stream)
		}
		if best == nil || se.Last > best.Last {
			best = &se
		}
	}
	if best == nil {
		return wire.Series{}, fmt.Errorf("epoch %d: the device has signed no head yet", e.Epoch)
	}
	return *best, nil
}
