package cli

import (
	"bytes"
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
}

func (s *set) flags(f *pflag.FlagSet) {
	f.StringVar(&s.from, "from", "", "take every component that no --file names from this release, as it is: digest or PRODUCT@VERSION")
	f.StringSliceVar(&s.drop, "drop", nil, "with --from: components to leave out")
	f.StringArrayVar(&s.versions, "component-version", nil, "a component's own version, NAME=VERSION (default: the release's)")
	f.StringArrayVar(&s.requires, "requires", nil, "what a component needs of another, NAME:OTHER>=VERSION, NAME:OTHER<VERSION, or both: NAME:OTHER>=VERSION<VERSION")
	f.StringArrayVar(&s.capabilities, "capabilities", nil, "what a program may reach beyond its own directory, NAME=FILE: JSON, as docs/guide/programs.md tells (default: nothing)")
	f.StringArrayVar(&s.lies, "lies", nil, "what lies in the machine's bank once an image is installed, NAME=FILE: the file system that the image was made of")
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
			Capabilities: c.Capabilities, Laid: c.Laid,
		})
	}
	if len(left) > 0 {
		return nil, usagef("--drop: release %s has no component %s", r.Manifest.ID, strings.Join(left, ", "))
	}
	return out, nil
}

// apply gives the components their own versions and needs.
func (s *set) apply(components []release.Component) error {
	find := func(flag, name string) (*release.Component, error) {
		for i := range components {
			if components[i].Name == name {
				return &components[i], nil
			}
		}
		return nil, usagef("--%s: the release has no component %q", flag, name)
	}
	for _, v := range s.versions {
		name, version, ok := strings.Cut(v, "=")
		if !ok {
			return usagef("--component-version %q: want NAME=VERSION", v)
		}
		c, err := find("component-version", name)
		if err != nil {
			return err
		}
		c.Version = version
	}
	fresh := map[string]bool{} // what is said here is all that a component requires
	for _, v := range s.requires {
		name, q, ok := requirement(v)
		if !ok {
			return usagef("--requires %q: want NAME:OTHER>=VERSION, NAME:OTHER<VERSION or NAME:OTHER>=VERSION<VERSION", v)
		}
		c, err := find("requires", name)
		if err != nil {
			return err
		}
		if !fresh[name] {
			c.Requires, fresh[name] = nil, true
		}
		c.Requires = append(c.Requires, q)
		slices.SortFunc(c.Requires, func(x, y wire.Requirement) int { return strings.Compare(x.Component, y.Component) })
	}
	for _, v := range s.onlyOn {
		name, revisions, ok := strings.Cut(v, "=")
		if !ok {
			return usagef("--only-on %q: want NAME=REVISION,REVISION", v)
		}
		c, err := find("only-on", name)
		if err != nil {
			return err
		}
		c.Hardware = strings.Split(revisions, ",")
		slices.Sort(c.Hardware)
	}
	for _, v := range s.lies {
		name, path, ok := strings.Cut(v, "=")
		if !ok || path == "" {
			return usagef("--lies %q: want NAME=FILE", v)
		}
		c, err := find("lies", name)
		if err != nil {
			return err
		}
		if c.Laid, err = laid(path); err != nil {
			return usagef("--lies %q: %v", v, err)
		}
	}
	for _, v := range s.capabilities {
		name, path, ok := strings.Cut(v, "=")
		if !ok || path == "" {
			return usagef("--capabilities %q: want NAME=FILE", v)
		}
		c, err := find("capabilities", name)
		if err != nil {
			return err
		}
		if c.Capabilities, err = readCapabilities(path); err != nil {
			return usagef("--capabilities %q: %v", v, err)
		}
	}
	return nil
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

// requirement reads NAME:OTHER>=1.2.0<2.0.0.
func requirement(s string) (name string, q wire.Requirement, ok bool) {
	name, rest, ok := strings.Cut(s, ":")
	rest, q.Below, _ = strings.Cut(rest, "<")
	q.Component, q.From, _ = strings.Cut(rest, ">=")
	return name, q, ok && name != "" && q.Component != "" && (q.From != "" || q.Below != "")
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
	if c.Laid != nil {
		fmt.Fprintf(&out, ", in its bank %d bytes, sha256 %x", c.Laid.Size, c.Laid.Digest)
	}
	if c.Capabilities != nil {
		out.WriteString(", may: " + c.Capabilities.String())
	}
	return out.String()
}
