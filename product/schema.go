package product

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// SchemaChange is the data of the fact product.schema.changed.
type SchemaChange struct {
	Product    string      `json:"product"`
	Parameters wire.Schema `json:"parameters"`
}

func checkSchema(s wire.Schema) error {
	if err := s.Check(); err != nil {
		return err
	}
	for _, p := range s {
		for _, r := range p.SetBy {
			if !slices.Contains(access.Roles(), access.Role(r)) {
				return fmt.Errorf("parameter %q: set by %q: want one of %v", p.Name, r, access.Roles())
			}
		}
	}
	return nil
}

// SetSchema says which parameters the devices of product id have: releases that are proposed from now on have them so. What devices run has its own until then.
func (s *Service) SetSchema(ctx context.Context, caller access.Caller, id string, schema wire.Schema) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.ProductSchema, resource(id)); err != nil {
		return Product{}, err
	}
	schema = schema.Canonical()
	if err := checkSchema(schema); err != nil {
		return Product{}, fault.New(fault.Invalid, "product.schema", fmt.Sprintf("product %q: %v", id, err), "correct that parameter; docs/guide/parameters.md tells what each may say")
	}
	p, err := s.store.Product(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, unknown(id)
	}
	if err != nil || len(p.Parameters)+len(schema) == 0 || reflect.DeepEqual(p.Parameters, schema) {
		return p, err
	}
	data, err := json.Marshal(SchemaChange{id, schema})
	if err != nil {
		return Product{}, err
	}
	p.Parameters = schema
	return p, s.store.SetSchema(ctx, id, schema, ledger.New(ledger.KindSchemaChanged, s.now(), caller.ID, id, nil, data))
}
