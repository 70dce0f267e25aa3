package rollout

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout/solve"
	"github.com/hallmark-iot/hallmark/wire"
)

// Resolved is a selection as it is now: in numbers, and for who asks with at most 1000 devices by name for each.
type Resolved struct {
	Reached   int               `json:"reached" doc:"how many devices are members"`
	OfOthers  int               `json:"of_others,omitempty" doc:"members that another rollout has"`
	NoWayBack int               `json:"no_way_back,omitempty" doc:"members that would have no way back after a halt"`
	Unsized   int               `json:"unsized,omitempty" doc:"members that have not said what room their flash has: each decides by itself whether the release fits"`
	Unproven  int               `json:"unproven" doc:"how many devices are told before the plan looks whether any of them is good; 2147483647: however many come, of a dynamic rollout"`
	TakesTwo  bool              `json:"takes_two,omitempty" doc:"those are more than one person may act on alone: another has to agree that it starts. It takes two as well where they are, with those that the caller acted on within the hour"`
	LeftOut   map[string]int    `json:"left_out,omitempty"` // how many for which kind of reason: state, hardware, settings, room, agent, protected, left, runs it, assurance, consent, version, newer, stepping stone, counter, other rollout, other product
	Stones    []Detour          `json:"stepping_stones,omitempty" doc:"members that are taken over other versions first"`
	Waves     []WaveState       `json:"waves"`
	Set       wire.DeviceSet    `json:"set"` // commits to all members
	Members   []Member          `json:"members"`
	Skipped   map[string]string `json:"skipped"` // device → why it is left out
	Held      map[string]string `json:"held,omitempty" doc:"members that another rollout has, and which: the one of higher priority, or that started first, has those that neither told yet"`
	Stranded  []string          `json:"stranded,omitempty"`
}

// shown is what a caller is answered.
func (r Resolved) shown() Resolved {
	r.Members, r.Stranded = r.Members[:min(len(r.Members), maxShown)], r.Stranded[:min(len(r.Stranded), maxShown)]
	r.Skipped, r.Held = few(r.Skipped), few(r.Held)
	return r
}

func few(m map[string]string) map[string]string {
	if len(m) <= maxShown {
		return m
	}
	out := make(map[string]string, maxShown)
	for _, id := range slices.Sorted(maps.Keys(m))[:maxShown] {
		out[id] = m[id]
	}
	return out
}

func bad(code, text, remedy string) error {
	return fault.New(fault.Invalid, "rollout."+code, text, remedy)
}

