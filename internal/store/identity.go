package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/ledger"
)

const identityColumns = `SELECT member, issuer, subject, email, created, used FROM identity`

func scanIdentity(row scanner) (signin.Identity, error) {
	var i signin.Identity
	var created, used int64
	err := row.Scan(&i.Member, &i.Issuer, &i.Subject, &i.Email, &created, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return i, signin.ErrNoIdentity
	}
	i.Created, i.Used = Time(created), Time(used)
	return i, err
}

// identityOf finds the one of an assertion: by its subject, else the one that waits for its email.
func identityOf(tx *Tx, issuer, subject, email string) (signin.Identity, error) {
	var i signin.Identity
	err := signin.ErrNoIdentity
	if subject != "" {
		i, err = scanIdentity(tx.QueryRow(identityColumns+` WHERE issuer = $1 AND subject = $2`, issuer, subject))
	}
	if errors.Is(err, signin.ErrNoIdentity) && email != "" {
		i, err = scanIdentity(tx.QueryRow(identityColumns+` WHERE issuer = $1 AND email = $2 AND subject = ''`, issuer, email))
	}
	return i, err
}

// PutIdentity implements signin.IdentityStore.
func (db *DB) PutIdentity(ctx context.Context, i signin.Identity, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		had, err := identityOf(tx, i.Issuer, i.Subject, i.Email)
		if err == nil && had.Member != i.Member {
			return signin.ErrIdentityTaken
		}
		if err != nil && !errors.Is(err, signin.ErrNoIdentity) {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM identity WHERE member = $1 AND issuer = $2`, i.Member, i.Issuer); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO identity (member, issuer, subject, email, created, used) VALUES ($1, $2, $3, $4, $5, $6)`,
			i.Member, i.Issuer, i.Subject, i.Email, Millis(i.Created), Millis(i.Used)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// UseIdentity implements signin.IdentityStore.
func (db *DB) UseIdentity(ctx context.Context, a signin.Assertion, at time.Time, pinned func(signin.Identity) (ledger.Fact, error),
) (i signin.Identity, m signin.Member, err error) {
	err = db.Write(ctx, func(tx *Tx) error {
		if i, err = identityOf(tx, a.Issuer, a.Subject, a.Email); err != nil {
			return err
		}
		if m, err = scanMember(tx.QueryRow(memberColumns+` WHERE id = $1 AND ended = 0`, i.Member)); errors.Is(err, signin.ErrNoMember) {
			return signin.ErrNoIdentity
		}
		if err != nil {
			return err
		}
		first := i.Subject == ""
		i.Subject, i.Used = a.Subject, at
		if _, err := tx.Exec(`UPDATE identity SET subject = $1, used = $2 WHERE member = $3 AND issuer = $4`, i.Subject, Millis(at), i.Member, i.Issuer); err != nil || !first {
			return err
		}
		f, err := pinned(i)
		if err != nil {
			return err
		}
		return tx.Append(f)
	})
	return i, m, err
}

// IdentitiesOf implements signin.IdentityStore.
func (db *DB) IdentitiesOf(ctx context.Context, member string) ([]signin.Identity, error) {
	return collect(ctx, db, scanIdentity, identityColumns+` WHERE member = $1 ORDER BY issuer`, member)
}

// DropIdentity implements signin.IdentityStore.
func (db *DB) DropIdentity(ctx context.Context, member, issuer string, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM identity WHERE member = $1 AND issuer = $2`, member, issuer)
		if err != nil {
			return err
		}
		if err := one(res, signin.ErrNoIdentity); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}
