// Package keyring keeps which keys a running instance signs with, and replaces them.
//
// Under all stages. Each role has the key that the instance was made with, and those that came since. A new key stands beside the old one,
// because devices believe what their trust bundle names: the new one counts for a device when a bundle that names it has come there. An old
// key is retired when no device needs it any more; one that was stolen is retired at once, and the devices that believe nothing else come
// up to the newest bundle by its signed history. Making and retiring are facts in the control log. The private parts stay in the vault: this
// package sees public keys only. It trusts the vault and the store.
package keyring

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Role is what a key is for.
type Role string

// The roles.
const (
	Directive  Role = "directive"   // tells devices what to do
	LogControl Role = "log-control" // signs checkpoints of the control log
	LogEvents  Role = "log-events"  // the same, of the events log
	Order      Role = "order"       // signs production orders; one at a time
	Server     Role = "server"      // TLS of this server; one at a time
	Bucket     Role = "bucket"      // opens what devices seal; kept for as long as there is data under it
	Desk       Role = "desk"        // opens what desks seal of their orders; there is none before the first is made
	Supply     Role = "supply"      // signs summaries of what the supply gate found; there is none before the first is made
)

// Roles lists them.
func Roles() []Role {
	return []Role{Directive, LogControl, LogEvents, Order, Server, Bucket, Desk, Supply}
}

// Key is one of an instance's online keys.
type Key struct {
	Name    string    `json:"name"` // in the key directory
	Role    Role      `json:"role"`
	KID     string    `json:"kid"`  // first 16 bytes of SHA-256 over SPKI, hex
	SPKI    []byte    `json:"spki"` // public key; a bucket's is its HPKE public key
	Created time.Time `json:"created,omitzero"`
	Retired time.Time `json:"retired,omitzero"` // zero: it is used
	Needed  *int      `json:"needed,omitempty"` // devices in the field that believe no other of the role; nil: it is of no matter to devices
}

// ErrExists says that a key of that name is there.
var ErrExists = errors.New("exists already")

// ErrChanged says that the key was retired meanwhile, or is not there.
var ErrChanged = errors.New("changed meanwhile")

// Store keeps the keys that came after those the instance was made with, and which of all are retired.
type Store interface {
	// OnlineKeys gives all, oldest first.
	OnlineKeys(ctx context.Context) ([]Key, error)
	// PutOnlineKey stores a key with its fact; ErrExists.
	PutOnlineKey(ctx context.Context, k Key, f ledger.Fact) error
	// RetireOnlineKey marks it, and stores it when it is one that the instance was made with; ErrChanged when it is marked already.
	RetireOnlineKey(ctx context.Context, k Key, f ledger.Fact) error
}

// Vault makes keys and keeps them.
type Vault interface {
	// Make makes a key for a role, of a suite where the role has a choice (empty: the default), under a name that is free, and gives its public part; it is durable when it returns.
	Make(role Role, suite, name string) (spki []byte, err error)
	// Public gives the public part of a key that is there.
	Public(role Role, name string) (spki []byte, err error)
}

// Field knows what devices need.
type Field interface {
	// NeedKey counts the devices in the field whose trust bundle names key for role, and none of others. For a role that bundles do not name
	// it is false.
	NeedKey(ctx context.Context, role Role, key []byte, others [][]byte) (devices int, matters bool, err error)
}

// Config is what a Service needs; all must be set.
type Config struct {
	Guard  *access.Guard
	Store  Store
	Vault  Vault
	Field  Field
	First  map[Role]string // names of the keys that the instance was made with; a role that is not in it begins with none
	Now    func() time.Time
	Loaded func() // called after a change that this process made; nil: nobody
}

// Service is the ring.
type Service struct {
	cfg Config

	mu   sync.Mutex // guards keys
	keys []Key      // as of the last Load, oldest first of each role
}

// New makes the ring; Load reads it.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}
}

