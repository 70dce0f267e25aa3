// Package legacy lets in clients of other update systems: hawkBit's (DDI) and Mender's.
//
// Stage 3, from birth to the field, for devices that run no agent of ours and are not to be touched for that: they keep their client and are given another
// address. What is guaranteed: nobody is let in but by a person with the right to the product, each client by a secret or a key of its own; a secret is told once
// and kept as its digest; strangers are remembered so that they can be let in, within a bound, and get nothing. What cannot be guaranteed is what makes our own agents
// worth their while: such a client believes what the server gives it, and what it runs is its own word. It is registered as that (device.Says), and shown so wherever it
// is shown.
//
// It trusts the adapter to have seen the key that a client proves to have, and whoever admits a client to know whose it is.
package legacy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
)

// Kind is whose client it is.
type Kind string

// The kinds.
const (
	DDI    Kind = "ddi"    // hawkBit's Direct Device Integration API: SWUpdate's, rauc-hawkbit-updater's and others'
	Mender Kind = "mender" // Mender's
)

func (k Kind) valid() bool { return k == DDI || k == Mender }

// State is where a client is.
type State string

// The states.
const (
	Pending  State = "pending" // it asked, and waits for a person
	Admitted State = "admitted"
	Refused  State = "refused" // it is not let in, or not any more
)

// Client is one client, as it is kept.
type Client struct {
	Kind    Kind      `json:"kind"`
	Product string    `json:"product"`
	Name    string    `json:"name" doc:"as it calls itself"`
	State   State     `json:"state"`
	Device  string    `json:"device,omitempty" doc:"its ID here, once it is admitted"`
	Token   bool      `json:"token" doc:"it shows a token of its own"`
	Key     []byte    `json:"key,omitempty" doc:"SHA-256 of the key (SubjectPublicKeyInfo) that it proves to have"`
	Asked   time.Time `json:"asked" doc:"when it was first heard of, or admitted"`
	Details `json:"details"`

	Secret []byte `json:"-"` // SHA-256 of its token
	Rev    int64  `json:"-"`
}

// Details of a client.
type Details struct {
	By           string            `json:"by,omitempty" doc:"who admitted or refused it"`
	Reason       string            `json:"reason,omitempty"`
	Consent      bool              `json:"consent,omitempty" doc:"whoever has it has to agree to each update"`
	Auto         bool              `json:"auto,omitempty" doc:"they agreed to all of them"`
	Attributes   map[string]string `json:"attributes,omitempty" doc:"what it says of itself"`
	AttributesAt time.Time         `json:"attributes_at,omitzero"`
	Until        time.Time         `json:"until,omitzero" doc:"a token that it was given for a while counts until then"`
}

