// Package server composes an instance: it opens what is in a data directory, wires stages to stores, adapters to stages, and
// runs the loops.
//
// Over all stages: the one place that knows them all. It decides nothing itself; reactions.go is the table of what follows from
// which fact.
package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/oidc"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
)

// Layout is where things are in a data directory.
type Layout struct {
	Dir string
	DB  string // instead of the database that config.json names; empty: that
}

// Config is the instance's settings.
func (l Layout) Config() string { return filepath.Join(l.Dir, "config.json") }

// Database is the SQLite file.
func (l Layout) Database() string { return filepath.Join(l.Dir, "hallmark.db") }

// Blobs holds artifacts by digest.
func (l Layout) Blobs() string { return filepath.Join(l.Dir, "blobs") }

// Keys holds the keys of the running server.
func (l Layout) Keys() string { return filepath.Join(l.Dir, "keys") }

// Offline holds the keys that must leave the machine.
func (l Layout) Offline() string { return filepath.Join(l.Dir, "offline") }

// Logs holds the exported logs.
func (l Layout) Logs() string { return filepath.Join(l.Dir, "log") }

// Witness is what a witness of this process remembers of a log.
func (l Layout) Witness(name, log string) string {
	return filepath.Join(l.Dir, "witness", name, log+".json")
}

// Cert is one of the instance's certificates (DER).
func (l Layout) Cert(name string) string { return filepath.Join(l.Dir, "certs", name+".der") }

// AdminToken is the first administrator's token.
func (l Layout) AdminToken() string { return filepath.Join(l.Dir, "admin.token") }

// OIDCSecret is the secret that this instance has with the organisation's sign-in.
func (l Layout) OIDCSecret() string { return filepath.Join(l.Dir, "oidc.secret") }

// Config is an instance's config.json. Unknown members are refused.
type Config struct {
	Instance  string          `json:"instance"`   // DNS-like name; the logs' origins begin with it
	OEM       string          `json:"oem"`        // the maker, as it stands in certificates
	API       string          `json:"api"`        // console and API, host:port; beyond loopback it is TLS
	Devices   string          `json:"devices"`    // devices, host:port: TLS, client certificates mandatory
	Names     []string        `json:"names"`      // DNS names and addresses by which devices and people reach it
	Witnesses []WitnessConfig `json:"witnesses"`  // a name: one run in this process; {"url": …, "keys": [verifier keys]}: one elsewhere
	Quorum    int             `json:"quorum"`     // how many must cosign
	MaxAge    int             `json:"max_age_s"`  // how old a checkpoint's cosignatures may be on a device, seconds
	PollMS    int             `json:"poll_ms"`    // how often a device with nothing to do checks in, milliseconds
	LDevID    int             `json:"ldevid_h"`   // life of a device's operational certificate, hours
	AttestS   int             `json:"attest_s"`   // how often a device must attest, seconds
	Virtual   bool            `json:"virtual_ok"` // accept virtual devices: for trials, never for production

	OIDC *OIDC  `json:"oidc,omitempty"` // the organisation's sign-in; left out: none
	DB   string `json:"db,omitempty"`   // PostgreSQL (postgres://user@host/name), without a password; left out: a file in the data directory

	AuditDays int `json:"audit_days,omitempty"` // how long denials are kept; left out: 90
	AuditMax  int `json:"audit_max,omitempty"`  // how many at most; left out: 100000

	CA      string `json:"ca,omitempty"`       // unix:/path of the socket of `hallmark ca serve`, which holds the CAs' keys; left out: they are with the others
	CAToken string `json:"ca_token,omitempty"` // PKCS#11 URI (RFC 7512) of the token that has the CAs' keys; left out: they are in files

	CRL    string `json:"crl,omitempty"`    // http://host[:port] that stands in certificates, where lists of revocations are served; left out: of `names` and `public`
	Public string `json:"public,omitempty"` // what is signed anyhow (lists of revocations), host:port, over plain HTTP; left out: only where people reach it

	Legacy *Legacy `json:"legacy,omitempty"` // where clients of other update systems come; left out: nowhere

	Artifacts string `json:"artifacts,omitempty"` // address of the bucket that artifacts are kept in, s3://…, which all nodes share; left out: blobs/ in the data directory

	Export []string `json:"export,omitempty"` // where the logs are published: "files" and addresses of buckets, s3://…; left out: files
}

// OIDC is an organisation's sign-in (OpenID Connect). The client's secret, if it has one, is in the file oidc.secret beside.
type OIDC struct {
	Issuer string `json:"issuer"`         // exactly as the provider calls itself
	Client string `json:"client"`         // the client ID that it gave this instance
	Name   string `json:"name,omitempty"` // as people know it: "Acme"
}

// label is what the sign-in is called on its button.
func (o OIDC) label() string {
	if o.Name != "" {
		return o.Name
	}
	return "your organisation"
}

