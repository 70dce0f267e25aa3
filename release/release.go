// Package release decides what may run: artifacts, the manifest that binds them, its approvals, its publication.
//
// Stage 3, field. A release is proposed by one person, approved by others who sign its payload with offline keys, and published
// when the release role of the product's trust bundle has its threshold. The envelope itself is what the ledger keeps, so that
// a device judges it without believing this server.
//
// What it guarantees:
//   - An approval is one person and one key: nobody approves what they proposed, or uploaded, or twice, whatever keys they hold, and no
//     machine does.
//   - No signature is kept that was not verified against the current trust bundle, and Publish verifies them all again.
//   - Artifacts are named by their digest, and no release names one that is not here.
//   - Each step and its fact commit together; what is withdrawn is never handed out again.
//
// It trusts the trust bundle it is given, and nobody's word for a digest. A server in other hands could publish below the
// threshold in its own books, and no device would take it.
package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Status is where a release is.
type Status string

// The statuses: approvals are gathered; it may be rolled out; it may not any more; it never might.
const (
	Proposed  Status = "proposed"
	Published Status = "published"
	Withdrawn Status = "withdrawn"
	Refused   Status = "refused" // taken back before it was published: no approver answers for what it holds
)

// Artifact is a stored blob: a component's bytes, an SBOM or a provenance document.
type Artifact struct {
	Digest  [32]byte  `json:"-"`
	Product string    `json:"product"`
	Name    string    `json:"name"`
	Size    uint64    `json:"size"` // bytes
	By      string    `json:"by"`
	At      time.Time `json:"at"`

	Protected *wire.Protected `json:"protected,omitempty"` // nil: its bytes are as they were uploaded
	Delta     bool            `json:"-"`                   // it is a delta, which a device asks for
}

// Spec is what a release is proposed with. Sizes are those of the uploaded artifacts.
type Spec struct {
	ID         string      `json:"id"`
	Product    string      `json:"product"`
	Hardware   []string    `json:"hardware"` // hardware revisions; empty: all of the product's
	Version    string      `json:"version"`  // semver
	Counter    uint32      `json:"counter"`  // security counter
	Components []Component `json:"components"`
	RollbackTo [][]byte    `json:"rollback_to,omitempty"` // digests of releases one may go back to from this one
	SBOM       []byte      `json:"sbom,omitempty"`        // digest of an uploaded document
	Provenance []byte      `json:"provenance,omitempty"`  // digest of an uploaded document
	Notes      string      `json:"notes,omitempty"`       // for approvers, at most MaxNotes

	Over    []wire.VersionRange `json:"over,omitempty" doc:"versions that it may be installed over, rising and apart; empty: any older one"`
	BackFor uint64              `json:"back_for_s,omitempty" doc:"seconds after its confirmation in which a device may be sent back from it; 0: 30 days"`

	Model wire.UpdateModel `json:"model,omitempty"` // empty: the product's; anything else is refused
}

// Component is one area of a Spec.
type Component struct {
	Name     string             `json:"name"`
	Kind     wire.ComponentKind `json:"kind"`
	Version  string             `json:"version"`
	Artifact []byte             `json:"artifact"` // digest of an uploaded artifact
	Health   wire.HealthCheck   `json:"health"`
	Args     []string           `json:"args,omitempty"`
	Requires []wire.Requirement `json:"requires,omitempty"` // versions of the other components that it needs; in rising order of their names
	Hardware []string           `json:"hardware,omitempty" doc:"hardware revisions it works on, in rising order; empty: all of the release's"`

	Capabilities *wire.Capabilities `json:"capabilities,omitempty"` // nil: what every program has, and nothing more
	Laid         *wire.Laid         `json:"laid,omitempty" doc:"of an image: size and SHA-256 digest of what lies in the bank once it is installed"`
	After        []string           `json:"after,omitempty" doc:"of a program: names of those that are up before it is started, and that it is stopped before, rising"`
	Format       wire.Format        `json:"format,omitempty" enum:"mcuboot,swu,mender" doc:"as what its bytes are written; they are read, and have to say what the release says"`
}

// Approval is one person's signature.
type Approval struct {
	Caller string    `json:"caller"`
	Key    string    `json:"kid"` // hex
	At     time.Time `json:"at"`
	SUIT   []byte    `json:"suit,omitempty" doc:"the same approver's signature over the release's SUIT manifest, if it was given"`
}

