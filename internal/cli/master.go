package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/desk"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

func newMaster(a *api) *cobra.Command {
	c := a.noun("master", "Masters: what is put on devices, as one signed and sealed file",
		buildMaster(a.s), showMaster(a.s), verifyMaster(a.s), a.takeMaster(), a.listMasters(), a.masterDocument())
	c.Long = `A master is a development build made ready for production: a release with its approvers' signatures, the bytes of its components (boot manager, application,
assets), the parameters of devices, and the digests of its SBOM and provenance, signed by an approver and sealed to those who may wrap orders of it.
Building, showing and verifying one need no server and no network.`
	return c
}

// masterCall is one master that is built.
type masterCall struct {
	spec                    factory.MasterSpec
	order                   orderCall
	dir, bundle, sbom, prov string
	files, to               []string
	key                     keyFile
}

func buildMaster(s streams) *cobra.Command {
	var c masterCall
	cmd := &cobra.Command{
		Use:   "build --product PRODUCT --revision N --release FILE --bundle FILE (--dir DIR | --file NAME=PATH…) --sbom FILE --provenance FILE --to FILE=FINGERPRINT --server URL --slot-size BYTES --key KEYFILE --out FILE",
		Short: "Make a production master of a development build",
		Long: `Makes a production master of a development build. --release is what ` + "`hallmark release export`" + ` wrote, with enough approvers' signatures; --dir is where the build's
files are, each under its component's name, or --file names them one by one. They must be what the approvers signed for, byte by byte.

--sbom and --provenance are documents of the build; only their digests go in, and they are those of the release where it names them. --to is who may wrap orders of it:
what ` + "`hallmark desk instance`" + ` or ` + "`hallmark desk master-key`" + ` wrote, and the fingerprint that was told another way; again for several.
--revision counts up with each master of this product and hardware: a lower one than was ordered from is refused. --key is an approver's of this product's releases.`,
		Example: `  hallmark master build --product pump --hardware A --revision 1 --release pump-1.0.0.release --bundle pump.bundle --dir build --sbom sbom.cdx.json \
    --provenance build.intoto.json --to acme.json=3f0c…(64 hex digits) --server https://devices.example.com:8443 --slot-size 8388608 --key offline/approver-alice.key --out pump-1.hmm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.StringVar(&c.spec.Product, "product", "", "product")
	f.StringVar(&c.spec.Hardware, "hardware", "A", "hardware revision")
	f.Uint32Var(&c.spec.Revision, "revision", 0, "of the master, from 1; it counts up")
	f.StringVar(&c.order.release, "release", "", "file: the signed release")
	f.StringVar(&c.bundle, "bundle", "", "file: the product's trust bundle in force")
	f.StringVar(&c.dir, "dir", "", "directory of the build: one file for each component, of its name")
	f.StringArrayVar(&c.files, "file", nil, "bytes of a component, NAME=PATH; once for each")
	f.StringVar(&c.sbom, "sbom", "", "file: the build's bill of materials")
	f.StringVar(&c.prov, "provenance", "", "file: where it was built from what")
	f.StringArrayVar(&c.to, "to", nil, "who may wrap orders of it, FILE=FINGERPRINT; again for several")
	f.StringVar(&c.spec.Notes, "notes", "", "what a person is to know of it")
	f.StringVar(&c.order.out, "out", "", "file to write; must not exist")
	c.order.params(cmd)
	c.key.flags(cmd)
	cmd.MarkFlagsOneRequired("dir", "file")
	cmd.MarkFlagsMutuallyExclusive("dir", "file")
	return need(cmd, "product", "revision", "release", "bundle", "sbom", "provenance", "to", "server", "slot-size", "key", "out")
}

func (c *masterCall) run(ctx context.Context, s streams) error {
	if _, err := os.Stat(c.order.out); !errors.Is(err, os.ErrNotExist) {
		return usagef("%s exists: choose another --out", c.order.out)
	}
	if err := c.read(); err != nil {
		return err
	}
	if err := c.recipients(); err != nil {
		return err
	}
	approver, err := c.key.open(ctx, s)
	if err != nil {
		return err
	}
	m, err := factory.BuildMaster(ctx, c.spec, approver, time.Now())
	if err != nil {
		return err
	}
	if err := durable.Write(c.order.out, 0o600, func(w io.Writer) error { return m.WriteFile(ctx, w) }); err != nil {
		return err
	}
	return sheetOfMaster(s.out, m.Master, m.Envelope, "written", c.order.out, "size", fmt.Sprintf("%d bytes", m.Size()))
}

// read fills in what files and flags say.
func (c *masterCall) read() (err error) {
	for _, f := range []struct {
		flag, path string
		to         *[]byte
	}{{"release", c.order.release, &c.spec.Release}, {"bundle", c.bundle, &c.spec.Bundle}} {
		if *f.to, err = readFile(f.path, wire.MaxEnvelope); err != nil {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
	}
	for _, f := range []struct {
		flag, path string
		to         *[]byte
	}{{"sbom", c.sbom, &c.spec.SBOM}, {"provenance", c.prov, &c.spec.Provenance}} {
		if *f.to, err = digestOfFile(f.path); err != nil {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
	}
	if c.spec.Params, err = c.order.deviceParams(); err != nil {
		return err
	}
	if c.dir == "" {
		c.spec.Payload, err = filesOf(c.files)
		return err
	}
	c.spec.Payload = func(_ context.Context, name string) (io.ReadCloser, error) {
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			return nil, fmt.Errorf("the release has a component %q, which is no file's name: give --file", name)
		}
		return os.Open(filepath.Join(c.dir, name))
	}
	return nil
}

func digestOfFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return sum.Sum(nil), err
}

// recipients reads whom it is sealed to; all are of one maker.
func (c *masterCall) recipients() error {
	for _, to := range c.to {
		i := strings.LastIndexByte(to, '=')
		if i < 1 {
			return usagef("--to %q: want FILE=FINGERPRINT, the fingerprint learned another way than the file", to)
		}
		file, err := readFile(to[:i], factory.MaxDeskFile)
		if err != nil {
			return fmt.Errorf("--to: %w", err)
		}
		f, err := desk.Pinned(file, to[i+1:])
		if err != nil {
			return err
		}
		if c.spec.OEM != "" && c.spec.OEM != f.OEM {
			return usagef("--to: %s is of maker %q, another of %q", to[:i], f.OEM, c.spec.OEM)
		}
		c.spec.OEM, c.spec.To = f.OEM, append(c.spec.To, f.SealKey)
	}
	return nil
}

// sheetOfMaster shows a master to somebody who is tired: what it is for, what is in it, and whose word that is.
func sheetOfMaster(w io.Writer, m wire.Master, envelope []byte, more ...string) error {
	h := m.Header
	digest := sha256.Sum256(envelope)
	pairs := []string{
		"master", fmt.Sprintf("revision %d for %s, hardware %s", h.Revision, h.Product, h.Hardware), "maker", h.OEM,
		"version", fmt.Sprintf("%s, security counter %d", h.Version, h.Counter), "release", hex.EncodeToString(h.Release), "trust bundle", fmt.Sprint(h.Trust),
	}
	for _, p := range h.Parts {
		pairs = append(pairs, "component "+p.Name, fmt.Sprintf("%s %s, %d bytes, %x", p.Kind, p.Version, p.Size, p.Digest))
	}
	pairs = append(pairs, "SBOM", hex.EncodeToString(h.SBOM), "provenance", hex.EncodeToString(h.Provenance), "parameters", hex.EncodeToString(h.Params), "built", unix(h.Created),
		"notes", h.Notes, "sealed for", fmt.Sprintf("%d", len(m.Keys)), "digest", hex.EncodeToString(digest[:]))
	return sheet(w, append(pairs, more...)...)
}

// openMasterFile reads a master's file to its end.
func openMasterFile(path string) (wire.SealedHead, wire.Master, error) {
	f, err := os.Open(path)
	if err != nil {
		return wire.SealedHead{}, wire.Master{}, err
	}
	defer f.Close()
	return factory.CheckMaster(bufio.NewReader(f))
}

func showMaster(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show what a master says it is", Args: cobra.ExactArgs(1), Example: "  hallmark master show pump-1.hmm",
		Long: "Shows what a master says it is, and reads the file to its end. Whether an approver signed it is told by `hallmark master verify`.",
		RunE: func(_ *cobra.Command, args []string) error {
			head, m, err := openMasterFile(args[0])
			if err != nil {
				return err
			}
			return sheetOfMaster(s.out, m, head.Envelope, "signature", "NOT CHECKED: hallmark master verify --bundle FILE")
		},
	}
}

func verifyMaster(s streams) *cobra.Command {
	var bundle, product, hardware, sbom, prov string
	var revision uint32
	cmd := &cobra.Command{
		Use: "verify FILE --bundle FILE", Short: "Check that an approver signed a master, and that nothing of it was changed", Args: cobra.ExactArgs(1),
		Long: `Checks that an approver of the product's releases signed the master, by the trust bundle in force, and that not a bit of the file was changed. With --product, --hardware,
--revision, --sbom or --provenance it must be those, too. Whether its bytes are the release's is seen where it can be opened: when an order is made of it.`,
		Example: "  hallmark master verify pump-1.hmm --bundle pump.bundle --product pump --sbom sbom.cdx.json",
		RunE: func(_ *cobra.Command, args []string) error {
			trusted, err := readFile(bundle, wire.MaxEnvelope)
			if err != nil {
				return fmt.Errorf("--bundle: %w", err)
			}
			b, err := wire.VerifyBundle(nil, trusted)
			if err != nil {
				return fmt.Errorf("--bundle: %w", err)
			}
			head, _, err := openMasterFile(args[0])
			if err != nil {
				return err
			}
			m, signer, err := wire.VerifyMaster(b, head.Envelope)
			if err != nil {
				return err
			}
			if sum := sha256.Sum256(trusted); string(sum[:]) != string(m.Header.Bundle) {
				return fmt.Errorf("it was built with trust bundle %d, and %s is %d: build it anew with the one in force", m.Header.Trust, bundle, b.Version)
			}
			if err := isMaster(m.Header, product, hardware, revision, map[string][]byte{sbom: m.Header.SBOM, prov: m.Header.Provenance}); err != nil {
				return err
			}
			return sheetOfMaster(s.out, m, head.Envelope, "signature", "good", "signed by", fmt.Sprintf("%x", sha256.Sum256(signer)))
		},
	}
	f := cmd.Flags()
	f.StringVar(&bundle, "bundle", "", "file: the product's trust bundle in force")
	f.StringVar(&product, "product", "", "the product it must be for")
	f.StringVar(&hardware, "hardware", "", "the hardware revision it must be for")
	f.Uint32Var(&revision, "revision", 0, "the revision it must at least have")
	f.StringVar(&sbom, "sbom", "", "file: the bill of materials that it must name")
	f.StringVar(&prov, "provenance", "", "file: the provenance that it must name")
	return need(cmd, "bundle")
}

// isMaster holds a master against what somebody expects; what is empty does not matter.
func isMaster(h wire.MasterHeader, product, hardware string, revision uint32, documents map[string][]byte) error {
	switch {
	case product != "" && product != h.Product:
		return fmt.Errorf("it is for product %q, not %q", h.Product, product)
	case hardware != "" && hardware != h.Hardware:
		return fmt.Errorf("it is for hardware %q, not %q", h.Hardware, hardware)
	case revision > h.Revision:
		return fmt.Errorf("it is revision %d, older than %d", h.Revision, revision)
	}
	for path, want := range documents {
		if path == "" {
			continue
		}
		got, err := digestOfFile(path)
		if err != nil {
			return err
		}
		if string(got) != string(want) {
			return fmt.Errorf("%s is not the document that the master names", path)
		}
	}
	return nil
}
