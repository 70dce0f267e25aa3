package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Vault seals small secrets under a key that is not in the database.
type Vault interface {
	Seal(label string, plain []byte) ([]byte, error)
	Open(label string, sealed []byte) ([]byte, error)
}

// KeepPrivate gives the vault of the subjects' keys. It must be called before the first write; without one, facts with a private part are
// refused.
func (db *DB) KeepPrivate(v Vault) { db.vault = v }

func privateLabel(subject string) string { return "private " + subject }

// seal keeps a fact's private part beside the log and gives the commitment to it; nil when there is none.
func (tx *Tx) seal(f ledger.Fact) ([]byte, error) {
	if len(f.Private) == 0 {
		return nil, nil
	}
	key, err := tx.privateKey(f.Subject)
	if err != nil {
		return nil, fmt.Errorf("fact %s about %s: %w", f.Kind, f.Subject, err)
	}
	s, err := ledger.Seal(key, f.UID, f.Private)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`INSERT INTO private (uid, subject, salt, data) VALUES ($1, $2, $3, $4)`, f.UID[:], f.Subject, s.Salt, s.Ciphertext); err != nil {
		return nil, err
	}
	return s.Commitment(), nil
}

// privateKey gives the subject's key, and makes it when there is none.
func (tx *Tx) privateKey(subject string) ([]byte, error) {
	vault := tx.w.db.vault
	if vault == nil {
		return nil, errors.New("it has a private part, and there is no vault to keep the key in")
	}
	var sealed []byte
	err := tx.QueryRow(`SELECT secret FROM private_key WHERE subject = $1`, subject).Scan(&sealed)
	if err == nil {
		return vault.Open(privateLabel(subject), sealed)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	key := make([]byte, ledger.PrivateKeySize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	if sealed, err = vault.Seal(privateLabel(subject), key); err != nil {
		return nil, err
	}
	_, err = tx.Exec(`INSERT INTO private_key (subject, secret) VALUES ($1, $2)`, subject, sealed)
	return key, err
}

// kept is a private part as rows have it: all NULL when there is none, or it was forgotten.
type kept struct{ subject, salt, data, secret []byte }

const keptColumns = `p.subject, p.salt, p.data, k.secret`

// keptJoins finds the private part of the entry e.
const keptJoins = ` LEFT JOIN private p ON p.uid = e.uid LEFT JOIN private_key k ON k.subject = p.subject`

// open gives what is private of f; nil when it was forgotten.
func (db *DB) open(f wire.Fact, k kept) ([]byte, error) {
	if len(f.Private) == 0 || k.data == nil || k.secret == nil {
		return nil, nil
	}
	if db.vault == nil {
		return nil, errors.New("there is no vault to open private parts with")
	}
	key, err := db.vault.Open(privateLabel(string(k.subject)), k.secret)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w: the vault has another key; restore the right one", k.subject, ledger.ErrPrivate)
	}
	out, err := ledger.Sealed{Salt: k.salt, Ciphertext: k.data}.Open(key, [16]byte(f.UID), f.Private)
	if err != nil {
		return nil, fmt.Errorf("fact %x: %w", f.UID, err)
	}
	return out, nil
}

// Private implements ledger.ReadStore.
func (db *DB) Private(ctx context.Context, f wire.Fact) ([]byte, error) {
	if len(f.Private) == 0 {
		return nil, nil
	}
	var k kept
	err := db.Read().QueryRowContext(ctx, `SELECT `+keptColumns+` FROM entry e`+keptJoins+` WHERE e.uid = $1`, f.UID).Scan(&k.subject, &k.salt, &k.data, &k.secret)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, db.dialect.Explain(err)
	}
	return db.open(f, k)
}
