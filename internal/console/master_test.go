package console_test

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

type masters stages

// kept is a master that may be ordered of, with one document.
var kept = factory.KeptMaster{
	MasterRef: factory.MasterRef{Product: "pump", Hardware: script, Revision: 3, Digest: digest}, Version: script, Release: digest,
	SBOM: factory.Document{Digest: digest, Size: 9}, Provenance: factory.Document{Digest: script}, Notes: script, By: script, Built: then, Created: then,
}

func (s masters) Masters(ctx context.Context, c access.Caller, p, after string, limit int) ([]factory.KeptMaster, error) {
	return paging(p, after, limit, kept, func(m *factory.KeptMaster, id string) { m.Digest = id }), stages(s).check(ctx, c, access.OrderRead, p)
}

func (s masters) Master(ctx context.Context, c access.Caller, id string) (factory.KeptMaster, error) {
	m := kept
	if id != digest {
		m.WhyNot = script
	}
	return m, stages(s).check(ctx, c, access.OrderRead, "pump")
}

// Who may place orders is offered to, of what they may be placed of, and nobody else.
func TestOrderingIsOfferedToWhoMay(t *testing.T) {
	s := server(t)
	for what, c := range map[string]struct {
		page, action string
		may          []string
	}{
		"taking in a master":     {"/masters", `data-path="/api/v1/masters"`, []string{"factory"}},
		"giving its provenance":  {"/masters/" + digest, `/documents/provenance" data`, []string{"factory"}},
		"ordering of a master":   {"/masters/" + digest, `data-path="/api/v1/orders"`, []string{"factory"}},
		"of a release proposed":  {"/releases/" + digest, `data-path="/api/v1/orders"`, nil},
		"of a large release":     {"/releases/" + strings.Repeat("ff", 32), `data-path="/api/v1/orders"`, nil},
		"and how it is ordered":  {"/releases/" + strings.Repeat("ff", 32), `hallmark order create --release pump@1.2.0`, []string{"viewer", "operator", "factory", "security", "admin"}},
		"an order of an old one": {"/masters/old", `data-path="/api/v1/orders"`, nil},
	} {
		for _, who := range []string{"viewer", "operator", "factory", "security", "admin"} {
			resp, page := get(t, s, c.page, who)
			if got, want := strings.Contains(page, c.action), slices.Contains(c.may, who); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s: status %d, offered to %s: %v, want %v", what, resp.StatusCode, who, got, want)
			}
		}
	}
}

// releaseAs is the release that is asked for: one that is published, too large for a browser and of no gate, by a digest of ones, else the one that is proposed.
func releaseAs(d [32]byte) release.Release {
	r := proposed
	if d == [32]byte(bytes.Repeat([]byte{0xff}, 32)) {
		r.Status, r.Manifest.Components = release.Published, []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "1", Size: 128<<20 + 1}}
		r.Decision, r.Summary = nil, nil
	}
	return r
}
