// Package signin knows the people and machines that may act, and how each shows that it is them: by a token, a link that is good once, a passkey,
// their organisation's word or a certificate.
//
// Under all stages, beside access, on which it rests: what somebody shows here becomes an access.Caller, and what that one may do is the guard's to say. Of a
// secret only its hash is kept. It trusts the adapters that verify passkeys, certificates and what an issuer says; the store is believed.
package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Use says what a secret is for.
type Use string

// A token authenticates API calls until it expires or is revoked; a session is a signed-in browser; a one-time code can be
// exchanged for a session once.
const (
	UseToken   Use = "token"
	UseSession Use = access.ViaSession
	UseOnce    Use = "once"
)

// Credential is what is stored of a secret: never the secret, only its SHA-256. Secrets have 256 random bits, so a plain
// hash is enough. What its bearer may do is the member's: it changes with the member, for every secret at once.
type Credential struct {
	Hash     [32]byte
	Use      Use
	Caller   string // the member its bearer acts as
	From     string // of a session: what it was begun with: "token", "once", "passkey", "organisation"
	Token    string // of a session that was begun with a token: the token's ID
	Created  time.Time
	Expires  time.Time
	Verified time.Time // of a session: when the person last proved that it is them
}

// ID names a credential without telling what it is: it opens nothing.
func (c Credential) ID() string { return hex.EncodeToString(c.Hash[:8]) }

// CredentialStore keeps members' secrets; each write is durable when it returns nil.
type CredentialStore interface {
	// IssueCredential stores the member and a secret of theirs, with the fact that is made of whether the name was given one before,
	// ever; ErrOtherKind when the name is a member's of another kind, ErrEnded when it is one's who has ended, unless back lets them
	// come back. Of two at once, one is the first.
	IssueCredential(ctx context.Context, m Member, c Credential, back bool, fact func(again bool) (ledger.Fact, error)) error
	// PutCredential stores a session, or a certificate; ErrCredentialExists when its hash is known.
	PutCredential(ctx context.Context, c Credential, facts ...ledger.Fact) error
	// Credential finds one and its member; ErrNoCredential when there is none, or its member has been ended.
	Credential(ctx context.Context, hash [32]byte) (Credential, Member, error)
	// TakeCredential removes and returns one: of two takers at most one gets it.
	TakeCredential(ctx context.Context, hash [32]byte) (Credential, Member, error)
	// VerifyCredential notes when a session's person proved again that it is them.
	VerifyCredential(ctx context.Context, hash [32]byte, at time.Time) error
	// CredentialsOf lists a member's that have not expired at now, newest first.
	CredentialsOf(ctx context.Context, member string, now time.Time) ([]Credential, error)
	// RevokeCredential removes the member's credential with that ID, and a token's sessions with it; ErrNoCredential.
	RevokeCredential(ctx context.Context, member, id string, facts ...ledger.Fact) error
}

// ErrNoCredential says that a secret is unknown: never issued, used up or revoked.
var ErrNoCredential = errors.New("no such credential")

// ErrCredentialExists says that a credential is held already.
var ErrCredentialExists = errors.New("the credential is held already")

// ErrOtherKind says that a name belongs to a caller of another kind.
var ErrOtherKind = errors.New("the name belongs to a caller of another kind")

// ErrEnded says that a name is a member's who has ended.
var ErrEnded = errors.New("the member has ended")

// MaxLife bounds a secret's life.
const MaxLife = 366 * 24 * time.Hour

const (
	sessionLife = 12 * time.Hour
	onceLife    = 24 * time.Hour
)

// StepUp is how long a proof that it is them lets a signed-in person do what needs one.
const StepUp = 5 * time.Minute

// Service issues and checks secrets, and keeps the members.
type Service struct {
	store      CredentialStore
	members    MemberStore
	identities IdentityStore
	owners     OwnerStore
	guard      *access.Guard
	now        func() time.Time
}

// New makes the service. store keeps secrets, members and their identities.
func New(store interface {
	CredentialStore
	MemberStore
	IdentityStore
	OwnerStore
}, guard *access.Guard,
) *Service {
	return &Service{store: store, members: store, identities: store, owners: store, guard: guard, now: time.Now}
}

// Grant describes the holder of a new secret.
type Grant struct {
	Caller string        `json:"caller"`
	Kind   access.Kind   `json:"kind"`
	Roles  []access.Role `json:"roles"`
	Owner  string        `json:"owner,omitempty"`
	Scope  []string      `json:"scope"`
	Use    Use           `json:"use"`
	Life   time.Duration `json:"life_ns"`
}

