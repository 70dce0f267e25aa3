package agent

import "github.com/hallmark-iot/hallmark/wire"

// schema is what the release that runs says of the parameters; nil: nothing, or nothing runs.
func (a *Agent) schema() wire.Schema {
	if cur := a.c.Machine.Facts().Current; cur != nil {
		return cur.Release.Parameters
	}
	return nil
}

// params gives all of the device's parameters, the factory's as well.
func (a *Agent) params() []wire.ConfigEntry {
	all := a.c.Params.List()
	out := make([]wire.ConfigEntry, len(all))
	for i, p := range all {
		out[i] = wire.ConfigEntry{Name: p.Name, Value: p.Value, Secret: p.Secret}
	}
	return out
}

// told is what the device was told to use, as it may be shown to anybody: of a secret only that there is one.
func (a *Agent) told() []wire.ConfigEntry {
	return wire.Hide(a.schema().Mark(a.c.Params.Operational()))
}
