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
	stone1 = bytes.Repeat([]byte{3}, 32) // what some are taken over first
	stone2 = bytes.Repeat([]byte{4}, 32) // and behind that
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// backs has a way back from everything but the second stone, which nobody may leave.
func backs() Ways {
	return Ways{string(bad32): {RollbackTo: [][]byte{good32, stone1, stone2}}, string(stone1): {RollbackTo: [][]byte{good32}}, string(stone2): {}}
}

// piece is a device of the model: how it takes the release is decided before, and the planner cannot know it.
type piece struct {
	fate   string
	wave   int
	told   time.Time // when it gets its command, if it is still to be had
	Status Status
	backAt time.Time
	way    [][]byte // what it has to be told, in order: stones, and the release
	fateAt int      // at which of them its fate is

	// What really is, which the planner is not shown.
	took  time.Time // when it began to run the release for good; zero: it does not
	good  time.Time // since when it is well with it and can prove it; zero: it is not
	spoke time.Time // when it last said a word
	asked bool      // it was told to attest
}

// The fates: takes it; refuses; falls back by itself; confirms and is then unhealthy; confirms and its evidence is bad; is never
// heard of; confirms but never proves it; is retired; confirms and turns unhealthy a while later; confirms, proves it, and is not heard of
// any more; the same, but it comes back; confirms, proves it, and does not attest any more; declines; waits for an hour before it takes it.
var fates = []string{
	"good", "good", "good", "good", "good", "good", "refuses", "falls", "unhealthy", "contra", "silent", "unproven", "retired", "turns",
	"falls silent", "comes back", "proves once", "declines", "waits",
}

const contact = 15 * time.Minute

// heard reports whether a device that took the release speaks at now.
func (p *piece) heard(now time.Time) bool {
	since := now.Sub(p.took)
	switch {
	case p.fate == "silent":
		return false
	case p.took.IsZero():
		return true
	case p.fate == "falls silent":
		return since < 8*time.Minute
	case p.fate == "comes back":
		return since < 8*time.Minute || since > 50*time.Minute
	}
	return true
}

// world drives a rollout through time, as the Service does, and checks after each step what must always hold.
type world struct {
	t         rapid.TB
	now       time.Time
	r         Rollout
	pieces    []*piece
	commands  map[string][]string // install command → devices
	installed map[string]bool     // devices ever told to install, to see that none is told twice
	sentBack  map[string]bool
	crash     func() bool
}

func newWorld(t rapid.TB, spec Spec, fateOf func(i int) string, n int, delay func() time.Duration) *world {
	w := &world{
		t: t, now: epoch, commands: map[string][]string{}, installed: map[string]bool{},
		sentBack: map[string]bool{}, crash: func() bool { return false },
	}
	var fit []placed
	for i := range n {
		fit = append(fit, placed{rank: int64(i), i: i})
	}
	states, err := deal(spec, fit)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range fit {
		wave := waveOf(states, m.rank)
		w.pieces = append(w.pieces, &piece{fate: fateOf(i), wave: wave, way: [][]byte{bad32}, told: epoch.Add(delay()), Status: Status{
			Device: fmt.Sprintf("d%03d", i), Wave: wave, State: device.Active, Previous: good32, Running: good32, Health: Healthy, Verdict: "affirming",
			VerdictAt: epoch.Add(-time.Hour), Proven: good32, Seen: epoch.Add(-time.Minute),
		}})
	}
	w.r = Rollout{Spec: spec, Phase: Running, Wave: 1, Waves: states, Started: epoch}
	return w
}

// stones has devices taken over so many stones, at one of which, or behind them, their fate is.
func (w *world) stones(n func() (stones, fateAt int)) {
	for _, p := range w.pieces {
		stones, at := n()
		p.way = slices.Concat([][]byte{stone1, stone2}[:stones], [][]byte{bad32})
		p.fateAt = at % len(p.way)
	}
}

// next is what a piece is to be told.
func (p *piece) next() []byte {
	at := slices.IndexFunc(p.way, func(d []byte) bool { return bytes.Equal(d, p.Status.Running) })
	return p.way[min(at+1, len(p.way)-1)]
}

func (w *world) snap() []Status {
	var out []Status
	from, to := w.r.watched()
	for _, p := range w.pieces {
		if p.wave >= from && p.wave <= to {
			out = append(out, p.Status)
		}
	}
	return out
}

