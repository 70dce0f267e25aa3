package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// A setting says of when it is: a device that was silent since may have another by now.
func TestASettingSaysOfWhenItIs(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	config, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "rate", Value: "5"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.devices.Command(t.Context(), person("op"), device.Instruction{
		Product: "pump", Act: wire.ActConfigure, Devices: []string{devN(0)}, TTL: time.Hour, Reason: "test", Config: config,
	})
	if err != nil {
		t.Fatal(err)
	}
	of := func() time.Time {
		t.Helper()
		all, err := s.devices.Settings(t.Context(), access.Internal("test"), devN(0))
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].ReportedAt
	}
	if at := of(); !at.IsZero() {
		t.Errorf("of a device that never checked in: %s", at)
	}
	s.says(devN(0), rel, true, false, nil)
	said := s.now
	s.now = s.now.Add(time.Minute)
	if at := of(); !at.Equal(said) {
		t.Errorf("%s, not %s", at, said)
	}
}

// takes has releases that are published from now on take these parameters.
func (s *stages) takes(schema wire.Schema) {
	s.t.Helper()
	if err := s.db.SetSchema(s.t.Context(), "pump", schema, ledger.New(ledger.KindSchemaChanged, s.now, "test", "pump", nil, []byte("{}"))); err != nil {
		s.t.Fatal(err)
	}
}

// configure has devices told, by whom has these roles.
func (s *stages) configure(who access.Caller, entries []wire.ConfigEntry, devices ...string) (string, error) {
	s.t.Helper()
	config, err := wire.EncodeConfig(entries)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.devices.Command(s.t.Context(), who, device.Instruction{Product: "pump", Act: wire.ActConfigure, Devices: devices, TTL: time.Hour, Reason: "test", Config: config})
}

func rates(most string) wire.Schema {
	return wire.Schema{
		{Name: "every", Type: wire.TypeDuration, SetBy: []string{"security"}},
		{Name: "rate", Type: wire.TypeInteger, Max: most},
		{Name: "serial", Type: wire.TypeText, Basic: true},
		{Name: "wifi.key", Type: wire.TypeText, Secret: true},
	}
}

