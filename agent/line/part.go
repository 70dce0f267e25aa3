package line

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/link"
)

// Become is called by the main of every program that opens lines, after launch.Confine: in a process that Open has made it is the network's part, and never
// returns. In any other it does nothing.
func Become() {
	is, err := launch.Part(part)
	if !is {
		return
	}
	if err == nil {
		err = new(outside).serve()
	}
	fmt.Fprintln(os.Stderr, "network:", err)
	os.Exit(1)
}

// outside is the network's part.
type outside struct {
	asks   *asker
	proofs *asker
	now    atomic.Int64 // what the device's time is ahead of this process's

	mu   sync.Mutex // guards key, line
	key  [32]byte   // what line was made of
	line *link.HTTP // kept between calls, with its connections
}

// asker is one question after another, each answered.
type asker struct {
	mu   sync.Mutex // one at a time
	conn *net.UnixConn
}

func (a *asker) ask(question any, most int, answer any, mostAnswer int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := frame.Send(a.conn, question, most)
	if err == nil {
		err = frame.Receive(a.conn, answer, mostAnswer)
	}
	if err != nil {
		os.Exit(1) // it is out of step, or alone: another begins anew
	}
	return nil
}

// serve answers calls until the other side is gone.
func (o *outside) serve() error {
	var conns [fileDoor]*net.UnixConn
	for i := range conns {
		c, err := socket(os.NewFile(uintptr(launch.PartFiles+i), "inherited"))
		if err != nil {
			return err
		}
		conns[i] = c
	}
	o.asks, o.proofs = &asker{conn: conns[fileAsks]}, &asker{conn: conns[fileProofs]}
	if slices.Contains(os.Args[1:], withDoor) {
		door := os.NewFile(uintptr(launch.PartFiles+fileDoor), "door")
		l, err := net.FileListener(door)
		if err = errors.Join(err, door.Close()); err != nil { // the listener has its own
			return err
		}
		go func() { _ = agent.ServeProof(context.Background(), l, o.prove) }() // until this process ends
	}
	for {
		conn, err := takeOver(conns[fileCalls])
		if err != nil {
			return err
		}
		go o.answer(conn)
	}
}

// prove has the device prove itself to a stranger.
func (o *outside) prove(_ context.Context, challenge []byte) (agent.LocalReply, bool) {
	var p proof
	if err := o.proofs.ask(stranger{challenge}, maxStranger, &p, maxProof); err != nil {
		return agent.LocalReply{}, false
	}
	return agent.LocalReply{Proof: p.Proof, Error: p.Error}, true
}

// answer makes one call. Who asked gives up by closing the connection.
func (o *outside) answer(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }() // the answer is out, or who asked has gone
	var q question
	if err := frame.Receive(conn, &q, maxQuestion); err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // nothing more is said: this is the end
		cancel()
	}()
	r, err := o.do(ctx, q, conn)
	if err != nil {
		r = faultOf(err)
	}
	_ = frame.Send(conn, r, maxReply) // who asked has gone
}

func (o *outside) do(ctx context.Context, q question, conn io.Writer) (r reply, err error) {
	o.now.Store(q.Now - time.Now().Unix())
	switch q.Do {
	case doPing:
		return reply{}, nil
	case doPage:
		p, err := link.NewPages(link.HistoryConfig{Server: q.Server})
		if err != nil {
			return r, err
		}
		defer p.Close()
		r.Body, err = p.Page(ctx, q.Path...)
		return r, err
	case doEnrol:
		return o.enrol(ctx, q)
	case doPost, doArtifact:
		l, err := o.lineFor(q)
		if err != nil {
			return r, err
		}
		if q.Do == doPost {
			r.Body, err = l.Post(ctx, q.Call, q.Body)
			return r, err
		}
		return r, artifact(ctx, l, q, conn)
	}
	return r, fmt.Errorf("there is no question %.20q", q.Do)
}

// clock is the device's time.
func (o *outside) clock() time.Time {
	return time.Now().Add(time.Duration(o.now.Load()) * time.Second)
}

func anchors(ders [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("network anchor: %w", err)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// lineFor gives the line that q goes by: the one there is, if it is to the same server as the same device, or a new one in its place.
func (o *outside) lineFor(q question) (*link.HTTP, error) {
	h := sha256.New()
	for _, part := range slices.Concat([][]byte{[]byte(q.Server)}, q.Anchors, [][]byte{nil}, q.Chain) {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	key := [32]byte(h.Sum(nil))
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.line != nil && o.key == key {
		return o.line, nil
	}
	roots, err := anchors(q.Anchors)
	if err != nil {
		return nil, err
	}
	as, err := o.certificate(q.Chain)
	if err != nil {
		return nil, err
	}
	l, err := link.NewHTTP(link.Config{
		Server: q.Server, Roots: roots, Now: o.clock, Certificate: func() (*tls.Certificate, error) { return as, nil },
	})
	if err != nil {
		return nil, err
	}
	if o.line != nil {
		o.line.Close()
	}
	o.line, o.key = l, key
	return l, nil
}

// certificate is what the device shows, with a key that is on the other side.
func (o *outside) certificate(chain [][]byte) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("a call as nobody")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: &farKey{o, sha256.Sum256(chain[0]), leaf.PublicKey}}, nil
}

func (o *outside) enrol(ctx context.Context, q question) (r reply, err error) {
	roots, err := anchors(q.Anchors)
	if err != nil {
		return r, err
	}
	as, err := o.certificate(q.Chain)
	if err != nil {
		return r, err
	}
	c, err := est.New(est.Config{Server: q.Server, Roots: roots, Now: o.clock})
	if err != nil {
		return r, err
	}
	answer, err := c.Exchange(ctx, est.Ask{As: *as, Renew: q.Renew, CSR: func(line string) ([]byte, error) {
		return o.have(ask{Do: askRequest, As: sha256.Sum256(q.Chain[0]), Line: line})
	}})
	return reply{Certificates: answer.Certificates, CAs: answer.CAs}, err
}

// artifact sends the bytes in pieces; what comes after the last is the end, or what went wrong.
func artifact(ctx context.Context, l *link.HTTP, q question, conn io.Writer) error {
	body, err := l.Artifact(ctx, q.Digest, q.Offset)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, maxPiece)
	for {
		n, err := io.ReadAtLeast(body, buf, 1)
		if n > 0 {
			if err := frame.Send(conn, reply{Body: bytes.Clone(buf[:n]), More: true}, maxReply); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// have has something done on the other side.
func (o *outside) have(a ask) ([]byte, error) {
	var g given
	if err := o.asks.ask(a, maxAsk, &g, maxGiven); err != nil {
		return nil, err
	}
	if g.Fault != "" {
		return nil, errors.New(g.Fault)
	}
	return g.Data, nil
}

// farKey is a key on the other side.
type farKey struct {
	outside *outside
	as      [32]byte
	pub     crypto.PublicKey
}

func (k *farKey) Public() crypto.PublicKey { return k.pub }

func (k *farKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.outside.have(ask{Do: askSign, As: k.as, Digest: digest, Hash: uint(opts.HashFunc())})
}
