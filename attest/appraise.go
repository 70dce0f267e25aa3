package attest

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Expect is what the appraisal holds evidence against. All of it was known before the evidence came.
type Expect struct {
	Device       string
	Hardware     string
	InstanceID   []byte
	Nonce        []byte
	KeyOrigin    string                                     // as recorded in production, or when it got others
	Field        bool                                       // the keys were made in the field, by a voucher: nobody saw where
	Floor        uint32                                     // the trust bundle's: what is below runs with known defects
	Counter      uint32                                     // security counter, highest seen before
	BootCount    uint64                                     // highest seen before
	AllowVirtual bool                                       // the product's policy
	Starts       func(code [32]byte, hardware string) error // which boot managers may: the trust bundle's; nil: not known
	Isolation    []wire.Layer                               // without which none of its programs may run: the product's policy
	References   []Reference
	Suites       []string // that the product's trust bundle accepts; none: not known
	Suite        string   // of the key that signed
	Runs         []byte   // the release that the device last said it runs; it only decides between releases of the same parts
}

// Reference is one published component.
type Reference struct {
	Release   []byte // digest of the release
	Name      string
	Version   string
	Digest    []byte // 32 bytes
	Counter   uint32 // of the release
	Withdrawn bool   // the release was
}

// Judgement is a trust vector with its reasons: a stable code, a colon, a sentence.
type Judgement struct {
	Vector  Vector
	Reasons []string
	Release []byte // the release whose component was measured; nil when none
}

func (j *Judgement) worse(t *Tier, to Tier, format string, args ...any) {
	if *t < to {
		*t = to
	}
	j.Reasons = append(j.Reasons, fmt.Sprintf(format, args...))
}

// Judge appraises evidence whose signature by the recorded key was verified.
func Judge(e wire.Evidence, x Expect) Judgement {
	j := Judgement{Vector: Vector{
		InstanceIdentity: Affirming, Configuration: Affirming, Executables: Affirming, Hardware: Affirming, StorageOpaque: Affirming,
	}}
	j.identity(e, x)
	j.configuration(e, x)
	j.executables(e, x)
	j.bootManager(e, x)
	j.hardware(e, x)
	return j
}

func (j *Judgement) identity(e wire.Evidence, x Expect) {
	v := &j.Vector.InstanceIdentity
	if len(x.Nonce) == 0 || subtle.ConstantTimeCompare(e.Nonce, x.Nonce) != 1 {
		j.worse(v, Contraindicated, "nonce: not the one that was asked for")
	}
	if len(x.InstanceID) == 0 || !bytes.Equal(e.InstanceID, x.InstanceID) {
		j.worse(v, Contraindicated, "instance-id: not the attestation key recorded in production")
	}
	if len(x.Suites) > 0 && !slices.Contains(x.Suites, x.Suite) { // a device that has the bundle has moved; this one was away
		j.worse(v, Warning, "suite: signed in %s, the trust bundle accepts %v", x.Suite, x.Suites)
	}
	if e.Device != x.Device {
		j.worse(v, Contraindicated, "device: the token speaks for %.64q", e.Device)
	}
	if e.Profile != wire.PSAProfile {
		j.worse(v, Contraindicated, "profile: %q", e.Profile)
	}
	if e.BootCount < x.BootCount {
		j.worse(v, Contraindicated, "boot-count: went back from %d to %d", x.BootCount, e.BootCount)
	}
}

func (j *Judgement) configuration(e wire.Evidence, x Expect) {
	v := &j.Vector.Configuration
	// Only "secured" is good: the debug state that RFC 9783 lets report truthfully is still not how a device in the field is.
	if major := e.Lifecycle & 0xff00; major != wire.LifecycleSecured {
		j.worse(v, Contraindicated, "life-cycle: 0x%04x is not secured", e.Lifecycle)
	}
	if !e.DebugLocked {
		j.worse(v, Contraindicated, "debug: not locked")
	}
	switch lacks := e.Isolation.Lacks(x.Isolation); {
	case len(lacks) > 0 && e.Isolation == nil:
		j.worse(v, Contraindicated, "isolation: not told, and the product asks for %v", lacks)
	case len(lacks) > 0:
		j.worse(v, Contraindicated, "isolation: %v do not hold all of its programs", lacks)
	}
}

// bootManager holds what started the device against what the root keys have signed for.
func (j *Judgement) bootManager(e wire.Evidence, x Expect) {
	v := &j.Vector.Executables
	if x.Starts == nil {
		return
	}
	if demanded := x.Starts([32]byte{}, x.Hardware) != nil; demanded && !slices.ContainsFunc(e.Components, func(c wire.Measured) bool { return c.Type == "BL" }) {
		j.worse(v, Contraindicated, "boot-manager: none was measured")
	}
	for _, c := range e.Components {
		if c.Type != "BL" {
			continue
		}
		if err := x.Starts([32]byte(c.Value), x.Hardware); err != nil {
			j.worse(v, Contraindicated, "boot-manager: %v", err)
		}
	}
}

