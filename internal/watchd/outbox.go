package watchd

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger/watch"
)

// maxWaiting bounds the outbox. When it is full nothing more is judged: the log keeps what is to come.
const maxWaiting = 1000

// ErrFull says that the receiver has not taken alerts for long.
var ErrFull = errors.New("alerts wait for the receiver of the webhook, and no more fit: see that it answers; nothing is lost, and the logs are not read on until then")

// Header names the signature: sha256= and the HMAC-SHA256 of the body in hexadecimal.
const Header = "Hallmark-Signature"

// Outbox is a directory of alerts that wait for the receiver, one file each, by their order.
type Outbox struct {
	Path   string
	URL    string
	Secret []byte
	Client *http.Client

	wake chan struct{}
}

// NewOutbox makes one. The client follows no redirection: an alert is for the receiver that was named.
func NewOutbox(path, url string, secret []byte) *Outbox {
	return &Outbox{
		Path: path, URL: url, Secret: secret, wake: make(chan struct{}, 1),
		Client: &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// waiting are the files, oldest first.
func (o *Outbox) waiting() ([]string, error) {
	list, err := os.ReadDir(o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range list { // by name
		if strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Put keeps a notice until it is delivered; it is on the disk when Put returns nil. The same again changes nothing.
func (o *Outbox) Put(n watch.Notice) error {
	names, err := o.waiting()
	if err != nil {
		return err
	}
	key := n.Alert.ID
	if n.Alert.Over {
		key += "-over"
	}
	next := uint64(1)
	for _, name := range names {
		seq, rest, _ := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
		if rest == key {
			return nil
		}
		last, err := strconv.ParseUint(seq, 10, 63)
		if err != nil {
			return fmt.Errorf("%s: not a file of the outbox", filepath.Join(o.Path, name))
		}
		next = last + 1
	}
	if len(names) >= maxWaiting {
		return ErrFull
	}
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(o.Path, fmt.Sprintf("%012d-%s.json", next, key)), body, 0o600); err != nil {
		return err
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// Deliver posts what waits, in order, until nothing does or one is not taken. It gives how many still wait.
func (o *Outbox) Deliver(ctx context.Context) (left int, err error) {
	names, err := o.waiting()
	if err != nil {
		return 0, err
	}
	for i, name := range names {
		path := filepath.Join(o.Path, name)
		body, err := os.ReadFile(path)
		if err != nil {
			return len(names) - i, err
		}
		_, key, _ := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
		if err := o.post(ctx, key, body); err != nil {
			return len(names) - i, fmt.Errorf("webhook: %d alerts wait in %s: %w", len(names)-i, o.Path, err)
		}
		if err := errors.Join(os.Remove(path), durable.SyncDir(o.Path)); err != nil {
			return len(names) - i, err
		}
	}
	return 0, nil
}

func (o *Outbox) post(ctx context.Context, key string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	req.Header.Set(Header, Sign(o.Secret, body))
	resp, err := o.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is kept; its status is the answer
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	return nil
}

// Sign gives the value of Header for a body.
func Sign(secret, body []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write(body)
	return "sha256=" + hex.EncodeToString(h.Sum(nil))
}

// The times between two tries of what was not taken.
const (
	firstPause = time.Second
	lastPause  = 5 * time.Minute
)

// Run delivers until ctx ends. What goes wrong is told, and tried again.
func (o *Outbox) Run(ctx context.Context, tell func(error)) {
	pause := firstPause
	for {
		left, err := o.Deliver(ctx)
		if ctx.Err() != nil {
			return
		}
		var again <-chan time.Time
		if err != nil || left > 0 {
			tell(err)
			again = time.After(pause)
			pause = min(2*pause, lastPause)
		} else {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-o.wakeUnless(again != nil):
		}
	}
}

// wakeUnless is the bell that something new waits; while something older is not taken, nobody listens.
func (o *Outbox) wakeUnless(busy bool) <-chan struct{} {
	if busy {
		return nil
	}
	return o.wake
}