// checkSpec checks what does not depend on the devices.
func (s *Service) checkSpec(ctx context.Context, spec Spec) (release.Release, error) {
	if spec.ID == "" || len(spec.ID) > 64 || spec.Product == "" || len(spec.Release) != 32 {
		return release.Release{}, bad("spec", "a rollout needs an ID of 1 to 64 characters, a product and a release digest", "give what is missing")
	}
	rel, err := s.cfg.Releases.Find(ctx, [32]byte(spec.Release))
	if err != nil {
		return release.Release{}, err
	}
	switch {
	case rel.Manifest.Product != spec.Product:
		return release.Release{}, bad("product", fmt.Sprintf("release %s is for %s", rel.Manifest.ID, rel.Manifest.Product), "name a release of the product: `hallmark release list`")
	case rel.Status != release.Published:
		return release.Release{}, fault.New(fault.Conflict, "rollout.release",
			fmt.Sprintf("release %s is %s", rel.Manifest.ID, rel.Status), "only a published release is rolled out")
	case rel.Manifest.Model == wire.ModelOTP:
		return release.Release{}, fault.New(fault.Conflict, "rollout.otp",
			fmt.Sprintf("%s is programmed once, in the factory", spec.Product), "its devices take no update; replace them")
	}
	if p := spec.Priority; p < -maxPriority || p > maxPriority || p != 0 && (spec.Selection.Group != "" || len(spec.Selection.IDs) > 0) {
		return release.Release{}, bad("priority", fmt.Sprintf("a priority of %d, of a part of the product perhaps", p),
			fmt.Sprintf("give one of -%d to %[1]d, to a rollout over the whole product, or none", maxPriority))
	}
	if spec.Assurance != "" && !spec.Assurance.Valid() {
		return release.Release{}, bad("assurance", fmt.Sprintf("no assurance is called %.16q", spec.Assurance), fmt.Sprint("use one of ", device.Assurances()))
	}
	if err := s.closed(ctx, rel.Manifest); err != nil {
		return release.Release{}, err
	}
	if err := checkSelection(spec.Selection); err != nil {
		return release.Release{}, err
	}
	if q := spec.Selection.Query; q != nil && q.Assurance != "" && !enough(device.Assurance(q.Assurance), spec.Assurance) {
		return release.Release{}, bad("assurance", fmt.Sprintf("the query is for devices whose word is worth %q, and the rollout takes %q and better", q.Assurance, least(spec.Assurance)),
			"ask for another, or give the rollout's assurance: `--assurance "+q.Assurance+"`")
	}
	if spec.Window != nil {
		if err := spec.Window.Check(); err != nil {
			return release.Release{}, bad("window", err.Error(), "give it as --window 'mon-fri 02:00+4h' and --zone Europe/Berlin")
		}
	}
	if err := spec.Bandwidth.check(); err != nil {
		return release.Release{}, err
	}
	if err := spec.Manner.Check(spec.Grace.D()); err != nil {
		return release.Release{}, bad("manner", err.Error(), "give it as --manner soft --grace 24h, or --manner consent")
	}
	if spec.Alone && (spec.Stones || spec.Window != nil || spec.Manner != wire.Forced || slices.ContainsFunc(spec.Waves, func(w Wave) bool { return w.Soak > 0 })) {
		return release.Release{}, bad("alone", "devices that no line reaches keep no hours that are kept here, ask nobody who is not there, show nothing after a soak, and have one release brought", "give no window, no manner and no stepping stones, and soaks of 0")
	}
	if err := spec.checkJoins(rel.Manifest.Counter); err != nil {
		return release.Release{}, err
	}
	if err := checkWaves(spec.Waves); err != nil {
		return release.Release{}, err
	}
	return rel, s.checkRollback(ctx, spec, rel)
}

func checkSelection(sel Selection) error {
	n := 0
	for _, given := range []bool{len(sel.IDs) > 0, sel.All, sel.State != "", sel.Query != nil} {
		if given {
			n++
		}
	}
	if sel.Group != "" && !access.ValidGroup(sel.Group) {
		return bad("group", fmt.Sprintf("%.140q is no group", sel.Group), "see `hallmark group list`")
	}
	if n != 1 {
		return bad("selection", "a selection is devices by ID, or all active ones, or those in a state, or those of a query", "give exactly one of them")
	}
	if q := sel.Query; q != nil {
		if *q == (device.Filter{}) {
			return bad("query", "a query that asks for nothing selects everything", "say what of the devices is asked for, or select all")
		}
		if err := q.Check(); err != nil {
			return err
		}
	}
	if !sel.Takes() {
		return bad("selection", fmt.Sprintf("devices that are %q take no update", sel.state()), "select onboarded, active, quarantined or maintenance")
	}
	return nil
}

// Takes reports whether devices that are selected can install anything in the state that they are selected by.
func (s Selection) Takes() bool { return len(s.IDs) > 0 || takes(s.state()) }

// takes reports whether a device in s can install.
func takes(s device.State) bool {
	return s == device.Onboarded || s == device.Active || s == device.Quarantined || s == device.Maintenance
}

// maxPriority bounds how far a rollout goes before others.
const maxPriority = 100

// MaxWaves bounds a plan.
const MaxWaves = 32

