package access

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

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// BulkDevices is how many devices one person may act on alone, within AloneFor.
const BulkDevices = 100

// SecondNeededError says that a caller might do something if a second person agreed: four eyes.
type SecondNeededError struct {
	*fault.Fault
	Action   Action
	Resource Resource
}

// Unwrap lets errors.As find the fault.
func (e *SecondNeededError) Unwrap() error { return e.Fault }

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

// ProposalState says where a proposal is.
type ProposalState string

// A proposal is open until a second person has approved or refused it, or its proposer has withdrawn it; an approved one is done
// once. Open and approved ones lapse.
const (
	ProposalOpen      ProposalState = "open"
	ProposalApproved  ProposalState = "approved"
	ProposalRefused   ProposalState = "refused"
	ProposalWithdrawn ProposalState = "withdrawn"
	ProposalDone      ProposalState = "done"
	ProposalLapsed    ProposalState = "lapsed" // is not stored: it follows from the time
)

// Proposal is what somebody wants to do and may not do alone.
type Proposal struct {
	ID       string        `json:"id"`
	State    ProposalState `json:"state"`
	By       string        `json:"by"`
	Reason   string        `json:"reason"`
	Asked    Asked         `json:"asked"`
	Action   Action        `json:"action"`
	Resource Resource      `json:"resource"`
	Made     time.Time     `json:"made"`
	Expires  time.Time     `json:"expires"`
	Second   string        `json:"second,omitempty"`  // who decided
	Comment  string        `json:"comment,omitempty"` // and what they said
	Decided  time.Time     `json:"decided,omitzero"`
	Status   int           `json:"status,omitempty"` // the answer of the operation, once it was tried
	Rev      int64         `json:"-"`
}

const (
	proposalLife     = 7 * 24 * time.Hour
	maxOpenProposals = 50 // of one caller
	maxReason        = 512
)

// ProposalQuery selects proposals.
type ProposalQuery struct {
	Scope  []string // of what is within it (empty: all)
	By     string   // as well as those of this caller that are within At
	At     string   // a product, or a group of one, as scopes name them; empty: everywhere
	Before string   // older than that one; empty: from the newest
	Limit  int      // 0: all
}

// ProposalStore keeps proposals; each write is durable when it returns nil.
type ProposalStore interface {
	// PutProposal stores a new one.
	PutProposal(ctx context.Context, p Proposal, facts ...ledger.Fact) error
	// SaveProposal replaces one if its stored Rev is p.Rev, and raises it; else ErrProposalChanged.
	SaveProposal(ctx context.Context, p Proposal, facts ...ledger.Fact) error
	// Proposal finds one; ErrNoProposal.
	Proposal(ctx context.Context, id string) (Proposal, error)
	// Proposals lists what q selects, the newest first.
	Proposals(ctx context.Context, q ProposalQuery) ([]Proposal, error)
	// OpenProposals counts a caller's that are open at now.
	OpenProposals(ctx context.Context, by string, now time.Time) (int, error)
}

// Errors of the store.
var (
	ErrNoProposal      = errors.New("no such proposal")
	ErrProposalChanged = errors.New("the proposal changed meanwhile")
)

// Proposals has two people decide what one may not decide alone. What is proposed is not done by the second person, nor by the
// server in somebody's name: the proposer does it, once, with the other's consent.
type Proposals struct {
	store   ProposalStore
	members Known
	guard   *Guard
	now     func() time.Time
}

// Known knows members, and where those of owners may act.
type Known interface {
	MemberStore
	OwnerStore
}

// NewProposals makes the service.
func NewProposals(store ProposalStore, members Known, guard *Guard) *Proposals {
	return &Proposals{store: store, members: members, guard: guard, now: time.Now}
}

