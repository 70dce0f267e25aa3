package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// MaxArtifact bounds an upload, MaxNotes what is said to approvers of a release, and MaxReason why it ends; bytes.
const (
	MaxArtifact = 16 << 30
	MaxNotes    = 4 << 10
	MaxReason   = 1 << 10
)

// Config is what a Service works with; every field but Protector and Now must be set.
type Config struct {
	Store     Store
	Artifacts Artifacts
	Deltas    Deltas
	Blobs     Blobs
	Protector Protector // nil: nothing is protected here
	Products  Products
	Trust     Trust
	Ledger    Ledger
	Commands  Commands
	Supply    Supply
	Guard     *access.Guard
	Now       func() time.Time // nil: time.Now
}

// Service is the stage.
type Service struct {
	cfg   Config
	given given
}

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Artifacts == nil || cfg.Deltas == nil || cfg.Blobs == nil || cfg.Products == nil || cfg.Trust == nil ||
		cfg.Ledger == nil || cfg.Commands == nil || cfg.Supply == nil || cfg.Guard == nil {
		return nil, errors.New("release: a store, the deltas, the blobs, the products, the trust, the ledger, the commands, the supply or the guard is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

func invalid(code, text, remedy string) error { return fault.New(fault.Invalid, code, text, remedy) }

func conflict(code, text, remedy string) error { return fault.New(fault.Conflict, code, text, remedy) }

// Upload stores an artifact of a product and returns its digest and size. A protected one is sealed as it comes: nothing else of it is ever stored.
func (s *Service) Upload(ctx context.Context, caller access.Caller, product, name string, protected bool, r io.Reader) (Artifact, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ArtifactUpload, access.Resource{Type: "release", ID: name, Product: product}); err != nil {
		return Artifact{}, err
	}
	if _, err := s.product(ctx, product); err != nil {
		return Artifact{}, err
	}
	if name == "" || len(name) > 128 {
		return Artifact{}, invalid("artifact.name", fmt.Sprintf("artifact name %q", name), "give it 1 to 128 characters")
	}
	var sealer *wire.ComponentSealer
	if protected {
		if s.cfg.Protector == nil {
			return Artifact{}, conflict("artifact.protect", "nothing keeps content keys here", "leave --protect out")
		}
		var err error
		if sealer, err = s.cfg.Protector.Seal(ctx, caller, product, r); err != nil {
			return Artifact{}, err
		}
		r = sealer
	}
	digest, size, err := s.cfg.Blobs.Put(ctx, r, MaxArtifact)
	switch {
	case errors.Is(err, ErrTooLarge):
		return Artifact{}, invalid("artifact.size", fmt.Sprintf("artifact %s is larger than %d bytes", name, int64(MaxArtifact)), "split it")
	case errors.Is(err, ErrEmpty):
		return Artifact{}, invalid("artifact.empty", "artifact "+name+" has no bytes", "upload the file that was built")
	case err != nil:
		return Artifact{}, err
	}
	a := Artifact{Digest: digest, Product: product, Name: name, Size: uint64(size), By: caller.ID, At: s.cfg.Now().UTC()}
	if sealer != nil {
		p := sealer.Protected()
		a.Protected = &p
	}
	if err := s.cfg.Artifacts.PutArtifact(ctx, a); err != nil {
		return a, err
	}
	return s.cfg.Artifacts.Artifact(ctx, product, digest) // who uploaded the same bytes first is who brought them
}

// Open gives an artifact's bytes, which are verified before they are given. A device gets what published releases of its
// product name, and the deltas to that; a person names the product.
func (s *Service) Open(ctx context.Context, caller access.Caller, product string, digest [32]byte) (Artifact, io.ReadSeekCloser, error) {
	res := access.Resource{Type: "release", ID: hex.EncodeToString(digest[:]), Product: product}
	if err := s.cfg.Guard.Check(ctx, caller, access.ArtifactRead, res); err != nil {
		return Artifact{}, nil, err
	}
	var a Artifact
	var err error
	if caller.Kind == access.Device {
		a, err = s.cfg.Artifacts.DeviceArtifact(ctx, deviceOf(caller), digest)
	} else {
		a, err = s.cfg.Artifacts.Artifact(ctx, product, digest)
	}
	if errors.Is(err, ErrNotFound) {
		return Artifact{}, nil, fault.New(fault.NotFound, "artifact.unknown", fmt.Sprintf("no artifact %x here for this caller", digest), "name the product that it was uploaded to; a device is given what published releases of its product name")
	}
	if err != nil {
		return Artifact{}, nil, err
	}
	f, err := s.cfg.Blobs.Open(ctx, digest)
	if errors.Is(err, ErrNotFound) {
		return Artifact{}, nil, fault.Newf(fault.Unavailable, "artifact.lost", "the bytes of artifact %x are not here any more: %w", digest, err).With("upload it again")
	}
	if err == nil && a.Delta {
		f = &counted{ReadSeekCloser: f, told: func(n uint64) { s.given.add(a.Product, digest, n) }}
	}
	return a, f, err
}

func deviceOf(c access.Caller) string {
	if len(c.ID) > len("device:") {
		return c.ID[len("device:"):]
	}
	return ""
}

// Propose binds artifacts into a release, and returns the payload to sign and its digest.
func (s *Service) Propose(ctx context.Context, caller access.Caller, spec Spec) (Release, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ReleaseCreate, access.Resource{Type: "release", ID: spec.ID, Product: spec.Product}); err != nil {
		return Release{}, err
	}
	p, err := s.product(ctx, spec.Product)
	if err != nil {
		return Release{}, err
	}
	if err := checkSpec(spec, p); err != nil {
		return Release{}, err
	}
	artifacts, err := s.artifacts(ctx, spec)
	if err != nil {
		return Release{}, err
	}
	if err := s.checkRollbacks(ctx, spec); err != nil {
		return Release{}, err
	}
	if err := s.installed(ctx, spec.Product, spec.ID, spec.Counter); err != nil {
		return Release{}, err
	}
	now := s.cfg.Now().UTC()
	m := manifestOf(spec, p, artifacts, now)
	if err := s.checkOnce(ctx, m); err != nil {
		return Release{}, err
	}
	if _, err := encoded(m); err != nil {
		return Release{}, err
	}
	if err := s.checkVersion(ctx, m); err != nil {
		return Release{}, err
	}
	if err := compatible(m); err != nil {
		return Release{}, err
	}
	if err := s.checkFormats(ctx, m); err != nil {
		return Release{}, err
	}
	if err := s.checkNames(ctx, m); err != nil {
		return Release{}, err
	}
	r, facts, err := s.decided(ctx, caller, m, now)
	if err != nil {
		return Release{}, err
	}
	err = s.cfg.Store.PutRelease(ctx, r, facts...)
	if errors.Is(err, ErrGone) {
		return Release{}, invalid("release.artifact", fmt.Sprintf("an artifact of release %s was deleted while it was proposed: nothing had named it for long", spec.ID), "upload it again, and propose anew")
	}
	if errors.Is(err, ErrExists) {
		if same, ok := s.proposed(ctx, caller, m); ok {
			return same, nil
		}
		return Release{}, conflict("release.exists", fmt.Sprintf("%s has a release %s or a version %s already", m.Product, m.ID, m.Version),
			"releases are never changed: give this one another ID and a higher version")
	}
	return r, err
}

