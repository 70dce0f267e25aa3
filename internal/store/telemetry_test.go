package store_test

import (
	"bytes"
	"crypto/hpke"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// kinds counts the facts of a kind.
func kinds(t *testing.T, db *store.DB, kind string) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = $1`, kind).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

type stream struct {
	db      *store.DB
	service *telemetry.Service
	device  *chain
	sealer  *seal.Stream
	reader  hpke.PrivateKey
	key     wire.StreamKey // of the bucket
	other   wire.StreamKey // of one whose private key nobody has
}

func newStream(t *testing.T) *stream {
	t.Helper()
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	kem := hpke.MLKEM768P256()
	bucket, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	x := &stream{db: db, device: newChain(t, db), reader: reader}
	x.service = telemetry.NewService(telemetry.Config{
		Store: db, Guard: guard, Keys: telemetry.NewKeyAccess(map[string]hpke.PrivateKey{"b1": bucket}),
	})
	x.key = wire.StreamKey{Bucket: "b1", KEM: kem.ID(), Key: bucket.PublicKey().Bytes()}
	lost, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	x.other = wire.StreamKey{Bucket: "b0", KEM: kem.ID(), Key: lost.PublicKey().Bytes()}
	x.sealer, err = seal.Open(x.device.id, "readings", 1, 0, x.key, x.device.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *stream) guard(t *testing.T) *access.Guard {
	t.Helper()
	g, err := access.NewGuard(x.db)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (x *stream) upload(t *testing.T) wire.Upload {
	t.Helper()
	u, err := x.sealer.Upload(false)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (x *stream) ingest(t *testing.T, u wire.Upload) error {
	t.Helper()
	b, err := wire.EncodeUpload(u)
	if err != nil {
		t.Fatal(err)
	}
	return x.service.Ingest(t.Context(), access.DeviceCaller(x.device.id), x.device.id, b)
}

func (x *stream) read(t *testing.T, who string) (telemetry.ReadReply, error) {
	t.Helper()
	return x.readFrom(t, who, 0)
}

func (x *stream) readFrom(t *testing.T, who string, from uint64) (telemetry.ReadReply, error) {
	t.Helper()
	return x.service.Read(t.Context(), access.Caller{ID: who, Kind: access.Person, Roles: []access.Role{access.Viewer}},
		telemetry.ReadRequest{
			Device: x.device.id, Stream: "readings", Purpose: "service", KEM: x.reader.KEM().ID(), Key: x.reader.PublicKey().Bytes(), From: from,
		})
}

func TestAnAllowedReaderReadsAndAnotherDoesNot(t *testing.T) {
	x := newStream(t)
	for _, s := range []string{"21.5", "21.7"} {
		if err := x.sealer.Add([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	u := x.upload(t)
	for range 2 { // the second is a resend
		if err := x.ingest(t, u); err != nil {
			t.Fatal(err)
		}
	}
	x.sealer.Acked(u)
	if err := x.sealer.Add([]byte("21.9")); err != nil {
		t.Fatal(err)
	}
	if err := x.ingest(t, x.upload(t)); err != nil {
		t.Fatal(err)
	}
	security := access.Caller{ID: "person:sec", Kind: access.Person, Roles: []access.Role{access.Security}}
	g := telemetry.Grant{ID: "g1", Reader: "person:ann", Product: "pump", Stream: "readings", Purpose: "service", Until: time.Now().Add(time.Hour)}
	if err := x.service.Grant(t.Context(), security, g); err != nil {
		t.Fatal(err)
	}
	reply, err := x.read(t, "person:ann")
	if err != nil {
		t.Fatal(err)
	}
	got, err := telemetry.OpenAll(reply, x.reader, x.device.key.Public(), x.device.id)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(bytes.Join(got, []byte(","))); s != "21.5,21.7,21.9" {
		t.Fatalf("read %q", s)
	}
	if _, err := x.read(t, "person:bob"); fault.KindOf(err) != fault.Denied {
		t.Fatalf("without a grant: %v", err)
	}
	if n := kinds(t, x.db, "telemetry.read.decided"); n != 2 {
		t.Errorf("%d decisions recorded, want one allowed and one denied", n)
	}
	if n := kinds(t, x.db, "telemetry.epoch.opened"); n != 1 {
		t.Errorf("%d epochs recorded, want 1", n)
	}
	for range 2 {
		if err := x.service.DestroyDevice(t.Context(), security, x.device.id, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := x.read(t, "person:ann"); err != nil || len(r.Epochs) != 0 {
		t.Errorf("after its keys were destroyed: %d epochs, %v", len(r.Epochs), err)
	}
	if n := kinds(t, x.db, "telemetry.keys.destroyed"); n != 1 {
		t.Errorf("destroyed %d times, want once", n)
	}
	reply.Epochs[0].Records = reply.Epochs[0].Records[:2]
	if _, err := telemetry.OpenAll(reply, x.reader, x.device.key.Public(), x.device.id); err == nil {
		t.Error("a record was held back, and nobody noticed")
	}
}

func TestTheStoreSeesNoCleartextAndLosesNothingUnsaid(t *testing.T) {
	x := newStream(t)
	secret := strings.Repeat("blood pressure ", 3)
	for range 4 {
		if err := x.sealer.Add([]byte(secret)); err != nil {
			t.Fatal(err)
		}
	}
	u := x.upload(t)
	b, err := wire.EncodeUpload(u)
	if err != nil || bytes.Contains(b, []byte("blood")) {
		t.Fatalf("cleartext in the upload, or %v", err)
	}
	u.Records = append(u.Records[:1:1], u.Records[2:]...) // the second is lost on the way
	if err := x.ingest(t, u); err != nil {
		t.Fatal(err)
	}
	e, _, err := x.db.Epochs(t.Context(), x.device.id, "readings", 0, telemetry.Limit{Epochs: 10, Records: 100})
	if err != nil || len(e) != 1 || len(e[0].Holes) != 1 || e[0].Holes[0] != 2 {
		t.Fatalf("holes %+v, %v", e, err)
	}
	u.Records[0].Data = bytes.Clone(u.Records[1].Data)
	if err := x.ingest(t, u); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "two records") {
		t.Errorf("other bytes under a known number: %v", err)
	}
	u.Series = [][]byte{u.Epochs[0]}
	if err := x.ingest(t, u); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an epoch in a head's place: %v", err)
	}
}

func TestSecretsAreUsedAsTheyWereMeant(t *testing.T) {
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	c := signin.New(db, guard)
	admin := access.Caller{ID: "host", Kind: access.Person, Roles: []access.Role{access.Admin}}
	grant := signin.Grant{Caller: "person:ann", Kind: access.Person, Roles: []access.Role{access.Viewer}, Life: time.Hour, Use: signin.UseToken}
	token, err := c.Issue(t.Context(), admin, grant)
	if err != nil {
		t.Fatal(err)
	}
	grant.Use = signin.UseOnce
	once, err := c.Issue(t.Context(), admin, grant)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := c.Authenticate(t.Context(), token); err != nil || who.ID != "person:ann" {
		t.Errorf("token: %v %v", who, err)
	}
	if _, err := c.Authenticate(t.Context(), once); err == nil {
		t.Error("a one-time code authenticated a call")
	}
	session, _, err := c.Begin(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Begin(t.Context(), once); err == nil {
		t.Error("a one-time code was used twice")
	}
	if _, err := c.Authenticate(t.Context(), session); err == nil {
		t.Error("a session authenticated a call as a token")
	}
	if who, err := c.Caller(t.Context(), session); err != nil || !who.Has(access.Viewer) {
		t.Errorf("session: %v %v", who, err)
	}
	if _, err := c.Issue(t.Context(), access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Viewer}}, grant); err == nil {
		t.Error("a viewer issued a token")
	}
	if _, err := c.EndMember(t.Context(), admin, "person:ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Caller(t.Context(), session); err == nil {
		t.Error("a revoked session still works")
	}
}

// Who asks for what they may not read is on record, so many times; and under no name that is none.
func TestWhoAsksWithoutLeaveDoesNotFillTheLedger(t *testing.T) {
	x := newStream(t)
	for range 100 {
		if _, err := x.read(t, "person:eve"); err == nil {
			t.Fatal("read without a grant")
		}
	}
	if n := kinds(t, x.db, "telemetry.read.decided"); n != 60 {
		t.Errorf("%d refusals on record", n)
	}
	if _, err := x.read(t, "person:ann"); fault.KindOf(err) != fault.Denied {
		t.Errorf("another who may not: %v", err)
	}
	for _, req := range []telemetry.ReadRequest{
		{Device: "\x1b[2J", Stream: "readings", Purpose: "service"},
		{Device: x.device.id, Stream: "readings\nall", Purpose: "service"},
		{Device: x.device.id, Stream: "readings", Purpose: "serv\x07ice"},
	} {
		if _, err := x.service.Read(t.Context(), access.Caller{ID: "person:eve", Kind: access.Person}, req); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q, %q, %q: %v", req.Device, req.Stream, req.Purpose, err)
		}
	}
	if n := kinds(t, x.db, "telemetry.read.decided"); n != 61 {
		t.Errorf("%d refusals on record in the end", n)
	}
}

// next is another epoch of the device's stream with so many samples.
func (x *stream) next(t *testing.T, number uint64, samples ...string) wire.Upload {
	t.Helper()
	return x.during(t, 0, number, samples...)
}

// during is one of a period of ownership.
func (x *stream) during(t *testing.T, period, number uint64, samples ...string) wire.Upload {
	t.Helper()
	s, err := seal.Open(x.device.id, "readings", number, period, x.key, x.device.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range samples {
		if err := s.Add([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	u, err := s.Upload(false)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (x *stream) granted(t *testing.T) {
	t.Helper()
	security := access.Caller{ID: "person:sec", Kind: access.Person, Roles: []access.Role{access.Security}}
	g := telemetry.Grant{ID: "g1", Reader: "person:ann", Product: "pump", Stream: "readings", Purpose: "service", Until: time.Now().Add(time.Hour)}
	if err := x.service.Grant(t.Context(), security, g); err != nil {
		t.Fatal(err)
	}
}

// Who owns a device reads what it measured in their time, whenever that came, and nothing of before: not what nobody owned, and not what
// was sealed before and came late. Its maker reads all that there is.
func TestAnOwnerReadsTheirOwnTime(t *testing.T) {
	x := newStream(t)
	x.granted(t)
	began := time.Now().Truncate(time.Millisecond)
	mine := wire.PeriodOf(began)
	for _, u := range []wire.Upload{x.next(t, 1, "nobody's"), x.during(t, mine, 3, "mine"), x.during(t, mine-5000, 4, "of another time"), x.next(t, 5, "nobody's, late")} {
		if err := x.ingest(t, u); err != nil {
			t.Fatal(err)
		}
	}
	place := func(group string, since int64) {
		if err := x.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE device SET owned_since = $1, group_path = $2 WHERE id = $3`, since, group, x.device.id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	owner := access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Operator}, Owner: "o1", Scope: []string{"pump/" + access.OwnerGroup("o1")}}
	read := func(who access.Caller) (out []string, err error) {
		reply, err := x.service.Read(t.Context(), who, telemetry.ReadRequest{
			Device: x.device.id, Stream: "readings", Purpose: "service", KEM: x.reader.KEM().ID(), Key: x.reader.PublicKey().Bytes(),
		})
		if err != nil {
			return nil, err
		}
		samples, err := telemetry.OpenAll(reply, x.reader, x.device.key.Public(), x.device.id)
		for _, s := range samples {
			out = append(out, string(s))
		}
		return out, err
	}
	place(access.OwnerGroup("o1"), began.UnixMilli())
	if got, err := read(owner); err != nil || !slices.Equal(got, []string{"mine"}) {
		t.Errorf("the owner reads %q, %v", got, err)
	}
	maker := access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	if got, err := read(maker); err != nil || len(got) != 4 {
		t.Errorf("the maker reads %q, %v", got, err)
	}
	place(access.OwnerGroup("o1"), 0)
	if got, err := read(owner); err != nil || len(got) != 0 {
		t.Errorf("of a device whose time of ownership is not known the owner reads %q, %v", got, err)
	}
}

