package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
)

func (h *handler) proposals(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, err := h.cfg.Stages.Proposals.List(r.Context(), caller, "", r.URL.Query().Get("before"), pageSize+1)
	if err != nil {
		return err
	}
	more := ""
	if len(list) > pageSize {
		list = list[:pageSize]
		more = "/proposals?before=" + url.QueryEscape(list[pageSize-1].ID)
	}
	h.render(w, r, http.StatusOK, proposalsPage(h.view(r, caller, "Approvals", "proposal."), list, more))
	return nil
}

func (h *handler) proposal(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	p, err := h.cfg.Stages.Proposals.Get(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, proposalPage(h.view(r, caller, "Approvals", "proposal.", p.ID), p))
	return nil
}

func proposalTone(s proposal.State) string {
	switch s {
	case proposal.Open:
		return "busy"
	case proposal.Approved:
		return "warn"
	case proposal.Done:
		return "good"
	case proposal.Refused, proposal.Withdrawn, proposal.Lapsed:
	}
	return ""
}

// proposalAbout says what a proposal is about.
func proposalAbout(p proposal.Proposal) string {
	s := p.Resource.Type
	if p.Resource.ID != "" {
		s += " " + p.Resource.ID
	}
	if p.Resource.Product != "" {
		s += " of product " + p.Resource.Product
	}
	if p.Resource.Group != "" {
		s += ", group " + p.Resource.Group
	}
	return s
}

func proposalWords(p proposal.Proposal) string {
	switch p.State {
	case proposal.Open:
		return "Waits for a second person who may do it too. Look at just what would be done before you agree."
	case proposal.Approved:
		s := "Approved by " + p.Second + "; " + p.By + " can have it done now."
		if p.Status != 0 {
			s += fmt.Sprintf(" It was tried, and answered with %d.", p.Status)
		}
		return s
	case proposal.Done:
		return "Done: " + p.Second + " agreed."
	case proposal.Refused:
		return "Refused by " + p.Second + "."
	case proposal.Withdrawn:
		return "Withdrawn."
	case proposal.Lapsed:
		return "Nobody decided in time, or it was not carried out. It can be proposed again."
	}
	return "unknown"
}

// proposalActions are what the caller can say to a proposal.
func (v view) proposalActions(p proposal.Proposal) []action {
	path := "/api/v1/proposals/" + pathEscape(p.ID)
	own := v.Caller == p.By
	switch {
	case own && p.State == proposal.Open:
		return []action{{Label: "Withdraw", Title: "Withdraw this proposal", Explain: "Nothing is done. It can be proposed again.", Path: path + "/refuse", Body: "{}", Field: "comment"}}
	case own && p.State == proposal.Approved && p.Asked.Path != "/api/v1/tokens":
		return []action{{Label: "Do it", Title: p.Asked.Summary, Explain: "Just what was approved is done now, in your name, with " + p.Second + " as the second person.", Path: path + "/run", Reveal: revealed(p)}}
	case !own && p.State == proposal.Open && v.may(p.Action, p.Resource):
		return []action{
			{
				Label: "Approve", Title: "Approve this proposal", Path: path + "/approve", Body: "{}", Field: "comment",
				Explain: p.By + " can then have just this done, once, with your name beside theirs in the ledger.",
			},
			{Label: "Refuse", Title: "Refuse this proposal", Explain: "Nothing is done.", Path: path + "/refuse", Body: "{}", Field: "comment", Tone: "bad"},
		}
	}
	return nil
}

// revealed is what the answer of a proposal that is carried out has to show: nobody is told it again.
func revealed(p proposal.Proposal) []shown {
	switch {
	case strings.HasSuffix(p.Asked.Path, "/vouchers"):
		return secretOnce()
	case p.Asked.Path == "/api/v1/transfers":
		return codesOnce()
	}
	return nil
}

// indented is JSON for people.
func indented(data json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return string(data)
	}
	return b.String()
}

func (h *handler) members(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, err := h.cfg.Stages.Members.Members(r.Context(), caller, r.URL.Query().Get("after"), pageSize+1)
	if err != nil {
		return err
	}
	more := ""
	if len(list) > pageSize {
		list = list[:pageSize]
		more = "/members?after=" + url.QueryEscape(list[pageSize-1].ID)
	}
	h.render(w, r, http.StatusOK, membersPage(h.view(r, caller, "Members", "access."), list, more))
	return nil
}

