// Package isolated keeps a device's keys in a process of their own.
//
// Under all stages, on the device; for those without a TPM or another key store in hardware. The process (Serve, after Confine) has the keys' directory and
// one socket, and nothing else: no network, no other file, no program to start, no debugger. Who takes the agent over, or a program of a release,
// can have digests signed while it is in, and takes no key away. It trusts the kernel, and whoever can read the disk beside it: root, and who unsolders
// the flash. Evidence says "isolated", which no verifier takes for hardware.
package isolated

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
)

// What is asked, one question to a connection: a length of four bytes, then deterministic CBOR; so is the answer.
type question struct {
	Do    string   `cbor:"1,keyasint"`
	Name  string   `cbor:"2,keyasint"`
	Suite suite.ID `cbor:"3,keyasint,omitempty"` // of generate
	Data  []byte   `cbor:"4,keyasint,omitempty"` // of sign: what is signed; a digest, or with hash 0 the message
	Hash  uint     `cbor:"5,keyasint,omitempty"` // crypto.Hash
}

type reply struct {
	Fault string `cbor:"1,keyasint,omitempty"` // a word of faults, or other
	Text  string `cbor:"2,keyasint,omitempty"`
	Data  []byte `cbor:"3,keyasint,omitempty"` // public key (SPKI), or signature
}

const (
	doGenerate = "generate"
	doPublic   = "public"
	doSign     = "sign"
	doDestroy  = "destroy"
	doExchange = "exchange" // with no data: the public key, made if there is none; with a point: the secret that is agreed on
)

// faults are the errors that the other side tells apart.
var faults = map[string]error{"no-key": hw.ErrNoKey, "exists": hw.ErrKeyExists, "suite": hw.ErrSuite}

const (
	maxFrame = 64 << 10
	patience = 10 * time.Second // for one question: a key is made within it
)

// Keys is the side of who has things signed. It is safe for concurrent use.
type Keys struct{ socket string }

// Open finds the process at its socket; it has to be there.
func Open(socket string) (*Keys, error) {
	k := &Keys{socket}
	if _, err := k.ask(question{Do: doPublic, Name: hw.KeyIDevID}); err != nil && !errors.Is(err, hw.ErrNoKey) {
		return nil, err
	}
	return k, nil
}

// Origin implements hw.KeyStore.
func (k *Keys) Origin() string { return "isolated" }

func (k *Keys) ask(q question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // hw.KeyStore has no context: it is a part of the board
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", k.socket)
	if err != nil {
		return nil, fmt.Errorf("key store: %w: start it with `hallmark-agent keys`", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	asked := frame.Send(conn, q, maxFrame) // who may not ask is told so, and hung up on: perhaps before the question was out
	var r reply
	if err := frame.Receive(conn, &r, maxFrame); err != nil {
		return nil, fmt.Errorf("key store: answer to %s %s: %w", q.Do, q.Name, cmp.Or(asked, err))
	}
	if asked != nil && r.Fault == "" {
		return nil, fmt.Errorf("key store: ask to %s %s: %w", q.Do, q.Name, asked)
	}
	if known, ok := faults[r.Fault]; ok {
		return nil, fmt.Errorf("%q: %w", q.Name, known)
	}
	if r.Fault != "" {
		return nil, fmt.Errorf("key store: %s %s: %s", q.Do, q.Name, r.Text)
	}
	return r.Data, nil
}

// Generate implements hw.KeyStore.
func (k *Keys) Generate(name string, id suite.ID) (crypto.PublicKey, error) {
	der, err := k.ask(question{Do: doGenerate, Name: name, Suite: id})
	if err != nil {
		return nil, err
	}
	return suite.ParsePublic(der)
}

// Signer implements hw.KeyStore.
func (k *Keys) Signer(name string) (crypto.Signer, error) {
	der, err := k.ask(question{Do: doPublic, Name: name})
	if err != nil {
		return nil, err
	}
	pub, err := suite.ParsePublic(der)
	if err != nil {
		return nil, err
	}
	return &signer{k, name, pub}, nil
}

// Exchanger implements hw.KeyStore.
func (k *Keys) Exchanger() (ecdh.KeyExchanger, error) {
	point, err := k.ask(question{Do: doExchange, Name: hw.KeyCode})
	if err != nil {
		return nil, err
	}
	pub, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	return &exchanger{k, pub}, nil
}

type exchanger struct {
	keys *Keys
	pub  *ecdh.PublicKey
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.pub }

func (e *exchanger) Curve() ecdh.Curve { return ecdh.P256() }

func (e *exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	return e.keys.ask(question{Do: doExchange, Name: hw.KeyCode, Data: peer.Bytes()})
}

// Destroy implements hw.KeyStore.
func (k *Keys) Destroy(name string) error {
	_, err := k.ask(question{Do: doDestroy, Name: name})
	return err
}

type signer struct {
	keys *Keys
	name string
	pub  crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign has the process sign; the random numbers are its own. There are callers that give no opts with a digest.
func (s *signer) Sign(_ io.Reader, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	q := question{Do: doSign, Name: s.name, Data: data}
	if opts != nil {
		q.Hash = uint(opts.HashFunc())
	}
	return s.keys.ask(q)
}
