package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

func newRollout(a *api) *cobra.Command {
	return a.noun("rollout", "Who gets a release, and when",
		a.listRollouts(), a.showRollout(), a.rolloutProgress(), a.createRollout(), a.dryRun(), a.startRollout(),
		a.control("pause", "Start no further wave"), a.control("resume", "Go on"),
		a.rolloutBandwidth(),
		a.control("shut", "Let no further device join; it completes when its waves have"),
		a.control("halt", "Stop, and send back who has the release"), a.control("abort", "Stop where it is"))
}

func (a *api) listRollouts() *cobra.Command {
	var productID string
	var open bool
	c := listing(a, cobra.Command{Use: "list", Short: "List rollouts, newest first", Example: "  hallmark rollout list --product pump --open"},
		"ID PRODUCT RELEASE PHASE WAVE GOOD WAITING FAILED CREATED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]rollout.Rollout, error) {
			if open {
				return cl.OpenRollouts(ctx, productID)
			}
			return cl.Rollouts(ctx, productID)
		},
		func(r rollout.Rollout) []string {
			return []string{
				r.Spec.ID, r.Spec.Product, short(fmt.Sprintf("%x", r.Spec.Release)), string(r.Phase), fmt.Sprintf("%d/%d", r.Wave, max(len(r.Waves), len(r.Spec.Waves))),
				fmt.Sprint(r.Last.Good), fmt.Sprint(r.Last.Waiting), fmt.Sprint(r.Last.Failed), when(r.Created),
			}
		})
	c.Flags().BoolVar(&open, "open", false, "only those that have not ended")
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) showRollout() *cobra.Command {
	var missing bool
	c := a.verb(cobra.Command{
		Use: "show ROLLOUT", Short: "Show a rollout, and each device of its current wave with the reason", Args: cobra.ExactArgs(1),
		Example: "  hallmark rollout show pump-1.1.0\n  hallmark rollout show fix-pump-1.1.0 --missing",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if missing {
			some, err := cl.MissingDevices(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error { return rolloutDevices(w, some) })
		}
		r, err := cl.Rollout(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			if err := rolloutSheet(w, r.Rollout); err != nil {
				return err
			}
			fmt.Fprintln(w)
			return rolloutDevices(w, r.Devices)
		})
	})
	c.Flags().BoolVar(&missing, "missing", false, "of one that tells devices again: only those that did not show in time, and are not under way now")
	return c
}

func (a *api) rolloutProgress() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "progress ROLLOUT", Short: "Show how a rollout stood over time: a line for each step in which that changed", Args: cobra.ExactArgs(1),
		Example: "  hallmark rollout progress pump-1.1.0 --all\n  hallmark rollout progress pump-1.1.0 --all --json",
	}, "FROM DEVICES TOLD GOOD WAITING FAILED NO-SHOWS DECLINED SENT-BACK",
		func(ctx context.Context, cl *client.Client, args []string) ([]rollout.Point, error) {
			return cl.RolloutProgress(ctx, args[0])
		},
		func(p rollout.Point) []string {
			out := []string{when(p.At)}
			for _, n := range []int{p.Counts.Devices, p.Counts.Told(), p.Counts.Good, p.Counts.Waiting, p.Counts.Failed, p.Counts.NoShows, p.Counts.Declined, p.Counts.Returned} {
				out = append(out, strconv.Itoa(n))
			}
			return out
		})
}

func rolloutDevices(w io.Writer, some []rollout.DeviceView) error {
	all := make([][]string, len(some))
	for i, d := range some {
		all[i] = []string{d.Device, string(d.Mark), string(d.State), or(string(d.Health)), or(d.Verdict), when(d.Seen), d.Why}
	}
	return table(w, "DEVICE GATE STATE HEALTH EVIDENCE SEEN WHY", all)
}

