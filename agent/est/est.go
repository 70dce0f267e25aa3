// Package est is the device's side of Enrolment over Secure Transport (RFC 7030).
//
// Stage 3, field, on the device. It asks for a certificate and believes the answer only if it is one certificate, for the key that
// asked, naming this device, under the anchors this device already trusts. Everything read is bounded. It trusts those anchors to
// name the server, and nothing the server says about itself.
package est

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/peer"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// maxBody bounds what is read of an answer.
const maxBody = 64 << 10

// Config says whom to ask.
type Config struct {
	Server    string                              // base URL, https://host[:port]
	Roots     *x509.CertPool                      // who may vouch for the server and for issued certificates; never the system's pool
	Timeout   time.Duration                       // of one call; 0: 30 s
	Transport func(*tls.Config) http.RoundTripper // nil: HTTP over TCP. Tests put an in-memory line here
	Now       func() time.Time                    // may be behind, and is never ahead; nil: time.Now
	Logger    *slog.Logger                        // told at debug level what each call was answered; nil: nobody
}

// Client asks for certificates. It may be used by several goroutines.
type Client struct {
	c    Config
	base string
	host string
}

// Request is one enrolment.
type Request struct {
	As    tls.Certificate // IDevID; the present LDevID when Renew is set
	Key   crypto.Signer   // to be certified: P-256 or P-384
	Renew bool
	// Elsewhere says that the server is not of the maker that As names: the request then names nobody, and the certificate that comes is of whoever
	// the device was handed to.
	Elsewhere bool
}

// Pending says that the server will decide later: ask again, with the same request, after After.
type Pending struct {
	After time.Duration
	Text  string
}

func (p *Pending) Error() string { return fmt.Sprintf("not yet, ask again in %s: %s", p.After, p.Text) }

// Status is an answer other than success.
type Status struct {
	Code  int
	Text  string        // start of the body
	After time.Duration // Retry-After, 0: none
}

func (s *Status) Error() string {
	return fmt.Sprintf("enrolment server answered %d: %s", s.Code, s.Text)
}

// Because reports whether the server refused by a fault of that code.
func (s *Status) Because(code string) bool { return strings.HasPrefix(s.Text, code) }

// Refused says that the server understood, and said no: one that is ill, or away, has not.
func (s *Status) Refused() bool { return s.Code >= 400 && s.Code < 500 }

// RetryAfter is how long the server asks to be left alone.
func (s *Status) RetryAfter() time.Duration { return s.After }

// RetryAfter is when the server will have decided.
func (p *Pending) RetryAfter() time.Duration { return p.After }

// New makes a client. It does not call.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("enrolment server %q: want https://host[:port]", c.Server)
	}
	if c.Roots == nil {
		return nil, errors.New("est: no anchors")
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{c: c, base: "https://" + u.Host + "/.well-known/est/", host: u.Hostname()}, nil
}

// Enrol asks for a certificate for r.Key and gives the chain to show in TLS, leaf first (DER). The request names the line it goes by, so
// that nobody between can pass it on; asking again for the same key gives the same certificate all the same.
func (c *Client) Enrol(ctx context.Context, r Request) ([][]byte, error) {
	return c.enrol(ctx, r, r.CSR)
}

// EnrolCSR is Enrol with a request made earlier by NewCSR for r.Key.
func (c *Client) EnrolCSR(ctx context.Context, r Request, csr []byte) ([][]byte, error) {
	return c.enrol(ctx, r, func(string) ([]byte, error) { return csr, nil })
}

func (c *Client) enrol(ctx context.Context, r Request, csr func(line string) ([]byte, error)) ([][]byte, error) {
	answer, err := c.Exchange(ctx, Ask{As: r.As, Renew: r.Renew, CSR: csr})
	if err != nil {
		return nil, err
	}
	return r.Check(answer, c.c.Roots, c.c.Now)
}

// CSR makes the request (DER) for a line of that name (Binding); a line without one has the plain request.
func (r Request) CSR(line string) ([]byte, error) {
	as, err := r.leaf()
	if err != nil {
		return nil, err
	}
	var plain []byte
	if r.Elsewhere {
		plain, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, r.Key)
	} else {
		plain, err = NewCSR(as, r.Key)
	}
	if err != nil || line == "" {
		return plain, err
	}
	return BindCSR(plain, r.Key, line)
}

func (r Request) leaf() (*x509.Certificate, error) {
	if len(r.As.Certificate) == 0 {
		return nil, errors.New("est: no certificate to ask with")
	}
	as, err := x509.ParseCertificate(r.As.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("est: certificate to ask with: %w", err)
	}
	return as, nil
}

// Ask is what an enrolment says to the server.
type Ask struct {
	As    tls.Certificate
	Renew bool
	CSR   func(line string) ([]byte, error) // makes the request (DER) that is bound to a line (Binding)
}

// Answer is what came, which nobody has judged.
type Answer struct{ Certificates, CAs [][]byte }

