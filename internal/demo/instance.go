package demo

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// freePort finds a port nobody has. Somebody could take it before we do; then serve says so.
func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// cast are the people of the story, and what each may do.
func cast() map[string][]access.Role {
	return map[string][]access.Role{
		"rita": {access.ReleaseManager}, "alice": {access.ReleaseManager}, "bob": {access.ReleaseManager}, "frank": {access.Factory, access.ReleaseManager},
		"olga": {access.Operator, access.Viewer}, "sam": {access.Security, access.Viewer}, "rene": {access.Viewer}, "mallory": {access.Viewer},
	}
}

// instance makes and starts a server, and gives its people their tokens.
func (d *demo) instance(ctx context.Context) error {
	d.say("\nThe maker: an instance, three approvers of whom two must agree, their keys offline")
	d.layout = server.Layout{Dir: filepath.Join(d.dir, "server")}
	api, err := freePort(ctx)
	if err != nil {
		return err
	}
	devices, err := freePort(ctx)
	if err != nil {
		return err
	}
	init := exec.CommandContext(ctx, d.bin.hallmark, "init", "--dir", d.layout.Dir, "--oem", cmp.Or(d.o.maker, oemID), "--product", productID, "--boot-manager", d.bin.agent,
		"--hardware", hardware, "--api", api, "--devices", devices, "--poll-ms", "400", "--attest-s", "3", "--allow-virtual",
		"--kdf-iterations", "1000")
	if d.o.DB != "" {
		init.Args = append(init.Args, "--db", d.o.DB)
	}
	init.Env = append(os.Environ(), "HALLMARK_PASSPHRASE="+d.pass)
	if d.welcome, err = output(init); err != nil {
		return err
	}
	if err := d.startServer(); err != nil {
		return err
	}
	if d.offline, err = soft.Open(d.layout.Offline(), d.pass); err != nil {
		return err
	}
	token, err := os.ReadFile(d.layout.AdminToken())
	if err != nil {
		return err
	}
	d.people["admin"] = client.New(d.console, strings.TrimSpace(string(token)), nil)
	if d.o.begun != nil {
		d.o.begun(d)
	}
	for name, roles := range cast() {
		var secret string
		err := insist(ctx, func() (err error) {
			secret, err = d.people["admin"].Token(ctx, httpapi.TokenSpec{
				Caller: "person:" + name, Kind: access.Person, Roles: roles, Use: signin.UseToken, Seconds: 24 * 3600,
			})
			return err
		})
		if err != nil {
			return err
		}
		d.people[name] = d.people["admin"].As(secret)
	}
	var e httpapi.Entry
	err = insist(ctx, func() (err error) { e, err = d.people["admin"].Entry(ctx, "control", 0); return err })
	return d.step(Step{
		Step: "instance", Expected: "both logs begun and witnessed", OK: err == nil,
		Observed: observed(err, fmt.Sprintf("serving, control log of %d entries witnessed by %d", e.Proof.Size, len(e.Proof.Cosignatures))),
		Ledger:   &Place{"control", 0},
	})
}

func observed(err error, text string) string {
	if err != nil {
		return err.Error()
	}
	return text
}

// startServer starts `hallmark serve` and waits until it listens.
func (d *demo) startServer() error {
	log, err := os.OpenFile(filepath.Join(d.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.bin.hallmark, "serve", "--dir", d.layout.Dir) //nolint:noctx // our own program; stop ends it
	cmd.Env = append(os.Environ(), "HALLMARK_PASSPHRASE="+d.pass)
	cmd.Stderr = log
	out, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = w
	if err := errors.Join(d.serve.start(cmd), w.Close()); err != nil {
		return errors.Join(err, out.Close())
	}
	defer func() { go drain(out) }()
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if a, ok := strings.CutPrefix(sc.Text(), "console and API"); ok {
			d.console = strings.TrimSpace(a)
		}
		if a, ok := strings.CutPrefix(sc.Text(), "devices"); ok {
			d.devURL = strings.TrimSpace(a)
			return nil
		}
	}
	return fmt.Errorf("the server ended: see %s", log.Name())
}

// drain reads on, so that the writer is not stopped by a full pipe.
func drain(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	_ = r.Close() // it has ended
}

// approver signs with a person's offline key.
func (d *demo) approver(name string) (crypto.Signer, error) {
	return d.offline.Signer("approver-" + name)
}

