package store_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// caller is a device that calls over the wire, and who counts what that asks of the database.
type caller struct {
	t      testing.TB
	svc    *device.Service
	proofs *proofs
	key    *ecdsa.PrivateKey // of the directive authority
	nonce  byte

	mu   sync.Mutex
	asks []string // guarded by mu
}

func (c *caller) note(query string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks = append(c.asks, query)
}

// call is one check-in; it gives the statements that it took.
func (c *caller) call(in wire.Checkin) (wire.CheckinReply, []string, error) {
	c.t.Helper()
	c.nonce++
	in.Nonce = slices.Repeat([]byte{c.nonce}, 32)
	body, err := wire.EncodeCheckin(in)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.asks = nil
	c.mu.Unlock()
	out, err := c.svc.Call(c.t.Context(), access.DeviceCaller(devID), devID, body)
	c.mu.Lock()
	asks := c.asks
	c.mu.Unlock()
	if err != nil {
		return wire.CheckinReply{}, asks, err
	}
	r, err := wire.DecodeCheckinReply(out)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, asks, nil
}

// quieten calls until a call asks nothing of the database.
func (c *caller) quieten(in wire.Checkin) wire.CheckinReply {
	c.t.Helper()
	for range 3 {
		if _, _, err := c.call(in); err != nil {
			c.t.Fatal(err)
		}
	}
	r, asks, err := c.call(in)
	if err != nil || len(asks) != 0 {
		c.t.Fatalf("without news, the fourth time: %q, %v", asks, err)
	}
	return r
}

