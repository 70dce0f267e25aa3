package cli

import (
	"cmp"
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/release"
)

func newApprover(a *api) *cobra.Command {
	return a.noun("approver", "Whose the keys are that approve releases", a.listApprovers(), a.bindApprover(), a.unbindApprover())
}

func (a *api) listApprovers() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "list PRODUCT", Short: "List whose the keys are that approve a product's releases", Args: cobra.ExactArgs(1), Example: "  hallmark approver list pump",
		Long: `Lists whose the keys of a product's release role are, and which are nobody's any more. Where none ever was anybody's, approvals have to be of different people, with different keys, and nothing says which. The keys are those that ` + "`hallmark bundle show`" + ` lists.`,
	}, "KEY MEMBER SINCE BY",
		func(ctx context.Context, cl *client.Client, args []string) ([]release.Approver, error) {
			return cl.Approvers(ctx, args[0])
		},
		func(p release.Approver) []string {
			return []string{p.Key, cmp.Or(p.Member, "nobody"), when(p.Since), p.By}
		})
}

// releaseKey finds a key of a product's release role by its ID, or how that begins.
func releaseKey(ctx context.Context, cl *client.Client, product, id string) (string, error) {
	b, _, err := currentBundle(ctx, cl, product)
	if err != nil {
		return "", err
	}
	found := ""
	for _, der := range b.Release.Keys {
		if name := keyName(der); len(id) >= 8 && strings.HasPrefix(name, strings.ToLower(id)) {
			if found != "" {
				return "", usagef("several keys of the release role begin with %s", id)
			}
			found = name
		}
	}
	if found == "" {
		return "", usagef("no key of the release role begins with %s (8 digits at least): see `hallmark bundle show`", id)
	}
	return found, nil
}

func (a *api) bindApprover() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "bind PRODUCT KEY MEMBER", Short: "Say whose a key is that approves a product's releases", Args: cobra.ExactArgs(3), Example: "  hallmark approver bind pump 1f2e3d4c person:alice --propose 'she has the card since today'",
		Long: `Says whose a key of a product's release role is, by its ID or how that begins. From the first on, an approval counts only when its key is its sender's own: a threshold of keys is then one of
people. It takes two people. Bind all of them: a key that is nobody's approves nothing any more.`,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		key, err := releaseKey(ctx, cl, args[0], args[1])
		if err != nil {
			return err
		}
		p, err := cl.BindApprover(ctx, args[0], key, args[2])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "key", p.Key, "member", p.Member, "since", when(p.Since)) })
	})
}

func (a *api) unbindApprover() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "unbind PRODUCT KEY", Short: "Say that a key is nobody's any more", Args: cobra.ExactArgs(2), Example: "  hallmark approver unbind pump 1f2e3d4c --propose 'alice has left'",
		Long: `Says that a key is nobody's any more: of who left, or whose key was lost. Approvals by it count no more, also of releases that are not published yet. It takes two people. With the last of them nobody
can approve until others are bound. To have devices believe it no more, take it out of the trust bundle (` + "`hallmark bundle payload --remove-approver`" + `).`,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		all, err := cl.Approvers(ctx, args[0])
		if err != nil {
			return err
		}
		key := ""
		for _, p := range all { // also one that no trust bundle has any more
			if p.Member != "" && len(args[1]) >= 8 && strings.HasPrefix(p.Key, strings.ToLower(args[1])) {
				key = p.Key
			}
		}
		if key == "" {
			return usagef("no key of %s that is somebody's begins with %s (8 digits at least): see `hallmark approver list`", args[0], args[1])
		}
		if err := cl.UnbindApprover(ctx, args[0], key); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "key", key, "member", "nobody") })
	})
}
