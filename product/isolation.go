package product

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// IsolationChange is the data of the fact product.isolation.changed.
type IsolationChange struct {
	Product string       `json:"product"`
	Layers  []wire.Layer `json:"layers"`
}

// SetIsolation says what has to hold the programs of a product's devices: evidence that lacks one of these layers, or does not tell, is bad from then
// on. None asks for nothing.
func (s *Service) SetIsolation(ctx context.Context, caller access.Caller, id string, layers []wire.Layer) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.BundlePublish, resource(id)); err != nil {
		return Product{}, err
	}
	if err := checkLayers(layers); err != nil {
		return Product{}, fault.Newf(fault.Invalid, "product.isolation", "product %q: %w", id, err).With("name layers that `hallmark product isolation --help` lists, or none")
	}
	p, err := s.store.Product(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, unknown(id)
	}
	if err != nil || slices.Equal(p.Isolation, layers) {
		return p, err
	}
	if layers == nil {
		layers = []wire.Layer{}
	}
	data, err := json.Marshal(IsolationChange{id, layers})
	if err != nil {
		return Product{}, err
	}
	p.Isolation = layers
	return p, s.store.SetIsolation(ctx, id, layers, ledger.New(ledger.KindIsolationChanged, s.now(), caller.ID, id, nil, data))
}

func checkLayers(layers []wire.Layer) error {
	for i, l := range layers {
		if !slices.Contains(wire.Layers(), l) || slices.Contains(layers[:i], l) {
			return fmt.Errorf("layer %.32q: want each of %v once at most", l, wire.Layers())
		}
	}
	return nil
}
