package wire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// A voucher lets a device that lost both its keys be given new ones, once. As a person types it, and as a QR code holds it, it is 20 bytes
// in base32 (RFC 4648 §6, without padding), in groups of four: 17 random bytes, and the first three of
// SHA-256("hallmark-voucher-1/" ‖ device ID ‖ "/" ‖ the 17). The check is over the device's ID too, so that a slip of the finger, or another
// device's voucher, is found where it is typed.
const (
	voucherSecret = 17 // 136 bits: not to be guessed, however often somebody may try
	voucherCheck  = 3
)

var (
	voucherText = base32.StdEncoding.WithPadding(base32.NoPadding)

	// ErrVoucher says that a text is no voucher of the device.
	ErrVoucher = errors.New("not a voucher of this device: look for a slip of the finger")
)

// NewVoucher makes the secret of a voucher for device.
func NewVoucher(device string) string {
	b := make([]byte, voucherSecret)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	s := voucherText.EncodeToString(append(b, checkVoucher(device, b)...))
	var groups []string
	for ; len(s) > 0; s = s[4:] {
		groups = append(groups, s[:4])
	}
	return strings.Join(groups, "-")
}

func checkVoucher(device string, secret []byte) []byte {
	sum := sha256.Sum256(append([]byte("hallmark-voucher-1/"+device+"/"), secret...))
	return sum[:voucherCheck]
}

// ParseVoucher reads the text of a voucher for device, with hyphens and spaces anywhere and letters of any size, and gives its secret.
func ParseVoucher(device, text string) ([]byte, error) {
	if len(text) > 128 || !ValidDeviceID(device) {
		return nil, ErrVoucher
	}
	flat := strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == ' ':
			return -1
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, text)
	b, err := voucherText.DecodeString(flat)
	if err != nil || len(b) != voucherSecret+voucherCheck || voucherText.EncodeToString(b) != flat {
		return nil, ErrVoucher
	}
	if subtle.ConstantTimeCompare(checkVoucher(device, b[:voucherSecret]), b[voucherSecret:]) != 1 {
		return nil, ErrVoucher
	}
	return b[:voucherSecret], nil
}

// VoucherHash is what a server keeps of a voucher instead of its secret. Nobody finds 136 random bits by their hash, so that it need not be slow.
func VoucherHash(device string, secret []byte) [32]byte {
	return sha256.Sum256(append([]byte("hallmark-voucher-hash-1/"+device+"/"), secret...))
}

// OIDRekey names the extension of a certificate request that holds a RekeyClaim. crypto/x509 has room for 31 bits in each part of an extension's
// name, so that a random UUID (X.667) does not fit: this is one of which the first 97 bits are zero.
func OIDRekey() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1409813117, 1} }

// RekeyClaim is what a device says that asks for a new identity by a voucher, in its certificate request: which chip it is, and its new attestation
// key, which signs for the whole. The request itself is signed by the new identity key.
type RekeyClaim struct {
	Version uint   `cbor:"1,keyasint"`
	Device  string `cbor:"2,keyasint"`
	ChipUID []byte `cbor:"3,keyasint"`
	Attest  []byte `cbor:"4,keyasint"` // SPKI
	Origin  string `cbor:"5,keyasint"` // soft, isolated, tpm, pkcs11; OriginStation
	Proof   []byte `cbor:"6,keyasint"` // ECDSA by Attest, over SHA-256 of RekeyMessage
}

// MaxRekeyClaim bounds a claim.
const MaxRekeyClaim = 1 << 10

// RekeyMessage is what the new attestation key signs: the chip and both new keys, bound together.
func RekeyMessage(c RekeyClaim, idevid []byte) ([]byte, error) {
	id, at := sha256.Sum256(idevid), sha256.Sum256(c.Attest)
	return Marshal([]any{"hallmark-rekey-1", c.Device, c.ChipUID, id[:], at[:], c.Origin})
}

