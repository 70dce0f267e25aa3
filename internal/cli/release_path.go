package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/rollout/solve"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *api) releasePath() *cobra.Command {
	var device string
	c := a.verb(cobra.Command{
		Use: "path RELEASE --device ID", Short: "Find the path of a device to a release, over stepping stones", Args: cobra.ExactArgs(1),
		Long: `Finds what a device has to be told, one after the other, to come to a release from what it runs: by what each is installed over, security counters, hardware, settings and room. A path has as
few steps as can be, because each is a restart, and of those as few bytes. A rollout with --stepping-stones takes devices over it. Where there is none it says why.` + releaseArg,
		Example: "  hallmark release path pump@3.0.0 --device 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		digest, _, err := digestOf(ctx, cl, args[0])
		if err != nil {
			return err
		}
		p, err := cl.ReleasePath(ctx, fmt.Sprintf("%x", digest), device)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			if len(p.Steps) == 0 {
				return sheet(w, "device", p.Device, "runs", p.Runs, "to", p.Release, "no path", p.Why)
			}
			rows := make([][]string, len(p.Steps))
			for i, s := range p.Steps {
				rows[i] = []string{fmt.Sprint(i + 1), s.Version, fmt.Sprint(s.Bytes), fmt.Sprintf("%x", s.Digest)}
			}
			return errors.Join(table(w, "STEP VERSION BYTES DIGEST", rows), sheet(w, "runs", p.Runs, "bytes in all", fmt.Sprint(p.Bytes)))
		})
	})
	c.Flags().StringVar(&device, "device", "", "the device")
	return need(c, "device")
}

// maxPoolFile bounds a file of releases.
const maxPoolFile = 64 << 20

func (a *api) releaseSolve() *cobra.Command {
	var want, hardware, have []string
	c := &cobra.Command{
		Use: "solve POOL… --want COMPONENT", Short: "Find components that go together, in files and without an instance", Args: cobra.MinimumNArgs(1),
		Long: `Finds a set of components that holds all that they require of each other, that is wanted, and that works on the hardware: the one of which the fewest bytes are to be fetched, then of as few components as
can be, then of the highest versions. Where there is none it says what cannot all hold, and leaves out whatever is not to blame: without any one of it there would be a set.

POOL is a file that ` + "`hallmark release show --json` or `hallmark release list --json`" + ` wrote, or one that says {"components": [{"name": …, "version": …, "size": …, "digest": …, "requires": [{"component": …, "from": …, "below": …}],
"hardware": […]}]}. --want is COMPONENT, COMPONENT>=VERSION, COMPONENT<VERSION, or both.`,
		Example: "  hallmark release solve pool.json --want app --want 'net>=2.0.0<3.0.0' --hardware rev-a --have runs.json --json",
		RunE: func(_ *cobra.Command, args []string) error {
			if a.asJSON {
				a.output = asJSON
			}
			p := solve.Problem{Hardware: hardware}
			var err error
			if p.Pool, err = pool(args); err != nil {
				return err
			}
			had, err := pool(have)
			if err != nil {
				return err
			}
			for _, c := range had {
				p.Have = append(p.Have, c.Digest)
			}
			for _, text := range want {
				q, _ := requirement(text)
				if q.Component == "" {
					return usagef("--want %q: want COMPONENT, COMPONENT>=VERSION, COMPONENT<VERSION, or both", text)
				}
				p.Want = append(p.Want, q)
			}
			return a.solve(p)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&want, "want", nil, "a component that has to be in the set, with the versions that it may have")
	f.StringSliceVar(&hardware, "hardware", nil, "hardware revisions that all of it has to work on (default: it is not asked)")
	f.StringArrayVar(&have, "have", nil, "a file as POOL, of what devices have: nothing of it is to be fetched")
	return need(c, "want")
}

func (a *api) solve(p solve.Problem) error {
	set, err := solve.Choose(p)
	if err != nil {
		return usagef("%v", err)
	}
	if a.last, err = json.Marshal(set); err != nil {
		return err
	}
	if len(set.Core) > 0 {
		if a.output == asJSON || a.output == asYAML {
			err = a.show(nil)
		}
		return errors.Join(err, fault.New(fault.Conflict, "release.unsolvable", "there is no such set: "+strings.Join(set.Core, "; "), "want less, or add to the pool"))
	}
	return a.show(func(w io.Writer) error {
		rows := make([][]string, len(set.Components))
		for i, c := range set.Components {
			fetch := c.Size
			if slices.ContainsFunc(p.Have, func(d []byte) bool { return bytes.Equal(d, c.Digest) }) {
				fetch = 0
			}
			rows[i] = []string{c.Name, c.Version, fmt.Sprint(fetch), fmt.Sprintf("%x", c.Digest)}
		}
		return errors.Join(table(w, "COMPONENT VERSION BYTES DIGEST", rows), sheet(w, "bytes in all", fmt.Sprint(set.Bytes)))
	})
}

// pooled is a release as commands write it, or just components.
type pooled struct {
	Manifest   struct{ Components []wire.Component }
	Components []wire.Component
}

// pool reads the components of files. What is the same in several of them is one.
func pool(files []string) (out []wire.Component, err error) {
	known := map[string]bool{}
	for _, name := range files {
		data, err := readFile(name, maxPoolFile)
		if err != nil {
			return nil, err
		}
		var all []pooled
		if data = bytes.TrimSpace(data); len(data) > 0 && data[0] == '[' {
			err = json.Unmarshal(data, &all)
		} else {
			all = make([]pooled, 1)
			err = json.Unmarshal(data, &all[0])
		}
		if err != nil {
			return nil, usagef("%s: %v", name, err)
		}
		for _, p := range all {
			for _, c := range slices.Concat(p.Manifest.Components, p.Components) {
				key, err := json.Marshal(c)
				if err != nil {
					return nil, err
				}
				if !known[string(key)] {
					known[string(key)] = true
					out = append(out, c)
				}
			}
		}
	}
	return out, nil
}
