package watch_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger/watch"
)

var update = flag.Bool("update", false, "write the rules into the guide")

// The guide's list of rules is the program's.
func TestTheGuideTellsEveryRule(t *testing.T) {
	const page = "../../docs/guide/watch.md"
	text, err := os.ReadFile(page)
	must(t, err)
	var list strings.Builder
	list.WriteString("| rule | severity | it is told when | what to do |\n|---|---|---|---|\n")
	for _, r := range watch.Rules() {
		fmt.Fprintf(&list, "| `%s` | %s | %s | %s |\n", r.Name, r.Severity, r.When, r.Do)
	}
	before, rest, begun := strings.Cut(string(text), "<!-- rules: ")
	first, rest, _ := strings.Cut(rest, "\n")
	have, after, ended := strings.Cut(rest, "<!-- end of rules -->")
	if !begun || !ended {
		t.Fatalf("%s has no place for the rules", page)
	}
	if *update {
		must(t, os.WriteFile(page, []byte(before+"<!-- rules: "+first+"\n\n"+list.String()+"\n<!-- end of rules -->"+after), 0o600))
		return
	}
	if strings.TrimSpace(have) != strings.TrimSpace(list.String()) {
		t.Errorf("%s: its rules are not the program's: go test ./ledger/watch -run TheGuideTellsEveryRule -update", page)
	}
}
