package wire

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/semver"
)

// UpdateModel says how the software of a product may change.
type UpdateModel string

// The update models: once and never again; the whole image through a staging area; several areas on their own.
const (
	ModelOTP   UpdateModel = "otp"
	ModelBlob  UpdateModel = "blob"
	ModelAsset UpdateModel = "asset"
)

// ComponentKind says what the boot manager does with a component.
type ComponentKind string

// An exec component is started as a process; a data component is laid into its partition; an image is handed to the machine's own installer, which lays
// what is in it into a bank outside of the device's flash, from which the machine is started.
const (
	KindExec  ComponentKind = "exec"
	KindData  ComponentKind = "data"
	KindImage ComponentKind = "image"
)

// HealthCheck says how the boot manager learns that a started component works.
type HealthCheck string

// HealthSocket asks the program over its health socket; HealthAlive is content when it still runs, or has ended with status
// 0, after the grace period; HealthNone is for data and images.
const (
	HealthSocket HealthCheck = "socket"
	HealthAlive  HealthCheck = "alive"
	HealthNone   HealthCheck = "none"
)

// Format says that a component's bytes are written as another system reads them, which judges them by itself once more. Their version, and whatever else both say, is the release's.
type Format string

// The formats: an image for MCUboot, an update for SWUpdate, an artifact of Mender's.
const (
	FormatMCUboot Format = "mcuboot"
	FormatSWU     Format = "swu"
	FormatMender  Format = "mender"
)

// Component is one program or data area of a release.
type Component struct {
	Name    string        `cbor:"1,keyasint" json:"name"`
	Kind    ComponentKind `cbor:"2,keyasint" json:"kind"`
	Version string        `cbor:"3,keyasint" json:"version"` // semver
	Size    uint64        `cbor:"4,keyasint" json:"size"`    // bytes
	Digest  []byte        `cbor:"5,keyasint" json:"digest"`  // SHA-256
	Health  HealthCheck   `cbor:"6,keyasint" json:"health"`
	Args    []string      `cbor:"7,keyasint,omitempty" json:"args,omitempty"`

	Capabilities *Capabilities `cbor:"8,keyasint,omitempty" json:"capabilities,omitempty"` // nil: what every program has, and nothing more
	Requires     []Requirement `cbor:"9,keyasint,omitempty" json:"requires,omitempty"`     // what it needs of the other components of its set
	Hardware     []string      `cbor:"10,keyasint,omitempty" json:"hardware,omitempty"`    // hardware revisions it works on; empty: all of the release's
	Protected    *Protected    `cbor:"11,keyasint,omitempty" json:"protected,omitempty"`   // nil: its bytes are the program; else they are sealed
	Laid         *Laid         `cbor:"13,keyasint,omitempty" json:"laid,omitempty"`        // of an image: what lies in the bank once it is installed
	After        []string      `cbor:"14,keyasint,omitempty" json:"after,omitempty"`       // of a program: those that are up before it is started, and that it is stopped before; rising. Only to devices that know KnowsAfter
	Format       Format        `cbor:"15,keyasint,omitempty" json:"format,omitempty"`      // empty: the bytes are what runs, or is read
}

// Laid is how a bank begins once an image is installed there: by this a device knows it again, whatever the installer said.
type Laid struct {
	Size   uint64 `cbor:"1,keyasint" json:"size"`   // bytes
	Digest []byte `cbor:"2,keyasint" json:"digest"` // SHA-256 of as many bytes from the bank's beginning
}

// Built is the digest of the component as its build made it: a protected one's before it was sealed.
func (c Component) Built() []byte {
	if c.Protected != nil {
		return c.Protected.Digest
	}
	return c.Digest
}

// Measured is the digest of the component where it works: an image's in its bank, any other's as it was delivered.
func (c Component) Measured() []byte {
	if c.Laid != nil {
		return c.Laid.Digest
	}
	return c.Digest
}

// Requirement is what one component needs of another: a version of at least From and below Below, in semver's order. One of them may be left out.
type Requirement struct {
	Component string `cbor:"1,keyasint" json:"component"`
	From      string `cbor:"2,keyasint,omitempty" json:"from,omitempty"`  // semver
	Below     string `cbor:"3,keyasint,omitempty" json:"below,omitempty"` // semver
}

// Allows reports whether a version is within the requirement.
func (q Requirement) Allows(version string) bool {
	return (q.From == "" || CompareVersions(version, q.From) >= 0) && (q.Below == "" || CompareVersions(version, q.Below) < 0)
}

func (q Requirement) String() string {
	switch {
	case q.From == "":
		return q.Component + " below " + q.Below
	case q.Below == "":
		return q.Component + " from " + q.From
	}
	return q.Component + " from " + q.From + " below " + q.Below
}

