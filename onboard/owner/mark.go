package owner

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Mark is said of a device until it is lifted: stolen, or recalled by a recall.
type Mark struct {
	Device string            `json:"device"`
	Recall string            `json:"recall,omitempty"` // ID; empty: stolen
	Was    device.Legitimacy `json:"was"`              // without any mark
	At     time.Time         `json:"at"`
	By     string            `json:"by"`
	Maker  bool              `json:"maker,omitempty"`  // set by the maker's people: no owner lifts it
	Reason string            `json:"reason,omitempty"` // of stolen: private
}

// Recall asks for devices to be brought back, or to be mended. Everything of it is public.
type Recall struct {
	ID       string    `json:"id"`
	Product  string    `json:"product"`
	Hardware string    `json:"hardware,omitempty" doc:"revision; empty: every"`
	Order    string    `json:"order,omitempty" doc:"production order; empty: every"`
	From     string    `json:"from,omitempty" doc:"first device ID; empty: from the first"`
	To       string    `json:"to,omitempty" doc:"last device ID; empty: to the last"`
	Reason   string    `json:"reason" doc:"what is wrong, for everybody to read"`
	Remedy   string    `json:"remedy" doc:"what to do, for everybody to read"`
	Due      time.Time `json:"due" doc:"until when it should be done"`
	Made     time.Time `json:"made"`
	By       string    `json:"by"`
	Devices  int       `json:"devices" doc:"that were marked"`
	Open     int       `json:"open" doc:"of those: not mended yet"`
}

// Bounds of a recall.
const (
	MaxRecalled = 20_000 // devices: a larger one is several, by order or range
	MaxPublic   = 1024   // bytes of reason or remedy
)

// Marks keeps marks. A device is stolen when it has that mark, else recalled when it has such a mark, else what it was without any: each
// write sets its legitimacy so, with the fact, and is durable when it returns nil.
type Marks interface {
	// Marks gives a device's, stolen first, then recalls by ID.
	Marks(ctx context.Context, device string) ([]Mark, error)
	// PutMark adds one; ErrChanged when it is there. The maker's word that a device is stolen takes the place of its owner's.
	PutMark(ctx context.Context, m Mark, fact func(from, to device.Legitimacy) (ledger.Fact, error)) error
	// LiftMark takes one away; ErrNotFound. ErrForeign when it is the maker's, and who lifts it is not.
	LiftMark(ctx context.Context, device, recall string, maker bool, fact func(from, to device.Legitimacy) (ledger.Fact, error)) error
	// Stolen lists devices that are marked so, and living.
	Stolen(ctx context.Context) ([]string, error)
	// Recallable lists the living devices that a recall names, by ID, at most limit.
	Recallable(ctx context.Context, r Recall, limit int) ([]string, error)
	// PutRecall stores it and marks the devices, with its fact and one for each device.
	PutRecall(ctx context.Context, r Recall, devices []string, whole ledger.Fact, each func(device string, from, to device.Legitimacy) (ledger.Fact, error)) error
	// Recalls lists a product's, all with an empty one, or the one with that ID, newest first, at most limit.
	Recalls(ctx context.Context, product, id string, limit int) ([]Recall, error)
}

// judged is the Data of device.state.changed when it is of the legitimacy.
type judged struct {
	Device string            `json:"device"`
	From   device.Legitimacy `json:"legitimacy_from"`
	To     device.Legitimacy `json:"legitimacy_to"`
	Recall string            `json:"recall,omitempty"`
	Reason string            `json:"reason,omitempty"` // private
}

func (s *Service) judging(who, id, recall, reason string, at time.Time) func(from, to device.Legitimacy) (ledger.Fact, error) {
	return func(from, to device.Legitimacy) (ledger.Fact, error) {
		return fact(ledger.KindDeviceState, at, who, id, nil, judged{Device: id, From: from, To: to, Recall: recall, Reason: reason})
	}
}

