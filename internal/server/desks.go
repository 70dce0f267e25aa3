package server

import (
	"bytes"
	"context"
	"errors"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// intake is what orders are taken in with that were wrapped without a server.
func (i *Instance) intake() *factory.Intake {
	return &factory.Intake{Store: i.db.Desks(), CAs: deskCAs{i.pki}, Instance: i.cfg.Instance}
}

// deskCAs lets the factory believe the CAs of desks: that two people took the desk in is the permission.
type deskCAs struct{ pki *pki.Service }

// ProductCA implements factory.DeskCAs.
func (d deskCAs) ProductCA(ctx context.Context, der []byte) (factory.Adoption, error) {
	return d.adopt(ctx, profile.Product, der)
}

// OrderCA implements factory.DeskCAs.
func (d deskCAs) OrderCA(ctx context.Context, der []byte) (factory.Adoption, error) {
	return d.adopt(ctx, profile.Order, der)
}

func (d deskCAs) adopt(ctx context.Context, role profile.Role, der []byte) (factory.Adoption, error) {
	a, err := d.pki.Adopt(ctx, access.Internal("factory"), role, der)
	if err != nil {
		return factory.Adoption{}, err
	}
	return factory.Adoption{
		SKI: a.CA.SKI, Role: string(a.CA.Role), DER: a.CA.DER, Product: pki.ProductOf(a.Cert), Fact: a.Fact, Believe: func() { d.pki.Believe(a) },
	}, nil
}

// sealKeys are the instance's keys of role desk.
type sealKeys struct{ i *Instance }

// Public implements factory.SealKeys.
func (s sealKeys) Public() ([]byte, error) {
	names := s.i.ring.Names(keyring.Desk)
	if len(names) == 0 {
		return nil, factory.ErrNotFound
	}
	return ringVault{s.i.keys}.Public(keyring.Desk, names[0])
}

// Private implements factory.SealKeys. A key that is retired opens what was sealed to it before; what was not registered by then may come late.
func (s sealKeys) Private(id []byte) ([]byte, error) {
	for _, k := range s.i.ring.All(keyring.Desk) {
		if !bytes.Equal(wire.SealKeyID(k.SPKI), id) {
			continue
		}
		secret, err := s.i.keys.Secret(k.Name)
		if err != nil {
			return nil, errors.Join(err, errors.New("the key is in the ring, and not in the key directory of this node: restore it, or copy it from the node that made it"))
		}
		return bytes.Clone(secret), nil
	}
	return nil, factory.ErrNotFound
}