// The server holds what people set against what the devices run, each device of a command against its own.
func TestWhatIsSetFitsWhatRuns(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	free := s.publish("1.0.0")
	s.takes(rates("9"))
	nine := s.publish("1.1.0")
	s.takes(rates("99"))
	for i, rel := range []release.Release{free, nine, {}} { // of the third nobody knows what it runs: the product's schema is asked
		s.make(devN(i), rel)
	}
	operator := access.Caller{ID: "person:op", Kind: access.Person, Roles: []access.Role{access.Operator}}
	one := func(name, value string) []wire.ConfigEntry { return []wire.ConfigEntry{{Name: name, Value: value}} }
	for what, c := range map[string]struct {
		who     access.Caller
		entries []wire.ConfigEntry
		on      []string
		code    string
	}{
		"no schema":                   {operator, one("anything", "x"), []string{devN(0)}, ""},
		"fits":                        {operator, one("rate", "9"), []string{devN(1)}, ""},
		"does not fit":                {operator, one("rate", "10"), []string{devN(1)}, "command.setting"},
		"fits by the product's":       {operator, one("rate", "10"), []string{devN(2)}, ""},
		"fits one of two":             {operator, one("rate", "10"), []string{devN(1), devN(2)}, "command.setting"},
		"a name that is not there":    {operator, one("rat", "1"), []string{devN(1)}, "command.setting"},
		"of the factory":              {operator, one("serial", "1"), []string{devN(1)}, "command.setting"},
		"another role's":              {operator, one("every", "1s"), []string{devN(1)}, "command.setting-role"},
		"the role's, as people write": {person("sec"), one("every", "90s"), []string{devN(1)}, ""},
	} {
		_, err := s.configure(c.who, c.entries, c.on...)
		if codeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A secret is told to its device, and shown nowhere else.
func TestASecretIsShownNowhere(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.takes(rates("9"))
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	const secret = "correct horse"
	id, err := s.configure(person("op"), []wire.ConfigEntry{{Name: "rate", Value: "3"}, {Name: "wifi.key", Value: secret}}, devN(0))
	if err != nil {
		t.Fatal(err)
	}
	look := func(standing device.SettingStanding) {
		t.Helper()
		all, err := s.devices.Settings(t.Context(), access.Internal("test"), devN(0))
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.devices.Get(t.Context(), access.Internal("test"), devN(0))
		if err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal([]any{all, d})
		if err != nil || strings.Contains(string(shown), secret) || bytes.Contains(d.Twin.Desired, []byte(secret)) {
			t.Errorf("%s, %v", shown, err)
		}
		i := slices.IndexFunc(all, func(x device.Setting) bool { return x.Name == "wifi.key" })
		if i < 0 || !all[i].Secret || all[i].Standing != standing || all[i].Parameter == nil {
			t.Errorf("%+v", all)
		}
	}
	look(device.UnderWay)
	c, err := s.db.Devices().Command(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	told, err := wire.OpenConfig(c.Config, c.Wire.Config)
	if err != nil || told[1].Value != secret || !told[1].Secret {
		t.Fatalf("the device is told %+v, %v", told, err)
	}
	s.says(devN(0), rel, true, false, map[string]wire.Outcome{id: wire.OutcomeDone})
	look(device.NotReported)
	rows, err := s.db.Read().QueryContext(t.Context(), `SELECT data FROM entry`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil || bytes.Contains(data, []byte(secret)) {
			t.Errorf("the ledger has it: %q, %v", data, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	many := make([]string, access.BulkDevices+1)
	for i := range many {
		many[i] = devN(100 + i)
		s.make(many[i], rel)
	}
	if _, err := s.configure(person("op"), []wire.ConfigEntry{{Name: "wifi.key", Value: secret}}, many...); codeOf(err) != "command.secret" {
		t.Errorf("a secret that would wait for a second person: %v", err)
	}
}

// A rollout leaves out who has a setting that the release does not take.
func TestARolloutLeavesOutWhomTheSchemaDoesNotFit(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.takes(rates("99"))
	wide := s.publish("1.0.0")
	s.takes(rates("9"))
	narrow := s.publish("1.1.0", wide)
	for i, rate := range []string{"9", "10"} {
		s.make(devN(i), wide)
		id, err := s.configure(person("op"), []wire.ConfigEntry{{Name: "rate", Value: rate}}, devN(i))
		if err != nil {
			t.Fatal(err)
		}
		s.says(devN(i), wide, true, false, map[string]wire.Outcome{id: wire.OutcomeDone})
	}
	r, _ := rollouts(s)
	got, err := r.DryRun(t.Context(), person("op"), rollout.Spec{
		ID: "r", Product: "pump", Release: narrow.Digest[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Deadline: 60}},
	})
	if err != nil || len(got.Members) != 1 || got.Members[0].Device != devN(0) || got.LeftOut["settings"] != 1 || !strings.Contains(got.Skipped[devN(1)], `"rate": "10" is above 9`) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// What a program says of the parameters that it is told stands beside each of them.
func TestASettingSaysWhatProgramsMadeOfIt(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.takes(rates("9"))
	s.make(devN(0), s.publish("1.0.0"))
	in := wire.Checkin{Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 1, Programs: []wire.ProgramTold{
		{Program: "app", Parameters: []string{"rate"}, Answered: true, Text: "too fast"}, {Program: "radio", Parameters: []string{"rate", "wifi.key"}, Answered: true, Taken: true},
	}}
	if _, err := s.devices.Checkin(t.Context(), access.DeviceCaller(devN(0)), devN(0), in); err != nil {
		t.Fatal(err)
	}
	all, err := s.devices.Settings(t.Context(), access.Internal("test"), devN(0))
	if err != nil || len(all) != 3 || fmt.Sprint(all[0].Programs) != "[]" || fmt.Sprint(all[1].Programs) != "[app: refused, too fast radio: took]" || fmt.Sprint(all[2].Programs) != "[radio: took]" {
		t.Fatalf("%+v, %v", all, err)
	}
}
