package access_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
)

func TestLittleByLittleIsMany(t *testing.T) {
	devices := func(from, to int) (ids []string) {
		for i := from; i < to; i++ {
			ids = append(ids, fmt.Sprintf("%032x", i))
		}
		return ids
	}
	var alone access.Alone
	now := time.Unix(1_800_000_000, 0)
	olga, otto := access.Caller{ID: "person:olga", Kind: access.Person}, access.Caller{ID: "person:otto", Kind: access.Person}
	seconded := olga
	seconded.Seconded = otto.ID
	for _, step := range []struct {
		name     string
		who      access.Caller
		from, to int
		after    time.Duration
		want     bool
	}{
		{"sixty", olga, 0, 60, 0, false},
		{"the same again", olga, 0, 60, time.Minute, false},
		{"some of them and others", olga, 50, 100, time.Minute, false},
		{"one more", olga, 100, 101, time.Minute, true},
		{"what was refused does not count", olga, 0, 100, time.Minute, false},
		{"somebody else's", otto, 100, 200, time.Minute, false},
		{"more at once", otto, 300, 401, time.Minute, true},
		{"with a second person", seconded, 100, 150, time.Minute, false},
		{"which does not count", olga, 0, 100, time.Minute, false},
		{"the system", access.Internal("remedy"), 0, 100, time.Minute, false},
		{"and more", access.Internal("remedy"), 100, 200, time.Minute, false},
		{"an hour later", olga, 200, 300, access.AloneFor, false},
	} {
		now = now.Add(step.after)
		if got := alone.Grave(step.who, devices(step.from, step.to), now); got != step.want {
			t.Errorf("%s: grave %v", step.name, got)
		}
	}
}
