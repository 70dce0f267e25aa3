package store

import (
	"context"
	"encoding/json"
)

// SubjectProducts tells of which product the subjects of facts are. Those that are of none, and those nobody knows, are left out.
func (db *DB) SubjectProducts(ctx context.Context, subjects []string) (map[string]string, error) {
	list, err := json.Marshal(subjects)
	if err != nil {
		return nil, err
	}
	rows, err := db.Read().QueryContext(ctx, `WITH s AS (SELECT DISTINCT value AS id FROM json_each($1))
		SELECT s.id, d.product FROM s JOIN device d ON d.id = s.id
		UNION SELECT s.id, p.id FROM s JOIN product p ON p.id = s.id
		UNION SELECT s.id, r.product FROM s JOIN rollout r ON r.id = s.id
		UNION SELECT s.id, o.product FROM s JOIN production_order o ON o.id = s.id
		UNION SELECT s.id, c.product FROM s JOIN command c ON c.id = s.id
		UNION SELECT s.id, r.product FROM s JOIN release r ON r.id = s.id`, string(list))
	if err != nil {
		return nil, db.dialect.Explain(err)
	}
	defer rows.Close()
	out, more := map[string]string{}, map[string]bool{}
	for rows.Next() {
		var id, product string
		if err := rows.Scan(&id, &product); err != nil {
			return nil, err
		}
		if have, ok := out[id]; ok && have != product {
			more[id] = true // things of several products have this name: nobody who is limited to one is told
		}
		out[id] = product
	}
	for id := range more {
		delete(out, id)
	}
	return out, rows.Err()
}
