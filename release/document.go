package release

import (
	"context"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// DocumentKind is what a release's document is.
type DocumentKind string

// The documents that a release may name.
const (
	SBOM       DocumentKind = "sbom"
	Provenance DocumentKind = "provenance"
)

// OpenDocument gives a document that a release names, as it was uploaded; whoever reads it closes it.
func (s *Service) OpenDocument(ctx context.Context, caller access.Caller, digest [32]byte, kind DocumentKind) (io.ReadSeekCloser, error) {
	r, err := s.checked(ctx, caller, access.ReleaseRead, digest)
	if err != nil {
		return nil, err
	}
	named := map[DocumentKind][]byte{SBOM: r.Manifest.SBOM, Provenance: r.Manifest.Provenance}[kind]
	if len(named) != len(digest) {
		return nil, fault.New(fault.NotFound, "release.no-document", fmt.Sprintf("release %s names no %s", r.Manifest.ID, kind), "it was proposed without: `hallmark release show` says what it names")
	}
	return s.cfg.Blobs.Open(ctx, [32]byte(named))
}
