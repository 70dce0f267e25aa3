package supply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Trouble is a flaw that a release has. Several advisories may speak of it, each under a name of its own.
type Trouble struct {
	ID      string   `json:"id" doc:"its CVE number, or the name of an advisory when it has none"`
	Names   []string `json:"names" nullable:"false" doc:"all names that it goes by"`
	Parts   []string `json:"parts" nullable:"false" doc:"package URLs of what has it"`
	Summary string   `json:"summary,omitempty"`
	Score   float64  `json:"score,omitempty" doc:"highest CVSS score that an advisory gives it; absent: none gives one"`
	Fixed   []string `json:"fixed,omitempty" doc:"versions in which it is mended"`
	Excused bool     `json:"excused,omitempty" doc:"a signed document says that it is none in this product"`
}

// Assessment is what was known against a release when it was looked at last.
type Assessment struct {
	At         time.Time `json:"at"`
	Components int       `json:"components"`
	Affected   int       `json:"affected" doc:"components that an advisory is about"`
	Unknown    int       `json:"unknown" doc:"components of which nothing is known"`
	Troubles   []Trouble `json:"troubles" nullable:"false"`
}

// Held is a release with a bill of materials.
type Held struct {
	Release  [32]byte
	Document [32]byte
	Product  string
	Version  string
	Counts   bool   // it may be rolled out, or a device runs it
	Stamp    string // of what it was looked at with last; "" never
}

// Reassessed is the data of the fact supply.reassessed: what was known against a release has changed. At most maxNamed of each list are named.
type Reassessed struct {
	Release  string   `json:"release"` // digest, hex
	Product  string   `json:"product"`
	Affected int      `json:"affected"` // components
	Unknown  int      `json:"unknown"`
	Troubles int      `json:"troubles"`
	Appeared []string `json:"appeared,omitempty"`
	Gone     []string `json:"gone,omitempty"`
	Cause    string   `json:"cause"`
}

const maxNamed = 100

// Alarms tells those who watch; both may be told the same again.
type Alarms interface {
	// Flawed says that a release has a flaw.
	Flawed(ctx context.Context, h Held, t Trouble) error
	// Mended says that it has it no more, or that nobody runs it, with the reason.
	Mended(ctx context.Context, h Held, trouble, reason string) error
}

// Reassess looks again at each release whose advisories are others since it was looked at last: those that may be rolled out, and those that a device runs. It is for a loop.
func (s *Service) Reassess(ctx context.Context) error {
	dbs, err := s.databases(ctx)
	if err != nil {
		return err
	}
	all, err := s.cfg.Store.Held(ctx)
	if err != nil {
		return err
	}
	now := dbs.stamp()
	excused := map[string]excuses{}
	var failed error
	for _, h := range all {
		x, ok := excused[h.Product]
		if !ok {
			p, err := s.cfg.Store.Policy(ctx, h.Product)
			if err != nil {
				return err
			}
			if x, err = s.excuses(ctx, h.Product, p); err != nil {
				return err
			}
			excused[h.Product] = x
		}
		stamp := now + x.stamp()
		if !h.Counts {
			stamp = "ended"
		}
		if h.Stamp == stamp || h.Stamp == "" && !h.Counts {
			continue
		}
		if err := s.reassess(ctx, h, x, stamp); err != nil {
			failed = errors.Join(failed, fmt.Errorf("release %s of %s: %w", h.Version, h.Product, err))
		}
	}
	return failed
}

// stamp is another one as soon as an answer may be another one.
func (dbs databases) stamp() string {
	var all []string
	for _, d := range dbs {
		all = append(all, fmt.Sprint(d.Ecosystem, "\x1f", d.Generation, "\x1f", d.Old))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "\n")))
	return hex.EncodeToString(sum[:16])
}

