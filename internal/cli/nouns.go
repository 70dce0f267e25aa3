package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
)

// Where a command finds the instance, and who it is there; nothing else is remembered from one command to the next.
const (
	envURL   = "HALLMARK_URL"
	envToken = "HALLMARK_TOKEN"
)

// nouns are the commands over a running instance, in the order of a device's life.
func nouns(s streams) []*cobra.Command {
	a := &api{s: s}
	return []*cobra.Command{
		newProduct(a), newRelease(a), newOrder(a), newDevice(a), newRollout(a), newCommand(a), newFinding(a), newRemedy(a),
		newWarrant(a), newBundle(a), newRetirement(a), newStream(a), newFact(a), newToken(a),
	}
}

// api is the line of one command to an instance.
type api struct {
	s              streams
	url, token, ca string // of flags; token is a file
	asJSON         bool
	last           []byte // body of the last answer
}

// noun holds verbs over one kind of thing.
func (a *api) noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	f := c.PersistentFlags()
	f.StringVar(&a.url, "url", "", "address of the instance (else "+envURL+")")
	f.StringVar(&a.token, "token-file", "", "file that holds the access token (else the token in "+envToken+")")
	f.StringVar(&a.ca, "ca", "", "certificate to trust for https, PEM or DER, such as DIR/certs/oem-root.der (default: the system's)")
	f.BoolVar(&a.asJSON, "json", false, "print the API's JSON")
	c.AddCommand(verbs...)
	return c
}

// verb is c, doing run over a client.
func (a *api) verb(c cobra.Command, run func(ctx context.Context, cl *client.Client, args []string) error) *cobra.Command {
	if c.Args == nil {
		c.Args = cobra.NoArgs
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := a.client()
		if err != nil {
			return err
		}
		return stranger(run(cmd.Context(), cl, args))
	}
	return &c
}

// stranger says to whom the server does not know what to do about it.
func stranger(err error) error {
	if p, ok := errors.AsType[*client.Problem](err); ok && p.Status == http.StatusUnauthorized {
		return fmt.Errorf("the server does not know this token: give a valid one, with --token-file or in %s; `hallmark token create` makes them", envToken)
	}
	return err
}

// address is that of the instance; empty when nobody gave one.
func (a *api) address() string {
	if a.url != "" {
		return a.url
	}
	return os.Getenv(envURL)
}

func (a *api) client() (*client.Client, error) {
	base := a.address()
	u, err := url.Parse(base)
	if base == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("address %q: give --url or set %s, such as http://127.0.0.1:8480", base, envURL)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, usagef("address %q: beyond this machine http would show the token to the network: use https, with --ca for the instance's own root", base)
	}
	token := os.Getenv(envToken)
	if a.token != "" {
		data, err := readFile(a.token, 4096)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		token = string(data)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, usagef("no access token: give --token-file or set %s; the first one is in DIR/admin.token", envToken)
	}
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	cl := client.New(base, token, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots})
	cl.OnReply(func(body []byte) { a.last = body })
	return cl, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// roots are those of --ca; nil means the system's.
func (a *api) roots() (*x509.CertPool, error) {
	if a.ca == "" {
		return nil, nil //nolint:nilnil // nil is what tls takes for the system's
	}
	data, err := readFile(a.ca, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("--ca %s is no certificate: %w", a.ca, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// show prints the last answer: the API's JSON, or what text writes for people.
func (a *api) show(text func(w io.Writer) error) error {
	if !a.asJSON {
		return text(a.s.out)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(a.last), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(a.s.out)
	return err
}

// rows prints a list.
func rows[T any](a *api, head string, list []T, row func(T) []string) error {
	return a.show(func(w io.Writer) error {
		all := make([][]string, len(list))
		for i, x := range list {
			all[i] = row(x)
		}
		return table(w, head, all)
	})
}

// need marks flags of a command that have to be given.
func need(c *cobra.Command, flags ...string) *cobra.Command {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // a command that names a flag it does not have
		}
	}
	return c
}

// findRelease gives a release by its digest or as PRODUCT@VERSION.
func findRelease(ctx context.Context, cl *client.Client, name string) (client.ReleaseView, error) {
	productID, version, ok := strings.Cut(name, "@")
	if !ok {
		if d, err := hex.DecodeString(name); err != nil || len(d) != 32 || strings.ToLower(name) != name {
			return client.ReleaseView{}, usagef("release %q: want its digest, 64 hex digits, or PRODUCT@VERSION; see `hallmark release list`", name)
		}
		return cl.Release(ctx, name)
	}
	all, err := cl.Releases(ctx, productID)
	if err != nil {
		return client.ReleaseView{}, err
	}
	for _, r := range all {
		if r.Manifest.Version == version {
			return cl.Release(ctx, r.Digest)
		}
	}
	return client.ReleaseView{}, fmt.Errorf("product %q has no release of version %q: see `hallmark release list --product %s`", productID, version, productID)
}

// digestOf is findRelease where only the digest is wanted.
func digestOf(ctx context.Context, cl *client.Client, name string) ([]byte, string, error) {
	r, err := findRelease(ctx, cl, name)
	if err != nil {
		return nil, "", err
	}
	d, err := hex.DecodeString(r.Digest)
	return d, r.Digest, err
}

// proven asks for an entry of the ledger until its proof is there: what was written just now is witnessed a moment later.
func proven(ctx context.Context, ask func() (client.Entry, error)) (client.Entry, error) {
	for tries := 0; ; tries++ {
		e, err := ask()
		if c := client.Code(err); c != "ledger.not-yet" && c != "fact.pending" || tries == maxTries {
			return e, err
		}
		select {
		case <-ctx.Done():
			return e, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

const maxTries = 40 // some ten seconds
