package wire

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
)

// TypeMaster is the `typ` of a master.
const TypeMaster Type = "application/hallmark-master+cose"

// MasterHeader says what is put on devices. Its encoding is the additional data of everything that is encrypted in the master, so that no part
// serves in another one.
type MasterHeader struct {
	OEM        string       `cbor:"1,keyasint" json:"oem"`
	Product    string       `cbor:"2,keyasint" json:"product"`
	Hardware   string       `cbor:"3,keyasint" json:"hardware"` // revision
	Revision   uint32       `cbor:"4,keyasint" json:"revision"` // of the master: it grows with each one for this product and hardware
	Version    string       `cbor:"5,keyasint" json:"version"`  // of the release
	Counter    uint32       `cbor:"6,keyasint" json:"counter"`  // security counter of the release
	Release    []byte       `cbor:"7,keyasint" json:"release"`  // ReleaseDigest
	Bundle     []byte       `cbor:"8,keyasint" json:"bundle"`   // SHA-256 of the trust bundle's envelope
	Trust      uint64       `cbor:"9,keyasint" json:"trust"`    // version of the trust bundle
	Params     []byte       `cbor:"10,keyasint" json:"params"`  // SHA-256 of the encoded parameters
	SBOM       []byte       `cbor:"11,keyasint" json:"sbom"`    // SHA-256 of the document
	Provenance []byte       `cbor:"12,keyasint" json:"provenance"`
	Parts      []MasterPart `cbor:"13,keyasint" json:"parts"`
	Created    uint64       `cbor:"14,keyasint" json:"created"` // Unix time
	Notes      string       `cbor:"15,keyasint,omitempty" json:"notes,omitempty"`
}

// MasterPart is a component of the release, as far as a person asks.
type MasterPart struct {
	Name    string        `cbor:"1,keyasint" json:"name"`
	Kind    ComponentKind `cbor:"2,keyasint" json:"kind"`
	Version string        `cbor:"3,keyasint" json:"version"`
	Size    uint64        `cbor:"4,keyasint" json:"size"` // bytes
	Digest  []byte        `cbor:"5,keyasint" json:"digest"`
}

// MasterKey is the content key, sealed to one who may wrap orders of the master: an instance, or a desk.
type MasterKey struct {
	Key    []byte `cbor:"1,keyasint" json:"key"`    // SealKeyID
	Sealed []byte `cbor:"2,keyasint" json:"sealed"` // HPKE (RFC 9180), base mode: 32 bytes
}

// Master is what one of the release's approvers signs: COSE_Sign1. Code has its own threshold, that of the release; this signature answers for the
// parameters, and for what was put together. The file is that of an order (ReadSealedHead): master, content, chunks.
type Master struct {
	Header MasterHeader `cbor:"1,keyasint" json:"header"`
	Keys   []MasterKey  `cbor:"2,keyasint" json:"keys"`
	Sealed []byte       `cbor:"3,keyasint" json:"sealed"` // SealedSum of the rest of the file
}

// MasterContent is the small secret part of a master.
type MasterContent struct {
	Bundle  []byte       `cbor:"1,keyasint"` // envelope
	Release []byte       `cbor:"2,keyasint"` // envelope
	Params  DeviceParams `cbor:"3,keyasint"`
}

// Bounds of a master.
const (
	MaxMaster     = 50 << 10
	MaxMasterKeys = 8
	MaxNotes      = 2000

	masterLabel = "hallmark-master-1/"
	masterInfo  = "hallmark-master/1"
)

// EncodeMaster writes m.
func EncodeMaster(m Master) ([]byte, error) { return encode(m, MaxMaster) }

// DecodeMaster reads a master's payload; see VerifyMaster.
func DecodeMaster(data []byte) (Master, error) { return decode[Master](data, MaxMaster) }

