// Package docstest reads the commands that the documentation tells people to type, so that each program's tests can hold them against
// the program itself.
//
// Under all stages. It believes the text only where it is marked as code: a fenced block of a page under docs/ or of README.md.
// docs/reference is left out: it is made from the programs.
package docstest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Call is one call of a program in a page.
type Call struct {
	Page  string
	Words []string // after the program's name; what a shell would put in is left as it stands
}

// Calls are the calls of a program in the pages of the repository at root.
func Calls(t *testing.T, root, program string) []Call {
	t.Helper()
	var out []Call
	read := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, words := range In(string(text), program) {
			out = append(out, Call{Page: path, Words: words})
		}
	}
	read(filepath.Join(root, "README.md"))
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "reference" {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".md") {
			read(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fenced is a block of code, in a list perhaps, with the language after the fence.
var fenced = regexp.MustCompile("(?ms)^[ ]*```([a-z]*)[^\n]*\n(.*?)^[ ]*```")

// In are the calls of a program in a page's blocks of shell commands, or of no language.
func In(text, program string) [][]string {
	var out [][]string
	for _, m := range fenced.FindAllStringSubmatch(text, -1) {
		switch m[1] {
		case "sh", "":
		case "console":
			m[2] = regexp.MustCompile(`(?m)^[$#] `).ReplaceAllString(m[2], "")
		default:
			continue
		}
		for _, words := range commands(m[2]) {
			if c := after(words, program); c != nil {
				out = append(out, c)
			}
		}
	}
	return out
}

// leading are words that may stand before a command.
var leading = regexp.MustCompile(`^([A-Za-z_]+=.*|do|then|else|if|while|until|time|exec|!|\{|\()$`)

// after gives the words behind the program's name where that is what is called; nil: something else is.
func after(words []string, program string) []string {
	if len(words) > 3 && words[0] == "sudo" && words[1] == "-u" {
		words = words[3:]
	}
	for len(words) > 0 && leading.MatchString(words[0]) {
		words = words[1:]
	}
	if len(words) == 0 || words[0] != program {
		return nil
	}
	return append([]string{}, words[1:]...)
}

// commands splits a script into simple commands and these into words, as a shell does: quotes, comments, continued lines, redirections.
// What stands in $(…) is a command too.
func commands(script string) [][]string {
	s := &splitter{rest: []rune(strings.ReplaceAll(script, "\\\n", " "))}
	for s.split(false) {
	}
	return s.out
}

type splitter struct {
	rest []rune
	out  [][]string
}

// split takes one script off, to its end or to the parenthesis that closes it; false: nothing is left.
func (s *splitter) split(nested bool) bool {
	var words []string
	var word strings.Builder
	inWord := false
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	end := func() {
		endWord()
		if words = plain(words); len(words) > 0 {
			s.out = append(s.out, words)
		}
		words = nil
	}
	for len(s.rest) > 0 {
		c := s.rest[0]
		s.rest = s.rest[1:]
		switch {
		case c == '\'' || c == '"':
			inWord = true
			s.quoted(c, &word)
		case c == '$' && len(s.rest) > 0 && s.rest[0] == '(':
			inWord = true
			s.rest = s.rest[1:]
			s.split(true)
			word.WriteString("$()")
		case c == ')' && nested:
			end()
			return true
		case c == '#' && !inWord:
			for len(s.rest) > 0 && s.rest[0] != '\n' {
				s.rest = s.rest[1:]
			}
		case strings.ContainsRune("\n;|&", c):
			if c == '&' && strings.HasSuffix(word.String(), ">") { // 2>&1
				word.WriteRune(c)
				continue
			}
			end()
		case c == ' ' || c == '\t':
			endWord()
		default:
			inWord = true
			word.WriteRune(c)
		}
	}
	end()
	return false
}

// quoted takes a quoted string off; commands in it count too.
func (s *splitter) quoted(quote rune, word *strings.Builder) {
	for len(s.rest) > 0 {
		c := s.rest[0]
		s.rest = s.rest[1:]
		switch {
		case c == quote:
			return
		case c == '$' && quote == '"' && len(s.rest) > 0 && s.rest[0] == '(':
			s.rest = s.rest[1:]
			s.split(true)
			word.WriteString("$()")
		default:
			word.WriteRune(c)
		}
	}
}

var redirection = regexp.MustCompile(`^[0-9]*[<>]`)

// plain leaves redirections out.
func plain(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		if at := redirection.FindString(words[i]); at == "" {
			out = append(out, words[i])
		} else if at == words[i] || words[i] == ">>" {
			i++ // and the file behind it
		}
	}
	return out
}

// Wrong asks a program about each call: its command has to be there, and to take these flags with these values. help runs the program
// and gives its exit code and what it printed; with --help a program reads its flags and does nothing.
func Wrong(calls []Call, help func(args ...string) (int, string)) []string {
	var out []string
	for _, c := range calls {
		code, text := help(append(append([]string{}, c.Words...), "--help")...)
		switch {
		case code != 0:
			out = append(out, fmt.Sprintf("%s: %q: %s", c.Page, c.Words, strings.TrimSpace(text)))
		case strings.Contains(text, "\nAvailable Commands:") && len(c.Words) > depth(text) && !strings.HasPrefix(c.Words[depth(text)], "-"):
			out = append(out, fmt.Sprintf("%s: %q: there is no such command", c.Page, c.Words))
		}
	}
	return out
}

// depth says below how many words a help text's command is.
func depth(text string) int {
	_, usage, _ := strings.Cut(text, "Usage:\n")
	usage, _, _ = strings.Cut(usage, "[")
	return max(0, len(strings.Fields(usage))-1)
}
