package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/mender"
	"github.com/hallmark-iot/hallmark/wire/suit"
	"github.com/hallmark-iot/hallmark/wire/swu"
)

// newArtifact is what is done with files before they are components of a release: without a network, where the key is. Only the list, and what is deleted of it, are of an instance.
func newArtifact(s streams) *cobra.Command {
	c := &cobra.Command{Use: "artifact", Short: "Write, show and wrap what other systems start or install, without a network; list and delete what was uploaded"}
	c.AddCommand(artifactWrite(s), artifactShow(s), artifactRewrap(s), artifactList(s), artifactPrune(s))
	return c
}

// artifactOptions are what a file is written with.
type artifactOptions struct {
	format, in, version, out string
	counter                  uint32
	key                      keyFile

	mcuboot mcubootOptions
	swu     swuOptions
	mender  menderOptions
}

func artifactWrite(s streams) *cobra.Command {
	var o artifactOptions
	c := &cobra.Command{
		Use: "write --as FORMAT --in FILE --version VERSION --key KEY --out FILE", Short: "Write a file as another system reads it, and sign it",
		Long: `Writes a file as another system reads it, and signs it: on a machine that needs no network, because the key is there and not on the server. What comes of it is
a component of a release like any other, with ` + "`hallmark release create --format NAME=FORMAT`" + `: the server then reads it, and refuses one that says another version, or another
security counter, than the release that people approve.

As mcuboot it is an image that MCUboot starts, as imgtool writes them. --key is a P-256 or Ed25519 key: in PEM as imgtool and OpenSSL make them, in the offline key directory, or in a token.
With --encrypt-to it is encrypted as well, under a key of its own, which is wrapped for the key that is named: yours, from which ` + "`hallmark artifact rewrap`" + ` wraps it for
one device after another.

As swu it is an update that SWUpdate 2022.12 installs: FILE as it is, into the device that --device names. --cert is the certificate of --key, for code signing and mail (SWUpdate's ` + "`-k`" + ` is it, or what issued it).
--hardware are the revisions that SWUpdate is told (` + "`-H`" + `).

As mender it is an artifact of Mender's, format 3, for devices of --device-type, installed by the update module that --payload names. --key is a P-256 key.`,
		Example: `  hallmark artifact write --as mcuboot --in build/zephyr.bin --version 1.2.3+4 --counter 7 --header-size 0x200 --key signing.pem --out radio.img
  hallmark artifact write --as mcuboot --in build/zephyr.bin --version 1.2.3 --counter 7 --key signing.pem --encrypt-to keeper.pub --out radio.img
  hallmark artifact write --as swu --in build/root.squashfs --version 1.2.0 --hardware 1.0 --device a=/dev/mmcblk0p2 --device b=/dev/mmcblk0p3 --key maker.pem --cert maker.crt --out root.swu
  hallmark artifact write --as mender --in build/root.ext4 --version 1.2.0 --device-type board --key maker.pem --out root.mender`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch wire.Format(o.format) {
			case wire.FormatMCUboot:
				if !cmd.Flags().Changed("counter") {
					return usagef("--counter: an image without a security counter is one that its boot manager goes back from")
				}
				return writeMCUboot(cmd.Context(), s, o)
			case wire.FormatSWU:
				return writeSWU(cmd.Context(), s, o)
			case wire.FormatMender:
				return writeMender(cmd.Context(), s, o)
			}
			return usagef("--as %q: want mcuboot, swu or mender", o.format)
		},
	}
	f := c.Flags()
	f.StringVar(&o.format, "as", "", "what it is written as: mcuboot, swu or mender")
	f.StringVar(&o.in, "in", "", "the file that the build made")
	f.StringVar(&o.version, "version", "", "its version; an image of MCUboot's may have a build number, 1.2.3+4")
	f.StringVar(&o.key.path, "key", "", "what signs it: a private key in PEM, a key file of the offline key directory, or pkcs11:token=LABEL;object=KEY?module-path=LIBRARY")
	o.key.pass.flag(c)
	f.StringVar(&o.out, "out", "", "file to write")
	f.Uint32Var(&o.counter, "counter", 0, "mcuboot: security counter, the release's")
	o.mcuboot.flags(f)
	o.swu.flags(f)
	o.mender.flags(f)
	return need(c, "as", "in", "version", "key", "out")
}

