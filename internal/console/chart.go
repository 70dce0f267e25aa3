package console

import (
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// count is a column of a chart, and a line of the table beside it.
type count struct {
	Name, Short string
	N           int
	Tone, Link  string
}

func total(values []count) (n int) {
	for _, c := range values {
		n += c.N
	}
	return n
}

func most(values []count) (n int) {
	for _, c := range values {
		n = max(n, c.N)
	}
	return n
}

// share is n of all in percent, and never nothing for something.
func share(n, of int) string {
	if n <= 0 || of <= 0 {
		return "0"
	}
	return strconv.FormatFloat(max(1, min(100, 100*float64(n)/float64(of))), 'f', 1, 64)
}

// The chart's box: as wide for few columns as for many, 84 high, with room for a label above and a name below.
const (
	chartTop   = 14
	chartLevel = 98
	chartLeft  = 8
	chartWidth = 390
)

func columnPitch(values []count) float64 {
	return float64(chartWidth-2*chartLeft) / float64(max(len(values), 1))
}

func chartBox() string { return fmt.Sprintf("0 0 %d 120", chartWidth) }

func chartAxis() string { return fmt.Sprintf("M0 %d.5H%d", chartLevel, chartWidth) }

func columnHeight(values []count, n int) string {
	if n == 0 || most(values) == 0 {
		return "0"
	}
	return strconv.FormatFloat(max(2, float64(n)*(chartLevel-chartTop)/float64(most(values))), 'f', 1, 64)
}

func columnTop(values []count, n int) float64 {
	if n == 0 || most(values) == 0 {
		return chartLevel
	}
	return chartLevel - max(2, float64(n)*(chartLevel-chartTop)/float64(most(values)))
}

func columnY(values []count, n int) string {
	return strconv.FormatFloat(columnTop(values, n), 'f', 1, 64)
}

func columnLabel(values []count, n int) string {
	return strconv.FormatFloat(columnTop(values, n)-3, 'f', 1, 64)
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

func columnMiddle(values []count, i int) string {
	return decimal(chartLeft + (float64(i)+.5)*columnPitch(values))
}

func columnX(values []count, i int) string {
	return decimal(chartLeft + (float64(i)+.5)*columnPitch(values) - columnHalf(values))
}

// columnHalf is half of a column's width.
func columnHalf(values []count) float64 { return min(20, columnPitch(values)*.37) }

func columnWidth(values []count) string { return decimal(2 * columnHalf(values)) }

// ages are how long ago devices were heard of.
func ages(s fleet.Summary) []count {
	var out []count
	for _, a := range s.Seen {
		c := count{N: a.Devices}
		switch a.Under {
		case 5 * time.Minute:
			c.Name, c.Short, c.Tone = "within 5 minutes", "5 min", "good"
		case time.Hour:
			c.Name, c.Short, c.Tone = "within an hour", "1 h", "good"
		case 24 * time.Hour:
			c.Name, c.Short, c.Tone = "within a day", "1 day", "warn"
		case 7 * 24 * time.Hour:
			c.Name, c.Short, c.Tone = "within a week", "1 week", "warn"
		default:
			c.Name, c.Short, c.Tone = "longer ago, or never", "longer", "bad"
		}
		out = append(out, c)
	}
	return out
}

// versions are what runs, the most frequent first; a long tail is put together.
func versions(s fleet.Summary) []count {
	var out []count
	for _, v := range slices.Sorted(maps.Keys(s.Versions)) {
		c := count{Name: v, N: s.Versions[v], Link: devicesURL(fleet.Query{Filter: device.Filter{Version: v}}, "")}
		if v == "" {
			c.Name, c.Link, c.Tone = "not said yet", "", ""
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b count) int { return b.N - a.N })
	const shown = 12
	if len(out) > shown {
		rest := count{Name: plural(len(out)-shown, "other version")}
		for _, c := range out[shown:] {
			rest.N += c.N
		}
		out = append(out[:shown], rest)
	}
	return out
}

func runsOf(p releasePageData) []count {
	var out []count
	for _, s := range slices.Sorted(maps.Keys(p.Runs)) {
		out = append(out, count{
			Name: s, N: p.Runs[s], Tone: stateTone(s),
			Link: devicesURL(fleet.Query{Product: p.Release.Manifest.Product, Filter: device.Filter{State: s, Release: hexOf(p.Release.Digest[:])}}, ""),
		})
	}
	return out
}

func tickets(r factory.Reconciliation) []count {
	return []count{
		{Name: "devices", N: int(r.Made), Tone: "good"},
		{Name: "scrapped", N: int(r.Scrapped)},
		{Name: "interrupted", N: int(r.Interrupted), Tone: "warn"},
		{Name: "unused", N: int(r.Unused)},
	}
}

func recordCounts(r factory.Reconciliation) []count {
	attention := func(n uint32, tone, text string) (string, string) {
		if n == 0 {
			return "", ""
		}
		return tone, text
	}
	out := []count{{Name: "pieces ordered", N: int(r.Ordered)}, {Name: "records here", N: int(r.Records)}}
	for _, c := range []struct {
		name       string
		n          uint32
		tone, text string
	}{
		{"records the station has not sent", r.Missing, "warn", "ask the station for its export"},
		{"made anew after a failure", r.Reworked, "", ""},
		{"records refused", r.Refused, "bad", "not devices"},
		{"alarms", r.Alarms, "bad", "see the findings"},
	} {
		tone, text := attention(c.n, c.tone, c.text)
		out = append(out, count{Name: c.name, N: int(c.n), Tone: tone, Short: text})
	}
	return append(out, count{Name: "devices that have been in contact", N: int(r.FirstSeen)})
}

func expiryDays(e fleet.Expiry) []count {
	var out []count
	for i, d := range e.Days {
		c := count{Name: d.Day.Format("Monday, 2 January"), N: d.Count}
		if i%7 == 0 {
			c.Short = d.Day.Format("2 Jan")
		}
		if i < 2 {
			c.Tone = "warn"
		}
		out = append(out, c)
	}
	return out
}

// expiryTable is the days on which something ends.
func expiryTable(e fleet.Expiry) []count {
	out := []count{{Name: "already ended", N: e.Overdue, Tone: badIf(e.Overdue)}}
	for _, c := range expiryDays(e) {
		if c.N > 0 {
			out = append(out, c)
		}
	}
	return append(out, count{Name: "later", N: e.Later})
}

func waveText(r rollout.Rollout) string {
	if r.Wave == 0 {
		return "Not started"
	}
	s := fmt.Sprintf("Wave %d of %d", r.Wave, len(r.Waves))
	if r.Last.Devices > 0 {
		s += fmt.Sprintf(": %s of %s good", number(r.Last.Good), number(r.Last.Devices))
	}
	if r.Last.Failed > 0 {
		s += fmt.Sprintf(", %s failed", number(r.Last.Failed))
	}
	return s
}

func planText(r rollout.Rollout) string {
	var parts []string
	for _, w := range r.Spec.Waves {
		switch {
		case w.Percent > 0:
			parts = append(parts, fmt.Sprintf("%d %%", w.Percent))
		case w.Size > 0:
			parts = append(parts, plural(w.Size, "device"))
		default:
			parts = append(parts, "the rest")
		}
	}
	text := strings.Join(parts, ", then ")
	if r.Spec.Below > 0 {
		text += fmt.Sprintf(", of those below security counter %d", r.Spec.Below)
	}
	if r.Spec.Dynamic {
		text += "; and who comes to fit later"
	}
	return text
}

func ruleOf(r rollout.Rollout, w rollout.WaveState) rollout.Wave {
	if w.Rule >= 0 && w.Rule < len(r.Spec.Waves) {
		return r.Spec.Waves[w.Rule]
	}
	return rollout.Wave{}
}

func mayFail(w rollout.Wave) string {
	var all []string
	for _, l := range []struct {
		n, percent int
		what       string
	}{{w.MaxFailures, w.MaxFailuresRate, ""}, {w.MaxErrors, w.MaxErrorsRate, " errors"}, {w.MaxNoShows, w.MaxNoShowsRate, " no-shows"}} {
		switch {
		case l.percent > 0 && l.n > 0:
			all = append(all, fmt.Sprintf("%d, or %d %%%s", l.n, l.percent, l.what))
		case l.percent > 0:
			all = append(all, fmt.Sprintf("%d %%%s", l.percent, l.what))
		case l.n > 0:
			all = append(all, strconv.Itoa(l.n)+l.what)
		}
	}
	if len(all) == 0 {
		return "0"
	}
	return strings.Join(all, "; ")
}

// pace says how fast a wave is told.
func pace(w rollout.Wave) string {
	var all []string
	if w.Tranche > 0 {
		all = append(all, strconv.Itoa(w.Tranche)+" at once")
	}
	if w.PerHour > 0 {
		all = append(all, strconv.Itoa(w.PerHour)+" an hour")
	}
	if len(all) == 0 {
		return "all at once"
	}
	return strings.Join(all, ", ")
}

// waveName names a wave in a table.
func waveName(i int, w rollout.WaveState) string {
	if w.Open {
		return "joined since"
	}
	return strconv.Itoa(i + 1)
}

// waveTitle names the wave under way.
func waveTitle(r rollout.Rollout) string {
	if r.Waves[r.Wave-1].Open {
		return "Who joined since"
	}
	return "Wave " + strconv.Itoa(r.Wave)
}

func waveStanding(r rollout.Rollout, i int) string {
	w := r.Waves[i]
	switch {
	case !w.Succeeded.IsZero():
		return "passed"
	case i+1 > r.Wave:
		return "to come"
	case w.Open && len(w.Tranches) == 0:
		return "nobody yet"
	case r.Phase == rollout.Halted || r.Phase == rollout.RolledBack:
		return "halted"
	case r.Phase == rollout.Aborted || r.Phase == rollout.Aborting:
		return "aborted"
	case !w.SoakFrom.IsZero():
		return "soaking"
	}
	return "under way"
}

func waveTone(r rollout.Rollout, i int) string {
	switch waveStanding(r, i) {
	case "passed":
		return "good"
	case "halted":
		return "bad"
	case "aborted":
		return "warn"
	case "soaking", "under way":
		return "busy"
	}
	return ""
}

// segment is a piece of the waves' bar.
type segment struct{ X, Width, Tone string }

// waveSegments gives each wave its share of 400; the current one is split by how its devices stand.
func waveSegments(r rollout.Rollout) []segment {
	all := 0
	for _, w := range r.Waves {
		all += w.Devices
	}
	if all == 0 {
		return nil
	}
	var out []segment
	x := 0.0
	put := func(n int, tone string) {
		if n > 0 {
			width := 400 * float64(n) / float64(all)
			out = append(out, segment{
				X: strconv.FormatFloat(x, 'f', 1, 64), Width: strconv.FormatFloat(max(width-1.5, 1), 'f', 1, 64), Tone: tone,
			})
			x += width
		}
	}
	for i, w := range r.Waves {
		if i+1 != r.Wave || !w.Succeeded.IsZero() || r.Last.Devices != w.Devices {
			put(w.Devices, waveTone(r, i))
			continue
		}
		put(r.Last.Good, "good")
		put(r.Last.Failed, "bad")
		put(w.Devices-r.Last.Good-r.Last.Failed, waveTone(r, i))
	}
	return out
}

func countsOf(c rollout.Counts) []count {
	out := []count{{Name: "devices", N: c.Devices}, {Name: "good", N: c.Good, Tone: goodIf(c.Good)}, {Name: "waited for", N: c.Waiting}, {Name: "failed", N: c.Failed, Tone: badIf(c.Failed)}}
	for _, o := range []count{
		{Name: "not told yet", N: c.Untold},
		{Name: "of them no-shows", N: c.NoShows, Tone: "bad"},
		{Name: "held by other rollouts", N: c.Held, Tone: "warn"},
		{Name: "good by their own word", N: c.ByWord, Tone: "warn"},
		{Name: "declined", N: c.Declined},
		{Name: "left", N: c.Left},
		{Name: "rolled back", N: c.Returned},
		{Name: "stranded", N: c.Stranded, Tone: "bad"},
		{Name: "unknown", N: c.Unknown, Tone: "warn"},
	} {
		if o.N > 0 {
			out = append(out, o)
		}
	}
	return out
}

func goodIf(n int) string {
	if n > 0 {
		return "good"
	}
	return ""
}

func orderText(o rollout.Order) string {
	if o.Command == "" {
		return "not told"
	}
	s := string(o.Standing)
	if o.Attempts > 1 {
		s += fmt.Sprintf(", told %d times", o.Attempts)
	}
	return s
}

// step is a station on a release's way.
type step struct {
	Name, Text, Tone string
	At               time.Time
}

// gate is a release's way to devices: what is done, and what is missing.
func gate(p releasePageData) []step {
	r := p.Release
	out := []step{{Name: "Proposed", Text: "by " + r.Creator, Tone: "good", At: r.Created}}
	approved := step{Name: "Approved", Tone: "good"}
	switch n := missing(r, p.Bundle); {
	case r.Status == release.Published || r.Status == release.Withdrawn && !r.Published.IsZero():
		approved.Text = plural(len(r.Approvals), "approval") + ", as many as its trust bundle asked for"
	case n < 0:
		approved.Text, approved.Tone = plural(len(r.Approvals), "approval")+"; how many are needed is not known: the product has no trust bundle", "warn"
	case n > 0:
		approved.Text = fmt.Sprintf("%d of %d approvals: %d missing, each from another person with another of the %d release keys",
			len(r.Approvals), p.Bundle.Release.Threshold, n, len(p.Bundle.Release.Keys))
		approved.Tone = "busy"
	default:
		approved.Text = plural(len(r.Approvals), "approval") + ": enough"
	}
	published := step{Name: "Published", At: r.Published}
	switch {
	case !r.Published.IsZero():
		published.Text, published.Tone = "in the control log: devices can check it", "good"
	case r.Status == release.Withdrawn, r.Status == release.Refused:
		published.Text = "never"
	default:
		published.Text = "not yet: no device takes it"
	}
	rolled := step{Name: "Rolled out", Text: "no rollout of it yet"}
	for _, o := range p.Rollouts {
		rolled.Text, rolled.Tone = plural(len(p.Rollouts), "rollout")+", the latest "+string(o.Phase), phaseTone(o.Phase)
		break
	}
	out = append(out, approved, published, rolled)
	switch r.Status { //nolint:exhaustive // the others go on
	case release.Withdrawn:
		name := "Withdrawn"
		if !r.Closed.IsZero() {
			name = "Closed"
		}
		out = append(out, step{Name: name, Text: r.Reason, Tone: "bad", At: r.Closed})
	case release.Refused:
		out = append(out, step{Name: "Refused", Text: r.Reason, Tone: "bad"})
	}
	return out
}

func readersOf(s fleet.Stream, grants []telemetry.Grant, now time.Time) string {
	var out []string
	for _, g := range grants {
		if g.Stream == s.Name && g.Until.After(now) && !slices.Contains(out, g.Reader) {
			out = append(out, g.Reader)
		}
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, ", ")
}

// loop is one of the instance's loops.
type loop struct {
	Name       string
	At         time.Time
	Text, Tone string
}

// Beat is when one of the instance's loops last went well, and when it is to run again.
type Beat struct{ At, Due time.Time }

// stalled is how long after its time a loop may still have to go well.
const stalled = time.Minute

// Well reports whether the loop goes on: one that runs each hour is not stalled by a minute of silence.
func (b Beat) Well(now time.Time) bool { return now.Before(b.Due.Add(stalled)) }

func loops(last map[string]Beat, now time.Time) []loop {
	var out []loop
	for _, name := range slices.Sorted(maps.Keys(last)) {
		l := loop{Name: name, At: last[name].At, Text: "goes well", Tone: "good"}
		if !last[name].Well(now) {
			l.Text, l.Tone = "has not gone well for "+now.Sub(l.At).Truncate(time.Second).String(), "bad"
		}
		out = append(out, l)
	}
	return out
}

func loopsTone(ls []loop) string {
	for _, l := range ls {
		if l.Tone == "bad" {
			return "bad"
		}
	}
	if len(ls) == 0 {
		return "warn"
	}
	return "good"
}

func loopsWords(ls []loop) string {
	switch loopsTone(ls) {
	case "good":
		return "Hallmark is well: every loop went well when it was last its time."
	case "bad":
		return "A loop has not gone well for more than a minute beyond its time. The server's log says why."
	}
	return "No loop has run yet."
}

func followers(b fleet.Backlog) []count {
	var out []count
	for _, name := range slices.Sorted(maps.Keys(b.Followers)) {
		behind := 0
		if size := b.Sequenced["events"]; size > b.Followers[name] {
			behind = int(size - b.Followers[name])
		}
		out = append(out, count{Name: name, N: behind})
	}
	return out
}

func versionsOfProgram() []setting {
	out := []setting{{Name: "Go", Reported: runtime.Version()}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	out = append([]setting{{Name: "Hallmark", Reported: info.Main.Version}}, out...)
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" || s.Key == "vcs.time" || s.Key == "vcs.modified" {
			out = append(out, setting{Name: s.Key, Reported: s.Value})
		}
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "modernc.org/sqlite", "github.com/cedar-policy/cedar-go", "github.com/veraison/go-cose":
			out = append(out, setting{Name: d.Path, Reported: d.Version})
		}
	}
	return out
}
