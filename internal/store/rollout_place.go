package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/rollout"
)

// never is when what time alone does not change is due.
const never = math.MaxInt64

// stirred has rollouts look at a device again: it did something, or something was done to it.
func stirred(tx *Tx, id string) error {
	_, err := tx.Exec(`UPDATE rollout_place SET stirs = stirs + 1, due = 0 WHERE device_id = $1 AND open = 1`, id)
	return err
}

// heard is stirred, of those that were heard of and no more: that changes nothing of who is well, or has nothing to do yet.
func heard(tx *Tx, list string) error {
	_, err := tx.Exec(`UPDATE rollout_place SET stirs = stirs + 1, due = 0 WHERE device_id IN (SELECT l.value FROM list($1) AS l) AND open = 1
		AND mark NOT IN ($2, $3, $4, $5)`, list, string(rollout.Well), string(rollout.Worded), string(rollout.Queued), string(rollout.Gone))
	return err
}

// count changes a tally.
func count(tx *Tx, id string, wave int, k rollout.Mark, n int) error {
	_, err := tx.Exec(`INSERT INTO rollout_tally (rollout_id, wave, mark, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (rollout_id, wave, mark) DO UPDATE SET n = rollout_tally.n + excluded.n`, id, wave, string(k), n)
	return err
}

var placeInsert = rowsInserted("rollout_place (rollout_id, device_id, wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due, again)", 15)

// TakeDevices implements rollout.Places.
func (s *Rollouts) TakeDevices(ctx context.Context, r rollout.Rollout, members []rollout.Member) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := take(tx, r, members)
		return err
	})
}

func devicesOf(members []rollout.Member) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.Device
	}
	return out
}

// isClosed holds for the place x of a device that had left before it was told. When it comes back it may be taken anew.
const isClosed = ` x.open = 0 AND x.tranche = 0 AND x.mark = 'left'`

// isMissing holds for the place x of a device that did not show in time, and that the rollout has let go of.
const isMissing = ` x.open = 0 AND x.mark = 'no-show'`

// timesOf is how often the rollout takes a device again.
func timesOf(r rollout.Rollout) int {
	if r.Spec.Again == nil {
		return 0
	}
	return r.Spec.Again.Times
}

// Place implements rollout.Places.
func (s *Rollouts) Place(ctx context.Context, id, device string) (rollout.Status, bool, error) {
	st, err := scanStatus(s.db.Read().QueryRowContext(ctx, placeColumns+` WHERE x.rollout_id = $1 AND x.device_id = $2`, id, device))
	if errors.Is(err, sql.ErrNoRows) {
		return rollout.Status{}, false, nil
	}
	return st, err == nil, s.db.dialect.Explain(err)
}

// Missing implements rollout.Places.
func (s *Rollouts) Missing(ctx context.Context, r rollout.Rollout, heard *rollout.Heard, after string, limit int) ([]rollout.Status, error) {
	args := []any{r.Spec.ID, after, atMost(limit)}
	if heard == nil {
		return collect(ctx, s.db, scanStatus, missing+missingFirst, args...)
	}
	return collect(ctx, s.db, scanStatus, missing+missingHeard+missingFirst, append(args, Millis(heard.Told), Millis(heard.Since), timesOf(r))...)
}

// The parts of the question who is missing.
const (
	missing      = placeColumns + ` WHERE x.rollout_id = $1 AND x.device_id > $2 AND` + isMissing
	missingHeard = ` AND (x.told <= $4 AND d.last_seen >= $5 AND x.again < $6 OR d.state IN ('` +
		string(device.Decommissioned) + `', '` + string(device.Disposed) + `', '` + string(device.Moved) + `'))`
	missingFirst = ` ORDER BY x.device_id LIMIT $3`
)

