package server

import (
	"context"
	"crypto/sha256"
	"maps"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/console"
	"github.com/hallmark-iot/hallmark/ledger"
)

// consoleConfig gives the console the instance's stages.
func (i *Instance) consoleConfig() console.Config {
	trust := console.Trust{Logs: map[ledger.Log]console.LogTrust{}, Witnesses: map[string][]byte{}, Quorum: i.logs.trust.Quorum}
	for _, l := range i.logs.trust.Logs {
		trust.Logs[ledger.Log(l.Name)] = console.LogTrust{Origin: l.Origin, Key: l.Key}
	}
	for _, k := range i.logs.trust.Witnesses {
		if k.Type == ledger.TypeCosignature { // what a browser verifies
			trust.Witnesses[k.Name] = k.Key
		}
	}
	organisation := ""
	if i.cfg.OIDC != nil {
		organisation = i.cfg.OIDC.label()
	}
	return console.Config{
		Organisation: organisation, Site: i.cfg.scheme() + "://" + i.cfg.consoleHost(), Genuine: i.genuine, Curb: i.asks.Allow, Root: Fingerprint(sha256.Sum256(i.auth.root.Raw)),
		Fleet: i.fleet, Sessions: i.credentials, Trust: trust, Position: i.events.Position, Pulse: i.pulse.beats, Log: i.log, Secure: !i.cfg.loopback(),
		Stages: console.Stages{
			Ceremonies: i.openCeremonies(),
			Products:   i.product, Orders: i.factory, Desks: i.factory, Masters: i.factory, Enrolments: i.onboard, Owners: i.owner, Transfers: i.owner, Vouchers: i.rekey, Makers: i.foreign, Clients: i.legacy, Chips: chips.New(i.db.Chips(), i.guard), Authorities: i.pki, Devices: i.device, Evidence: i.attest, Releases: i.release, Supply: i.supply, Parts: i.parts, Rollouts: i.rollout,
			Cases: i.remedy, Retirements: i.retire, Compliance: i.comply, Ledger: i.logs.reader, Proposals: i.proposals, Members: i.credentials, Audit: access.NewAuditTrail(i.db, i.guard),
		},
		Allowed: func(_ context.Context, caller access.Caller, action access.Action, res access.Resource) bool {
			caller.Fresh = true // what takes a new proof of the person, or a second one, is offered: the API asks
			might, _ := i.guard.MightWithSecond(caller, action, res)
			return might
		},
	}
}

// beats tells when each loop last went well.
func (p *pulse) beats() map[string]console.Beat {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.last)
}
