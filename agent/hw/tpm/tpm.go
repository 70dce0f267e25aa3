// Package tpm keeps a device's keys in a TPM 2.0.
//
// Under all stages, on the device. Each key is made in the TPM, under its storage root key, and made persistent at a handle of its own; no other
// form of it exists, so that what is destroyed cannot be brought back, and nothing of it is in a file. A key signs digests that it is given
// (TPM2_Sign) and is not restricted: what it signs for is the agent's to say. It trusts the TPM and the line to it; bus encryption is
// not used, because no secret of a key passes over it.
package tpm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
)

// firstHandle begins the persistent handles of a device's keys, in the owner's range (0x81000000 to 0x817FFFFF), away from where the storage root
// key and other software put theirs.
const firstHandle tpm2.TPMHandle = 0x81484D00

// names are the keys that there is a handle for, in the order of their handles, which never changes.
var names = hw.AllNames()

// Keys is a key store in a TPM. It is safe for concurrent use: a TPM does one thing at a time.
type Keys struct {
	mu  sync.Mutex // guards the TPM's line
	tpm transport.TPMCloser
}

// Open opens the TPM at path: a device (/dev/tpmrm0) or the unix socket of one that is simulated.
func Open(path string) (*Keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("TPM: %w", err)
	}
	open := linuxtpm.Open
	if info.Mode()&os.ModeSocket != 0 {
		open = linuxudstpm.Open
	}
	t, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("TPM %s: %w", path, err)
	}
	k := &Keys{tpm: t}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(t); err != nil && !errors.Is(err, tpm2.TPMRCInitialize) { // it was started before, by the firmware
		return nil, errors.Join(fmt.Errorf("TPM %s: start: %w", path, err), t.Close())
	}
	return k, nil
}

// Close closes the line to the TPM. The keys stay.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tpm.Close()
}

// Origin implements hw.KeyStore.
func (k *Keys) Origin() string { return "tpm" }

// selfTest is TPM2_SelfTest(YES), which the library has no words for: TPM_ST_NO_SESSIONS, 11 bytes, its code, fullTest (TPM 2.0 part 3, §10.2).
var selfTest = []byte{0x80, 0x01, 0, 0, 0, 11, 0, 0, 0x01, 0x43, 1}

// SelfTest has the TPM test itself, all of it, and gives what it found.
func (k *Keys) SelfTest() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	said, err := k.tpm.Send(selfTest)
	if err != nil {
		return fmt.Errorf("TPM self test: %w", err)
	}
	if len(said) != 10 { // a header alone: tag, size, response code
		return fmt.Errorf("TPM self test: an answer of %d bytes", len(said))
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(said[6:])); rc != tpm2.TPMRCSuccess {
		return fmt.Errorf("TPM self test: %w", rc)
	}
	return nil
}

func handleOf(name string) (tpm2.TPMHandle, error) {
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("key %q: a TPM keeps the keys %v", name, names)
	}
	return firstHandle + tpm2.TPMHandle(i), nil
}

// curves are those that keys are made on.
var curves = map[suite.ID]tpm2.TPMECCCurve{suite.P256: tpm2.TPMECCNistP256, suite.P384: tpm2.TPMECCNistP384}

