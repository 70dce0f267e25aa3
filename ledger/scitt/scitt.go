// Package scitt gives COSE receipts (RFC 9942) of facts, for verifiers that know that format and not ours.
//
// Under all stages. A receipt says that a fact is in its log, signed by the log's own key. It is made for roots only that are published and
// witnessed, and so commits the log to nothing new; but the format has no place for cosignatures, so whoever has only a receipt
// believes the log's key alone. Where it matters, use a chain of custody or the tlog proof.
//
// The log's key signs two kinds of text, and they cannot be mistaken for each other: a checkpoint begins with the log's origin, which is
// printable, and what COSE signs begins with the byte 0x84.
package scitt

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// MediaType is that of a receipt (RFC 9943).
const MediaType = "application/scitt-receipt+cose"

// Header labels and values: RFC 9942, RFC 9597, RFC 8392.
const (
	labelVDS    int64 = 395 // verifiable data structure
	labelVDP    int64 = 396 // verifiable data proofs
	vdsRFC9162  int64 = 1   // Merkle tree with SHA-256
	proofInside int64 = -1  // inclusion
	labelCWT    int64 = 15
	claimIssuer int64 = 1
	claimAbout  int64 = 2
)

// LogKey is the name and the Ed25519 key of a log.
type LogKey struct {
	Origin string
	Key    crypto.Signer
}

// Config is what a Service needs.
type Config struct {
	Ledger *ledger.Reader
	Guard  *access.Guard
	Keys   map[ledger.Log]LogKey
}

// Service makes receipts.
type Service struct{ cfg Config }

// NewService makes the service.
func NewService(cfg Config) *Service { return &Service{cfg} }

// Receipt gives a receipt of the fact with that UID. It is Unavailable until a witnessed checkpoint covers the fact.
func (s *Service) Receipt(ctx context.Context, caller access.Caller, uid [16]byte) ([]byte, error) {
	name := hex.EncodeToString(uid[:])
	if err := s.cfg.Guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: name}); err != nil {
		return nil, err // before it is told whether there is one
	}
	ref, placed, err := s.cfg.Ledger.Locate(ctx, uid)
	if err != nil {
		return nil, notYet(name, err)
	}
	if !placed {
		return nil, notYet(name, ledger.ErrNotYetWitnessed)
	}
	l, err := s.cfg.Ledger.Prove(ctx, ref)
	if err != nil {
		return nil, notYet(name, err)
	}
	key, ok := s.cfg.Keys[ref.Log]
	if !ok {
		return nil, fmt.Errorf("receipt of fact %s: no key for the log %s", name, ref.Log)
	}
	return Sign(l, name, key)
}

func notYet(name string, err error) error {
	switch {
	case errors.Is(err, ledger.ErrNotYetWitnessed):
		return fault.Newf(fault.Unavailable, "fact.pending", "fact %s: %w", name, err).With("ask again in a second")
	case errors.Is(err, ledger.ErrNotFound):
		return fault.Newf(fault.NotFound, "ledger.no-entry", "fact %s: %w", name, err).With("see `hallmark fact list`")
	}
	return err
}

// Sign makes the receipt of an entry whose proof stands under a published root: COSE_Sign1 over the root, which is left out, and the path
// from the entry to it. about names the entry. A tree of one entry has no path, and none can be made.
func Sign(l wire.Logged, about string, key LogKey) ([]byte, error) {
	p := l.Proof
	root, err := wire.RootFromPath(p.Index, p.Size, ledger.LeafHash(l.Entry), p.Path)
	if err != nil {
		return nil, err
	}
	if len(p.Path) == 0 {
		return nil, errors.New("a log of one entry has no path to make a receipt of")
	}
	inclusion, err := wire.Marshal([]any{p.Size, p.Index, p.Path})
	if err != nil {
		return nil, err
	}
	kid, err := wire.KeyIDOf(key.Key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key.Key)
	if err != nil {
		return nil, fmt.Errorf("receipt of %s: %w", about, err)
	}
	m := cose.NewSign1Message()
	m.Headers.Protected = cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA,
		cose.HeaderLabelKeyID:     kid[:],
		labelCWT:                  map[int64]any{claimIssuer: key.Origin, claimAbout: about},
		labelVDS:                  vdsRFC9162,
	}
	m.Headers.Unprotected = cose.UnprotectedHeader{labelVDP: map[int64]any{proofInside: [][]byte{inclusion}}}
	m.Payload = root[:]
	if err := m.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("receipt of %s: %w", about, err)
	}
	m.Payload = nil // detached: who verifies computes the root from the entry
	return m.MarshalCBOR()
}
