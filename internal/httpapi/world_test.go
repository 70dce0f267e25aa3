package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// world is a real server with things of product pump in it, callers of every role, and one of every role in another product only.
type world struct {
	t      *testing.T
	layout server.Layout
	api    string
	tokens map[string]string // by caller; "" has none
	stop   func()
}

const (
	subject   = "0123456789abcdef0123456789abcdef" // the device of the examples
	heldCase  = "11111111111111111111111111111111"
	ending    = "22222222222222222222222222222222"
	spare     = "99999999999999999999999999999999"
	groupless = "88888888888888888888888888888888"
	owned     = "99999999999999999999999999999990"
	acme      = "o-acme" // its owner
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, layout: server.Layout{Dir: filepath.Join(t.TempDir(), "inst")}, tokens: map[string]string{"": ""}}
	online, err := soft.Create(w.layout.Keys(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	offline, err := soft.Create(w.layout.Offline(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual = "127.0.0.1:0", "127.0.0.1:0", true
	if _, err := server.Init(t.Context(), w.layout, server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2, Online: online, Offline: offline, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), w.layout.Database())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(seed(t.Context(), db), db.Close()); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(w.layout.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	w.tokens["root"] = strings.TrimSpace(string(token))
	return w
}

// start serves until the test ends, or stop is called.
func (w *world) start() {
	w.t.Helper()
	keys, err := soft.Open(w.layout.Keys(), "pass")
	if err != nil {
		w.t.Fatal(err)
	}
	inst, err := server.Open(w.t.Context(), w.layout, keys, slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- inst.Run(ctx, func(a, _ string) { w.api = a; close(ready) }) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, inst.Close()); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(w.stop)
	select {
	case <-ready:
	case err := <-done:
		w.t.Fatal(err)
	}
}

// issue gives a caller a token.
func (w *world) issue(name string, roles []access.Role, scope ...string) {
	w.t.Helper()
	var out httpapi.TokenReply
	status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", httpapi.TokenSpec{
		Caller: "person:" + name, Kind: access.Person, Roles: roles, Scope: scope, Use: signin.UseToken, Seconds: 3600,
	}, nil)
	if err := json.Unmarshal(data, &out); err != nil || status != http.StatusOK {
		w.t.Fatalf("token for %s: %d %s", name, status, data)
	}
	w.tokens[name] = out.Secret
}

// call does one request; in is JSON, bytes, or nil.
func (w *world) call(who, method, path string, in any, header map[string]string) (int, []byte, http.Header) {
	w.t.Helper()
	var body io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case []byte:
		body, kind = bytes.NewReader(v), "application/octet-stream"
	default:
		data, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.api+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	if token := w.tokens[who]; token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") == "text/event-stream" {
		return resp.StatusCode, nil, resp.Header
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, data, resp.Header
}

func someFact(kind ledger.Kind, subject string) ledger.Fact {
	return ledger.New(kind, time.Now(), "test", subject, nil, []byte("{}"))
}

// seed puts things of product pump into the store as the stages would have.
func seed(ctx context.Context, db *store.DB) error {
	now := time.Now().UTC().Truncate(time.Second)
	err := db.PutProduct(ctx, product.Product{ID: "valve", OEM: "acme", Name: "Valve", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: now.AddDate(5, 0, 0)},
		someFact(ledger.KindProductCreated, "valve"))
	for _, d := range []struct{ id, product, state string }{
		{subject, "pump", "active"},
		{heldCase, "pump", "active"},
		{ending, "pump", "decommissioning"},
		{spare, "pump", "active"},
		{groupless, "pump", "active"},
		{owned, "pump", "active"},
		{"33333333333333333333333333333333", "valve", "active"},
	} {
		err = errors.Join(err, db.Write(ctx, func(tx *store.Tx) error {
			key, err := newKey()
			if err != nil {
				return err
			}
			_, err = tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, attest_key, instance_id, key_origin,
				is_virtual, last_seen, since, bundle, doc) VALUES ($1, $2, 'A', $3, 'genuine', 'ord-1', 's', $4, $5, $5, 'soft', 1, $4, $4, 1, '{}')`,
				d.id, d.product, d.state, store.Millis(now), key)
			return err
		}))
		if d.id == groupless || d.id == owned {
			continue
		}
		err = errors.Join(err, db.Devices().GroupDevices(ctx, []device.Grouping{{Device: d.id, To: "eu/berlin"}}, "eu/berlin", nil))
	}
	manifest, signed, digest, e3 := theRelease()
	rel := release.Release{
		Digest: [32]byte(digest), Manifest: manifest, Payload: signed, Status: release.Published, Creator: "test", Created: now, Published: now, Rev: 1,
	}
	spec := rollout.Spec{ID: "ro-1", Product: "pump", Release: digest, Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Percent: 100, Deadline: 60}}}
	command := wire.Command{ID: "c1", Product: "pump", Act: wire.ActAttest, Issued: uint64(now.Unix()), Expires: uint64(now.Add(time.Hour).Unix())}
	set, e := wire.SetOf([]string{subject})
	command.Devices = set
	payload, e2 := wire.EncodeCommand(command)
	issued := someFact(ledger.KindCommandIssued, "c1")
	made := someFact(ledger.KindOrderCreated, "ord-1")
	decided := someFact(ledger.KindRetireOrdered, "w1")
	warranted := someFact(ledger.KindWarrantIssued, "w1")
	one, e4 := wire.SetOf([]string{ending})
	ordered := retire.Retirement{
		WarrantUID: warranted.UID, OrderUID: decided.UID, EndUID: decided.UID,
		Device: ending, Product: "pump", Phase: retire.Wiping, Warrant: "w1", Reason: "test", By: "test", Ordered: now, Rev: 1,
	}
	held := remedy.Case{Device: heldCase, Product: "pump", Cause: ledger.Ref{Log: ledger.Events, Index: 0}, Reason: "test", Phase: remedy.Held, Opened: now, Since: now, Rev: 1}
	_, e5 := db.Monitor().PutFinding(ctx, monitor.Finding{ID: "f1", Dedupe: "f1", Kind: monitor.Unhealthy, Severity: monitor.High, Product: "pump", Subject: subject, Raised: now},
		someFact(ledger.KindFindingRaised, subject))
	gate, e6 := wire.EncodeGateDecision(wire.GateDecision{V: 1, Product: "pump", Subject: [][]byte{make([]byte, 32)}, Steps: []wire.GateStep{{N: 1, OK: true}}, OK: true})
	rel.Decision = gate
	rel.Summary = []byte(`{"payload":"e30=","payloadType":"x","signatures":[]}`)
	return errors.Join(err, e, e2, e3, e4, e5, e6,
		db.Releases().PutRelease(ctx, rel),
		db.Releases().PutArtifact(ctx, release.Artifact{Digest: [32]byte{1}, Product: "pump", Name: "app", Size: 1, By: "test", At: now}),
		db.Releases().PutArtifact(ctx, release.Artifact{Digest: [32]byte{2}, Product: "pump", Name: "app", Size: 1, By: "test", At: now}),
		db.Releases().PutArtifact(ctx, release.Artifact{Digest: [32]byte{3}, Product: "pump", Name: "app", Size: 1, By: "test", At: now}),
		db.Supply().PutContents(ctx, rel.Digest, supply.Contents{Document: strings.Repeat("00", 32), Format: "SPDX", Spec: "2.3", Components: 1},
			[]supply.Named{{Component: bom.Component{Name: "lib", PURL: "pkg:golang/acme.example/lib@v1.0.0", Version: "v1.0.0"}, Package: osv.Package{Ecosystem: "Go", Name: "acme.example/lib"}}}),
		db.CreateOrder(ctx, factory.Order{ID: "ord-1", UID: made.UID, Product: "pump", Hardware: "A", State: factory.Open, Created: now}, made),
		db.Parts().PutSupplier(ctx, parts.Supplier{ID: "acme-memory", Name: "Acme Memory", At: now}),
		db.Parts().PutPart(ctx, parts.Part{ID: "flash", Supplier: "acme-memory", Kind: parts.Hardware, Name: "NOR flash", At: now}),
		db.Parts().PutLot(ctx, parts.Lot{ID: "flash-2626", Part: "flash", Number: "2626", Received: now, At: now}),
		db.Rollouts().PutRollout(ctx, rollout.Rollout{Spec: spec, Phase: rollout.Created, By: "test", Created: now, Rev: 1}),
		db.Devices().PutCommand(ctx, device.Command{
			ID: "c1", UID: issued.UID, Digest: [32]byte(bytes.Repeat([]byte{1}, 32)), Wire: command, Issued: now, Expires: now.Add(time.Hour),
		}, []string{subject}, issued),
		db.Onboard().Wait(ctx, onboard.Waiting{
			Device: subject, Product: "pump", Hardware: "A", Call: onboard.CallEnrol, Request: strings.Repeat("ab", 32), State: onboard.Waits, Asked: now, Until: now.Add(time.Hour),
		}),
		db.Foreign().AddCA(ctx, foreign.CA{ID: strings.Repeat("fc", 32), Product: "pump", At: now}),
		db.Vouchers().AddVoucher(ctx, rekey.Voucher{
			ID: "v1", Device: subject, Product: "pump", State: rekey.Open, By: "person:operator", Second: "person:security", Issued: now, Expires: now.Add(time.Hour), Chip: []byte{1},
		}, func(rekey.Counts, []rekey.Voucher) ([]ledger.Fact, error) { return nil, nil }),
		db.Remedies().OpenCase(ctx, held, remedy.Limit{}), db.Retirements().PutRetirements(ctx, []retire.Retirement{ordered}, decided),
		db.Devices().PutWarrant(ctx, device.Warrant{UID: warranted.UID, Wire: wire.Warrant{ID: "w1", Product: "pump", Act: wire.ActWipe, Devices: one}}, []string{ending}, warranted),
		db.PutGrant(ctx, telemetry.Grant{ID: "g1", Reader: "person:viewer", Product: "pump", Stream: "vibration", Purpose: "bearing study", Until: now.AddDate(1, 0, 0)}),
		db.PutGrant(ctx, telemetry.Grant{ID: "g2", Reader: "person:viewer", Product: "pump", Stream: "vibration", Purpose: "bearing study", Until: now.AddDate(1, 0, 0)}),
		db.Owners().PutOwner(ctx, owner.Owner{ID: acme, Name: "ACME", Created: now}),
		db.Owners().PutCodes(ctx, map[string][32]byte{owned: {1}}, now),
		db.Owners().Claim(ctx, owner.Period{Device: owned, Number: 1, Owner: acme, Digest: make([]byte, 32), From: now}, [32]byte{1}, "pump", "", access.OwnerGroup(acme)),
		db.PutProposal(ctx, proposal.Proposal{
			ID: "0p1", State: proposal.Open, By: "person:nobody", Reason: "test", Asked: proposal.Asked{Method: http.MethodPost, Path: "/api/v1/commands"},
			Action: access.DeviceQuarantine, Resource: access.Resource{Type: "device", Product: "pump", Grave: true}, Made: now, Expires: now.Add(time.Hour), Rev: 1,
		}),
		wrong(payload == nil, "no payload"),
	)
}

// newKey makes a public key (SPKI).
func newKey() ([]byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(k.Public())
}

func wrong(bad bool, text string) error {
	if bad {
		return errors.New(text)
	}
	return nil
}

// theRelease is the one release of the world, as it is signed.
func theRelease() (m wire.Release, payload, digest []byte, err error) {
	m = wire.Release{
		ID: "pump-1", Product: "pump", Model: wire.ModelBlob, Version: "1.0.0", Hardware: []string{"A"}, Counter: 1, Created: 1_800_000_000,
		Components: []wire.Component{{Name: "app", Kind: "exec", Version: "1.0.0", Size: 1, Digest: bytes.Repeat([]byte{1}, 32), Health: wire.HealthAlive}},
	}
	payload, err = wire.EncodeRelease(m)
	sum := sha256.Sum256(payload)
	return m, payload, sum[:], err
}

func releaseDigest() string {
	_, _, digest, _ := theRelease() // seed has looked at the error
	return hex.EncodeToString(digest)
}
