package store

import (
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

func replayCA(tx *Tx, f ledger.Fact) (bool, error) {
	cert, err := x509.ParseCertificate(f.Data)
	if err != nil {
		return false, err
	}
	role, err := pki.RoleOf(cert)
	if err != nil {
		return false, err
	}
	kid, err := wire.KeyIDOf(cert.PublicKey)
	if err != nil {
		return false, err
	}
	ca := pki.CA{SKI: hex.EncodeToString(cert.SubjectKeyId), Role: role, DER: cert.Raw}
	err = tx.scan(`SELECT key_name FROM ca_request WHERE key_id = $1`, []any{hex.EncodeToString(kid[:])}, &ca.Key)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	if _, err := tx.Exec(`DELETE FROM ca_request WHERE key_name = $1`, ca.Key); err != nil {
		return false, err
	}
	return putCA(tx, ca)
}

// replayKey brings back which key a CA was requested for. The request itself is not in the ledger: one without an answer is made anew.
func replayKey(tx *Tx, f ledger.Fact) (bool, error) {
	var k struct {
		Name string `json:"name"`
		SPKI []byte `json:"spki"`
	}
	if err := json.Unmarshal(f.Data, &k); err != nil {
		return false, err
	}
	role, ok := pki.RequestedRole(k.Name)
	if !ok {
		return replayOnlineKey(tx, f)
	}
	pub, err := wire.ParseKey(k.SPKI)
	if err != nil {
		return false, err
	}
	kid, err := wire.KeyIDOf(pub)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO ca_request (key_id, key_name, role, product, unit, at, envelope) VALUES ($1, $2, $3, '', '', $4, $5) ON CONFLICT DO NOTHING`,
		hex.EncodeToString(kid[:]), k.Name, string(role), Millis(f.At), []byte{}))
}

func replayCAEnded(tx *Tx, f ledger.Fact) (bool, error) {
	return did(tx.Exec(`UPDATE ca SET ended = $1, place = (SELECT max(place) + 1 FROM ca) WHERE ski = $2 AND ended = 0`, Millis(f.At), f.Subject))
}

func replayProduct(tx *Tx, f ledger.Fact) (bool, error) {
	return did(tx.Exec(`INSERT INTO product (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, f.Subject, string(f.Data)))
}

func replayEnrolment(tx *Tx, f ledger.Fact) (bool, error) {
	var c product.EnrolmentChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return ofProduct(changeProduct(tx, f.Subject, func(p *product.Product) { p.Enrolment = c.Enrolment }))
}

func replaySchema(tx *Tx, f ledger.Fact) (bool, error) {
	var c product.SchemaChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return ofProduct(changeProduct(tx, f.Subject, func(p *product.Product) { p.Parameters = c.Parameters }))
}

func replayBundleDue(tx *Tx, f ledger.Fact) (bool, error) {
	var c product.BundleDueChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return ofProduct(changeProduct(tx, f.Subject, func(p *product.Product) { p.BundleDue = c.Days }))
}

func replayIsolation(tx *Tx, f ledger.Fact) (bool, error) {
	var c product.IsolationChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return ofProduct(changeProduct(tx, f.Subject, func(p *product.Product) { p.Isolation = c.Layers }))
}