func (o OIDC) check() error {
	if err := oidc.CheckIssuer(o.Issuer); err != nil {
		return err
	}
	if o.Client == "" || len(o.Client) > 255 || len(o.Name) > 64 {
		return errors.New("oidc: a client ID is needed, of at most 255 bytes, and a name of at most 64")
	}
	return nil
}

// The bounds of what is kept of denials.
const (
	defaultAuditDays = 90
	defaultAuditMax  = 100_000
)

func (c Config) auditBounds() (days, most int) {
	days, most = c.AuditDays, c.AuditMax
	if days == 0 {
		days = defaultAuditDays
	}
	if most == 0 {
		most = defaultAuditMax
	}
	return days, most
}

// DefaultConfig is what init writes when it is told nothing else.
func DefaultConfig() Config {
	return Config{
		Instance: "hallmark.local", OEM: "example-devices", API: "127.0.0.1:8480", Devices: "127.0.0.1:8443",
		Names: []string{"localhost", "127.0.0.1"}, Witnesses: []WitnessConfig{{Name: "witness-1"}, {Name: "witness-2"}}, Quorum: 2,
		MaxAge: 24 * 3600, PollMS: 60_000, LDevID: 14 * 24, AttestS: 3600,
	}
}

func (c Config) check() error {
	switch {
	case c.Instance == "" || c.OEM == "":
		return errors.New("instance and oem must be named")
	case c.API == "" || c.Devices == "" || len(c.Names) == 0:
		return errors.New("api, devices and names must be given")
	case c.MaxAge < 1 || c.PollMS < 1 || c.LDevID < 1 || c.AttestS < 1:
		return errors.New("max_age_s, poll_ms, ldevid_h and attest_s must be at least 1")
	case c.AuditDays < 0 || c.AuditMax < 0 || c.AuditMax > 0 && c.AuditMax < 1000:
		return errors.New("audit_days must be at least 1, and audit_max at least 1000")
	case c.OIDC != nil:
		if err := c.OIDC.check(); err != nil {
			return err
		}
	}
	if c.Legacy != nil {
		if err := c.Legacy.check(); err != nil {
			return err
		}
	}
	return errors.Join(c.checkWitnesses(), c.checkExport(), c.checkArtifacts(), c.checkPublic(), postgres.CheckAddress(c.DB))
}

// caSocket is the path of the CA's socket.
func (c Config) caSocket() string { return strings.TrimPrefix(c.CA, "unix:") }

func (c Config) checkPublic() error {
	if c.CA != "" && (!strings.HasPrefix(c.CA, "unix:/") || len(c.CA) > 100) {
		return fmt.Errorf("ca %q: want unix: and the absolute path of the socket that `hallmark ca serve` listens on, at most 95 characters", c.CA)
	}
	if c.CAToken != "" {
		if u, err := pkcs11.ParseURI(c.CAToken); err != nil || u.Object != "" || c.CA != "" {
			return errors.Join(err, fmt.Errorf("ca_token %q: want the URI of a token, and no other process (ca) that has the CAs' keys", c.CAToken))
		}
	}
	if c.Public != "" {
		if err := checkAddress("public", c.Public); err != nil {
			return err
		}
	}
	if u, err := url.Parse(c.CRL); err != nil || c.CRL != "" && (u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(c.CRL, "/")) {
		return fmt.Errorf("crl %q: want http://host or http://host:port, without a slash at the end; it cannot be https, because who checks a certificate would have to check another first", c.CRL)
	}
	return nil
}

// publicBase is the address that stands in certificates for lists of revocations; empty: none does. It stands there for as long as a
// certificate is valid, so a port that is chosen anew at each start is none.
func (c Config) publicBase() string {
	if c.CRL != "" {
		return c.CRL
	}
	address := c.Public
	if address == "" && c.loopback() {
		address = c.API
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return ""
	}
	for _, name := range append(slices.Clone(c.Names), "localhost") {
		if net.ParseIP(name) == nil {
			if port == "80" {
				return "http://" + name
			}
			return "http://" + net.JoinHostPort(name, port)
		}
	}
	return ""
}

func (c Config) poll() time.Duration { return time.Duration(c.PollMS) * time.Millisecond }

// LoadConfig reads config.json.
func LoadConfig(l Layout) (Config, error) {
	data, err := os.ReadFile(l.Config())
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%s is not a data directory of hallmark; `hallmark init --dir %s` makes one", l.Dir, l.Dir)
	}
	if err != nil {
		return Config{}, err
	}
	var c Config
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("%s is damaged or has a member this version does not know: %w", l.Config(), err)
	}
	if l.DB != "" {
		c.DB = l.DB
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", l.Config(), err)
	}
	return c, nil
}

func (c Config) save(l Layout) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(l.Config(), append(data, '\n'), 0o600)
}
