package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/ledger"
)

// replayer applies to the state what a fact tells, as far as its data suffice; done is false when there was nothing to apply it to.
// It may find that it was applied already.
type replayer func(tx *Tx, f ledger.Fact) (done bool, err error)

// replayers are the kinds of fact from which state is made again: those that a device or the world would be fooled by if they were
// forgotten, and those that cost nothing. What follows from a fact by the table of reactions follows again by itself.
var replayers = map[ledger.Kind]replayer{
	ledger.KindKeyCreated:          replayKey,
	ledger.KindKeyRetired:          replayKeyRetired,
	ledger.KindCACreated:           replayCA,
	ledger.KindCAEnded:             replayCAEnded,
	ledger.KindCeremonyHeld:        replayCeremony,
	ledger.KindProductCreated:      replayProduct,
	ledger.KindAccessChanged:       replayAccess,
	ledger.KindEnrolmentChanged:    replayEnrolment,
	ledger.KindBundleDueChanged:    replayBundleDue,
	ledger.KindIsolationChanged:    replayIsolation,
	ledger.KindSupplyPolicyChanged: replaySupplyPolicy,
	ledger.KindApproverBound:       replayApprover,
	ledger.KindSupplierChanged:     replaySupplier,
	ledger.KindPartChanged:         replayPart,
	ledger.KindLotReceived:         replayLot,
	ledger.KindLotCertified:        replayLot,
	ledger.KindLotRecalled:         replayLot,
	ledger.KindLotCleared:          replayLot,
	ledger.KindOrderLotsNamed:      replayLotsNamed,
	ledger.KindOrderLotsTaken:      replayLotsTaken,
	ledger.KindSupplyDecided:       replaySupplyDecision,
	ledger.KindSupplySummary:       replaySupplySummary,
	ledger.KindSchemaChanged:       replaySchema,
	ledger.KindBundlePublished:     replayBundle,
	ledger.KindReleaseProposed:     replayRelease,
	ledger.KindReleaseApproved:     replayApproval,
	ledger.KindReleaseSUITSigned:   replaySUIT,
	ledger.KindReleasePublished:    replayPublication,
	ledger.KindReleaseWithdrawn:    replayWithdrawal,
	ledger.KindReleaseClosed:       replayWithdrawal,
	ledger.KindArtifactsPruned:     replayPruning,
	ledger.KindCommandIssued:       replayCommand,
	ledger.KindCommandCancelled:    replayCancel,
	ledger.KindWarrantIssued:       replayWarrant,
	ledger.KindOrderCreated:        replayOrder,
	ledger.KindOrderClosed:         replayOrderClosed,
	ledger.KindOrderCancelled:      replayOrderClosed,
	ledger.KindOrderAbandoned:      replayOrderClosed,
	ledger.KindOrderMastered:       replayMaster,
	ledger.KindDeskAdded:           replayDesk,
	ledger.KindDeskRemoved:         replayDeskRemoved,
	ledger.KindRetireOrdered:       replayRetirement,

	ledger.KindRolloutPaused:     replayRollout,
	ledger.KindRolloutHalted:     replayRollout,
	ledger.KindRolloutAborted:    replayRollout,
	ledger.KindRolloutRolledBack: replayRollout,
	ledger.KindRolloutCompleted:  replayRollout,
	ledger.KindRolloutStarted:    replayRollout,
	ledger.KindWaveStarted:       replayRollout,
	ledger.KindTrancheIssued:     replayRollout,
	ledger.KindWaveSucceeded:     replayRollout,
	ledger.KindRolloutResumed:    replayRollout,
	ledger.KindRolloutJoined:     replayRollout,
	ledger.KindRolloutShut:       replayRollout,
	ledger.KindRolloutPaced:      replayPaced,

	ledger.KindDeviceProvisioned: replayProvisioned,
	ledger.KindDeviceOnboarded:   replayState,
	ledger.KindDeviceState:       replayState,
	ledger.KindDeviceQuarantined: replayState,
	ledger.KindDeviceReleased:    replayState,
	ledger.KindDeviceGrouped:     replayGroup,
	ledger.KindDeviceForgotten:   replayForgotten,
	ledger.KindDeviceReplaced:    replayReplaced,
	ledger.KindDeviceRekeyed:     replayRekeyed,
	ledger.KindDeviceAttestKey:   replayAttestKey,
	ledger.KindVoucherRevoked:    replayVoucherEnded,
	ledger.KindForeignTrusted:    replayForeignCA,
	ledger.KindForeignEnded:      replayForeignEnded,
	ledger.KindDeviceImported:    replayImported,
	ledger.KindLegacyChanged:     replayLegacy,
	ledger.KindDeviceLogAnchored: replayAnchor,
	ledger.KindDeviceLogForked:   replayFork,

	ledger.KindOwnerCreated:      replayOwner,
	ledger.KindOwnerEnded:        replayOwnerEnded,
	ledger.KindDeviceClaimed:     replayClaimed,
	ledger.KindDeviceTransferred: replayTransferred,
	ledger.KindTransferGivenUp:   replayTransferGivenUp,
	ledger.KindTransferDone:      replayTransferDone,
	ledger.KindRecallIssued:      replayRecall,

	ledger.KindCertIssued:             replayCert,
	ledger.KindCertRevoked:            replayRevocation,
	ledger.KindVerdict:                replayVerdict,
	ledger.KindTelemetryKeysDestroyed: replayKeysDestroyed,
	ledger.KindRetireWiped:            replayWiped,
	ledger.KindRetireWrittenOff:       replayWrittenOff,
	ledger.KindRetireDisposed:         replayDisposed,
}