func (j *Judgement) executables(e wire.Evidence, x Expect) {
	v := &j.Vector.Executables
	if e.Counter < x.Counter {
		j.worse(v, Contraindicated, "security-counter: went back from %d to %d", x.Counter, e.Counter)
	}
	if len(x.References) == 0 {
		*v = None
		j.Reasons = append(j.Reasons, "references: none published for this product")
		return
	}
	var measured [][]byte
	for _, c := range e.Components {
		if c.Type != "App" {
			continue
		}
		measured = append(measured, c.Value)
		if !slices.ContainsFunc(x.References, func(r Reference) bool { return bytes.Equal(r.Digest, c.Value) }) {
			j.worse(v, Contraindicated, "executables: measured %x, which is in no published release", c.Value)
		}
	}
	if len(measured) == 0 {
		j.worse(v, Contraindicated, "executables: no application was measured")
	}
	if *v >= Contraindicated {
		return
	}
	whole := wholeRelease(measured, x.References, x.Runs)
	if whole == nil {
		j.worse(v, Contraindicated, "executables: what was measured is not the whole of one published release")
		return
	}
	j.Release = whole.Release
	if whole.Withdrawn {
		j.worse(v, Warning, "executables: release %x was withdrawn: update it", whole.Release)
	}
	if whole.Counter < x.Floor {
		j.worse(v, Warning, "executables: release %x is below the security floor %d: update it", whole.Release, x.Floor)
	}
}

// wholeRelease finds the release whose components, each once, are what was measured: a mix of good parts of two releases was never
// approved together, nor was a release without one of its parts. Of two releases with the same parts it gives the one that the device
// says it runs; otherwise the one with the higher counter.
func wholeRelease(measured [][]byte, refs []Reference, runs []byte) *Reference {
	parts := map[string][]Reference{}
	for _, r := range refs {
		parts[string(r.Release)] = append(parts[string(r.Release)], r)
	}
	var best *Reference
	for _, digest := range slices.Sorted(maps.Keys(parts)) {
		rs := parts[digest]
		if len(rs) != len(measured) {
			continue
		}
		left := slices.Clone(measured)
		for _, r := range rs {
			i := slices.IndexFunc(left, func(m []byte) bool { return bytes.Equal(m, r.Digest) })
			if i < 0 {
				break
			}
			left = slices.Delete(left, i, i+1)
		}
		if len(left) > 0 {
			continue
		}
		if bytes.Equal(rs[0].Release, runs) {
			return &rs[0]
		}
		if best == nil || rs[0].Counter > best.Counter {
			best = &rs[0]
		}
	}
	return best
}

func (j *Judgement) hardware(e wire.Evidence, x Expect) {
	v := &j.Vector.Hardware
	if e.Hardware != x.Hardware {
		j.worse(v, Contraindicated, "hardware: revision %.64q, made as %q", e.Hardware, x.Hardware)
	}
	if len(e.POST) == 0 {
		j.worse(v, Contraindicated, "self-test: no results")
	}
	for _, t := range e.POST {
		if !t.Passed {
			j.worse(v, Contraindicated, "self-test: %.64q failed: %.200q", t.Name, t.Detail)
		}
	}
	virtual := strings.HasPrefix(string(e.Implementation), wire.VirtualImplementation)
	switch {
	case virtual != e.Virtual:
		j.worse(v, Contraindicated, "virtual: the implementation ID and the claim do not agree")
	case virtual && !x.AllowVirtual:
		j.worse(v, Contraindicated, "virtual: the product does not allow simulated devices")
	}
	s := &j.Vector.StorageOpaque
	if e.KeyOrigin != x.KeyOrigin {
		j.worse(s, Contraindicated, "key-origin: says %.64q, recorded as %q", e.KeyOrigin, x.KeyOrigin)
	}
	if x.Field {
		j.worse(s, Warning, "key-origin: the keys were made in the field, and not before the factory's eyes")
	}
	if virtual || !wire.HardwareOrigin(e.KeyOrigin) {
		j.worse(s, Warning, "key-origin: %.64q is not hardware", e.KeyOrigin)
	}
	switch e.Parts {
	case "", "tpm":
	case "tpm-owner":
		j.worse(s, Warning, "parts: fuses and counters are in a TPM whose owner can delete them")
	default:
		j.worse(s, Warning, "parts: fuses and counters are %.64q, which is not hardware", e.Parts)
	}
}
