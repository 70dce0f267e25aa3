package agent_test

import (
	"crypto"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/est"
)

// A device that has to wait asks again for the same key: what a person looks at stays what it is. Once it has its certificate the next
// is for another.
func TestADeviceThatWaitsAsksForTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.leaf = 30 * time.Hour
		var keys []crypto.PublicKey
		d.s.asks = func(key crypto.PublicKey) error {
			d.s.mu.Lock()
			defer d.s.mu.Unlock()
			if keys = append(keys, key); len(keys) <= 3 {
				return &est.Pending{After: time.Minute, Text: "a person has to approve"}
			}
			return nil
		}
		stop := d.start(t)
		time.Sleep(29 * time.Hour)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		d.s.mu.Lock()
		defer d.s.mu.Unlock()
		if len(keys) < 5 {
			t.Fatalf("it asked %d times", len(keys))
		}
		same := func(a, b crypto.PublicKey) bool { return a.(interface{ Equal(crypto.PublicKey) bool }).Equal(b) }
		for i := range 3 {
			if !same(keys[i], keys[i+1]) {
				t.Errorf("ask %d is for another key than the one before", i+2)
			}
		}
		if same(keys[3], keys[4]) {
			t.Error("the renewal is for the same key")
		}
	})
}
