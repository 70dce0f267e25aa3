// Package client calls the API: the command line, the demo and tests go through it, as any outsider would.
//
// Over all stages. It holds no logic: one method an operation, the server's problems as errors.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// Client is one caller's line to one instance.
type Client struct {
	base, token string
	http        *http.Client
	told        func(facts []string)
	replied     func(body []byte)
	tagged      func(tag string)
	match       string // If-Match of what changes something
	propose     string // the reason to propose what takes two with; empty: it is refused
	proposed    func(p proposal.Proposal)
	window      *Window       // of lists; nil: all of them
	patience    time.Duration // for an answer to begin; 0: answers
}

// New makes a client of the instance at base, http(s)://host:port, with an access token; empty: tlsConfig has a client certificate. tlsConfig may be nil.
func New(base, token string, tlsConfig *tls.Config) *Client {
	return &Client{
		base: strings.TrimSuffix(base, "/"), token: token,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 16}},
	}
}

// As gives a client of another caller on the same instance.
func (c *Client) As(token string) *Client {
	other := *c
	other.token = token
	return &other
}

// OnFacts has fn told, with each answer, which facts ("events/" and the UID) the server says are durable. It is set before use.
func (c *Client) OnFacts(fn func(facts []string)) { c.told = fn }

// OnReply has fn given the body of each answer of success, as the server wrote it. It is set before use.
func (c *Client) OnReply(fn func(body []byte)) { c.replied = fn }

// OnTag has fn given the ETag of each answer of success, empty when it has none. It is set before use.
func (c *Client) OnTag(fn func(tag string)) { c.tagged = fn }

// OnlyIf gives a client that changes a thing only while it has this ETag, quoted or not; empty: whatever it has.
func (c *Client) OnlyIf(tag string) *Client {
	if tag != "" && tag != "*" && !strings.Contains(tag, `"`) {
		tag = `"` + tag + `"`
	}
	other := *c
	other.match = tag
	return &other
}

// Problem is what the server answered instead of success (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

func (p *Problem) Error() string {
	s := p.Detail
	for _, e := range p.Errors {
		s += "; " + e.Location + ": " + e.Message
	}
	if s == "" {
		s = p.Title
	}
	return s
}

// Code gives a problem's stable code, "order.quota"; empty when err is no problem of the server's.
func Code(err error) string {
	var p *Problem
	if !errors.As(err, &p) {
		return ""
	}
	code, ok := strings.CutPrefix(p.Type, "urn:hallmark:fault:")
	if !ok {
		return "" // a plain HTTP problem
	}
	return code
}

const maxReply = 256 << 20

// call does one operation whose body is in memory. What changes something carries a key of its own, and is asked for a second time
// when the connection broke: with one key it is done once.
func (c *Client) call(ctx context.Context, method, path string, in []byte, out any) error {
	h := http.Header{}
	if in != nil {
		h.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		h.Set("Idempotency-Key", rand.Text())
		if c.match != "" {
			h.Set("If-Match", c.match)
		}
		if c.propose != "" {
			h.Set(httpapi.HeaderPropose, c.propose)
		}
	}
	err := c.once(ctx, method, path, h, bytes.NewReader(in), out)
	if method == http.MethodGet || ctx.Err() != nil {
		return err
	}
	if _, broke := errors.AsType[brokenError](err); broke {
		err = c.once(ctx, method, path, h, bytes.NewReader(in), out)
	}
	return err
}

// brokenError is a connection that ended before an answer was there.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

func (c *Client) request(ctx context.Context, method, path string, h http.Header, in io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, in)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, h)
	if c.token != "" { // else it is the connection's certificate that says who asks
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// unreached says what to do about a server that did not answer.
func unreached(err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w; trust the instance's own root, certs/oem-root.der in its data directory, and call it by one of its names", err)
	}
	return brokenError{fmt.Errorf("%w; is `hallmark serve` running there?", err)}
}

func problem(resp *http.Response, data []byte) *Problem {
	p := &Problem{Status: resp.StatusCode, Title: resp.Status}
	if json.Unmarshal(data, p) != nil {
		p.Detail = strings.TrimSpace(string(data[:min(len(data), 512)]))
	}
	return p
}