func checkWaves(waves []Wave) error {
	if len(waves) == 0 || len(waves) > MaxWaves {
		return bad("waves", fmt.Sprintf("%d waves", len(waves)), fmt.Sprintf("give 1 to %d", MaxWaves))
	}
	for i, w := range waves {
		switch {
		case w.Size < 0 || w.Percent < 0 || w.Percent > 100 || w.Size > 0 && w.Percent > 0:
			return bad("waves", fmt.Sprintf("wave %d has size %d and percent %d", i+1, w.Size, w.Percent), "give one of them, or neither for the rest")
		case w.MaxFailures < 0 || w.MaxFailuresRate < 0 || w.MaxFailuresRate >= 100:
			return bad("waves", fmt.Sprintf("wave %d tolerates %d failures or %d %%", i+1, w.MaxFailures, w.MaxFailuresRate), "give a count, or less than 100 %")
		case w.Deadline == 0:
			return bad("waves", fmt.Sprintf("wave %d has no deadline", i+1), "say when a device that was not heard of has failed")
		case w.MaxErrors < 0 || w.MaxErrorsRate < 0 || w.MaxErrorsRate >= 100 || w.MaxNoShows < 0 || w.MaxNoShowsRate < 0 || w.MaxNoShowsRate >= 100:
			return bad("waves", fmt.Sprintf("wave %d tolerates %d errors or %d %%, and %d no-shows or %d %%", i+1, w.MaxErrors, w.MaxErrorsRate, w.MaxNoShows, w.MaxNoShowsRate),
				"give counts, or less than 100 %")
		case w.Tranche < 0 || w.PerHour < 0:
			return bad("waves", fmt.Sprintf("wave %d tells %d devices at once, and %d an hour", i+1, w.Tranche, w.PerHour), "give positive numbers, or none")
		case w.Size == 0 && w.Percent == 0 && i < len(waves)-1:
			return bad("waves", fmt.Sprintf("wave %d takes the rest, and is not the last", i+1), "give it a size or a percentage, or leave out what follows")
		}
	}
	return nil
}

func (s *Service) checkRollback(ctx context.Context, spec Spec, rel release.Release) error {
	if len(spec.Rollback) == 0 {
		return nil
	}
	if len(spec.Rollback) != 32 || !rel.Manifest.MayReturnTo([32]byte(spec.Rollback)) {
		return bad("rollback", fmt.Sprintf("the approvers of release %s did not allow going back to %x", rel.Manifest.ID, spec.Rollback),
			"name one of its rollback_to, or none")
	}
	to, err := s.cfg.Releases.Find(ctx, [32]byte(spec.Rollback))
	if err != nil {
		return err
	}
	if to.Status != release.Published {
		return bad("rollback", fmt.Sprintf("release %s is %s", to.Manifest.ID, to.Status), "name one of its rollback_to that is published, or none")
	}
	return nil
}

// resolve selects the devices and puts them into waves.
func (s *Service) resolve(ctx context.Context, spec Spec, rel release.Release) (Resolved, error) {
	open, err := s.waysBack(ctx, rel.Manifest)
	if err != nil {
		return Resolved{}, err
	}
	out := Resolved{Skipped: map[string]string{}, LeftOut: map[string]int{}, Held: map[string]string{}}
	var fit []Member
	over := map[string]*solve.Path{} // of those that are taken over others
	known := map[string]bool{}       // of a selection by name
	fits := s.fitting(ctx, spec, rel.Manifest)
	kept := map[string][]byte{} // few releases, and many devices
	err = s.cfg.Store.Candidates(ctx, spec.Product, spec.Selection, spec.Selection.state(), nil, func(c Candidate) error {
		if len(spec.Selection.IDs)+len(spec.Canaries) > 0 {
			known[c.ID] = true
		}
		f, err := fits(c)
		if err != nil {
			return err
		}
		kind, why := f.kind, f.why
		if why == "" && c.Busy != "" && len(spec.Selection.IDs) > 0 {
			kind, why = "other rollout", "is in rollout "+c.Busy
		}
		if why != "" {
			out.Skipped[c.ID] = why
			out.LeftOut[kind]++
			return nil
		}
		if c.Room == nil {
			out.Unsized++
		}
		if c.Busy != "" {
			out.Held[c.ID] = c.Busy
		}
		was, ok := kept[string(c.Release)]
		if !ok {
			was, kept[string(c.Release)] = c.Release, c.Release
		}
		m := Member{Device: c.ID, Previous: was}
		if f.path != nil {
			m.Over, over[c.ID] = f.path.Stones(), f.path
		}
		fit = append(fit, m)
		return nil
	})
	if err != nil {
		return Resolved{}, err
	}
	if err := named(spec, known, out.Skipped); err != nil {
		return Resolved{}, err
	}
	if len(fit) == 0 && !spec.Dynamic {
		return Resolved{}, fault.New(fault.Conflict, "rollout.empty", fmt.Sprintf("no device of %s can take release %s", spec.Product, rel.Manifest.ID), "a dry run says why of each: `hallmark rollout dry-run`")
	}
	if out.Members, out.Waves, err = Deal(spec, fit); err != nil {
		return Resolved{}, err
	}
	for _, m := range out.Members {
		if _, ok := target(spec, open, last(m, over)); !ok {
			out.Stranded = append(out.Stranded, m.Device)
		}
	}
	out.Stones = detours(out.Members)
	out.Reached, out.OfOthers, out.NoWayBack = len(out.Members), len(out.Held), len(out.Stranded)
	out.Unproven = unproven(spec, out.Waves)
	out.TakesTwo = out.Unproven > access.BulkDevices
	if len(fit) == 0 {
		return out, nil // who comes is told as by the plan
	}
	ids := make([]string, len(fit))
	for i, m := range fit { // in the order of the walk, which is that of the set
		ids[i] = m.Device
	}
	out.Set, err = wire.SetOf(ids)
	return out, err
}

