// Package legacytest is, in stage 3, field, the world of a client of another update system, for tests of the adapters: a whole instance that such clients may call, the people around it, and the line between.
package legacytest

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// World is a whole instance that clients of other update systems may call, and the people around it.
type World struct {
	T       testing.TB
	Base    string                    // of the listener for such clients
	Roots   string                    // file of the CA of its certificate
	People  map[string]*client.Client // by name: rita proposes, alice and bob approve, olga operates, frank admits
	layout  server.Layout
	offline *soft.Store
}

// Tenant is the product.
const Tenant = "pump"

// Must ends the test at an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// New makes and runs one, whose clients speak TLS.
func New(t testing.TB) *World { return Behind(t, nil) }

// Behind makes one whose clients speak to a proxy on the machine, which a test listens in to.
func Behind(t testing.TB, line *Line) *World {
	t.Helper()
	plain := line != nil
	w := &World{T: t, layout: server.Layout{Dir: filepath.Join(t.TempDir(), "inst")}, People: map[string]*client.Client{}}
	online, err := soft.Create(w.layout.Keys(), "pass", 1000)
	w.Must(err)
	w.offline, err = soft.Create(w.layout.Offline(), "pass", 1000)
	w.Must(err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	w.Must(err)
	address := l.Addr().String()
	w.Must(l.Close())
	cfg := server.DefaultConfig()
	cfg.API, cfg.Devices, cfg.PollMS, cfg.Legacy = "127.0.0.1:0", "127.0.0.1:0", 1000, &server.Legacy{Listen: address, Plain: plain}
	if plain {
		line.to, cfg.Legacy.URL = "http://"+address, line.open(t)
	}
	_, err = server.Init(t.Context(), w.layout, server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2, Online: online, Offline: w.offline, Now: time.Now().UTC(),
		Product: product.Product{ID: Tenant, OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0)},
	})
	w.Must(err)
	api := w.serve()
	_, port, _ := net.SplitHostPort(address)
	w.Base = "https://localhost:" + port
	if plain {
		w.Base = cfg.Legacy.URL
	}
	root, err := os.ReadFile(w.layout.Cert("oem-root"))
	w.Must(err)
	w.Roots = filepath.Join(t.TempDir(), "root.pem")
	w.Must(os.WriteFile(w.Roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600))
	token, err := os.ReadFile(w.layout.AdminToken())
	w.Must(err)
	admin := client.New(api, strings.TrimSpace(string(token)), nil)
	for name, roles := range map[string][]access.Role{
		"rita": {access.ReleaseManager}, "alice": {access.ReleaseManager}, "bob": {access.ReleaseManager}, "olga": {access.Operator, access.Viewer}, "frank": {access.Factory, access.Viewer},
	} {
		secret, err := admin.Token(t.Context(), httpapi.TokenSpec{Caller: "person:" + name, Kind: access.Person, Roles: roles, Use: signin.UseToken, Seconds: 86400})
		w.Must(err)
		w.People[name] = client.New(api, secret, nil)
	}
	return w
}

