package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/veraison/go-cose"
)

// ErrSignature says that a manifest is not signed by a key.
var ErrSignature = errors.New("suit: signature")

// esp256 is ES256 by its newer name, which says the curve as well (RFC 9864).
const esp256 = cose.Algorithm(-9)

// verifier takes either name.
type verifier struct {
	alg cose.Algorithm
	key *ecdsa.PublicKey
}

// Algorithm implements cose.Verifier.
func (v verifier) Algorithm() cose.Algorithm { return v.alg }

// Verify implements cose.Verifier.
func (v verifier) Verify(content, sig []byte) error {
	sum := sha256.Sum256(content)
	if len(sig) != 64 || !ecdsa.Verify(v.key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return cose.ErrVerification
	}
	return nil
}

func p256(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: a key of type %T: SUIT manifests are signed by P-256 here", ErrSignature, pub)
	}
	return k, nil
}

// Sign makes an authentication block over an encoded manifest.
func Sign(manifest []byte, key crypto.Signer) ([]byte, error) {
	if _, err := p256(key.Public()); err != nil {
		return nil, err
	}
	digest, err := Digest(manifest)
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(cose.AlgorithmES256, key)
	if err != nil {
		return nil, err
	}
	msg := cose.NewSign1Message()
	msg.Headers.Protected.SetAlgorithm(cose.AlgorithmES256)
	msg.Payload = digest
	if err := msg.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("sign the SUIT manifest: %w", err)
	}
	msg.Payload = nil // it stands before the blocks, once for all
	return msg.MarshalCBOR()
}

// VerifyBlock checks one authentication block over an encoded manifest.
func VerifyBlock(manifest, block []byte, pub crypto.PublicKey) error {
	key, err := p256(pub)
	if err != nil {
		return err
	}
	var msg cose.Sign1Message
	if err := msg.UnmarshalCBOR(block); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if again, err := msg.MarshalCBOR(); err != nil || !bytes.Equal(again, block) || msg.Payload != nil || len(msg.Headers.Unprotected) != 0 {
		return fmt.Errorf("%w: want a COSE_Sign1 without payload and without what is not signed", ErrSignature)
	}
	alg, err := msg.Headers.Protected.Algorithm()
	if err != nil || alg != cose.AlgorithmES256 && alg != esp256 {
		return fmt.Errorf("%w: algorithm %v: want ES256 (-7) or ESP256 (-9)", ErrSignature, alg)
	}
	if msg.Payload, err = Digest(manifest); err != nil {
		return err
	}
	if err := msg.Verify(nil, verifier{alg, key}); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// Verify says whether one of the envelope's blocks is by that key.
func (e Envelope) Verify(pub crypto.PublicKey) error {
	err := fmt.Errorf("%w: there is none", ErrSignature)
	for _, b := range e.Blocks {
		if err = VerifyBlock(e.Manifest, b, pub); err == nil {
			return nil
		}
	}
	return err
}
