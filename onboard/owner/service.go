package owner

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Config is what a Service works with; every field without a default must be set.
type Config struct {
	Store        Store
	Codes        Codes
	Transfers    Transfers
	Returns      Returns
	Marks        Marks
	Warrants     Warrants
	Devices      Devices
	Certificates Certificates
	Ledger       Ledger
	Guard        *access.Guard
	Now          func() time.Time // default time.Now
}

// Service is the stage.
type Service struct {
	cfg      Config
	attempts attempts

	unpurged atomic.Bool // traces of destroyed data may be in the database's files

	mu sync.Mutex // held while transfers and adoptions advance, so that no step is done twice
}

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Codes == nil || cfg.Transfers == nil || cfg.Returns == nil || cfg.Marks == nil || cfg.Warrants == nil || cfg.Devices == nil || cfg.Certificates == nil ||
		cfg.Ledger == nil || cfg.Guard == nil {
		return nil, errors.New("owner: a store, the devices, the certificates, the ledger or the guard is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

func system() access.Caller { return access.Internal("owner") }

// placed is a device as a resource.
func placed(d device.Device) access.Resource {
	return access.Resource{Type: "device", ID: d.ID, Product: d.Product, Group: d.Group}
}

// open finds a device and asks the guard about it, before anything of it is told.
func (s *Service) open(ctx context.Context, caller access.Caller, action access.Action, id string) (device.Device, error) {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return d, err
	}
	d.ID = id
	if denied := s.cfg.Guard.Check(ctx, caller, action, placed(d)); denied != nil {
		return d, denied
	}
	return d, err
}

// MaxName bounds an owner's name, and MaxReason words of people, in bytes.
const (
	MaxName   = 128
	MaxReason = 512
)

// Create makes an owner.
func (s *Service) Create(ctx context.Context, caller access.Caller, name string) (Owner, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.OwnerManage, access.Resource{Type: "owner"}); err != nil {
		return Owner{}, err
	}
	name = strings.TrimSpace(name)
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return Owner{}, fault.New(fault.Invalid, "owner.name", "an owner needs a name", fmt.Sprintf("at most %d bytes", MaxName))
	}
	o := Owner{ID: "o-" + strings.ToLower(rand.Text()[:12]), Name: name, Created: s.cfg.Now().UTC(), Rev: 1}
	f, err := s.ownerFact(ledger.KindOwnerCreated, caller, o.Created, o)
	if err != nil {
		return Owner{}, err
	}
	return o, s.cfg.Store.PutOwner(ctx, o, f)
}

func (s *Service) ownerFact(kind ledger.Kind, caller access.Caller, at time.Time, o Owner) (ledger.Fact, error) {
	data, err := json.Marshal(map[string]string{"owner": o.ID, "name": o.Name})
	return ledger.New(kind, at, caller.ID, o.ID, nil, data), err
}

// End ends an owner that has no devices any more: its members can do nothing from then on.
func (s *Service) End(ctx context.Context, caller access.Caller, id string) (Owner, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.OwnerManage, access.Resource{Type: "owner", ID: id}); err != nil {
		return Owner{}, err
	}
	o, err := s.owner(ctx, id)
	if err != nil || !o.Ended.IsZero() {
		return o, err
	}
	o.Ended = s.cfg.Now().UTC()
	f, err := s.ownerFact(ledger.KindOwnerEnded, caller, o.Ended, o)
	if err != nil {
		return Owner{}, err
	}
	err = s.cfg.Store.EndOwner(ctx, o, f)
	if errors.Is(err, ErrChanged) {
		return Owner{}, fault.New(fault.Conflict, "owner.devices", fmt.Sprintf("owner %s has devices, or changed meanwhile", id), "transfer its devices first")
	}
	return o, err
}

func (s *Service) owner(ctx context.Context, id string) (Owner, error) {
	o, err := s.cfg.Store.Owner(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return o, fault.New(fault.NotFound, "owner.unknown", fmt.Sprintf("there is no owner %q", id), "see `hallmark owner list`")
	}
	return o, err
}

// Get gives one: any for the maker's people, their own for an owner's.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Owner, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.OwnerRead, access.Resource{Type: "owner", ID: id}); err != nil {
		return Owner{}, err
	}
	return s.owner(ctx, id)
}

// MaxPage bounds a page.
const MaxPage = 200

// List lists owners by ID, after (exclusive), at most limit; an owner's people see their own alone.
func (s *Service) List(ctx context.Context, caller access.Caller, after string, limit int) ([]Owner, error) {
	if caller.Owner != "" {
		o, err := s.Get(ctx, caller, caller.Owner)
		if err != nil || o.ID <= after {
			return nil, err
		}
		return []Owner{o}, nil
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.OwnerRead, access.Resource{Type: "owner"}); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	return s.cfg.Store.Owners(ctx, after, limit)
}

// Lineage gives the times in which a device belonged to somebody, oldest first. The maker sees to whom; an owner sees that of its own.
func (s *Service) Lineage(ctx context.Context, caller access.Caller, id string) ([]Period, error) {
	if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
		return nil, err
	}
	all, err := s.cfg.Store.Lineage(ctx, id)
	for i, p := range all {
		if caller.Owner != "" && caller.Owner != p.Owner {
			all[i] = Period{Device: p.Device, Number: p.Number, Digest: p.Digest, From: p.From, Until: p.Until, How: p.How, End: p.End}
		}
	}
	return all, err
}

// cause gives the place of a fact; nil while it has none: what is decided does not wait for it.
func (s *Service) cause(ctx context.Context, uid [16]byte) *ledger.Ref {
	ref, ok, err := s.cfg.Ledger.Locate(ctx, uid)
	if err != nil || !ok {
		return nil
	}
	return &ref
}

// actor is who a fact about a device's owner is told to be by: what is public must not name who the owner is, and its people would.
func actor(p Period) string { return "owner:" + hex.EncodeToString(p.Digest[:min(8, len(p.Digest))]) }

func fact(kind ledger.Kind, at time.Time, who, device string, cause *ledger.Ref, data any) (ledger.Fact, error) {
	b, err := json.Marshal(data)
	return ledger.New(kind, at, who, device, cause, b), err
}

// Tick goes on with what waits for devices, and with what a crash or an outage interrupted.
func (s *Service) Tick(ctx context.Context) error {
	errs := []error{s.purge(ctx)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for after := ""; ; {
		open, err := s.cfg.Transfers.OpenTransfers(ctx, after, MaxPage)
		if err != nil {
			return err
		}
		for _, t := range open {
			after = t.Device
			if err := s.advance(ctx, t); err != nil {
				errs = append(errs, fmt.Errorf("transfer of device %s: %w", t.Device, err))
			}
		}
		if len(open) < MaxPage {
			break
		}
	}
	unheld, err := s.cfg.Store.Unheld(ctx)
	errs = append(errs, err)
	for _, p := range unheld {
		if err := s.adopt(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("adoption of device %s: %w", p.Device, err))
		}
	}
	return errors.Join(append(errs, s.hold(ctx))...)
}

// retry is when a device that said no is told again: soon at first, daily in the end. It is asked for as long as it takes.
func retry(tries int, tried time.Time) time.Time {
	return tried.Add(min(time.Minute<<min(tries, 12), 24*time.Hour))
}

// newSalt gives the salt of a period.
func newSalt() (salt [32]byte) {
	_, _ = rand.Read(salt[:]) // never fails: crypto/rand ends the process instead
	return salt
}
