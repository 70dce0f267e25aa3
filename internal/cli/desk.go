package cli

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/desk"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

func newDesks(a *api) *cobra.Command {
	return a.noun("desk", "Desks: where orders are wrapped without a server",
		initDesk(a.s), requestDesk(a.s), installDesk(a.s), trustDesk(a.s), pinDesk(a.s), showDesk(a.s), masterKeyOfDesk(a.s), a.deskInstance(), a.addDesk(), a.listDesks(), a.removeDesk())
}

// deskCall is a command at a desk.
type deskCall struct {
	dir        string
	pass       secret
	iterations int
}

func (c *deskCall) flag(cmd *cobra.Command) {
	c.pass.flag(cmd)
}

// keys opens the keys of a desk, or makes the place where new ones are kept. What is half made from before goes on.
func (c *deskCall) keys(ctx context.Context, s streams, token string, fresh bool) (desk.Keys, func() error, error) {
	if token != "" {
		u, err := pkcs11.ParseURI(token)
		if err != nil {
			return nil, nil, usageError{err}
		}
		t, err := openToken(ctx, s, u)
		if err != nil {
			return nil, nil, err
		}
		return t, t.Close, nil
	}
	dir := desk.KeyDir(c.dir)
	_, missing := os.Stat(dir)
	pass, err := c.pass.read(ctx, s, "the desk's keys", fresh && missing != nil)
	if err != nil {
		return nil, nil, err
	}
	none := func() error { return nil }
	if k, err := soft.Open(dir, pass); err == nil || !fresh || errors.Is(err, soft.ErrPassphrase) {
		return k, none, err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	k, err := soft.Create(dir, pass, c.iterations)
	return k, none, err
}

// at does run with an open desk and its keys.
func (c *deskCall) at(ctx context.Context, s streams, dir string, run func(d *desk.Desk, keys desk.Keys) error) (err error) {
	c.dir = dir
	d, err := desk.Open(dir)
	if err != nil {
		return err
	}
	keys, end, err := c.keys(ctx, s, d.Token, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	return run(d, keys)
}

func initDesk(s streams) *cobra.Command {
	var c deskCall
	var cfg desk.Config
	var instance, fingerprint string
	var products []string
	cmd := &cobra.Command{
		Use: "init DIR --name NAME --instance FILE --fingerprint FINGERPRINT --product PRODUCT…", Short: "Make a desk, on a machine that needs no network",
		Long: `Makes a desk: a directory with an order key of its own, a key for a CA of each product, and the requests for these CAs in DIR/requests, which a key
ceremony grants (` + "`hallmark ceremony plan request`" + `, or ` + "`hallmark ceremony answer`" + `). Needs no network and no server.

--instance is what ` + "`hallmark desk instance`" + ` wrote; --fingerprint is what it printed there, learned another way than the file. The name is in the public log: choose
one that tells nobody where the desk is. Keys are in files under a passphrase, or, with --keys, in a PKCS#11 token.
What was cut off goes on with the same command.`,
		Example: "  hallmark desk init desk --name desk-1 --instance acme.json --fingerprint 3f0c…(64 hex digits) --product pump",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			file, err := readFile(instance, factory.MaxDeskFile)
			if err != nil {
				return err
			}
			if cfg.Of, err = desk.Pinned(file, fingerprint); err != nil {
				return err
			}
			c.dir = args[0]
			keys, end, err := c.keys(cmd.Context(), s, cfg.Token, true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, end()) }()
			d, err := desk.Begin(c.dir, cfg, keys, products, time.Now())
			if err != nil {
				return err
			}
			return deskSheet(s, d)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Name, "name", "", "name of the desk, for good: another desk never has it")
	f.StringVar(&instance, "instance", "", "what the instance gave out for its desks")
	f.StringVar(&fingerprint, "fingerprint", "", "its fingerprint, 64 hex digits")
	f.StringSliceVar(&products, "product", nil, "product that is ordered at the desk; again for several")
	f.StringVar(&cfg.Token, "keys", "", "make the keys in this PKCS#11 token, which they never leave:\npkcs11:token=LABEL?module-path=LIBRARY&pin-source=FILE; without pin-source the PIN is in HALLMARK_PIN, or asked for (default: in files)")
	f.IntVar(&c.iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for the passphrase")
	_ = f.MarkHidden("kdf-iterations") // it exists
	c.flag(cmd)
	return need(cmd, "name", "instance", "fingerprint", "product")
}

// deskSheet shows a desk: what it is, and what it waits for.
func deskSheet(s streams, d *desk.Desk) error {
	pairs := []string{"desk", d.Name, "OEM", d.Of.OEM, "instance", d.Of.Instance}
	if self, err := d.Self(); err == nil {
		pairs = append(pairs, "file", d.File(), "fingerprint", desk.Fingerprint(self))
	}
	list, err := d.Products()
	if err != nil {
		return err
	}
	for _, p := range list {
		text := fmt.Sprintf("waits for its CA: have %s granted, fingerprint %s", d.RequestFile(p.ID), ceremony.Fingerprint(p.Asked.Digest))
		switch {
		case p.CA != nil && p.Bundle == nil:
			text = "has its CA, and waits for its trust bundle: `hallmark desk trust`"
		case p.CA != nil:
			text = fmt.Sprintf("ready, with trust bundle %d", p.Bundle.Version)
		}
		if p.Next != nil {
			text += fmt.Sprintf("; asks for another CA: have %s granted, fingerprint %s", d.RenewalFile(p.ID), ceremony.Fingerprint(p.Next.Digest))
		}
		pairs = append(pairs, "product "+p.ID, text)
	}
	orders, err := d.Orders()
	if err != nil {
		return err
	}
	for _, o := range orders {
		pairs = append(pairs, "order "+o, d.RegistrationFile(o))
	}
	return sheet(s.out, pairs...)
}

func showDesk(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "show DIR", Short: "Show a desk: what it is, what it waits for, and its orders' registrations", Args: cobra.ExactArgs(1), Example: "  hallmark desk show desk",
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := desk.Open(args[0])
			if err != nil {
				return err
			}
			return deskSheet(s, d)
		},
	}
}

