package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// table writes rows under a head, for people.
func table(w io.Writer, head string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(head, " ", "\t"))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = oneLine(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// spreadsheet writes rows under a head as CSV. What a spreadsheet would take for a formula is marked as text: some of it others have written.
func spreadsheet(w io.Writer, head string, rows [][]string) error {
	c := csv.NewWriter(w)
	if err := c.Write(strings.Fields(head)); err != nil {
		return err
	}
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, v := range r {
			if cells[i] = oneLine(v); cells[i] == "-" {
				cells[i] = ""
			} else if strings.HasPrefix(cells[i], "=") || strings.HasPrefix(cells[i], "+") || strings.HasPrefix(cells[i], "-") || strings.HasPrefix(cells[i], "@") {
				cells[i] = "'" + cells[i]
			}
		}
		if err := c.Write(cells); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// sheet writes what is to be said of one thing: name and value by turns. What is empty is left out.
func sheet(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", oneLine(pairs[i]), oneLine(pairs[i+1]))
		}
	}
	return t.Flush()
}

// when is a time as the reader's clock shows it; the zero time is a dash.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}

func whenever(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return when(*t)
}

// unix is a time on the wire.
func unix(t uint64) string { return when(time.Unix(int64(min(t, 1<<40)), 0)) }

// or gives a dash for nothing.
func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short is the beginning of a digest in hex, enough to tell it from others on a screen.
func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return or(digest)
}

// oneLine keeps a text that others wrote from looking like more rows, or from steering the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// paragraph is oneLine for what may have several.
func paragraph(s string) string {
	parts := strings.Split(s, "\n")
	for i, p := range parts {
		parts[i] = oneLine(p)
	}
	return strings.Join(parts, "\n")
}

// inert writes what steers a terminal, or turns the order of a line around, as JSON's escapes. In a document it is only within strings.
func inert(document []byte) []byte {
	out := make([]byte, 0, len(document))
	for _, r := range string(document) {
		if unicode.IsPrint(r) || r == '\n' {
			out = utf8.AppendRune(out, r)
			continue
		}
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			out = fmt.Appendf(out, "\\u%04x\\u%04x", high, low)
			continue
		}
		out = fmt.Appendf(out, "\\u%04x", r)
	}
	return out
}
