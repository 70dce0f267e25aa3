package supply

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// levelGate is what a summary says beside SLSA's level: that the steps of the gate were taken, all of them. SLSA leaves names that are not its own to the verifier.
const levelGate = "HALLMARK-SUPPLY-GATE"

// summarise signs what was found, for those who believe this instance and do not look themselves: a customer, an auditor, a gateway that lets firmware in.
func (s *Service) summarise(l *look, m wire.Release, release [32]byte) ([]byte, error) {
	base := "https://" + s.cfg.Instance + "/api/v1"
	at := func(digest []byte, path ...string) statement.Reference {
		uri, _ := url.JoinPath(base, path...) // base is one
		return statement.Reference{URI: uri, Digest: [32]byte(digest)}
	}
	out := statement.Summary{
		Verifier: "https://" + s.cfg.Instance, At: time.Unix(int64(l.d.At), 0), Resource: fmt.Sprintf("pkg:generic/%s@%s", url.PathEscape(m.Product), url.PathEscape(m.Version)),
		Subjects: []statement.Subject{{Name: m.ID, Digest: release}}, Policy: at(l.d.Policy, "products", m.Product, "supply"), Passed: l.d.OK,
		Inputs: []statement.Reference{at(l.d.DB, "advisories")},
	}
	if out.Passed {
		out.Levels = []string{fmt.Sprintf("SLSA_BUILD_LEVEL_%d", l.level), levelGate}
	}
	for i, c := range m.Components {
		out.Subjects = append(out.Subjects, statement.Subject{Name: c.Name, Digest: l.built[i]})
	}
	for _, d := range [][]byte{l.d.SBOM, l.d.Provenance} {
		if len(d) == 32 {
			out.Inputs = append(out.Inputs, at(d, "products", m.Product, "artifacts", hex.EncodeToString(d)))
		}
	}
	for _, d := range l.d.VEX {
		out.Inputs = append(out.Inputs, at(d, "products", m.Product, "exceptions", hex.EncodeToString(d)))
	}
	if len(m.Decision) == 32 { // what its approvers signed
		out.Inputs = append(out.Inputs, at(m.Decision, "releases", hex.EncodeToString(release[:]), "gate"))
	}
	kind, payload, err := out.Encode()
	if err != nil {
		return nil, err
	}
	envelope, err := s.cfg.Seal(kind, payload)
	if errors.Is(err, ErrNotFound) {
		return nil, fault.New(fault.Conflict, "supply.no-key", fmt.Sprintf("release %s is not published: its summary cannot be signed, because this instance has no key for that yet", m.ID),
			"make one: `hallmark key rotate supply --reason 'the first summary'`")
	}
	if err != nil {
		return nil, fault.Newf(fault.Unavailable, "supply.seal", "release %s is not published, its summary cannot be signed: %w", m.ID, err).
			With("mend the key that signs summaries, and publish it again")
	}
	return envelope, nil
}
