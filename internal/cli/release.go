package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

func newRelease(a *api) *cobra.Command {
	return a.noun("release", "What may run: artifacts, manifest, approvals",
		a.listReleases(), a.showRelease(), a.createRelease(), a.payloadOf(), a.exportRelease(), a.approveRelease(), a.signSUIT(), a.publishRelease(), a.suitRelease(), a.withdrawRelease(), a.closeRelease(), a.releaseComponents(), a.releaseSummary(), a.releaseDocument(), a.releaseDeltas(), a.releasePath(), a.releaseSolve())
}

const releaseArg = "\n\nRELEASE is its digest, 64 hex digits, or PRODUCT@VERSION."

func (a *api) listReleases() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{Use: "list --product PRODUCT", Short: "List a product's releases", Example: "  hallmark release list --product pump"},
		"VERSION COUNTER STATUS APPROVED PROPOSED DIGEST",
		func(ctx context.Context, cl *client.Client, _ []string) ([]client.ReleaseView, error) {
			return cl.Releases(ctx, productID)
		},
		func(r client.ReleaseView) []string {
			return []string{
				r.Manifest.Version, fmt.Sprint(r.Manifest.Counter), string(r.Status), fmt.Sprint(len(r.Approvals)), when(r.Created), r.Digest,
			}
		})
	c.Flags().StringVar(&productID, "product", "", "product")
	return need(c, "product")
}

func (a *api) showRelease() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show RELEASE", Short: "Show a release", Long: "Shows a release." + releaseArg, Args: cobra.ExactArgs(1), Example: "  hallmark release show pump@1.1.0",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		return a.showView(r)
	})
}

func (a *api) showView(r client.ReleaseView) error {
	return a.show(func(w io.Writer) error {
		by := make([]string, len(r.Approvals))
		for i, p := range r.Approvals {
			by[i] = p.Caller
			if p.SUIT != nil {
				by[i] += " (SUIT too)"
			}
		}
		published := ""
		if !r.Published.IsZero() {
			published = when(r.Published)
		}
		pairs := []string{
			"release", r.Manifest.ID, "digest", r.Digest, "product", r.Manifest.Product, "hardware", strings.Join(r.Manifest.Hardware, ", "),
			"version", r.Manifest.Version, "counter", fmt.Sprint(r.Manifest.Counter), "status", string(r.Status), "proposed by", r.Creator,
			"proposed", when(r.Created), "approved by", strings.Join(by, ", "), "published", published, "reason", r.Reason,
		}
		if !r.Closed.IsZero() {
			pairs = append(pairs, "closed", when(r.Closed))
		}
		if ways := strings.TrimPrefix(waysOf(r.Manifest), "; "); ways != "" {
			pairs = append(pairs, "ways", ways)
		}
		for _, c := range r.Manifest.Components {
			pairs = append(pairs, "component "+c.Name, fmt.Sprintf("%s %s, %d bytes, sha256 %x, health %s%s", c.Kind, c.Version, c.Size, c.Digest, c.Health, needsOf(c)))
			if x := c.Protected; x != nil {
				pairs = append(pairs, "protected "+c.Name, fmt.Sprintf("%d bytes, sha256 %x, content key %x", x.Size, x.Digest, x.Key))
			}
		}
		if order := r.Manifest.Order(); order != "" {
			pairs = append(pairs, "programs start", order)
		}
		pairs = append(pairs, "room", r.Manifest.Room())
		for _, p := range r.Manifest.Parameters {
			pairs = append(pairs, "parameter "+p.Name, p.String())
		}
		return sheet(w, pairs...)
	})
}

