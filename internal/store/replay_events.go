package store

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// replayProvisioned registers a device from its production record, and takes its ticket, chip and keys.
func replayProvisioned(tx *Tx, f ledger.Fact) (bool, error) {
	parsed, err := wire.Parse1(wire.TypeRecord, f.Data)
	if err != nil {
		return false, err
	}
	r, err := wire.DecodeRecord(parsed.Payload)
	if err != nil {
		return false, err
	}
	o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, r.Order))
	if errors.Is(err, factory.ErrNotFound) || r.Outcome != wire.Made || r.Keys == nil || r.Chip == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, r.Device); err != nil || known {
		return false, err
	}
	rel, err := hex.DecodeString(o.Release)
	if err != nil {
		return false, err
	}
	identity, attestKey, hash := sha256.Sum256(r.Keys.IDevID), sha256.Sum256(r.Keys.Attest), wire.RecordHash(f.Data)
	if _, err := tx.Exec(`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope)
		VALUES ($1, $2, $3, $4, $5, $6, 'made', $7, $8, $9, $10) ON CONFLICT DO NOTHING`, r.Order, int64(r.Seq), hash[:], r.Prev,
		int64(r.Ticket), r.Device, r.Chip.ChipUID, identity[:], attestKey[:], f.Data); err != nil {
		return false, err
	}
	if err := putProvisioned(tx, ProvisionedRow{
		ID: r.Device, Product: o.Product, Hardware: o.Hardware, Order: o.ID, Station: o.Station, At: time.Unix(int64(r.Time), 0).UTC(),
		Identity: identity[:], AttestKey: r.Keys.Attest, KeyOrigin: r.Keys.Origin, Virtual: r.Chip.Virtual, Release: rel,
		Version: o.Version, Bundle: o.Bundle,
	}); err != nil {
		return false, err
	}
	_, err = tx.Exec(`UPDATE device SET restored = $1 WHERE id = $2`, Millis(f.At), r.Device) // what it was told since is not known here
	return err == nil, err
}

