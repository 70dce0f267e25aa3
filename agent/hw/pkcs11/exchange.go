//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// agreement is a session of its own for the key that agrees on secrets: what signs has no words for that. Objects of the key have the label and the ID
// of its name, as the others do.
type agreement struct {
	mu      sync.Mutex // a session does one thing at a time
	lib     *p11.Ctx
	session p11.SessionHandle
}

var (
	codeLabel = []byte("hallmark-" + hw.KeyCode)
	// p256 is the curve's OID in DER, as CKA_EC_PARAMS has it (PKCS #11 3.1 §6.3.3).
	p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
)

// agreement opens the session; k.mu is held. The library was begun, and the token logged in to, by what signs.
func (k *Keys) agreement() (*agreement, error) {
	if k.agree != nil {
		return k.agree, nil
	}
	lib := p11.New(k.path)
	if lib == nil {
		return nil, fmt.Errorf("token: %s is no library", k.path)
	}
	slots, err := lib.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	for _, slot := range slots {
		info, err := lib.GetTokenInfo(slot)
		if err != nil || info.Label != k.label {
			continue
		}
		session, err := lib.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if err != nil {
			return nil, fmt.Errorf("token: session: %w", err)
		}
		if err := lib.Login(session, p11.CKU_USER, k.pin); err != nil && !errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)) {
			return nil, errors.Join(fmt.Errorf("token: %w", err), lib.CloseSession(session))
		}
		k.agree = &agreement{lib: lib, session: session}
		return k.agree, nil
	}
	return nil, fmt.Errorf("token %q is not there", k.label)
}

func (a *agreement) close() { _ = a.lib.CloseSession(a.session) } // it ends with the library, too

// Exchanger implements hw.KeyStore.
func (k *Keys) Exchanger() (ecdh.KeyExchanger, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, err := k.agreement()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	pub, err := a.public()
	if errors.Is(err, hw.ErrNoKey) {
		if err := a.generate(); err != nil {
			return nil, err
		}
		pub, err = a.public()
	}
	if err != nil {
		return nil, err
	}
	return &exchanger{a, pub}, nil
}

// generate makes both objects by one command.
func (a *agreement) generate() error {
	_, _, err := a.lib.GenerateKeyPair(a.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC), p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_VERIFY, false), p11.NewAttribute(p11.CKA_EC_PARAMS, p256),
		p11.NewAttribute(p11.CKA_LABEL, codeLabel), p11.NewAttribute(p11.CKA_ID, []byte(hw.KeyCode)),
	}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), p11.NewAttribute(p11.CKA_SIGN, false), p11.NewAttribute(p11.CKA_DERIVE, true),
		p11.NewAttribute(p11.CKA_LABEL, codeLabel), p11.NewAttribute(p11.CKA_ID, []byte(hw.KeyCode)),
	})
	if err != nil {
		return fmt.Errorf("token: make key %s: %w", hw.KeyCode, err)
	}
	return nil
}

func (a *agreement) find(class uint) ([]p11.ObjectHandle, error) {
	if err := a.lib.FindObjectsInit(a.session, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_LABEL, codeLabel)}); err != nil {
		return nil, fmt.Errorf("token: look for key %s: %w", hw.KeyCode, err)
	}
	found, _, err := a.lib.FindObjects(a.session, 16)
	return found, errors.Join(err, a.lib.FindObjectsFinal(a.session))
}

// private gives the one key of the name. One that could be taken out, or was brought in, is not used, and neither is one of two.
func (a *agreement) private() (p11.ObjectHandle, error) {
	found, err := a.find(p11.CKO_PRIVATE_KEY)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("%q: %w", hw.KeyCode, hw.ErrNoKey)
	case len(found) > 1:
		return 0, fmt.Errorf("token: %d keys are labelled %q, want one", len(found), codeLabel)
	}
	is, err := a.lib.GetAttributeValue(a.session, found[0], []*p11.Attribute{
		p11.NewAttribute(p11.CKA_SENSITIVE, nil), p11.NewAttribute(p11.CKA_EXTRACTABLE, nil), p11.NewAttribute(p11.CKA_LOCAL, nil), p11.NewAttribute(p11.CKA_SIGN, nil),
	})
	if err != nil {
		return 0, fmt.Errorf("token: key %s: %w", hw.KeyCode, err)
	}
	for i, want := range []byte{1, 0, 1, 0} {
		if !bytes.Equal(is[i].Value, []byte{want}) {
			return 0, fmt.Errorf("token: key %s could leave it, was not made in it, or signs", hw.KeyCode)
		}
	}
	return found[0], nil
}

func (a *agreement) public() (*ecdh.PublicKey, error) {
	if _, err := a.private(); err != nil {
		return nil, err
	}
	found, err := a.find(p11.CKO_PUBLIC_KEY)
	if err != nil || len(found) != 1 {
		return nil, errors.Join(fmt.Errorf("token: key %s has %d public halves, want one", hw.KeyCode, len(found)), err)
	}
	at, err := a.lib.GetAttributeValue(a.session, found[0], []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("token: key %s: %w", hw.KeyCode, err)
	}
	var point []byte // a DER OCTET STRING of it
	if rest, err := asn1.Unmarshal(at[0].Value, &point); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("token: key %s: its point cannot be read", hw.KeyCode)
	}
	return ecdh.P256().NewPublicKey(point)
}

func (a *agreement) destroy() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
		found, err := a.find(class)
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := a.lib.DestroyObject(a.session, h); err != nil {
				return fmt.Errorf("token: destroy key %s: %w", hw.KeyCode, err)
			}
		}
	}
	return nil
}

// exchanger agrees on secrets with a key that stays in the token.
type exchanger struct {
	in  *agreement
	pub *ecdh.PublicKey
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.pub }

func (e *exchanger) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH gives the x-coordinate of what is agreed on: CKM_ECDH1_DERIVE without a derivation function, as an object of the session that goes again at once.
func (e *exchanger) ECDH(peer *ecdh.PublicKey) (secret []byte, err error) {
	if peer.Curve() != ecdh.P256() {
		return nil, fmt.Errorf("key %s: the other key is on another curve", hw.KeyCode)
	}
	a := e.in
	a.mu.Lock()
	defer a.mu.Unlock()
	key, err := a.private()
	if err != nil {
		return nil, err
	}
	made, err := a.lib.DeriveKey(a.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDH1_DERIVE, p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, peer.Bytes()))}, key, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET), p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_SENSITIVE, false), p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
	})
	if err != nil {
		return nil, fmt.Errorf("token: agree with key %s: %w", hw.KeyCode, err)
	}
	defer func() { err = errors.Join(err, a.lib.DestroyObject(a.session, made)) }()
	at, err := a.lib.GetAttributeValue(a.session, made, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)})
	if err != nil {
		return nil, fmt.Errorf("token: agree with key %s: %w", hw.KeyCode, err)
	}
	if len(at[0].Value) != 32 {
		return nil, fmt.Errorf("token: agree with key %s: a secret of %d bytes", hw.KeyCode, len(at[0].Value))
	}
	return at[0].Value, nil
}