// decided asks the supply gate, and makes the release with its decision; who approves the one signs the other.
func (s *Service) decided(ctx context.Context, caller access.Caller, m wire.Release, now time.Time) (Release, []ledger.Fact, error) {
	decision, err := s.cfg.Supply.Decide(ctx, caller, m)
	if err != nil {
		return Release{}, nil, err
	}
	if decision != nil {
		sum := sha256.Sum256(decision)
		m.Decision = sum[:]
	}
	payload, err := encoded(m)
	if err != nil {
		return Release{}, nil, err
	}
	r := Release{
		Digest: wire.ReleaseDigest(payload), Manifest: m, Payload: payload, Status: Proposed, Creator: caller.ID, Created: now, Rev: 1, Decision: decision,
	}
	facts := []ledger.Fact{ledger.New(ledger.KindReleaseProposed, now, caller.ID, m.ID, nil, payload)}
	if decision != nil { // behind the release that it belongs to
		facts = append(facts, ledger.New(ledger.KindSupplyDecided, now, caller.ID, m.ID, nil, decision))
	}
	return r, facts, s.cfg.Supply.Take(ctx, m, r.Digest)
}

// encoded is the manifest as it is signed, and read by whoever it is for.
func encoded(m wire.Release) ([]byte, error) {
	payload, err := wire.EncodeRelease(m)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "release.manifest", "release %s cannot be made: %w", m.ID, err).
			With(fmt.Sprintf("correct what is named; all of a release takes at most %d bytes", wire.MaxRelease))
	}
	return payload, nil
}

