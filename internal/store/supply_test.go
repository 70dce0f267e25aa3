package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

// billOf is a document about program bytes, with components by their package URLs.
func billOf(program string, purls ...string) string {
	sum := sha256.Sum256([]byte(program))
	var parts []string
	for i, p := range purls {
		parts = append(parts, fmt.Sprintf(`{"type":"library","bom-ref":"c%d","name":"part-%d","purl":%q}`, i, i, p))
	}
	return fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{"component":{"type":"firmware","name":"pump","version":"1","hashes":[{"alg":"SHA-256","content":%q}]}},"components":[%s]}`,
		hex.EncodeToString(sum[:]), strings.Join(parts, ","))
}

// billed proposes and publishes a release with a bill of materials.
func (s *stages) billed(version string, purls ...string) release.Release {
	s.t.Helper()
	spec := s.spec(version)
	doc := s.upload(billOf("program "+version, purls...))
	spec.SBOM = doc.Digest[:]
	r, err := s.releases.Propose(s.t.Context(), person("carol"), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, who := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(s.t.Context(), person(who), r.Digest, s.sign(wire.TypeRelease, r.Payload, i)); err != nil {
			s.t.Fatal(err)
		}
	}
	if r, err = s.releases.Publish(s.t.Context(), person("carol"), r.Digest); err != nil {
		s.t.Fatal(err)
	}
	return r
}

func advisoryText(id, eco, name, introduced, fixed string, modified time.Time) string {
	return fmt.Sprintf(`{"id":%q,"aliases":["CVE-2030-%s"],"summary":"it leaks","modified":%q,"affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":%q},{"fixed":%q}]}]}]}`,
		id, strings.TrimPrefix(id, "GO-"), modified.UTC().Format(time.RFC3339), eco, name, introduced, fixed) + "\n"
}

func (s *stages) imports(eco, text string) (supply.Database, error) {
	return s.supply.Import(s.t.Context(), person("eve"), eco, true, strings.NewReader(text))
}

// answers are the release's components with what is known of them.
func (s *stages) answers(r release.Release) []string {
	s.t.Helper()
	_, parts, err := s.supply.Contents(s.t.Context(), person("carol"), r.Digest, 0, 100)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, p := range parts {
		line := p.Name + " " + p.Version + " " + string(p.Answer)
		for _, f := range p.Flaws {
			line += " " + f.ID
		}
		out = append(out, line+" "+p.Why)
	}
	return out
}

func TestWhatIsKnownAgainstARelease(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	old := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0", "pkg:golang/acme.example/other@v0.1.0", "pkg:npm/left-pad@1.0.0", "pkg:generic/zlib@1.3")
	next := s.billed("1.1.0", "pkg:golang/acme.example/lib@v1.2.0")
	plain := s.publish("1.2.0")

	if got := strings.Join(s.answers(old), "\n"); strings.Contains(got, "clear") || !strings.Contains(got, "part-0 v1.0.0 unknown there are no advisories of Go here") {
		t.Errorf("without any advisory:\n%s", got)
	}
	d, err := s.imports("Go", advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now)+advisoryText("GO-2", "Go", "acme.example/far", "0", "9.0.0", s.now))
	if err != nil || d.Advisories != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	want := []string{
		"part-0 v1.0.0 affected GO-1 ", "part-1 v0.1.0 clear ", "part-2 1.0.0 unknown there are no advisories of npm here",
		"part-3 1.3 unknown no advisories name packages of this kind",
	}
	if got := s.answers(old); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s", strings.Join(got, "\n"))
	}
	if got := s.answers(next); got[0] != "part-0 v1.2.0 clear " {
		t.Errorf("mended: %v", got)
	}
	_, _, err = s.supply.Contents(t.Context(), person("carol"), plain.Digest, 0, 10)
	wantKind(t, "a release without a bill of materials", err, fault.NotFound)

	// What was known long ago says nothing any more.
	s.now = s.now.Add(supply.MaxAge + time.Hour)
	if got := s.answers(next); !strings.Contains(got[0], "unknown the advisories of Go were imported at") {
		t.Errorf("old advisories: %v", got)
	}
}

// stands puts a device into a state, however it came there.
func (s *stages) stands(id string, state device.State) {
	s.t.Helper()
	if err := s.db.Write(s.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET state = $1 WHERE id = $2`, string(state), id)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}

