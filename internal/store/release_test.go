package store_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestAReleaseNeedsItsThresholdOfDistinctPeople(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	r, err := s.releases.Propose(ctx, person("carol"), s.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	sig := func(who ...int) []byte { return s.sign(wire.TypeRelease, r.Payload, who...) }
	_, err = s.releases.Publish(ctx, person("carol"), r.Digest)
	wantKind(t, "publish without approval", err, fault.Conflict)
	_, err = s.releases.Approve(ctx, person("carol"), r.Digest, sig(0))
	wantKind(t, "the proposer approves", err, fault.Denied)
	_, err = s.releases.Approve(ctx, person("alice"), r.Digest, sig(0, 1))
	wantKind(t, "one person brings two signatures", err, fault.Conflict)
	_, err = s.releases.Approve(ctx, person("alice"), r.Digest, s.sign(wire.TypeRelease, append([]byte(nil), r.Payload[:len(r.Payload)-1]...), 0))
	wantKind(t, "a signature over something else", err, fault.Invalid)
	_, err = s.releases.Approve(ctx, person("alice"), r.Digest, s.sign(wire.TypeWarrant, r.Payload, 0))
	wantKind(t, "a signature of another type", err, fault.Invalid)
	stranger, err := wire.NewThreshold(wire.TypeRelease, r.Payload, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.releases.Approve(ctx, person("alice"), r.Digest, stranger)
	wantKind(t, "a stranger's key", err, fault.Invalid)
	if _, err := s.releases.Approve(ctx, person("alice"), r.Digest, sig(0)); err != nil {
		t.Fatal(err)
	}
	_, err = s.releases.Publish(ctx, person("carol"), r.Digest)
	wantKind(t, "publish below the threshold", err, fault.Conflict)
	_, err = s.releases.Approve(ctx, person("alice"), r.Digest, sig(1))
	wantKind(t, "one person approves twice", err, fault.Conflict)
	_, err = s.releases.Approve(ctx, person("bob"), r.Digest, sig(0))
	wantKind(t, "one key approves twice", err, fault.Conflict)
	_, err = s.releases.Approve(ctx, person("builder"), r.Digest, sig(1))
	wantKind(t, "who uploaded the bytes approves them", err, fault.Denied)
	machine := access.Caller{ID: "machine:ci", Kind: access.Machine, Roles: []access.Role{access.ReleaseManager}}
	_, err = s.releases.Approve(ctx, machine, r.Digest, sig(1))
	wantKind(t, "a machine approves", err, fault.Denied)
	viewer := access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	_, err = s.releases.Approve(ctx, viewer, r.Digest, sig(1))
	wantKind(t, "somebody without the right", err, fault.Denied)
	if _, err := s.releases.Approve(ctx, person("bob"), r.Digest, sig(1)); err != nil {
		t.Fatal(err)
	}
	if r, err = s.releases.Publish(ctx, person("carol"), r.Digest); err != nil || r.Status != release.Published {
		t.Fatal(err)
	}
	if got, err := wire.VerifyThreshold(wire.TypeRelease, r.Envelope, s.role); err != nil || string(got) != string(r.Payload) {
		t.Errorf("the published envelope: %v", err)
	}
	k := s.kinds(r.Manifest.ID)
	if k["release.proposed"] != 1 || k["release.approved"] != 2 || k["release.published"] != 1 || len(k) != 3 {
		t.Errorf("facts: %v", k)
	}
	if _, err := s.releases.Logged(ctx, r.Digest); err != nil {
		t.Error(err)
	}
	if refs, err := s.db.Releases().Components(ctx, "pump"); err != nil || len(refs) != 1 || string(refs[0].Release) != string(r.Digest[:]) {
		t.Errorf("references: %+v, %v", refs, err)
	}
	if _, err := s.releases.Withdraw(ctx, person("carol"), r.Digest, "it leaks"); err != nil {
		t.Fatal(err)
	}
	_, err = s.releases.Logged(ctx, r.Digest)
	wantKind(t, "a withdrawn release is handed out", err, fault.Conflict)
	_, err = s.releases.Publish(ctx, person("carol"), r.Digest)
	wantKind(t, "a withdrawn release is published", err, fault.Conflict)
	if refs, err := s.db.Releases().Components(ctx, "pump"); err != nil || len(refs) != 1 || !refs[0].Withdrawn {
		t.Errorf("references of a withdrawn release: %+v, %v", refs, err)
	}
}

// What its approvers never saw is nobody's reference, however it ended: else one person alone could make bad bytes look like an old release.
func TestAReleaseThatNobodyApprovedIsNoReference(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	r, err := s.releases.Propose(ctx, person("carol"), s.spec("6.6.6"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = s.releases.Withdraw(ctx, person("carol"), r.Digest, "never mind"); err != nil || r.Status != release.Refused {
		t.Fatalf("%s, %v", r.Status, err)
	}
	none := func(what string) {
		t.Helper()
		if refs, err := s.db.Releases().Components(ctx, "pump"); err != nil || len(refs) != 0 {
			t.Errorf("%s: references %+v, %v", what, refs, err)
		}
	}
	none("as it is now")
	r.Status = release.Withdrawn // as it was stored before there was a name for it
	if err := s.db.Releases().UpdateRelease(ctx, r); err != nil {
		t.Fatal(err)
	}
	none("as it was stored before")
	_, err = s.releases.Publish(ctx, person("carol"), r.Digest)
	wantKind(t, "it is published", err, fault.Conflict)
}

func TestArtifactsAreServedWholeOrNotAtAll(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	r := s.publish("1.0.0")
	s.make(devN(0), r)
	digest := [32]byte(r.Manifest.Components[0].Digest)
	read := func(c access.Caller) (string, error) {
		_, f, err := s.releases.Open(ctx, c, "pump", digest)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		return string(b), err
	}
	if got, err := read(access.DeviceCaller(devN(0))); err != nil || got != "program 1.0.0" {
		t.Fatalf("%q, %v", got, err)
	}
	_, err := read(access.DeviceCaller(devN(7)))
	wantKind(t, "a device nobody made", err, fault.NotFound)
	secret := s.upload("not released")
	_, _, err = s.releases.Open(ctx, access.DeviceCaller(devN(0)), "pump", secret.Digest)
	wantKind(t, "a device reads what is not published", err, fault.NotFound)
	paths, err := filepath.Glob(filepath.Join(s.dir, "??", "*"))
	if err != nil || len(paths) != 4 { // each with its sums
		t.Fatalf("%v, %v", paths, err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if err := os.WriteFile(p, append(b, '!'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = read(access.DeviceCaller(devN(0)))
	wantKind(t, "altered bytes", err, fault.Unavailable)
	s.upload("program 1.0.0")
	if got, err := read(access.DeviceCaller(devN(0))); err != nil || got != "program 1.0.0" {
		t.Errorf("after uploading again: %q, %v", got, err)
	}
	_, err = s.releases.Upload(ctx, person("builder"), "pump", "empty", false, strings.NewReader(""))
	wantKind(t, "no bytes", err, fault.Invalid)
	_, err = s.releases.Upload(ctx, person("builder"), "lamp", "x", false, strings.NewReader("x"))
	wantKind(t, "no product", err, fault.NotFound)
}

func TestReleasesThatMayNotBe(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	first := s.publish("1.0.0")
	for name, c := range map[string]struct {
		kind   fault.Kind
		change func(*release.Spec)
	}{
		"same version":        {fault.Conflict, func(p *release.Spec) { p.Version = "1.0.0" }},
		"same to devices":     {fault.Conflict, func(p *release.Spec) { p.Version = "1.0.0+b" }},
		"same ID":             {fault.Conflict, func(p *release.Spec) { p.ID = "pump-1.0.0" }},
		"no such product":     {fault.NotFound, func(p *release.Spec) { p.Product = "lamp" }},
		"no such hardware":    {fault.Invalid, func(p *release.Spec) { p.Hardware = []string{"Z"} }},
		"not uploaded":        {fault.Invalid, func(p *release.Spec) { p.Components[0].Artifact = make([]byte, 32) }},
		"no digest":           {fault.Invalid, func(p *release.Spec) { p.Components[0].Artifact = []byte("x") }},
		"SBOM not uploaded":   {fault.Invalid, func(p *release.Spec) { p.SBOM = make([]byte, 32) }},
		"unknown way back":    {fault.Invalid, func(p *release.Spec) { p.RollbackTo = [][]byte{make([]byte, 32)} }},
		"way back too old":    {fault.Invalid, func(p *release.Spec) { p.RollbackTo, p.Counter = [][]byte{first.Digest[:]}, 2 }},
		"another model":       {fault.Invalid, func(p *release.Spec) { p.Model = wire.ModelOTP }},
		"notes too long":      {fault.Invalid, func(p *release.Spec) { p.Notes = strings.Repeat("n", release.MaxNotes+1) }},
		"a manifest too long": {fault.Invalid, func(p *release.Spec) { p.Components[0].Args = []string{strings.Repeat("a", wire.MaxRelease)} }},
		"too many arguments":  {fault.Invalid, func(p *release.Spec) { p.Components[0].Args = make([]string, 5000) }},
		"not a version":       {fault.Invalid, func(p *release.Spec) { p.Version = "new" }},
		"data with a program": {fault.Invalid, func(p *release.Spec) { p.Components[0].Kind = wire.KindData }},
	} {
		spec := s.spec("2.0.0")
		c.change(&spec)
		_, err := s.releases.Propose(t.Context(), person("p"), spec)
		wantKind(t, name, err, c.kind)
	}
	// What was proposed is read again, whatever there is of it.
	spec := s.spec("2.0.0")
	spec.Notes = strings.Repeat("n", release.MaxNotes)
	if _, err := s.releases.Propose(t.Context(), person("p"), spec); err != nil {
		t.Error(err)
	}
	if all, err := s.releases.List(t.Context(), person("p"), "pump"); err != nil || len(all) != 2 {
		t.Errorf("%d releases, %v", len(all), err)
	}
}

func TestWhatIsProgrammedOnceGetsNoSecondRelease(t *testing.T) {
	s := newStages(t, wire.ModelOTP)
	first := s.publish("1.0.0")
	second, err := s.releases.Propose(t.Context(), person("p"), s.spec("1.0.1")) // nothing is made yet: a mistake can be mended
	if err != nil {
		t.Fatal(err)
	}
	s.make(devN(0), first)
	for i, name := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(t.Context(), person(name), second.Digest, s.sign(wire.TypeRelease, second.Payload, i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.releases.Publish(t.Context(), person("p"), second.Digest)
	wantKind(t, "publish after devices were made", err, fault.Conflict)
	_, err = s.releases.Propose(t.Context(), person("p"), s.spec("1.1.0"))
	wantKind(t, "propose after devices were made", err, fault.Conflict)
	spec := s.spec("2.0.0")
	spec.Hardware = []string{"B"}
	if _, err = s.releases.Propose(t.Context(), person("p"), spec); err != nil {
		t.Errorf("a release for hardware that nothing was made of: %v", err)
	}
}

// What its approvers would sign in vain is refused before anybody is asked to: every device refuses it as well.
func TestASetThatDoesNotGoTogetherIsNotProposed(t *testing.T) {
	s := newStages(t, wire.ModelAsset)
	spec := s.spec("1.0.0")
	lib := spec.Components[0]
	lib.Name, lib.Version = "lib", "1.4.0"
	spec.Components[0].Requires = []wire.Requirement{{Component: "lib", From: "1.5.0", Below: "2.0.0"}}
	spec.Components = append(spec.Components, lib)
	_, err := s.releases.Propose(t.Context(), person("carol"), spec)
	wantKind(t, "a component in the wrong version", err, fault.Invalid)
	if !strings.Contains(fmt.Sprint(err), "requires lib from 1.5.0 below 2.0.0") {
		t.Errorf("it says %q", fmt.Sprint(err))
	}
	spec.Components[1].Version, spec.Components[1].Hardware = "1.5.0", []string{"Z"}
	_, err = s.releases.Propose(t.Context(), person("carol"), spec)
	wantKind(t, "a component for other hardware than the release", err, fault.Invalid)
	spec.Components[1].Hardware = nil
	r, err := s.releases.Propose(t.Context(), person("carol"), spec)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.DecodeRelease(r.Payload)
	if err != nil || len(m.Components[0].Requires) != 1 {
		t.Errorf("what is signed requires %v, %v", m.Components[0].Requires, err)
	}
}
