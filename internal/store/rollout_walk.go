package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/rollout"
)

// kits bounds how many different kits are remembered on a walk.
const kits = 10_000

// Candidates implements rollout.Book.
func (s *Rollouts) Candidates(ctx context.Context, product string, sel rollout.Selection, state device.State, want func(string) bool,
	each func(rollout.Candidate) error,
) error {
	w, err := s.walk(product, sel)
	if err != nil {
		return err
	}
	if len(sel.IDs) > 0 {
		ids := sel.IDs
		if want != nil {
			ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !want(id) })
		}
		all, err := w.read(ctx, ids)
		if err != nil {
			return err
		}
		return eachOf(all, each)
	}
	for after := ""; ; {
		some, err := w.page(ctx, product, sel, state, after)
		if err != nil || len(some) == 0 {
			return err
		}
		after = some[len(some)-1].ID
		if want != nil {
			some = slices.DeleteFunc(some, func(c step) bool { return !want(c.ID) })
		}
		for i := range some {
			some[i].Product, some[i].State = product, state
		}
		if some, err = w.fit(ctx, some); err != nil {
			return err
		}
		if err := eachOf(some, each); err != nil {
			return err
		}
	}
}

// walk begins one over candidates.
func (s *Rollouts) walk(product string, sel rollout.Selection) (walk, error) {
	w := walk{db: s.db, known: map[string]*rollout.Kit{}}
	var within []string
	if sel.Group != "" {
		within = []string{access.Join(product, sel.Group)}
	}
	var err error
	if w.scope, err = listOf(within); err != nil || sel.Query == nil {
		return w, err
	}
	list, err := conditions(*sel.Query, nil)
	for _, c := range list {
		w.asks += " AND "
		if c.arg == nil {
			w.asks += c.ask
			continue
		}
		w.args = append(w.args, c.arg)
		w.asks += fmt.Sprintf(c.ask, 2+len(w.args))
	}
	w.prefix = sel.Query.Prefix
	return w, err
}

// The columns and the join of a step.
const (
	stepColumns = `d.id, d.hardware, d.release, d.assurance, d.kit, coalesce(x.rollout_id, '')`
	stepJoins   = ` LEFT JOIN rollout_place x ON x.device_id = d.id AND x.open = 1`
)

// page gives those behind a device, by ID. Those of a query are looked for as lists do.
func (w walk) page(ctx context.Context, product string, sel rollout.Selection, state device.State, after string) ([]step, error) {
	if sel.Query == nil {
		return collect(ctx, w.db, scanStep, `SELECT `+stepColumns+` FROM device d`+stepJoins+`
			WHERE d.product = $2 AND d.state = $3 AND d.id > $4 AND`+inScope("d.product", "d.id")+` ORDER BY d.id LIMIT $5`, w.scope, product, string(state), after, int64(atOnce))
	}
	q := fleet.Query{Filter: *sel.Query, Scope: []string{access.Join(product, sel.Group)}, After: after, Limit: atOnce}
	q.State = string(state)
	list, err := conditions(q.Filter, q.Scope)
	if err != nil {
		return nil, err
	}
	if err := w.db.sparsestFirst(ctx, list, max(q.After, q.Prefix)); err != nil {
		return nil, err
	}
	query, args := pageOf(stepColumns, stepJoins, q, list)
	return collect(ctx, w.db, scanStep, query, args...)
}

func eachOf(some []step, each func(rollout.Candidate) error) error {
	for _, c := range some {
		if err := each(c.Candidate); err != nil {
			return err
		}
	}
	return nil
}

// walk is one over candidates. Most of them have the same few kits: it reads of each the twin of the first device that has it.
type walk struct {
	db     *DB
	scope  string
	asks   string // what a query asks of a device, from the third parameter on
	args   []any
	prefix string
	known  map[string]*rollout.Kit
}

// step is a candidate with the digest of its kit.
type step struct {
	rollout.Candidate
	kit []byte
}

func scanStep(row scanner) (s step, err error) {
	return s, row.Scan(&s.ID, &s.Hardware, &s.Release, &s.Assurance, &s.kit, &s.Busy)
}

// fit gives those that came along the index their kits. A device that changed meanwhile is given as it is now; not, when it is gone.
func (w walk) fit(ctx context.Context, some []step) ([]step, error) {
	if len(w.known) > kits {
		clear(w.known)
	}
	whole := map[string]step{}
	for _, all := range []bool{false, true} { // one for each kit, and of those that have another now, or none, all
		var ids []string
		asked := map[string]bool{}
		for _, c := range some {
			_, known := w.known[string(c.kit)]
			_, read := whole[c.ID]
			if known || read || !all && c.kit != nil && asked[string(c.kit)] {
				continue
			}
			ids, asked[string(c.kit)] = append(ids, c.ID), true
		}
		read, err := w.read(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, c := range read {
			whole[c.ID] = c
			if c.kit != nil {
				w.known[string(c.kit)] = c.Kit
			}
		}
	}
	out := some[:0]
	for _, c := range some {
		kit, known := w.known[string(c.kit)]
		now, read := whole[c.ID]
		switch {
		case read:
			out = append(out, now)
		case known:
			c.Kit = kit
			out = append(out, c)
		}
	}
	return out, nil
}

// read gives devices by ID, whole.
func (w walk) read(ctx context.Context, ids []string) ([]step, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := listOf(ids)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, w.db, scanWhole, `SELECT d.id, d.product, d.hardware, d.state, d.release, d.assurance, d.kit, d.doc, coalesce(x.rollout_id, '') FROM device d`+stepJoins+`
		WHERE d.id IN (SELECT l.value FROM list($2) AS l) AND`+inScope("d.product", "d.id")+w.asks+` ORDER BY d.id`, append([]any{w.scope, list}, w.args...)...)
	return slices.DeleteFunc(all, func(c step) bool { return !strings.HasPrefix(c.ID, w.prefix) }), err
}

func scanWhole(row scanner) (step, error) {
	var s step
	var doc string
	if err := row.Scan(&s.ID, &s.Product, &s.Hardware, &s.State, &s.Release, &s.Assurance, &s.kit, &doc, &s.Busy); err != nil {
		return s, err
	}
	var t device.Twin
	err := json.Unmarshal([]byte(doc), &t)
	if err != nil {
		return s, fmt.Errorf("device %s: twin: %w", s.ID, err)
	}
	s.Kit, err = kitOf(t)
	return s, err
}
