package cad

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Client asks a Server on its socket. It is safe for concurrent use: each call has a connection to itself, and connections are kept.
type Client struct {
	path string
	free chan net.Conn // connections that wait; as many as may be
	slot chan struct{} // how many may be in use
}

// calls is how many signatures may be under way at once.
const calls = 16

// Dial makes a client of the socket at path. Nothing is asked yet: the process may be started later.
func Dial(path string) *Client {
	return &Client{path: path, free: make(chan net.Conn, calls), slot: make(chan struct{}, calls)}
}

// Close closes the connections.
func (c *Client) Close() error {
	for {
		select {
		case conn := <-c.free:
			_ = conn.Close()
		default:
			return nil
		}
	}
}

// callTime bounds a call: a list of many entries takes a second.
const callTime = 30 * time.Second

// call asks once; over a connection that broke while it waited, it asks again over a new one: to sign twice harms nobody.
func (c *Client) call(r request) ([]byte, error) {
	c.slot <- struct{}{}
	defer func() { <-c.slot }()
	for {
		conn, kept, err := c.conn()
		if err != nil {
			return nil, away(err)
		}
		out, err := ask(conn, r)
		if err == nil {
			select {
			case c.free <- conn:
			default:
				_ = conn.Close()
			}
			return answered(r, out)
		}
		_ = conn.Close()
		if !kept || r.Op == opMake {
			return nil, away(err)
		}
	}
}

func (c *Client) conn() (conn net.Conn, kept bool, err error) {
	select {
	case conn = <-c.free:
		return conn, true, nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	conn, err = new(net.Dialer).DialContext(ctx, "unix", c.path)
	return conn, false, err
}

func ask(conn net.Conn, r request) (reply, error) {
	if err := conn.SetDeadline(time.Now().Add(callTime)); err != nil {
		return reply{}, err
	}
	if err := writeFrame(conn, r); err != nil {
		return reply{}, err
	}
	data, err := readFrame(conn, maxReply)
	if err != nil {
		return reply{}, err
	}
	return decodeReply(data)
}

func away(err error) error {
	return fault.Newf(fault.Unavailable, "ca.away", "the process that holds the CA's keys does not answer: %w", err).With("start it: `hallmark ca serve`")
}

func answered(r request, out reply) ([]byte, error) {
	switch out.Code {
	case "":
		return out.Out, nil
	case codeLimit:
		return nil, fault.New(fault.Unavailable, out.Code, out.Error, "it goes on by itself; if it is not wanted, look at signed.log of the CA")
	case codeUnknown:
		return nil, fault.New(fault.NotFound, out.Code, out.Error, "see `hallmark ca list`")
	case codeRefused:
		return nil, fault.New(fault.Denied, out.Code, "the CA does not sign it: "+out.Error, "look at how `hallmark ca serve` was started")
	}
	return nil, fmt.Errorf("the CA, asked for operation %d with key %q: %s", r.Op, r.Key, out.Error)
}

// remote is a key in the other process. It signs messages only.
type remote struct {
	c    *Client
	name string
	pub  crypto.PublicKey
}

var _ crypto.MessageSigner = (*remote)(nil)

// Signer finds a key.
func (c *Client) Signer(name string) (crypto.Signer, error) {
	return c.public(request{Op: opPublic, Key: name})
}

// GenerateP256 makes one.
func (c *Client) GenerateP256(name string) (crypto.Signer, error) {
	return c.public(request{Op: opMake, Key: name})
}

func (c *Client) public(r request) (crypto.Signer, error) {
	der, err := c.call(r)
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("public key of %q: %w", r.Key, err)
	}
	return &remote{c: c, name: r.Key, pub: pub}, nil
}

// SignCARequest has a key sign the request for a CA over itself.
func (c *Client) SignCARequest(name string, r wire.CARequest) ([]byte, error) {
	r.SPKI = nil
	message, err := wire.Marshal(r)
	if err != nil {
		return nil, err
	}
	return c.call(request{Op: opRequest, Key: name, Message: message})
}

// Bind tells which certificate a key has: from then on it signs what that may.
func (c *Client) Bind(name string, cert *x509.Certificate) error {
	_, err := c.call(request{Op: opBind, Key: name, Message: cert.Raw})
	return err
}

// Public implements crypto.Signer.
func (s *remote) Public() crypto.PublicKey { return s.pub }

// Sign implements crypto.Signer, and refuses: who is given a digest cannot read what it signs.
func (s *remote) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the CA signs messages that it can read, not digests")
}

// SignMessage implements crypto.MessageSigner, which crypto/x509 prefers for certificates and lists.
func (s *remote) SignMessage(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.c.call(request{Op: opSign, Key: s.name, Message: msg})
}
