package archtest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	linked  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	inLine  = regexp.MustCompile("`[^`]*`")
	unheard = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// prose gives a Markdown page's lines without those of code blocks.
func prose(page string) []string {
	var out []string
	code := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
			continue
		}
		if !code {
			out = append(out, line)
		}
	}
	return out
}

// anchors are the fragments of a page's headings, as GitHub makes them.
func anchors(page string) map[string]bool {
	out, times := map[string]bool{}, map[string]int{}
	for _, line := range prose(page) {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		text := linked.ReplaceAllString(strings.NewReplacer("`", "", "[", "", "*", "").Replace(m[1]), "")
		a := strings.ReplaceAll(unheard.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
		if n := times[a]; n > 0 {
			out[a+"-"+strconv.Itoa(n)] = true
		}
		times[a]++
		out[a] = true
	}
	return out
}

// links are the targets that a page names and that are in the repository.
func links(page string) []string {
	var out []string
	for _, line := range prose(page) {
		for _, m := range linked.FindAllStringSubmatch(inLine.ReplaceAllString(line, ""), -1) {
			if !strings.Contains(m[1], ":") {
				out = append(out, m[1])
			}
		}
	}
	return out
}

// deadEnds are the links of the page at from that lead nowhere. read gives the pages by path, exists says what else there is.
func deadEnds(from string, read map[string]string, exists func(string) bool) []string {
	var out []string
	for _, link := range links(read[from]) {
		file, fragment, _ := strings.Cut(link, "#")
		to := from
		if file != "" {
			to = path.Join(path.Dir(from), file)
		}
		page, isPage := read[to]
		if !isPage && !exists(to) || fragment != "" && !anchors(page)[fragment] {
			out = append(out, link)
		}
	}
	return out
}

// pages are README.md, CONTRIBUTING.md and what is in docs.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"README.md": read(t, "README.md"), "CONTRIBUTING.md": read(t, "CONTRIBUTING.md")}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".md") {
			return err
		}
		rel, err := filepath.Rel(root, p)
		out[filepath.ToSlash(rel)] = read(t, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	all := pages(t)
	if len(all) < 10 {
		t.Fatalf("only %d pages found", len(all))
	}
	for from := range all {
		for _, link := range deadEnds(from, all, func(to string) bool {
			_, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(to)))
			return err == nil
		}) {
			t.Errorf("%s links to %s, which is not there", from, link)
		}
	}
}

func TestTheLinksCanFail(t *testing.T) {
	all := map[string]string{
		"docs/a.md": "# A `b` c!\n# Twice\n# Twice\n[ok](b.md) [ok](b.md#one-two) [ok](#a-b-c) [ok](#twice-1) [ok](../x/) [ok](https://a.example)\n" +
			"[bad](c.md) [bad](b.md#three) [bad](#twice-2)\n`[code](d.md)`\n```\n[code](e.md)\n# Code\n```\n[bad](#code)\n",
		"docs/b.md": "## One, two\n",
	}
	got := deadEnds("docs/a.md", all, func(p string) bool { return p == "x" })
	if want := "c.md b.md#three #twice-2 #code"; strings.Join(got, " ") != want {
		t.Errorf("dead ends: %v, want %s", got, want)
	}
}
