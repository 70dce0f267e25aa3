package ddi_test

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

// world is a whole instance that clients of other update systems may call, and the people around it.
type world struct {
	t       *testing.T
	layout  server.Layout
	base    string // of the listener for such clients
	roots   string // file of the CA of its certificate
	people  map[string]*client.Client
	offline *soft.Store
}

const tenant = "pump"

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// newWorld makes and runs one, whose clients speak TLS.
func newWorld(t *testing.T) *world { return newWorldBehind(t, nil) }

// newWorldBehind makes one whose clients speak to a proxy on the machine, which a test listens in to.
func newWorldBehind(t *testing.T, line *line) *world {
	t.Helper()
	plain := line != nil
	w := &world{t: t, layout: server.Layout{Dir: filepath.Join(t.TempDir(), "inst")}, people: map[string]*client.Client{}}
	online, err := soft.Create(w.layout.Keys(), "pass", 1000)
	w.must(err)
	w.offline, err = soft.Create(w.layout.Offline(), "pass", 1000)
	w.must(err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	address := l.Addr().String()
	w.must(l.Close())
	cfg := server.DefaultConfig()
	cfg.API, cfg.Devices, cfg.PollMS, cfg.Legacy = "127.0.0.1:0", "127.0.0.1:0", 1000, &server.Legacy{Listen: address, Plain: plain}
	if plain {
		line.to, cfg.Legacy.URL = "http://"+address, line.open(t)
	}
	_, err = server.Init(t.Context(), w.layout, server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2, Online: online, Offline: w.offline, Now: time.Now().UTC(),
		Product: product.Product{ID: tenant, OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0)},
	})
	w.must(err)
	api := w.serve()
	_, port, _ := net.SplitHostPort(address)
	w.base = "https://localhost:" + port
	if plain {
		w.base = cfg.Legacy.URL
	}
	root, err := os.ReadFile(w.layout.Cert("oem-root"))
	w.must(err)
	w.roots = filepath.Join(t.TempDir(), "root.pem")
	w.must(os.WriteFile(w.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600))
	token, err := os.ReadFile(w.layout.AdminToken())
	w.must(err)
	admin := client.New(api, strings.TrimSpace(string(token)), nil)
	for name, roles := range map[string][]access.Role{
		"rita": {access.ReleaseManager}, "alice": {access.ReleaseManager}, "bob": {access.ReleaseManager}, "olga": {access.Operator, access.Viewer}, "frank": {access.Factory, access.Viewer},
	} {
		secret, err := admin.Token(t.Context(), httpapi.TokenSpec{Caller: "person:" + name, Kind: access.Person, Roles: roles, Use: signin.UseToken, Seconds: 86400})
		w.must(err)
		w.people[name] = client.New(api, secret, nil)
	}
	return w
}

func (w *world) serve() (api string) {
	w.t.Helper()
	keys, err := soft.Open(w.layout.Keys(), "pass")
	w.must(err)
	inst, err := server.Open(w.t.Context(), w.layout, keys, slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- inst.Run(ctx, func(a, _ string) { api = a; close(ready) }) }()
	w.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, inst.Close()); err != nil {
			w.t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		w.t.Fatal(err)
	}
	return api
}

// admit lets a client in, and gives its device and token.
func (w *world) admit(a legacy.Admission) (id, token string) {
	w.t.Helper()
	a.Kind = legacy.DDI
	l, err := w.people["frank"].AdmitLegacyClient(w.t.Context(), tenant, a)
	w.must(err)
	return l.Client.Device, l.Token
}

// publish takes a release through its whole approval. Its component is called so.
func (w *world) publish(version, component string, data []byte, back ...string) (digest string) {
	w.t.Helper()
	ctx := w.t.Context()
	artifact, err := w.people["rita"].Upload(ctx, tenant, component, false, bytes.NewReader(data))
	w.must(err)
	spec := release.Spec{ID: "pump-" + version, Product: tenant, Version: version, Counter: 1, Components: []release.Component{
		{Name: component, Kind: wire.KindData, Version: version, Artifact: artifact, Health: wire.HealthNone},
	}}
	for _, b := range back {
		sum, err := hex.DecodeString(b)
		w.must(err)
		spec.RollbackTo = append(spec.RollbackTo, sum)
	}
	r, err := w.people["rita"].Propose(ctx, spec)
	w.must(err)
	for _, name := range []string{"alice", "bob"} {
		key, err := w.offline.Signer("approver-" + name)
		w.must(err)
		env, err := wire.NewThreshold(wire.TypeRelease, r.Payload, key)
		w.must(err)
		_, err = w.people[name].Approve(ctx, r.Digest, env)
		w.must(err)
	}
	_, err = w.people["rita"].Publish(ctx, r.Digest)
	w.must(err)
	return r.Digest
}

// roll starts a rollout of a release to devices that only say what they run.
func (w *world) roll(id, digest string, devices ...string) {
	w.t.Helper()
	sum, err := hex.DecodeString(digest)
	w.must(err)
	_, err = w.people["olga"].CreateRollout(w.t.Context(), rollout.Spec{
		ID: id, Product: tenant, Release: sum, Selection: rollout.Selection{IDs: devices}, Assurance: device.Says, Waves: []rollout.Wave{{Deadline: 3600}},
	})
	w.must(err)
	_, err = w.people["olga"].StartRollout(w.t.Context(), id)
	w.must(err)
}

// until waits for something to be so. Whoever waits in vain is ended by the test's own time.
func (w *world) until(what string, so func() (bool, string)) {
	w.t.Helper()
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
			w.t.Fatalf("%s: not so after three minutes: %s", what, saw)
		}
	}
}

func (w *world) device(id string) httpapi.DeviceDetail {
	w.t.Helper()
	d, err := w.people["olga"].Device(w.t.Context(), id)
	w.must(err)
	return d
}

// runs waits until a device says that it runs a version.
func (w *world) runs(id, version string) {
	w.t.Helper()
	w.until("device runs "+version, func() (bool, string) {
		d := w.device(id)
		return d.Device.Version == version, "it says " + d.Device.Version
	})
}

// rolled waits until a rollout is in a phase.
func (w *world) rolled(id string, want rollout.Phase) httpapi.RolloutStatus {
	w.t.Helper()
	var r httpapi.RolloutStatus
	w.until("rollout is "+string(want), func() (bool, string) {
		var err error
		r, err = w.people["olga"].Rollout(w.t.Context(), id)
		w.must(err)
		return r.Rollout.Phase == want, string(r.Rollout.Phase) + " " + r.Rollout.Reason
	})
	return r
}

// call does one request as a client.
func (w *world) call(method, path, auth, body string, header ...string) (int, []byte, http.Header) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, strings.NewReader(body))
	w.must(err)
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
	w.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	w.must(err)
	return resp.StatusCode, data, resp.Header
}
