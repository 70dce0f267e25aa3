package attest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func b32(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func good() (wire.Evidence, Expect) {
	instance := append([]byte{1}, b32(2)...)
	e := wire.Evidence{
		Nonce: b32(1), InstanceID: instance, Profile: wire.PSAProfile, ClientID: 1, Lifecycle: wire.LifecycleSecured, Implementation: b32(3),
		Components: []wire.Measured{{Type: "BL", Value: b32(8), SignerID: b32(5)}, {Type: "App", Value: b32(4), SignerID: b32(5)}},
		Device:     "d", Hardware: "A", DebugLocked: true, BootCount: 7, Counter: 3, POST: []wire.TestResult{{Name: "ram", Passed: true}}, KeyOrigin: "tpm",
	}
	return e, Expect{
		Device: "d", Hardware: "A", InstanceID: instance, Nonce: b32(1), KeyOrigin: "tpm", Counter: 3, Floor: 3, BootCount: 7,
		References: []Reference{{Release: b32(9), Name: "app", Digest: b32(4), Counter: 3}},
	}
}

// startsBy is a trust bundle that names one boot manager.
func startsBy(digest []byte, hardware string) func([32]byte, string) error {
	return wire.Bundle{Version: 2, BootManagers: []wire.BootManager{{Digest: digest, Hardware: []string{hardware}}}}.Starts
}

func TestTheBootManagerThatTheBundleNamesIsGood(t *testing.T) {
	e, x := good()
	for _, starts := range []func([32]byte, string) error{startsBy(e.Components[0].Value, "A"), wire.Bundle{Version: 1}.Starts} {
		x.Starts = starts
		if j := Judge(e, x); j.Vector.Status() != Affirming || len(j.Reasons) != 0 {
			t.Errorf("%+v", j)
		}
	}
}

func TestEveryClaimCanFail(t *testing.T) {
	e, x := good()
	if j := Judge(e, x); j.Vector.Status() != Affirming || len(j.Reasons) != 0 || !bytes.Equal(j.Release, b32(9)) {
		t.Fatalf("good evidence: %+v", j)
	}
	virtual := func(e *wire.Evidence) {
		e.Virtual, e.Implementation = true, append([]byte(wire.VirtualImplementation), make([]byte, 16)...)
	}
	for _, c := range []struct {
		name   string
		spoil  func(e *wire.Evidence, x *Expect)
		want   Tier
		reason string
	}{
		{"nonce", func(e *wire.Evidence, _ *Expect) { e.Nonce = b32(7) }, Contraindicated, "nonce:"},
		{"no nonce asked for", func(_ *wire.Evidence, x *Expect) { x.Nonce = nil }, Contraindicated, "nonce:"},
		{"nonce empty on both sides", func(e *wire.Evidence, x *Expect) { e.Nonce, x.Nonce = nil, nil }, Contraindicated, "nonce:"},
		{"instance", func(e *wire.Evidence, _ *Expect) { e.InstanceID = append([]byte{1}, b32(6)...) }, Contraindicated, "instance-id:"},
		{"device", func(e *wire.Evidence, _ *Expect) { e.Device = "other" }, Contraindicated, "device:"},
		{"profile", func(e *wire.Evidence, _ *Expect) { e.Profile = "x" }, Contraindicated, "profile:"},
		{"boot count", func(e *wire.Evidence, _ *Expect) { e.BootCount = 6 }, Contraindicated, "boot-count:"},
		{"life cycle unknown", func(e *wire.Evidence, _ *Expect) { e.Lifecycle = 0 }, Contraindicated, "life-cycle:"},
		{"life cycle debug", func(e *wire.Evidence, _ *Expect) { e.Lifecycle = wire.LifecycleDebug }, Contraindicated, "life-cycle:"},
		{"debug", func(e *wire.Evidence, _ *Expect) { e.DebugLocked = false }, Contraindicated, "debug:"},
		{"isolation not told", func(_ *wire.Evidence, x *Expect) { x.Isolation = []wire.Layer{wire.LayerFiles} }, Contraindicated, "isolation: not told"},
		{"a layer that lacks", func(e *wire.Evidence, x *Expect) {
			e.Isolation = &wire.Isolation{Programs: 1, InForce: []wire.Layer{wire.LayerCalls, wire.LayerUser}}
			x.Isolation = []wire.Layer{wire.LayerCalls, wire.LayerFiles}
		}, Contraindicated, "isolation: [landlock]"},
		{"counter", func(e *wire.Evidence, _ *Expect) { e.Counter = 2 }, Contraindicated, "security-counter:"},
		{"unknown code", func(e *wire.Evidence, _ *Expect) { e.Components[1].Value = b32(0) }, Contraindicated, "executables:"},
		{"another boot manager", func(_ *wire.Evidence, x *Expect) { x.Starts = startsBy(b32(77), "A") }, Contraindicated, "boot-manager:"},
		{"a boot manager for other hardware", func(e *wire.Evidence, x *Expect) { x.Starts = startsBy(e.Components[0].Value, "B") }, Contraindicated, "boot-manager:"},
		{"no boot manager", func(e *wire.Evidence, x *Expect) {
			x.Starts, e.Components = startsBy(e.Components[0].Value, "A"), e.Components[1:]
		}, Contraindicated, "boot-manager: none"},
		{"another boot manager, and no reference", func(_ *wire.Evidence, x *Expect) {
			x.Starts, x.References = startsBy(b32(77), "A"), nil
		}, Contraindicated, "references:"},
		{"below the floor", func(_ *wire.Evidence, x *Expect) { x.References[0].Counter = 2 }, Warning, "executables:"},
		{"withdrawn", func(_ *wire.Evidence, x *Expect) { x.References[0].Withdrawn = true }, Warning, "executables:"},
		{"half of a release", func(_ *wire.Evidence, x *Expect) {
			x.References = append(x.References, Reference{Release: b32(9), Name: "data", Digest: b32(11), Counter: 3})
		}, Contraindicated, "executables:"},
		{"a mix of two releases", func(e *wire.Evidence, x *Expect) {
			x.References = append(x.References, Reference{Release: b32(9), Name: "data", Digest: b32(11), Counter: 3},
				Reference{Release: b32(10), Name: "app", Digest: b32(12), Counter: 3}, Reference{Release: b32(10), Name: "data", Digest: b32(13), Counter: 3})
			e.Components = append(e.Components, wire.Measured{Type: "App", Value: b32(13), SignerID: b32(5)})
		}, Contraindicated, "executables:"},
		{"one part twice", func(e *wire.Evidence, x *Expect) {
			x.References = append(x.References, Reference{Release: b32(9), Name: "data", Digest: b32(11), Counter: 3})
			e.Components = append(e.Components, e.Components[1])
		}, Contraindicated, "executables:"},
		{"no application", func(e *wire.Evidence, _ *Expect) { e.Components = e.Components[:1] }, Contraindicated, "executables:"},
		{"a second, unknown application", func(e *wire.Evidence, _ *Expect) {
			e.Components = append(e.Components, wire.Measured{Type: "App", Value: b32(0), SignerID: b32(5)})
		}, Contraindicated, "executables:"},
		{"no references", func(_ *wire.Evidence, x *Expect) { x.References = nil }, None, "references:"},
		{"hardware", func(e *wire.Evidence, _ *Expect) { e.Hardware = "B" }, Contraindicated, "hardware:"},
		{"no self test", func(e *wire.Evidence, _ *Expect) { e.POST = nil }, Contraindicated, "self-test:"},
		{"failed self test", func(e *wire.Evidence, _ *Expect) { e.POST[0].Passed = false }, Contraindicated, "self-test:"},
		{"virtual, not allowed", func(e *wire.Evidence, _ *Expect) { virtual(e) }, Contraindicated, "virtual:"},
		{"virtual, allowed", func(e *wire.Evidence, x *Expect) { virtual(e); x.AllowVirtual = true }, Warning, "key-origin:"},
		{"virtual that hides it", func(e *wire.Evidence, x *Expect) { virtual(e); e.Virtual, x.AllowVirtual = false, true }, Contraindicated, "virtual:"},
		{"soft key", func(e *wire.Evidence, x *Expect) { e.KeyOrigin, x.KeyOrigin = "soft", "soft" }, Warning, "key-origin:"},
		{"fuses in a file", func(e *wire.Evidence, _ *Expect) { e.Parts = "soft" }, Warning, "parts:"},
		{"fuses that an owner deletes", func(e *wire.Evidence, _ *Expect) { e.Parts = "tpm-owner" }, Warning, "parts:"},
		{"fuses nobody knows of", func(e *wire.Evidence, _ *Expect) { e.Parts = "magic" }, Warning, "parts:"},
		{"key origin embellished", func(_ *wire.Evidence, x *Expect) { x.KeyOrigin = "soft" }, Contraindicated, "key-origin:"},
	} {
		e, x := good()
		c.spoil(&e, &x)
		j := Judge(e, x)
		if got := j.Vector.Status(); got != c.want {
			t.Errorf("%s: %v, want %v (%v)", c.name, got, c.want, j.Reasons)
		}
		if len(j.Reasons) == 0 || !strings.HasPrefix(j.Reasons[0], c.reason) {
			t.Errorf("%s: reasons %q, want %s first", c.name, j.Reasons, c.reason)
		}
	}
}

// What a product asks for, and is there, is good; so is a device on which no program runs. What nobody asks for is told, and judges nobody.
func TestWhatHoldsProgramsIsEnough(t *testing.T) {
	for name, set := range map[string]func(e *wire.Evidence, x *Expect){
		"all of it": func(e *wire.Evidence, x *Expect) {
			e.Isolation, x.Isolation = &wire.Isolation{Programs: 2, InForce: wire.Layers()}, wire.Layers()
		},
		"nothing runs":   func(e *wire.Evidence, x *Expect) { e.Isolation, x.Isolation = &wire.Isolation{}, wire.Layers() },
		"nobody asks":    func(e *wire.Evidence, _ *Expect) { e.Isolation = &wire.Isolation{Programs: 1} },
		"nobody says it": func(*wire.Evidence, *Expect) {},
	} {
		e, x := good()
		set(&e, &x)
		if j := Judge(e, x); j.Vector.Status() != Affirming {
			t.Errorf("%s: %v", name, j.Reasons)
		}
	}
}

func TestAWholeReleaseOfSeveralParts(t *testing.T) {
	e, x := good()
	x.References = append(x.References, Reference{Release: b32(9), Name: "data", Digest: b32(11), Counter: 3},
		Reference{Release: b32(10), Name: "app", Digest: b32(4), Counter: 5}) // shares one part
	e.Components = append(e.Components, wire.Measured{Type: "App", Value: b32(11), SignerID: b32(5)})
	if j := Judge(e, x); j.Vector.Status() != Affirming || !bytes.Equal(j.Release, b32(9)) {
		t.Fatalf("%+v", j)
	}
}

func TestStatusIsNeverBetterThanTheWorst(t *testing.T) {
	all := []Tier{Malfunction, None, Affirming, Warning, Contraindicated, 99}
	for _, a := range all {
		for _, b := range all {
			v := Vector{InstanceIdentity: a, Configuration: b, Executables: Affirming, Hardware: Affirming, StorageOpaque: Affirming}
			got := v.Status()
			bad := a >= Contraindicated || b >= Contraindicated
			unknown := a <= None || b <= None
			switch {
			case bad && got != Contraindicated, !bad && unknown && got != None, !bad && !unknown && got != max(a, b):
				t.Errorf("%d and %d: %d", a, b, got)
			}
		}
	}
}

// A release that was issued again with the same bytes is told from the first by what the device says it runs, the same way each time.
func TestOfReleasesWithTheSamePartsTheOneThatRunsIsProven(t *testing.T) {
	e, x := good()
	first := x.References[0].Release
	again := x.References[0]
	again.Release = b32(0xee)
	x.References = append(x.References, again)
	for _, runs := range [][]byte{first, again.Release} {
		x.Runs = runs
		for range 20 {
			if got := Judge(e, x).Release; !bytes.Equal(got, runs) {
				t.Fatalf("proven %x, and it runs %x", got, runs)
			}
		}
	}
}
