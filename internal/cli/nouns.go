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
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/term"

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
		newProduct(a), newRelease(a), newAdvisory(a), newSupply(a), newApprover(a), newMaster(a), newOrder(a), newDesks(a), newChip(a), newEnrolment(a), newDevice(a), newOwner(a), newRecall(a), newQuery(a), newGroup(a), newCertificate(a), newCA(a), newRollout(a), newCommand(a), newFinding(a), newRemedy(a),
		newWarrant(a), newBundle(a), newKey(a), newRetirement(a), newStream(a), newCompliance(a), newFact(a), newEvent(a), newToken(a), newMember(a), newAudit(a), newProposal(a), newVoucher(a), newForeignCA(a), newLegacy(a),
	}
}

// api is the line of one command to an instance.
type api struct {
	s              streams
	url, token, ca string // of flags; token is a file
	cert, key      string // of flags: a machine's certificate and its key
	output         output
	asJSON         bool
	every          time.Duration // of --watch; 0: once
	match          string        // of --if-match
	propose        string        // of --propose
	last           []byte        // body of the last answer
	tag            string        // and its ETag
}

// noun holds verbs over one kind of thing.
func (a *api) noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	a.flags(c)
	c.AddCommand(verbs...)
	return c
}

// flags are those of what talks to an instance.
func (a *api) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.url, "url", "", "address of the instance (else "+envURL+")")
	f.StringVar(&a.token, "token-file", "", "file that holds the access token (else the token in "+envToken+")")
	f.StringVar(&a.ca, "ca", "", "certificate to trust for https, PEM or DER, such as DIR/certs/oem-root.der (default: the system's)")
	f.StringVar(&a.cert, "cert", "", "a machine's client certificate, PEM, bound with hallmark member bind; a token that is given wins")
	f.StringVar(&a.key, "key", "", "its key, PEM")
	f.VarP(&a.output, "output", "o", "table, json and yaml as the API tells it, name: one a line, for other programs, or tag: of one thing, for --if-match; of a report also markdown")
	f.BoolVar(&a.asJSON, "json", false, "the same as --output json")
	f.StringVar(&a.propose, "propose", "", "if it takes a second person, propose it with this reason, and wait until somebody has approved it")
	f.DurationVar(&a.every, "watch", 0, "ask again after this long, until Ctrl-C, such as 2s")
}

// verb is c, doing run over a client.
func (a *api) verb(c cobra.Command, run func(ctx context.Context, cl *client.Client, args []string) error) *cobra.Command {
	if c.Args == nil {
		c.Args = cobra.NoArgs
	}
	c.ValidArgsFunction = a.names(c.Use)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if a.asJSON {
			a.output = asJSON
		}
		cl, err := a.client()
		if err != nil {
			return err
		}
		if a.every == 0 {
			return stranger(run(cmd.Context(), cl, args))
		}
		return a.watch(cmd.Context(), func() error { return stranger(run(cmd.Context(), cl, args)) })
	}
	return &c
}

// bulk asks for the number of devices once more when there are many, because one slip of a shell's expansion is enough.
func bulk(n, confirmed int, what string) error {
	if n > maxUnasked && n != confirmed {
		return usagef("%s of %d devices: say --confirm-count %d if you mean just so many", what, n, n)
	}
	return nil
}

// maxUnasked is how many devices a command may be about without being asked.
const maxUnasked = 5

// minWatch keeps a person at a keyboard from being a load.
const minWatch = 500 * time.Millisecond

// watch does what reads again and again. On a terminal it begins at the top each time.
func (a *api) watch(ctx context.Context, run func() error) error {
	if a.every < minWatch {
		return usagef("--watch %s: at least %s", a.every, minWatch)
	}
	for {
		if f, ok := a.s.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			fmt.Fprint(a.s.out, "\x1b[H\x1b[2J")
		}
		if err := run(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.every):
		}
	}
}

// stranger says to whom the server does not know what to do about it.
func stranger(err error) error {
	if p, ok := errors.AsType[*client.Problem](err); ok && p.Status == http.StatusUnauthorized {
		return fmt.Errorf("the server does not know this token: give a valid one, with --token-file or in %s; `hallmark token create` makes them", envToken)
	}
	if client.Code(err) == "access.four-eyes" {
		return fmt.Errorf("%w: repeat it with --propose 'why', and have another person who may do it run `hallmark proposal approve`", err)
	}
	return err
}

