package device

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// settings holds what devices are to be told against the schemas of what they run, and gives it in its one form, with a mark at what is secret. The devices
// hold it against them again.
func (s *Service) settings(ctx context.Context, caller access.Caller, in Instruction) ([]wire.ConfigEntry, error) {
	entries, err := wire.DecodeConfig(in.Config)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "command.invalid", "%w", err).With("see what the product's schema takes: `hallmark product show`")
	}
	schemas, err := s.cfg.Registry.Schemas(ctx, in.Product, in.Devices)
	if err != nil {
		return nil, err
	}
	for _, schema := range schemas {
		entries = schema.Mark(schema.Canonise(entries))
	}
	for _, schema := range schemas {
		if err := schema.Admit(entries); err != nil {
			return nil, fault.New(fault.Invalid, "command.setting", err.Error(), "see what the device takes: `hallmark device settings`; and what the product's next release has: `hallmark product schema show`")
		}
		if err := maySet(caller, schema, entries); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// maySet holds people to the roles that a schema asks for. A device cannot know them.
func maySet(caller access.Caller, schema wire.Schema, entries []wire.ConfigEntry) error {
	if caller.Kind == access.System {
		return nil
	}
	for _, e := range entries {
		p, _ := schema.Find(e.Name)
		if len(p.SetBy) > 0 && !slices.ContainsFunc(p.SetBy, func(r string) bool { return caller.Has(access.Role(r)) }) {
			return fault.New(fault.Denied, "command.setting-role", fmt.Sprintf("parameter %q is set by %v", e.Name, p.SetBy), "ask somebody who has that role")
		}
	}
	return nil
}

// unseen refuses that a secret waits for a second person: what waits can be read by whoever may agree to it.
func (s *Service) unseen(ctx context.Context, caller access.Caller, in Instruction, err error) error {
	if _, second := errors.AsType[*access.SecondNeededError](err); !second || in.Act != wire.ActConfigure {
		return err
	}
	entries, bad := s.settings(ctx, caller, in)
	if bad != nil {
		return bad
	}
	if slices.ContainsFunc(entries, func(e wire.ConfigEntry) bool { return e.Secret }) {
		return fault.New(fault.Denied, "command.secret", "a secret is shown to nobody, and so to no second person", "tell it to fewer devices at a time")
	}
	return err
}
