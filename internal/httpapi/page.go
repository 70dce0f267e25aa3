package httpapi

import (
	"context"
	"errors"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"give it as 'after' for the next page; absent on the last"`
}

// Paging says which part of a list is wanted.
type Paging struct {
	After string `query:"after" maxLength:"512" doc:"'next' of the page before; its form may change"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
}

// OfProduct limits a list of what is a product's to one. Who may not read every product has to say which one.
type OfProduct struct {
	Product string `query:"product" maxLength:"64" doc:"only this product's; needed by callers who are limited to products" example:"pump"`
}

// OfGroup limits a list of what is said of devices to a product, or to a group of its devices. Who is limited sees what is in their scope.
type OfGroup struct {
	Product string `query:"product" maxLength:"64" doc:"only this product's" example:"pump"`
	Group   string `query:"group" maxLength:"128" doc:"only those in this group of the product, or in one below" example:"eu/berlin"`
}

func (g OfGroup) place() string { return access.Join(g.Product, g.Group) }

// paged gives one page. list is asked for one more than fits, to know whether there is a next page; key names a row to go on behind.
func paged[T any](a *api, ctx context.Context, p Paging, key func(T) string, list func(after string, limit int) ([]T, error)) (*body[Page[T]], error) {
	rows, err := list(p.After, p.Limit+1)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := Page[T]{Items: rows}
	if len(rows) > p.Limit {
		out.Items = rows[:p.Limit]
		out.Next = key(rows[p.Limit-1])
	}
	if out.Items == nil {
		out.Items = []T{}
	}
	return &body[Page[T]]{Body: out}, nil
}

// cut pages a list that is short by its nature and comes whole, in the order of its keys.
func cut[T any](all []T, key func(T) string, after string, limit int) []T {
	for len(all) > 0 && after != "" && key(all[0]) <= after {
		all = all[1:]
	}
	return all[:min(len(all), limit)]
}

// tagged is an answer with the revision of what it shows.
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"changes with the resource; give it as If-Match to change only what you have seen"`
	Body T
}

// Matching makes a change conditional.
type Matching struct {
	IfMatch string `header:"If-Match" maxLength:"1024" pattern:"^ *(\\*|(W/)?\\x22[!#-~]*\\x22( *, *(W/)?\\x22[!#-~]*\\x22)*) *$" doc:"only if the resource still has this ETag; 412 otherwise"`
}

// show gives a thing with its tag. The tag is read first: it may be too old, and then a change that relies on it fails, but never
// too new.
func show[T any](a *api, ctx context.Context, thing once.Thing, id string, get func() (T, error)) (*tagged[T], error) {
	tag, err := a.tag(ctx, thing, id)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	v, err := get()
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &tagged[T]{ETag: tag, Body: v}, nil
}

func (a *api) tag(ctx context.Context, thing once.Thing, id string) (string, error) {
	if a.Once == nil {
		return "", nil
	}
	tag, err := a.Once.Tag(ctx, thing, id)
	return `"` + tag + `"`, err
}

// change does what changes a thing, if it is as the caller says it is. The store looks, in the transaction of the first write; of
// what wrote nothing it is looked at afterwards, so that the guard has spoken before.
func change[T any](a *api, ctx context.Context, m Matching, thing once.Thing, id string, do func(context.Context) (T, error)) (*tagged[T], error) {
	tags, err := parseMatch(m.IfMatch)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if tags == nil || a.Once == nil {
		v, err := do(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		tag, err := a.tag(ctx, thing, id)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &tagged[T]{ETag: tag, Body: v}, nil
	}
	e := once.Expectation{Thing: thing, ID: id, Tags: tags}
	ctx, req := once.Expect(ctx, e)
	v, err := do(ctx)
	if err == nil && !req.Settled() {
		var now string
		if now, err = a.Once.Tag(ctx, thing, id); err == nil && !e.Met(now) {
			err = once.ErrChanged
		}
	}
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	tag, err := a.tag(ctx, thing, id)
	return &tagged[T]{ETag: tag, Body: v}, a.problem(ctx, err)
}

// parseMatch reads If-Match (RFC 9110 §13.1.1); nil: anything goes. A weak tag matches nothing.
func parseMatch(s string) ([]string, error) {
	if s = strings.TrimSpace(s); s == "" || s == "*" {
		return nil, nil
	}
	tags := []string{}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "W/") {
			continue
		}
		if len(part) < 2 || part[0] != '"' || part[len(part)-1] != '"' {
			return nil, fault.New(fault.Invalid, "if-match.malformed", "If-Match is a list of quoted tags", `give the ETag as it came: "…"`)
		}
		tags = append(tags, part[1:len(part)-1])
	}
	return tags, nil
}

// requestProblem maps what the store says of a request's mark and expectation; nil when err is something else.
func requestProblem(err error) error {
	switch {
	case errors.Is(err, once.ErrChanged):
		return changedMeanwhile
	case errors.Is(err, once.ErrRunning):
		return inProgress
	}
	return nil
}
