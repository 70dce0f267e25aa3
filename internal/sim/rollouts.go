package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/rollout"
)

// Rollout is a plan, and a fleet that it is played over.
type Rollout struct {
	Waves   []rollout.Wave
	Devices int
	Poll    time.Duration // between check-ins
	Takes   time.Duration // from being told to running the release, at most
	Seed    uint64

	// Parts of the fleet, in a thousand.
	Brick  int // take the release, and are never heard of again
	Refuse int // say no
	Silent int // are not heard of at all
	Turn   int // are good with it, and turn unhealthy some time in the hour after
}

// Course is how a rollout went.
type Course struct {
	Phase   rollout.Phase
	Reason  string
	Wave    int // the last that began
	Waves   int
	Took    time.Duration
	Halted  time.Duration // when; 0: it was not
	Told    int
	Bricked int
	Last    rollout.Counts
	PerPoll []Point
	Passed  []time.Duration
}

// Point is how many devices are what, at one moment.
type Point struct{ Told, Runs, Bricked int }

// one of the fleet. How it takes the release is drawn before, and the planner is not shown it.
type one struct {
	fate  byte // of "brst", or 0: good
	at    time.Duration
	state rollout.Status
	dead  bool
}

var (
	oldRelease, newRelease = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	begin                  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ways                   = rollout.Ways{string(newRelease): {RollbackTo: [][]byte{oldRelease}}}
)

const longest = 366 * 24 * time.Hour // no rollout is played for longer

// Rollouts plays a rollout by the planner of the server: no store, and no network but what a poll is late.
func Rollouts(f Rollout) (Course, error) {
	p, err := newPlay(f)
	if err != nil {
		return Course{}, err
	}
	for now := time.Duration(0); !p.r.Phase.Ended() && now < longest; now += f.Poll {
		p.live(now)
		p.decide(now)
		p.note()
		p.course.Took = now
	}
	c := &p.course
	c.Phase, c.Reason, c.Wave, c.Waves, c.Last = p.r.Phase, p.r.Reason, p.r.Wave, len(p.r.Waves), p.r.Last
	if !p.r.Halted.IsZero() {
		c.Halted = p.r.Halted.Sub(begin)
	}
	return *c, nil
}

type play struct {
	f      Rollout
	r      rollout.Rollout
	all    []one // by rank
	rnd    *rand.Rand
	course Course
}

func newPlay(f Rollout) (*play, error) {
	p := &play{f: f, rnd: rand.New(rand.NewPCG(f.Seed, 5)), r: rollout.Rollout{Phase: rollout.Running, Wave: 1, Started: begin}}
	p.r.Spec = rollout.Spec{ID: fmt.Sprint("simulated ", f.Seed), Release: newRelease, Waves: f.Waves}
	members := make([]rollout.Member, f.Devices)
	for i := range members {
		members[i].Device = fmt.Sprintf("%08d", i)
	}
	members, waves, err := rollout.Deal(p.r.Spec, members)
	if err != nil {
		return nil, err
	}
	p.r.Waves = waves
	for _, m := range members {
		o := one{state: rollout.Status{
			Device: m.Device, Wave: m.Wave, State: device.Active, Previous: oldRelease, Running: oldRelease, Health: rollout.Healthy, Seen: begin, Assurance: device.Enforces,
		}}
		luck := p.rnd.IntN(1000)
		for _, part := range []struct {
			n    int
			fate byte
		}{{f.Brick, 'b'}, {f.Refuse, 'r'}, {f.Silent, 's'}, {f.Turn, 't'}} {
			if luck >= 0 && luck < part.n {
				o.fate = part.fate
			}
			luck -= part.n
		}
		p.all = append(p.all, o)
	}
	return p, nil
}

func (p *play) moment(now time.Duration) rollout.Moment {
	return rollout.Moment{Now: begin.Add(now), Contact: max(15*time.Minute, 5*p.f.Poll)}
}

// live has every device that can call do so, once.
func (p *play) live(now time.Duration) {
	at := begin.Add(now)
	for i := range p.all {
		o := &p.all[i]
		s := &o.state
		if o.dead || o.fate == 's' {
			continue
		}
		s.Seen = at
		switch in := &s.Install; {
		case in.Standing == device.Pending:
			in.Standing, in.Attempts, o.at = device.Delivered, 1, now+time.Duration(p.rnd.Int64N(int64(max(p.f.Takes, 1))))
		case in.Standing == device.Delivered && now >= o.at:
			p.takes(o, at)
			o.at = now + time.Duration(p.rnd.Int64N(int64(time.Hour)))
		case o.fate == 't' && in.Standing == device.Done && now >= o.at && bytes.Equal(s.Running, newRelease):
			s.Health = rollout.Unhealthy
		}
		if s.Back.Standing == device.Pending {
			s.Back.Standing, s.Running, s.Proven, s.Health, s.VerdictAt = device.Done, oldRelease, oldRelease, rollout.Healthy, at
		}
		s.VerdictAt = at
	}
}

