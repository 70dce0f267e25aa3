package oidc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds what is read of a provider's answer, in bytes.
const maxAnswer = 1 << 20

// CheckIssuer refuses an issuer that is none: an https address without query and fragment; http only on this machine, for trials.
func CheckIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(issuer) > 512 {
		return fmt.Errorf("issuer %.100q: want an address such as https://login.example.com", issuer)
	}
	return safe(u)
}

func safe(u *url.URL) error {
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s://%s: beyond this machine it has to be https", u.Scheme, u.Host)
}

// outward is how a provider is asked: what it names is gone to only by https, and no further than it says; answers are bounded.
func outward() *http.Client {
	return &http.Client{
		Timeout:       2 * patience,
		Transport:     bounded{&http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: patience, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, ForceAttemptHTTP2: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := safe(r.URL); err != nil {
		return nil, err
	}
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = &limited{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

var errLong = errors.New("the provider's answer does not end")

// limited is a body that errs where it is too long: cut off, it could be something else.
type limited struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLong
	}
	n, err := l.ReadCloser.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