func rolloutSheet(w io.Writer, r rollout.Rollout) error {
	pairs := []string{
		"rollout", r.Spec.ID, "product", r.Spec.Product, "release", fmt.Sprintf("%x", r.Spec.Release), "phase", string(r.Phase), "by", r.By,
		"created", when(r.Created), "started", when(r.Started), "ended", when(r.Ended), "reason", r.Reason, "selects", r.Spec.Selection.Text(),
		"devices", fmt.Sprintf("%d in the wave: %d good, %d waiting, %d failed, %d left", r.Last.Devices, r.Last.Good, r.Last.Waiting, r.Last.Failed, r.Last.Left),
	}
	if r.Last.ByWord > 0 {
		pairs = append(pairs, "by their own word", fmt.Sprintf("%d of those that are good: nothing else says what they run", r.Last.ByWord))
	}
	if r.Spec.Assurance != "" {
		pairs = append(pairs, "takes devices that", string(r.Spec.Assurance)+", or better")
	}
	if r.Last.NoShows > 0 {
		pairs = append(pairs, "no-shows", fmt.Sprintf("%d of those that failed did not show in time that they are good", r.Last.NoShows))
	}
	if r.Last.Untold > 0 {
		pairs = append(pairs, "not told yet", fmt.Sprint(r.Last.Untold))
	}
	if r.Last.Held > 0 {
		pairs = append(pairs, "held", fmt.Sprintf("%d, which other rollouts have", r.Last.Held))
	}
	if r.Spec.Window != nil {
		pairs = append(pairs, "window", r.Spec.Window.Text())
	}
	if r.Spec.Manner != wire.Forced {
		pairs = append(pairs, "manner", rollout.MannerText(r.Spec))
	}
	if r.Last.Declined > 0 {
		pairs = append(pairs, "declined", fmt.Sprintf("%d, where somebody did not agree", r.Last.Declined))
	}
	if r.Spec.Bandwidth != nil {
		pairs = append(pairs, "bandwidth", r.Spec.Bandwidth.Text())
	}
	if r.Spec.Alone {
		pairs = append(pairs, "alone", "may be carried to devices: hallmark release export --carton")
	}
	if r.Spec.Dynamic {
		pairs = append(pairs, "dynamic", rollout.Joining(r))
	}
	if r.Spec.Below > 0 {
		pairs = append(pairs, "for", fmt.Sprintf("devices that run a release with a security counter below %d", r.Spec.Below))
	}
	if r.Spec.Stones {
		pairs = append(pairs, "stepping stones", rollout.OverStones(r))
	}
	if r.Phase == rollout.Halted || r.Phase == rollout.RolledBack {
		pairs = append(pairs, "sent back", fmt.Sprintf("%d back, %d without a way back, %d unknown", r.Last.Returned, r.Last.Stranded, r.Last.Unknown))
	}
	for i, v := range r.Waves {
		name := fmt.Sprintf("wave %d", i+1)
		if v.Open {
			name = "who joined since"
		}
		pairs = append(pairs, name, fmt.Sprintf("%s, started %s, passed %s", fleet.Count(v.Devices, "device", "devices"), when(v.Started), when(v.Succeeded)))
	}
	return sheet(w, pairs...)
}

// plan is what a rollout is asked for.
type plan struct {
	spec           rollout.Spec
	state, saved   string
	queried        []string
	release, back  string
	waves          []string
	soak, deadline time.Duration
	contact        time.Duration
	failures       string
	errors         string
	noShows        string
	window, zone   string
	manner         string
	grace          time.Duration
	tranche        int
	perHour        int
	bandwidth      rollout.Bandwidth
	again          time.Duration
	times          int
}

