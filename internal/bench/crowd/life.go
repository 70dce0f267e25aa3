package crowd

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
)

// one is a device on its way into the store.
type one struct {
	i                    int
	id, product, group   string
	state                device.State
	version              string
	release              []byte
	made, seen           int64
	status               attest.Tier
	proven               bool // it has a current verdict
	luck                 uint64
	order                string
	seq                  int
	hardware, legitimacy string
}

// device writes one with everything about it.
func (c *crowd) device(tx *store.Tx, i int) error {
	d := c.imagine(i)
	for _, part := range []func(*store.Tx, one) error{c.registry, c.birth, c.certificates, c.evidence, c.trouble, c.told, c.data, c.history} {
		if err := part(tx, d); err != nil {
			return err
		}
	}
	return nil
}

// imagine decides what the i-th device is.
func (c *crowd) imagine(i int) one {
	luck := mix(uint64(i) ^ 0xc0ffee)
	d := one{i: i, id: ID(i, c.n), product: products[0], hardware: "A", state: device.Active, luck: luck, legitimacy: string(device.Genuine)}
	switch i % 10 {
	case 6, 7, 8:
		d.product = products[1]
	case 9:
		d.product = products[2]
	}
	switch p := luck % 10_000; {
	case p < 20:
		d.state = device.Quarantined
	case p < 120:
		d.state = device.Provisioned
	case p < 220:
		d.state = device.Onboarded
	case p < 320:
		d.state = device.Dormant
	case p < 350:
		d.state = device.Maintenance
	case p < 400:
		d.state = device.Decommissioned
	case p < 410:
		d.state = device.Decommissioning
	case p < 415:
		d.state = device.Lost
	}
	switch p := luck >> 16 % 100; {
	case p < 60:
		d.group = cities[luck>>24%uint64(len(cities))]
	case p < 80:
		d.group = fmt.Sprintf("site/%03d", luck>>24%200)
	}
	switch p := luck >> 32 % 10_000; {
	case p < 7000:
		d.version = versions[0]
	case p < 9000:
		d.version = versions[1]
	case p < 9700:
		d.version = versions[2]
	case p < 9995:
		d.version = versions[3]
	default:
		d.version = versions[4]
	}
	d.release = c.releases[d.product+d.version]
	d.order, d.seq = c.orderOf(i)
	d.made = store.Millis(c.now.AddDate(-1, 0, int(luck>>40%300)))
	ago := time.Duration(luck>>8%3600) * time.Second
	switch p := luck >> 44 % 1000; {
	case p < 5:
		ago += time.Duration(p+1) * 48 * time.Hour
	case p < 25:
		ago += time.Duration(p) * time.Hour
	}
	if d.state != device.Provisioned {
		d.seen = store.Millis(c.now.Add(-ago))
		d.proven = luck>>52%100 < 97
	}
	d.status = attest.Affirming
	switch {
	case d.state == device.Quarantined:
		d.status = attest.Contraindicated
	case luck>>20%100 < 4:
		d.status = attest.Warning
	case luck>>20%100 < 5:
		d.status = attest.None // what it sent says nothing
	}
	return d
}

func (c *crowd) registry(tx *store.Tx, d one) error {
	return enter(tx, d, device.Twin{
		Release: d.release, Version: d.version, Good: d.release, Agent: "active", Bundle: 1, BootCount: d.luck % 90, Healthy: d.state != device.Quarantined,
		Sick: d.state == device.Quarantined, Told: "healthy", Health: "all loops run",
	})
}

