package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// set is a release of two components, control and motor, whose first one has needs.
func set(motor string, hardware []string, needs ...Requirement) Release {
	r := sampleRelease()
	r.Model, r.Hardware = ModelAsset, []string{"A", "B"}
	other := r.Components[0]
	r.Components[0].Name, r.Components[0].Requires, r.Components[0].Hardware = "control", needs, hardware
	other.Name, other.Version = "motor", motor
	r.Components = append(r.Components, other)
	return r
}

func TestWhichComponentsGoTogether(t *testing.T) {
	for name, c := range map[string]struct {
		r    Release
		says string // empty: they do
	}{
		"nothing is required":       {set("1.0.0", nil), ""},
		"the lowest version":        {set("1.1.0", nil, Requirement{"motor", "1.1.0", "2.0.0"}), ""},
		"below the lowest":          {set("1.0.9", nil, Requirement{"motor", "1.1.0", "2.0.0"}), "requires motor from 1.1.0 below 2.0.0"},
		"the first that is too new": {set("2.0.0", nil, Requirement{"motor", "1.1.0", "2.0.0"}), "requires motor from 1.1.0 below 2.0.0"},
		"a candidate of it":         {set("2.0.0-rc.1", nil, Requirement{"motor", "", "2.0.0"}), ""},
		"not above":                 {set("9.0.0", nil, Requirement{"motor", "1.1.0", ""}), ""},
		"no version at all":         {set("latest", nil, Requirement{"motor", "1.1.0", ""}), `the release has "latest"`},
		"all the hardware":          {set("1.0.0", []string{"A", "B", "C"}), ""},
		"some of the hardware":      {set("1.0.0", []string{"B"}), "for A too"},
	} {
		if _, err := EncodeRelease(c.r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		err := c.r.Compatible()
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrIncompatible) || !strings.Contains(fmt.Sprint(err), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A set that does not go together is refused also where enough approvers have signed it.
func TestSignaturesDoNotMakeASetGoTogether(t *testing.T) {
	people := newPeople(t, 2, 2)
	b := sampleBundle(people.role, people.role)
	for _, c := range []struct {
		motor string
		ok    bool
	}{{"1.0.0", false}, {"2.0.0", true}} {
		payload, err := EncodeRelease(set(c.motor, nil, Requirement{"motor", "2.0.0", ""}))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = VerifyRelease(b, people.sign(t, TypeRelease, payload, 0, 1)); c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrIncompatible) {
			t.Errorf("motor %s: %v", c.motor, err)
		}
	}
}

func TestARequirementThatSaysNothingIsMalformed(t *testing.T) {
	for name, r := range map[string]Release{
		"of itself":           set("1.0.0", nil, Requirement{"control", "1.0.0", ""}),
		"of nobody":           set("1.0.0", nil, Requirement{"pump", "1.0.0", ""}),
		"twice":               set("1.0.0", nil, Requirement{"motor", "1.0.0", ""}, Requirement{"motor", "", "2.0.0"}),
		"without a bound":     set("1.0.0", nil, Requirement{"motor", "", ""}),
		"of no version":       set("1.0.0", nil, Requirement{"motor", "new", ""}),
		"below no version":    set("1.0.0", nil, Requirement{"motor", "", "v2"}),
		"of an empty range":   set("1.0.0", nil, Requirement{"motor", "2.0.0", "2.0.0"}),
		"hardware twice":      set("1.0.0", []string{"A", "A"}),
		"hardware in another": set("1.0.0", []string{"B", "A"}),
		"hardware of no name": set("1.0.0", []string{""}),
		"with no version of its own": func() Release {
			r := set("1.0.0", nil, Requirement{"motor", "1.0.0", ""})
			r.Components = slices.Clone(r.Components)
			r.Components[0].Version = "x"
			return r
		}(),
	} {
		if _, err := EncodeRelease(r); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestWhatIsNoImageIsMalformed(t *testing.T) {
	image := func() Release {
		r := sampleRelease()
		c := r.Components[0]
		c.Name, c.Kind, c.Health, c.Capabilities, c.Args, c.Requires, c.Hardware = "root", KindImage, HealthNone, nil, nil, nil, nil
		c.Laid = &Laid{Size: 5, Digest: make([]byte, 32)}
		r.Components = append(r.Components, c)
		return r
	}
	for says, change := range map[string]func(*Release, *Component){
		"":                            func(*Release, *Component) {},
		"size and SHA-256 digest":     func(_ *Release, c *Component) { c.Laid = nil },
		"size and SHA-256 digest of":  func(_ *Release, c *Component) { c.Laid.Digest = c.Laid.Digest[:31] },
		"size and SHA-256 digest of ": func(_ *Release, c *Component) { c.Laid.Size = 0 },
		"an image without size":       func(_ *Release, c *Component) { c.Laid.Size = 1<<40 + 1 },
		"health check":                func(_ *Release, c *Component) { c.Health = HealthAlive },
		"only a program has any":      func(_ *Release, c *Component) { c.Capabilities = &Capabilities{} },
		"or arguments":                func(_ *Release, c *Component) { c.Args = []string{"x"} },
		"only an image is laid":       func(r *Release, c *Component) { r.Components[0].Laid = c.Laid },
		"2 images": func(r *Release, c *Component) {
			other := *c
			other.Name = "root-2"
			r.Components = append(r.Components, other)
		},
	} {
		r := image()
		change(&r, &r.Components[len(r.Components)-1])
		payload, err := EncodeRelease(r)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
		if says != "" {
			continue
		}
		back, err := DecodeRelease(payload)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := back.Image()
		if !ok || got.Name != "root" || !slices.Equal(got.Measured(), got.Laid.Digest) || !slices.Equal(back.Components[0].Measured(), back.Components[0].Digest) {
			t.Errorf("it comes back as %+v", got)
		}
	}
}
