package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
)

// ForgetDevice implements device.Forgetter.
func (s *Devices) ForgetDevice(ctx context.Context, d device.Device, at time.Time, fact ledger.Fact) error {
	twin, kit, err := TwinRow(device.Twin{Forgotten: at})
	if err != nil {
		return err
	}
	err = s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE device SET doc = $1, kit = $2, group_path = '', last_seen = 0 WHERE id = $3 AND state = $4`, twin, kit, d.ID, string(d.State))
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		for _, path := range access.Paths(d.Product, d.Group)[1:] {
			if err := leaveGroup(tx, path, d.ID); err != nil {
				return err
			}
		}
		for _, step := range []func(*Tx, string) error{stir, forgetCommands, forgetProposals, forgetWords, forgetEnrolment, forgetStreams, forgetClient, forgetRecord, forgetPrivate} {
			if err := step(tx, d.ID); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(`INSERT INTO stream_destroyed (device, at) VALUES ($1, $2) ON CONFLICT (device) DO NOTHING`, d.ID, Millis(at)); err != nil {
			return err
		}
		return tx.Append(fact)
	})
	if err != nil {
		return err
	}
	if err := s.db.dialect.Purge(ctx, s.db.read); err != nil {
		return fmt.Errorf("device %s is forgotten; traces may be in the database's files until they are written over: %w", d.ID, s.db.dialect.Explain(err))
	}
	return nil
}

// forgetPrivate destroys a subject's key, salts and ciphertexts.
func forgetPrivate(tx *Tx, subject string) error {
	if _, err := tx.Exec(`DELETE FROM private WHERE subject = $1`, subject); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM private_key WHERE subject = $1`, subject)
	return err
}

// forgetCommands forgets what was said in commands that were for this device alone, and what it answered to any.
func forgetCommands(tx *Tx, id string) error {
	alone, err := texts(tx, `SELECT x.command_id FROM command_device x WHERE x.device_id = $1
		AND NOT EXISTS (SELECT 1 FROM command_device o WHERE o.command_id = x.command_id AND o.device_id <> $1)`, id)
	if err != nil {
		return err
	}
	for _, command := range alone {
		if _, err := tx.Exec(`UPDATE command SET reason = '', config = NULL WHERE id = $1`, command); err != nil {
			return err
		}
		if err := forgetPrivate(tx, command); err != nil {
			return err
		}
	}
	_, err = tx.Exec(`UPDATE command_device SET text = '' WHERE device_id = $1 AND text <> ''`, id)
	return err
}

// forgetProposals forgets what was said in proposals that were about this device. They name it in their path or body; there are few
// proposals, and an ID of 32 digits stands for nothing else.
func forgetProposals(tx *Tx, id string) error {
	docs, err := texts(tx, `SELECT doc FROM proposal`)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		var p proposal.Proposal
		if !strings.Contains(doc, id) || json.Unmarshal([]byte(doc), &p) != nil {
			continue
		}
		p.Reason, p.Comment, p.Asked.Body = "", "", nil
		without, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE proposal SET doc = $1 WHERE id = $2`, string(without), p.ID); err != nil {
			return err
		}
		if err := forgetPrivate(tx, p.ID); err != nil {
			return err
		}
	}
	return nil
}

// forgetWords takes the words out of what is kept about the device.
func forgetWords(tx *Tx, id string) error {
	for _, q := range []struct{ from, to string }{
		{`SELECT doc FROM finding WHERE subject = $1`, `UPDATE finding SET doc = $1 WHERE subject = $2 AND doc = $3`},
		{`SELECT doc FROM remedy_case WHERE device_id = $1`, `UPDATE remedy_case SET doc = $1 WHERE device_id = $2 AND doc = $3`},
		{`SELECT doc FROM retirement WHERE device_id = $1`, `UPDATE retirement SET doc = $1 WHERE device_id = $2 AND doc = $3`},
	} {
		docs, err := texts(tx, q.from, id)
		if err != nil {
			return err
		}
		for _, doc := range docs {
			without, err := wordless(doc)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(q.to, without, id, doc); err != nil {
				return err
			}
		}
	}
	return nil
}

// wordless empties the members of a document that hold people's words.
func wordless(doc string) (string, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		return "", fmt.Errorf("stored document: %w", err)
	}
	for _, name := range []string{"text", "reason", "closed_reason"} {
		if _, ok := m[name]; ok {
			m[name] = json.RawMessage(`""`)
		}
	}
	out, err := json.Marshal(m)
	return string(out), err
}

// forgetStreams destroys the sealed data of the device, and what would open it.
func forgetStreams(tx *Tx, id string) error {
	for _, query := range []string{
		`DELETE FROM stream_epoch WHERE device = $1`, `DELETE FROM stream_record WHERE device = $1`, `DELETE FROM stream_series WHERE device = $1`,
	} {
		if _, err := tx.Exec(query, id); err != nil {
			return err
		}
	}
	return nil
}

// texts reads the first column.
func texts(tx *Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