// Release is the manifest of what may run: signed offline by a threshold of the product's release keys.
type Release struct {
	ID         string         `cbor:"1,keyasint" json:"id"`
	Product    string         `cbor:"2,keyasint" json:"product"`
	Hardware   []string       `cbor:"3,keyasint" json:"hardware"` // hardware revisions it may run on
	Model      UpdateModel    `cbor:"4,keyasint" json:"model"`
	Version    string         `cbor:"5,keyasint" json:"version"` // semver
	Counter    uint32         `cbor:"6,keyasint" json:"counter"` // security counter, apart from the version
	Components []Component    `cbor:"7,keyasint" json:"components"`
	RollbackTo [][]byte       `cbor:"8,keyasint,omitempty" json:"rollback_to,omitempty"` // releases (digest) one may return to from this
	SBOM       []byte         `cbor:"9,keyasint,omitempty" json:"sbom,omitempty"`        // SHA-256 of the document
	Provenance []byte         `cbor:"10,keyasint,omitempty" json:"provenance,omitempty"` // SHA-256 of the document
	Created    uint64         `cbor:"11,keyasint" json:"created"`
	Notes      string         `cbor:"12,keyasint,omitempty" json:"notes,omitempty"`
	Parameters Schema         `cbor:"13,keyasint,omitempty" json:"parameters,omitempty"` // the product's, as it was when the release was proposed: what a device that runs it takes
	Over       []VersionRange `cbor:"14,keyasint,omitempty" json:"over,omitempty"`       // versions it may be installed over, rising and apart; absent: any older one
	Decision   []byte         `cbor:"15,keyasint,omitempty" json:"decision,omitempty"`   // SHA-256 of the supply gate's decision (GateDecision): who approves the release signs it; absent: the product had no gate
	BackFor    uint64         `cbor:"16,keyasint,omitempty" json:"back_for_s,omitempty"` // seconds after its confirmation in which a device may be sent back from it; absent: 30 days
}

// MaxRelease bounds an encoded Release; MaxComponents the areas in one.
const (
	MaxRelease    = 32 << 10
	MaxComponents = 64
)

// EncodeRelease writes r.
func EncodeRelease(r Release) ([]byte, error) { return encode(r, MaxRelease) }

// DecodeRelease reads a manifest's payload; its signatures are VerifyRelease's to check.
func DecodeRelease(data []byte) (Release, error) { return decode[Release](data, MaxRelease) }

func (r Release) check() error {
	switch {
	case r.ID == "" || r.Product == "" || len(r.Hardware) == 0:
		return errors.New("release: no id, product or hardware revision")
	case !semver.IsValid("v" + r.Version):
		return fmt.Errorf("release: version %q is not semver", r.Version)
	case len(r.Components) == 0 || len(r.Components) > MaxComponents:
		return fmt.Errorf("release: %d components", len(r.Components))
	case r.Model != ModelOTP && r.Model != ModelBlob && r.Model != ModelAsset:
		return fmt.Errorf("release: update model %q", r.Model)
	}
	names := map[string]bool{}
	images := 0
	for _, c := range r.Components {
		if err := c.check(); err != nil {
			return fmt.Errorf("release: component %q: %w", c.Name, err)
		}
		if c.Kind == KindImage {
			images++
		}
		if names[c.Name] {
			return fmt.Errorf("release: component %q twice", c.Name)
		}
		names[c.Name] = true
	}
	for _, c := range r.Components {
		for _, q := range c.Requires {
			if !names[q.Component] || q.Component == c.Name {
				return fmt.Errorf("release: component %q requires %q, which is no other component of the release", c.Name, q.Component)
			}
		}
	}
	if images > 1 {
		return fmt.Errorf("release: %d images: a machine is started from one", images)
	}
	if err := cmp.Or(r.checkGranted(), r.checkOrder()); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := r.checkParameters(); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if len(r.Decision) != 0 && len(r.Decision) != sha256.Size {
		return errors.New("release: the decision's digest is not 32 bytes")
	}
	for _, d := range r.RollbackTo {
		if len(d) != sha256.Size {
			return errors.New("release: rollback digest is not 32 bytes")
		}
	}
	return r.checkWays()
}

// checkGranted says whether the release has whatever of it a program is to reach.
func (r Release) checkGranted() error {
	for _, c := range r.Components {
		for _, name := range c.Reads() {
			if _, ok := r.Data(name); !ok {
				return fmt.Errorf("component %q reads the data %q, which is no data component of the release", c.Name, name)
			}
		}
	}
	return r.checkChannels()
}

