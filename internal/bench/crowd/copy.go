package crowd

import (
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/store"
)

// base is how many devices are imagined one by one. A larger crowd is copies of these, each with a part of the IDs of its own: in no time
// that grows with what it costs to imagine one, and still in every state and with every fault there is.
const (
	base   = 25_000
	copies = 256 // at most: they differ in two hexadecimal digits
)

// copyDevices writes the registry of the base again, as the rest of copying does.
const copyDevices = `INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, identity, attest_key, instance_id, key_origin, is_virtual, last_seen,
		since, release, bundle, doc, group_path, version, verdict, findings, kit)
		SELECT $1 || substr(id, 3), product, hardware, state, legitimacy, order_id || '-' || $1, station, made, CAST($2 || identity AS BLOB), attest_key,
		CAST($2 || instance_id AS BLOB), key_origin, is_virtual, last_seen, since, release, bundle, doc, group_path, version, verdict, findings, kit
		FROM device WHERE id < '01' ORDER BY id`

// copying are the statements that write the base again: its IDs begin with 00, a copy's with $1, and what is unique ends with that, or begins with $2, its
// bytes. Facts are not copied: the copies would not be what was appended. A BLOB is what PostgreSQL knows when it was told: BlobIsBytea.
var copying = []string{
	`INSERT INTO production_order (id, product, state, created, doc)
		SELECT id || '-' || $1, product, state, created, replace(doc, '"id":"' || id, '"id":"' || id || '-' || $1) FROM production_order
		WHERE id IN (SELECT order_id FROM production_record WHERE device < '01')`,
	`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope)
		SELECT order_id || '-' || $1, seq, hash, prev, ticket, $1 || substr(device, 3), state, CAST($2 || chip AS BLOB), CAST($2 || identity AS BLOB), CAST($2 || attest AS BLOB), envelope
		FROM production_record WHERE device < '01'`,
	copyDevices,
	`INSERT INTO device_group (path, device_id) SELECT path, $1 || substr(device_id, 3) FROM device_group WHERE device_id < '01'`,
	`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
		SELECT 'abcdef/' || $1 || substr(serial, 3), $1 || substr(device, 3), role, issuer, $1 || substr(serial, 3), request, not_before, not_after, ended, der
		FROM cert WHERE device >= '00' AND device < '01'`,
	`INSERT INTO verdict (uid, device_id, at, status, doc)
		SELECT CAST($2 || uid AS BLOB), $1 || substr(device_id, 3), at, status, replace(doc, device_id, $1 || substr(device_id, 3)) FROM verdict WHERE device_id < '01'`,
	`INSERT INTO verdict_current (device_id, uid, at, status)
		SELECT $1 || substr(device_id, 3), CAST($2 || uid AS BLOB), at, status FROM verdict_current WHERE device_id < '01'`,
	`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, closed, doc)
		SELECT $1 || id, kind || '/' || $1 || substr(subject, 3), kind, severity, product, $1 || substr(subject, 3), raised + length(id), closed,
		replace(replace(doc, subject, $1 || substr(subject, 3)), id, $1 || id) FROM finding WHERE subject >= '00' AND subject < '01'`,
	`INSERT INTO remedy_case (cause_log, cause_idx, device_id, product, phase, open, held, opened, rev, doc)
		SELECT cause_log || $1, cause_idx, $1 || substr(device_id, 3), product, phase, open, held, opened, rev, replace(doc, device_id, $1 || substr(device_id, 3))
		FROM remedy_case WHERE device_id < '01'`,
	`INSERT INTO retirement (device_id, phase, open, warrant_uid, order_uid, end_uid, rev, doc)
		SELECT $1 || substr(device_id, 3), phase, open, warrant_uid, order_uid, end_uid, rev, replace(doc, device_id, $1 || substr(device_id, 3))
		FROM retirement WHERE device_id < '01'`,
	`INSERT INTO command_device (command_id, device_id, state, attempts, at)
		SELECT command_id, $1 || substr(device_id, 3), state, attempts, at FROM command_device WHERE device_id < '01'`,
	`INSERT INTO rollout_place (rollout_id, device_id, wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due)
		SELECT rollout_id, $1 || substr(device_id, 3), wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due
		FROM rollout_place WHERE device_id < '01'`,
	`INSERT INTO device_log (device, seq, head, anchor, heard) SELECT $1 || substr(device, 3), seq, head, anchor, heard FROM device_log WHERE device < '01'`,
	`INSERT INTO stream_epoch (device, stream, epoch, payload, envelope)
		SELECT $1 || substr(device, 3), stream, epoch, payload, envelope FROM stream_epoch WHERE device < '01'`,
}

// BlobIsBytea is a statement for a PostgreSQL that is to take a crowd of more than 25,000.
const BlobIsBytea = `CREATE DOMAIN blob AS bytea`

// copyBase writes a copy with the IDs that begin with digits.
func copyBase(tx *store.Tx, digits string) error {
	for _, q := range copying {
		if err := again(tx, q, digits); err != nil {
			return err
		}
	}
	return nil
}

// again writes the rows of the base once more by one of the statements, for the copy of these digits.
func again(tx *store.Tx, q, digits string) error {
	args := []any{digits}
	if strings.Contains(q, "$2") {
		args = append(args, []byte(digits))
	}
	if _, err := tx.Exec(q, args...); err != nil {
		return fmt.Errorf("%.60s: %w", q, err)
	}
	return nil
}
