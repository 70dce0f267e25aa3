package station

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hallmark-iot/hallmark/wire"
)

// Probe is a Programmer for a chip that runs nothing of ours: it is written and read by the commands of a debug probe, and the station makes its
// keys. They are in this process's memory, and in a file in memory, until they are in the chip and Close has cleared them; what Go's own copies
// leave behind is gone with the process.
type Probe struct {
	f     *Fixture
	place string
	dir   string
	done  func() error // removes dir
	leave func(made bool)

	keys    [2]*ecdsa.PrivateKey // identity, attestation
	written []wire.Component     // name and size of what was written
	area    [32]byte             // digest of the area that was written
	size    int                  // of the area
}

var _ Programmer = (*Probe)(nil)

// Place is where the piece lies.
func (p *Probe) Place() string { return p.place }

// StationKeys says that its keys are made here.
func (p *Probe) StationKeys() bool { return true }

func (p *Probe) do(ctx context.Context, name string, argv []string, keys []string, with ...string) (said, error) {
	out, err := command(ctx, argv, p.f.timeout, append([]string{"{place}", p.place}, with...)...)
	if err != nil {
		return nil, fmt.Errorf("place %s: %s: %w", p.place, name, err)
	}
	s, err := parseSaid(out, keys...)
	if err != nil {
		return nil, fmt.Errorf("place %s: %s: %w", p.place, name, err)
	}
	return s, nil
}

// Identify implements Programmer.
func (p *Probe) Identify(ctx context.Context) (h wire.ChipHello, err error) {
	s, err := p.do(ctx, "identify", p.f.Identify, []string{"uid", "lifecycle"})
	if err != nil {
		return h, err
	}
	uid, err := s.bytes("uid", 8, 32)
	if err != nil {
		return h, fmt.Errorf("place %s: identify: %w", p.place, err)
	}
	life, err := s.number("lifecycle")
	if err != nil {
		return h, fmt.Errorf("place %s: identify: %w", p.place, err)
	}
	return wire.ChipHello{
		Version: wire.PortVersion, ChipUID: uid, Hardware: p.f.Hardware, Flash: p.f.Flash, Lifecycle: uint(life), Virtual: p.f.Virtual,
	}, nil
}

// GenerateKeys implements Programmer: the station does.
func (p *Probe) GenerateKeys(ctx context.Context, q wire.KeyRequest) (r wire.KeyReply, err error) {
	uid, err := p.Identify(ctx)
	if err != nil {
		return r, err
	}
	r.Origin = wire.OriginStation
	for i, spki := range []*[]byte{&r.IDevID, &r.Attest} {
		if p.keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return r, err
		}
		if *spki, err = wire.SPKIOf(p.keys[i].Public()); err != nil {
			return r, err
		}
	}
	msg, err := wire.PossessionMessage(q, uid.ChipUID, r.IDevID, r.Attest)
	if err != nil {
		return r, err
	}
	sum := sha256.Sum256(msg)
	for i, proof := range []*[]byte{&r.ProofIDevID, &r.ProofAttest} {
		if *proof, err = ecdsa.SignASN1(rand.Reader, p.keys[i], sum[:]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Install implements Programmer.
func (p *Probe) Install(ctx context.Context, in wire.Install, payload func(func(wire.Chunk) error) error) error {
	if _, err := p.do(ctx, "erase", p.f.Erase, nil); err != nil {
		return err
	}
	if err := p.components(ctx, payload); err != nil {
		return err
	}
	a := wire.ChipArea{Install: in}
	for _, c := range p.written {
		a.Places = append(a.Places, wire.ChipPlace{Component: c.Name, At: int64(p.f.Components[c.Name].Address - p.f.Area.Address)})
	}
	defer func() { clear(a.Identity); clear(a.Attest) }()
	var err error
	if a.Identity, err = p.keys[0].Bytes(); err != nil {
		return err
	}
	if a.Attest, err = p.keys[1].Bytes(); err != nil {
		return err
	}
	data, err := wire.EncodeChipArea(a)
	if err != nil {
		return err
	}
	defer clear(data)
	if uint64(len(data)) > p.f.Area.Size {
		return fmt.Errorf("place %s: %d bytes for the area, which has %d", p.place, len(data), p.f.Area.Size)
	}
	p.area, p.size = sha256.Sum256(data), len(data)
	path := filepath.Join(p.dir, "area")
	if err := handOver(path, data); err != nil {
		return err
	}
	return errors.Join(p.write(ctx, path, p.f.Area.Address), wipe(path, len(data)))
}

// handOver writes a file for the probe's command: it is to be gone soon, and is not to be durable.
func handOver(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("fixture: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fixture: %w", err)
	}
	return nil
}

// wipe overwrites a file in memory and removes it.
func wipe(path string, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("fixture: %w", err)
	}
	_, err = f.Write(make([]byte, size))
	if err = errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("fixture: %w", err)
	}
	return nil
}

