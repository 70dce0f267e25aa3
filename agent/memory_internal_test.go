package agent

import (
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

// What an agent of before has kept is read: a member that is new is not there, and an empty one is not written.
func TestTheRecordOfAnAgentOfBeforeIsRead(t *testing.T) {
	old := struct {
		Counter uint64 `cbor:"1,keyasint"`
		Seq     uint64 `cbor:"3,keyasint"`
		Booted  uint64 `cbor:"10,keyasint"`
	}{7, 3, 12}
	raw, err := wire.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeMemory(raw)
	if err != nil || m.Counter != 7 || m.Booted != 12 {
		t.Errorf("%+v, %v", m, err)
	}
}