func (a *api) payloadOf() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "payload RELEASE --out FILE", Short: "Write what approvers sign",
		Long: "Writes the payload of a release, for `hallmark approve` on a machine without a network." + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release payload pump@1.1.0 --out pump-1.1.0.payload",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if err := matches(r); err != nil {
			return err
		}
		if err := durable.WriteFile(out, r.Payload, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "written", out, "digest", r.Digest) })
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func (a *api) exportRelease() *cobra.Command {
	var out, box string
	var of device.CartonOf
	c := a.verb(cobra.Command{
		Use: "export RELEASE (--out FILE | --carton FILE)", Short: "Write a published release with its signatures, or all that a device without a network needs",
		Long: `Writes a published release with its signatures, as devices get it: for ` + "`hallmark order wrap`" + ` on a machine without a network.

With --carton it writes a carton instead: the release with its bytes and proofs, and what each device is told, for ` + "`hallmark-agent install`" + `. It is for the devices of
rollouts that were created with --alone and started; all of them, or some. A device takes the carton that was written for it last, until it is told anything else.` + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release export pump@1.0.0 --out pump-1.0.0.release\n  hallmark release export pump@1.1.0 --group mine/shaft-3 --carton pump-1.1.0.hmb",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if box != "" {
			return a.pack(ctx, cl, args[0], of, box)
		}
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if r.Published.IsZero() {
			return fmt.Errorf("release %s is %s: publish it first", r.Manifest.ID, r.Status)
		}
		if err := durable.WriteFile(out, r.Envelope, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "written", out, "digest", r.Digest) })
	})
	f := c.Flags()
	f.StringVar(&out, "out", "", "file to write the signed release to")
	f.StringVar(&box, "carton", "", "file to write a carton to")
	f.StringSliceVar(&of.Devices, "device", nil, "carton: just for these devices")
	f.StringVar(&of.Group, "group", "", "carton: for devices in this group of the product, or in one below")
	c.MarkFlagsOneRequired("out", "carton")
	for _, other := range []string{"carton", "device", "group"} {
		c.MarkFlagsMutuallyExclusive("out", other)
	}
	return c
}

// matches checks that a release's payload has the digest it goes by: a signature is over what was meant, or is not made.
func matches(r client.ReleaseView) error {
	if sum := sha256.Sum256(r.Payload); hex.EncodeToString(sum[:]) != r.Digest {
		return errors.New("the server gives a payload that has not the release's digest: do not sign it; ask who runs the server")
	}
	return nil
}

func (a *api) approveRelease() *cobra.Command {
	var k keyFile
	var envelope string
	c := a.verb(cobra.Command{
		Use: "approve RELEASE (--key KEYFILE | --envelope FILE)", Short: "Add an approver's signature",
		Long: `Adds an approver's signature. With --key in one step, on a machine that has both the key and the network; or in two: ` +
			"`hallmark release payload`" + ` here, ` + "`hallmark approve`" + ` where the key is, and --envelope with what came of it.

The token is the approver's own: nobody approves what they proposed, or twice.` + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release approve pump@1.1.0 --key /media/stick/approver-alice.key --token-file alice.token",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		signed, err := a.signature(ctx, r, k, envelope)
		if err != nil {
			return err
		}
		if r, err = cl.Approve(ctx, r.Digest, signed); err != nil {
			return err
		}
		return a.showView(r)
	})
	k.flags(c)
	c.Flags().StringVar(&envelope, "envelope", "", "what `hallmark approve` wrote")
	c.MarkFlagsOneRequired("key", "envelope")
	c.MarkFlagsMutuallyExclusive("key", "envelope")
	return a.matching(c)
}

func (a *api) signature(ctx context.Context, r client.ReleaseView, k keyFile, envelope string) ([]byte, error) {
	if envelope != "" {
		return readFile(envelope, wire.MaxEnvelope)
	}
	if err := matches(r); err != nil {
		return nil, err
	}
	about, err := aboutRelease(r.Payload)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.s.err, "signing %s, digest %s\n", oneLine(about), r.Digest)
	signer, err := k.open(ctx, a.s)
	if err != nil {
		return nil, err
	}
	return wire.NewThreshold(wire.TypeRelease, r.Payload, signer)
}

func (a *api) publishRelease() *cobra.Command {
	return a.matching(a.verb(cobra.Command{
		Use: "publish RELEASE", Short: "Publish a release that enough people approved", Long: "Publishes a release that enough people approved: it may be rolled out." + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release publish pump@1.1.0",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		_, digest, err := digestOf(ctx, cl, args[0])
		if err != nil {
			return err
		}
		r, err := cl.Publish(ctx, digest)
		if err != nil {
			return err
		}
		return a.showView(r)
	}))
}

