package suit

import (
	"crypto/fips140"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// namespaceURL is the namespace of RFC 9562 for names that are URLs.
var namespaceURL = [16]byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}

// reports of conditions and of directives, as the draft's examples have them: all, and failures.
const (
	reportAll     = 15
	reportFailure = 2
)

// uuid5 is a name (RFC 9562 §5.5), as the draft demands it: nothing rests on its hash.
func uuid5(space []byte, name string) (id []byte) {
	fips140.WithoutEnforcement(func() {
		h := sha1.New() //nolint:gosec // G401: a UUID of version 5 is a name made by SHA-1
		h.Write(space)
		h.Write([]byte(name))
		id = h.Sum(nil)[:16]
	})
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Vendor is the vendor identifier of a product's manifests.
func Vendor(product string) []byte { return uuid5(namespaceURL[:], "urn:hallmark:product:"+product) }

// Class is the class identifier of a hardware revision of it.
func Class(product, hardware string) []byte { return uuid5(Vendor(product), hardware) }

// Of is the manifest of a release; it follows from the release alone. Its sequence number rises with the security counter first, and then with the time at which the release was proposed. Components are
// named as in the release, and fetched by their digest, relative to where devices ask. Programs are invoked in the order in which they are started; a manifest has no words for waiting until the one before is up.
func Of(r wire.Release) (Manifest, error) {
	if r.Created > 1<<32-1 {
		return Manifest{}, errors.New("suit: the release is of a time that no sequence number holds")
	}
	m := Manifest{Sequence: uint64(r.Counter)<<32 | r.Created}
	for i, c := range r.Components {
		if c.Kind == wire.KindImage || c.Protected != nil {
			return Manifest{}, fmt.Errorf("suit: component %s is an image of a bank, or protected: what a device has of it has another digest than what it fetches, which a manifest does not say", c.Name)
		}
		digest, err := encodeDigest(c.Digest)
		if err != nil {
			return Manifest{}, err
		}
		size := c.Size
		at := Command{Code: DirectiveIndex, Index: uint64(i)}
		match := Command{Code: ConditionImageMatch, Policy: reportAll}
		m.Components = append(m.Components, [][]byte{[]byte(c.Name)})
		m.Shared = append(m.Shared, at, Command{Code: DirectiveOverride, Parameters: &Parameters{Digest: digest, Size: &size}})
		if i == 0 {
			m.Shared = append(m.Shared, compatibility(r)...)
		}
		m.Validate = append(m.Validate, at, match)
		m.Install.Run = append(m.Install.Run, at, Command{Code: DirectiveOverride, Parameters: &Parameters{URI: fmt.Sprintf("/d/v1/artifact/%x", c.Digest)}},
			Command{Code: DirectiveFetch, Policy: reportFailure}, match)
	}
	for _, c := range r.Programs() {
		i := slices.IndexFunc(r.Components, func(other wire.Component) bool { return other.Name == c.Name })
		m.Invoke = append(m.Invoke, Command{Code: DirectiveIndex, Index: uint64(i)}, Command{Code: DirectiveInvoke, Policy: reportFailure})
	}
	_, err := m.Encode()
	return m, err
}

// compatibility holds the vendor and the class against the device's: any of the hardware revisions.
func compatibility(r wire.Release) []Command {
	out := []Command{{Code: DirectiveOverride, Parameters: &Parameters{Vendor: Vendor(r.Product)}}, {Code: ConditionVendor, Policy: reportAll}}
	var ways [][]Command
	for _, h := range r.Hardware {
		ways = append(ways, []Command{{Code: DirectiveOverride, Parameters: &Parameters{Class: Class(r.Product, h)}}, {Code: ConditionClass, Policy: reportAll}})
	}
	if len(ways) == 1 {
		return append(out, ways[0]...)
	}
	return append(out, Command{Code: DirectiveTryEach, Try: ways})
}