// by is who the fact of a mark is told to be by.
func (s *Service) by(ctx context.Context, caller access.Caller, id string) (string, error) {
	p, err := s.last(ctx, id)
	if caller.Owner != "" && p.current() {
		return actor(p), err
	}
	return caller.ID, err
}

// Steal marks a device as stolen: by its owner, or the maker. It gets no certificate any more and cannot be claimed or handed on, and it is
// kept in quarantine as long as it can be told.
func (s *Service) Steal(ctx context.Context, caller access.Caller, id, reason string) error {
	d, err := s.open(ctx, caller, access.DeviceMark, id)
	if err != nil {
		return err
	}
	if reason == "" || len(reason) > MaxReason {
		return fault.New(fault.Invalid, "mark.reason", "a mark needs a reason", fmt.Sprintf("at most %d bytes", MaxReason))
	}
	if device.Ended(d.State) {
		return fault.New(fault.Conflict, "mark.state", fmt.Sprintf("device %s is %s", id, d.State), "a device is marked while its life goes on")
	}
	who, err := s.by(ctx, caller, id)
	if err != nil {
		return err
	}
	now := s.cfg.Now().UTC()
	err = s.cfg.Marks.PutMark(ctx, Mark{Device: id, At: now, By: caller.ID, Maker: caller.Owner == "", Reason: reason}, s.judging(who, id, "", reason, now))
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "mark.there", fmt.Sprintf("device %s is marked as stolen already", id), "lift the mark first, if it is to say something else")
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.contain(ctx, id); err != nil {
		return fmt.Errorf("the mark stands, and the device will be quarantined: %w", err)
	}
	return nil
}

// Found lifts the mark again. One that the maker's people set is theirs to lift: it may be the owner that they have set it against.
func (s *Service) Found(ctx context.Context, caller access.Caller, id, reason string) error {
	d, err := s.open(ctx, caller, access.DeviceMark, id)
	if err != nil {
		return err
	}
	who, err := s.by(ctx, caller, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.cfg.Marks.LiftMark(ctx, id, "", caller.Owner == "", s.judging(who, id, "", reason, s.cfg.Now().UTC()))
	if errors.Is(err, ErrForeign) {
		return fault.New(fault.Denied, "mark.maker", fmt.Sprintf("the maker has marked device %s as stolen", id), "ask the maker")
	}
	if errors.Is(err, ErrNotFound) {
		return fault.New(fault.NotFound, "mark.unknown", fmt.Sprintf("device %s is not marked as stolen", id), "see its marks with `hallmark device show`")
	}
	if err != nil || !inReach(d.State) {
		return err
	}
	_, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{Product: d.Product, Act: wire.ActRelease, Devices: []string{id}, Reason: "found"})
	return err
}

func inReach(st device.State) bool {
	return st == device.Onboarded || st == device.Active || st == device.Quarantined || st == device.Dormant || st == device.Maintenance
}

// hold renews the quarantine of stolen devices.
func (s *Service) hold(ctx context.Context) error {
	ids, err := s.cfg.Marks.Stolen(ctx)
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, s.contain(ctx, id))
	}
	return errors.Join(errs...)
}

// contain quarantines a stolen device each day anew, for as long as a device keeps a quarantine without being told again. Others' quarantines count for nothing here: they may be of a second.
func (s *Service) contain(ctx context.Context, id string) error {
	const ttl = wire.MaxGuardedTTL * time.Second
	marks, err := s.cfg.Marks.Marks(ctx, id)
	if err != nil || len(marks) == 0 || marks[0].Recall != "" {
		return err
	}
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	if err != nil || !inReach(d.State) {
		return err
	}
	day := int(s.cfg.Now().Sub(marks[0].At) / (24 * time.Hour))
	_, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{
		Product: d.Product, Act: wire.ActQuarantine, Devices: []string{id}, TTL: ttl, Valid: ttl, Reason: "stolen",
		Once: fmt.Sprintf("stolen/%s/%d/%d", id, marks[0].At.UnixMilli(), day),
	})
	return err
}

