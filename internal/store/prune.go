package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/wire"
)

// asks reads, within a write or beside it.
type asks func(query string, args ...any) (*sql.Rows, error)

func each(ask asks, row func(scanner) error, query string, args ...any) (err error) {
	rows, err := ask(query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Prunable implements release.Artifacts.
func (s *Releases) Prunable(ctx context.Context, product string, before time.Time, limit int) (release.Prunable, error) {
	return prunable(s.beside(ctx), manifests{}, product, before, limit)
}

// beside asks beside writes.
func (s *Releases) beside(ctx context.Context) asks {
	return func(query string, args ...any) (*sql.Rows, error) {
		return s.db.Read().QueryContext(ctx, query, args...)
	}
}

// Prune implements release.Artifacts. What it deletes is looked for again within the write: a write that names a part of it is before this one, or finds it gone.
func (s *Releases) Prune(ctx context.Context, product string, before time.Time, limit int, p release.Prunable, facts ...ledger.Fact) error {
	known := manifests{}
	if err := known.read(s.beside(ctx)); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		now, err := prunable(tx.Query, known, product, before, limit)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(now, p) {
			return release.ErrChanged
		}
		for _, a := range p.Artifacts {
			if _, err := tx.Exec(`DELETE FROM artifact WHERE product = $1 AND digest = $2`, product, a.Digest[:]); err != nil {
				return err
			}
		}
		for _, d := range p.Deltas {
			if _, err := tx.Exec(`DELETE FROM delta WHERE product = $1 AND to_digest = $2 AND from_digest = $3`, product, d.To[:], d.From[:]); err != nil {
				return err
			}
		}
		for _, b := range p.Blobs {
			for _, q := range []string{
				`DELETE FROM blob_sums WHERE digest = $1`, `DELETE FROM artifact_weak WHERE digest = $1`, `DELETE FROM mender_artifact WHERE digest = $1`,
				`INSERT INTO blob_leaving (digest) VALUES ($1) ON CONFLICT DO NOTHING`,
			} {
				if _, err := tx.Exec(q, b.Digest[:]); err != nil {
					return err
				}
			}
		}
		return tx.Append(facts...)
	})
}

// manifests are what releases name, by their digests. A release stays, and names what it names: who knows one already need not read it again.
type manifests map[[32]byte][][32]byte

// read reads those that are not known.
func (m manifests) read(ask asks) error {
	var unknown [][32]byte
	if err := each(ask, func(row scanner) error {
		digest, err := scanDigest(row)
		if _, ok := m[digest]; !ok {
			unknown = append(unknown, digest)
		}
		return err
	}, `SELECT digest FROM release`); err != nil {
		return err
	}
	for _, digest := range unknown {
		if err := each(ask, func(row scanner) error {
			var payload []byte
			if err := row.Scan(&payload); err != nil {
				return err
			}
			r, err := wire.DecodeRelease(payload)
			if err != nil {
				return fmt.Errorf("stored release: %w", err)
			}
			m[digest] = release.Named(r)
			return nil
		}, `SELECT payload FROM release WHERE digest = $1`, digest[:]); err != nil {
			return err
		}
	}
	return nil
}

// pruning finds what nothing names.
type pruning struct {
	ask     asks
	known   manifests
	product string
	before  int64
	limit   int64
	named   map[[32]byte]bool  // by releases, lots and masters, of whatever product
	kept    map[[32]byte]bool  // by rows that stay
	goes    map[[32]byte]int64 // sizes of the bytes of rows that go
	late    map[[32]byte]bool  // put since
	out     release.Prunable
}

func prunable(ask asks, known manifests, product string, before time.Time, limit int) (release.Prunable, error) {
	p := &pruning{
		ask: ask, known: known, product: product, before: Millis(before), limit: atMost(limit),
		named: map[[32]byte]bool{}, kept: map[[32]byte]bool{}, goes: map[[32]byte]int64{}, late: map[[32]byte]bool{},
	}
	for _, step := range []func() error{p.names, p.puts, p.artifacts, p.deltas, p.blobs} {
		if err := step(); err != nil {
			return release.Prunable{}, err
		}
	}
	return p.out, nil
}

// names reads who names artifacts and documents.
func (p *pruning) names() error {
	err := p.known.read(p.ask)
	if err != nil {
		return err
	}
	for _, names := range p.known {
		for _, digest := range names {
			p.named[digest] = true
		}
	}
	err = p.documents(`SELECT doc FROM lot`, func(doc []byte) ([]string, error) {
		var l parts.Lot
		return []string{l.Certificate}, json.Unmarshal(doc, &l)
	})
	if err != nil {
		return err
	}
	return p.documents(`SELECT doc FROM kept_master`, func(doc []byte) ([]string, error) {
		var m factory.KeptMaster
		err := json.Unmarshal(doc, &m)
		return []string{m.SBOM.Digest, m.Provenance.Digest}, err
	})
}

// documents reads the digests, hex, that rows name.
func (p *pruning) documents(query string, of func(doc []byte) ([]string, error)) error {
	return each(p.ask, func(row scanner) error {
		var doc string
		if err := row.Scan(&doc); err != nil {
			return err
		}
		digests, err := of([]byte(doc))
		for _, text := range digests {
			digest, bad := hex.DecodeString(text)
			if bad == nil && len(digest) == 32 {
				p.named[[32]byte(digest)] = true
			} else if text != "" {
				err = errors.Join(err, bad, errDamaged)
			}
		}
		return err
	}, query)
}