// A long stream is read in parts, each with its decision; an epoch whose retention has ended takes nothing else with it.
func TestALongStreamIsReadInParts(t *testing.T) {
	x := newStream(t)
	x.granted(t)
	want := 0
	for n := uint64(1); n <= 120; n++ {
		key := x.key
		if n == 70 {
			x.key = x.other // a bucket whose key is not there any more
		}
		if err := x.ingest(t, x.next(t, n, "21.5", "21.6")); err != nil {
			t.Fatal(err)
		}
		x.key = key
		want += 2
	}
	got, gone := 0, []uint64(nil)
	parts := 0
	for from := uint64(0); ; parts++ {
		reply, err := x.readFrom(t, "person:ann", from)
		if err != nil {
			t.Fatal(err)
		}
		samples, err := telemetry.OpenAll(reply, x.reader, x.device.key.Public(), x.device.id)
		if err != nil {
			t.Fatal(err)
		}
		got, gone = got+len(samples), append(gone, reply.Gone...)
		if from = reply.Next; from == 0 {
			break
		}
		if parts > 10 {
			t.Fatal("it does not end")
		}
	}
	if got != want-2 || len(gone) != 1 || gone[0] != 70 {
		t.Errorf("%d of %d samples, gone %v", got, want-2, gone)
	}
	if n := kinds(t, x.db, "telemetry.read.decided"); n != parts+1 || parts < 1 {
		t.Errorf("%d decisions for %d parts", n, parts+1)
	}
}