// Gateway speaks for the clients of a product that are behind it.
type Gateway struct {
	Product string    `json:"product"`
	Name    string    `json:"name"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
}

// Bounds.
const (
	MaxName       = 128    // of a client's name, bytes
	MaxPending    = 10_000 // strangers that are remembered, of all products
	MaxPendingOf  = 2_000  // of these, of one product
	MaxAttributes = 64     // of a client
	MaxAttribute  = 256    // of a name or value of one, bytes
)

// PendingFor is how long a stranger is remembered that nobody lets in.
const PendingFor = 7 * 24 * time.Hour

// VersionAttribute is the attribute by which a client says what version it runs.
const VersionAttribute = "sw.version"

// Errors of the store.
var (
	ErrNotFound = errors.New("not there")
	ErrExists   = errors.New("there already")
	ErrChanged  = errors.New("changed meanwhile")
	ErrFull     = errors.New("too many are waiting")
)

// Store keeps clients; each write is durable on nil, with its facts.
type Store interface {
	// Client finds one; ErrNotFound.
	Client(ctx context.Context, kind Kind, product, name string) (Client, error)
	// Clients lists a product's in a state, of any with an empty one, by kind and name, from behind after (kind "/" name), at most limit.
	Clients(ctx context.Context, product string, state State, after string, limit int) ([]Client, error)
	// Ask remembers a stranger, and forgets those who asked before a time and were not let in; ErrFull when as many wait already of its product, or of all, ErrExists when it is there.
	Ask(ctx context.Context, c Client, before time.Time, ofProduct, ofAll int) error
	// Admit stores c, which is new with a Rev of zero and else as it was read, and registers its device unless it is registered. What was agreed to of open actions is agreed to no more. ErrChanged when it is not
	// as it was; ErrExists when the ID is that of another sort of device, or when another client has its token.
	Admit(ctx context.Context, c Client, hardware string, fact ledger.Fact) error
	// Save stores c if it is as it was read, else ErrChanged.
	Save(ctx context.Context, c Client, facts ...ledger.Fact) error
	// AddGateway returns ErrExists when there is one of that name. EndGateway returns ErrNotFound.
	AddGateway(ctx context.Context, g Gateway, token []byte, fact ledger.Fact) error
	EndGateway(ctx context.Context, product, name string, fact ledger.Fact) error
	Gateways(ctx context.Context, product string) ([]Gateway, error)
	// GatewayOf tells whose token that is; ErrNotFound.
	GatewayOf(ctx context.Context, product string, token []byte) (Gateway, error)
	// ClientOf tells which client has that token; ErrNotFound.
	ClientOf(ctx context.Context, kind Kind, token []byte) (Client, error)
	// KeepLog keeps what a client wrote of an action in place of what it wrote before, and of the device no more than MaxLogs; it forgets what is from before then, of whatever
	// client. ErrNotFound when the device has no such action.
	KeepLog(ctx context.Context, device string, l Log, before time.Time) error
	// Logs gives what is kept of a device, the newest action first.
	Logs(ctx context.Context, device string) ([]Log, error)
}

// Config is what a Service works with.
type Config struct {
	Guard    *access.Guard
	Store    Store
	Products interface {
		Get(ctx context.Context, caller access.Caller, id string) (product.Product, error)
	}
	Now func() time.Time // nil: time.Now
}

// Service is the verbs.
type Service struct{ c Config }

// New makes a service.
func New(c Config) (*Service, error) {
	if c.Guard == nil || c.Store == nil || c.Products == nil {
		return nil, errors.New("legacy: guard, store and products are needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c: c}, nil
}

func resource(productID string) access.Resource {
	return access.Resource{Type: "product", ID: productID, Product: productID}
}

// CheckName refuses what no client may be called.
func CheckName(name string) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == '/' }
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return fault.New(fault.Invalid, "legacy.name", fmt.Sprintf("%.40q is no name of a client", name), fmt.Sprintf("1 to %d printable characters, and no slash", MaxName))
	}
	return nil
}

// Admission lets a client in.
type Admission struct {
	Kind     Kind   `json:"kind" enum:"ddi,mender"`
	Product  string `json:"-"`
	Name     string `json:"name" minLength:"1" maxLength:"128" doc:"as it calls itself"`
	Hardware string `json:"hardware,omitempty" maxLength:"64" doc:"its revision; empty: the product's first"`
	Key      []byte `json:"key,omitempty" maxLength:"64" doc:"SHA-256 of the key (SubjectPublicKeyInfo) of its certificate, or of its requests to be let in (Mender); empty: it is given a token"`
	Consent  bool   `json:"consent,omitempty" doc:"whoever has it has to agree to each update"`
	Reason   string `json:"reason,omitempty" maxLength:"512"`
}

// Let is a client that was let in, with its token if it got one: it is told once.
type Let struct {
	Client Client `json:"client"`
	Token  string `json:"token,omitempty" doc:"told once, and kept nowhere"`
}

// Admit lets a client in: by a token that it gets now, or by a key that it has. Whom it let in before gets another token or key by it, and the present one ends, with all that its
// holder agreed to.
func (s *Service) Admit(ctx context.Context, caller access.Caller, a Admission) (Let, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceImport, resource(a.Product)); err != nil {
		return Let{}, err
	}
	p, err := s.c.Products.Get(ctx, caller, a.Product)
	if err != nil {
		return Let{}, err
	}
	if err := a.check(p); err != nil {
		return Let{}, err
	}
	c, err := s.c.Store.Client(ctx, a.Kind, a.Product, a.Name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Let{}, err
	}
	now := s.c.Now().UTC()
	if c.Asked.IsZero() {
		c.Asked = now
	}
	c.Kind, c.Product, c.Name, c.State, c.Key, c.Secret = a.Kind, a.Product, a.Name, Admitted, a.Key, nil
	c.Details = Details{By: caller.ID, Reason: a.Reason, Consent: a.Consent} // who had it before may be somebody else: neither their consent nor what it said then stays
	c.Device = DeviceOf(a.Kind, a.Product, a.Name)
	var out Let
	if len(a.Key) == 0 {
		out.Token, c.Secret = newToken()
	}
	if a.Hardware == "" {
		a.Hardware = p.Hardware[0]
	}
	f, err := admitted(c, a.Hardware, caller, now)
	if err != nil {
		return Let{}, err
	}
	err = s.c.Store.Admit(ctx, c, a.Hardware, f)
	if errors.Is(err, ErrExists) {
		return Let{}, fault.New(fault.Conflict, "legacy.device", fmt.Sprintf("device %s is there, and is no such client, or its life is over", c.Device), "give the client another name")
	}
	if err != nil {
		return Let{}, changed(a.Name, err)
	}
	c.Token = c.Secret != nil
	out.Client = c
	return out, nil
}

func (a Admission) check(p product.Product) error {
	if err := CheckName(a.Name); err != nil {
		return err
	}
	switch {
	case !a.Kind.valid():
		return fault.New(fault.Invalid, "legacy.kind", fmt.Sprintf("no kind of client is called %.16q", a.Kind), "ddi or mender")
	case a.Kind == Mender && len(a.Key) == 0:
		return fault.New(fault.Invalid, "legacy.key", "a client of Mender's is known by its key", "see `hallmark legacy list` for the key of the one that asked, and hold it against the device's")
	case len(a.Key) != 0 && len(a.Key) != sha256.Size:
		return fault.New(fault.Invalid, "legacy.key", fmt.Sprintf("a key's digest has %d bytes, and not %d", sha256.Size, len(a.Key)), "give the SHA-256 of the key (SubjectPublicKeyInfo, DER)")
	case a.Hardware != "" && !slices.Contains(p.Hardware, a.Hardware):
		return fault.New(fault.Invalid, "legacy.hardware", fmt.Sprintf("product %s has no hardware revision %q", p.ID, a.Hardware), "give one of "+strings.Join(p.Hardware, ", "))
	}
	return nil
}

// admitted is the fact: a device of another system is taken in, and its word is worth what it is.
func admitted(c Client, hardware string, caller access.Caller, now time.Time) (ledger.Fact, error) {
	data, err := json.Marshal(foreign.Imported{
		Device: c.Device, Product: c.Product, Hardware: hardware, Format: foreign.Format(c.Kind), Name: c.Name, Kind: "client", Identity: hex.EncodeToString(c.Key), Assurance: string(device.Says),
	})
	return ledger.New(ledger.KindDeviceImported, now, caller.ID, c.Device, nil, data), err
}

// newToken makes a secret, and what is kept of it.
func newToken() (secret string, digest []byte) {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	return secret, tokenDigest(secret)
}

func tokenDigest(secret string) []byte {
	sum := sha256.Sum256([]byte("hallmark legacy token\x00" + secret))
	return sum[:]
}

func changed(name string, err error) error {
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "legacy.changed", fmt.Sprintf("client %q changed meanwhile", name), "look again and repeat")
	}
	return err
}

func unknown(productID, name string) error {
	return fault.New(fault.NotFound, "legacy.unknown", fmt.Sprintf("no client %.40q of product %s", name, productID), "see `hallmark legacy list`")
}

// Refuse lets a client in no more, or not at all. Its device stays in the registry: retire it there.
func (s *Service) Refuse(ctx context.Context, caller access.Caller, kind Kind, productID, name, reason string) (Client, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceImport, resource(productID)); err != nil {
		return Client{}, err
	}
	c, err := s.c.Store.Client(ctx, kind, productID, name)
	if errors.Is(err, ErrNotFound) {
		return Client{}, unknown(productID, name)
	}
	if err != nil {
		return Client{}, err
	}
	c.State, c.Secret, c.Token, c.Key, c.Details = Refused, nil, false, nil, Details{By: caller.ID, Reason: reason, Consent: c.Consent}
	var facts []ledger.Fact
	if c.Device != "" {
		f, err := changeFact(c.Device, Change{Product: productID, Device: c.Device, Change: "refused", Reason: reason}, caller, s.c.Now().UTC())
		if err != nil {
			return Client{}, err
		}
		facts = append(facts, f)
	}
	return c, changed(name, s.c.Store.Save(ctx, c, facts...))
}

// List gives a product's clients in a state, of any with an empty one, from behind the client after (kind "/" name) on.
func (s *Service) List(ctx context.Context, caller access.Caller, productID string, state State, after string, limit int) ([]Client, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceRead, resource(productID)); err != nil {
		return nil, err
	}
	return s.c.Store.Clients(ctx, productID, state, after, limit)
}

// AddGateway lets a gateway speak for the clients of a product that are behind it; the token is told once. Whoever has it is all of them: give clients
// tokens of their own where you can.
func (s *Service) AddGateway(ctx context.Context, caller access.Caller, productID, name string) (Gateway, string, error) {
	g := Gateway{Product: productID, Name: name, At: s.c.Now().UTC(), By: caller.ID}
	if err := s.c.Guard.Check(ctx, caller, access.DeviceImport, resource(productID)); err != nil {
		return g, "", err
	}
	if _, err := s.c.Products.Get(ctx, caller, productID); err != nil {
		return g, "", err
	}
	if err := CheckName(name); err != nil {
		return g, "", err
	}
	f, err := changeFact(productID, Change{Product: productID, Gateway: name, Change: "added"}, caller, g.At)
	if err != nil {
		return g, "", err
	}
	secret, digest := newToken()
	err = s.c.Store.AddGateway(ctx, g, digest, f)
	if errors.Is(err, ErrExists) {
		return g, "", fault.New(fault.Conflict, "legacy.gateway", fmt.Sprintf("product %s has a gateway %q", productID, name), "remove it first, or give this one another name")
	}
	return g, secret, err
}

// EndGateway ends a gateway: its token counts no more.
func (s *Service) EndGateway(ctx context.Context, caller access.Caller, productID, name string) error {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceImport, resource(productID)); err != nil {
		return err
	}
	f, err := changeFact(productID, Change{Product: productID, Gateway: name, Change: "ended"}, caller, s.c.Now().UTC())
	if err != nil {
		return err
	}
	err = s.c.Store.EndGateway(ctx, productID, name, f)
	if errors.Is(err, ErrNotFound) {
		return fault.New(fault.NotFound, "legacy.gateway", fmt.Sprintf("product %s has no gateway %.40q", productID, name), "see `hallmark legacy gateways`")
	}
	return err
}

// Change is the data of a legacy.changed fact.
type Change struct {
	Product string `json:"product"`
	Device  string `json:"device,omitempty"`
	Gateway string `json:"gateway,omitempty"` // private
	Change  string `json:"change"`            // added, ended, refused
	Reason  string `json:"reason,omitempty"`  // private
}

func changeFact(subject string, c Change, caller access.Caller, at time.Time) (ledger.Fact, error) {
	data, err := json.Marshal(c)
	return ledger.New(ledger.KindLegacyChanged, at, caller.ID, subject, nil, data), err
}

// Gateways lists a product's.
func (s *Service) Gateways(ctx context.Context, caller access.Caller, productID string) ([]Gateway, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceRead, resource(productID)); err != nil {
		return nil, err
	}
	return s.c.Store.Gateways(ctx, productID)
}

// Proof is what a client shows of itself. The adapter has seen that it has the key.
type Proof struct {
	Token   string // its own
	Gateway string // token of the gateway that speaks for it
	Key     []byte // SHA-256 of its SubjectPublicKeyInfo
}

// Sum tells proofs apart.
func (p Proof) Sum() [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %x", p.Token, p.Gateway, p.Key))
}

// DeviceOf is the ID that a client's device has here once it is admitted.
func DeviceOf(kind Kind, productID, name string) string {
	return pki.ForeignID(productID, "client", string(kind)+"/"+name)
}

// ErrStranger says that nobody let the client in who calls so, or that it is not that client.
var ErrStranger = errors.New("not a client that is let in")

// Identify finds the client that calls. ErrStranger for everybody else: a stranger is not told whether the name or the proof was wrong.
func (s *Service) Identify(ctx context.Context, kind Kind, productID, name string, p Proof) (Client, error) {
	if CheckName(name) != nil {
		return Client{}, ErrStranger
	}
	c, err := s.c.Store.Client(ctx, kind, productID, name)
	if errors.Is(err, ErrNotFound) || err == nil && c.State != Admitted {
		return Client{}, ErrStranger
	}
	if err != nil {
		return Client{}, err
	}
	switch {
	case p.Token != "" && c.Secret != nil:
		if subtle.ConstantTimeCompare(tokenDigest(p.Token), c.Secret) == 1 {
			return c, nil
		}
	case len(p.Key) > 0 && c.Key != nil:
		if subtle.ConstantTimeCompare(p.Key, c.Key) == 1 {
			return c, nil
		}
	case p.Gateway != "" && c.Key == nil: // who is known by its key is spoken for by nobody
		_, err := s.c.Store.GatewayOf(ctx, productID, tokenDigest(p.Gateway))
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return Client{}, err
		}
	}
	return Client{}, ErrStranger
}

// sessionLife is how long a token counts that a client is given for a key.
const sessionLife = 7 * 24 * time.Hour

// Enter gives a client that has the key it was let in by a token for a while; its one before ends. ErrStranger for everybody else.
func (s *Service) Enter(ctx context.Context, kind Kind, productID, name string, key []byte) (token string, err error) {
	for range maxTries {
		c, err := s.Identify(ctx, kind, productID, name, Proof{Key: key})
		if err != nil {
			return "", err
		}
		token, c.Secret = newToken()
		c.Until = s.c.Now().UTC().Add(sessionLife)
		if err = s.c.Store.Save(ctx, c); !errors.Is(err, ErrChanged) {
			return token, err
		}
	}
	return "", fault.New(fault.Unavailable, "legacy.changed", fmt.Sprintf("client %q changed meanwhile", name), "try again")
}

// maxTries is how often something is tried again that another call of the same client came between.
const maxTries = 4

// Entered finds the client that was given a token for a while. ErrStranger when it does not count, or not any more.
func (s *Service) Entered(ctx context.Context, kind Kind, token string) (Client, error) {
	if token == "" {
		return Client{}, ErrStranger
	}
	c, err := s.c.Store.ClientOf(ctx, kind, tokenDigest(token))
	if errors.Is(err, ErrNotFound) || err == nil && (c.State != Admitted || !s.c.Now().Before(c.Until)) {
		return Client{}, ErrStranger
	}
	return c, err
}

// Admitted finds a client by its name, if it is let in; else ErrStranger. Whoever calls has seen elsewhere that it may be spoken for.
func (s *Service) Admitted(ctx context.Context, kind Kind, productID, name string) (Client, error) {
	c, err := s.c.Store.Client(ctx, kind, productID, name)
	if errors.Is(err, ErrNotFound) || err == nil && c.State != Admitted {
		return Client{}, ErrStranger
	}
	return c, err
}

// Ask remembers a stranger, so that a person can let it in. It is no error that it is known, or that too many wait.
func (s *Service) Ask(ctx context.Context, kind Kind, productID, name string, key []byte) error {
	if !kind.valid() || productID == "" {
		return nil
	}
	if err := CheckName(name); err != nil {
		return nil //nolint:nilerr // what nobody may be called is not remembered
	}
	if _, err := s.c.Products.Get(ctx, access.Internal("legacy"), productID); fault.KindOf(err) == fault.NotFound {
		return nil // a stranger is not told what products there are
	} else if err != nil {
		return err
	}
	now := s.c.Now().UTC()
	err := s.c.Store.Ask(ctx, Client{Kind: kind, Product: productID, Name: name, State: Pending, Key: key, Asked: now}, now.Add(-PendingFor), MaxPendingOf, MaxPending)
	if errors.Is(err, ErrExists) || errors.Is(err, ErrFull) {
		return nil
	}
	return err
}

// Mode says what becomes of the attributes there are.
type Mode string

// The modes.
const (
	Merge   Mode = "merge"
	Replace Mode = "replace"
	Remove  Mode = "remove"
)

// Attributes takes what a client says of itself, and gives the client as it is then. What it says again changes nothing but when it said so.
func (s *Service) Attributes(ctx context.Context, c Client, mode Mode, said map[string]string) (Client, error) {
	next := map[string]string{}
	if mode != Replace {
		maps.Copy(next, c.Attributes)
	}
	for k, v := range said {
		if mode == Remove {
			delete(next, k)
			continue
		}
		if k == "" || len(k) > MaxAttribute || len(v) > MaxAttribute {
			return c, fault.New(fault.Invalid, "legacy.attributes", fmt.Sprintf("attribute %.40q of %d bytes", k, len(v)), fmt.Sprintf("at most %d for a name or a value", MaxAttribute))
		}
		next[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
	}
	if mode != Merge && mode != Replace && mode != Remove {
		return c, fault.New(fault.Invalid, "legacy.attributes", fmt.Sprintf("no mode %.16q", mode), "merge, replace or remove")
	}
	if len(next) > MaxAttributes {
		return c, fault.New(fault.Invalid, "legacy.attributes", fmt.Sprintf("%d attributes", len(next)), fmt.Sprintf("at most %d", MaxAttributes))
	}
	c.Attributes, c.AttributesAt = next, s.c.Now().UTC()
	return c, changed(c.Name, s.c.Store.Save(ctx, c))
}

// AgreesToAll keeps whether whoever has a client agrees to all updates.
func (s *Service) AgreesToAll(ctx context.Context, c Client, auto bool) error {
	if c.Auto == auto {
		return nil
	}
	c.Auto = auto
	return changed(c.Name, s.c.Store.Save(ctx, c))
}

// Sums is what other update systems call an artifact's bytes by, beside its SHA-256. Nothing here rests on them.
type Sums struct {
	SHA1, MD5 []byte
	Suffix    string // of its name, by what it is: ".swu"
}
