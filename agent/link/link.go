// Package link is the device's line to the server: the device API over mutual TLS, and nothing else.
//
// Stage 3, field, on the device. Every call is bounded in size and time, and decodes strictly what comes back. It trusts the
// anchors it is given to name the server; the server's authority to command is not decided here but by the gate, so a thief
// of the server's TLS key gains the ear of a device, not its obedience.
package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/peer"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config says whom to call and as whom.
type Config struct {
	Server      string                              // base URL, https://host[:port]
	Roots       *x509.CertPool                      // who may vouch for the server; never the system's pool
	Certificate func() (*tls.Certificate, error)    // asked at each handshake, so that a renewal takes effect by itself
	Timeout     time.Duration                       // of a call other than an artifact; 0: 30 s
	Transport   func(*tls.Config) http.RoundTripper // nil: HTTP over TCP. Tests put an in-memory line here
	Now         func() time.Time                    // may be behind, and is never ahead; nil: time.Now
	Logger      *slog.Logger                        // told at debug level what each call was answered; nil: nobody
}

// Client calls the server. It may be used by several goroutines.
type Client struct {
	base    *url.URL
	http    *http.Client
	timeout time.Duration
	log     *slog.Logger
}

// Status is an answer other than success.
type Status struct {
	Code  int
	Text  string        // start of the body
	After time.Duration // how long the server asks to be left alone; 0: it did not say
}

func (s *Status) Error() string { return fmt.Sprintf("server answered %d: %s", s.Code, s.Text) }

// Refused says that there is a server, and that it said no.
func (s *Status) Refused() bool { return true }

// RetryAfter is how long the server asks to be left alone (RFC 9110 §10.2.3).
func (s *Status) RetryAfter() time.Duration { return s.After }

// Final reports whether asking the same again is pointless: the server understood and refused.
func Final(err error) bool {
	var s *Status
	return errors.As(err, &s) && s.Code >= 400 && s.Code < 500 &&
		s.Code != http.StatusRequestTimeout && s.Code != http.StatusTooManyRequests && s.Code != http.StatusConflict
}

// Later says whether the server understood, and has had enough of this for now.
func Later(err error) (after time.Duration, ok bool) {
	var s *Status
	if !errors.As(err, &s) || s.Code != http.StatusTooManyRequests {
		return 0, false
	}
	return s.After, true
}

// New makes a client. It does not call.
func New(c Config) (*Client, error) {
	base, err := url.Parse(c.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("server %q: want https://host[:port]", c.Server)
	}
	if c.Roots == nil || c.Certificate == nil {
		return nil, errors.New("link: no anchors or no certificate: enrol first")
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    c.Roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.Certificate()
		},
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	peer.Expect(conf, base.Hostname(), c.Now)
	var rt http.RoundTripper
	if c.Transport != nil {
		rt = c.Transport(conf)
	} else {
		rt = &http.Transport{
			TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, MaxConnsPerHost: 2,
			IdleConnTimeout: 2 * time.Minute, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: time.Minute,
			MaxResponseHeaderBytes: 32 << 10, DisableCompression: true,
		}
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{
		base: base, timeout: timeout, log: c.Logger,
		http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the device API does not redirect")
		}},
	}, nil
}

// Close drops idle connections, so that the next call shows the newest certificate.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Checkin asks whether there is anything to do.
func (c *Client) Checkin(ctx context.Context, in wire.Checkin) (wire.CheckinReply, error) {
	body, err := wire.EncodeCheckin(in)
	if err != nil {
		return wire.CheckinReply{}, err
	}
	reply, err := c.post(ctx, "checkin", "application/cbor", body, wire.MaxCheckinReply)
	if err != nil {
		return wire.CheckinReply{}, err
	}
	return wire.DecodeCheckinReply(reply)
}

// Attest hands in evidence.
func (c *Client) Attest(ctx context.Context, evidence []byte) (wire.AttestReply, error) {
	reply, err := c.post(ctx, "attest", "application/cose", evidence, wire.MaxAttestReply)
	if err != nil {
		return wire.AttestReply{}, err
	}
	return wire.DecodeAttestReply(reply)
}

// AttestKey hands in a change of the attestation key.
func (c *Client) AttestKey(ctx context.Context, change []byte) error {
	_, err := c.post(ctx, "attest-key", "application/cose", change, 4<<10)
	return err
}

// Log hands in a batch of the device's log.
func (c *Client) Log(ctx context.Context, batch []byte) (wire.LogReply, error) {
	reply, err := c.post(ctx, "log", "application/cose", batch, wire.MaxLogReply)
	if err != nil {
		return wire.LogReply{}, err
	}
	return wire.DecodeLogReply(reply)
}

// Telemetry hands in sealed data.
func (c *Client) Telemetry(ctx context.Context, upload []byte) error {
	_, err := c.post(ctx, "telemetry", "application/cbor", upload, 4<<10)
	return err
}

// Receipt hands in the receipt of a wipe.
func (c *Client) Receipt(ctx context.Context, receipt []byte) error {
	_, err := c.post(ctx, "receipt", "application/cose", receipt, 4<<10)
	return err
}

// Artifact opens the bytes named digest from offset on. The reader ends with ctx; the caller closes it and checks the digest.
func (c *Client) Artifact(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("artifact/"+fmt.Sprintf("%x", digest)), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("artifact %x: %w", digest, err)
	}
	switch {
	case offset == 0 && resp.StatusCode == http.StatusOK:
		return resp.Body, nil
	case offset > 0 && resp.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-"):
		return resp.Body, nil
	case offset > 0 && resp.StatusCode == http.StatusOK: // the server does not do ranges: read up to where we were
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("artifact %x: %w", digest, err)
		}
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, fmt.Errorf("artifact %x: %w", digest, status(resp))
}

func (c *Client) url(path string) string { return c.base.JoinPath("d", "v1", path).String() }

func (c *Client) post(ctx context.Context, path, contentType string, body []byte, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(path), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return nil, fmt.Errorf("%s: %w", path, status(resp))
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.log.Debug("answered", "call", path, "status", resp.StatusCode, "facts", resp.Header.Get("Hallmark-Facts"))
	if int64(len(reply)) > limit {
		return nil, fmt.Errorf("%s: %w: the answer", path, wire.ErrTooLarge)
	}
	return reply, nil
}

func status(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 300))
	if err != nil {
		text = []byte("(no body)")
	}
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		seconds = 0 // a date, or nothing
	}
	return &Status{Code: resp.StatusCode, After: time.Duration(seconds) * time.Second, Text: strings.ToValidUTF8(strings.TrimSpace(string(text)), "?")}
}
