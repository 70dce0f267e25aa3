package rollout

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

var (
	good32 = bytes.Repeat([]byte{1}, 32) // what ran before
	bad32  = bytes.Repeat([]byte{2}, 32) // what is rolled out
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func manifest() wire.Release { return wire.Release{RollbackTo: [][]byte{good32}} }

// piece is a device of the model: how it takes the release is decided before, and the planner cannot know it.
type piece struct {
	fate   string
	wave   int
	told   time.Time // when it gets its command, if it is still to be had
	Status Status
	backAt time.Time
}

// The fates: takes it; refuses; falls back by itself; confirms and is then unhealthy; confirms and its evidence is bad; is never
// heard of; confirms but never proves it; is retired; confirms and turns unhealthy a while later.
var fates = []string{"good", "good", "good", "good", "refuses", "falls", "unhealthy", "contra", "silent", "unproven", "retired", "turns"}

// world drives a rollout through time, as the Service does, and checks after each step what must always hold.
type world struct {
	t         rapid.TB
	now       time.Time
	r         Rollout
	pieces    []*piece
	commands  map[string][]string // install command → devices
	cancelled map[string]bool
	installed map[string]bool // devices ever told to install, to see that none is told twice
	sentBack  map[string]bool
	crash     func() bool
}

func newWorld(t rapid.TB, spec Spec, fateOf func(i int) string, n int, delay func() time.Duration) *world {
	w := &world{
		t: t, now: epoch, commands: map[string][]string{}, cancelled: map[string]bool{}, installed: map[string]bool{},
		sentBack: map[string]bool{}, crash: func() bool { return false },
	}
	var fit []Candidate
	for i := range n {
		fit = append(fit, Candidate{ID: fmt.Sprintf("d%03d", i), Release: good32})
	}
	members, states, err := deal(spec.Waves, fit)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		w.pieces = append(w.pieces, &piece{fate: fateOf(i), wave: m.Wave, told: epoch.Add(delay()), Status: Status{
			Device: m.Device, State: device.Active, Previous: good32, Running: good32, Health: Healthy, Verdict: "affirming",
			VerdictAt: epoch.Add(-time.Hour), Proven: good32, Seen: epoch.Add(-time.Minute),
		}})
	}
	w.r = Rollout{Spec: spec, Phase: Running, Wave: 1, Waves: states, Started: epoch}
	return w
}

func (w *world) snap() []Status {
	var out []Status
	for _, p := range w.pieces {
		if p.wave == w.r.Wave {
			out = append(out, p.Status)
		}
	}
	return out
}

// live moves the devices on to w.now.
func (w *world) live(delay func() time.Duration) {
	for _, p := range w.pieces {
		s := &p.Status
		if p.fate == "silent" {
			continue
		}
		if p.fate == "retired" && w.now.Sub(epoch) > 20*time.Minute {
			s.State = device.Decommissioning
			continue
		}
		s.Seen = w.now
		if s.Install.Standing == device.Pending && !w.now.Before(p.told) {
			s.Install.Standing, s.Install.Attempts, s.Install.At = device.Delivered, 1, w.now
			p.told = w.now.Add(delay())
		} else if s.Install.Standing == device.Delivered && !w.now.Before(p.told) {
			w.takes(p)
		}
		if p.fate == "turns" && bytes.Equal(s.Running, bad32) && w.now.Sub(s.Install.At) > 10*time.Minute {
			s.Health = Unhealthy
		}
		if s.Back.Standing == device.Pending && !w.now.Before(p.backAt) {
			s.Back.Standing, s.Running, s.Proven, s.Health = device.Done, good32, good32, Healthy
		}
	}
}

func (w *world) takes(p *piece) {
	s := &p.Status
	s.Install.At = w.now
	switch p.fate {
	case "refuses":
		s.Install.Standing = device.Refused
	case "falls":
		s.Install.Standing = device.Failed
	default:
		s.Install.Standing, s.Running = device.Done, bad32
		switch p.fate {
		case "unhealthy":
			s.Health = Unhealthy
		case "contra":
			s.Verdict, s.VerdictAt = contraindicated, w.now
		case "unproven":
		default:
			s.Verdict, s.VerdictAt, s.Proven = "affirming", w.now, bad32
		}
	}
}