// Generate implements hw.KeyStore. What makes the key one that is kept is one command; before it there is nothing that outlasts a cut.
func (k *Keys) Generate(name string, id suite.ID) (crypto.PublicKey, error) {
	if name == hw.KeyCode {
		return nil, fmt.Errorf("%q signs nothing", name)
	}
	handle, err := handleOf(name)
	if err != nil {
		return nil, err
	}
	curve, ok := curves[id]
	if !ok {
		return nil, fmt.Errorf("suite %s: %w: a TPM 2.0 has none of it", id, hw.ErrSuite)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.public(handle); !errors.Is(err, hw.ErrNoKey) {
		return nil, errors.Join(fmt.Errorf("%q: %w", name, hw.ErrKeyExists), err)
	}
	err = k.keep(name, handle, signing(curve))
	if errors.Is(err, tpm2.TPMRCCurve) {
		return nil, fmt.Errorf("suite %s: %w: this TPM has not its curve", id, hw.ErrSuite)
	}
	if err != nil {
		return nil, err
	}
	p, err := k.public(handle)
	if err != nil {
		return nil, err
	}
	return p.key, nil
}

// keep makes a key, and has it stay at its handle.
func (k *Keys) keep(name string, handle tpm2.TPMHandle, template tpm2.TPMTPublic) (err error) {
	root, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(k.tpm)
	if err != nil {
		return fmt.Errorf("TPM: storage root key: %w", err)
	}
	defer func() { err = errors.Join(err, k.flush(root.ObjectHandle)) }()
	parent := tpm2.NamedHandle{Handle: root.ObjectHandle, Name: root.Name}
	made, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(k.tpm)
	if err != nil {
		return fmt.Errorf("TPM: make key %s: %w", name, err)
	}
	loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(k.tpm)
	if err != nil {
		return fmt.Errorf("TPM: load key %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, k.flush(loaded.ObjectHandle)) }()
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, PersistentHandle: handle,
	}).Execute(k.tpm); err != nil {
		return fmt.Errorf("TPM: keep key %s: %w", name, err)
	}
	return nil
}

// signing is the template of a key: it never leaves this TPM, was made in it, and signs.
func signing(curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve}),
	}
}

// agreeing is the template of the key that agrees on secrets: it opens by TPM2_ECDH_ZGen, and signs nothing.
func agreeing() tpm2.TPMTPublic {
	t := signing(tpm2.TPMECCNistP256)
	t.ObjectAttributes.SignEncrypt, t.ObjectAttributes.Decrypt = false, true
	return t
}

func (k *Keys) flush(h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(k.tpm)
	return err
}

// Signer implements hw.KeyStore.
func (k *Keys) Signer(name string) (crypto.Signer, error) {
	if name == hw.KeyCode {
		return nil, fmt.Errorf("%q signs nothing: %w", name, hw.ErrNoKey)
	}
	handle, err := handleOf(name)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.public(handle)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	return &signer{keys: k, handle: tpm2.NamedHandle{Handle: handle, Name: p.name}, pub: p.key, name: name}, nil
}

// Exchanger implements hw.KeyStore.
func (k *Keys) Exchanger() (ecdh.KeyExchanger, error) {
	handle, err := handleOf(hw.KeyCode)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.public(handle)
	if errors.Is(err, hw.ErrNoKey) {
		if err := k.keep(hw.KeyCode, handle, agreeing()); err != nil {
			return nil, err
		}
		p, err = k.public(handle)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", hw.KeyCode, err)
	}
	pub, err := p.key.ECDH()
	if err != nil {
		return nil, err
	}
	return &exchanger{keys: k, handle: tpm2.NamedHandle{Handle: handle, Name: p.name}, pub: pub}, nil
}

// exchanger agrees on secrets with a key that stays where it is.
type exchanger struct {
	keys   *Keys
	handle tpm2.NamedHandle
	pub    *ecdh.PublicKey
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.pub }

func (e *exchanger) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH gives the x-coordinate of what is agreed on, 32 bytes. The TPM checks that the other's point is on the curve.
func (e *exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	raw := peer.Bytes()
	if peer.Curve() != ecdh.P256() || len(raw) != 65 {
		return nil, fmt.Errorf("key %s: the other key is on another curve", hw.KeyCode)
	}
	e.keys.mu.Lock()
	defer e.keys.mu.Unlock()
	done, err := tpm2.ECDHZGen{
		KeyHandle: e.handle, InPoint: tpm2.New2B(tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]}}),
	}.Execute(e.keys.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("%q: %w", hw.KeyCode, hw.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM: agree with key %s: %w", hw.KeyCode, err)
	}
	point, err := done.OutPoint.Contents()
	if err != nil {
		return nil, fmt.Errorf("TPM: agree with key %s: %w", hw.KeyCode, err)
	}
	if n := len(point.X.Buffer); n == 0 || n > 32 {
		return nil, fmt.Errorf("TPM: agree with key %s: a coordinate of %d bytes", hw.KeyCode, n)
	}
	return append(make([]byte, 32-len(point.X.Buffer)), point.X.Buffer...), nil
}