// proposed finds the release that the caller proposed with just this manifest before, and never heard the answer.
func (s *Service) proposed(ctx context.Context, caller access.Caller, m wire.Release) (Release, bool) {
	all, err := s.cfg.Store.Releases(ctx, m.Product, nil, 0)
	if err != nil {
		return Release{}, false
	}
	for _, r := range all {
		m.Created, m.Decision = r.Manifest.Created, r.Manifest.Decision
		payload, err := wire.EncodeRelease(m)
		if err == nil && r.Creator == caller.ID && r.Status == Proposed && wire.ReleaseDigest(payload) == r.Digest {
			return r, true
		}
	}
	return Release{}, false
}

func (s *Service) product(ctx context.Context, id string) (Product, error) {
	p, err := s.cfg.Products.ReleaseProduct(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, fault.New(fault.NotFound, "product.unknown", fmt.Sprintf("no product %q", id), "see `hallmark product list`")
	}
	return p, err
}

func (s *Service) bundle(ctx context.Context, product string) (wire.Bundle, error) {
	b, err := s.cfg.Trust.Bundle(ctx, product, 0)
	if errors.Is(err, device.ErrNotFound) {
		return wire.Bundle{}, conflict("release.bundle", fmt.Sprintf("product %s has no trust bundle, so nobody may approve for it", product),
			"publish its first bundle")
	}
	return b.Wire, err
}

func checkSpec(spec Spec, p Product) error {
	if spec.ID == "" || len(spec.ID) > 64 {
		return invalid("release.id", fmt.Sprintf("release ID %q", spec.ID), "give it 1 to 64 characters")
	}
	if len(spec.Notes) > MaxNotes {
		return invalid("release.notes", fmt.Sprintf("notes of %d bytes, at most %d", len(spec.Notes), MaxNotes), "say what approvers need, and where the rest is")
	}
	if spec.Model != "" && spec.Model != p.Model {
		return invalid("release.model", fmt.Sprintf("update model %s, product %s is %s", spec.Model, spec.Product, p.Model), "leave it out")
	}
	for _, h := range spec.Hardware {
		if !slices.Contains(p.Hardware, h) {
			return invalid("release.hardware", fmt.Sprintf("product %s has no hardware revision %q", spec.Product, h), "see `hallmark product show`")
		}
	}
	return nil
}

// artifacts looks up every artifact the spec names.
func (s *Service) artifacts(ctx context.Context, spec Spec) (map[[32]byte]Artifact, error) {
	digests, err := named(spec)
	if err != nil {
		return nil, err
	}
	found := map[[32]byte]Artifact{}
	for d, what := range digests {
		a, err := s.cfg.Artifacts.Artifact(ctx, spec.Product, d)
		if errors.Is(err, ErrNotFound) {
			return nil, invalid("release.artifact", fmt.Sprintf("%s: artifact %x is not here", what, d), "upload it to this product first")
		}
		if err != nil {
			return nil, err
		}
		found[d] = a
	}
	return found, nil
}