func TestWhereAComponentIs(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	old := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0")
	s.now = s.now.Add(time.Minute)
	next := s.billed("1.1.0", "pkg:golang/acme.example/lib@v1.2.0", "pkg:golang/acme.example/lib@v1.2.0")
	for i := range 5 {
		r := old
		if i > 2 {
			r = next
		}
		s.make(devN(i), r)
		s.says(devN(i), r, true, false, nil)
	}
	for i, end := range []device.State{device.Decommissioned, device.Disposed, device.Moved} { // who has ended runs nothing
		s.make(devN(5+i), old)
		s.says(devN(5+i), old, true, false, nil)
		s.stands(devN(5+i), end)
	}
	if _, err := s.imports("Go", advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now)); err != nil {
		t.Fatal(err)
	}
	ask := func(c access.Caller, what string) string {
		uses, err := s.supply.Where(t.Context(), c, what)
		if err != nil {
			return codeOf(err)
		}
		var out []string
		for _, u := range uses {
			out = append(out, fmt.Sprintf("%s %s %s %d", u.Version, u.Has, u.Answer, u.Devices))
		}
		return strings.Join(out, "; ")
	}
	for what, want := range map[string]string{
		"pkg:golang/acme.example/lib":         "1.1.0 v1.2.0  2; 1.0.0 v1.0.0  3",
		"pkg:golang/acme.example/lib@v1.0.0":  "1.0.0 v1.0.0  3",
		"pkg:golang/acme.example/none@v1.0.0": "",
		"GO-1":                                "1.0.0 v1.0.0 affected 3",
		"CVE-2030-1":                          "1.0.0 v1.0.0 affected 3",
		"CVE-2030-2":                          "advisories.unknown",
	} {
		if got := ask(person("carol"), what); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	limited := person("dan")
	limited.Scope = []string{"valve"}
	if got := ask(limited, "GO-1"); got != "" {
		t.Errorf("somebody of another product is told %q", got)
	}
	if got := ask(access.Caller{ID: "person:x", Kind: access.Person}, "GO-1"); got != "access.denied" {
		t.Errorf("nobody in particular is told %q", got)
	}
}

func TestAdvisoriesAreReplacedAsAWholeOrNotAtAll(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	r := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0")
	good := advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now)
	if _, err := s.imports("Go", good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ eco, text, code string }{
		"nothing":               {"Go", "", "advisories.none"},
		"cut":                   {"Go", good + good[:40], "advisories.unreadable"},
		"other bytes":           {"Go", good + "\x00\x01", "advisories.unreadable"},
		"another's":             {"Go", good + advisoryText("P-1", "PyPI", "lib", "0", "1", s.now), "advisories.other"},
		"older":                 {"Go", advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now.Add(-time.Hour)), "advisories.older"},
		"an unknown ecosystem":  {"Gopher", good, "advisories.ecosystem"},
		"larger than any is":    {"Go", `{"id":"` + strings.Repeat("x", 20<<20) + `"}`, "advisories.unreadable"},
		"many, and then broken": {"Go", strings.Repeat(" ", 100) + many(500, s.now) + "{", "advisories.unreadable"},
	} {
		if _, err := s.imports(c.eco, c.text); codeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if got := s.answers(r); got[0] != "part-0 v1.0.0 affected GO-1 " {
			t.Fatalf("%s: what was there is gone: %v", name, got)
		}
	}
	if _, err := s.supply.Import(t.Context(), access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}, "Go", false, failing{t}); codeOf(err) != "access.denied" {
		t.Errorf("a viewer imports: %v", err)
	}
	if _, err := s.imports("Go", many(1500, s.now)); err != nil {
		t.Fatal(err)
	}
	if got := s.answers(r); got[0] != "part-0 v1.0.0 clear " {
		t.Errorf("replaced: %v", got)
	}
	// What was given up, and what was replaced, is gone.
	s.now = s.now.Add(48 * time.Hour)
	if _, err := s.imports("Go", many(3, s.now)); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int{"advisory": 3, "advisory_name": 6, "advisory_package": 3, "advisory_import": 1} {
		var n int
		if err := s.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil || n != want {
			t.Errorf("%s has %d rows, want %d: %v", table, n, want, err)
		}
	}
	if k := s.kinds("Go"); k["advisories.imported"] != 3 {
		t.Errorf("facts: %v", k)
	}
}