func (w *world) moment() Moment { return Moment{Now: w.now, Contact: contact} }

// live moves the devices on to w.now.
func (w *world) live(delay func() time.Duration) {
	for _, p := range w.pieces {
		s := &p.Status
		if p.fate == "retired" && w.now.Sub(epoch) > 20*time.Minute {
			s.State = device.Decommissioning
		}
		if s.State == device.Decommissioning || !p.heard(w.now) {
			continue
		}
		p.spoke, s.Seen = w.now, w.now
		if st := s.Install.standing(w.now); st == device.Pending && !w.now.Before(p.told) {
			s.Install.Standing, s.Install.Attempts, s.Install.At = device.Delivered, 1, w.now
			p.told = w.now.Add(delay())
			if p.fate == "waits" {
				p.told = w.now.Add(time.Hour)
				s.Waits = &wire.Waits{For: wire.WaitsForConsent, Since: uint64(w.now.Unix())}
			}
		} else if st == device.Delivered && !w.now.Before(p.told) {
			w.takes(p)
		}
		if p.fate == "turns" && !p.took.IsZero() && w.now.Sub(p.took) > 10*time.Minute {
			s.Health, p.good = Unhealthy, time.Time{}
		}
		if p.asked && p.fate != "unproven" && p.fate != "proves once" {
			p.asked, s.VerdictAt = false, w.now
		}
		if s.Back.Standing == device.Pending && !w.now.Before(p.backAt) {
			s.Back.Standing, s.Running, s.Proven, s.Health = device.Done, s.Previous, s.Previous, Healthy
			p.took, p.good = time.Time{}, time.Time{}
		}
	}
}

func (w *world) takes(p *piece) {
	s := &p.Status
	s.Install.At, s.Waits = w.now, nil
	told := w.r.Brings(w.r.tranche(*s))
	if at := slices.IndexFunc(p.way, func(d []byte) bool { return bytes.Equal(d, told) }); at < p.fateAt { // a stone that it is good with
		s.Install.Standing, s.Running, s.Verdict, s.VerdictAt, s.Proven, s.Health = device.Done, told, "affirming", w.now, told, Healthy
		return
	}
	switch p.fate {
	case "declines":
		s.Install.Standing, s.Install.Code = device.Refused, wire.CodeDeclined
	case "refuses":
		s.Install.Standing = device.Refused
	case "falls":
		s.Install.Standing = device.Failed
	default:
		s.Install.Standing, s.Running = device.Done, told
		if bytes.Equal(told, bad32) {
			p.took = w.now
		}
		switch p.fate {
		case "unhealthy":
			s.Health = Unhealthy
		case "contra":
			s.Verdict, s.VerdictAt = contraindicated, w.now
		case "unproven":
		default:
			s.Verdict, s.VerdictAt, s.Proven, p.good = "affirming", w.now, told, p.took
		}
	}
}

// tick does what Service.advance does, with a crash possible between a command and the record of it.
func (w *world) tick() {
	for range maxSteps {
		for _, p := range w.of(Missed) { // who is too late is told no more
			if st := &p.Status.Install.Standing; *st == device.Pending || *st == device.Delivered {
				wave := w.r.Waves[p.wave-1]
				if spec := w.r.Spec; w.now.Before(wave.Tranches[p.Status.Tranche-1].At.Add(spec.Grace.D() + spec.Waves[wave.Rule].Deadline.D())) {
					w.t.Fatalf("%s (%s) has time yet, and is a no-show", p.Status.Device, p.fate)
				}
				*st = device.Cancelled
			}
		}
		todo := Decide(w.moment(), w.r, Whole(w.moment(), w.r, backs(), w.snap()))
		if len(todo) == 0 {
			return
		}
		for _, d := range todo {
			w.check(d)
			before := w.r
			tranches := w.carry(d)
			if w.crash() && len(tranches) == 0 {
				return
			}
			w.r = Apply(w.now, w.r, d, tranches...)
			w.monotone(before)
		}
		if w.r.Phase.Ended() {
			return
		}
	}
	w.t.Fatalf("the plan does not come to rest at %v: %+v", w.now, w.r)
}

