package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
)

func newWitness(s streams) *cobra.Command {
	c := &cobra.Command{Use: "witness", Short: "Watch over logs of others, and cosign what only grows"}
	c.AddCommand(initWitness(s), witnessKeys(s), witnessLogs(s), serveWitness(s))
	return c
}

// witnessDir is the flag for the directory of a witness.
func witnessDir(c *cobra.Command, dir *witnessd.Dir) {
	c.Flags().StringVar(&dir.Path, "dir", "", "directory of the witness")
}

func initWitness(s streams) *cobra.Command {
	var dir witnessd.Dir
	var name string
	var pass secret
	var iterations int
	c := &cobra.Command{
		Use: "init --dir DIR --name NAME", Short: "Make the keys of a new witness",
		Long: `Makes the keys of a witness in a new directory, and prints its verifier keys: an Ed25519 key, which devices verify, and an ML-DSA-44
key, which is safe against quantum computers. Whoever is to believe the witness needs them. The name stands in every cosignature; it
should be an address of whoever runs it, without https:// in front.`,
		Example: "  hallmark witness init --dir /var/lib/hallmark-witness --name witness.example.com/w1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := witnessd.CheckName(name); err != nil {
				return usageError{err}
			}
			if _, err := dir.Load(); err == nil {
				return fmt.Errorf("%s holds a witness already: choose another directory", dir.Path)
			}
			phrase, err := pass.read(cmd.Context(), s, "the witness's keys", true)
			if err != nil {
				return err
			}
			if err := durable.MkdirAll(dir.Path, 0o700); err != nil {
				return err
			}
			keys, err := soft.Create(dir.Keys(), phrase, iterations)
			if err != nil {
				return err
			}
			made, err := dir.Init(name, keys)
			if err != nil {
				return err
			}
			return printKeys(s, made.Keys)
		},
	}
	witnessDir(c, &dir)
	f := c.Flags()
	f.StringVar(&name, "name", "", "the witness's name in its cosignatures")
	pass.flag(c)
	f.IntVar(&iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = f.MarkHidden("kdf-iterations") // it exists
	return need(c, "dir", "name")
}

// printKeys prints verifier keys, one a line: the form in which they are passed on.
func printKeys(s streams, keys []ledger.VerifierKey) error {
	for _, k := range keys {
		if _, err := fmt.Fprintln(s.out, k); err != nil {
			return err
		}
	}
	return nil
}

func witnessKeys(s streams) *cobra.Command {
	var dir witnessd.Dir
	c := &cobra.Command{
		Use: "keys --dir DIR", Short: "Print the witness's verifier keys", Args: cobra.NoArgs,
		Example: "  hallmark witness keys --dir /var/lib/hallmark-witness",
		RunE: func(*cobra.Command, []string) error {
			known, err := dir.Load()
			if err != nil {
				return err
			}
			return printKeys(s, known.Keys)
		},
	}
	witnessDir(c, &dir)
	return need(c, "dir")
}

func witnessLogs(s streams) *cobra.Command {
	c := &cobra.Command{Use: "log", Short: "The logs that the witness knows"}
	c.AddCommand(addWitnessLog(s), listWitnessLogs(s), removeWitnessLog(s))
	return c
}

