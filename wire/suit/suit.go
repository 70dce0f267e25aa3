// Package suit writes a release as a SUIT envelope, and reads such envelopes: draft-ietf-suit-manifest-37, of 18 June 2026.
//
// Stage 3, field. The encoding is not a standard yet, and one large vendor took its code for it out again: so the release is our own, and this is one more way to write it, for devices
// that have a SUIT processor and no agent of ours. The manifest follows from the release alone (Of), so that whoever has the one knows the other, and who approved the one can sign the other on a machine
// without a network.
//
//	envelope = tag 107 { 2: authentication, 3: manifest, ? 16: payload-fetch, ? 20: install, ? 23: text }
//	authentication = [ digest, * block ], each a byte string; a block is a COSE_Sign1 (tag 18) without its payload
//
// The digest is of the manifest with the head of the byte string that it is in; what a block signs is the digest's array without such a head. Severed elements have their digests in the manifest.
//
// What it guarantees: what it decodes, down to each command, it encodes to the same bytes; a severed element has its digest; a signature is believed by the key that it is given, ES256 (alg -7) or
// ESP256 (-9) over P-256. It runs nothing: which device a manifest is for, and what its commands do, is for a processor to say. Delegation, dependencies, integrated payloads and what other drafts
// add are refused, not passed over.
package suit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallmark-iot/hallmark/wire"
)

// Bounds.
const (
	MaxEnvelope = 256 << 10 // bytes
	maxBlocks   = 16
	maxDepth    = 4 // of sequences in sequences
	maxCommands = 1024
)

const sha256Alg = -16

// envelopeTag is tag 107 as it is encoded.
var envelopeTag = []byte{0xd8, 0x6b}

// Envelope is a manifest with its signatures and severed elements.
type Envelope struct {
	Blocks   [][]byte // COSE_Sign1, tagged, without payload
	Manifest []byte   // encoded
	Fetch    []byte   // severed elements; nil: not there
	Install  []byte
	Text     []byte
}

type envelopeMap struct {
	Authentication []byte `cbor:"2,keyasint"`
	Manifest       []byte `cbor:"3,keyasint"`
	Fetch          []byte `cbor:"16,keyasint,omitempty"`
	Install        []byte `cbor:"20,keyasint,omitempty"`
	Text           []byte `cbor:"23,keyasint,omitempty"`
}

// Manifest is what is signed.
type Manifest struct {
	Sequence   uint64
	Components [][][]byte // identifiers; each is a path
	Shared     []Command
	Reference  string
	Validate   []Command
	Load       []Command
	Invoke     []Command
	Fetch      Severable
	Install    Severable
	Text       Severable
}

// Severable is an element that may lie outside of the manifest. One of the two is there, or neither.
type Severable struct {
	Digest []byte // of what was severed: SHA-256
	Bytes  []byte // of a text: the encoded map
	Run    []Command
}

type manifestMap struct {
	Version   uint            `cbor:"1,keyasint"`
	Sequence  uint64          `cbor:"2,keyasint"`
	Common    []byte          `cbor:"3,keyasint"`
	Reference string          `cbor:"4,keyasint,omitempty"`
	Validate  []byte          `cbor:"7,keyasint,omitempty"`
	Load      []byte          `cbor:"8,keyasint,omitempty"`
	Invoke    []byte          `cbor:"9,keyasint,omitempty"`
	Fetch     cbor.RawMessage `cbor:"16,keyasint,omitempty"`
	Install   cbor.RawMessage `cbor:"20,keyasint,omitempty"`
	Text      cbor.RawMessage `cbor:"23,keyasint,omitempty"`
}

type commonMap struct {
	Components [][][]byte `cbor:"2,keyasint"`
	Shared     []byte     `cbor:"4,keyasint,omitempty"`
}

type digestArray struct {
	_         struct{} `cbor:",toarray"`
	Algorithm int
	Bytes     []byte
}

// encodeDigest is a SUIT_Digest.
func encodeDigest(sum []byte) ([]byte, error) {
	return wire.Marshal(digestArray{Algorithm: sha256Alg, Bytes: sum})
}

