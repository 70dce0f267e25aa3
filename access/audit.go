package access

import (
	"context"
	"time"
)

// Recorded is a decision that was kept.
type Recorded struct {
	ID       int64     `json:"id" doc:"rises with time"`
	At       time.Time `json:"at"`
	Caller   string    `json:"caller"`
	Action   Action    `json:"action"`
	Resource string    `json:"resource" doc:"kind and name of the thing"`
	Product  string    `json:"product,omitempty"`
	Allowed  bool      `json:"allowed"`
}

// RecordedFilter says which decisions; what is empty says nothing.
type RecordedFilter struct {
	Caller string
	Action Action
	Denied bool // only those
}

// AuditStore reads what Audit wrote.
type AuditStore interface {
	// Recorded lists decisions, newest first, before that ID (0: from the newest), at most limit.
	Recorded(ctx context.Context, f RecordedFilter, before int64, limit int) ([]Recorded, error)
}

// AuditTrail lets people read what was decided.
type AuditTrail struct {
	store AuditStore
	guard *Guard
}

// NewAuditTrail makes the service.
func NewAuditTrail(store AuditStore, guard *Guard) *AuditTrail {
	return &AuditTrail{store: store, guard: guard}
}

// MaxRecorded bounds a page.
const MaxRecorded = 500

// List gives a page of decisions, newest first.
func (a *AuditTrail) List(ctx context.Context, caller Caller, f RecordedFilter, before int64, limit int) ([]Recorded, error) {
	if err := a.guard.Check(ctx, caller, AuditRead, Resource{Type: "instance"}); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxRecorded {
		limit = MaxRecorded
	}
	return a.store.Recorded(ctx, f, before, limit)
}