func (p *Probe) write(ctx context.Context, path string, address uint64) error {
	_, err := p.do(ctx, "write", p.f.Write, nil, "{file}", path, "{address}", fmt.Sprintf("%#x", address))
	return err
}

// components writes each as a file, as it comes.
func (p *Probe) components(ctx context.Context, payload func(func(wire.Chunk) error) error) error {
	path := filepath.Join(p.dir, "component")
	var f *os.File
	var at wire.Component
	flush := func() error {
		if f == nil {
			return nil
		}
		err := f.Close()
		f = nil
		if err != nil {
			return fmt.Errorf("fixture: %w", err)
		}
		p.written = append(p.written, at)
		return errors.Join(p.write(ctx, path, p.f.Components[at.Name].Address), os.Remove(path))
	}
	err := payload(func(c wire.Chunk) (err error) {
		if f == nil || c.Component != at.Name {
			if err := flush(); err != nil {
				return err
			}
			if _, there := p.f.Components[c.Component]; !there {
				return fmt.Errorf("the fixture does not say where component %q lies", c.Component)
			}
			at = wire.Component{Name: c.Component}
			if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
				return fmt.Errorf("fixture: %w", err)
			}
		}
		if at.Size += uint64(len(c.Data)); at.Size > p.f.Components[at.Name].Size {
			return fmt.Errorf("component %q is larger than the %d bytes that the fixture has for it", at.Name, p.f.Components[at.Name].Size)
		}
		_, err = f.Write(c.Data)
		return err
	})
	if err != nil && f != nil {
		_ = f.Close() // what is wrong is said already
		f = nil
	}
	return errors.Join(err, flush())
}

// read gives size bytes of the flash as a file, to be removed by the caller.
func (p *Probe) read(ctx context.Context, address, size uint64) (*os.File, error) {
	path := filepath.Join(p.dir, "read")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("fixture: %w", err)
	}
	_, err := p.do(ctx, "read", p.f.Read, nil, "{file}", path, "{address}", fmt.Sprintf("%#x", address), "{size}", strconv.FormatUint(size, 10))
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("place %s: read: %w", p.place, err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(size) {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("place %s: read: not the %d bytes that were asked for", p.place, size))
	}
	return f, nil
}

