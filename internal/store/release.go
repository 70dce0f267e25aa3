package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// Releases keeps releases and what is known of artifacts: it implements release.Store, Artifacts, Deltas and Products, and
// attest.References.
type Releases struct{ db *DB }

// Releases gives the store of stage release.
func (db *DB) Releases() *Releases { return &Releases{db} }

// PutArtifact implements release.Artifacts.
func (s *Releases) PutArtifact(ctx context.Context, a release.Artifact) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO artifact (product, digest, size, doc) VALUES ($1, $2, $3, $4) ON CONFLICT (product, digest) DO NOTHING`,
			a.Product, a.Digest[:], int64(a.Size), string(doc))
		return err
	})
}

func scanArtifact(row scanner) (release.Artifact, error) {
	var digest []byte
	var doc string
	err := row.Scan(&digest, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Artifact{}, release.ErrNotFound
	}
	if err != nil {
		return release.Artifact{}, err
	}
	var a release.Artifact
	if err := json.Unmarshal([]byte(doc), &a); err != nil || len(digest) != len(a.Digest) {
		return a, fmt.Errorf("stored artifact %x: %w", digest, errors.Join(err, errDamaged))
	}
	a.Digest = [32]byte(digest)
	return a, nil
}

var errDamaged = errors.New("the row is damaged")

// Artifact implements release.Artifacts.
func (s *Releases) Artifact(ctx context.Context, product string, digest [32]byte) (release.Artifact, error) {
	return scanArtifact(s.db.Read().QueryRowContext(ctx, `SELECT digest, doc FROM artifact WHERE product = $1 AND digest = $2`, product, digest[:]))
}

// ListArtifacts implements release.Artifacts.
func (s *Releases) ListArtifacts(ctx context.Context, product string, after []byte, limit int) ([]release.Artifact, error) {
	return collect(ctx, s.db, scanArtifact, `SELECT digest, doc FROM artifact WHERE product = $1 AND digest > $2 ORDER BY digest LIMIT $3`,
		product, notNil(after), atMost(limit))
}

// DeviceArtifact implements release.Artifacts: whose end was decided is given nothing any more.
func (s *Releases) DeviceArtifact(ctx context.Context, device string, digest [32]byte) (release.Artifact, error) {
	a, err := scanArtifact(s.db.Read().QueryRowContext(ctx, `SELECT a.digest, a.doc FROM device d JOIN artifact a ON a.product = d.product AND a.digest = $2
		WHERE d.id = $1 AND d.state NOT IN `+retiring+` AND EXISTS (SELECT 1 FROM release_component c JOIN release r ON r.digest = c.release
			WHERE c.product = d.product AND c.artifact = $2 AND r.status = 'published')`, device, digest[:]))
	if errors.Is(err, release.ErrNotFound) {
		return s.deviceDelta(ctx, device, digest)
	}
	return a, err
}

// PutRelease implements release.Store.
func (s *Releases) PutRelease(ctx context.Context, r release.Release, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO release (digest, id, product, version, status, created, published, uid, payload, envelope, rev, doc)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`,
			r.Digest[:], r.Manifest.ID, r.Manifest.Product, r.Manifest.Version, string(r.Status), Millis(r.Created), Millis(r.Published), r.UID[:],
			r.Payload, notNil(r.Envelope), r.Rev, string(doc))
		if err != nil {
			return err
		}
		if err := one(res, release.ErrExists); err != nil {
			return err
		}
		if r.Status == release.Proposed { // what was published stands, whatever became of its bytes
			if err := stillHere(tx, r.Manifest); err != nil {
				return err
			}
		}
		for _, c := range r.Manifest.Components {
			if _, err := tx.Exec(`INSERT INTO release_component (product, artifact, release) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
				r.Manifest.Product, c.Digest, r.Digest[:]); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

// notNil stores no bytes as no bytes, not as NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

const releaseColumns = `SELECT digest, uid, payload, envelope, rev, doc FROM release`

func scanRelease(row scanner) (release.Release, error) {
	var r release.Release
	var digest, uid, payload, envelope []byte
	var rev int64
	var doc string
	err := row.Scan(&digest, &uid, &payload, &envelope, &rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return r, release.ErrNotFound
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(doc), &r); err != nil {
		return r, fmt.Errorf("stored release %x: %w", digest, err)
	}
	if len(digest) != 32 || len(uid) != 16 || wire.ReleaseDigest(payload) != [32]byte(digest) {
		return r, fmt.Errorf("stored release %x: %w", digest, errDamaged)
	}
	r.Digest, r.UID, r.Payload, r.Envelope, r.Rev = [32]byte(digest), [16]byte(uid), payload, envelope, rev
	r.Manifest, err = wire.DecodeRelease(payload) // what is signed, not what was noted of it
	return r, err
}

// Release implements release.Store.
func (s *Releases) Release(ctx context.Context, digest [32]byte) (release.Release, error) {
	return scanRelease(s.db.Read().QueryRowContext(ctx, releaseColumns+` WHERE digest = $1`, digest[:]))
}

// StatusOf implements release.Store.
func (s *Releases) StatusOf(ctx context.Context, digest [32]byte) (status release.Status, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT status FROM release WHERE digest = $1`, digest[:]).Scan(&status)
	if errors.Is(err, sql.ErrNoRows) {
		return "", release.ErrNotFound
	}
	return status, s.db.dialect.Explain(err)
}