// checkChannels says whether each channel has its two ends. A module answers and does not begin, so that one of them is a program of the device's.
func (r Release) checkChannels() error {
	ends := map[string][]Component{}
	for _, c := range r.Components {
		for _, name := range c.Talks() {
			ends[name] = append(ends[name], c)
		}
		if len(c.Talks()) > 0 && c.WASM() && c.Health != HealthSocket {
			return fmt.Errorf("component %q is a module with channels, and has the health check %q: it reads and answers there", c.Name, c.Health)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ends)) {
		switch of := ends[name]; {
		case len(of) != 2:
			return fmt.Errorf("the channel %q is named by %d programs, component %q among them: want two", name, len(of), of[0].Name)
		case of[0].WASM() && of[1].WASM():
			return fmt.Errorf("the channel %q is between two modules, %q and %q, of which none begins", name, of[0].Name, of[1].Name)
		}
	}
	return nil
}

// Talks are the names of the channels that the program has.
func (c Component) Talks() []string {
	if c.Capabilities == nil {
		return nil
	}
	return c.Capabilities.Channels
}

// Peer is the program at the other end of a channel of c.
func (r Release) Peer(c Component, channel string) string {
	for _, other := range r.Components {
		if other.Name != c.Name && slices.Contains(other.Talks(), channel) {
			return other.Name
		}
	}
	return ""
}

// Reads are the names of the data components that the program reads.
func (c Component) Reads() []string {
	if c.Capabilities == nil {
		return nil
	}
	return c.Capabilities.Data
}

// Data is the data component of that name.
func (r Release) Data(name string) (Component, bool) {
	i := slices.IndexFunc(r.Components, func(c Component) bool { return c.Kind == KindData && c.Name == name })
	if i < 0 {
		return Component{}, false
	}
	return r.Components[i], true
}

// checkParameters says whether the schema is well made, and has whatever a program is to be told.
func (r Release) checkParameters() error {
	for _, c := range r.Components {
		if c.Capabilities == nil || len(c.Capabilities.Parameters) == 0 {
			continue
		}
		if c.Health != HealthSocket {
			return fmt.Errorf("component %q is told parameters, and has the health check %q: it is told them, and answers, over its health socket", c.Name, c.Health)
		}
		for _, name := range c.Capabilities.Parameters {
			if _, ok := r.Parameters.Find(name); !ok {
				return fmt.Errorf("component %q is told the parameter %q, which the schema of product %q does not have", c.Name, name, r.Product)
			}
		}
	}
	return r.Parameters.Check()
}

