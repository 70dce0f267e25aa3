package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
)

// inScope holds for what is of a product or a device in the scope that is parameter 1: a JSON list as listOf writes it. Which group a
// device is in is looked up, and not copied to what is said of it, so that whatever is said of a device moves with it.
func inScope(product, device string) string {
	return fmt.Sprintf(` ($1 = '[]' OR EXISTS (SELECT 1 FROM list($1) AS s WHERE s.value = %s
		OR EXISTS (SELECT 1 FROM device_group g WHERE g.path = s.value AND g.device_id = %s)))`, product, device)
}

// placeInScope holds for what is as a whole at a place, a product or a group as scopes name them, in the scope that is parameter n.
func placeInScope(place string, n int) string {
	return fmt.Sprintf(` ($%[2]d = '[]' OR EXISTS (SELECT 1 FROM list($%[2]d) AS s
		WHERE %[1]s = s.value OR substr(%[1]s, 1, length(s.value) + 1) = s.value || '/'))`, place, n)
}

// listOf writes what list($n) gives the rows of; no scope at all, for inScope, means everything.
func listOf[T any](all []T) (string, error) {
	list, err := json.Marshal(append([]T{}, all...)) // none is an empty list, and not nothing
	return string(list), err
}

// listsOf gives a parameter for each.
func listsOf(all ...[]string) ([]any, error) {
	out := make([]any, len(all))
	for i, l := range all {
		list, err := listOf(l)
		if err != nil {
			return nil, err
		}
		out[i] = list
	}
	return out, nil
}

// GroupDevices implements device.Groups.
func (s *Devices) GroupDevices(ctx context.Context, moves []device.Grouping, to string, facts []ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, m := range moves {
			var product string
			res, err := tx.Exec(`UPDATE device SET group_path = $1 WHERE id = $2 AND group_path = $3`, to, m.Device, m.From)
			if err != nil {
				return err
			}
			if err := one(res, device.ErrChanged); err != nil {
				return err
			}
			if err := tx.QueryRow(`SELECT product FROM device WHERE id = $1`, m.Device).Scan(&product); err != nil {
				return err
			}
			for _, path := range access.Paths(product, m.From)[1:] {
				if err := leaveGroup(tx, path, m.Device); err != nil {
					return err
				}
			}
			for _, path := range access.Paths(product, to)[1:] {
				if err := JoinGroup(tx, path, m.Device); err != nil {
					return err
				}
			}
			if err := stir(tx, m.Device); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

// JoinGroup puts a device into one group, with its path as scopes name it. Those above it, and the device's own row, are the caller's.
func JoinGroup(tx *Tx, path, id string) error {
	if _, err := tx.Exec(`INSERT INTO device_group (path, device_id) VALUES ($1, $2)`, path, id); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO group_size (path, devices) VALUES ($1, 1) ON CONFLICT (path) DO UPDATE SET devices = group_size.devices + 1`, path)
	return err
}

func leaveGroup(tx *Tx, path, id string) error {
	if _, err := tx.Exec(`DELETE FROM device_group WHERE path = $1 AND device_id = $2`, path, id); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE group_size SET devices = devices - 1 WHERE path = $1`, path); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM group_size WHERE path = $1 AND devices <= 0`, path)
	return err
}

// GroupsOf implements device.Groups.
func (s *Devices) GroupsOf(ctx context.Context, product string, devices []string) ([]string, error) {
	list, err := listOf(devices)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanID, `SELECT DISTINCT coalesce(d.group_path, '') FROM list($1) AS l LEFT JOIN device d ON d.id = l.value AND d.product = $2`,
		list, product)
}

// CommandGroups implements device.Groups.
func (s *Devices) CommandGroups(ctx context.Context, command string) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT DISTINCT CASE WHEN d.owned_since > c.issued THEN '' ELSE d.group_path END
		FROM command_device x JOIN device d ON d.id = x.device_id JOIN command c ON c.id = x.command_id WHERE x.command_id = $1`, command)
}

// FleetGroups implements fleet.Reader: each group, with those in the groups below counted in.
func (db *DB) FleetGroups(ctx context.Context, q fleet.GroupQuery) ([]fleet.Group, error) {
	list, err := listOf(q.Scope)
	if err != nil {
		return nil, err
	}
	return collect(ctx, db, func(row scanner) (fleet.Group, error) {
		var g fleet.Group
		err := row.Scan(&g.Path, &g.Devices)
		return g, err
	}, `SELECT g.path, g.devices FROM group_size g WHERE g.path > $2 AND`+placeInScope("g.path", 1)+` ORDER BY g.path LIMIT $3`,
		list, q.After, q.Limit)
}