// change runs what changes a directory while no witness runs over it.
func change(dir witnessd.Dir, do func() error) (err error) {
	if _, err := dir.Load(); err != nil {
		return err
	}
	unlock, err := server.Layout{Dir: dir.Path}.Lock()
	if err != nil {
		return fmt.Errorf("%w; a witness reads its logs when it starts", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do()
}

func addWitnessLog(s streams) *cobra.Command {
	var dir witnessd.Dir
	c := &cobra.Command{
		Use: "add KEY [ORIGIN] --dir DIR", Short: "Make a log known by its verifier key",
		Long: `Makes a log known, from the next start of ` + "`hallmark witness serve`" + `. KEY is its verifier key, NAME+HASH+KEY, as ` + "`hallmark log keys`" + `
prints it; the witness's operator gets it from whoever runs the log. ORIGIN is the first line of its checkpoints, where that is not
the name in the key. A second key of the same log is known beside the first.`,
		Example: "  hallmark witness log add --dir /var/lib/hallmark-witness 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k'",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := ledger.ParseVerifierKey(args[0])
			if err != nil {
				return usageError{err}
			}
			origin := key.Name
			if len(args) == 2 {
				origin = args[1]
			}
			if err := change(dir, func() error { return dir.AddLog(origin, key) }); err != nil {
				return err
			}
			return sheet(s.out, "known", origin, "next", "start hallmark witness serve anew")
		},
	}
	witnessDir(c, &dir)
	return need(c, "dir")
}

func listWitnessLogs(s streams) *cobra.Command {
	var dir witnessd.Dir
	c := &cobra.Command{
		Use: "list --dir DIR", Short: "List the logs that are known", Args: cobra.NoArgs,
		Example: "  hallmark witness log list --dir /var/lib/hallmark-witness",
		RunE: func(*cobra.Command, []string) error {
			known, err := dir.Load()
			if err != nil {
				return err
			}
			for _, l := range known.Logs {
				for _, k := range l.Keys {
					if _, err := fmt.Fprintf(s.out, "%s\t%s\n", l.Origin, k); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	witnessDir(c, &dir)
	return need(c, "dir")
}

func removeWitnessLog(s streams) *cobra.Command {
	var dir witnessd.Dir
	c := &cobra.Command{
		Use: "remove ORIGIN --dir DIR", Short: "Cosign nothing more of a log",
		Long: `Makes a log unknown, from the next start of ` + "`hallmark witness serve`" + `. What is remembered of it stays: added again, it has to go on from
there.`,
		Example: "  hallmark witness log remove --dir /var/lib/hallmark-witness example.com/foo",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := change(dir, func() error { return dir.RemoveLog(args[0]) }); err != nil {
				return err
			}
			return sheet(s.out, "removed", args[0], "next", "start hallmark witness serve anew")
		},
	}
	witnessDir(c, &dir)
	return need(c, "dir")
}

// serveWitnessCall is what one `witness serve` was asked for.
type serveWitnessCall struct {
	dir             witnessd.Dir
	pass            secret
	listen          string
	cert, key       string
	rate            float64
	asJSON, verbose bool
}

func serveWitness(s streams) *cobra.Command {
	var c serveWitnessCall
	cmd := &cobra.Command{
		Use: "serve --dir DIR", Short: "Cosign what known logs send",
		Long: `Serves the witness until Ctrl-C or SIGTERM: POST /add-checkpoint and GET /HASH/checkpoint after c2sp.org/tlog-witness, and /healthz.
It cosigns a checkpoint of a log it knows when it extends what it has cosigned of it, and stores that first. It refuses to start when
what it remembers is damaged or missing.

Logs need no TLS, since they verify what they are answered; give --tls-cert and --tls-key for it, or put a proxy in front. A renewed
certificate is taken up by itself.`,
		Example: "  hallmark witness serve --dir /var/lib/hallmark-witness --listen 0.0.0.0:8490 --passphrase-file /run/credentials/witness",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (c.cert == "") != (c.key == "") {
				return usagef("give --tls-cert and --tls-key together")
			}
			return c.run(cmd, s)
		},
	}
	witnessDir(cmd, &c.dir)
	c.pass.flag(cmd)
	f := cmd.Flags()
	f.StringVar(&c.listen, "listen", "127.0.0.1:8490", "address to serve, host:port")
	f.StringVar(&c.cert, "tls-cert", "", "certificate chain (PEM)")
	f.StringVar(&c.key, "tls-key", "", "its private key (PEM)")
	f.Float64Var(&c.rate, "rate", 10, "checkpoints a second of one log, at most")
	f.BoolVar(&c.asJSON, "log-json", false, "log JSON")
	f.BoolVar(&c.verbose, "verbose", false, "log everything")
	return need(cmd, "dir")
}

func (c serveWitnessCall) run(cmd *cobra.Command, s streams) (err error) {
	if _, err := c.dir.Load(); err != nil {
		return err
	}
	unlock, err := server.Layout{Dir: c.dir.Path}.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	pass, err := c.pass.read(cmd.Context(), s, "the witness's keys", false)
	if err != nil {
		return err
	}
	keys, err := soft.Open(c.dir.Keys(), pass)
	if err != nil {
		return err
	}
	w, known, err := c.dir.Open(cmd.Context(), keys, c.rate)
	if err != nil {
		return err
	}
	log := logger(s.err, c.asJSON, c.verbose)
	if len(known.Logs) == 0 {
		log.WarnContext(cmd.Context(), "no log is known: see `hallmark witness log add`")
	}
	err = witnessd.Serve(cmd.Context(), witnessd.Listen{Address: c.listen, Cert: c.cert, Key: c.key},
		witnessd.Handler(witnessd.Config{Witness: w, Origins: known.Origins(), Log: log}), log, func(url string) {
			fmt.Fprintf(s.out, "witness %s\nserves  %s\nlogs    %s\n", w.Name(), url, strings.Join(known.Origins(), ", "))
		})
	return server.ExplainListen(err)
}
