// Package witnesscall asks witnesses elsewhere for cosignatures (c2sp.org/tlog-witness).
//
// Under all stages. A Witness here is a ledger.Cosigner over HTTP. It trusts nothing that it is answered: answers are bounded and
// strict, and whoever asked verifies the signatures. An error says what the witness answered and what to do about it.
package witnesscall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// Witness is one elsewhere. It is safe for concurrent use.
type Witness struct {
	address string // of add-checkpoint
	keys    []ledger.VerifierKey
	client  *http.Client
}

// timeout bounds one question, whatever the caller's context says.
const timeout = 10 * time.Second

// New makes a witness of its submission prefix and its verifier keys, which must be of one name.
func New(prefix string, keys []ledger.VerifierKey) (*Witness, error) {
	u, err := url.Parse(prefix)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("witness url %q: want http(s)://host/path, the submission prefix that its operator gave", prefix)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("witness %s: want its verifier keys, as its operator gave them", prefix)
	}
	for i, k := range keys {
		if !k.Cosigns() || k.Name != keys[0].Name {
			return nil, fmt.Errorf("witness %s: %s is not a key of it: all are of one name, and for cosignatures (types 0x04 and 0x06)", prefix, k)
		}
		for _, o := range keys[:i] {
			if o.Type == k.Type {
				return nil, fmt.Errorf("witness %s: two keys of one kind", prefix)
			}
		}
	}
	return &Witness{
		address: strings.TrimSuffix(prefix, "/") + "/add-checkpoint", keys: keys,
		client: &http.Client{
			Timeout: timeout,
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: 2 * time.Minute,
				TLSHandshakeTimeout: timeout, MaxResponseHeaderBytes: 16 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Name is the witness's name in cosignatures.
func (w *Witness) Name() string { return w.keys[0].Name }

// Keys are those it is known by.
func (w *Witness) Keys() []ledger.VerifierKey { return w.keys }

// Cosign asks for cosignatures: it implements ledger.Cosigner.
func (w *Witness) Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error) {
	body := witness.Request{Old: old, Proof: proof, Note: note}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot be reached: %w; see that it runs, and that this machine may call it", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, witness.MaxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("%s: its answer broke off: %w", w.address, err)
	}
	if len(answer) > witness.MaxRequest {
		return nil, fmt.Errorf("%s: its answer is larger than %d bytes", w.address, witness.MaxRequest)
	}
	if resp.StatusCode == http.StatusOK {
		return answer, nil
	}
	return nil, w.refusal(resp, answer)
}

var errRefused = errors.New("refused")

// refusal says what a status means.
func (w *Witness) refusal(resp *http.Response, answer []byte) error {
	say := func(what string) error {
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(string(answer[:min(len(answer), 200)]), "?"))
		return fmt.Errorf("%w: %s answers %s (%s): %s", errRefused, w.address, resp.Status, strings.TrimSpace(text), what)
	}
	switch resp.StatusCode {
	case http.StatusConflict:
		if resp.Header.Get("Content-Type") == witness.SizeType {
			if size, err := witness.ParseOldSize(answer); err == nil {
				return &ledger.OldSizeError{Size: size}
			}
		}
		// Some answer so to another root at the same size.
		return fmt.Errorf("%w: %w", ledger.ErrInconsistent, say("a conflict, and no size that it remembers"))
	case http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", ledger.ErrInconsistent, say("compare this log with what the witness has (hallmark log verify --since)"))
	case http.StatusNotFound:
		return say("it does not know the log, or is not there: have its operator add the log's key, which `hallmark log keys` prints, and check the url")
	case http.StatusForbidden:
		return say("it knows the log by another key: have its operator add the one that `hallmark log keys` prints")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return say("it is asked again")
	}
	return say("ask its operator")
}