func decodeDigest(b []byte) ([]byte, error) {
	var d digestArray
	if err := wire.Unmarshal(b, &d, 64); err != nil {
		return nil, fmt.Errorf("suit: digest: %w", err)
	}
	if d.Algorithm != sha256Alg || len(d.Bytes) != sha256.Size {
		return nil, fmt.Errorf("suit: a digest by algorithm %d: want SHA-256 (%d)", d.Algorithm, sha256Alg)
	}
	return d.Bytes, nil
}

// wrappedSum is the digest of an element with the head of its byte string.
func wrappedSum(element []byte) ([]byte, error) {
	b, err := wire.Marshal(element)
	sum := sha256.Sum256(b)
	return sum[:], err
}

// Digest is the SUIT_Digest of an encoded manifest: what blocks sign.
func Digest(manifest []byte) ([]byte, error) {
	sum, err := wrappedSum(manifest)
	if err != nil {
		return nil, err
	}
	return encodeDigest(sum)
}

// Encode writes the envelope.
func (e Envelope) Encode() ([]byte, error) {
	digest, err := Digest(e.Manifest)
	if err != nil {
		return nil, err
	}
	auth, err := wire.Marshal(append([][]byte{digest}, e.Blocks...))
	if err != nil {
		return nil, err
	}
	b, err := wire.Marshal(envelopeMap{auth, e.Manifest, e.Fetch, e.Install, e.Text})
	if err != nil {
		return nil, err
	}
	if len(b)+len(envelopeTag) > MaxEnvelope || len(e.Blocks) > maxBlocks {
		return nil, fmt.Errorf("suit: an envelope of %d bytes with %d signatures, at most %d and %d", len(b), len(e.Blocks), MaxEnvelope, maxBlocks)
	}
	return append(bytes.Clone(envelopeTag), b...), nil
}

// Decode reads an envelope and the manifest in it. Its signatures are Verify's to check.
func Decode(data []byte) (Envelope, Manifest, error) {
	rest, ok := bytes.CutPrefix(data, envelopeTag)
	if !ok {
		return Envelope{}, Manifest{}, errors.New("suit: this is no SUIT envelope (tag 107)")
	}
	var m envelopeMap
	if err := wire.Unmarshal(rest, &m, MaxEnvelope); err != nil {
		return Envelope{}, Manifest{}, fmt.Errorf("suit: envelope: %w", err)
	}
	var auth [][]byte
	if err := wire.Unmarshal(m.Authentication, &auth, MaxEnvelope); err != nil {
		return Envelope{}, Manifest{}, fmt.Errorf("suit: authentication: %w", err)
	}
	if len(auth) == 0 || len(auth)-1 > maxBlocks {
		return Envelope{}, Manifest{}, fmt.Errorf("suit: a digest and at most %d signatures, not %d together", maxBlocks, len(auth))
	}
	e := Envelope{Blocks: auth[1:], Manifest: m.Manifest, Fetch: m.Fetch, Install: m.Install, Text: m.Text}
	sum, err := wrappedSum(e.Manifest)
	if err != nil {
		return Envelope{}, Manifest{}, err
	}
	if told, err := decodeDigest(auth[0]); err != nil || !bytes.Equal(told, sum) {
		return Envelope{}, Manifest{}, errors.Join(errors.New("suit: the manifest has not the digest that the envelope says"), err)
	}
	man, err := DecodeManifest(e.Manifest)
	if err != nil {
		return Envelope{}, Manifest{}, err
	}
	for _, s := range []struct {
		name    string
		severed []byte
		in      Severable
	}{{"payload-fetch", e.Fetch, man.Fetch}, {"install", e.Install, man.Install}, {"text", e.Text, man.Text}} {
		if s.severed == nil {
			continue
		}
		if sum, err := wrappedSum(s.severed); err != nil || !bytes.Equal(sum, s.in.Digest) {
			return Envelope{}, Manifest{}, errors.Join(fmt.Errorf("suit: the %s beside the manifest is not the one that it names", s.name), err)
		}
		if s.name == "text" {
			continue
		}
		if _, err := decodeSequence(s.severed, maxDepth); err != nil {
			return Envelope{}, Manifest{}, fmt.Errorf("suit: %s: %w", s.name, err)
		}
	}
	return e, man, nil
}