// threshold signs a payload as the named people.
func (d *demo) threshold(typ wire.Type, payload []byte, names ...string) ([]byte, error) {
	var env []byte
	for i, n := range names {
		k, err := d.approver(n)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			env, err = wire.NewThreshold(typ, payload, k)
		} else {
			env, err = wire.AddSignature(typ, env, k)
		}
		if err != nil {
			return nil, err
		}
	}
	return env, nil
}

// specOf uploads a version, and gives what is proposed of it.
func (d *demo) specOf(ctx context.Context, version string, counter uint32, back ...string) (spec release.Spec, err error) {
	image := d.images[version]
	rita := d.people["rita"]
	var digest []byte
	if err := insist(ctx, func() (err error) {
		digest, err = rita.Upload(ctx, productID, "app-"+version, d.o.protect, strings.NewReader(string(image)))
		return err
	}); err != nil {
		return spec, err
	}
	c := release.Component{Name: "app", Kind: wire.KindData, Version: version, Artifact: digest, Health: wire.HealthNone}
	if executable(image) {
		c.Kind, c.Health = wire.KindExec, wire.HealthAlive
		c.Capabilities = &wire.Capabilities{Read: []string{"/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib"}} // somebody's, with their libraries
		if d.own(version) {
			c.Health, c.Capabilities = wire.HealthSocket, &wire.Capabilities{Read: []string{"/proc/loadavg"}}
		}
	}
	spec = release.Spec{ID: productID + "-" + version, Product: productID, Version: version, Counter: counter, Components: []release.Component{c}}
	for _, p := range d.beside[version] {
		spec.Components = append(spec.Components, p.Component)
	}
	bill, err := contents(version, image, d.beside[version])
	if err != nil {
		return spec, err
	}
	if err := insist(ctx, func() (err error) {
		spec.SBOM, err = rita.Upload(ctx, productID, "sbom-"+version, false, bytes.NewReader(bill))
		return err
	}); err != nil {
		return spec, err
	}
	for _, b := range back {
		sum, err := hex.DecodeString(d.releases[b])
		if err != nil {
			return spec, err
		}
		spec.RollbackTo = append(spec.RollbackTo, sum)
	}
	return spec, d.proven(ctx, &spec, version)
}

// publish takes a version from bytes to a published release: rita proposes, alice and bob approve with their offline keys.
func (d *demo) publish(ctx context.Context, version string, counter uint32, back ...string) error {
	spec, err := d.specOf(ctx, version, counter, back...)
	if err != nil {
		return err
	}
	rita := d.people["rita"]
	var r httpapi.ReleaseView
	if err := insist(ctx, func() (err error) { r, err = rita.Propose(ctx, spec); return err }); err != nil {
		return err
	}
	for i, name := range []string{"alice", "bob"} {
		if i == 1 {
			if err := insist(ctx, func() error { _, err := rita.Publish(ctx, r.Digest); return err }); client.Code(err) != "release.threshold" {
				return fmt.Errorf("a release with one approval is to be refused, and was: %w", err)
			}
		}
		env, err := d.threshold(wire.TypeRelease, r.Payload, name)
		if err != nil {
			return err
		}
		if err := insist(ctx, func() error { _, err := d.people[name].Approve(ctx, r.Digest, env); return err }); err != nil {
			return err
		}
	}
	d.releases[version] = r.Digest
	if err := insist(ctx, func() error { _, err := rita.Publish(ctx, r.Digest); return err }); err != nil {
		return err
	}
	return d.step(Step{
		Step: "release " + version, Expected: "published with 2 of 3 approvals, not with 1", OK: true,
		Observed: fmt.Sprintf("published %s…, security counter %d, approved by alice and bob", r.Digest[:12], counter),
		Ledger:   d.place(ctx, "control", "release.published", spec.ID),
	})
}

func (d *demo) firstRelease(ctx context.Context) error {
	d.say("\nBefore birth: version %s is approved", v1)
	return d.publish(ctx, v1, 1)
}

// place finds the newest entry of a kind about a subject in a log; when one was told before, a newer one.
func (d *demo) place(ctx context.Context, log, kind, subject string) *Place {
	var at *Place
	key := kind + " " + subject
	last, told := d.told[key]
	wait(ctx, 5*time.Second, func() (bool, string) {
		p, err := d.people["admin"].Facts(ctx, fleet.FactQuery{Log: log, Kind: kind, Subject: subject, Limit: 1})
		if err == nil && len(p.Items) == 1 {
			at = &Place{log, *p.Items[0].Index}
		}
		return at != nil && (!told || at.Index > last), ""
	})
	if at != nil {
		d.told[key] = at.Index
		d.last[log] = max(d.last[log], at.Index)
	}
	return at
}