// Propose keeps what the guard has just denied caller for want of a second person.
func (s *Proposals) Propose(ctx context.Context, caller Caller, asked Asked, need *SecondNeededError, reason string) (Proposal, error) {
	if caller.Kind != Person { // whoever holds its secret could second it as himself
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
	if n >= maxOpenProposals {
		return Proposal{}, fault.New(fault.Exhausted, "proposal.many", fmt.Sprintf("%s has %d open proposals", caller.ID, n), "withdraw some, or have them decided")
	}
	p := Proposal{
		ID: proposalID(now), State: ProposalOpen, By: caller.ID, Reason: reason, Asked: asked, Action: need.Action, Resource: need.Resource,
		Made: now, Expires: now.Add(proposalLife), Rev: 1,
	}
	f, err := s.fact(ledger.KindProposalMade, caller, p)
	if err != nil {
		return Proposal{}, err
	}
	return p, s.store.PutProposal(ctx, p, f)
}

// proposalID sorts by time.
func proposalID(at time.Time) string {
	return fmt.Sprintf("%011x%s", at.UnixMilli(), strings.ToLower(rand.Text()[:6]))
}

// fact tells a step of a proposal. What was asked for is in it by its digest: it may be long.
func (s *Proposals) fact(kind ledger.Kind, caller Caller, p Proposal) (ledger.Fact, error) {
	data, err := json.Marshal(map[string]any{
		"proposal": p.ID, "state": p.State, "by": p.By, "second": p.Second, "action": p.Action, "type": p.Resource.Type, "id": p.Resource.ID,
		"product": p.Resource.Product, "operation": p.Asked.Method + " " + p.Asked.Path, "asked_sha256": p.Asked.digest(), "reason": p.Reason,
		"comment": p.Comment, "status": p.Status,
	})
	return ledger.New(ledger.Control, kind, s.now().UTC(), caller.ID, p.ID, nil, data), err
}

// Get gives one: the proposer's own, or any for who may read proposals of that product.
func (s *Proposals) Get(ctx context.Context, caller Caller, id string) (Proposal, error) {
	p, err := s.store.Proposal(ctx, id)
	if errors.Is(err, ErrNoProposal) {
		if denied := s.guard.Check(ctx, caller, ProposalRead, Resource{Type: "proposal", ID: id}); denied != nil {
			return Proposal{}, denied
		}
		return Proposal{}, fault.New(fault.NotFound, "proposal.unknown", fmt.Sprintf("there is no proposal %q", id), "see `hallmark proposal list`")
	}
	if err != nil {
		return Proposal{}, err
	}
	if caller.ID != p.By {
		if err := s.guard.Check(ctx, caller, ProposalRead, Resource{Type: "proposal", ID: id, Product: p.Resource.Product, Group: p.Resource.Group}); err != nil {
			return Proposal{}, err
		}
	}
	return p.at(s.now()), nil
}

// at is the proposal as it stands at now.
func (p Proposal) at(now time.Time) Proposal {
	if (p.State == ProposalOpen || p.State == ProposalApproved) && !now.Before(p.Expires) {
		p.State = ProposalLapsed
	}
	return p
}

// List gives a page of a product's or a group's, as Join names it, or of all (empty), the newest first, behind the proposal before on, at
// most limit (0: all). Who is limited sees those within their scope, and everybody their own.
func (s *Proposals) List(ctx context.Context, caller Caller, place, before string, limit int) ([]Proposal, error) {
	at := In("proposal", place)
	scope, err := s.guard.Within(ctx, caller, ProposalRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	ps, err := s.store.Proposals(ctx, ProposalQuery{Scope: scope, By: caller.ID, At: place, Before: before, Limit: limit})
	for i := range ps {
		ps[i] = ps[i].at(s.now())
	}
	return ps, err
}

// Decide has a second person approve or refuse a proposal, or its proposer withdraw it. Who approves might do it himself, with a
// second person's consent, and proves now that it is him.
func (s *Proposals) Decide(ctx context.Context, caller Caller, id string, approve bool, comment string) (Proposal, error) {
	if len(comment) > maxReason {
		return Proposal{}, fault.New(fault.Invalid, "proposal.comment", "a comment has at most 512 bytes", "")
	}
	p, err := s.Get(ctx, caller, id)
	if err != nil {
		return Proposal{}, err
	}
	own := caller.ID == p.By
	if err := s.mayDecide(ctx, caller, p, approve); err != nil {
		return Proposal{}, err
	}
	if p.State != ProposalOpen {
		return Proposal{}, fault.New(fault.Conflict, "proposal.decided", fmt.Sprintf("proposal %s is %s", id, p.State), "look at it again")
	}
	kind := ledger.KindProposalRefused
	switch {
	case own:
		p.State = ProposalWithdrawn
	case approve:
		p.State, kind = ProposalApproved, ledger.KindProposalApproved
	default:
		p.State = ProposalRefused
	}
	p.Second, p.Comment, p.Decided = caller.ID, comment, s.now().UTC()
	return s.save(ctx, kind, caller, p)
}

func (s *Proposals) mayDecide(ctx context.Context, caller Caller, p Proposal, approve bool) error {
	switch {
	case caller.ID == p.By && approve:
		return fault.New(fault.Denied, "proposal.own", "nobody is their own second person", "ask somebody else who may do it")
	case caller.ID == p.By:
		return nil
	case caller.Kind != Person:
		return fault.New(fault.Denied, "proposal.person", "only a person seconds a proposal", "ask a person who may do it")
	case caller.Via == string(UseSession) && !caller.Fresh:
		return fault.New(fault.Denied, "access.step-up", "deciding a proposal needs a new proof that it is you", "confirm with your passkey, or sign in again")
	}
	caller.Seconded = p.By
	return s.guard.Check(ctx, caller, p.Action, p.Resource)
}

func (s *Proposals) save(ctx context.Context, kind ledger.Kind, caller Caller, p Proposal) (Proposal, error) {
	f, err := s.fact(kind, caller, p)
	if err != nil {
		return Proposal{}, err
	}
	err = s.store.SaveProposal(ctx, p, f)
	if errors.Is(err, ErrProposalChanged) {
		return Proposal{}, fault.New(fault.Conflict, "proposal.changed", fmt.Sprintf("proposal %s changed meanwhile", p.ID), "look at it again")
	}
	p.Rev++
	return p, err
}

// Begin gives the proposer, seconded, to do what was approved, as far as the second person may do it now. Of one that was done
// already it is given too, without consent: what it answered is kept with the operation's mark, and nothing else is to be had.
func (s *Proposals) Begin(ctx context.Context, caller Caller, id string) (Proposal, Caller, error) {
	p, err := s.Get(ctx, caller, id)
	if err != nil {
		return Proposal{}, Caller{}, err
	}
	if caller.ID != p.By {
		return Proposal{}, Caller{}, fault.New(fault.Denied, "proposal.other", fmt.Sprintf("proposal %s is %s's to carry out", id, p.By), "propose it yourself")
	}
	if p.State == ProposalDone {
		return p, caller, nil
	}
	if p.State != ProposalApproved {
		return Proposal{}, Caller{}, fault.New(fault.Conflict, "proposal.not-approved", fmt.Sprintf("proposal %s is %s", id, p.State),
			"have another person approve it, or propose anew")
	}
	second, err := s.members.Member(ctx, p.Second)
	if err != nil && !errors.Is(err, ErrNoMember) {
		return Proposal{}, Caller{}, err
	}
	if err != nil || !second.Ended.IsZero() {
		return Proposal{}, Caller{}, fault.New(fault.Denied, "proposal.second-ended", fmt.Sprintf("%s, who approved it, may not act any more", p.Second), "propose anew")
	}
	scope, err := scopeOf(ctx, s.members, second)
	if err != nil {
		return Proposal{}, Caller{}, err
	}
	caller.Seconded = p.Second
	caller.second = &Caller{ID: second.ID, Kind: second.Kind, Roles: second.Roles, Owner: second.Owner, Scope: scope, Via: "proposal", Seconded: p.By}
	return p, caller, nil
}

// End notes what the operation answered. One that failed may be tried again while it has not lapsed; one that wrote something was
// done, whatever it answered.
func (s *Proposals) End(ctx context.Context, caller Caller, p Proposal, status int, wrote bool) error {
	for p.State == ProposalApproved {
		p.Status = status
		if status < 300 || wrote {
			p.State = ProposalDone
		}
		f, err := s.fact(ledger.KindProposalTried, caller, p)
		if err != nil {
			return err
		}
		if err = s.store.SaveProposal(ctx, p, f); !errors.Is(err, ErrProposalChanged) {
			return err
		}
		if p, err = s.store.Proposal(ctx, p.ID); err != nil { // another try of it has ended meanwhile
			return err
		}
	}
	return nil
}