// ofProduct says whether a product's change was done: of one that is not known nothing is changed.
func ofProduct(err error) (bool, error) {
	if errors.Is(err, product.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// replayAccess takes away what was taken away, and gives members the roles they were given. Secrets are in no fact: who got one since
// needs a new one.
func replayAccess(tx *Tx, f ledger.Fact) (bool, error) {
	var c struct {
		signin.Member
		Caller   string `json:"caller"` // of a token that was issued
		Use      string `json:"use"`
		Of       string `json:"member"`
		Revoked  string `json:"revoked"`
		What     string `json:"what"`
		Passkey  string `json:"passkey"`
		Issuer   string `json:"issuer"`
		Product  string `json:"product"`
		Stream   string `json:"stream"`
		ReaderID string `json:"reader"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	switch {
	case c.Product != "" && c.Revoked != "":
		return did(tx.Exec(`DELETE FROM stream_grant WHERE id = $1 AND product = $2`, c.ID, c.Product))
	case c.Stream != "" && c.ReaderID != "":
		return replayGrant(tx, f.Data)
	case c.Of != "" && c.Revoked != "":
		return dropCredential(tx, c.Of, c.Revoked)
	case c.Passkey != "":
		return dropPasskey(tx, c.What, c.Of, c.Passkey)
	case c.Issuer != "" && c.Of != "":
		if c.What != "unbound" {
			return false, nil
		}
		return did(tx.Exec(`DELETE FROM identity WHERE member = $1 AND issuer = $2`, c.Of, c.Issuer))
	case c.Caller != "" && c.Use != "":
		return replayMember(tx, signin.Member{ID: c.Caller, Kind: c.Kind, Roles: c.Roles, Owner: c.Owner, Scope: c.Scope, Created: f.At, Changed: f.At})
	case c.ID != "" && c.ID == f.Subject && !c.Changed.IsZero():
		return replayMember(tx, c.Member)
	}
	return false, nil
}

func replayGrant(tx *Tx, data []byte) (bool, error) {
	var g telemetry.Grant
	if err := json.Unmarshal(data, &g); err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO stream_grant (id, reader, product, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		g.ID, g.Reader, g.Product, string(data)))
}

func dropCredential(tx *Tx, member, id string) (bool, error) {
	prefix, err := hex.DecodeString(id)
	if err != nil || len(prefix) != 8 {
		return false, errors.New("a revoked secret without its ID")
	}
	return did(tx.Exec(`DELETE FROM credential WHERE caller = $1 AND substr(hash, 1, 8) = $2`, member, prefix))
}

// dropPasskey finds the passkey by what a fact calls it.
func dropPasskey(tx *Tx, what, member, name string) (bool, error) {
	if what != "removed" {
		return false, nil
	}
	ids, err := blobs(tx, `SELECT id FROM passkey WHERE member = $1`, member)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if sum := sha256.Sum256(id); hex.EncodeToString(sum[:8]) == name {
			return did(tx.Exec(`DELETE FROM passkey WHERE id = $1 AND member = $2`, id, member))
		}
	}
	return false, nil
}

func replayMember(tx *Tx, m signin.Member) (bool, error) {
	had, err := scanMember(tx.QueryRow(memberColumns+` WHERE id = $1`, m.ID))
	known := err == nil
	if err != nil && !errors.Is(err, signin.ErrNoMember) {
		return false, err
	}
	if known {
		m.Created, m.Rev = had.Created, had.Rev
	}
	if err := putMember(tx, m, known); err != nil || m.Ended.IsZero() {
		return err == nil, err
	}
	for _, q := range []string{
		`DELETE FROM credential WHERE caller = $1`, `DELETE FROM passkey WHERE member = $1`, `DELETE FROM identity WHERE member = $1`,
	} {
		if _, err := tx.Exec(q, m.ID); err != nil {
			return false, err
		}
	}
	return true, nil
}

func replayBundle(tx *Tx, f ledger.Fact) (bool, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, f.Data)
	if err != nil {
		return false, err
	}
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO bundle (product, version, uid, envelope) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		b.Product, int64(b.Version), f.UID[:], f.Data))
}

// replayRelease puts in a proposal. The bytes it names were uploaded as files; what was known of them is the manifest's.
func replayRelease(tx *Tx, f ledger.Fact) (bool, error) {
	m, err := wire.DecodeRelease(f.Data)
	if err != nil {
		return false, err
	}
	r := release.Release{
		Digest: wire.ReleaseDigest(f.Data), Manifest: m, Payload: f.Data, Status: release.Proposed, Creator: f.Actor, Created: f.At, Rev: 1,
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	done, err := did(tx.Exec(`INSERT INTO release (digest, id, product, version, status, created, uid, payload, envelope, rev, doc)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10) ON CONFLICT DO NOTHING`, r.Digest[:], m.ID, m.Product, m.Version,
		string(r.Status), Millis(r.Created), r.UID[:], f.Data, []byte{}, string(doc)))
	if err != nil || !done {
		return done, err
	}
	for _, c := range m.Components {
		a := release.Artifact{Product: m.Product, Name: c.Name, Size: c.Size, By: f.Actor, At: f.At}
		adoc, err := json.Marshal(a)
		if err != nil {
			return false, err
		}
		if _, err := tx.Exec(`INSERT INTO artifact (product, digest, size, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			m.Product, c.Digest, int64(c.Size), string(adoc)); err != nil {
			return false, err
		}
		if _, err := tx.Exec(`INSERT INTO release_component (product, artifact, release) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			m.Product, c.Digest, r.Digest[:]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// changeRelease changes a release that is here.
func changeRelease(tx *Tx, digest []byte, change func(*release.Release) error) (bool, error) {
	r, err := scanRelease(tx.QueryRow(releaseColumns+` WHERE digest = $1`, digest))
	if errors.Is(err, release.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := change(&r); err != nil {
		return false, err
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE release SET status = $1, published = $2, uid = $3, envelope = $4, rev = rev + 1, doc = $5 WHERE digest = $6`,
		string(r.Status), Millis(r.Published), r.UID[:], notNil(r.Envelope), string(doc), digest))
}

func replaySigned(tx *Tx, f ledger.Fact, change func(r *release.Release, signers []wire.KeyID)) (bool, error) {
	payload, signers, err := wire.ThresholdPayload(wire.TypeRelease, f.Data)
	if err != nil {
		return false, err
	}
	digest := wire.ReleaseDigest(payload)
	return changeRelease(tx, digest[:], func(r *release.Release) error {
		change(r, signers)
		r.Envelope = f.Data
		return nil
	})
}

func replayApproval(tx *Tx, f ledger.Fact) (bool, error) {
	return replaySigned(tx, f, func(r *release.Release, signers []wire.KeyID) {
		for _, k := range signers[min(len(r.Approvals), len(signers)):] {
			r.Approvals = append(r.Approvals, release.Approval{Caller: f.Actor, Key: hex.EncodeToString(k[:]), At: f.At})
		}
	})
}

func replaySUIT(tx *Tx, f ledger.Fact) (bool, error) {
	var d release.SUITSigned
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return false, err
	}
	digest, err := hex.DecodeString(d.Release)
	if err != nil {
		return false, err
	}
	return changeRelease(tx, digest, func(r *release.Release) error {
		for i, a := range r.Approvals {
			if a.Key == d.Key {
				r.Approvals[i].SUIT = d.Block
			}
		}
		return nil
	})
}

