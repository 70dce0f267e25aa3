package agent

import (
	"context"
	"errors"

	"github.com/hallmark-iot/hallmark/agent/gate"
)

// Regain gives the trust bundles (signed) that lead a device that knows no more than f from there, or from its fuses, to the newest, in order. All of them are
// verified, and the newest is in its own witnessed log. There are none when f has the newest.
func Regain(ctx context.Context, h History, f Facts) ([][]byte, error) {
	newest, err := h.Newest(ctx, f.Product)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		s, err := follow(ctx, h, f, newest.Version)
		if err != nil {
			return nil, err
		}
		all = append(all, s.envelopes...)
		switch {
		case len(s.envelopes) == 0 && f.Bundle.Version == 0:
			return nil, errors.New("the server's history of trust bundles has none that begins with the root in the fuses: it is not this device's server")
		case len(s.envelopes) == 0:
			return all, nil
		case !s.more:
			_, err := gate.Newest(*s.last, s.envelopes[len(s.envelopes)-1], nil, newest)
			return all, err
		}
		f.Bundle = *s.last
	}
}