func (p *play) takes(o *one, at time.Time) {
	s := &o.state
	switch o.fate {
	case 'b':
		o.dead = true
		p.course.Bricked++
	case 'r':
		s.Install.Standing = device.Refused
	default:
		s.Install.Standing, s.Running, s.Proven, s.Verdict, s.VerdictAt = device.Done, newRelease, newRelease, "affirming", at
	}
}

// decide carries out what the planner says, until it says nothing.
func (p *play) decide(now time.Duration) {
	for !p.r.Phase.Ended() {
		snap := make([]rollout.Status, 0, len(p.all))
		for i := range p.all {
			if p.all[i].state.Wave <= p.r.Wave {
				snap = append(snap, p.all[i].state)
			}
		}
		todo := rollout.Decide(p.moment(now), p.r, rollout.Whole(p.moment(now), p.r, ways, snap))
		if len(todo) == 0 {
			return
		}
		for _, d := range todo {
			p.carry(now, d)
		}
	}
}

func (p *play) carry(now time.Duration, d rollout.Decision) {
	at := begin.Add(now)
	var tranches []rollout.Tranche
	switch d.Kind {
	case rollout.TakeWave:
		d.N = p.r.Waves[p.r.Wave-1].Devices
	case rollout.StartWave, rollout.NextTranche:
		n := len(p.r.Waves[p.r.Wave-1].Tranches) + 1
		left := d.N
		p.each(rollout.Queued, p.r.Wave, now, func(s *rollout.Status) {
			if left--; left >= 0 {
				s.Tranche, s.Install = n, rollout.Order{Command: "install", Standing: device.Pending, Issued: at}
				p.course.Told++
			}
		})
		tranches = []rollout.Tranche{{Command: "install", Devices: d.N, At: at}}
	case rollout.SendBack:
		p.each(rollout.Returns, 0, now, func(s *rollout.Status) { s.Back = rollout.Order{Command: "back", Standing: device.Pending, Issued: at} })
		tranches = []rollout.Tranche{{Command: "back", Release: oldRelease, At: at}}
	case rollout.Cancel:
		for i := range p.all {
			if in := &p.all[i].state.Install; in.Standing == device.Pending || in.Standing == device.Delivered {
				in.Standing = device.Cancelled
			}
		}
	case rollout.PassWave:
		p.course.Passed = append(p.course.Passed, now)
	default:
	}
	p.r = rollout.Apply(at, p.r, d, tranches...)
}

// each gives the devices of a wave with a mark, in the order in which they are told; of wave 0 all.
func (p *play) each(k rollout.Mark, wave int, now time.Duration, do func(*rollout.Status)) {
	m := p.moment(now)
	for i := range p.all {
		s := &p.all[i].state
		if s.Wave > p.r.Wave || wave > 0 && s.Wave != wave {
			continue
		}
		if mark, _ := rollout.MarkOf(m, p.r, ways, *s); mark == k {
			do(s)
		}
	}
}

func (p *play) note() {
	pt := Point{Told: p.course.Told, Bricked: p.course.Bricked}
	for i := range p.all {
		if s := &p.all[i].state; !p.all[i].dead && bytes.Equal(s.Running, newRelease) {
			pt.Runs++
		}
	}
	p.course.PerPoll = append(p.course.PerPoll, pt)
}

// Plot draws a course: who was told, who runs the release, and who is lost, over the time it took.
func (c Course) Plot(title string, poll time.Duration) plot.Plot {
	var end Point
	if n := len(c.PerPoll); n > 0 {
		end = c.PerPoll[n-1]
	}
	ends := func(what string, n int) plot.Line {
		return plot.Line{Name: what + ": " + plot.Thousands(float64(n)) + " at the end"}
	}
	p := plot.Plot{Title: title, Axis: "hours", Lines: []plot.Line{ends("bricked", end.Bricked), ends("told to install", end.Told), ends("run the release", end.Runs)}}
	for _, pt := range c.PerPoll {
		for i, n := range []int{pt.Bricked, pt.Told, pt.Runs} {
			p.Lines[i].Points = append(p.Lines[i].Points, n)
		}
	}
	step := max(time.Hour, (c.Took / 12).Truncate(time.Hour))
	for at := time.Duration(0); at <= c.Took; at += step {
		p.Ticks = append(p.Ticks, plot.Tick{At: int(at / poll), Text: fmt.Sprint(int(at.Hours()))})
	}
	for i, at := range c.Passed {
		p.Marks = append(p.Marks, plot.Tick{At: int(at / poll), Text: fmt.Sprintf("wave %d passed", i+1)})
	}
	if c.Halted > 0 {
		p.Marks = append(p.Marks, plot.Tick{At: int(c.Halted / poll), Text: "halted by itself"})
	}
	return p
}
