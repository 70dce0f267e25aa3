package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

// replayOwner puts in an owner. What it is called was private, and is not in the log.
func replayOwner(tx *Tx, f ledger.Fact) (bool, error) {
	doc, err := json.Marshal(owner.Owner{ID: f.Subject, Name: f.Subject, Created: f.At})
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO owner (id, ended, rev, doc) VALUES ($1, 0, 1, $2) ON CONFLICT DO NOTHING`, f.Subject, string(doc)))
}

func replayOwnerEnded(tx *Tx, f ledger.Fact) (bool, error) {
	o, err := scanOwner(tx.QueryRow(ownerColumns+` WHERE o.id = $1`, f.Subject))
	if errors.Is(err, owner.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o.Ended = f.At
	doc, err := json.Marshal(o)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE owner SET ended = $1, rev = rev + 1, doc = $2 WHERE id = $3`, Millis(f.At), string(doc), f.Subject))
}

// replayClaimed begins a time of ownership. Whose it is was private: until somebody who knows claims it again, the maker's people alone
// see the device, and its code is used up.
func replayClaimed(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		Device string `json:"device"`
		Period int    `json:"period"`
		Digest []byte `json:"owner_digest"`
		How    string `json:"how"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, c.Device); err != nil || !known {
		return false, err
	}
	doc, err := json.Marshal(owner.Period{Device: c.Device, Number: c.Period, Digest: c.Digest, How: c.How, From: f.At})
	if err != nil {
		return false, err
	}
	done, err := did(tx.Exec(`INSERT INTO ownership (device_id, period, owner, began, ended, waits, rev, doc) VALUES ($1, $2, '', $3, 0, 0, 1, $4)
		ON CONFLICT DO NOTHING`, c.Device, c.Period, Millis(f.At), string(doc)))
	if err != nil || !done {
		return done, err
	}
	if _, err := replayGroup(tx, f); err != nil {
		return false, err
	}
	if _, err := tx.Exec(`DELETE FROM claim_code WHERE device_id = $1`, c.Device); err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE device SET owned_since = $1 WHERE id = $2`, Millis(f.At), c.Device))
}

// replayTransferred shuts an owner out again, and destroys again what a backup has brought back. A device that had not let go by then is
// told by a new transfer.
func replayTransferred(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		Device     string            `json:"device"`
		Period     int               `json:"period"`
		Kind       owner.Kind        `json:"kind"`
		Legitimacy device.Legitimacy `json:"legitimacy_to"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	if known, err := replayGroup(tx, f); err != nil || !known {
		return false, err
	}
	ps, err := texts(tx, `SELECT doc FROM ownership WHERE device_id = $1 AND period = $2 AND ended = 0`, c.Device, c.Period)
	if err != nil {
		return false, err
	}
	for _, doc := range ps {
		var p owner.Period
		if err := json.Unmarshal([]byte(doc), &p); err != nil {
			return false, err
		}
		p.Until, p.End = f.At, c.Kind
		out, err := json.Marshal(p)
		if err != nil {
			return false, err
		}
		if _, err := tx.Exec(`UPDATE ownership SET ended = $1, waits = 0, rev = rev + 1, doc = $2 WHERE device_id = $3 AND period = $4`,
			Millis(f.At), string(out), c.Device, c.Period); err != nil {
			return false, err
		}
	}
	if _, err := tx.Exec(`DELETE FROM claim_code WHERE device_id = $1`, c.Device); err != nil {
		return false, err
	}
	if err := forgetOwned(tx, c.Device, f.At); err != nil {
		return false, err
	}
	done, err := did(tx.Exec(`UPDATE device SET owned_since = 0, legitimacy = $1 WHERE id = $2`, string(c.Legitimacy), c.Device))
	if err != nil || !done {
		return done, err
	}
	return true, stir(tx, c.Device)
}

// replayTransferGivenUp lets the owner's time go on. Which group the device was in was private: until somebody puts it there again, the
// maker's people alone see it.
func replayTransferGivenUp(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		Device string `json:"device"`
		Period int    `json:"period"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, c.Device); err != nil || !known {
		return false, err
	}
	t, err := scanTransfer(tx.QueryRow(transferColumns+` WHERE device_id = $1 AND open = 1`, c.Device))
	if err == nil {
		t.GivenUp, t.Done = f.At, f.At
		err = saveTransfer(tx, t)
	}
	if err != nil && !errors.Is(err, owner.ErrNotFound) {
		return false, err
	}
	if err := reopenStreams(tx, c.Device); err != nil || c.Period == 0 {
		return true, err
	}
	p, err := scanPeriod(tx.QueryRow(periodColumns+` WHERE device_id = $1 AND period = $2 AND ended > 0`, c.Device, c.Period))
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	p.Until, p.End = time.Time{}, ""
	if err := savePeriod(tx, p); err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE device SET owned_since = $1 WHERE id = $2`, Millis(p.From), c.Device))
}

// replayTransferDone lets data in again that was sealed since.
func replayTransferDone(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		Device string `json:"device"`
		Epoch  uint64 `json:"epoch"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, c.Device); err != nil || !known {
		return false, err
	}
	t, err := scanTransfer(tx.QueryRow(transferColumns+` WHERE device_id = $1 AND open = 1`, c.Device))
	if err == nil {
		t.LetGo, t.Done = true, f.At
		err = saveTransfer(tx, t)
	}
	if err != nil && !errors.Is(err, owner.ErrNotFound) {
		return false, err
	}
	return true, endEpochs(tx, c.Device, c.Epoch)
}

func replayRecall(tx *Tx, f ledger.Fact) (bool, error) {
	var r owner.Recall
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return false, err
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO recall (id, product, made, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, r.ID, r.Product, Millis(r.Made), string(doc)))
}

// replayMark puts in a mark that was made, or takes away one that was lifted. Why a device was marked as stolen was private.
func replayMark(tx *Tx, id, recall string, from, to device.Legitimacy, at time.Time) error {
	if recall == "" && from != device.Stolen && to != device.Stolen {
		return nil
	}
	marks, err := saidOf(tx, id)
	if err != nil {
		return err
	}
	was := from
	for _, m := range marks {
		if was = m.Was; m.Recall == recall {
			_, err := tx.Exec(`DELETE FROM device_mark WHERE device_id = $1 AND recall = $2`, id, recall)
			return err
		}
	}
	if recall == "" && to != device.Stolen {
		return nil
	}
	return putMark(tx, owner.Mark{Device: id, Recall: recall, Was: was, At: at}, false)
}
