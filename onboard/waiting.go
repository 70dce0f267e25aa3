package onboard

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/product"
)

// Word is what became of a request that takes a person.
type Word string

// The words.
const (
	Waits    Word = "waiting"
	Approved Word = "approved" // the device gets its certificate when it asks again
	Refused  Word = "refused"
)

// The bounds of what waits: each device has one request, and after Lapse it, or what was decided on it, is forgotten.
const (
	MaxWaiting = 10_000
	Lapse      = 7 * 24 * time.Hour
)

// Waiting is a request, with an identity from the factory, that takes a person.
type Waiting struct {
	Device   string    `json:"device"`
	Product  string    `json:"product"`
	Group    string    `json:"group,omitempty" doc:"that the device is in now"`
	Hardware string    `json:"hardware"`
	Call     Call      `json:"call" enum:"enrol,keygen" doc:"keygen: the key is made by the server, and travels"`
	Request  string    `json:"request" doc:"SHA-256 of what is asked for, hex"`
	Key      string    `json:"key" doc:"SHA-256 of the SubjectPublicKeyInfo that the request proves possession of, hex"`
	Again    bool      `json:"again" doc:"the device was enrolled before"`
	State    Word      `json:"state" enum:"waiting,approved,refused"`
	Asked    time.Time `json:"asked"`
	Until    time.Time `json:"until" doc:"when it lapses: the device asks anew then"`
	By       string    `json:"by,omitempty"`
	Decided  time.Time `json:"decided,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// same reports whether two are one request.
func (w Waiting) same(o Waiting) bool { return w.Request == o.Request && w.Call == o.Call }

// Decision is the data of the facts enrolment.approved and enrolment.refused.
type Decision struct {
	Device  string `json:"device"`
	Product string `json:"product"`
	Call    Call   `json:"call"`
	Request string `json:"request"`
	Key     string `json:"key"`
	Reason  string `json:"reason"`
}

// ErrNotWaiting says that the store holds no such request.
var ErrNotWaiting error = fault.New(fault.NotFound, "enrolment.unknown", "no request of this device waits", "see `hallmark enrolment list`")

// let asks whether a request goes on, where a person has to say so. One that is not known yet takes the place of what the device asked
// for before, also of what was decided: who approves has seen just that key.
func (s *Service) let(ctx context.Context, d pki.Device, st Standing, req pkcs10.Request, call Call) error {
	if st.Rules.Mode == product.Automatic {
		return nil
	}
	id, now := d.Identity, s.c.Now().UTC()
	w := Waiting{
		Device: id.DeviceID, Product: id.Product, Hardware: st.Hardware, Call: call, Request: hex.EncodeToString(req.Digest[:]), Key: spkiSum(req.CSR),
		Again: st.State != device.Provisioned, State: Waits, Asked: now, Until: now.Add(Lapse),
	}
	had, err := s.c.Store.Waiting(ctx, id.DeviceID)
	if err != nil && !errors.Is(err, ErrNotWaiting) {
		return err
	}
	pending := &Pending{Device: id.DeviceID, What: "a person has to approve this request", After: s.c.Retry}
	if err == nil && had.same(w) && now.Before(had.Until) {
		switch had.State {
		case Approved:
			return nil
		case Refused:
			return fault.New(fault.Denied, "enrol.turned-down", "this request of device "+id.DeviceID+" was refused by a person", "ask those who run the device")
		case Waits:
		}
		return pending
	}
	if err := s.c.Store.Wait(ctx, w); err != nil {
		return err
	}
	return pending
}

// Waitings lists the requests of place, as access.Join names it, by device, from behind after on.
func (s *Service) Waitings(ctx context.Context, caller access.Caller, place string, state Word, after string, limit int) ([]Waiting, error) {
	at := access.In("device", place)
	scope, err := s.c.Guard.Within(ctx, caller, access.DeviceRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	return s.c.Store.Waitings(ctx, scope, state, after, s.c.Now(), limit)
}

// Waiting gives the request of one device.
func (s *Service) Waiting(ctx context.Context, caller access.Caller, deviceID string) (Waiting, error) {
	return s.waiting(ctx, caller, access.DeviceRead, deviceID)
}

func (s *Service) waiting(ctx context.Context, caller access.Caller, action access.Action, deviceID string) (Waiting, error) {
	w, err := s.c.Store.Waiting(ctx, deviceID)
	if err == nil && !s.c.Now().Before(w.Until) {
		err = ErrNotWaiting
	}
	if err != nil && !errors.Is(err, ErrNotWaiting) {
		return Waiting{}, err
	}
	if denied := s.c.Guard.Check(ctx, caller, action, access.Resource{Type: "device", ID: deviceID, Product: w.Product, Group: w.Group}); denied != nil {
		return Waiting{}, denied
	}
	return w, err
}

// Approve lets the request in that the caller has seen, named by its digest: the device gets its certificate when it asks again.
func (s *Service) Approve(ctx context.Context, caller access.Caller, deviceID, request, reason string) (Waiting, error) {
	return s.decide(ctx, caller, deviceID, request, reason, Approved, ledger.KindEnrolmentApproved)
}

// Refuse turns it down: the device is told so until the request lapses, and may ask with another.
func (s *Service) Refuse(ctx context.Context, caller access.Caller, deviceID, request, reason string) (Waiting, error) {
	return s.decide(ctx, caller, deviceID, request, reason, Refused, ledger.KindEnrolmentRefused)
}

func (s *Service) decide(ctx context.Context, caller access.Caller, deviceID, request, reason string, word Word, kind ledger.Kind) (Waiting, error) {
	w, err := s.waiting(ctx, caller, access.DeviceAdmit, deviceID)
	if err != nil {
		return Waiting{}, err
	}
	if reason == "" || len(reason) > 512 {
		return Waiting{}, fault.New(fault.Invalid, "enrolment.reason", "a decision takes a reason of 1 to 512 bytes", "say what you have looked at")
	}
	if w.Request != request {
		return Waiting{}, changed(deviceID)
	}
	if w.State != Waits {
		return Waiting{}, fault.New(fault.Conflict, "enrolment.decided", fmt.Sprintf("the request of device %s is %s already, by %s", deviceID, w.State, w.By),
			"have the device ask with another request")
	}
	now := s.c.Now().UTC()
	w.State, w.By, w.Reason, w.Decided, w.Until = word, caller.ID, reason, now, now.Add(Lapse)
	data, err := json.Marshal(Decision{Device: deviceID, Product: w.Product, Call: w.Call, Request: request, Key: w.Key, Reason: reason})
	if err != nil {
		return Waiting{}, err
	}
	err = s.c.Store.Decide(ctx, w, ledger.New(kind, now, caller.ID, deviceID, nil, data))
	if errors.Is(err, ErrNotWaiting) {
		err = changed(deviceID)
	}
	return w, err
}

func changed(deviceID string) error {
	return fault.New(fault.Conflict, "enrolment.changed", "device "+deviceID+" asks with another request by now", "look at it again: `hallmark enrolment list`")
}