func (c *Client) once(ctx context.Context, method, path string, h http.Header, in io.Reader, out any) error {
	ctx, w, end := c.watch(ctx)
	defer end()
	req, err := c.request(ctx, method, path, h, in)
	if err != nil {
		return err
	}
	resp, err := w.do(c.http, req)
	if err != nil {
		return unreached(err)
	}
	defer resp.Body.Close()
	if o, ok := out.(orderIn); ok && resp.StatusCode == http.StatusOK {
		return c.order(resp, o)
	}
	if to, ok := out.(io.Writer); ok && resp.StatusCode == http.StatusOK {
		if _, err := io.Copy(to, resp.Body); err != nil {
			return brokenError{err}
		}
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return brokenError{err}
	}
	if facts := resp.Header.Get("Hallmark-Facts"); facts != "" && c.told != nil {
		c.told(strings.Split(facts, ","))
	}
	if resp.StatusCode >= 300 {
		return problem(resp, data)
	}
	if resp.StatusCode == http.StatusAccepted && c.propose != "" {
		return c.second(ctx, data, out)
	}
	if c.replied != nil {
		c.replied(data)
	}
	if c.tagged != nil {
		c.tagged(resp.Header.Get("ETag"))
	}
	if out == nil || len(data) == 0 {
		return nil
	}
	if f, ok := out.(*file); ok {
		*f = data
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what this version of hallmark knows: %w", method, path, err)
	}
	return nil
}

// file is an answer that is no JSON.
type file []byte

func get[T any](ctx context.Context, c *Client, path string) (out T, err error) {
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	return send[T](ctx, c, http.MethodPost, path, in)
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return out, err
		}
	}
	return out, c.call(ctx, method, path, body, &out)
}

// Token issues an access token.
func (c *Client) Token(ctx context.Context, s httpapi.TokenSpec) (string, error) {
	r, err := post[httpapi.TokenReply](ctx, c, "/tokens", s)
	return r.Secret, err
}

// Summary counts the fleet.
func (c *Client) Summary(ctx context.Context) (fleet.Summary, error) {
	return get[fleet.Summary](ctx, c, "/fleet")
}

// Devices gives a page of the fleet list.
func (c *Client) Devices(ctx context.Context, q fleet.Query) (DevicePage, error) {
	v := url.Values{}
	for k, s := range map[string]string{
		"product": q.Product, "group": q.Group, "state": q.State, "verdict": q.Verdict, "version": q.Version, "assurance": q.Assurance, "release": q.Release, "bundle": q.Bundle, "prefix": q.Prefix, "after": q.After,
	} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if q.Findings {
		v.Set("findings", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", fmt.Sprint(q.Limit))
	}
	return get[DevicePage](ctx, c, "/devices?"+v.Encode())
}

// Queries lists the queries the caller keeps.
func (c *Client) Queries(ctx context.Context) ([]fleet.Saved, error) {
	return list[fleet.Saved](ctx, c, "/me/queries")
}

// SaveQuery keeps one for the caller.
func (c *Client) SaveQuery(ctx context.Context, s fleet.Saved) (fleet.Saved, error) {
	return post[fleet.Saved](ctx, c, "/me/queries", s)
}

// ForgetQuery forgets one of the caller's.
func (c *Client) ForgetQuery(ctx context.Context, name string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/me/queries/"+url.PathEscape(name), nil)
	return err
}

// Device shows one device.
func (c *Client) Device(ctx context.Context, id string) (httpapi.DeviceDetail, error) {
	return get[httpapi.DeviceDetail](ctx, c, "/devices/"+url.PathEscape(id))
}

// Facts searches a log, newest first.
func (c *Client) Facts(ctx context.Context, q fleet.FactQuery) (httpapi.FactPage, error) {
	v := url.Values{}
	for k, s := range map[string]string{"subject": q.Subject, "kind": q.Kind} {
		if s != "" {
			v.Set(k, s)
		}
	}
	for k, n := range map[string]uint64{"before": q.Before, "limit": uint64(max(q.Limit, 0))} {
		if n > 0 {
			v.Set(k, strconv.FormatUint(n, 10))
		}
	}
	return get[httpapi.FactPage](ctx, c, "/log/"+url.PathEscape(q.Log)+"/facts?"+v.Encode())
}

// Entry gives an entry of a log with its proof.
func (c *Client) Entry(ctx context.Context, log string, index uint64) (httpapi.Entry, error) {
	return get[httpapi.Entry](ctx, c, fmt.Sprintf("/log/%s/entries/%d", url.PathEscape(log), index))
}

// Custody gives a device's chain of custody, as the server wrote it. Nothing of it is verified.
func (c *Client) Custody(ctx context.Context, id string) ([]byte, error) {
	return get[file](ctx, c, "/devices/"+url.PathEscape(id)+"/custody")
}

// Receipt gives a fact's COSE receipt.
func (c *Client) Receipt(ctx context.Context, uid string) ([]byte, error) {
	return get[file](ctx, c, "/facts/"+url.PathEscape(uid)+"/receipt")
}

// CreateProduct creates a product.
func (c *Client) CreateProduct(ctx context.Context, p product.Product) (product.Product, error) {
	return post[product.Product](ctx, c, "/products", p)
}

// OEM gives what a station must pin.
func (c *Client) OEM(ctx context.Context) (factory.OEMFile, error) {
	return get[factory.OEMFile](ctx, c, "/oem")
}

// CreateOrder orders devices. The order's file is written to file as it comes, and is not whole when there is an error.
func (c *Client) CreateOrder(ctx context.Context, r httpapi.OrderRequest, file io.Writer) (httpapi.OrderView, error) {
	in, err := json.Marshal(r)
	if err != nil {
		return httpapi.OrderView{}, err
	}
	var o httpapi.OrderView
	h := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {rand.Text()}}
	if c.propose != "" {
		h.Set(httpapi.HeaderPropose, c.propose)
	}
	return o, c.working().once(ctx, http.MethodPost, "/orders", h, bytes.NewReader(in), orderIn{&o, file})
}

