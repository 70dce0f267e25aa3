package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/rollout"
)

// TwinRow is what a device's row has of its twin: all of it, and a digest of what rollouts judge it by. Many devices have the same of that, and it is in the
// index that a rollout walks along: so of devices with one kit, one twin is read. Whoever writes the one writes the other.
func TwinRow(t device.Twin) (doc string, kit []byte, err error) {
	all, err := json.Marshal(t)
	if err != nil {
		return "", nil, err
	}
	k, err := kitOf(t)
	if err != nil {
		return string(all), nil, nil //nolint:nilerr // nothing is known of what it was told: who judges it reads the twin, and says why
	}
	some, err := json.Marshal(k)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(some)
	return string(all), sum[:kitSize], nil
}

// kitSize is enough of a digest: who finds two kits with the same has a device of its own judged by another's.
const kitSize = 16

func kitOf(t device.Twin) (*rollout.Kit, error) {
	settings, err := device.Shown(t)
	return &rollout.Kit{Version: t.Version, Trial: t.Trial, Room: t.Room, Knows: t.Knows, Zone: t.Zone, Left: t.Left, Settings: settings}, err
}

// FillKits is the migration that gives devices of before their kits.
func FillKits(ctx context.Context, tx *sql.Tx) error {
	for after := ""; ; {
		docs, last, err := someTwins(ctx, tx, after)
		if err != nil || len(docs) == 0 {
			return err
		}
		after = last
		for id, doc := range docs {
			var t device.Twin
			if err := json.Unmarshal([]byte(doc), &t); err != nil {
				return fmt.Errorf("device %s: twin: %w", id, err)
			}
			_, kit, err := TwinRow(t)
			if err != nil {
				return fmt.Errorf("device %s: %w", id, err)
			}
			if _, err := tx.ExecContext(ctx, `UPDATE device SET kit = $1 WHERE id = $2`, kit, id); err != nil {
				return err
			}
		}
	}
}

func someTwins(ctx context.Context, tx *sql.Tx, after string) (docs map[string]string, last string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, doc FROM device WHERE id > $1 ORDER BY id LIMIT $2`, after, atOnce)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	docs = map[string]string{}
	for rows.Next() {
		var doc string
		if err := rows.Scan(&last, &doc); err != nil {
			return nil, "", err
		}
		docs[last] = doc
	}
	return docs, last, rows.Err()
}