// address is that of the instance; empty when nobody gave one.
func (a *api) address() string {
	if a.url != "" {
		return a.url
	}
	if u := os.Getenv(envURL); u != "" {
		return u
	}
	c, err := loadContexts()
	if err != nil {
		return ""
	}
	return c.Contexts[c.Current].URL
}

// fill takes from the current context what neither flags nor the environment say. Its token is for its address only.
func (a *api) fill() error {
	if a.url != "" || os.Getenv(envURL) != "" {
		return nil
	}
	all, err := loadContexts()
	if err != nil {
		return err
	}
	c := all.Contexts[all.Current]
	if a.token == "" && os.Getenv(envToken) == "" {
		a.token = c.TokenFile
	}
	if a.ca == "" {
		a.ca = c.CA
	}
	if a.cert == "" {
		a.cert, a.key = c.Cert, c.Key
	}
	return nil
}

func (a *api) client() (*client.Client, error) {
	if err := a.fill(); err != nil {
		return nil, err
	}
	base := a.address()
	u, err := url.Parse(base)
	if base == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("address %q: give --url, set %s, or keep one with %s; such as http://127.0.0.1:8480", base, envURL, "`hallmark context add`")
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
	own, err := a.certificate(u)
	if err != nil {
		return nil, err
	}
	if token = strings.TrimSpace(token); token == "" && own == nil {
		return nil, usagef("no access token: give --token-file or set %s; the first one is in DIR/admin.token", envToken)
	}
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	cl := client.New(base, token, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: own})
	cl.OnReply(func(body []byte) { a.last = body })
	cl.OnTag(func(tag string) { a.tag = strings.Trim(tag, `"`) })
	cl = cl.OnlyIf(a.match)
	if a.propose != "" {
		cl = cl.Proposing(a.propose, a.waiting)
	}
	return cl, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// certificate is that of --cert and --key; nil when there is none.
func (a *api) certificate(u *url.URL) ([]tls.Certificate, error) {
	if a.cert == "" && a.key == "" {
		return nil, nil
	}
	if a.cert == "" || a.key == "" {
		return nil, usagef("--cert and --key go together: a certificate, and the key that it is of")
	}
	if u.Scheme != "https" {
		return nil, usagef("address %q: certificates need a console with TLS, and on loopback it has none: use a token, or have it listen on another address (api in config.json)", u.String())
	}
	own, err := tls.LoadX509KeyPair(a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("--cert and --key: %w", err)
	}
	return []tls.Certificate{own}, nil
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

// show prints the last answer: as the API told it, or what text writes for people.
func (a *api) show(text func(w io.Writer) error) error {
	switch a.output {
	case asJSON:
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(a.last), "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := a.s.out.Write(inert(b.Bytes()))
		return err
	case asYAML:
		out, err := yaml.JSONToYAML(a.last)
		if err != nil {
			return err
		}
		_, err = a.s.out.Write(out)
		return err
	case asName:
		return usagef("--output name is for lists")
	case asTag:
		if a.tag == "" {
			return usagef("--output tag: this has none")
		}
		_, err := fmt.Fprintln(a.s.out, oneLine(a.tag))
		return err
	case asCSV:
		return usagef("--output csv is for lists")
	case asMarkdown:
		return usagef("--output markdown is for reports")
	case asTable:
	}
	return text(a.s.out)
}

// rows prints a list.
func rows[T any](a *api, head string, list []T, row func(T) []string) error {
	if a.output == asName {
		for _, x := range list {
			fmt.Fprintln(a.s.out, oneLine(row(x)[0]))
		}
		return nil
	}
	if a.output == asCSV {
		all := make([][]string, len(list))
		for i, x := range list {
			all[i] = row(x)
		}
		return spreadsheet(a.s.out, head, all)
	}
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
	return retried(ctx, ask, "ledger.not-yet", "fact.pending")
}

// retried asks again while the answer is one of these codes: what is asked for is there in a moment.
func retried[T any](ctx context.Context, ask func() (T, error), while ...string) (T, error) {
	for tries := 0; ; tries++ {
		e, err := ask()
		if !slices.Contains(while, client.Code(err)) || tries == maxTries {
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