// checkRollbacks refuses a way back that a device would refuse.
func (s *Service) checkRollbacks(ctx context.Context, spec Spec) error {
	for _, d := range spec.RollbackTo {
		if len(d) != 32 {
			return invalid("release.rollback", fmt.Sprintf("rollback digest %x is not SHA-256", d), "give the digest of a release that is published: see `hallmark release list`")
		}
		to, err := s.cfg.Store.Release(ctx, [32]byte(d))
		if errors.Is(err, ErrNotFound) || err == nil && (to.Manifest.Product != spec.Product || to.Status != Published) {
			return invalid("release.rollback", fmt.Sprintf("%x is no published release of %s to go back to", d, spec.Product), "give the digest of a release that is published: see `hallmark release list`")
		}
		if err != nil {
			return err
		}
		if to.Manifest.Counter < spec.Counter {
			return invalid("release.rollback", fmt.Sprintf("release %s has security counter %d, below %d: devices that confirmed the new one refuse it",
				to.Manifest.ID, to.Manifest.Counter, spec.Counter), "raise the counter in a later release, or leave that way back out")
		}
	}
	return nil
}

// compatible refuses a set whose components do not go together, as every device would.
func compatible(m wire.Release) error {
	if err := m.Compatible(); err != nil {
		return invalid("release.incompatible", err.Error(), "bring the components to versions that go together, or correct what they require")
	}
	return nil
}

// checkVersion refuses a version that devices cannot tell from another: what follows the plus sign orders nothing (semver 2.0.0 §10).
func (s *Service) checkVersion(ctx context.Context, m wire.Release) error {
	all, err := s.cfg.Store.Releases(ctx, m.Product, nil, 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		if wire.CompareVersions(r.Manifest.Version, m.Version) == 0 && r.Manifest.Version != m.Version && r.Status != Refused {
			return conflict("release.version", fmt.Sprintf("devices take version %s for %s, which release %s has", m.Version, r.Manifest.Version, r.Manifest.ID),
				"give it a higher version: build metadata does not count")
		}
	}
	return nil
}

// checkOnce: what is programmed once gets no second release where devices were made with the first.
func (s *Service) checkOnce(ctx context.Context, m wire.Release) error {
	if m.Model != wire.ModelOTP {
		return nil
	}
	all, err := s.cfg.Store.Releases(ctx, m.Product, nil, 0)
	if err != nil {
		return err
	}
	var shared []string
	for _, r := range all {
		for _, h := range r.Manifest.Hardware {
			if r.Status == Published && m.RunsOn(h) {
				shared = append(shared, h)
			}
		}
	}
	if len(shared) == 0 {
		return nil
	}
	n, err := s.cfg.Store.MadeDevices(ctx, m.Product, shared)
	if err != nil {
		return err
	}
	if n > 0 {
		return conflict("release.otp", fmt.Sprintf("%s is programmed once, and %d devices of hardware %v are", m.Product, n, shared),
			"a new release needs a new hardware revision")
	}
	return nil
}

// Approve takes an approver's signature over the payload: an envelope that holds exactly one key's signature that is not here
// yet. The approver is a person who did not propose it, uploaded none of its components, and has not approved it before.
func (s *Service) Approve(ctx context.Context, caller access.Caller, digest [32]byte, envelope []byte) (Release, error) {
	r, err := s.checked(ctx, caller, access.ReleaseApprove, digest)
	if err != nil {
		return Release{}, err
	}
	if r.Status == Proposed && approved(r, caller, envelope) {
		return r, nil
	}
	if r.Status != Proposed {
		return Release{}, conflict("release.status", fmt.Sprintf("release %s is %s", r.Manifest.ID, r.Status), "propose a new one")
	}
	if err := s.mayApprove(ctx, caller, r); err != nil {
		return Release{}, err
	}
	if slices.ContainsFunc(r.Approvals, func(a Approval) bool { return a.Caller == caller.ID }) {
		return Release{}, conflict("release.approved", fmt.Sprintf("%s has approved release %s already", caller.ID, r.Manifest.ID),
			"another person must approve it with another key")
	}
	b, err := s.bundle(ctx, r.Manifest.Product)
	if err != nil {
		return Release{}, err
	}
	key, err := newSigner(r, b.Release, envelope)
	if err != nil {
		return Release{}, err
	}
	if err := s.theirs(ctx, caller, r.Manifest.Product, key); err != nil {
		return Release{}, err
	}
	merged := envelope
	if len(r.Envelope) > 0 {
		if merged, err = wire.MergeSignatures(wire.TypeRelease, r.Envelope, envelope); err != nil {
			return Release{}, fault.Newf(fault.Invalid, "release.signature", "%w", err).
				With("approve it again: the signature is made over what `hallmark release payload` gives")
		}
	}
	now := s.cfg.Now().UTC()
	r.Envelope = merged
	r.Approvals = append(slices.Clone(r.Approvals), Approval{Caller: caller.ID, Key: hex.EncodeToString(key[:]), At: now})
	return s.update(ctx, r, ledger.New(ledger.KindReleaseApproved, now, caller.ID, r.Manifest.ID, nil, merged))
}

