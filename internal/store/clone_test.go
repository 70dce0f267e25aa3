package store_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/wire"
)

// pair is a rolling token, of a last and a next.
func pair(last, next byte) *wire.Token {
	t := &wire.Token{Next: bytes.Repeat([]byte{next}, wire.TokenSize)}
	if last != 0 {
		t.Last = bytes.Repeat([]byte{last}, wire.TokenSize)
	}
	return t
}

// calls is a device's check-in; it gives what the registry makes of it.
func calls(t *testing.T, svc *device.Service, boots, counter uint64, token *wire.Token) (device.Device, error) {
	t.Helper()
	in := checkin()
	in.BootCount, in.Counter, in.Token = boots, counter, token
	_, refused := svc.Checkin(t.Context(), access.DeviceCaller(devID), devID, in)
	d, err := svc.Get(t.Context(), access.Internal("test"), devID)
	if err != nil {
		t.Fatal(err)
	}
	return d, refused
}

// After somebody has looked into a suspicion nobody is heard who has not enrolled anew. Then whoever did is the device, be it behind its copy in all that
// only rises.
func TestAClearedDeviceIsHeardAgainWhenItHasEnrolled(t *testing.T) {
	db, svc, _, _ := deviceBench(t)
	for _, c := range []struct {
		boots uint64
		token *wire.Token
	}{{5, pair(0, 1)}, {9, pair(1, 2)}, {5, pair(1, 3)}} { // the copy is ahead; then the device
		if _, err := calls(t, svc, c.boots, 0, c.token); err != nil {
			t.Fatal(err)
		}
	}
	ctx, system := t.Context(), access.Internal("test")
	for _, ev := range []device.Event{device.Suspect, device.Clear} {
		if _, err := svc.Move(ctx, system, devID, ev, nil, "test"); err != nil {
			t.Fatal(err)
		}
	}
	for _, token := range []*wire.Token{pair(1, 3), pair(1, 2), pair(0, 7), nil} {
		if d, err := calls(t, svc, 9, 0, token); fault.KindOf(err) != fault.Denied || d.Twin.BootCount != 0 {
			t.Errorf("heard before it has enrolled anew: %v", err)
		}
	}
	if err := db.Write(ctx, func(tx *store.Tx) error { // as enrolling does (PKI.Issue)
		_, err := tx.Exec(`UPDATE device SET token_anew = 1 WHERE id = $1 AND token <> ''`, devID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d, err := calls(t, svc, 5, 0, pair(1, 3))
	if err != nil || d.Twin.Suspect != "" || d.State != device.Quarantined || d.Twin.BootCount != 5 {
		t.Errorf("the device: %+v, %v", d.Twin, err)
	}
	if d, err := calls(t, svc, 9, 0, pair(1, 2)); err != nil || d.Twin.Suspect == "" {
		t.Errorf("a copy that is let in all the same: %+v, %v", d.Twin, err)
	}
}

// A database that was brought back knows less of its devices than they do. Each is believed once, on record; another that shows the same identity is
// found as ever.
func TestADeviceIsBelievedOnceAfterARecovery(t *testing.T) {
	for name, c := range map[string]struct {
		boots, counter uint64
		token          *wire.Token
		onTrust        int
		suspect        bool
	}{
		"as the backup knows it":                  {5, 0, pair(0, 1), 0, false},
		"it has rolled once":                      {5, 0, pair(1, 2), 0, false},
		"it has rolled often":                     {6, 0, pair(8, 9), 1, false},
		"it was commanded since":                  {6, 40, pair(8, 9), 1, false},
		"it was commanded since, and rolled once": {6, 40, pair(1, 2), 1, false},
		"an older memory than the backup's":       {4, 0, pair(8, 9), 0, true},
		"no token, and it had one":                {6, 0, nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			db, svc, _, _ := deviceBench(t)
			if _, err := calls(t, svc, 5, 0, pair(0, 1)); err != nil {
				t.Fatal(err)
			}
			if n, err := db.Restored(t.Context(), time.Now()); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			d, err := calls(t, svc, c.boots, c.counter, c.token)
			if err != nil || (d.Twin.Suspect != "") != c.suspect || !d.Restored.IsZero() {
				t.Fatalf("%+v, restored %v, %v", d.Twin, d.Restored, err)
			}
			if d, err = calls(t, svc, c.boots, c.counter, c.token); err != nil || (d.Twin.Suspect != "") != c.suspect {
				t.Errorf("the same again: %+v, %v", d.Twin, err)
			}
			n := kinds(t, db, "device.on-trust")
			if !c.suspect && n != c.onTrust {
				t.Errorf("%d facts, want %d", n, c.onTrust)
			}
			if c.suspect {
				return
			}
			if d, err = calls(t, svc, c.boots, c.counter, pair(20, 21)); err != nil || d.Twin.Suspect == "" {
				t.Errorf("another with its identity: %+v, %v", d.Twin, err)
			}
		})
	}
}