// RecallDevices marks the living devices that r names as recalled. With dry, it says how many, and does nothing.
func (s *Service) RecallDevices(ctx context.Context, caller access.Caller, r Recall, dry bool) (Recall, error) {
	res := access.Resource{Type: "product", ID: r.Product, Product: r.Product}
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRecall, res); err != nil {
		return Recall{}, err
	}
	r.Made = s.cfg.Now().UTC()
	if r.Product == "" || r.Reason == "" || r.Remedy == "" || len(r.Reason) > MaxPublic || len(r.Remedy) > MaxPublic || !r.Due.After(r.Made) {
		return Recall{}, fault.New(fault.Invalid, "recall.incomplete", "a recall says which product, what is wrong, what to do, and until when",
			fmt.Sprintf("at most %d bytes each, and a day in the future", MaxPublic))
	}
	ids, err := s.cfg.Marks.Recallable(ctx, r, MaxRecalled+1)
	if err != nil {
		return Recall{}, err
	}
	if len(ids) > MaxRecalled {
		return Recall{}, fault.New(fault.Invalid, "recall.many", fmt.Sprintf("more than %d devices", MaxRecalled), "recall them by order, or by range of device IDs")
	}
	r.Devices, r.Open, r.By = len(ids), len(ids), caller.ID
	if dry {
		return r, nil
	}
	if len(ids) == 0 {
		return Recall{}, fault.New(fault.Invalid, "recall.none", "the recall names no device", "look at product, hardware, order and range")
	}
	if res.Grave = s.cfg.Guard.Many(caller, ids); res.Grave {
		if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRecall, res); err != nil {
			return Recall{}, err
		}
	}
	r.ID = "rc-" + strings.ToLower(rand.Text()[:12])
	set, err := wire.SetOf(ids)
	if err != nil {
		return Recall{}, err
	}
	data, err := json.Marshal(struct {
		Recall
		Set wire.DeviceSet `json:"set"`
	}{r, set})
	if err != nil {
		return Recall{}, err
	}
	whole := ledger.New(ledger.KindRecallIssued, r.Made, caller.ID, r.ID, nil, data)
	err = s.cfg.Marks.PutRecall(ctx, r, ids, whole, func(id string, from, to device.Legitimacy) (ledger.Fact, error) {
		return s.judging(caller.ID, id, r.ID, "", r.Made)(from, to)
	})
	return r, err
}

// Mended lifts a recall for one device: what had to be done was done.
func (s *Service) Mended(ctx context.Context, caller access.Caller, id, recall, reason string) error {
	d, err := s.open(ctx, caller, access.DeviceRead, id)
	if err != nil {
		return err
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRecall, placed(d)); err != nil {
		return err
	}
	if reason == "" || len(reason) > MaxReason {
		return fault.New(fault.Invalid, "mark.reason", "say what was done", fmt.Sprintf("at most %d bytes", MaxReason))
	}
	unknown := fault.New(fault.NotFound, "recall.unknown", fmt.Sprintf("device %s is in no recall %q", id, recall), "see `hallmark device show`")
	if recall == "" { // that is the mark of what is stolen
		return unknown
	}
	err = s.cfg.Marks.LiftMark(ctx, id, recall, true, s.judging(caller.ID, id, recall, reason, s.cfg.Now().UTC()))
	if errors.Is(err, ErrNotFound) {
		return unknown
	}
	return err
}

// Recalls lists a product's recalls, all with an empty one, newest first.
func (s *Service) Recalls(ctx context.Context, caller access.Caller, product string) ([]Recall, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ProductRead, access.Resource{Type: "recall", Product: product}); err != nil {
		return nil, err
	}
	return s.cfg.Marks.Recalls(ctx, product, "", MaxPage)
}

// MarksOf gives a device's marks; why it was marked as stolen is for who may see it.
func (s *Service) MarksOf(ctx context.Context, caller access.Caller, id string) ([]Mark, error) {
	if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
		return nil, err
	}
	return s.cfg.Marks.Marks(ctx, id)
}
