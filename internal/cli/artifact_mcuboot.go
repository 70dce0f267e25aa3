package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/wire/mcuboot"
)

// mcubootOptions are what only MCUboot's images have.
type mcubootOptions struct {
	headerSize, load, encryptTo string
	dependencies                []string
	keyBits                     int
}

func (o *mcubootOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.headerSize, "header-size", "", "mcuboot: bytes before the program, as it was linked, such as 0x200 (default 32)")
	f.StringVar(&o.load, "load", "", "mcuboot: address that it is copied to before it is started (default: it is executed where it lies)")
	f.StringArrayVar(&o.dependencies, "dependency", nil, "mcuboot: least version of another image of the device, NUMBER:VERSION")
	f.StringVar(&o.encryptTo, "encrypt-to", "", "mcuboot: encrypt it, with the content key wrapped for this public key, PEM: P-256 or X25519")
	f.IntVar(&o.keyBits, "key-bits", 128, "mcuboot: bits of the content key, 128 or 256: what the boot manager was built for")
}

func (o mcubootOptions) options(version string, counter uint32) (out mcuboot.Options, err error) {
	out.Counter = counter
	if out.Version, err = mcuboot.ParseVersion(version); err != nil {
		return out, usageError{err}
	}
	number := func(flag, s string, bits int) uint64 {
		if s == "" || err != nil {
			return 0
		}
		var n uint64
		if n, err = strconv.ParseUint(s, 0, bits); err != nil {
			err = usagef("--%s %q: want a number, such as 0x200", flag, s)
		}
		return n
	}
	out.HeaderSize = uint16(number("header-size", o.headerSize, 16))
	out.Load = uint32(number("load", o.load, 32))
	for _, d := range o.dependencies {
		n, v, _ := strings.Cut(d, ":")
		image, bad := strconv.ParseUint(n, 10, 8)
		version, worse := mcuboot.ParseVersion(v)
		if bad != nil || worse != nil {
			return out, usagef("--dependency %q: want NUMBER:VERSION, such as 1:2.0.1+5", d)
		}
		out.Dependencies = append(out.Dependencies, mcuboot.Dependency{Image: uint8(image), Version: version})
	}
	if o.encryptTo != "" {
		out.KeyBits = o.keyBits
	}
	return out, err
}

func writeMCUboot(ctx context.Context, s streams, o artifactOptions) error {
	options, err := o.mcuboot.options(o.version, o.counter)
	if err != nil {
		return err
	}
	body, err := readFile(o.in, mcuboot.MaxImage)
	if err != nil {
		return err
	}
	m, err := mcuboot.New(options, body)
	if err != nil {
		return usageError{err}
	}
	signer, err := signingKey(ctx, s, o.key)
	if err != nil {
		return err
	}
	if err := m.Sign(signer); err != nil {
		return err
	}
	if err := m.Verify(signer.Public()); err != nil { // by a token, for instance: what came back is looked at before it is anybody's
		return err
	}
	if o.mcuboot.encryptTo != "" {
		to, err := wrappingPublic(o.mcuboot.encryptTo)
		if err != nil {
			return err
		}
		if m, err = m.Encrypt(to); err != nil {
			return err
		}
	}
	return putMCUboot(s, m, o.out)
}

func putMCUboot(s streams, m mcuboot.Image, out string) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(out, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}); err != nil {
		return err
	}
	return sheet(s.out, append(mcubootPairs(m), "written", out)...)
}

func mcubootPairs(m mcuboot.Image) []string {
	counter := "none: its boot manager goes back to any version that is signed"
	if n, ok := m.Counter(); ok {
		counter = fmt.Sprint(n)
	}
	sealed := ""
	if m.Sealed {
		sealed = "yes: its content key is wrapped for one key"
	}
	var needs []string
	for _, d := range m.Dependencies() {
		needs = append(needs, fmt.Sprintf("image %d at least %s", d.Image, d.Version))
	}
	hash := "none"
	if h, ok := m.Signed(); ok {
		hash = fmt.Sprintf("sha256 %x", h)
	}
	return []string{
		"format", "mcuboot", "version", m.Version.String(), "counter", counter, "header", fmt.Sprintf("%d bytes", m.HeaderSize()), "body", fmt.Sprintf("%d bytes", len(m.Body)),
		"needs", strings.Join(needs, ", "), "encrypted", sealed, "signed", hash,
	}
}

func readMCUboot(path string) (mcuboot.Image, error) {
	data, err := readFile(path, mcuboot.MaxImage)
	if err != nil {
		return mcuboot.Image{}, err
	}
	return mcuboot.Decode(data)
}

func artifactRewrap(s streams) *cobra.Command {
	var by, to, out string
	c := &cobra.Command{
		Use: "rewrap FILE --by KEY --to PUBLIC --out FILE", Short: "Wrap an encrypted image's content key for a device", Args: cobra.ExactArgs(1),
		Long: `Writes an encrypted image of MCUboot's with its content key wrapped for another key, a device's: by the private key that it is wrapped for now. The sealed bytes and the
signature stay as they are, so that an image is signed once, and no two devices need the same key.`,
		Example: "  hallmark artifact rewrap radio.img --by keeper.pem --to device-17.pub --out radio-17.img",
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := readMCUboot(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			own, err := wrappingKey(by)
			if err != nil {
				return err
			}
			device, err := wrappingPublic(to)
			if err != nil {
				return err
			}
			if _, err := m.Decrypt(own); err != nil && !errors.Is(err, mcuboot.ErrNotFor) { // nobody is sent what is not what was signed
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if m, err = m.Rewrap(own, device); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return putMCUboot(s, m, out)
		},
	}
	c.Flags().StringVar(&by, "by", "", "the private key that it is wrapped for now, PEM")
	c.Flags().StringVar(&to, "to", "", "the device's public key, PEM: P-256 or X25519")
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "by", "to", "out")
}