// replayState takes a device where it was, whatever led there.
func replayState(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		device.StateChange
		Legitimacy device.Legitimacy `json:"legitimacy_to"`
		Was        device.Legitimacy `json:"legitimacy_from"`
		Recall     string            `json:"recall"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	if c.Legitimacy != "" {
		if err := replayMark(tx, c.Device, c.Recall, c.Was, c.Legitimacy, f.At); err != nil {
			return false, err
		}
		done, err := did(tx.Exec(`UPDATE device SET legitimacy = $1 WHERE id = $2`, string(c.Legitimacy), c.Device))
		if err != nil || !done {
			return done, err
		}
		return true, stir(tx, c.Device)
	}
	if c.To == "" {
		return false, nil
	}
	done, err := did(tx.Exec(`UPDATE device SET state = $1, since = $2, guard_until = 0 WHERE id = $3`, string(c.To), Millis(f.At), c.Device))
	if err == nil && done {
		err = stir(tx, c.Device)
	}
	switch {
	case err == nil && done && c.Event == device.Clear:
		return true, absolve(tx, c.Device)
	case err == nil && done && c.To == device.Decommissioning:
		return true, replayOrdered(tx, c.Device)
	}
	return done, err
}

// replayOrdered puts in the retirement of a device: when its order was replayed, the device may not have been here yet.
func replayOrdered(tx *Tx, id string) error {
	orders, err := blobs(tx, `SELECT e.data FROM warrant w JOIN entry e ON e.subject = w.id AND e.kind = 'retire.ordered'
		WHERE w.product = (SELECT product FROM device WHERE id = $1) ORDER BY e.id`, id)
	if err != nil {
		return err
	}
	for _, entry := range orders {
		f, err := ledger.Decode(ledger.Control, entry)
		if err != nil {
			return err
		}
		if !bytes.Contains(f.Data, []byte(`"`+id+`"`)) {
			continue
		}
		if _, err := replayRetirement(tx, f); err != nil {
			return err
		}
	}
	return nil
}

// replayGroup takes a device out of its group: where it went is not in the log, and who had the old group should not have it any more.
func replayGroup(tx *Tx, f ledger.Fact) (bool, error) {
	var product, group string
	err := tx.QueryRow(`SELECT product, group_path FROM device WHERE id = $1`, f.Subject).Scan(&product, &group)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, path := range access.Paths(product, group)[1:] {
		if err := leaveGroup(tx, path, f.Subject); err != nil {
			return false, err
		}
	}
	if _, err := tx.Exec(`UPDATE device SET group_path = '' WHERE id = $1`, f.Subject); err != nil {
		return false, err
	}
	return true, stir(tx, f.Subject)
}

// replayForgotten destroys again what a backup has brought back.
func replayForgotten(tx *Tx, f ledger.Fact) (bool, error) {
	if _, err := replayGroup(tx, f); err != nil {
		return false, err
	}
	twin, kit, err := TwinRow(device.Twin{Forgotten: f.At})
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`UPDATE device SET doc = $1, kit = $2, last_seen = 0 WHERE id = $3`, twin, kit, f.Subject); err != nil {
		return false, err
	}
	for _, step := range []func(*Tx, string) error{forgetCommands, forgetProposals, forgetWords, forgetStreams, forgetPrivate} {
		if err := step(tx, f.Subject); err != nil {
			return false, err
		}
	}
	return replayKeysDestroyed(tx, f)
}

func replayReplaced(tx *Tx, f ledger.Fact) (bool, error) {
	var r struct{ Device, By string }
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return false, err
	}
	done, err := did(tx.Exec(`UPDATE device SET replaced_by = $1 WHERE id = $2`, r.By, r.Device))
	if err != nil || !done {
		return done, err
	}
	return did(tx.Exec(`UPDATE device SET replaces = $1 WHERE id = $2`, r.Device, r.By))
}

// replayAnchor brings the head of a device's own log to where it was: the device may have trimmed what came before, and would seem
// to have lost it.
func replayAnchor(tx *Tx, f ledger.Fact) (bool, error) {
	parsed, err := wire.Parse1(wire.TypeDeviceLog, f.Data)
	if err != nil {
		return false, err
	}
	b, err := wire.DecodeLogBatch(parsed.Payload)
	if err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, b.Device); err != nil || !known {
		return false, err
	}
	return replayLog(tx, b, f)
}

// replayLog moves a device's head as the batch in f did.
func replayLog(tx *Tx, b wire.LogBatch, f ledger.Fact) (bool, error) {
	var t devicelog.Tally
	err := tx.QueryRow(`SELECT gaps, lost, unexplained FROM device_log WHERE device = $1 AND seq < $2`, b.Device, b.Last).Scan(&t.Gaps, &t.Lost, &t.Unexplained)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	t = t.Add(b)
	return did(tx.Exec(`INSERT INTO device_log (device, seq, head, anchor, boots, counter, heard, gaps, lost, unexplained)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (device) DO UPDATE SET seq = excluded.seq, head = excluded.head,
		anchor = excluded.anchor, boots = excluded.boots, counter = excluded.counter, heard = excluded.heard, gaps = excluded.gaps,
		lost = excluded.lost, unexplained = excluded.unexplained WHERE device_log.seq < excluded.seq`,
		b.Device, b.Last, b.Head, f.UID[:], b.BootCount, b.Counter, Millis(f.At), t.Gaps, t.Lost, t.Unexplained))
}

func replayFork(tx *Tx, f ledger.Fact) (bool, error) {
	var k devicelog.Fork
	if err := json.Unmarshal(f.Data, &k); err != nil {
		return false, err
	}
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, k.Device); err != nil || !known || k.Code == devicelog.CodeSetBack {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO device_log_alarm (device, seq) VALUES ($1, $2) ON CONFLICT DO NOTHING`, k.Device, int64(k.Seq)))
}

// replayGrace is how long a certificate outlasts the one that replaces it (pki.Config.Grace).
const replayGrace = 24 * time.Hour

// replayCert puts in a certificate that was given out, so that it can be revoked and shown, and ends those it replaced. Which request
// it answered is not known: the same request again gets another one.
func replayCert(tx *Tx, f ledger.Fact) (bool, error) {
	cert, err := x509.ParseCertificate(f.Data)
	if err != nil {
		return false, err
	}
	key, issuer := pki.CertKey(cert), hex.EncodeToString(cert.AuthorityKeyId)
	if known, err := tx.there(`SELECT count(*) FROM cert WHERE key = $1`, key); err != nil || known {
		return false, err
	}
	c := pki.Issued{
		Key: key, Device: f.Subject, Role: profile.LDevID, Issuer: issuer, Serial: cert.SerialNumber.Text(16), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DER: cert.Raw,
	}
	if slices.ContainsFunc(cert.Policies, idevid.PolicyIDevID().Equal) { // given in the field, by a voucher
		c.Role = profile.IDevID
	}
	i := []*issue{{c: c, now: f.At, until: f.At.Add(replayGrace)}}
	if err := holding(tx, i); err != nil {
		return false, err
	}
	if err := supersede(tx, i[0]); err != nil {
		return false, err
	}
	return true, insertCerts(tx, i)
}