// What a device may not do with its stream; who did it is told so for good, and nothing is stored.
func TestWhatIsNoStream(t *testing.T) {
	x := newStream(t)
	first := x.next(t, 1, "a", "b")
	if err := x.ingest(t, first); err != nil {
		t.Fatal(err)
	}
	stranger := x.next(t, 1, "c", "d") // a copy of the device, under the same number
	unopened := x.next(t, 2, "e")
	unopened.Epochs = nil
	headless := x.next(t, 3, "f")
	headless.Epochs, headless.Records = nil, nil
	other := stranger
	other.Epochs, other.Records = nil, nil // a head alone: other records of the same numbers
	for name, u := range map[string]wire.Upload{
		"stream.forked: its epoch":             stranger,
		"stream.forked: another head":          other,
		"stream.unopened: records":             unopened,
		"stream.unopened: a head":              headless,
		"stream.unopened: beside what is good": {Epochs: x.next(t, 4, "g").Epochs, Records: unopened.Records},
	} {
		code, _, _ := strings.Cut(name, ":")
		err := x.ingest(t, u)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Kind != fault.Invalid || f.Code != code {
			t.Errorf("%s: %v", name, err)
		}
	}
	two := x.next(t, 5, "h")
	two.Epochs = append(two.Epochs, first.Epochs...)
	if err := x.ingest(t, two); err != nil {
		t.Fatal(err)
	}
	if n := kinds(t, x.db, "telemetry.epoch.opened"); n != 2 {
		t.Errorf("%d facts of 2 epochs", n)
	}
	e, _, err := x.db.Epochs(t.Context(), x.device.id, "readings", 0, telemetry.Limit{Epochs: 10, Records: 100})
	if err != nil || len(e) != 2 || len(e[0].Records) != 2 || e[0].Proven != 2 {
		t.Errorf("%+v, %v", e, err)
	}
}

