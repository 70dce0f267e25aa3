// Package link is the device's line to the server: the device API over mutual TLS, and nothing else. A Client speaks the API; a Line carries its bytes, and
// may be in another process, which then has the network's code and none of the device's secrets.
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

// Line carries the calls of the device API. It may be used by several goroutines.
type Line interface {
	// Post makes a call (CallOf), and gives the answer's bytes; *Status is a no.
	Post(ctx context.Context, call string, body []byte) ([]byte, error)
	// Artifact opens the bytes named digest from offset on. The reader ends with ctx; the caller closes it.
	Artifact(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error)
	// Close drops idle connections, so that the next call shows the newest certificate.
	Close()
}

// Call is one of the device API.
type Call struct {
	Type  string // of what is sent
	Body  int64  // bytes that are sent at most
	Reply int64  // and that may come back
}

const nothing = 4 << 10 // may come back where nothing has to

// calls are those of the device API, by their names in its addresses.
var calls = map[string]Call{
	"checkin":    {"application/cbor", wire.MaxCheckin, wire.MaxCheckinReply},
	"attest":     {"application/cose", wire.MaxEnvelope, wire.MaxAttestReply},
	"attest-key": {"application/cose", wire.MaxEnvelope, nothing},
	"log":        {"application/cose", wire.MaxEnvelope, wire.MaxLogReply},
	"trust":      {"application/cbor", wire.MaxTrust, nothing},
	"telemetry":  {"application/cbor", wire.MaxUpload, nothing},
	"receipt":    {"application/cose", wire.MaxEnvelope, nothing},
}

// CallOf gives a call of the device API.
func CallOf(name string) (Call, error) {
	c, ok := calls[name]
	if !ok {
		return Call{}, fmt.Errorf("the device API has no call %q", name)
	}
	return c, nil
}

// Client speaks the device API over a Line.
type Client struct{ Line }

// HTTP is a Line of this process's own.
type HTTP struct {
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

// Refused says that the server understood, and said no: one that is ill, or behind, has not.
func (s *Status) Refused() bool {
	return s.Code >= 400 && s.Code < 500 && s.Code != http.StatusRequestTimeout && s.Code != http.StatusTooManyRequests
}

// RetryAfter is how long the server asks to be left alone (RFC 9110 §10.2.3).
func (s *Status) RetryAfter() time.Duration { return s.After }

// Final reports whether asking the same again is pointless: the server understood and refused.
func Final(err error) bool {
	var s *Status
	return errors.As(err, &s) && s.Refused() && s.Code != http.StatusConflict
}

// Later says whether the server understood, and has had enough of this for now.
func Later(err error) (after time.Duration, ok bool) {
	var s *Status
	if !errors.As(err, &s) || s.Code != http.StatusTooManyRequests {
		return 0, false
	}
	return s.After, true
}

// New makes a client with a line of this process's own. It does not call.
func New(c Config) (*Client, error) {
	l, err := NewHTTP(c)
	if err != nil {
		return nil, err
	}
	return &Client{l}, nil
}

// NewHTTP makes a line. It does not call.
func NewHTTP(c Config) (*HTTP, error) {
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
	return &HTTP{
		base: base, timeout: timeout, log: c.Logger,
		http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the device API does not redirect")
		}},
	}, nil
}

// Close implements Line.
func (c *HTTP) Close() { c.http.CloseIdleConnections() }

// Checkin asks whether there is anything to do.
func (c *Client) Checkin(ctx context.Context, in wire.Checkin) (wire.CheckinReply, error) {
	body, err := wire.EncodeCheckin(in)
	if err != nil {
		return wire.CheckinReply{}, err
	}
	reply, err := c.Post(ctx, "checkin", body)
	if err != nil {
		return wire.CheckinReply{}, err
	}
	return wire.DecodeCheckinReply(reply)
}

// Attest hands in evidence.
func (c *Client) Attest(ctx context.Context, evidence []byte) (wire.AttestReply, error) {
	reply, err := c.Post(ctx, "attest", evidence)
	if err != nil {
		return wire.AttestReply{}, err
	}
	return wire.DecodeAttestReply(reply)
}

// AttestKey hands in a change of the attestation key.
func (c *Client) AttestKey(ctx context.Context, change []byte) error {
	_, err := c.Post(ctx, "attest-key", change)
	return err
}

// Trust leaves a copy of the device's trust record.
func (c *Client) Trust(ctx context.Context, record []byte) error {
	_, err := c.Post(ctx, "trust", record)
	return err
}

// Log hands in a batch of the device's log.
func (c *Client) Log(ctx context.Context, batch []byte) (wire.LogReply, error) {
	reply, err := c.Post(ctx, "log", batch)
	if err != nil {
		return wire.LogReply{}, err
	}
	return wire.DecodeLogReply(reply)
}

// Telemetry hands in sealed data.
func (c *Client) Telemetry(ctx context.Context, upload []byte) error {
	_, err := c.Post(ctx, "telemetry", upload)
	return err
}

// Receipt hands in the receipt of a wipe.
func (c *Client) Receipt(ctx context.Context, receipt []byte) error {
	_, err := c.Post(ctx, "receipt", receipt)
	return err
}

// Artifact implements Line. The caller checks the digest.
func (c *HTTP) Artifact(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
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

func (c *HTTP) url(path string) string { return c.base.JoinPath("d", "v1", path).String() }

// Post implements Line.
func (c *HTTP) Post(ctx context.Context, path string, body []byte) ([]byte, error) {
	call, err := CallOf(path)
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > call.Body {
		return nil, fmt.Errorf("%s: %w: the question", path, wire.ErrTooLarge)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(path), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", call.Type)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return nil, fmt.Errorf("%s: %w", path, status(resp))
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, call.Reply+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.log.Debug("answered", "call", path, "status", resp.StatusCode, "facts", resp.Header.Get("Hallmark-Facts"))
	if int64(len(reply)) > call.Reply {
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