// of gives the current wave's devices with a mark; of a halted rollout those of all waves.
func (w *world) of(k Mark) (out []*piece) {
	from, to := w.r.watched()
	for _, p := range w.pieces {
		if p.wave < from || p.wave > to {
			continue
		}
		if mark, _ := MarkOf(w.moment(), w.r, backs(), p.Status); mark == k {
			out = append(out, p)
		}
	}
	return out
}

// carry does what a decision says, and gives the tranches that it made.
func (w *world) carry(d Decision) []Tranche {
	switch d.Kind {
	case TakeWave:
	case StartWave, NextTranche:
		return []Tranche{w.tell(d)}
	case Issue:
		w.issue()
	case AskProof:
		for _, p := range w.of(Proving) {
			p.asked = true
		}
	case SendBack:
		for _, p := range w.of(Returns) {
			dev := p.Status.Device
			if w.sentBack[dev] {
				w.t.Fatalf("%s is sent back twice", dev)
			}
			w.sentBack[dev] = true
			if to, ok := backs().target(w.r.Spec, p.Status); !ok || !bytes.Equal(to, p.Status.Previous) {
				w.t.Fatalf("%s has no way back from %x to %x", dev, p.Status.Running[:1], p.Status.Previous[:1])
			}
			p.Status.Back.Command = "back"
		}
		return []Tranche{{Command: "back", Release: good32, At: w.now}}
	case CancelBacks:
		for _, p := range w.pieces {
			if b := &p.Status.Back; b.Standing == device.Pending {
				b.Standing = device.Cancelled
			}
		}
	case Cancel:
		for _, p := range w.pieces {
			if s := &p.Status.Install.Standing; p.wave <= w.r.Wave && (*s == device.Pending || *s == device.Delivered) {
				*s = device.Cancelled
			}
		}
	default:
	}
	return nil
}

func (w *world) tell(d Decision) Tranche {
	n := len(w.r.Waves[d.Wave-1].Tranches) + 1
	t := Tranche{Command: fmt.Sprintf("wave-%d-%d", d.Wave, n), At: w.now}
	rule := w.r.Spec.Waves[w.r.Waves[d.Wave-1].Rule]
	queued := w.of(Queued)[:d.N]
	told := queued[0].next()
	if !bytes.Equal(told, bad32) {
		t.Release, t.Version = told, "a stone"
	}
	for _, p := range queued {
		if !bytes.Equal(p.next(), told) {
			continue
		}
		once := p.Status.Device + string(told)
		if w.installed[once] {
			w.t.Fatalf("%s is told twice to install %x", p.Status.Device, told[:1])
		}
		w.installed[once] = true
		p.Status.Tranche, p.Status.Install, p.Status.Previous = n, Order{Command: t.Command}, p.Status.Running
		t.Devices++
	}
	if way := len(w.of(Awaited)) + len(w.of(Proving)); rule.Tranche > 0 && way > rule.Tranche {
		w.t.Fatalf("%d devices are under way at once, %d may be", way, rule.Tranche)
	}
	return t
}

// issue gives the commands that were decided: again, after a crash, which does nothing.
func (w *world) issue() {
	for _, p := range w.pieces {
		s := &p.Status
		if ts := w.r.Waves[w.r.Wave-1].Tranches; w.r.Halted.IsZero() && s.Install.Command != "" && s.Install.Standing == "" && s.Install.Command == ts[len(ts)-1].Command {
			w.commands[s.Install.Command] = append(w.commands[s.Install.Command], s.Device)
			s.Install.Issued, s.Install.Standing, s.Install.At = w.now, device.Pending, w.now
		}
		if s.Back.Command != "" && s.Back.Standing == "" {
			p.backAt = w.now.Add(3 * time.Minute)
			s.Back.Standing, s.Back.At = device.Pending, w.now
		}
	}
}