// quietBench is a device at work whose evidence was good just now.
func quietBench(t testing.TB, change func(*device.Config)) (*store.DB, *device.Service, *proofs, *caller) {
	t.Helper()
	db := storetest.Open(t)
	c := &caller{t: t}
	db.Trace(c.note)
	c.svc, c.proofs, c.key = deviceBenchOn(t, db, change)
	svc, l := c.svc, c.proofs
	if err := db.PutProduct(t.Context(), product.Product{ID: "pump"}, ledger.New(ledger.KindProductCreated, time.Now(), "test", "pump", nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := db.FollowWakes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, svc, l, c
}

func TestAQuietCheckinAsksNothingOfTheDatabase(t *testing.T) {
	_, svc, _, c := quietBench(t, func(*device.Config) {})
	in := checkin()
	in.Token = &wire.Token{Next: slices.Repeat([]byte{3}, wire.TokenSize)}
	first, _, err := c.call(in)
	if err != nil {
		t.Fatal(err)
	}
	r := c.quieten(in)
	first.Time = r.Time
	if fmt.Sprint(r) != fmt.Sprint(first) || r.Standing != "active" || r.Roll == 0 || string(r.Token) != string(in.Token.Next) {
		t.Errorf("from memory it is told %+v, and was told %+v", r, first)
	}
	if d, err := svc.Get(t.Context(), access.Internal("test"), devID); err != nil || time.Since(d.LastSeen) > time.Minute {
		t.Errorf("last seen %v, %v", d.LastSeen, err)
	}
	in.Health = "warm"
	if _, asks, err := c.call(in); err != nil || len(asks) == 0 {
		t.Errorf("with news: %q, %v", asks, err)
	}
	if _, err := svc.Call(t.Context(), access.DeviceCaller(devID), devID, []byte("nonsense")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("nonsense: %v", err)
	}
}

// evidence asks for evidence by the real rules.
type evidence struct{ *attest.Service }

func (evidence) Waits(string) bool { return false }

func withEvidence(t testing.TB, db *store.DB) *attest.Service {
	t.Helper()
	guard, err := access.NewGuard(silentAudit{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := attest.NewService(attest.Config{Store: db.Attest(), Guard: guard, References: db.Releases(), Policy: func(context.Context, string) (attest.Policy, error) { return attest.Policy{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func putVerdict(t testing.TB, db *store.DB, n byte, status attest.Tier, at time.Time) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		return store.PutVerdict(tx, attest.Verdict{UID: [16]byte{n}, Device: devID, At: at, Status: status, BootCount: 1})
	}); err != nil {
		t.Fatal(err)
	}
}

var readFrom = regexp.MustCompile(`(?i)\b(?:FROM|JOIN)\s+(\w+)`)

// What a quiet answer is made from, and what wakes: the same tables. Who has a check-in look at another table adds it to `waking`.
func TestWhatAQuietAnswerIsMadeFrom(t *testing.T) {
	db, _, _, c := quietBench(t, func(cfg *device.Config) {
		d, _ := cfg.Wakes.(*store.DB)
		cfg.Challenger = evidence{withEvidence(t, d)}
	})
	putVerdict(t, db, 1, attest.Affirming, time.Now())
	if _, _, err := c.call(checkin()); err != nil { // its news
		t.Fatal(err)
	}
	_, asks, err := c.call(checkin())
	if err != nil || len(asks) < 3 {
		t.Fatalf("%q, %v", asks, err)
	}
	for _, query := range asks {
		for _, m := range readFrom.FindAllStringSubmatch(query, -1) {
			for _, write := range []string{"UPDATE %s SET x = 1", "INSERT INTO %s (x) VALUES (1)", "insert or replace\n into %s (x)", "DELETE FROM %s WHERE x = 1", "WITH a AS (SELECT 1) UPDATE %s SET x = 1"} {
				if q := fmt.Sprintf(write, m[1]); !store.Wakes(q) {
					t.Errorf("a quiet answer is made from table %s, and %q wakes nobody", m[1], q)
				}
			}
		}
	}
	c.quieten(checkin())
	for _, q := range []string{"SELECT * FROM device", "UPDATE device_group SET x = 1", "INSERT INTO device_stir (device) VALUES ($1)", "UPDATE rollout_place SET device = 1"} {
		if store.Wakes(q) {
			t.Errorf("%q wakes", q)
		}
	}
}

// Whatever happens to a device that was quiet, its next call shows it.
func TestAQuietDeviceHearsWhatHappens(t *testing.T) {
	test := access.Internal("test")
	command := func(act wire.Act) func(t *testing.T, db *store.DB, svc *device.Service) error {
		return func(t *testing.T, _ *store.DB, svc *device.Service) error {
			in := device.Instruction{Product: "pump", Act: act, Devices: []string{devID}, Reason: "why", TTL: time.Hour}
			if act == wire.ActConfigure {
				var err error
				if in.Config, err = wire.EncodeConfig([]wire.ConfigEntry{{Name: "a", Value: "1"}}); err != nil {
					return err
				}
			}
			_, err := svc.Command(t.Context(), test, in)
			return err
		}
	}
	move := func(events ...device.Event) func(t *testing.T, db *store.DB, svc *device.Service) error {
		return func(t *testing.T, _ *store.DB, svc *device.Service) error {
			for _, ev := range events {
				if _, err := svc.Move(t.Context(), test, devID, ev, nil, "why"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	write := func(query string, args ...any) func(t *testing.T, db *store.DB, svc *device.Service) error {
		return func(t *testing.T, db *store.DB, _ *device.Service) error {
			return db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(query, args...); return err })
		}
	}
	told := func(r wire.CheckinReply, err error) bool {
		return err == nil && r.Delivery != nil && r.NextPoll == 5000
	}
	for name, c := range map[string]struct {
		happens func(t *testing.T, db *store.DB, svc *device.Service) error
		heard   func(r wire.CheckinReply, err error) bool
	}{
		"an order":       {command(wire.ActReset), told},
		"new parameters": {command(wire.ActConfigure), told},
		"containment":    {command(wire.ActQuarantine), told},
		"quarantine":     {move(device.Quarantine), func(r wire.CheckinReply, err error) bool { return err == nil && r.Standing == "quarantined" }},
		"suspicion":      {move(device.Suspect), func(r wire.CheckinReply, err error) bool { return err == nil && r.Standing == string(device.Suspected) }},
		"absolution": {move(device.Suspect, device.Clear), func(_ wire.CheckinReply, err error) bool {
			f, ok := errors.AsType[*fault.Fault](err)
			return ok && f.Code == "device.enrol-anew"
		}},
		"its end": {move(device.Retire, device.Wiped), func(_ wire.CheckinReply, err error) bool { return fault.KindOf(err) == fault.Denied }},
		"bad evidence": {func(t *testing.T, db *store.DB, _ *device.Service) error {
			putVerdict(t, db, 2, attest.Contraindicated, time.Now().Add(-2*time.Minute)) // later than the one before, and it may be asked again
			return nil
		}, func(r wire.CheckinReply, err error) bool { return err == nil && r.Challenge != nil }},
		"an owner":            {write(`UPDATE device SET owned_since = 5000 WHERE id = $1`, devID), func(r wire.CheckinReply, err error) bool { return err == nil && r.Period == 5000 }},
		"who says it to none": {write(`UPDATE device SET state = 'dormant'`), func(r wire.CheckinReply, err error) bool { return err == nil && r.Standing == "dormant" }},
	} {
		t.Run(name, func(t *testing.T) {
			db, svc, l, who := quietBench(t, func(cfg *device.Config) {
				d, _ := cfg.Wakes.(*store.DB)
				cfg.Challenger = evidence{withEvidence(t, d)}
			})
			l.witnessed = true
			putVerdict(t, db, 1, attest.Affirming, time.Now().Add(-3*time.Minute))
			who.quieten(checkin())
			if err := c.happens(t, db, svc); err != nil {
				t.Fatal(err)
			}
			if r, _, err := who.call(checkin()); !c.heard(r, err) {
				t.Errorf("the next call has %+v, %v", r, err)
			}
		})
	}
}

// A trust bundle reaches a quiet device as the order that it is.
func TestAQuietDeviceHearsOfABundle(t *testing.T) {
	_, svc, l, c := quietBench(t, func(*device.Config) {})
	l.witnessed = true
	c.quieten(checkin())
	current, err := svc.CurrentBundle(t.Context(), "pump")
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.DistributeBundle(t.Context(), access.Internal("test"), "pump"); err != nil { // the one it has: to nobody
		t.Fatal(err)
	}
	if r, asks, err := c.call(checkin()); err != nil || r.Delivery != nil || len(asks) != 0 || current.Wire.Version != 1 {
		t.Fatalf("%+v, %q, %v", r, asks, err)
	}
}

// Time alone ends what is remembered: evidence that is due, a guard that is over, and two polls.
func TestAQuietAnswerEndsWithTime(t *testing.T) {
	now := time.Now().UTC()
	clock := func(cfg *device.Config) { cfg.Now = func() time.Time { return now } }
	_, svc, l, c := quietBench(t, clock)
	c.quieten(checkin())
	now = now.Add(9 * time.Minute)
	if _, asks, err := c.call(checkin()); err != nil || len(asks) != 0 {
		t.Fatalf("after 9 minutes: %q, %v", asks, err)
	}
	now = now.Add(time.Minute)
	if _, asks, err := c.call(checkin()); err != nil || len(asks) == 0 {
		t.Fatalf("after two polls it was answered from memory: %v", err)
	}
	// A quarantine that the device ends by itself.
	l.witnessed = true
	if _, err := svc.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActQuarantine, Devices: []string{devID}, Reason: "why", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	r, _, err := c.call(checkin())
	if err != nil {
		t.Fatal(err)
	}
	d, err := wire.DecodeDelivery(r.Delivery)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := wire.Verify1(wire.TypeDirective, d.Directive, c.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	directive, err := wire.DecodeDirective(payload)
	if err != nil {
		t.Fatal(err)
	}
	in := checkin()
	in.Counter, in.Results = 1, []wire.Result{{Command: directive.Command, Act: wire.ActQuarantine, Outcome: wire.OutcomeDone, Seq: 1}}
	if r := c.quieten(in); r.Standing != "quarantined" {
		t.Fatalf("%+v", r)
	}
	now = now.Add(time.Minute)
	if r, _, err := c.call(in); err != nil || r.Standing == "quarantined" {
		t.Errorf("its time is over, and the device says that it is active: %+v, %v", r, err)
	}
}

// An order is given while the device calls without end: once the order is acknowledged, no call misses it.
func TestNoCallMissesAnOrderThatWasAcknowledged(t *testing.T) {
	_, svc, _, c := quietBench(t, func(*device.Config) {})
	if _, _, err := c.call(checkin()); err != nil {
		t.Fatal(err)
	}
	body, err := wire.EncodeCheckin(checkin())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (wire.CheckinReply, error) {
		out, err := svc.Call(t.Context(), access.DeviceCaller(devID), devID, body)
		if err != nil {
			return wire.CheckinReply{}, err
		}
		return wire.DecodeCheckinReply(out)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := ask(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		id, err := svc.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: []string{devID}, Reason: "why"})
		if err != nil {
			t.Error(err)
			break
		}
		if r, err := ask(); err != nil || r.NextPoll != 5000 {
			t.Errorf("after the order: %+v, %v", r, err)
		}
		if err := svc.CancelCommand(t.Context(), access.Internal("test"), id, "why"); err != nil {
			t.Error(err)
			break
		}
		if r, err := ask(); err != nil || r.NextPoll == 5000 {
			t.Errorf("after it was taken back: %+v, %v", r, err)
		}
	}
	close(stop)
	all.Wait()
}

// Two nodes of one database: what one of them writes, a device that the other answers from memory hears as soon as that one has listened; a node that
// cannot listen answers nobody from memory.
func TestAQuietDeviceHearsWhatAnotherNodeWrites(t *testing.T) {
	url := storetest.Postgres(t)
	open := func() *store.DB {
		db, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		db.KeepPrivate(storetest.Vault{})
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db
	}
	one, two := open(), open()
	c := &caller{t: t}
	two.Trace(c.note)
	here, _, _ := deviceBenchOn(t, one, func(*device.Config) {})
	cfg, _, _ := benchConfig(t, two)
	there, err := device.NewService(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.svc = there
	listen := func() {
		t.Helper()
		if err := two.FollowWakes(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if _, asks, err := c.call(checkin()); err != nil || len(asks) == 0 {
			t.Fatalf("a node that has not listened yet answers from memory: %v", err)
		}
	}
	hears := func(what string) {
		t.Helper()
		id, err := here.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: []string{devID}, Reason: "why"})
		if err != nil {
			t.Fatal(err)
		}
		if what != "deaf" {
			listen()
		}
		if r, _, err := c.call(checkin()); err != nil || r.NextPoll != 5000 {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
		if err := here.CancelCommand(t.Context(), access.Internal("test"), id, "why"); err != nil {
			t.Fatal(err)
		}
	}
	listen()
	c.quieten(checkin())
	hears("listening")
	listen()
	c.quieten(checkin())
	two.AgeEars(3 * time.Second)
	hears("deaf")
	listen()
	c.quieten(checkin())
	two.AgeEars(2 * time.Minute) // and what it should have heard is not kept any more
	if err := one.Write(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(`UPDATE device SET state = 'dormant' WHERE id = $1`, devID); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM quiet_wake`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	listen()
	if r, _, err := c.call(checkin()); err != nil || r.Standing != "dormant" {
		t.Errorf("after it was away: %+v, %v", r, err)
	}
	if err := one.PruneWakes(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What wakes many wakes them all, and names nobody.
func TestAnOrderToManyWakesAll(t *testing.T) {
	db, svc, l, c := quietBench(t, func(*device.Config) {})
	l.witnessed = true
	c.quieten(checkin())
	ids := []string{devID}
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range 2100 {
			id := fmt.Sprintf("%032x", i+1)
			ids = append(ids, id)
			if err := store.PutProvisioned(tx, store.ProvisionedRow{ID: id, Product: "pump", Hardware: "A", Order: "o", Station: "s", At: time.Unix(1, 0), AttestKey: []byte(id), KeyOrigin: "soft"}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c.quieten(checkin())
	if _, err := svc.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: ids, Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	if r, _, err := c.call(checkin()); err != nil || r.Delivery == nil {
		t.Errorf("%+v, %v", r, err)
	}
	if storetest.OnPostgres() {
		var n int
		if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM quiet_wake`).Scan(&n); err != nil || n > 100 {
			t.Errorf("%d rows, %v", n, err)
		}
	}
}