// mayApprove: who looks at a release is a person other than those who brought it.
func (s *Service) mayApprove(ctx context.Context, caller access.Caller, r Release) error {
	brought := ""
	if caller.Kind != access.Person {
		brought = "people approve releases"
	} else if caller.ID == r.Creator {
		brought = "they proposed it"
	}
	for _, c := range r.Manifest.Components {
		a, err := s.cfg.Artifacts.Artifact(ctx, r.Manifest.Product, [32]byte(c.Digest))
		if err != nil {
			return fmt.Errorf("component %s of release %s: %w", c.Name, r.Manifest.ID, err)
		}
		if brought == "" && a.By == caller.ID {
			brought = "they uploaded component " + c.Name
		}
	}
	if brought != "" {
		return fault.New(fault.Denied, "release.four-eyes", fmt.Sprintf("%s may not approve release %s: %s", caller.ID, r.Manifest.ID, brought),
			"somebody else must approve it")
	}
	return nil
}

// approved reports whether this is the very approval that the caller gave before.
func approved(r Release, caller access.Caller, envelope []byte) bool {
	payload, signers, err := wire.ThresholdPayload(wire.TypeRelease, envelope)
	if err != nil || wire.ReleaseDigest(payload) != r.Digest || len(signers) != 1 {
		return false
	}
	key := hex.EncodeToString(signers[0][:])
	return slices.ContainsFunc(r.Approvals, func(a Approval) bool { return a.Caller == caller.ID && a.Key == key })
}

// newSigner finds the one key of role whose valid signature the envelope adds to the release.
func newSigner(r Release, role wire.KeySet, envelope []byte) (wire.KeyID, error) {
	one := wire.KeySet{Keys: role.Keys, Threshold: 1}
	payload, err := wire.VerifyThreshold(wire.TypeRelease, envelope, one)
	if err != nil {
		return wire.KeyID{}, fault.Newf(fault.Invalid, "release.signature", "no signature of the product's release role: %w", err).
			With("sign with a key of the release role in the product's trust bundle")
	}
	if wire.ReleaseDigest(payload) != r.Digest {
		return wire.KeyID{}, invalid("release.signature", fmt.Sprintf("the signature is over another payload than that of release %s", r.Manifest.ID),
			"sign the payload that `hallmark release payload` gives")
	}
	_, signers, err := wire.ThresholdPayload(wire.TypeRelease, envelope)
	if err != nil {
		return wire.KeyID{}, fault.Newf(fault.Invalid, "release.signature", "%w", err).
			With("approve it again: the signature is made over what `hallmark release payload` gives")
	}
	var have []wire.KeyID
	if len(r.Envelope) > 0 {
		if _, have, err = wire.ThresholdPayload(wire.TypeRelease, r.Envelope); err != nil {
			return wire.KeyID{}, err
		}
	}
	var fresh []wire.KeyID
	for _, k := range signers {
		if slices.Contains(have, k) || slices.Contains(fresh, k) {
			continue
		}
		if !role.Has(k) {
			return wire.KeyID{}, invalid("release.signer", fmt.Sprintf("key %x is not in the release role of %s", k, r.Manifest.Product), "sign with a key of the release role in the trust bundle in force: `hallmark bundle show`")
		}
		fresh = append(fresh, k)
	}
	if len(fresh) != 1 {
		return wire.KeyID{}, conflict("release.signature", fmt.Sprintf("the envelope adds %d signatures to release %s, an approval is one", len(fresh), r.Manifest.ID),
			"each approver sends their own signature, by a key that has not signed yet")
	}
	return fresh[0], nil
}

