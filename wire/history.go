package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// The signed history of a product's trust bundles is a device's way back: whoever brings it, over whatever line, it is believed by its
// signatures alone. See docs/design/identity.md.

// BundleStep is one bundle of the history. It has either Seen or Envelope.
type BundleStep struct {
	// Seen is the entry bundle.published under a checkpoint of the control log that the bundle before this one names, with the quorum of the
	// witnesses that that one names. It was taken when the bundle was published, so no key of then needs to be there any more. The first
	// bundle has none, and neither has one that replaced a log or witnesses that were lost.
	Seen     *Logged `cbor:"1,keyasint,omitempty"`
	Envelope []byte  `cbor:"2,keyasint,omitempty"` // the signed bundle
}

// NewestBundle says where the history ends: the newest bundle, published in the control log that it names itself, under a checkpoint
// that its own quorum of witnesses has cosigned.
type NewestBundle struct {
	Version uint64 `cbor:"1,keyasint"`
	Logged  Logged `cbor:"2,keyasint"`
}

// Bounds of the encoded messages.
const (
	MaxBundleStep   = MaxLogged + MaxEnvelope + 64
	MaxNewestBundle = MaxLogged + 64
)

// kindBundlePublished is the kind of the entry that publishes a bundle.
const kindBundlePublished = "bundle.published"

// ErrUnseen says that a step was not seen in the log of the bundle before it, and has too few signatures to do without.
var ErrUnseen = errors.New("not seen in the log that the bundle before it names")

// EncodeBundleStep writes s.
func EncodeBundleStep(s BundleStep) ([]byte, error) { return encode(s, MaxBundleStep) }

// DecodeBundleStep reads a step; VerifyStep says whether it is one.
func DecodeBundleStep(data []byte) (BundleStep, error) {
	return decode[BundleStep](data, MaxBundleStep)
}

func (s BundleStep) check() error {
	if (s.Seen != nil) == (len(s.Envelope) > 0) {
		return errors.New("bundle step: want either an entry or an envelope")
	}
	return nil
}

// EncodeNewestBundle writes n.
func EncodeNewestBundle(n NewestBundle) ([]byte, error) { return encode(n, MaxNewestBundle) }

// DecodeNewestBundle reads the end of a history.
func DecodeNewestBundle(data []byte) (NewestBundle, error) {
	return decode[NewestBundle](data, MaxNewestBundle)
}

func (n NewestBundle) check() error {
	if n.Version == 0 {
		return errors.New("newest bundle: no version")
	}
	return nil
}

// publishedBundle gives the envelope that an entry of the control log publishes.
func publishedBundle(entry []byte) ([]byte, error) {
	f, err := DecodeFact(entry)
	if err != nil {
		return nil, err
	}
	if f.Kind != kindBundlePublished {
		return nil, fmt.Errorf("entry of kind %s, want %s", f.Kind, kindBundlePublished)
	}
	return f.Data, nil
}

// VerifyStep checks that the step may follow current, and gives the bundle and its envelope. The thresholds of both bundles' roots must
// have signed, and the step must have been seen in the log that current names, so that nobody replaces whom a device believes in
// secret. One that was not seen there (the log, or too many of its witnesses, were lost) takes one signature of current's root more than
// the threshold, where the role has more. With a nil current the step is where a history begins, and the caller must anchor it.
func VerifyStep(current *Bundle, s BundleStep) (Bundle, []byte, error) {
	if err := s.check(); err != nil {
		return Bundle{}, nil, err
	}
	envelope := s.Envelope
	if s.Seen != nil {
		var err error
		if envelope, err = publishedBundle(s.Seen.Entry); err != nil {
			return Bundle{}, nil, fmt.Errorf("bundle step: %w", err)
		}
	}
	next, err := VerifyBundle(current, envelope)
	if err != nil || current == nil {
		return next, envelope, err
	}
	if s.Seen != nil {
		if _, err := s.Seen.Proof.Verify(current.Policy(current.Control), s.Seen.Entry); err != nil {
			return Bundle{}, nil, fmt.Errorf("bundle %d: %w: %w", next.Version, ErrUnseen, err)
		}
		return next, envelope, nil
	}
	more := current.Root
	more.Threshold = min(more.Threshold+1, uint(len(more.Keys)))
	if _, err := VerifyThreshold(TypeBundle, envelope, more); err != nil {
		return Bundle{}, nil, fmt.Errorf("bundle %d: %w: %w", next.Version, ErrUnseen, err)
	}
	return next, envelope, nil
}

// VerifyNewest checks that b, whose envelope is given, is published in the log that it names itself.
func VerifyNewest(b Bundle, envelope []byte, n NewestBundle) (Checkpoint, error) {
	if n.Version != b.Version {
		return Checkpoint{}, fmt.Errorf("newest bundle: version %d, want %d", n.Version, b.Version)
	}
	published, err := publishedBundle(n.Logged.Entry)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("newest bundle: %w", err)
	}
	if !bytes.Equal(published, envelope) {
		return Checkpoint{}, fmt.Errorf("newest bundle: the entry publishes another bundle than version %d", b.Version)
	}
	cp, err := n.Logged.Proof.Verify(b.Policy(b.Control), n.Logged.Entry)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("newest bundle: %w", err)
	}
	return cp, nil
}
