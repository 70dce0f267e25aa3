package signin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// MaxPasskeys bounds the passkeys of one person.
const MaxPasskeys = 16

// AddPasskey keeps an authenticator that the caller has just proven to hold. It takes a fresh session: who finds a browser open
// does not stay.
func (c *Service) AddPasskey(ctx context.Context, caller access.Caller, id, data []byte, label string) error {
	if caller.Kind != access.Person || caller.Via != string(UseSession) {
		return fault.New(fault.Denied, "passkey.person", "a passkey is a person's who is signed in", "sign in")
	}
	if !caller.Fresh {
		return fault.New(fault.Denied, "access.step-up", "adding a passkey needs a new proof that it is you", "confirm with a passkey you have, or sign in again")
	}
	if caller.From == string(UseToken) { // who stole a token would stay when it is revoked
		return fault.New(fault.Denied, "passkey.token", "a session that was begun with a token adds no passkey",
			"sign in with a link (`hallmark token link`), with your organisation or with a passkey you have")
	}
	if label == "" || len(label) > 64 {
		return fault.New(fault.Invalid, "passkey.label", "a passkey needs a name of at most 64 bytes", "name the device or key that holds it")
	}
	have, err := c.members.Passkeys(ctx, caller.ID)
	if err != nil {
		return err
	}
	if len(have) >= MaxPasskeys {
		return fault.New(fault.Exhausted, "passkey.many", "16 passkeys are enough", "remove one")
	}
	now := c.now().UTC()
	f, err := passkeyFact(now, caller, "added", id, label)
	if err != nil {
		return err
	}
	err = c.members.PutPasskey(ctx, Passkey{ID: id, Member: caller.ID, Label: label, Created: now, Data: data}, f)
	if errors.Is(err, ErrPasskeyExists) {
		return fault.New(fault.Conflict, "passkey.known", "that passkey is known already", "use another authenticator, or sign in with that one")
	}
	return err
}

func passkeyFact(at time.Time, caller access.Caller, what string, id []byte, label string) (ledger.Fact, error) {
	sum := sha256.Sum256(id)
	data, err := json.Marshal(map[string]string{"member": caller.ID, "passkey": hex.EncodeToString(sum[:8]), "what": what, "label": label})
	return ledger.New(ledger.KindAccessChanged, at, caller.ID, caller.ID, nil, data), err
}

// Passkeys lists the caller's.
func (c *Service) Passkeys(ctx context.Context, caller access.Caller) ([]Passkey, error) {
	return c.members.Passkeys(ctx, caller.ID)
}

// DropPasskey removes one of the caller's, with a fresh session.
func (c *Service) DropPasskey(ctx context.Context, caller access.Caller, id []byte) error {
	if !caller.Fresh {
		return fault.New(fault.Denied, "access.step-up", "removing a passkey needs a new proof that it is you", "confirm with a passkey, or sign in again")
	}
	f, err := passkeyFact(c.now().UTC(), caller, "removed", id, "")
	if err != nil {
		return err
	}
	err = c.members.DropPasskey(ctx, caller.ID, id, f)
	if errors.Is(err, ErrNoPasskey) {
		return fault.New(fault.NotFound, "passkey.unknown", "you have no such passkey", "the account's page lists yours")
	}
	return err
}

// UsePasskey has use judge an assertion by the passkey with that ID, and gives its member. The counter that use returns is durable
// when it does.
func (c *Service) UsePasskey(ctx context.Context, id []byte, use func(p Passkey) (Passkey, error)) (Member, error) {
	var who string
	err := c.members.UsePasskey(ctx, id, func(p Passkey) (Passkey, error) {
		who = p.Member
		p, err := use(p)
		p.Used = c.now().UTC()
		return p, err
	})
	if errors.Is(err, ErrNoPasskey) {
		return Member{}, fault.New(fault.Denied, "passkey.unknown", "this passkey is not known here", "sign in another way, and add it")
	}
	if err != nil {
		return Member{}, err
	}
	m, err := c.members.Member(ctx, who)
	if err != nil || !m.Ended.IsZero() || m.Kind != access.Person {
		return Member{}, errors.Join(err, fault.New(fault.Denied, "access.ended", "who this passkey belongs to may not sign in", "ask an administrator"))
	}
	return m, nil
}

// BeginByPasskey begins a session of a member whose passkey was just used.
func (c *Service) BeginByPasskey(ctx context.Context, m Member) (secret string, until time.Time, err error) {
	return c.session(ctx, Credential{Caller: m.ID, From: "passkey", Expires: c.now().Add(sessionLife), Verified: c.now()})
}

// Confirm notes that the person of a session has just proven again, by passkey, that it is them.
func (c *Service) Confirm(ctx context.Context, secret string, m Member) error {
	caller, err := c.Caller(ctx, secret)
	if err != nil {
		return err
	}
	if caller.ID != m.ID {
		return fault.New(fault.Denied, "passkey.other", "that passkey is somebody else's", "use one of your own")
	}
	return c.store.VerifyCredential(ctx, sha256.Sum256([]byte(secret)), c.now().UTC())
}
