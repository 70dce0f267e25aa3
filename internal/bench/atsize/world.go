package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/product"
)

// passphrase is of keys that are thrown away.
const passphrase = "bench"

// filled is written last into a directory: what was interrupted is not measured.
const filled = "filled"

// make an instance with a crowd, or find it made.
func made(ctx context.Context, dir string, devices int) (server.Layout, error) {
	l := server.Layout{Dir: filepath.Join(dir, "inst")}
	mark := filepath.Join(dir, filled)
	if data, err := os.ReadFile(mark); err == nil {
		if string(data) != fmt.Sprint(devices) {
			return l, fmt.Errorf("%s has %s devices: choose another directory", dir, data)
		}
		return l, nil
	}
	online, err := soft.Create(l.Keys(), passphrase, 1000)
	if err != nil {
		return l, err
	}
	offline, err := soft.Create(l.Offline(), passphrase, 1000)
	if err != nil {
		return l, err
	}
	cfg := server.DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual = "127.0.0.1:0", "127.0.0.1:0", true
	main := crowd.Products()[0]
	if _, err := server.Init(ctx, l, server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2, Online: online, Offline: offline, Now: time.Now().UTC(),
		Product: product.Product{
			ID: main, OEM: cfg.OEM, Name: main, Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}); err != nil {
		return l, err
	}
	db, err := sqlite.Open(ctx, l.Database())
	if err != nil {
		return l, err
	}
	vault, err := server.SubjectVault(online)
	if err != nil {
		return l, errors.Join(err, db.Close())
	}
	db.KeepPrivate(vault)
	if err := errors.Join(fill(ctx, db, devices), db.Close()); err != nil {
		return l, err
	}
	return l, durable.WriteFile(mark, []byte(fmt.Sprint(devices)), 0o600)
}

func fill(ctx context.Context, db *store.DB, devices int) error {
	begun := time.Now()
	if err := crowd.Fill(ctx, db, devices, begun, func(n int) {
		if n%100_000 == 0 {
			fmt.Fprintf(os.Stderr, "%d devices after %s\n", n, time.Since(begun).Round(time.Second))
		}
	}); err != nil {
		return err
	}
	// What is told of the crowd's past is not to be reacted to now.
	return db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO follower (name, next) SELECT 'reactions', count(*) FROM entry WHERE log = 'events'
			ON CONFLICT (name) DO UPDATE SET next = excluded.next`)
		return err
	})
}

// world is the real server over a crowd, and who asks it.
type world struct {
	api    string
	tokens map[string]string // by caller
	cookie map[string]string
	stop   func() error
}

// Who asks: an administrator of everything, and readers of one product and of one group.
const (
	everybody = "all"
	ofProduct = "one product"
	ofGroup   = "one group"
)

func serve(ctx context.Context, l server.Layout) (*world, error) {
	keys, err := soft.Open(l.Keys(), passphrase)
	if err != nil {
		return nil, err
	}
	inst, err := server.Open(ctx, l, keys, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return nil, err
	}
	w := &world{tokens: map[string]string{}, cookie: map[string]string{}}
	ctx, cancel := context.WithCancel(ctx)
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- inst.Run(ctx, func(a, _ string) { w.api = a; close(ready) }) }()
	w.stop = func() error {
		cancel()
		return errors.Join(<-done, inst.Close())
	}
	select {
	case <-ready:
	case err := <-done:
		return nil, errors.Join(err, inst.Close())
	}
	admin, err := os.ReadFile(l.AdminToken())
	if err != nil {
		return nil, err
	}
	w.tokens[everybody] = strings.TrimSpace(string(admin))
	for who, scope := range map[string]string{ofProduct: crowd.Products()[0], ofGroup: crowd.Group} {
		if w.tokens[who], err = w.issue(ctx, "person:"+strings.ReplaceAll(who, " ", "-"), scope); err != nil {
			return nil, err
		}
	}
	for who, token := range w.tokens {
		if w.cookie[who], err = w.signIn(ctx, token); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// issue gives a reader of a scope a token.
func (w *world) issue(ctx context.Context, caller, scope string) (string, error) {
	var out struct{ Secret string }
	err := w.post(ctx, "/api/v1/tokens", map[string]any{
		"caller": caller, "kind": access.Person, "roles": []access.Role{access.Viewer}, "scope": []string{scope}, "use": signin.UseToken, "seconds": 86_400,
	}, &out)
	return out.Secret, err
}

func (w *world) signIn(ctx context.Context, token string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api+"/login", strings.NewReader("token="+token))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	for _, c := range resp.Cookies() {
		return c.Name + "=" + c.Value, nil
	}
	return "", fmt.Errorf("sign in: %s", resp.Status)
}

// settled waits until every fact has its place: before, the sequencer is what is measured.
func settled(ctx context.Context, db *store.DB) error {
	for {
		b, err := db.FleetBacklog(ctx)
		if err != nil {
			return err
		}
		waiting := 0
		for _, n := range b.Unplaced {
			waiting += n
		}
		if waiting == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// post asks the API to do something, as the administrator.
func (w *world) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.tokens[everybody])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, data)
	}
	return json.Unmarshal(data, out)
}

// ask is one GET that is measured.
type ask struct{ who, path string }

// get does it once.
func (w *world) get(ctx context.Context, a ask) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api+a.path, nil)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(a.path, "/api/") {
		req.Header.Set("Authorization", "Bearer "+w.tokens[a.who])
	} else {
		req.Header.Set("Cookie", w.cookie[a.who])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // no redirect is followed: a page that sends elsewhere was not measured
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return data, fmt.Errorf("%s as %s: %s: %.300s", a.path, a.who, resp.Status, data)
	}
	return data, nil
}