func requestDesk(s streams) *cobra.Command {
	var c deskCall
	var anew bool
	cmd := &cobra.Command{
		Use: "request DIR PRODUCT", Short: "Have another product ordered at a desk: make the key of its CA, and the request for the ceremony",
		Long: `Makes the key of a product's CA at the desk, and the request for the ceremony. With --anew it asks for a CA, with a key of its own, in the place of the one that the
product has: because that ends, or its key is in doubt. The desk orders under the old one until the answer is installed; then the instance takes the desk in again
(` + "`hallmark desk add`" + `). What was ordered under the old one is still registered, unless two people revoke it.`,
		Args: cobra.ExactArgs(2), Example: "  hallmark desk request desk valve\n  hallmark desk request desk pump --anew",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.at(cmd.Context(), s, args[0], func(d *desk.Desk, keys desk.Keys) error {
				ask, file := d.Request, d.RequestFile(args[1])
				if anew {
					ask, file = d.Renew, d.RenewalFile(args[1])
				}
				asked, err := ask(keys, args[1], time.Now())
				if err != nil {
					return err
				}
				return sheet(s.out, "product", asked.Product, "written", file, "fingerprint", ceremony.Fingerprint(asked.Digest))
			})
		},
	}
	cmd.Flags().BoolVar(&anew, "anew", false, "ask for a CA in the place of the one that it has")
	c.flag(cmd)
	return cmd
}

