package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// HeaderPropose says why. A request with it becomes a proposal when it takes a second person, and is answered 202 with the
// proposal; what it does not take two for is done.
const HeaderPropose = "Hallmark-Propose"

// maxProposed bounds the body of an operation that is proposed, bytes.
const maxProposed = 1 << 20

// DecisionRequest is what a second person says.
type DecisionRequest struct {
	Comment string `json:"comment,omitempty" maxLength:"512"`
}

// registerProposals has the operations on proposals.
func (a *api) registerProposals(h huma.API) {
	huma.Register(h, op("list-proposals", http.MethodGet, "/proposals", "List what waits for a second person, or did, newest first"),
		func(ctx context.Context, in *struct {
			OfGroup
			Paging
		},
		) (*body[Page[proposal.Proposal]], error) {
			return paged(a, ctx, in.Paging, func(p proposal.Proposal) string { return p.ID }, func(after string, limit int) ([]proposal.Proposal, error) {
				return a.Proposals.List(ctx, callerOf(ctx), in.place(), after, limit)
			})
		})
	huma.Register(h, op("get-proposal", http.MethodGet, "/proposals/{id}", "Show a proposal: what would be done, by whom and why"),
		func(ctx context.Context, in *ByID) (*tagged[proposal.Proposal], error) {
			return show(a, ctx, once.Proposal, in.ID, func() (proposal.Proposal, error) { return a.Proposals.Get(ctx, callerOf(ctx), in.ID) })
		})
	decide := func(name, summary string, approve bool) {
		huma.Register(h, op(name+"-proposal", http.MethodPost, "/proposals/{id}/"+name, summary),
			func(ctx context.Context, in *struct {
				ByID
				Matching
				Body DecisionRequest
			},
			) (*tagged[proposal.Proposal], error) {
				return change(a, ctx, in.Matching, once.Proposal, in.ID, func(ctx context.Context) (proposal.Proposal, error) {
					return a.Proposals.Decide(ctx, callerOf(ctx), in.ID, approve, in.Body.Comment)
				})
			})
	}
	decide("approve", "Agree, as the second person", true)
	decide("refuse", "Refuse, as the second person, or withdraw one's own", false)
	run := op("run-proposal", http.MethodPost, "/proposals/{id}/run", "Do what was proposed and approved, as its proposer")
	run.Responses = map[string]*huma.Response{"200": {
		Description: "What the operation itself answers, with its status and headers.",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}},
	}}
	huma.Register(h, run, func(ctx context.Context, in *ByID) (*huma.StreamResponse, error) {
		p, caller, err := a.Proposals.Begin(ctx, callerOf(ctx), in.ID)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		answer, err := a.carryOut(ctx, p, caller)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		if err := a.tried(ctx, p, answer.status); err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			for name, values := range answer.header {
				hc.SetHeader(name, values[0])
			}
			hc.SetStatus(answer.status)
			if _, err := hc.BodyWriter().Write(answer.body.Bytes()); err != nil {
				a.log.DebugContext(ctx, "client went away", "error", err)
			}
		}}, nil
	})
}

// proposalKey is the key that a proposal is carried out with.
func proposalKey(p proposal.Proposal) string { return "proposal-" + p.ID }

// tried notes how carrying a proposal out ended, also when who asked has gone. A mark says that something was written: then it is over.
func (a *api) tried(ctx context.Context, p proposal.Proposal, status int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, wrote, err := a.Once.Kept(ctx, p.By, proposalKey(p))
	if err != nil {
		return err
	}
	return a.Proposals.End(ctx, callerOf(ctx), p, status, wrote)
}