func (p *plan) flags(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	p.pace(f)
	f.StringVar(&p.spec.Product, "product", "", "product")
	f.StringVar(&p.release, "release", "", "published release: digest or PRODUCT@VERSION")
	f.BoolVar(&p.spec.Selection.All, "all", false, "every active device that can take it")
	f.StringVar(&p.spec.Selection.Group, "group", "", "only devices in this group of the product, or in one below, when it starts")
	f.Var((*state)(&p.state), "state", "every device in this state that can take it")
	f.StringSliceVar(&p.spec.Selection.IDs, "device", nil, "just these devices")
	f.StringSliceVar(&p.spec.Canaries, "canary", nil, "selected devices that come first")
	f.IntVar(&p.spec.Priority, "priority", 0, "of two rollouts that wait for a device, the one with the higher gets it, -100 to 100; then the one that started first; takes two people, and the whole product")
	f.StringVar((*string)(&p.spec.Assurance), "assurance", "", "the least that a device's word has to be worth: enforces, proves or says (default enforces); clients of other update systems only say what they run")
	f.StringVar(&p.back, "rollback", "", "where devices go whose earlier release is no way back: digest or PRODUCT@VERSION")
	f.StringVar(&p.window, "window", "", "hours in which devices take it, in their own time: 02:00+4h, mon-fri 22:30+90m or sat,sun 02:00+4h (default always)")
	f.StringVar(&p.zone, "zone", "", "of --window: the time zone of devices that do not say theirs, as Europe/Berlin or +02:00 (default UTC)")
	f.StringVar(&p.manner, "manner", "forced", "what has to be before a device takes it: forced (nothing), soft (it is not busy, or --grace is over) or consent (somebody beside it agreed)")
	f.DurationVar(&p.grace, "grace", 24*time.Hour, "of --manner soft: how long a device that is busy may put it off")
	f.BoolVar(&p.spec.Dynamic, "dynamic", false, "devices that come to fit later join, until it is shut or a later rollout of the same selection starts")
	f.Uint32Var(&p.spec.Below, "below", 0, "only devices that run a release with a lower security counter, or one that is not known here")
	p.recall(f, 0)
	f.BoolVar(&p.spec.Stones, "stepping-stones", false, "take devices that run what the release is not installed over (--over) over the releases between, one after the other; without it they are left out")
	f.BoolVar(&p.spec.Alone, "alone", false, "for devices that no line reaches: it may be carried to them, see hallmark release export --carton, and they keep it without being asked for evidence first. Its waves have no soak, and no contact is missed before the deadline")
	f.StringVar(&p.spec.Reason, "reason", "", "why")
	p.query(c)
	c.MarkFlagsMutuallyExclusive("dynamic", "device")
	return need(c, "product", "release")
}

// recall are the flags of what is told again.
func (p *plan) recall(f *pflag.FlagSet, after time.Duration) {
	f.DurationVar(&p.again, "again", after, "of one that devices join: who does not show in time is told again when it is heard of, this long after it was told last at the soonest; 0: nobody is")
	f.IntVar(&p.times, "again-times", 10, "of --again: how often at most")
}

// pace are the flags of the waves.
func (p *plan) pace(f *pflag.FlagSet) {
	f.StringArrayVar(&p.waves, "wave", []string{"1", "10%", "rest"}, "a wave: N, N% or rest; with ,soak=1h ,deadline=24h ,contact=15m ,failures=N or N% ,errors= ,no-shows= ,tranche=N ,per-hour=N of its own")
	f.DurationVar(&p.soak, "soak", time.Hour, "how long all of a wave must stay good")
	f.DurationVar(&p.deadline, "deadline", 24*time.Hour, "from a wave's start: who is not good by then has failed")
	f.DurationVar(&p.contact, "contact", 0, "a device not heard of for longer is not good (default 15m, or five polls if that is longer)")
	f.StringVar(&p.failures, "failures", "0", "failures a wave bears, N or N%; more halt the rollout")
	f.StringVar(&p.errors, "errors", "0", "the same, of devices that say no, fall back, or are bad with it; with this or --no-shows, --failures counts only when it is given")
	f.StringVar(&p.noShows, "no-shows", "0", "the same, of devices that do not show in time that they are good")
	f.IntVar(&p.tranche, "tranche", 0, "at most this many devices of a wave are under way at once (default all of it)")
	bandwidth(f, &p.bandwidth)
	f.IntVar(&p.perHour, "per-hour", 0, "at most this many devices of a wave are told in an hour (default no limit)")
}

