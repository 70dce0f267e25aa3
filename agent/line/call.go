package line

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

// call is one under way.
type call struct {
	process *Process
	of      *running
	ctx     context.Context
	conn    *net.UnixConn
	time    time.Duration // to the next answer
	close   func()        // safe to call again
}

// as is what a call shows, and what may be signed for it.
type as struct {
	chain   [][]byte
	key     crypto.Signer
	request func(line string) ([]byte, error)
}

func showing(c tls.Certificate, request func(line string) ([]byte, error)) (*as, error) {
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok || len(c.Certificate) == 0 {
		return nil, errors.New("a call needs a certificate and its key")
	}
	return &as{c.Certificate, key, request}, nil
}

// call makes a call: its connection is handed over, and the question asked. Whoever calls closes it.
func (p *Process) call(ctx context.Context, q question, who *as, each time.Duration) (*call, error) {
	r, err := p.running(ctx)
	if err != nil {
		return nil, err
	}
	mine, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	c := &call{process: p, of: r, ctx: ctx, conn: mine, time: each}
	done, stop := func() {}, context.AfterFunc(ctx, func() { _ = mine.Close() })
	if who != nil {
		q.Chain = who.chain
		done = p.grants.open(sha256.Sum256(who.chain[0]), who.key, who.request)
	}
	c.close = sync.OnceFunc(func() {
		stop()
		done()
		_ = mine.Close() // an answer that is not whole was an error already
	})
	err = errors.Join(handOver(r.calls, theirs), theirs.Close())
	if err == nil {
		err = mine.SetDeadline(time.Now().Add(each))
	}
	if err == nil {
		err = frame.Send(mine, q, maxQuestion)
	}
	if err != nil {
		c.close()
		return nil, c.broken(err)
	}
	return c, nil
}

// broken is what is said of a call that was not answered. A process that does not answer is ended.
func (c *call) broken(err error) error {
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	c.process.end(c.of)
	return fmt.Errorf("%w: %w", errHungUp, err)
}

// answer is the next of the call's answers.
func (c *call) answer() (reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.time)); err != nil {
		return reply{}, c.broken(err)
	}
	var r reply
	if err := frame.Receive(c.conn, &r, maxReply); err != nil {
		return reply{}, c.broken(err)
	}
	if r.Fault == faultName && c.of.saw != saw() { // only another process may open what is there now
		c.process.end(c.of)
	}
	return r, r.err()
}

// one makes a call with one answer.
func (p *Process) one(ctx context.Context, q question, who *as, within time.Duration) (reply, error) {
	c, err := p.call(ctx, q, who, within)
	if err != nil {
		return reply{}, err
	}
	defer c.close()
	return c.answer()
}

// Server is whom a line leads to, and how the device shows itself there.
type Server struct {
	URL         string
	Anchors     [][]byte // who may vouch for it (DER)
	Certificate func() (*tls.Certificate, error)
	Now         func() time.Time // the device's time
}

// Line gives the line to a server.
func (p *Process) Line(s Server) link.Line { return &farLine{p, s} }

type farLine struct {
	process *Process
	server  Server
}

func (l *farLine) call(ctx context.Context, q question, each time.Duration) (*call, error) {
	cert, err := l.server.Certificate()
	if err != nil {
		return nil, err
	}
	who, err := showing(*cert, nil)
	if err != nil {
		return nil, err
	}
	q.Server, q.Anchors, q.Now = l.server.URL, l.server.Anchors, l.server.Now().Unix()
	return l.process.call(ctx, q, who, each)
}

// Post implements link.Line.
func (l *farLine) Post(ctx context.Context, name string, body []byte) ([]byte, error) {
	of, err := link.CallOf(name)
	if err != nil {
		return nil, err
	}
	c, err := l.call(ctx, question{Do: doPost, Call: name, Body: body}, callTime)
	if err != nil {
		return nil, err
	}
	defer c.close()
	r, err := c.answer()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(r.Body)) > of.Reply {
		return nil, fmt.Errorf("%s: %w: the answer", name, wire.ErrTooLarge)
	}
	return r.Body, nil
}

// Artifact implements link.Line.
func (l *farLine) Artifact(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
	c, err := l.call(ctx, question{Do: doArtifact, Digest: digest, Offset: offset}, pieceTime)
	if err != nil {
		return nil, err
	}
	a := &pieces{call: c}
	if err := a.next(); err != nil && !errors.Is(err, io.EOF) {
		c.close()
		return nil, fmt.Errorf("artifact %x: %w", digest, err)
	}
	return a, nil
}

// Close implements link.Line: a certificate that is another is shown on another connection anyway.
func (l *farLine) Close() {}

// pieces is an artifact as it comes.
type pieces struct {
	call *call
	rest []byte
	end  error // what follows the rest; nil: more
}

// next waits for a piece.
func (p *pieces) next() error {
	if p.end != nil {
		return p.end
	}
	r, err := p.call.answer()
	switch {
	case err != nil:
		p.end = err
	case !r.More:
		p.end = io.EOF
	case len(r.Body) == 0 || len(r.Body) > maxPiece:
		p.end = fmt.Errorf("a piece of %d bytes", len(r.Body))
	}
	if p.end == nil {
		p.rest = r.Body
	}
	return p.end
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (p *pieces) Close() error {
	p.call.close()
	return nil
}

// Enrol asks s for a certificate, and judges what comes: what the process says of it counts for nothing.
func (p *Process) Enrol(ctx context.Context, s Server, r est.Request) ([][]byte, error) {
	roots := x509.NewCertPool()
	for _, der := range s.Anchors {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("network anchor: %w", err)
		}
		roots.AddCert(a)
	}
	who, err := showing(r.As, r.CSR)
	if err != nil {
		return nil, err
	}
	answer, err := p.one(ctx, question{Do: doEnrol, Server: s.URL, Anchors: s.Anchors, Now: s.Now().Unix(), Renew: r.Renew}, who, enrolTime)
	if err != nil {
		return nil, err
	}
	return r.Check(est.Answer{Certificates: answer.Certificates, CAs: answer.CAs}, roots, s.Now)
}

// Pages gives the line to a signed history, which may be another server's than the device's.
func (p *Process) Pages(server string) link.Pages {
	p.reach(server)
	return &farPages{p, server}
}

type farPages struct {
	process *Process
	server  string
}

// Page implements link.Pages.
func (h *farPages) Page(ctx context.Context, path ...string) ([]byte, error) {
	r, err := h.process.one(ctx, question{Do: doPage, Server: h.server, Path: slices.Clone(path)}, nil, callTime)
	return r.Body, err
}

// Close implements link.Pages.
func (h *farPages) Close() {}
