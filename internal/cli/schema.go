package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *api) productSchema() *cobra.Command {
	c := &cobra.Command{Use: "schema", Short: "Which parameters a product's devices have"}
	c.AddCommand(a.showSchema(), a.setSchema())
	return c
}

func (a *api) showSchema() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "show PRODUCT", Short: "Show which parameters a product's devices have", Args: cobra.ExactArgs(1), Example: "  hallmark product schema show pump",
		Long: "Shows the schema that releases will have which are proposed from now on. What a device that runs takes is told by `hallmark device settings`.",
	}, "NAME VALUE ABOUT",
		func(ctx context.Context, cl *client.Client, args []string) ([]wire.Parameter, error) {
			p, err := cl.Product(ctx, args[0])
			return p.Parameters, err
		},
		func(p wire.Parameter) []string { return []string{p.Name, p.String(), p.About} })
}

func (a *api) setSchema() *cobra.Command {
	c := a.verb(cobra.Command{
		Use: "set PRODUCT FILE", Short: "Say which parameters a product's devices have", Args: cobra.ExactArgs(2),
		Long: `Says which parameters a product's devices have: FILE is a JSON list of all of them, as docs/guide/parameters.md tells. Releases that are proposed
from now on have it, signed by their approvers with everything else; what devices run keeps its own until they are updated.`,
		Example: "  hallmark product schema set pump pump.parameters.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		schema, err := readSchema(args[1])
		if err != nil {
			return err
		}
		p, err := cl.SetSchema(ctx, args[0], schema)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			pairs := []string{"product", p.ID}
			for _, x := range p.Parameters {
				pairs = append(pairs, x.Name, x.String())
			}
			return sheet(w, pairs...)
		})
	})
	return a.matching(c)
}

func readSchema(path string) (wire.Schema, error) {
	data, err := readFile(path, wire.MaxRelease)
	if err != nil {
		return nil, err
	}
	s := wire.Schema{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, usagef("%s: %v: want a JSON list of parameters", path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, usagef("%s: more than one JSON list", path)
	}
	return s, nil
}

// settings are what a person says that devices are to take.
type settings struct{ set, files []string }

// entries reads them. What is in a file, which nobody sees on a command line, is text without its last line's end; of a parameter of bytes it is those bytes.
func (s settings) entries(ctx context.Context, cl *client.Client, device string) (out []wire.ConfigEntry, err error) {
	for _, one := range s.set {
		name, value, ok := strings.Cut(one, "=")
		if !ok {
			return nil, usagef("--set %q: want NAME=VALUE", one)
		}
		out = append(out, wire.ConfigEntry{Name: name, Value: value})
	}
	if len(s.files) == 0 {
		return out, nil
	}
	known, err := cl.Settings(ctx, device)
	if err != nil {
		return nil, err
	}
	types := map[string]wire.ParameterType{}
	for _, k := range known {
		if k.Parameter != nil {
			types[k.Name] = k.Parameter.Type
		}
	}
	for _, one := range s.files {
		name, path, ok := strings.Cut(one, "=")
		if !ok {
			return nil, usagef("--set-file %q: want NAME=FILE", one)
		}
		data, err := readFile(path, wire.MaxConfigValue+1)
		if err != nil {
			return nil, err
		}
		value := strings.TrimSuffix(string(data), "\n")
		if types[name] == wire.TypeBytes {
			value = base64.StdEncoding.EncodeToString(data)
		}
		out = append(out, wire.ConfigEntry{Name: name, Value: value})
	}
	return out, nil
}

// completeSetting offers the parameters of the first device that is named, and the values of those that have few.
func (a *api) completeSetting(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, directive := a.live(func(ctx context.Context, cl *client.Client) ([]string, error) {
		known, err := cl.Settings(ctx, args[0])
		var out []string
		for _, k := range known {
			if k.Parameter == nil {
				continue
			}
			values := k.Parameter.Values
			if k.Parameter.Type == wire.TypeBoolean {
				values = []string{"false", "true"}
			}
			if !strings.HasPrefix(begun, k.Name+"=") {
				values = []string{""}
			}
			for _, v := range values {
				out = append(out, k.Name+"="+v)
			}
		}
		return out, err
	})(cmd, args, begun)
	return all, directive | cobra.ShellCompDirectiveNoSpace
}
