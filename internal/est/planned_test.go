package est_test

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
)

// A device that nobody knows waits when an order planned it; when none did it is refused, on record; when nobody can tell, neither.
func TestADeviceAheadOfItsRecordWaits(t *testing.T) {
	w := newWorld(t)
	guard, err := access.NewGuard(noAudit{})
	must(t, err)
	outage := errors.New("the orders cannot be read")
	for name, c := range map[string]struct {
		planned bool
		err     error
		refused int
	}{"planned": {planned: true}, "not planned": {refused: 1}, "nobody can tell": {err: outage}} {
		id, idev := w.made(false)
		enroller, err := onboard.New(onboard.Config{
			Guard: guard, PKI: w.pki, Registry: w.registry, Store: w.db.Onboard(), Now: w.clock.now,
			Planned: func(_ context.Context, ca *x509.Certificate, device string) (bool, error) {
				if device != id || !ca.Equal(w.order.Cert) {
					t.Errorf("%s: asked for %s of %s", name, device, ca.Subject)
				}
				return c.planned, c.err
			},
		})
		must(t, err)
		leaf, err := x509.ParseCertificate(idev.Certificate[0])
		must(t, err)
		csr, err := agentest.NewCSR(leaf, newKey(t))
		must(t, err)
		_, err = enroller.Enrol(t.Context(), access.DeviceCaller(id), onboard.Ask{Presented: []*x509.Certificate{leaf, w.order.Cert}, CSR: csr})
		var p *onboard.Pending
		if errors.As(err, &p) != c.planned || errors.Is(err, outage) != (c.err != nil) || (code(err) == "enrol.unknown") != (c.refused > 0) {
			t.Errorf("%s: %v", name, err)
		}
		if n := w.facts(string(ledger.KindEnrolRefused), id); n != c.refused {
			t.Errorf("%s: %d facts", name, n)
		}
	}
}