// Publish makes the release one that may be rolled out, when the current bundle's threshold is met.
func (s *Service) Publish(ctx context.Context, caller access.Caller, digest [32]byte) (Release, error) {
	r, err := s.checked(ctx, caller, access.ReleasePublish, digest)
	if err != nil {
		return Release{}, err
	}
	if r.Status == Published {
		return r, nil
	}
	if r.Status != Proposed {
		return Release{}, conflict("release.status", fmt.Sprintf("release %s is %s", r.Manifest.ID, r.Status), "propose a new one")
	}
	b, err := s.bundle(ctx, r.Manifest.Product)
	if err != nil {
		return Release{}, err
	}
	if len(r.Envelope) == 0 {
		return Release{}, conflict("release.threshold", fmt.Sprintf("release %s has no approval, %d are needed", r.Manifest.ID, b.Release.Threshold),
			"approvers sign its payload offline and send `hallmark release approve`")
	}
	if _, d, err := wire.VerifyRelease(b, r.Envelope); err != nil {
		return Release{}, fault.Newf(fault.Conflict, "release.threshold", "release %s may not be published: %w", r.Manifest.ID, err).
			With("have as many people approve it as the product's trust bundle asks for")
	} else if d != r.Digest {
		return Release{}, fmt.Errorf("release %s: the stored envelope is of release %x", r.Manifest.ID, d)
	}
	if err := s.counted(ctx, r, b.Release.Threshold); err != nil {
		return Release{}, err
	}
	if err := s.installed(ctx, r.Manifest.Product, r.Manifest.ID, r.Manifest.Counter); err != nil {
		return Release{}, err
	}
	if err := compatible(r.Manifest); err != nil {
		return Release{}, err
	}
	if err := s.checkOnce(ctx, r.Manifest); err != nil {
		return Release{}, err
	}
	if r.Summary, err = s.cfg.Supply.Confirm(ctx, r.Manifest, r.Digest); err != nil {
		return Release{}, err
	}
	now := s.cfg.Now().UTC()
	facts := []ledger.Fact{ledger.New(ledger.KindReleasePublished, now, caller.ID, r.Manifest.ID, nil, r.Envelope)}
	if r.Summary != nil {
		facts = append(facts, ledger.New(ledger.KindSupplySummary, now, caller.ID, r.Manifest.ID, nil, r.Summary))
	}
	r.Status, r.Published, r.UID = Published, now, facts[0].UID
	return s.update(ctx, r, facts...)
}

// Withdraw ends a release: it is not rolled out or handed out any more, what devices were told of it and have not done is cancelled, and one that was not published yet is refused.
// Devices that run it are for a rollout to move; one that must never boot again needs the floor of a new trust bundle. Done again, it completes what broke off.
func (s *Service) Withdraw(ctx context.Context, caller access.Caller, digest [32]byte, reason string) (Release, error) {
	r, err := s.checked(ctx, caller, access.ReleasePublish, digest)
	if err != nil {
		return Release{}, err
	}
	if r.Status != Withdrawn && r.Status != Refused {
		if err := reasoned("a withdrawal", reason); err != nil {
			return Release{}, err
		}
		data, err := json.Marshal(map[string]string{"release": hex.EncodeToString(digest[:]), "id": r.Manifest.ID, "reason": reason})
		if err != nil {
			return Release{}, err
		}
		r.Status, r.Reason = ended(r), reason
		if r, err = s.update(ctx, r, ledger.New(ledger.KindReleaseWithdrawn, s.cfg.Now(), caller.ID, r.Manifest.ID, nil, data)); err != nil {
			return Release{}, err
		}
	}
	return r, s.recall(ctx, caller, r)
}

func reasoned(what, reason string) error {
	if reason == "" || len(reason) > MaxReason {
		return invalid("release.reason", fmt.Sprintf("%s needs a reason of at most %d bytes", what, MaxReason), "say why, with --reason")
	}
	return nil
}

// recall cancels what devices were told of a release that has ended, and have not done.
func (s *Service) recall(ctx context.Context, caller access.Caller, r Release) error {
	if r.Status == Refused {
		return nil // nobody was told of it
	}
	how := "withdrawn"
	if !r.Closed.IsZero() {
		how = "closed"
	}
	return s.cfg.Commands.Recall(ctx, caller, r.Manifest.Product, r.Digest, fmt.Sprintf("release %s is %s: %s", r.Manifest.ID, how, r.Reason))
}