// Release is a stored release.
type Release struct {
	Digest    [32]byte     `json:"-"` // SHA-256 of Payload
	Manifest  wire.Release `json:"manifest"`
	Payload   []byte       `json:"payload"`            // what is signed
	Envelope  []byte       `json:"envelope,omitempty"` // COSE_Sign with the approvals so far; empty before the first
	Status    Status       `json:"status"`
	Creator   string       `json:"creator"`
	Created   time.Time    `json:"created"`
	Approvals []Approval   `json:"approvals,omitempty"`
	Published time.Time    `json:"published,omitzero"`
	UID       [16]byte     `json:"-"` // of its release.published fact; zero before
	Reason    string       `json:"reason,omitempty"`
	Closed    time.Time    `json:"closed,omitzero" doc:"since when no device is to install it again: the trust bundle says so to devices"`
	Decision  []byte       `json:"decision,omitempty"` // of the supply gate (GateDecision, CBOR); its digest is in the manifest
	Summary   []byte       `json:"summary,omitempty"`  // of what the supply gate found when it was published: DSSE envelope, see get-release-summary
	Rev       int64        `json:"-"`                  // rises with each change
}

// Errors of the stores.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("changed meanwhile")
	ErrTooLarge = errors.New("too large")
	ErrEmpty    = errors.New("empty")
	ErrDamaged  = errors.New("its bytes are not those it is named by")
	ErrLeaving  = errors.New("it is being removed")
	ErrGone     = errors.New("an artifact that it names is not here any more")
)

// Blobs keeps bytes by their digest.
type Blobs interface {
	// Put reads r to its end and returns when the bytes are durable. ErrTooLarge beyond limit, ErrEmpty for nothing; in
	// neither case is anything kept. The same bytes may be put again.
	Put(ctx context.Context, r io.Reader, limit int64) (digest [32]byte, size int64, err error)
	// Open gives bytes that are found to be those of the digest before they are read, for as long as ctx lasts. ErrNotFound; ErrDamaged, which reading fails with too.
	Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error)
}

// Protector seals programs under keys that devices get for good evidence; *protect.Service is one.
type Protector interface {
	Seal(ctx context.Context, caller access.Caller, product string, plain io.Reader) (*wire.ComponentSealer, error)
}

// Artifacts keeps what is known of blobs. Writes are durable when they return nil.
type Artifacts interface {
	// PutArtifact may be repeated; the first one stands.
	PutArtifact(ctx context.Context, a Artifact) error
	// Artifact returns ErrNotFound for one that product has not.
	Artifact(ctx context.Context, product string, digest [32]byte) (Artifact, error)
	// ListArtifacts gives a product's, in the order of their digests, from behind after on, at most limit; nil and 0: all.
	ListArtifacts(ctx context.Context, product string, after []byte, limit int) ([]Artifact, error)
	// DeviceArtifact finds the artifact if a published release of the device's product has it as a component, or if it is a delta to one; else ErrNotFound.
	DeviceArtifact(ctx context.Context, device string, digest [32]byte) (Artifact, error)
	// Prunable gives what nothing names of a product and was not touched since before, at most limit of each kind; 0: all.
	Prunable(ctx context.Context, product string, before time.Time, limit int) (Prunable, error)
	// Prune deletes it, and notes what bytes are to leave; ErrChanged when something names a part of it now.
	Prune(ctx context.Context, product string, before time.Time, limit int, p Prunable, facts ...ledger.Fact) error
}

// Store keeps releases. Writes are durable, with their facts, when they return nil.
type Store interface {
	// PutRelease returns ErrExists when the ID, or the product's version, is taken, and ErrGone when an artifact was deleted that a proposed one names.
	PutRelease(ctx context.Context, r Release, facts ...ledger.Fact) error
	// Release returns ErrNotFound.
	Release(ctx context.Context, digest [32]byte) (Release, error)
	// StatusOf is of Release what it says of the release's status.
	StatusOf(ctx context.Context, digest [32]byte) (Status, error)
	// Releases lists a product's, or every product's when it is empty, newest first, from behind the one with the digest after on, at
	// most limit; nil and 0: all.
	Releases(ctx context.Context, product string, after []byte, limit int) ([]Release, error)
	// UpdateRelease replaces it if its stored Rev is r.Rev, and raises Rev; else ErrChanged.
	UpdateRelease(ctx context.Context, r Release, facts ...ledger.Fact) error
	// Approvers gives whose the keys of a product's release role are, by key ID.
	Approvers(ctx context.Context, product string) ([]Approver, error)
	// PutApprover says whose a key is; with an empty Member it is nobody's.
	PutApprover(ctx context.Context, product string, a Approver, facts ...ledger.Fact) error
	// IsPerson says whether a member is here, and a person.
	IsPerson(ctx context.Context, member string) (bool, error)
	// MadeDevices counts the devices of a product, of one of the hardware revisions, that have been made.
	MadeDevices(ctx context.Context, product string, hardware []string) (int, error)
}

