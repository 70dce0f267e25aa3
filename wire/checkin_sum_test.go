package wire_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func full() wire.Checkin {
	return wire.Checkin{
		Nonce: bytes.Repeat([]byte{1}, 32), Release: bytes.Repeat([]byte{2}, 32), Version: "1.2.3", State: "active", Counter: 4, Bundle: 5, TreeSize: 6, BootCount: 7,
		Healthy: true, Health: "ok", Token: &wire.Token{Next: bytes.Repeat([]byte{3}, wire.TokenSize)}, Left: [][]byte{bytes.Repeat([]byte{4}, 32)},
		Reported: []wire.ConfigEntry{{Name: "a", Value: "b"}}, Locked: true,
	}
}

// Each byte but the nonce's counts.
func TestTheSumOfACheckinLeavesOutItsNonceAlone(t *testing.T) {
	for _, in := range []wire.Checkin{full(), {Nonce: make([]byte, 32), State: "active"}} {
		data, err := wire.EncodeCheckin(in)
		if err != nil {
			t.Fatal(err)
		}
		sum, ok := wire.CheckinSum(data)
		if !ok {
			t.Fatalf("%x has none", data)
		}
		at := bytes.Index(data, in.Nonce)
		for i := range data {
			other := bytes.Clone(data)
			other[i] ^= 1
			again, ok := wire.CheckinSum(other)
			if same := ok && again == sum; same != (i >= at && i < at+32) {
				t.Errorf("byte %d of %x: the same sum: %v", i, data, same)
			}
		}
		for i := range data {
			if again, ok := wire.CheckinSum(data[:i]); ok && again == sum {
				t.Errorf("%d bytes have the sum of all", i)
			}
		}
	}
}

// Two of one sum, of which one is a check-in, are the same check-in with two nonces.
func FuzzCheckinSum(f *testing.F) {
	for _, in := range []wire.Checkin{full(), {Nonce: make([]byte, 32), State: "active"}} {
		data, err := wire.EncodeCheckin(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, bytes.Repeat([]byte{9}, 32))
	}
	f.Fuzz(func(t *testing.T, data, nonce []byte) {
		sum, ok := wire.CheckinSum(data)
		in, err := wire.DecodeCheckin(data)
		if err != nil {
			return
		}
		if !ok {
			t.Fatalf("%x is a check-in without a sum", data)
		}
		if len(nonce) != 32 {
			return
		}
		other := bytes.Clone(data)
		copy(other[4:], nonce)
		again, err := wire.DecodeCheckin(other)
		if twin, ok := wire.CheckinSum(other); err != nil || !ok || twin != sum {
			t.Fatalf("with another nonce %x is no check-in, or another: %v", data, err)
		}
		if again.Nonce = in.Nonce; !reflect.DeepEqual(in, again) {
			t.Fatalf("%+v and %+v have one sum", in, again)
		}
	})
}
