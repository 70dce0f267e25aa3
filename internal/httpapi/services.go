package httpapi

import (
	"context"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/ledger/scitt"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// Services are the stages behind the API.
type Services struct {
	Guard       *access.Guard
	Credentials *signin.Service
	Audit       *access.AuditTrail
	Issuer      string // of the organisation's sign-in; empty: there is none
	Proposals   *proposal.Service
	Ledger      *ledger.Reader
	Custody     *custody.Service
	Receipts    *scitt.Service
	Fleet       *fleet.Service
	Telemetry   *telemetry.Service
	Product     *product.Service
	Factory     *factory.Service
	Device      *device.Service
	Release     *release.Service
	Supply      *supply.Service
	Parts       *parts.Service
	Rollout     *rollout.Service
	Retire      *retire.Service
	Monitor     *monitor.Service
	Remedy      *remedy.Service
	PKI         *pki.Service
	Ceremony    *ceremony.Service
	Onboard     *onboard.Service
	Keys        *keyring.Service
	Rekey       *rekey.Service
	Foreign     *foreign.Service
	Legacy      *legacy.Service
	Chips       *chips.Service
	Comply      *comply.Service
	Owner       *owner.Service
	Genuine     *genuine.Service
	Curb        func(remote string) bool // whether a stranger at a remote address may ask just now; nil: always

	Once   once.Store // nil: no request is remembered, and nothing has a tag
	Events *Events    // nil: nobody is told of events

	// Firmware gathers what an order puts on devices: the product's current bundle, the release, and where its components' bytes are.
	Firmware func(ctx context.Context, caller access.Caller, product string, release [32]byte) (Firmware, error)
}

// Firmware is what an order puts on devices.
type Firmware struct {
	Bundle, Release []byte
	Payload         factory.Source
}

func (a *api) register(h huma.API) {
	a.registerRead(h)
	a.registerCustody(h)
	a.registerGenuine(h)
	a.registerAccess(h)
	a.registerMembers(h)
	a.registerBindings(h)
	a.registerAudit(h)
	a.registerProposals(h)
	a.registerSaved(h)
	a.registerFactory(h)
	a.registerEnrolments(h)
	a.registerReleases(h)
	a.registerDeltas(h)
	a.registerArtifacts(h)
	a.registerSUIT(h)
	a.registerReleaseDocuments(h)
	a.registerSupply(h)
	a.registerParts(h)
	a.registerApprovers(h)
	a.registerRollouts(h)
	a.registerPaths(h)
	a.registerCarton(h)
	a.registerCommands(h)
	a.registerTrust(h)
	a.registerKeys(h)
	a.registerCare(h)
	a.registerLife(h)
	a.registerVouchers(h)
	a.registerForeign(h)
	a.registerLegacy(h)
	a.registerChips(h)
	a.registerDesks(h)
	a.registerGroups(h)
	a.registerOwners(h)
	a.registerCertificates(h)
	a.registerCeremonies(h)
	a.registerStreams(h)
	a.registerCompliance(h)
	a.registerEvents(h)
}

// ledgerFault names what a reader of the ledger can do about an error.
func ledgerFault(err error) error {
	switch {
	case errors.Is(err, ledger.ErrNotYetWitnessed):
		return fault.New(fault.Unavailable, "ledger.not-yet", err.Error(), "ask again when the log has grown")
	case errors.Is(err, ledger.ErrNotFound):
		return fault.New(fault.NotFound, "ledger.no-entry", err.Error(), "ask for an index below the log's size")
	}
	return err
}
