package server

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// ownCertificate is the server's: the infrastructure CA signs a new one when the present one has a third of its life left, so that
// nobody renews it by hand and a server that runs for years never shows one that has run out.
type ownCertificate struct {
	inst *Instance
	now  func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate // guarded by mu
}

// get implements tls.Config.GetCertificate.
func (c *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	i := c.inst
	infra, err := i.auth.held.Issuing(profile.Infra, "", now)
	if err != nil && c.cert == nil {
		return nil, err
	}
	fresh := c.cert != nil && c.cert.Leaf.NotAfter.Sub(now) > c.cert.Leaf.NotAfter.Sub(c.cert.Leaf.NotBefore)/3
	if c.cert != nil && (err != nil || fresh && bytes.Equal(c.cert.Leaf.AuthorityKeyId, infra.Cert.SubjectKeyId)) {
		return c.cert, nil // without a CA the present one is shown to its end
	}
	key, err := i.newestKey(keyring.Server)
	if err != nil {
		return nil, err
	}
	leaf, err := infra.ServerTLS(i.cfg.Names, key.Public(), now)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	c.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw, infra.Cert.Raw}, PrivateKey: key, Leaf: leaf}
	return c.cert, nil
}
