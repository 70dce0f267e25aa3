package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// initCall is what one init was asked for.
type initCall struct {
	dir            string
	pass           secret
	cfg            server.Config
	product        product.Product
	model, endDate string
	managers       []string // [REVISION,...=]FILE
	approvers      []string
	threshold      uint
	iterations     int
	organisation   organisation
	prepare        bool
	finish         string
}

func newInit(s streams) *cobra.Command {
	c := initCall{cfg: server.DefaultConfig(), product: product.Product{ID: "sensor", Name: "Sensor", Suite: string(suite.P256), Hardware: []string{"A"}}}
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a new instance: keys, CAs, logs, a product and its first trust bundle",
		Long: `Makes a data directory with everything a server needs, and in DIR/offline the keys that a server must NOT have: the OEM's root
and one key for each approver. Move DIR/offline to where people keep such things, and away from here.

Keys are kept in files, encrypted under a passphrase: good for a start, not for a fleet you answer for. See docs/threat-model.md. With --keys those of
the CAs are made in a PKCS#11 token from the start.
The passphrase is read from --passphrase-file or the environment variable HALLMARK_PASSPHRASE; else it is asked for on the
terminal, twice.

With --prepare no offline key is ever made here: it writes DIR/request.ceremony, which a key ceremony answers on another machine
(see ` + "`hallmark ceremony plan`" + ` and docs/guide/ceremony.md); --finish with its answer makes the instance.

Everything is checked before anything is written, and what fails leaves nothing behind.`,
		Example: `  hallmark init --dir /var/lib/hallmark --oem acme --product pump --hardware A,B --approvers alice,bob,carol --threshold 2
  hallmark init --dir /var/lib/hallmark --finish request.answer`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, s)
		},
	}
	groups := c.flags()
	for _, g := range groups {
		g.of.Flags().SortFlags = false
		cmd.Flags().AddFlagSet(g.of.Flags())
	}
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return groupedUsage(cmd, groups) })
	_ = cmd.MarkFlagRequired("dir") // it exists
	return cmd
}

// flagGroup is flags that belong together, under a title in the help.
type flagGroup struct {
	title string
	of    *cobra.Command // only holds them
}

func groupedUsage(cmd *cobra.Command, groups []flagGroup) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n\nExample:\n%s\n", cmd.UseLine(), cmd.Example)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.of.Flags().FlagUsages())
	}
	_, err := fmt.Fprint(cmd.OutOrStderr(), b.String())
	return err
}

