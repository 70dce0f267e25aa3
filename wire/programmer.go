package wire

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// The programming protocol between a station and a device that is being made, over any byte stream. The device connects, then
// the station leads. Each frame is a 4-byte big-endian length and a PortFrame.
//
//	device → station  hello
//	station → device  keys      device → station  keys      (generated on the device, with proof of possession)
//	station → device  install   device → station  ok        (certificate, bundle, release, parameters)
//	station → device  chunk …                               (the components' bytes, in the release's order, not answered)
//	station → device  readback  device → station  readback  (digests of what is on the device, read again)
//	station → device  fuse      device → station  fused     (last: from here on the device is closed)
//	station → device  done
//
// The device answers error instead of anything, and the piece is scrap or made again.
const (
	PortHello    = "hello"
	PortKeys     = "keys"
	PortInstall  = "install"
	PortChunk    = "chunk"
	PortReadBack = "readback"
	PortFuse     = "fuse"
	PortFused    = "fused"
	PortDone     = "done"
	PortOK       = "ok"
	PortError    = "error"
)

// PortVersion is the protocol's version, in hello.
const PortVersion = 1

// MaxPortFrame bounds a frame; PortChunkSize the data of one chunk.
const (
	MaxPortFrame  = 160 << 10
	PortChunkSize = OrderChunk
)

// PortFrame is one message of the programming protocol.
type PortFrame struct {
	Kind string `cbor:"1,keyasint"`
	Body []byte `cbor:"2,keyasint"`
}

// ChipHello is what a blank piece says of itself.
type ChipHello struct {
	Version   uint   `cbor:"1,keyasint" json:"version"`
	ChipUID   []byte `cbor:"2,keyasint" json:"chip_uid"` // 8 to 32 bytes, from the chip
	Hardware  string `cbor:"3,keyasint" json:"hardware"` // revision
	Flash     Flash  `cbor:"4,keyasint" json:"flash"`
	Lifecycle uint   `cbor:"5,keyasint" json:"lifecycle"` // LifecycleAssembly, or the piece is not blank
	Virtual   bool   `cbor:"6,keyasint" json:"virtual"`
}

// KeyRequest asks the device to generate its keys and to prove that it holds them, for this place in this order.
type KeyRequest struct {
	Order  string `cbor:"1,keyasint"`
	Seq    uint32 `cbor:"2,keyasint"` // the ticket
	Nonce  []byte `cbor:"3,keyasint"` // 32 bytes
	Device string `cbor:"4,keyasint"` // its ID from now on
}

// KeyReply is the two public keys and a signature by each over PossessionMessage (ECDSA, ASN.1, over SHA-256).
type KeyReply struct {
	IDevID      []byte `cbor:"1,keyasint"` // SPKI
	Attest      []byte `cbor:"2,keyasint"` // SPKI
	Origin      string `cbor:"3,keyasint"` // soft, isolated, tpm, pkcs11; OriginStation
	ProofIDevID []byte `cbor:"4,keyasint"`
	ProofAttest []byte `cbor:"5,keyasint"`
}

// Install gives the device all it keeps but the components' bytes.
type Install struct {
	Certificate []byte       `cbor:"1,keyasint"` // IDevID, DER
	Chain       [][]byte     `cbor:"2,keyasint"` // issuers, order CA first
	Bundle      []byte       `cbor:"3,keyasint"` // envelope
	Release     []byte       `cbor:"4,keyasint"` // envelope
	Params      DeviceParams `cbor:"5,keyasint"`
	Product     string       `cbor:"6,keyasint"`
	Hardware    string       `cbor:"7,keyasint"`
	Device      string       `cbor:"8,keyasint"`
}

// Chunk is a piece of a component. Chunks come in order, without gaps.
type Chunk struct {
	Component string `cbor:"1,keyasint"`
	Offset    uint64 `cbor:"2,keyasint"`
	Data      []byte `cbor:"3,keyasint"`
}

