package cli

import (
	"encoding/csv"
	"strings"
	"testing"
)

// What others wrote does no harm in a spreadsheet, and comes back out of it whole.
func TestASpreadsheetTakesNothingForAFormula(t *testing.T) {
	var b strings.Builder
	rows := [][]string{{"=HYPERLINK(\"http://evil\")", "+1", "-2", "@x", "-", "a, \"b\"\nc", "12"}}
	if err := spreadsheet(&b, "A B C D E F G", rows); err != nil {
		t.Fatal(err)
	}
	got, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(got) != 2 || strings.Join(got[0], "") != "ABCDEFG" {
		t.Fatalf("%q, %v", got, err)
	}
	for i, want := range []string{"'=HYPERLINK(\"http://evil\")", "'+1", "'-2", "'@x", "", "", "12"} {
		if i != 5 && got[1][i] != want {
			t.Errorf("%q became %q, want %q", rows[0][i], got[1][i], want)
		}
	}
	if strings.Contains(got[1][5], "\n") || !strings.Contains(got[1][5], `a, "b"`) {
		t.Errorf("%q", got[1][5])
	}
}
