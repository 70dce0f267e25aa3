package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/mcuboot"
	"github.com/hallmark-iot/hallmark/wire/mender"
	"github.com/hallmark-iot/hallmark/wire/swu"
)

// checkFormats reads each component that is written in a format of another system, and refuses one that says something else than the release: who approves the release would sign the one, and
// that system would judge by the other.
func (s *Service) checkFormats(ctx context.Context, m wire.Release) error {
	for _, c := range m.Components {
		if c.Format == "" {
			continue
		}
		if err := s.checkFormat(ctx, m, c); err != nil {
			return fault.Newf(fault.Invalid, "release.format", "component %s is not what the release says of it: %w", c.Name, err).
				With("write it anew for this release, or say in the release what it is")
		}
	}
	return nil
}

func (s *Service) checkFormat(ctx context.Context, m wire.Release, c wire.Component) (err error) {
	blob, err := s.cfg.Blobs.Open(ctx, [32]byte(c.Digest))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	switch c.Format {
	case wire.FormatMCUboot:
		return checkMCUboot(m, c, blob)
	case wire.FormatSWU:
		return checkSWU(m, c, blob)
	case wire.FormatMender:
		return checkMender(m, c, blob)
	}
	return fmt.Errorf("format %q is not read here", c.Format)
}

// checkMCUboot: version, security counter, and that the image is what was signed, as far as one sees that without its content key.
func checkMCUboot(m wire.Release, c wire.Component, r io.Reader) error {
	if c.Size > mcuboot.MaxImage {
		return fmt.Errorf("%d bytes, and an image has at most %d", c.Size, mcuboot.MaxImage)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	image, err := mcuboot.Decode(data)
	if err != nil {
		return err
	}
	if err := image.Check(); err != nil {
		return err
	}
	if !image.HasSignature() {
		return errors.New("nobody has signed the image: sign it by P-256 or Ed25519")
	}
	if v := image.Version.String(); v != c.Version && (image.Version.Build == 0 || !strings.HasPrefix(v, c.Version+"+")) {
		return fmt.Errorf("the image has version %s, and the release says %s", v, c.Version)
	}
	counter, ok := image.Counter()
	if !ok {
		return errors.New("the image has no security counter, so that its boot manager would go back: write it with one")
	}
	if counter != m.Counter {
		return fmt.Errorf("the image has security counter %d, and the release %d", counter, m.Counter)
	}
	return nil
}

// checkSWU: version, hardware, that somebody signed it, and, of the release's image, that what is laid into a bank is what the release says lies there.
func checkSWU(m wire.Release, c wire.Component, r io.Reader) error {
	u, err := swu.Read(r)
	if err != nil {
		return err
	}
	if len(u.Signature) == 0 {
		return errors.New("nobody has signed the update: SWUpdate would have to take anything")
	}
	if u.Description.Version != c.Version {
		return fmt.Errorf("the update has version %s, and the release says %s", u.Description.Version, c.Version)
	}
	for _, f := range u.Files {
		if err := checkLaid(c, f.Size, f.Digest); err != nil {
			return err
		}
	}
	return checkHardware(m, c, u.Description.Hardware)
}

// checkLaid: of an image, that what the other system lays into a bank is what the release says lies there.
func checkLaid(c wire.Component, size uint64, digest [32]byte) error {
	if c.Laid != nil && (size != c.Laid.Size || digest != [32]byte(c.Laid.Digest)) {
		return fmt.Errorf("it lays %d bytes, sha256 %x, and the release says %d, %x", size, digest, c.Laid.Size, c.Laid.Digest)
	}
	return nil
}

// checkHardware: that the other system takes it on what the release says it works on, and on nothing else.
func checkHardware(m wire.Release, c wire.Component, says []string) error {
	want := c.Hardware
	if len(want) == 0 {
		want = m.Hardware
	}
	if !slices.Equal(slices.Sorted(slices.Values(says)), slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("it is for hardware %q, and the release says %q", says, want)
	}
	return nil
}

// checkMender: the version of the software, device types, which are hardware revisions here, that somebody signed it, and, of the release's image, what is laid into a bank.
func checkMender(m wire.Release, c wire.Component, r io.Reader) error {
	a, err := mender.Read(r)
	if err != nil {
		return err
	}
	if len(a.Signature) == 0 {
		return errors.New("nobody has signed the artifact: a client would have to take anything")
	}
	if v := a.Type.Version(); v != c.Version {
		return fmt.Errorf("the artifact provides version %q, and the release says %s", v, c.Version)
	}
	if err := checkLaid(c, a.Size, a.Digest); err != nil {
		return err
	}
	return checkHardware(m, c, a.Info.Depends.DeviceTypes)
}

// checkNames refuses an artifact of Mender's that is called like another of another version of the product: its client says no more of what it runs than that name. The same artifact again is the same
// software.
func (s *Service) checkNames(ctx context.Context, m wire.Release) error {
	for _, c := range m.Components {
		if c.Format != wire.FormatMender {
			continue
		}
		name, err := s.artifactName(ctx, c)
		if err != nil {
			return err
		}
		if err := s.checkName(ctx, m, c, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkName(ctx context.Context, m wire.Release, c wire.Component, name string) error {
	all, err := s.cfg.Store.Releases(ctx, m.Product, nil, 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Manifest.Version == m.Version || r.Status == Refused {
			continue
		}
		for _, o := range r.Manifest.Components {
			if o.Format != wire.FormatMender || bytes.Equal(o.Digest, c.Digest) {
				continue
			}
			other, err := s.artifactName(ctx, o)
			if errors.Is(err, ErrNotFound) {
				continue // it is offered to nobody
			}
			if err != nil {
				return err
			}
			if other == name {
				return conflict("release.name", fmt.Sprintf("the artifact of component %s is called %.128q, and so is that of release %s, version %s: a client of Mender's says only that name of what it runs",
					c.Name, name, r.Manifest.ID, r.Manifest.Version), "write the artifact with a name of its own, as NAME-"+m.Version)
			}
		}
	}
	return nil
}

// artifactName is what an artifact of Mender's is called.
func (s *Service) artifactName(ctx context.Context, c wire.Component) (name string, err error) {
	blob, err := s.cfg.Blobs.Open(ctx, [32]byte(c.Digest))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	h, err := mender.ReadHead(blob)
	return h.Name, err
}