// ReadBack is what is on the device, read from its storage and hashed there (SHA-256).
type ReadBack struct {
	Components  []NamedDigest `cbor:"1,keyasint" json:"components"`
	Bundle      []byte        `cbor:"2,keyasint" json:"bundle"`      // of the envelope
	Release     []byte        `cbor:"3,keyasint" json:"release"`     // of the envelope
	Certificate []byte        `cbor:"4,keyasint" json:"certificate"` // of the DER
	Params      []byte        `cbor:"5,keyasint" json:"params"`      // of the encoded DeviceParams
}

// NamedDigest is the digest of one component.
type NamedDigest struct {
	Name   string `cbor:"1,keyasint" json:"name"`
	Digest []byte `cbor:"2,keyasint" json:"digest"`
}

// FuseRequest closes the device. The device burns in this order: root digest, counter, life cycle, debug lock; a cut in between
// leaves a piece that is not secured and cannot be mistaken for one that is.
type FuseRequest struct {
	Root    []byte `cbor:"1,keyasint"` // RootDigest of the bundle
	Counter uint32 `cbor:"2,keyasint"`
}

// FuseState is what the fuses read after burning.
type FuseState struct {
	Root        []byte `cbor:"1,keyasint" json:"root"`
	Counter     uint32 `cbor:"2,keyasint" json:"counter"`
	Lifecycle   uint   `cbor:"3,keyasint" json:"lifecycle"`
	DebugLocked bool   `cbor:"4,keyasint" json:"debug_locked"`
}

// PortFault is the device's refusal.
type PortFault struct {
	Code string `cbor:"1,keyasint"`
	Text string `cbor:"2,keyasint"`
}

// Error implements error.
func (f PortFault) Error() string { return fmt.Sprintf("the device refused (%s): %q", f.Code, f.Text) }

// EncodePortFrame writes one frame with its length; body may be nil.
func EncodePortFrame(kind string, body any) ([]byte, error) {
	f := PortFrame{Kind: kind, Body: []byte{}}
	if body != nil {
		b, err := Marshal(body)
		if err != nil {
			return nil, err
		}
		f.Body = b
	}
	enc, err := bounded(f, MaxPortFrame)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(enc))), enc...), nil
}

// PortFrameLen reads a frame's length and refuses one that is too long, before anything is allocated.
func PortFrameLen(head [4]byte) (int, error) {
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxPortFrame {
		return 0, fmt.Errorf("programming frame: %w: %d bytes", ErrTooLarge, n)
	}
	return int(n), nil
}

// DecodePortFrame reads a frame without its length.
func DecodePortFrame(data []byte) (PortFrame, error) {
	var f PortFrame
	if err := Unmarshal(data, &f, MaxPortFrame); err != nil {
		return PortFrame{}, err
	}
	switch f.Kind {
	case PortHello, PortKeys, PortInstall, PortChunk, PortReadBack, PortFuse, PortFused, PortDone, PortOK, PortError:
		return f, nil
	}
	return PortFrame{}, fmt.Errorf("programming frame: kind %q", f.Kind)
}

// DecodePortBody reads the body of a frame into v, which must be the type that belongs to its kind, and checks it.
func DecodePortBody[T PortBody](f PortFrame) (T, error) {
	v, err := decode[T](f.Body, MaxPortFrame)
	if err != nil {
		return v, fmt.Errorf("%s: %w", f.Kind, err)
	}
	return v, nil
}

// PortBody is what a frame carries.
type PortBody interface {
	ChipHello | KeyRequest | KeyReply | Install | Chunk | ReadBack | FuseRequest | FuseState | PortFault
	checked
}

func (h ChipHello) check() error {
	if h.Version != PortVersion {
		return fmt.Errorf("protocol version %d, this is %d", h.Version, PortVersion)
	}
	if len(h.ChipUID) < 8 || len(h.ChipUID) > 32 || h.Hardware == "" || len(h.Hardware) > 64 {
		return errors.New("chip UID of 8 to 32 bytes and hardware revision wanted")
	}
	return nil
}

