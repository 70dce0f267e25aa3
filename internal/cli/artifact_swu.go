package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/smallstep/pkcs7"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/wire/mender"
	"github.com/hallmark-iot/hallmark/wire/swu"
)

// swuOptions are what only updates of SWUpdate's have.
type swuOptions struct {
	cert              string
	hardware, devices []string
}

func (o *swuOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.cert, "cert", "", "swu: the certificate of --key, PEM")
	f.StringSliceVar(&o.hardware, "hardware", nil, "swu: hardware revisions that it is for, as SWUpdate is told them")
	f.StringArrayVar(&o.devices, "device", nil, "swu: what the file is laid into, such as /dev/mmcblk0p2; or MODE=DEVICE, once for each mode that SWUpdate is called with (-e stable,MODE)")
}

func (o swuOptions) description(version, file string) (swu.Description, error) {
	d := swu.Description{Version: version, Hardware: o.hardware}
	if len(o.hardware) == 0 || len(o.devices) == 0 || o.cert == "" {
		return d, usagef("--as swu takes --hardware, --device and --cert")
	}
	for _, v := range o.devices {
		mode, device, named := strings.Cut(v, "=")
		if !named {
			device = v
		}
		image := swu.Image{Filename: file, Device: device, Type: "raw", Directly: true}
		if !named {
			d.Images = append(d.Images, image)
			continue
		}
		if d.Stable == nil {
			d.Stable = map[string]swu.OneMode{}
		}
		d.Stable[mode] = swu.OneMode{Images: append(d.Stable[mode].Images, image)}
	}
	return d, nil
}

func writeSWU(ctx context.Context, s streams, o artifactOptions) (err error) {
	name := filepath.Base(o.in)
	d, err := o.swu.description(o.version, name)
	if err != nil {
		return err
	}
	cert, err := signerCertificate(o.swu.cert)
	if err != nil {
		return err
	}
	signer, err := signingKey(ctx, s, o.key)
	if err != nil {
		return err
	}
	if pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(signer.Public()) {
		return usagef("--cert %s is not of the key %s", o.swu.cert, o.key.path)
	}
	f, err := os.Open(o.in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sign := func(description []byte) ([]byte, error) { return signCMS(cert, signer, description) }
	if err := writeNew(o.out, func(w io.Writer) error {
		return swu.Write(w, d, sign, swu.Source{Name: name, ReadSeeker: f})
	}); err != nil {
		return err
	}
	pairs, err := showArtifact(o.out, "")
	if err != nil {
		return err
	}
	return sheet(s.out, append(pairs[:len(pairs)-2], "written", o.out)...)
}

// signerCertificate is one that SWUpdate believes: it asks for mail, or for code signing, whichever it is told.
func signerCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageEmailProtection) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		return nil, usagef("%s is for neither mail nor code signing (extendedKeyUsage emailProtection, codeSigning): SWUpdate would refuse it", path)
	}
	return c, nil
}

func signCMS(cert *x509.Certificate, key crypto.Signer, content []byte) ([]byte, error) {
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(cert, key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign sw-description: %w", err)
	}
	sd.Detach()
	return sd.Finish()
}

// verifySWU: by just that certificate. SWUpdate takes what it issued as well.
func verifySWU(u swu.Update, path string) error {
	cert, err := signerCertificate(path)
	if err != nil {
		return err
	}
	p, err := pkcs7.Parse(u.Signature)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	p.Content = u.Signed
	if by := p.GetOnlySigner(); by == nil || !bytes.Equal(by.Raw, cert.Raw) {
		return errors.New("signature: it is by another certificate")
	}
	if err := p.Verify(); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	return nil
}

func swuPairs(u swu.Update) []string {
	pairs := []string{"format", "swu", "version", u.Description.Version, "hardware", strings.Join(u.Description.Hardware, ", ")}
	for _, f := range u.Files {
		pairs = append(pairs, "file "+f.Name, fmt.Sprintf("%d bytes, sha256 %x", f.Size, f.Digest))
	}
	return pairs
}

// menderOptions are what only Mender's artifacts have.
type menderOptions struct {
	name, payload string
	types         []string
}

func (o *menderOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.types, "device-type", nil, "mender: types of devices that take it")
	f.StringVar(&o.name, "name", "", "mender: name of the artifact (default: FILE without its ending, a dash, VERSION)")
	f.StringVar(&o.payload, "payload", "rootfs-image", "mender: rootfs-image, or the update module that installs it")
}

func writeMender(ctx context.Context, s streams, o artifactOptions) (err error) {
	file := filepath.Base(o.in)
	options := mender.Options{Name: o.mender.name, Version: o.version, DeviceTypes: o.mender.types, Type: o.mender.payload, File: file}
	if options.Name == "" {
		options.Name = strings.TrimSuffix(file, filepath.Ext(file)) + "-" + o.version
	}
	if len(options.DeviceTypes) == 0 {
		return usagef("--as mender takes --device-type")
	}
	signer, err := signingKey(ctx, s, o.key)
	if err != nil {
		return err
	}
	f, err := os.Open(o.in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := writeNew(o.out, func(w io.Writer) error { return mender.Write(w, options, signer, f) }); err != nil {
		return err
	}
	pairs, err := showArtifact(o.out, "")
	if err != nil {
		return err
	}
	return sheet(s.out, append(pairs[:len(pairs)-2], "written", o.out)...)
}

func menderPairs(a mender.Artifact) []string {
	return []string{
		"format", "mender", "name", a.Info.Provides.Name, "version", a.Type.Version(), "device types", strings.Join(a.Info.Depends.DeviceTypes, ", "), "payload", a.Type.Type,
		"file " + a.File, fmt.Sprintf("%d bytes, sha256 %x", a.Size, a.Digest),
	}
}