func replayPublication(tx *Tx, f ledger.Fact) (bool, error) {
	return replaySigned(tx, f, func(r *release.Release, _ []wire.KeyID) {
		if r.Status == release.Proposed {
			r.Status = release.Published
		}
		r.Published, r.UID = f.At, f.UID
	})
}

func replayWithdrawal(tx *Tx, f ledger.Fact) (bool, error) {
	var w struct{ Release, Reason string }
	if err := json.Unmarshal(f.Data, &w); err != nil {
		return false, err
	}
	digest, err := hex.DecodeString(w.Release)
	if err != nil {
		return false, err
	}
	return changeRelease(tx, digest, func(r *release.Release) error {
		if r.Status, r.Reason = release.Withdrawn, w.Reason; r.Published.IsZero() {
			r.Status = release.Refused
		}
		if f.Kind == ledger.KindReleaseClosed {
			r.Closed = f.At
		}
		return nil
	})
}

// replayCommand puts in a command without its devices, of which the ledger has the root only: nobody is told it again, and what
// devices report of it is understood. Of a wipe the order names the devices.
func replayCommand(tx *Tx, f ledger.Fact) (bool, error) {
	o, err := wire.Parse1(wire.TypeCommand, f.Data)
	if err != nil {
		return false, err
	}
	w, err := wire.DecodeCommand(o.Payload)
	if err != nil {
		return false, err
	}
	digest, warrant := sha256.Sum256(o.Payload), []byte(nil)
	if wire.NeedsWarrant(w.Act) || wire.ChangesOwner(w.Act) {
		if warrant, err = warrantOf(tx, w); err != nil {
			return false, err
		}
	}
	done, err := did(tx.Exec(`INSERT INTO command (id, uid, digest, product, act, priority, warrant, issued, expires, doc, rollout, wave)
		VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`, w.ID, f.UID[:], digest[:], w.Product, string(w.Act),
		warrant, Millis(f.At), Millis(time.Unix(int64(w.Expires), 0)), o.Payload, w.Rollout, int64(w.Wave)))
	if err != nil || !done || w.Act != wire.ActWipe || warrant == nil {
		return done, err
	}
	_, err = tx.Exec(`INSERT INTO command_device (command_id, device_id, state, at) SELECT $1, device_id, 'pending', $2 FROM retirement
		WHERE warrant_uid = $3 ON CONFLICT DO NOTHING`, w.ID, Millis(f.At), warrant)
	return true, err
}

