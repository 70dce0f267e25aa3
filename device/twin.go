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
)

// Setting is one entry of a device's configuration: as it is wanted and as the device reports it.
type Setting struct {
	Name       string          `json:"name"`
	Desired    *string         `json:"desired,omitempty"`
	Reported   *string         `json:"reported,omitempty"`
	ReportedAt time.Time       `json:"reported_at,omitzero"` // the check-in that said so, or did not speak of it; zero: there was none
	Standing   SettingStanding `json:"standing"`
}

// lay lays entries over have: what is new has the last word. In rising order of names, as they are written.
func lay(have, entries []wire.ConfigEntry) []wire.ConfigEntry {
	all := map[string]string{}
	for _, e := range slices.Concat(have, entries) {
		all[e.Name] = e.Value
	}
	out := make([]wire.ConfigEntry, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, wire.ConfigEntry{Name: name, Value: all[name]})
	}
	return out
}

// settle gives what is wanted of a device that has just done what config says.
func settle(desired, config []byte) []byte {
	entries, err := wire.DecodeConfig(config)
	if err != nil {
		return desired
	}
	have, err := wire.DecodeConfig(desired)
	if err != nil {
		return config
	}
	out, err := wire.EncodeConfig(lay(have, entries))
	if err != nil { // more than a device keeps: it would have refused
		return config
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
	all := compare(done, coming, d.Twin.Reported)
	for i := range all {
		all[i].ReportedAt = d.LastSeen // each check-in says all of it
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
		*at(e.Name) = Setting{Name: e.Name, Desired: &e.Value, Standing: NotReported}
	}
	for _, e := range coming {
		*at(e.Name) = Setting{Name: e.Name, Desired: &e.Value, Standing: UnderWay}
	}
	for _, e := range reported {
		s := at(e.Name)
		s.Reported = &e.Value
		switch {
		case s.Desired == nil:
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
