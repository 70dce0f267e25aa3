package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

func newOwner(a *api) *cobra.Command {
	return a.noun("owner", "Whom devices belong to once they have left the maker", a.listOwners(), a.createOwner(), a.showOwner(), a.endOwner(), ownerKey(a.s))
}

func (a *api) listOwners() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List owners, by ID", Example: "  hallmark owner list"}, "ID NAME DEVICES CREATED ENDED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]owner.Owner, error) { return cl.Owners(ctx) },
		func(o owner.Owner) []string {
			return []string{o.ID, o.Name, fmt.Sprint(o.Devices), when(o.Created), when(o.Ended)}
		})
}

func (a *api) owner(o owner.Owner) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "owner", o.ID, "name", o.Name, "devices", fmt.Sprint(o.Devices), "created", when(o.Created), "ended", when(o.Ended))
	})
}

func (a *api) createOwner() *cobra.Command {
	var name string
	c := a.verb(cobra.Command{
		Use: "create --name NAME", Short: "Make an owner",
		Long: `Makes an owner. Its ID is made up by chance, because facts hold it; the name is kept in private. Its people are members with --owner:
they see and command what the owner has, and nothing else.`,
		Example: "  hallmark owner create --name 'Berlin clinic'",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		o, err := cl.CreateOwner(ctx, name)
		if err != nil {
			return err
		}
		return a.owner(o)
	})
	c.Flags().StringVar(&name, "name", "", "what people call it")
	return need(c, "name")
}

func (a *api) showOwner() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show OWNER", Short: "Show an owner", Args: cobra.ExactArgs(1), Example: "  hallmark owner show o-4k2m7zq3x5nd",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		o, err := cl.Owner(ctx, args[0])
		if err != nil {
			return err
		}
		return a.owner(o)
	})
}

func (a *api) endOwner() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "end OWNER", Short: "End an owner that has no devices any more", Long: "Ends an owner that has no devices any more: its members can do nothing from then on.",
		Args: cobra.ExactArgs(1), Example: "  hallmark owner end o-4k2m7zq3x5nd",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		o, err := cl.EndOwner(ctx, args[0])
		if err != nil {
			return err
		}
		return a.owner(o)
	})
}

// ownerKeyName is the key's name in its directory, and ownerPublic the file of its public half.
const (
	ownerKeyName = "owner"
	ownerPublic  = "owner.spki"
)

// ownerKey needs no server: the key is the owner's alone.
func ownerKey(s streams) *cobra.Command {
	var pass secret
	var dir string
	var iterations int
	c := &cobra.Command{
		Use: "key --dir DIR", Short: "Make an owner's key",
		Long: `Makes an owner's key: DIR/owner.key, under a passphrase, and DIR/owner.spki, which is public and goes with a claim. A device that was claimed
with it lets go only by a warrant of that key, or of the product's warrant keys: whoever has the server cannot hand it on. Keep DIR where the
server is not, and a copy of it: when it is lost, only the maker's warrant keys let the devices go.`,
		Example: "  hallmark owner key --dir acme",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(dir); err == nil {
				return usagef("--dir %s is there already: choose another", dir)
			}
			p, err := pass.read(cmd.Context(), s, "the owner's key", true)
			if err != nil {
				return err
			}
			store, err := soft.Create(dir, p, iterations)
			if err != nil {
				return err
			}
			key, err := store.GenerateP256(ownerKeyName)
			if err != nil {
				return err
			}
			spki, err := wire.SPKIOf(key.Public())
			public := filepath.Join(dir, ownerPublic)
			if err = errors.Join(err, durable.WriteFile(public, spki, 0o644)); err != nil {
				return err
			}
			return sheet(s.out, "key", filepath.Join(dir, ownerKeyName+".key"), "public", public)
		},
	}
	pass.flag(c)
	c.Flags().StringVar(&dir, "dir", "", "directory to make")
	c.Flags().IntVar(&iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = c.Flags().MarkHidden("kdf-iterations") // it exists
	_ = c.MarkFlagRequired("dir")              // it exists
	return c
}
