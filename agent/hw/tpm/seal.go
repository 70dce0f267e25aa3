package tpm

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// sealedHandle is the persistent handle of the sealed secret, behind those of the keys.
const sealedHandle tpm2.TPMHandle = 0x81484D10

// maxPCR is the last register that a platform has.
const maxPCR = 23

// Sealed is a secret that the TPM gives out while registers (PCRs, SHA-256) are as they were when it was made. It implements hw.Sealer. There is no
// other form of it than the TPM's persistent object, and its policy is the registers alone: no password opens it.
type Sealed struct {
	keys *Keys
	pcrs []uint
}

// Sealed gives the secret over the same line as the keys; 1 to 24 registers.
func (k *Keys) Sealed(pcrs []uint) (*Sealed, error) {
	if len(pcrs) == 0 {
		return nil, errors.New("TPM: no PCRs to seal to")
	}
	for _, n := range pcrs {
		if n > maxPCR {
			return nil, fmt.Errorf("TPM: there is no PCR %d", n)
		}
	}
	return &Sealed{keys: k, pcrs: pcrs}, nil
}

func (s *Sealed) selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(s.pcrs...)}}}
}

// Unseal implements hw.Sealer.
func (s *Sealed) Unseal() (secret []byte, err error) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	name, err := s.name()
	if err != nil {
		return nil, err
	}
	session, end, err := tpm2.PolicySession(s.keys.tpm, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		return nil, fmt.Errorf("TPM: policy session: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: s.selection()}).Execute(s.keys.tpm); err != nil {
		return nil, fmt.Errorf("TPM: policy over PCRs: %w", err)
	}
	out, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: sealedHandle, Name: name, Auth: session}}.Execute(s.keys.tpm)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return nil, fmt.Errorf("TPM: PCRs %v: %w", s.pcrs, hw.ErrOtherState)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM: unseal: %w", err)
	}
	return out.OutData.Buffer, nil
}

// name gives the name of what is at the handle, if it is a secret of ours; hw.ErrNoKey.
func (s *Sealed) name() (tpm2.TPM2BName, error) {
	read, err := tpm2.ReadPublic{ObjectHandle: sealedHandle}.Execute(s.keys.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return tpm2.TPM2BName{}, hw.ErrNoKey
	}
	if err != nil {
		return tpm2.TPM2BName{}, fmt.Errorf("TPM: read %#x: %w", sealedHandle, err)
	}
	area, err := read.OutPublic.Contents()
	if err != nil {
		return tpm2.TPM2BName{}, fmt.Errorf("TPM: what is at %#x is not to be read: %w", sealedHandle, err)
	}
	if a := area.ObjectAttributes; area.Type != tpm2.TPMAlgKeyedHash || !a.FixedTPM || !a.FixedParent || a.UserWithAuth {
		return tpm2.TPM2BName{}, fmt.Errorf("TPM: what is at %#x is no secret that only a policy opens", sealedHandle)
	}
	return read.Name, nil
}

// Renew implements hw.Sealer.
func (s *Sealed) Renew() (err error) {
	if err := s.Destroy(); err != nil {
		return err
	}
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	policy, err := s.policy()
	if err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails: crypto/rand ends the process instead
	defer clear(secret)
	root, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(s.keys.tpm)
	if err != nil {
		return fmt.Errorf("TPM: storage root key: %w", err)
	}
	defer func() { err = errors.Join(err, s.keys.flush(root.ObjectHandle)) }()
	parent := tpm2.NamedHandle{Handle: root.ObjectHandle, Name: root.Name}
	made, err := tpm2.Create{
		ParentHandle: parent,
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: policy,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
		}),
	}.Execute(s.keys.tpm)
	if err != nil {
		return fmt.Errorf("TPM: seal: %w", err)
	}
	loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(s.keys.tpm)
	if err != nil {
		return fmt.Errorf("TPM: load what was sealed: %w", err)
	}
	defer func() { err = errors.Join(err, s.keys.flush(loaded.ObjectHandle)) }()
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, PersistentHandle: sealedHandle,
	}.Execute(s.keys.tpm)
	if err != nil {
		return fmt.Errorf("TPM: keep what was sealed: %w", err)
	}
	return nil
}

// policy is the digest of the policy that the registers are as they are now.
func (s *Sealed) policy() (d tpm2.TPM2BDigest, err error) {
	trial, end, err := tpm2.PolicySession(s.keys.tpm, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return d, fmt.Errorf("TPM: policy session: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	if _, err := (tpm2.PolicyPCR{PolicySession: trial.Handle(), Pcrs: s.selection()}).Execute(s.keys.tpm); err != nil {
		return d, fmt.Errorf("TPM: policy over PCRs: %w", err)
	}
	said, err := tpm2.PolicyGetDigest{PolicySession: trial.Handle()}.Execute(s.keys.tpm)
	if err != nil {
		return d, fmt.Errorf("TPM: policy over PCRs: %w", err)
	}
	return said.PolicyDigest, nil
}

// Destroy implements hw.Sealer.
func (s *Sealed) Destroy() error {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	name, err := s.name()
	if errors.Is(err, hw.ErrNoKey) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: sealedHandle, Name: name}, PersistentHandle: sealedHandle,
	}).Execute(s.keys.tpm); err != nil {
		return fmt.Errorf("TPM: destroy what was sealed: %w", err)
	}
	return nil
}
