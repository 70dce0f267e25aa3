package device

import (
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func entries(pairs ...string) []wire.ConfigEntry {
	var out []wire.ConfigEntry
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, wire.ConfigEntry{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// What is wanted of a setting, what is on its way and what the device says, against one another.
func TestHowSettingsStand(t *testing.T) {
	got := compare(
		entries("agrees", "1", "drifted", "1", "overtaken", "1", "unspoken", "1"),
		entries("fresh", "2", "overtaken", "2", "quick", "2"),
		entries("agrees", "1", "drifted", "9", "own", "7", "overtaken", "1", "quick", "2"),
	)
	want := map[string]struct {
		desired, reported string
		standing          SettingStanding
	}{
		"agrees": {"1", "1", AsWanted}, "drifted": {"1", "9", Differs}, "fresh": {"2", "-", UnderWay}, "overtaken": {"2", "1", UnderWay},
		"own": {"-", "7", ItsOwn}, "quick": {"2", "2", AsWanted}, "unspoken": {"1", "-", NotReported},
	}
	text := func(v *string) string {
		if v == nil {
			return "-"
		}
		return *v
	}
	if len(got) != len(want) {
		t.Fatalf("%d settings, want %d: %v", len(got), len(want), got)
	}
	for i, s := range got {
		if w := want[s.Name]; text(s.Desired) != w.desired || text(s.Reported) != w.reported || s.Standing != w.standing {
			t.Errorf("%s: wanted %s, says %s: %s; want %v", s.Name, text(s.Desired), text(s.Reported), s.Standing, w)
		}
		if i > 0 && got[i-1].Name >= s.Name {
			t.Errorf("%s is not in its place", s.Name)
		}
	}
}

// What a device said once is not what it says now: one that has lost its configuration does not go on as it was wanted.
func TestWhatADeviceSaysNoMoreIsNotReported(t *testing.T) {
	said := twinOf(Twin{}, wire.Checkin{Reported: entries("rate", "5")})
	got := compare(entries("rate", "5"), nil, twinOf(said, wire.Checkin{}).Reported)
	if len(said.Reported) != 1 || len(got) != 1 || got[0].Standing != NotReported {
		t.Errorf("it said %v, and then nothing: %v", said.Reported, got)
	}
}

// A device that did several commands is wanted to have all of them, the later over the earlier.
func TestWhatWasDoneAddsUp(t *testing.T) {
	encode := func(e []wire.ConfigEntry) []byte {
		data, err := wire.EncodeConfig(e)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	all := settle(settle(nil, encode(entries("a", "1", "b", "1"))), encode(entries("b", "2", "c", "2")))
	if string(all) != string(encode(entries("a", "1", "b", "2", "c", "2"))) {
		t.Errorf("%x", all)
	}
	if got := settle(all, []byte("broken")); string(got) != string(all) {
		t.Errorf("what cannot be read changes what is wanted: %x", got)
	}
}

// Code waits while a device is at other code; that it said so ends nothing.
func TestCodeWaitsForCode(t *testing.T) {
	if got := standingOf(wire.Result{Outcome: wire.OutcomeRefused, Code: "busy"}); got != Pending {
		t.Errorf("a device that is busy has %s", got)
	}
	old, next := []byte("old"), []byte("next")
	for name, c := range map[string]struct {
		act  wire.Act
		in   wire.Checkin
		want bool
	}{
		"at rest":                     {wire.ActInstall, wire.Checkin{Release: old}, true},
		"on trial with the same":      {wire.ActInstall, wire.Checkin{Release: next, Trial: true}, false},
		"on trial with another":       {wire.ActInstall, wire.Checkin{Release: old, Trial: true}, false},
		"made anew, on trial":         {wire.ActReprovide, wire.Checkin{Release: old, Trial: true}, false},
		"fetching":                    {wire.ActInstall, wire.Checkin{Release: old, Progress: &wire.Progress{}}, false},
		"contained, on trial":         {wire.ActQuarantine, wire.Checkin{Release: old, Trial: true}, true},
		"wiped, on trial":             {wire.ActWipe, wire.Checkin{Release: old, Trial: true}, true},
		"another bundle, on trial":    {wire.ActBundle, wire.Checkin{Release: old, Trial: true}, true},
		"asked for proof, on trial":   {wire.ActAttest, wire.Checkin{Release: old, Trial: true}, true},
		"sent back, and not on trial": {wire.ActRollback, wire.Checkin{Release: old}, true},
	} {
		cmd := Command{Wire: wire.Command{Act: c.act, Release: next}}
		if got := fits(Device{State: Active}, c.in, cmd); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