func (p *plan) resolve(ctx context.Context, cl *client.Client) (err error) {
	if err := p.selects(ctx, cl); err != nil {
		return err
	}
	if p.bandwidth != (rollout.Bandwidth{}) {
		p.spec.Bandwidth = &p.bandwidth
	}
	if p.spec.Alone { // what such a device says comes once, and says nothing of what comes after
		p.soak, p.contact = 0, cmp.Or(p.contact, p.deadline)
	}
	for _, text := range p.waves {
		w, err := p.wave(text)
		if err != nil {
			return err
		}
		p.spec.Waves = append(p.spec.Waves, w)
	}
	if p.window != "" {
		w, err := window.Parse(p.window)
		if err != nil {
			return usagef("--window: %v", err)
		}
		p.spec.Window = &window.Hours{Window: w, Zone: p.zone}
	} else if p.zone != "" {
		return usagef("--zone is of --window, which is not given")
	}
	switch p.manner {
	case "forced":
	case string(wire.Soft):
		grace, ok := seconds(p.grace.String())
		if !ok {
			return usagef("--grace %s: want a duration such as 30m or 24h, in whole seconds", p.grace)
		}
		p.spec.Manner, p.spec.Grace = wire.Soft, grace
	case string(wire.Consent):
		p.spec.Manner = wire.Consent
	default:
		return usagef("--manner %q: want forced, soft or consent", p.manner)
	}
	if err := p.recalls(); err != nil {
		return err
	}
	if p.spec.Release, _, err = digestOf(ctx, cl, p.release); err != nil {
		return err
	}
	if p.back != "" {
		p.spec.Rollback, _, err = digestOf(ctx, cl, p.back)
	}
	return err
}

func (p *plan) recalls() error {
	if p.again == 0 {
		return nil
	}
	after, ok := seconds(p.again.String())
	if !ok {
		return usagef("--again %s: want a duration such as 24h, in whole seconds", p.again)
	}
	p.spec.Again = &rollout.Again{After: after, Times: p.times}
	return nil
}

// wave reads N, N% or rest, and what follows after commas.
func (p *plan) wave(text string) (rollout.Wave, error) {
	var w rollout.Wave
	wrong := func(part, want string) error {
		return usagef("--wave %q: %q: want %s", text, part, want)
	}
	said := map[string]string{
		"soak": p.soak.String(), "deadline": p.deadline.String(), "contact": p.contact.String(), "failures": p.failures, "errors": p.errors, "no-shows": p.noShows,
		"tranche": strconv.Itoa(p.tranche), "per-hour": strconv.Itoa(p.perHour),
	}
	size, rest, _ := strings.Cut(text, ",")
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(part, "=")
		if _, ok := said[key]; !ok && key != "" {
			return w, wrong(part, "soak=, deadline=, contact=, failures=, errors=, no-shows=, tranche= or per-hour=")
		}
		said[key] = value
	}
	var ok bool
	if w.Size, w.Percent, ok = share(size); !ok && size != "rest" || ok && w.Size+w.Percent == 0 {
		return w, wrong(size, "N, N% or rest")
	}
	for key, to := range map[string]*rollout.Seconds{"soak": &w.Soak, "deadline": &w.Deadline, "contact": &w.Contact} {
		if *to, ok = seconds(said[key]); !ok {
			return w, wrong(said[key], "a duration such as 90s, 30m or 2h, in whole seconds")
		}
	}
	for key, to := range map[string][2]*int{
		"failures": {&w.MaxFailures, &w.MaxFailuresRate}, "errors": {&w.MaxErrors, &w.MaxErrorsRate}, "no-shows": {&w.MaxNoShows, &w.MaxNoShowsRate},
	} {
		if *to[0], *to[1], ok = share(said[key]); !ok {
			return w, wrong(said[key], key+" as N or N%")
		}
	}
	for key, to := range map[string]*int{"tranche": &w.Tranche, "per-hour": &w.PerHour} {
		percent := 0
		if *to, percent, ok = share(said[key]); !ok || percent > 0 {
			return w, wrong(said[key], "a number of devices")
		}
	}
	return w, nil
}

