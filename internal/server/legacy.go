package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/ddi"
	"github.com/hallmark-iot/hallmark/internal/door"
	"github.com/hallmark-iot/hallmark/internal/mender"
	"github.com/hallmark-iot/hallmark/internal/pace"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// Legacy is where clients of other update systems come.
type Legacy struct {
	Listen string `json:"listen"`        // host:port
	URL    string `json:"url,omitempty"` // https://host[:port], as they reach it; left out: the first of names, and the port of listen
	Plain  bool   `json:"plain"`         // without TLS, on loopback only: behind a gateway on this machine
}

func (l Legacy) check() error {
	if err := checkAddress("legacy.listen", l.Listen); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(l.Listen); l.Plain && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("legacy.plain: %s is no loopback address: tokens would travel for everybody to read", l.Listen)
	}
	if l.URL == "" {
		return nil
	}
	u, err := url.Parse(l.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(l.URL, "/") {
		return fmt.Errorf("legacy.url %q: want https://host or https://host:port, without a slash at the end", l.URL)
	}
	return nil
}

// base is what addresses that clients are given begin with.
func (l Legacy) base(names []string, port string) string {
	if l.URL != "" {
		return l.URL
	}
	scheme := "https"
	if l.Plain {
		scheme = "http"
	}
	return scheme + "://" + net.JoinHostPort(names[0], port)
}

func (i *Instance) openLegacy() (err error) {
	i.legacy, err = legacy.New(legacy.Config{Guard: i.guard, Store: i.db.Legacy(), Products: i.product})
	return err
}

// listenLegacy opens the listener of clients of other update systems, and the server for it; nil where none is configured. It is not the devices' own, whose door
// has nothing to say to a client without a certificate.
func (i *Instance) listenLegacy(ctx context.Context, certificate *ownCertificate) (net.Listener, *http.Server, error) {
	c := i.cfg.Legacy
	if c == nil {
		return nil, nil, nil
	}
	l, err := listen(ctx, c.Listen)
	if err != nil {
		return nil, nil, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	handler, err := i.legacyHandler(c.base(i.cfg.Names, port))
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	s := &http.Server{
		Handler: patient(receipts(handler)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: quiet(i.log),
	}
	if c.Plain {
		return l, s, nil
	}
	// Clients may show a certificate. No CA is asked: whose key it is was said when the client was admitted. So to the door each connection stays a stranger's, of whom there is a number; a download
	// that has to make room goes on from where it was.
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get, ClientAuth: tls.RequestClientCert}
	return door.New(l, conf, door.Limits{Strangers: 16384, Address: 2048}), s, nil
}

// legacyHandler speaks each client's own protocol. They have no address in common: hawkBit's begin with a product, and none is called api/devices.
func (i *Instance) legacyHandler(base string) (http.Handler, error) {
	vault, err := newLinkSealer(i.keys)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", ddi.Handler(ddi.Config{
		Base: base, Poll: i.cfg.poll(), Soon: min(i.cfg.poll(), 5*time.Second), Clients: i.legacy, Offers: i.device, Sums: i.db.Legacy(), Allow: i.asks.Allow,
		Artifact: i.artifactFor, Logger: i.log, Now: time.Now,
	}))
	mux.Handle(mender.Prefix, mender.Handler(mender.Config{
		Base: base, Clients: i.legacy, Offers: i.device, Heads: i.db.Legacy(), Vault: vault, Allow: i.asks.Allow, Artifact: i.artifactFor, Logger: i.log, Now: time.Now,
	}))
	return mux, nil
}

// artifactFor opens what a published release of a device's product has.
func (i *Instance) artifactFor(ctx context.Context, caller access.Caller, digest [32]byte) (io.ReadSeekCloser, error) {
	_, r, err := i.release.Open(ctx, caller, "", digest)
	if err != nil {
		return nil, err
	}
	slow, err := i.pace.Slow(ctx, strings.TrimPrefix(caller.ID, "device:"), r)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return slow, nil
}

// paceOf is how fast a device's bytes leave: as the rollout has it that has the device.
func (i *Instance) paceOf(ctx context.Context, device string) (pace.Limit, error) {
	id, b, err := i.rollout.BandwidthOf(ctx, device)
	return pace.Limit{Name: id, All: b.All, Each: b.Each}, err
}
