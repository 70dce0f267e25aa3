package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
)

// A device can be handed to another instance, for good: its owner's own. A warrant for the act rehome says to which; see
// docs/design/identity.md.

// Home is where a warrant for the act rehome sends devices.
type Home struct {
	Bundle []byte `cbor:"1,keyasint" json:"bundle"` // SHA-256 of the payload of the trust bundle that is in force there: see BundleDigest
	Server string `cbor:"2,keyasint" json:"server"` // where devices call there: https://host[:port], as Servers.Device
}

// Handover is what a board is led to another home by, and keeps. It is believed by the warrant keys of the bundle in force alone.
type Handover struct {
	Warrant []byte     `cbor:"1,keyasint"` // COSE_Sign(Warrant) for the act rehome
	Member  Membership `cbor:"2,keyasint"` // of the device in it
	Bundle  []byte     `cbor:"3,keyasint"` // the trust bundle (signed) of the new home
}

// HomeOffer is what an instance gives to one whose devices it is to have: whom they will believe, and where they will call.
type HomeOffer struct {
	V      uint   `cbor:"1,keyasint"` // 1
	Bundle []byte `cbor:"2,keyasint"` // the trust bundle in force (signed)
	Server string `cbor:"3,keyasint"`
}

// HomeHint is what an instance tells anybody of a device whose home it is, or was: the way back of one that lost its trust record. Nobody signs it. The
// record has the mark of the board that wrote it, and is worth nothing to any other; the address is where to ask next, and nothing else.
type HomeHint struct {
	Record []byte `cbor:"1,keyasint,omitempty"` // the device's trust record, as it brought it here
	Server string `cbor:"2,keyasint,omitempty"` // where it was handed to from here
}

// Bounds of the encoded messages.
const (
	MaxHomeServer = 256
	MaxTrust      = 128 << 10 // a device's trust record
	MaxHomeHint   = MaxTrust + MaxHomeServer + 64
	MaxHomeOffer  = MaxEnvelope + 1<<10
)

// BundleDigest names a trust bundle by its payload: whoever signs it once more does not make it another.
func BundleDigest(payload []byte) [32]byte { return sha256.Sum256(payload) }

// CheckHomeServer refuses what is no address that a device could call.
func CheckHomeServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || len(server) > MaxHomeServer || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Path != "" {
		return fmt.Errorf("server %.80q: want https://host[:port], of at most %d bytes", server, MaxHomeServer)
	}
	return nil
}

func (h Home) check() error {
	if len(h.Bundle) != sha256.Size {
		return fmt.Errorf("home: digest of a trust bundle of %d bytes", len(h.Bundle))
	}
	if err := CheckHomeServer(h.Server); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return nil
}

// Opens gives the trust bundle that a home names the digest of. It is signed by the threshold of its own root, and follows no other.
func (h Home) Opens(envelope []byte) (Bundle, error) {
	payload, _, err := ThresholdPayload(TypeBundle, envelope)
	if err != nil {
		return Bundle{}, err
	}
	if sum := BundleDigest(payload); !bytes.Equal(sum[:], h.Bundle) {
		return Bundle{}, fmt.Errorf("trust bundle %x, the warrant names %x", sum, h.Bundle)
	}
	b, err := VerifyBundle(nil, envelope)
	if err == nil && len(b.Anchors) == 0 {
		err = errors.New("it has no anchors: a device could verify no server by it")
	}
	return b, err
}

// Leads gives the trust bundle of a device that believed current, once it has followed h. Owner and time are looked at before a device sets
// out: a board keeps neither.
func (h Handover) Leads(current Bundle, device string) (Bundle, Home, error) {
	payload, err := VerifyThreshold(TypeWarrant, h.Warrant, current.Warrant)
	if err != nil {
		return Bundle{}, Home{}, err
	}
	w, err := DecodeWarrant(payload)
	if err != nil {
		return Bundle{}, Home{}, err
	}
	if w.Act != ActRehome {
		return Bundle{}, Home{}, fmt.Errorf("warrant %s is for %s, not for %s", w.ID, w.Act, ActRehome)
	}
	if err := h.Member.Verify(w.Devices, device); err != nil {
		return Bundle{}, Home{}, fmt.Errorf("warrant %s: %w", w.ID, err)
	}
	b, err := w.Home.Opens(h.Bundle)
	if err != nil {
		return Bundle{}, Home{}, fmt.Errorf("warrant %s: %w", w.ID, err)
	}
	if w.Product != current.Product || b.Product != current.Product {
		return Bundle{}, Home{}, fmt.Errorf("warrant %s: for product %q and to product %q, this is %q", w.ID, w.Product, b.Product, current.Product)
	}
	return b, *w.Home, nil
}

// WarrantIn gives the signed warrant of an entry of the control log.
func WarrantIn(entry []byte) ([]byte, error) {
	f, err := DecodeFact(entry)
	if err != nil {
		return nil, err
	}
	return f.Data, nil
}

// EncodeHomeHint writes h.
func EncodeHomeHint(h HomeHint) ([]byte, error) { return encode(h, MaxHomeHint) }

// DecodeHomeHint reads a hint.
func DecodeHomeHint(data []byte) (HomeHint, error) { return decode[HomeHint](data, MaxHomeHint) }

func (h HomeHint) check() error {
	if len(h.Record) == 0 && h.Server == "" {
		return errors.New("hint of a home: nothing is in it")
	}
	if len(h.Record) > MaxTrust {
		return fmt.Errorf("hint of a home: %w: a trust record of %d bytes", ErrTooLarge, len(h.Record))
	}
	if h.Server == "" {
		return nil
	}
	return CheckHomeServer(h.Server)
}

// EncodeHomeOffer writes o.
func EncodeHomeOffer(o HomeOffer) ([]byte, error) { return encode(o, MaxHomeOffer) }

// DecodeHomeOffer reads an offer, and what is in force there. Nobody signs it: it is believed by the warrant that names it.
func DecodeHomeOffer(data []byte) (HomeOffer, Bundle, error) {
	o, err := decode[HomeOffer](data, MaxHomeOffer)
	if err != nil {
		return HomeOffer{}, Bundle{}, err
	}
	b, err := VerifyBundle(nil, o.Bundle)
	return o, b, err
}

func (o HomeOffer) check() error {
	if o.V != 1 {
		return fmt.Errorf("offer of a home: version %d, want 1", o.V)
	}
	return CheckHomeServer(o.Server)
}

// Home gives what a warrant names of the offer.
func (o HomeOffer) Home() (Home, error) {
	payload, _, err := ThresholdPayload(TypeBundle, o.Bundle)
	if err != nil {
		return Home{}, err
	}
	sum := BundleDigest(payload)
	return Home{Bundle: sum[:], Server: o.Server}, nil
}