// Reconcile compares what was ordered with what was made.
func (c *Client) Reconcile(ctx context.Context, order string) (factory.Reconciliation, error) {
	return get[factory.Reconciliation](ctx, c, "/orders/"+url.PathEscape(order)+"/reconciliation")
}

// CancelOrder ends an order whose file never came to use.
func (c *Client) CancelOrder(ctx context.Context, order, reason string) (httpapi.OrderView, error) {
	return post[httpapi.OrderView](ctx, c, "/orders/"+url.PathEscape(order)+"/cancel", httpapi.Reason{Reason: reason})
}

// AbandonOrder ends an order whose station is gone.
func (c *Client) AbandonOrder(ctx context.Context, order, reason string) (httpapi.OrderView, error) {
	return post[httpapi.OrderView](ctx, c, "/orders/"+url.PathEscape(order)+"/abandon", httpapi.Reason{Reason: reason})
}

// Differences gives one list of what does not agree about an order.
func (c *Client) Differences(ctx context.Context, order, question string) ([]factory.Difference, error) {
	return list[factory.Difference](ctx, c, "/orders/"+url.PathEscape(order)+"/differences"+query("list", question))
}

// CloseOrder closes an order.
func (c *Client) CloseOrder(ctx context.Context, order string) (factory.Reconciliation, error) {
	return post[factory.Reconciliation](ctx, c, "/orders/"+url.PathEscape(order)+"/close", nil)
}

// Upload stores an artifact and gives its digest; a protected one is sealed as it comes, and the digest is that of the sealed bytes.
func (c *Client) Upload(ctx context.Context, productID, name string, protect bool, data io.Reader) ([]byte, error) {
	var a httpapi.ArtifactView
	path := "/products/" + url.PathEscape(productID) + "/artifacts/" + url.PathEscape(name)
	if protect {
		path += "?protect=true"
	}
	if err := c.working().once(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/octet-stream"}}, data, &a); err != nil {
		return nil, err
	}
	return hex.DecodeString(a.Digest)
}

// Propose proposes a release.
func (c *Client) Propose(ctx context.Context, s release.Spec) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases", s)
}

// Release shows a release by its digest in hex.
func (c *Client) Release(ctx context.Context, digest string) (httpapi.ReleaseView, error) {
	return get[httpapi.ReleaseView](ctx, c, "/releases/"+digest)
}

// Approve adds a signature.
func (c *Client) Approve(ctx context.Context, digest string, envelope []byte) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases/"+digest+"/approvals", httpapi.Envelope{Envelope: envelope})
}

// SignSUIT adds an approver's signature over a release's SUIT manifest; SUIT gives the envelope.
func (c *Client) SignSUIT(ctx context.Context, digest string, block []byte) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases/"+digest+"/suit", httpapi.Envelope{Envelope: block})
}

// SUIT gives a published release as a SUIT envelope.
func (c *Client) SUIT(ctx context.Context, digest string) ([]byte, error) {
	e, err := get[httpapi.Envelope](ctx, c, "/releases/"+digest+"/suit")
	return e.Envelope, err
}

// Publish publishes a release.
func (c *Client) Publish(ctx context.Context, digest string) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases/"+digest+"/publish", nil)
}

// CreateRollout creates and StartRollout starts a rollout.
func (c *Client) CreateRollout(ctx context.Context, s rollout.Spec) (rollout.Rollout, error) {
	return post[rollout.Rollout](ctx, c, "/rollouts", s)
}

