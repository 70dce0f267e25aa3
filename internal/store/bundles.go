package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Seen implements device.Bundles.
func (s *Devices) Seen(ctx context.Context, product string, version uint64) (*wire.Logged, error) {
	var data []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT seen FROM bundle WHERE product = $1 AND version = $2`, product, int64(version)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(data) == 0 {
		return nil, device.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	l, err := wire.DecodeLogged(data)
	return &l, err
}

// KeepSeen implements device.Bundles.
func (s *Devices) KeepSeen(ctx context.Context, product string, version uint64, l wire.Logged) error {
	data, err := wire.EncodeLogged(l)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE bundle SET seen = $1 WHERE product = $2 AND version = $3 AND seen IS NULL`, data, product, int64(version))
		return err
	})
}

// CountBundles implements device.Bundles.
func (s *Devices) CountBundles(ctx context.Context, product string) (out []device.BundleCount, err error) {
	return collect(ctx, s.db, func(row scanner) (device.BundleCount, error) {
		var c device.BundleCount
		var version int64
		err := row.Scan(&version, &c.Devices)
		c.Version = uint64(version)
		return c, err
	}, `SELECT bundle, count(*) FROM device WHERE product = $1 AND state IN `+inField+`
		GROUP BY bundle ORDER BY bundle`, product)
}

// CountRuns implements device.Bundles.
func (s *Devices) CountRuns(ctx context.Context, product string) ([]device.RunsCount, error) {
	type running struct {
		release []byte // nil: nothing
		devices int
	}
	by, err := collect(ctx, s.db, func(row scanner) (r running, err error) {
		err = row.Scan(&r.release, &r.devices)
		return r, err
	}, `SELECT release, count(*) FROM device
		WHERE product = $1 AND state IN `+inField+` GROUP BY release`, product)
	if err != nil {
		return nil, err
	}
	out := []device.RunsCount{}
	for _, n := range by {
		c := device.RunsCount{Unknown: true, Devices: n.devices}
		r, err := scanRelease(s.db.Read().QueryRowContext(ctx, releaseColumns+` WHERE digest = $1 AND product = $2`, n.release, product))
		switch {
		case err == nil:
			c.Unknown, c.Counter = false, r.Manifest.Counter
		case !errors.Is(err, release.ErrNotFound):
			return nil, err
		}
		if i := slices.IndexFunc(out, func(o device.RunsCount) bool { return o.Counter == c.Counter && o.Unknown == c.Unknown }); i >= 0 {
			out[i].Devices += n.devices
			continue
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y device.RunsCount) int {
		if x.Unknown {
			return -1
		}
		if y.Unknown {
			return 1
		}
		return cmp.Compare(x.Counter, y.Counter)
	})
	return out, nil
}

// CountSuites implements device.Bundles. A suite's keys are all of one length, and no other's are.
func (s *Devices) CountSuites(ctx context.Context, product string) ([]device.SuiteCount, error) {
	by := map[string]int{}
	_, err := collect(ctx, s.db, func(row scanner) (none struct{}, err error) {
		var size, n int
		err = row.Scan(&size, &n)
		name := ""
		for _, id := range suite.IDs() {
			if set, err := suite.Get(id); err == nil && set.SPKI == size {
				name = string(id)
			}
		}
		by[name] += n
		return none, err
	}, `SELECT coalesce(length(attest_key), 0), count(*) FROM device WHERE product = $1 AND state IN `+inField+`
		GROUP BY coalesce(length(attest_key), 0)`, product)
	if err != nil {
		return nil, err
	}
	out := []device.SuiteCount{}
	for _, id := range append(suite.IDs(), "") {
		if n := by[string(id)]; n > 0 {
			out = append(out, device.SuiteCount{Suite: string(id), Devices: n})
		}
	}
	return out, nil
}

// Resign implements device.Bundles.
func (s *Devices) Resign(ctx context.Context, id string, before [16]byte, f ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE command SET uid = $1 WHERE id = $2 AND uid = $3 AND ended = 0`, f.UID[:], id, before[:])
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		return tx.Append(f)
	})
}
