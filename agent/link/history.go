package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// History reads the signed history of trust bundles from a server that cannot be verified: that is what the history is for. It shows no
// certificate and says nothing of the device. Nothing of the line is believed; what comes is bounded, and the caller judges it by its
// signatures alone.
type History struct{ Pages }

// Pages carries the calls of a History.
type Pages interface {
	// Page reads what the history has at a path of it: a product; a product and a version; or a product, "devices" and a device.
	Page(ctx context.Context, path ...string) ([]byte, error)
	// Close drops the line.
	Close()
}

// HTTPPages are Pages of this process's own.
type HTTPPages struct {
	base    *url.URL
	http    *http.Client
	timeout time.Duration
}

// HistoryConfig says whom to ask.
type HistoryConfig struct {
	Server    string                              // base URL, https://host[:port]
	Timeout   time.Duration                       // of a call; 0: 30 s
	Transport func(*tls.Config) http.RoundTripper // nil: HTTP over TCP. Tests put an in-memory line here
}

// NewHistory makes a reader with a line of this process's own. It does not call.
func NewHistory(c HistoryConfig) (*History, error) {
	p, err := NewPages(c)
	if err != nil {
		return nil, err
	}
	return &History{p}, nil
}

// NewPages makes the line of a reader. It does not call.
func NewPages(c HistoryConfig) (*HTTPPages, error) {
	base, err := url.Parse(c.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("server %q: want https://host[:port]", c.Server)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} //nolint:gosec // signatures are believed, and not the line: see History
	var rt http.RoundTripper
	if c.Transport != nil {
		rt = c.Transport(conf)
	} else {
		rt = &http.Transport{
			TLSClientConfig: conf, MaxConnsPerHost: 1, IdleConnTimeout: 5 * time.Second, TLSHandshakeTimeout: 20 * time.Second,
			ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: 32 << 10, DisableCompression: true,
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return &HTTPPages{
		base: base, timeout: c.Timeout,
		http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the history of trust bundles does not redirect")
		}},
	}, nil
}

// Newest says where the history of a product ends.
func (h *History) Newest(ctx context.Context, product string) (wire.NewestBundle, error) {
	b, err := h.Page(ctx, product)
	if err != nil {
		return wire.NewestBundle{}, err
	}
	return wire.DecodeNewestBundle(b)
}

// Step gives a bundle of the history.
func (h *History) Step(ctx context.Context, product string, version uint64) (wire.BundleStep, error) {
	b, err := h.Page(ctx, product, strconv.FormatUint(version, 10))
	if err != nil {
		return wire.BundleStep{}, err
	}
	return wire.DecodeBundleStep(b)
}

// Home says what the server knows of where a device is at home.
func (h *History) Home(ctx context.Context, product, device string) (wire.HomeHint, error) {
	b, err := h.Page(ctx, product, "devices", device)
	if err != nil {
		return wire.HomeHint{}, err
	}
	return wire.DecodeHomeHint(b)
}

// Close implements Pages.
func (h *HTTPPages) Close() { h.http.CloseIdleConnections() }

// maxPage is the most that a page has.
const maxPage = max(wire.MaxNewestBundle, wire.MaxBundleStep, wire.MaxHomeHint)

// Page implements Pages.
func (h *HTTPPages) Page(ctx context.Context, path ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base.JoinPath(append([]string{"trust", "v1"}, path...)...).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("trust bundles: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("trust bundles: %w", status(resp))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("trust bundles: %w", err)
	}
	if int64(len(b)) > maxPage {
		return nil, fmt.Errorf("trust bundles: %w: the answer", wire.ErrTooLarge)
	}
	return b, nil
}
