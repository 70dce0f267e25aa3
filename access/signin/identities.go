package signin

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Identity is who a member is with an organisation's sign-in (OpenID Connect): a member has one with each issuer.
type Identity struct {
	Member  string    `json:"member"`
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject,omitempty"` // the issuer's name for the person; empty until the first sign-in by Email
	Email   string    `json:"email,omitempty"`   // by which the person is known until then, and never after
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // when the person last signed in so
}

// Assertion is what an issuer has just said of a person. An adapter makes one only of what it has verified.
type Assertion struct {
	Issuer, Subject string
	Email           string    // only when the issuer has verified it; else empty
	Proven          time.Time // when the person proved to the issuer that it is them; zero when it does not say
}

// IdentityStore keeps identities; each write is durable when it returns nil. Those of a member who ends go with the member.
type IdentityStore interface {
	// PutIdentity stores one in the place of the member's other with that issuer; ErrIdentityTaken when somebody else has its subject,
	// or waits to be known by its email.
	PutIdentity(ctx context.Context, i Identity, facts ...ledger.Fact) error
	// UseIdentity finds the one with a's subject, else the one that waits for a's email: that has the subject from then on, with the
	// fact of pinned. ErrNoIdentity when there is none, or its member has been ended. Of two first sign-ins at once, one is the first.
	UseIdentity(ctx context.Context, a Assertion, at time.Time, pinned func(Identity) (ledger.Fact, error)) (Identity, Member, error)
	// IdentitiesOf lists a member's.
	IdentitiesOf(ctx context.Context, member string) ([]Identity, error)
	// DropIdentity removes a member's with that issuer; ErrNoIdentity.
	DropIdentity(ctx context.Context, member, issuer string, facts ...ledger.Fact) error
}

// Errors of an IdentityStore.
var (
	ErrNoIdentity    = errors.New("no such identity")
	ErrIdentityTaken = errors.New("the identity is somebody else's")
)

// email is what can be bound: printable ASCII, so that what looks alike is alike.
var email = regexp.MustCompile(`^[a-z0-9!#$%&'*+/=?^_{|}~.-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,188}[a-z0-9])?$`)

// MaxSubject bounds an issuer's name for a person, in bytes (OpenID Connect Core 1.0, section 2).
const MaxSubject = 255

// ValidSubject reports whether an issuer's name for a person is one: at most 255 printable ASCII characters.
func ValidSubject(s string) bool {
	return s != "" && len(s) <= MaxSubject && strings.IndexFunc(s, func(r rune) bool { return r < '!' || r > '~' }) < 0
}

// VerifiedEmail gives an email as it is compared; empty when it is none that can be bound.
func VerifiedEmail(s string) string {
	if s = strings.ToLower(s); !email.MatchString(s) {
		return ""
	}
	return s
}

// BindIdentity says who a person is with the issuer, by subject or by email: exactly one. Nobody becomes a member by it. The email
// holds until the first sign-in, which pins the subject that comes with it.
func (c *Service) BindIdentity(ctx context.Context, caller access.Caller, member, issuer, subject, mail string) (Identity, error) {
	m, err := c.member(ctx, caller, member)
	if err != nil {
		return Identity{}, err
	}
	switch {
	case issuer == "":
		return Identity{}, fault.New(fault.Conflict, "identity.no-issuer", "this instance has no organisation's sign-in", "on the host: hallmark oidc set")
	case m.Kind != access.Person:
		return Identity{}, fault.New(fault.Invalid, "identity.person", fmt.Sprintf("%s is no person", member), "bind a certificate to a machine")
	case (subject == "") == (mail == ""):
		return Identity{}, fault.New(fault.Invalid, "identity.which", "an identity is bound by its subject or by its email", "give one of them")
	case subject != "" && !ValidSubject(subject):
		return Identity{}, fault.New(fault.Invalid, "identity.subject", "that is no subject", "it is up to 255 printable ASCII characters, as the issuer writes it")
	case mail != "" && VerifiedEmail(mail) == "":
		return Identity{}, fault.New(fault.Invalid, "identity.email", fmt.Sprintf("%.100q is no email that can be bound", mail), "write it in ASCII; else bind the subject")
	}
	if err := c.opens(ctx, caller, m); err != nil {
		return Identity{}, err
	}
	now := c.now().UTC()
	i := Identity{Member: member, Issuer: issuer, Subject: subject, Email: VerifiedEmail(mail), Created: now}
	f, err := identityFact(now, caller.ID, "bound", i)
	if err != nil {
		return Identity{}, err
	}
	err = c.identities.PutIdentity(ctx, i, f)
	if errors.Is(err, ErrIdentityTaken) {
		return Identity{}, fault.New(fault.Conflict, "identity.taken", "that identity is bound to another member", "unbind it there first")
	}
	return i, err
}