// last is the release that a device runs before it is told of the rollout's own.
func last(m Member, over map[string]*solve.Path) []byte {
	if len(m.Over) == 0 {
		return m.Previous
	}
	steps := over[m.Device].Steps
	return steps[len(steps)-2].Release.Digest[:]
}

// state is the state of those that are selected; empty: of those by name, whichever they are in.
func (s Selection) state() device.State {
	switch {
	case s.All, s.Query != nil && s.Query.State == "":
		return device.Active
	case s.Query != nil:
		return device.State(s.Query.State)
	}
	return s.State
}

// fitness is whether a device can take a release.
type fitness struct {
	kind string      // of why
	why  string      // it cannot; empty: it can
	path *solve.Path // over which it is taken; nil: it is told at once
}

// fitting gives what says whether a device can take the release.
func (s *Service) fitting(ctx context.Context, spec Spec, m wire.Release) func(Candidate) (fitness, error) {
	confirmed := s.manifests(ctx)
	var over *stones
	return func(c Candidate) (f fitness, err error) {
		if f.kind, f.why = unfit(c, spec, m); f.why != "" {
			return f, nil
		}
		runs, err := confirmed(c.Release)
		if err != nil {
			return f, err
		}
		if f.kind, f.why = "counter", cmp.Or(outrun(c, runs, m), spec.spared(runs)); f.why != "" {
			return f, nil
		}
		if direct(c, m) {
			f.kind = "room"
			f.why, err = roomless(c, m, confirmed)
			return f, err
		}
		if over == nil {
			if over, err = s.stones(ctx, spec.Product, [32]byte(spec.Release)); err != nil {
				return f, err
			}
		}
		f.kind = "stepping stone"
		path, err := over.path(c)
		if err != nil {
			return f, err
		}
		switch stones := path.Stones(); {
		case len(stones) == 0:
			f.why = "runs " + c.Version + ": " + path.Why
		case spec.Stones:
			f.path = &path
		default:
			f.why = fmt.Sprintf("runs %s, and the release is installed over versions %v: it comes there over %s, which a rollout with stepping stones does", c.Version, m.Over, strings.Join(stones, ", "))
		}
		return f, nil
	}
}

// unfit says why a device cannot take the release, and of what kind that is; empty when it can.
func unfit(c Candidate, spec Spec, m wire.Release) (kind, why string) {
	switch {
	case c.Product != spec.Product:
		return "other product", "is of product " + c.Product
	case !takes(c.State):
		return "state", "is " + string(c.State)
	case !m.RunsOn(c.Hardware):
		return "hardware", "is hardware " + c.Hardware
	case bytes.Equal(c.Release, spec.Release) && !c.Trial:
		return "runs it", "runs it"
	case slices.ContainsFunc(c.Left, func(d []byte) bool { return bytes.Equal(d, spec.Release) }):
		return "left", "was sent back from it, and does not run it again: publish another release"
	case c.Assurance == device.Says && !wire.ValidVersion(c.Version): // it would not refuse what is older
		return "version", fmt.Sprintf("says that it runs %q, which is no version", c.Version)
	case !c.Trial && newer(c.Version, m.Version):
		return "newer", "runs " + c.Version + ", which is newer"
	case spec.Manner == wire.Consent && c.Assurance == device.Enforces && !slices.Contains(c.Knows, wire.KnowsManner):
		return "consent", "its agent asks nobody: upgrade it, or roll out without consent"
	case len(c.unknown(m)) > 0:
		return "agent", fmt.Sprintf("the release has %s, and its agent does not know how: upgrade it first", strings.Join(c.unknown(m), ", and "))
	case c.Assurance == device.Says && m.Sealed():
		return "protected", "nothing there opens what is protected"
	case !enough(c.Assurance, spec.Assurance):
		return "assurance", fmt.Sprintf("only %s what it runs, and the rollout is for devices that %s", c.Assurance, least(spec.Assurance))
	}
	if err := m.Parameters.Holds(c.Settings); err != nil {
		return "settings", "has a setting that the release does not take: " + err.Error() + ": configure it first"
	}
	return "", ""
}

