package machine

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Recovery is what a technician brings to a device that lost its keys.
type Recovery struct {
	Device  string
	Product string
	Server  string // base URL of the devices' listener
	Voucher string
	NewKeys bool // destroy identity keys that are in the key store and make others
}

// ErrNotLost says that there is nothing to recover.
var ErrNotLost = errors.New("this device has its identity and the key of it: start it; it enrols by itself")

// Recover makes new identity and attestation keys on a board that left the factory as the device, and gets a new factory identity for them. The trust
// bundle comes by its signatures from the root in the fuses, from any line; only then is the server believed, and shown the voucher. The keys
// stay in the key store from the first attempt on, so that one that broke off anywhere is simply made again.
func Recover(ctx context.Context, board *hw.Board, uid []byte, r Recovery, log *slog.Logger) error {
	g := board.Flash.Geometry()
	rev, err := boot.Revive(board, boot.Identity{
		Device: r.Device, Product: r.Product, Hardware: board.Revision, Params: wire.DeviceParams{
			Flash: wire.Flash{Size: uint64(g.Size), Erase: uint32(g.Sector), Slots: 2, SlotSize: uint64(g.Size / 2)}, Servers: wire.Servers{Device: r.Server},
		},
	})
	if err != nil {
		return err
	}
	rec := &recovery{Recovery: r, board: board, uid: uid, rev: rev, log: log}
	for _, step := range []func(context.Context) error{rec.lost, rec.trust} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if rec.whole {
		log.Info("the trust bundle is back, and the device has its keys: start it")
		return nil
	}
	for _, step := range []func(context.Context) error{rec.server, rec.keys, rec.identity} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// recovery is one Recover under way.
type recovery struct {
	Recovery
	board *hw.Board
	uid   []byte
	rev   *boot.Revival
	log   *slog.Logger
	whole bool // it has its keys and its identity: what it lost is the trust bundle alone

	client      *est.Client
	kit         wire.RecoveryKit
	key, attest crypto.Signer
	made        bool // the keys, in this attempt
}

// lost makes sure that there is something to recover.
func (r *recovery) lost(context.Context) error {
	key, err := r.board.Keys.Signer(hw.KeyIDevID)
	if errors.Is(err, hw.ErrNoKey) || err == nil && r.NewKeys {
		return r.vouched()
	}
	if err != nil {
		return err
	}
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		return err
	}
	if _, err := r.board.Keys.Signer(hw.KeyAttest); err == nil && r.rev.Whole(spki) {
		if r.whole = r.rev.Report().Bundle.Version == 0; r.whole {
			return nil
		}
		return ErrNotLost
	}
	return r.vouched()
}

// vouched refuses to go on without a voucher that is one.
func (r *recovery) vouched() error {
	_, err := wire.ParseVoucher(r.Device, r.Voucher)
	return err
}

// trust follows the signed history of trust bundles to the newest.
func (r *recovery) trust(ctx context.Context) error {
	h, err := link.NewHistory(link.HistoryConfig{Server: r.Server})
	if err != nil {
		return err
	}
	defer h.Close()
	rep := r.rev.Report()
	f := agent.Facts{Device: r.Device, Product: rep.Identity.Product, Bundle: rep.Bundle, Root: rep.Root, Homes: rep.Homes}
	if rep.Homes > 0 && rep.Bundle.Version == 0 {
		return r.home(ctx, f)
	}
	envs, err := agent.Regain(ctx, h, f)
	if err != nil {
		return fmt.Errorf("history of trust bundles: %w", err)
	}
	if len(envs) == 0 {
		return nil
	}
	r.log.Info("trust bundles, from the root in the fuses", "count", len(envs))
	return r.rev.SetBundle(envs...)
}

// home takes back the trust record of a board that was handed to another instance.
func (r *recovery) home(ctx context.Context, f agent.Facts) error {
	record, envs, err := agent.FindHome(ctx, r.rev.Recall, f, func(server string) (agent.History, error) {
		return link.NewHistory(link.HistoryConfig{Server: server})
	}, r.Server)
	if err != nil {
		return err
	}
	r.log.Info("trust record, from a copy of this board's", "home", f.Homes, "bundles_since", len(envs))
	return r.rev.Restore(record, envs...)
}

