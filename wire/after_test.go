package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// ordered is a release of programs of which each comes after those that are named behind it, with one data component.
func ordered(programs ...[]string) Release {
	r := sampleRelease()
	program := r.Components[0]
	table := program
	table.Name, table.Kind, table.Health, table.Capabilities, table.Args = "table", KindData, HealthNone, nil, nil
	r.Components = []Component{table}
	for _, p := range programs {
		c := program
		c.Name, c.After = p[0], p[1:]
		r.Components = append(r.Components, c)
	}
	return r
}

// Each program is started behind all that it comes after, and of those that could be next it is the first in the release: so the order is one, and without
// any After it is the release's own.
func TestProgramsAreInOrder(t *testing.T) {
	waited := false
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "programs")
		rank := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for i := range n {
				yield(i)
			}
		})).Draw(t, "rank") // a program comes after those of a lower rank alone: there is no circle
		var programs [][]string
		for i := range n {
			p := []string{fmt.Sprintf("p%02d", i)}
			for j := range n {
				if rank[j] < rank[i] && rapid.Bool().Draw(t, "after") {
					p = append(p, fmt.Sprintf("p%02d", j))
				}
			}
			programs = append(programs, p)
		}
		r := ordered(programs...)
		payload, err := EncodeRelease(r)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = DecodeRelease(payload); err != nil {
			t.Fatal(err)
		}
		left := slices.Clone(r.Components[1:])
		ready := func(c Component) bool {
			return !slices.ContainsFunc(c.After, func(name string) bool {
				return slices.ContainsFunc(left, func(o Component) bool { return o.Name == name })
			})
		}
		for _, c := range r.Programs() {
			i := slices.IndexFunc(left, ready)
			if left[i].Name != c.Name {
				t.Fatalf("%s is started, and %s is the first that can be", c.Name, left[i].Name)
			}
			waited = waited || i > 0
			left = slices.Delete(left, i, i+1)
		}
		if len(left) > 0 {
			t.Fatalf("%d programs are never started", len(left))
		}
	})
	if !waited {
		t.Error("no program had to wait")
	}
}

func TestAnOrderThatCannotBeIsMalformed(t *testing.T) {
	for says, r := range map[string]Release{
		"":                                 ordered([]string{"a", "b", "c"}, []string{"b", "c"}, []string{"c"}),
		"it is started after it":           ordered([]string{"a", "a"}),
		`after "d", which is no component`: ordered([]string{"a", "d"}),
		`after "table", which is no program: data is`: ordered([]string{"a", "table"}),
		`not in rising order of names: "b"`:           ordered([]string{"a", "c", "b"}, []string{"b"}, []string{"c"}),
		"rising order":                                ordered([]string{"a", "b", "b"}, []string{"b"}),
		": b after c after b":                         ordered([]string{"a", "b"}, []string{"b", "c"}, []string{"c", "b"}),
		": a after d after c after b after a":         ordered([]string{"a", "d"}, []string{"b", "a"}, []string{"c", "b"}, []string{"d", "c"}),
		"data that is started after others": func() Release {
			r := ordered([]string{"a"})
			r.Components[0].After = []string{"a"}
			return r
		}(),
	} {
		if _, err := EncodeRelease(r); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("want %q: %v", says, err)
		}
		payload, err := Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRelease(payload); (err == nil) != (says == "") {
			t.Errorf("%q is read: %v", says, err)
		}
	}
}
