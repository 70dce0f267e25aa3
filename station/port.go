package station

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// stepTimeout bounds one answer of a device: long enough to erase and write a flash, short enough to free the socket.
const stepTimeout = 2 * time.Minute

// Port is a Programmer over a byte stream: the programming protocol of wire/programmer.go.
type Port struct {
	conn net.Conn
}

var _ Programmer = (*Port)(nil)

// NewPort speaks to the device at the other end of conn.
func NewPort(conn net.Conn) *Port { return &Port{conn: conn} }

func (p *Port) send(kind string, body any) error {
	b, err := wire.EncodePortFrame(kind, body)
	if err != nil {
		return err
	}
	if _, err := p.conn.Write(b); err != nil {
		// The device may have said why before it hung up.
		if f, rerr := p.read(); rerr == nil && f.Kind == wire.PortError {
			return portFault(f)
		}
		return fmt.Errorf("send %s: %w", kind, err)
	}
	return nil
}

func (p *Port) read() (wire.PortFrame, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.conn, head[:]); err != nil {
		return wire.PortFrame{}, fmt.Errorf("the device hung up: %w", err)
	}
	n, err := wire.PortFrameLen(head)
	if err != nil {
		return wire.PortFrame{}, err
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(p.conn, buf); err != nil {
		return wire.PortFrame{}, fmt.Errorf("the device hung up: %w", err)
	}
	return wire.DecodePortFrame(buf)
}

func portFault(f wire.PortFrame) error {
	pf, err := wire.DecodePortBody[wire.PortFault](f)
	if err != nil {
		return err
	}
	return pf
}

// expect reads the next frame, which must be of kind.
func (p *Port) expect(kind string) (wire.PortFrame, error) {
	f, err := p.read()
	switch {
	case err != nil:
		return f, err
	case f.Kind == wire.PortError:
		return f, portFault(f)
	case f.Kind != kind:
		return f, fmt.Errorf("the device says %q, want %q", f.Kind, kind)
	}
	return f, nil
}

// renew gives what is under way the step's timeout again, unless ctx has ended.
func (p *Port) renew(ctx context.Context) error {
	if err := p.conn.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
		return fmt.Errorf("programming port: %w", err)
	}
	if ctx.Err() != nil {
		_ = p.conn.SetDeadline(time.Unix(1, 0)) // what bound has set, and we have overwritten
	}
	return nil
}

// bound lets ctx and the step's timeout end what waits on the connection; call the result when the step is over.
func (p *Port) bound(ctx context.Context) (func(), error) {
	if err := p.renew(ctx); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }, nil
}

// Identify implements Programmer.
func (p *Port) Identify(ctx context.Context) (wire.ChipHello, error) {
	done, err := p.bound(ctx)
	if err != nil {
		return wire.ChipHello{}, err
	}
	defer done()
	f, err := p.expect(wire.PortHello)
	if err != nil {
		return wire.ChipHello{}, err
	}
	return wire.DecodePortBody[wire.ChipHello](f)
}

// GenerateKeys implements Programmer.
func (p *Port) GenerateKeys(ctx context.Context, q wire.KeyRequest) (wire.KeyReply, error) {
	r, err := ask[wire.KeyReply](ctx, p, wire.PortKeys, q, wire.PortKeys)
	if err == nil && r.Origin == wire.OriginStation {
		return r, errors.New("the device says that the station made its keys, and it did not")
	}
	return r, err
}

// Install implements Programmer.
func (p *Port) Install(ctx context.Context, i wire.Install, payload func(func(wire.Chunk) error) error) error {
	done, err := p.bound(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := p.send(wire.PortInstall, i); err != nil {
		return err
	}
	if _, err := p.expect(wire.PortOK); err != nil {
		return err
	}
	return payload(func(c wire.Chunk) error {
		if err := p.renew(ctx); err != nil { // each chunk is an answer of the device: a large payload may take as long as it takes
			return err
		}
		return p.send(wire.PortChunk, c)
	})
}

// ReadBack implements Programmer.
func (p *Port) ReadBack(ctx context.Context) (wire.ReadBack, error) {
	return ask[wire.ReadBack](ctx, p, wire.PortReadBack, nil, wire.PortReadBack)
}

// Fuse implements Programmer.
func (p *Port) Fuse(ctx context.Context, f wire.FuseRequest) (wire.FuseState, error) {
	return ask[wire.FuseState](ctx, p, wire.PortFuse, f, wire.PortFused)
}

// Close implements Programmer.
func (p *Port) Close(made bool) error {
	if made {
		_ = p.conn.SetDeadline(time.Now().Add(stepTimeout))
		_ = p.send(wire.PortDone, nil) // the piece is made and recorded, whether it hears of it or not
	}
	if err := p.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("programming port: %w", err)
	}
	return nil
}

func ask[R wire.PortBody](ctx context.Context, p *Port, kind string, body any, answer string) (R, error) {
	var none R
	done, err := p.bound(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	if err := p.send(kind, body); err != nil {
		return none, err
	}
	f, err := p.expect(answer)
	if err != nil {
		return none, err
	}
	return wire.DecodePortBody[R](f)
}
