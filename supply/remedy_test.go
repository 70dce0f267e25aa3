package supply_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/hallmark-iot/hallmark/supply"
)

// Whatever the gate does not let through, it says what to do.
func TestEveryStepThatIsNotGoodHasARemedy(t *testing.T) {
	source, err := os.ReadFile("decide.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`"((?:digest|sbom|provenance|advisories|vex)\.[a-z-]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 15 {
		t.Fatalf("%d codes are found: the gate has more", len(codes))
	}
	for _, c := range codes {
		if supply.Remedy(string(c[1])) == "" {
			t.Errorf("%s: nothing says what to do", c[1])
		}
	}
}