// Replayed counts what became of the facts of a kind.
type Replayed struct {
	Facts   int `json:"facts"`   // that were missing
	Kept    int `json:"kept"`    // that were here without their place: their state is here as well
	Applied int `json:"applied"` // whose state was made again
}

// Replay gives entries of a verified log, of which this database has the first ones only, the places they had: in one transaction
// with the state that follows from them. A fact that waits here for a place gets the one it had. Where the log here has another
// size than first, or another fact took the place of one of the entries, nothing is done.
func (db *DB) Replay(ctx context.Context, log ledger.Log, first uint64, entries [][]byte, into map[ledger.Kind]Replayed) error {
	counts := map[ledger.Kind]Replayed{}
	err := db.Write(ctx, func(tx *Tx) error {
		state, err := tx.lockState(log)
		if err != nil {
			return err
		}
		if state.Size != first {
			return fmt.Errorf("%w: the %s log has %d entries, to be continued from %d: another program writes it", ledger.ErrForked, log, state.Size, first)
		}
		pending := make([]ledger.Pending, 0, len(entries))
		for i, e := range entries {
			id, err := tx.replay(log, e, counts)
			if err != nil {
				return fmt.Errorf("%s entry %d: %w", log, first+uint64(i), err)
			}
			pending = append(pending, ledger.Pending{ID: id, Data: e})
		}
		failpoint.Hit("replay.applied")
		p, err := ledger.Place(state, pending, func(level int, index uint64) ([]byte, error) {
			var data []byte
			err := tx.QueryRow(`SELECT data FROM tile WHERE log = $1 AND level = $2 AND idx = $3`, string(log), level, int64(index)).Scan(&data)
			if errors.Is(err, sql.ErrNoRows) {
				return nil, nil
			}
			return data, err
		})
		if err != nil {
			return err
		}
		return tx.putPlacement(log, state, pending, p)
	})
	if err != nil {
		return err
	}
	for kind, c := range counts {
		into[kind] = Replayed{into[kind].Facts + c.Facts, into[kind].Kept + c.Kept, into[kind].Applied + c.Applied}
	}
	return nil
}

// replay gives the row of an entry, which it makes, with what follows from it, when there is none.
func (tx *Tx) replay(log ledger.Log, entry []byte, counts map[ledger.Kind]Replayed) (id int64, err error) {
	f, err := ledger.Decode(log, entry)
	if err != nil {
		return 0, err
	}
	c := counts[f.Kind]
	defer func() { counts[f.Kind] = c }()
	var in string
	var idx sql.NullInt64
	var data []byte
	err = tx.QueryRow(`SELECT id, log, idx, data FROM entry WHERE uid = $1`, f.UID[:]).Scan(&id, &in, &idx, &data)
	switch {
	case err == nil && (in != string(log) || idx.Valid || !bytes.Equal(data, entry)):
		return 0, fmt.Errorf("%w: the database has the fact %x as another one, or at another place; it is of another instance, or was changed",
			ledger.ErrForked, f.UID)
	case err == nil:
		c.Kept++
		return id, nil
	case !errors.Is(err, sql.ErrNoRows):
		return 0, err
	}
	c.Facts++
	if do := replayers[f.Kind]; do != nil {
		done, err := do(tx, f)
		if err != nil {
			return 0, fmt.Errorf("what follows from %s of %s: %w", f.Kind, f.Subject, err)
		}
		if done {
			c.Applied++
		}
	}
	err = tx.scan(`INSERT INTO entry (log, uid, kind, subject, at, data) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
		[]any{string(log), f.UID[:], string(f.Kind), f.Subject, f.At.UnixMilli(), entry}, &id)
	return id, err
}

// there says whether a row is.
func (tx *Tx) there(query string, args ...any) (bool, error) {
	var n int
	err := tx.QueryRow(query, args...).Scan(&n)
	return n > 0, err
}

// did turns the outcome of a statement into whether it changed something.
func did(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// blobs gives a column of bytes.
func blobs(tx *Tx, query string, args ...any) (out [][]byte, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, rows.Err()
}