// warrantOf finds the warrant of a command: the newest for the same act on the same devices. A change of owner may have none.
func warrantOf(tx *Tx, c wire.Command) (uid []byte, err error) {
	rows, err := tx.Query(`SELECT uid, doc FROM warrant WHERE product = $1`, c.Product)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var newest uint64
	for rows.Next() {
		var id []byte
		var doc string
		var w wire.Warrant
		if err := rows.Scan(&id, &doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &w); err != nil {
			return nil, err
		}
		if w.Act == c.Act && string(w.Devices.Root) == string(c.Devices.Root) && w.Issued >= newest {
			uid, newest = id, w.Issued
		}
	}
	return uid, rows.Err()
}

func replayCancel(tx *Tx, f ledger.Fact) (bool, error) {
	done, err := did(tx.Exec(`UPDATE command SET ended = $1 WHERE id = $2 AND ended = 0`, Millis(f.At), f.Subject))
	if err != nil || !done {
		return done, err
	}
	_, err = tx.Exec(`UPDATE command_device SET state = 'cancelled', at = $1 WHERE command_id = $2 AND state IN ('pending', 'delivered')`,
		Millis(f.At), f.Subject)
	return true, err
}

func replayWarrant(tx *Tx, f ledger.Fact) (bool, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, f.Data)
	if err != nil {
		return false, err
	}
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return false, err
	}
	doc, err := json.Marshal(w)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO warrant (uid, id, product, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		f.UID[:], w.ID, w.Product, string(doc)))
}

// replayOrder puts in an order whose secrets are lost: its records cannot be opened any more, so that it is as good as closed.
func replayOrder(tx *Tx, f ledger.Fact) (bool, error) {
	parsed, err := wire.Parse1(wire.TypeOrder, f.Data)
	if err != nil {
		return false, err
	}
	w, err := wire.DecodeOrder(parsed.Payload)
	if err != nil {
		return false, err
	}
	h := w.Header
	o := factory.Order{
		ID: h.ID, OEM: h.OEM, Product: h.Product, Hardware: h.Hardware, Quota: h.Quota, State: factory.Closed, UID: f.UID, Envelope: f.Data,
		NotBefore: time.Unix(int64(h.NotBefore), 0).UTC(), NotAfter: time.Unix(int64(h.NotAfter), 0).UTC(), Created: f.At, Closed: f.At,
		Station: hex.EncodeToString(h.Station), Release: hex.EncodeToString(h.Release),
	}
	if r, err := scanRelease(tx.QueryRow(releaseColumns+` WHERE digest = $1`, h.Release)); err == nil {
		o.Version = r.Manifest.Version
	} else if !errors.Is(err, release.ErrNotFound) {
		return false, err
	}
	if o.Bundle, err = bundleOf(tx, h.Product, h.Bundle); err != nil {
		return false, err
	}
	if o.Desk, err = deskOf(tx, f.Data); err != nil {
		return false, err
	}
	if err := putOrder(tx, o); err != nil {
		if errors.Is(err, factory.ErrExists) {
			err = nil
		}
		return false, err
	}
	_, err = tx.Exec(`UPDATE desk SET ordered = ordered + $1 WHERE name = $2`, int64(o.Quota), o.Desk)
	return true, err
}

