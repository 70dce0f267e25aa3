// Package crowd fills a store with a fleet of any size that looks like a real one, for measurements and for tests of what lists do.
//
// Under all stages. The same number gives the same devices: what is in what state is decided by the device's place in the row, and IDs
// are spread over all there may be. It writes the tables themselves, many devices to a transaction, because nobody waits for a million
// lives to be lived; only the facts go the way of every fact.
package crowd

import (
	"context"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
)

// batch is how many devices, or facts, are written in one transaction.
const batch = 5000

// The products of a crowd, and the groups, releases, orders and commands of each.
var (
	products = []string{"pump", "valve", "meter"}
	cities   = []string{"eu/berlin", "eu/paris", "eu/rome", "us/austin", "us/boston", "asia/osaka"}
	versions = []string{"2.4.0", "2.3.1", "2.3.0", "2.2.0", "0.9.0"}
)

// Products gives the products that devices of a crowd are of; the first is the largest.
func Products() []string { return products }

// Place names of a crowd, for who looks for something in it.
const (
	Group       = "pump/eu/berlin"    // of the largest product, as scopes name it: six of a hundred of all devices
	SmallGroup  = "pump/site/007"     // some hundreds of a million
	RareVersion = "0.9.0"             // one device in 2,000
	Rollout     = "pump-rollout-01"   // paused in a wave of a fiftieth of all devices
	Order       = "pump-order-0001"   // of up to 5,000 devices
	Command     = "pump-command-0001" // for a hundredth of all devices
)

// ID is the ID of the i-th of n devices.
func ID(i, n int) string {
	of, digits := n, "00"
	if n > base {
		of, digits = base, digitsOf(i/base, n/base)
		i %= base
	}
	tail := mix(uint64(i))
	return fmt.Sprintf("%s%06x%016x%08x", digits, uint64(i)<<24/uint64(of), tail, uint32(mix(tail)))
}

// digitsOf are what the IDs of the k-th copy begin with, among so many: they are spread as well.
func digitsOf(k, of int) string { return fmt.Sprintf("%02x", k*copies/of) }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): numbers in a row become numbers that look like chance.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Fill writes n devices as they are at now, with all that is known of them; more than 25,000 come in whole multiples of that, up to 256.
// said is told how far it is.
func Fill(ctx context.Context, db *store.DB, n int, now time.Time, said func(devices int)) error {
	if n > base && (n%base != 0 || n/base > copies) {
		return fmt.Errorf("a crowd of %d: more than %d come in multiples of that, at most %d", n, base, copies*base)
	}
	c := &crowd{n: min(n, base), now: now.UTC().Truncate(time.Millisecond), releases: map[string][]byte{}, commands: map[string][]string{}}
	if err := c.ground(ctx, db); err != nil {
		return err
	}
	for from := 0; from < c.n; from += batch {
		if err := db.Write(ctx, func(tx *store.Tx) error {
			for i := from; i < min(from+batch, c.n); i++ {
				if err := c.device(tx, i); err != nil {
					return fmt.Errorf("device %d: %w", i, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
		said(min(from+batch, c.n))
	}
	for k := 1; k < n/base; k++ {
		if err := db.Write(ctx, func(tx *store.Tx) error { return copyBase(tx, digitsOf(k, n/base)) }); err != nil {
			return err
		}
		said((k + 1) * base)
	}
	if err := countGroups(ctx, db); err != nil {
		return err
	}
	return c.past(ctx, db, n)
}

// countGroups counts what was copied, and the places in rollouts.
func countGroups(ctx context.Context, db *store.DB) error {
	return db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM group_size`); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO group_size (path, devices) SELECT path, count(*) FROM device_group GROUP BY path`); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO rollout_tally (rollout_id, wave, mark, n) SELECT rollout_id, wave, mark, count(*) FROM rollout_place GROUP BY rollout_id, wave, mark`)
		return err
	})
}

// past gives every second of the devices that were copied a fact.
func (c *crowd) past(ctx context.Context, db *store.DB, n int) error {
	for from := c.n; from < n; from += 2 * batch {
		if err := db.Write(ctx, func(tx *store.Tx) error { //nolint:contextcheck // the transaction has a context of its own
			for i := from; i < min(from+2*batch, n); i += 2 {
				if err := tx.Append(ledger.New(ledger.KindDeviceState, c.now.Add(-time.Hour), "server", ID(i, n), nil, activated)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

var activated = []byte(`{"from":"onboarded","to":"active","event":"activate","reason":"first good evidence"}`)
