package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/internal/sim"
	"github.com/hallmark-iot/hallmark/rollout"
)

// trial is how a rollout is played: how devices take the release, and where that is drawn.
type trial struct {
	f     sim.Rollout
	said  map[string]*string // of --brick and its like
	chart string
}

func (t *trial) flags(fl *pflag.FlagSet) {
	t.said = map[string]*string{}
	fl.DurationVar(&t.f.Poll, "poll", 5*time.Minute, "between check-ins")
	fl.DurationVar(&t.f.Takes, "takes", 20*time.Minute, "from being told to running the release, at most")
	fl.Uint64Var(&t.f.Seed, "seed", 1, "the same seed is the same rollout")
	for name, use := range map[string]string{
		"brick": "part of them that takes the release and is not heard of again", "refuse": "part that says no", "silent": "part that is not heard of at all",
		"turn": "part that turns unhealthy some time in the hour after",
	} {
		t.said[name] = fl.String(name, "0%", use)
	}
	fl.StringVar(&t.chart, "chart", "", "file to draw it in, SVG")
}

// given reads how devices take the release.
func (t *trial) given() error {
	for name, to := range map[string]*int{"brick": &t.f.Brick, "refuse": &t.f.Refuse, "silent": &t.f.Silent, "turn": &t.f.Turn} {
		var ok bool
		if *to, ok = thousandths(*t.said[name]); !ok {
			return usagef("--%s %q: want a part of the devices, such as 3%% or 0.5%%", name, *t.said[name])
		}
	}
	if t.f.Poll < time.Second || t.f.Takes < 0 || t.f.Brick+t.f.Refuse+t.f.Silent+t.f.Turn > 1000 {
		return usagef("want a poll of a second at least, and parts that are no more than all of the devices")
	}
	return nil
}

// mostPlayed is how many devices a rollout is played over at most.
const mostPlayed = 1_000_000

// play plays the waves over so many devices, and draws how it went.
func (t *trial) play(waves []rollout.Wave, devices int) (sim.Course, error) {
	t.f.Waves, t.f.Devices = waves, devices
	c, err := sim.Rollouts(t.f)
	if err != nil || t.chart == "" {
		return c, err
	}
	title := fmt.Sprintf("%s devices", withCommas(devices))
	if t.f.Brick > 0 {
		title += fmt.Sprintf(", and a release that bricks %s of them", percent(t.f.Brick))
	}
	return c, durable.WriteFile(t.chart, plot.Draw(c.Plot(title, t.f.Poll)), 0o644)
}

func simulateRollout(s streams) *cobra.Command {
	var p plan
	var t trial
	var devices int
	var asJSON bool
	c := &cobra.Command{
		Use: "rollout", Short: "How far a rollout gets before it halts, of a release that fails",
		Long: `Plays the waves of a rollout over devices that are not there, by the planner that the server decides with. How devices take the release is drawn from the
seed: some are bricked by it, some say no, some are never heard of, and some are good with it and turn unhealthy later. It prints how the rollout ended, how many were
told before it did, and how many were lost. ` + "`hallmark rollout dry-run --simulate`" + ` does the same with as many devices as a rollout of a fleet would reach.`,
		Args:    cobra.NoArgs,
		Example: "  hallmark simulate rollout --devices 10000 --brick 3% --wave 50,failures=3 --wave 10%,per-hour=200 --wave rest,per-hour=2000 --failures 1% --deadline 1h --chart out.svg",
		RunE: func(*cobra.Command, []string) error {
			if err := t.given(); err != nil {
				return err
			}
			if devices < 1 || devices > mostPlayed {
				return usagef("want 1 to %s devices", withCommas(mostPlayed))
			}
			var waves []rollout.Wave
			for _, text := range p.waves {
				w, err := p.wave(text)
				if err != nil {
					return err
				}
				waves = append(waves, w)
			}
			course, err := t.play(waves, devices)
			if err != nil {
				return err
			}
			if asJSON {
				course.PerPoll = nil // what the chart is drawn from
				return printJSON(s.out, course)
			}
			return courseSheet(s.out, course)
		},
	}
	fl := c.Flags()
	fl.IntVar(&devices, "devices", 10_000, "how many")
	t.flags(fl)
	p.pace(fl)
	fl.BoolVar(&asJSON, "json", false, "for other programs")
	return c
}

// thousandths reads a percentage with at most one decimal.
func thousandths(s string) (int, bool) {
	digits, ok := strings.CutSuffix(s, "%")
	whole, tenth, _ := strings.Cut(digits, ".")
	n, _, ok1 := share(whole)
	if tenth == "" {
		tenth = "0"
	}
	t, _, ok2 := share(tenth)
	return 10*n + t, ok && ok1 && ok2 && len(tenth) == 1 && n <= 100
}

func percent(thousandths int) string {
	if thousandths%10 == 0 {
		return fmt.Sprintf("%d %%", thousandths/10)
	}
	return fmt.Sprintf("%d.%d %%", thousandths/10, thousandths%10)
}

func withCommas(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return withCommas(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

func courseSheet(w io.Writer, c sim.Course) error {
	pairs := []string{"phase", string(c.Phase), "reason", c.Reason, "wave", fmt.Sprintf("%d of %d", c.Wave, c.Waves), "took", c.Took.String()}
	if c.Halted > 0 {
		pairs = append(pairs, "halted after", c.Halted.String())
	}
	return sheet(w, append(pairs, "told", fmt.Sprint(c.Told), "bricked", fmt.Sprint(c.Bricked), "sent back", fmt.Sprint(c.Last.Returned), "stranded", fmt.Sprint(c.Last.Stranded))...)
}
