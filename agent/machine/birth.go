package machine

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Piece is a blank board at a programming station. It implements factoryport.Target.
type Piece struct {
	Board *hw.Board
	UID   []byte

	birth   *boot.Birth
	install wire.Install
	release wire.Release
}

// Hello implements factoryport.Target.
func (p *Piece) Hello(context.Context) (wire.ChipHello, error) {
	life, err := p.Board.Fuses.Lifecycle()
	if err != nil {
		return wire.ChipHello{}, err
	}
	g := p.Board.Flash.Geometry()
	return wire.ChipHello{
		Version: 1, ChipUID: p.UID, Hardware: p.Board.Revision, Lifecycle: psa(life), Virtual: p.Board.Virtual,
		Flash: wire.Flash{Size: uint64(g.Size), Erase: uint32(g.Sector), Slots: 2, SlotSize: uint64(g.Size / 2)},
	}, nil
}

// GenerateKeys implements factoryport.Target.
func (p *Piece) GenerateKeys(context.Context) (idevid, attest []byte, origin string, err error) {
	var spki [2][]byte
	for i, name := range []string{hw.KeyIDevID, hw.KeyAttest} {
		if err := p.Board.Keys.Destroy(name); err != nil {
			return nil, nil, "", err
		}
		pub, err := p.Board.Keys.Generate(name, suite.P256) // what a factory's tools and certificates know; it moves in the field
		if err != nil {
			return nil, nil, "", err
		}
		if spki[i], err = wire.SPKIOf(pub); err != nil {
			return nil, nil, "", err
		}
	}
	return spki[0], spki[1], p.Board.Keys.Origin(), nil
}

// Prove implements factoryport.Target.
func (p *Piece) Prove(_ context.Context, digest [32]byte) (byIDevID, byAttest []byte, err error) {
	var sigs [2][]byte
	for i, name := range []string{hw.KeyIDevID, hw.KeyAttest} {
		k, err := p.Board.Keys.Signer(name)
		if err != nil {
			return nil, nil, err
		}
		if sigs[i], err = k.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			return nil, nil, err
		}
	}
	return sigs[0], sigs[1], nil
}

// Install implements factoryport.Target.
func (p *Piece) Install(_ context.Context, i wire.Install, r wire.Release) (err error) {
	if p.birth, err = boot.NewBirth(p.Board); err != nil {
		return err
	}
	p.install, p.release = i, r
	return p.birth.Install(boot.Identity{
		Chain: append([][]byte{i.Certificate}, i.Chain...), Device: i.Device, Product: i.Product, Hardware: i.Hardware, Params: i.Params, Model: r.Model,
	}, i.Bundle, i.Release, r)
}

// Write implements factoryport.Target.
func (p *Piece) Write(_ context.Context, c wire.Component, offset uint64, data []byte) error {
	return p.birth.Write(c.Name, offset, data)
}

// ReadBack implements factoryport.Target.
func (p *Piece) ReadBack(context.Context) (wire.ReadBack, error) {
	id, bundle, release, sums, err := p.birth.ReadBack()
	if err != nil {
		return wire.ReadBack{}, err
	}
	if len(id.Chain) == 0 {
		return wire.ReadBack{}, errors.New("no certificate was laid down")
	}
	params, err := wire.Marshal(id.Params)
	if err != nil {
		return wire.ReadBack{}, err
	}
	sum := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	out := wire.ReadBack{Bundle: sum(bundle), Release: sum(release), Certificate: sum(id.Chain[0]), Params: sum(params)}
	for i, c := range p.release.Components {
		out.Components = append(out.Components, wire.NamedDigest{Name: c.Name, Digest: sums[i][:]})
	}
	return out, nil
}

// Fuse implements factoryport.Target.
func (p *Piece) Fuse(_ context.Context, f wire.FuseRequest) (wire.FuseState, error) {
	if len(f.Root) != 32 {
		return wire.FuseState{}, errors.New("root digest is not 32 bytes")
	}
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, p.install.Bundle)
	if err != nil {
		return wire.FuseState{}, err
	}
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		return wire.FuseState{}, err
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return wire.FuseState{}, err
	}
	if err := p.birth.Fuse([32]byte(f.Root), secret, f.Counter, b.Version); err != nil {
		return wire.FuseState{}, err
	}
	return p.state()
}

func (p *Piece) state() (s wire.FuseState, err error) {
	root, err := p.Board.Fuses.Root()
	if err != nil {
		return s, err
	}
	s.Root = root[:]
	if s.Counter, err = p.Board.Fuses.SecurityCounter(); err != nil {
		return s, err
	}
	life, err := p.Board.Fuses.Lifecycle()
	if err != nil {
		return s, err
	}
	s.Lifecycle = psa(life)
	s.DebugLocked, err = p.Board.Fuses.DebugLocked()
	return s, err
}
