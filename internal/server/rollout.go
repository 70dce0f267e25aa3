package server

import (
	"context"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/rollout"
)

// calls makes findings of rollouts that need a person.
type calls struct{ i *Instance }

// Halted implements rollout.Alarms.
func (c calls) Halted(ctx context.Context, r rollout.Rollout) error {
	f := callFor(monitor.RolloutHalted, monitor.High, r)
	f.Text = clip("rollout " + r.Spec.ID + " was halted, and who confirmed its release is sent back: " + r.Reason)
	_, err := c.i.monitor.Raise(ctx, access.Internal("rollout"), f)
	return err
}

// Stuck implements rollout.Alarms.
func (c calls) Stuck(ctx context.Context, r rollout.Rollout, text string) error {
	f := callFor(monitor.RolloutStuck, monitor.Medium, r)
	f.Text = clip(text)
	return c.i.monitor.Keep(ctx, access.Internal("rollout"), f, text != "", "it goes on")
}

func callFor(kind monitor.Kind, s monitor.Severity, r rollout.Rollout) monitor.Finding {
	return monitor.Finding{Kind: kind, Severity: s, Product: r.Spec.Product, Subject: r.Spec.ID}
}
