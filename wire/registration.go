package wire

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// What a desk, which wraps orders without a server, signs with its order key.
const (
	TypeDesk         Type = "application/hallmark-desk+cose"
	TypeRegistration Type = "application/hallmark-registration+cose"
)

// Desk is what a desk tells of itself: COSE_Sign1 by its order key. Whether it may order is decided where it is taken in.
type Desk struct {
	Name     string   `cbor:"1,keyasint" json:"name"`
	OEM      string   `cbor:"2,keyasint" json:"oem"`
	OrderKey []byte   `cbor:"3,keyasint" json:"order_key"` // SPKI; signs this, and its orders
	CAs      [][]byte `cbor:"4,keyasint" json:"cas"`       // certificates (DER) of its product CAs, which the OEM's root signed
	Issued   uint64   `cbor:"5,keyasint" json:"issued"`    // Unix time
}

// Registration tells an instance of an order that a desk has wrapped: COSE_Sign1 by the desk's order key. What is secret of it is sealed to the
// instance, and bound to the order.
type Registration struct {
	Desk       string `cbor:"1,keyasint" json:"desk"`
	Order      []byte `cbor:"2,keyasint" json:"order"`       // COSE_Sign1(Order), as the station has it
	Station    []byte `cbor:"3,keyasint" json:"station"`     // COSE_Sign1(Station), its descriptor
	ReleaseSum []byte `cbor:"4,keyasint" json:"release_sum"` // SHA-256 of the release's envelope that is put on devices
	ParamsSum  []byte `cbor:"5,keyasint" json:"params_sum"`  // SHA-256 of the encoded parameters
	Key        []byte `cbor:"6,keyasint" json:"key"`         // SealKeyID of the instance's key
	Sealed     []byte `cbor:"7,keyasint" json:"sealed"`      // HPKE (RFC 9180), base mode: RegistrationSecret

	Master *RegisteredMaster `cbor:"8,keyasint,omitempty" json:"master,omitempty"` // that it was wrapped of; nil: of a release and parameters
}

// RegisteredMaster is which master of its product and hardware an order was wrapped of. It is the desk's word.
type RegisteredMaster struct {
	Revision uint32 `cbor:"1,keyasint" json:"revision"`
	Digest   []byte `cbor:"2,keyasint" json:"digest"` // SHA-256 of the signed master
}

// RegistrationSecret is what nobody but the desk and the instance knows of an order.
type RegistrationSecret struct {
	Seed   []byte `cbor:"1,keyasint"` // of the tickets
	Return []byte `cbor:"2,keyasint"` // P-256 scalar that opens the station's records
}

// Bounds of what a desk writes.
const (
	MaxDesk         = 16 << 10
	MaxRegistration = 52 << 10

	maxRegistrationSecret = 256

	maxDeskCAs       = 16
	maxRegSealed     = 4 << 10
	registrationInfo = "hallmark-registration/1"
)

// SignDesk writes d, signed by the key that it names.
func SignDesk(d Desk, key crypto.Signer) ([]byte, error) {
	var err error
	if d.OrderKey, err = SPKIOf(key.Public()); err != nil {
		return nil, err
	}
	payload, err := EncodeDesk(d)
	if err != nil {
		return nil, err
	}
	return Sign1(TypeDesk, payload, key)
}

// OpenDesk reads what a desk tells of itself, and checks that it holds the order key that it names.
func OpenDesk(envelope []byte) (Desk, error) {
	o, err := Parse1(TypeDesk, envelope)
	if err != nil {
		return Desk{}, err
	}
	d, err := DecodeDesk(o.Payload)
	if err != nil {
		return Desk{}, err
	}
	pub, err := ParseKey(d.OrderKey)
	if err != nil {
		return Desk{}, fmt.Errorf("desk: order key: %w", err)
	}
	return d, o.Verify(pub)
}

// EncodeDesk writes d.
func EncodeDesk(d Desk) ([]byte, error) { return encode(d, MaxDesk) }

// DecodeDesk reads the payload of what a desk tells of itself; see OpenDesk.
func DecodeDesk(data []byte) (Desk, error) { return decode[Desk](data, MaxDesk) }

func (d Desk) check() error {
	switch {
	case !validName(d.Name) || !validName(d.OEM):
		return errors.New("desk: name and OEM: lower-case letters, digits, '-' and '.', at most 64")
	case len(d.CAs) == 0 || len(d.CAs) > maxDeskCAs:
		return fmt.Errorf("desk: %d product CAs, want 1 to %d", len(d.CAs), maxDeskCAs)
	case d.Issued == 0:
		return errors.New("desk: no time")
	}
	for i, der := range d.CAs {
		if c, err := x509.ParseCertificate(der); err != nil || !bytes.Equal(c.Raw, der) {
			return fmt.Errorf("desk: certificate %d does not parse", i)
		}
	}
	if _, err := ParseKey(d.OrderKey); err != nil {
		return fmt.Errorf("desk: order key: %w", err)
	}
	return nil
}

