package store

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/device"
)

// Which devices count is the device stage's rule. A query that lists states by hand goes on with the old rule when that one changes: some listed decommissioned devices
// alone where disposed and moved ones had ended as well.
func TestNoQueryListsStatesByHand(t *testing.T) {
	var names []string
	for _, s := range device.States() {
		names = append(names, string(s))
	}
	byHand := regexp.MustCompile(`\(\s*'(` + strings.Join(names, "|") + `)'\s*[,)]`)
	if !byHand.MatchString(`state IN ('active', 'lost')`) || byHand.MatchString(`state IN ('pending', 'active')`) {
		t.Fatal("it finds nothing, or anything")
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		// A device is given new keys by a rule of its own, and its next state is written in the same statement.
		if strings.HasSuffix(name, "_test.go") || name == "voucher.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if found := byHand.FindString(line); found != "" {
				t.Errorf("%s:%d lists states by hand: %s", name, n+1, found)
			}
		}
	}
}

func TestStatesOfQueries(t *testing.T) {
	for sql, rule := range map[string]func(device.State) bool{
		ended: device.Ended, retiring: device.Retiring, inField: device.InField, reporting: device.Works,
	} {
		listed := strings.Split(strings.Trim(sql, "()"), ", ")
		for _, s := range device.States() {
			if slices.Contains(listed, "'"+string(s)+"'") != rule(s) {
				t.Errorf("%s: %s, want it in: %v", sql, s, rule(s))
			}
		}
		if len(listed) < 3 {
			t.Errorf("%s is too short", sql)
		}
	}
}
