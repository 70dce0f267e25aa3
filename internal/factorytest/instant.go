package factorytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// Instant is a source of virtual pieces that take no time to write: what it costs to make them is the station's, but for their keys and
// the proofs of them, which are real.
type Instant struct {
	// Shared gives all pieces the same two keys. A station does not mind, an OEM does.
	Shared bool

	made   atomic.Uint64
	shared [2]*ecdsa.PrivateKey

	once sync.Once // reads what all of them get
	what wire.Release
	err  error
}

// release is what all pieces are given; it is read once.
func (i *Instant) release(in wire.Install) (wire.Release, error) {
	i.once.Do(func() {
		var b wire.Bundle
		if b, i.err = wire.VerifyBundle(nil, in.Bundle); i.err == nil {
			i.what, _, i.err = wire.VerifyRelease(b, in.Release)
		}
	})
	return i.what, i.err
}

// NewInstant makes one.
func NewInstant(shared bool) (*Instant, error) {
	i := &Instant{Shared: shared}
	for n := range i.shared {
		var err error
		if i.shared[n], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Next implements station.Source.
func (i *Instant) Next(context.Context) (station.Programmer, error) {
	p := &instant{keys: i.shared, uid: make([]byte, 12), line: i}
	binary.BigEndian.PutUint64(p.uid[4:], i.made.Add(1))
	_, _ = rand.Read(p.uid[:4])
	if i.Shared {
		return p, nil
	}
	for n := range p.keys {
		var err error
		if p.keys[n], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	return p, nil
}

type instant struct {
	keys [2]*ecdsa.PrivateKey
	uid  []byte
	got  wire.Install
	line *Instant
}

// Identify implements station.Programmer.
func (p *instant) Identify(context.Context) (wire.ChipHello, error) {
	return wire.ChipHello{Version: wire.PortVersion, ChipUID: p.uid, Hardware: Hardware, Flash: Params().Flash, Lifecycle: wire.LifecycleAssembly, Virtual: true}, nil
}

// GenerateKeys implements station.Programmer.
func (p *instant) GenerateKeys(_ context.Context, q wire.KeyRequest) (r wire.KeyReply, err error) {
	r.Origin = "soft"
	if r.IDevID, err = wire.SPKIOf(p.keys[0].Public()); err != nil {
		return r, err
	}
	if r.Attest, err = wire.SPKIOf(p.keys[1].Public()); err != nil {
		return r, err
	}
	msg, err := wire.PossessionMessage(q, p.uid, r.IDevID, r.Attest)
	if err != nil {
		return r, err
	}
	sum := sha256.Sum256(msg)
	if r.ProofIDevID, err = ecdsa.SignASN1(rand.Reader, p.keys[0], sum[:]); err != nil {
		return r, err
	}
	r.ProofAttest, err = ecdsa.SignASN1(rand.Reader, p.keys[1], sum[:])
	return r, err
}

// Install implements station.Programmer: the components' bytes are not asked for, because writing them takes no time.
func (p *instant) Install(_ context.Context, i wire.Install, _ func(func(wire.Chunk) error) error) error {
	p.got = i
	return nil
}

// ReadBack implements station.Programmer.
func (p *instant) ReadBack(context.Context) (wire.ReadBack, error) {
	params, err := wire.Marshal(p.got.Params)
	if err != nil {
		return wire.ReadBack{}, err
	}
	r, err := p.line.release(p.got)
	if err != nil {
		return wire.ReadBack{}, err
	}
	sum := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	back := wire.ReadBack{Bundle: sum(p.got.Bundle), Release: sum(p.got.Release), Certificate: sum(p.got.Certificate), Params: sum(params)}
	for _, c := range r.Components {
		back.Components = append(back.Components, wire.NamedDigest{Name: c.Name, Digest: c.Digest})
	}
	return back, nil
}

// Fuse implements station.Programmer.
func (p *instant) Fuse(_ context.Context, f wire.FuseRequest) (wire.FuseState, error) {
	return wire.FuseState{Root: f.Root, Counter: f.Counter, Lifecycle: wire.LifecycleSecured, DebugLocked: true}, nil
}

// Close implements station.Programmer.
func (p *instant) Close(bool) error { return nil }
