package factorytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net"
	"sync"

	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// Piece is a blank device in memory.
type Piece struct {
	UID      []byte
	Hardware string
	Corrupt  string // component that storage changes
	NoLock   bool   // the debug lock does not hold
	Leave    bool   // it goes away when its keys are asked for
	OnFuse   func() // what happens while its fuses are burnt; nil: nothing

	injected       *ecdsa.PrivateKey // identity key that came with the chip
	idevid, attest *ecdsa.PrivateKey
	Got            wire.Install
	release        wire.Release
	parts          map[string]*bytes.Buffer
	Fuses          wire.FuseState
}

var _ factoryport.Target = (*Piece)(nil)

// NewPiece makes a blank piece with a fresh chip UID.
func NewPiece() *Piece {
	p := &Piece{UID: make([]byte, 12), Hardware: Hardware}
	_, _ = rand.Read(p.UID)
	return p
}

// Hello implements factoryport.Target.
func (p *Piece) Hello(context.Context) (wire.ChipHello, error) {
	life := wire.LifecycleAssembly
	if p.Fuses.Lifecycle != 0 {
		life = p.Fuses.Lifecycle
	}
	return wire.ChipHello{
		Version: wire.PortVersion, ChipUID: p.UID, Hardware: p.Hardware, Flash: Params().Flash, Lifecycle: life, Virtual: true,
	}, nil
}

// GenerateKeys implements factoryport.Target.
func (p *Piece) GenerateKeys(context.Context) (id, at []byte, origin string, err error) {
	if p.Leave {
		return nil, nil, "", errors.New("the supply voltage is too low")
	}
	if p.idevid, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, "", err
	}
	if p.injected != nil {
		p.idevid = p.injected
	}
	if p.attest, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, "", err
	}
	if id, err = wire.SPKIOf(p.idevid.Public()); err != nil {
		return nil, nil, "", err
	}
	at, err = wire.SPKIOf(p.attest.Public())
	return id, at, "soft", err
}

// Prove implements factoryport.Target.
func (p *Piece) Prove(_ context.Context, digest [32]byte) (id, at []byte, err error) {
	if id, err = ecdsa.SignASN1(rand.Reader, p.idevid, digest[:]); err != nil {
		return nil, nil, err
	}
	at, err = ecdsa.SignASN1(rand.Reader, p.attest, digest[:])
	return id, at, err
}

// Install implements factoryport.Target.
func (p *Piece) Install(_ context.Context, i wire.Install, r wire.Release) error {
	p.Got, p.release, p.parts = i, r, map[string]*bytes.Buffer{}
	for _, c := range r.Components {
		p.parts[c.Name] = &bytes.Buffer{}
	}
	return nil
}

// Write implements factoryport.Target.
func (p *Piece) Write(_ context.Context, c wire.Component, _ uint64, data []byte) error {
	p.parts[c.Name].Write(data)
	return nil
}

// Part gives what was written of a component.
func (p *Piece) Part(name string) []byte { return p.parts[name].Bytes() }

// ReadBack implements factoryport.Target.
func (p *Piece) ReadBack(context.Context) (wire.ReadBack, error) {
	params, err := wire.Marshal(p.Got.Params)
	if err != nil {
		return wire.ReadBack{}, err
	}
	sum := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	r := wire.ReadBack{Bundle: sum(p.Got.Bundle), Release: sum(p.Got.Release), Certificate: sum(p.Got.Certificate), Params: sum(params)}
	for _, c := range p.release.Components {
		b := bytes.Clone(p.Part(c.Name))
		if c.Name == p.Corrupt {
			b[0] ^= 1
		}
		r.Components = append(r.Components, wire.NamedDigest{Name: c.Name, Digest: sum(b)})
	}
	return r, nil
}

// Fuse implements factoryport.Target.
func (p *Piece) Fuse(_ context.Context, f wire.FuseRequest) (wire.FuseState, error) {
	if p.OnFuse != nil {
		p.OnFuse()
	}
	p.Fuses = wire.FuseState{Root: f.Root, Counter: f.Counter, Lifecycle: wire.LifecycleSecured, DebugLocked: !p.NoLock}
	return p.Fuses, nil
}

// Line is a Source of pieces in this process, each at the other end of a pipe.
type Line struct {
	mu     sync.Mutex // guards the fields below
	Pieces []*Piece   // to be made next; then fresh ones
	Done   []*Piece   // given to the station
	wg     sync.WaitGroup
}

// Next implements station.Source.
func (l *Line) Next(ctx context.Context) (station.Programmer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := NewPiece()
	if len(l.Pieces) > 0 {
		p, l.Pieces = l.Pieces[0], l.Pieces[1:]
	}
	l.Done = append(l.Done, p)
	ours, theirs := net.Pipe()
	l.wg.Go(func() {
		_ = factoryport.Serve(ctx, theirs, p) // the station's record tells how it went
		_ = theirs.Close()
	})
	return station.NewPort(ours), nil
}

// Wait waits until every piece has ended.
func (l *Line) Wait() { l.wg.Wait() }
