package pace

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

type still struct{ io.ReadSeeker }

func (still) Close() error { return nil }

// Limits that nobody uses any more are let go of, and all of them are looked at once in a while only.
func TestWhatIsWholeAgainIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, p := time.Now(), New(func(context.Context, string) (Limit, error) {
			return Limit{Name: "r", All: 1 << 20, Each: 1 << 10}, nil
		})
		use := func(device string) {
			f, err := p.Slow(t.Context(), device, still{bytes.NewReader(nil)})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			at     time.Duration
			device string
			left   int // with that of the rollout
		}{
			{0, "a", 2},
			{30 * time.Second, "b", 3},
			{61 * time.Second, "c", 3},  // a is let go of
			{100 * time.Second, "d", 4}, // b might be, and nobody looks yet
			{122 * time.Second, "e", 3}, // b and c are
		} {
			time.Sleep(step.at - time.Since(began))
			use(step.device)
			if len(p.shares) != step.left {
				t.Errorf("after %s: %d limits, want %d", step.at, len(p.shares), step.left)
			}
		}
	})
}