func many(n int, modified time.Time) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(advisoryText(fmt.Sprintf("GO-%d", i+10), "Go", "acme.example/far", "0", "1.1.0", modified))
	}
	return b.String()
}

// failing is a body that nobody may read.
type failing struct{ t *testing.T }

func (f failing) Read([]byte) (int, error) {
	f.t.Error("it was read before anybody asked who sends it")
	return 0, io.EOF
}

func TestABillOfMaterialsIsOfTheVeryBytes(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	for name, c := range map[string]struct{ doc, code string }{
		"no document of the kind": {"a list of parts", "release.sbom"},
		"of other bytes":          {billOf("another program"), "release.sbom-component"},
	} {
		spec := s.spec("1.0.0")
		doc := s.upload(c.doc)
		spec.SBOM = doc.Digest[:]
		if _, err := s.releases.Propose(t.Context(), person("carol"), spec); codeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

func TestBillsOfMaterialsThatNobodyReadAreReadLater(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	r := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0")
	spec := s.spec("1.1.0")
	doc := s.upload("a list of parts")
	spec.SBOM = doc.Digest[:]
	if err := s.db.Write(t.Context(), func(tx *store.Tx) error { // as a version left it that did not look
		_, err := tx.Exec(`DELETE FROM release_sbom`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.supply.Contents(t.Context(), person("carol"), r.Digest, 0, 10)
	wantKind(t, "before", err, fault.NotFound)
	m := r.Manifest
	m.ID, m.Version, m.SBOM = "pump-0.9.0", "0.9.0", doc.Digest[:]
	payload, err := wire.EncodeRelease(m)
	if err != nil {
		t.Fatal(err)
	}
	bad := release.Release{Digest: wire.ReleaseDigest(payload), Manifest: m, Payload: payload, Status: release.Proposed, Creator: "person:carol", Created: s.now, Rev: 1}
	if err := s.db.Releases().PutRelease(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.supply.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c, parts, err := s.supply.Contents(t.Context(), person("carol"), r.Digest, 0, 10); err != nil || c.Components != 1 || len(parts) != 1 {
		t.Errorf("%+v, %v, %v", c, parts, err)
	}
	if c, parts, err := s.supply.Contents(t.Context(), person("carol"), bad.Digest, 0, 10); err != nil || c.Format != supply.Unreadable || len(parts) != 0 {
		t.Errorf("%+v, %v, %v", c, parts, err)
	}
	if left, err := s.db.Supply().Unread(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// told writes down what is told of flaws.
type told struct{ s *stages }

func (a told) Flawed(_ context.Context, h supply.Held, t supply.Trouble) error {
	a.s.alarms = append(a.s.alarms, h.Version+" has "+t.ID)
	return nil
}

func (a told) Mended(_ context.Context, h supply.Held, trouble, reason string) error {
	a.s.alarms = append(a.s.alarms, h.Version+" is rid of "+trouble+": "+reason)
	return nil
}

// reassess looks again, and gives what was told since the last time.
func (s *stages) reassess() string {
	s.t.Helper()
	s.alarms = nil
	if err := s.supply.Reassess(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(s.alarms, "; ")
}

func TestReleasesAreLookedAtAgainWhenAdvisoriesChange(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	old := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0", "pkg:golang/acme.example/other@v0.1.0")
	s.now = s.now.Add(time.Minute)
	s.billed("1.1.0", "pkg:golang/acme.example/lib@v1.2.0")
	s.make(devN(1), old)
	s.says(devN(1), old, true, false, nil)
	lib := advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now)
	// Another name of the same flaw: it is one trouble.
	alias := strings.Replace(advisoryText("GHSA-x", "Go", "acme.example/lib", "0", "1.1.0", s.now), "CVE-2030-GHSA-x", "CVE-2030-1", 1)
	far := advisoryText("GO-2", "Go", "acme.example/far", "0", "9.0.0", s.now)
	imports := func(text string) func() {
		return func() {
			if _, err := s.imports("Go", text); err != nil {
				t.Fatal(err)
			}
		}
	}
	withdraw := func() {
		if _, err := s.releases.Withdraw(t.Context(), person("carol"), old.Digest, "a flaw"); err != nil {
			t.Fatal(err)
		}
	}
	gone := func() {
		s.stands(devN(1), device.Disposed)
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"no advisory is here", func() {}, ""},
		{"none about them", imports(far), ""},
		{"one about them, under two names", imports(far + lib + alias), "1.0.0 has CVE-2030-1"},
		{"nothing new", func() {}, ""},
		{"the same again", imports(far + lib + alias), ""},
		{"withdrawn, and a device runs it", withdraw, ""},
		{"the advisory is taken back", imports(far), "1.0.0 is rid of CVE-2030-1: the advisories are others"},
		{"and is back", imports(far + lib), "1.0.0 has CVE-2030-1"},
		{"too old: what was wrong is not well for it", func() { s.now = s.now.Add(supply.MaxAge + time.Hour) }, ""},
		{"nobody runs it any more", gone, "1.0.0 is rid of CVE-2030-1: it may not be rolled out any more, and no device runs it"},
	} {
		step.do()
		if got := s.reassess(); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	a, err := s.supply.Assessed(t.Context(), person("carol"), old.Digest)
	if err != nil || a.Components != 0 || len(a.Troubles) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if k := s.kinds(hex.EncodeToString(old.Digest[:])); k["supply.reassessed"] != 7 {
		t.Errorf("facts: %v", k)
	}
}

// unswept is a store in which what counts no more cannot be deleted, from a moment on.
type unswept struct {
	supply.Store
	fails bool
}

func (u *unswept) Use(ctx context.Context, d supply.Database, facts ...ledger.Fact) error {
	u.fails = true
	return u.Store.Use(ctx, d, facts...)
}

func (u *unswept) Sweep(ctx context.Context, before time.Time) (bool, error) {
	if u.fails {
		return false, errors.New("the disk is full")
	}
	return u.Store.Sweep(ctx, before)
}

// What was imported counts, and is said to, though what it replaced could not be deleted.
func TestAnImportIsDoneWhenItCounts(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	was, err := s.imports("Go", advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", s.now))
	if err != nil {
		t.Fatal(err)
	}
	whole := s.supply
	s.supply, err = supply.NewService(supply.Config{
		Store: &unswept{Store: s.db.Supply()}, Blobs: struct{ supply.Blobs }{}, Releases: s.db.Supply(), Alarms: told{s}, Seal: s.seal, Instance: "hallmark.example", Guard: s.guard, Now: func() time.Time { return s.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.imports("Go", advisoryText("GO-2", "Go", "acme.example/far", "0", "9.0.0", s.now)); err != nil || d.Advisories != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	if all, err := whole.Databases(t.Context(), person("carol")); err != nil || len(all) != 1 || all[0].Generation == was.Generation {
		t.Errorf("%+v, %v", all, err)
	}
}