// NewRekeyClaim makes a device's claim: idevid is its new identity key (SPKI), attest its new attestation key.
func NewRekeyClaim(device string, chipUID, idevid []byte, attest crypto.Signer, origin string) (RekeyClaim, error) {
	spki, err := SPKIOf(attest.Public())
	if err != nil {
		return RekeyClaim{}, err
	}
	c := RekeyClaim{Version: 1, Device: device, ChipUID: chipUID, Attest: spki, Origin: origin}
	msg, err := RekeyMessage(c, idevid)
	if err != nil {
		return RekeyClaim{}, err
	}
	sum := sha256.Sum256(msg)
	c.Proof, err = attest.Sign(rand.Reader, sum[:], crypto.SHA256)
	return c, err
}

// EncodeRekeyClaim writes c.
func EncodeRekeyClaim(c RekeyClaim) ([]byte, error) { return encode(c, MaxRekeyClaim) }

// DecodeRekeyClaim reads a claim. Whether it holds is Verify's to say.
func DecodeRekeyClaim(data []byte) (RekeyClaim, error) {
	return decode[RekeyClaim](data, MaxRekeyClaim)
}

func (c RekeyClaim) check() error {
	switch {
	case c.Version != 1:
		return fmt.Errorf("re-key claim: version %d, this is 1", c.Version)
	case !ValidDeviceID(c.Device) || len(c.ChipUID) < 8 || len(c.ChipUID) > 32:
		return errors.New("re-key claim: device ID and a chip UID of 8 to 32 bytes wanted")
	case !validOrigin(c.Origin) && c.Origin != OriginStation || len(c.Proof) == 0 || len(c.Proof) > 256:
		return fmt.Errorf("re-key claim: key origin %q, or a proof of %d bytes", c.Origin, len(c.Proof))
	}
	_, err := parseECDSA(c.Attest)
	return err
}

// Verify checks that the attestation key stands for the claim, beside the identity key idevid (SPKI), which is another one.
func (c RekeyClaim) Verify(idevid []byte) error {
	if string(idevid) == string(c.Attest) {
		return errors.New("re-key claim: one key for two purposes")
	}
	pub, err := parseECDSA(c.Attest)
	if err != nil {
		return fmt.Errorf("re-key claim: %w", err)
	}
	msg, err := RekeyMessage(c, idevid)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(msg); !ecdsa.VerifyASN1(pub, sum[:], c.Proof) {
		return errors.New("re-key claim: the device does not hold the attestation key")
	}
	return nil
}

// RecoveryKit is what a server tells a device that came back by a voucher and has nothing left: what the factory had laid down, but for its keys.
// The device believes it because the server named itself under the anchors of the trust bundle that its fuses lead to.
type RecoveryKit struct {
	Device   string      `cbor:"1,keyasint"`
	Product  string      `cbor:"2,keyasint"`
	Hardware string      `cbor:"3,keyasint"`
	OEM      string      `cbor:"4,keyasint"`
	Model    UpdateModel `cbor:"5,keyasint"`
	Issuers  [][]byte    `cbor:"6,keyasint"` // certificates between the new identity's and the root, the re-key CA first (DER)
}

// MaxRecoveryKit bounds a kit.
const MaxRecoveryKit = 16 << 10

// EncodeRecoveryKit writes k.
func EncodeRecoveryKit(k RecoveryKit) ([]byte, error) { return encode(k, MaxRecoveryKit) }

// DecodeRecoveryKit reads a kit.
func DecodeRecoveryKit(data []byte) (RecoveryKit, error) {
	return decode[RecoveryKit](data, MaxRecoveryKit)
}

func (k RecoveryKit) check() error {
	switch {
	case !ValidDeviceID(k.Device) || !validName(k.Product) || k.OEM == "" || k.Hardware == "" || len(k.OEM)+len(k.Hardware) > 128:
		return errors.New("recovery kit: device, product, OEM and hardware wanted")
	case k.Model != ModelOTP && k.Model != ModelBlob && k.Model != ModelAsset:
		return fmt.Errorf("recovery kit: update model %q", k.Model)
	case len(k.Issuers) == 0 || len(k.Issuers) > 4:
		return fmt.Errorf("recovery kit: %d issuers, want 1 to 4", len(k.Issuers))
	}
	return nil
}
