package store_test

import (
	"bytes"
	"crypto/hpke"
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
	x.sealer, err = seal.Open(x.device.id, "readings", 1, x.key, x.device.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return x
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
	return x.service.Read(t.Context(), access.Caller{ID: who, Kind: access.Person, Roles: []access.Role{access.Viewer}},
		telemetry.ReadRequest{
			Device: x.device.id, Stream: "readings", Purpose: "service", KEM: x.reader.KEM().ID(), Key: x.reader.PublicKey().Bytes(),
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
	e, err := x.db.Epochs(t.Context(), x.device.id, "readings", 10)
	if err != nil || len(e) != 1 || len(e[0].Holes) != 1 || e[0].Holes[0] != 2 {
		t.Fatalf("holes %+v, %v", e, err)
	}
	u.Records[0].Data = bytes.Clone(u.Records[1].Data)
	if err := x.ingest(t, u); fault.KindOf(err) != fault.Conflict {
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
