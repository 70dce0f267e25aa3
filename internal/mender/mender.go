// Package mender speaks the device API of Mender's server, so that its client (3.x) needs nothing but another address.
//
// Stage 3, field, an adapter. What such a client is told comes from device.Offer, and what it says goes to device.Answer; only words are changed here. A client asks to be let in by a request that it signs; its
// name is what it says its identity is, and who it is says the key. One that a person let in by that key gets a token for a week, and without one nothing else is answered. Bytes are fetched by an address that
// is sealed for one client, one artifact and a day, because the client shows no token there. Bodies are bounded, addresses are made of what is configured, and what is answered with success is durable.
//
// A request to be let in has nothing fresh in it: whoever reads one, and the connection's TLS does not stop them, has a token by it. The protocol has no better.
package mender

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	format "github.com/hallmark-iot/hallmark/wire/mender"
)

// Clients knows whom to talk to; *legacy.Service is one.
type Clients interface {
	Enter(ctx context.Context, kind legacy.Kind, product, name string, key []byte) (token string, err error)
	Entered(ctx context.Context, kind legacy.Kind, token string) (legacy.Client, error)
	Admitted(ctx context.Context, kind legacy.Kind, product, name string) (legacy.Client, error)
	Ask(ctx context.Context, kind legacy.Kind, product, name string, key []byte) error
	Attributes(ctx context.Context, c legacy.Client, mode legacy.Mode, said map[string]string) (legacy.Client, error)
	KeepLog(ctx context.Context, c legacy.Client, number int32, messages []legacy.Message) error
}

// Offers says what there is to do; *device.Service is one.
type Offers interface {
	Offer(ctx context.Context, caller access.Caller, id string) (device.Offer, error)
	Offered(ctx context.Context, caller access.Caller, id string, number int32) (device.Offer, error)
	Answer(ctx context.Context, caller access.Caller, id string, in device.Answer) error
	Runs(ctx context.Context, caller access.Caller, id, version string) error
}

// Heads keeps what artifacts are called.
type Heads interface {
	// Head gives what is kept of an artifact; one without a name is none of Mender's. False: nothing is kept.
	Head(ctx context.Context, digest [32]byte) (format.Head, bool, error)
	KeepHead(ctx context.Context, digest [32]byte, h format.Head) error
	// Named gives the versions of the product's published releases that have an artifact of that name, at most two, as far as anything is kept of them.
	Named(ctx context.Context, product, name string) (versions []string, err error)
	// Headless gives artifacts of the product's published releases of which nothing is kept, at most limit.
	Headless(ctx context.Context, product string, limit int) ([][32]byte, error)
}

// Vault seals what only this server is to read again.
type Vault interface {
	Seal(label string, plain []byte) ([]byte, error)
	Open(label string, sealed []byte) ([]byte, error)
}

// Config is what the adapter works with; every field but Allow must be set.
type Config struct {
	Base    string // https://host[:port], as clients reach it
	Clients Clients
	Offers  Offers
	Heads   Heads
	Vault   Vault
	Allow   func(remote string) bool // whether a stranger at that address may be remembered; nil: always
	// Artifact opens a component that a published release of the device's product has.
	Artifact func(ctx context.Context, caller access.Caller, digest [32]byte) (io.ReadSeekCloser, error)
	Logger   *slog.Logger
	Now      func() time.Time
}

// Prefix is what all addresses of the protocol begin with.
const Prefix = "/api/devices/"

// Bounds of what clients send, bytes.
const (
	maxBody = 64 << 10
	maxLog  = 4 * legacy.MaxLog // its end is kept
)

type handler struct{ cfg Config }

// Handler serves what is under Prefix.
func Handler(cfg Config) http.Handler {
	h := &handler{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Prefix+"v1/authentication/auth_requests", h.open(h.enter))
	mux.HandleFunc("GET "+Prefix+"v1/deployments/download/{link}/{file}", h.open(h.download))
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, peer) error{
		"POST " + Prefix + "v2/deployments/device/deployments/next":       h.next,
		"POST " + Prefix + "v1/deployments/device/deployments/next":       h.next,
		"GET " + Prefix + "v1/deployments/device/deployments/next":        h.next,
		"PUT " + Prefix + "v1/deployments/device/deployments/{id}/status": h.status,
		"PUT " + Prefix + "v1/deployments/device/deployments/{id}/log":    h.log,
		"PUT " + Prefix + "v1/inventory/device/attributes":                h.inventory(legacy.Replace),
		"PATCH " + Prefix + "v1/inventory/device/attributes":              h.inventory(legacy.Merge),
	} {
		mux.HandleFunc(pattern, h.open(h.known(serve)))
	}
	return mux
}

// peer is a client that calls.
type peer struct {
	legacy.Client
	caller access.Caller
}

func peerOf(c legacy.Client) peer {
	p := peer{Client: c, caller: access.DeviceCaller(c.Device)}
	p.caller.Via = "mender"
	return p
}

// open writes what went wrong.
func (h *handler) open(serve func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			h.fail(w, r, err)
		}
	}
}

// known finds out who calls.
func (h *handler) known(serve func(http.ResponseWriter, *http.Request, peer) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		c, err := h.cfg.Clients.Entered(r.Context(), legacy.Mender, token)
		if err != nil {
			return err
		}
		return serve(w, r, peerOf(c))
	}
}

