package wire

import (
	"errors"
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
	LayerDisk       Layer = "disk"           // no file is larger than what it may keep, and all of them together are measured
)

// Layers are all of them.
func Layers() []Layer {
	return []Layer{
		LayerUser, LayerPrivileges, LayerNamespaces, LayerFiles, LayerPorts, LayerScope, LayerCalls, LayerLimits, LayerMemory, LayerTasks, LayerCPU, LayerDisk,
	}
}

// ParseLayers reads what is required: "available" (nothing in particular), "required" (everything), or layers with commas between them.
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

// Isolation is what holds the programs of a device, as each was found when it was confined.
type Isolation struct {
	Programs uint    `cbor:"1,keyasint" json:"programs" doc:"that were started; 0: there is nothing to hold"`
	InForce  []Layer `cbor:"2,keyasint,omitempty" json:"in_force" doc:"what holds all of them"`
}

// Lacks gives those of want that do not hold all of the programs; of what is not known none does.
func (i *Isolation) Lacks(want []Layer) (out []Layer) {
	for _, l := range want {
		if i == nil || i.Programs > 0 && !slices.Contains(i.InForce, l) {
			out = append(out, l)
		}
	}
	return out
}

func (i *Isolation) check() error {
	if i == nil {
		return nil
	}
	if i.Programs > MaxComponents || len(i.InForce) > maxLayers {
		return errors.New("evidence: isolation out of bounds")
	}
	for n, l := range i.InForce { // a layer that this version does not know is no reason to refuse all that the device says
		if l == "" || len(l) > 32 || slices.Contains(i.InForce[:n], l) {
			return fmt.Errorf("evidence: layer %.32q", l)
		}
	}
	return nil
}

// maxLayers bounds the layers of a later version.
const maxLayers = 64