func artifactShow(s streams) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "show FILE", Short: "Say what is in a file of another system's format", Args: cobra.ExactArgs(1),
		Long: `Says what is in an image of MCUboot's, an update of SWUpdate's, an artifact of Mender's or a SUIT envelope, and whether it is whole; with --key, whether it was signed by that key. Of updates and
artifacts those are read that say no more than ` + "`hallmark artifact write`" + ` does.`,
		Example: "  hallmark artifact show radio.img --key signing.pub",
		RunE: func(_ *cobra.Command, args []string) error {
			pairs, err := showArtifact(args[0], key)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return sheet(s.out, pairs...)
		},
	}
	c.Flags().StringVar(&key, "key", "", "the public key that must have signed it, PEM; of an update of SWUpdate's the certificate")
	return c
}

// showArtifact knows a file by how it begins.
func showArtifact(path, key string) (pairs []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	begin := make([]byte, 7)
	if _, err := f.ReadAt(begin, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	verify := func(by func() error) string {
		if key == "" {
			return "NOT CHECKED: name the key with --key"
		}
		if err = by(); err != nil {
			return "BAD"
		}
		return "good"
	}
	switch {
	case bytes.Equal(begin[:6], []byte("070702")):
		u, bad := swu.Read(f)
		if bad != nil {
			return nil, bad
		}
		return append(swuPairs(u), "signature", verify(func() error { return verifySWU(u, key) })), err
	case bytes.Equal(begin[:2], []byte{0xd8, 0x6b}):
		data, bad := readFile(path, suit.MaxEnvelope)
		if bad != nil {
			return nil, bad
		}
		e, m, bad := suit.Decode(data)
		if bad != nil {
			return nil, bad
		}
		return append(suitPairs(e, m), "signature", verify(func() error { return withPublic(key, e.Verify) })), err
	case bytes.Equal(begin, []byte("version")):
		a, bad := mender.Read(f)
		if bad != nil {
			return nil, bad
		}
		return append(menderPairs(a), "signature", verify(func() error { return withPublic(key, a.Verify) })), err
	}
	m, bad := readMCUboot(path)
	if bad != nil {
		return nil, bad
	}
	if bad := m.Check(); bad != nil {
		return nil, bad
	}
	return append(mcubootPairs(m), "signature", verify(func() error { return withPublic(key, m.Verify) })), err
}

func withPublic(path string, verify func(crypto.PublicKey) error) error {
	pub, err := publicPEM(path)
	if err != nil {
		return err
	}
	return verify(pub)
}

// signingKey opens what signs a file: PEM, as the tools of other systems keep keys, or whatever else signs here.
func signingKey(ctx context.Context, s streams, k keyFile) (crypto.Signer, error) {
	if strings.HasPrefix(k.path, pkcs11.Scheme) || filepath.Ext(k.path) == ".key" {
		return k.open(ctx, s)
	}
	key, err := privatePEM(k.path)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, usagef("%s is a key of type %T, which signs nothing", k.path, key)
	}
	return signer, nil
}

func privatePEM(path string) (any, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: want a private key in PKCS #8, not encrypted, as imgtool keygen and openssl genpkey make them: %w", path, err)
	}
	return key, nil
}

func publicPEM(path string) (any, error) {
	der, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: want a public key, as openssl pkey -pubout and imgtool getpub -e pem write them: %w", path, err)
	}
	return key, nil
}

// wrappingKey opens a private key for which content keys are wrapped.
func wrappingKey(path string) (*ecdh.PrivateKey, error) {
	key, err := privatePEM(path)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *ecdh.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k.ECDH()
	}
	return nil, usagef("%s is a key of type %T: content keys are wrapped for P-256 or X25519", path, key)
}

func wrappingPublic(path string) (*ecdh.PublicKey, error) {
	key, err := publicPEM(path)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *ecdh.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		return k.ECDH()
	}
	return nil, usagef("%s is a key of type %T: content keys are wrapped for P-256 or X25519", path, key)
}

// writeNew writes what a command makes, whole or not at all, and nothing over what is there.
func writeNew(path string, write func(w io.Writer) error) error {
	if _, err := os.Stat(path); err == nil {
		return usagef("%s exists: choose another name", path)
	}
	return durable.Write(path, 0o644, write)
}