func (c *initCall) flags() []flagGroup {
	groups := []flagGroup{
		{"Where", &cobra.Command{}},
		{"Maker and first product", &cobra.Command{}},
		{"People", &cobra.Command{}},
		{"Network", &cobra.Command{}},
		{"Devices", &cobra.Command{}},
	}
	where, first, people, net, device := groups[0].of.Flags(), groups[1].of.Flags(), groups[2].of.Flags(), groups[3].of.Flags(), groups[4].of.Flags()

	where.StringVar(&c.dir, "dir", "", "data directory to make; empty, or not there yet (required)")
	where.StringVar(&c.cfg.DB, "db", "", "keep what it knows in this empty PostgreSQL database, postgres://user@host/name, and not in DIR;\nthe password comes from PGPASSWORD or PGPASSFILE")
	c.pass.flag(groups[0].of)
	where.IntVar(&c.iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = where.MarkHidden("kdf-iterations") // it exists
	where.StringVar(&c.cfg.CAToken, "keys", "", "make the keys of the CAs in this PKCS#11 token, which they never leave:\npkcs11:token=LABEL?module-path=LIBRARY&pin-source=FILE; without pin-source the PIN is in HALLMARK_PIN, or asked for (default: in files)")
	where.BoolVar(&c.prepare, "prepare", false, "make the online half only, and a request for a key ceremony")
	where.StringVar(&c.finish, "finish", "", "make the instance that waits in DIR for this answer of its ceremony")

	first.StringVar(&c.cfg.OEM, "oem", c.cfg.OEM, "the maker, as it stands in certificates")
	first.StringVar(&c.product.ID, "product", c.product.ID, "first product's ID")
	first.StringVar(&c.product.Name, "product-name", c.product.Name, "its name")
	first.StringSliceVar(&c.product.Hardware, "hardware", c.product.Hardware, "its hardware revisions")
	first.StringVar(&c.model, "model", string(wire.ModelBlob), "its update model: otp, blob or asset")
	first.StringVar(&c.product.Suite, "suite", c.product.Suite, "its cryptographic suite")
	first.StringArrayVar(&c.managers, "boot-manager", nil, "[REVISION,...=]FILE: hallmark-agent that its devices may start by, and no other; again for several (default: any)")
	first.StringVar(&c.endDate, "end-of-support", "", "day its support ends, YYYY-MM-DD (default five years from now)")

	people.StringSliceVar(&c.approvers, "approvers", []string{"alice", "bob", "carol"}, "who approves releases, warrants and trust bundles")
	people.UintVar(&c.threshold, "threshold", 2, "how many of them must agree")

	c.organisation.flags(groups[2].of, "oidc-")

	net.StringVar(&c.cfg.Instance, "instance", c.cfg.Instance, "name of the instance; the logs' origins begin with it")
	net.StringVar(&c.cfg.API, "api", c.cfg.API, "console and API listen here, host:port")
	net.StringVar(&c.cfg.Devices, "devices", c.cfg.Devices, "devices are served here, host:port")
	net.StringSliceVar(&c.cfg.Names, "names", c.cfg.Names, "DNS names and addresses devices reach it by")

	device.IntVar(&c.cfg.PollMS, "poll-ms", c.cfg.PollMS, "how often an idle device checks in, milliseconds")
	device.IntVar(&c.cfg.AttestS, "attest-s", c.cfg.AttestS, "how often a device must attest, seconds")
	device.BoolVar(&c.cfg.Virtual, "allow-virtual", false, "accept virtual devices: for trials, never for production")
	return groups
}

func (c *initCall) options() (server.InitOptions, error) {
	now := time.Now().UTC()
	c.product.Model, c.product.OEM = wire.UpdateModel(c.model), c.cfg.OEM
	c.product.EndOfSupport = now.AddDate(5, 0, 0).Truncate(24 * time.Hour)
	if c.endDate != "" {
		day, err := time.Parse(time.DateOnly, c.endDate)
		if err != nil {
			return server.InitOptions{}, usagef("end of support %q: want a day as YYYY-MM-DD", c.endDate)
		}
		c.product.EndOfSupport = day
	}
	if c.organisation.Issuer != "" {
		c.cfg.OIDC = &c.organisation.OIDC
	}
	secret, err := c.organisation.secret()
	if err != nil {
		return server.InitOptions{}, err
	}
	o := server.InitOptions{OIDCSecret: secret, Config: c.cfg, Product: c.product, Approvers: c.approvers, Threshold: c.threshold, Now: now}
	for _, text := range c.managers {
		m, err := bootManager(text)
		if err != nil {
			return o, err
		}
		o.BootManagers = append(o.BootManagers, m)
	}
	if err := o.Check(); err != nil {
		return o, usageError{err}
	}
	if c.dir == "" {
		return o, usagef("--dir is empty: name the data directory")
	}
	return o, nil
}

func (c *initCall) run(cmd *cobra.Command, s streams) error {
	if c.finish != "" {
		return c.end(cmd, s)
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	l := server.Layout{Dir: c.dir}
	if err := l.Vacant(); err != nil {
		return err
	}
	pass, err := c.pass.read(cmd.Context(), s, "the new keys", true)
	if err != nil {
		return err
	}
	if c.prepare {
		return c.begin(cmd.Context(), s, l, o, pass)
	}
	made, err := c.make(cmd.Context(), s, pass, func(vault func(string) (server.Vault, error)) (server.Made, error) {
		return server.Make(cmd.Context(), l, o, vault)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, `Made %s for product %q.

  OEM root     %s
  trust bundle %s  (%d of %d approvers)

%s. Move %s away now: it holds the OEM root and the approvers' keys.
The first administrator signs in here, once, within a day, and adds a passkey:

  %s

For programs there is a token in %s.

Next: hallmark serve --dir %s
`, c.dir, c.product.ID, server.Fingerprint(made.Root), server.Fingerprint(made.Bundle), c.threshold, len(c.approvers), whereKeysAre(o.Config), l.Offline(), made.SignIn, l.AdminToken(), c.dir)
	return nil
}

func whereKeysAre(cfg server.Config) string {
	if cfg.CAToken == "" {
		return "Soft keys: encrypted files, for a start"
	}
	return "The keys of the CAs are in the token, all others in encrypted files"
}

// make has an instance, or its online half, made with keys in new directories; those of the CAs are in the token that was named. Where it fails, what was
// made in the token is destroyed.
func (c *initCall) make(ctx context.Context, s streams, pass string, do func(vault func(dir string) (server.Vault, error)) (server.Made, error)) (made server.Made, err error) {
	var first server.Vault // of the online keys; that of the offline keys comes after it
	end := func() error { return nil }
	defer func() {
		if d, ok := first.(*divided); ok && err != nil {
			err = errors.Join(err, d.undo(context.WithoutCancel(ctx)))
		}
		err = errors.Join(err, end())
	}()
	return do(func(dir string) (v server.Vault, err error) {
		files := func() (*soft.Store, error) { return soft.Create(dir, pass, c.iterations) }
		if first != nil {
			return files()
		}
		first, end, err = online(ctx, s, c.cfg.CAToken, files)
		return first, err
	})
}
