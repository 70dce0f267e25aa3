package store_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestWhatWasUploadedIsListedWithWhoNamesIt(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	first := s.publish("1.0.0")
	sbom := s.upload("what is in it")
	spec := s.spec("1.1.0")
	spec.Counter, spec.Provenance = 2, sbom.Digest[:]
	spec.Components = append(spec.Components, release.Component{ // what did not change is named again
		Name: "old", Kind: wire.KindData, Version: "1.0.0", Artifact: first.Manifest.Components[0].Digest, Health: wire.HealthNone,
	})
	second, err := s.releases.Propose(ctx, person("proposer"), spec)
	if err != nil {
		t.Fatal(err)
	}
	s.upload("nobody's")

	want := map[[32]byte][]string{
		sha256.Sum256([]byte("program 1.0.0")): {"1.0.0 component app", "1.1.0 component old"},
		sha256.Sum256([]byte("program 1.1.0")): {"1.1.0 component app"},
		sbom.Digest:                            {"1.1.0 the provenance"},
		sha256.Sum256([]byte("nobody's")):      nil,
	}
	var after []byte
	var got []release.Stored
	for { // one by one: each page goes on behind the one before
		page, err := s.releases.ListArtifacts(ctx, person("alice"), "pump", after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		if string(page[0].Digest[:]) <= string(after) {
			t.Fatalf("%x comes behind %x", page[0].Digest, after)
		}
		got, after = append(got, page[0]), page[0].Digest[:]
	}
	if len(got) != len(want) {
		t.Errorf("%d artifacts, want %d", len(got), len(want))
	}
	for _, a := range got {
		var names []string
		for _, n := range a.Named {
			names = append(names, n.Version+" "+n.What)
			if n.Release != first.Digest && n.Release != second.Digest {
				t.Errorf("%x is named by %x", a.Digest, n.Release)
			}
		}
		slices.Sort(names)
		w, ok := want[a.Digest]
		if !ok || fmt.Sprint(names) != fmt.Sprint(w) || a.By != "person:builder" || a.Size == 0 || a.At.IsZero() {
			t.Errorf("%x: %v of %d bytes by %s, want %v", a.Digest, names, a.Size, a.By, w)
		}
	}
	if other, err := s.releases.ListArtifacts(ctx, person("alice"), "valve", nil, 0); err != nil || len(other) != 0 {
		t.Errorf("another product has %v, %v", other, err)
	}
	_, err = s.releases.ListArtifacts(ctx, access.Caller{ID: "person:alice", Kind: access.Person, Roles: []access.Role{access.Viewer}, Scope: []string{"valve"}}, "pump", nil, 0)
	wantKind(t, "who is limited to another product lists", err, fault.Denied)
}