// tick does what Service.advance does, with a crash possible between a command and the record of it.
func (w *world) tick() {
	for range maxSteps {
		todo := Plan(w.now, w.r, manifest(), w.snap())
		if len(todo) == 0 {
			return
		}
		sent := false
		for _, d := range todo {
			w.check(d)
			id := w.command(d)
			if w.crash() {
				return
			}
			before := w.r
			w.r = Apply(w.now, w.r, d, id)
			w.monotone(before)
			sent = sent || d.Kind == SendBack
		}
		if sent || w.r.Phase.Ended() {
			return
		}
	}
	w.t.Fatalf("the plan does not come to rest at %v: %+v", w.now, w.r)
}

func (w *world) find(id string) *piece {
	i := slices.IndexFunc(w.pieces, func(p *piece) bool { return p.Status.Device == id })
	if i < 0 {
		w.t.Fatalf("no device %s", id)
	}
	return w.pieces[i]
}

func (w *world) command(d Decision) string {
	switch d.Kind {
	case StartWave:
		if d.Command != "" { // issued before a crash
			return d.Command
		}
		id := fmt.Sprintf("wave-%d", d.Wave)
		if w.commands[id] != nil {
			w.t.Fatalf("wave %d is commanded twice", d.Wave)
		}
		w.commands[id] = d.Devices
		for _, dev := range d.Devices {
			if w.installed[dev] {
				w.t.Fatalf("%s is told twice to install", dev)
			}
			w.installed[dev] = true
			w.find(dev).Status.Install = Order{Command: id, Issued: w.now, Standing: device.Pending, At: w.now}
		}
		return id
	case SendBack:
		for _, dev := range d.Devices {
			if w.sentBack[dev] {
				w.t.Fatalf("%s is sent back twice", dev)
			}
			w.sentBack[dev] = true
			p := w.find(dev)
			p.backAt = w.now.Add(3 * time.Minute)
			p.Status.Back = Order{Command: "back", Standing: device.Pending, At: w.now}
		}
	case Cancel:
		for _, dev := range w.commands[w.r.Waves[w.r.Wave-1].Command] {
			if s := &w.find(dev).Status; s.Install.Standing == device.Pending || s.Install.Standing == device.Delivered {
				s.Install.Standing = device.Cancelled
			}
		}
	default:
	}
	return ""
}

// check holds a decision against what really is, by rules written without the planner's functions.
func (w *world) check(d Decision) {
	var reallyGood, gone, failed, of int
	for _, p := range w.pieces {
		s := p.Status
		if p.wave != w.r.Wave {
			continue
		}
		of++
		takenGood := bytes.Equal(s.Running, bad32) && s.Health == Healthy && s.Verdict == "affirming" && bytes.Equal(s.Proven, bad32)
		switch {
		case s.State == device.Decommissioning:
			gone++
		case takenGood:
			reallyGood++
		default:
			failed++
		}
	}
	rule := w.r.Spec.Waves[w.r.Waves[w.r.Wave-1].Rule]
	switch d.Kind {
	case StartWave:
		if w.r.Phase != Running {
			w.t.Fatalf("a wave starts while the rollout is %s", w.r.Phase)
		}
		for i, before := range w.r.Waves[:w.r.Wave-1] {
			if before.Succeeded.IsZero() {
				w.t.Fatalf("wave %d starts before wave %d has passed", w.r.Wave, i+1)
			}
		}
	case PassWave:
		if failed > rule.MaxFailures {
			w.t.Fatalf("wave %d passes: of %d devices %d good, %d not, %d retired, tolerated %d", d.Wave, of, reallyGood, failed, gone, rule.MaxFailures)
		}
		if reallyGood == 0 && gone < of {
			w.t.Fatalf("wave %d passes with no device good", d.Wave)
		}
		if started := w.r.Waves[w.r.Wave-1].Started; gone < of && w.now.Sub(started) < rule.Soak.D() {
			w.t.Fatalf("wave %d passes %v after its start, soak is %v", d.Wave, w.now.Sub(started), rule.Soak.D())
		}
	case Halt:
		if failed <= rule.MaxFailures && reallyGood > 0 {
			w.t.Fatalf("wave %d halts with %d not good, tolerated %d", d.Wave, failed, rule.MaxFailures)
		}
	case SendBack:
		for _, dev := range d.Devices {
			if s := w.find(dev).Status; w.r.Phase != Halted || !bytes.Equal(s.Running, bad32) || !bytes.Equal(d.Release, good32) {
				w.t.Fatalf("%s is sent back to %x while it runs %x and the rollout is %s", dev, d.Release[:1], s.Running[:1], w.r.Phase)
			}
		}
	default:
	}
}

