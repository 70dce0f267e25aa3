package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// set says of a release what makes it a set of assets: which components stay as they are in another release, and what those that are new need.
type set struct {
	from                       string
	drop                       []string
	versions, requires, onlyOn []string
	capabilities, lies         []string
	formats, after             []string
}

func (s *set) flags(f *pflag.FlagSet) {
	f.StringVar(&s.from, "from", "", "take every component that no --file names from this release, as it is: digest or PRODUCT@VERSION")
	f.StringSliceVar(&s.drop, "drop", nil, "with --from: components to leave out")
	f.StringArrayVar(&s.versions, "component-version", nil, "a component's own version, NAME=VERSION (default: the release's)")
	f.StringArrayVar(&s.requires, "requires", nil, "what a component needs of another, NAME:OTHER>=VERSION, NAME:OTHER<VERSION, or both: NAME:OTHER>=VERSION<VERSION")
	f.StringArrayVar(&s.capabilities, "capabilities", nil, "what a program may reach beyond its own directory, NAME=FILE: JSON, as docs/guide/programs.md tells (default: nothing)")
	f.StringArrayVar(&s.lies, "lies", nil, "what lies in the machine's bank once an image is installed, NAME=FILE: the file system that the image was made of")
	f.StringArrayVar(&s.formats, "format", nil, "as what a component is written, NAME=mcuboot, NAME=swu or NAME=mender: it is read, and has to say what the release says (default: the bytes are what they are)")
	f.StringArrayVar(&s.after, "after", nil, "which programs are up before a program is started, NAME=OTHER,OTHER: it is stopped before them (default: none)")
	f.StringArrayVar(&s.onlyOn, "only-on", nil, "hardware revisions a component works on, NAME=REVISION,REVISION (default: all)")
}

// kept are the components that stay as they are in the release that --from names.
func (s *set) kept(ctx context.Context, cl *client.Client, files []file) ([]release.Component, error) {
	if s.from == "" {
		if len(s.drop) > 0 {
			return nil, usagef("--drop leaves out what --from would take: say --from as well")
		}
		return nil, nil
	}
	r, err := findRelease(ctx, cl, s.from)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	var out []release.Component
	left := slices.Clone(s.drop)
	for _, c := range r.Manifest.Components {
		if i := slices.Index(left, c.Name); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		if slices.ContainsFunc(files, func(f file) bool { return f.component.Name == c.Name }) {
			continue
		}
		out = append(out, release.Component{
			Name: c.Name, Kind: c.Kind, Version: c.Version, Artifact: c.Digest, Health: c.Health, Args: c.Args, Requires: c.Requires, Hardware: c.Hardware,
			Capabilities: c.Capabilities, Laid: c.Laid, Format: c.Format, After: c.After,
		})
	}
	if len(left) > 0 {
		return nil, usagef("--drop: release %s has no component %s", r.Manifest.ID, strings.Join(left, ", "))
	}
	return out, nil
}

// apply gives the components their own versions and needs.
func (s *set) apply(components []release.Component) error {
	// each takes a flag's NAME=VALUE apart and gives the value to the component of that name.
	each := func(flag, want string, list []string, sep string, give func(c *release.Component, value string) error) error {
		for _, v := range list {
			name, value, ok := strings.Cut(v, sep)
			if !ok || value == "" {
				return usagef("--%s %q: want %s", flag, v, want)
			}
			i := slices.IndexFunc(components, func(c release.Component) bool { return c.Name == name })
			if i < 0 {
				return usagef("--%s: the release has no component %q", flag, name)
			}
			if err := give(&components[i], value); err != nil {
				return usagef("--%s %q: %v", flag, v, err)
			}
		}
		return nil
	}
	fresh := map[string]bool{} // what is said here is all that a component requires
	const requires = "NAME:OTHER>=VERSION, NAME:OTHER<VERSION or NAME:OTHER>=VERSION<VERSION"
	return cmp.Or(
		each("component-version", "NAME=VERSION", s.versions, "=", func(c *release.Component, v string) error {
			c.Version = v
			return nil
		}),
		each("requires", requires, s.requires, ":", func(c *release.Component, v string) error {
			q, ok := requirement(v)
			if !ok {
				return errors.New("want " + requires)
			}
			if !fresh[c.Name] {
				c.Requires, fresh[c.Name] = nil, true
			}
			c.Requires = append(c.Requires, q)
			slices.SortFunc(c.Requires, func(x, y wire.Requirement) int { return strings.Compare(x.Component, y.Component) })
			return nil
		}),
		each("only-on", "NAME=REVISION,REVISION", s.onlyOn, "=", func(c *release.Component, v string) error {
			c.Hardware = strings.Split(v, ",")
			slices.Sort(c.Hardware)
			return nil
		}),
		each("after", "NAME=OTHER,OTHER", s.after, "=", func(c *release.Component, v string) error {
			c.After = strings.Split(v, ",")
			slices.Sort(c.After)
			return nil
		}),
		each("lies", "NAME=FILE", s.lies, "=", func(c *release.Component, path string) (err error) {
			c.Laid, err = laid(path)
			return err
		}),
		each("format", "NAME=mcuboot, NAME=swu or NAME=mender", s.formats, "=", func(c *release.Component, v string) error {
			c.Format = wire.Format(v)
			return nil
		}),
		each("capabilities", "NAME=FILE", s.capabilities, "=", func(c *release.Component, path string) (err error) {
			c.Capabilities, err = readCapabilities(path)
			return err
		}),
	)
}

// laid measures what an installer makes of an image.
func laid(path string) (_ *wire.Laid, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, err
	}
	return &wire.Laid{Size: uint64(n), Digest: h.Sum(nil)}, nil
}

// readCapabilities reads what a program may. Its lists may be in any order; a manifest has them rise.
func readCapabilities(path string) (*wire.Capabilities, error) {
	data, err := readFile(path, wire.MaxRelease)
	if err != nil {
		return nil, err
	}
	var c wire.Capabilities
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON object")
	}
	slices.Sort(c.ConnectTCP)
	slices.Sort(c.BindTCP)
	slices.Sort(c.Read)
	slices.Sort(c.Devices)
	slices.Sort(c.Parameters)
	return &c, nil
}

// requirement reads OTHER>=1.2.0<2.0.0.
func requirement(s string) (q wire.Requirement, ok bool) {
	rest, below, _ := strings.Cut(s, "<")
	q.Below = below
	q.Component, q.From, _ = strings.Cut(rest, ">=")
	return q, q.Component != "" && (q.From != "" || q.Below != "")
}

// needsOf says what a component needs.
func needsOf(c wire.Component) string {
	var out strings.Builder
	for _, q := range c.Requires {
		out.WriteString(", requires " + q.String())
	}
	if len(c.Hardware) > 0 {
		out.WriteString(", only on " + strings.Join(c.Hardware, ", "))
	}
	if len(c.After) > 0 {
		out.WriteString(", starts after " + strings.Join(c.After, ", "))
	}
	if c.Format != "" {
		out.WriteString(", written as " + string(c.Format))
	}
	if c.Laid != nil {
		fmt.Fprintf(&out, ", in its bank %d bytes, sha256 %x", c.Laid.Size, c.Laid.Digest)
	}
	if c.Capabilities != nil {
		out.WriteString(", may: " + c.Capabilities.String())
	}
	return out.String()
}
