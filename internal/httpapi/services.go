package httpapi

import (
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// Services are the stages behind the API.
type Services struct {
	Guard       *access.Guard
	Credentials *access.Credentials
	Ledger      *ledger.Reader
	Fleet       *fleet.Service
	Telemetry   *telemetry.Service
}

func (a *api) register(h huma.API) {
	a.registerRead(h)
}

// ledgerFault names what a reader of the ledger can do about an error.
func ledgerFault(err error) error {
	switch {
	case errors.Is(err, ledger.ErrNotYetWitnessed):
		return fault.New(fault.Unavailable, "ledger.not-yet", err.Error(), "")
	case errors.Is(err, ledger.ErrNotFound):
		return fault.New(fault.NotFound, "ledger.no-entry", err.Error(), "")
	}
	return err
}
