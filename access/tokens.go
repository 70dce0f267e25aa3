package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Use says what a secret is for.
type Use string

// A token authenticates API calls until it expires or is revoked; a session is a signed-in browser; a one-time code can be
// exchanged for a session once.
const (
	UseToken   Use = "token"
	UseSession Use = "session"
	UseOnce    Use = "once"
)

// Credential is what is stored of a secret: never the secret, only its SHA-256. Secrets have 256 random bits, so a plain
// hash is enough.
type Credential struct {
	Hash     [32]byte
	Use      Use
	Caller   string // the ID its bearer acts under
	Kind     Kind
	Roles    []Role
	Products []string
	Created  time.Time
	Expires  time.Time
}

// CredentialStore keeps credentials; each write is durable when it returns nil.
type CredentialStore interface {
	PutCredential(ctx context.Context, c Credential, facts ...ledger.Fact) error
	// Credential finds one; ErrNoCredential when there is none.
	Credential(ctx context.Context, hash [32]byte) (Credential, error)
	// TakeCredential removes and returns one: of two takers at most one gets it.
	TakeCredential(ctx context.Context, hash [32]byte) (Credential, error)
	// RevokeCaller removes all credentials of a caller.
	RevokeCaller(ctx context.Context, caller string, facts ...ledger.Fact) error
}

// ErrNoCredential says that a secret is unknown: never issued, used up or revoked.
var ErrNoCredential = errors.New("no such credential")

const (
	sessionLife = 12 * time.Hour
	onceLife    = 24 * time.Hour
)

// Credentials issues and checks secrets.
type Credentials struct {
	store CredentialStore
	guard *Guard
	now   func() time.Time
}

// NewCredentials makes the service.
func NewCredentials(store CredentialStore, guard *Guard) *Credentials {
	return &Credentials{store: store, guard: guard, now: time.Now}
}

// Grant describes the holder of a new secret.
type Grant struct {
	Caller   string        `json:"caller"`
	Kind     Kind          `json:"kind"`
	Roles    []Role        `json:"roles"`
	Products []string      `json:"products"`
	Use      Use           `json:"use"`
	Life     time.Duration `json:"life_ns"`
}

// Issue makes a secret and returns it; it is shown this once.
func (c *Credentials) Issue(ctx context.Context, caller Caller, g Grant) (string, error) {
	if err := c.guard.Check(ctx, caller, AccessManage, Resource{Type: "instance"}); err != nil {
		return "", err
	}
	if g.Caller == "" || len(g.Roles) == 0 || g.Life <= 0 {
		return "", fault.New(fault.Invalid, "token.incomplete", "a token needs a name, at least one role and a life", "")
	}
	for _, r := range g.Roles {
		if !slices.Contains(Roles(), r) {
			return "", fault.New(fault.Invalid, "token.role", fmt.Sprintf("role %q does not exist", r), fmt.Sprintf("the roles are %v", Roles()))
		}
	}
	if g.Use == UseOnce {
		g.Life = min(g.Life, onceLife)
	}
	data, err := json.Marshal(g)
	if err != nil {
		return "", err
	}
	fact := ledger.New(ledger.Control, ledger.KindAccessChanged, c.now(), caller.ID, g.Caller, nil, data)
	return c.put(ctx, Credential{
		Use: g.Use, Caller: g.Caller, Kind: g.Kind, Roles: g.Roles, Products: g.Products,
		Created: c.now().UTC(), Expires: c.now().Add(g.Life).UTC(),
	}, fact)
}

func (c *Credentials) put(ctx context.Context, cred Credential, facts ...ledger.Fact) (string, error) {
	secret := "hmk_" + rand.Text() + rand.Text()
	cred.Hash = sha256.Sum256([]byte(secret))
	if err := c.store.PutCredential(ctx, cred, facts...); err != nil {
		return "", err
	}
	return secret, nil
}

// Authenticate finds the caller of a token.
func (c *Credentials) Authenticate(ctx context.Context, secret string) (Caller, error) {
	return c.authenticate(ctx, secret, UseToken)
}

// Caller finds the caller of a session.
func (c *Credentials) Caller(ctx context.Context, secret string) (Caller, error) {
	return c.authenticate(ctx, secret, UseSession)
}

func (c *Credentials) authenticate(ctx context.Context, secret string, use Use) (Caller, error) {
	cred, err := c.store.Credential(ctx, sha256.Sum256([]byte(secret)))
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return Caller{}, err
	}
	if err != nil || cred.Use != use || !c.now().Before(cred.Expires) {
		return Caller{}, fault.New(fault.Denied, "access.unknown-token", "the access token is unknown, expired or revoked",
			"ask an administrator for a new one")
	}
	return Caller{ID: cred.Caller, Kind: cred.Kind, Roles: cred.Roles, Products: cred.Products, Via: string(use)}, nil
}

// Begin exchanges a token or a one-time code for a session.
func (c *Credentials) Begin(ctx context.Context, secret string) (string, time.Time, error) {
	hash := sha256.Sum256([]byte(secret))
	cred, err := c.store.Credential(ctx, hash)
	if err == nil && cred.Use == UseOnce {
		cred, err = c.store.TakeCredential(ctx, hash)
	}
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return "", time.Time{}, err
	}
	if err != nil || cred.Use == UseSession || !c.now().Before(cred.Expires) {
		return "", time.Time{}, fault.New(fault.Denied, "access.unknown-token", "the access token is unknown, expired or used up", "")
	}
	end := c.now().Add(sessionLife).UTC()
	if cred.Use == UseToken && cred.Expires.Before(end) {
		end = cred.Expires // a session does not outlive the token it came from
	}
	cred.Use, cred.Created, cred.Expires = UseSession, c.now().UTC(), end
	session, err := c.put(ctx, cred)
	return session, cred.Expires, err
}