// Exchange asks, and judges nothing of what comes: that is Request.Check's, which needs no line.
func (c *Client) Exchange(ctx context.Context, a Ask) (Answer, error) {
	answer, err := c.exchange(ctx, a)
	if s, ok := errors.AsType[*Status](err); ok && s.Code == http.StatusBadRequest && s.Because("csr.binding") {
		return c.exchange(ctx, a) // the line was another by the time of the second call
	}
	return answer, err
}

func (c *Client) exchange(ctx context.Context, a Ask) (Answer, error) {
	h, idle := c.line(&a.As)
	defer idle()
	cas, line, err := c.call(ctx, h, http.MethodGet, "cacerts", nil)
	if err != nil {
		return Answer{}, fmt.Errorf("CA certificates: %w", err)
	}
	csr, err := a.CSR(Binding(line))
	if err != nil {
		return Answer{}, err
	}
	call := "simpleenroll"
	if a.Renew {
		call = "simplereenroll"
	}
	certs, _, err := c.call(ctx, h, http.MethodPost, call, []byte(base64.StdEncoding.EncodeToString(csr)))
	if err != nil {
		return Answer{}, err
	}
	return Answer{raw(certs), raw(cas)}, nil
}

func raw(certs []*x509.Certificate) [][]byte {
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.Raw
	}
	return out
}

// Check holds the answer against what was asked for, and gives the chain to show.
func (r Request) Check(a Answer, roots *x509.CertPool, now func() time.Time) ([][]byte, error) {
	as, err := r.leaf()
	if err != nil {
		return nil, err
	}
	if err := r.check(a, as, roots, now()); err != nil {
		return nil, fmt.Errorf("the certificate that came is not usable: %w", err)
	}
	return a.Certificates, nil
}

func (r Request) check(a Answer, as *x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if len(a.Certificates) != 1 {
		return fmt.Errorf("%d certificates, want one", len(a.Certificates))
	}
	leaf, err := x509.ParseCertificate(a.Certificates[0])
	if err != nil {
		return err
	}
	asked, err := x509.MarshalPKIXPublicKey(r.Key.Public())
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, asked) {
		return errors.New("it is for another key")
	}
	got, err := idevid.Parse(leaf)
	if err != nil {
		return err
	}
	want, err := idevid.Parse(as)
	if err != nil {
		return err
	}
	if got.Kind != idevid.LDevID || got.DeviceID != want.DeviceID || got.Product != want.Product || got.OEM != want.OEM && !r.Elsewhere {
		return fmt.Errorf("it is an %s of device %s (%s/%s)", got.Kind, got.DeviceID, got.OEM, got.Product)
	}
	pool, all := x509.NewCertPool(), []*x509.Certificate{leaf}
	for _, der := range a.CAs {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("CA certificate: %w", err)
		}
		pool.AddCert(ca)
		all = append(all, ca)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: peer.Since(now, all...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// line makes a connection that shows as: identities must not share one.
func (c *Client) line(as *tls.Certificate) (h *http.Client, idle func()) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.c.Roots}
	peer.Expect(conf, c.host, c.c.Now)
	if as != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return as, nil }
	}
	var rt http.RoundTripper
	if c.c.Transport != nil {
		rt = c.c.Transport(conf)
	} else {
		rt = &http.Transport{
			TLSClientConfig: conf, MaxConnsPerHost: 1, TLSHandshakeTimeout: 20 * time.Second,
			MaxResponseHeaderBytes: 32 << 10, DisableCompression: true,
		}
	}
	h = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the enrolment server does not redirect")
	}}
	return h, h.CloseIdleConnections
}

func (c *Client) call(ctx context.Context, h *http.Client, method, name string, body []byte) ([]*x509.Certificate, *tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+name, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/pkcs10")
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read whole already, or given up
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(answer) > maxBody {
		return nil, nil, fmt.Errorf("%s: answer of more than %d bytes", name, maxBody)
	}
	c.c.Logger.Debug("answered", "call", name, "status", resp.StatusCode, "facts", resp.Header.Get("Hallmark-Facts"))
	after := retryAfter(resp.Header.Get("Retry-After"))
	text := strings.ToValidUTF8(strings.TrimSpace(string(answer[:min(len(answer), 512)])), "?")
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusAccepted:
		return nil, nil, &Pending{After: max(after, time.Second), Text: text}
	default:
		return nil, nil, &Status{Code: resp.StatusCode, Text: text, After: after}
	}
	if m, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || m != "application/pkcs7-mime" {
		return nil, nil, fmt.Errorf("%s: content type %q", name, resp.Header.Get("Content-Type"))
	}
	certs, err := DecodeCerts(answer)
	return certs, resp.TLS, err
}

// retryAfter reads seconds (RFC 9110 §10.2.3), at most a day; anything else counts as absent.
func retryAfter(s string) time.Duration {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, 24*time.Hour)
}
