package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/fleet"
)

// SaveQuery implements fleet.SavedStore.
func (db *DB) SaveQuery(ctx context.Context, member string, s fleet.Saved) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		var others int
		if err := tx.QueryRow(`SELECT count(*) FROM saved_query WHERE member = $1 AND name <> $2`, member, s.Name).Scan(&others); err != nil {
			return err
		}
		if others >= fleet.MaxSaved {
			return fleet.ErrSavedFull
		}
		_, err := tx.Exec(`INSERT INTO saved_query (member, name, doc) VALUES ($1, $2, $3) ON CONFLICT (member, name) DO UPDATE SET doc = excluded.doc`,
			member, s.Name, string(doc))
		return err
	})
}

func scanSaved(row scanner) (s fleet.Saved, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(doc), &s); err != nil {
		return s, fmt.Errorf("saved query: %w", err)
	}
	return s, nil
}

// SavedQueries implements fleet.SavedStore.
func (db *DB) SavedQueries(ctx context.Context, member string) ([]fleet.Saved, error) {
	return collect(ctx, db, scanSaved, `SELECT doc FROM saved_query WHERE member = $1 ORDER BY name`, member)
}

// ForgetQuery implements fleet.SavedStore.
func (db *DB) ForgetQuery(ctx context.Context, member, name string) error {
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`DELETE FROM saved_query WHERE member = $1 AND name = $2`, member, name)
		return err
	})
}
