package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// dbUsage describes --db of whatever opens an instance's database itself.
const dbUsage = "PostgreSQL database, postgres://user@host/name, instead of the one in config.json; the password comes from PGPASSWORD or PGPASSFILE"

// serveCall is what one serve was asked for.
type serveCall struct {
	dir, db         string
	pass            secret
	asJSON, verbose bool
}

func newServe(s streams) *cobra.Command {
	var c serveCall
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Run the instance in a data directory",
		Long: `Runs the instance in a data directory, until Ctrl-C or SIGTERM. One process at a time uses a directory.

Several nodes may serve one instance from one PostgreSQL database: each has a data directory of its own, with the same keys and
certificates, and DIR/blobs, where artifacts are, is one and the same to all, or a bucket ("artifacts" in config.json). What only one is to do at a time, one does.

Addresses and everything else are in DIR/config.json. The passphrase of the keys is read from --passphrase-file or the environment
variable HALLMARK_PASSPHRASE; else it is asked for on the terminal.`,
		Example: `  hallmark serve --dir /var/lib/hallmark --passphrase-file /run/credentials/hallmark`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", "", "data directory (required)")
	f.StringVar(&c.db, "db", "", dbUsage)
	c.pass.flag(cmd)
	f.BoolVar(&c.asJSON, "log-json", false, "log JSON")
	f.BoolVar(&c.verbose, "verbose", false, "log everything")
	_ = cmd.MarkFlagRequired("dir") // it exists
	return cmd
}

func (c serveCall) run(cmd *cobra.Command, s streams) (err error) {
	l := server.Layout{Dir: c.dir, DB: c.db}
	cfg, err := server.LoadConfig(l)
	if err != nil {
		return err
	}
	if err := cfg.CheckAddresses(); err != nil {
		return fmt.Errorf("%s: %w", l.Config(), err)
	}
	unlock, err := l.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if names, err := os.ReadDir(l.Offline()); err == nil && len(names) > 0 {
		fmt.Fprintf(s.err, "hallmark: WARNING: %s, with the OEM root and the approvers' keys, is still on this machine: whoever takes the server takes them too;"+
			" move it to where people keep such things\n", l.Offline())
	}
	pass, err := c.pass.read(cmd.Context(), s, "the server's keys", false)
	if err != nil {
		return err
	}
	keys, end, err := online(cmd.Context(), s, cfg.CAToken, func() (*soft.Store, error) { return soft.Open(l.Keys(), pass) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	inst, err := server.Open(cmd.Context(), l, keys, logger(s.err, c.asJSON, c.verbose))
	if err != nil {
		return err
	}
	err = inst.Run(cmd.Context(), func(api, devices string) {
		// In one write, because who reads the addresses may read no further.
		fmt.Fprintf(s.out, "console and API  %s\ndevices          %s\n%s", api, devices, signIn(l, reachable(api, cfg.Names)))
	})
	return errors.Join(server.ExplainListen(err), inst.Close())
}

// reachable is an address that others can call: one that listens everywhere is called by the instance's first name.
func reachable(api string, names []string) string {
	u, err := url.Parse(api)
	if err != nil || len(names) == 0 {
		return api
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		u.Host = net.JoinHostPort(names[0], u.Port())
	}
	return u.String()
}

// signIn tells how a person gets in.
func signIn(l server.Layout, api string) string {
	if _, err := os.Stat(l.AdminToken()); err != nil {
		return fmt.Sprintf("sign in          at %s/login with a token; `hallmark token link` makes a link that works once\n", api)
	}
	ca := ""
	if strings.HasPrefix(api, "https:") {
		ca = " --ca " + l.Cert("oem-root")
	}
	return fmt.Sprintf(`sign in          at %s/login with the token in %s,
                 or by a link that works once: hallmark token link --url %s --token-file %s%s
`, api, l.AdminToken(), api, l.AdminToken(), ca)
}

func logger(w io.Writer, asJSON, verbose bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
