package store

import (
	"context"
)

// SubjectPlaces tells where the subjects of facts are: in which product, and of devices and rollouts in which group, as scopes name it.
// Those that are nowhere, and those nobody knows, are left out.
func (db *DB) SubjectPlaces(ctx context.Context, subjects []string) (map[string]string, error) {
	list, err := listOf(subjects)
	if err != nil {
		return nil, err
	}
	rows, err := db.Read().QueryContext(ctx, `WITH s AS (SELECT DISTINCT l.value AS id FROM list($1) AS l)
		SELECT s.id, d.product || CASE d.group_path WHEN '' THEN '' ELSE '/' || d.group_path END FROM s JOIN device d ON d.id = s.id
		UNION SELECT s.id, p.id FROM s JOIN product p ON p.id = s.id
		UNION SELECT s.id, rollout.place FROM s JOIN rollout ON rollout.id = s.id
		UNION SELECT s.id, o.product FROM s JOIN production_order o ON o.id = s.id
		UNION SELECT s.id, c.product FROM s JOIN command c ON c.id = s.id
		UNION SELECT s.id, r.product FROM s JOIN release r ON r.id = s.id`, list)
	if err != nil {
		return nil, db.dialect.Explain(err)
	}
	defer rows.Close()
	out, more := map[string]string{}, map[string]bool{}
	for rows.Next() {
		var id, place string
		if err := rows.Scan(&id, &place); err != nil {
			return nil, err
		}
		if have, ok := out[id]; ok && have != place {
			more[id] = true // things in several places have this name: nobody who is limited is told
		}
		out[id] = place
	}
	for id := range more {
		delete(out, id)
	}
	return out, rows.Err()
}
