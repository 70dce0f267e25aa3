package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/ledger"
)

const memberColumns = `SELECT rev, doc FROM member`

func scanMember(row scanner) (signin.Member, error) {
	var m signin.Member
	var doc string
	err := row.Scan(&m.Rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return m, signin.ErrNoMember
	}
	if err != nil {
		return m, err
	}
	return m, decodeMember(&m, doc)
}

func decodeMember(m *signin.Member, doc string) error {
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.DisallowUnknownFields() // a limit that is not understood must not read as none
	if err := dec.Decode(m); err != nil {
		return fmt.Errorf("stored member: %w", err)
	}
	return nil
}

func putMember(tx *Tx, m signin.Member, known bool) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if !known {
		_, err = tx.Exec(`INSERT INTO member (id, kind, ended, rev, doc) VALUES ($1, $2, $3, 1, $4)`, m.ID, string(m.Kind), Millis(m.Ended), string(doc))
		return err
	}
	res, err := tx.Exec(`UPDATE member SET ended = $1, rev = rev + 1, doc = $2 WHERE id = $3 AND rev = $4`, Millis(m.Ended), string(doc), m.ID, m.Rev)
	if err != nil {
		return err
	}
	return one(res, signin.ErrMemberChanged)
}

// Member implements signin.MemberStore.
func (db *DB) Member(ctx context.Context, id string) (signin.Member, error) {
	return scanMember(db.Read().QueryRowContext(ctx, memberColumns+` WHERE id = $1`, id))
}

// Members implements signin.MemberStore.
func (db *DB) Members(ctx context.Context, after string, limit int) ([]signin.Member, error) {
	return collect(ctx, db, scanMember, memberColumns+` WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
}

// SaveMember implements signin.MemberStore.
func (db *DB) SaveMember(ctx context.Context, m signin.Member, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := putMember(tx, m, true); err != nil {
			return err
		}
		if !m.Ended.IsZero() {
			for _, table := range []string{
				`DELETE FROM credential WHERE caller = $1`, `DELETE FROM passkey WHERE member = $1`, `DELETE FROM identity WHERE member = $1`,
				`DELETE FROM saved_query WHERE member = $1`,
			} {
				if _, err := tx.Exec(table, m.ID); err != nil {
					return err
				}
			}
		}
		return tx.Append(facts...)
	})
}

// PutPasskey implements signin.MemberStore.
func (db *DB) PutPasskey(ctx context.Context, p signin.Passkey, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO passkey (id, member, label, created, used, data) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			p.ID, p.Member, p.Label, Millis(p.Created), Millis(p.Used), p.Data)
		if err != nil {
			return err
		}
		if err := one(res, signin.ErrPasskeyExists); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const passkeyColumns = `SELECT id, member, label, created, used, data FROM passkey` //nolint:gosec // names of columns

func scanPasskey(row scanner) (signin.Passkey, error) {
	var p signin.Passkey
	var created, used int64
	err := row.Scan(&p.ID, &p.Member, &p.Label, &created, &used, &p.Data)
	if errors.Is(err, sql.ErrNoRows) {
		return p, signin.ErrNoPasskey
	}
	p.Created, p.Used = Time(created), Time(used)
	return p, err
}

// Passkeys implements signin.MemberStore.
func (db *DB) Passkeys(ctx context.Context, member string) ([]signin.Passkey, error) {
	return collect(ctx, db, scanPasskey, passkeyColumns+` WHERE member = $1 ORDER BY created, id`, member)
}

// UsePasskey implements signin.MemberStore.
func (db *DB) UsePasskey(ctx context.Context, id []byte, use func(signin.Passkey) (signin.Passkey, error)) error {
	return db.Write(ctx, func(tx *Tx) error {
		p, err := scanPasskey(tx.QueryRow(passkeyColumns+` WHERE id = $1`, id))
		if err != nil {
			return err
		}
		if p, err = use(p); err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE passkey SET used = $1, data = $2 WHERE id = $3`, Millis(p.Used), p.Data, id)
		return err
	})
}

// DropPasskey implements signin.MemberStore.
func (db *DB) DropPasskey(ctx context.Context, member string, id []byte, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM passkey WHERE id = $1 AND member = $2`, id, member)
		if err != nil {
			return err
		}
		if err := one(res, signin.ErrNoPasskey); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}