// reassess tells the alarms first: who is told twice keeps one alarm, and what was noted and not told would never be.
func (s *Service) reassess(ctx context.Context, h Held, x excuses, stamp string) error {
	had, err := s.cfg.Store.Assessment(ctx, h.Release)
	if err != nil {
		return err
	}
	is, cause := Assessment{}, "it may not be rolled out any more, and no device runs it"
	if h.Counts {
		cause = "the advisories are others"
		if is, err = s.assess(ctx, h.Document); err != nil {
			return err
		}
		for i, t := range is.Troubles {
			_, _, is.Troubles[i].Excused = x.of(t, h.Product, h.Version)
		}
	}
	is.At = s.cfg.Now().UTC().Truncate(time.Millisecond)
	d := Reassessed{Release: hex.EncodeToString(h.Release[:]), Product: h.Product, Affected: is.Affected, Unknown: is.Unknown, Troubles: len(is.Troubles), Cause: cause}
	for _, t := range had.Troubles {
		if t.Excused || slices.ContainsFunc(is.Troubles, t.same) {
			continue
		}
		why := cause
		if n := slices.IndexFunc(is.Troubles, func(o Trouble) bool { return o.ID == t.ID }); n >= 0 && is.Troubles[n].Excused {
			why = "a signed document says that it is none here"
		} else if n >= 0 {
			why = fmt.Sprintf("its score was %.1f, and is %.1f", t.Score, is.Troubles[n].Score)
		}
		if err := s.cfg.Alarms.Mended(ctx, h, t.ID, why); err != nil {
			return err
		}
		d.Gone = append(d.Gone, t.ID)
	}
	for _, t := range is.Troubles {
		if t.Excused || slices.ContainsFunc(had.Troubles, t.same) {
			continue
		}
		if err := s.cfg.Alarms.Flawed(ctx, h, t); err != nil {
			return err
		}
		d.Appeared = append(d.Appeared, t.ID)
	}
	var facts []ledger.Fact
	if len(d.Appeared)+len(d.Gone) > 0 || is.Affected != had.Affected || is.Unknown != had.Unknown {
		d.Appeared, d.Gone = d.Appeared[:min(len(d.Appeared), maxNamed)], d.Gone[:min(len(d.Gone), maxNamed)]
		data, err := json.Marshal(d)
		if err != nil {
			return err
		}
		facts = append(facts, ledger.New(ledger.KindSupplyReassessed, is.At, access.Internal("advisories").ID, d.Release, nil, data))
	}
	return s.cfg.Store.PutAssessment(ctx, h.Release, stamp, is, facts...)
}

// same says that nobody has to be told anew.
func (t Trouble) same(o Trouble) bool {
	return t.ID == o.ID && t.Score == o.Score && t.Excused == o.Excused
}

// assessPage is how many components are looked at together.
const assessPage = 1000

// assess weighs all components of a document.
func (s *Service) assess(ctx context.Context, document [32]byte) (Assessment, error) {
	var out Assessment
	var found collector
	for after := 0; ; {
		parts, err := s.cfg.Store.Parts(ctx, document, after, assessPage)
		if err != nil {
			return out, err
		}
		if err := s.judge(ctx, parts); err != nil {
			return out, err
		}
		for _, p := range parts {
			out.Components++
			if p.Answer == Affected {
				out.Affected++
			}
			found.take(p)
		}
		if len(parts) < assessPage {
			out.Troubles, out.Unknown = found.troubles(), found.unknown
			return out, nil
		}
		after = parts[len(parts)-1].N
	}
}

// collector puts together what different advisories say of one flaw: each names the others, or they have a name in common.
type collector struct {
	all     []Trouble
	unknown int // parts of which something could not be found out, also beside a flaw that they have for sure
}

func (c *collector) take(p Part) {
	unsure := p.Answer == Unknown
	for _, f := range p.Flaws {
		if !f.Sure {
			unsure = true
			continue
		}
		t := Trouble{Parts: []string{p.PURL}, Summary: f.Summary, Score: f.Rated, Fixed: f.Fixed}
		if len(f.CVEs) < 2 {
			t.Names = slices.Concat([]string{f.ID}, f.Aliases, f.CVEs)
			c.add(t)
			continue
		}
		for _, cve := range f.CVEs { // what is said of one of them is not said of the others
			t.Names = []string{cve}
			c.add(t)
		}
	}
	if unsure {
		c.unknown++
	}
}

func (c *collector) add(t Trouble) {
	t.Parts, t.Fixed = slices.Clone(t.Parts), slices.Clone(t.Fixed)
	rest := c.all[:0]
	for _, o := range c.all {
		if !slices.ContainsFunc(o.Names, func(n string) bool { return slices.Contains(t.Names, n) }) {
			rest = append(rest, o)
			continue
		}
		t.Names, t.Parts, t.Fixed = append(o.Names, t.Names...), append(o.Parts, t.Parts...), append(o.Fixed, t.Fixed...)
		t.Score, t.Summary = max(o.Score, t.Score), cmp.Or(o.Summary, t.Summary)
	}
	for _, list := range []*[]string{&t.Names, &t.Parts, &t.Fixed} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	c.all = append(rest, t)
}

// troubles are those found, the worst first; what has no score may be the worst.
func (c *collector) troubles() []Trouble {
	for i := range c.all {
		t := &c.all[i]
		t.ID = t.Names[0]
		if n := slices.IndexFunc(t.Names, func(n string) bool { return strings.HasPrefix(n, "CVE-") }); n >= 0 {
			t.ID = t.Names[n]
		}
	}
	slices.SortFunc(c.all, func(a, b Trouble) int { return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(a.ID, b.ID)) })
	return c.all
}

func (t Trouble) weight() float64 {
	if t.Score == 0 {
		return 10
	}
	return t.Score
}

// Assessed gives what was known against a release when it was looked at last; with a zero time when it never was.
func (s *Service) Assessed(ctx context.Context, caller access.Caller, release [32]byte) (Assessment, error) {
	if err := s.readable(ctx, caller, release); err != nil {
		return Assessment{}, err
	}
	return s.cfg.Store.Assessment(ctx, release)
}
