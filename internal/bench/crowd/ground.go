package crowd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// How many there are of what does not grow with the fleet.
const (
	orderSize = 5000
	commands  = 20 // of each product
	rollouts  = 12 // of each product
	grants    = 40
	decisions = 20_000
)

// crowd is a fleet on its way into a store.
type crowd struct {
	n        int
	now      time.Time
	releases map[string][]byte   // digests, by product and version
	commands map[string][]string // IDs, by product
	filler   [420]byte           // of what nobody reads in a list
}

// ground puts there what devices belong to.
func (c *crowd) ground(ctx context.Context, db *store.DB) error {
	for _, p := range products {
		if err := errors.Join(c.product(ctx, db, p), c.versions(ctx, db, p), c.orders(ctx, db, p), c.commandsOf(ctx, db, p), c.rollouts(ctx, db, p)); err != nil {
			return fmt.Errorf("product %s: %w", p, err)
		}
	}
	for i := range grants {
		if err := db.PutGrant(ctx, telemetry.Grant{
			ID: fmt.Sprintf("grant-%03d", i), Reader: fmt.Sprintf("person:reader%d", i%7), Product: products[i%3], Stream: "vibration", Purpose: "bearing study", Until: c.now.AddDate(1, 0, 0),
		}); err != nil {
			return err
		}
	}
	return db.Write(ctx, func(tx *store.Tx) error {
		for i := range decisions {
			if _, err := tx.Exec(`INSERT INTO audit (at, caller, action, resource, product, allowed) VALUES ($1, $2, 'device.read', 'fleet', $3, $4)`,
				store.Millis(c.now.Add(time.Duration(i-decisions)*time.Second)), fmt.Sprintf("person:user%d", i%30), products[i%3], i%40 != 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *crowd) product(ctx context.Context, db *store.DB, id string) error {
	p := product.Product{ID: id, OEM: "acme", Name: id, Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: c.now.AddDate(5, 0, 0)}
	if _, err := db.Product(ctx, id); err == nil {
		return nil
	}
	return db.PutProduct(ctx, p, ledger.New(ledger.KindProductCreated, c.now, "person:ann", id, nil, []byte("{}")))
}

func (c *crowd) versions(ctx context.Context, db *store.DB, product string) error {
	for i, v := range versions {
		m := wire.Release{
			ID: product + "-" + v, Product: product, Model: wire.ModelBlob, Version: v, Hardware: []string{"A"}, Counter: uint32(len(versions) - i), Created: uint64(c.now.AddDate(0, -i, 0).Unix()),
			Components: []wire.Component{{Name: "app", Kind: "exec", Version: v, Size: 1, Digest: bytes.Repeat([]byte{1}, 32), Health: wire.HealthAlive}},
		}
		payload, err := wire.EncodeRelease(m)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(payload)
		at := c.now.AddDate(0, -i, 0)
		c.releases[product+v] = digest[:]
		if err := db.Releases().PutRelease(ctx, release.Release{
			Digest: digest, Manifest: m, Payload: payload, Status: release.Published, Creator: "person:ann", Created: at, Published: at, Rev: 1,
		}); err != nil {
			return err
		}
		if err := contain(ctx, db, digest); err != nil {
			return err
		}
	}
	return nil
}

// Component is inside of every release.
const Component = "pkg:golang/acme.example/tls@v1.2.3"

// contain gives a release a bill of materials.
func contain(ctx context.Context, db *store.DB, digest [32]byte) error {
	of, version, _ := osv.Of(Component)
	part := supply.Named{Component: bom.Component{Name: "tls", PURL: Component, Version: version}, Package: of}
	return db.Supply().PutContents(ctx, digest, supply.Contents{Digest: digest, Document: hex.EncodeToString(digest[:]), Format: "CycloneDX", Spec: "1.6", Components: 1}, []supply.Named{part})
}

func (c *crowd) orders(ctx context.Context, db *store.DB, product string) error {
	for k := range (c.n+orderSize-1)/orderSize + 1 {
		id := fmt.Sprintf("%s-order-%04d", product, k+1)
		f := ledger.New(ledger.KindOrderCreated, c.now, "person:ann", id, nil, []byte("{}"))
		if err := db.CreateOrder(ctx, factory.Order{
			ID: id, UID: f.UID, OEM: "acme", Product: product, Hardware: "A", Quota: orderSize, State: factory.Open, Created: c.now.AddDate(-1, 0, k),
			NotBefore: c.now.AddDate(-1, 0, 0), NotAfter: c.now.AddDate(1, 0, 0),
		}, f); err != nil {
			return err
		}
	}
	return nil
}

// orderOf gives the order of the i-th device, and its place in it.
func (c *crowd) orderOf(i int) (id string, seq int) {
	place := [...]int{0, 1, 2, 3, 4, 5, 0, 1, 2, 0}[i%10]
	product, of := products[0], 6
	switch i % 10 {
	case 6, 7, 8:
		product, of = products[1], 3
	case 9:
		product, of = products[2], 1
	}
	k := i/10*of + place
	return fmt.Sprintf("%s-order-%04d", product, k/orderSize+1), k%orderSize + 1
}

func (c *crowd) commandsOf(ctx context.Context, db *store.DB, product string) error {
	set, err := wire.SetOf([]string{ID(0, c.n)})
	if err != nil {
		return err
	}
	for k := range commands {
		id := fmt.Sprintf("%s-command-%04d", product, k+1)
		issued := c.now.Add(-time.Duration(k) * time.Hour)
		w := wire.Command{ID: id, Product: product, Act: wire.ActAttest, Issued: uint64(issued.Unix()), Expires: uint64(issued.AddDate(0, 1, 0).Unix()), Devices: set}
		f := ledger.New(ledger.KindCommandIssued, issued, "person:ann", id, nil, []byte("{}"))
		if err := db.Devices().PutCommand(ctx, device.Command{
			ID: id, UID: f.UID, Digest: sha256.Sum256([]byte(id)), Wire: w, Issued: issued, Expires: issued.AddDate(0, 1, 0),
		}, nil, f); err != nil {
			return err
		}
		c.commands[product] = append(c.commands[product], id)
	}
	return nil
}

func (c *crowd) rollouts(ctx context.Context, db *store.DB, product string) error {
	for k := range rollouts {
		r := rollout.Rollout{
			Spec: rollout.Spec{
				ID: fmt.Sprintf("%s-rollout-%02d", product, k+1), Product: product, Release: c.releases[product+versions[0]], Selection: rollout.Selection{All: true},
				Waves: []rollout.Wave{{Percent: 2, Deadline: 30 * 86_400, MaxFailures: c.n}, {Deadline: 3600}}, Reason: "monthly", // nothing is decided while it is measured
			},
			Phase: rollout.Completed, By: "person:ann", Created: c.now.AddDate(0, 0, -k), Started: c.now.AddDate(0, 0, -k), Ended: c.now, Rev: 1,
		}
		if k == 0 {
			r.Phase, r.Ended, r.Wave, r.Waves = rollout.Paused, time.Time{}, 1, []rollout.WaveState{{Devices: c.n / 50, Command: Command, Started: c.now.Add(-time.Hour)}}
		}
		if err := db.Rollouts().PutRollout(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
