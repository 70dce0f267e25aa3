package server

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// runLoops runs what has to be done again and again.
func (i *Instance) runLoops(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return i.react(ctx) })
	g.Go(func() error {
		if err := i.warm(ctx); err != nil && ctx.Err() == nil {
			i.log.WarnContext(ctx, "the fleet was not counted ahead of who looks", "error", err)
		}
		return nil
	})
	g.Go(func() error { return i.makeDeltas(ctx) })
	loop := func(name string, interval time.Duration, step func(context.Context) error) {
		g.Go(func() error { return i.every(ctx, name, interval, step) })
	}
	// What issues commands, or would be done twice over by two, one node does.
	single := func(name string, interval time.Duration, step func(context.Context) error) {
		loop(name, interval, i.alone(name, step))
	}
	single("rollouts", 200*time.Millisecond, func(ctx context.Context) error { return i.rollout.Tick(ctx, time.Now()) })
	single("remedies", 500*time.Millisecond, func(ctx context.Context) error { return i.remedy.Tick(ctx, time.Now()) })
	single("retirements", 500*time.Millisecond, i.retire.Tick)
	single("owners", 500*time.Millisecond, i.owner.Tick)
	single("trust bundles", 2*time.Second, i.distributeBundles)
	// What a node knows by heart, each node learns: another may have revoked a certificate, or made a CA.
	// Who is connected to this node is cut off within a second of a revocation at another.
	loop("revocations", 500*time.Millisecond, i.pki.Refresh)
	loop("statuses of revoked certificates", time.Second, i.pki.KeepStatuses)
	loop("other makers", 5*time.Second, i.foreign.Load)
	loop("authorities", 2*time.Second, i.pki.LoadCAs)
	loop("online keys", 5*time.Second, i.refreshKeys)
	// An answer from memory is as old as what is known of the other nodes' writes.
	loop("wakes", 250*time.Millisecond, i.db.FollowWakes)
	single("wakes kept", 10*time.Minute, i.db.PruneWakes)
	loop("lines", 20*time.Second, func(context.Context) error { i.lines.Sweep(); return nil })
	single("revocation lists", 200*time.Millisecond, i.pki.KeepLists)
	single("ended authorities", time.Hour, func(ctx context.Context) error {
		return errors.Join(i.pki.EndCAs(ctx), i.watchCAs(ctx, time.Now()))
	})
	loop("last contacts", 2*time.Second, i.device.Flush)
	loop("what deltas saved", 10*time.Second, i.release.Flush)
	loop("questions", time.Second, i.genuine.Refresh)
	single("bills of materials", time.Minute, i.supply.CatchUp)
	single("advisories", 5*time.Second, i.supply.Reassess)
	single("answers kept", time.Minute, func(ctx context.Context) error { return i.db.ForgetMarks(ctx, time.Now().Add(-once.Keep)) })
	single("audit", 20*time.Second, func(ctx context.Context) error {
		days, most := i.cfg.auditBounds()
		return i.db.PruneAudit(ctx, time.Now().AddDate(0, 0, -days), most)
	})
	single("changes", time.Minute, func(ctx context.Context) error { return i.db.PruneStirs(ctx, time.Now().Add(-time.Hour)) })
	single("artifacts that leave", 2*time.Second, i.blobs.Sweep)
	single("uploads", time.Hour, func(ctx context.Context) error { return i.blobs.Clear(ctx, time.Now()) })
	loop("ledger", 5*time.Second, func(ctx context.Context) error { return i.watchLogs(ctx, time.Now()) })
	single("monitor", 30*time.Second, func(ctx context.Context) error {
		_, err := i.monitor.Sweep(ctx, time.Now())
		return err
	})
}

// warm counts what people look at first: in a large fleet that takes seconds, and nobody should wait for it.
func (i *Instance) warm(ctx context.Context) error {
	if err := i.fleet.Warm(ctx); err != nil {
		return err
	}
	products, err := i.product.List(ctx, access.Internal("counting"))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range products {
		errs = append(errs, i.comply.Warm(ctx, p.ID))
	}
	return errors.Join(errs...)
}

// distributeBundles tells the devices of every product that are behind.
func (i *Instance) distributeBundles(ctx context.Context) error {
	caller := access.Internal("bundles")
	products, err := i.product.List(ctx, caller)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range products {
		err := i.device.DistributeBundle(ctx, caller, p.ID)
		var none *fault.Fault
		if err != nil && (!errors.As(err, &none) || none.Kind != fault.NotFound) { // a product without a bundle has no devices either
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// maxBackoff is the longest that a loop waits after errors.
const maxBackoff = 10 * time.Second

// A loop whose step takes long waits longer for the next, so that it never takes more than a quarter of a processor.
const (
	restFactor = 3
	maxRest    = 30 * time.Second
)

// every runs step at intervals until ctx ends. An error is told, and tried again later and later; /healthz tells how long ago each
// loop last went well.
func (i *Instance) every(ctx context.Context, name string, interval time.Duration, step func(context.Context) error) error {
	i.pulse.beat(name, interval)
	wait := interval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		begun := time.Now()
		err := step(ctx)
		switch {
		case err == nil:
			wait = max(interval, min(restFactor*time.Since(begun), maxRest))
			i.pulse.beat(name, wait)
		case ctx.Err() == nil:
			i.log.ErrorContext(ctx, name+" wait", "error", err)
			wait = min(2*wait+100*time.Millisecond, maxBackoff)
		}
	}
}

// alone makes a step one that only one of an instance's nodes takes. When that node dies, another goes on.
func (i *Instance) alone(name string, step func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		leads, err := i.db.Leads(ctx, name)
		if err != nil || !leads {
			return err
		}
		return step(ctx)
	}
}
