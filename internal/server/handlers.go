package server

import (
	"context"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/console"
	"github.com/hallmark-iot/hallmark/internal/deviceapi"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/passkey"
	"github.com/hallmark-iot/hallmark/internal/throttle"
	"github.com/hallmark-iot/hallmark/wire"
)

type logAdapter = stdlog.Logger

// apiHandler serves console, API and the logs' public files.
func (i *Instance) apiHandler(address net.Addr) (http.Handler, error) {
	mux := http.NewServeMux()
	i.events = httpapi.NewEvents(httpapi.EventsConfig{Ledger: i.logs.reader, Places: i.db.SubjectPlaces, Log: i.log})
	i.db.OnAppend(i.events.Wake)
	api := receipts(httpapi.Handler(httpapi.Services{
		Guard: i.guard, Credentials: i.credentials, Issuer: i.issuer(), Audit: access.NewAuditTrail(i.db, i.guard), Proposals: i.proposals, Ledger: i.logs.reader,
		Custody: i.custody, Receipts: i.receipts, Fleet: i.fleet, Telemetry: i.telemetry, Product: i.product,
		Factory: i.factory, Device: i.device, Release: i.release, Supply: i.supply, Parts: i.parts, Rollout: i.rollout, Retire: i.retire, Monitor: i.monitor,
		Remedy: i.remedy, PKI: i.pki, Ceremony: i.openCeremonies(), Onboard: i.onboard, Keys: i.ring, Rekey: i.rekey, Foreign: i.foreign, Legacy: i.legacy, Chips: chips.New(i.db.Chips(), i.guard), Comply: i.comply, Genuine: i.genuine, Curb: i.asks.Allow, Owner: i.owner, Once: i.db, Events: i.events, Firmware: firmware(i.db.Devices(), i.release),
	}, i.credentials, i.log))
	doors := throttle.New(time.Now)
	mux.Handle("/api/v1/", doors.Watch(api, asked))
	mux.Handle("/openapi.json", api)
	mux.Handle("/log/", http.StripPrefix("/log/", logFiles(i.logs.files)))
	mux.Handle("GET "+est.Prefix+"cacerts", i.est())
	mux.Handle("GET /healthz", &i.pulse)
	mux.Handle(deviceapi.TrustPrefix, i.trustHistory())
	mux.Handle("/crl/", i.public())
	mux.Handle("/ocsp", i.public())
	mux.Handle("/ocsp/", i.public())
	shown := console.Handler(i.consoleConfig())
	mux.Handle("/", shown)
	mux.Handle("POST /login", doors.Watch(shown, triedToSignIn))
	keys, err := i.passkeys(address)
	if err != nil {
		return nil, err
	}
	mux.Handle("/auth/", doors.Watch(receipts(keys), triedToSignIn))
	organisation, err := i.organisation(address)
	if err != nil {
		return nil, err
	}
	if organisation != nil {
		mux.Handle("/auth/oidc/", doors.Watch(receipts(organisation), triedToSignIn))
	}
	return patient(mux), nil
}

// patience is how long a body may take that no handler has other plans for: a stranger's connection is held no longer.
const patience = time.Minute

func patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) // a connection that has none has gone
		}
		next.ServeHTTP(w, r)
	})
}

// asked is what an answer of the API says of who asked. Who says nothing of who they are has guessed nothing.
func asked(r *http.Request, status int) throttle.Outcome {
	says := r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	switch {
	case status == http.StatusUnauthorized && says:
		return throttle.Failed
	case status < http.StatusBadRequest:
		return throttle.Proven
	}
	return throttle.Neither
}

// triedToSignIn is what an answer of a way to sign in says. To begin one counts as a failure, because it is held in memory until it
// is ended.
func triedToSignIn(r *http.Request, status int) throttle.Outcome {
	if status >= http.StatusBadRequest && status < http.StatusInternalServerError || strings.HasSuffix(r.URL.Path, "/begin") {
		return throttle.Failed
	}
	return throttle.Neither
}

// passkeys lets people sign in with passkeys, at the first DNS name that they reach the console by, and sign out.
func (i *Instance) passkeys(address net.Addr) (http.Handler, error) {
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return nil, err
	}
	c := passkey.Config{Credentials: i.credentials, Secure: !i.cfg.loopback(), Log: i.log}
	for _, name := range i.cfg.Names {
		if net.ParseIP(name) != nil {
			continue
		}
		if c.Domain == "" {
			c.Domain = name
		}
		origin := i.cfg.scheme() + "://" + name
		c.Origins = append(c.Origins, origin+":"+port)
		if port == "443" || port == "80" {
			c.Origins = append(c.Origins, origin)
		}
	}
	return passkey.New(c)
}

// deviceHandler serves devices.
func (i *Instance) deviceHandler() http.Handler {
	return receipts(deviceapi.Handler(deviceapi.Config{
		Identify:  i.identify,
		Epoch:     func() uint64 { return i.auth.trust.Version() + i.pki.Revocations().Version() }, // both only rise
		Checkin:   i.device.Call,
		Attest:    i.appraise,
		AttestKey: i.attest.ReplaceKey,
		Trust:     i.device.KeepRecord,
		Log:       i.deviceLog,
		Telemetry: i.telemetry.Ingest,
		Receipt:   i.retire.Receipt,
		Artifact: func(ctx context.Context, caller access.Caller, _ string, digest [32]byte) (io.ReadSeekCloser, error) {
			return i.artifactFor(ctx, caller, digest)
		},
		EST: i.est(), Vouchers: i.vouchers(), History: i.trustHistory(),
		Logger: i.log,
	}))
}

// deviceLog takes a batch of a device's log, and shows the anchor as the device's trust bundle believes it.
func (i *Instance) deviceLog(ctx context.Context, caller access.Caller, id string, batch []byte) (wire.LogReply, error) {
	r, err := i.devicelog.Ingest(ctx, caller, id, batch)
	if err != nil || r.Anchor == nil {
		return r, err
	}
	r.Anchor, err = i.device.AnchorFor(ctx, id, *r.Anchor)
	return r, err
}

// trustHistory is the devices' way back. It is on the devices' listener, because that is whom they know, and under the API's, for caches.
func (i *Instance) trustHistory() http.Handler {
	return deviceapi.Trust(deviceapi.TrustConfig{Newest: i.device.NewestBundle, Step: i.device.BundleStep, Home: i.homeOf, Logger: i.log})
}

// homeOf says where a device is at home, for anybody: what it left here of its own, and where it was handed to from here.
func (i *Instance) homeOf(ctx context.Context, product, id string) (h wire.HomeHint, err error) {
	if h.Record, err = i.device.Record(ctx, product, id); err == nil {
		h.Server, err = i.owner.HandedTo(ctx, product, id)
	}
	return h, err
}

// est is RFC 7030. On the devices' listener it enrols; /cacerts is for everybody, so the other listener has it too.
func (i *Instance) est() http.Handler {
	return est.New(est.Config{Onboard: i.foreign.Before(i.onboard), Identity: i.foreign.Identity, CACerts: i.pki.CACerts, Log: i.log})
}
