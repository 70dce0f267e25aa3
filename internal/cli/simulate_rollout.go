package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/internal/sim"
)

func simulateRollout(s streams) *cobra.Command {
	var p plan
	f := sim.Rollout{}
	var chart string
	var asJSON bool
	parts := map[string]*int{"brick": &f.Brick, "refuse": &f.Refuse, "silent": &f.Silent, "turn": &f.Turn}
	said := map[string]*string{}
	c := &cobra.Command{
		Use: "rollout", Short: "How far a rollout gets before it halts, of a release that fails",
		Long: `Plays the waves of a rollout over devices that are not there, by the planner that the server decides with. How devices take the release is drawn from the
seed: some are bricked by it, some say no, some are never heard of, and some are good with it and turn unhealthy later. It prints how the rollout ended, how many were
told before it did, and how many were lost.`,
		Args:    cobra.NoArgs,
		Example: "  hallmark simulate rollout --devices 10000 --brick 3% --wave 50,failures=3 --wave 10%,per-hour=200 --wave rest,per-hour=2000 --failures 1% --deadline 1h --chart out.svg",
		RunE: func(*cobra.Command, []string) error {
			for name, to := range parts {
				var ok bool
				if *to, ok = thousandths(*said[name]); !ok {
					return usagef("--%s %q: want a part of the devices, such as 3%% or 0.5%%", name, *said[name])
				}
			}
			if f.Devices < 1 || f.Devices > 1_000_000 || f.Poll < time.Second || f.Brick+f.Refuse+f.Silent+f.Turn > 1000 {
				return usagef("want 1 to 1,000,000 devices, a poll of a second at least, and parts that are no more than all of them")
			}
			for _, text := range p.waves {
				w, err := p.wave(text)
				if err != nil {
					return err
				}
				f.Waves = append(f.Waves, w)
			}
			return playRollout(s, f, chart, asJSON)
		},
	}
	fl := c.Flags()
	fl.IntVar(&f.Devices, "devices", 10_000, "how many")
	fl.DurationVar(&f.Poll, "poll", 5*time.Minute, "between check-ins")
	fl.DurationVar(&f.Takes, "takes", 20*time.Minute, "from being told to running the release, at most")
	fl.Uint64Var(&f.Seed, "seed", 1, "the same seed is the same rollout")
	for name, use := range map[string]string{
		"brick": "part of them that takes the release and is not heard of again", "refuse": "part that says no", "silent": "part that is not heard of at all",
		"turn": "part that turns unhealthy some time in the hour after",
	} {
		said[name] = fl.String(name, "0%", use)
	}
	p.pace(fl)
	fl.StringVar(&chart, "chart", "", "file to draw it in, SVG")
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

func playRollout(s streams, f sim.Rollout, chart string, asJSON bool) error {
	c, err := sim.Rollouts(f)
	if err != nil {
		return err
	}
	if chart != "" {
		title := fmt.Sprintf("%s devices", withCommas(f.Devices))
		if f.Brick > 0 {
			title += fmt.Sprintf(", and a release that bricks %s of them", percent(f.Brick))
		}
		if err := durable.WriteFile(chart, plot.Draw(c.Plot(title, f.Poll)), 0o644); err != nil {
			return err
		}
	}
	if asJSON {
		c.PerPoll = nil
		return printJSON(s.out, c)
	}
	return courseSheet(s.out, c)
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
