package cli

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

func newKey(a *api) *cobra.Command {
	return a.noun("key", "The keys that the running instance signs with", a.listKeys(), a.rotateKey(), a.retireKey(), keyNew(a.s))
}

func needed(k keyring.Key) string {
	if k.Needed == nil {
		return "-"
	}
	return fmt.Sprint(*k.Needed)
}

func (a *api) listKeys() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "list", Short: "List the instance's online keys",
		Long: "Lists the instance's online keys, those that are retired too. NEEDED is how many devices in the field believe no other key of the role.\nThe keys of CAs are not among them: see `hallmark ca list`.",
		Args: cobra.NoArgs, Example: "  hallmark key list",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		keys, err := cl.Keys(ctx)
		if err != nil {
			return err
		}
		return rows(a, "NAME ROLE KEY CREATED RETIRED NEEDED", keys, func(k keyring.Key) []string {
			return []string{k.Name, string(k.Role), k.KID, when(k.Created), when(k.Retired), needed(k)}
		})
	})
}

func (a *api) keySheet(k keyring.Key) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "key", k.Name, "role", string(k.Role), "id", k.KID, "created", when(k.Created), "retired", when(k.Retired))
	})
}

func (a *api) rotateKey() *cobra.Command {
	var suite, reason string
	c := a.verb(cobra.Command{
		Use: "rotate ROLE --reason TEXT", Short: "Make a new online key beside those of its role",
		Long: `Makes a new online key beside those of its role: directive, log-control, log-events, order, server, bucket, desk or supply. The old one goes on for the
devices that believe it. Then publish a trust bundle that names the new one, wait until it has come to the devices, and retire the old:
see docs/guide/trust-bundles.md. Directive and supply keys are used at once, the others from the next start of the server on.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark key rotate directive --reason 'a notebook was stolen'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		k, err := cl.RotateKey(ctx, keyring.Role(args[0]), suite, reason)
		if err != nil {
			return err
		}
		return a.keySheet(k)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().StringVar(&suite, "suite", "", "suite of a directive, order or server key (default HM-P256-1); HM-MLDSA44-1 withstands quantum computers, and TLS has none")
	return need(c, "reason")
}

func (a *api) retireKey() *cobra.Command {
	var force bool
	var reason string
	c := a.verb(cobra.Command{
		Use: "retire KEY --reason TEXT", Short: "Sign nothing with an online key any more",
		Long: `Ends the use of an online key. It is refused while devices in the field believe no other key of its role; with --force, for a key that was
stolen, those devices come back by the signed history of trust bundles. The private part stays in the key directory: destroy it there.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark key retire directive --reason 'every device is on bundle 4'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		k, err := cl.RetireKey(ctx, args[0], force, reason)
		if err != nil {
			return err
		}
		return a.keySheet(k)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().BoolVar(&force, "force", false, "also when devices believe no other")
	return need(c, "reason")
}

// keyNew needs no server, and no network.
func keyNew(s streams) *cobra.Command {
	var pass secret
	var dir, id string
	var iterations int
	c := &cobra.Command{
		Use: "new NAME --dir DIR", Short: "Make an approver's key, offline",
		Long: `Makes a key that signs releases, warrants and trust bundles, on a machine that needs no network: DIR/NAME.key, under the directory's
passphrase, and DIR/NAME.pub, which is public: give it to who writes the next trust bundle (` + "`hallmark bundle payload --add-approver NAME.pub`" + `).
Suites are HM-P256-1, HM-P384-1, and HM-MLDSA44-1, whose signatures (2,420 bytes each) a quantum computer does not forge: see docs/guide/suites.md.`,
		Example: "  hallmark key new approver-dora --dir offline --suite HM-MLDSA44-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := suite.Get(suite.ID(id)); err != nil {
				return usagef("--suite: %v", err)
			}
			public := filepath.Join(dir, args[0]+".pub")
			if _, err := os.Stat(public); err == nil {
				return usagef("%s is there already: choose another name", public)
			}
			_, missing := os.Stat(dir)
			p, err := pass.read(cmd.Context(), s, "the offline keys", missing != nil)
			if err != nil {
				return err
			}
			open := func() (*soft.Store, error) { return soft.Open(dir, p) }
			if missing != nil {
				open = func() (*soft.Store, error) { return soft.Create(dir, p, iterations) }
			}
			store, err := open()
			if err != nil {
				return err
			}
			key, err := store.Generate(args[0], suite.ID(id))
			if err != nil {
				return err
			}
			spki, err := wire.SPKIOf(key.Public())
			if err == nil {
				err = durable.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o644)
			}
			if err != nil {
				return err
			}
			return sheet(s.out, "key", filepath.Join(dir, args[0]+".key"), "suite", id, "id", keyName(spki), "public", public)
		},
	}
	pass.flag(c)
	c.Flags().StringVar(&dir, "dir", "", "directory of offline keys; made when it is not there")
	c.Flags().StringVar(&id, "suite", string(suite.P256), "suite of the key")
	c.Flags().IntVar(&iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase of a new directory")
	_ = c.Flags().MarkHidden("kdf-iterations") // it exists
	_ = c.MarkFlagRequired("dir")              // it exists
	return c
}