// Encode writes the manifest.
func (m Manifest) Encode() ([]byte, error) {
	out := manifestMap{Version: 1, Sequence: m.Sequence, Reference: m.Reference}
	common := commonMap{Components: m.Components}
	var err error
	for _, s := range []struct {
		into *[]byte
		run  []Command
	}{{&common.Shared, m.Shared}, {&out.Validate, m.Validate}, {&out.Load, m.Load}, {&out.Invoke, m.Invoke}} {
		if len(s.run) == 0 {
			continue
		}
		if *s.into, err = encodeSequence(s.run); err != nil {
			return nil, err
		}
	}
	if out.Common, err = wire.Marshal(common); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		into *cbor.RawMessage
		in   Severable
	}{{&out.Fetch, m.Fetch}, {&out.Install, m.Install}, {&out.Text, m.Text}} {
		if *s.into, err = s.in.encode(); err != nil {
			return nil, err
		}
	}
	return wire.Marshal(out)
}

func (s Severable) encode() (cbor.RawMessage, error) {
	switch {
	case s.Digest != nil:
		return encodeDigest(s.Digest)
	case s.Bytes != nil:
		return wire.Marshal(s.Bytes)
	case len(s.Run) == 0:
		return nil, nil
	}
	b, err := encodeSequence(s.Run)
	if err != nil {
		return nil, err
	}
	return wire.Marshal(b)
}

// decodeSeverable tells a digest, an array, from what is there, a byte string.
func decodeSeverable(raw cbor.RawMessage, text bool) (s Severable, err error) {
	if len(raw) == 0 {
		return s, nil
	}
	if raw[0]>>5 == 4 {
		s.Digest, err = decodeDigest(raw)
		return s, err
	}
	var b []byte
	if err := wire.Unmarshal(raw, &b, MaxEnvelope); err != nil {
		return s, err
	}
	if text {
		s.Bytes = b
		return s, nil
	}
	s.Run, err = decodeSequence(b, maxDepth)
	return s, err
}

// DecodeManifest reads a manifest, and all its commands.
func DecodeManifest(data []byte) (Manifest, error) {
	var in manifestMap
	if err := wire.Unmarshal(data, &in, MaxEnvelope); err != nil {
		return Manifest{}, fmt.Errorf("suit: manifest: %w", err)
	}
	if in.Version != 1 {
		return Manifest{}, fmt.Errorf("suit: manifest of version %d", in.Version)
	}
	var common commonMap
	if err := wire.Unmarshal(in.Common, &common, MaxEnvelope); err != nil {
		return Manifest{}, fmt.Errorf("suit: common: %w", err)
	}
	if len(common.Components) == 0 || len(common.Components) > wire.MaxComponents {
		return Manifest{}, fmt.Errorf("suit: %d components, want 1 to %d", len(common.Components), wire.MaxComponents)
	}
	m := Manifest{Sequence: in.Sequence, Components: common.Components, Reference: in.Reference}
	var err error
	for _, s := range []struct {
		name string
		from []byte
		into *[]Command
	}{{"shared-sequence", common.Shared, &m.Shared}, {"validate", in.Validate, &m.Validate}, {"load", in.Load, &m.Load}, {"invoke", in.Invoke, &m.Invoke}} {
		if s.from == nil {
			continue
		}
		if *s.into, err = decodeSequence(s.from, maxDepth); err != nil {
			return Manifest{}, fmt.Errorf("suit: %s: %w", s.name, err)
		}
	}
	for _, s := range []struct {
		name string
		from cbor.RawMessage
		into *Severable
	}{{"payload-fetch", in.Fetch, &m.Fetch}, {"install", in.Install, &m.Install}, {"text", in.Text, &m.Text}} {
		if *s.into, err = decodeSeverable(s.from, s.name == "text"); err != nil {
			return Manifest{}, fmt.Errorf("suit: %s: %w", s.name, err)
		}
	}
	again, err := m.Encode()
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(again, data) {
		return Manifest{}, errors.New("suit: the manifest is not the encoding of what it says")
	}
	return m, nil
}