// unknown says in words what a release asks for that a device of ours does not know. Clients of other systems start programs by themselves.
func (c Candidate) unknown(m wire.Release) (words []string) {
	if c.Assurance != device.Enforces {
		return nil
	}
	for _, kind := range m.Asks() {
		if !slices.Contains(c.Knows, kind) {
			words = append(words, wire.KnowsText(kind))
		}
	}
	return words
}

// least is what a device's word has to be worth: a rollout that does not say takes none that only says what it runs.
func least(a device.Assurance) device.Assurance {
	if a == "" {
		return device.Enforces
	}
	return a
}

// enough reports whether a device's word is worth what a rollout asks for.
func enough(has, asked device.Assurance) bool {
	order := device.Assurances()
	return slices.Index(order, has) <= slices.Index(order, least(asked)) && has.Valid()
}

// manifests gives releases by their digests, each looked for once; nil: there is none here.
func (s *Service) manifests(ctx context.Context) func(digest []byte) (*wire.Release, error) {
	known := map[string]*wire.Release{}
	return func(digest []byte) (*wire.Release, error) {
		m, ok := known[string(digest)]
		if ok || len(digest) != sha256.Size {
			return m, nil
		}
		r, err := s.cfg.Releases.Find(ctx, [32]byte(digest))
		switch {
		case err == nil:
			m = &r.Manifest
		case fault.KindOf(err) != fault.NotFound:
			return nil, err
		}
		known[string(digest)] = m
		return m, nil
	}
}

// roomless says why the release does not fit into a device's flash; empty when it does, and when nobody here knows: then the device is the judge.
func roomless(c Candidate, next wire.Release, manifest func([]byte) (*wire.Release, error)) (string, error) {
	if c.Room == nil {
		return "", nil
	}
	var runs *wire.Release
	if !c.Trial { // else what it would keep is another
		var err error
		if runs, err = manifest(c.Release); err != nil {
			return "", err
		}
	}
	err := c.Room.Takes(next)
	if runs != nil {
		err = c.Room.TakesOver(next, *runs)
	}
	if err != nil {
		return "has no room: " + err.Error(), nil //nolint:nilerr // the reason is what is asked for
	}
	return "", nil
}

// newer reports whether a device that runs version has would refuse the version wanted. Of one that says none, the device is the judge.
func newer(has, wanted string) bool {
	return has != "" && wire.CompareVersions(has, wanted) > 0
}

// named refuses a selection by ID of which not every device can take the release, and canaries that were not selected.
func named(spec Spec, known map[string]bool, skipped map[string]string) error {
	in := " in " + access.Join(spec.Product, spec.Selection.Group)
	seen := map[string]bool{}
	for _, id := range spec.Selection.IDs {
		why := skipped[id]
		switch {
		case !known[id]:
			why = "is not known" + in
		case seen[id]:
			why = "is named twice"
		}
		if seen[id] = true; why != "" {
			return fault.New(fault.Conflict, "rollout.device", fmt.Sprintf("device %s %s", id, why), "leave it out")
		}
	}
	for _, id := range spec.Canaries {
		if !known[id] || skipped[id] != "" {
			return fault.New(fault.Conflict, "rollout.canary", fmt.Sprintf("canary %s is not selected, or cannot take the release", id), "name another")
		}
	}
	return nil
}