func (c Component) check() error {
	if c.Name == "" || len(c.Name) > 64 || len(c.Digest) != sha256.Size || c.Size == 0 {
		return errors.New("no name, size or SHA-256 digest")
	}
	switch c.Kind {
	case KindExec:
		if c.Health != HealthSocket && c.Health != HealthAlive {
			return fmt.Errorf("health check %q", c.Health)
		}
	case KindData:
		if c.Health != HealthNone {
			return fmt.Errorf("health check %q of data", c.Health)
		}
		if c.Capabilities != nil {
			return errors.New("capabilities of data: only a program has any")
		}
	case KindImage:
		if err := c.checkImage(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("kind %q", c.Kind)
	}
	if c.Laid != nil && c.Kind != KindImage {
		return errors.New("only an image is laid into a bank")
	}
	if c.Capabilities != nil {
		if err := c.Capabilities.check(); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	if err := errors.Join(c.Protected.check(c), c.checkFormat()); err != nil {
		return err
	}
	return c.checkNeeds()
}

func (c Component) checkFormat() error {
	switch c.Format {
	case "":
		return nil
	case FormatMCUboot, FormatSWU, FormatMender:
	default:
		return fmt.Errorf("format %q", c.Format)
	}
	if c.Kind == KindExec {
		return fmt.Errorf("format %s of a program: the agent starts none of that", c.Format)
	}
	if c.Protected != nil {
		return fmt.Errorf("format %s of what is protected: whoever reads it has no content key", c.Format)
	}
	return nil
}

func (c Component) checkImage() error {
	switch {
	case c.Health != HealthNone:
		return fmt.Errorf("health check %q of an image", c.Health)
	case c.Capabilities != nil || len(c.Args) > 0:
		return errors.New("capabilities or arguments of an image: only a program has any")
	case c.Laid == nil || c.Laid.Size == 0 || c.Laid.Size > 1<<40 || len(c.Laid.Digest) != sha256.Size:
		return errors.New("an image without size and SHA-256 digest of what lies in the bank once it is installed")
	}
	return nil
}

// Image is the component that lies in a bank; false: the release has none.
func (r Release) Image() (Component, bool) {
	i := slices.IndexFunc(r.Components, func(c Component) bool { return c.Kind == KindImage })
	if i < 0 {
		return Component{}, false
	}
	return r.Components[i], true
}

// checkNeeds says whether what it requires is well said; whether it is there is Compatible's.
func (c Component) checkNeeds() error {
	if len(c.Requires) == 0 && len(c.Hardware) == 0 {
		return nil
	}
	if len(c.Requires) >= MaxComponents || len(c.Hardware) > MaxComponents {
		return errors.New("too many requirements")
	}
	if !semver.IsValid("v" + c.Version) {
		return fmt.Errorf("version %q is not semver", c.Version)
	}
	for i, q := range c.Requires {
		switch {
		case i > 0 && c.Requires[i-1].Component >= q.Component:
			return fmt.Errorf("what it requires is not in rising order of names: %q", q.Component)
		case q.From == "" && q.Below == "":
			return fmt.Errorf("it requires %q in no version", q.Component)
		case q.From != "" && !semver.IsValid("v"+q.From), q.Below != "" && !semver.IsValid("v"+q.Below):
			return fmt.Errorf("it requires %s: not semver", q)
		case q.From != "" && q.Below != "" && CompareVersions(q.From, q.Below) >= 0:
			return fmt.Errorf("it requires %s: there is no such version", q)
		}
	}
	for i, h := range c.Hardware {
		if h == "" || i > 0 && c.Hardware[i-1] >= h {
			return fmt.Errorf("its hardware revisions are not in rising order: %q", h)
		}
	}
	return nil
}

// ErrIncompatible says that the components of a release do not go together, or not on all hardware it is for.
var ErrIncompatible = errors.New("the components do not go together")

// Compatible says whether the set can work: each component finds the others in the versions it requires, and runs on every hardware revision
// that the release is for. A maker's server asks before it lets anybody sign, and a device asks again before it writes.
func (r Release) Compatible() error {
	version := map[string]string{}
	for _, c := range r.Components {
		version[c.Name] = c.Version
	}
	for _, c := range r.Components {
		for _, q := range c.Requires {
			v, ok := version[q.Component]
			if !ok || !semver.IsValid("v"+v) || !q.Allows(v) {
				return fmt.Errorf("%w: component %s %s requires %s, and the release has %q", ErrIncompatible, c.Name, c.Version, q, v)
			}
		}
		if len(c.Hardware) == 0 {
			continue
		}
		for _, h := range r.Hardware {
			if !slices.Contains(c.Hardware, h) {
				return fmt.Errorf("%w: component %s %s works on hardware %v, and the release is for %s too", ErrIncompatible, c.Name, c.Version, c.Hardware, h)
			}
		}
	}
	return nil
}

// ReleaseDigest names a release: SHA-256 of its payload, so that another approval does not change it.
func ReleaseDigest(payload []byte) [32]byte { return sha256.Sum256(payload) }

// VerifyRelease checks the threshold of the bundle's release keys, that the release is for its product and not below its
// floor, and that its components go together. It says nothing about hardware, the device's own counter or the ledger: those are the device's to check.
func VerifyRelease(b Bundle, envelope []byte) (Release, [32]byte, error) {
	payload, err := VerifyThreshold(TypeRelease, envelope, b.Release)
	if err != nil {
		return Release{}, [32]byte{}, err
	}
	r, err := DecodeRelease(payload)
	if err != nil {
		return Release{}, [32]byte{}, err
	}
	if err := errors.Join(r.Admissible(b), r.Compatible()); err != nil {
		return Release{}, [32]byte{}, err
	}
	return r, ReleaseDigest(payload), nil
}

// Admissible says whether the release, whoever signed it, may run under b: product and floor.
func (r Release) Admissible(b Bundle) error {
	if r.Product != b.Product {
		return fmt.Errorf("%w: it is for %q, this is %q", ErrOtherProduct, r.Product, b.Product)
	}
	if r.Counter < b.Floor {
		return fmt.Errorf("%w: security counter %d, floor %d", ErrRollback, r.Counter, b.Floor)
	}
	return nil
}

// Reasons a release is refused, for errors.Is.
var (
	ErrOtherProduct = errors.New("release for another product")
	ErrRollback     = errors.New("older than allowed")
)

// RunsOn reports whether the release names hardware revision rev.
func (r Release) RunsOn(rev string) bool { return slices.Contains(r.Hardware, rev) }

// MayReturnTo reports whether the release's approvers allowed going back from it to digest.
func (r Release) MayReturnTo(digest [32]byte) bool {
	return slices.ContainsFunc(r.RollbackTo, func(d []byte) bool { return bytes.Equal(d, digest[:]) })
}

// ValidVersion reports whether a text is a semver version without its v. What is none is below every one that is.
func ValidVersion(s string) bool { return semver.IsValid("v" + s) }

// CompareVersions orders two semver versions without their v: -1, 0, +1.
func CompareVersions(a, b string) int { return semver.Compare("v"+a, "v"+b) }
