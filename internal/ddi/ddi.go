// Package ddi speaks hawkBit's Direct Device Integration API, so that its clients (SWUpdate, rauc-hawkbit-updater and others) need nothing but another address.
//
// Stage 3, field, an adapter. What such a client is told comes from device.Offer, and what it says goes to device.Answer; only words are changed here. A client is
// who its token, its gateway's token or the key of its TLS connection says; everybody else is told 401 and remembered, so that a person can let them in. Bodies are
// bounded before they are read, addresses are made of what is configured and never of what a client sent, and what is answered with success is durable. A poll
// that changes nothing, and a download, write nothing.
package ddi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/wire"
)

// Clients knows whom to talk to; *legacy.Service is one.
type Clients interface {
	Identify(ctx context.Context, kind legacy.Kind, product, name string, p legacy.Proof) (legacy.Client, error)
	Ask(ctx context.Context, kind legacy.Kind, product, name string, key []byte) error
	Attributes(ctx context.Context, c legacy.Client, mode legacy.Mode, said map[string]string) (legacy.Client, error)
	AgreesToAll(ctx context.Context, c legacy.Client, auto bool) error
}

// Offers says what there is to do; *device.Service is one.
type Offers interface {
	Offer(ctx context.Context, caller access.Caller, id string) (device.Offer, error)
	Offered(ctx context.Context, caller access.Caller, id string, number int32) (device.Offer, error)
	Answer(ctx context.Context, caller access.Caller, id string, in device.Answer) error
	Runs(ctx context.Context, caller access.Caller, id, version string) error
	Repeat(ctx context.Context, id string, shows [32]byte, answer func(context.Context) (body []byte, until time.Time, err error)) ([]byte, error)
}

// Sums keeps what clients call artifacts by.
type Sums interface {
	Sums(ctx context.Context, digest [32]byte) (legacy.Sums, bool, error)
	KeepSums(ctx context.Context, digest [32]byte, s legacy.Sums) error
}

// Config is what the adapter works with; every field but Allow must be set.
type Config struct {
	Base    string // https://host[:port], as clients reach it
	Poll    time.Duration
	Soon    time.Duration // until a client comes back that has something to do
	Clients Clients
	Offers  Offers
	Sums    Sums
	Allow   func(remote string) bool // whether a stranger at that address may be remembered; nil: always
	// Artifact opens a component that a published release of the device's product has.
	Artifact func(ctx context.Context, caller access.Caller, digest [32]byte) (io.ReadSeekCloser, error)
	Logger   *slog.Logger
	Now      func() time.Time
}

// maxBody bounds what clients send, bytes.
const maxBody = 64 << 10

type handler struct {
	cfg     Config
	summing singleflight.Group
}

// Handler serves /{tenant}/controller/v1/{id}; the tenant is a product's ID.
func Handler(cfg Config) http.Handler {
	h := &handler{cfg: cfg}
	mux := http.NewServeMux()
	const base = "/{tenant}/controller/v1/{cid}"
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, peer) error{
		"PUT " + base + "/configData":                            h.configData,
		"GET " + base + "/deploymentBase/{number}":               h.deployment,
		"POST " + base + "/deploymentBase/{number}/feedback":     h.feedback,
		"GET " + base + "/cancelAction/{number}":                 h.cancel,
		"POST " + base + "/cancelAction/{number}/feedback":       h.cancelFeedback,
		"GET " + base + "/confirmationBase":                      h.confirmation,
		"GET " + base + "/confirmationBase/{number}":             h.confirm,
		"POST " + base + "/confirmationBase/{number}/feedback":   h.confirmed,
		"POST " + base + "/confirmationBase/activateAutoConfirm": h.automatic(true), "POST " + base + "/confirmationBase/deactivateAutoConfirm": h.automatic(false),
		"GET " + base + "/softwaremodules/{digest}/artifacts/{file}": h.download,
	} {
		mux.HandleFunc(pattern, h.known(serve))
	}
	mux.HandleFunc("GET "+base, h.poll)
	return mux
}

// peer is a client that calls.
type peer struct {
	legacy.Client
	caller access.Caller
	body   []byte
}

// known finds out who calls, and reads what it sends.
func (h *handler) known(serve func(http.ResponseWriter, *http.Request, peer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := h.peerOf(r.Context(), r, proofOf(r))
		if err != nil {
			h.fail(w, r, err)
			return
		}
		if p.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				http.Error(w, fmt.Sprintf("body too large: at most %d bytes", maxBody), http.StatusRequestEntityTooLarge)
			}
			return // otherwise it went away
		}
		if err := serve(w, r, p); err != nil {
			h.fail(w, r, err)
		}
	}
}