// bundleOf finds the version of the trust bundle whose envelope has the digest; 0 when there is none.
func bundleOf(tx *Tx, product string, digest []byte) (version uint64, err error) {
	rows, err := tx.Query(`SELECT version, envelope FROM bundle WHERE product = $1`, product)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v int64
		var envelope []byte
		if err := rows.Scan(&v, &envelope); err != nil {
			return 0, err
		}
		if sum := sha256.Sum256(envelope); string(sum[:]) == string(digest) {
			version = uint64(v)
		}
	}
	return version, rows.Err()
}

// replayMaster keeps which master is the newest, and of which an order was made.
func replayMaster(tx *Tx, f ledger.Fact) (bool, error) {
	var used factory.MasterUsed
	if err := json.Unmarshal(f.Data, &used); err != nil {
		return false, err
	}
	m := used.MasterRef
	o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, f.Subject))
	if err != nil && !errors.Is(err, factory.ErrNotFound) {
		return false, err
	}
	if err == nil && o.Master == nil {
		o.Master = &m
		doc, err := json.Marshal(o)
		if err != nil {
			return false, err
		}
		if _, err := tx.Exec(`UPDATE production_order SET doc = $1 WHERE id = $2`, string(doc), o.ID); err != nil {
			return false, err
		}
	}
	if used.Desk != "" {
		return true, nil
	}
	err = putMaster(tx, m)
	if _, ok := errors.AsType[*factory.OldMasterError](err); ok {
		return false, nil // it is there
	}
	return true, err
}

func replayOrderClosed(tx *Tx, f ledger.Fact) (bool, error) {
	o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, f.Subject))
	if errors.Is(err, factory.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var c struct {
		JobEnd []byte `json:"job_end_certificate"`
	}
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	o.State, o.Closed, o.ClosedUID = factory.Closed, f.At, f.UID
	if f.Kind == ledger.KindOrderCancelled {
		o.State = factory.Cancelled
	}
	if f.Kind == ledger.KindOrderAbandoned {
		o.State = factory.Abandoned
	}
	doc, err := json.Marshal(o)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE production_order SET state = $1, doc = $2, job_end = coalesce(job_end, $3) WHERE id = $4`,
		string(o.State), string(doc), c.JobEnd, o.ID))
}

// replayPaced gives a rollout the bandwidth that it was given in the lost time.
func replayPaced(tx *Tx, f ledger.Fact) (bool, error) {
	var said struct {
		Bandwidth *rollout.Bandwidth `json:"bandwidth"`
	}
	if err := json.Unmarshal(f.Data, &said); err != nil {
		return false, err
	}
	r, err := scanRollout(tx.QueryRow(rolloutColumns+` WHERE id = $1`, f.Subject))
	if errors.Is(err, rollout.ErrNotFound) {
		return false, nil
	}
	if err != nil || r.Phase.Ended() {
		return false, err
	}
	r.Spec.Bandwidth = said.Bandwidth
	return true, saveRollout(tx, r)
}

// replayRollout ends a rollout that went on in the lost time, as how far it came is not known: a person begins another. One that was no more than paused
// may be resumed.
func replayRollout(tx *Tx, f ledger.Fact) (bool, error) {
	r, err := scanRollout(tx.QueryRow(rolloutColumns+` WHERE id = $1`, f.Subject))
	if errors.Is(err, rollout.ErrNotFound) {
		return false, nil
	}
	if err != nil || r.Phase.Ended() {
		return false, err
	}
	switch f.Kind {
	case ledger.KindRolloutCompleted:
		r.Phase, r.Ended = rollout.Completed, f.At
	case ledger.KindRolloutRolledBack:
		r.Phase, r.Ended = rollout.RolledBack, f.At
	case ledger.KindRolloutPaused, ledger.KindRolloutResumed:
		if r.Phase == rollout.Running {
			r.Phase = rollout.Paused
		}
	default: // who was not told is not told any more, and whom its lost commands were for is not known: it cannot go on
		r.Phase = rollout.Aborting
		if r.Wave == 0 {
			r.Phase, r.Ended = rollout.Aborted, f.At
		}
	}
	r.Reason = "by a replay of the ledger: " + string(f.Kind)
	return true, saveRollout(tx, r)
}