// check holds a decision against what really is, which the planner is not shown, by rules written without its functions.
func (w *world) check(d Decision) {
	rule := w.r.Spec.Waves[w.r.Waves[w.r.Wave-1].Rule]
	var good, gone, not, of int
	for _, p := range w.pieces {
		if p.wave != w.r.Wave {
			continue
		}
		of++
		switch {
		case p.Status.State == device.Decommissioning, p.Status.Install.Code == wire.CodeDeclined:
			gone++
		case p.good.IsZero(), d.Kind == PassWave && (w.now.Sub(p.good) < rule.Soak.D() || w.now.Sub(p.spoke) > contact):
			not++
		default:
			good++
		}
	}
	switch d.Kind {
	case StartWave, NextTranche:
		if w.r.Phase != Running {
			w.t.Fatalf("devices are told while the rollout is %s", w.r.Phase)
		}
		for i, before := range w.r.Waves[:w.r.Wave-1] {
			if before.Succeeded.IsZero() {
				w.t.Fatalf("wave %d starts before wave %d has passed", w.r.Wave, i+1)
			}
		}
	case PassWave:
		if not > rule.MaxFailures {
			w.t.Fatalf("wave %d passes: of %d devices %d were well and heard of for the soak, %d not, %d retired, tolerated %d", d.Wave, of, good, not, gone, rule.MaxFailures)
		}
		if good == 0 && gone < of {
			w.t.Fatalf("wave %d passes with no device good", d.Wave)
		}
	case Halt:
		failed, at := 0, w.r.Waves[w.r.Wave-1]
		for _, p := range w.pieces {
			unproven := at.Soaked && !p.Status.VerdictAt.After(at.SoakFrom) // silent when it was asked, it may be heard of again
			if p.wave == w.r.Wave && p.Status.State == device.Active && p.Status.Install.Code != wire.CodeDeclined && (p.good.IsZero() || w.now.Sub(p.spoke) > contact || unproven) {
				failed++
			}
		}
		if failed <= rule.MaxFailures && failed+gone < of {
			w.t.Fatalf("wave %d halts with %d of %d not good, tolerated %d: %s", d.Wave, failed, of, rule.MaxFailures, d.Reason)
		}
	case SendBack:
		for _, p := range w.of(Returns) {
			ill := p.Status.Health == Unhealthy || p.Status.Verdict == contraindicated
			if w.r.Phase != Halted || !bytes.Equal(p.Status.Running, bad32) && (!ill || !bytes.Equal(p.Status.Running, stone1)) {
				w.t.Fatalf("%s is sent back while it runs %x and the rollout is %s", p.Status.Device, p.Status.Running[:1], w.r.Phase)
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
		if i > 10000 {
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
		if st := s.Install.standing(w.now); s.State == device.Active && (w.r.Phase == Aborted || w.r.Phase == RolledBack) && (st == device.Pending || st == device.Delivered) {
			w.t.Errorf("%s is %s, and %s may still take the release", w.r.Spec.ID, w.r.Phase, s.Device)
		}
		if s.Back.Standing == device.Pending {
			w.t.Errorf("%s is %s, and %s is still to be sent back", w.r.Spec.ID, w.r.Phase, s.Device)
		}
		if runs && !w.installed[s.Device+string(bad32)] {
			w.t.Errorf("%s runs what nobody told it to", s.Device)
		}
		if w.r.Phase == RolledBack && runs && s.State == device.Active && s.Back.Command == "" {
			w.t.Errorf("%s (%s) still runs the bad release and was not sent back", s.Device, p.fate)
		}
		if ill := s.Health == Unhealthy || s.Verdict == contraindicated; w.r.Phase == RolledBack && ill && bytes.Equal(s.Running, stone1) && s.State == device.Active && s.Back.Command == "" {
			w.t.Errorf("%s (%s) is ill with a stone that it may be sent back from, and was not", s.Device, p.fate)
		}
		if w.r.Phase == RolledBack && p.wave > w.r.Wave && (w.installed[s.Device+string(bad32)] || w.installed[s.Device+string(stone1)]) {
			w.t.Errorf("%s of a later wave was told to install", s.Device)
		}
	}
}

func TestPlanHoldsItsGates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "devices")
		wave := func(name string, size int) Wave {
			return Wave{
				Size: size, Soak: Seconds(rapid.IntRange(0, 4).Draw(t, name+" soak") * 900),
				Deadline:    Seconds(rapid.IntRange(60, 7200).Draw(t, name+" deadline")),
				MaxFailures: rapid.IntRange(0, 3).Draw(t, name+" failures"), Tranche: rapid.IntRange(0, 3).Draw(t, name+" tranche"),
			}
		}
		var waves []Wave
		for i := range rapid.IntRange(0, 3).Draw(t, "waves") {
			waves = append(waves, wave(fmt.Sprint(i), rapid.IntRange(1, 4).Draw(t, "size")))
		}
		waves = append(waves, wave("rest", 0))
		delay := func() time.Duration { return time.Duration(rapid.IntRange(0, 600).Draw(t, "delay")) * time.Second }
		spec := Spec{ID: "r", Release: bad32, Waves: waves, Grace: Seconds(rapid.IntRange(0, 2).Draw(t, "grace") * 1800)}
		w := newWorld(t, spec, func(i int) string {
			return rapid.SampledFrom(fates).Draw(t, fmt.Sprintf("fate %d", i))
		}, n, delay)
		if rapid.Bool().Draw(t, "over stones") {
			w.stones(func() (int, int) {
				return rapid.IntRange(0, 2).Draw(t, "stones"), rapid.IntRange(0, 2).Draw(t, "fate at")
			})
		}
		w.crash = func() bool { return rapid.IntRange(0, 5).Draw(t, "crash") == 0 }
		w.run(5*time.Minute, delay, func() {
			switch hand := rapid.IntRange(0, 100).Draw(t, "hand"); {
			case hand == 100 && w.r.Phase != Aborting:
				w.r.Phase = Aborting
			case hand == 99 && (w.r.Phase == Running || w.r.Phase == Paused):
				w.r.Phase, w.r.Halted = Halted, w.now
			case hand == 98 && w.r.Phase == Running:
				w.r.Phase = Paused
			case hand > 90 && w.r.Phase == Paused:
				w.r.Phase = Running
			}
		})
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
			{Size: 1, Soak: 300, Deadline: 3600}, {Percent: 30, Soak: 3600, Deadline: 5400, MaxFailures: 1}, {Soak: 60, Deadline: 7200, MaxFailures: 2},
		}}, func(int) string {
			if clean {
				return "good"
			}
			return fates[rnd.IntN(len(fates))]
		}, 1+rnd.IntN(30), delay)
		if seed%3 == 0 {
			w.stones(func() (int, int) { return rnd.IntN(3), rnd.IntN(3) })
		}
		w.crash = func() bool {
			down := rnd.IntN(10) == 0
			if down && !clean && w.r.Phase == Running && rnd.IntN(10) == 0 { // somebody turns it before it goes on
				if w.r.Phase = []Phase{Paused, Aborting, Halted}[rnd.IntN(3)]; w.r.Phase == Halted {
					w.r.Halted = w.now
				}
			}
			return down
		}
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
		for _, p := range w.pieces {
			if clean && !bytes.Equal(p.Status.Running, bad32) {
				t.Errorf("seed %d: every device is good, and %s runs %x at the end", seed, p.Status.Device, p.Status.Running[:1])
			}
		}
	}
	if ended[Completed] < 50 || ended[RolledBack] < 50 || ended[Aborted] < 5 {
		t.Errorf("the simulation does not reach every end: %v", ended)
	}
}

