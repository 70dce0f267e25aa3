package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// keyVerdict signs verdicts of genuineness, and nothing else: its certificate says so.
const keyVerdict = "verdict"

// openGenuine opens what strangers may ask. An instance from before there were verdicts gets the key for them here.
func (i *Instance) openGenuine(ctx context.Context) error {
	if _, err := i.keys.Signer(keyVerdict); err != nil {
		if err := i.makeVerdictKey(ctx); err != nil {
			return fmt.Errorf("key for verdicts: %w", err)
		}
	}
	signer := &verdictSigner{inst: i}
	var err error
	i.genuine, err = genuine.New(genuine.Config{Store: i.db, Ledger: i.logs.reader, Maker: i.cfg.OEM, Signer: signer.get})
	return err
}

func (i *Instance) makeVerdictKey(ctx context.Context) error {
	key, err := i.keys.GenerateP256(keyVerdict)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"name": keyVerdict, "purpose": verdictPurpose, "spki": der})
	if err != nil {
		return err
	}
	return i.db.Write(ctx, func(tx *store.Tx) error { //nolint:contextcheck // the transaction has a context of its own
		return tx.Append(ledger.New(ledger.KindKeyCreated, time.Now(), "host:serve", keyVerdict, nil, data))
	})
}

const verdictPurpose = "signs verdicts of genuineness"

// verdictSigner has the certificate of the key for verdicts, signed anew by the infrastructure CA in good time.
type verdictSigner struct {
	inst *Instance

	mu    sync.Mutex
	leaf  *x509.Certificate // guarded by mu, as is chain
	chain [][]byte
}

func (s *verdictSigner) get(now time.Time) (crypto.Signer, [][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.inst.keys.Signer(keyVerdict)
	if err != nil {
		return nil, nil, err
	}
	if s.leaf == nil || s.leaf.NotAfter.Sub(now) < s.leaf.NotAfter.Sub(s.leaf.NotBefore)/3 {
		infra, err := s.inst.infraCA(now)
		if err != nil {
			return nil, nil, err
		}
		if s.leaf, err = infra.VerdictSigner(key.Public(), now); err != nil {
			return nil, nil, fmt.Errorf("certificate for verdicts: %w", err)
		}
		s.chain = [][]byte{s.leaf.Raw, infra.Cert.Raw, s.inst.auth.root.Raw}
	}
	return key, s.chain, nil
}

// infraCA gives the infrastructure CA that signs now.
func (i *Instance) infraCA(now time.Time) (*pki.Authority, error) {
	return i.auth.held.Issuing(profile.Infra, "", now)
}

// challenger asks a device for evidence when it is due, or when somebody who holds it waits for it.
type challenger struct {
	attest  *attest.Service
	genuine *genuine.Service
}

// Due implements device.Challenger.
func (c challenger) Due(ctx context.Context, d device.Device, in wire.Checkin) ([]byte, time.Time) {
	if nonce, ok := c.genuine.Pending(d.ID); ok && c.attest.Expect(d.ID, nonce) {
		return nonce[:], time.Time{}
	}
	return c.attest.Due(ctx, d, in)
}

// Waits implements device.Challenger.
func (c challenger) Waits(id string) bool { return c.genuine.Waits(id) }

// appraise judges evidence, and keeps it for who waits for it.
func (i *Instance) appraise(ctx context.Context, caller access.Caller, id string, evidence []byte) (wire.AttestReply, error) {
	v, err := i.attest.Appraise(ctx, caller, id, evidence)
	if err != nil {
		return wire.AttestReply{}, err
	}
	d, err := i.device.Get(ctx, access.Internal("genuine"), id)
	if err == nil {
		err = i.genuine.Answer(ctx, id, v.EAR.Nonce, evidence, d.AttestKey, v.Word)
	}
	if err != nil { // the verdict stands; a stranger asks again
		i.log.WarnContext(ctx, "an answer to who asked whether a device is genuine was not kept", "device", id, "error", err)
	}
	reply := v.Reply()
	if reply.Signed, err = i.device.SignVerdict(ctx, caller, id, evidence, reply.Status); err != nil { // it confirms nothing by this verdict, and asks again
		i.log.WarnContext(ctx, "a verdict goes to its device unsigned", "device", id, "error", err)
	}
	if len(v.CodeKey) > 0 {
		reply.Keys, reply.NoKeys = i.codeKeys(ctx, caller, v)
	}
	return reply, nil
}
