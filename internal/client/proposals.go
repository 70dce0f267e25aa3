package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// Proposing gives a client that proposes what takes a second person, with the reason, and waits until it is decided. told hears of
// each proposal when it is made; it is set before use.
func (c *Client) Proposing(reason string, told func(p proposal.Proposal)) *Client {
	other := *c
	other.propose, other.proposed = reason, told
	return &other
}

const proposalPoll = 2 * time.Second

// second waits for the second person, and has the operation done when they agree.
func (c *Client) second(ctx context.Context, reply []byte, out any) error {
	var p proposal.Proposal
	if err := json.Unmarshal(reply, &p); err != nil {
		return fmt.Errorf("the answer is no proposal: %w", err)
	}
	c.proposed(p)
	quiet := *c
	quiet.propose, quiet.match, quiet.replied, quiet.tagged = "", "", nil, nil
	for p.State == proposal.Open {
		select {
		case <-ctx.Done():
			return fmt.Errorf("proposal %s still waits; when it is approved, `hallmark proposal run %s` does it: %w", p.ID, p.ID, ctx.Err())
		case <-time.After(proposalPoll):
		}
		var err error
		if p, err = quiet.Proposal(ctx, p.ID); err != nil {
			return err
		}
	}
	if p.State != proposal.Approved {
		return fmt.Errorf("proposal %s was %s by %s: %s", p.ID, p.State, p.Second, p.Comment)
	}
	run := *c
	run.propose, run.match = "", ""
	return run.call(ctx, http.MethodPost, "/proposals/"+url.PathEscape(p.ID)+"/run", nil, out)
}

// Proposals lists proposals, newest first, about a product or a group of one; an empty product means all.
func (c *Client) Proposals(ctx context.Context, productID, group string) ([]proposal.Proposal, error) {
	return list[proposal.Proposal](ctx, c, "/proposals"+query("product", productID, "group", group))
}

// Proposal shows one.
func (c *Client) Proposal(ctx context.Context, id string) (proposal.Proposal, error) {
	return get[proposal.Proposal](ctx, c, "/proposals/"+url.PathEscape(id))
}

// DecideProposal approves or refuses one, or withdraws one's own.
func (c *Client) DecideProposal(ctx context.Context, id string, approve bool, comment string) (proposal.Proposal, error) {
	verb := "refuse"
	if approve {
		verb = "approve"
	}
	return post[proposal.Proposal](ctx, c, "/proposals/"+url.PathEscape(id)+"/"+verb, httpapi.DecisionRequest{Comment: comment})
}

// RunProposal has done what was approved, and gives the operation's own answer.
func (c *Client) RunProposal(ctx context.Context, id string) (json.RawMessage, error) {
	return post[json.RawMessage](ctx, c, "/proposals/"+url.PathEscape(id)+"/run", nil)
}