type memberPageData struct {
	Member     signin.Member
	Held       []signin.Credential
	Identities []signin.Identity
}

func (h *handler) member(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, id := r.Context(), r.PathValue("id")
	var p memberPageData
	var err error
	if p.Member, err = h.cfg.Stages.Members.Member(ctx, caller, id); err != nil {
		return err
	}
	if p.Held, err = h.cfg.Stages.Members.Held(ctx, caller, id); err != nil {
		return err
	}
	if p.Identities, err = h.cfg.Stages.Members.Identities(ctx, caller, id); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, memberPage(h.view(r, caller, "Members", "access.", id), p))
	return nil
}

func memberLink(id string) templ.SafeURL { return templ.SafeURL("/members/" + pathEscape(id)) }

func factsAbout(subject string) templ.SafeURL {
	return templ.SafeURL("/ledger?log=control&subject=" + url.QueryEscape(subject))
}

func roleWords(roles []access.Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return orNone(names)
}

func scopeWords(scope []string) string {
	if len(scope) == 0 {
		return "everywhere"
	}
	return joined(scope)
}

func memberWords(m signin.Member) string {
	switch {
	case !m.Ended.IsZero():
		return "Ended: may do nothing any more, and the name stays taken."
	case m.Kind == access.Machine:
		return "A machine."
	}
	return "A person."
}

func identityWords(i signin.Identity) string {
	if i.Subject == "" {
		return i.Email + ", who has not signed in yet"
	}
	return i.Subject
}

// memberActions are what an administrator can say of somebody else.
func (v view) memberActions(m signin.Member) []action {
	if v.Caller == m.ID || !m.Ended.IsZero() || !v.may(access.AccessManage, access.Resource{Type: "member", ID: m.ID}) {
		return nil
	}
	roles := field{Name: "roles", Label: "Roles", Kind: "many"}
	for _, r := range access.Roles() {
		roles.Options = append(roles.Options, option{string(r), string(r)})
	}
	for _, r := range m.Roles {
		roles.Value += string(r) + " "
	}
	path := "/api/v1/members/" + pathEscape(m.ID)
	return []action{
		{
			Label: "Change", Title: "What " + m.ID + " may do", Method: http.MethodPut, Path: path + "/roles", Body: "{}",
			Explain: "It holds at once. To give power takes a second administrator; to take it does not.",
			Fields: []field{roles, {
				Name: "scope", Label: "Only in these products or groups, such as pump or pump/eu/berlin; empty: everywhere", Kind: "list", Value: strings.Join(m.Scope, " "), Optional: true,
			}},
		},
		{
			Label: "End", Title: "End " + m.ID, Path: path + "/end", Tone: "bad", Typed: m.ID,
			Explain: "Every session, token, passkey and binding goes at once, for good. The name stays taken.",
		},
	}
}

func (v view) revokeWayIn(m signin.Member, c signin.Credential) []action {
	if v.Caller != m.ID && !v.may(access.AccessManage, access.Resource{Type: "member", ID: m.ID}) {
		return nil
	}
	return []action{{
		Label: "Revoke", Title: "Revoke this " + string(c.Use), Explain: "Whoever holds it is out at once.", Tone: "bad",
		Path: "/api/v1/members/" + pathEscape(m.ID) + "/credentials/" + c.ID() + "/revoke",
	}}
}

func (h *handler) audit(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	q := r.URL.Query()
	f := access.RecordedFilter{Caller: strings.TrimSpace(q.Get("caller")), Action: access.Action(strings.TrimSpace(q.Get("action"))), Denied: q.Get("denied") != ""}
	before, err := strconv.ParseInt(q.Get("before"), 10, 64)
	if err != nil {
		before = 0
	}
	list, err := h.cfg.Stages.Audit.List(r.Context(), caller, f, before, pageSize+1)
	if err != nil {
		return err
	}
	more := ""
	if len(list) > pageSize {
		list = list[:pageSize]
		q.Set("before", strconv.FormatInt(list[pageSize-1].ID, 10))
		more = "/audit?" + q.Encode()
	}
	h.render(w, r, http.StatusOK, auditPage(h.view(r, caller, "Denials", "access. proposal."), f, list, more))
	return nil
}