func (h *handler) peerOf(ctx context.Context, r *http.Request, shows legacy.Proof) (peer, error) {
	c, err := h.cfg.Clients.Identify(ctx, legacy.DDI, r.PathValue("tenant"), r.PathValue("cid"), shows)
	p := peer{Client: c, caller: access.DeviceCaller(c.Device)}
	p.caller.Via = "ddi"
	return p, err
}

func proofOf(r *http.Request) (p legacy.Proof) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch kind {
	case "TargetToken":
		p.Token = token
	case "GatewayToken":
		p.Gateway = token
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
		p.Key = sum[:]
	}
	return p
}

// stranger tells somebody who is not let in so. The answer is the same whether it is known or not.
func (h *handler) stranger(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Allow == nil || h.cfg.Allow(r.RemoteAddr) {
		if err := h.cfg.Clients.Ask(r.Context(), legacy.DDI, r.PathValue("tenant"), r.PathValue("cid"), proofOf(r).Key); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	http.Error(w, "not let in, or not by this token or certificate: somebody has to admit it (hallmark legacy admit)", http.StatusUnauthorized)
}

// fail maps faults to what the clients understand: both try again at 429 and give up at the rest.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, legacy.ErrStranger) {
		h.stranger(w, r)
		return
	}
	status := http.StatusInternalServerError
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		switch f.Kind {
		case fault.Invalid:
			status = http.StatusBadRequest
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Conflict:
			status = http.StatusGone
		case fault.Denied:
			status = http.StatusForbidden
		case fault.Exhausted, fault.Unavailable:
			status = http.StatusTooManyRequests
			w.Header().Set("Retry-After", "1")
		case fault.Internal:
		}
	}
	if status == http.StatusInternalServerError {
		h.cfg.Logger.ErrorContext(r.Context(), "client of another update system", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", status)
		return
	}
	h.cfg.Logger.InfoContext(r.Context(), "client of another update system refused", "path", r.URL.Path, "status", status, "error", err)
	http.Error(w, err.Error(), status)
}

func send(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		write(w, data)
	}
	return err
}

func write(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/hal+json;charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) //nolint:gosec // JSON, as its header says; an error: it went away, and will ask again
}

// at is the address of something of a client.
func (h *handler) at(p peer, path ...string) link {
	var u strings.Builder
	u.WriteString(h.cfg.Base)
	for _, s := range append([]string{p.Product, "controller", "v1", p.Name}, path...) {
		u.WriteString("/" + url.PathEscape(s))
	}
	return link{u.String()}
}

type link struct {
	Href string `json:"href"`
}