// enter writes it into the registry, with its twin.
func enter(tx *store.Tx, d one, t device.Twin) error {
	twin, kit, err := store.TwinRow(t)
	if err != nil {
		return err
	}
	key := sha256.Sum256([]byte(d.id))
	if _, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, identity, attest_key, instance_id, key_origin,
		is_virtual, last_seen, since, release, bundle, doc, group_path, version, kit) VALUES ($1, $2, $3, $4, $5, $6, 'station-1', $7, $8, $9, $10, 'tpm', $11, $12, $13, $14, 1, $15, $16, $17, $18)`,
		d.id, d.product, d.hardware, string(d.state), d.legitimacy, d.order, d.made, key[:], append([]byte{2}, key[:]...), append([]byte{1}, key[:]...),
		d.luck%50 == 0, d.seen, d.made, d.release, twin, d.group, d.version, kit); err != nil {
		return err
	}
	for _, path := range access.Paths(d.product, d.group)[1:] {
		if err := store.JoinGroup(tx, path, d.id); err != nil {
			return err
		}
	}
	return nil
}

// birth is its production record.
func (c *crowd) birth(tx *store.Tx, d one) error {
	h := sha256.Sum256([]byte("record" + d.id))
	_, err := tx.Exec(`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope)
		VALUES ($1, $2, $3, $4, $2, $5, 'made', $6, $3, $3, $7)`, d.order, d.seq, h[:], h[:4], d.id, h[:8], c.filler[:256])
	return err
}

func (c *crowd) certificates(tx *store.Tx, d one) error {
	put := func(role, serial string, from, to time.Time, ended int64) error {
		_, err := tx.Exec(`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
			VALUES ($1, $2, $3, 'abcdef', $4, $5, $6, $7, $8, $9)`, "abcdef/"+serial, d.id, role, serial, c.filler[:32], store.Millis(from), store.Millis(to), ended, c.filler[:420])
		return err
	}
	if err := put("idevid", d.id+"00", store.Time(d.made), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 0); err != nil || d.state == device.Provisioned {
		return err
	}
	left := time.Duration(d.luck>>12%(60*24)) * time.Hour
	if d.luck>>36%1000 == 0 {
		left = -time.Duration(d.luck%200+1) * time.Hour
	}
	to := c.now.Add(left)
	if d.luck%3 == 0 {
		if err := put("ldevid", d.id+"01", to.AddDate(0, -6, 0), to.AddDate(0, -3, 0), store.Millis(to.AddDate(0, -3, -9))); err != nil {
			return err
		}
	}
	return put("ldevid", d.id+"02", to.AddDate(0, -3, 0), to, 0)
}

func (c *crowd) evidence(tx *store.Tx, d one) error {
	if !d.proven {
		return nil
	}
	at := store.Time(d.seen)
	v := attest.Verdict{Device: d.id, At: at, Status: d.status, Word: d.status.String(), Release: d.release, Version: d.version, BootCount: d.luck % 90, Counter: 7}
	if d.status == attest.Contraindicated {
		v.Reasons = []string{"the measured application is not of a known release"}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f := ledger.New(ledger.KindVerdict, at, "device:"+d.id, d.id, nil, data)
	v.UID = f.UID
	if err := store.PutVerdict(tx, v); err != nil || d.i%2 != 0 {
		return err
	}
	return tx.Append(f)
}

// trouble is what was found wrong with it, and what is done about it.
func (c *crowd) trouble(tx *store.Tx, d one) error {
	find := func(kind monitor.Kind, s monitor.Severity, text string, open bool) error {
		f := monitor.Finding{
			ID: fmt.Sprintf("%016x", mix(d.luck^uint64(len(kind)))), Dedupe: string(kind) + "/" + d.id, Kind: kind, Severity: s, Product: d.product, Subject: d.id, Text: text,
			Raised: c.now.Add(-time.Duration(d.luck>>10%(90*24*60)) * time.Minute),
		}
		if !open {
			f.Closed, f.By, f.Reason = f.Raised.Add(3*time.Hour), "monitor", "it is well again"
		}
		doc, err := json.Marshal(f)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, closed, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			f.ID, f.Dedupe, string(f.Kind), string(f.Severity), f.Product, f.Subject, store.Millis(f.Raised), store.Millis(f.Closed), string(doc))
		if err != nil || !open {
			return err
		}
		_, err = tx.Exec(`UPDATE device SET findings = findings + 1 WHERE id = $1`, d.id)
		return err
	}
	silent := d.seen > 0 && c.now.Sub(store.Time(d.seen)) > 30*time.Minute
	switch {
	case d.state == device.Quarantined:
		if err := find(monitor.BadVerdict, monitor.High, "its evidence is contraindicated", true); err != nil {
			return err
		}
		return c.remedied(tx, d)
	case d.state == device.Decommissioned || d.state == device.Decommissioning:
		return c.retired(tx, d)
	case silent && c.now.Sub(store.Time(d.seen)) > 2*time.Hour:
		return find(monitor.NoCheckin, monitor.Medium, "it was not heard of in time", true)
	case d.luck>>18%200 == 0:
		return find(monitor.FailedUpdate, monitor.Low, "an update was not installed", d.luck%10 == 0)
	}
	return nil
}

func (c *crowd) remedied(tx *store.Tx, d one) error {
	phase := []remedy.Phase{remedy.Held, remedy.Contained, remedy.Remaking}[d.luck>>30%3]
	k := remedy.Case{
		Device: d.id, Product: d.product, Cause: ledger.Ref{Log: ledger.Events, Index: uint64(d.i)}, Reason: "contraindicated: not of a known release", Phase: phase,
		Opened: c.now.Add(-time.Hour), Since: c.now.Add(-time.Hour), Until: c.now.AddDate(0, 0, 7), Command: "none", Release: d.release,
	}
	doc, err := json.Marshal(k)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO remedy_case (cause_log, cause_idx, device_id, product, phase, open, held, opened, rev, doc) VALUES ('events', $1, $2, $3, $4, 1, $5, $6, 1, $7)`,
		d.i, d.id, d.product, string(phase), phase == remedy.Held, store.Millis(k.Opened), string(doc))
	return err
}

