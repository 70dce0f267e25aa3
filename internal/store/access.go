package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/ledger"
)

// IssueCredential implements signin.CredentialStore.
func (db *DB) IssueCredential(ctx context.Context, m signin.Member, c signin.Credential, back bool, fact func(again bool) (ledger.Fact, error)) error {
	return db.Write(ctx, func(tx *Tx) error {
		had, err := scanMember(tx.QueryRow(memberColumns+` WHERE id = $1`, m.ID))
		known := err == nil
		if err != nil && !errors.Is(err, signin.ErrNoMember) {
			return err
		}
		if known && had.Kind != m.Kind {
			return signin.ErrOtherKind
		}
		if known && !had.Ended.IsZero() && !back {
			return signin.ErrEnded
		}
		f, err := fact(known)
		if err != nil {
			return err
		}
		if known {
			m.Created, m.Rev = had.Created, had.Rev
		}
		if err := putMember(tx, m, known); err != nil {
			return err
		}
		if err := putCredential(tx, c); err != nil {
			return err
		}
		return tx.Append(f)
	})
}

// PutCredential implements signin.CredentialStore.
func (db *DB) PutCredential(ctx context.Context, c signin.Credential, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := putCredential(tx, c); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

func putCredential(tx *Tx, c signin.Credential) error {
	res, err := tx.Exec(`INSERT INTO credential (hash, used_as, caller, begun_with, token, created, expires, verified) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT DO NOTHING`,
		c.Hash[:], string(c.Use), c.Caller, c.From, c.Token, Millis(c.Created), Millis(c.Expires), Millis(c.Verified))
	if err != nil {
		return err
	}
	return one(res, signin.ErrCredentialExists)
}

const credentialColumns = `c.hash, c.used_as, c.caller, c.begun_with, c.token, c.created, c.expires, c.verified` //nolint:gosec // names of columns

func scanCredential(row scanner, more ...any) (signin.Credential, error) {
	var c signin.Credential
	var hash []byte
	var created, expires, verified int64
	err := row.Scan(append([]any{&hash, &c.Use, &c.Caller, &c.From, &c.Token, &created, &expires, &verified}, more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return c, signin.ErrNoCredential
	}
	if err == nil && len(hash) != len(c.Hash) {
		err = fmt.Errorf("stored credential: hash of %d bytes", len(hash))
	}
	if err != nil {
		return c, err
	}
	c.Hash, c.Created, c.Expires, c.Verified = [32]byte(hash), Time(created), Time(expires), Time(verified)
	return c, nil
}

// Credential implements signin.CredentialStore.
func (db *DB) Credential(ctx context.Context, hash [32]byte) (signin.Credential, signin.Member, error) {
	return credentialAndMember(db.Read().QueryRowContext(ctx, `SELECT `+credentialColumns+`, m.rev, m.doc
		FROM credential c JOIN member m ON m.id = c.caller WHERE c.hash = $1 AND m.ended = 0`, hash[:]))
}

func credentialAndMember(row scanner) (c signin.Credential, m signin.Member, err error) {
	var doc string
	if c, err = scanCredential(row, &m.Rev, &doc); err != nil {
		return c, m, err
	}
	return c, m, decodeMember(&m, doc)
}

// TakeCredential implements signin.CredentialStore.
func (db *DB) TakeCredential(ctx context.Context, hash [32]byte) (c signin.Credential, m signin.Member, err error) {
	err = db.Write(ctx, func(tx *Tx) error {
		c, m, err = credentialAndMember(tx.QueryRow(`SELECT `+credentialColumns+`, m.rev, m.doc
			FROM credential c JOIN member m ON m.id = c.caller WHERE c.hash = $1 AND m.ended = 0`, hash[:]))
		if err != nil {
			return err
		}
		_, err = tx.Exec(`DELETE FROM credential WHERE hash = $1`, hash[:])
		return err
	})
	return c, m, err
}

// VerifyCredential implements signin.CredentialStore.
func (db *DB) VerifyCredential(ctx context.Context, hash [32]byte, at time.Time) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE credential SET verified = $1 WHERE hash = $2 AND used_as = 'session'`, Millis(at), hash[:])
		if err != nil {
			return err
		}
		return one(res, signin.ErrNoCredential)
	})
}

// CredentialsOf implements signin.CredentialStore.
func (db *DB) CredentialsOf(ctx context.Context, member string, now time.Time) ([]signin.Credential, error) {
	return collect(ctx, db, func(row scanner) (signin.Credential, error) { return scanCredential(row) },
		`SELECT `+credentialColumns+` FROM credential c WHERE c.caller = $1 AND c.expires > $2 ORDER BY c.created DESC, c.hash`, member, Millis(now))
}

// RevokeCredential implements signin.CredentialStore.
func (db *DB) RevokeCredential(ctx context.Context, member, id string, facts ...ledger.Fact) error {
	prefix, err := hex.DecodeString(id)
	if err != nil || len(prefix) != 8 {
		return signin.ErrNoCredential
	}
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM credential WHERE caller = $1 AND substr(hash, 1, 8) = $2`, member, prefix)
		if err != nil {
			return err
		}
		if err := one(res, signin.ErrNoCredential); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM credential WHERE caller = $1 AND token = $2`, member, id); err != nil {
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
	return db.Write(once.Without(ctx), func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO audit (at, caller, action, resource, product, allowed) VALUES ($1, $2, $3, $4, $5, 0)`,
			Millis(d.At), d.Caller, string(d.Action), d.Resource.Type+"/"+d.Resource.ID, d.Resource.Product)
		return err
	})
}
