package store_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/protect"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// stages is a server's worth of stages over one real database, with a clock of its own.
type stages struct {
	t         testing.TB
	db        *store.DB
	dir       string // of the blobs
	now       time.Time
	guard     *access.Guard
	ledger    *proofs
	devices   *device.Service
	releases  *release.Service
	supply    *supply.Service
	alarms    []string      // what was told of flaws
	summaries crypto.Signer // signs them; nil: there is no key
	protect   *protect.Service
	authority crypto.Signer       // signs directives
	people    []*ecdsa.PrivateKey // hold the release, warrant and root keys
	role      wire.KeySet
	keys      map[string]*ecdsa.PrivateKey // attestation keys of the devices
	boots     map[string]uint64
	later     later
}

// later is what the rollouts of a test will tell, where it has some.
type later struct{ device.Later }

func (l *later) WillTell(ctx context.Context, id string, counter uint32) (bool, error) {
	if l.Later == nil {
		return false, nil
	}
	return l.Later.WillTell(ctx, id, counter)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spki(t testing.TB, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// person is a caller with every right a person can have here.
func person(name string) access.Caller {
	return access.Caller{ID: "person:" + name, Kind: access.Person, Roles: []access.Role{access.ReleaseManager, access.Operator, access.Security}}
}

// together is somebody whose proposal another approved.
func together(name, other string) access.Caller {
	second := person(other)
	second.Seconded = person(name).ID
	return person(name).With(second)
}

func newStages(t testing.TB, model wire.UpdateModel) *stages {
	t.Helper()
	return newStagesOver(t, model, func(dir string) (blob.Place, error) { return files.Open(dir) })
}

// newStagesOver keeps blobs in another place.
func newStagesOver(t testing.TB, model wire.UpdateModel, open func(dir string) (blob.Place, error)) *stages {
	t.Helper()
	s := &stages{
		t: t, db: storetest.Open(t), dir: t.TempDir(), now: time.Now().UTC().Truncate(time.Second), ledger: &proofs{witnessed: true},
		keys: map[string]*ecdsa.PrivateKey{}, boots: map[string]uint64{},
	}
	var err error
	if s.guard, err = access.NewGuard(silentAudit{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k := newKey(t)
		s.people = append(s.people, k)
		s.role.Keys = append(s.role.Keys, spki(t, k))
	}
	s.ledger.db = s.db
	s.role.Threshold = 2
	clock := func() time.Time { return s.now }
	place, err := open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs := blob.New(place, s.db.Blobs())
	authority, dev, rel := newKey(t), s.db.Devices(), s.db.Releases()
	if s.supply, err = supply.NewService(supply.Config{Store: s.db.Supply(), Blobs: blobs, Releases: s.db.Supply(), Alarms: told{s}, Seal: s.seal, Instance: "hallmark.example", Guard: s.guard, Now: clock}); err != nil {
		t.Fatal(err)
	}
	if s.protect, err = protect.NewService(protect.Config{
		Store: s.db.ContentKeys(), Vault: vault{}, Device: dev.Device, Now: clock,
		Manifest: func(ctx context.Context, digest [32]byte) (wire.Release, error) {
			r, err := rel.Release(ctx, digest)
			return r.Manifest, err
		},
		Told: func(ctx context.Context, id string, now time.Time) (out []protect.Told, err error) {
			list, err := dev.Outstanding(ctx, id, now)
			for _, c := range list {
				if c.Wire.Act == wire.ActInstall {
					r, err := rel.Release(ctx, [32]byte(c.Wire.Release))
					if err != nil {
						return nil, err
					}
					out = append(out, protect.Told{Digest: r.Digest, Manifest: r.Manifest})
				}
			}
			return out, err
		},
	}); err != nil {
		t.Fatal(err)
	}
	if s.releases, err = release.NewService(release.Config{
		Supply: s.supply, Store: rel, Artifacts: rel, Deltas: rel, Blobs: blobs, Protector: s.protect, Products: rel, Trust: dev, Ledger: s.ledger, Commands: recaller{s}, Guard: s.guard, Now: clock,
	}); err != nil {
		t.Fatal(err)
	}
	if s.devices, err = device.NewService(device.Config{
		Registry: dev, Reports: dev, Offers: s.db.Legacy(), Commands: dev, Trust: dev, Groups: dev, Forgetter: dev, Guard: s.guard,
		Ledger: s.ledger, Releases: s.releases, Bundles: dev, Records: dev, Authorities: func() []crypto.Signer { return []crypto.Signer{authority} }, Now: clock, Later: &s.later,
	}); err != nil {
		t.Fatal(err)
	}
	p := product.Product{ID: "pump", Model: model, Hardware: []string{"A", "B"}}
	f := ledger.New(ledger.KindProductCreated, s.now, "test", "pump", nil, []byte("{}"))
	if err := s.db.PutProduct(t.Context(), p, f); err != nil {
		t.Fatal(err)
	}
	s.authority = authority
	s.publishBundle(1)
	return s
}

func (s *stages) publishBundle(version uint64, managers ...wire.BootManager) {
	s.t.Helper()
	s.bundleWith(version, func(b *wire.Bundle) { b.BootManagers = managers })
}

// closes publishes a trust bundle under which nothing below a security counter is installed.
func (s *stages) closes(version uint64, install uint32) {
	s.t.Helper()
	s.bundleWith(version, func(b *wire.Bundle) { b.Install = install })
}

// bundleWith publishes a trust bundle with a change.
func (s *stages) bundleWith(version uint64, change func(b *wire.Bundle)) {
	s.t.Helper()
	authority := s.authority
	b := wire.Bundle{
		Version: version, Product: "pump", Root: s.role, Release: s.role, Warrant: s.role,
		Directive: wire.KeySet{Keys: [][]byte{spki(s.t, authority)}, Threshold: 1},
		Control:   wire.LogTrust{Origin: "c", Key: bytes.Repeat([]byte{1}, 32)}, Events: wire.LogTrust{Origin: "e", Key: bytes.Repeat([]byte{2}, 32)},
		Issued: uint64(s.now.Unix()), Suites: []string{"HM-P256-1"},
	}
	change(&b)
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.devices.PublishBundle(s.t.Context(), person("root"), s.sign(wire.TypeBundle, payload, 0, 1)); err != nil {
		s.t.Fatal(err)
	}
}

// sign has the people named sign payload, one after the other.
func (s *stages) sign(typ wire.Type, payload []byte, who ...int) []byte {
	s.t.Helper()
	env, err := wire.NewThreshold(typ, payload, s.people[who[0]])
	for _, i := range who[1:] {
		if err == nil {
			env, err = wire.AddSignature(typ, env, s.people[i])
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return env
}

// make puts a device into the field that runs the release.
func (s *stages) make(id string, rel release.Release) {
	s.t.Helper()
	k := s.keys[id]
	if k == nil {
		k = newKey(s.t)
		s.keys[id] = k
	}
	row := store.ProvisionedRow{ID: id, Product: "pump", Hardware: "A", Order: "o", Station: "s", At: s.now, AttestKey: spki(s.t, k), KeyOrigin: "isolated"}
	if rel.Payload != nil {
		row.Release, row.Version = rel.Digest[:], rel.Manifest.Version
	}
	if err := s.db.Write(s.t.Context(), func(tx *store.Tx) error { return store.PutProvisioned(tx, row) }); err != nil {
		s.t.Fatal(err)
	}
	for _, ev := range []device.Event{device.Onboard, device.Activate} {
		if _, err := s.devices.Move(s.t.Context(), access.Internal("test"), id, ev, nil, "test"); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *stages) upload(data string) release.Artifact {
	s.t.Helper()
	a, err := s.releases.Upload(s.t.Context(), person("builder"), "pump", "app", false, bytes.NewReader([]byte(data)))
	if err != nil {
		s.t.Fatal(err)
	}
	if a.Digest != sha256.Sum256([]byte(data)) {
		s.t.Fatalf("digest %x", a.Digest)
	}
	return a
}

func (s *stages) spec(version string, back ...release.Release) release.Spec {
	s.t.Helper()
	a := s.upload("program " + version)
	spec := release.Spec{ID: "pump-" + version, Product: "pump", Version: version, Counter: 1, Components: []release.Component{
		{Name: "app", Kind: wire.KindExec, Version: version, Artifact: a.Digest[:], Health: wire.HealthAlive},
	}}
	for _, b := range back {
		spec.RollbackTo = append(spec.RollbackTo, b.Digest[:])
	}
	return spec
}

// publish takes a release through its whole approval.
func (s *stages) publish(version string, back ...release.Release) release.Release {
	s.t.Helper()
	ctx := s.t.Context()
	r, err := s.releases.Propose(ctx, person("proposer"), s.spec(version, back...))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.agreed(r)
}

// agreed has people approve a release, and publishes it.
func (s *stages) agreed(r release.Release) release.Release {
	s.t.Helper()
	ctx := s.t.Context()
	for i, name := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(ctx, person(name), r.Digest, s.sign(wire.TypeRelease, r.Payload, i)); err != nil {
			s.t.Fatal(err)
		}
	}
	r, err := s.releases.Publish(ctx, person("proposer"), r.Digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// says has a device check in: what it runs, and results of commands by ID.
func (s *stages) says(id string, rel release.Release, healthy, trial bool, results map[string]wire.Outcome) {
	s.t.Helper()
	ctx := s.t.Context()
	d, err := s.devices.Get(ctx, access.Internal("test"), id)
	if err != nil {
		s.t.Fatal(err)
	}
	s.boots[id]++
	in := wire.Checkin{
		Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: s.boots[id], Healthy: healthy, Trial: trial,
		Release: rel.Digest[:], Version: rel.Manifest.Version, Counter: d.Counter,
	}
	seq := d.AckedSeq
	for cmd, outcome := range results {
		c, err := s.devices.CommandOf(ctx, access.Internal("test"), cmd)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.db.Devices().NextCounter(ctx, id, cmd, 0, false, s.now); err != nil { // it was delivered
			s.t.Fatal(err)
		}
		seq++
		in.Results = append(in.Results, wire.Result{Command: c.Digest[:], Act: c.Wire.Act, Outcome: outcome, Seq: seq, At: uint64(s.now.Unix())})
	}
	if _, err := s.devices.Checkin(ctx, access.DeviceCaller(id), id, in); err != nil {
		s.t.Fatal(err)
	}
	if err := s.devices.Flush(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// proves stores a verdict of fresh evidence.
func (s *stages) proves(id string, rel release.Release, tier attest.Tier) {
	s.t.Helper()
	v := attest.Verdict{Device: id, At: s.now, Status: tier, Word: tier.String(), Release: rel.Digest[:]}
	f := ledger.New(ledger.KindVerdict, s.now, "test", id, nil, []byte("{}"))
	v.UID = f.UID
	if err := s.db.Attest().PutVerdict(s.t.Context(), v, must(wire.SPKIOf(s.keys[id].Public()))(s.t), f); err != nil {
		s.t.Fatal(err)
	}
}

// kinds counts the facts about a subject by kind.
func (s *stages) kinds(subject string) map[string]int {
	s.t.Helper()
	rows, err := s.db.Read().QueryContext(s.t.Context(), `SELECT kind, count(*) FROM entry WHERE subject = $1 GROUP BY kind`, subject)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]int{}
	for rows.Next() {
		var k string
		var n int
		if err := rows.Scan(&k, &n); err != nil {
			s.t.Fatal(err)
		}
		out[k] = n
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// commands lists a device's commands of an act, oldest first.
func (s *stages) commands(id string, act wire.Act) []string {
	s.t.Helper()
	all, err := s.devices.DeviceCommands(s.t.Context(), access.Internal("test"), id)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, c := range all {
		if c.Act == act {
			out = append([]string{c.Command}, out...)
		}
	}
	return out
}

func devN(i int) string { return fmt.Sprintf("%032x", i+1) }

// codeOf is the stable code of a fault; empty: none, of another error "?".
func codeOf(err error) string {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Code
	}
	return "?"
}

// entriesOf are the facts of some kinds, as they are in the log.
func (s *stages) entriesOf(kinds ...ledger.Kind) [][]byte {
	s.t.Helper()
	var out [][]byte
	for _, k := range kinds {
		out = append(out, s.entriesOfKind(k)...)
	}
	return out
}

func (s *stages) entriesOfKind(kind ledger.Kind) (out [][]byte) {
	s.t.Helper()
	rows, err := s.db.Read().QueryContext(s.t.Context(), `SELECT data FROM entry WHERE kind = $1 ORDER BY id`, string(kind))
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e []byte
		if err := rows.Scan(&e); err != nil {
			s.t.Fatal(err)
		}
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// seal signs what is said of a release.
func (s *stages) seal(kind string, payload []byte) ([]byte, error) {
	if s.summaries == nil {
		return nil, supply.ErrNotFound
	}
	return statement.Seal(s.summaries, kind, payload)
}

// recaller is the device stage, which is made behind the release stage.
type recaller struct{ s *stages }

func (r recaller) Recall(ctx context.Context, caller access.Caller, product string, release [32]byte, reason string) error {
	return r.s.devices.Recall(ctx, caller, product, release, reason)
}