func (c *crowd) retired(tx *store.Tx, d one) error {
	r := retire.Retirement{
		Device: d.id, Product: d.product, Phase: retire.Wiped, Warrant: "w1", Reason: "end of life", By: "person:ann", Ordered: c.now.AddDate(0, -1, 0), Ended: c.now,
		Moved: true, Revoked: true, KeysGone: true,
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO retirement (device_id, phase, open, warrant_uid, order_uid, end_uid, rev, doc) VALUES ($1, $2, 0, $3, $3, $3, 1, $4)`,
		d.id, string(r.Phase), make([]byte, 16), string(doc))
	return err
}

// told is what commands and rollouts have it in them.
func (c *crowd) told(tx *store.Tx, d one) error {
	if d.i%100 < len(c.commands[d.product]) && d.state == device.Active {
		if _, err := tx.Exec(`INSERT INTO command_device (command_id, device_id, state, attempts, at) VALUES ($1, $2, $3, 1, $4)`,
			c.commands[d.product][d.i%100], d.id, []string{"done", "done", "failed", "pending"}[d.luck>>22%4], d.seen); err != nil {
			return err
		}
	}
	if d.product != products[0] || d.luck>>26%30 != 0 || d.state != device.Active {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO rollout_place (rollout_id, device_id, wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due)
		VALUES ($1, $2, 1, 0, 1, $3, 1, '', $4, '', 'waiting', 0, 0, $5)`, Rollout, d.id, d.release, Command, int64(math.MaxInt64))
	return err
}

// data is its sealed streams and its own log.
func (c *crowd) data(tx *store.Tx, d one) error {
	if d.seen > 0 {
		if _, err := tx.Exec(`INSERT INTO device_log (device, seq, head, anchor, heard) VALUES ($1, 9, $2, $3, $4)`,
			d.id, c.filler[:32], c.filler[:16], d.seen); err != nil {
			return err
		}
	}
	if d.i%5 != 0 {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO stream_epoch (device, stream, epoch, payload, envelope) VALUES ($1, $2, 1, $3, $4)`,
		d.id, []string{"vibration", "temperature"}[d.i/5%2], c.filler[:64], c.filler[:300])
	return err
}

func (c *crowd) history(tx *store.Tx, d one) error {
	if d.i%4 != 0 {
		return nil
	}
	return tx.Append(ledger.New(ledger.KindDeviceState, store.Time(d.made), "server", d.id, nil, activated))
}
