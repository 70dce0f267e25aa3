package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/ledger"
)

func scanProposal(row scanner) (proposal.Proposal, error) {
	var p proposal.Proposal
	var rev int64
	var doc string
	err := row.Scan(&rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return p, proposal.ErrNotFound
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(doc), &p); err != nil {
		return p, fmt.Errorf("stored proposal: %w", err)
	}
	p.Rev = rev
	return p, nil
}

// PutProposal implements proposal.Store.
func (db *DB) PutProposal(ctx context.Context, p proposal.Proposal, facts ...ledger.Fact) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO proposal (id, place, state, proposer, expires, rev, doc) VALUES ($1, $2, $3, $4, $5, 1, $6)`,
			p.ID, access.Join(p.Resource.Product, p.Resource.Group), string(p.State), p.By, Millis(p.Expires), string(doc)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// SaveProposal implements proposal.Store.
func (db *DB) SaveProposal(ctx context.Context, p proposal.Proposal, facts ...ledger.Fact) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE proposal SET state = $1, rev = rev + 1, doc = $2 WHERE id = $3 AND rev = $4`, string(p.State), string(doc), p.ID, p.Rev)
		if err != nil {
			return err
		}
		if err := one(res, proposal.ErrChanged); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const proposalColumns = `SELECT rev, doc FROM proposal`

// Proposal implements proposal.Store.
func (db *DB) Proposal(ctx context.Context, id string) (proposal.Proposal, error) {
	return scanProposal(db.Read().QueryRowContext(ctx, proposalColumns+` WHERE id = $1`, id))
}

// Proposals implements proposal.Store.
func (db *DB) Proposals(ctx context.Context, q proposal.Query) ([]proposal.Proposal, error) {
	scope, err := listOf(q.Scope)
	if err != nil {
		return nil, err
	}
	var asked []string
	if q.At != "" {
		asked = []string{q.At}
	}
	at, err := listOf(asked)
	if err != nil {
		return nil, err
	}
	return collect(ctx, db, scanProposal, proposalColumns+` WHERE (`+placeInScope("place", 1)+` OR proposer = $2 AND `+placeInScope("place", 3)+`)
		AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5`, scope, q.By, at, q.Before, atMost(q.Limit))
}

// OpenProposals implements proposal.Store.
func (db *DB) OpenProposals(ctx context.Context, by string, now time.Time) (n int, err error) {
	err = db.Read().QueryRowContext(ctx, `SELECT count(*) FROM proposal WHERE proposer = $1 AND state = 'open' AND expires > $2`, by, Millis(now)).Scan(&n)
	return n, err
}
