package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Preview is what a command would be told to, if it were given now.
type Preview struct {
	Devices  int           `json:"devices"`          // it would reach
	States   map[State]int `json:"states"`           // of those
	TakesTwo bool          `json:"takes_two"`        // a second person has to agree
	Foreign  int           `json:"foreign"`          // that it cannot be for: then it is refused as a whole
	Named    []string      `json:"named,omitempty"`  // the first of those, with why
	Silent   int           `json:"silent,omitempty"` // of those it would reach: not heard of for a day, and will hear of it late
}

// maxNamed bounds the names in a Preview.
const maxNamed = 20

// Preview says whom a command would reach, and does nothing. It takes the permission that the command takes, but not a second person.
func (s *Service) Preview(ctx context.Context, caller access.Caller, in Instruction) (Preview, error) {
	p := Preview{States: map[State]int{}, TakesTwo: len(in.Devices) > access.BulkDevices}
	if err := s.overAll(ctx, caller, ActionFor(in.Act), access.Resource{Type: "device", Product: in.Product}, func() ([]string, error) {
		return s.cfg.Groups.GroupsOf(ctx, in.Product, in.Devices)
	}); err != nil {
		return Preview{}, err
	}
	if err := byRollout(caller, in.Act); err != nil {
		return Preview{}, err
	}
	if !p.TakesTwo {
		var err error
		if p.TakesTwo, err = s.newCode(ctx, caller, in); err != nil {
			return Preview{}, err
		}
	}
	if in.Act == wire.ActConfigure {
		entries, err := s.settings(ctx, caller, in)
		if err != nil {
			return Preview{}, err
		}
		if in.Config, err = wire.EncodeConfig(entries); err != nil {
			return Preview{}, fault.Newf(fault.Invalid, "command.invalid", "%w", err).With("correct the command, and ask again")
		}
		_, in.Config = wire.SaltConfig(in.Config)
	}
	now := s.cfg.Now().UTC()
	if _, err := s.compose(ctx, in, now); err != nil && wire.ClassOf(in.Act) != wire.Fatal {
		return Preview{}, err
	}
	ids := slices.Clone(in.Devices)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		d, err := s.cfg.Registry.Device(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Preview{}, err
		}
		why := ""
		switch {
		case err != nil || d.Product != in.Product: // whose it is may be nothing to the caller
			why = "unknown in " + in.Product
		case Ended(d.State):
			why = string(d.State)
		}
		if why != "" {
			if p.Foreign++; len(p.Named) < maxNamed {
				p.Named = append(p.Named, fmt.Sprintf("%s: %s", id, why))
			}
			continue
		}
		p.Devices++
		p.States[d.State]++
		if now.Sub(d.LastSeen) > 24*time.Hour {
			p.Silent++
		}
	}
	return p, nil
}