// Destroy implements hw.KeyStore.
func (k *Keys) Destroy(name string) error {
	handle, err := handleOf(name)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.public(handle)
	if errors.Is(err, hw.ErrNoKey) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: handle, Name: p.name}, PersistentHandle: handle,
	}).Execute(k.tpm); err != nil {
		return fmt.Errorf("TPM: destroy key %s: %w", name, err)
	}
	return nil
}

type public struct {
	key  *ecdsa.PublicKey
	name tpm2.TPM2BName
}

// public reads what is at a handle, and refuses what is no key of ours: one that could be taken out, or was brought in, is nobody's identity.
func (k *Keys) public(h tpm2.TPMHandle) (public, error) {
	read, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(k.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return public{}, hw.ErrNoKey
	}
	if err != nil {
		return public{}, fmt.Errorf("TPM: read %#x: %w", h, err)
	}
	is := func(what string, err error) (public, error) {
		return public{}, errors.Join(fmt.Errorf("TPM: what is at %#x is %s", h, what), err)
	}
	agrees := names[h-firstHandle] == hw.KeyCode // it opens, the others sign; none does both
	area, err := read.OutPublic.Contents()
	if err != nil {
		return is("not to be read", err)
	}
	if a := area.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || a.SignEncrypt == agrees || a.Decrypt != agrees || a.Restricted {
		return is("no key that was made in it, to stay, and for what it is for", nil)
	}
	parms, err := area.Parameters.ECCDetail()
	if err != nil {
		return is("no key on a curve", err)
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return is("no key on a curve", err)
	}
	var curve elliptic.Curve
	switch parms.CurveID {
	case tpm2.TPMECCNistP256:
		curve = elliptic.P256()
	case tpm2.TPMECCNistP384:
		curve = elliptic.P384()
	default:
		return is(fmt.Sprintf("a key on curve %#x", parms.CurveID), nil)
	}
	size := (curve.Params().BitSize + 7) / 8
	raw := make([]byte, 1+2*size)
	if raw[0] = 4; len(point.X.Buffer) > size || len(point.Y.Buffer) > size {
		return is("no point of its curve", nil)
	}
	copy(raw[1+size-len(point.X.Buffer):], point.X.Buffer)
	copy(raw[1+2*size-len(point.Y.Buffer):], point.Y.Buffer)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, raw)
	if err != nil {
		return is("no point of its curve", err)
	}
	return public{key, read.Name}, nil
}

// signer signs with a key that stays where it is.
type signer struct {
	keys   *Keys
	handle tpm2.NamedHandle
	pub    *ecdsa.PublicKey
	name   string
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign signs a digest; the random numbers are the TPM's own. Which hash made it, its length says: there are callers that give no opts.
func (s *signer) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	var hash tpm2.TPMIAlgHash
	switch len(digest) {
	case crypto.SHA256.Size():
		hash = tpm2.TPMAlgSHA256
	case crypto.SHA384.Size():
		hash = tpm2.TPMAlgSHA384
	default:
		return nil, fmt.Errorf("key %s: a digest of %d bytes: want one of SHA-256 or SHA-384", s.name, len(digest))
	}
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	done, err := tpm2.Sign{
		KeyHandle: s.handle, Digest: tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hash})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}.Execute(s.keys.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("%q: %w", s.name, hw.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM: sign with key %s: %w", s.name, err)
	}
	sig, err := done.Signature.Signature.ECDSA()
	if err != nil {
		return nil, fmt.Errorf("TPM: signature of key %s: %w", s.name, err)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)})
}
