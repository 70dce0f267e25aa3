package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/wire"
)

// Supply implements supply.Store and supply.Releases.
type Supply struct{ db *DB }

// Supply gives the store of what releases are made of.
func (db *DB) Supply() Supply { return Supply{db} }

// ProductOf implements supply.Releases.
func (s Supply) ProductOf(ctx context.Context, release [32]byte) (product string, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT product FROM release WHERE digest = $1`, release[:]).Scan(&product)
	if errors.Is(err, sql.ErrNoRows) {
		return "", supply.ErrNotFound
	}
	return product, s.db.dialect.Explain(err)
}

var componentRows = rowsInserted("sbom_component (sbom, n, ecosystem, name, version, doc)", 6)

// PutContents implements supply.Store.
func (s Supply) PutContents(ctx context.Context, release [32]byte, c supply.Contents, parts []supply.Named) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	rows := make([][]any, len(parts))
	for i, p := range parts {
		text, err := json.Marshal(p.Component)
		if err != nil {
			return err
		}
		rows[i] = []any{c.Digest[:], i + 1, p.Package.Base(), strings.ToLower(p.Package.Name), p.Version, string(text)}
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO sbom (digest, doc) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING`, c.Digest[:], string(doc))
		if err != nil {
			return err
		}
		if new, err := res.RowsAffected(); err != nil {
			return err
		} else if new == 1 {
			if err := insertAll(tx, &componentRows, rows); err != nil {
				return err
			}
		}
		_, err = tx.Exec(`INSERT INTO release_sbom (release, sbom) VALUES ($1, $2) ON CONFLICT (release) DO NOTHING`, release[:], c.Digest[:])
		return err
	})
}

// insertAll inserts rows with as few statements as there are.
func insertAll(tx *Tx, into *insertion, rows [][]any) error {
	for len(rows) > 0 {
		n, query := into.next(len(rows))
		if _, err := tx.Exec(query, slices.Concat(rows[:n]...)...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// Unread implements supply.Store.
func (s Supply) Unread(ctx context.Context) ([]supply.Unread, error) {
	all, err := collect(ctx, s.db, func(row scanner) (u supply.Unread, err error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return u, err
		}
		u.Release = wire.ReleaseDigest(payload)
		u.Manifest, err = wire.DecodeRelease(payload)
		return u, err
	}, `SELECT payload FROM release r WHERE NOT EXISTS (SELECT 1 FROM release_sbom x WHERE x.release = r.digest)`)
	return slices.DeleteFunc(all, func(u supply.Unread) bool { return len(u.Manifest.SBOM) != 32 }), err
}

// Contents implements supply.Store.
func (s Supply) Contents(ctx context.Context, release [32]byte) (c supply.Contents, err error) {
	var doc string
	err = s.db.Read().QueryRowContext(ctx, `SELECT b.doc FROM release_sbom r JOIN sbom b ON b.digest = r.sbom WHERE r.release = $1`, release[:]).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return c, supply.ErrNotFound
	}
	if err != nil {
		return c, s.db.dialect.Explain(err)
	}
	if err := json.Unmarshal([]byte(doc), &c); err != nil {
		return c, fmt.Errorf("stored bill of materials: %w", err)
	}
	digest, err := hex.DecodeString(c.Document)
	if err != nil || len(digest) != 32 {
		return c, fmt.Errorf("stored bill of materials: %w", errDamaged)
	}
	c.Digest = [32]byte(digest)
	return c, nil
}

// Parts implements supply.Store.
func (s Supply) Parts(ctx context.Context, document [32]byte, after, limit int) ([]supply.Part, error) {
	return collect(ctx, s.db, func(row scanner) (p supply.Part, err error) {
		var doc string
		if err := row.Scan(&p.N, &doc); err != nil {
			return p, err
		}
		return p, json.Unmarshal([]byte(doc), &p.Component)
	}, `SELECT n, doc FROM sbom_component WHERE sbom = $1 AND n > $2 ORDER BY n LIMIT $3`, document[:], after, atMost(limit))
}

// Uses implements supply.Store. A component that a document names several times is one use for each version.
func (s Supply) Uses(ctx context.Context, base, name string, scope []string) ([]supply.Use, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, s.db, scanUse, `SELECT r.digest, r.id, r.product, r.version, r.status, c.version, c.doc FROM sbom_component c
		JOIN release_sbom x ON x.sbom = c.sbom JOIN release r ON r.digest = x.release
		WHERE c.ecosystem = $2 AND c.name = $3 AND ($1 = '[]' OR EXISTS (SELECT 1 FROM list($1) AS s WHERE s.value = r.product OR substr(s.value, 1, length(r.product) + 1) = r.product || '/'))
		ORDER BY r.created DESC, r.digest, c.n`, list, base, strings.ToLower(name))
	if err != nil {
		return nil, err
	}
	all = slices.CompactFunc(all, func(a, b supply.Use) bool { return a.Release == b.Release && a.Has == b.Has })
	counts, err := s.running(ctx, all, scope, list)
	for i, u := range all {
		all[i].Devices = counts[u.Release]
	}
	return all, err
}