func (w *world) monotone(before Rollout) {
	rank := map[Phase]int{Created: 0, Running: 1, Paused: 1, Halted: 2, Aborting: 3, RolledBack: 4, Aborted: 4, Completed: 4}
	if w.r.Wave < before.Wave || rank[w.r.Phase] < rank[before.Phase] {
		w.t.Fatalf("it goes back: from %s wave %d to %s wave %d", before.Phase, before.Wave, w.r.Phase, w.r.Wave)
	}
}

// run goes on until the rollout has ended; every plan must, because every wave has a deadline.
func (w *world) run(step time.Duration, delay func() time.Duration, each func()) {
	for i := 0; !w.r.Phase.Ended(); i++ {
		if i > 5000 {
			w.t.Fatalf("no end after %v: %+v", w.now.Sub(epoch), w.r)
		}
		w.tick()
		each()
		w.now = w.now.Add(step)
		w.live(delay)
	}
}

// end checks how it ended.
func (w *world) end() {
	for _, p := range w.pieces {
		s := p.Status
		runs := bytes.Equal(s.Running, bad32)
		if runs && !w.installed[s.Device] {
			w.t.Errorf("%s runs what nobody told it to", s.Device)
		}
		if w.r.Phase == RolledBack && runs && p.wave == w.r.Wave && s.State == device.Active && s.Back.Command == "" {
			w.t.Errorf("%s (%s) still runs the bad release and was not sent back", s.Device, p.fate)
		}
		if w.r.Phase == RolledBack && p.wave > w.r.Wave && w.installed[s.Device] {
			w.t.Errorf("%s of a later wave was told to install", s.Device)
		}
	}
}

func TestPlanHoldsItsGates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "devices")
		wave := func(name string, size int) Wave {
			return Wave{
				Size: size, Soak: Seconds(rapid.IntRange(0, 900).Draw(t, name+" soak")),
				Deadline:    Seconds(rapid.IntRange(60, 7200).Draw(t, name+" deadline")),
				MaxFailures: rapid.IntRange(0, 3).Draw(t, name+" failures"),
			}
		}
		var waves []Wave
		for i := range rapid.IntRange(0, 3).Draw(t, "waves") {
			waves = append(waves, wave(fmt.Sprint(i), rapid.IntRange(1, 4).Draw(t, "size")))
		}
		waves = append(waves, wave("rest", 0))
		delay := func() time.Duration { return time.Duration(rapid.IntRange(0, 600).Draw(t, "delay")) * time.Second }
		w := newWorld(t, Spec{ID: "r", Release: bad32, Waves: waves}, func(i int) string {
			return rapid.SampledFrom(fates).Draw(t, fmt.Sprintf("fate %d", i))
		}, n, delay)
		w.crash = func() bool { return rapid.IntRange(0, 5).Draw(t, "crash") == 0 }
		w.run(5*time.Minute, delay, func() {})
		w.end()
	})
}

// Many small rollouts from a seed, with pauses and hands on the switch.
func TestSimulatedRolloutsEnd(t *testing.T) {
	ended := map[Phase]int{}
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		delay := func() time.Duration { return time.Duration(rnd.IntN(900)) * time.Second }
		clean := seed%4 == 0
		w := newWorld(t, Spec{ID: fmt.Sprint(seed), Release: bad32, Waves: []Wave{
			{Size: 1, Soak: 300, Deadline: 3600}, {Percent: 30, Soak: 600, Deadline: 5400, MaxFailures: 1}, {Soak: 60, Deadline: 7200, MaxFailures: 2},
		}}, func(int) string {
			if clean {
				return "good"
			}
			return fates[rnd.IntN(len(fates))]
		}, 1+rnd.IntN(30), delay)
		w.crash = func() bool { return rnd.IntN(10) == 0 }
		w.run(time.Minute, delay, func() {
			switch rnd.IntN(200) {
			case 0:
				if w.r.Phase == Running {
					w.r.Phase = Paused
				}
			case 1:
				if !clean && !w.r.Phase.Ended() {
					w.r.Phase = Aborting
				}
			}
			if w.r.Phase == Paused && rnd.IntN(10) == 0 {
				w.r.Phase = Running
			}
		})
		w.end()
		ended[w.r.Phase]++
		if clean && w.r.Phase != Completed {
			t.Errorf("seed %d: every device is good, and the rollout is %s: %s", seed, w.r.Phase, w.r.Reason)
		}
	}
	if ended[Completed] < 50 || ended[RolledBack] < 50 || ended[Aborted] < 5 {
		t.Errorf("the simulation does not reach every end: %v", ended)
	}
}

