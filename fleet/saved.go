package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Saved is a query that somebody keeps under a name of their own.
type Saved struct {
	Name  string `json:"name" minLength:"1" maxLength:"64"`
	Query Query  `json:"query"`
}

// MaxSaved bounds what one member keeps.
const MaxSaved = 50

// ErrSavedFull says that a member keeps as many as may be kept.
var ErrSavedFull = errors.New("too many saved queries")

// SavedStore keeps queries; each write is durable when it returns nil.
type SavedStore interface {
	// SaveQuery stores one in the place of the member's other of that name; ErrSavedFull when there would be more than MaxSaved.
	SaveQuery(ctx context.Context, member string, s Saved) error
	// SavedQueries lists a member's, by name.
	SavedQueries(ctx context.Context, member string) ([]Saved, error)
	// ForgetQuery removes one, if it is there.
	ForgetQuery(ctx context.Context, member, name string) error
}

// Save keeps a query for the caller alone.
func (s *Service) Save(ctx context.Context, caller access.Caller, q Saved) (Saved, error) {
	if _, err := s.guard.Within(ctx, caller, access.DeviceRead, "fleet", q.Query.Product, q.Query.Group); err != nil {
		return Saved{}, err
	}
	q.Name = strings.TrimSpace(q.Name)
	if q.Name == "" || len(q.Name) > 64 || !utf8.ValidString(q.Name) || strings.ContainsFunc(q.Name, func(r rune) bool { return r < ' ' || r == '/' }) {
		return Saved{}, fault.New(fault.Invalid, "query.name", "a saved query's name has 1 to 64 bytes, without / and control characters", "choose another")
	}
	q.Query.Scope, q.Query.After, q.Query.Limit = nil, "", 0
	err := s.saved.SaveQuery(ctx, caller.ID, q)
	if errors.Is(err, ErrSavedFull) {
		return Saved{}, fault.New(fault.Exhausted, "query.many", fmt.Sprintf("you keep %d queries", MaxSaved), "forget one first")
	}
	return q, err
}

// Saved lists the caller's queries, by name.
func (s *Service) Saved(ctx context.Context, caller access.Caller) ([]Saved, error) {
	return s.saved.SavedQueries(ctx, caller.ID)
}

// Forget removes one of the caller's queries.
func (s *Service) Forget(ctx context.Context, caller access.Caller, name string) error {
	return s.saved.ForgetQuery(ctx, caller.ID, name)
}
