package ddi_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/legacytest"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
)

// A rollout's bytes leave as fast as it says and no faster, until somebody says otherwise; those of another are not held up.
func TestARolloutsBytesLeaveAsFastAsItSays(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1"})
	other, otherToken := w.Admit(legacy.Admission{Name: "door-2"})
	slow, free := rhu{w, "door-1", "TargetToken " + token}, rhu{w, "door-2", "TargetToken " + otherToken}
	data := append([]byte("hsqs"), bytes.Repeat([]byte("rauc bundle "), 50_000)...)
	old := w.Publish("1.0.0", "bundle", append([]byte("hsqs"), "old"...))
	next := w.Publish("1.1.0", "bundle", data, old)
	for _, c := range []rhu{slow, free} {
		c.poll()
		c.config("1.0.0")
	}
	w.RollAs(rollout.Spec{ID: "narrow", Bandwidth: &rollout.Bandwidth{All: 2048, Each: 1024}}, next, id)
	w.Roll("wide", next, other)
	fetch := func(c rhu, patience time.Duration) int {
		t.Helper()
		_, file, _, _, err := c.deployment(c.offered())
		w.Must(err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.Base+file, nil)
		w.Must(err)
		req.Header.Set("Authorization", c.auth)
		resp, err := http.DefaultClient.Do(req)
		w.Must(err)
		defer resp.Body.Close()
		n, _ := io.Copy(io.Discard, resp.Body) // it breaks off where the patience ends
		return int(n)
	}
	if n := fetch(free, time.Minute); n != len(data) {
		t.Errorf("of the rollout without a limit: %d of %d bytes", n, len(data))
	}
	if n := fetch(slow, 4*time.Second); n == 0 || n > 6*1024 { // a turn at once, and then so many in a second
		t.Errorf("%d bytes in 4 s, at 1024 a second", n)
	}
	_, err := w.People["olga"].SetRolloutBandwidth(t.Context(), "narrow", rollout.Bandwidth{}, "at night there is room")
	w.Must(err)
	if n := fetch(slow, time.Minute); n != len(data) {
		t.Errorf("after the limit was taken away: %d of %d bytes", n, len(data))
	}
}
