package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/wire"
)

// begin makes the online half of an instance.
func (c *initCall) begin(ctx context.Context, s streams, l server.Layout, o server.InitOptions, pass string) error {
	var digest [32]byte
	_, err := c.make(ctx, s, pass, func(vault func(string) (server.Vault, error)) (made server.Made, err error) {
		digest, err = server.Prepare(ctx, l, o, vault)
		return made, err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, `Made the online keys in %s. It is no instance yet: the root, its CAs and the first trust bundle come from a key ceremony.

  request      %s
  fingerprint  %s

Take the request to the ceremony, compare the fingerprint there, and bring the answer back:

  hallmark init --dir %s --finish request.answer
`, c.dir, l.Request(), server.Fingerprint(digest), c.dir)
	return nil
}

// end makes the instance of the ceremony's answer.
func (c *initCall) end(cmd *cobra.Command, s streams) error {
	for _, f := range []string{"prepare", "oem", "product", "approvers", "threshold", "instance", "db", "keys"} {
		if cmd.Flags().Changed(f) {
			return usagef("--finish takes all but --dir and the passphrase from what was prepared: leave out --%s", f)
		}
	}
	answer, err := readFile(c.finish, wire.MaxCeremonyAnswer)
	if err != nil {
		return err
	}
	l := server.Layout{Dir: c.dir}
	pass, err := c.pass.read(cmd.Context(), s, "the keys of "+c.dir, false)
	if err != nil {
		return err
	}
	cfg, err := l.Waiting()
	if err != nil {
		return err
	}
	end := func() error { return nil }
	made, err := server.Finish(cmd.Context(), l, answer, time.Now().UTC(), func(dir string) (v server.Vault, err error) {
		v, end, err = online(cmd.Context(), s, cfg.CAToken, func() (*soft.Store, error) { return soft.Open(dir, pass) })
		return v, err
	})
	if err = errors.Join(err, end()); err != nil {
		return err
	}
	fmt.Fprintf(s.out, `Made %s. Compare with what the ceremony has shown:

  OEM root     %s
  trust bundle %s

No offline key is on this machine. The first administrator signs in here, once, within a day, and adds a passkey:

  %s

For programs there is a token in %s.

Next: hallmark serve --dir %s
`, c.dir, server.Fingerprint(made.Root), server.Fingerprint(made.Bundle), made.SignIn, l.AdminToken(), c.dir)
	return nil
}