// opens answers nil when caller may add a way in to m: one that somebody else than its holder knows of gives all that m may do.
func (c *Service) opens(ctx context.Context, caller access.Caller, m Member) error {
	if !m.Ended.IsZero() {
		return fault.New(fault.Conflict, "access.ended", fmt.Sprintf("%s has been ended", m.ID), "choose another member")
	}
	if caller.ID == m.ID {
		return nil
	}
	return c.second(ctx, caller, m.ID, nobody(), m)
}

func identityFact(at time.Time, actor, what string, i Identity) (ledger.Fact, error) {
	data, err := json.Marshal(map[string]string{"member": i.Member, "what": what, "issuer": i.Issuer, "subject": i.Subject, "email": i.Email})
	return ledger.New(ledger.KindAccessChanged, at, actor, i.Member, nil, data), err
}

// UnbindIdentity takes it away again; sessions that were begun with it last on, and can be revoked.
func (c *Service) UnbindIdentity(ctx context.Context, caller access.Caller, member, issuer string) error {
	if _, err := c.member(ctx, caller, member); err != nil {
		return err
	}
	now := c.now().UTC()
	f, err := identityFact(now, caller.ID, "unbound", Identity{Member: member, Issuer: issuer})
	if err != nil {
		return err
	}
	err = c.identities.DropIdentity(ctx, member, issuer, f)
	if errors.Is(err, ErrNoIdentity) {
		return fault.New(fault.NotFound, "identity.unknown", fmt.Sprintf("%s is bound to nobody there", member), "see `hallmark member identities`")
	}
	return err
}

// Identities lists a member's: one's own, or anybody's for who manages access.
func (c *Service) Identities(ctx context.Context, caller access.Caller, member string) ([]Identity, error) {
	if err := c.own(ctx, caller, member); err != nil {
		return nil, err
	}
	return c.identities.IdentitiesOf(ctx, member)
}

// use finds the person of an assertion.
func (c *Service) use(ctx context.Context, a Assertion) (Member, error) {
	if a.Issuer == "" || !ValidSubject(a.Subject) {
		return Member{}, fault.New(fault.Denied, "identity.malformed", "the organisation does not say who it is", "configure the provider so that it gives an issuer and a subject")
	}
	a.Email = VerifiedEmail(a.Email)
	now := c.now().UTC()
	_, m, err := c.identities.UseIdentity(ctx, a, now, func(i Identity) (ledger.Fact, error) { return identityFact(now, i.Member, "pinned", i) })
	if errors.Is(err, ErrNoIdentity) {
		return Member{}, fault.New(fault.Denied, "identity.unknown", "nobody here is bound to that identity", "ask an administrator to bind it: hallmark member bind")
	}
	if err == nil && (m.Kind != access.Person || !m.Ended.IsZero()) {
		err = fault.New(fault.Denied, "access.ended", "who this identity belongs to may not sign in", "ask an administrator")
	}
	return m, err
}

// BeginByIdentity begins a session of the person an issuer has just named. It is as fresh as the proof that the issuer tells of.
func (c *Service) BeginByIdentity(ctx context.Context, a Assertion) (secret string, until time.Time, err error) {
	m, err := c.use(ctx, a)
	if err != nil {
		return "", time.Time{}, err
	}
	proven := a.Proven
	if now := c.now(); proven.After(now) {
		proven = now
	}
	return c.session(ctx, Credential{Caller: m.ID, From: "organisation", Expires: c.now().Add(sessionLife), Verified: proven})
}

// ConfirmByIdentity notes that the person of a session has just proven to an issuer that it is them: after since, or it is no new proof.
func (c *Service) ConfirmByIdentity(ctx context.Context, secret string, a Assertion, since time.Time) error {
	caller, err := c.Caller(ctx, secret)
	if err != nil {
		return err
	}
	now := c.now()
	if a.Proven.Before(since) || a.Proven.After(now.Add(time.Minute)) {
		return fault.New(fault.Denied, "identity.stale", "the organisation did not ask for a new proof", "confirm with a passkey, or sign in again")
	}
	m, err := c.use(ctx, a)
	if err != nil {
		return err
	}
	if caller.ID != m.ID {
		return fault.New(fault.Denied, "identity.other", "that is somebody else", "confirm as who is signed in")
	}
	return c.store.VerifyCredential(ctx, sha256.Sum256([]byte(secret)), now.UTC())
}