func installDesk(s streams) *cobra.Command {
	var c deskCall
	cmd := &cobra.Command{
		Use: "install DIR GRANT", Short: "Take in the ceremony's answer: a CA of the desk",
		Long: `Takes in the ceremony's answer to one of the desk's requests: the CA's certificate, which is held against the request and the root that is pinned. Then it writes
DIR/NAME.desk, what the desk tells of itself, for ` + "`hallmark desk add`" + ` at the instance; the fingerprint is compared there. The same again changes nothing.`,
		Args: cobra.ExactArgs(2), Example: "  hallmark desk install desk pump.grant",
		RunE: func(cmd *cobra.Command, args []string) error {
			grant, err := readFile(args[1], maxCeremonyFile)
			if err != nil {
				return err
			}
			return c.at(cmd.Context(), s, args[0], func(d *desk.Desk, keys desk.Keys) error {
				if _, _, err := d.Install(keys, grant, time.Now()); err != nil {
					return err
				}
				return deskSheet(s, d)
			})
		},
	}
	c.flag(cmd)
	return cmd
}

func trustDesk(s streams) *cobra.Command {
	var fingerprint string
	cmd := &cobra.Command{
		Use: "trust DIR BUNDLE", Short: "Believe a product's trust bundle at a desk",
		Long: `Believes a product's trust bundle, which says whose releases may be put on devices, and goes on them. BUNDLE is what ` + "`hallmark bundle show PRODUCT --out`" + ` wrote.
The first one needs the fingerprint that was printed there, learned another way than the file. The next one is believed if it follows by its signatures; one
further on needs its fingerprint again.`,
		Args: cobra.ExactArgs(2), Example: "  hallmark desk trust desk pump.bundle --fingerprint '3f0c…'",
		RunE: func(_ *cobra.Command, args []string) error {
			envelope, err := readFile(args[1], wire.MaxEnvelope)
			if err != nil {
				return err
			}
			d, err := desk.Open(args[0])
			if err != nil {
				return err
			}
			b, err := d.Pin(envelope, fingerprint)
			if err != nil {
				return err
			}
			return sheet(s.out, "product", b.Product, "trust bundle", fmt.Sprint(b.Version), "fingerprint", ceremony.Fingerprint(sha256.Sum256(envelope)))
		},
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "its fingerprint, 64 hex digits; blanks do not matter")
	return cmd
}

func pinDesk(s streams) *cobra.Command {
	var fingerprint string
	cmd := &cobra.Command{
		Use: "pin DIR FILE --fingerprint FINGERPRINT", Short: "Seal registrations to the instance's new key",
		Long:    "Takes another file of the same instance, which has a new key that registrations are sealed to (`hallmark key rotate desk`). It is believed for its fingerprint, like the first.",
		Args:    cobra.ExactArgs(2),
		Example: "  hallmark desk pin desk acme-2.json --fingerprint 3f0c…(64 hex digits)",
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := readFile(args[1], factory.MaxDeskFile)
			if err != nil {
				return err
			}
			d, err := desk.Open(args[0])
			if err != nil {
				return err
			}
			f, err := desk.Pinned(file, fingerprint)
			if err != nil {
				return err
			}
			if err := d.Repin(f); err != nil {
				return err
			}
			return deskSheet(s, d)
		},
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "its fingerprint, 64 hex digits")
	return need(cmd, "fingerprint")
}