// forget takes out the places that devices had left.
func forget(tx *Tx, id, list string, tally rollout.Tally) error {
	waves, err := pairs(tx, `SELECT x.device_id, CAST(x.wave AS TEXT) || ' ' || x.mark FROM list($2) AS l CROSS JOIN rollout_place x WHERE x.rollout_id = $1 AND x.device_id = l.value`, id, list)
	if err != nil || len(waves) == 0 {
		return err
	}
	for _, was := range waves {
		var wave int
		var mark rollout.Mark
		if _, err := fmt.Sscan(was, &wave, &mark); err != nil {
			return err
		}
		tally.Add(wave, mark, -1)
	}
	_, err = tx.Exec(`DELETE FROM rollout_place WHERE rollout_id = $1 AND device_id IN (SELECT l.value FROM list($2) AS l)`, id, list)
	return err
}

// take gives those of the members that were not in yet, and are now. Here as below a list comes first, and what is asked of each of its devices is looked
// up: the other way about, each of all devices that the rollout has would be held against the whole list.
//
// What is kept of one that has a place is how often it was taken again: empty where it is in already, and stays as it is.
func take(tx *Tx, r rollout.Rollout, members []rollout.Member) (taken []string, err error) {
	list, err := listOf(devicesOf(members))
	if err != nil {
		return nil, err
	}
	in, err := pairs(tx, `SELECT x.device_id, CASE WHEN`+isClosed+` THEN CAST(x.again AS TEXT) WHEN`+isMissing+` AND x.again < $3 THEN CAST(x.again + 1 AS TEXT) ELSE '' END
		FROM list($2) AS l CROSS JOIN rollout_place x WHERE x.rollout_id = $1 AND x.device_id = l.value`, r.Spec.ID, list, timesOf(r))
	if err != nil {
		return nil, err
	}
	there, err := stillThere(tx, r, list)
	if err != nil {
		return nil, err
	}
	rows := slices.DeleteFunc(slices.Clone(members), func(m rollout.Member) bool {
		again, known := in[m.Device]
		_, is := there[m.Device]
		return known && again == "" || !is
	})
	if list, err = listOf(devicesOf(rows)); err != nil {
		return nil, err
	}
	tally := rollout.Tally{}
	if err := forget(tx, r.Spec.ID, list, tally); err != nil {
		return nil, err
	}
	holders, err := contest(tx, r, list) // of those alone that are taken: what is another's stays its own
	if err != nil {
		return nil, err
	}
	for n, query := 0, ""; len(rows) > 0; rows = rows[n:] {
		n, query = placeInsert.next(len(rows))
		args := make([]any, 0, 15*n)
		for _, m := range rows[:n] {
			mark, holder := rollout.Queued, holders[m.Device]
			if holder != "" {
				mark = rollout.Held
			}
			tally.Add(m.Wave, mark, 1)
			taken = append(taken, m.Device)
			again := 0
			if kept := in[m.Device]; kept != "" {
				if again, err = strconv.Atoi(kept); err != nil {
					return nil, err
				}
			}
			args = append(args, r.Spec.ID, m.Device, m.Wave, m.Rank, 0, notNil(m.Previous), boolOf(holder == ""), holder, "", "", string(mark), 0, r.Turns, int64(never), again)
		}
		if _, err := tx.Exec(query, args...); err != nil {
			return nil, err
		}
	}
	return taken, countAll(tx, r.Spec.ID, tally)
}