func (k KeyRequest) check() error {
	if !validName(k.Order) || len(k.Nonce) != 32 || !ValidDeviceID(k.Device) {
		return errors.New("order, 32-byte nonce and device ID wanted")
	}
	return nil
}

func (k KeyReply) check() error {
	if !validOrigin(k.Origin) && k.Origin != OriginStation || len(k.ProofIDevID) > 256 || len(k.ProofAttest) > 256 {
		return fmt.Errorf("key origin %q, or proof too long", k.Origin)
	}
	return nil
}

// OriginStation is the key origin of a device whose keys its station made, because the chip cannot: they were in the memory of a
// computer that was not its maker's. An order has to allow it (OrderHeader.Keys), and no device says it of itself.
const OriginStation = "station"

// HardwareOrigin reports whether keys of that origin are kept by hardware: whoever takes the device's software over does not have them.
func HardwareOrigin(s string) bool { return s == "tpm" || s == "pkcs11" }

func validOrigin(s string) bool { return s == "soft" || s == "isolated" || s == "tpm" || s == "pkcs11" }

func (c Chunk) check() error {
	if c.Component == "" || len(c.Component) > 64 || len(c.Data) == 0 || len(c.Data) > PortChunkSize {
		return errors.New("component and data wanted")
	}
	return nil
}

func (i Install) check() error {
	if len(i.Certificate) == 0 || len(i.Chain) == 0 || len(i.Chain) > 5 || !ValidDeviceID(i.Device) {
		return errors.New("certificate, chain and device ID wanted")
	}
	return i.Params.check()
}

func (r ReadBack) check() error {
	if len(r.Components) == 0 || len(r.Components) > MaxComponents {
		return fmt.Errorf("%d components", len(r.Components))
	}
	for _, d := range [][]byte{r.Bundle, r.Release, r.Certificate, r.Params} {
		if len(d) != sha256.Size {
			return errors.New("a digest is not 32 bytes")
		}
	}
	for _, c := range r.Components {
		if c.Name == "" || len(c.Name) > 64 || len(c.Digest) != sha256.Size {
			return errors.New("a component without name or 32-byte digest")
		}
	}
	return nil
}

func (f FuseRequest) check() error {
	if len(f.Root) != sha256.Size {
		return errors.New("root digest is not 32 bytes")
	}
	return nil
}

func (f FuseState) check() error {
	if len(f.Root) != sha256.Size {
		return errors.New("root digest is not 32 bytes")
	}
	return nil
}

func (f PortFault) check() error {
	if len(f.Code) > 64 || len(f.Text) > 1024 {
		return errors.New("text too long")
	}
	return nil
}

// ValidDeviceID reports whether s is 32 lower-case hex digits.
func ValidDeviceID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// PossessionMessage is what both keys of a new device sign: nonce, order, place, and the chip and the keys they bind together.
func PossessionMessage(q KeyRequest, chipUID, idevid, attest []byte) ([]byte, error) {
	id, at := sha256.Sum256(idevid), sha256.Sum256(attest)
	return Marshal([]any{"hallmark-possession-1", q.Order, q.Seq, q.Nonce, q.Device, chipUID, id[:], at[:]})
}

// VerifyPossession checks both proofs, and that the two keys differ.
func VerifyPossession(q KeyRequest, chipUID []byte, r KeyReply) error {
	msg, err := PossessionMessage(q, chipUID, r.IDevID, r.Attest)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(msg)
	if string(r.IDevID) == string(r.Attest) {
		return errors.New("possession: one key for two purposes")
	}
	for _, k := range []struct {
		name        string
		spki, proof []byte
	}{{"identity", r.IDevID, r.ProofIDevID}, {"attestation", r.Attest, r.ProofAttest}} {
		pub, err := parseECDSA(k.spki)
		if err != nil {
			return fmt.Errorf("possession: %s key: %w", k.name, err)
		}
		if !ecdsa.VerifyASN1(pub, sum[:], k.proof) {
			return fmt.Errorf("possession: the device does not hold the %s key", k.name)
		}
	}
	return nil
}