func (a *api) withdrawRelease() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "withdraw RELEASE --reason TEXT", Short: "Hand a release out to no further device", Long: "Hands a release out to no further device: its rollouts halt, and commands that bring it and were not carried out are cancelled.\nDevices that run it go on; what a device was told before is for `hallmark release close` to have refused. Called again, it completes what broke off." + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release withdraw pump@1.1.0 --reason 'leaks memory'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		_, digest, err := digestOf(ctx, cl, args[0])
		if err != nil {
			return err
		}
		r, err := cl.Withdraw(ctx, digest, reason)
		if err != nil {
			return err
		}
		return a.showView(r)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}

// makings are what a release is made of.
type makings struct {
	spec                        release.Spec
	files, back, over           []string
	backFor                     time.Duration
	sbom, provenance, healthAll string
	protect                     []string
	set                         set
}

func (a *api) createRelease() *cobra.Command {
	var p makings
	c := a.verb(cobra.Command{
		Use: "create --product PRODUCT --version VERSION --counter N --file NAME=PATH[:exec|data|image]…", Short: "Upload files and propose a release of them",
		Long: `Uploads files and proposes a release of them. It is for others to approve it: see ` + "`hallmark release approve`" + `.

Each --file is a component: its name, the file, and whether the device starts it (exec) or keeps it as data. Without a kind, what
is executable here is exec.

A program that is named by --protect is sealed on the server as it comes: stored, sent and written into flash is only what is sealed, and a device gets the key
after each start, for good evidence. Its digest is that of the sealed bytes, which are others at each upload; that of the program stands beside it.

For a product whose components change one by one (update model asset), --from takes the others as they are from a release before; devices then
fetch and write what is new, and nothing else. With --requires a component says which versions of the others it works with: a set that does not
go together is refused here, and again by every device.`,
		Example: `  hallmark release create --product pump --version 1.1.0 --counter 2 --file app=build/pump:exec --file tables=build/tables.bin:data
  hallmark release create --product lock --version 1.2.0 --counter 2 --from lock@1.1.0 --file radio=build/radio:exec --component-version radio=2.0.0 --requires 'app:radio>=2.0.0<3.0.0'`,
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		components, err := p.components()
		if err != nil {
			return err
		}
		if err := p.upload(ctx, a, cl, components); err != nil {
			return err
		}
		r, err := cl.Propose(ctx, p.spec)
		if err != nil {
			return err
		}
		return a.showView(r)
	})
	f := c.Flags()
	f.StringVar(&p.spec.Product, "product", "", "product")
	f.StringVar(&p.spec.Version, "version", "", "version, as semver without v")
	f.Uint32Var(&p.spec.Counter, "counter", 0, "security counter: devices never go below the highest they have confirmed")
	f.StringArrayVar(&p.files, "file", nil, "a component, NAME=PATH[:exec|data|image]; once for each")
	f.StringVar(&p.spec.ID, "id", "", "the release's ID (default PRODUCT-VERSION)")
	f.StringSliceVar(&p.spec.Hardware, "hardware", nil, "hardware revisions it is for (default: all of the product's)")
	f.StringVar(&p.healthAll, "health", "", "how programs show that they work: socket or alive (default alive)")
	f.StringArrayVar(&p.back, "rollback-to", nil, "a release devices may go back to from this one: digest or PRODUCT@VERSION")
	f.StringArrayVar(&p.over, "over", nil, "versions that it may be installed over, '>=VERSION', '<VERSION' or '>=VERSION<VERSION', rising (default: any older one)")
	f.DurationVar(&p.backFor, "back-for", 0, "how long after its confirmation devices may be sent back from it (default 720h)")
	f.StringSliceVar(&p.protect, "protect", nil, "components to seal as they are uploaded: devices get the key for good evidence, and open programs and data into memory only, an image on its way to the installer")
	f.StringVar(&p.sbom, "sbom", "", "file: its bill of materials")
	f.StringVar(&p.provenance, "provenance", "", "file: where it was built from what")
	f.StringVar(&p.spec.Notes, "notes", "", "notes for approvers")
	p.set.flags(f)
	return need(c, "product", "version", "counter", "file")
}