func TestJudgeTakesNothingOnTrust(t *testing.T) {
	r := Rollout{Spec: Spec{Release: bad32, Waves: []Wave{{Soak: 600, Deadline: 3600}}}, Wave: 1, Waves: []WaveState{{Devices: 1, Started: epoch, Tranches: []Tranche{{At: epoch}}}}}
	early, late := Moment{Now: epoch.Add(10 * time.Minute), Contact: contact}, Moment{Now: epoch.Add(time.Hour), Contact: contact}
	fine := Status{
		Wave: 1, Tranche: 1, State: device.Active, Install: Order{Command: "c", Standing: device.Done}, Running: bad32, Health: Healthy, Verdict: "affirming",
		VerdictAt: epoch.Add(time.Minute), Proven: bad32,
	}
	for name, c := range map[string]struct {
		change        func(*Status)
		before, after Class
	}{
		"fine":                  {func(*Status) {}, Good, Good},
		"nothing known":         {func(s *Status) { *s = Status{Wave: 1, Tranche: 1} }, Waiting, Failed},
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
		"its time ran out":      {func(s *Status) { s.Install.Standing, s.Install.Expires = device.Delivered, epoch.Add(time.Minute) }, Failed, Failed},
		"refused":               {func(s *Status) { s.Install.Standing = device.Refused }, Failed, Failed},
		"expired":               {func(s *Status) { s.Install.Standing = device.Expired }, Failed, Failed},
		"silent since the wave": {func(s *Status) { s.Seen = epoch.Add(-time.Second) }, Waiting, Failed},
		"silent a while":        {func(s *Status) { s.Seen = s.Seen.Add(-contact - time.Second) }, Waiting, Failed},
		"not told yet":          {func(s *Status) { s.Tranche = 0 }, Waiting, Waiting},
		"another rollout's":     {func(s *Status) { s.Tranche, s.Holder = 0, "r2" }, Waiting, Waiting},
		"retired":               {func(s *Status) { s.State = device.Decommissioned }, Left, Left},
	} {
		for m, want := range map[Moment]Class{early: c.before, late: c.after} {
			s := fine
			s.Seen = m.Now.Add(-time.Minute)
			c.change(&s)
			if got, why := Judge(m, r, s); got != want {
				t.Errorf("%s at %v: %s (%s), want %s", name, m.Now.Sub(epoch), got, why, want)
			}
		}
	}
}

