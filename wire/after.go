package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a device says that it knows (Checkin.Knows) of what a release may say: one that does not refuses such a release as one that it cannot read.
const (
	KnowsAfter       = "after1"        // it starts programs in the order that the release says
	KnowsSealedImage = "sealed-image1" // it opens images of banks that are protected
)

// KnowsText says in words what is asked for by one of these kinds.
func KnowsText(kind string) string {
	switch kind {
	case KnowsAfter:
		return "programs that start after others"
	case KnowsSealedImage:
		return "an image that is sealed"
	}
	return kind
}

// Asks are the kinds of message, of those, that a device has to know to take the release.
func (r Release) Asks() []string {
	var kinds []string
	if r.Ordered() {
		kinds = append(kinds, KnowsAfter)
	}
	if c, ok := r.Image(); ok && c.Protected != nil {
		kinds = append(kinds, KnowsSealedImage)
	}
	return kinds
}

// Sealed reports whether any component of the release is protected.
func (r Release) Sealed() bool {
	return slices.ContainsFunc(r.Components, func(c Component) bool { return c.Protected != nil })
}

// Unknown are the kinds of message that releases may ask for and that somebody who knows these does not know.
func Unknown(knows []string) []string {
	return slices.DeleteFunc([]string{KnowsAfter, KnowsSealedImage}, func(kind string) bool { return slices.Contains(knows, kind) })
}

// Ordered reports whether any program of the release is started after another.
func (r Release) Ordered() bool {
	return slices.ContainsFunc(r.Components, func(c Component) bool { return len(c.After) > 0 })
}

// Order says in which order the programs start: what an approver reads before they sign. Empty: none waits for another.
func (r Release) Order() string {
	if !r.Ordered() {
		return ""
	}
	var names []string
	for _, c := range r.Programs() {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", then ")
}

// Programs are the programs of the release in the order in which they are started: each behind all that it comes after, and otherwise as the release has them.
func (r Release) Programs() []Component {
	out, _ := r.inOrder()
	return out
}

// inOrder gives what can be started in order, and what cannot: programs that wait for each other, and who comes after them.
func (r Release) inOrder() (out, left []Component) {
	for _, c := range r.Components {
		if c.Kind == KindExec {
			left = append(left, c)
		}
	}
	for {
		i := slices.IndexFunc(left, func(c Component) bool {
			return !slices.ContainsFunc(left, func(other Component) bool { return slices.Contains(c.After, other.Name) })
		})
		if i < 0 {
			return out, left
		}
		out, left = append(out, left[i]), slices.Delete(left, i, i+1)
	}
}

// checkOrder says whether the programs can be started in the order that they ask for.
func (r Release) checkOrder() error {
	for _, c := range r.Components {
		if err := r.checkAfter(c); err != nil {
			return fmt.Errorf("component %q: %w", c.Name, err)
		}
	}
	_, left := r.inOrder()
	if len(left) == 0 {
		return nil
	}
	var circle []string // of those that are left each comes after another that is left
	for at := left[0]; ; {
		if i := slices.Index(circle, at.Name); i >= 0 {
			return fmt.Errorf("components that are started after each other: %s", strings.Join(append(circle[i:], at.Name), " after "))
		}
		circle = append(circle, at.Name)
		at = left[slices.IndexFunc(left, func(c Component) bool { return slices.Contains(at.After, c.Name) })]
	}
}

func (r Release) checkAfter(c Component) error {
	switch {
	case len(c.After) == 0:
		return nil
	case c.Kind != KindExec:
		return fmt.Errorf("%s that is started after others: only a program is started", c.Kind)
	case len(c.After) >= MaxComponents:
		return errors.New("it is started after too many others")
	}
	for i, name := range c.After {
		at := slices.IndexFunc(r.Components, func(other Component) bool { return other.Name == name })
		switch {
		case i > 0 && c.After[i-1] >= name:
			return fmt.Errorf("what it is started after is not in rising order of names: %q", name)
		case name == c.Name:
			return errors.New("it is started after itself")
		case at < 0:
			return fmt.Errorf("it is started after %q, which is no component of the release", name)
		case r.Components[at].Kind != KindExec:
			return fmt.Errorf("it is started after %q, which is no program: %s is there before any program starts", name, r.Components[at].Kind)
		}
	}
	return nil
}