// JoinDevices implements rollout.Places.
func (s *Rollouts) JoinDevices(ctx context.Context, r rollout.Rollout, members []rollout.Member, fact func(joined []string) (ledger.Fact, error)) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE rollout SET stir = $1 WHERE id = $2 AND rev = $3`, r.Stir, r.Spec.ID, r.Rev)
		if err != nil {
			return err
		}
		if err := one(res, rollout.ErrChanged); err != nil { // somebody shut it
			return err
		}
		joined, err := take(tx, r, members)
		if err != nil || len(joined) == 0 {
			return err
		}
		f, err := fact(joined)
		if err != nil {
			return err
		}
		return tx.Append(f)
	})
}

// SettleDevices implements rollout.Places, some at a time: other writes have their turn between.
func (s *Rollouts) SettleDevices(ctx context.Context, id string, wave, into int) error {
	for n := atOnce; n == atOnce; {
		if err := s.db.Write(ctx, func(tx *Tx) error {
			some, err := pairs(tx, `SELECT device_id, mark FROM rollout_place WHERE rollout_id = $1 AND wave = $2 AND mark <> $3 AND (open = 1 OR wave <> $4) LIMIT $5`,
				id, wave, string(rollout.Held), into, int64(atOnce))
			if err != nil {
				return err
			}
			n = len(some)
			list, err := listOf(slices.Collect(maps.Keys(some)))
			if err != nil {
				return err
			}
			if _, err := tx.Exec(`UPDATE rollout_place SET open = 0, wave = $1 WHERE rollout_id = $2 AND device_id IN (SELECT l.value FROM list($3) AS l)`, into, id, list); err != nil {
				return err
			}
			tally := rollout.Tally{}
			for _, mark := range some {
				tally.Add(wave, rollout.Mark(mark), -1)
				tally.Add(into, rollout.Mark(mark), 1)
			}
			return countAll(tx, id, tally)
		}); err != nil {
			return err
		}
	}
	return nil
}

// isThere holds for a device d that is where a rollout o is: of its product, or in its group.
const isThere = ` (o.place = d.product OR EXISTS (SELECT 1 FROM device_group g WHERE g.path = o.place AND g.device_id = d.id))`

// stillThere gives those of the devices that are where the rollout is: who has left meanwhile, to another owner perhaps, is not told by it.
func stillThere(tx *Tx, r rollout.Rollout, list string) (map[string]string, error) {
	place, err := listOf([]string{access.Join(r.Spec.Product, r.Spec.Selection.Group)})
	if err != nil {
		return nil, err
	}
	return pairs(tx, `SELECT d.id, '' FROM list($2) AS l CROSS JOIN device d WHERE d.id = l.value AND`+inScope("d.product", "d.id"), place, list)
}

func boolOf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func countAll(tx *Tx, id string, t rollout.Tally) error {
	for wave, marks := range t {
		for k, n := range marks {
			if n == 0 {
				continue
			}
			if err := count(tx, id, wave, k, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// pairs reads pairs.
func pairs(tx *Tx, query string, args ...any) (map[string]string, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	out := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, rows.Err()
}

// contest gives the rollouts that keep devices from r. One that has not told a device yet, and is behind r, gives way: the device is held for it
// then.
func contest(tx *Tx, r rollout.Rollout, list string) (map[string]string, error) {
	busy, err := pairs(tx, `SELECT x.device_id, x.rollout_id FROM list($2) AS l CROSS JOIN rollout_place x
		WHERE x.device_id = l.value AND x.open = 1 AND x.rollout_id <> $1`, r.Spec.ID, list)
	if err != nil || len(busy) == 0 {
		return nil, err
	}
	before := map[string]bool{} // the others that r goes before
	for _, id := range busy {
		if _, ok := before[id]; ok {
			continue
		}
		other, err := scanRollout(tx.QueryRow(rolloutColumns+` WHERE id = $1`, id))
		if err != nil {
			return nil, err
		}
		before[id] = r.Before(other)
	}
	for device, id := range busy {
		if !before[id] {
			continue
		}
		res, err := tx.Exec(`UPDATE rollout_place SET open = 0, holder = $1, stirs = stirs + 1, due = 0
			WHERE rollout_id = $2 AND device_id = $3 AND open = 1 AND tranche = 0`, r.Spec.ID, id, device)
		if err != nil {
			return nil, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return nil, err
		}
		if n == 1 {
			delete(busy, device)
		}
	}
	return busy, nil
}

// Freed implements rollout.Places.
func (s *Rollouts) Freed(ctx context.Context, id string, limit int) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT h.device_id FROM rollout_place h WHERE h.rollout_id = $1 AND h.mark = $2
		AND NOT EXISTS (SELECT 1 FROM rollout_place x JOIN rollout o ON o.id = x.rollout_id WHERE x.device_id = h.device_id AND x.open = 1
			AND NOT (x.tranche = 0 AND o.phase = $3)) ORDER BY h.device_id LIMIT $4`, id, string(rollout.Held), string(rollout.Paused), limit)
}

