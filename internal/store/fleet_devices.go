package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
)

// condition is one that devices are selected by, of device d. It is asked of each device on a walk, or is itself the walk: along an index
// that begins with what is asked for and goes on in the order of the ID.
type condition struct {
	from string // where the walk goes, when that is not the device's own row
	key  string // the ID there
	walk string // what holds on the walk
	ask  string // what holds of a device on another's walk: no index answers it
	arg  any    // is %d in both; nil: there is none
}

// asked is a condition that no index answers, so that the engine does not choose another walk, and that it takes for a third of what it
// meets, so that it does not hold the walk for long and sort instead.
func asked(condition string) string { return "CASE WHEN " + condition + " THEN 1 ELSE 0 END > 0" }

// sample is how far each walk is looked along to find the one with the fewest devices on it.
const sample = 200

// FleetDevices implements fleet.Reader. A page is a walk along one of the conditions, from the last ID on, that asks the others of each
// device it meets. Of several, the walk is along the one whose devices are furthest apart from there on.
func (db *DB) FleetDevices(ctx context.Context, q fleet.Query) ([]fleet.Device, error) {
	list, err := conditions(q.Filter, q.Scope)
	if err != nil {
		return nil, err
	}
	if err := db.sparsestFirst(ctx, list, max(q.After, q.Prefix)); err != nil {
		return nil, err
	}
	query, args := pageOf(fleetColumns, fleetJoins, q, list)
	details, err := collect(ctx, db, scanFleet, query, args...)
	var out []fleet.Device
	for _, d := range details {
		out = append(out, d.Device)
	}
	return out, err
}

// conditions are those of a filter within a scope, but for how the ID begins. Of several places none is a walk: see pageOf.
func conditions(q device.Filter, scope []string) (out []condition, err error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	own := func(column string, value any) {
		out = append(out, condition{from: "device d", key: "d.id", walk: "d." + column + " = $%d", ask: asked("d." + column + " = $%d"), arg: value})
	}
	if q.Findings {
		out = append(out, condition{from: "device d", key: "d.id", walk: "d.findings > 0", ask: asked("d.findings > 0")})
	}
	if q.Version != "" {
		own("version", q.Version)
	}
	if q.Verdict != "" {
		own("verdict", int(statusOf(q.Verdict)))
	}
	digest, err := q.Digest()
	if err != nil {
		return nil, err
	}
	if digest != nil {
		own("release", digest)
	}
	bundle, err := q.BundleVersion()
	if err != nil {
		return nil, err
	}
	if bundle >= 0 {
		own("bundle", bundle)
	}
	if q.State != "" {
		own("state", q.State)
	}
	switch a := device.Assurance(q.Assurance); a {
	case "":
	case device.Enforces: // nearly all do: no index is along them
		out = append(out, condition{from: "device d", key: "d.id", walk: asked("d.assurance = $%d"), ask: asked("d.assurance = $%d"), arg: q.Assurance})
	default:
		out = append(out, condition{from: "device d", key: "d.id", walk: "d.assurance <> 'enforces' AND d.assurance = $%d", ask: asked("d.assurance = $%d"), arg: q.Assurance})
	}
	if len(scope) == 1 {
		product, _, grouped := strings.Cut(scope[0], "/")
		if !grouped {
			own("product", product)
			return out, nil
		}
		out = append(out, condition{
			from: "device_group g", key: "g.device_id", walk: "g.path = $%d",
			ask: asked("EXISTS (SELECT 1 FROM device_group g WHERE g.path = $%d AND g.device_id = d.id)"), arg: scope[0],
		})
	}
	return out, nil
}

// sparsestFirst puts the condition first whose walk has the fewest devices from an ID on: it ends first, or is furthest after so many.
func (db *DB) sparsestFirst(ctx context.Context, list []condition, from string) error {
	if len(list) < 2 {
		return nil
	}
	type reach struct {
		condition
		n  int
		to string
	}
	all := make([]reach, len(list))
	for i, c := range list {
		r := reach{condition: c}
		args := []any{from}
		where := c.walk
		if c.arg != nil {
			args = append(args, c.arg)
			where = fmt.Sprintf(c.walk, 2)
		}
		query := `SELECT count(*), coalesce(max(id), '') FROM (SELECT ` + c.key + ` AS id FROM ` + c.from + ` WHERE ` + c.key + ` >= $1 AND ` + where +
			fmt.Sprintf(` ORDER BY %s LIMIT %d) t`, c.key, sample)
		if err := db.Read().QueryRowContext(ctx, query, args...).Scan(&r.n, &r.to); err != nil {
			return db.dialect.Explain(err)
		}
		all[i] = r
	}
	slices.SortStableFunc(all, func(a, b reach) int { return cmp.Or(cmp.Compare(a.n, b.n), strings.Compare(b.to, a.to)) })
	for i, r := range all {
		list[i] = r.condition
	}
	return nil
}

// pageOf is a page along the first of the conditions, or along the devices when there is none.
func pageOf(columns, joins string, q fleet.Query, list []condition) (query string, args []any) {
	from, key := "device d", "d.id"
	begin := " > $%d"
	if q.After < q.Prefix {
		begin = " >= $%d"
	}
	var where []string
	and := func(text string, arg any) {
		if arg != nil {
			args = append(args, arg)
			text = fmt.Sprintf(text, len(args))
		}
		where = append(where, text)
	}
	for i, c := range list {
		if i > 0 {
			and(c.ask, c.arg)
			continue
		}
		and(c.walk, c.arg)
		if key = c.key; key != "d.id" {
			from = c.from + ` CROSS JOIN device d` // in this order: the walk is along the first
			and(`d.id = `+key, nil)
		}
	}
	and(key+begin, max(q.After, q.Prefix))
	if q.Prefix != "" {
		and(key+` < $%d`, after(q.Prefix))
	}
	if len(q.Scope) > 1 {
		text, with := placesOf(q.Scope, "d.product", "d.id", len(args))
		args = append(args, with...)
		where = append(where, text)
	}
	args = append(args, q.Limit)
	return `SELECT ` + columns + ` FROM ` + from + joins + ` WHERE ` + strings.Join(where, " AND ") + fmt.Sprintf(` ORDER BY %s LIMIT $%d`, key, len(args)), args
}

// placesOf holds for what is of a product or a device in a scope, whose parameters come behind the n there are.
func placesOf(scope []string, product, device string, n int) (text string, args []any) {
	var each []string
	for _, place := range scope {
		args = append(args, place)
		p := n + len(args)
		if strings.Contains(place, "/") {
			each = append(each, fmt.Sprintf("EXISTS (SELECT 1 FROM device_group g WHERE g.path = $%d AND g.device_id = %s)", p, device))
		} else {
			each = append(each, fmt.Sprintf("%s = $%d", product, p))
		}
	}
	return asked(strings.Join(each, " OR ")), args
}

// statusOf is the tier that a word of device.Verdicts stands for in lists.
func statusOf(word string) attest.Tier {
	for _, t := range []attest.Tier{attest.Affirming, attest.Warning, attest.Contraindicated} {
		if t.String() == word {
			return t
		}
	}
	return attest.None
}

// after is the first string behind all that begin with prefix; IDs are lower-case hex.
func after(prefix string) string {
	if prefix == "" {
		return ""
	}
	return prefix + "g"
}
