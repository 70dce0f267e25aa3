package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that was handed to another home, and lost its trust record, finds neither by itself: its fuses name the home that it left, and a counter in
// hardware says that this one does not count any more. What leads it back is a copy of the record. Its servers keep one, and the board
// believes it by a mark that no other board can make; so it does not matter who is asked, nor what he wants.

// maxHomes bounds how many servers are asked in a row: as many as there can be homes, and two to begin with.
const maxHomes = 10

// Recall says which trust bundle is in force by a record that the board once had in the home that it is in; an error for any other: see Homing.
type Recall func(record []byte) (wire.Bundle, error)

// FindHome looks for a copy of the trust record that a board once had, at the given servers (empty: the device's own) and where those lead to. It gives the
// record and the trust bundles that followed since, verified.
func FindHome(ctx context.Context, recall Recall, f Facts, open func(server string) (History, error), servers ...string) (record []byte, bundles [][]byte, err error) {
	asked := map[string]bool{}
	for len(servers) > 0 && len(asked) < maxHomes {
		server := servers[0]
		servers = servers[1:]
		if asked[server] {
			continue
		}
		asked[server] = true
		record, bundles, next, reason := homeAt(ctx, recall, f, open, server)
		if reason == nil {
			return record, bundles, nil
		}
		err = errors.Join(err, reason)
		if next != "" {
			servers = append(servers, next)
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
	}
	return nil, nil, fmt.Errorf("no copy of the trust record of this device's home %d: %w", f.Homes, err)
}

// homeAt asks one server; or gives where to ask next, and why not here.
func homeAt(ctx context.Context, recall Recall, f Facts, open func(server string) (History, error), server string) (record []byte, bundles [][]byte, next string, err error) {
	h, err := open(server)
	if err != nil {
		return nil, nil, "", err
	}
	defer h.Close()
	hint, err := h.Home(ctx, f.Product, f.Device)
	if err != nil {
		return nil, nil, "", err
	}
	if len(hint.Record) == 0 {
		return nil, nil, hint.Server, errors.New("it was handed on from there")
	}
	if f.Bundle, err = recall(hint.Record); err != nil {
		return nil, nil, hint.Server, err
	}
	if bundles, err = Regain(ctx, h, f); err != nil {
		return nil, nil, hint.Server, err
	}
	return hint.Record, bundles, "", nil
}

// comeHome takes back a copy of the trust record of a device that was handed to another home and lost it. It starts anew then, as the device that it was.
func (a *Agent) comeHome(ctx context.Context) error {
	f := a.c.Machine.Facts()
	record, bundles, err := FindHome(ctx, a.c.Machine.Recall, f, a.c.History, a.m.Home, "")
	if err != nil {
		return err
	}
	if err := a.c.Machine.Restore(record, bundles...); errors.Is(err, hw.ErrPowerCut) {
		return local(err)
	} else if err != nil {
		return err
	}
	// After it: a copy that the board does not take would be told again and again. A cut in between loses the event, and the start tells of the bundle.
	if err := a.record(eventBundle, nil, fmt.Sprintf("the trust record of home %d, from a copy, and %d trust bundles since", f.Homes, len(bundles))); err != nil {
		return err
	}
	a.hangUp()
	return ErrReset
}

// leaveCopy gives the server a copy of the trust record, once in each start: a server that lost it has it again by then.
func (a *Agent) leaveCopy(ctx context.Context) error {
	if a.copied || a.c.Machine.Facts().Homes == 0 {
		return nil
	}
	record, err := a.c.Machine.Record()
	if err != nil {
		return local(err)
	}
	if record != nil {
		err = a.server.Trust(ctx, record)
	}
	if _, ok := errors.AsType[*link.Status](err); ok { // it answers: what else there is to say does not wait for this
		a.log.Warn("the server keeps no copy of the trust record", "error", err)
		a.copied, err = link.Final(err), nil
		return err
	}
	a.copied = err == nil
	return err
}