// FreeDevices implements rollout.Places.
func (s *Rollouts) FreeDevices(ctx context.Context, r rollout.Rollout, members []rollout.Member, freed []string) error {
	list, err := listOf(freed)
	if err != nil {
		return err
	}
	fit := map[string]rollout.Member{}
	for _, m := range members {
		fit[m.Device] = m
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		there, err := stillThere(tx, r, list)
		if err != nil {
			return err
		}
		held, err := pairs(tx, `SELECT h.device_id, CAST(h.wave AS TEXT) FROM list($2) AS l CROSS JOIN rollout_place h WHERE h.rollout_id = $1 AND h.device_id = l.value
			AND h.mark = $3`, r.Spec.ID, list, string(rollout.Held))
		if err != nil {
			return err
		}
		maps.DeleteFunc(fit, func(device string, _ rollout.Member) bool {
			_, is := there[device]
			_, waits := held[device]
			return !is || !waits
		})
		wanted, err := listOf(slices.Sorted(maps.Keys(fit)))
		if err != nil {
			return err
		}
		holders, err := contest(tx, r, wanted)
		if err != nil {
			return err
		}
		tally := rollout.Tally{}
		for device, was := range held {
			if holders[device] != "" {
				continue // somebody was faster
			}
			var from int
			if _, err := fmt.Sscan(was, &from); err != nil {
				return err
			}
			tally.Add(from, rollout.Held, -1)
			m, ok := fit[device]
			if !ok {
				if _, err := tx.Exec(`DELETE FROM rollout_place WHERE rollout_id = $1 AND device_id = $2`, r.Spec.ID, device); err != nil {
					return err
				}
				continue
			}
			if _, err := tx.Exec(`UPDATE rollout_place SET open = 1, holder = '', wave = $1, previous = $2, mark = $3, stirs = stirs + 1, due = 0 WHERE rollout_id = $4 AND device_id = $5`,
				m.Wave, notNil(m.Previous), string(rollout.Queued), r.Spec.ID, device); err != nil {
				return err
			}
			tally.Add(m.Wave, rollout.Queued, 1)
		}
		return countAll(tx, r.Spec.ID, tally)
	})
}

// TellDevices implements rollout.Places.
func (s *Rollouts) TellDevices(ctx context.Context, r rollout.Rollout, wave int, devices []string, due time.Time, facts ...ledger.Fact) error {
	list, err := listOf(devices)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveRollout(tx, r); err != nil {
			return err
		}
		if err := told(tx, r, wave, list, due); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

func told(tx *Tx, r rollout.Rollout, wave int, list string, due time.Time) error {
	if wave == 0 {
		_, err := tx.Exec(`UPDATE rollout_place SET back = $1, stirs = stirs + 1, due = 0
			WHERE rollout_id = $2 AND device_id IN (SELECT l.value FROM list($3) AS l) AND back = ''`, r.Backs[len(r.Backs)-1].Command, r.Spec.ID, list)
		return err
	}
	tranches := r.Waves[wave-1].Tranches
	res, err := tx.Exec(`UPDATE rollout_place SET tranche = $1, command = $2, mark = $3, turn = $4, due = $5, told = $10, stirs = stirs + 1,
		previous = coalesce((SELECT d.release FROM device d WHERE d.id = rollout_place.device_id AND d.release <> $9), previous)
		WHERE rollout_id = $6 AND device_id IN (SELECT l.value FROM list($7) AS l CROSS JOIN device d CROSS JOIN rollout o WHERE d.id = l.value AND o.id = $6 AND`+isThere+`)
		AND mark = $8 AND open = 1`,
		len(tranches), tranches[len(tranches)-1].Command, string(rollout.Awaited), r.Turns, Millis(due), r.Spec.ID, list, string(rollout.Queued), notNil(r.Brings(tranches[len(tranches)-1])), Millis(tranches[len(tranches)-1].At))
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return rollout.ErrChanged // they have left, or others have them: who is queued is looked at again
	}
	return errors.Join(count(tx, r.Spec.ID, wave, rollout.Queued, -int(n)), count(tx, r.Spec.ID, wave, rollout.Awaited, int(n)))
}

