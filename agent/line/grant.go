package line

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
)

// A handshake signs a digest of both sides' words, which only who holds the handshake can make: so the process may have digests signed, of which nobody here
// knows what they are. It may so only while a call is under way that the trusted side made, with the key of the certificate that the call shows, and a few times. Any other
// signature is made of something whose meaning the trusted side knows: it makes the request for a certificate itself, and evidence, logs and proofs never ask
// the process for anything but to carry them.

// handshakes is how often a call may be signed for: connections break.
const handshakes = 4

// grant is what may be had for the calls that show one certificate.
type grant struct {
	key     crypto.Signer
	request func(line string) ([]byte, error) // makes the request for a certificate; nil: no call is an enrolment
	calls   int                               // under way
	left    int                               // signatures
}

// grants are those of the calls under way.
type grants struct {
	mu sync.Mutex // guards all, and every grant
	by map[[32]byte]*grant
}

// open lets what is signed for a call be signed until done is called.
func (g *grants) open(as [32]byte, key crypto.Signer, request func(line string) ([]byte, error)) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by == nil {
		g.by = map[[32]byte]*grant{}
	}
	x := g.by[as]
	if x == nil {
		x = &grant{key: key}
		g.by[as] = x
	}
	x.calls++
	x.left = min(x.left+handshakes, 2*handshakes)
	if request != nil {
		x.request = request
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if x.calls--; x.calls == 0 {
			delete(g.by, as)
		}
		if request != nil {
			x.request = nil
		}
	})
}

// take counts one signature of the grant for as.
func (g *grants) take(as [32]byte) (grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.by[as]
	if x == nil {
		return grant{}, errors.New("no call is under way with that certificate: nothing is signed")
	}
	if x.left == 0 {
		return grant{}, errors.New("this call has had enough signatures")
	}
	x.left--
	return *x, nil
}

// give answers an ask.
func (g *grants) give(a ask) ([]byte, error) {
	x, err := g.take(a.As)
	if err != nil {
		return nil, err
	}
	switch a.Do {
	case askSign:
		hash := crypto.Hash(a.Hash)
		if _, ok := x.key.Public().(*ecdsa.PublicKey); !ok {
			return nil, fmt.Errorf("a %T is no key of connections", x.key.Public())
		}
		if hash != crypto.SHA256 && hash != crypto.SHA384 || len(a.Digest) != hash.Size() {
			return nil, fmt.Errorf("%d bytes by hash %d: no digest that a handshake signs", len(a.Digest), a.Hash)
		}
		return x.key.Sign(rand.Reader, a.Digest, hash)
	case askRequest:
		if x.request == nil {
			return nil, errors.New("no certificate is being asked for")
		}
		if b, err := base64.StdEncoding.DecodeString(a.Line); a.Line != "" && (err != nil || len(b) != 32) {
			return nil, fmt.Errorf("%.60q is the name of no line", a.Line)
		}
		return x.request(a.Line)
	}
	return nil, fmt.Errorf("nothing here is called %.20q", a.Do)
}
