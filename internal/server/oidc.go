package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/oidc"
)

// oidcCallback is where the provider sends people back to.
const oidcCallback = "/auth/oidc/callback"

// maxOIDCSecret bounds a client's secret, in bytes.
const maxOIDCSecret = 4096

// SetOIDC gives an instance that is there an organisation's sign-in, or, with nil, takes it away; secret may be empty, for a public
// client. It holds from the next start. redirect is the address that the provider has to have on record.
func SetOIDC(l Layout, o *OIDC, secret []byte) (redirect string, err error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return "", err
	}
	cfg.OIDC = o
	if err := cfg.check(); err != nil {
		return "", err
	}
	if err := l.saveOIDCSecret(secret); err != nil {
		return "", err
	}
	return cfg.OIDCRedirect(), cfg.save(l)
}

// saveOIDCSecret keeps the client's secret; an empty one is no file.
func (l Layout) saveOIDCSecret(secret []byte) error {
	secret = bytes.TrimSpace(secret)
	if len(secret) > maxOIDCSecret {
		return fmt.Errorf("the client's secret has more than %d bytes: give the file that the provider's secret is in", maxOIDCSecret)
	}
	if len(secret) > 0 {
		return durable.WriteFile(l.OIDCSecret(), append(secret, '\n'), 0o600)
	}
	if err := os.Remove(l.OIDCSecret()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// oidcRedirect is the callback's address by the console's name, at a port; as browsers write it, without a scheme's own port.
func (c Config) oidcRedirect(port string) string {
	host, _, err := net.SplitHostPort(c.consoleHost())
	if err != nil {
		host = c.consoleHost()
	}
	if own := map[string]string{"http": "80", "https": "443"}[c.scheme()]; port != own {
		host = net.JoinHostPort(host, port)
	}
	return c.scheme() + "://" + host + oidcCallback
}

// OIDCRedirect is the address that the provider has to have on record.
func (c Config) OIDCRedirect() string {
	_, port, err := net.SplitHostPort(c.API)
	if err != nil {
		return ""
	}
	return c.oidcRedirect(port)
}

// organisation lets people sign in with their organisation; nil when there is none. The provider is not asked before somebody wants to.
func (i *Instance) organisation(address net.Addr) (http.Handler, error) {
	o := i.cfg.OIDC
	if o == nil {
		return nil, nil
	}
	secret, err := os.ReadFile(i.layout.OIDCSecret())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address.String()) // the configured one may be 0: any
	if err != nil {
		return nil, err
	}
	return oidc.New(oidc.Config{
		Credentials: i.credentials, Issuer: o.Issuer, Client: o.Client, Secret: string(bytes.TrimSpace(secret)), Redirect: i.cfg.oidcRedirect(port),
		Secure: !i.cfg.loopback(), Log: i.log,
	}), nil
}

func (i *Instance) issuer() string {
	if i.cfg.OIDC == nil {
		return ""
	}
	return i.cfg.OIDC.Issuer
}
