package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// An epoch that was signed once can be sent again by anybody who kept it, sealed key and all: destroyed is destroyed.
func TestDestroyedKeysDoNotComeBack(t *testing.T) {
	x := newStream(t)
	if err := x.sealer.Add([]byte("21.5")); err != nil {
		t.Fatal(err)
	}
	u := x.upload(t)
	if err := x.ingest(t, u); err != nil {
		t.Fatal(err)
	}
	security := access.Caller{ID: "person:sec", Kind: access.Person, Roles: []access.Role{access.Security}}
	g := telemetry.Grant{ID: "g1", Reader: "person:ann", Product: "pump", Stream: "readings", Purpose: "service", Until: time.Now().Add(time.Hour)}
	err := errors.Join(
		x.service.Grant(t.Context(), security, g),
		x.service.DestroyDevice(t.Context(), access.Internal("retire"), x.device.id, nil),
		x.service.DestroyDevice(t.Context(), access.Internal("retire"), x.device.id, nil),
	)
	if err != nil {
		t.Fatal(err)
	}
	next, err := seal.Open(x.device.id, "readings", 2, 0, x.key, x.device.key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Add([]byte("21.6")); err != nil {
		t.Fatal(err)
	}
	later, err := next.Upload(false)
	if err != nil {
		t.Fatal(err)
	}
	records := u
	records.Epochs, records.Series = nil, nil
	opened := kinds(t, x.db, "telemetry.epoch.opened")
	for name, err := range map[string]error{"the same": x.ingest(t, u), "a later epoch": x.ingest(t, later), "records alone": x.ingest(t, records)} {
		if fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "destroyed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if reply, err := x.read(t, "person:ann"); err != nil || len(reply.Epochs) != 0 {
		t.Errorf("%d epochs are there again, %v", len(reply.Epochs), err)
	}
	if n := kinds(t, x.db, "telemetry.keys.destroyed"); n != 1 {
		t.Errorf("%d facts of destroyed keys", n)
	}
	if n := kinds(t, x.db, "telemetry.epoch.opened"); n != opened {
		t.Errorf("%d facts of epochs that were refused", n-opened)
	}
}

// A device that never sent anything has no keys to come back either.
func TestDestroyedBeforeTheFirstUpload(t *testing.T) {
	x := newStream(t)
	if err := x.service.DestroyDevice(t.Context(), access.Internal("retire"), x.device.id, nil); err != nil {
		t.Fatal(err)
	}
	if err := x.sealer.Add([]byte("21.5")); err != nil {
		t.Fatal(err)
	}
	if err := x.ingest(t, x.upload(t)); fault.KindOf(err) != fault.Denied {
		t.Errorf("%v", err)
	}
	if n := kinds(t, x.db, "telemetry.keys.destroyed"); n != 1 {
		t.Errorf("%d facts", n)
	}
}