func replayRevocation(tx *Tx, f ledger.Fact) (bool, error) {
	var r pki.Revocation
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return false, err
	}
	if r.Scope == "" || r.ID == "" {
		return false, fmt.Errorf("a revocation of nothing")
	}
	more, err := taken(tx, []pki.Revocation{r})
	if err != nil {
		return false, err
	}
	_, err = revokeAll(tx, append(more, r))
	return err == nil, err
}

func replayVerdict(tx *Tx, f ledger.Fact) (bool, error) {
	var v attest.Verdict
	if err := json.Unmarshal(f.Data, &v); err != nil {
		return false, err
	}
	v.UID = f.UID
	if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, v.Device); err != nil || !known {
		return false, err
	}
	return true, PutVerdict(tx, v)
}

func replayKeysDestroyed(tx *Tx, f ledger.Fact) (bool, error) {
	if _, err := tx.Exec(`INSERT INTO stream_destroyed (device, at) VALUES ($1, $2) ON CONFLICT (device) DO NOTHING`, f.Subject, Millis(f.At)); err != nil {
		return false, err
	}
	_, err := tx.Exec(`DELETE FROM stream_epoch WHERE device = $1`, f.Subject)
	return err == nil, err
}

// replayRetirement puts in what was ordered: it goes on by itself, with the same warrant.
func replayRetirement(tx *Tx, f ledger.Fact) (done bool, err error) {
	var o struct {
		Product, Warrant, Reason string
		IDs                      []string `json:"ids"`
	}
	if err := json.Unmarshal(f.Data, &o); err != nil {
		return false, err
	}
	var warrant []byte
	if err := tx.QueryRow(`SELECT coalesce((SELECT uid FROM warrant WHERE id = $1), $2)`, o.Warrant, []byte{}).Scan(&warrant); err != nil || len(warrant) != 16 {
		return false, err
	}
	for _, id := range o.IDs {
		if known, err := tx.there(`SELECT count(*) FROM device WHERE id = $1`, id); err != nil {
			return false, err
		} else if !known {
			continue
		}
		r := retire.Retirement{
			Device: id, Product: o.Product, Phase: retire.Ordered, Warrant: o.Warrant, WarrantUID: [16]byte(warrant), OrderUID: f.UID, EndUID: f.UID,
			Reason: o.Reason, By: f.Actor, Ordered: f.At, Rev: 1,
		}
		doc, err := json.Marshal(r)
		if err != nil {
			return false, err
		}
		put, err := did(tx.Exec(`INSERT INTO retirement (device_id, phase, open, warrant_uid, order_uid, end_uid, rev, doc)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (device_id) DO NOTHING`, r.Device, string(r.Phase), openRetirement(r),
			r.WarrantUID[:], r.OrderUID[:], r.EndUID[:], r.Rev, string(doc)))
		if err != nil {
			return false, err
		}
		done = done || put
	}
	// What tells them, if it was issued already; otherwise it is issued.
	_, err = tx.Exec(`INSERT INTO command_device (command_id, device_id, state, at) SELECT c.id, r.device_id, 'pending', c.issued FROM command c
		JOIN retirement r ON r.warrant_uid = c.warrant WHERE c.warrant = $1 AND c.act = 'wipe' ON CONFLICT DO NOTHING`, warrant)
	return done, err
}

func changeRetirement(tx *Tx, id string, change func(*retire.Retirement)) (bool, error) {
	r, err := scanRetirement(tx.QueryRow(retirementColumns+` WHERE device_id = $1`, id))
	if errors.Is(err, retire.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	change(&r)
	doc, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE retirement SET phase = $1, open = $2, end_uid = $3, rev = rev + 1, doc = $4 WHERE device_id = $5`,
		string(r.Phase), openRetirement(r), r.EndUID[:], string(doc), id))
}

// replayWiped: revoking, destroying and moving go on from here, each only as far as it is not done.
func replayWiped(tx *Tx, f ledger.Fact) (bool, error) {
	return changeRetirement(tx, f.Subject, func(r *retire.Retirement) {
		r.Phase, r.Receipt, r.Ended, r.EndUID = retire.Wiped, f.Data, f.At, f.UID
	})
}

func replayWrittenOff(tx *Tx, f ledger.Fact) (bool, error) {
	return changeRetirement(tx, f.Subject, func(r *retire.Retirement) {
		if len(r.Receipt) == 0 {
			r.Phase, r.Ended, r.EndUID = retire.WrittenOff, f.At, f.UID
		}
	})
}

func replayDisposed(tx *Tx, f ledger.Fact) (bool, error) {
	return changeRetirement(tx, f.Subject, func(r *retire.Retirement) {
		r.Phase, r.Disposed, r.EndUID, r.Moved, r.Revoked, r.KeysGone = retire.Disposed, f.At, f.UID, true, true, true
	})
}