// puts reads what was put of late: it may be about to be named.
func (p *pruning) puts() error {
	return each(p.ask, func(row scanner) error {
		digest, err := scanDigest(row)
		p.late[digest] = true
		return err
	}, `SELECT digest FROM blob_sums WHERE at >= $1`, p.before)
}

func (p *pruning) artifacts() error {
	return each(p.ask, func(row scanner) error {
		a, err := scanArtifact(row)
		if err != nil {
			return err
		}
		if a.Product != p.product || p.named[a.Digest] || p.late[a.Digest] || Millis(a.At) >= p.before || int64(len(p.out.Artifacts)) >= p.limit {
			p.kept[a.Digest] = true
			return nil
		}
		p.out.Artifacts = append(p.out.Artifacts, a)
		p.goes[a.Digest] = int64(a.Size)
		return nil
	}, `SELECT digest, doc FROM artifact ORDER BY digest, product`)
}

// deltas that lead to nothing that is published, or from nothing that a device runs, are not needed; they are made again when somebody wants them.
func (p *pruning) deltas() error {
	return each(p.ask, func(row scanner) error {
		var needed int
		d, err := scanDelta(also{row, &needed})
		if err != nil {
			return err
		}
		digest := [32]byte(d.Digest)
		if d.Product != p.product || needed != 0 || p.named[digest] || p.late[digest] || Millis(d.At) >= p.before || int64(len(p.out.Deltas)) >= p.limit {
			p.kept[digest] = true
			return nil
		}
		p.out.Deltas = append(p.out.Deltas, d)
		p.goes[digest] = int64(d.Size)
		return nil
	}, `SELECT x.from_digest, x.to_digest, x.doc, 0, CASE WHEN
		EXISTS (SELECT 1 FROM release_component c JOIN release r ON r.digest = c.release WHERE c.product = x.product AND c.artifact = x.to_digest AND r.status = 'published')
		AND EXISTS (SELECT 1 FROM release_component c JOIN device d ON d.release = c.release WHERE c.product = x.product AND c.artifact = x.from_digest) THEN 1 ELSE 0 END
		FROM delta x WHERE x.state = 'made' ORDER BY x.product, x.to_digest, x.from_digest`)
}

// also reads one more column behind those that another reads.
type also struct {
	scanner
	last any
}

func (a also) Scan(dest ...any) error { return a.scanner.Scan(append(dest, a.last)...) }

// blobs are the bytes that no row is left of: those of the rows that go, and those that an upload left whose row never came.
func (p *pruning) blobs() error {
	for _, a := range p.out.Artifacts {
		p.leaves(a.Digest)
	}
	for _, d := range p.out.Deltas {
		p.leaves([32]byte(d.Digest))
	}
	return each(p.ask, func(row scanner) error {
		var b []byte
		var size int64
		if err := row.Scan(&b, &size); err != nil {
			return err
		}
		if len(b) != 32 {
			return errDamaged
		}
		digest := [32]byte(b)
		if _, gone := p.goes[digest]; gone || p.named[digest] || p.kept[digest] || int64(p.out.Strays) >= p.limit {
			return nil
		}
		p.out.Strays++
		p.out.Blobs = append(p.out.Blobs, release.Blob{Digest: digest, Size: uint64(size)})
		return nil
	}, `SELECT digest, size FROM blob_sums WHERE at < $1 ORDER BY digest`, p.before)
}

// leaves notes the bytes of a row that goes, once, if no other row is of the same.
func (p *pruning) leaves(digest [32]byte) {
	size, first := p.goes[digest]
	if !first || p.kept[digest] || p.named[digest] || size < 0 {
		return
	}
	p.goes[digest] = -1
	p.out.Blobs = append(p.out.Blobs, release.Blob{Digest: digest, Size: uint64(size)})
}

// stillHere refuses a manifest that names an artifact which was deleted while it was proposed.
func stillHere(tx *Tx, m wire.Release) error {
	for _, digest := range release.Named(m) {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM artifact WHERE product = $1 AND digest = $2`, m.Product, digest[:]).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return release.ErrGone
		}
	}
	return nil
}

// replayPruning forgets again what was deleted since a backup: its bytes are gone.
func replayPruning(tx *Tx, f ledger.Fact) (bool, error) {
	var p release.Pruning
	if err := json.Unmarshal(f.Data, &p); err != nil {
		return false, err
	}
	changed := false
	for _, rows := range []struct {
		query   string
		digests []string
	}{
		{`DELETE FROM artifact WHERE product = $1 AND digest = $2`, p.Artifacts},
		{`DELETE FROM delta WHERE product = $1 AND digest = $2 AND state = 'made'`, p.Deltas},
	} {
		for _, text := range rows.digests {
			digest, err := hex.DecodeString(text)
			if err != nil {
				return false, err
			}
			done, err := did(tx.Exec(rows.query, p.Product, digest))
			if err != nil {
				return false, err
			}
			changed = changed || done
		}
	}
	return changed, nil
}