func (m Master) check() error {
	if err := m.Header.check(); err != nil {
		return fmt.Errorf("master: %w", err)
	}
	if len(m.Keys) == 0 || len(m.Keys) > MaxMasterKeys {
		return fmt.Errorf("master: sealed to %d, want 1 to %d", len(m.Keys), MaxMasterKeys)
	}
	seen := map[string]bool{}
	for _, k := range m.Keys {
		if len(k.Key) != 16 || len(k.Sealed) == 0 || len(k.Sealed) > 4<<10 || seen[string(k.Key)] {
			return errors.New("master: a sealed key is none, or is there twice")
		}
		seen[string(k.Key)] = true
	}
	if len(m.Sealed) != sha256.Size {
		return errors.New("master: no digest of the sealed content")
	}
	return nil
}

func (h MasterHeader) check() error {
	switch {
	case !validName(h.OEM) || !validName(h.Product) || h.Hardware == "" || len(h.Hardware) > 64:
		return errors.New("OEM, product and hardware revision: lower-case letters, digits, '-', '.', at most 64")
	case h.Revision == 0:
		return errors.New("no revision: count from 1")
	case h.Version == "" || len(h.Version) > 128 || len(h.Notes) > MaxNotes:
		return errors.New("no version, or a text that is too long")
	case len(h.SBOM) != sha256.Size:
		return errors.New("no SBOM: what is in it must be known for as long as devices are in the field")
	case len(h.Provenance) != sha256.Size:
		return errors.New("no provenance: where it was built, from what")
	case len(h.Release) != sha256.Size || len(h.Bundle) != sha256.Size || len(h.Params) != sha256.Size:
		return errors.New("a digest is not 32 bytes")
	case len(h.Parts) == 0 || len(h.Parts) > MaxComponents:
		return fmt.Errorf("%d components", len(h.Parts))
	}
	for _, p := range h.Parts {
		if p.Name == "" || len(p.Name) > 64 || len(p.Version) > 128 || p.Size == 0 || len(p.Digest) != sha256.Size {
			return fmt.Errorf("component %.64q: no name, size or digest", p.Name)
		}
	}
	return nil
}

// PartsOf is how a master tells of a release's components.
func PartsOf(r Release) (out []MasterPart) {
	for _, c := range r.Components {
		out = append(out, MasterPart{Name: c.Name, Kind: c.Kind, Version: c.Version, Size: c.Size, Digest: c.Digest})
	}
	return out
}

// ReadMaster reads what a master claims, before it is known whose it is; see VerifyMaster.
func ReadMaster(envelope []byte) (Master, error) {
	o, err := Parse1(TypeMaster, envelope)
	if err != nil {
		return Master{}, err
	}
	return DecodeMaster(o.Payload)
}

// VerifyMaster checks that one of the approvers of releases in the trust bundle b signed the master, and gives the SPKI of the one.
func VerifyMaster(b Bundle, envelope []byte) (Master, []byte, error) {
	o, err := Parse1(TypeMaster, envelope)
	if err != nil {
		return Master{}, nil, err
	}
	for _, spki := range b.Release.Keys {
		pub, err := ParseKey(spki)
		if err != nil || KeyIDOfSPKI(spki) != o.KeyID {
			continue
		}
		if err := o.Verify(pub); err != nil {
			return Master{}, nil, err
		}
		m, err := DecodeMaster(o.Payload)
		if err == nil && m.Header.Product != b.Product {
			err = fmt.Errorf("master: it is for product %q, the trust bundle for %q", m.Header.Product, b.Product)
		}
		return m, spki, err
	}
	return Master{}, nil, fmt.Errorf("master: it is signed by none of the approvers of releases in trust bundle %d of %s", b.Version, b.Product)
}

func masterSealInfo(h MasterHeader) (aad, info []byte, err error) {
	if aad, err = Marshal(h); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(aad)
	info, err = Marshal([]any{masterInfo, sum[:]})
	return aad, info, err
}

// MasterSealing is a master being made: its keys are sealed, its payload is sealed as it comes.
type MasterSealing struct {
	*FileSeal
	Master Master // without the digest, which Add gives
}

