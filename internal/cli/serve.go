package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

const envPassphrase = "HALLMARK_PASSPHRASE"

// passphrase comes from a file descriptor's file, the environment, or the terminal; never from an argument, which others can see.
func passphrase(s streams, file, prompt string) (string, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("passphrase: %w", err)
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	if p, ok := os.LookupEnv(envPassphrase); ok {
		return p, nil
	}
	in, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usagef("a passphrase is needed: give --passphrase-file FILE (or /dev/fd/N), set %s, or use a terminal", envPassphrase)
	}
	fmt.Fprint(s.err, prompt)
	p, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(s.err)
	return string(p), err
}

func newInit(s streams) *cobra.Command {
	cfg := server.DefaultConfig()
	var dir, passFile, model string
	var approvers []string
	var threshold uint
	var iterations int
	p := product.Product{ID: "sensor", Name: "Sensor", Suite: "HM-P256-1", Hardware: []string{"A"}}
	cmd := &cobra.Command{
		Use:   "init --dir DIR",
		Short: "Make a new instance: keys, CAs, logs, a product and its first trust bundle",
		Long: `Makes a data directory with everything a server needs, and in DIR/offline the keys that a server must NOT have: the OEM's root
and one key for each approver. Move DIR/offline to where people keep such things, and away from here.

Keys are kept in files, encrypted under the passphrase: good for a start, not for a fleet you answer for. See docs/threat-model.md.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pass, err := passphrase(s, passFile, "passphrase for the new keys: ")
			if err != nil {
				return err
			}
			l := server.Layout{Dir: dir}
			p.Model, p.OEM = wire.UpdateModel(model), cfg.OEM
			if p.EndOfSupport.IsZero() {
				p.EndOfSupport = time.Now().AddDate(5, 0, 0).UTC().Truncate(24 * time.Hour)
			}
			online, err := soft.Create(l.Keys(), pass, iterations)
			if err != nil {
				return err
			}
			offline, err := soft.Create(l.Offline(), pass, iterations)
			if err != nil {
				return err
			}
			made, err := server.Init(cmd.Context(), l, server.InitOptions{
				Config: cfg, Product: p, Approvers: approvers, Threshold: threshold, Online: online, Offline: offline, Now: time.Now().UTC(),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(s.out, `Made %s for product %q.

  OEM root     %s
  trust bundle %s  (%d of %d approvers)

Soft keys: encrypted files, for a start. Move %s away now: it holds the OEM root and the approvers' keys.
The first administrator's token is in %s.

Next: hallmark serve --dir %s
`, dir, p.ID, server.Fingerprint(made.Root), server.Fingerprint(made.Bundle), threshold, len(approvers), l.Offline(), l.AdminToken(), dir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "data directory to make (required)")
	f.StringVar(&passFile, "passphrase-file", "", "file that holds the passphrase")
	f.StringVar(&cfg.Instance, "instance", cfg.Instance, "name of the instance; the logs' origins begin with it")
	f.StringVar(&cfg.OEM, "oem", cfg.OEM, "the maker, as it stands in certificates")
	f.StringVar(&cfg.API, "api", cfg.API, "console and API listen here")
	f.StringVar(&cfg.Devices, "devices", cfg.Devices, "devices are served here")
	f.StringSliceVar(&cfg.Names, "names", cfg.Names, "DNS names and addresses devices reach it by")
	f.IntVar(&cfg.PollMS, "poll-ms", cfg.PollMS, "how often an idle device checks in, milliseconds")
	f.IntVar(&cfg.AttestS, "attest-s", cfg.AttestS, "how often a device must attest, seconds")
	f.BoolVar(&cfg.Virtual, "allow-virtual", false, "accept virtual devices: for trials, never for production")
	f.StringVar(&p.ID, "product", p.ID, "first product's ID")
	f.StringVar(&p.Name, "product-name", p.Name, "its name")
	f.StringSliceVar(&p.Hardware, "hardware", p.Hardware, "its hardware revisions")
	f.StringVar(&model, "model", string(wire.ModelBlob), "its update model: otp, blob or asset")
	f.StringSliceVar(&approvers, "approvers", []string{"alice", "bob", "carol"}, "people who approve releases, warrants and trust bundles")
	f.UintVar(&threshold, "threshold", 2, "how many of them must agree")
	f.IntVar(&iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = f.MarkHidden("kdf-iterations")
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

func newServe(s streams) *cobra.Command {
	var dir, passFile string
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Run the instance in a data directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := server.Layout{Dir: dir}
			if _, err := server.LoadConfig(l); err != nil {
				return err
			}
			pass, err := passphrase(s, passFile, "passphrase: ")
			if err != nil {
				return err
			}
			keys, err := soft.Open(l.Keys(), pass)
			if err != nil {
				return err
			}
			inst, err := server.Open(cmd.Context(), l, keys, logger(s.err, asJSON, verbose))
			if err != nil {
				return err
			}
			out := bufio.NewWriter(s.out)
			err = inst.Run(cmd.Context(), func(api, devices string) {
				fmt.Fprintf(out, "console and API  %s\ndevices          %s\n", api, devices)
				_ = out.Flush() // nobody reads: the addresses are in config.json too
			})
			return errors.Join(err, inst.Close())
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "data directory (required)")
	f.StringVar(&passFile, "passphrase-file", "", "file that holds the passphrase")
	f.BoolVar(&asJSON, "log-json", false, "log JSON")
	f.BoolVar(&verbose, "verbose", false, "log everything")
	_ = cmd.MarkFlagRequired("dir")
	return cmd
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