// ToldDevices implements rollout.Places.
func (s *Rollouts) ToldDevices(ctx context.Context, id, command string, back bool) ([]string, error) {
	whom := `x.back = $2 AND x.tranche > 0`
	if !back {
		whom = `x.command = $2 AND` + isThere
	}
	return collect(ctx, s.db, scanID, `SELECT x.device_id FROM rollout_place x JOIN device d ON d.id = x.device_id JOIN rollout o ON o.id = x.rollout_id
		WHERE x.rollout_id = $1 AND `+whom+` AND d.state NOT IN `+ended+` ORDER BY x.device_id`, id, command)
}

// Tally implements rollout.Places.
func (s *Rollouts) Tally(ctx context.Context, id string) (rollout.Tally, error) {
	rows, err := s.db.Read().QueryContext(ctx, `SELECT wave, mark, n FROM rollout_tally WHERE rollout_id = $1 AND n <> 0`, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	t := rollout.Tally{}
	for rows.Next() {
		var wave, n int
		var k rollout.Mark
		if err := rows.Scan(&wave, &k, &n); err != nil {
			return nil, err
		}
		t.Add(wave, k, n)
	}
	return t, rows.Err()
}

// PutMarks implements rollout.Places.
func (s *Rollouts) PutMarks(ctx context.Context, id string, marks []rollout.Marking) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		tally := rollout.Tally{}
		for _, m := range marks {
			due := int64(never)
			if !m.Due.IsZero() {
				due = Millis(m.Due)
			}
			var wave int
			err := tx.QueryRow(`UPDATE rollout_place SET mark = $1, turn = $2, due = $3 WHERE rollout_id = $4 AND device_id = $5 AND stirs = $6 AND mark = $7 RETURNING wave`,
				string(m.Now), m.Turn, due, id, m.Device, m.Stirs, string(m.Was)).Scan(&wave)
			if errors.Is(err, sql.ErrNoRows) {
				continue // it did something meanwhile, and is looked at again
			}
			if err != nil {
				return err
			}
			if m.Now == rollout.Proving {
				tx.wakes.add([]string{m.Device}, false) // a client of another system is asked what it runs
			}
			tally.Add(wave, m.Was, -1)
			tally.Add(wave, m.Now, 1)
			if m.Free {
				if _, err := tx.Exec(`UPDATE rollout_place SET open = 0 WHERE rollout_id = $1 AND device_id = $2`, id, m.Device); err != nil {
					return err
				}
			}
			if m.Late == "" {
				continue
			}
			if _, err := tx.Of(m.Device).Exec(`UPDATE command_device SET state = 'cancelled', at = $1 WHERE command_id = $2 AND device_id = $3 AND state IN ('pending', 'delivered')`,
				Millis(m.At), m.Late, m.Device); err != nil {
				return err
			}
		}
		return countAll(tx, id, tally)
	})
}

// placeColumns read a device of a rollout, with its part in the commands that it was told by.
const placeColumns = `SELECT x.device_id, x.wave, x.tranche, x.mark, x.holder, x.stirs, x.previous, CASE WHEN` + isThere + ` THEN 0 ELSE 1 END, CASE WHEN` + isClosed + ` THEN 1 ELSE 0 END, x.again, d.state, d.assurance, d.doc, d.last_seen, v.doc,
	x.command, coalesce(ci.issued, 0), coalesce(ci.expires, 0), coalesce(i.state, ''), coalesce(i.code, ''), coalesce(i.attempts, 0), coalesce(i.at, 0),
	x.back, coalesce(cb.issued, 0), coalesce(cb.expires, 0), coalesce(b.state, ''), coalesce(b.attempts, 0), coalesce(b.at, 0)
	FROM rollout_place x JOIN device d ON d.id = x.device_id JOIN rollout o ON o.id = x.rollout_id
	LEFT JOIN verdict_current c ON c.device_id = x.device_id LEFT JOIN verdict v ON v.uid = c.uid
	LEFT JOIN command ci ON ci.id = x.command LEFT JOIN command_device i ON i.command_id = x.command AND i.device_id = x.device_id
	LEFT JOIN command cb ON cb.id = x.back LEFT JOIN command_device b ON b.command_id = x.back AND b.device_id = x.device_id`