// Releases implements release.Store.
func (s *Releases) Releases(ctx context.Context, product string, after []byte, limit int) ([]release.Release, error) {
	return collect(ctx, s.db, scanRelease, releaseColumns+` WHERE ($1 = '' OR product = $1)`+behind("release", "digest")+` ORDER BY created DESC, digest LIMIT $3`,
		product, notNil(after), atMost(limit))
}

// UpdateRelease implements release.Store.
func (s *Releases) UpdateRelease(ctx context.Context, r release.Release, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE release SET status = $1, published = $2, uid = $3, envelope = $4, rev = rev + 1, doc = $5
			WHERE digest = $6 AND rev = $7`, string(r.Status), Millis(r.Published), r.UID[:], notNil(r.Envelope), string(doc), r.Digest[:], r.Rev)
		if err != nil {
			return err
		}
		if err := one(res, release.ErrChanged); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// MadeDevices implements release.Store.
func (s *Releases) MadeDevices(ctx context.Context, product string, hardware []string) (int, error) {
	list, err := listOf(hardware)
	if err != nil {
		return 0, err
	}
	var n int
	err = s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM device WHERE product = $1 AND hardware IN (SELECT l.value FROM list($2) AS l)`, product, list).Scan(&n)
	return n, err
}

// ReleaseProduct implements release.Products.
func (s *Releases) ReleaseProduct(ctx context.Context, id string) (release.Product, error) {
	var doc string
	err := s.db.Read().QueryRowContext(ctx, `SELECT doc FROM product WHERE id = $1`, id).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Product{}, release.ErrNotFound
	}
	if err != nil {
		return release.Product{}, err
	}
	p, err := decodeProduct(doc)
	return release.Product{Model: p.Model, Hardware: p.Hardware, Parameters: p.Parameters}, err
}

// Components implements attest.References, newest release first. A withdrawn release is one the maker once approved: what runs it is
// to be updated, not attacked. One that was never published is nobody's, whatever its status.
func (s *Releases) Components(ctx context.Context, product string) ([]attest.Reference, error) {
	all, err := collect(ctx, s.db, scanRelease, releaseColumns+` WHERE product = $1 AND status IN ('published', 'withdrawn') AND published > 0
		ORDER BY created DESC, digest`, product)
	if err != nil {
		return nil, err
	}
	var out []attest.Reference
	for _, r := range all {
		for _, c := range r.Manifest.Components {
			out = append(out, attest.Reference{
				Release: r.Digest[:], Name: c.Name, Version: c.Version, Digest: c.Measured(), Counter: r.Manifest.Counter,
				Withdrawn: r.Status == release.Withdrawn,
			})
		}
	}
	return out, nil
}