// Load reads which keys there are. It is called again when another node may have changed them.
func (s *Service) Load(ctx context.Context) error {
	kept, err := s.cfg.Store.OnlineKeys(ctx)
	if err != nil {
		return err
	}
	var keys []Key
	for _, role := range Roles() {
		first := Key{Name: s.cfg.First[role], Role: role}
		if first.Name == "" {
			keys = append(keys, of(kept, role)...)
			continue
		}
		if i := slices.IndexFunc(kept, func(k Key) bool { return k.Name == first.Name }); i >= 0 {
			first = kept[i]
		} else if first.SPKI, err = s.cfg.Vault.Public(role, first.Name); err != nil {
			return err
		}
		first.KID = kidOf(first.SPKI)
		keys = append(keys, first)
		for _, k := range kept {
			if k.Role == role && k.Name != first.Name {
				keys = append(keys, k)
			}
		}
	}
	s.mu.Lock()
	s.keys = keys
	s.mu.Unlock()
	return nil
}

func of(keys []Key, role Role) (out []Key) {
	for _, k := range keys {
		if k.Role == role {
			out = append(out, k)
		}
	}
	return out
}

func kidOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16])
}

// Names gives the keys of a role that are used, newest first.
func (s *Service) Names(role Role) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range slices.Backward(s.keys) {
		if k.Role == role && k.Retired.IsZero() {
			out = append(out, k.Name)
		}
	}
	return out
}

// Retired gives the public keys of a role that are not used any more.
func (s *Service) Retired(role Role) (out [][]byte) {
	for _, k := range s.all() {
		if k.Role == role && !k.Retired.IsZero() {
			out = append(out, k.SPKI)
		}
	}
	return out
}

// All gives the keys of a role, oldest first, those that are not used any more too.
func (s *Service) All(role Role) []Key { return of(s.all(), role) }

func (s *Service) all() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys)
}

func resource() access.Resource { return access.Resource{Type: "instance", ID: "keys"} }

// List gives all keys, those that are retired too, and how many devices need each.
func (s *Service) List(ctx context.Context, caller access.Caller) ([]Key, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.InstanceRead, resource()); err != nil {
		return nil, err
	}
	if err := s.Load(ctx); err != nil {
		return nil, err
	}
	keys := s.all()
	for i, k := range keys {
		if !k.Retired.IsZero() {
			continue
		}
		n, matters, err := s.cfg.Field.NeedKey(ctx, k.Role, k.SPKI, others(keys, k))
		if err != nil {
			return nil, err
		}
		if matters {
			keys[i].Needed = &n
		}
	}
	return keys, nil
}

// others gives the keys of the same role that are used beside k.
func others(keys []Key, k Key) (out [][]byte) {
	for _, o := range keys {
		if o.Role == k.Role && o.Name != k.Name && o.Retired.IsZero() {
			out = append(out, o.SPKI)
		}
	}
	return out
}

// keyFact is the Data of key.created and key.retired.
type keyFact struct {
	Name    string `json:"name"`
	Purpose string `json:"purpose"`
	KID     string `json:"kid"`
	SPKI    []byte `json:"spki"`
	Behind  int    `json:"behind,omitempty"` // devices that believed no other when it was retired
	Reason  string `json:"reason,omitempty"`
}

// maxKeys bounds the keys of a role that are used at once: a bundle's role has room for 16.
const maxKeys = 4

