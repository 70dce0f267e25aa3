// Package proposal keeps what one person may not do alone until a second one has agreed: four eyes.
//
// Under all stages, beside access, on which it rests. What takes two is the guard's to say (access.SecondNeededError); here it is proposed, decided and carried
// out. What is proposed is not done by the second person, nor by the server in somebody's name: the proposer does it, once, with the other's
// consent, and as far as both may at that moment. It trusts the adapters to keep an operation as it was asked for.
package proposal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Asked is an operation of the API, just as it was asked for: what a second person looks at, and what is done when they agree.
type Asked struct {
	Method  string          `json:"method"`
	Path    string          `json:"path"` // with its query
	IfMatch string          `json:"if_match,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	Summary string          `json:"summary"` // of the operation, for people
}

// digest names what was asked for in a fact that has no room for it.
func (a Asked) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n", a.Method, a.Path, a.IfMatch)
	_, _ = h.Write(a.Body) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil))
}

// State says where a proposal is.
type State string

// A proposal is open until a second person has approved or refused it, or its proposer has withdrawn it; an approved one is done
// once. Open and approved ones lapse.
const (
	Open      State = "open"
	Approved  State = "approved"
	Refused   State = "refused"
	Withdrawn State = "withdrawn"
	Done      State = "done"
	Lapsed    State = "lapsed" // is not stored: it follows from the time
)

// Proposal is what somebody wants to do and may not do alone.
type Proposal struct {
	ID       string          `json:"id"`
	State    State           `json:"state"`
	By       string          `json:"by"`
	Reason   string          `json:"reason"`
	Asked    Asked           `json:"asked"`
	Action   access.Action   `json:"action"`
	Resource access.Resource `json:"resource"`
	Made     time.Time       `json:"made"`
	Expires  time.Time       `json:"expires"`
	Second   string          `json:"second,omitempty"`  // who decided
	Comment  string          `json:"comment,omitempty"` // and what they said
	Decided  time.Time       `json:"decided,omitzero"`
	Status   int             `json:"status,omitempty"` // the answer of the operation, once it was tried
	Rev      int64           `json:"-"`
}

const (
	life      = 7 * 24 * time.Hour
	maxOpen   = 50 // of one caller
	maxReason = 512
)

// Query selects proposals.
type Query struct {
	Scope  []string // of what is within it (empty: all)
	By     string   // as well as those of this caller that are within At
	At     string   // a product, or a group of one, as scopes name them; empty: everywhere
	Before string   // older than that one; empty: from the newest
	Limit  int      // 0: all
}

// Store keeps proposals; each write is durable when it returns nil.
type Store interface {
	// PutProposal stores a new one.
	PutProposal(ctx context.Context, p Proposal, facts ...ledger.Fact) error
	// SaveProposal replaces one if its stored Rev is p.Rev, and raises it; else ErrChanged.
	SaveProposal(ctx context.Context, p Proposal, facts ...ledger.Fact) error
	// Proposal finds one; ErrNotFound.
	Proposal(ctx context.Context, id string) (Proposal, error)
	// Proposals lists what q selects, the newest first.
	Proposals(ctx context.Context, q Query) ([]Proposal, error)
	// OpenProposals counts a caller's that are open at now.
	OpenProposals(ctx context.Context, by string, now time.Time) (int, error)
}

// Errors of the store.
var (
	ErrNotFound = errors.New("no such proposal")
	ErrChanged  = errors.New("the proposal changed meanwhile")
)

// Service has two people decide what one may not decide alone.
type Service struct {
	store   Store
	members Members
	guard   *access.Guard
	now     func() time.Time
}

// Members says what a member may do at the moment.
type Members interface {
	// Acting gives a member as a caller; false when there is no such member, or it has ended.
	Acting(ctx context.Context, id string) (access.Caller, bool, error)
}

// New makes the service.
func New(store Store, members Members, guard *access.Guard) *Service {
	return &Service{store: store, members: members, guard: guard, now: time.Now}
}

// Propose keeps what the guard has just denied caller for want of a second person.
func (s *Service) Propose(ctx context.Context, caller access.Caller, asked Asked, need *access.SecondNeededError, reason string) (Proposal, error) {
	if caller.Kind != access.Person { // whoever holds its secret could second it as himself
		return Proposal{}, fault.New(fault.Denied, "proposal.person", fmt.Sprintf("%s is a machine, and it takes two people", caller.ID), "have a person propose it")
	}
	reason = strings.TrimSpace(reason)
	if reason == "" || len(reason) > maxReason {
		return Proposal{}, fault.New(fault.Invalid, "proposal.reason", "a proposal needs a reason of at most 512 bytes", "say to the second person why")
	}
	now := s.now().UTC()
	n, err := s.store.OpenProposals(ctx, caller.ID, now)
	if err != nil {
		return Proposal{}, err
	}
	if n >= maxOpen {
		return Proposal{}, fault.New(fault.Exhausted, "proposal.many", fmt.Sprintf("%s has %d open proposals", caller.ID, n), "withdraw some, or have them decided")
	}
	p := Proposal{
		ID: proposalID(now), State: Open, By: caller.ID, Reason: reason, Asked: asked, Action: need.Action, Resource: need.Resource,
		Made: now, Expires: now.Add(life), Rev: 1,
	}
	f, err := s.fact(ctx, ledger.KindProposalMade, caller, p)
	if err != nil {
		return Proposal{}, err
	}
	return p, s.store.PutProposal(ctx, p, f)
}

// proposalID sorts by time.
func proposalID(at time.Time) string {
	return fmt.Sprintf("%011x%s", at.UnixMilli(), strings.ToLower(rand.Text()[:6]))
}

// named is how somebody who had to do with a proposal is called in public: an owner's people are not named, also when they have ended.
func (s *Service) named(ctx context.Context, caller access.Caller, id string, p Proposal) (string, error) {
	switch id {
	case "":
		return "", nil
	case caller.ID:
		return caller.Named(), nil
	}
	who, acts, err := s.members.Acting(ctx, id)
	if err != nil {
		return "", err
	}
	if !acts {
		who = access.Caller{ID: id, Owner: access.OwnerOf(p.Resource.Group)}
	}
	return who.Named(), nil
}

// fact tells a step of a proposal. What was asked for is in it by its digest: it may be long.
func (s *Service) fact(ctx context.Context, kind ledger.Kind, caller access.Caller, p Proposal) (ledger.Fact, error) {
	by, err := s.named(ctx, caller, p.By, p)
	if err != nil {
		return ledger.Fact{}, err
	}
	second, err := s.named(ctx, caller, p.Second, p)
	if err != nil {
		return ledger.Fact{}, err
	}
	data, err := json.Marshal(map[string]any{
		"proposal": p.ID, "state": p.State, "by": by, "second": second, "action": p.Action, "type": p.Resource.Type, "id": p.Resource.ID,
		"product": p.Resource.Product, "operation": p.Asked.Method + " " + p.Asked.Path, "asked_sha256": p.Asked.digest(), "reason": p.Reason,
		"comment": p.Comment, "status": p.Status,
	})
	return caller.Tells(ledger.New(kind, s.now().UTC(), caller.ID, p.ID, nil, data)), err
}

// Get gives one: the proposer's own, or any for who may read proposals of that product.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Proposal, error) {
	p, err := s.store.Proposal(ctx, id)
	if errors.Is(err, ErrNotFound) {
		if denied := s.guard.Check(ctx, caller, access.ProposalRead, access.Resource{Type: "proposal", ID: id}); denied != nil {
			return Proposal{}, denied
		}
		return Proposal{}, fault.New(fault.NotFound, "proposal.unknown", fmt.Sprintf("there is no proposal %q", id), "see `hallmark proposal list`")
	}
	if err != nil {
		return Proposal{}, err
	}
	if caller.ID != p.By {
		if err := s.guard.Check(ctx, caller, access.ProposalRead, access.Resource{Type: "proposal", ID: id, Product: p.Resource.Product, Group: p.Resource.Group}); err != nil {
			return Proposal{}, err
		}
	}
	return p.at(s.now()), nil
}

// at is the proposal as it stands at now.
func (p Proposal) at(now time.Time) Proposal {
	if (p.State == Open || p.State == Approved) && !now.Before(p.Expires) {
		p.State = Lapsed
	}
	return p
}

// List gives a page of a product's or a group's, as access.Join names it, or of all (empty), the newest first, behind the proposal before on, at
// most limit (0: all). Who is limited sees those within their scope, and everybody their own.
func (s *Service) List(ctx context.Context, caller access.Caller, place, before string, limit int) ([]Proposal, error) {
	at := access.In("proposal", place)
	scope, err := s.guard.Within(ctx, caller, access.ProposalRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	ps, err := s.store.Proposals(ctx, Query{Scope: scope, By: caller.ID, At: place, Before: before, Limit: limit})
	for i := range ps {
		ps[i] = ps[i].at(s.now())
	}
	return ps, err
}

// Decide has a second person approve or refuse a proposal, or its proposer withdraw it. Who approves might do it himself, with a
// second person's consent, and proves now that it is him.
func (s *Service) Decide(ctx context.Context, caller access.Caller, id string, approve bool, comment string) (Proposal, error) {
	if len(comment) > maxReason {
		return Proposal{}, fault.New(fault.Invalid, "proposal.comment", "a comment has at most 512 bytes", "shorten it")
	}
	p, err := s.Get(ctx, caller, id)
	if err != nil {
		return Proposal{}, err
	}
	own := caller.ID == p.By
	if err := s.mayDecide(ctx, caller, p, approve); err != nil {
		return Proposal{}, err
	}
	if p.State != Open {
		return Proposal{}, fault.New(fault.Conflict, "proposal.decided", fmt.Sprintf("proposal %s is %s", id, p.State), "look at it again")
	}
	kind := ledger.KindProposalRefused
	switch {
	case own:
		p.State = Withdrawn
	case approve:
		p.State, kind = Approved, ledger.KindProposalApproved
	default:
		p.State = Refused
	}
	p.Second, p.Comment, p.Decided = caller.ID, comment, s.now().UTC()
	return s.save(ctx, kind, caller, p)
}

func (s *Service) mayDecide(ctx context.Context, caller access.Caller, p Proposal, approve bool) error {
	switch {
	case caller.ID == p.By && approve:
		return fault.New(fault.Denied, "proposal.own", "nobody is their own second person", "ask somebody else who may do it")
	case caller.ID == p.By:
		return nil
	case caller.Kind != access.Person:
		return fault.New(fault.Denied, "proposal.person", "only a person seconds a proposal", "ask a person who may do it")
	case caller.Via == access.ViaSession && !caller.Fresh:
		return fault.New(fault.Denied, "access.step-up", "deciding a proposal needs a new proof that it is you", "confirm with your passkey, or sign in again")
	}
	caller.Seconded = p.By
	return s.guard.Check(ctx, caller, p.Action, p.Resource)
}

func (s *Service) save(ctx context.Context, kind ledger.Kind, caller access.Caller, p Proposal) (Proposal, error) {
	f, err := s.fact(ctx, kind, caller, p)
	if err != nil {
		return Proposal{}, err
	}
	err = s.store.SaveProposal(ctx, p, f)
	if errors.Is(err, ErrChanged) {
		return Proposal{}, fault.New(fault.Conflict, "proposal.changed", fmt.Sprintf("proposal %s changed meanwhile", p.ID), "look at it again")
	}
	p.Rev++
	return p, err
}

// Begin gives the proposer, seconded, to do what was approved, as far as the second person may do it now. Of one that was done
// already it is given too, without consent: what it answered is kept with the operation's mark, and nothing else is to be had.
func (s *Service) Begin(ctx context.Context, caller access.Caller, id string) (Proposal, access.Caller, error) {
	p, err := s.Get(ctx, caller, id)
	if err != nil {
		return Proposal{}, access.Caller{}, err
	}
	if caller.ID != p.By {
		return Proposal{}, access.Caller{}, fault.New(fault.Denied, "proposal.other", fmt.Sprintf("proposal %s is %s's to carry out", id, p.By), "propose it yourself")
	}
	if p.State == Done {
		return p, caller, nil
	}
	if p.State != Approved {
		return Proposal{}, access.Caller{}, fault.New(fault.Conflict, "proposal.not-approved", fmt.Sprintf("proposal %s is %s", id, p.State),
			"have another person approve it, or propose anew")
	}
	second, acts, err := s.members.Acting(ctx, p.Second)
	if err != nil {
		return Proposal{}, access.Caller{}, err
	}
	if !acts {
		return Proposal{}, access.Caller{}, fault.New(fault.Denied, "proposal.second-ended", fmt.Sprintf("%s, who approved it, may not act any more", p.Second), "propose anew")
	}
	second.Via, second.Seconded = "proposal", p.By
	return p, caller.With(second), nil
}

// End notes what the operation answered. One that failed may be tried again while it has not lapsed; one that wrote something was
// done, whatever it answered.
func (s *Service) End(ctx context.Context, caller access.Caller, p Proposal, status int, wrote bool) error {
	for p.State == Approved {
		p.Status = status
		if status < 300 || wrote {
			p.State = Done
		}
		f, err := s.fact(ctx, ledger.KindProposalTried, caller, p)
		if err != nil {
			return err
		}
		if err = s.store.SaveProposal(ctx, p, f); !errors.Is(err, ErrChanged) {
			return err
		}
		if p, err = s.store.Proposal(ctx, p.ID); err != nil { // another try of it has ended meanwhile
			return err
		}
	}
	return nil
}
