package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/release"
)

const deltaColumns = `SELECT x.from_digest, x.to_digest, x.doc, x.given FROM delta x`

func scanDelta(row scanner) (release.Delta, error) {
	var from, to []byte
	var doc string
	var given int64
	err := row.Scan(&from, &to, &doc, &given)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Delta{}, release.ErrNotFound
	}
	if err != nil {
		return release.Delta{}, err
	}
	var d release.Delta
	if err := json.Unmarshal([]byte(doc), &d); err != nil || len(from) != len(d.From) || len(to) != len(d.To) {
		return d, fmt.Errorf("stored delta from %x to %x: %w", from, to, errors.Join(err, errDamaged))
	}
	d.From, d.To, d.Given = [32]byte(from), [32]byte(to), uint64(given)
	return d, nil
}

// Unplanned implements release.Deltas.
func (s *Releases) Unplanned(ctx context.Context) (release.Release, error) {
	return scanRelease(s.db.Read().QueryRowContext(ctx, releaseColumns+` WHERE status = 'published'
		AND NOT EXISTS (SELECT 1 FROM delta_planned p WHERE p.release = release.digest) ORDER BY published, digest LIMIT 1`))
}

// WantDeltas implements release.Deltas.
func (s *Releases) WantDeltas(ctx context.Context, digest [32]byte, all []release.Delta) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, d := range all {
			doc, err := json.Marshal(d)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(`INSERT INTO delta (product, to_digest, from_digest, state, digest, tries, at, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
				ON CONFLICT (product, to_digest, from_digest) DO UPDATE SET state = excluded.state, tries = excluded.tries, at = excluded.at, doc = excluded.doc
				WHERE delta.state = 'failed'`, d.Product, d.To[:], d.From[:], string(d.State), notNil(d.Digest), d.Tries, Millis(d.At), string(doc)); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO delta_planned (release) VALUES ($1) ON CONFLICT DO NOTHING`, digest[:])
		return err
	})
}

// NextDelta implements release.Deltas.
func (s *Releases) NextDelta(ctx context.Context) (release.Delta, error) {
	return scanDelta(s.db.Read().QueryRowContext(ctx, deltaColumns+` WHERE x.state = 'wanted' ORDER BY x.tries, x.at LIMIT 1`))
}

// SetDelta implements release.Deltas.
func (s *Releases) SetDelta(ctx context.Context, d release.Delta) error {
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE delta SET state = $1, digest = $2, tries = $3, at = $4, doc = $5 WHERE product = $6 AND to_digest = $7 AND from_digest = $8 AND state = 'wanted'`,
			string(d.State), notNil(d.Digest), d.Tries, Millis(d.At), string(doc), d.Product, d.To[:], d.From[:])
		return err
	})
}

// DeltasTo implements release.Deltas.
func (s *Releases) DeltasTo(ctx context.Context, digest [32]byte) ([]release.Delta, error) {
	return collect(ctx, s.db, scanDelta, deltaColumns+` JOIN release_component c ON c.product = x.product AND c.artifact = x.to_digest
		WHERE c.release = $1 ORDER BY x.to_digest, x.from_digest`, digest[:])
}

// DeltasBetween implements release.Deltas.
func (s *Releases) DeltasBetween(ctx context.Context, from, to [32]byte) ([]release.Delta, error) {
	return collect(ctx, s.db, scanDelta, deltaColumns+` JOIN release_component t ON t.product = x.product AND t.artifact = x.to_digest
		JOIN release_component f ON f.product = x.product AND f.artifact = x.from_digest
		WHERE t.release = $1 AND f.release = $2 AND x.state = 'made' ORDER BY x.to_digest, x.from_digest`, to[:], from[:])
}

// Gave implements release.Deltas.
func (s *Releases) Gave(ctx context.Context, all []release.Given) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, g := range all {
			if _, err := tx.Of().Exec(`UPDATE delta SET given = given + $1 WHERE product = $2 AND digest = $3 AND state = 'made'`, int64(g.Bytes), g.Product, g.Digest[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// RunningReleases implements release.Deltas.
func (s *Releases) RunningReleases(ctx context.Context, product string) (map[[32]byte]int, error) {
	type count struct {
		release []byte
		n       int
	}
	all, err := collect(ctx, s.db, func(row scanner) (c count, err error) { return c, row.Scan(&c.release, &c.n) },
		`SELECT release, count(*) FROM device WHERE product = $1 AND release IS NOT NULL GROUP BY release`, product)
	out := map[[32]byte]int{}
	for _, c := range all {
		if len(c.release) == 32 {
			out[[32]byte(c.release)] = c.n
		}
	}
	return out, err
}

// deviceDelta finds a delta to a component that a published release of the device's product has.
func (s *Releases) deviceDelta(ctx context.Context, device string, digest [32]byte) (release.Artifact, error) {
	d, err := scanDelta(s.db.Read().QueryRowContext(ctx, deltaColumns+` JOIN device d ON d.product = x.product
		WHERE d.id = $1 AND d.state NOT IN `+retiring+` AND x.digest = $2 AND x.state = 'made' AND EXISTS (SELECT 1 FROM release_component c JOIN release r ON r.digest = c.release
			WHERE c.product = x.product AND c.artifact = x.to_digest AND r.status = 'published') LIMIT 1`, device, digest[:]))
	return release.Artifact{Digest: digest, Product: d.Product, Name: "delta of " + d.Name, Size: d.Size, At: d.At, Delta: true}, err
}
