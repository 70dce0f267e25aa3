package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
)

// IssueCredential implements access.CredentialStore.
func (db *DB) IssueCredential(ctx context.Context, c access.Credential, fact func(again bool) (ledger.Fact, error)) error {
	return db.Write(ctx, func(tx *Tx) error {
		held, err := credentialsOf(tx, c.Caller)
		if err != nil {
			return err
		}
		for _, h := range held {
			if h.Kind != c.Kind {
				return access.ErrOtherKind
			}
		}
		var said int // what was revoked has left its fact
		if err := tx.QueryRow(`SELECT count(*) FROM entry WHERE subject = $1 AND kind = 'access.changed'`, c.Caller).Scan(&said); err != nil {
			return err
		}
		f, err := fact(len(held) > 0 || said > 0)
		if err != nil {
			return err
		}
		if err := putCredential(tx, c); err != nil {
			return err
		}
		return tx.Append(f)
	})
}

func credentialsOf(tx *Tx, caller string) (out []access.Credential, err error) {
	rows, err := tx.Query(`SELECT doc FROM credential WHERE caller = $1`, caller)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c, err := scanCredential(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// PutCredential implements access.CredentialStore.
func (db *DB) PutCredential(ctx context.Context, c access.Credential) error {
	return db.Write(ctx, func(tx *Tx) error { return putCredential(tx, c) })
}

func putCredential(tx *Tx, c access.Credential) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO credential (hash, used_as, caller, expires, doc) VALUES ($1, $2, $3, $4, $5)`,
		c.Hash[:], string(c.Use), c.Caller, Millis(c.Expires), string(doc))
	return err
}

// Credential implements access.CredentialStore.
func (db *DB) Credential(ctx context.Context, hash [32]byte) (access.Credential, error) {
	return scanCredential(db.Read().QueryRowContext(ctx, `SELECT doc FROM credential WHERE hash = $1`, hash[:]))
}

// TakeCredential implements access.CredentialStore.
func (db *DB) TakeCredential(ctx context.Context, hash [32]byte) (c access.Credential, err error) {
	err = db.Write(ctx, func(tx *Tx) error {
		c, err = scanCredential(tx.QueryRow(`DELETE FROM credential WHERE hash = $1 RETURNING doc`, hash[:]))
		return err
	})
	return c, err
}

func scanCredential(row scanner) (access.Credential, error) {
	var doc string
	err := row.Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return access.Credential{}, access.ErrNoCredential
	}
	if err != nil {
		return access.Credential{}, err
	}
	var c access.Credential
	if err := json.Unmarshal([]byte(doc), &c); err != nil {
		return access.Credential{}, fmt.Errorf("stored credential: %w", err)
	}
	return c, nil
}

// RevokeCaller implements access.CredentialStore.
func (db *DB) RevokeCaller(ctx context.Context, caller string, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM credential WHERE caller = $1`, caller); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Record implements access.Audit. A denial is a row before the caller hears of it. What was allowed and changes something has
// its fact in the ledger, with the caller as actor, in the same transaction as the change; what was allowed and only reads is
// not kept.
func (db *DB) Record(ctx context.Context, d access.Decision) error {
	if d.Allowed {
		return nil
	}
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO audit (at, caller, action, resource, product, allowed) VALUES ($1, $2, $3, $4, $5, 0)`,
			Millis(d.At), d.Caller, string(d.Action), d.Resource.Type+"/"+d.Resource.ID, d.Resource.Product)
		return err
	})
}