// file is one component's file.
type file struct {
	path      string
	component release.Component
}

func (p *makings) components() ([]file, error) {
	if p.spec.ID == "" {
		p.spec.ID = p.spec.Product + "-" + p.spec.Version
	}
	if p.backFor%time.Second != 0 || p.backFor < 0 {
		return nil, usagef("--back-for %s: want whole seconds", p.backFor)
	}
	p.spec.BackFor = uint64(p.backFor / time.Second)
	for _, text := range p.over {
		v, ok := versions(text)
		if !ok {
			return nil, usagef("--over %q: want '>=VERSION', '<VERSION' or '>=VERSION<VERSION'", text)
		}
		p.spec.Over = append(p.spec.Over, v)
	}
	if h := wire.HealthCheck(p.healthAll); p.healthAll != "" && h != wire.HealthSocket && h != wire.HealthAlive {
		return nil, usagef("--health %q: want socket or alive", p.healthAll)
	}
	var out []file
	for _, f := range p.files {
		name, path, ok := strings.Cut(f, "=")
		if !ok || name == "" || path == "" {
			return nil, usagef("--file %q: want NAME=PATH, NAME=PATH:exec, NAME=PATH:data or NAME=PATH:image", f)
		}
		c := release.Component{Name: name, Version: p.spec.Version}
		if path, ok = strings.CutSuffix(path, ":exec"); ok {
			c.Kind = wire.KindExec
		} else if path, ok = strings.CutSuffix(path, ":data"); ok {
			c.Kind = wire.KindData
		} else if path, ok = strings.CutSuffix(path, ":image"); ok {
			c.Kind = wire.KindImage
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil, usagef("--file %q: %s is no file; want NAME=PATH, NAME=PATH:exec, NAME=PATH:data or NAME=PATH:image", f, path)
		}
		if c.Kind == "" {
			c.Kind = wire.KindData
			if info.Mode()&0o111 != 0 {
				c.Kind = wire.KindExec
			}
		}
		c.Health = wire.HealthNone
		if c.Kind == wire.KindExec {
			c.Health = wire.HealthAlive
			if p.healthAll != "" {
				c.Health = wire.HealthCheck(p.healthAll)
			}
		}
		out = append(out, file{path, c})
	}
	for _, name := range p.protect {
		if !slices.ContainsFunc(out, func(f file) bool { return f.component.Name == name }) {
			return nil, usagef("--protect %q: no --file is of that name", name)
		}
	}
	return out, nil
}

func (p *makings) upload(ctx context.Context, a *api, cl *client.Client, files []file) (err error) {
	for _, name := range p.back {
		d, _, err := digestOf(ctx, cl, name)
		if err != nil {
			return fmt.Errorf("--rollback-to: %w", err)
		}
		p.spec.RollbackTo = append(p.spec.RollbackTo, d)
	}
	for _, f := range files {
		if f.component.Artifact, err = a.uploadFile(ctx, cl, p.spec.Product, f.component.Name+"-"+p.spec.Version, f.path, slices.Contains(p.protect, f.component.Name)); err != nil {
			return err
		}
		p.spec.Components = append(p.spec.Components, f.component)
	}
	kept, err := p.set.kept(ctx, cl, files)
	if err != nil {
		return err
	}
	p.spec.Components = append(p.spec.Components, kept...)
	if err := p.set.apply(p.spec.Components); err != nil {
		return err
	}
	if p.sbom != "" {
		if p.spec.SBOM, err = a.uploadFile(ctx, cl, p.spec.Product, "sbom-"+p.spec.Version, p.sbom, false); err != nil {
			return err
		}
	}
	if p.provenance != "" {
		p.spec.Provenance, err = a.uploadFile(ctx, cl, p.spec.Product, "provenance-"+p.spec.Version, p.provenance, false)
	}
	return err
}

func (a *api) uploadFile(ctx context.Context, cl *client.Client, productID, name, path string, protect bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	d, err := cl.Upload(ctx, productID, name, protect, a.progress(f, name, info.Size()))
	if err != nil {
		return nil, fmt.Errorf("upload %s: %w", path, err)
	}
	return d, nil
}