// Owed implements rollout.Places.
func (s *Rollouts) Owed(ctx context.Context, r rollout.Rollout, from, to int, now time.Time, limit int) (out []rollout.Status, err error) {
	for wave := from; wave <= to && len(out) < limit; wave++ {
		some, err := collect(ctx, s.db, scanStatus, placeColumns+` WHERE x.rollout_id = $1 AND x.device_id IN (
			SELECT device_id FROM (SELECT device_id FROM rollout_place WHERE rollout_id = $1 AND wave = $2 AND turn = $4 AND due <= $3 LIMIT $5) AS timely UNION
			SELECT device_id FROM (SELECT device_id FROM rollout_place WHERE rollout_id = $1 AND wave = $2 AND turn < $4 LIMIT $5) AS turned)
			ORDER BY x.device_id LIMIT $5`, r.Spec.ID, wave, Millis(now), r.Turns, limit-len(out))
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// Waiting implements rollout.Places.
func (s *Rollouts) Waiting(ctx context.Context, id string, wave, limit int) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT device_id FROM rollout_place WHERE rollout_id = $1 AND wave = $2 AND mark = 'queued' AND open = 1
		ORDER BY rank, device_id LIMIT $3`, id, wave, atMost(limit))
}

// Marked implements rollout.Places.
func (s *Rollouts) Marked(ctx context.Context, id string, from, to int, marks []rollout.Mark, after string, limit int) ([]rollout.Status, error) {
	list, err := listOf(marks)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanStatus, placeColumns+` WHERE x.rollout_id = $1 AND x.wave >= $2 AND x.wave <= $3
		AND ($4 = '[]' OR x.mark IN (SELECT l.value FROM list($4) AS l)) AND x.device_id > $5 ORDER BY x.device_id LIMIT $6`, id, from, to, list, after, atMost(limit))
}

func scanStatus(row scanner) (rollout.Status, error) {
	var s rollout.Status
	var doc string
	var seen int64
	var verdict sql.NullString
	var times [6]int64
	var strayed, closed int64
	if err := row.Scan(&s.Device, &s.Wave, &s.Tranche, &s.Mark, &s.Holder, &s.Stirs, &s.Previous, &strayed, &closed, &s.Again, &s.State, &s.Assurance, &doc, &seen, &verdict,
		&s.Install.Command, &times[0], &times[1], &s.Install.Standing, &s.Install.Code, &s.Install.Attempts, &times[2],
		&s.Back.Command, &times[3], &times[4], &s.Back.Standing, &s.Back.Attempts, &times[5]); err != nil {
		return s, err
	}
	s.Install.Issued, s.Install.Expires, s.Install.At = Time(times[0]), Time(times[1]), Time(times[2])
	s.Back.Issued, s.Back.Expires, s.Back.At = Time(times[3]), Time(times[4]), Time(times[5])
	var t device.Twin
	if err := json.Unmarshal([]byte(doc), &t); err != nil {
		return s, fmt.Errorf("device %s: twin: %w", s.Device, err)
	}
	s.Strayed, s.Closed = strayed == 1, closed == 1
	s.Running, s.Trial, s.Seen, s.Said, s.Zone = t.Release, t.Trial, Time(seen), t.Said, t.Zone
	s.Waits = t.Waits
	switch {
	case t.Sick:
		s.Health = rollout.Unhealthy
	case t.Healthy:
		s.Health = rollout.Healthy
	}
	if verdict.Valid {
		var v attest.Verdict
		if err := json.Unmarshal([]byte(verdict.String), &v); err != nil {
			return s, fmt.Errorf("device %s: verdict: %w", s.Device, err)
		}
		s.Verdict, s.VerdictAt, s.Proven = v.Status.String(), v.At, v.Release
	}
	return s, nil
}
