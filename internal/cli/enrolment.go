package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
)

func newEnrolment(a *api) *cobra.Command {
	return a.noun("enrolment", "Requests of devices that take a person", a.listEnrolments(), a.showEnrolment(),
		a.decideEnrolment("approve", "Let a device in with the request that was seen", "its key is the one on the label"),
		a.decideEnrolment("refuse", "Do not let a device in with the request that was seen", "nobody has unpacked it yet"))
}

func (a *api) listEnrolments() *cobra.Command {
	var of, state string
	c := listing(a, cobra.Command{
		Use: "list", Short: "List the requests that take a person, by device", Example: "  hallmark enrolment list --product pump --state waiting",
		Long: "Lists the requests of products whose enrolment is approved by people (`hallmark product enrolment`). A request lapses a week after it was made or decided on.",
	}, "DEVICE PRODUCT STATE ASKED KEY REQUEST",
		func(ctx context.Context, cl *client.Client, _ []string) ([]onboard.Waiting, error) {
			return cl.Enrolments(ctx, of, state)
		},
		func(w onboard.Waiting) []string {
			return []string{w.Device, w.Product, string(w.State), when(w.Asked), short(w.Key), short(w.Request)}
		})
	c.Flags().StringVar(&of, "product", "", "only this product's")
	c.Flags().StringVar(&state, "state", "", "only these: waiting, approved or refused")
	return c
}

func (a *api) showEnrolment() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show DEVICE", Short: "Show a device's request that takes a person", Args: cobra.ExactArgs(1),
		Example: "  hallmark enrolment show 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		w, err := cl.Enrolment(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(out io.Writer) error { return sheetOfEnrolment(out, w) })
	})
}

func sheetOfEnrolment(out io.Writer, w onboard.Waiting) error {
	call, again := "a certificate for its own key", ""
	if w.Call == onboard.CallKeygen {
		call = "a key that the server makes, and its certificate"
	}
	if w.Again {
		again = "yes"
	}
	return sheet(out, "device", w.Device, "product", w.Product, "group", w.Group, "hardware", w.Hardware, "asks for", call, "enrolled before", again,
		"key", w.Key, "request", w.Request, "state", string(w.State), "asked", when(w.Asked), "lapses", when(w.Until), "by", w.By, "reason", w.Reason)
}

func (a *api) decideEnrolment(verb, text, example string) *cobra.Command {
	var d client.EnrolmentDecision
	c := a.verb(cobra.Command{
		Use: verb + " DEVICE --request DIGEST --reason TEXT", Short: text, Args: cobra.ExactArgs(1),
		Long: text + `. DIGEST is the request's, or how it begins, as ` + "`hallmark enrolment list`" + ` gives it: if the device asks with another one
by now nothing is done.`,
		Example: "  hallmark enrolment " + verb + " 00112233445566778899aabbccddeeff --request 5d2e9a41 --reason '" + example + "'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if d.Request == "" || strings.Trim(d.Request, "0123456789abcdef") != "" || len(d.Request) < 8 {
			return usagef("--request %q: want at least 8 digits of the request's digest, as `hallmark enrolment list` gives it", d.Request)
		}
		if len(d.Request) < 64 {
			w, err := cl.Enrolment(ctx, args[0])
			if err != nil {
				return err
			}
			if !strings.HasPrefix(w.Request, d.Request) {
				return fmt.Errorf("device %s asks with request %s by now: look at it again (`hallmark enrolment show %s`)", args[0], short(w.Request), args[0])
			}
			d.Request = w.Request
		}
		w, err := cl.DecideEnrolment(ctx, args[0], verb, d)
		if err != nil {
			return err
		}
		return a.show(func(out io.Writer) error { return sheetOfEnrolment(out, w) })
	})
	c.Flags().StringVar(&d.Request, "request", "", "digest of the request, or how it begins")
	c.Flags().StringVar(&d.Reason, "reason", "", "why")
	return need(a.matching(c), "request", "reason")
}

func (a *api) productEnrolment() *cobra.Command {
	var e product.Enrolment
	var mode string
	c := a.verb(cobra.Command{
		Use: "enrolment PRODUCT --mode MODE", Short: "Say how a product's devices are let in", Args: cobra.ExactArgs(1),
		Long: `Says how a product's devices are let in from now on. What is not given is off. With mode approved a person lets in each request
that a device makes with its factory identity (see ` + "`hallmark enrolment`" + `); renewals go on by themselves.`,
		Example: "  hallmark product enrolment pump --mode approved --binding",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		e.Mode = product.EnrolMode(mode)
		p, err := cl.SetEnrolment(ctx, args[0], e)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "product", p.ID, "enrolment", enrolmentWords(p.Enrolment)) })
	})
	c.Flags().StringVar(&mode, "mode", string(product.Automatic), "automatic or approved")
	c.Flags().BoolVar(&e.ServerKeys, "server-keys", false, "let devices have keys that the server makes (serverkeygen); such a key travelled, and is weaker")
	c.Flags().BoolVar(&e.Binding, "binding", false, "want requests that name the TLS connection they come by")
	c.Flags().BoolVar(&e.OCSP, "ocsp", false, "have certificates from now on name this instance as their OCSP responder")
	return need(a.matching(c), "mode")
}

func enrolmentWords(e product.Enrolment) string {
	words := string(e.Mode)
	if e.ServerKeys {
		words += ", keys made by the server"
	}
	if e.Binding {
		words += ", bound to the connection"
	}
	if e.OCSP {
		words += ", certificates answered for by OCSP"
	}
	return words
}