// ended is what a release becomes that is taken back.
func ended(r Release) Status {
	if r.Published.IsZero() {
		return Refused
	}
	return Withdrawn
}

// Get gives one release.
func (s *Service) Get(ctx context.Context, caller access.Caller, digest [32]byte) (Release, error) {
	return s.checked(ctx, caller, access.ReleaseRead, digest)
}

// List gives a product's releases, newest first.
func (s *Service) List(ctx context.Context, caller access.Caller, product string) ([]Release, error) {
	return s.Page(ctx, caller, product, nil, 0)
}

// Page is List from behind the release with the digest after on, at most limit; nil and 0: all.
func (s *Service) Page(ctx context.Context, caller access.Caller, product string, after []byte, limit int) ([]Release, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ReleaseRead, access.Resource{Type: "release", Product: product}); err != nil {
		return nil, err
	}
	return s.cfg.Store.Releases(ctx, product, after, limit)
}

// Logged proves the publication of a release; a withdrawn one has no proof any more. It is for the stages that hand releases
// to devices, not for callers.
func (s *Service) Logged(ctx context.Context, digest [32]byte) (wire.Logged, error) {
	r, err := s.find(ctx, digest)
	if err != nil {
		return wire.Logged{}, err
	}
	if r.Status != Published {
		return wire.Logged{}, conflict("release.status", fmt.Sprintf("release %s is %s", r.Manifest.ID, r.Status), "propose a new one")
	}
	return s.cfg.Ledger.Logged(ctx, r.UID)
}

// Manifest gives what a release says, and whether it is handed out: for the stage that gives it to devices.
func (s *Service) Manifest(ctx context.Context, digest [32]byte) (m wire.Release, open bool, err error) {
	r, err := s.find(ctx, digest)
	return r.Manifest, r.Status == Published, err
}

// HandsOut reports whether a release is handed out; one that is not known is not. It is asked for each directive.
func (s *Service) HandsOut(ctx context.Context, digest [32]byte) (bool, error) {
	status, err := s.cfg.Store.StatusOf(ctx, digest)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return status == Published, err
}

// Find gives a release whatever its status, for other stages.
func (s *Service) Find(ctx context.Context, digest [32]byte) (Release, error) {
	return s.find(ctx, digest)
}

// OfProduct gives a product's releases that were published, whatever became of them since. It is for other stages.
func (s *Service) OfProduct(ctx context.Context, product string) ([]Release, error) {
	all, err := s.cfg.Store.Releases(ctx, product, nil, 0)
	return slices.DeleteFunc(all, func(r Release) bool { return r.Published.IsZero() }), err
}

func (s *Service) find(ctx context.Context, digest [32]byte) (Release, error) {
	r, err := s.cfg.Store.Release(ctx, digest)
	if errors.Is(err, ErrNotFound) {
		return Release{}, fault.New(fault.NotFound, "release.unknown", fmt.Sprintf("no release %x", digest), "see `hallmark release list`")
	}
	return r, err
}

// checked finds a release and asks the guard. Nobody learns whether one exists without being asked who they are.
func (s *Service) checked(ctx context.Context, caller access.Caller, action access.Action, digest [32]byte) (Release, error) {
	r, err := s.cfg.Store.Release(ctx, digest)
	res := access.Resource{Type: "release", ID: hex.EncodeToString(digest[:]), Product: r.Manifest.Product}
	if denied := s.cfg.Guard.Check(ctx, caller, action, res); denied != nil {
		return Release{}, denied
	}
	if errors.Is(err, ErrNotFound) {
		return s.find(ctx, digest)
	}
	return r, err
}

func (s *Service) update(ctx context.Context, r Release, facts ...ledger.Fact) (Release, error) {
	err := s.cfg.Store.UpdateRelease(ctx, r, facts...)
	if errors.Is(err, ErrChanged) {
		return Release{}, conflict("release.changed", fmt.Sprintf("release %s changed meanwhile", r.Manifest.ID), "look again and repeat")
	}
	r.Rev++
	return r, err
}