// SealKeyID names a key that registrations are sealed to: the first 16 bytes of SHA-256 over its public part.
func SealKeyID(public []byte) []byte {
	sum := sha256.Sum256(public)
	return sum[:16]
}

// sealKEM is what registrations are sealed by: a quantum computer of later years learns from one that was mailed today which serials there are, and
// whatever the station's records say.
func sealKEM() hpke.KEM { return hpke.MLKEM768P256() }

// CheckSealKey says whether a registration can be sealed to the key.
func CheckSealKey(public []byte) error {
	if _, err := sealKEM().NewPublicKey(public); err != nil {
		return fmt.Errorf("key for registrations: %w", err)
	}
	return nil
}

func sealInfo(desk string, order []byte) ([]byte, error) {
	sum := sha256.Sum256(order)
	return Marshal([]any{registrationInfo, desk, sum[:]})
}

// SignRegistration seals the secret to an instance's key, bound to the order, and signs the whole with the desk's order key.
func SignRegistration(r Registration, secret RegistrationSecret, to []byte, key crypto.Signer) ([]byte, error) {
	pub, err := sealKEM().NewPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("key for registrations: %w", err)
	}
	info, err := sealInfo(r.Desk, r.Order)
	if err != nil {
		return nil, err
	}
	plain, err := encode(secret, maxRegistrationSecret)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	r.Key = SealKeyID(to)
	if r.Sealed, err = hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plain); err != nil {
		return nil, fmt.Errorf("seal the registration: %w", err)
	}
	payload, err := EncodeRegistration(r)
	if err != nil {
		return nil, err
	}
	return Sign1(TypeRegistration, payload, key)
}

// ReadRegistration reads what a registration claims, before it is known whose it is; see VerifyRegistration.
func ReadRegistration(envelope []byte) (Registration, error) {
	o, err := Parse1(TypeRegistration, envelope)
	if err != nil {
		return Registration{}, err
	}
	return DecodeRegistration(o.Payload)
}

// VerifyRegistration checks the signatures of a registration and of the order in it, by the desk's order key.
func VerifyRegistration(envelope []byte, key crypto.PublicKey) (Registration, Order, error) {
	payload, err := Verify1(TypeRegistration, envelope, key)
	if err != nil {
		return Registration{}, Order{}, err
	}
	r, err := DecodeRegistration(payload)
	if err != nil {
		return Registration{}, Order{}, err
	}
	o, err := VerifyOrder(r.Order, key)
	return r, o, err
}

// Open opens the secret with the instance's private key.
func (r Registration) Open(key []byte) (RegistrationSecret, error) {
	priv, err := sealKEM().NewPrivateKey(key)
	if err != nil {
		return RegistrationSecret{}, fmt.Errorf("key for registrations: %w", err)
	}
	info, err := sealInfo(r.Desk, r.Order)
	if err != nil {
		return RegistrationSecret{}, err
	}
	plain, err := hpke.Open(priv, hpke.HKDFSHA256(), hpke.AES256GCM(), info, r.Sealed)
	if err != nil {
		return RegistrationSecret{}, errors.New("registration: its secret was not sealed for this instance and this order, or was changed")
	}
	defer clear(plain)
	return DecodeRegistrationSecret(plain)
}

// EncodeRegistration writes r.
func EncodeRegistration(r Registration) ([]byte, error) { return encode(r, MaxRegistration) }

// DecodeRegistration reads the payload of a registration.
func DecodeRegistration(data []byte) (Registration, error) {
	return decode[Registration](data, MaxRegistration)
}

func (r Registration) check() error {
	switch {
	case !validName(r.Desk):
		return errors.New("registration: the desk's name: lower-case letters, digits, '-' and '.', at most 64")
	case len(r.Order) == 0 || len(r.Order) > MaxOrder+1024 || len(r.Station) == 0 || len(r.Station) > MaxStation+1024:
		return errors.New("registration: no order or station, or too long")
	case len(r.ReleaseSum) != sha256.Size || len(r.ParamsSum) != sha256.Size || len(r.Key) != 16:
		return errors.New("registration: a digest is not of its length")
	case len(r.Sealed) == 0 || len(r.Sealed) > maxRegSealed:
		return fmt.Errorf("registration: a sealed secret of %d bytes", len(r.Sealed))
	case r.Master != nil && (r.Master.Revision == 0 || len(r.Master.Digest) != sha256.Size):
		return errors.New("registration: a master without revision or digest")
	}
	return nil
}

// DecodeRegistrationSecret reads an opened secret.
func DecodeRegistrationSecret(data []byte) (RegistrationSecret, error) {
	return decode[RegistrationSecret](data, maxRegistrationSecret)
}

func (s RegistrationSecret) check() error {
	if len(s.Seed) != 32 || len(s.Return) != 32 {
		return errors.New("registration: seed and return key are of 32 bytes each")
	}
	return nil
}