// SealMaster begins a master with its content and a payload of size bytes, for those with the HPKE keys to.
func SealMaster(h MasterHeader, c MasterContent, size uint64, to ...[]byte) (*MasterSealing, error) {
	aad, info, err := masterSealInfo(h)
	if err != nil {
		return nil, err
	}
	plain, err := EncodeMasterContent(c)
	if err != nil {
		return nil, err
	}
	cek := NewContentKey()
	defer clear(cek)
	m := Master{Header: h}
	for _, key := range to {
		pub, err := sealKEM().NewPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("master: key to seal to: %w", err)
		}
		k := MasterKey{Key: SealKeyID(key)}
		if k.Sealed, err = hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info, cek); err != nil {
			return nil, fmt.Errorf("master: %w", err)
		}
		m.Keys = append(m.Keys, k)
	}
	aead, err := contentAEAD(cek, masterLabel+"content")
	if err != nil {
		return nil, err
	}
	s, err := newSeal(cek, masterLabel, aad, aead.Seal(nil, chunkNonce(0), plain, aad), size)
	return &MasterSealing{s, m}, err
}

// Sign signs the master over what Add gave.
func (s *MasterSealing) Sign(sealed [32]byte, approver crypto.Signer) ([]byte, error) {
	s.Master.Sealed = sealed[:]
	payload, err := EncodeMaster(s.Master)
	if err != nil {
		return nil, err
	}
	return Sign1(TypeMaster, payload, approver)
}

// Open opens the secret part with the private key of SealKeyID key, and gives what opens the chunks, of which there are n.
func (m Master) Open(key, private, content []byte, n int) (MasterContent, *ChunkOpener, error) {
	aad, info, err := masterSealInfo(m.Header)
	if err != nil {
		return MasterContent{}, nil, err
	}
	priv, err := sealKEM().NewPrivateKey(private)
	if err != nil {
		return MasterContent{}, nil, fmt.Errorf("master: key: %w", err)
	}
	for _, k := range m.Keys {
		if !bytes.Equal(k.Key, key) {
			continue
		}
		cek, err := hpke.Open(priv, hpke.HKDFSHA256(), hpke.AES256GCM(), info, k.Sealed)
		if err != nil {
			return MasterContent{}, nil, errors.New("master: its key was not sealed for this one and this master, or was changed")
		}
		defer clear(cek)
		return m.open(cek, aad, content, n)
	}
	return MasterContent{}, nil, errors.New("master: it is not sealed for this key")
}

func (m Master) open(cek, aad, content []byte, n int) (MasterContent, *ChunkOpener, error) {
	aead, err := contentAEAD(cek, masterLabel+"content")
	if err != nil {
		return MasterContent{}, nil, err
	}
	plain, err := aead.Open(nil, chunkNonce(0), content, aad)
	if err != nil {
		return MasterContent{}, nil, errors.New("master: the content was not sealed for this master, or was changed")
	}
	c, err := DecodeMasterContent(plain)
	if err != nil {
		return MasterContent{}, nil, err
	}
	if err := m.holds(c); err != nil {
		return MasterContent{}, nil, err
	}
	o, err := newOpener(cek, masterLabel, aad, n)
	return c, o, err
}

// holds compares the content with what the header promises.
func (m Master) holds(c MasterContent) error {
	params, err := Marshal(c.Params)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		what      string
		data, sum []byte
	}{{"trust bundle", c.Bundle, m.Header.Bundle}, {"parameters", params, m.Header.Params}} {
		if got := sha256.Sum256(p.data); !bytes.Equal(got[:], p.sum) {
			return fmt.Errorf("master: the %s in it is not what was signed", p.what)
		}
	}
	return nil
}

// EncodeMasterContent writes c.
func EncodeMasterContent(c MasterContent) ([]byte, error) { return encode(c, MaxOrderContent) }

// DecodeMasterContent reads the secret part, after it has been opened.
func DecodeMasterContent(data []byte) (MasterContent, error) {
	return decode[MasterContent](data, MaxOrderContent)
}

func (c MasterContent) check() error {
	if len(c.Bundle) == 0 || len(c.Release) == 0 {
		return errors.New("master content: no trust bundle or release")
	}
	return c.Params.check()
}