// share reads N or N%.
func share(s string) (n, percent int, ok bool) {
	digits, isPercent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || isPercent && v > 100 {
		return 0, 0, false
	}
	if isPercent {
		return 0, int(v), true
	}
	return int(v), 0, true
}

func seconds(s string) (rollout.Seconds, bool) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > 365*24*time.Hour || d%time.Second != 0 {
		return 0, false
	}
	return rollout.Seconds(d / time.Second), true
}

func (a *api) createRollout() *cobra.Command {
	var p plan
	var start bool
	c := a.verb(cobra.Command{
		Use: "create ID --product PRODUCT --release RELEASE (--all | --state STATE | --query KEY=VALUE,… | --saved NAME | --device ID,…)", Short: "Create a rollout; nothing is sent before it is started",
		Args:    cobra.ExactArgs(1),
		Example: "  hallmark rollout create pump-1.1.0 --product pump --release pump@1.1.0 --all --wave 10 --wave 30%,soak=2h --wave rest --failures 2%",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p.spec.ID = args[0]
		if err := p.resolve(ctx, cl); err != nil {
			return err
		}
		r, err := cl.CreateRollout(ctx, p.spec)
		if err != nil {
			return err
		}
		if !start {
			return a.show(func(w io.Writer) error { return rolloutSheet(w, r) })
		}
		return a.begin(ctx, cl, r.Spec.ID)
	})
	p.flags(c)
	c.Flags().BoolVar(&start, "start", false, "start it at once")
	return c
}

func (a *api) dryRun() *cobra.Command {
	var p plan
	var t trial
	var simulate bool
	c := a.verb(cobra.Command{
		Use: "dry-run --product PRODUCT --release RELEASE (--all | --state STATE | --query KEY=VALUE,… | --saved NAME | --device ID,…)", Short: "Say which devices a rollout would reach, and in which wave",
		Long: `Says which devices a rollout would reach, and in which wave; who is left out, and why. Nothing is kept.

With --simulate it plays the waves over as many devices as it would reach, by the planner that the server decides with, and says how far the rollout gets with a release that fails. --brick,
--refuse, --silent and --turn say how many fail, and in which way; it is as ` + "`hallmark simulate rollout`" + ` but for the number of devices.`,
		Example: "  hallmark rollout dry-run --product pump --release pump@1.1.0 --all\n  hallmark rollout dry-run --product pump --release pump@1.1.0 --group eu --query version=1.0.0,findings\n" +
			"  hallmark rollout dry-run --product pump --release pump@1.1.0 --all --wave 10 --wave rest --failures 2% --simulate --brick 3% --chart out.svg",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		if err := t.given(); err != nil {
			return err
		}
		if t.chart != "" && !simulate {
			return usagef("--chart is of --simulate, which is not given")
		}
		p.spec.ID = "dry-run"
		if err := p.resolve(ctx, cl); err != nil {
			return err
		}
		r, err := cl.DryRun(ctx, p.spec)
		if err != nil {
			return err
		}
		if simulate {
			return a.simulated(&t, p.spec.Waves, r.Reached)
		}
		if r.TakesTwo {
			return a.resolved(r, "takes two", beforeProof(r.Unproven)+" before it is seen whether any is good: begin with fewer, or start it with --propose")
		}
		return a.resolved(r)
	})
	f := c.Flags()
	f.BoolVar(&simulate, "simulate", false, "play it over as many devices, of which some fail")
	t.flags(f)
	return p.flags(c)
}