// issued is the Data of access.changed: a grant, and whether its holder was given a secret before. A second one lets somebody back in
// who lost his first, and would let an administrator in as somebody else: it can be done, and is there for all to see.
type issued struct {
	Grant
	Again bool `json:"again"`
}

var callerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]{0,63}$`)

// check refuses grants for anybody but a person or a machine: a secret that made its bearer the system or a device would pass every
// policy.
func (g Grant) check() error {
	bad := func(code, remedy, format string, args ...any) error {
		return fault.New(fault.Invalid, "token."+code, fmt.Sprintf(format, args...), remedy)
	}
	prefixes := map[access.Kind][]string{access.Person: {"person"}, access.Machine: {"machine", "token"}}[g.Kind]
	if len(prefixes) == 0 {
		return bad("kind", "the kinds are person and machine", "nobody of kind %q gets a token", g.Kind)
	}
	prefix, name, _ := strings.Cut(g.Caller, ":")
	if !slices.Contains(prefixes, prefix) || !callerName.MatchString(name) {
		return bad("name", fmt.Sprintf("it is %s: and up to 64 lower-case letters, digits and . _ @ -", strings.Join(prefixes, ": or ")),
			"%.100q is no name for a %s", g.Caller, g.Kind)
	}
	if g.Use != UseToken && g.Use != UseOnce {
		return bad("use", "the uses are token and once", "a token for %q cannot be issued", g.Use)
	}
	if g.Life <= 0 || g.Life > MaxLife {
		return bad("life", fmt.Sprintf("up to %s", MaxLife), "a token's life of %s", g.Life)
	}
	if len(g.Roles) == 0 {
		return bad("incomplete", fmt.Sprintf("the roles are %v", access.Roles()), "a token needs at least one role")
	}
	for _, r := range g.Roles {
		if !slices.Contains(access.Roles(), r) {
			return bad("role", fmt.Sprintf("the roles are %v", access.Roles()), "role %q does not exist", r)
		}
	}
	return errors.Join(access.CheckScope(g.Scope), checkOwned(g.Owner, g.Roles, g.Scope))
}

// Issue makes a secret for a person or a machine and returns it; it is shown this once.
func (c *Service) Issue(ctx context.Context, caller access.Caller, g Grant) (string, error) {
	if err := c.guard.Check(ctx, caller, access.AccessManage, access.Resource{Type: "instance"}); err != nil {
		return "", err
	}
	if err := g.check(); err != nil {
		return "", err
	}
	if err := c.secondForSecret(ctx, caller, g); err != nil {
		return "", err
	}
	if g.Use == UseOnce {
		g.Life = min(g.Life, onceLife)
	}
	now := c.now().UTC()
	secret, hash := newSecret()
	err := c.store.IssueCredential(ctx, Member{
		ID: g.Caller, Kind: g.Kind, Roles: g.Roles, Owner: g.Owner, Scope: g.Scope, Created: now, Changed: now,
	}, Credential{
		Hash: hash, Use: g.Use, Caller: g.Caller, Created: now, Expires: now.Add(g.Life),
	}, caller.Kind == access.System, func(again bool) (ledger.Fact, error) {
		data, err := json.Marshal(issued{g, again})
		return ledger.New(ledger.KindAccessChanged, now, caller.ID, g.Caller, nil, data), err
	})
	if errors.Is(err, ErrEnded) {
		return "", fault.New(fault.Conflict, "token.ended", fmt.Sprintf("%s has been ended, and does not come back under this name", g.Caller),
			"choose another name; on the host, `hallmark recover` brings an administrator back")
	}
	if errors.Is(err, ErrOtherKind) {
		return "", fault.New(fault.Conflict, "token.other-kind", fmt.Sprintf("%s is held by a caller of another kind than %s", g.Caller, g.Kind), "choose another name, or revoke theirs")
	}
	if err != nil {
		return "", err
	}
	return secret, nil
}

// secondForSecret is second for a new secret: it gives the administrator who sees it all that the member may do, unless the member
// is himself; and the member has the roles of the grant from then on.
func (c *Service) secondForSecret(ctx context.Context, caller access.Caller, g Grant) error {
	to := Member{Kind: g.Kind, Roles: g.Roles, Owner: g.Owner, Scope: g.Scope}
	had, err := c.members.Member(ctx, g.Caller)
	if err != nil && !errors.Is(err, ErrNoMember) {
		return err
	}
	if err := c.sameOwner(ctx, had, g); err != nil {
		return err
	}
	if had.falls(to) || g.Caller == caller.ID {
		return c.second(ctx, caller, g.Caller, had, to)
	}
	return c.second(ctx, caller, g.Caller, nobody(), to)
}

// sameOwner answers nil when the owner of a grant is there, and is the one that its holder is a member of already.
func (c *Service) sameOwner(ctx context.Context, had Member, g Grant) error {
	if had.ID != "" && had.Owner != g.Owner {
		return fault.New(fault.Conflict, "token.other-owner", g.Caller+" is a member of another owner, or of the maker", "choose another name: nobody changes sides under one")
	}
	if g.Owner == "" {
		return nil
	}
	_, err := c.owners.OwnerPlaces(ctx, g.Owner)
	if errors.Is(err, ErrNoOwner) {
		return fault.New(fault.NotFound, "owner.unknown", fmt.Sprintf("there is no owner %q", g.Owner), "see `hallmark owner list`")
	}
	return err
}

func newSecret() (string, [32]byte) {
	secret := "hmk_" + rand.Text() + rand.Text()
	return secret, sha256.Sum256([]byte(secret))
}

// Authenticate finds the caller of a token.
func (c *Service) Authenticate(ctx context.Context, secret string) (access.Caller, error) {
	return c.authenticate(ctx, secret, UseToken)
}

// Caller finds the caller of a session.
func (c *Service) Caller(ctx context.Context, secret string) (access.Caller, error) {
	return c.authenticate(ctx, secret, UseSession)
}

func (c *Service) authenticate(ctx context.Context, secret string, use Use) (access.Caller, error) {
	cred, m, err := c.store.Credential(ctx, sha256.Sum256([]byte(secret)))
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return access.Caller{}, err
	}
	if err != nil || cred.Use != use || !c.now().Before(cred.Expires) || m.Kind != access.Person && m.Kind != access.Machine {
		return access.Caller{}, fault.New(fault.Denied, "access.unknown-token", "the access token is unknown, expired or revoked",
			"ask an administrator for a new one")
	}
	caller, err := c.callerOf(ctx, m, string(use))
	caller.Fresh, caller.From = c.now().Sub(cred.Verified) < StepUp, cred.From
	return caller, err
}

// Begin exchanges a token or a one-time code for a session.
func (c *Service) Begin(ctx context.Context, secret string) (string, time.Time, error) {
	hash := sha256.Sum256([]byte(secret))
	cred, m, err := c.store.Credential(ctx, hash)
	if err == nil && cred.Use == UseOnce {
		cred, m, err = c.store.TakeCredential(ctx, hash)
	}
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return "", time.Time{}, err
	}
	if err != nil || cred.Use != UseToken && cred.Use != UseOnce || !c.now().Before(cred.Expires) || m.Kind != access.Person && m.Kind != access.Machine {
		return "", time.Time{}, fault.New(fault.Denied, "access.unknown-token", "the access token is unknown, expired or used up", "ask for another: `hallmark token create`")
	}
	s := Credential{Caller: m.ID, From: string(cred.Use), Expires: c.now().Add(sessionLife), Verified: c.now()}
	if cred.Use == UseToken { // a session does not outlive the token it came from
		s.Token = cred.ID()
		if cred.Expires.Before(s.Expires) {
			s.Expires = cred.Expires
		}
	}
	return c.session(ctx, s)
}

// session begins one of a member who has proven when s says that it is them.
func (c *Service) session(ctx context.Context, s Credential) (secret string, until time.Time, err error) {
	secret, s.Hash = newSecret()
	s.Use, s.Created, s.Verified, s.Expires = UseSession, c.now().UTC(), s.Verified.UTC(), s.Expires.UTC()
	return secret, s.Expires, c.store.PutCredential(ctx, s)
}

// End ends the session of a secret: signing out.
func (c *Service) End(ctx context.Context, secret string) error {
	hash := sha256.Sum256([]byte(secret))
	cred, _, err := c.store.Credential(ctx, hash)
	if err == nil && cred.Use == UseSession {
		_, _, err = c.store.TakeCredential(ctx, hash)
	}
	if errors.Is(err, ErrNoCredential) {
		return nil
	}
	return err
}
