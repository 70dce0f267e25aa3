package store_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device without a key that is known, a client of another system, has no sealed data: whoever asks for it is told so, nothing is taken for it, and its
// life can be ended, which destroys what opens such data.
func TestADeviceWithoutAKeyHasNoSealedData(t *testing.T) {
	c := newClients(t)
	streams := telemetry.NewService(telemetry.Config{Store: c.db, Guard: c.guard, Keys: telemetry.NewKeyAccess(nil)})
	reader := access.Caller{ID: "person:tess", Kind: access.Person, Roles: []access.Role{access.Tester}}
	if _, err := streams.Read(t.Context(), reader, telemetry.ReadRequest{Device: c.id, Stream: "vibration", Purpose: "study", KEM: 0x20, Key: make([]byte, 32)}); fault.KindOf(err) == fault.Internal {
		t.Errorf("read: %v", err)
	}
	body, err := wire.EncodeUpload(wire.Upload{})
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ingest(t.Context(), c.self(), c.id, body); codeOf(err) != "stream.keyless" {
		t.Errorf("ingest: %v", err)
	}
	if err := streams.DestroyDevice(t.Context(), access.Internal("retire"), c.id, nil); err != nil {
		t.Errorf("the end of its life: %v", err)
	}
}
