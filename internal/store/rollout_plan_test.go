package store_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/store"
)

// found are the ways to a device, to its place in a rollout and to its part in a command that do not grow with how many there are: by its ID.
var found = regexp.MustCompile(`SEARCH \S+ USING .*\(.*\b(id|device_id)=\?`)

// What is asked of the devices of a list is looked up for each: SQLite, which knows nothing of how many rows there are, takes all of a rollout or of a product for a
// few, and would hold each of them against the whole list. A wave of 100,000 never began then.
func TestDevicesOfAListAreLookedUp(t *testing.T) {
	r := newRoll(t, 3)
	r.begin(twoWaves("one", r.new))
	r.tick(0)
	r.installs(devN(2))
	r.tick(0)
	queries, err := r.db.Prepared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, q := range queries {
		if !strings.Contains(q, "list(") || !strings.Contains(q, "rollout_place") && !strings.Contains(q, "command_device") {
			continue
		}
		args := make([]any, strings.Count(r.db.Rewritten(q), "?"))
		for line := range strings.Lines(plan(t, r.db, q, args)) {
			of := strings.Fields(line)
			if len(of) < 2 || of[0] != "SEARCH" || of[1] == "o" || of[1] == "g" || of[1] == "s" {
				continue
			}
			asked++
			if !found.MatchString(line) {
				t.Errorf("%s\n\t%s", q, line)
			}
		}
	}
	if asked < 5 {
		t.Errorf("only %d plans look at devices: %q", asked, queries)
	}
}

// Who is missing is found along the index of those alone, however many devices a rollout has.
func TestWhoIsMissingIsLookedUp(t *testing.T) {
	r := newRoll(t, 2)
	for _, q := range store.MissingQueries {
		p := plan(t, r.db, q, make([]any, strings.Count(r.db.Rewritten(q), "?")))
		if !strings.Contains(p, "SEARCH x USING INDEX rollout_place_missing (rollout_id=? AND mark=? AND open=? AND device_id>?)") {
			t.Errorf("%s\n\t%s", q, p)
		}
	}
}