// ReadBack implements Programmer: from the chip, not from what was written.
func (p *Probe) ReadBack(ctx context.Context) (back wire.ReadBack, err error) {
	for _, c := range p.written {
		f, err := p.read(ctx, p.f.Components[c.Name].Address, c.Size)
		if err != nil {
			return back, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return back, errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil {
			return back, err
		}
		back.Components = append(back.Components, wire.NamedDigest{Name: c.Name, Digest: sum.Sum(nil)})
	}
	f, err := p.read(ctx, p.f.Area.Address, uint64(p.size))
	if err != nil {
		return back, err
	}
	data := make([]byte, p.size)
	defer clear(data)
	_, err = io.ReadFull(f, data)
	if err = errors.Join(err, f.Close(), wipe(f.Name(), p.size)); err != nil {
		return back, err
	}
	if sha256.Sum256(data) != p.area {
		return back, fmt.Errorf("place %s: the area on the chip differs from what was written", p.place)
	}
	a, err := wire.DecodeChipArea(data)
	if err != nil {
		return back, err
	}
	defer func() { clear(a.Identity); clear(a.Attest) }()
	params, err := wire.Marshal(a.Install.Params)
	if err != nil {
		return back, err
	}
	digest := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	back.Bundle, back.Release = digest(a.Install.Bundle), digest(a.Install.Release)
	back.Certificate, back.Params = digest(a.Install.Certificate), digest(params)
	return back, nil
}

// fuses reads what is burnt; a root of nil is blank.
func (p *Probe) fuses(ctx context.Context) (f wire.FuseState, err error) {
	s, err := p.do(ctx, "fuses", p.f.Fuses, []string{"root", "counter", "lifecycle"})
	if err != nil {
		return f, err
	}
	if s["root"] != "blank" {
		if f.Root, err = s.bytes("root", sha256.Size, sha256.Size); err != nil {
			return f, fmt.Errorf("place %s: fuses: %w", p.place, err)
		}
	}
	life, err := s.number("lifecycle")
	if err == nil {
		f.Lifecycle = uint(life)
		f.Counter, err = s.number("counter")
	}
	if err != nil {
		return f, fmt.Errorf("place %s: fuses: %w", p.place, err)
	}
	return f, nil
}

// Fuse implements Programmer. The order is that of wire.FuseRequest, and each fuse is read back before the next: wherever the power goes, the life
// cycle is burnt only behind a root and a counter that are right, and a piece whose life cycle is not burnt can come again. What is burnt
// already as it should be, by a making that was cut off, stays. A command that burns is not ended because the run is.
func (p *Probe) Fuse(ctx context.Context, q wire.FuseRequest) (wire.FuseState, error) {
	ctx = context.WithoutCancel(ctx)
	now, err := p.fuses(ctx)
	if err != nil {
		return wire.FuseState{}, err
	}
	if now.Root != nil && !bytes.Equal(now.Root, q.Root) || now.Counter > q.Counter {
		return wire.FuseState{}, fmt.Errorf("place %s: its fuses have root %x and counter %d already: it is of something else", p.place, now.Root, now.Counter)
	}
	for _, b := range []struct {
		fuse, value string
		is          func(wire.FuseState) bool
	}{
		{"root", hex.EncodeToString(q.Root), func(f wire.FuseState) bool { return bytes.Equal(f.Root, q.Root) }},
		{"counter", strconv.FormatUint(uint64(q.Counter), 10), func(f wire.FuseState) bool { return f.Counter == q.Counter }},
		{"lifecycle", strconv.FormatUint(uint64(wire.LifecycleSecured), 10), func(f wire.FuseState) bool { return f.Lifecycle == wire.LifecycleSecured }},
	} {
		if b.is(now) {
			continue
		}
		if _, err := p.do(ctx, "fuse "+b.fuse, p.f.Fuse, nil, "{fuse}", b.fuse, "{value}", b.value); err != nil {
			return now, err
		}
		if now, err = p.fuses(ctx); err != nil {
			return wire.FuseState{}, err
		}
		if !b.is(now) {
			return now, fmt.Errorf("place %s: fuse %s does not read as it was burnt", p.place, b.fuse)
		}
	}
	if _, err := p.do(ctx, "lock", p.f.Lock, nil); err != nil {
		return now, err
	}
	s, err := p.do(ctx, "locked", p.f.Locked, []string{"debug"})
	if err != nil {
		return now, err
	}
	if now.DebugLocked = s["debug"] == "locked"; !now.DebugLocked {
		return now, fmt.Errorf("place %s: its debug port is %.20q after it was locked", p.place, s["debug"])
	}
	return now, nil
}

// Close implements Programmer.
func (p *Probe) Close(made bool) error {
	for i, k := range p.keys {
		if k != nil {
			clear(k.D.Bits()) //nolint:staticcheck // its only use here: to be overwritten
		}
		p.keys[i] = nil
	}
	err := p.done()
	p.leave(made)
	if err != nil {
		return fmt.Errorf("fixture: %w", err)
	}
	return nil
}