func (a *api) deskInstance() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "instance --out FILE", Short: "Write what a desk must pin of the instance",
		Long: `Writes what a desk must pin of the instance, for ` + "`hallmark desk init`" + `, which computes the same fingerprint: compare them by telephone. The first time, make the
key that registrations are sealed to: ` + "`hallmark key rotate desk --reason 'the first desk'`" + `.`,
		Example: "  hallmark desk instance --out acme.json",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		f, err := cl.DeskFile(ctx)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, a.last, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "oem", f.OEM, "instance", f.Instance, "fingerprint", f.Fingerprint(), "written", out)
		})
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func (a *api) addDesk() *cobra.Command {
	var fingerprint string
	var quota uint32
	c := a.verb(cobra.Command{
		Use: "add FILE --fingerprint FINGERPRINT --quota N", Short: "Take in a desk's orders; takes two people",
		Long: `Takes in a desk, by what it wrote of itself (` + "`hallmark desk install`" + `): its order key, and its CAs, which the OEM's root has signed. Compare the fingerprint with what
is printed at the desk, by another way than the file came. It always takes two people. Then give stations the OEM's file anew (` + "`hallmark order oem`" + `): it has the desk's
order key. Added again, a desk has the CAs and the quota that are given then.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark desk add desk-1.desk --fingerprint 3f0c…(64 hex digits) --quota 5000 --propose 'the works in the east have no line'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		file, err := readFile(args[0], wire.MaxEnvelope)
		if err != nil {
			return err
		}
		self, err := wire.OpenDesk(file)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if !desk.SameFingerprint(fingerprint, desk.Fingerprint(self)) {
			return usagef("%s has fingerprint %s, not the one that is given: ask at the desk", args[0], desk.Fingerprint(self))
		}
		d, err := cl.AddDesk(ctx, file, quota)
		if err != nil {
			return err
		}
		return a.deskView(d)
	})
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "of the desk, 64 hex digits")
	c.Flags().Uint32Var(&quota, "quota", 0, "devices that the desk may order, in all")
	return need(c, "fingerprint", "quota")
}

func (a *api) deskView(d factory.Desk) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "desk", d.Name, "products", fmt.Sprint(d.Products), "quota", fmt.Sprint(d.Quota), "ordered", fmt.Sprint(d.Ordered), "since", when(d.At), "removed", when(d.Removed))
	})
}

func (a *api) listDesks() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List the desks, those that were removed too", Example: "  hallmark desk list"},
		"DESK PRODUCTS QUOTA ORDERED SINCE REMOVED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]factory.Desk, error) { return cl.Desks(ctx) },
		func(d factory.Desk) []string {
			return []string{d.Name, fmt.Sprint(d.Products), fmt.Sprint(d.Quota), fmt.Sprint(d.Ordered), when(d.At), when(d.Removed)}
		})
}

func (a *api) removeDesk() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "remove DESK --reason TEXT", Short: "Take in no order that a desk makes from now on", Args: cobra.ExactArgs(1),
		Long: `Takes in no order that a desk makes from now on: it was stolen, or is not needed any more. Orders that are here stay. One that says that it was made before takes
two people to register. Give stations the OEM's file anew, and see docs/guide/desk.md for what else to do about a stolen one.`,
		Example: "  hallmark desk remove desk-1 --reason 'the notebook was stolen'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		d, err := cl.RemoveDesk(ctx, args[0], reason)
		if err != nil {
			return err
		}
		return a.deskView(d)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func masterKeyOfDesk(s streams) *cobra.Command {
	var c deskCall
	var out string
	cmd := &cobra.Command{
		Use: "master-key DIR --out FILE", Short: "Write what masters are sealed to for a desk", Args: cobra.ExactArgs(1),
		Long: `Writes what masters are sealed to for this desk: give the file to those who build masters (` + "`hallmark master build --to FILE=FINGERPRINT`" + `), and tell them the fingerprint
another way. The key is made when it is first asked for, and never leaves the desk; where the desk's keys are in a token, the token seals it for a file of the desk.`,
		Example: "  hallmark desk master-key desk --out desk-1.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.at(cmd.Context(), s, args[0], func(d *desk.Desk, keys desk.Keys) error {
				f, err := d.MasterFile(keys)
				if err != nil {
					return err
				}
				data, err := json.MarshalIndent(f, "", "  ")
				if err != nil {
					return err
				}
				if err := durable.WriteFile(out, append(data, '\n'), 0o644); err != nil {
					return err
				}
				return sheet(s.out, "desk", d.Name, "fingerprint", f.Fingerprint(), "written", out)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	c.flag(cmd)
	return need(cmd, "out")
}
