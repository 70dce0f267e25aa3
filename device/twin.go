package device

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/wire"
)

// SettingStanding says how what is wanted of a setting compares with what the device says.
type SettingStanding string

// The standings.
const (
	AsWanted    SettingStanding = "as wanted"
	UnderWay    SettingStanding = "under way"    // commanded; the device has not answered yet
	Differs     SettingStanding = "differs"      // the device did it once, and says something else now
	NotReported SettingStanding = "not reported" // the device did it, and does not speak of it
	ItsOwn      SettingStanding = "its own"      // nobody commanded it
	Unset       SettingStanding = "not set"      // programs are told its default, if it has one
	OfAnother   SettingStanding = "kept"         // what runs has no such parameter: the device keeps it, and tells it to no program
)

// Setting is one entry of a device's configuration: as it is wanted and as the device reports it.
type Setting struct {
	Name       string          `json:"name"`
	Desired    *string         `json:"desired,omitempty"`
	Reported   *string         `json:"reported,omitempty"`
	ReportedAt time.Time       `json:"reported_at,omitzero"` // the check-in that said so, or did not speak of it; zero: there was none
	Standing   SettingStanding `json:"standing"`
	Secret     bool            `json:"secret,omitempty" doc:"its value is shown nowhere: where there is one, an empty text stands"`
	Parameter  *wire.Parameter `json:"parameter,omitempty" doc:"what the release that runs says of it"`
	Programs   []Taking        `json:"programs,omitempty" doc:"those that are told it, and what they said of all that they were told last"`
}

// Taking is what a program said of its parameters.
type Taking struct {
	Program string `json:"program"`
	Word    string `json:"word" enum:"took,refused,not answered"`
	Text    string `json:"text,omitempty"`
}

func (t Taking) String() string {
	if t.Text == "" {
		return t.Program + ": " + t.Word
	}
	return t.Program + ": " + t.Word + ", " + t.Text
}

// takings are what the programs say that are told a parameter.
func takings(all []wire.ProgramTold, name string) (out []Taking) {
	for _, p := range all {
		if !slices.Contains(p.Parameters, name) {
			continue
		}
		t := Taking{Program: p.Program, Word: "refused", Text: p.Text}
		switch {
		case !p.Answered:
			t.Word = "not answered"
		case p.Taken:
			t.Word = "took"
		}
		out = append(out, t)
	}
	return out
}

// lay lays entries over have: what is new has the last word. In rising order of names, as they are written, and without the values of secrets.
func lay(have, entries []wire.ConfigEntry) []wire.ConfigEntry {
	all := map[string]wire.ConfigEntry{}
	for _, e := range slices.Concat(have, entries) {
		e.Secret = e.Secret || all[e.Name].Secret
		all[e.Name] = e
	}
	out := make([]wire.ConfigEntry, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return wire.Hide(out)
}

// Shown gives what is known of a device's settings, as it is wanted and over that as it was reported, without secrets: nobody here knows those.
func Shown(t Twin) ([]wire.ConfigEntry, error) {
	var desired []wire.ConfigEntry
	if len(t.Desired) > 0 {
		var err error
		if desired, err = wire.DecodeConfig(t.Desired); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(lay(desired, t.Reported), func(e wire.ConfigEntry) bool { return e.Secret }), nil
}

// settle gives what is wanted of a device that has just done what config says.
func settle(desired, config []byte) []byte {
	entries, err := wire.DecodeConfig(config)
	if err != nil {
		return desired
	}
	have, err := wire.DecodeConfig(desired)
	if err != nil {
		have = nil // there was none, or none that can be read: this is all that is known
	}
	out, err := wire.EncodeConfig(lay(have, entries))
	if err != nil { // more than a device keeps: it would have refused
		return desired
	}
	return out
}

// Settings compares a device's configuration as it is wanted, with what is on its way, with what the device reported, by name.
func (s *Service) Settings(ctx context.Context, caller access.Caller, id string) ([]Setting, error) {
	d, err := s.open(ctx, caller, access.DeviceRead, id)
	if err != nil {
		return nil, err
	}
	var done, coming []wire.ConfigEntry
	if len(d.Twin.Desired) > 0 {
		if done, err = wire.DecodeConfig(d.Twin.Desired); err != nil {
			return nil, err
		}
	}
	told, err := s.cfg.Commands.DeviceCommands(ctx, id, s.cfg.Now(), "", MaxPage)
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Backward(told) { // the oldest first
		if c.Act != wire.ActConfigure || c.Standing != Pending && c.Standing != Delivered {
			continue
		}
		command, err := s.cfg.Commands.Command(ctx, c.Command)
		if err != nil {
			return nil, err
		}
		entries, err := wire.OpenConfig(command.Config, command.Wire.Config)
		if err != nil {
			return nil, err
		}
		coming = lay(coming, entries)
	}
	schemas, err := s.cfg.Registry.Schemas(ctx, d.Product, []string{id})
	if err != nil {
		return nil, err
	}
	all := compare(done, coming, d.Twin.Reported)
	for _, schema := range schemas {
		all = explain(all, schema)
	}
	for i := range all {
		all[i].ReportedAt = d.LastSeen // each check-in says all of it
		all[i].Programs = takings(d.Twin.Programs, all[i].Name)
	}
	return all, nil
}

func compare(done, coming, reported []wire.ConfigEntry) []Setting {
	all := map[string]*Setting{}
	at := func(name string) *Setting {
		if all[name] == nil {
			all[name] = &Setting{Name: name, Standing: ItsOwn}
		}
		return all[name]
	}
	for _, e := range done {
		*at(e.Name) = Setting{Name: e.Name, Desired: &e.Value, Standing: NotReported, Secret: e.Secret}
	}
	for _, e := range coming {
		*at(e.Name) = Setting{Name: e.Name, Desired: &e.Value, Standing: UnderWay, Secret: e.Secret}
	}
	for _, e := range reported {
		s := at(e.Name)
		s.Reported, s.Secret = &e.Value, s.Secret || e.Secret
		switch {
		case s.Desired == nil:
		case s.Secret && s.Standing == UnderWay: // nobody can say that it is there already
		case *s.Desired == e.Value:
			s.Standing = AsWanted
		case s.Standing == NotReported:
			s.Standing = Differs
		}
	}
	out := make([]Setting, 0, len(all))
	for _, s := range all {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// explain adds what a schema says of each setting, and the parameters that nobody set.
func explain(all []Setting, schema wire.Schema) []Setting {
	for i := range all {
		p, ok := schema.Find(all[i].Name)
		switch {
		case ok:
			all[i].Parameter = &p
		case len(schema) > 0 && all[i].Standing != UnderWay:
			all[i].Standing = OfAnother
		}
	}
	for _, p := range schema {
		if !p.Basic && !slices.ContainsFunc(all, func(s Setting) bool { return s.Name == p.Name }) {
			all = append(all, Setting{Name: p.Name, Standing: Unset, Secret: p.Secret, Parameter: &p})
		}
	}
	slices.SortFunc(all, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
