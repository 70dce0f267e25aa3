package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/rollout"
)

// mend is the rollout of what mends a release that is closed; without a fix there is none.
type mend struct {
	fix  string
	plan plan
}

func (m *mend) flags(f *pflag.FlagSet) {
	f.StringVar(&m.fix, "fix", "", "published release that mends it, which devices are brought: digest or PRODUCT@VERSION")
	f.StringVar(&m.plan.spec.ID, "rollout", "", "of --fix: name of the rollout (default fix- and the name of the release that is closed)")
	f.BoolVar(&m.plan.spec.Stones, "stepping-stones", false, "of --fix: take devices that it is not installed over (--over) over the releases between")
	m.plan.pace(f)
	m.plan.recall(f, 24*time.Hour)
	for name, value := range map[string]string{"errors": "2%", "no-shows": "99%"} { // who is away is the very one that it waits for
		flag := f.Lookup(name)
		flag.DefValue = value
		_ = flag.Value.Set(value) // a string takes any
	}
}

// ready asks whether the fix can be rolled out.
func (m *mend) ready(ctx context.Context, cl *client.Client, digest, reason string) error {
	if m.fix == "" {
		return nil
	}
	bad, err := cl.Release(ctx, digest)
	if err != nil {
		return err
	}
	spec := &m.plan.spec
	if spec.ID == "" {
		spec.ID = "fix-" + bad.Manifest.ID
	}
	spec.Product, spec.Selection.All, spec.Dynamic, spec.Below, spec.Reason = bad.Manifest.Product, true, true, bad.Install(), reason
	m.plan.release, m.plan.manner = m.fix, "forced"
	if err := m.plan.resolve(ctx, cl); err != nil {
		return err
	}
	_, err = cl.DryRun(ctx, *spec)
	return err
}

// begin has it rolled out, and says so. One that is under way by its name goes on.
func (m *mend) begin(ctx context.Context, cl *client.Client) ([]string, error) {
	if m.fix == "" {
		return nil, nil
	}
	spec := m.plan.spec
	r, err := cl.CreateRollout(ctx, spec)
	switch {
	case err == nil:
	case client.Code(err) == "rollout.exists":
		there, err := cl.Rollout(ctx, spec.ID)
		if err != nil {
			return nil, err
		}
		if r = there.Rollout; !bytes.Equal(r.Spec.Release, spec.Release) || r.Spec.Below < spec.Below || r.Spec.Again == nil || r.Phase.Ended() {
			return nil, fault.New(fault.Conflict, "rollout.exists", fmt.Sprintf("there is a rollout %q already, %s, and it is not this one", spec.ID, r.Phase), "name this one with --rollout")
		}
	default:
		return nil, err
	}
	cells := []string{"fix", m.fix, "rollout", r.Spec.ID, "watch it", "hallmark rollout show " + r.Spec.ID}
	if r.Phase != rollout.Created {
		return append(cells, "phase", string(r.Phase)), nil
	}
	res, err := cl.StartRollout(ctx, spec.ID)
	if err != nil {
		return nil, err
	}
	return append(cells, "reached", strings.TrimSpace(fmt.Sprintf("%d now; %s", res.Reached, spec.Again.Text()))), nil
}