// What a wave passes on was said and proven since its soak began; who cannot do so in time, once asked, has failed.
func TestWhatCountsWhenTheSoakIsOver(t *testing.T) {
	soaked, asked := epoch.Add(10*time.Minute), epoch.Add(20*time.Minute)
	r := Rollout{Spec: Spec{Release: bad32, Waves: []Wave{{Soak: 600, Deadline: 1800}}}, Wave: 1, Waves: []WaveState{{Devices: 1, Started: epoch, Tranches: []Tranche{{At: epoch}}, SoakFrom: soaked, Soaked: true, Asked: asked}}}
	for name, c := range map[string]struct {
		seen, proven time.Duration // from the beginning of the soak
		now          time.Time
		want         Class
	}{
		"both since":                      {9 * time.Minute, 8 * time.Minute, asked, Good},
		"silent since":                    {-time.Minute, -2 * time.Minute, asked, Waiting},
		"not proven since":                {9 * time.Minute, -2 * time.Minute, asked, Waiting},
		"not proven, the soak goes on":    {4 * time.Minute, -2 * time.Minute, soaked.Add(5 * time.Minute), Good},
		"not proven when it had to be":    {24 * time.Minute, -2 * time.Minute, asked.Add(contact), Failed},
		"proven when it had to be":        {24 * time.Minute, 23 * time.Minute, asked.Add(contact), Good},
		"not proven just before it must":  {24 * time.Minute, -2 * time.Minute, asked.Add(contact - time.Second), Waiting},
		"said long ago, beyond deadline":  {time.Minute, time.Minute, asked.Add(contact), Failed},
		"said long ago, nobody listening": {time.Minute, time.Minute, asked.Add(contact + time.Hour), Waiting},
	} {
		s := Status{
			Wave: 1, Tranche: 1, State: device.Active, Install: Order{Command: "c", Standing: device.Done}, Running: bad32, Health: Healthy, Verdict: "affirming",
			Proven: bad32, Seen: soaked.Add(c.seen), VerdictAt: soaked.Add(c.proven),
		}
		m := Moment{Now: c.now, Contact: contact}
		if c.now.Sub(asked) > contact {
			m.Since = c.now.Add(-time.Minute)
		}
		if got, why := Judge(m, r, s); got != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got, why, c.want)
		}
	}
}

func TestOwnSilenceIsNotTheDevices(t *testing.T) {
	var e ears
	e.hear(epoch, contact)
	for at := time.Duration(0); at < 2*time.Hour; at += 10 * time.Minute {
		e.hear(epoch.Add(at), contact)
	}
	if got := e.listening(); !got.Equal(epoch) {
		t.Errorf("listening since %v, want %v", got, epoch)
	}
	back := epoch.Add(4 * time.Hour)
	e.hear(back, contact)
	if got := e.listening(); !got.Equal(back) {
		t.Errorf("after a pause listening since %v, want %v", got, back)
	}
}

func TestWhatAWaveBears(t *testing.T) {
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
		if got := bear(c.w.MaxFailures, c.w.MaxFailuresRate, c.n); got != c.want {
			t.Errorf("%+v of %d: %d, want %d", c.w, c.n, got, c.want)
		}
	}
}
