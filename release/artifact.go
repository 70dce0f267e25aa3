package release

import (
	"context"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/wire"
)

// Naming is one release's use of an artifact.
type Naming struct {
	Release [32]byte
	Version string
	Status  Status
	What    string // component NAME, the SBOM or the provenance
}

// Stored is an artifact, and the releases that name it: newest first, none where it was uploaded and never proposed.
type Stored struct {
	Artifact
	Named []Naming
}

// ListArtifacts gives a product's artifacts in the order of their digests, from behind after on, at most limit; nil and 0: all. Deltas are none of them: they
// were made here and not brought, and are listed with the release that they lead to. It is for who uploads: a name of what was never proposed can say too much.
func (s *Service) ListArtifacts(ctx context.Context, caller access.Caller, product string, after []byte, limit int) ([]Stored, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ReleaseCreate, access.Resource{Type: "release", Product: product}); err != nil {
		return nil, err
	}
	all, err := s.cfg.Artifacts.ListArtifacts(ctx, product, after, limit)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	// After the artifacts: a release that is proposed meanwhile is seen, and one that names bytes which came later names none of these.
	releases, err := s.cfg.Store.Releases(ctx, product, nil, 0)
	if err != nil {
		return nil, err
	}
	by := map[[32]byte][]Naming{}
	for _, r := range releases {
		for _, n := range namings(r.Manifest) {
			by[n.digest] = append(by[n.digest], Naming{Release: r.Digest, Version: r.Manifest.Version, Status: r.Status, What: n.what})
		}
	}
	out := make([]Stored, len(all))
	for i, a := range all {
		out[i] = Stored{Artifact: a, Named: by[a.Digest]}
	}
	return out, nil
}

type naming struct {
	digest [32]byte
	what   string
}

// namings are the artifacts that a manifest names, as what: the components first, in its order.
func namings(m wire.Release) (out []naming) {
	add := func(digest []byte, what string) {
		if len(digest) == 32 {
			out = append(out, naming{[32]byte(digest), what})
		}
	}
	for _, c := range m.Components {
		add(c.Digest, "component "+c.Name)
	}
	add(m.SBOM, "the SBOM")
	add(m.Provenance, "the provenance")
	return out
}