// The last head of an epoch ends it.
func TestWhatWasClosedStaysClosed(t *testing.T) {
	x := newStream(t)
	if err := x.sealer.Add([]byte("a")); err != nil {
		t.Fatal(err)
	}
	open := x.upload(t)
	closing, err := x.sealer.Upload(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []wire.Upload{open, closing, open} {
		if err := x.ingest(t, u); err != nil {
			t.Fatal(err)
		}
	}
	if e, _, err := x.db.Epochs(t.Context(), x.device.id, "readings", 0, telemetry.Limit{Epochs: 10, Records: 100}); err != nil || !e[0].Closed {
		t.Errorf("%v, %v", e, err)
	}
	if err := x.sealer.Add([]byte("b")); err != nil {
		t.Fatal(err)
	}
	if err := x.ingest(t, x.upload(t)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("behind the last: %v", err)
	}
}

// A device that opens epochs without end meets a limit, which a day lifts; what it had opened goes on being taken.
func TestADeviceOpensSoManyEpochsInADay(t *testing.T) {
	x := newStream(t)
	now := time.Now()
	x.service = telemetry.NewService(telemetry.Config{Store: x.db, Guard: x.guard(t), Now: func() time.Time { return now }})
	open := func(number int) (*seal.Stream, error) {
		t.Helper()
		var err error
		if x.sealer, err = seal.Open(x.device.id, "readings", uint64(number), 0, x.key, x.device.key, now); err != nil {
			t.Fatal(err)
		}
		if err := x.sealer.Add([]byte("x")); err != nil {
			t.Fatal(err)
		}
		return x.sealer, x.ingest(t, x.upload(t))
	}
	first, err := open(1)
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= telemetry.EpochsPerDay; n++ {
		if _, err := open(n); err != nil {
			t.Fatalf("epoch %d: %v", n, err)
		}
	}
	facts := count(t, x.db)
	if _, err := open(telemetry.EpochsPerDay + 1); codeOf(err) != "stream.epochs" || fault.KindOf(err) != fault.Exhausted {
		t.Errorf("one more: %v", err)
	}
	if n := count(t, x.db); n != facts {
		t.Errorf("a refused epoch left %d facts", n-facts)
	}
	if err := first.Add([]byte("y")); err != nil {
		t.Fatal(err)
	}
	x.sealer = first
	if err := x.ingest(t, x.upload(t)); err != nil {
		t.Errorf("of an epoch that is open: %v", err)
	}
	now = now.Add(24*time.Hour + time.Second)
	if _, err := open(telemetry.EpochsPerDay + 1); err != nil {
		t.Errorf("a day later: %v", err)
	}
}
