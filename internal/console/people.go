package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
)

func (h *handler) proposals(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	var list []access.Proposal
	more, before := "", r.URL.Query().Get("before")
	for _, product := range scopes(caller) {
		page, err := h.cfg.Stages.Proposals.List(r.Context(), caller, product, before, pageSize+1)
		if err != nil {
			return err
		}
		list = append(list, page...)
	}
	slices.SortFunc(list, func(a, b access.Proposal) int { return strings.Compare(b.ID, a.ID) })
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

func proposalTone(s access.ProposalState) string {
	switch s {
	case access.ProposalOpen:
		return "busy"
	case access.ProposalApproved:
		return "warn"
	case access.ProposalDone:
		return "good"
	case access.ProposalRefused, access.ProposalWithdrawn, access.ProposalLapsed:
	}
	return ""
}

// proposalAbout says what a proposal is about.
func proposalAbout(p access.Proposal) string {
	s := p.Resource.Type
	if p.Resource.ID != "" {
		s += " " + p.Resource.ID
	}
	if p.Resource.Product != "" {
		s += " of product " + p.Resource.Product
	}
	return s
}

func proposalWords(p access.Proposal) string {
	switch p.State {
	case access.ProposalOpen:
		return "Waits for a second person who may do it too. Look at just what would be done before you agree."
	case access.ProposalApproved:
		s := "Approved by " + p.Second + "; " + p.By + " can have it done now."
		if p.Status != 0 {
			s += fmt.Sprintf(" It was tried, and answered with %d.", p.Status)
		}
		return s
	case access.ProposalDone:
		return "Done: " + p.Second + " agreed."
	case access.ProposalRefused:
		return "Refused by " + p.Second + "."
	case access.ProposalWithdrawn:
		return "Withdrawn."
	case access.ProposalLapsed:
		return "Nobody decided in time, or it was not carried out. It can be proposed again."
	}
	return "unknown"
}

// proposalActions are what the caller can say to a proposal.
func (v view) proposalActions(p access.Proposal) []action {
	path := "/api/v1/proposals/" + pathEscape(p.ID)
	own := v.Caller == p.By
	switch {
	case own && p.State == access.ProposalOpen:
		return []action{{Label: "Withdraw", Title: "Withdraw this proposal", Explain: "Nothing is done. It can be proposed again.", Path: path + "/refuse", Body: "{}", Field: "comment"}}
	case own && p.State == access.ProposalApproved && p.Asked.Path != "/api/v1/tokens":
		return []action{{Label: "Do it", Title: p.Asked.Summary, Explain: "Just what was approved is done now, in your name, with " + p.Second + " as the second person.", Path: path + "/run"}}
	case !own && p.State == access.ProposalOpen && v.may(p.Action, p.Resource):
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

// indented is JSON for people.
func indented(data json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return string(data)
	}
	return b.String()
}