// fail maps faults to what the client understands: at 401 it asks to be let in again, at 409 (to a status) it leaves off, and at all else it tries again.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "internal error"
	if errors.Is(err, legacy.ErrStranger) {
		status, text = http.StatusUnauthorized, "not let in, or not by this key or token: somebody has to admit it (hallmark legacy admit --kind mender)"
	} else if f, ok := errors.AsType[*fault.Fault](err); ok {
		if status, text = f.Kind.Status(), f.Error(); f.Kind == fault.Exhausted {
			status = http.StatusTooManyRequests
		}
	} else if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		status, text = http.StatusRequestEntityTooLarge, fmt.Sprintf("body too large: at most %d bytes", large.Limit)
	} else if r.Context().Err() != nil {
		return // it went away
	}
	if status >= http.StatusInternalServerError {
		h.cfg.Logger.ErrorContext(r.Context(), "client of Mender's", "path", r.URL.Path, "error", err)
	} else if status != http.StatusUnauthorized {
		h.cfg.Logger.InfoContext(r.Context(), "client of Mender's refused", "path", r.URL.Path, "status", status, "error", err)
	}
	_ = send(w, status, map[string]string{"error": text})
}

func send(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // it went away: it will ask again
	return nil
}

func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
}

func malformed(what string, err error) error {
	return fault.Newf(fault.Invalid, "mender.malformed", what+": %w", err).With("send what Mender's device API has there")
}

// enter lets a client in that a person has let in, and remembers who else asks.
func (h *handler) enter(w http.ResponseWriter, r *http.Request) error {
	data, err := body(w, r)
	if err != nil {
		return err
	}
	a, err := decodeAuth(data)
	if err != nil {
		return malformed("request to be let in", err)
	}
	if err := a.verify(data, r.Header.Get("X-MEN-Signature")); err != nil {
		return fmt.Errorf("%w: %w", legacy.ErrStranger, err)
	}
	token, err := h.cfg.Clients.Enter(r.Context(), legacy.Mender, a.Product, a.name, a.digest)
	if errors.Is(err, legacy.ErrStranger) && (h.cfg.Allow == nil || h.cfg.Allow(r.RemoteAddr)) {
		if asked := h.cfg.Clients.Ask(r.Context(), legacy.Mender, a.Product, a.name, a.digest); asked != nil {
			return asked
		}
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jwt") // as Mender's own has it; it is none, and clients do not look into it
	w.Header().Set("Content-Length", strconv.Itoa(len(token)))
	_, _ = io.WriteString(w, token)
	return nil
}

// idPrefix makes a number as long as the IDs that clients are used to (UUIDs): the client looks for what it wrote of a deployment by a part of a file's path, and a short number is in many.
const idPrefix = "00000000-0000-4000-8000-"

func idOf(number int32) string { return fmt.Sprintf("%s%012d", idPrefix, number) }

// numbered reads the deployment of an address.
func numbered(r *http.Request) (int32, error) {
	digits, _ := strings.CutPrefix(r.PathValue("id"), idPrefix)
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || idOf(int32(n)) != r.PathValue("id") {
		return 0, fault.New(fault.NotFound, "offer.unknown", "no such deployment", "ask for the next deployment")
	}
	return int32(n), nil
}

// status takes what became of a deployment. 409 has the client leave off: nobody wants it any more, or it has ended otherwise.
func (h *handler) status(w http.ResponseWriter, r *http.Request, p peer) error {
	n, err := numbered(r)
	if err != nil {
		return err
	}
	data, err := body(w, r)
	if err != nil {
		return err
	}
	s, err := decodeStatus(data)
	if err != nil {
		return malformed("status", err)
	}
	said := s.said()
	o, err := h.cfg.Offers.Offered(r.Context(), p.caller, p.Device, n)
	switch ended := fault.KindOf(err) == fault.Conflict; {
	case err != nil && !ended:
		return err
	case said == device.Working && (ended || o.Cancel):
		return fault.New(fault.Conflict, "offer.ended", fmt.Sprintf("deployment %d is aborted", n), "leave off")
	case said == device.Failing && !ended && o.Cancel:
		said = device.GaveUp // as it was told
	}
	if err := h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: n, Said: said, Text: s.text()}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// log keeps what the client wrote of a deployment that failed.
func (h *handler) log(w http.ResponseWriter, r *http.Request, p peer) error {
	n, err := numbered(r)
	if err != nil {
		return err
	}
	messages, err := decodeLog(http.MaxBytesReader(w, r.Body, maxLog))
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return large
	}
	if err != nil {
		return malformed("log", err)
	}
	err = h.cfg.Clients.KeepLog(r.Context(), p.Client, n, messages)
	if errors.Is(err, legacy.ErrNotFound) {
		return fault.New(fault.NotFound, "offer.unknown", "no such deployment", "ask for the next deployment")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// inventory takes what a client says of itself.
func (h *handler) inventory(mode legacy.Mode) func(http.ResponseWriter, *http.Request, peer) error {
	return func(w http.ResponseWriter, r *http.Request, p peer) error {
		data, err := body(w, r)
		if err != nil {
			return err
		}
		said, err := decodeInventory(data)
		if err != nil {
			return malformed("inventory", err)
		}
		if _, err := h.cfg.Clients.Attributes(r.Context(), p.Client, mode, said); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
}
