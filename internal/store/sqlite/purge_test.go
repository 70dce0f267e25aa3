package sqlite_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// What is forgotten is not in the bytes of the files either: not in a free page, and not in the write-ahead log.
func TestWhatIsForgottenIsInNoFile(t *testing.T) {
	const canary = "mrs-smith-of-ward-3"
	path := filepath.Join(t.TempDir(), "hallmark.db")
	db, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.KeepPrivate(storetest.Vault{})
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, doc, group_path)
			VALUES ('d', 'pump', 'A', 'disposed', 'genuine', 'o', 's', 1, 'soft', 1, 1, $1, $2)`, `{"health":"`+strings.Repeat(canary, 2000)+`"}`, canary) // long enough to free whole pages
		return err
	}); err != nil {
		t.Fatal(err)
	}
	found := func() (in []string) {
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte(canary)) {
				in = append(in, path+suffix)
			}
		}
		return in
	}
	if len(found()) == 0 {
		t.Fatal("it is in no file to begin with")
	}
	d := device.Device{ID: "d", Product: "pump", State: device.Disposed, Group: canary}
	f := ledger.New(ledger.KindDeviceForgotten, time.Now(), "test", "d", nil, []byte("{}"))
	if err := db.Devices().ForgetDevice(t.Context(), d, time.Now(), f); err != nil {
		t.Fatal(err)
	}
	if in := found(); len(in) > 0 {
		t.Errorf("it is still in %v", in)
	}
}
