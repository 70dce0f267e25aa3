package store_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/rollout"
)

// motley is devices that differ in all that a filter asks for, and what is so of each: a filter that it alone is in.
type motley struct {
	*roll
	rnd   *rand.Rand
	of    map[string]device.Filter
	group map[string]string
}

func (c *motley) one(of ...string) string { return of[c.rnd.IntN(len(of))] }

func newMotley(t *testing.T, n int) *motley {
	c := &motley{roll: newRoll(t, 0), rnd: rand.New(rand.NewPCG(11, 3)), of: map[string]device.Filter{}, group: map[string]string{}}
	next := c.new
	for i := range n {
		id := fmt.Sprintf("%x%031x", i%5, i*7)
		is := device.Filter{State: "active", Verdict: "unknown", Version: "1.0.0", Assurance: "enforces", Release: hex.EncodeToString(c.old.Digest[:]), Bundle: "0", Prefix: id}
		c.make(id, c.old)
		if bundle := c.rnd.IntN(3); bundle > 0 {
			c.believes(id, uint64(bundle))
			is.Bundle = fmt.Sprint(bundle)
		}
		c.says(id, c.old, true, false, nil) // who says no trust bundle has the one of before
		if c.rnd.IntN(2) == 0 {
			c.says(id, next, true, false, nil)
			is.Version, is.Release = "1.1.0", hex.EncodeToString(next.Digest[:])
		}
		if is.Verdict = c.one(device.Verdicts()...); is.Verdict != "unknown" {
			c.proves(id, c.old, map[string]attest.Tier{"affirming": attest.Affirming, "warning": attest.Warning, "contraindicated": attest.Contraindicated}[is.Verdict])
		}
		if c.rnd.IntN(3) == 0 {
			f := c.troubles(id)
			if is.Findings = c.rnd.IntN(2) == 0; !is.Findings {
				c.mended(f)
			}
		}
		if a := device.Assurance(c.one("enforces", "proves", "says")); a != device.Enforces {
			c.vouches(id, a)
			is.Assurance = string(a)
		}
		if is.State = c.one("active", "active", "quarantined", "maintenance", "disposed"); is.State != "active" {
			c.stands(id, device.State(is.State))
		}
		if group := c.one("", "eu", "eu/berlin", "us"); group != "" && is.State != "disposed" {
			c.roll.group(group, id)
			c.group[id] = group
		}
		c.of[id] = is
	}
	return c
}

// asks is any filter: of few words or of many, and often of what one of the devices is.
func (c *motley) asks(all []string) device.Filter {
	is := c.of[all[c.rnd.IntN(len(all))]]
	p := 1 + c.rnd.IntN(7) // how rarely a word is asked for
	word := func(like string, of ...string) string {
		switch c.rnd.IntN(p + 1) {
		case 0:
			if c.rnd.IntN(4) == 0 {
				return of[c.rnd.IntN(len(of))]
			}
			return like
		default:
			return ""
		}
	}
	return device.Filter{
		State: word(is.State, "active", "quarantined", "lost"), Verdict: word(is.Verdict, device.Verdicts()...), Version: word(is.Version, "1.0.0", "1.1.0", "2.0.0"),
		Assurance: word(is.Assurance, "enforces", "proves", "says"), Release: word(is.Release, is.Release, strings.Repeat("00", 32)), Bundle: word(is.Bundle, "0", "1", "2", "3"),
		Prefix: word(is.Prefix[:c.rnd.IntN(len(is.Prefix)+1)], "f", "00"), Findings: c.rnd.IntN(p+1) == 0 && c.rnd.IntN(2) == 0,
	}
}

// pages is a list of it, some at a time.
func (c *motley) pages(q fleet.Query) (out []string) {
	c.t.Helper()
	for q.Limit = 1 + c.rnd.IntN(9); ; q.After = out[len(out)-1] {
		page, err := c.db.FleetDevices(c.t.Context(), q)
		if err != nil {
			c.t.Fatalf("%+v: %v", q, err)
		}
		if out = append(out, ids(page)...); len(page) < q.Limit {
			return out
		}
	}
}

// selected are the candidates of a rollout: by a walk, or those of some that are looked at one by one.
func (c *motley) selected(sel rollout.Selection, state device.State) (out []string) {
	c.t.Helper()
	if err := c.db.Rollouts().Candidates(c.t.Context(), "pump", sel, state, nil, func(d rollout.Candidate) error {
		if state != "" || d.State == device.Active || sel.Query.State != "" {
			out = append(out, d.ID)
		}
		return nil
	}); err != nil {
		c.t.Fatalf("%+v: %v", sel, err)
	}
	return out
}

// A device is in a list exactly when what is so of it is covered by what the list was asked for; and a rollout selects the same devices, whether it walks along all of
// them or looks at some that changed.
func TestListsAndRolloutsSelectWhatAFilterCovers(t *testing.T) {
	const n = 60
	c := newMotley(t, n)
	var all []string
	for id := range c.of {
		all = append(all, id)
	}
	slices.Sort(all)
	found, rolled := 0, 0
	for range 1500 {
		q, group := c.asks(all), c.one("", "", "eu", "eu/berlin", "us")
		within := func(id string) bool {
			g := c.group[id]
			return group == "" || g == group || len(g) > len(group) && g[:len(group)+1] == group+"/"
		}
		var want []string
		for _, id := range all {
			if q.Covers(c.of[id]) && within(id) {
				want = append(want, id)
			}
		}
		found += len(want)
		if got := c.pages(fleet.Query{Filter: q, Scope: []string{access.Join("pump", group)}}); !slices.Equal(got, want) {
			t.Fatalf("%+v in %q: listed are %v, covered %v", q, group, got, want)
		}
		if q == (device.Filter{}) || q.State == "disposed" || q.State == "lost" {
			continue
		}
		state := device.State(q.State)
		if state == "" {
			state = device.Active
			want = slices.DeleteFunc(want, func(id string) bool { return c.of[id].State != "active" })
		}
		rolled += len(want)
		sel := rollout.Selection{Group: group, Query: &q}
		if got := c.selected(sel, state); !slices.Equal(got, want) {
			t.Fatalf("%+v in %q: a walk selects %v, covered %v", q, group, got, want)
		}
		sel.IDs = all
		if got := c.selected(sel, ""); !slices.Equal(got, want) {
			t.Fatalf("%+v in %q: of those that changed %v are selected, covered %v", q, group, got, want)
		}
	}
	if found < 2000 || rolled < 1000 {
		t.Errorf("only %d were listed and %d selected: the test asks for too little", found, rolled)
	}
}