// StartRollout starts one that was created.
func (c *Client) StartRollout(ctx context.Context, id string) (rollout.Resolved, error) {
	return post[rollout.Resolved](ctx, c, "/rollouts/"+url.PathEscape(id)+"/start", nil)
}

// Rollout shows one.
func (c *Client) Rollout(ctx context.Context, id string) (httpapi.RolloutStatus, error) {
	return get[httpapi.RolloutStatus](ctx, c, "/rollouts/"+url.PathEscape(id))
}

// Command commands devices.
func (c *Client) Command(ctx context.Context, r httpapi.CommandRequest) (string, error) {
	out, err := post[httpapi.CommandReply](ctx, c, "/commands", r)
	return out.ID, err
}

// PreviewCommand says whom a command would reach.
func (c *Client) PreviewCommand(ctx context.Context, r httpapi.CommandRequest) (device.Preview, error) {
	return post[device.Preview](ctx, c, "/commands/dry-run", r)
}

// CommandOf shows a command.
func (c *Client) CommandOf(ctx context.Context, id string) (httpapi.CommandView, error) {
	return get[httpapi.CommandView](ctx, c, "/commands/"+url.PathEscape(id))
}

// Warrant submits an offline warrant.
func (c *Client) Warrant(ctx context.Context, envelope []byte, devices []string) (httpapi.WarrantReply, error) {
	return post[httpapi.WarrantReply](ctx, c, "/warrants", httpapi.WarrantRequest{Envelope: envelope, Devices: devices})
}

// PublishBundle publishes a product's next trust bundle.
func (c *Client) PublishBundle(ctx context.Context, envelope []byte) (wire.Bundle, error) {
	return post[wire.Bundle](ctx, c, "/bundles", httpapi.Envelope{Envelope: envelope})
}

// GrantStream lets a reader read a stream.
func (c *Client) GrantStream(ctx context.Context, g telemetry.Grant) error {
	_, err := post[telemetry.Grant](ctx, c, "/streams/grants", g)
	return err
}

// ReadStream reads a stream.
func (c *Client) ReadStream(ctx context.Context, r telemetry.ReadRequest) (telemetry.ReadReply, error) {
	return post[telemetry.ReadReply](ctx, c, "/streams/read", r)
}

// Retire retires devices by a warrant.
func (c *Client) Retire(ctx context.Context, o retire.Order) ([]retire.Retirement, error) {
	return post[[]retire.Retirement](ctx, c, "/retirements", o)
}

// Dispose records what was done with a wiped device.
func (c *Client) Dispose(ctx context.Context, id, how string) (retire.Retirement, error) {
	return post[retire.Retirement](ctx, c, "/retirements/"+url.PathEscape(id)+"/dispose", httpapi.DisposeRequest{How: how})
}

// Proof gives a device's proof of disposal.
func (c *Client) Proof(ctx context.Context, id string) (retire.Proof, error) {
	return get[retire.Proof](ctx, c, "/retirements/"+url.PathEscape(id)+"/proof")
}

// SubmitCeremony puts a key ceremony's transcript on record.
func (c *Client) SubmitCeremony(ctx context.Context, transcript []byte, people map[string]string) (ceremony.Held, error) {
	return post[ceremony.Held](ctx, c, "/ceremonies", httpapi.CeremonyRequest{Transcript: transcript, People: people})
}

// Ceremonies lists the key ceremonies on record.
func (c *Client) Ceremonies(ctx context.Context) ([]ceremony.Held, error) {
	return list[ceremony.Held](ctx, c, "/ceremonies")
}

// ProductReadiness says what a product still needs from a key ceremony.
func (c *Client) ProductReadiness(ctx context.Context, id string) (ceremony.Readiness, error) {
	return get[ceremony.Readiness](ctx, c, "/products/"+url.PathEscape(id)+"/readiness")
}

// RequestProduct asks a key ceremony for what a product needs.
func (c *Client) RequestProduct(ctx context.Context, id, like string) ([]byte, error) {
	r, err := post[httpapi.ProductAsked](ctx, c, "/products/"+url.PathEscape(id)+"/request", httpapi.ProductAsk{Like: like})
	return r.Request, err
}

// ActivateProduct takes in a key ceremony's answer for a product.
func (c *Client) ActivateProduct(ctx context.Context, id string, answer []byte) (ceremony.Readiness, error) {
	return post[ceremony.Readiness](ctx, c, "/products/"+url.PathEscape(id)+"/activate", httpapi.ProductAnswer{Answer: answer})
}
