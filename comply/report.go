package comply

import (
	"fmt"
	"strings"
	"time"
)

// Markdown writes the report for people. What is in it was written by many, so that nothing of it is left to mean something.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# How %s stands\n\nMeasured at %s. A control is met only by fresh evidence and, where a person has a part in it, by a statement that is not past its review. "+
		"What is missing, old or not measured is unknown.\n", plain(r.Product), r.AsOf.UTC().Format(time.RFC3339))
	for _, s := range r.Summary {
		fmt.Fprintf(&b, "\n## %s, %s\n\n| met | not met | unknown | not applicable |\n|---|---|---|---|\n| %d | %d | %d | %d |\n",
			plain(s.Title), plain(s.Version), s.Counts[Met], s.Counts[NotMet], s.Counts[Unknown], s.Counts[NotApplicable])
		for _, a := range r.Controls {
			if a.Framework == s.Framework {
				a.write(&b)
			}
		}
	}
	return b.String()
}

func (a Assessment) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s %s\n\n**%s.** %s\n", plain(a.ID), plain(a.Title), a.Standing.Words(), plain(a.Reason))
	if a.Lacks != "" {
		fmt.Fprintf(b, "\nMissing: %s.\n", plain(a.Lacks))
	}
	if j := a.Measured; j != nil {
		b.WriteString("\n")
		for _, f := range j.Figures {
			fmt.Fprintf(b, "- %s: %s\n", plain(f.What), f.Number())
		}
		if !j.Newest.IsZero() {
			fmt.Fprintf(b, "- newest evidence: %s\n", j.Newest.UTC().Format(time.RFC3339))
		}
		for _, l := range j.Evidence {
			fmt.Fprintf(b, "- see %s: `%s`\n", plain(l.Text), strings.ReplaceAll(l.Place(), "`", ""))
		}
	}
	if s := a.OnFile; s != nil {
		fmt.Fprintf(b, "\n> %s\n>\n> %s, by %s on %s, to be reviewed by %s", plain(s.Text), plain(string(s.Kind)), plain(s.By), day(s.At), day(s.ReviewBy))
		if s.Evidence != nil {
			fmt.Fprintf(b, " (%s)", s.Evidence.Place())
		}
		b.WriteString("\n")
	}
}

// Words is the status for people.
func (s Status) Words() string {
	switch s {
	case Met:
		return "Met"
	case NotMet:
		return "Not met"
	case NotApplicable:
		return "Not applicable"
	case Unknown:
	}
	return "Unknown"
}

// Number is the figure for people: a number, or a part of a whole.
func (f Figure) Number() string {
	if f.Of == 0 {
		return fmt.Sprint(f.N)
	}
	return fmt.Sprintf("%d of %d", f.N, f.Of)
}

// Place is where the link leads, as a person would say it.
func (l Link) Place() string {
	if l.Fact != nil {
		return fmt.Sprintf("%s/%d", l.Fact.Log, l.Fact.Index)
	}
	return l.List
}

// plain takes from a text what Markdown, or HTML in it, would make something of.
func plain(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]<>()#+!|~&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
