package launch

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Report is what was found as a program was confined.
type Report struct {
	InForce []wire.Layer          `json:"in_force"`
	Missing map[wire.Layer]string `json:"missing,omitempty"` // why
}

// has notes that a layer is in force.
func (r *Report) has(l wire.Layer) { r.InForce = append(r.InForce, l) }

// lacks notes that it is not.
func (r *Report) lacks(l wire.Layer, why string, args ...any) {
	if r.Missing == nil {
		r.Missing = map[wire.Layer]string{}
	}
	r.Missing[l] = fmt.Sprintf(why, args...)
}

// note notes either.
func (r *Report) note(l wire.Layer, err error) {
	if err != nil {
		r.lacks(l, "%v", err)
		return
	}
	r.has(l)
}

// without gives the layers of want that are not in force, with the reasons; nil: all are.
func (r Report) without(want []wire.Layer) error {
	var out []string
	for _, l := range want {
		if !slices.Contains(r.InForce, l) {
			out = append(out, fmt.Sprintf("%s (%s)", l, r.Missing[l]))
		}
	}
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("isolation is required and not in force: %s", strings.Join(out, "; "))
}

// Common is what is in force for all of the programs, in the order of Layers; nil reports: nothing is known, and nothing said.
func Common(reports ...Report) []wire.Layer {
	var out []wire.Layer
	for _, l := range wire.Layers() {
		if len(reports) > 0 && !slices.ContainsFunc(reports, func(r Report) bool { return !slices.Contains(r.InForce, l) }) {
			out = append(out, l)
		}
	}
	return out
}
