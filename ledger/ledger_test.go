package ledger_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// What an entry is decoded to is encoded to the same entry: a replay keeps every byte.
func FuzzDecode(f *testing.F) {
	for _, cause := range []*ledger.Ref{nil, {Log: ledger.Control, Index: 7}} {
		fact := ledger.New(ledger.KindDeviceHealthy, time.UnixMilli(1_800_000_000_123), "device:a", "a", cause, []byte("{}"))
		entry, err := fact.Encode(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		fact, err := ledger.Decode(ledger.Events, entry)
		if err != nil {
			return
		}
		w, err := wire.DecodeFact(entry)
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Private) > 0 {
			fact.Private = []byte("{}") // said beside the log
		}
		again, err := fact.Encode(w.Private)
		if err != nil || !bytes.Equal(again, entry) {
			t.Errorf("%x becomes %x, %v", entry, again, err)
		}
	})
}
