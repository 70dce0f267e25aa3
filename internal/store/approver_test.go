package store_test

import (
	"encoding/hex"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

// A threshold of keys is one of people: who holds two keys, and knows of a second account, is still one.
func TestAKeyApprovesForWhoseItIs(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	for _, who := range []string{"alice", "bob"} {
		put(t, s.db, who, signin.Member{ID: "person:" + who, Kind: access.Person, Roles: []access.Role{access.ReleaseManager}})
	}
	r, err := s.releases.Propose(t.Context(), person("carol"), s.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	kid := func(i int) string {
		id, err := wire.KeyIDOf(s.people[i].Public())
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(id[:])
	}
	bind := func(caller access.Caller, key, who string) string {
		_, err := s.releases.BindApprover(t.Context(), caller, "pump", key, who)
		return codeOf(err)
	}
	approve := func(who string, i int) string {
		_, err := s.releases.Approve(t.Context(), person(who), r.Digest, s.sign(wire.TypeRelease, r.Payload, i))
		return codeOf(err)
	}
	admin := func(c access.Caller) access.Caller {
		c.Roles = []access.Role{access.Admin}
		return c
	}
	second := admin(person("dora"))
	second.Seconded = "person:ann"
	two := admin(person("ann")).With(second)
	for name, c := range map[string]struct {
		by       access.Caller
		key, who string
		want     string
	}{
		"one person":        {admin(person("ann")), kid(0), "person:alice", "access.four-eyes"},
		"another's key":     {two, "00112233445566778899aabbccddeeff", "person:alice", "approver.key"},
		"no key":            {two, "xyz", "person:alice", "approver.key"},
		"nobody":            {two, kid(0), "person:zoe", "approver.member"},
		"a release manager": {together("ann", "dora"), kid(0), "person:alice", "access.denied"},
		"hers":              {two, kid(0), "person:alice", ""},
	} {
		if got := bind(c.by, c.key, c.who); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for _, step := range []struct {
		what string
		got  string
		want string
	}{
		{"somebody else with her key", approve("bob", 0), "release.anothers-key"},
		{"a key that is nobody's", approve("bob", 1), "release.unbound"},
		{"she with her key", approve("alice", 0), ""},
		{"the other is bound", bind(two, kid(1), "person:bob"), ""},
		{"he with his", approve("bob", 1), ""},
		{"his is lost", codeOf(s.releases.UnbindApprover(t.Context(), two, "pump", kid(1))), ""},
		{"lost twice", codeOf(s.releases.UnbindApprover(t.Context(), two, "pump", kid(1))), "approver.unknown"},
	} {
		if step.got != step.want {
			t.Errorf("%s: %q, want %q", step.what, step.got, step.want)
		}
	}
	if _, err := s.releases.Publish(t.Context(), person("carol"), r.Digest); codeOf(err) != "release.unbound" {
		t.Errorf("published with an approval by a key that is lost: %v", err)
	}
	// With the last of them nobody can approve: a key that was anybody's does not become everybody's.
	if err := s.releases.UnbindApprover(t.Context(), two, "pump", kid(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.Publish(t.Context(), person("carol"), r.Digest); codeOf(err) != "release.unbound" {
		t.Errorf("published with two approvals by keys that are lost: %v", err)
	}
	next, err := s.releases.Propose(t.Context(), person("carol"), s.spec("1.1.0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.Approve(t.Context(), person("alice"), next.Digest, s.sign(wire.TypeRelease, next.Payload, 1)); codeOf(err) != "release.unbound" {
		t.Errorf("she approves with the key that he lost: %v", err)
	}
	lost := newStages(t, wire.ModelBlob)
	if err := lost.db.Replay(t.Context(), ledger.Control, 0, s.entriesOf(ledger.KindApproverBound), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if all, err := lost.db.Releases().Approvers(t.Context(), "pump"); err != nil || len(all) != 2 || all[0].Member != "" || all[1].Member != "" {
		t.Errorf("from the log: %+v, %v", all, err)
	}
	for i, who := range []string{"person:alice", "person:bob"} {
		if got := bind(two, kid(i), who); got != "" {
			t.Fatal(got)
		}
	}
	if _, err := s.releases.Publish(t.Context(), person("carol"), r.Digest); err != nil {
		t.Error(err)
	}
	if k := s.kinds("pump"); k["approver.bound"] != 6 {
		t.Errorf("facts: %v", k)
	}
	// All of it comes back from the log.
	other := newStages(t, wire.ModelBlob)
	if err := other.db.Replay(t.Context(), ledger.Control, 0, s.entriesOf(ledger.KindApproverBound), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if all, err := other.db.Releases().Approvers(t.Context(), "pump"); err != nil || len(all) != 2 || all[0].By != "person:ann" {
		t.Errorf("%+v, %v", all, err)
	}
}

// Who builds does not approve what was built.
func TestABuildersKeyApprovesNothing(t *testing.T) {
	g := newGated(t, supply.Warn)
	g.policy.Builders[0].Keys = append(g.policy.Builders[0].Keys, spki(t, g.people[0]))
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", g.policy); err != nil {
		t.Fatal(err)
	}
	r, err := g.releases.Propose(t.Context(), person("carol"), g.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.releases.Approve(t.Context(), person("alice"), r.Digest, g.sign(wire.TypeRelease, r.Payload, 0)); codeOf(err) != "release.builder" {
		t.Errorf("%v", err)
	}
}
