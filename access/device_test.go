package access

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// What is remembered of devices is what the policies say of each of them, whatever it is about.
func TestEveryDeviceMayDoTheSame(t *testing.T) {
	g, err := NewGuard(&recorder{})
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, a := range append(slices.Sorted(maps.Keys(g.byAction)), DeviceCheckin, "no:such") {
		for _, id := range []string{"", "d1", "d2"} {
			for _, res := range []Resource{
				{},
				{Type: "device", ID: "d1", Product: "pump"},
				{Type: "device", ID: "d2", Product: "pump", Group: "eu/berlin"},
				{Type: "release", ID: "00"},
				{Type: "stream", ID: "s", Product: "lamp"},
				{Type: "owner", ID: "o"},
				{Type: "device", ID: "d1", Grave: true},
			} {
				want, wantWhy := g.ask(DeviceCaller(id), a, res)
				got, why := g.decide(DeviceCaller(id), a, res)
				if got != want || fmt.Sprint(slices.Sorted(slices.Values(why))) != fmt.Sprint(slices.Sorted(slices.Values(wantWhy))) {
					t.Errorf("device %q, %s, %+v: remembered %v %v, asked %v %v", id, a, res, got, why, want, wantWhy)
				}
				if got {
					allowed++
				}
			}
		}
	}
	if allowed == 0 {
		t.Error("no device may do anything")
	}
	for _, c := range []Caller{{ID: "device:d1", Kind: Device, Via: "mtls", Roles: []Role{Admin}}, {ID: "person:a", Kind: Person, Via: "mtls"}, DeviceCaller("d1").With(Caller{ID: "b"})} {
		if plainDevice(c) {
			t.Errorf("%+v passes for a device", c)
		}
	}
}