func (a *api) simulated(t *trial, waves []rollout.Wave, devices int) error {
	if devices > mostPlayed {
		return usagef("it would reach %s devices, and a rollout is played over %s at most: see `hallmark simulate rollout`", withCommas(devices), withCommas(mostPlayed))
	}
	course, err := t.play(waves, devices)
	if err != nil {
		return err
	}
	if a.output == asJSON {
		course.PerPoll = nil // what the chart is drawn from
		return printJSON(a.s.out, course)
	}
	return a.show(func(w io.Writer) error {
		return errors.Join(sheet(w, "reaches", withCommas(devices)+" devices"), courseSheet(w, course))
	})
}

func beforeProof(n int) string {
	if n == rollout.Unbounded {
		return "however many come are told"
	}
	return withCommas(n) + " devices are told"
}

// resolved prints a selection, and what else there is to say of it, in pairs.
func (a *api) resolved(r rollout.Resolved, more ...string) error {
	return a.show(func(w io.Writer) error {
		all := make([][]string, 0, len(r.Members)+len(r.Skipped))
		for _, m := range r.Members {
			why := ""
			if slices.Contains(r.Stranded, m.Device) {
				why = "would have no way back"
			}
			if by := r.Held[m.Device]; by != "" {
				why = strings.TrimPrefix(why+"; is in rollout "+by, "; ")
			}
			if len(m.Over) > 0 {
				why = strings.TrimPrefix(why+"; goes over "+strings.Join(m.Over, ", ")+" first", "; ")
			}
			all = append(all, []string{m.Device, fmt.Sprint(m.Wave), why})
		}
		for _, id := range slices.Sorted(maps.Keys(r.Skipped)) {
			all = append(all, []string{id, "-", r.Skipped[id]})
		}
		cut := r.Reached > len(r.Members)
		if err := table(w, "DEVICE WAVE NOTE", all); err != nil || len(r.LeftOut)+len(r.Stones)+len(more) == 0 && r.Unsized == 0 && !cut {
			return err
		}
		pairs := []string{"reached", fmt.Sprint(r.Reached)}
		if cut {
			pairs = append(pairs, "of them shown", fmt.Sprint(len(r.Members)), "in other rollouts", fmt.Sprint(r.OfOthers), "without a way back", fmt.Sprint(r.NoWayBack))
		}
		for _, d := range r.Stones {
			pairs = append(pairs, "over "+strings.Join(d.Over, ", ")+" first", fmt.Sprint(d.Devices))
		}
		for _, kind := range slices.Sorted(maps.Keys(r.LeftOut)) {
			pairs = append(pairs, "left out: "+kind, fmt.Sprint(r.LeftOut[kind]))
		}
		if r.Unsized > 0 {
			pairs = append(pairs, "room not known", fmt.Sprintf("%d; each decides by itself", r.Unsized))
		}
		return sheet(w, append(pairs, more...)...)
	})
}

func (a *api) startRollout() *cobra.Command {
	return a.matching(a.verb(cobra.Command{Use: "start ROLLOUT", Short: "Start a rollout", Args: cobra.ExactArgs(1), Example: "  hallmark rollout start pump-1.1.0"},
		func(ctx context.Context, cl *client.Client, args []string) error { return a.begin(ctx, cl, args[0]) }))
}

func (a *api) begin(ctx context.Context, cl *client.Client, id string) error {
	r, err := cl.StartRollout(ctx, id)
	if err != nil {
		return err
	}
	return a.resolved(r)
}

func (a *api) control(verb, short string) *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: verb + " ROLLOUT --reason TEXT", Short: short, Args: cobra.ExactArgs(1),
		Example: "  hallmark rollout " + verb + " pump-1.1.0 --reason 'support sees complaints'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := cl.ControlRollout(ctx, args[0], verb, reason)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return rolloutSheet(w, r) })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}
