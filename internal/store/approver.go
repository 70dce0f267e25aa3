package store

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
)

// Approvers implements release.Store.
func (s *Releases) Approvers(ctx context.Context, product string) ([]release.Approver, error) {
	return collect(ctx, s.db, func(row scanner) (a release.Approver, err error) {
		var since int64
		err = row.Scan(&a.Key, &a.Member, &since, &a.By)
		a.Since = Time(since)
		return a, err
	}, `SELECT kid, member, since, set_by FROM approver WHERE product = $1 ORDER BY kid`, product)
}

// PutApprover implements release.Store.
func (s *Releases) PutApprover(ctx context.Context, product string, a release.Approver, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := setApprover(tx, product, a); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// setApprover keeps a key that is nobody's any more, so that what was bound once stays so.
func setApprover(tx *Tx, product string, a release.Approver) (bool, error) {
	return did(tx.Exec(`INSERT INTO approver (product, kid, member, since, set_by) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (product, kid) DO UPDATE SET member = excluded.member, since = excluded.since, set_by = excluded.set_by`, product, a.Key, a.Member, Millis(a.Since), a.By))
}

// IsPerson implements release.Store.
func (s *Releases) IsPerson(ctx context.Context, member string) (bool, error) {
	m, err := s.db.Member(ctx, member)
	if errors.Is(err, signin.ErrNoMember) {
		return false, nil
	}
	return err == nil && m.Kind == access.Person && m.Ended.IsZero(), err
}

// replayApprover says again whose a key is: forgotten, anybody's would count.
func replayApprover(tx *Tx, f ledger.Fact) (bool, error) {
	var c release.ApproverChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return setApprover(tx, f.Subject, release.Approver{Key: c.Key, Member: c.Member, Since: f.At, By: f.Actor})
}