// Rotate makes a new key of a role beside those there are.
func (s *Service) Rotate(ctx context.Context, caller access.Caller, role Role, suite, reason string) (Key, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.InstanceManage, resource()); err != nil {
		return Key{}, err
	}
	if !slices.Contains(Roles(), role) {
		return Key{}, fault.New(fault.Invalid, "key.role", fmt.Sprintf("no keys are of role %q", role), fmt.Sprint("use one of ", Roles()))
	}
	if err := s.Load(ctx); err != nil {
		return Key{}, err
	}
	keys, n, used := s.all(), 1, 0
	for _, k := range keys {
		if k.Role == role {
			n++
			if k.Retired.IsZero() {
				used++
			}
		}
	}
	if used >= maxKeys {
		return Key{}, fault.New(fault.Conflict, "key.many", fmt.Sprintf("%d keys of role %s are used already", used, role), "retire one first")
	}
	k := Key{Name: fmt.Sprintf("%s-%d", cmp.Or(s.cfg.First[role], string(role)), n), Role: role, Created: s.cfg.Now().UTC()}
	var err error
	if k.SPKI, err = s.cfg.Vault.Make(role, suite, k.Name); err != nil {
		return Key{}, err
	}
	k.KID = kidOf(k.SPKI)
	f, err := factOf(ledger.KindKeyCreated, k, k.Created, caller, reason, 0)
	if err != nil {
		return Key{}, err
	}
	if err := s.cfg.Store.PutOnlineKey(ctx, k, f); err != nil {
		if errors.Is(err, ErrExists) {
			return Key{}, fault.New(fault.Conflict, "key.changed", "another key of role "+string(role)+" was made meanwhile", "look at `hallmark key list`")
		}
		return Key{}, err
	}
	return k, s.changed(ctx)
}

func factOf(kind ledger.Kind, k Key, at time.Time, caller access.Caller, reason string, behind int) (ledger.Fact, error) {
	data, err := json.Marshal(keyFact{Name: k.Name, Purpose: string(k.Role), KID: k.KID, SPKI: k.SPKI, Behind: behind, Reason: reason})
	if err != nil {
		return ledger.Fact{}, err
	}
	return ledger.New(kind, at, caller.ID, k.Name, nil, data), nil
}

func (s *Service) changed(ctx context.Context) error {
	if err := s.Load(ctx); err != nil {
		return err
	}
	if s.cfg.Loaded != nil {
		s.cfg.Loaded()
	}
	return nil
}

// Retire ends the use of a key. The last of a role is never retired, and one that devices need only when force says so: those come back by
// the signed history of trust bundles, if the newest bundle names another.
func (s *Service) Retire(ctx context.Context, caller access.Caller, name string, force bool, reason string) (Key, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.InstanceManage, resource()); err != nil {
		return Key{}, err
	}
	if err := s.Load(ctx); err != nil {
		return Key{}, err
	}
	keys := s.all()
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		return Key{}, fault.New(fault.NotFound, "key.unknown", fmt.Sprintf("no online key %q", name), "look at `hallmark key list`")
	}
	k := keys[i]
	rest := others(keys, k)
	switch {
	case !k.Retired.IsZero():
		return Key{}, fault.New(fault.Conflict, "key.retired", fmt.Sprintf("key %s was retired already", name), "see `hallmark key list`")
	case len(rest) == 0:
		return Key{}, fault.New(fault.Conflict, "key.last", fmt.Sprintf("key %s is the only one of role %s", name, k.Role), "make another first: hallmark key rotate "+string(k.Role))
	}
	n, matters, err := s.cfg.Field.NeedKey(ctx, k.Role, k.SPKI, rest)
	if err != nil {
		return Key{}, err
	}
	if matters && n > 0 && !force {
		return Key{}, fault.New(fault.Conflict, "key.needed", fmt.Sprintf("%d devices believe no other key of role %s than %s", n, k.Role, name),
			"publish a trust bundle that names another and wait (hallmark bundle status), or retire it with --force: those devices then find the way by the history of trust bundles")
	}
	k.Retired = s.cfg.Now().UTC()
	f, err := factOf(ledger.KindKeyRetired, k, k.Retired, caller, reason, n)
	if err != nil {
		return Key{}, err
	}
	if err := s.cfg.Store.RetireOnlineKey(ctx, k, f); err != nil {
		if errors.Is(err, ErrChanged) {
			return Key{}, fault.New(fault.Conflict, "key.retired", fmt.Sprintf("key %s was retired meanwhile", name), "see `hallmark key list`")
		}
		return Key{}, err
	}
	return k, s.changed(ctx)
}