// Product is what a release must know of its product.
type Product struct {
	Model    wire.UpdateModel
	Hardware []string // its hardware revisions

	Parameters wire.Schema // what its devices can be told
}

// Products knows products.
type Products interface {
	// ReleaseProduct returns ErrNotFound for a product nobody made.
	ReleaseProduct(ctx context.Context, id string) (Product, error)
}

// Trust knows trust bundles; the store of the device stage is one.
type Trust interface {
	// Bundle gives a version, 0 the current; device.ErrNotFound.
	Bundle(ctx context.Context, product string, version uint64) (device.Bundle, error)
}

// Commands knows what devices are told; *device.Service is one.
type Commands interface {
	// Recall cancels the commands that bring a release and may still be told.
	Recall(ctx context.Context, caller access.Caller, product string, release [32]byte, reason string) error
}

// Ledger proves facts; *ledger.Reader is one.
type Ledger interface {
	// Logged returns ledger.ErrNotYetWitnessed until the fact is under a witnessed checkpoint.
	Logged(ctx context.Context, uid [16]byte) (wire.Logged, error)
}

// Supply knows what releases are made of; the supply stage is one.
type Supply interface {
	// Take reads the documents of a release that is about to be proposed, and keeps what they say; an error is the reason not to propose it.
	Take(ctx context.Context, m wire.Release, digest [32]byte) error
	// Decide gives the supply gate's decision on a release that is about to be proposed, whose digest goes into it; nil when its product has no gate. An error is the reason not to propose it.
	Decide(ctx context.Context, caller access.Caller, m wire.Release) ([]byte, error)
	// Confirm says whether a release that was decided on may still be published, and gives the signed summary of what was found; nil when its product has no gate.
	Confirm(ctx context.Context, m wire.Release, digest [32]byte) (summary []byte, err error)
	// Builders gives the public keys (SubjectPublicKeyInfo, DER) that a product's builds are signed with.
	Builders(ctx context.Context, product string) ([][]byte, error)
}

// manifestOf is the manifest as it will be signed.
func manifestOf(s Spec, p Product, artifacts map[[32]byte]Artifact, at time.Time) wire.Release {
	m := wire.Release{
		ID: s.ID, Product: s.Product, Hardware: s.Hardware, Model: p.Model, Version: s.Version, Counter: s.Counter,
		RollbackTo: s.RollbackTo, SBOM: s.SBOM, Provenance: s.Provenance, Created: uint64(at.Unix()), Notes: s.Notes, Parameters: p.Parameters,
		Over: s.Over, BackFor: s.BackFor,
	}
	if len(m.Hardware) == 0 {
		m.Hardware = p.Hardware
	}
	for _, c := range s.Components {
		a := artifacts[[32]byte(c.Artifact)]
		m.Components = append(m.Components, wire.Component{
			Name: c.Name, Kind: c.Kind, Version: c.Version, Size: a.Size, Protected: a.Protected, Digest: c.Artifact,
			Health: c.Health, Args: c.Args, Requires: c.Requires, Hardware: c.Hardware, Capabilities: c.Capabilities, Laid: c.Laid, Format: c.Format, After: c.After,
		})
	}
	return m
}

// named lists the digests a Spec names, with what each is for; one of another length is an error.
func named(s Spec) (map[[32]byte]string, error) {
	out := map[[32]byte]string{}
	add := func(d []byte, what string) error {
		if len(d) != sha256.Size {
			return invalid("release.digest", what+" is not named by a SHA-256 digest", "upload it and use the digest you get")
		}
		out[[32]byte(d)] = what
		return nil
	}
	for _, c := range s.Components {
		if err := add(c.Artifact, "component "+c.Name); err != nil {
			return nil, err
		}
	}
	for what, d := range map[string][]byte{"the SBOM": s.SBOM, "the provenance": s.Provenance} {
		if len(d) == 0 {
			continue
		}
		if err := add(d, what); err != nil {
			return nil, err
		}
	}
	return out, nil
}