// carryOut does what a proposal asks for. The proposal's own key sees to it that it is done once, whatever falls in between.
func (f *front) carryOut(ctx context.Context, p proposal.Proposal, caller access.Caller) (*recorder, error) {
	if p.State == proposal.Done {
		if _, kept, err := f.Once.Kept(ctx, p.By, proposalKey(p)); err != nil || !kept {
			return nil, errors.Join(err, fault.New(fault.Conflict, "proposal.done", fmt.Sprintf("proposal %s was done, and what it answered is not kept any more", p.ID), "propose anew"))
		}
	}
	ctx = context.WithValue(ctx, callerKey{}, caller)
	r, err := http.NewRequestWithContext(ctx, p.Asked.Method, p.Asked.Path, bytes.NewReader(p.Asked.Body))
	if err != nil {
		return nil, err
	}
	if len(p.Asked.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	if p.Asked.IfMatch != "" {
		r.Header.Set("If-Match", p.Asked.IfMatch)
	}
	r.Header.Set("Accept", "application/json")
	rec := &recorder{header: http.Header{}}
	_, pattern := f.mux.Handler(r)
	if pattern == "" {
		f.nothingThere(rec, r) // an operation of an older version
	} else {
		f.serveOnce(rec, r, p.Asked.Body, pattern, proposalKey(p))
	}
	rec.WriteHeader(http.StatusOK)
	return rec, nil
}

// needKey is where, in a proposed request's context, problem leaves what a second person is needed for.
type needKey struct{}

func noteNeed(ctx context.Context, err error) {
	if need, ok := ctx.Value(needKey{}).(**access.SecondNeededError); ok {
		if e, found := errors.AsType[*access.SecondNeededError](err); found {
			*need = e
		}
	}
}

// dispatch has the operation done, or proposed if that was asked for and it takes two.
func (f *front) dispatch(w http.ResponseWriter, r *http.Request, pattern string) {
	reason := strings.TrimSpace(r.Header.Get(HeaderPropose))
	if reason == "" || r.Method == http.MethodGet || r.Method == http.MethodHead {
		f.mux.ServeHTTP(w, r)
		return
	}
	if f.marks[readsBody][pattern] {
		f.write(w, r, &huma.ErrorModel{Status: http.StatusBadRequest, Title: "invalid", Detail: "what is uploaded cannot be proposed: leave " + HeaderPropose + " out"})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxProposed))
	if err != nil {
		f.write(w, r, &huma.ErrorModel{
			Status: http.StatusRequestEntityTooLarge, Title: http.StatusText(http.StatusRequestEntityTooLarge), Detail: "a proposed request's body has at most 1 MiB",
		})
		return
	}
	var need *access.SecondNeededError
	inner := r.WithContext(context.WithValue(r.Context(), needKey{}, &need))
	inner.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{header: http.Header{}, beyond: w} // that it takes two is said first, and shortly: what is long is an answer
	f.mux.ServeHTTP(rec, inner)
	if rec.begun {
		return
	}
	if need == nil {
		rec.pass(w)
		return
	}
	if len(body) > 0 && !json.Valid(body) {
		f.write(w, r, &huma.ErrorModel{Status: http.StatusBadRequest, Title: "invalid", Detail: "the request's body is no JSON"})
		return
	}
	p, err := f.Proposals.Propose(r.Context(), callerOf(r.Context()), proposal.Asked{
		Method: r.Method, Path: r.URL.RequestURI(), IfMatch: r.Header.Get("If-Match"), Body: body, Summary: f.summaries[pattern],
	}, need, reason)
	if err != nil {
		f.fail(w, r, err)
		return
	}
	data, err := json.Marshal(p)
	if err != nil {
		f.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	if _, err := w.Write(data); err != nil {
		f.log.DebugContext(r.Context(), "client went away", "error", err)
	}
}

// fail answers an error of a service outside an operation.
func (f *front) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, ok := errors.AsType[*huma.ErrorModel](f.problem(r.Context(), err))
	if !ok {
		p = &huma.ErrorModel{Status: fault.Internal.Status(), Title: fault.Internal.String()}
	}
	f.write(w, r, p)
}

// pass gives what was recorded.
func (r *recorder) pass(w http.ResponseWriter) {
	r.WriteHeader(http.StatusOK)
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // who asked has gone
}
