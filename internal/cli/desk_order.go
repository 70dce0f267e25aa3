package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/desk"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

// wrapCall is one order that is wrapped at a desk.
type wrapCall struct {
	deskCall
	order        orderCall
	files        []string
	registration string
}

func wrapOrder(s streams) *cobra.Command {
	var c wrapCall
	cmd := &cobra.Command{
		Use:   "wrap --desk DIR --product PRODUCT --quota N (--master FILE | --release FILE --file NAME=PATH… --server URL --slot-size BYTES) --descriptor FILE --station FINGERPRINT --out FILE",
		Short: "Order devices from one station at a desk, without a server and without a network",
		Long: `Orders devices from one station at a desk (` + "`hallmark desk init`" + `): needs no server and no network. It writes the order's file for the station, which is safe to
mail, and a registration for the instance, which is too: ` + "`hallmark order register`" + ` takes it in, and records of an order that is not registered are refused.

--release is what ` + "`hallmark release export`" + ` wrote; --file has the bytes of each of its components. The trust bundle is the one that was pinned with
` + "`hallmark desk trust`" + `. In place of these and of the devices' parameters, --master is a master that was sealed to this desk. --descriptor is what ` + "`hallmark-station descriptor`" + ` wrote there; --station is the fingerprint it printed, learned another way than the file.`,
		Example: `  hallmark order wrap --desk desk --product pump --hardware A --quota 500 --release pump-1.0.0.release --file app=build/pump --descriptor station.hmd \
    --station 3f0c…(64 hex digits) --server https://devices.example.com:8443 --slot-size 8388608 --out order-7.hmo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.StringVar(&c.dir, "desk", "", "the desk's directory")
	c.order.flags(cmd)
	f.StringVar(&c.order.release, "release", "", "file: the signed release to put on them")
	f.StringArrayVar(&c.files, "file", nil, "bytes of a component of the release, NAME=PATH; once for each")
	f.StringVar(&c.registration, "registration", "", "file to write the registration to; the desk keeps one too (default: that of --out, with .registration)")
	c.flag(cmd)
	return c.order.or(need(cmd, "desk", "product", "quota", "descriptor", "station", "out"), "release", "file", "server", "slot-size")
}

// filesOf gives the components from their files, NAME=PATH.
func filesOf(files []string) (factory.Source, error) {
	paths := map[string]string{}
	for _, f := range files {
		name, path, ok := strings.Cut(f, "=")
		if !ok || name == "" || path == "" || paths[name] != "" {
			return nil, usagef("--file %q: want NAME=PATH, once for each component", f)
		}
		paths[name] = path
	}
	return func(_ context.Context, name string) (io.ReadCloser, error) {
		path, ok := paths[name]
		if !ok {
			return nil, fmt.Errorf("its bytes are missing: give --file %s=PATH", name)
		}
		return os.Open(path)
	}, nil
}

func (c *wrapCall) run(ctx context.Context, s streams) error {
	spec, err := c.order.spec()
	if err != nil {
		return err
	}
	if c.registration == "" {
		c.registration = c.order.out + ".registration"
	}
	for _, path := range []string{c.order.out, c.registration} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return usagef("%s exists: choose another file", path)
		}
	}
	wrap, err := c.source(ctx, &spec)
	if err != nil {
		return err
	}
	return c.at(ctx, s, c.dir, func(d *desk.Desk, keys desk.Keys) error {
		w, err := wrap(d, keys)
		if err != nil {
			return err
		}
		reg, err := readFile(w.Registration, wire.MaxEnvelope)
		if err == nil {
			err = durable.WriteFile(c.registration, reg, 0o600)
		}
		if err != nil {
			return partError{fmt.Errorf("order %s was wrapped, and its registration is in %s only: %w", w.Order.ID, w.Registration, err)}
		}
		return sheet(s.out, "order", w.Order.ID, "station", w.Order.StationName, "quota", fmt.Sprint(w.Order.Quota), "until", when(w.Order.NotAfter),
			"written", c.order.out, "for the instance", c.registration)
	})
}

// source says how the order is wrapped: of a master, or of a release and its files.
func (c *wrapCall) source(ctx context.Context, spec *factory.OrderSpec) (func(d *desk.Desk, keys desk.Keys) (desk.Wrapped, error), error) {
	if c.order.master != "" {
		return func(d *desk.Desk, keys desk.Keys) (desk.Wrapped, error) {
			f, err := os.Open(c.order.master)
			if err != nil {
				return desk.Wrapped{}, err
			}
			defer f.Close()
			return d.WrapMaster(ctx, keys, *spec, f, c.order.out, time.Now())
		}, nil
	}
	var err error
	if spec.Release, err = readFile(c.order.release, wire.MaxEnvelope); err != nil {
		return nil, fmt.Errorf("--release: %w", err)
	}
	if spec.Payload, err = filesOf(c.files); err != nil {
		return nil, err
	}
	return func(d *desk.Desk, keys desk.Keys) (desk.Wrapped, error) {
		return d.Wrap(ctx, keys, *spec, c.order.out, time.Now())
	}, nil
}

// flags are those that an order has wherever it is wrapped.
func (o *orderCall) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.req.Product, "product", "", "product")
	f.StringVar(&o.req.Hardware, "hardware", "A", "hardware revision")
	f.Uint32Var(&o.req.Quota, "quota", 0, "how many devices may be made, at most")
	f.StringVar(&o.descriptor, "descriptor", "", "the station's signed descriptor")
	f.StringVar(&o.station, "station", "", "fingerprint of the station's record key, 64 hex digits")
	f.Uint32Var(&o.days, "days", 30, "days until the order ends")
	f.Uint32Var(&o.req.MaxOfflineDays, "max-offline-days", 0, "days the station may work without reporting; 0: no limit")
	f.StringVar(&o.req.Chips, "chips", "", "only chips of this vendor, which came with their keys: see hallmark chip import")
	f.StringVar(&o.req.Keys, "keys", "", "station: it may make the devices' keys, for chips that cannot; they are in its memory then")
	f.StringVar(&o.req.ID, "id", "", "the order's ID (default: chosen)")
	f.BoolVar(&o.req.FirstArticle, "first-article", false, "have one made and inspected before the others")
	f.StringVar(&o.out, "out", "", "order file to write; must not exist")
	f.StringVar(&o.master, "master", "", "file: master that says release and parameters, in place of flags: see hallmark master build")
	o.params(c)
}

// params are the flags of what devices are given, which a master says otherwise.
func (o *orderCall) params(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.server, "server", "", "https address the devices call")
	f.Uint64Var(&o.slotSize, "slot-size", 0, "largest release a device must take, bytes")
	f.Uint32Var(&o.slots, "slots", 2, "slots for releases")
	f.Uint32Var(&o.erase, "erase-size", 16<<10, "erase unit of the flash, bytes")
	f.StringVar(&o.config, "config", "", "file: first configuration of the devices")
}

// or demands a master, or those flags; a master says what the others would, too.
func (o *orderCall) or(c *cobra.Command, flags ...string) *cobra.Command {
	for _, f := range flags {
		c.MarkFlagsOneRequired("master", f)
	}
	for _, f := range append(flags, "slots", "erase-size", "config") {
		c.MarkFlagsMutuallyExclusive("master", f)
	}
	return c
}

// deviceParams are what the flags say of devices.
func (o *orderCall) deviceParams() (wire.DeviceParams, error) {
	p := wire.DeviceParams{
		Flash:   wire.Flash{Size: uint64(o.slots) * o.slotSize, Erase: o.erase, Slots: o.slots, SlotSize: o.slotSize},
		Servers: wire.Servers{Device: o.server},
	}
	if o.config == "" {
		return p, nil
	}
	var err error
	if p.Config, err = readFile(o.config, wire.MaxEnvelope); err != nil {
		err = fmt.Errorf("--config: %w", err)
	}
	return p, err
}

// read fills in what files and flags say of an order.
func (o *orderCall) read(now time.Time) (err error) {
	if o.req.StationPin, err = hex.DecodeString(o.station); err != nil || len(o.req.StationPin) != 32 {
		return usagef("--station %q: want the fingerprint that `hallmark-station init` printed, 64 hex digits", o.station)
	}
	if o.req.Descriptor, err = readFile(o.descriptor, wire.MaxEnvelope); err != nil {
		return fmt.Errorf("--descriptor: %w", err)
	}
	o.req.NotAfter = now.AddDate(0, 0, int(o.days)).UTC()
	if o.master == "" {
		o.req.Params, err = o.deviceParams()
	}
	return err
}

// spec is the order for a desk.
func (o *orderCall) spec() (factory.OrderSpec, error) {
	if err := o.read(time.Now()); err != nil {
		return factory.OrderSpec{}, err
	}
	r := o.req
	return factory.OrderSpec{
		ID: r.ID, Product: r.Product, Hardware: r.Hardware, Quota: r.Quota, NotAfter: r.NotAfter, Descriptor: r.Descriptor, StationPin: r.StationPin,
		Params: r.Params, MaxOfflineDays: r.MaxOfflineDays, FirstArticle: r.FirstArticle, Chips: r.Chips, Keys: r.Keys,
	}, nil
}

func (a *api) registerOrder() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "register FILE", Short: "Take in an order that a desk has wrapped; the same file again changes nothing", Args: cobra.ExactArgs(1),
		Long: `Takes in an order that a desk has wrapped (` + "`hallmark order wrap`" + `), by the registration that it wrote beside the order's file. It may come late: the order is already
made, perhaps, and only its records wait. The same file again changes nothing. Of a desk that was removed it takes two people.`,
		Example: "  hallmark order register order-7.hmo.registration",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		data, err := readFile(args[0], wire.MaxEnvelope)
		if err != nil {
			return err
		}
		o, err := cl.RegisterOrder(ctx, data)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "order", o.ID, "desk", o.Desk, "product", o.Product, "station", o.StationName, "quota", fmt.Sprint(o.Quota), "state", string(o.State), "until", when(o.NotAfter))
		})
	})
}