// sleep writes a time between polls as hawkBit does, HH:MM:SS.
func sleep(d time.Duration) string {
	s := min(max(int(d/time.Second), 1), 24*3600-1)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// staleAttributes is how old what a client says of itself may be.
const staleAttributes = 24 * time.Hour

// poll says what there is to do. Who has nothing is told so again from memory.
func (h *handler) poll(w http.ResponseWriter, r *http.Request) {
	shows := proofOf(r)
	id := legacy.DeviceOf(legacy.DDI, r.PathValue("tenant"), r.PathValue("cid"))
	data, err := h.cfg.Offers.Repeat(r.Context(), id, shows.Sum(), func(ctx context.Context) ([]byte, time.Time, error) {
		p, err := h.peerOf(ctx, r, shows)
		if err != nil {
			return nil, time.Time{}, err
		}
		return h.base(ctx, p)
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	write(w, data)
}

// base is what a client is told that polls: at most one thing; and until when that is nothing.
func (h *handler) base(ctx context.Context, p peer) (data []byte, until time.Time, err error) {
	o, err := h.cfg.Offers.Offer(ctx, p.caller, p.Device)
	if err != nil {
		return nil, until, err
	}
	links := map[string]link{}
	number := strconv.Itoa(int(o.Number))
	switch {
	case o.Number == 0 || o.Shut: // its link comes when its hours do: SWUpdate takes what it is told to skip for done
	case o.Cancel:
		links["cancelAction"] = h.at(p, "cancelAction", number)
	case p.asks(o):
		links["confirmationBase"] = h.at(p, "confirmationBase", number)
	default:
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %x", o.Number, o.Digest))
		links["deploymentBase"] = link{h.at(p, "deploymentBase", number).Href + "?c=" + hex.EncodeToString(sum[:4])}
	}
	age := h.cfg.Now().Sub(p.AttributesAt)
	if age > staleAttributes || o.Number == 0 && o.Unsure && age >= h.cfg.Poll { // linked for ever, a client would send them for ever, and do nothing else
		links["configData"] = h.at(p, "configData")
	}
	every := h.cfg.Poll
	if _, asks := links["confirmationBase"]; len(links) > 0 && !asks { // a person may take days
		every = h.cfg.Soon
	}
	if len(links) == 0 && !o.Until.IsZero() {
		if until = p.AttributesAt.Add(staleAttributes); o.Until.Before(until) {
			until = o.Until
		}
	}
	type polling struct {
		Sleep string `json:"sleep"`
	}
	data, err = json.Marshal(struct {
		Config struct {
			Polling polling `json:"polling"`
		} `json:"config"`
		Links map[string]link `json:"_links"`
	}{struct {
		Polling polling `json:"polling"`
	}{polling{sleep(every)}}, links})
	return data, until, err
}

// asks reports whether somebody there has still to agree.
func (p peer) asks(o device.Offer) bool { return p.mayDecline(o) && !p.Auto && !o.Note.Agreed }

// mayDecline reports whether anybody there is asked at all: for each update, or for this one because its rollout wants it.
func (p peer) mayDecline(o device.Offer) bool { return p.Consent || o.Manner == wire.Consent }

// configData takes what a client says of itself.
func (h *handler) configData(w http.ResponseWriter, r *http.Request, p peer) error {
	said, err := decodeAttributes(p.body)
	if err != nil {
		return fault.Newf(fault.Invalid, "ddi.malformed", "configData of %s: %w", p.Name, err).With("send configData of DDI")
	}
	c, err := h.cfg.Clients.Attributes(r.Context(), p.Client, said.Mode, said.Data)
	if err != nil {
		return err
	}
	if version, ok := c.Attributes[legacy.VersionAttribute]; ok {
		if err := h.cfg.Offers.Runs(r.Context(), p.caller, p.Device, version); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// numbered reads the action of an address.
func numbered(r *http.Request) (int32, error) {
	n, err := strconv.ParseUint(r.PathValue("number"), 10, 31)
	if err != nil || n == 0 {
		return 0, fault.New(fault.NotFound, "offer.unknown", "no such action", "poll again, and take what is linked")
	}
	return int32(n), nil
}

func (h *handler) offered(r *http.Request, p peer) (device.Offer, error) {
	n, err := numbered(r)
	if err != nil {
		return device.Offer{}, err
	}
	return h.cfg.Offers.Offered(r.Context(), p.caller, p.Device, n)
}

func notNow(what string) error {
	return fault.New(fault.NotFound, "offer.unknown", "there is nothing to "+what+" now", "poll")
}

// deployment says what is to be installed.
func (h *handler) deployment(w http.ResponseWriter, r *http.Request, p peer) error {
	o, err := h.offered(r, p)
	if err != nil {
		return err
	}
	if o.Cancel || o.Shut || p.asks(o) { // also to who kept the link
		return notNow("install")
	}
	d, err := h.deploymentOf(r.Context(), p, o)
	if err != nil {
		return err
	}
	out := map[string]any{"id": strconv.Itoa(int(o.Number)), "deployment": d}
	if n, err := strconv.Atoi(r.URL.Query().Get("actionHistory")); err == nil && n != 0 {
		status := "RUNNING"
		messages := []string{}
		if o.Note.Text != "" {
			messages = append(messages, o.Note.Text)
		}
		out["actionHistory"] = map[string]any{"status": status, "messages": messages}
	}
	return send(w, out)
}

// feedback takes what became of an action. What is taken is answered 200 and nothing else, because clients hold anything else for a failure.
func (h *handler) feedback(w http.ResponseWriter, r *http.Request, p peer) error {
	n, err := numbered(r)
	if err != nil {
		return err
	}
	f, err := decodeFeedback(p.body, n)
	if err != nil {
		return fault.Newf(fault.Invalid, "ddi.malformed", "feedback of %s: %w", p.Name, err).With("send feedback of DDI")
	}
	if err := h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: n, Said: f.said(), Text: f.text()}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// cancel says what is to be left off.
func (h *handler) cancel(w http.ResponseWriter, r *http.Request, p peer) error {
	o, err := h.offered(r, p)
	if err != nil {
		return err
	}
	if !o.Cancel {
		return notNow("cancel")
	}
	id := strconv.Itoa(int(o.Number))
	return send(w, map[string]any{"id": id, "cancelAction": map[string]string{"stopId": id}})
}

// cancelFeedback takes whether a client left off, or is too far for that.
func (h *handler) cancelFeedback(w http.ResponseWriter, r *http.Request, p peer) error {
	n, err := numbered(r)
	if err != nil {
		return err
	}
	f, err := decodeFeedback(p.body, n)
	if err != nil {
		return fault.Newf(fault.Invalid, "ddi.malformed", "feedback of %s: %w", p.Name, err).With("send feedback of DDI")
	}
	said, ok := f.saidOfCancel()
	if !ok {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	o, err := h.cfg.Offers.Offered(r.Context(), p.caller, p.Device, n)
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	if err == nil && !o.Cancel {
		return notNow("cancel")
	}
	if err := h.cfg.Offers.Answer(r.Context(), p.caller, p.Device, device.Answer{Number: n, Said: said, Text: f.text()}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
