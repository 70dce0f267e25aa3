package delta_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/release/delta"
)

// What the guide says making a delta takes (docs/guide/deltas.md), bytes.
func promised(old, image int) int { return 5*old + 3*image + 160<<20 }

// Images that are shuffled have the most steps there can be, and a delta as large as they are. A process of its own makes the delta: the most that it ever held is seen from outside.
func TestMakingADeltaTakesWhatTheGuideSays(t *testing.T) {
	const child, size, piece = "HALLMARK_TEST_DELTA", 16 << 20, 18
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		_, after, _ := bytes.Cut(out, []byte("VmHWM:"))
		var held int // kB
		if _, err := fmt.Sscan(string(after), &held); err != nil || held<<10 < 6*size {
			t.Fatalf("it says nothing of what it held: %v\n%s", err, out)
		}
		if most := promised(size, size); held<<10 > most {
			t.Errorf("%d MiB were held, and %d are promised", held>>10, most>>20)
		}
		return
	}
	source := rand.NewChaCha8([32]byte{1})
	old := make([]byte, size)
	_, _ = source.Read(old)
	shuffle := rand.New(source)
	image := make([]byte, 0, size)
	for len(image)+piece <= size {
		at := shuffle.IntN(size - piece)
		image = append(image, old[at:at+piece]...)
	}
	var made bytes.Buffer
	if err := delta.Make(t.Context(), old, image, &made); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
}
