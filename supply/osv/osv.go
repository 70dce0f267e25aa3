// Package osv reads advisories in the OSV schema (ossf.github.io/osv-schema, 1.0 to 1.7) and says whether one is about a package of a given version.
//
// Stage 0, before build. What it guarantees: an answer is Affected, Clear or Unknown, and Clear is given only when the versions could be compared in the way of their
// ecosystem; what cannot be compared is Unknown. Versions are compared by the library that OSV's own scanner uses.
package osv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/osv-scalibr/semantic"
	"golang.org/x/mod/semver"
)

// MaxSize bounds one advisory, bytes.
const MaxSize = 8 << 20

// Bounds of names and versions, bytes: comparing versions takes time that rises with the square of their length.
const (
	maxName    = 1024
	maxVersion = 256
)

// ErrFormat is an advisory that cannot be read.
var ErrFormat = errors.New("no advisory in the OSV schema")

// Advisory is what is known of one flaw.
type Advisory struct {
	ID        string      `json:"id"`
	Aliases   []string    `json:"aliases,omitempty" doc:"the same flaw under other names: CVE numbers, mostly"`
	Upstream  []string    `json:"upstream,omitempty"`
	Summary   string      `json:"summary,omitempty"`
	Modified  time.Time   `json:"modified"`
	Published time.Time   `json:"published,omitzero"`
	Withdrawn time.Time   `json:"withdrawn,omitzero"`
	Severity  []Severity  `json:"severity,omitempty"`
	Affected  []Affected  `json:"affected,omitempty"`
	Refs      []Reference `json:"references,omitempty"`
}

// Severity is a score in the notation of its type.
type Severity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

// Reference is a page about it.
type Reference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// Affected names the versions of one package.
type Affected struct {
	Package  Package  `json:"package"`
	Ranges   []Range  `json:"ranges,omitempty"`
	Versions []string `json:"versions,omitempty"`
}

// Range is versions from event to event.
type Range struct {
	Type   string  `json:"type"` // SEMVER, ECOSYSTEM, GIT
	Events []Event `json:"events"`
}

// Event begins or ends affected versions; one of its fields is set.
type Event struct {
	Introduced   string `json:"introduced,omitempty"`    // "0": all from the first on
	Fixed        string `json:"fixed,omitempty"`         // no more from this one on
	LastAffected string `json:"last_affected,omitempty"` // no more behind this one
	Limit        string `json:"limit,omitempty"`
}

// Answer is whether a version is affected.
type Answer int

// The answers. What could not be found out is not clear.
const (
	Unknown Answer = iota
	Clear
	Hit
)