// running counts the devices in the scope that run each release: all of a product's along the release, and those of groups along the groups, because a group is mostly small.
func (s Supply) running(ctx context.Context, all []supply.Use, scope []string, list string) (map[[32]byte]int64, error) {
	counts := map[[32]byte]int64{}
	groups := false
	for _, u := range all {
		if _, done := counts[u.Release]; done {
			continue
		}
		if len(scope) > 0 && !slices.Contains(scope, u.Product) {
			groups = true
			continue
		}
		var n int64
		if err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM device WHERE release = $1 AND state NOT IN `+ended, u.Release[:]).Scan(&n); err != nil {
			return nil, s.db.dialect.Explain(err)
		}
		counts[u.Release] = n
	}
	if !groups {
		return counts, nil
	}
	_, err := collect(ctx, s.db, func(row scanner) (none struct{}, err error) {
		var digest []byte
		var n int64
		if err := row.Scan(&digest, &n); err != nil || len(digest) != 32 {
			return none, err
		}
		if _, whole := counts[[32]byte(digest)]; !whole {
			counts[[32]byte(digest)] = n
		}
		return none, nil
	}, `SELECT d.release, count(DISTINCT d.id) FROM device_group g JOIN device d ON d.id = g.device_id
		WHERE g.path IN (SELECT s.value FROM list($1) AS s) AND d.state NOT IN `+ended+` GROUP BY d.release`, list)
	return counts, err
}

func scanUse(row scanner) (u supply.Use, err error) {
	var digest []byte
	var doc string
	if err := row.Scan(&digest, &u.ID, &u.Product, &u.Version, &u.Status, &u.Has, &doc); err != nil {
		return u, err
	}
	var c bom.Component
	if err := json.Unmarshal([]byte(doc), &c); err != nil || len(digest) != 32 {
		return u, fmt.Errorf("stored component of release %x: %w", digest, errors.Join(err, errDamaged))
	}
	u.Release, u.Digest, u.PURL = [32]byte(digest), hex.EncodeToString(digest), c.PURL
	u.Package, _, _ = osv.Of(c.PURL)
	return u, nil
}

// Begin implements supply.Store.
func (s Supply) Begin(ctx context.Context, ecosystem string, at time.Time) (generation int64, err error) {
	return generation, s.db.Write(ctx, func(tx *Tx) error {
		return tx.QueryRow(`INSERT INTO advisory_import (ecosystem, begun, state, doc) VALUES ($1, $2, 'filling', '{}') RETURNING id`, ecosystem, Millis(at)).Scan(&generation)
	})
}

var (
	advisoryRows        = rowsInserted("advisory (generation, id, doc)", 3)
	advisoryPackageRows = rowsInserted("advisory_package (generation, name, advisory)", 3)
	advisoryNameRows    = rowsInserted("advisory_name (generation, name, advisory)", 3)
)

// Put implements supply.Store.
func (s Supply) Put(ctx context.Context, generation int64, few []osv.Advisory) error {
	var rows, packages, names [][]any
	for _, a := range few {
		doc, err := json.Marshal(a)
		if err != nil {
			return err
		}
		rows = append(rows, []any{generation, a.ID, string(doc)})
		for _, n := range unique(append([]string{a.ID}, append(slices.Clone(a.Aliases), a.Upstream...)...)) {
			names = append(names, []any{generation, n, a.ID})
		}
		var of []string
		for _, p := range a.Packages() {
			of = append(of, p.Key())
		}
		for _, n := range unique(of) {
			packages = append(packages, []any{generation, n, a.ID})
		}
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := insertAll(tx, &advisoryRows, rows); err != nil {
			return err
		}
		if err := insertAll(tx, &advisoryPackageRows, packages); err != nil {
			return err
		}
		return insertAll(tx, &advisoryNameRows, names)
	})
}

func unique(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// Use implements supply.Store.
func (s Supply) Use(ctx context.Context, d supply.Database, facts ...ledger.Fact) error {
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`UPDATE advisory_import SET state = 'ended' WHERE ecosystem = $1 AND state = 'used'`, d.Ecosystem); err != nil {
			return err
		}
		res, err := tx.Exec(`UPDATE advisory_import SET state = 'used', doc = $1 WHERE id = $2 AND state = 'filling'`, string(doc), d.Generation)
		if err != nil {
			return err
		}
		if err := one(res, supply.ErrNotFound); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// sweepBatch is how many advisories one write deletes.
const sweepBatch = 500

// Sweep implements supply.Store.
func (s Supply) Sweep(ctx context.Context, before time.Time) (more bool, err error) {
	return more, s.db.Write(ctx, func(tx *Tx) error {
		var id int64
		err := tx.QueryRow(`SELECT id FROM advisory_import WHERE state = 'ended' OR state = 'filling' AND begun < $1 ORDER BY id LIMIT 1`, Millis(before)).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		var end sql.NullString
		if err := tx.QueryRow(`SELECT max(id) FROM (SELECT id FROM advisory WHERE generation = $1 ORDER BY id LIMIT $2) AS few`, id, sweepBatch).Scan(&end); err != nil {
			return err
		}
		if !end.Valid {
			for _, table := range []string{"advisory_package", "advisory_name"} {
				if _, err := tx.Exec(`DELETE FROM `+table+` WHERE generation = $1`, id); err != nil {
					return err
				}
			}
			_, err = tx.Exec(`DELETE FROM advisory_import WHERE id = $1`, id)
			return err
		}
		_, err = tx.Exec(`DELETE FROM advisory WHERE generation = $1 AND id <= $2`, id, end.String)
		return err
	})
}

// Databases implements supply.Store.
func (s Supply) Databases(ctx context.Context) ([]supply.Database, error) {
	return collect(ctx, s.db, func(row scanner) (d supply.Database, err error) {
		var doc string
		if err := row.Scan(&d.Generation, &doc); err != nil {
			return d, err
		}
		return d, json.Unmarshal([]byte(doc), &d)
	}, `SELECT id, doc FROM advisory_import WHERE state = 'used' ORDER BY ecosystem`)
}

const usedAdvisories = `SELECT a.doc FROM advisory_import i JOIN %s x ON x.generation = i.id JOIN advisory a ON a.generation = i.id AND a.id = x.advisory
	WHERE i.state = 'used' AND x.name IN (SELECT l.value FROM list($1) AS l) ORDER BY a.id`

func scanAdvisory(row scanner) (a osv.Advisory, err error) {
	var doc string
	if err := row.Scan(&doc); err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(doc), &a)
}

// Against implements supply.Store.
func (s Supply) Against(ctx context.Context, packages []osv.Package) ([]osv.Advisory, error) {
	names := make([]string, len(packages))
	for i, p := range packages {
		names[i] = p.Key()
	}
	list, err := listOf(names)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, s.db, scanAdvisory, fmt.Sprintf(usedAdvisories, "advisory_package"), list)
	return eachOnce(all), err
}

// eachOnce leaves one of each advisory: it may be in the files of several ecosystems.
func eachOnce(all []osv.Advisory) []osv.Advisory {
	return slices.CompactFunc(all, func(a, b osv.Advisory) bool { return a.ID == b.ID })
}

// Advisory implements supply.Store.
func (s Supply) Advisory(ctx context.Context, name string) ([]osv.Advisory, error) {
	list, err := listOf([]string{name})
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, s.db, scanAdvisory, fmt.Sprintf(usedAdvisories, "advisory_name"), list)
	return eachOnce(all), err
}

// Held implements supply.Store. Devices that are at their end run nothing any more.
func (s Supply) Held(ctx context.Context) ([]supply.Held, error) {
	return collect(ctx, s.db, func(row scanner) (h supply.Held, err error) {
		var digest, document []byte
		if err := row.Scan(&digest, &document, &h.Product, &h.Version, &h.Counts, &h.Stamp); err != nil {
			return h, err
		}
		if len(digest) != 32 || len(document) != 32 {
			return h, fmt.Errorf("stored release %x: %w", digest, errDamaged)
		}
		h.Release, h.Document = [32]byte(digest), [32]byte(document)
		return h, nil
	}, `SELECT r.digest, x.sbom, r.product, r.version, r.status IN ('proposed', 'published') OR EXISTS (SELECT 1 FROM device d WHERE d.release = r.digest AND d.state NOT IN `+ended+`), coalesce(a.stamp, '')
		FROM release_sbom x JOIN release r ON r.digest = x.release LEFT JOIN release_assessed a ON a.release = r.digest ORDER BY r.created, r.digest`)
}

// Assessment implements supply.Store.
func (s Supply) Assessment(ctx context.Context, release [32]byte) (a supply.Assessment, err error) {
	var doc string
	err = s.db.Read().QueryRowContext(ctx, `SELECT doc FROM release_assessed WHERE release = $1`, release[:]).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return a, nil
	}
	if err != nil {
		return a, s.db.dialect.Explain(err)
	}
	return a, json.Unmarshal([]byte(doc), &a)
}

// PutAssessment implements supply.Store.
func (s Supply) PutAssessment(ctx context.Context, release [32]byte, stamp string, a supply.Assessment, facts ...ledger.Fact) error {
	doc, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO release_assessed (release, stamp, doc) VALUES ($1, $2, $3) ON CONFLICT (release) DO UPDATE SET stamp = excluded.stamp, doc = excluded.doc`,
			release[:], stamp, string(doc)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}