// server asks who this device was.
func (r *recovery) server(ctx context.Context) error {
	b := r.rev.Report().Bundle
	roots, err := anchors(b.Anchors)
	if err != nil {
		return err
	}
	// The bundle was signed at that time: it is no earlier. A clock that is right is later.
	now := func() time.Time {
		if at := time.Unix(int64(min(b.Issued, 1<<40)), 0); at.After(time.Now()) {
			return at
		}
		return time.Now()
	}
	if r.client, err = est.New(est.Config{Server: r.Server, Roots: roots, Now: now, Logger: r.log}); err != nil {
		return err
	}
	if r.kit, err = r.client.Kit(ctx, r.voucher()); err != nil {
		return fmt.Errorf("what this device was: %w", err)
	}
	if r.kit.Product != r.Product || r.kit.Hardware != r.board.Revision {
		return fmt.Errorf("device %s is %s/%s, this board is %s/%s: the voucher is for another piece", r.Device, r.kit.Product, r.kit.Hardware, r.Product, r.board.Revision)
	}
	return nil
}

func (r *recovery) voucher() est.Voucher { return est.Voucher{Device: r.Device, Secret: r.Voucher} }

// anchors is whom the device believes about its network peers.
func anchors(ders [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("network anchor: %w", err)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// keys makes both keys, or finds those of an attempt before. The identity key is made last, so that with it there is a new attestation key.
func (r *recovery) keys(context.Context) (err error) {
	ks := r.board.Keys
	if r.key, err = ks.Signer(hw.KeyIDevID); errors.Is(err, hw.ErrNoKey) || err == nil && r.NewKeys {
		for _, name := range slices.Concat(hw.Names(hw.KeyLDevID), hw.Names(hw.KeyAttest), []string{hw.KeyIDevID}) {
			if err := ks.Destroy(name); err != nil {
				return err
			}
		}
		for _, name := range []string{hw.KeyAttest, hw.KeyIDevID} {
			if _, err := ks.Generate(name, suite.P256); err != nil {
				return err
			}
		}
		r.made = true
		r.log.Info("new keys", "origin", ks.Origin())
		r.key, err = ks.Signer(hw.KeyIDevID)
	}
	if err != nil {
		return err
	}
	if r.attest, err = ks.Signer(hw.KeyAttest); errors.Is(err, hw.ErrNoKey) {
		return errors.New("there is an identity key, and no attestation key: call again with --new-keys")
	}
	return err
}

// identity gets the certificate and lays it down.
func (r *recovery) identity(ctx context.Context) error {
	spki, err := wire.SPKIOf(r.key.Public())
	if err != nil {
		return err
	}
	id := r.rev.Report().Identity
	if r.made {
		id.Origin = ""
	}
	claim, err := wire.NewRekeyClaim(r.Device, r.uid, spki, r.attest, cmp.Or(id.Origin, r.board.Keys.Origin()))
	if err != nil {
		return err
	}
	want := idevid.Identity{Kind: idevid.IDevID, DeviceID: r.Device, OEM: r.kit.OEM, Product: r.kit.Product, HWRev: r.kit.Hardware}
	csr, err := est.NewRekeyCSR(want, r.key, claim)
	if err != nil {
		return err
	}
	leaf, err := r.client.Recover(ctx, r.voucher(), csr)
	if err != nil {
		return fmt.Errorf("new identity: %w", err)
	}
	kit, err := r.client.Kit(ctx, r.voucher()) // now with the issuers of just this certificate
	if err != nil {
		return fmt.Errorf("issuers of the new identity: %w", err)
	}
	chain, err := r.client.CheckIdentity(leaf, want, kit.Issuers)
	if err != nil {
		return err
	}
	id.Chain, id.Device, id.Product, id.Hardware, id.Model = chain, kit.Device, kit.Product, kit.Hardware, kit.Model
	id.Params.Servers.Device = r.Server
	if err := r.rev.Lay(id); err != nil {
		return err
	}
	r.log.Info("recovered", "device", r.Device, "identity", leaf.Subject.String(), "signed_by", leaf.Issuer.CommonName)
	return nil
}
