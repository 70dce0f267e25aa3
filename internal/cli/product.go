package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

func newProduct(a *api) *cobra.Command {
	return a.noun("product", "What is made: hardware revisions, update model, suite", a.listProducts(), a.showProduct(), a.createProduct(), a.requestProduct(), a.activateProduct(), a.productEnrolment(), a.productIsolation(), a.productSchema())
}

func (a *api) listProducts() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List products", Example: "  hallmark product list"},
		"ID NAME OEM HARDWARE MODEL SUITE SUPPORTED-UNTIL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]product.Product, error) {
			return cl.Products(ctx)
		},
		func(p product.Product) []string {
			return []string{p.ID, p.Name, p.OEM, strings.Join(p.Hardware, ","), string(p.Model), p.Suite, p.EndOfSupport.Format(time.DateOnly)}
		})
}

func (a *api) showProduct() *cobra.Command {
	return a.verb(cobra.Command{Use: "show PRODUCT", Short: "Show a product", Args: cobra.ExactArgs(1), Example: "  hallmark product show pump"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			p, err := cl.Product(ctx, args[0])
			if err != nil {
				return err
			}
			said, tag := a.last, a.tag
			ready, err := cl.ProductReadiness(ctx, args[0])
			if err != nil {
				return err
			}
			a.last, a.tag = said, tag // readiness is for people; programs ask for it by itself
			return a.show(func(w io.Writer) error {
				return sheet(w, "product", p.ID, "name", p.Name, "maker", p.OEM, "hardware", strings.Join(p.Hardware, ", "), "update model", string(p.Model),
					"suite", p.Suite, "enrolment", enrolmentWords(p.Enrolment), "programs held by", isolationWords(p.Isolation), "parameters", fmt.Sprint(len(p.Parameters)), "supported until", p.EndOfSupport.Format(time.DateOnly), "created", when(p.Created), "ready", lacks(ready))
			})
		})
}

func (a *api) createProduct() *cobra.Command {
	p := product.Product{}
	var model, end string
	c := a.verb(cobra.Command{
		Use: "create ID --oem OEM --name NAME --hardware A,B", Short: "Create a product", Args: cobra.ExactArgs(1),
		Example: "  hallmark product create pump --oem acme --name 'Pump 3000' --hardware A,B --model blob --end-of-support 2035-12-31",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		p.ID, p.Model = args[0], wire.UpdateModel(model)
		if p.EndOfSupport, err = day("--end-of-support", end); err != nil {
			return err
		}
		made, err := cl.CreateProduct(ctx, p)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "product", made.ID, "created", when(made.Created)) })
	})
	f := c.Flags()
	f.StringVar(&p.OEM, "oem", "", "the maker, as the instance's certificates name it")
	f.StringVar(&p.Name, "name", "", "what people call it")
	f.StringSliceVar(&p.Hardware, "hardware", nil, "its hardware revisions")
	f.StringVar(&model, "model", string(wire.ModelBlob), "its update model: otp, blob or asset")
	f.StringVar(&p.Suite, "suite", string(suite.P256), "its cryptographic suite")
	f.StringVar((*string)(&p.Enrolment.Mode), "enrolment", string(product.Automatic), "how its devices are let in: automatic or approved")
	f.StringVar(&end, "end-of-support", "", "day its support ends, YYYY-MM-DD")
	return need(c, "oem", "name", "hardware", "end-of-support")
}

func (a *api) productIsolation() *cobra.Command {
	var require string
	c := a.verb(cobra.Command{
		Use: "isolation PRODUCT --require LAYERS", Short: "Say what has to hold the programs of a product's devices",
		Long: `Says what has to hold the programs of a product's devices. Evidence in which one of these layers does not hold all of a device's programs, or that does
not tell, is bad from then on, and its device goes into quarantine: look at what devices say before (` + "`hallmark device show`" + `).

LAYERS is "required" (all that there are), "available" (nothing is asked), or some of ` + strings.Join(layerWords(wire.Layers()), ", ") + ` with commas between them.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark product isolation pump --require user,no-privileges,landlock,seccomp",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		layers, err := wire.ParseLayers(require)
		if err != nil {
			return usagef("--require: %v", err)
		}
		if layers == nil {
			layers = []wire.Layer{}
		}
		p, err := cl.SetIsolation(ctx, args[0], layers)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "product", p.ID, "programs held by", isolationWords(p.Isolation))
		})
	})
	c.Flags().StringVar(&require, "require", "", "layers")
	return need(a.matching(c), "require")
}

func layerWords(layers []wire.Layer) []string {
	out := make([]string, len(layers))
	for i, l := range layers {
		out[i] = string(l)
	}
	return out
}

func isolationWords(layers []wire.Layer) string {
	if len(layers) == 0 {
		return "what the device has: nothing is asked"
	}
	return strings.Join(layerWords(layers), ", ")
}

// day reads a day of a flag.
func day(flag, s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return t, usagef("%s %q: want a day as YYYY-MM-DD", flag, s)
	}
	return t, nil
}