func (w *World) serve() (api string) {
	w.T.Helper()
	keys, err := soft.Open(w.layout.Keys(), "pass")
	w.Must(err)
	inst, err := server.Open(w.T.Context(), w.layout, keys, slog.New(slog.NewTextHandler(w.T.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	w.Must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- inst.Run(ctx, func(a, _ string) { api = a; close(ready) }) }()
	w.T.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, inst.Close()); err != nil {
			w.T.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		w.T.Fatal(err)
	}
	return api
}

// Admit lets a client in, and gives its device and token.
func (w *World) Admit(a legacy.Admission) (id, token string) {
	w.T.Helper()
	if a.Kind == "" {
		a.Kind = legacy.DDI
	}
	l, err := w.People["frank"].AdmitLegacyClient(w.T.Context(), Tenant, a)
	w.Must(err)
	return l.Client.Device, l.Token
}

// Publish takes a release through its whole approval. Its component is called so.
func (w *World) Publish(version, component string, data []byte, back ...string) (digest string) {
	w.T.Helper()
	return w.PublishAs("", version, component, data, back...)
}

// PublishAs publishes one whose component is written in a format.
func (w *World) PublishAs(format wire.Format, version, component string, data []byte, back ...string) (digest string) {
	w.T.Helper()
	ctx := w.T.Context()
	artifact, err := w.People["rita"].Upload(ctx, Tenant, component, false, bytes.NewReader(data))
	w.Must(err)
	spec := release.Spec{ID: "pump-" + version, Product: Tenant, Version: version, Counter: 1, Components: []release.Component{
		{Name: component, Kind: wire.KindData, Version: version, Artifact: artifact, Format: format, Health: wire.HealthNone},
	}}
	for _, b := range back {
		sum, err := hex.DecodeString(b)
		w.Must(err)
		spec.RollbackTo = append(spec.RollbackTo, sum)
	}
	r, err := w.People["rita"].Propose(ctx, spec)
	w.Must(err)
	for _, name := range []string{"alice", "bob"} {
		key, err := w.offline.Signer("approver-" + name)
		w.Must(err)
		env, err := wire.NewThreshold(wire.TypeRelease, r.Payload, key)
		w.Must(err)
		_, err = w.People[name].Approve(ctx, r.Digest, env)
		w.Must(err)
	}
	_, err = w.People["rita"].Publish(ctx, r.Digest)
	w.Must(err)
	return r.Digest
}

// Roll starts a rollout of a release to devices that only say what they run.
func (w *World) Roll(id, digest string, devices ...string) {
	w.T.Helper()
	w.RollAs(rollout.Spec{ID: id}, digest, devices...)
}

// RollAs is Roll of a rollout that says more.
func (w *World) RollAs(spec rollout.Spec, digest string, devices ...string) {
	w.T.Helper()
	var err error
	spec.Release, err = hex.DecodeString(digest)
	w.Must(err)
	spec.Product, spec.Selection, spec.Assurance, spec.Waves = Tenant, rollout.Selection{IDs: devices}, device.Says, []rollout.Wave{{Deadline: 3600}}
	_, err = w.People["olga"].CreateRollout(w.T.Context(), spec)
	w.Must(err)
	_, err = w.People["olga"].StartRollout(w.T.Context(), spec.ID)
	w.Must(err)
}

// Until waits for something to be so. Whoever waits in vain is ended by the test's own time.
func (w *World) Until(what string, so func() (bool, string)) {
	w.T.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(3 * time.Minute)
	defer patience.Stop()
	for {
		ok, saw := so()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-patience.C:
			w.T.Fatalf("%s: not so after three minutes: %s", what, saw)
		}
	}
}

// Device gives what people are shown of a device.
func (w *World) Device(id string) httpapi.DeviceDetail {
	w.T.Helper()
	d, err := w.People["olga"].Device(w.T.Context(), id)
	w.Must(err)
	return d
}

// Runs waits until a device says that it runs a version.
func (w *World) Runs(id, version string) {
	w.T.Helper()
	w.Until("device runs "+version, func() (bool, string) {
		d := w.Device(id)
		return d.Device.Version == version, "it says " + d.Device.Version
	})
}

// Rolled waits until a rollout is in a phase.
func (w *World) Rolled(id string, want rollout.Phase) httpapi.RolloutStatus {
	w.T.Helper()
	var r httpapi.RolloutStatus
	w.Until("rollout is "+string(want), func() (bool, string) {
		var err error
		r, err = w.People["olga"].Rollout(w.T.Context(), id)
		w.Must(err)
		return r.Rollout.Phase == want, string(r.Rollout.Phase) + " " + r.Rollout.Reason
	})
	return r
}

// Call does one request as a client.
func (w *World) Call(method, path, auth, body string, header ...string) (int, []byte, http.Header) {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), method, w.Base+path, strings.NewReader(body))
	w.Must(err)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	w.Must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	w.Must(err)
	return resp.StatusCode, data, resp.Header
}
