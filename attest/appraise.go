package attest

import (
	"bytes"
	"crypto/subtle"
	"fmt"
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
	KeyOrigin    string // as recorded in production
	Counter      uint32 // lowest security counter that is good
	BootCount    uint64 // highest seen before
	AllowVirtual bool   // the product's policy
	References   []Reference
}

// Reference is one published component.
type Reference struct {
	Release []byte // digest of the release
	Name    string
	Version string
	Digest  []byte // 32 bytes
	Counter uint32 // of the release
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
	j.configuration(e)
	j.executables(e, x)
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

func (j *Judgement) configuration(e wire.Evidence) {
	v := &j.Vector.Configuration
	// Only "secured" is good: the debug state that RFC 9783 lets report truthfully is still not how a device in the field is.
	if major := e.Lifecycle & 0xff00; major != wire.LifecycleSecured {
		j.worse(v, Contraindicated, "life-cycle: 0x%04x is not secured", e.Lifecycle)
	}
	if !e.DebugLocked {
		j.worse(v, Contraindicated, "debug: not locked")
	}
}

func (j *Judgement) executables(e wire.Evidence, x Expect) {
	v := &j.Vector.Executables
	if e.Counter < x.Counter {
		j.worse(v, Contraindicated, "security-counter: %d, want %d or more", e.Counter, x.Counter)
	}
	if len(x.References) == 0 {
		*v = None
		j.Reasons = append(j.Reasons, "references: none published for this product")
		return
	}
	apps := 0
	for _, c := range e.Components {
		if c.Type != "App" {
			continue
		}
		apps++
		i := slices.IndexFunc(x.References, func(r Reference) bool { return bytes.Equal(r.Digest, c.Value) })
		if i < 0 {
			j.worse(v, Contraindicated, "executables: measured %x, which is in no published release", c.Value)
			continue
		}
		if r := x.References[i]; r.Counter < x.Counter {
			j.worse(v, Contraindicated, "executables: release %x is below the security floor", r.Release)
		} else {
			j.Release = r.Release
		}
	}
	if apps == 0 {
		j.worse(v, Contraindicated, "executables: no application was measured")
	}
	if *v >= Contraindicated {
		j.Release = nil
	}
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
	if virtual || (e.KeyOrigin != "tpm" && e.KeyOrigin != "pkcs11") {
		j.worse(s, Warning, "key-origin: %.64q is not hardware", e.KeyOrigin)
	}
}