func TestJudgeTakesNothingOnTrust(t *testing.T) {
	started, deadline := epoch, epoch.Add(time.Hour)
	at := epoch.Add(30 * time.Minute)
	fine := Status{
		State: device.Active, Install: Order{Command: "c", Standing: device.Done}, Running: bad32, Health: Healthy, Verdict: "affirming",
		VerdictAt: epoch.Add(time.Minute), Proven: bad32, Seen: epoch.Add(time.Minute),
	}
	for name, c := range map[string]struct {
		change        func(*Status)
		before, after Class
	}{
		"fine":                  {func(*Status) {}, Good, Good},
		"nothing known":         {func(s *Status) { *s = Status{} }, Waiting, Failed},
		"on trial":              {func(s *Status) { s.Trial = true }, Waiting, Failed},
		"health unknown":        {func(s *Status) { s.Health = HealthUnknown }, Waiting, Failed},
		"unhealthy":             {func(s *Status) { s.Health = Unhealthy }, Failed, Failed},
		"old verdict":           {func(s *Status) { s.VerdictAt = epoch.Add(-time.Second) }, Waiting, Failed},
		"verdict of old code":   {func(s *Status) { s.Proven = good32 }, Waiting, Failed},
		"no verdict":            {func(s *Status) { s.Verdict, s.VerdictAt = "", time.Time{} }, Waiting, Failed},
		"verdict warning":       {func(s *Status) { s.Verdict = "warning" }, Good, Good},
		"verdict none":          {func(s *Status) { s.Verdict = "none" }, Waiting, Failed},
		"contraindicated":       {func(s *Status) { s.Verdict = contraindicated }, Failed, Failed},
		"says it runs another":  {func(s *Status) { s.Running = good32 }, Waiting, Failed},
		"only delivered":        {func(s *Status) { s.Install.Standing = device.Delivered }, Waiting, Failed},
		"standing unheard of":   {func(s *Status) { s.Install.Standing = "splendid" }, Waiting, Failed},
		"refused":               {func(s *Status) { s.Install.Standing = device.Refused }, Failed, Failed},
		"expired":               {func(s *Status) { s.Install.Standing = device.Expired }, Failed, Failed},
		"silent since the wave": {func(s *Status) { s.Seen = epoch.Add(-time.Second) }, Waiting, Failed},
		"retired":               {func(s *Status) { s.State = device.Decommissioned }, Left, Left},
	} {
		s := fine
		c.change(&s)
		if got, why := Judge(s, bad32, started, deadline, at); got != c.before {
			t.Errorf("%s before the deadline: %d (%s), want %d", name, got, why, c.before)
		}
		if got, why := Judge(s, bad32, started, deadline, deadline); got != c.after {
			t.Errorf("%s at the deadline: %d (%s), want %d", name, got, why, c.after)
		}
	}
}

func TestCap(t *testing.T) {
	for _, c := range []struct {
		w       Wave
		n, want int
	}{
		{Wave{}, 100, 0},
		{Wave{MaxFailures: 3}, 100, 3},
		{Wave{MaxFailuresRate: 5}, 100, 5},
		{Wave{MaxFailuresRate: 5}, 19, 0},
		{Wave{MaxFailures: 3, MaxFailuresRate: 5}, 100, 3},
		{Wave{MaxFailures: 9, MaxFailuresRate: 5}, 100, 5},
	} {
		if got := c.w.Cap(c.n); got != c.want {
			t.Errorf("%+v of %d: %d, want %d", c.w, c.n, got, c.want)
		}
	}
}