// Read reads one advisory.
func Read(data []byte) (a Advisory, err error) {
	if len(data) > MaxSize {
		return a, fmt.Errorf("%w: %d bytes, at most %d are read", ErrFormat, len(data), MaxSize)
	}
	if !utf8.Valid(data) {
		return a, fmt.Errorf("%w: not UTF-8", ErrFormat)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return Advisory{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := a.check(); err != nil {
		return Advisory{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return a, nil
}

func (a Advisory) check() error {
	if a.ID == "" || len(a.ID) > 128 || strings.ContainsFunc(a.ID, func(r rune) bool { return r <= ' ' || r == '/' }) {
		return fmt.Errorf("its ID is %.140q", a.ID)
	}
	if a.Modified.IsZero() {
		return fmt.Errorf("%s does not say when it was modified", a.ID)
	}
	for _, f := range a.Affected {
		if len(f.Package.Name) > maxName || len(f.Package.Ecosystem) > maxName {
			return fmt.Errorf("%s is about a package whose name is longer than %d bytes", a.ID, maxName)
		}
		for _, r := range f.Ranges {
			for _, e := range r.Events {
				if len(e.version()) > maxVersion {
					return fmt.Errorf("%s has a version that is longer than %d bytes", a.ID, maxVersion)
				}
				n := 0
				for _, s := range []string{e.Introduced, e.Fixed, e.LastAffected, e.Limit} {
					if s != "" {
						n++
					}
				}
				if n != 1 {
					return fmt.Errorf("%s has an event for %s that is %d things", a.ID, f.Package.Name, n)
				}
			}
		}
	}
	return nil
}

// Packages are those that the advisory is about, once each.
func (a Advisory) Packages() []Package {
	var out []Package
	for _, f := range a.Affected {
		if f.Package.Name != "" && !slices.Contains(out, f.Package) {
			out = append(out, f.Package)
		}
	}
	return out
}

// CVEs are the flaw's CVE numbers.
func (a Advisory) CVEs() []string {
	var out []string
	for _, id := range append([]string{a.ID}, append(slices.Clone(a.Aliases), a.Upstream...)...) {
		if strings.HasPrefix(id, "CVE-") && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// Names reports whether the flaw goes by the name.
func (a Advisory) Names(id string) bool {
	return a.ID == id || slices.Contains(a.Aliases, id)
}

// About says whether version of p is affected.
func (a Advisory) About(p Package, version string) Answer {
	if !a.Withdrawn.IsZero() {
		return Clear
	}
	out := Clear
	for _, f := range a.Affected {
		if !p.Is(f.Package) {
			continue
		}
		switch f.about(p, version) {
		case Hit:
			return Hit
		case Unknown:
			out = Unknown
		case Clear:
		}
	}
	return out
}

func (f Affected) about(p Package, version string) Answer {
	if version == "" || len(version) > maxVersion {
		return Unknown
	}
	if slices.Contains(f.Versions, version) || p.Ecosystem == "Go" && slices.Contains(f.Versions, strings.TrimPrefix(version, "v")) {
		return Hit
	}
	ordered := false
	for _, r := range f.Ranges {
		if r.Type == "GIT" {
			continue // commits are not versions
		}
		ordered = true
		switch r.about(p, version) {
		case Hit:
			return Hit
		case Unknown:
			return Unknown
		case Clear:
		}
	}
	if !ordered && len(f.Versions) == 0 {
		return Unknown // commits alone, or nothing at all: whether this version is one of them is not said
	}
	return Clear
}

// about goes through the events in the order of their versions, as the schema has it (§ Evaluation).
func (r Range) about(p Package, version string) Answer {
	kind := p.Ecosystem
	if r.Type == "SEMVER" {
		kind = "npm" // the same rules under a name that the library knows
	}
	v, err := parse(version, kind, r.Type == "SEMVER")
	if err != nil {
		return Unknown
	}
	for _, e := range r.Events {
		if _, err := parse(e.version(), kind, r.Type == "SEMVER"); err != nil && e.version() != "*" {
			return Unknown
		}
	}
	// at says how the version lies to one of an event's.
	at := func(s string) (int, error) {
		if s == "0" {
			return 1, nil
		}
		return v.CompareStr(strings.TrimPrefix(s, "v"))
	}
	sorted, err := inOrder(r.Events, kind)
	if err != nil {
		return Unknown
	}
	hit := false
	for _, e := range sorted {
		c, err := at(e.version())
		if err != nil {
			return Unknown
		}
		switch {
		case e.Introduced != "" && c >= 0:
			hit = true
		case e.Fixed != "" && c >= 0, e.LastAffected != "" && c > 0:
			hit = false
		}
	}
	for _, e := range r.Events { // a limit ends what is said at all
		if e.Limit == "" || e.Limit == "*" {
			continue
		}
		if c, err := at(e.Limit); err != nil {
			return Unknown
		} else if c >= 0 {
			hit = false
		}
	}
	if hit {
		return Hit
	}
	return Clear
}

// parse is strict where the library is lenient: it takes anything for a version of some ecosystems, and an order of what are no versions clears nothing.
func parse(version, kind string, strict bool) (semantic.Version, error) {
	plain := strings.TrimPrefix(version, "v")
	if strict && !semver.IsValid("v"+plain) || !strings.ContainsAny(plain, "0123456789") {
		return nil, fmt.Errorf("%w: version %q", ErrFormat, version)
	}
	return semantic.Parse(plain, kind)
}

func (e Event) version() string { return e.Introduced + e.Fixed + e.LastAffected + e.Limit }

// inOrder sorts events by version; of two at one version, an end comes before a beginning.
func inOrder(events []Event, kind string) ([]Event, error) {
	var out []Event
	for _, e := range events {
		if e.Limit == "" {
			out = append(out, e)
		}
	}
	var failed error
	slices.SortStableFunc(out, func(a, b Event) int {
		c := compare(a.version(), b.version(), kind, &failed)
		if c != 0 {
			return c
		}
		return rank(a) - rank(b)
	})
	return out, failed
}

func compare(a, b, kind string, failed *error) int {
	switch {
	case a == b:
		return 0
	case a == "0":
		return -1
	case b == "0":
		return 1
	}
	v, err := semantic.Parse(strings.TrimPrefix(a, "v"), kind)
	if err != nil {
		*failed = err
		return 0
	}
	c, err := v.CompareStr(strings.TrimPrefix(b, "v"))
	if err != nil {
		*failed = err
	}
	return c
}

func rank(e Event) int {
	switch {
	case e.Fixed != "":
		return 0
	case e.Introduced != "":
		return 1
	}
	return 2
}

// Fixed are the versions of p in which the flaw is mended.
func (a Advisory) Fixed(p Package) []string {
	var out []string
	for _, f := range a.Affected {
		for _, r := range f.Ranges {
			for _, e := range r.Events {
				if p.Is(f.Package) && r.Type != "GIT" && e.Fixed != "" && !slices.Contains(out, e.Fixed) {
					out = append(out, e.Fixed)
				}
			}
		}
	}
	return out
}

// In reports whether the advisory is about packages of the ecosystem.
func (a Advisory) In(ecosystem string) bool {
	return slices.ContainsFunc(a.Affected, func(f Affected) bool { return f.Package.Base() == ecosystem })
}
