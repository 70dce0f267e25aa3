package launch

import (
	"fmt"
	"slices"
	"strings"
)

// Layer is one of the things that hold a program where it belongs, by the kernel's name for it.
type Layer string

// The layers, in the order in which they are told.
const (
	LayerUser       Layer = "user"           // a user of its own
	LayerPrivileges Layer = "no-privileges"  // no capability of the kernel, and no way to get one
	LayerNamespaces Layer = "namespaces"     // processes, System V objects and, without any granted, the network of its own
	LayerFiles      Layer = "landlock"       // files that were not granted are closed
	LayerPorts      Layer = "landlock-ports" // so are TCP ports
	LayerScope      Layer = "landlock-scope" // signals and abstract sockets stay within
	LayerCalls      Layer = "seccomp"        // system calls a program has no use for are refused, and sockets that were not granted
	LayerLimits     Layer = "rlimits"        // memory of each process, open files, no core dump
	LayerMemory     Layer = "cgroup-memory"  // memory of all its processes
	LayerTasks      Layer = "tasks"          // processes and threads are counted, in a control group or by its user
	LayerCPU        Layer = "cgroup-cpu"     // processor time
)

// Layers are all of them.
func Layers() []Layer {
	return []Layer{
		LayerUser, LayerPrivileges, LayerNamespaces, LayerFiles, LayerPorts, LayerScope, LayerCalls, LayerLimits, LayerMemory, LayerTasks, LayerCPU,
	}
}

// ParseLayers reads what a device requires: "available" (nothing in particular), "required" (everything), or layers with commas between them.
func ParseLayers(s string) ([]Layer, error) {
	switch s {
	case "available":
		return nil, nil
	case "required":
		return Layers(), nil
	}
	var out []Layer
	for word := range strings.SplitSeq(s, ",") {
		l := Layer(word)
		if !slices.Contains(Layers(), l) {
			return nil, fmt.Errorf("isolation %q: want available, required, or some of %v with commas between them", s, Layers())
		}
		out = append(out, l)
	}
	return out, nil
}

// Report is what was found as a program was confined.
type Report struct {
	InForce []Layer          `json:"in_force"`
	Missing map[Layer]string `json:"missing,omitempty"` // why
}

// has notes that a layer is in force.
func (r *Report) has(l Layer) { r.InForce = append(r.InForce, l) }

// lacks notes that it is not.
func (r *Report) lacks(l Layer, why string, args ...any) {
	if r.Missing == nil {
		r.Missing = map[Layer]string{}
	}
	r.Missing[l] = fmt.Sprintf(why, args...)
}

// note notes either.
func (r *Report) note(l Layer, err error) {
	if err != nil {
		r.lacks(l, "%v", err)
		return
	}
	r.has(l)
}

// without gives the layers of want that are not in force, with the reasons; nil: all are.
func (r Report) without(want []Layer) error {
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
func Common(reports ...Report) []Layer {
	var out []Layer
	for _, l := range Layers() {
		if len(reports) > 0 && !slices.ContainsFunc(reports, func(r Report) bool { return !slices.Contains(r.InForce, l) }) {
			out = append(out, l)
		}
	}
	return out
}
