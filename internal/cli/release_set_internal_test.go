package cli

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// What is said of the order in which programs start goes into the release, and is read by whoever signs it.
func TestAnOrderIsSaidAndShown(t *testing.T) {
	components := []release.Component{{Name: "control", After: []string{"lamp"}}, {Name: "lamp"}, {Name: "motor"}, {Name: "radio"}}
	s := set{after: []string{"control=radio,motor", "motor=radio"}}
	if err := s.apply(components); err != nil || !slices.Equal(components[0].After, []string{"motor", "radio"}) || !slices.Equal(components[2].After, []string{"radio"}) {
		t.Fatalf("%+v, %v", components, err)
	}
	for _, wrong := range []string{"control", "control=", "pump=radio"} {
		if err := (&set{after: []string{wrong}}).apply(components); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	r := wire.Release{ID: "pump-1", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelAsset, Version: "1.0.0"}
	about := func() string {
		r.Components = nil
		for _, c := range components {
			d := sha256.Sum256([]byte(c.Name))
			r.Components = append(r.Components, wire.Component{Name: c.Name, Kind: wire.KindExec, Version: "1.0.0", Size: 1, Digest: d[:], Health: wire.HealthAlive, After: c.After})
		}
		payload, err := wire.EncodeRelease(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := aboutRelease(payload)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if text := about(); !strings.Contains(text, "; programs start: lamp, then radio, then motor, then control") || !strings.Contains(needsOf(r.Components[0]), ", starts after motor, radio") {
		t.Errorf("%q, %q", text, needsOf(r.Components[0]))
	}
	for i := range components {
		components[i].After = nil
	}
	if text := about(); strings.Contains(text, "start") {
		t.Errorf("without an order: %q", text)
	}
}
